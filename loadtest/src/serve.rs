//! One single-threaded runtime per core, each with its own listening socket on the same port.
//!
//! The kernel spreads connections over the sockets (`SO_REUSEPORT`), so nothing is shared between threads: the cheapest shape for
//! the mock, which must not be the bottleneck, and for the relays that show what is possible.

use std::net::SocketAddr;
use std::rc::Rc;
use std::thread;

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinSet, LocalSet};

use crate::console;

/// Pending connections per socket; the largest figure ramps thousands of streams up at once.
const BACKLOG: i32 = 4096;

/// Number of threads: the given one, or one per available core.
pub(crate) fn threads(wanted: Option<usize>) -> usize {
    wanted.filter(|count| *count > 0).unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from))
}

/// Serves until the process ends. `state` is made once per thread, `connection` runs once per connection.
pub(crate) fn per_core<S, F>(
    address: SocketAddr,
    threads: usize,
    state: impl Fn() -> S + Clone + Send + 'static,
    connection: impl Fn(TcpStream, Rc<S>) -> F + Clone + Send + 'static,
) -> Result<()>
where
    S: 'static,
    F: Future<Output = ()> + 'static,
{
    // The first socket decides the port when 0 was asked for.
    let first = bind(address, true)?;
    let bound = first.local_addr().context("read the bound address")?;
    let mut sockets = vec![first];
    for _ in 1..threads {
        sockets.push(bind(bound, true)?);
    }
    let mut running = Vec::new();
    for (index, socket) in sockets.into_iter().enumerate() {
        let (state, connection) = (state.clone(), connection.clone());
        let body = move || serve_one(socket, state(), &connection);
        running.push(thread::Builder::new().name(format!("worker-{index}")).spawn(body).context("start a worker thread")?);
    }
    announce(bound);
    for thread in running {
        if let Ok(result) = thread.join() {
            result?;
        }
    }
    Ok(())
}

fn serve_one<S: 'static, F: Future<Output = ()> + 'static>(
    socket: std::net::TcpListener,
    state: S,
    connection: &impl Fn(TcpStream, Rc<S>) -> F,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    let state = Rc::new(state);
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::from_std(socket).context("register the listening socket")?;
        let mut connections = JoinSet::new();
        loop {
            // Cancelling `accept` or `join_next` loses neither a connection nor a result.
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        let _ = stream.set_nodelay(true);
                        connections.spawn_local(connection(stream, Rc::clone(&state)));
                    }
                    // Out of file descriptors: what is open goes on, the next accept may succeed.
                    Err(error) => console::progress(format!("accept: {error}")),
                },
                Some(_) = connections.join_next() => {}
            }
        }
    })
}

/// Binds a non-blocking listener; `shared` lets further sockets use the same port.
pub(crate) fn bind(address: SocketAddr, shared: bool) -> Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP)).context("create a socket")?;
    socket.set_reuse_address(true).context("set SO_REUSEADDR")?;
    if shared {
        socket.set_reuse_port(true).context("set SO_REUSEPORT")?;
    }
    socket.set_nonblocking(true).context("make the socket non-blocking")?;
    socket.bind(&address.into()).with_context(|| format!("bind {address}"))?;
    socket.listen(BACKLOG).with_context(|| format!("listen on {address}"))?;
    Ok(socket.into())
}

/// Tells whoever started us that connections are accepted.
pub(crate) fn announce(address: SocketAddr) {
    console::result(format!("listening on {address}"));
}
