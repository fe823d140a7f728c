//! A network in memory: connections between named places, with delay, bandwidth, partitions and deaths.
//!
//! It carries the bytes of the real gRPC code in a runtime whose time is paused, so that an hour costs what happens in it. Everything goes by
//! the runtime's clock and the order of calls: nothing here is random. A simulator that ticks through time was looked at and left: an
//! hour is 3.6 million of its milliseconds for every host, and it has no bandwidth, which is what a slow reader is made of.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use tidegate_runtime::mesh::{Accept, BoxFuture, Carried, Dial, DialError, Expect, Io, Peer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};

/// All places and the connections between them. Clones are the same network.
#[derive(Clone)]
pub struct Network {
    inner: Arc<Mutex<Inner>>,
    latency: Duration,
}

#[derive(Default)]
struct Inner {
    doors: BTreeMap<String, mpsc::Sender<(Io, Peer)>>,
    /// Pairs that do not hear each other, each in both orders.
    cut: BTreeSet<(String, String)>,
    /// Bytes per second that a place takes in.
    rates: BTreeMap<String, u64>,
    pipes: Vec<Weak<Mutex<Pipe>>>,
    carried: BTreeMap<(String, String), u64>,
}

/// One direction of a connection.
struct Pipe {
    from: String,
    to: String,
    /// What is on its way, with the moment it arrives.
    chunks: VecDeque<(Instant, Bytes)>,
    held: usize,
    last: Instant,
    latency: Duration,
    rate: Option<u64>,
    /// The writer has ended.
    ended: bool,
    /// One of the sides is gone.
    broken: bool,
    /// Cut off: nothing arrives, not even the end.
    stuck: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Network {
    /// No places yet; `latency` is that of one way.
    #[must_use]
    pub fn new(latency: Duration) -> Self {
        Self { inner: Arc::default(), latency }
    }

    /// How a place dials others.
    #[must_use]
    pub fn dialer(&self, from: &str) -> Arc<dyn Dial> {
        Arc::new(Dialer { network: self.clone(), from: from.to_owned() })
    }

    /// Opens a place for connections; one that was open there before is replaced.
    #[must_use]
    pub fn listen(&self, at: &str) -> Arc<dyn Accept> {
        let (door, connections) = mpsc::channel(BACKLOG);
        self.inner.lock().doors.insert(at.to_owned(), door);
        Arc::new(Door(tokio::sync::Mutex::new(connections)))
    }

    /// A place dies: it takes no connections, and those it had break.
    pub fn kill(&self, place: &str) {
        self.inner.lock().doors.remove(place);
        self.each(|pipe| {
            if pipe.from == place || pipe.to == place {
                pipe.broken = true;
                pipe.wake();
            }
        });
    }

    /// Two places do not hear each other any more. Neither is told.
    pub fn cut(&self, one: &str, other: &str) {
        let mut inner = self.inner.lock();
        inner.cut.insert((one.to_owned(), other.to_owned()));
        inner.cut.insert((other.to_owned(), one.to_owned()));
        drop(inner);
        self.stick(one, other, true);
    }

    /// They hear each other again, and what was sent meanwhile.
    pub fn heal(&self, one: &str, other: &str) {
        let mut inner = self.inner.lock();
        inner.cut.remove(&(one.to_owned(), other.to_owned()));
        inner.cut.remove(&(other.to_owned(), one.to_owned()));
        drop(inner);
        self.stick(one, other, false);
    }

    /// From now on a place takes in so many bytes per second; `None` is no bound.
    pub fn rate(&self, place: &str, bytes_per_second: Option<u64>) {
        match bytes_per_second {
            Some(rate) => self.inner.lock().rates.insert(place.to_owned(), rate),
            None => self.inner.lock().rates.remove(place),
        };
        self.each(|pipe| {
            if pipe.to == place {
                pipe.rate = bytes_per_second;
            }
        });
    }

    /// Bytes that were ever sent from one place to another.
    #[must_use]
    pub fn carried(&self, from: &str, to: &str) -> u64 {
        self.inner.lock().carried.get(&(from.to_owned(), to.to_owned())).copied().unwrap_or(0)
    }

    fn stick(&self, one: &str, other: &str, stuck: bool) {
        self.each(|pipe| {
            if (pipe.from == one && pipe.to == other) || (pipe.from == other && pipe.to == one) {
                pipe.stuck = stuck;
                pipe.wake();
            }
        });
    }

    fn each(&self, mut change: impl FnMut(&mut Pipe)) {
        let mut inner = self.inner.lock();
        inner.pipes.retain(|pipe| pipe.strong_count() > 0);
        let pipes: Vec<_> = inner.pipes.iter().filter_map(Weak::upgrade).collect();
        drop(inner);
        for pipe in pipes {
            change(&mut pipe.lock());
        }
    }

    fn pipe(&self, from: &str, to: &str) -> Arc<Mutex<Pipe>> {
        let mut inner = self.inner.lock();
        let pipe = Arc::new(Mutex::new(Pipe {
            from: from.to_owned(),
            to: to.to_owned(),
            chunks: VecDeque::new(),
            held: 0,
            last: Instant::now(),
            latency: self.latency,
            rate: inner.rates.get(to).copied(),
            ended: false,
            broken: false,
            stuck: inner.cut.contains(&(from.to_owned(), to.to_owned())),
            reader: None,
            writer: None,
        }));
        inner.pipes.push(Arc::downgrade(&pipe));
        pipe
    }

    fn connect(&self, from: &str, to: &str) -> Option<Io> {
        let door = self.inner.lock().doors.get(to).cloned()?;
        let (there, back) = (self.pipe(from, to), self.pipe(to, from));
        let peer = Peer { name: None, address: ([127, 0, 0, 1], 1).into(), carried: Carried::default() };
        let theirs = End { network: self.clone(), incoming: Arc::clone(&there), outgoing: Arc::clone(&back), timer: None };
        door.try_send((Box::new(theirs), peer)).ok()?;
        Some(Box::new(End { network: self.clone(), incoming: back, outgoing: there, timer: None }))
    }
}

struct Dialer {
    network: Network,
    from: String,
}

impl Dial for Dialer {
    fn dial<'a>(&'a self, address: &'a str, _expect: Expect) -> BoxFuture<'a, Result<Io, DialError>> {
        Box::pin(async move {
            let pair = (self.from.clone(), address.to_owned());
            if self.network.inner.lock().cut.contains(&pair) {
                tokio::time::sleep(DIAL_TIMEOUT).await;
                return Err(DialError::Timeout { address: address.to_owned(), after: DIAL_TIMEOUT });
            }
            tokio::time::sleep(self.network.latency * 2).await;
            self.network.connect(&self.from, address).ok_or_else(|| DialError::Connect {
                address: address.to_owned(),
                source: io::Error::from(io::ErrorKind::ConnectionRefused),
            })
        })
    }
}

struct Door(tokio::sync::Mutex<mpsc::Receiver<(Io, Peer)>>);

impl Accept for Door {
    fn accept(&self) -> BoxFuture<'_, Result<(Io, Peer), io::Error>> {
        Box::pin(async move { self.0.lock().await.recv().await.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) })
    }
}

impl Pipe {
    fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }
}

/// One side of a connection.
struct End {
    network: Network,
    incoming: Arc<Mutex<Pipe>>,
    outgoing: Arc<Mutex<Pipe>>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl AsyncRead for End {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let incoming = Arc::clone(&self.incoming);
            let mut pipe = incoming.lock();
            pipe.reader = Some(cx.waker().clone());
            if pipe.stuck {
                return Poll::Pending;
            }
            if pipe.broken {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            let now = Instant::now();
            let Some((arrives, chunk)) = pipe.chunks.front_mut() else {
                return if pipe.ended { Poll::Ready(Ok(())) } else { Poll::Pending };
            };
            if *arrives > now {
                let arrives = *arrives;
                drop(pipe);
                let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(arrives)));
                if timer.deadline() != arrives {
                    timer.as_mut().reset(arrives);
                }
                ready!(timer.as_mut().poll(cx));
                self.timer = None;
                continue;
            }
            let taken = chunk.len().min(buf.remaining());
            buf.put_slice(&chunk[..taken]);
            chunk.advance(taken);
            if chunk.is_empty() {
                pipe.chunks.pop_front();
            }
            pipe.held -= taken;
            if let Some(writer) = pipe.writer.take() {
                writer.wake();
            }
            return Poll::Ready(Ok(()));
        }
    }
}

impl AsyncWrite for End {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut pipe = self.outgoing.lock();
        if (pipe.broken && !pipe.stuck) || pipe.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let taken = buf.len().min(BUFFERS - pipe.held);
        if taken == 0 && !buf.is_empty() {
            pipe.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let mut arrives = pipe.last.max(Instant::now() + pipe.latency);
        if let Some(rate) = pipe.rate {
            arrives += Duration::from_secs_f64(taken as f64 / rate as f64);
        }
        pipe.last = arrives;
        pipe.held += taken;
        pipe.chunks.push_back((arrives, Bytes::copy_from_slice(&buf[..taken])));
        let pair = (pipe.from.clone(), pipe.to.clone());
        if let Some(reader) = pipe.reader.take() {
            reader.wake();
        }
        drop(pipe);
        *self.network.inner.lock().carried.entry(pair).or_default() += taken as u64;
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut pipe = self.outgoing.lock();
        pipe.ended = true;
        pipe.wake();
        Poll::Ready(Ok(()))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let mut outgoing = self.outgoing.lock();
        outgoing.ended = true;
        outgoing.wake();
        drop(outgoing);
        let mut incoming = self.incoming.lock();
        incoming.broken = true;
        incoming.wake();
    }
}

/// Connections that wait to be accepted; more are refused, as a kernel does.
const BACKLOG: usize = 64;
/// What the kernels of both sides hold for a reader that is slow.
const BUFFERS: usize = 64 * 1024;
/// As the real dialer's.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
