//! Starting a simulation, and the handle to look at it and change it.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use tidegate_runtime::listen::{self, ListenOptions};
use tidegate_runtime::{Shutdown, Tasks};
use tokio::net::{TcpListener, TcpStream};

use crate::fault::{Fault, FaultRule};
use crate::recorded::RecordedRequest;
use crate::script::Script;
use crate::server;
use crate::socket::{ResetSwitch, Socket};
use crate::spec::{Answering, SimSpec, Timing};
use crate::state::{State, Stats};

/// Starts simulated providers.
#[derive(Debug)]
pub struct Sim;

impl Sim {
    /// Listens and serves on the current runtime until the handle is dropped. Panics outside of a tokio runtime.
    pub fn start(spec: SimSpec) -> io::Result<SimHandle> {
        let listener = listen_on(spec.address)?;
        let address = listener.local_addr()?;
        let state = Arc::new(State::new(spec));
        let tasks = Tasks::new();
        tasks.spawn("sim-accept", accept(listener, address, Arc::clone(&state), tasks.clone()));
        Ok(SimHandle { address, state, tasks })
    }
}

/// A running simulation. Its drop ends it at once, open connections included.
#[derive(Debug)]
pub struct SimHandle {
    address: SocketAddr,
    state: Arc<State>,
    tasks: Tasks,
}

impl SimHandle {
    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// The address as `http://127.0.0.1:port`, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it has seen so far.
    pub fn stats(&self) -> Stats {
        self.state.stats()
    }

    /// Completes, with the figures, as soon as they satisfy `wanted`. Looks at every change, so tests need no sleeps.
    pub async fn wait_until(&self, wanted: impl Fn(&Stats) -> bool) -> Stats {
        self.state.wait_until(wanted).await
    }

    /// The last requests, oldest first.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.state.recorded()
    }

    /// The last request.
    pub fn last_request(&self) -> Option<RecordedRequest> {
        self.requests().pop()
    }

    /// One fault for every request from now on, or none. Takes the place of all rules.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.set_faults(fault.map(FaultRule::always).into_iter().collect());
    }

    /// The rules from now on.
    pub fn set_faults(&self, rules: Vec<FaultRule>) {
        self.state.change(|settings| settings.faults = rules);
    }

    /// The fate of the next request that has none yet; several are used up in order. It takes the place of the rules.
    pub fn push_script(&self, script: Script) {
        self.state.push_script(script);
    }

    /// How fast answers come from now on.
    pub fn set_timing(&self, timing: Timing) {
        self.state.change(|settings| settings.timing = timing);
    }

    /// How answers come about from now on.
    pub fn set_answering(&self, answering: Answering) {
        self.state.change(|settings| settings.answering = answering);
    }

    /// The models that exist from now on; none means all.
    pub fn set_models(&self, models: Vec<String>) {
        self.state.change(|settings| settings.models = models);
    }

    /// The keys that are let in from now on; none means everyone.
    pub fn set_keys(&self, keys: Vec<String>) {
        self.state.change(|settings| settings.keys = keys);
    }

    /// Ends it and waits until the port is free.
    pub async fn stop(self) {
        // Nothing in a simulation is worth waiting for; every task heeds the request at once.
        if let Err(unfinished) = self.tasks.close(STOP_DEADLINE).await {
            tracing::warn!(%unfinished, "the simulated provider was stopped by force");
        }
    }
}

impl Drop for SimHandle {
    fn drop(&mut self) {
        self.tasks.shutdown().request();
    }
}

/// Ends when the stop is requested. While connections are to be refused there is no listener at all.
async fn accept(listener: TcpListener, address: SocketAddr, state: Arc<State>, tasks: Tasks) {
    let shutdown = tasks.shutdown().clone();
    let mut listener = Some(listener);
    loop {
        let changed = state.faults_changed.notified();
        tokio::pin!(changed);
        // Registered before the look, so that a change in between is not missed.
        changed.as_mut().enable();
        if state.refuses() {
            listener = None;
        } else if listener.is_none() {
            listener = reopen(address);
        }
        let scheduled = state.until_refusal_change();
        let look_again = if listener.is_none() && !state.refuses() { Some(REOPEN_PAUSE) } else { scheduled };
        // All branches are safe to lose: what was not accepted waits in the backlog, the others are looked at anew.
        tokio::select! {
            () = shutdown.requested() => return,
            () = changed => {}
            () = sleep_for(look_again) => {}
            stream = accept_one(listener.as_ref()) => serve(stream, &state, &tasks),
        }
    }
}

/// A failure is as good as no connection yet: the peer is gone, or descriptors are short for a moment.
async fn accept_one(listener: Option<&TcpListener>) -> TcpStream {
    let Some(listener) = listener else {
        return std::future::pending().await;
    };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                tracing::debug!(%error, "the simulated provider cannot accept");
                tokio::time::sleep(REOPEN_PAUSE).await;
            }
        }
    }
}

fn serve(stream: TcpStream, state: &Arc<State>, tasks: &Tasks) {
    let _ = stream.set_nodelay(true);
    let connection = serve_connection(stream, Arc::clone(state), tasks.clone());
    tasks.spawn("sim-connection", connection);
}

/// Ends with the connection, or at once when the stop is requested.
async fn serve_connection(stream: TcpStream, state: Arc<State>, tasks: Tasks) {
    let open = state.connection_opened();
    let shutdown: Shutdown = tasks.shutdown().clone();
    let reset = ResetSwitch::default();
    let socket = TokioIo::new(Socket::new(stream, reset.clone()));
    let service = service_fn(move |request| server::serve(Arc::clone(&state), reset.clone(), request));
    let builder = auto::Builder::new(OwnedTasks(tasks));
    // Dropping the connection in the middle is what a stopping simulation wants.
    tokio::select! {
        () = shutdown.requested() => {}
        ended = builder.serve_connection(socket, service) => {
            if let Err(error) = ended {
                tracing::trace!(error, "a simulated connection ended early");
            }
        }
    }
    drop(open);
}

/// Lets HTTP/2 start its streams within the simulation's task set.
#[derive(Debug, Clone)]
struct OwnedTasks(Tasks);

impl<F> hyper::rt::Executor<F> for OwnedTasks
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, future: F) {
        let shutdown = self.0.shutdown().clone();
        self.0.spawn("sim-stream", async move {
            // Dropping a stream in the middle is what a stopping simulation wants.
            tokio::select! {
                () = shutdown.requested() => {}
                _ = future => {}
            }
        });
    }
}

async fn sleep_for(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    listen::bind_tokio(address, ListenOptions::default()).map_err(|error| io::Error::new(error.kind(), error))
}

fn reopen(address: SocketAddr) -> Option<TcpListener> {
    let opened = listen_on(address);
    if let Err(error) = &opened {
        tracing::warn!(%error, "the simulated provider cannot listen again yet");
    }
    opened.ok()
}

/// Between two tries to take the port again.
const REOPEN_PAUSE: Duration = Duration::from_millis(20);
const STOP_DEADLINE: Duration = Duration::from_secs(5);
