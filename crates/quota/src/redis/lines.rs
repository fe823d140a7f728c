//! The connections to the servers: several multiplexed ones, made anew when they fail.
//!
//! A call that finds its connection dead makes one new attempt on a fresh one, within the time that the caller has left. Everything
//! slower (all lines down, another primary) is mended in the background by [`Lines::tend`].

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo,
    RedisConnectionInfo, RedisError, RedisResult, ServerErrorKind, TlsCertificates, TlsMode, Value,
};
use secrecy::ExposeSecret;

use super::options::{RedisAuth, RedisOptions, RedisTls, RedisTopology};
use super::scripts::Call;
use crate::clock::Micros;
use crate::store::StoreError;

/// All lines.
pub(super) struct Lines {
    source: Source,
    lines: Vec<Line>,
    /// For settlements that wait for a replica: they hold up whatever shares their connection.
    slow: Line,
    slow_turn: tokio::sync::Mutex<()>,
    next: AtomicUsize,
    config: AsyncConnectionConfig,
    connect_timeout: Duration,
    /// The server's run id, or the cluster's epoch.
    identity: Mutex<Option<String>>,
    changed: AtomicBool,
}

#[expect(clippy::large_enum_variant, reason = "one per process")]
enum Source {
    Single(Client),
    // Boxed: several times larger than the others.
    Sentinel(Box<tokio::sync::Mutex<SentinelClient>>),
    Cluster(ClusterClient),
}

/// One place for a connection.
#[derive(Default)]
struct Line {
    link: Mutex<Option<Link>>,
    /// Held while connecting, so that a hundred waiting calls make one connection.
    connecting: tokio::sync::Mutex<()>,
    made: AtomicUsize,
}

#[derive(Clone)]
struct Link {
    number: usize,
    connection: Connection,
}

#[derive(Clone)]
enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Lines {
    pub(super) fn new(options: RedisOptions) -> Result<Self, StoreError> {
        if options.tls.is_some() {
            // The client builds its TLS from the process's default provider. An error means that there is one already.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        }
        let source = Source::new(&options)
            .map_err(|error| StoreError::Unavailable { operation: "read the addresses and certificates", detail: error.to_string() })?;
        // Both our own, around everything; the client's would cancel a shared connect under somebody else.
        let config = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(Some(options.connect_timeout));
        Ok(Self {
            source,
            lines: std::iter::repeat_with(Line::default).take(options.connections.clamp(1, 64)).collect(),
            slow: Line::default(),
            slow_turn: tokio::sync::Mutex::default(),
            next: AtomicUsize::new(0),
            config,
            connect_timeout: options.connect_timeout,
            identity: Mutex::default(),
            changed: AtomicBool::new(false),
        })
    }

    /// Runs a script, by its digest or, where that is unknown, by its text.
    pub(super) async fn call(&self, call: &Call, now: Micros) -> RedisResult<Value> {
        self.call_on(&self.lines[self.next.fetch_add(1, Ordering::Relaxed) % self.lines.len()], call, now).await
    }

    /// The line of large settlements, for one of them at a time; the others are not worth a queue.
    pub(super) fn reserve_slow(&self) -> Option<SlowLine<'_>> {
        // In a cluster the wait would reach any node.
        let free = !matches!(self.source, Source::Cluster(_));
        let turn = if free { self.slow_turn.try_lock().ok() } else { None };
        turn.map(|turn| SlowLine { lines: self, _turn: turn })
    }

    async fn call_on(&self, line: &Line, call: &Call, now: Micros) -> RedisResult<Value> {
        let mut retried = false;
        loop {
            let mut link = self.link(line).await?;
            let mut answer = link.connection.send(&call.command(false, now)).await;
            if matches!(&answer, Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)) {
                answer = link.connection.send(&call.command(true, now)).await;
            }
            match answer {
                Ok(value) => return Ok(value),
                Err(error) => {
                    if is_dead(&error) {
                        line.drop_link(link.number);
                        if !retried {
                            retried = true;
                            continue;
                        }
                    }
                    return Err(error);
                }
            }
        }
    }

    /// Runs a command that may be sent twice: when its connection turns out to be dead, it goes over a new one.
    pub(super) async fn run(&self, command: &Cmd) -> RedisResult<Value> {
        let line = &self.lines[self.next.fetch_add(1, Ordering::Relaxed) % self.lines.len()];
        let mut retried = false;
        loop {
            let mut link = self.link(line).await?;
            match link.connection.send(command).await {
                Err(error) if is_dead(&error) => {
                    line.drop_link(link.number);
                    if std::mem::replace(&mut retried, true) {
                        return Err(error);
                    }
                }
                answer => return answer,
            }
        }
    }

    /// Mends what is broken and looks who answers. True while the server is another one than before and [`Lines::replayed`] was not called.
    pub(super) async fn tend(&self) -> RedisResult<bool> {
        for line in self.lines.iter().chain([&self.slow]) {
            self.link_patiently(line).await?;
        }
        let mut link = self.link_patiently(&self.lines[0]).await?;
        let identity = match tokio::time::timeout(self.connect_timeout, link.connection.identity()).await {
            Ok(Ok(identity)) => identity,
            Ok(Err(error)) => {
                if is_dead(&error) {
                    self.lines[0].drop_link(link.number);
                }
                return Err(error);
            }
            Err(_) => return Err(slow()),
        };
        if let Some(identity) = identity {
            let mut known = self.identity.lock();
            if known.as_ref().is_some_and(|known| *known != identity) {
                self.changed.store(true, Ordering::Relaxed);
            }
            *known = Some(identity);
        }
        Ok(self.changed.load(Ordering::Relaxed))
    }

    /// Forgets all connections: of a host that vanished the system would tell us only after minutes.
    pub(super) fn drop_all(&self) {
        for line in self.lines.iter().chain([&self.slow]) {
            *line.link.lock() = None;
        }
    }

    pub(super) fn replayed(&self) {
        self.changed.store(false, Ordering::Relaxed);
    }

    async fn link_patiently(&self, line: &Line) -> RedisResult<Link> {
        tokio::time::timeout(self.connect_timeout, self.link(line)).await.unwrap_or_else(|_| Err(slow()))
    }

    async fn link(&self, line: &Line) -> RedisResult<Link> {
        if let Some(link) = line.current() {
            return Ok(link);
        }
        // An async mutex: held across the connect on purpose, by tasks that have nothing else to wait for.
        let _connecting = line.connecting.lock().await;
        if let Some(link) = line.current() {
            return Ok(link);
        }
        let connection = self.source.connect(&self.config).await?;
        let link = Link { number: line.made.fetch_add(1, Ordering::Relaxed), connection };
        *line.link.lock() = Some(link.clone());
        Ok(link)
    }
}

/// The right to use the line of large settlements.
pub(super) struct SlowLine<'a> {
    lines: &'a Lines,
    _turn: tokio::sync::MutexGuard<'a, ()>,
}

impl SlowLine<'_> {
    pub(super) async fn call(&self, call: &Call, now: Micros) -> RedisResult<Value> {
        self.lines.call_on(&self.lines.slow, call, now).await
    }

    /// How many replicas have what was written on this line; 0 when none had it in time, or it is not known.
    pub(super) async fn wait(&self) -> u64 {
        let Some(mut link) = self.lines.slow.current() else { return 0 };
        let mut command = redis::cmd("WAIT");
        command.arg(1).arg(REPLICA_WAIT_MS);
        let patience = Duration::from_millis(2 * REPLICA_WAIT_MS);
        match tokio::time::timeout(patience, link.connection.send(&command)).await {
            Ok(Ok(Value::Int(replicas))) => u64::try_from(replicas).unwrap_or(0),
            Ok(_) | Err(_) => 0,
        }
    }
}

impl Line {
    fn current(&self) -> Option<Link> {
        self.link.lock().clone()
    }

    /// Forgets a connection, unless somebody has already made a newer one.
    fn drop_link(&self, number: usize) {
        let mut link = self.link.lock();
        if link.as_ref().is_some_and(|link| link.number == number) {
            *link = None;
        }
    }
}

impl Connection {
    async fn send(&mut self, command: &Cmd) -> RedisResult<Value> {
        match self {
            Self::Single(connection) => command.query_async(connection).await,
            Self::Cluster(connection) => command.query_async(connection).await,
        }
    }

    /// What changes when another server has taken over.
    async fn identity(&mut self) -> RedisResult<Option<String>> {
        let (command, argument, field) = match self {
            Self::Single(_) => ("INFO", "server", "run_id:"),
            Self::Cluster(_) => ("CLUSTER", "INFO", "cluster_current_epoch:"),
        };
        let answer = self.send(redis::cmd(command).arg(argument)).await?;
        let text: String = redis::from_redis_value(answer)?;
        Ok(text.lines().find_map(|line| line.strip_prefix(field)).map(|value| value.trim().to_owned()))
    }
}

impl Source {
    fn new(options: &RedisOptions) -> RedisResult<Self> {
        let settings = settings(options.auth.as_ref(), options.database);
        let certificates = options.tls.as_ref().map(certificates);
        let tls = options.tls.is_some();
        Ok(match &options.topology {
            RedisTopology::Single(server) => {
                let info = address(server, tls)?.into_connection_info()?.set_redis_settings(settings);
                Self::Single(match certificates {
                    Some(certificates) => Client::build_with_tls(info, certificates)?,
                    None => Client::open(info)?,
                })
            }
            RedisTopology::Sentinel { sentinels, primary } => {
                let sentinels = sentinels.iter().map(|sentinel| address(sentinel, tls)).collect::<RedisResult<Vec<_>>>()?;
                let mut builder = SentinelClientBuilder::new(sentinels, primary, SentinelServerType::Master)?
                    .set_client_to_redis_db(options.database.into());
                if let Some(auth) = &options.auth {
                    builder = builder.set_client_to_redis_password(auth.password.expose_secret());
                    if let Some(username) = &auth.username {
                        builder = builder.set_client_to_redis_username(username);
                    }
                }
                if let Some(auth) = &options.sentinel_auth {
                    builder = builder.set_client_to_sentinel_password(auth.password.expose_secret());
                    if let Some(username) = &auth.username {
                        builder = builder.set_client_to_sentinel_username(username);
                    }
                }
                if let Some(certificates) = certificates {
                    builder = builder
                        .set_client_to_redis_tls_mode(TlsMode::Secure)
                        .set_client_to_redis_certificates(certificates.clone())
                        .set_client_to_sentinel_tls_mode(TlsMode::Secure)
                        .set_client_to_sentinel_certificates(certificates);
                }
                Self::Sentinel(Box::new(tokio::sync::Mutex::new(builder.build()?)))
            }
            RedisTopology::Cluster(nodes) => {
                let infos = nodes.iter().map(|node| {
                    let cluster_settings = self::settings(options.auth.as_ref(), 0);
                    Ok(address(node, tls)?.into_connection_info()?.set_redis_settings(cluster_settings))
                });
                let infos = infos.collect::<RedisResult<Vec<ConnectionInfo>>>()?;
                let mut builder = ClusterClient::builder(infos)
                    .retries(CLUSTER_RETRIES)
                    .min_retry_wait(CLUSTER_RETRY_MS.0)
                    .max_retry_wait(CLUSTER_RETRY_MS.1)
                    .connection_timeout(options.connect_timeout)
                    .response_timeout(options.call_timeout);
                if let Some(certificates) = certificates {
                    builder = builder.certs(certificates);
                }
                Self::Cluster(builder.build()?)
            }
        })
    }

    async fn connect(&self, config: &AsyncConnectionConfig) -> RedisResult<Connection> {
        Ok(match self {
            Self::Single(client) => Connection::Single(client.get_multiplexed_async_connection_with_config(config).await?),
            Self::Sentinel(client) => {
                let client = client.lock().await.async_get_client().await?;
                Connection::Single(client.get_multiplexed_async_connection_with_config(config).await?)
            }
            Self::Cluster(client) => Connection::Cluster(client.get_async_connection().await?),
        })
    }
}

/// Whether the connection, not the question, is at fault. A demoted primary is such a connection too.
fn is_dead(error: &RedisError) -> bool {
    error.is_io_error()
        || error.is_connection_dropped()
        || error.is_unrecoverable_error()
        || matches!(
            error.kind(),
            ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown) | ErrorKind::ClusterConnectionNotFound
        )
}

fn slow() -> RedisError {
    RedisError::from(std::io::Error::new(std::io::ErrorKind::TimedOut, "no connection in time"))
}

fn address(server: &str, tls: bool) -> RedisResult<ConnectionAddr> {
    let (host, port) = server
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host.trim_matches(['[', ']']).to_owned(), port.parse().ok()?)))
        .ok_or((ErrorKind::InvalidClientConfig, "a Redis address is `host:port`"))?;
    Ok(if tls { ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None } } else { ConnectionAddr::Tcp(host, port) })
}

fn settings(auth: Option<&RedisAuth>, database: u16) -> RedisConnectionInfo {
    let mut settings = RedisConnectionInfo::default().set_db(database.into());
    if let Some(auth) = auth {
        settings = settings.set_password(auth.password.expose_secret());
        if let Some(username) = &auth.username {
            settings = settings.set_username(username);
        }
    }
    settings
}

fn certificates(tls: &RedisTls) -> TlsCertificates {
    TlsCertificates {
        client_tls: tls.client.as_ref().map(|(certificate, key)| ClientTlsConfig {
            client_cert: certificate.clone(),
            client_key: key.expose_secret().as_bytes().to_vec(),
        }),
        root_cert: tls.roots.clone(),
    }
}

/// How long a large settlement waits for one replica, in milliseconds.
const REPLICA_WAIT_MS: u64 = 50;
/// While a slot moves between nodes a script is told to try again; a few tries fit into one call.
const CLUSTER_RETRIES: u32 = 4;
/// Between them, in milliseconds: least and most.
const CLUSTER_RETRY_MS: (u64, u64) = (2, 10);
