//! Who may be at the other end: the chain during the handshake, the name and what it entitles to after it.
//!
//! The handshake proves the chain only, because a TLS alert has no room for a reason. What the name does not entitle to is said
//! afterwards in words (see [`super::verdict`]), to peers whose chain is good and to nobody else.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::tls::material;

use super::identity::State;
use super::refusal::{Reason, Refusal};
use super::{Expect, MeshName, Role};

/// Whom a listener lets in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admit {
    /// The roles that have business here.
    pub roles: Vec<Role>,
    /// The region that callers must be in; `None` takes any.
    pub region: Option<String>,
}

impl Admit {
    /// These roles, from any region.
    pub fn roles(roles: impl Into<Vec<Role>>) -> Self {
        Self { roles: roles.into(), region: None }
    }

    /// These roles, from one region.
    pub fn in_region(roles: impl Into<Vec<Role>>, region: impl Into<String>) -> Self {
        Self { roles: roles.into(), region: Some(region.into()) }
    }

    /// Judges a caller of our own trust domain `trust`.
    pub(super) fn judge(&self, trust: &str, caller: &MeshName) -> Result<(), Refusal> {
        same_trust(trust, caller)?;
        if !self.roles.contains(&caller.role()) {
            let roles: Vec<&str> = self.roles.iter().map(|role| role.as_str()).collect();
            let text = format!("{caller} has role {}; this listener admits {}", caller.role(), roles.join(", "));
            return Err(Refusal::new(Reason::Role, text));
        }
        same_region(self.region.as_deref(), caller, "this listener admits")
    }
}

impl Expect {
    /// Judges a server of our own trust domain `trust`.
    pub(super) fn judge(&self, trust: &str, server: &MeshName) -> Result<(), Refusal> {
        same_trust(trust, server)?;
        if self.role != server.role() {
            return Err(Refusal::new(Reason::Role, format!("{server} has role {}; the caller wants {}", server.role(), self.role)));
        }
        same_region(self.region.as_deref(), server, "the caller wants")
    }
}

fn same_trust(ours: &str, peer: &MeshName) -> Result<(), Refusal> {
    if peer.trust() == ours {
        return Ok(());
    }
    let text = format!("{peer} is of trust domain {}, another mesh; ours is {ours}", peer.trust());
    Err(Refusal::new(Reason::TrustDomain, text))
}

fn same_region(wanted: Option<&str>, peer: &MeshName, who: &str) -> Result<(), Refusal> {
    match wanted {
        Some(region) if region != peer.region() => {
            Err(Refusal::new(Reason::Region, format!("{peer} is in region {}; {who} {region} only", peer.region())))
        }
        _ => Ok(()),
    }
}

/// The name in a certificate that was verified, or why it has none.
pub(super) fn name_of(leaf: &CertificateDer<'_>) -> Result<MeshName, Refusal> {
    let facts =
        material::leaf_facts("certificate of the peer".as_ref(), leaf).map_err(|error| Refusal::new(Reason::Name, error.to_string()))?;
    only_name(&facts.uris).map_err(|text| Refusal::new(Reason::Name, text))
}

/// Exactly one URI name: with two, each side could read another one.
pub(super) fn only_name(uris: &[String]) -> Result<MeshName, String> {
    match uris {
        [uri] => uri.parse().map_err(|error| format!("the certificate's URI name: {error}")),
        [] => Err("the certificate has no URI name (subject alternative name); it must have exactly one, spiffe://<trust domain>/region/<region>/<control|edge|admin>/<name>".to_owned()),
        many => Err(format!("the certificate has {} URI names ({}); it must have exactly one", many.len(), many.join(", "))),
    }
}

/// Verifies the chain of one handshake and remembers the leaf, so that a refusal can say whose it was.
#[derive(Debug)]
pub(super) struct PeerVerifier {
    state: Arc<State>,
    shown: OnceLock<CertificateDer<'static>>,
}

impl PeerVerifier {
    pub(super) fn new(state: Arc<State>) -> Arc<Self> {
        Arc::new(Self { state, shown: OnceLock::new() })
    }

    /// Who the peer says it is, proven or not; for messages.
    pub(super) fn claimed(&self) -> String {
        let Some(leaf) = self.shown.get() else {
            return "no certificate".to_owned();
        };
        match material::leaf_facts("certificate".as_ref(), leaf) {
            Ok(facts) if !facts.uris.is_empty() => facts.uris.join(", ").chars().take(SHOWN).collect(),
            Ok(facts) if !facts.names.is_empty() => facts.names.join(", ").chars().take(SHOWN).collect(),
            _ => "a certificate without names".to_owned(),
        }
    }

    fn remember(&self, leaf: &CertificateDer<'_>) {
        // The first one is the one: a handshake verifies once.
        let _ = self.shown.set(leaf.clone().into_owned());
    }
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.remember(leaf);
        self.state.trust.verify_server(leaf, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        m: &[u8],
        c: &CertificateDer<'_>,
        d: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.state.trust.callers.verify_tls12_signature(m, c, d)
    }

    fn verify_tls13_signature(
        &self,
        m: &[u8],
        c: &CertificateDer<'_>,
        d: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.state.trust.callers.verify_tls13_signature(m, c, d)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.state.trust.callers.supported_verify_schemes()
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // None: a caller has one certificate and shows it, and strangers need not learn whom we believe.
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.remember(leaf);
        self.state.trust.callers.verify_client_cert(leaf, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        m: &[u8],
        c: &CertificateDer<'_>,
        d: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.state.trust.callers.verify_tls12_signature(m, c, d)
    }

    fn verify_tls13_signature(
        &self,
        m: &[u8],
        c: &CertificateDer<'_>,
        d: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.state.trust.callers.verify_tls13_signature(m, c, d)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.state.trust.callers.supported_verify_schemes()
    }
}

/// How much of a stranger's names is repeated, characters.
const SHOWN: usize = 300;
