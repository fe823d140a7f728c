//! Who we are and whom we believe: our certificate, its key and the trusted authorities, renewable while connections run.
//!
//! The three files are those of a cert-manager or SPIRE secret. They are polled like every certificate, and swapped as one value:
//! a handshake sees either all of the old state or all of the new. A new certificate is taken over only if it would be believed
//! by a member with our own authorities and still names us.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::clock::Clock;
use crate::tasks::Tasks;
use crate::tls::{CertificateFiles, CertificateInfo, ReloadMetrics, ReloadReport, TlsError, material, provider};

use super::MeshName;

/// Where a member's identity lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityFiles {
    /// Our certificate chain and its key.
    pub pair: CertificateFiles,
    /// PEM files of the authorities that we believe; all certificates of all files count.
    pub authorities: Vec<PathBuf>,
}

impl IdentityFiles {
    /// The names that cert-manager gives the files of a secret: `tls.crt`, `tls.key`, `ca.crt`.
    pub fn in_dir(dir: &Path) -> Self {
        Self { pair: CertificateFiles { cert: dir.join("tls.crt"), key: dir.join("tls.key") }, authorities: vec![dir.join("ca.crt")] }
    }
}

/// A renewable identity; see the module.
#[derive(Debug)]
pub struct Identity {
    files: IdentityFiles,
    /// How long an authority is believed after it has left the files.
    overlap: Duration,
    name: MeshName,
    state: ArcSwap<State>,
    /// Held while reloading, so that two reloads do not overwrite each other.
    reloading: Mutex<()>,
    metrics: ReloadMetrics,
}

impl Identity {
    /// Long enough that every member of the old authority has renewed its leaf of 24 hours.
    pub const DEFAULT_OVERLAP: Duration = Duration::from_secs(24 * 3_600);

    /// Reads the files. `overlap` is how long an authority is still believed after it left the files; it is kept in memory only, so a
    /// restart believes what is in the files and nothing else. `unix_now` is the time that expiry is judged by, seconds.
    pub fn load(files: IdentityFiles, overlap: Duration, unix_now: u64) -> Result<Arc<Self>, TlsError> {
        let trust = Trust::build(read_authorities(&files.authorities)?, HashMap::new())?;
        let leaf = Leaf::build(&files.pair, material::read_certificates(&files.pair.cert)?, &trust, unix_now)?;
        let name = leaf.name.clone();
        let state = ArcSwap::from_pointee(State { trust: Arc::new(trust), leaf: Arc::new(leaf) });
        Ok(Arc::new(Self { files, overlap, name, state, reloading: Mutex::new(()), metrics: ReloadMetrics::default() }))
    }

    /// Our name. A renewal cannot change it.
    pub fn name(&self) -> &MeshName {
        &self.name
    }

    /// The files it is read from.
    pub fn files(&self) -> &IdentityFiles {
        &self.files
    }

    /// The certificate in use.
    pub fn certificate(&self) -> CertificateInfo {
        self.state.load().leaf.info(&self.files.pair)
    }

    /// Reads the files again, takes over what changed and is good, logs and counts it. What is bad is reported and its predecessor kept.
    pub fn reload_now(&self, unix_now: u64) -> ReloadReport {
        let _one_at_a_time = self.reloading.lock();
        let mut report = ReloadReport::default();
        let current = self.state.load_full();
        let trust = match self.renew_trust(&current.trust, unix_now) {
            Ok(trust) => trust,
            Err(error) => {
                report.errors.push(error);
                None
            }
        };
        let trust_changed = trust.is_some();
        let trust = trust.map_or_else(|| Arc::clone(&current.trust), Arc::new);
        let leaf = match self.renew_leaf(&current.leaf, &trust, unix_now) {
            Ok(leaf) => leaf,
            Err(error) => {
                report.errors.push(error);
                None
            }
        };
        if let Some(fresh) = &leaf {
            let info = fresh.info(&self.files.pair);
            tracing::info!(path = %info.path.display(), not_after = info.not_after, name = %self.name, "a renewed identity is in use");
            report.replaced.push(info);
        }
        if trust_changed {
            let (listed, retired) = (trust.listed.len(), trust.retired.len());
            tracing::info!(authorities = listed, retired, "the authorities of the mesh changed");
        }
        if trust_changed || leaf.is_some() {
            let leaf = leaf.map_or_else(|| Arc::clone(&current.leaf), Arc::new);
            self.state.store(Arc::new(State { trust, leaf }));
        }
        for error in &report.errors {
            tracing::error!(%error, name = %self.name, "the identity cannot be renewed; the previous one stays in use");
        }
        self.metrics.observe(&report);
        report
    }

    /// Polls the files until the stop of `tasks` is requested.
    pub fn start(self: &Arc<Self>, every: Duration, clock: Clock, tasks: &Tasks) {
        let identity = Arc::clone(self);
        let shutdown = tasks.shutdown().clone();
        tasks.spawn("identity-reload", async move {
            loop {
                // Dropping the sleep is safe: there is nothing in it.
                tokio::select! {
                    () = shutdown.requested() => return,
                    () = tokio::time::sleep(every) => {}
                }
                let looking = Arc::clone(&identity);
                // Files may lie on a slow mount; the runtime must not wait for it.
                let looked = tokio::task::spawn_blocking(move || looking.reload_now(clock.unix_seconds())).await;
                if let Err(error) = looked {
                    tracing::error!(%error, "the reload of the identity did not finish");
                }
            }
        });
    }

    pub(crate) fn metrics(&self) -> &ReloadMetrics {
        &self.metrics
    }

    /// What the next handshake uses.
    pub(super) fn state(&self) -> Arc<State> {
        self.state.load_full()
    }

    /// `None` when nothing changed.
    fn renew_trust(&self, current: &Trust, unix_now: u64) -> Result<Option<Trust>, TlsError> {
        let listed = read_authorities(&self.files.authorities)?;
        let mut retired = current.retired.clone();
        for gone in current.listed.iter().filter(|authority| !listed.contains(authority)) {
            retired.insert(gone.clone(), unix_now.saturating_add(self.overlap.as_secs()));
        }
        retired.retain(|authority, until| *until > unix_now && !listed.contains(authority));
        if listed == current.listed && retired == current.retired {
            return Ok(None);
        }
        Trust::build(listed, retired).map(Some)
    }

    /// `None` when nothing changed.
    fn renew_leaf(&self, current: &Leaf, trust: &Trust, unix_now: u64) -> Result<Option<Leaf>, TlsError> {
        let pair = &self.files.pair;
        let chain = material::read_certificates(&pair.cert)?;
        if chain == current.key.cert {
            return Ok(None);
        }
        let fresh = Leaf::build(pair, chain, trust, unix_now)?;
        if fresh.name != self.name {
            let problem =
                format!("names {}, but this process is {}; a renewal keeps the name, a new name needs a restart", fresh.name, self.name);
            return Err(material::content(&pair.cert, problem));
        }
        Ok(Some(fresh))
    }
}

/// One immutable state of an identity.
#[derive(Debug)]
pub(super) struct State {
    pub(super) trust: Arc<Trust>,
    pub(super) leaf: Arc<Leaf>,
}

/// Whom we believe.
#[derive(Debug)]
pub(super) struct Trust {
    /// In the files now.
    listed: Vec<CertificateDer<'static>>,
    /// No longer in the files, with the Unix second until which they still count.
    retired: HashMap<CertificateDer<'static>, u64>,
    /// All of them, for servers that we dial.
    pub(super) roots: RootCertStore,
    /// All of them, for callers.
    pub(super) callers: Arc<dyn ClientCertVerifier>,
}

impl Trust {
    fn build(listed: Vec<CertificateDer<'static>>, retired: HashMap<CertificateDer<'static>, u64>) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for authority in listed.iter().chain(retired.keys()) {
            roots.add(authority.clone()).map_err(|error| TlsError::Config(format!("an authority of the mesh: {error}")))?;
        }
        let callers = WebPkiClientVerifier::builder_with_provider(Arc::new(roots.clone()), provider())
            .build()
            .map_err(|error| TlsError::Config(error.to_string()))?;
        Ok(Self { listed, retired, roots, callers })
    }

    /// Whether the chain (leaf first) ends in one of the authorities and its leaf is good for serving.
    pub(super) fn verify_server(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let parsed = ParsedCertificate::try_from(leaf)?;
        let algorithms = provider().signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms)
    }
}

/// Who we say we are.
#[derive(Debug)]
pub(super) struct Leaf {
    pub(super) key: Arc<CertifiedKey>,
    name: MeshName,
    names: Vec<String>,
    not_after: u64,
}

impl Leaf {
    /// Parses, and checks everything that another member would check.
    fn build(pair: &CertificateFiles, chain: Vec<CertificateDer<'static>>, trust: &Trust, unix_now: u64) -> Result<Self, TlsError> {
        let (leaf, intermediates) = chain.split_first().ok_or(TlsError::NoCertificates)?;
        let facts = material::leaf_facts(&pair.cert, leaf)?;
        let name = super::verify::only_name(&facts.uris).map_err(|problem| material::content(&pair.cert, problem))?;
        if facts.not_after <= unix_now {
            return Err(TlsError::Expired { path: pair.cert.clone(), not_after: facts.not_after });
        }
        let now = UnixTime::since_unix_epoch(Duration::from_secs(unix_now));
        let chained = trust
            .verify_server(leaf, intermediates, now)
            .and_then(|()| trust.callers.verify_client_cert(leaf, intermediates, now).map(|_| ()));
        if let Err(error) = chained {
            let problem = format!(
                "would not be believed by the mesh ({error}); it must come from one of our own authorities and be good for both server and client authentication"
            );
            return Err(material::content(&pair.cert, problem));
        }
        let key = material::certified_key(pair, chain, &provider())?;
        Ok(Self { key: Arc::new(key), name, names: facts.names, not_after: facts.not_after })
    }

    fn info(&self, pair: &CertificateFiles) -> CertificateInfo {
        CertificateInfo { path: pair.cert.clone(), names: self.names.clone(), not_after: self.not_after }
    }
}

/// All certificates of the files, each once, in a fixed order.
fn read_authorities(paths: &[PathBuf]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let mut all = Vec::new();
    for path in paths {
        all.extend(material::read_certificates(path)?);
    }
    if all.is_empty() {
        return Err(TlsError::NoRoots);
    }
    all.sort_unstable_by(|one, other| one.as_ref().cmp(other.as_ref()));
    all.dedup();
    Ok(all)
}
