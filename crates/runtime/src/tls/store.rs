//! The certificates that a server shows, chosen by the name that the caller asks for and replaceable at any time.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::SignatureScheme;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::material::{self, LeafFacts};
use super::reload::ReloadReport;
use super::{CertificateFiles, TlsError, provider};

/// Several certificates behind one listener. A handshake takes the one whose names fit, the first one when none does or the caller
/// names no host. A connection keeps what it began with; a replaced certificate is seen by the next handshake.
#[derive(Debug)]
pub struct CertificateStore {
    files: Vec<CertificateFiles>,
    provider: Arc<CryptoProvider>,
    shown: ArcSwap<Shown>,
    /// Held while reloading, so that two reloads do not overwrite each other.
    reloading: Mutex<()>,
}

/// A certificate in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateInfo {
    /// Where it came from.
    pub path: PathBuf,
    /// DNS names in lower case.
    pub names: Vec<String>,
    /// End of its validity, seconds since the Unix epoch.
    pub not_after: u64,
}

impl CertificateStore {
    /// Reads all pairs. The first one is the default. `unix_now` is the time that expiry is judged by, seconds.
    pub fn load(files: Vec<CertificateFiles>, unix_now: u64) -> Result<Arc<Self>, TlsError> {
        if files.is_empty() {
            return Err(TlsError::NoCertificates);
        }
        let provider = provider();
        let mut entries = Vec::with_capacity(files.len());
        for pair in &files {
            let chain = material::read_certificates(&pair.cert)?;
            entries.push(Arc::new(Entry::build(pair, chain, &provider, unix_now)?));
        }
        Ok(Arc::new(Self { files, provider, shown: ArcSwap::from_pointee(Shown::new(entries)), reloading: Mutex::new(()) }))
    }

    /// Reads the files again and takes over every pair that changed and is good. A bad pair is reported and its predecessor kept.
    pub fn reload_now(&self, unix_now: u64) -> ReloadReport {
        let _one_at_a_time = self.reloading.lock();
        let shown = self.shown.load_full();
        let mut report = ReloadReport::default();
        let mut entries = Vec::with_capacity(self.files.len());
        for (pair, current) in self.files.iter().zip(&shown.entries) {
            match self.read_again(pair, current, unix_now) {
                Ok(None) => entries.push(Arc::clone(current)),
                Ok(Some(fresh)) => {
                    report.replaced.push(fresh.info(pair));
                    entries.push(Arc::new(fresh));
                }
                Err(error) => {
                    report.errors.push(error);
                    entries.push(Arc::clone(current));
                }
            }
        }
        if !report.replaced.is_empty() {
            self.shown.store(Arc::new(Shown::new(entries)));
        }
        report
    }

    /// What is shown now, in the order of the configuration.
    pub fn certificates(&self) -> Vec<CertificateInfo> {
        let shown = self.shown.load();
        self.files.iter().zip(&shown.entries).map(|(pair, entry)| entry.info(pair)).collect()
    }

    /// The certificate for a host name. `schemes` are the signatures that the caller can verify; of two certificates with the same
    /// name (ECDSA and RSA, say) the first that fits is taken.
    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let shown = self.shown.load();
        let named = name.and_then(|name| shown.find(name, schemes));
        let entry = named.or_else(|| shown.entries.first())?;
        Some(Arc::clone(&entry.key))
    }

    fn read_again(&self, pair: &CertificateFiles, current: &Entry, unix_now: u64) -> Result<Option<Entry>, TlsError> {
        let chain = material::read_certificates(&pair.cert)?;
        if chain == current.key.cert {
            return Ok(None);
        }
        Entry::build(pair, chain, &self.provider, unix_now).map(Some)
    }
}

impl ResolvesServerCert for CertificateStore {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name(), hello.signature_schemes())
    }
}

#[derive(Debug)]
struct Entry {
    key: Arc<CertifiedKey>,
    facts: LeafFacts,
}

impl Entry {
    fn build(
        pair: &CertificateFiles,
        chain: Vec<rustls_pki_types::CertificateDer<'static>>,
        provider: &CryptoProvider,
        unix_now: u64,
    ) -> Result<Self, TlsError> {
        let leaf = chain.first().ok_or(TlsError::NoCertificates)?;
        let facts = material::leaf_facts(&pair.cert, leaf)?;
        if facts.not_after <= unix_now {
            return Err(TlsError::Expired { path: pair.cert.clone(), not_after: facts.not_after });
        }
        let key = material::certified_key(pair, chain, provider)?;
        Ok(Self { key: Arc::new(key), facts })
    }

    fn info(&self, pair: &CertificateFiles) -> CertificateInfo {
        CertificateInfo { path: pair.cert.clone(), names: self.facts.names.clone(), not_after: self.facts.not_after }
    }

    fn can_sign(&self, schemes: &[SignatureScheme]) -> bool {
        self.key.key.choose_scheme(schemes).is_some()
    }
}

/// One immutable state of the store.
#[derive(Debug)]
struct Shown {
    entries: Vec<Arc<Entry>>,
    /// Positions in `entries` by exact name.
    exact: HashMap<String, Vec<usize>>,
    /// Positions in `entries` by what follows the `*.` of a wildcard.
    wildcard: HashMap<String, Vec<usize>>,
}

impl Shown {
    fn new(entries: Vec<Arc<Entry>>) -> Self {
        let mut exact: HashMap<String, Vec<usize>> = HashMap::new();
        let mut wildcard: HashMap<String, Vec<usize>> = HashMap::new();
        for (position, entry) in entries.iter().enumerate() {
            for name in &entry.facts.names {
                let (map, key) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut wildcard, parent),
                    None => (&mut exact, name.as_str()),
                };
                map.entry(key.to_owned()).or_default().push(position);
            }
        }
        Self { entries, exact, wildcard }
    }

    /// An exact name beats a wildcard; a wildcard stands for exactly one label (RFC 9525, section 6.3).
    fn find(&self, name: &str, schemes: &[SignatureScheme]) -> Option<&Arc<Entry>> {
        let lower = name.to_ascii_lowercase();
        let by_wildcard = || {
            let (_, parent) = lower.split_once('.')?;
            self.wildcard.get(parent)
        };
        let positions = self.exact.get(&lower).or_else(by_wildcard)?;
        let mut fitting = positions.iter().filter_map(|&position| self.entries.get(position));
        let any = fitting.clone().next();
        fitting.find(|entry| entry.can_sign(schemes)).or(any)
    }
}
