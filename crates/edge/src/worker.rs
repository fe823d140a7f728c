//! Worker threads: who runs a connection.
//!
//! With [`RuntimeModel::PerCore`] each worker is a thread with its own single-threaded runtime and its own pool of upstream
//! connections: a request wakes nobody on another core. With [`RuntimeModel::Shared`] there is one worker whose runtime steals work
//! between threads. The bare floors of both kinds are compared in `docs/performance.md`; the edge itself is not yet.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tidegate_runtime::{Shutdown, Tasks};
use tokio::sync::mpsc;

use crate::config::{RuntimeModel, WorkerConfig};
use crate::connection;
use crate::draining::Draining;
use crate::listener::{ConnectionPermit, ListenerMeta};
use crate::shared::Shared;
use crate::spare::Spares;
use crate::upstream::Pool;

/// What one worker's requests share.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) pool: Arc<Pool>,
    /// For large request bodies.
    pub(crate) spares: Arc<Spares>,
    /// Owns the tasks of the downstream connections.
    connections: Tasks,
    /// Connections given to this worker and not ended yet.
    open: AtomicUsize,
    /// Asked once: new requests on kept-alive connections are the last ones there.
    pub(crate) draining: Draining,
}

/// An accepted socket on its way to a worker.
pub(crate) struct Arrival {
    /// In no reactor yet: the worker's is the only one that it is ever registered with.
    pub(crate) stream: std::net::TcpStream,
    pub(crate) peer: SocketAddr,
    pub(crate) listener: Arc<ListenerMeta>,
    pub(crate) permit: ConnectionPermit,
}

/// All workers of this edge.
pub(crate) struct Workers {
    lanes: Vec<Lane>,
}

struct Lane {
    worker: Arc<Worker>,
    arrivals: mpsc::Sender<Arrival>,
}

impl Workers {
    /// Starts the threads. They end when `stop` is requested; `draining` only makes connections end when they can.
    pub(crate) fn start(
        config: WorkerConfig,
        shared: &Arc<Shared>,
        draining: &Draining,
        stop: &Shutdown,
    ) -> io::Result<(Arc<Self>, Threads)> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let wanted = if config.threads == 0 { cores } else { config.threads };
        let lanes = match config.model {
            RuntimeModel::PerCore => wanted,
            RuntimeModel::Shared => 1,
        };
        let mut threads = Vec::with_capacity(lanes);
        let mut started = Vec::with_capacity(lanes);
        for number in 0..lanes {
            let worker = Arc::new(Worker {
                shared: Arc::clone(shared),
                pool: Pool::new(Tasks::new()),
                spares: Arc::default(),
                connections: Tasks::new(),
                open: AtomicUsize::new(0),
                draining: draining.clone(),
            });
            let mut builder = match config.model {
                RuntimeModel::PerCore => tokio::runtime::Builder::new_current_thread(),
                RuntimeModel::Shared => tokio::runtime::Builder::new_multi_thread(),
            };
            if config.model == RuntimeModel::Shared {
                builder.worker_threads(wanted);
            }
            let runtime = builder.enable_all().thread_name(format!("edge-{number}")).build()?;
            // Bound: a burst of accepts may run ahead of a worker by this many sockets before the listener waits for nobody and
            // refuses; the kernel's backlog is the real queue.
            let (arrivals, queue) = mpsc::channel(ARRIVALS);
            let thread = std::thread::Builder::new().name(format!("edge-{number}")).spawn({
                let (worker, stop) = (Arc::clone(&worker), stop.clone());
                move || runtime.block_on(work(worker, queue, stop))
            })?;
            threads.push(thread);
            started.push(Lane { worker, arrivals });
        }
        Ok((Arc::new(Self { lanes: started }), Threads(threads)))
    }

    /// No workers, for an edge that takes no connections.
    pub(crate) fn none() -> Arc<Self> {
        Arc::new(Self { lanes: Vec::new() })
    }

    /// Gives a socket to the worker with the fewest connections. A worker that is far behind refuses it, which resets the connection.
    pub(crate) fn give(&self, arrival: Arrival) {
        let Some(lane) = self.lanes.iter().min_by_key(|lane| lane.worker.open.load(Ordering::Relaxed)) else { return };
        lane.worker.open.fetch_add(1, Ordering::Relaxed);
        if lane.arrivals.try_send(arrival).is_err() {
            lane.worker.open.fetch_sub(1, Ordering::Relaxed);
            lane.worker.shared.metrics.connections_refused.inc();
        }
    }

    /// Connections that have not ended, over all workers.
    pub(crate) fn open(&self) -> usize {
        self.lanes.iter().map(|lane| lane.worker.open.load(Ordering::Relaxed)).sum()
    }

    /// Connection tasks that ended in a panic since the start, over all workers.
    pub(crate) fn panics(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.worker.connections.panics()).sum()
    }

    /// Idle upstream connections, over all workers.
    pub(crate) fn idle_upstreams(&self) -> usize {
        self.lanes.iter().map(|lane| lane.worker.pool.idle()).sum()
    }
}

/// Join handles of the worker threads.
pub(crate) struct Threads(Vec<std::thread::JoinHandle<()>>);

impl Threads {
    /// Waits for every thread; blocks, so call it where blocking is allowed.
    pub(crate) fn join(self) {
        for thread in self.0 {
            if thread.join().is_err() {
                tracing::error!("a worker thread panicked");
            }
        }
    }
}

/// Runs one worker until `stop`. Connections still open then are dropped with the runtime.
async fn work(worker: Arc<Worker>, mut queue: mpsc::Receiver<Arrival>, stop: Shutdown) {
    let mut sweep = tokio::time::interval(SWEEP_EVERY);
    sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        // Dropping a losing branch is safe: `recv` and `tick` are cancel-safe, and shutdown is a level.
        tokio::select! {
            biased;
            () = stop.requested() => return,
            arrival = queue.recv() => {
                let Some(arrival) = arrival else { return };
                let worker = Arc::clone(&worker);
                // Ends with the connection: closed by either side, by a timeout, or by draining.
                worker.connections.clone().spawn("connection", async move {
                    let _count = OpenCount(&worker.open);
                    connection::serve(&worker, arrival).await;
                });
            }
            _ = sweep.tick() => {
                worker.pool.sweep(Instant::now());
                worker.spares.sweep();
            }
        }
    }
}

/// Counts a connection out, however its task ends.
struct OpenCount<'a>(&'a AtomicUsize);

impl Drop for OpenCount<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// See [`Workers::start`].
const ARRIVALS: usize = 1024;
/// Idle connections and spare buffers are few and cheap to check; the connections' own timeouts are tens of seconds.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
