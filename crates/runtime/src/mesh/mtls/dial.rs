//! The dialling side.

use std::sync::Arc;

use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::MtlsOptions;
use crate::mesh::aging::Aging;
use crate::mesh::identity::Identity;
use crate::mesh::plain;
use crate::mesh::refusal::{MeshMetrics, Reason, Refusal, Side};
use crate::mesh::verdict;
use crate::mesh::verify::{PeerVerifier, name_of};
use crate::mesh::{BoxFuture, Dial, DialError, Expect, Io};

/// Dials with our identity, and talks only to servers of our mesh with the expected role and region.
#[derive(Debug, Clone)]
pub struct MtlsDialer {
    identity: Arc<Identity>,
    metrics: MeshMetrics,
    options: MtlsOptions,
}

impl MtlsDialer {
    /// A dialler for this identity.
    pub fn new(identity: Arc<Identity>, metrics: MeshMetrics, options: MtlsOptions) -> Self {
        Self { identity, metrics, options }
    }

    async fn connect(&self, address: &str, expect: Expect) -> Result<Io, DialError> {
        let stream = plain::connect(address).await?;
        let mut stream = self.handshake(address, stream).await?;
        if stream.get_ref().1.alpn_protocol() != Some(verdict::ALPN_MESH) {
            self.metrics.refused(Side::Dial, Reason::Protocol);
            return Err(DialError::Tls {
                address: address.to_owned(),
                reason: "it does not speak the mesh's protocol on this address".to_owned(),
            });
        }
        // The server speaks first: what it refused in the handshake itself arrives here too, as an alert.
        let admitted = verdict::read(&mut stream).await;
        let (judged, found) = self.judge(&stream, &expect);
        if let Err(refusal) = judged {
            self.metrics.refused(Side::Dial, refusal.reason);
            let reason = match &admitted {
                Ok(Err(theirs)) => format!("{}; it refused us too: {theirs}", refusal.text),
                _ => refusal.text,
            };
            if let Ok(Ok(())) = admitted {
                // Whether it hears our reason or not, we hang up.
                let _ = verdict::send(&mut stream, Err(&reason)).await;
                verdict::linger(&mut stream).await;
            }
            return Err(DialError::Unexpected { address: address.to_owned(), expected: expect, found, reason });
        }
        let refused = |reason| DialError::Refused { address: address.to_owned(), reason };
        match admitted {
            Ok(Ok(())) => {}
            Ok(Err(reason)) => {
                self.metrics.refused(Side::Dial, Reason::Peer);
                return Err(refused(reason));
            }
            Err(error) => {
                let refusal = Refusal::of_handshake(&error, &found, self.identity.name());
                self.metrics.refused(Side::Dial, refusal.reason);
                return Err(refused(refusal.text));
            }
        }
        verdict::send(&mut stream, Ok(())).await.map_err(|source| DialError::Connect { address: address.to_owned(), source })?;
        self.metrics.connected(Side::Dial);
        Ok(Box::new(Aging::new(stream, self.options.max_age)))
    }

    async fn handshake(&self, address: &str, stream: TcpStream) -> Result<TlsStream<TcpStream>, DialError> {
        let failed = |reason: String| DialError::Tls { address: address.to_owned(), reason };
        let state = self.identity.state();
        let verifier = PeerVerifier::new(Arc::clone(&state));
        let config = super::client_config(&state, Arc::clone(&verifier)).map_err(|error| failed(error.to_string()))?;
        let name = ServerName::try_from(HOST).map_err(|error| failed(error.to_string()))?;
        TlsConnector::from(config).connect(name, stream).await.map_err(|error| {
            let refusal = Refusal::of_handshake(&error, &verifier.claimed(), self.identity.name());
            self.metrics.refused(Side::Dial, refusal.reason);
            failed(refusal.text)
        })
    }

    /// Our verdict on the server, and who it is.
    fn judge(&self, stream: &TlsStream<TcpStream>, expect: &Expect) -> (Result<(), Refusal>, String) {
        let (_, connection) = stream.get_ref();
        let name = connection
            .peer_certificates()
            .and_then(<[_]>::first)
            .ok_or_else(|| Refusal::new(Reason::Name, "it showed no certificate"))
            .and_then(name_of);
        match name {
            Ok(name) => (expect.judge(self.identity.name().trust(), &name), name.to_string()),
            Err(refusal) => (Err(refusal), "a certificate without one mesh name".to_owned()),
        }
    }
}

impl Dial for MtlsDialer {
    fn dial<'a>(&'a self, address: &'a str, expect: Expect) -> BoxFuture<'a, Result<Io, DialError>> {
        Box::pin(async move {
            let after = self.options.timeout;
            let connecting = tokio::time::timeout(after, self.connect(address, expect)).await;
            connecting.unwrap_or_else(|_| Err(DialError::Timeout { address: address.to_owned(), after }))
        })
    }
}

/// rustls wants a host name; it is neither sent nor compared.
const HOST: &str = "tidegate.mesh";
