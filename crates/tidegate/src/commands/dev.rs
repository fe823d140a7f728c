//! `tidegate dev`: everything on one machine, with nothing to configure.
//!
//! One process runs an edge, five simulated providers and, when their keys are in the environment, real ones. Nothing is left behind but
//! the data directory with the development CA and the key, so that scripts keep working from one start to the next.

mod control;
mod fleet;
mod pulse;
mod real;
mod screen;
mod traffic;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use tidegate_edge::config::{
    AccessLogConfig, CertificateFiles, Defaults, EdgeConfig, KeyConfig, LedgerConfig, Limits, ListenerConfig, ListenerTls, MeshConfig,
    QuotaConfig, RuntimeModel, WorkerConfig,
};
use tidegate_edge::{Edge, Services};
use tidegate_quota::{Dimension, Limit, Scope, Window};
use tidegate_routing::Settings;
use tidegate_runtime::api_key::{ApiKey, KeyEnv};
use tidegate_runtime::dev_ca::{DevCa, DevCertificates};
use tidegate_runtime::logging::{self, LogConfig, LogFormat};
use tidegate_runtime::signals::StopSignals;

use crate::cli::Global;
use crate::config::file::LogFormatName;
use crate::key;
use fleet::Simulated;
use pulse::Pulse;
use screen::{LiveLine, Welcome};

/// `tidegate dev`.
#[derive(Debug, Args)]
#[command(after_help = "\
Real providers are switched on by the usual variables: OPENAI_API_KEY, ANTHROPIC_API_KEY, GEMINI_API_KEY, GROQ_API_KEY,
MISTRAL_API_KEY, DEEPSEEK_API_KEY, TOGETHER_API_KEY, FIREWORKS_API_KEY, XAI_API_KEY, OPENROUTER_API_KEY and others.

Examples:
  tidegate dev
  OPENAI_API_KEY=sk-... tidegate dev
  tidegate dev --http 127.0.0.1:8081 --https 127.0.0.1:8444 --ops 127.0.0.1:9091")]
pub(crate) struct DevArgs {
    /// Address for plain HTTP; port 0 picks a free one.
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    http: SocketAddr,
    /// Address for HTTPS, with a certificate of the development CA.
    #[arg(long, default_value = "127.0.0.1:8443", value_name = "ADDRESS")]
    https: SocketAddr,
    /// Address of the operations port.
    #[arg(long, default_value = "127.0.0.1:9090", value_name = "ADDRESS")]
    ops: SocketAddr,
    /// Where the development CA and the key are kept. Default: the user's data folder.
    #[arg(long, value_name = "FOLDER", env = "TIDEGATE_DEV_DATA")]
    data_dir: Option<PathBuf>,
    /// Ignore provider keys in the environment.
    #[arg(long)]
    no_real_providers: bool,
    /// Demo requests per second to the simulated providers; 0 for none.
    #[arg(long, default_value_t = 1.0, value_name = "RATE")]
    traffic: f64,
    /// Simulated providers never fail by themselves and answer at once; for test suites.
    #[arg(long)]
    reliable: bool,
    /// No line that rewrites itself.
    #[arg(long)]
    plain: bool,
    /// Write addresses and key to this file as JSON once everything runs.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

/// Runs until a stop signal.
pub(crate) fn run(args: &DevArgs, global: &Global) -> anyhow::Result<ExitCode> {
    if !(0.0..=MOST_TRAFFIC).contains(&args.traffic) {
        bail!("--traffic {} is not between 0 and {MOST_TRAFFIC}", args.traffic);
    }
    logging::init(&log_config(global)).context("start logging")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(BACKGROUND_THREADS)
        .thread_name("tidegate-dev")
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(serve(args))
}

async fn serve(args: &DevArgs) -> anyhow::Result<ExitCode> {
    let mut stops = StopSignals::install().context("listen for stop signals")?;
    let data = match &args.data_dir {
        Some(directory) => directory.clone(),
        None => default_data_dir()?,
    };
    let certificates = DevCa::ensure(&data)?;
    let key = stored_key(&data)?;
    let simulated = fleet::start(args.reliable).context("start the simulated providers")?;
    let fleet::FleetMesh { mut providers, mut models, mut endpoints } = fleet::mesh(&simulated)?;
    let real = if args.no_real_providers { real::Real::default() } else { real::from_environment() };
    let announced = real.announced();
    providers.extend(real.providers);
    models.extend(real.models);
    endpoints.extend(real.endpoints);
    let mesh = MeshConfig {
        revision: 1,
        providers,
        models,
        endpoints,
        organisations: Vec::new(),
        workspaces: Vec::new(),
        keys: vec![key_config(&key)],
        keys_pepper: None,
        presets: Vec::new(),
        defaults: Defaults { model: Some(DEFAULT_MODEL.to_owned()), ..Defaults::default() },
        settings: Settings::default(),
    };
    let services = Services { routes: control::routes(&simulated), ..Services::default() };
    let edge = Edge::start(edge_config(args, &certificates), mesh, services).await.map_err(with_advice)?;

    let addresses = Addresses::of(&edge, args);
    let traffic = (args.traffic > 0.0).then(|| traffic::Traffic::start(addresses.http, key.expose(), args.traffic));
    screen::welcome(&Welcome {
        http: &format!("http://{}", addresses.http),
        https: &format!("https://{}", addresses.https),
        ops: &format!("http://{}", addresses.ops),
        key: key.expose(),
        ca: &certificates.ca_cert_path,
        data: &data,
        real: &announced,
        model: DEFAULT_MODEL,
        demo_traffic: traffic.is_some(),
    })?;
    if let Some(path) = &args.ready_file {
        addresses.write_ready(path, key.expose(), &certificates.ca_cert_path, &simulated)?;
    }
    let mut line = LiveLine::new(args.plain);
    let mut ticks = tokio::time::interval(TICK);
    loop {
        // Losing a branch is safe: signals stay pending, and a lost tick comes again.
        tokio::select! {
            _ = stops.next() => break,
            _ = ticks.tick() => line.show(&Pulse::of(edge.registry()))?,
        }
    }
    line.leave()?;
    if let Some(traffic) = traffic {
        traffic.stop().await;
    }
    // A second signal ends at once.
    tokio::select! {
        _ = edge.shutdown() => Ok(ExitCode::SUCCESS),
        _ = stops.next() => Ok(ExitCode::FAILURE),
    }
}

/// The addresses that were taken.
struct Addresses {
    http: SocketAddr,
    https: SocketAddr,
    ops: SocketAddr,
}

impl Addresses {
    fn of(edge: &Edge, args: &DevArgs) -> Self {
        let bound = edge.bound();
        let listener = |name: &str, asked| bound.listeners.iter().find(|(own, _)| own == name).map_or(asked, |(_, address)| *address);
        Self { http: listener("http", args.http), https: listener("https", args.https), ops: bound.operations.unwrap_or(args.ops) }
    }

    fn write_ready(&self, path: &Path, key: &str, ca: &Path, simulated: &[Simulated]) -> anyhow::Result<()> {
        let sims: Vec<_> = simulated
            .iter()
            .map(|simulated| {
                serde_json::json!({
                    "provider": simulated.vendor.slug,
                    "dialect": simulated.vendor.dialect.as_str(),
                    "control": format!("http://{}/sims/{}", self.ops, simulated.vendor.slug),
                })
            })
            .collect();
        let ready = serde_json::json!({
            "http": format!("http://{}", self.http),
            "https": format!("https://localhost:{}", self.https.port()),
            "ops": format!("http://{}", self.ops),
            "key": key,
            "ca": ca,
            "models": fleet::slugs().map(|slug| serde_json::json!({ "slug": slug })).collect::<Vec<_>>(),
            "sims": sims,
        });
        // A reader that waits for the file must never see half of it.
        let partial = path.with_extension("partial");
        std::fs::write(&partial, ready.to_string()).with_context(|| format!("write {}", partial.display()))?;
        std::fs::rename(&partial, path).with_context(|| format!("write {}", path.display()))
    }
}

fn edge_config(args: &DevArgs, certificates: &DevCertificates) -> EdgeConfig {
    let files = CertificateFiles { cert: certificates.cert_path.clone(), key: certificates.key_path.clone() };
    let tls = ListenerTls { certificates: vec![files], client_ca: None, tls12: true, reload_every: Duration::from_secs(30) };
    EdgeConfig {
        listeners: vec![
            ListenerConfig { name: "http".to_owned(), address: args.http, tls: None },
            ListenerConfig { name: "https".to_owned(), address: args.https, tls: Some(tls) },
        ],
        operations: Some(args.ops),
        workers: WorkerConfig { threads: 0, model: RuntimeModel::PerCore },
        limits: Limits { drain: Duration::from_secs(15), ..Limits::default() },
        access_log: AccessLogConfig::Off,
        region: "local".to_owned(),
        control: None,
        generations_kept: 10_000,
        generations_ttl: Duration::from_secs(3600),
        // Sums in memory: what was tried is forgotten with the process.
        ledger: LedgerConfig::default(),
        quota: QuotaConfig::default(),
    }
}

/// Warnings only, unless asked otherwise: the screen belongs to the person in front of it.
fn log_config(global: &Global) -> LogConfig {
    let format = match global.log_format {
        Some(LogFormatName::Json) => LogFormat::Json,
        Some(LogFormatName::Human) => LogFormat::Human,
        Some(LogFormatName::Auto) | None => LogFormat::Auto,
    };
    LogConfig { format, filter: global.log_level.clone().unwrap_or_else(|| "warn".to_owned()) }
}

/// A busy port is the most usual reason not to start; say what to do about it.
fn with_advice(error: tidegate_edge::StartError) -> anyhow::Error {
    match error {
        tidegate_edge::StartError::Bind(error) => anyhow::anyhow!(
            "{error}\n\nIs another `tidegate dev` running? Stop it, or choose other addresses:\n  \
             tidegate dev --http 127.0.0.1:0 --https 127.0.0.1:0 --ops 127.0.0.1:0"
        ),
        error => error.into(),
    }
}

/// `$XDG_DATA_HOME/tidegate/dev`, else `~/.local/share/tidegate/dev`.
fn default_data_dir() -> anyhow::Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("XDG_DATA_HOME").or_else(|| set("HOME").map(|home| home.join(".local/share")));
    match base {
        Some(base) => Ok(base.join("tidegate/dev")),
        None => {
            bail!("neither XDG_DATA_HOME nor HOME is set, so there is no place for the development CA; give one with --data-dir FOLDER")
        }
    }
}

/// The key of the last start, or a new one.
fn stored_key(data: &Path) -> anyhow::Result<ApiKey> {
    let path = data.join("key");
    match std::fs::read_to_string(&path) {
        Ok(text) => match ApiKey::parse(text.trim()) {
            Ok(key) => return Ok(key),
            Err(error) => tracing::warn!(path = %path.display(), %error, "the stored key is not usable; a new one takes its place"),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    }
    let key = key::generate(KeyEnv::Test).context("make a key from the system's randomness")?;
    write_private(&path, key.expose()).with_context(|| format!("write {}; choose another folder with --data-dir", path.display()))?;
    Ok(key)
}

/// Writes a file that only its owner can read.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

fn key_config(key: &ApiKey) -> KeyConfig {
    // Limits that a person with a loop in a shell can meet, and that no demonstration runs into.
    let limits = vec![
        Limit::new(Scope::Key, Dimension::RequestsPerMinute, DEV_REQUESTS_PER_MINUTE),
        Limit { warn_at: Some(80), ..Limit::new(Scope::Key, Dimension::Spend(Window::Day), DEV_DOLLARS_PER_DAY * 1_000_000) },
    ];
    KeyConfig { raw_errors: true, limits, ..KeyConfig::new("dev", tidegate_edge::auth::digest(key.expose(), None)) }
}

/// The model of requests that name none, and of the examples.
const DEFAULT_MODEL: &str = "tidal/harbor";
/// What the key of `dev` may do per minute: above the most that its own demonstration traffic makes.
const DEV_REQUESTS_PER_MINUTE: u64 = 12_000;
/// And spend per day, of money that nobody pays.
const DEV_DOLLARS_PER_DAY: u64 = 25;
/// Threads for the simulated providers, the operations port and the screen. Requests run on the edge's own workers.
const BACKGROUND_THREADS: usize = 2;
/// How often the live line is looked at.
const TICK: Duration = Duration::from_secs(1);
/// Demo traffic is a demonstration; load is made by the load test.
const MOST_TRAFFIC: f64 = 100.0;
