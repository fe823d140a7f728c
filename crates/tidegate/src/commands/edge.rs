//! `tidegate edge`: loads a configuration, serves it, and takes over changes while serving.

mod changes;
mod follow;
mod watch;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use prometheus::{IntCounterVec, Opts, Registry};
use tidegate_edge::config::MeshConfig;
use tidegate_edge::control_link::nothing;
use tidegate_edge::{Edge, Services};
use tidegate_runtime::logging::{self, LogConfig, LogFormat, LogGuard};
use tidegate_runtime::mesh::Identity;
use tidegate_runtime::signals::{StopSignals, reload_signals};
use tidegate_runtime::telemetry::Telemetry;
use tidegate_runtime::{Clock, Shutdown, Tasks};

use super::{BAD_CONFIG, show_problems};
use crate::cli::{EdgeArgs, Global};
use crate::config::file::LogFormatName;
use crate::config::{self, Config, Environment, Report, Secrets};
use crate::output::Output;
use changes::Changes;
use watch::Watch;

/// Threads for accepting, the operations port and reloads. Requests run on the edge's own workers.
const BACKGROUND_THREADS: usize = 2;
/// How often the files are looked at.
const POLL: Duration = Duration::from_secs(1);
/// Time for the last spans to leave after the last request.
const LAST_EXPORT: Duration = Duration::from_secs(5);

pub(super) fn run(args: &EdgeArgs, global: &Global, output: &mut Output) -> anyhow::Result<ExitCode> {
    let mut environment = Environment::of_process();
    if !args.control.is_empty() {
        environment.set("TIDEGATE__CONTROL__ENDPOINTS", serde_json::json!(args.control).to_string());
    }
    // Before the reading, so that a change in between is seen.
    let mut watch = Watch::new(&args.config);
    let (config, report) = config::load(&args.config, &environment, Secrets::Required);
    show_problems(&report, output);
    let Some(config) = config else { return Ok(ExitCode::from(BAD_CONFIG)) };
    watch.follow(&report.files);

    let log = logging::init(&log_config(&config.process.log, global)).context("start logging")?;
    // A level of the command line wins, now and later.
    let log = global.log_level.is_none().then_some(log);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(BACKGROUND_THREADS)
        .thread_name("tidegate")
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(serve(config, environment, watch, log))
}

async fn serve(config: Config, environment: Environment, watch: Watch, log: Option<LogGuard>) -> anyhow::Result<ExitCode> {
    let mut stops = StopSignals::install().context("listen for stop signals")?;
    let registry = Registry::new();
    let reloads = reload_counter(&registry).context("register metrics")?;
    // Outlives the edge, so that the spans of the last requests leave too.
    let exports = Tasks::with_shutdown(Shutdown::new());
    let telemetry = match &config.process.telemetry {
        Some(telemetry) => Telemetry::start(telemetry, &registry, &exports).context("start trace export")?,
        None => Telemetry::off(),
    };
    let mut services = Services { registry, telemetry, ..Services::default() };
    let mut mesh = config.mesh.clone();
    let mut identity = None;
    if let Some(files) = &config.process.control {
        let followed = follow::services(files, &config, &services, &exports)?;
        (services.control, identity) = (Some(followed.services), followed.identity);
        mesh = MeshConfig { keys_pepper: mesh.keys_pepper.take(), ..nothing() };
    }
    let edge = Edge::start(config.edge.clone(), mesh, services).await.context("start the edge")?;
    for (name, address) in &edge.bound().listeners {
        tracing::info!(listener = %name, %address, "listening");
    }
    if let Some(address) = edge.bound().operations {
        tracing::info!(%address, "operations port");
    }
    if let Some(link) = &config.edge.control {
        tracing::info!(control_nodes = link.endpoints.len(), edge = %link.edge, "following the control plane");
    }
    tracing::info!(endpoints = config.mesh.endpoints.len(), models = config.mesh.models.len(), keys = config.mesh.keys.len(), "serving");

    let mut reloader = Reloader { watch, config, environment, reloads, log, identity };
    let signal = reloader.run_until(&edge, &mut stops).await?;
    tracing::info!(signal, "stopping: new connections are refused, running requests may end");
    // Losing a branch is safe: a shutdown that is dropped ends with the process, which a second signal asks for.
    let code = tokio::select! {
        cut = edge.shutdown() => {
            tracing::info!(cut, "stopped");
            ExitCode::SUCCESS
        }
        signal = stops.next() => {
            tracing::warn!(signal, "stopped at once by a second signal; running requests were cut off");
            ExitCode::FAILURE
        }
    };
    if let Err(unfinished) = exports.close(LAST_EXPORT).await {
        tracing::warn!(%unfinished, "some traces were not exported");
    }
    Ok(code)
}

/// Takes changes of the files over while an edge serves.
struct Reloader {
    watch: Watch,
    config: Config,
    environment: Environment,
    reloads: IntCounterVec,
    /// Changes the level, unless the command line gave it.
    log: Option<LogGuard>,
    /// Our certificate in the mesh.
    identity: Option<Arc<Identity>>,
}

impl Reloader {
    /// Runs until a stop signal, whose name it returns.
    async fn run_until(&mut self, edge: &Edge, stops: &mut StopSignals) -> anyhow::Result<&'static str> {
        let mut hangups = reload_signals().context("listen for SIGHUP")?;
        let mut ticks = tokio::time::interval(POLL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            // Losing a branch is safe: signals stay pending in their streams, and a lost tick comes again.
            tokio::select! {
                signal = stops.next() => return Ok(signal),
                Some(()) = hangups.next() => {
                    edge.refresh_files();
                    if let Some(identity) = &self.identity {
                        // What happened is logged and counted there.
                        identity.reload_now(Clock::start().unix_seconds());
                    }
                    self.watch.look();
                    self.reload(edge);
                }
                _ = ticks.tick() => {
                    if self.watch.look() {
                        self.reload(edge);
                    }
                }
            }
        }
    }

    /// Reads the files again. What is wrong is logged, and the old configuration goes on.
    fn reload(&mut self, edge: &Edge) {
        let (config, report) = config::load(self.watch.config(), &self.environment, Secrets::Required);
        // Also those of a refused configuration: a secret that was missing may come.
        self.watch.follow(&report.files);
        log_problems(&report);
        let Some(mut config) = config else {
            tracing::error!(errors = report.errors(), "the new configuration is refused; the old one goes on");
            self.count("refused");
            return;
        };
        if self.config.edge.control.is_some() || config.edge.control.is_some() {
            return self.take_over_level(&config);
        }
        config.mesh.revision = edge.revision() + 1;
        let changes = Changes::between(&self.config, &config);
        if changes.is_empty() {
            self.count("unchanged");
            tracing::info!("the configuration says what it said before");
            return;
        }
        if let Err(problems) = edge.reload(config.mesh.clone()) {
            for problem in &problems {
                tracing::error!(%problem, "configuration");
            }
            tracing::error!(errors = problems.len(), "the new configuration is refused; the old one goes on");
            self.count("refused");
            return;
        }
        changes.log(config.mesh.revision);
        self.set_level(&config.process.log.filter);
        // What a restart would change stays as it runs, so that it is named again with the next change.
        config.edge = self.config.edge.clone();
        let filter = config.process.log.filter;
        config.process = self.config.process.clone();
        config.process.log.filter = filter;
        self.config = config;
        self.count("applied");
    }

    /// What to route and who may call is not this file's business while the edge follows the control plane.
    fn take_over_level(&mut self, config: &Config) {
        self.set_level(&config.process.log.filter);
        self.config.process.log.filter.clone_from(&config.process.log.filter);
        self.count("applied");
    }

    fn set_level(&self, filter: &str) {
        let Some(log) = self.log.as_ref().filter(|_| filter != self.config.process.log.filter) else { return };
        match log.set_filter(filter) {
            Ok(()) => tracing::info!(filter, "log level changed"),
            Err(error) => tracing::error!(%error, "the log level stays as it was"),
        }
    }

    fn count(&self, result: &str) {
        self.reloads.with_label_values(&[result]).inc();
    }
}

fn log_problems(report: &Report) {
    for (problem, line) in report.problems.iter().zip(report.lines()) {
        match problem.severity {
            config::problem::Severity::Error => tracing::error!(problem = %line, "configuration"),
            config::problem::Severity::Warning => tracing::warn!(problem = %line, "configuration"),
        }
    }
}

/// The command line wins over the file.
pub(super) fn log_config(file: &LogConfig, global: &Global) -> LogConfig {
    LogConfig {
        format: match global.log_format {
            Some(LogFormatName::Auto) => LogFormat::Auto,
            Some(LogFormatName::Json) => LogFormat::Json,
            Some(LogFormatName::Human) => LogFormat::Human,
            None => file.format,
        },
        filter: global.log_level.clone().unwrap_or_else(|| file.filter.clone()),
    }
}

fn reload_counter(registry: &Registry) -> prometheus::Result<IntCounterVec> {
    let help = "Readings of a changed configuration by result: applied, unchanged, or refused because something in it is wrong.";
    let counter = IntCounterVec::new(Opts::new("tidegate_config_reloads_total", help), &["result"])?;
    for result in ["applied", "unchanged", "refused"] {
        counter.with_label_values(&[result]);
    }
    registry.register(Box::new(counter.clone()))?;
    Ok(counter)
}
