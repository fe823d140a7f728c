//! The floor F: a relay of hyper and hyper-util's pooled client with no features.
//!
//! What any gateway built on this stack pays before it does something useful. Every target that speaks of F means `--model shared`.

use std::convert::Infallible;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri, header};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::console;
use crate::serve;

/// Idle upstream connections kept; more than any figure opens.
const IDLE_CONNECTIONS: usize = 4096;

/// How threads share connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Model {
    /// One work-stealing runtime: the F of every target.
    Shared,
    /// One single-threaded runtime per core, each with its own client.
    PerCore,
}

/// Arguments of `floor`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Address to listen on; port 0 picks a free one, which is printed.
    #[arg(long, default_value = "127.0.0.1:9200", value_parser = crate::loopback::address)]
    pub(crate) listen: SocketAddr,
    /// Address of the upstream.
    #[arg(long, default_value = "127.0.0.1:9100", value_parser = crate::loopback::address)]
    pub(crate) upstream: SocketAddr,
    /// How threads share connections.
    #[arg(long, value_enum, default_value_t = Model::Shared)]
    pub(crate) model: Model,
    /// Threads; one per core when not given.
    #[arg(long)]
    pub(crate) threads: Option<usize>,
}

type Relay = Client<HttpConnector, Incoming>;
type Answer = Response<Either<Incoming, Full<Bytes>>>;

/// Serves until the process ends.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let (upstream, threads) = (arguments.upstream, serve::threads(arguments.threads));
    match arguments.model {
        Model::PerCore => serve::per_core(arguments.listen, threads, client, move |stream, client| async move {
            connection(stream, (*client).clone(), upstream).await;
        }),
        Model::Shared => {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(threads)
                .enable_all()
                .build()
                .context("start the shared runtime")?;
            runtime.block_on(shared(arguments.listen, upstream))
        }
    }
}

async fn shared(listen: SocketAddr, upstream: SocketAddr) -> Result<()> {
    let listener = TcpListener::from_std(serve::bind(listen, false)?).context("register the listening socket")?;
    serve::announce(listener.local_addr().context("read the bound address")?);
    let client = client();
    let mut connections = JoinSet::new();
    loop {
        // Cancelling `accept` or `join_next` loses neither a connection nor a result.
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let _ = stream.set_nodelay(true);
                    connections.spawn(connection(stream, client.clone(), upstream));
                }
                Err(error) => console::progress(format!("accept: {error}")),
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

fn client() -> Relay {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).pool_max_idle_per_host(IDLE_CONNECTIONS).build(connector)
}

async fn connection(stream: TcpStream, client: Relay, upstream: SocketAddr) {
    let service = service_fn(move |request| {
        let client = client.clone();
        async move { Ok::<_, Infallible>(relay(&client, request, upstream).await) }
    });
    // A caller that leaves ends its connection; nothing to report.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn relay(client: &Relay, mut request: Request<Incoming>, upstream: SocketAddr) -> Answer {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let Ok(uri) = Uri::builder().scheme("http").authority(upstream.to_string()).path_and_query(path).build() else {
        return failure(StatusCode::BAD_REQUEST);
    };
    *request.uri_mut() = uri;
    request.headers_mut().remove(header::HOST);
    match client.request(request).await {
        Ok(response) => response.map(Either::Left),
        Err(_) => failure(StatusCode::BAD_GATEWAY),
    }
}

fn failure(status: StatusCode) -> Answer {
    let mut response = Response::new(Either::Right(Full::new(Bytes::new())));
    *response.status_mut() = status;
    response
}
