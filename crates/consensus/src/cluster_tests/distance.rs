//! What lies between the hosts of a test: time, and ways that are cut.

#![expect(clippy::disallowed_methods, reason = "ends with the runtime of the test")]

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use parking_lot::Mutex;
use tidegate_runtime::mesh::{BoxFuture, Dial, DialError, Expect, Io, PlainDialer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split};
use tokio::time::Instant;

/// The ways between hosts, which are known by the ports of their listeners. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Between(Arc<Mutex<Ways>>);

#[derive(Default)]
struct Ways {
    /// One way, where nothing else is said.
    usual: Duration,
    particular: HashMap<(u16, u16), Duration>,
    cut: HashSet<(u16, u16)>,
}

impl Ways {
    fn one_way(&self, from: u16, to: u16) -> Duration {
        self.particular.get(&(from, to)).copied().unwrap_or(self.usual)
    }
}

impl Between {
    /// So long from anywhere to anywhere.
    pub(super) fn usual(one_way: Duration) -> Self {
        Self(Arc::new(Mutex::new(Ways { usual: one_way, ..Ways::default() })))
    }

    /// So long between these two, either way.
    pub(super) fn distance(&self, a: SocketAddr, b: SocketAddr, one_way: Duration) {
        let ways = [(a.port(), b.port()), (b.port(), a.port())];
        self.0.lock().particular.extend(ways.map(|way| (way, one_way)));
    }

    /// From now on nothing passes between these two. What is on its way waits, as TCP would send it again and again.
    pub(super) fn cut(&self, a: SocketAddr, b: SocketAddr) {
        self.0.lock().cut.extend([(a.port(), b.port()), (b.port(), a.port())]);
    }

    /// How the host with this listener dials.
    pub(super) fn dialer(&self, from: SocketAddr) -> Arc<dyn Dial> {
        Arc::new(Dialer { between: self.clone(), from: from.port() })
    }

    fn one_way(&self, from: u16, to: u16) -> Duration {
        self.0.lock().one_way(from, to)
    }

    async fn passable(&self, from: u16, to: u16) {
        while self.0.lock().cut.contains(&(from, to)) {
            tokio::time::sleep(LOOK).await;
        }
    }
}

struct Dialer {
    between: Between,
    from: u16,
}

impl Dial for Dialer {
    fn dial<'a>(&'a self, address: &'a str, expect: Expect) -> BoxFuture<'a, Result<Io, DialError>> {
        Box::pin(async move {
            let to = address.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or(0);
            let late = || DialError::Timeout { address: address.to_owned(), after: DIAL };
            let there = tokio::time::timeout(DIAL, self.between.passable(self.from, to)).await;
            there.map_err(|_| late())?;
            tokio::time::sleep(self.between.one_way(self.from, to) * 2).await;
            let (io_in, io_out) = split(PlainDialer::default().dial(address, expect).await?);
            let (near, far) = tokio::io::duplex(BUFFER);
            let (far_in, far_out) = split(far);
            // Both end with the connection, or with the runtime of the node that has dialled.
            drop(tokio::spawn(pass(self.between.clone(), (self.from, to), far_in, io_out)));
            drop(tokio::spawn(pass(self.between.clone(), (to, self.from), io_in, far_out)));
            Ok(Box::new(near) as Io)
        })
    }
}

/// Carries bytes one way, each piece after its time.
async fn pass(between: Between, (from, to): (u16, u16), mut input: impl AsyncRead + Unpin, mut output: impl AsyncWrite + Unpin) {
    let (sender, mut pieces) = tokio::sync::mpsc::unbounded_channel::<(Instant, BytesMut)>();
    let read = async {
        loop {
            let mut piece = BytesMut::with_capacity(16 << 10);
            let ended = !matches!(input.read_buf(&mut piece).await, Ok(1..));
            if sender.send((Instant::now() + between.one_way(from, to), piece)).is_err() || ended {
                return;
            }
        }
    };
    let write = async {
        while let Some((due, piece)) = pieces.recv().await {
            tokio::time::sleep_until(due).await;
            between.passable(from, to).await;
            if piece.is_empty() || output.write_all(&piece).await.is_err() {
                break;
            }
        }
        // An end that is told, or a connection that is gone; either way it is over.
        let _ = output.shutdown().await;
    };
    // What was read before the end is still to be written; once nothing can be written, reading is of no use.
    tokio::select! {
        () = write => {}
        () = async { read.await; std::future::pending().await } => {}
    }
}

const BUFFER: usize = 1 << 20;
const DIAL: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(5);
