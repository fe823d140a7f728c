//! The accepting side.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::MtlsOptions;
use crate::mesh::aging::Aging;
use crate::mesh::identity::Identity;
use crate::mesh::plain;
use crate::mesh::refusal::{MeshMetrics, Reason, Refusal, Side};
use crate::mesh::verdict;
use crate::mesh::verify::{Admit, PeerVerifier, name_of};
use crate::mesh::{Accept, BoxFuture, Carried, Io, MeshName, Peer};
use crate::tasks::Tasks;

/// Accepts members of our mesh that have business here. Handshakes run beside each other, so a slow or silent caller delays nobody.
#[derive(Debug)]
pub struct MtlsListener {
    ready: Mutex<mpsc::Receiver<(Io, Peer)>>,
    address: SocketAddr,
}

impl MtlsListener {
    /// Starts to accept on `listener`, until the stop of `tasks` is requested or the returned value is dropped.
    pub fn start(
        listener: TcpListener,
        identity: Arc<Identity>,
        admit: Admit,
        metrics: MeshMetrics,
        options: MtlsOptions,
        tasks: &Tasks,
    ) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (sender, ready) = mpsc::channel(READY);
        let door = Arc::new(Door { identity, admit, metrics, options, sender });
        let shutdown = tasks.shutdown().clone();
        let owner = tasks.clone();
        tasks.spawn("mesh-accept", async move {
            // Dropping the loop is safe: a connection that it holds is one that nobody was promised.
            tokio::select! {
                () = shutdown.requested() => {}
                () = door.sender.closed() => {}
                () = accept_all(&listener, &door, &owner) => {}
            }
        });
        Ok(Self { ready: Mutex::new(ready), address })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

impl Accept for MtlsListener {
    fn accept(&self) -> BoxFuture<'_, Result<(Io, Peer), io::Error>> {
        Box::pin(async move {
            let next = self.ready.lock().await.recv().await;
            next.ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "the listener was closed"))
        })
    }
}

async fn accept_all(listener: &TcpListener, door: &Arc<Door>, tasks: &Tasks) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let Ok(permit) = Arc::clone(&handshakes).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, address)) => {
                let door = Arc::clone(door);
                let shutdown = tasks.shutdown().clone();
                // Ends with the handshake, its timeout, or the stop of the process.
                tasks.spawn("mesh-handshake", async move {
                    let _permit = permit;
                    // Dropping the handshake is safe: the connection closes with it.
                    tokio::select! {
                        () = shutdown.requested() => {}
                        () = door.welcome(stream, address) => {}
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accept a connection of the mesh");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// What every handshake needs.
#[derive(Debug)]
struct Door {
    identity: Arc<Identity>,
    admit: Admit,
    metrics: MeshMetrics,
    options: MtlsOptions,
    sender: mpsc::Sender<(Io, Peer)>,
}

impl Door {
    async fn welcome(&self, stream: TcpStream, address: SocketAddr) {
        let outcome = tokio::time::timeout(self.options.timeout, self.receive(stream)).await;
        let refusal = match outcome {
            Ok(Ok((stream, name))) => {
                self.metrics.connected(Side::Accept);
                let io = Box::new(Aging::new(stream, self.options.max_age));
                // Waits while the server is busy; the permit of this handshake then slows the listener down. Fails after its end only.
                let _ = self.sender.send((io, Peer { name: Some(name), address, carried: Carried::default() })).await;
                return;
            }
            Ok(Err(refused)) => refused,
            Err(_) => Refused { who: "unknown".to_owned(), refusal: Refusal::new(Reason::Protocol, "the handshake was not done in time") },
        };
        let Refused { who, refusal } = refusal;
        self.metrics.refused(Side::Accept, refusal.reason);
        if let Some(suppressed) = self.metrics.may_log() {
            let reason = &refusal.text;
            tracing::warn!(%address, %who, %reason, suppressed, "a connection of the mesh was refused");
        }
    }

    async fn receive(&self, stream: TcpStream) -> Result<(TlsStream<TcpStream>, MeshName), Refused> {
        let (mut stream, claimed) = self.handshake(stream).await?;
        let refused = |refusal| Refused { who: claimed.clone(), refusal };
        let broken = |error: io::Error| refused(Refusal::of_handshake(&error, &claimed, self.identity.name()));
        let speaks_verdicts = stream.get_ref().1.alpn_protocol() == Some(verdict::ALPN_MESH);
        let judged = self.judge(&stream);
        if speaks_verdicts {
            let ours = judged.as_ref().map(|_| ()).map_err(|refusal| refusal.text.as_str());
            verdict::send(&mut stream, ours).await.map_err(broken)?;
        }
        match judged {
            Err(refusal) => {
                verdict::linger(&mut stream).await;
                Err(refused(refusal))
            }
            Ok(name) => {
                if speaks_verdicts && let Err(text) = verdict::read(&mut stream).await.map_err(broken)? {
                    return Err(refused(Refusal::new(Reason::Peer, format!("the caller refused us: {text}"))));
                }
                Ok((stream, name))
            }
        }
    }

    async fn handshake(&self, stream: TcpStream) -> Result<(TlsStream<TcpStream>, String), Refused> {
        let state = self.identity.state();
        let verifier = PeerVerifier::new(Arc::clone(&state));
        let failed = |error: &io::Error| Refused {
            who: verifier.claimed(),
            refusal: Refusal::of_handshake(error, &verifier.claimed(), self.identity.name()),
        };
        plain::prepare(&stream).map_err(|error| failed(&error))?;
        let config = super::server_config(&state, Arc::clone(&verifier)).map_err(|error| failed(&io::Error::other(error)))?;
        match TlsAcceptor::from(config).accept(stream).into_fallible().await {
            Ok(stream) => Ok((stream, verifier.claimed())),
            Err((error, mut stream)) => {
                // The alert is on its way; see `linger`.
                verdict::linger(&mut stream).await;
                Err(failed(&error))
            }
        }
    }

    fn judge(&self, stream: &TlsStream<TcpStream>) -> Result<MeshName, Refusal> {
        let (_, connection) = stream.get_ref();
        let leaf = connection.peer_certificates().and_then(<[_]>::first);
        let leaf = leaf.ok_or_else(|| Refusal::new(Reason::Name, "it showed no certificate"))?;
        let name = name_of(leaf)?;
        self.admit.judge(self.identity.name().trust(), &name)?;
        Ok(name)
    }
}

/// A refusal and whom it met.
#[derive(Debug)]
struct Refused {
    who: String,
    refusal: Refusal,
}

/// Handshakes at a time: enough for a thousand edges that reconnect within seconds, and a bound on what silent callers hold.
const HANDSHAKES: usize = 256;
/// Connections that are done and not yet taken; the server takes them at once, so a few smooth the hand-over.
const READY: usize = 16;
/// After an error of the listening socket, which is the machine's (no descriptors left) rather than a caller's.
const PAUSE: Duration = Duration::from_millis(100);
