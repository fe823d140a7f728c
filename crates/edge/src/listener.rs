//! Accepting connections and giving each to a worker.
//!
//! One task per listener accepts, checks the caps, and hands the socket to the worker with the fewest open connections, so that a
//! handful of long streams does not pile up on one core the way a kernel hash over ports can.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tidegate_runtime::Shutdown;
use tokio::net::TcpListener;

use crate::shared::Shared;
use crate::worker::{Arrival, Workers};

/// One bound address.
pub(crate) struct Listener {
    pub(crate) name: Arc<str>,
    pub(crate) address: SocketAddr,
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
    pub(crate) socket: TcpListener,
}

impl Listener {
    /// Accepts until shutdown is requested. Errors of a single accept (a caller that vanished, no file descriptors left) are counted
    /// and, where only time helps, waited out.
    pub(crate) async fn run(self, shared: Arc<Shared>, workers: Arc<Workers>, shutdown: Shutdown) {
        let meta = Arc::new(ListenerMeta { name: self.name, tls: self.tls });
        loop {
            // Dropping either branch is safe: accept is cancel-safe, and shutdown is a level, not an event.
            let accepted = tokio::select! {
                biased;
                () = shutdown.requested() => return,
                accepted = self.socket.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) if is_of_one_connection(&error) => continue,
                Err(error) => {
                    tracing::warn!(%error, listener = %meta.name, "cannot accept connections; trying again shortly");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Some(permit) = shared.connections.admit(peer.ip()) else {
                shared.metrics.connections_refused.inc();
                continue; // Dropping the socket resets the connection: cheaper than any answer, and over TLS there is none to give.
            };
            // Out of this runtime's reactor before it goes to a worker's.
            let Ok(stream) = stream.set_nodelay(true).and_then(|()| stream.into_std()) else { continue };
            workers.give(Arrival { stream, peer, listener: Arc::clone(&meta), permit });
        }
    }
}

/// What a connection needs to know about where it came in.
pub(crate) struct ListenerMeta {
    pub(crate) name: Arc<str>,
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
}

/// Errors that concern the one connection being accepted, not the listener.
fn is_of_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// File descriptors come back when connections end; there is nothing else to wait for.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Counts open connections, in total and per address.
pub(crate) struct Connections {
    open: AtomicUsize,
    most: usize,
    most_per_ip: usize,
    per_ip: Mutex<HashMap<IpAddr, usize>>,
}

impl Connections {
    pub(crate) fn new(most: usize, most_per_ip: usize) -> Arc<Self> {
        Arc::new(Self { open: AtomicUsize::new(0), most, most_per_ip, per_ip: Mutex::default() })
    }

    /// Number of open connections.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    fn admit(self: &Arc<Self>, address: IpAddr) -> Option<ConnectionPermit> {
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.most {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        if self.most_per_ip == 0 {
            return Some(ConnectionPermit { connections: Arc::clone(self), counted: None });
        }
        let mut per_ip = self.per_ip.lock();
        let count = per_ip.entry(address).or_insert(0);
        if *count >= self.most_per_ip {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        *count += 1;
        Some(ConnectionPermit { connections: Arc::clone(self), counted: Some(address) })
    }
}

/// A counted connection; dropping it counts it out.
pub(crate) struct ConnectionPermit {
    connections: Arc<Connections>,
    counted: Option<IpAddr>,
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.connections.open.fetch_sub(1, Ordering::Relaxed);
        let Some(address) = self.counted else { return };
        let mut per_ip = self.connections.per_ip.lock();
        if let Some(count) = per_ip.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                per_ip.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Connections;

    #[test]
    fn caps_hold_and_are_given_back() {
        let connections = Connections::new(3, 2);
        let a = [127, 0, 0, 1].into();
        let b = [127, 0, 0, 2].into();
        let first = connections.admit(a);
        let second = connections.admit(a);
        assert!(first.is_some() && second.is_some());
        assert!(connections.admit(a).is_none(), "two per address");
        let other = connections.admit(b);
        assert!(other.is_some());
        assert!(connections.admit(b).is_none(), "three in total");
        drop(first);
        assert!(connections.admit(a).is_some());
        drop((second, other));
        assert_eq!(connections.open(), 0);
        assert!(connections.per_ip.lock().is_empty(), "no entry outlives its connections");
    }
}
