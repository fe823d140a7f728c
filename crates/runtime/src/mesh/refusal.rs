//! Why a connection of the mesh did not come about: a class for counting, words for people.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::{IntCounterVec, Opts, Registry};
use rustls::{AlertDescription, CertificateError, Error as TlsFailure, PeerIncompatible};

use crate::clock::Clock;

use super::MeshName;

/// Class of a refusal, the label of its metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// The certificate is of an authority that is not believed, or missing.
    Authority,
    /// It is expired or not yet valid.
    Validity,
    /// It does not have exactly one usable URI name.
    Name,
    /// It is of another mesh.
    TrustDomain,
    /// The role has no business here.
    Role,
    /// The region is not the right one.
    Region,
    /// It was the other side that refused.
    Peer,
    /// No common protocol, or no answer in time.
    Protocol,
}

impl Reason {
    fn as_str(self) -> &'static str {
        match self {
            Reason::Authority => "authority",
            Reason::Validity => "validity",
            Reason::Name => "name",
            Reason::TrustDomain => "trust_domain",
            Reason::Role => "role",
            Reason::Region => "region",
            Reason::Peer => "peer",
            Reason::Protocol => "protocol",
        }
    }
}

/// A refusal with its words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) reason: Reason,
    pub(super) text: String,
}

impl Refusal {
    pub(super) fn new(reason: Reason, text: impl Into<String>) -> Self {
        Self { reason, text: text.into() }
    }

    /// What a failed handshake means. `claimed` is who the peer says it is, `ours` who we are.
    pub(super) fn of_handshake(error: &io::Error, claimed: &str, ours: &MeshName) -> Self {
        let Some(failure) = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsFailure>()) else {
            return Self::new(Reason::Protocol, format!("the connection broke during the handshake: {error}"));
        };
        match failure {
            TlsFailure::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => Self::new(
                Reason::Authority,
                format!(
                    "its certificate ({claimed}) is of no authority that we trust: it is of another mesh, or of a new authority that we have not got yet (compare the ca.crt files)"
                ),
            ),
            TlsFailure::InvalidCertificate(
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. },
            ) => Self::new(
                Reason::Validity,
                format!("its certificate ({claimed}) is not valid now: {failure}; look at its renewal and at both clocks"),
            ),
            TlsFailure::InvalidCertificate(_) => {
                Self::new(Reason::Authority, format!("its certificate ({claimed}) cannot be used: {failure}"))
            }
            TlsFailure::NoCertificatesPresented => Self::new(
                Reason::Authority,
                "it showed no certificate; members of the mesh and operators need one of its authority (tidegate certs issue)",
            ),
            TlsFailure::AlertReceived(alert) => Self::new(Reason::Peer, alert_text(*alert, ours)),
            TlsFailure::InvalidMessage(_) => {
                Self::new(Reason::Protocol, "the other side does not speak TLS: one of the two runs without certificates")
            }
            TlsFailure::PeerIncompatible(
                PeerIncompatible::SupportedVersionsExtensionRequired
                | PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls13RequiredForQuic,
            )
            | TlsFailure::PeerIncompatible(_) => {
                Self::new(Reason::Protocol, format!("no common ground ({failure}); the mesh speaks TLS 1.3 only"))
            }
            other => Self::new(Reason::Protocol, other.to_string()),
        }
    }
}

/// The other side says so in one byte; what it means here.
fn alert_text(alert: AlertDescription, ours: &MeshName) -> String {
    match alert {
        AlertDescription::UnknownCA => format!(
            "it does not trust the authority of our certificate ({ours}): it is of another mesh, or has not got our new authority yet (compare the ca.crt files)"
        ),
        AlertDescription::CertificateExpired => {
            format!("it finds our certificate ({ours}) expired or not yet valid; look at our renewal and at both clocks")
        }
        AlertDescription::CertificateRequired => "it wants a certificate and got none".to_owned(),
        AlertDescription::ProtocolVersion => "it has no common TLS version with us; the mesh speaks TLS 1.3 only".to_owned(),
        AlertDescription::NoApplicationProtocol => "it does not speak the mesh's protocol on this address".to_owned(),
        other => format!("it refused our certificate ({ours}) or our handshake: {other:?}"),
    }
}

/// Counts of connections and refusals. Clones share them.
#[derive(Debug, Clone)]
pub struct MeshMetrics {
    connections: IntCounterVec,
    refused: IntCounterVec,
    quiet: Arc<Quiet>,
}

/// Lets one line a second through: a stranger who knocks a thousand times must not fill the log.
#[derive(Debug)]
struct Quiet {
    clock: Clock,
    /// Second since the start of the last line, plus one; zero for none yet.
    last: AtomicU64,
    suppressed: AtomicU64,
}

/// Who asked for the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The other side.
    Accept,
    /// We.
    Dial,
}

impl Side {
    fn as_str(self) -> &'static str {
        match self {
            Side::Accept => "accept",
            Side::Dial => "dial",
        }
    }
}

impl MeshMetrics {
    /// Adds `tidegate_mesh_connections_total{side}` and `tidegate_mesh_refused_total{side,reason}`. Once per process.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let connections =
            IntCounterVec::new(Opts::new("tidegate_mesh_connections_total", "Connections inside the mesh that came about."), &["side"])?;
        let refused = IntCounterVec::new(
            Opts::new("tidegate_mesh_refused_total", "Connections inside the mesh that one of the two sides refused."),
            &["side", "reason"],
        )?;
        registry.register(Box::new(connections.clone()))?;
        registry.register(Box::new(refused.clone()))?;
        let quiet = Quiet { clock: Clock::start(), last: AtomicU64::new(0), suppressed: AtomicU64::new(0) };
        Ok(Self { connections, refused, quiet: Arc::new(quiet) })
    }

    pub(super) fn connected(&self, side: Side) {
        self.connections.with_label_values(&[side.as_str()]).inc();
    }

    pub(super) fn refused(&self, side: Side, reason: Reason) {
        self.refused.with_label_values(&[side.as_str(), reason.as_str()]).inc();
    }

    /// Whether a line may be logged now, and how many were not since the last one.
    pub(super) fn may_log(&self) -> Option<u64> {
        let second = self.quiet.clock.micros() / 1_000_000 + 1;
        if self.quiet.last.swap(second, Ordering::Relaxed) == second {
            self.quiet.suppressed.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.quiet.suppressed.swap(0, Ordering::Relaxed))
    }
}
