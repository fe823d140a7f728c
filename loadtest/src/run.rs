//! The `run` command: one measurement of one target, by hand.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::console;
use crate::load::{self, Measurement, Plan, RequestStyle, Shape};
use crate::loopback::Target;
use crate::scenario::Scenario;

/// Longest measurement, so that a forgotten one ends.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// Most connections; each costs about 40 KB here.
const MOST_CONNECTIONS: usize = 50_000;

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Base URL on a loopback address, such as http://127.0.0.1:9200/v1 (`/chat/completions` is appended).
    pub(crate) url: String,
    /// Model to name; its last segment tells the mock what to answer: json, or sse-CHUNKS-PACE (pace in ms).
    #[arg(long, default_value = "bench/json")]
    pub(crate) model: String,
    /// Open loop: requests per second. Without it each connection sends when its last request is answered (closed loop).
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// Make full TLS handshakes instead of requests (https only, no resumption).
    #[arg(long, conflicts_with = "rate")]
    pub(crate) handshakes: bool,
    /// Connections; in the open loop the most that may be used.
    #[arg(long, short, default_value_t = 64)]
    pub(crate) connections: usize,
    /// Seconds that count.
    #[arg(long, short, default_value_t = 5.0)]
    pub(crate) seconds: f64,
    /// Seconds before anything counts.
    #[arg(long, default_value_t = 1.0)]
    pub(crate) warm_up: f64,
    /// Stop after so many requests, even when the time is not over.
    #[arg(long)]
    pub(crate) requests: Option<u64>,
    /// Approximate size of the request body in bytes.
    #[arg(long, default_value_t = 2_000)]
    pub(crate) body_bytes: usize,
    /// Different conversations to send in turn.
    #[arg(long, default_value_t = 8)]
    pub(crate) variants: usize,
    /// API key, sent as `Authorization: Bearer`.
    #[arg(long, env = "TIDEGATE_LOADTEST_KEY", hide_env_values = true)]
    pub(crate) key: Option<String>,
    /// Further header, `name: value`; may be repeated.
    #[arg(long = "header")]
    pub(crate) headers: Vec<String>,
    /// Certificate authority of an https target, a PEM file.
    #[arg(long)]
    pub(crate) ca: Option<PathBuf>,
    /// Process to account CPU and memory for, with its descendants.
    #[arg(long)]
    pub(crate) pid: Option<u32>,
    /// Generator threads.
    #[arg(long, default_value_t = 1)]
    pub(crate) threads: usize,
    /// Print the result as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Measures and prints.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let measurement = plan(arguments)?.run()?;
    if arguments.json {
        console::result(serde_json::to_string_pretty(&measurement).context("write the result")?);
    } else {
        print(&measurement);
    }
    Ok(())
}

fn plan(arguments: &Arguments) -> Result<Plan> {
    let target = Target::parse(&arguments.url)?;
    let scenario = Scenario::of_model(&arguments.model);
    let mut headers = Vec::new();
    if let Some(key) = &arguments.key {
        headers.push(("authorization".to_owned(), format!("Bearer {key}")));
    }
    for header in &arguments.headers {
        let (name, value) = header.split_once(':').with_context(|| format!("header `{header}` has no colon"))?;
        headers.push((name.trim().to_owned(), value.trim().to_owned()));
    }
    if arguments.connections == 0 || arguments.connections > MOST_CONNECTIONS {
        bail!("--connections must be between 1 and {MOST_CONNECTIONS}");
    }
    if arguments.rate.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) {
        bail!("--rate must be a positive number");
    }
    let shape = match (arguments.rate, arguments.handshakes) {
        (Some(rate), _) => Shape::Open { rate },
        (None, true) => Shape::Handshakes,
        (None, false) => Shape::Closed,
    };
    let tls = match (target.tls, &arguments.ca) {
        (true, Some(ca)) => Some(load::tls_client(ca)?),
        (true, None) => {
            bail!("an https target needs --ca <file>, the certificate authority to trust")
        }
        (false, _) if arguments.handshakes => bail!("--handshakes needs an https target"),
        (false, _) => None,
    };
    let style = RequestStyle { headers, body_bytes: arguments.body_bytes, variants: arguments.variants };
    let requests = load::requests(&target, scenario, &style, |_| (arguments.model.clone(), Vec::new()));
    Ok(Plan {
        tls,
        shape,
        connections: arguments.connections,
        warm_up: bounded(arguments.warm_up, "--warm-up")?,
        window: bounded(arguments.seconds, "--seconds")?,
        most_requests: arguments.requests,
        threads: arguments.threads,
        process: arguments.pid,
        ..Plan::new(target, scenario, requests)
    })
}

fn bounded(seconds: f64, option: &str) -> Result<Duration> {
    let duration = Duration::try_from_secs_f64(seconds).with_context(|| format!("{option} is not a duration"))?;
    if duration > LONGEST {
        bail!("{option} is longer than a day");
    }
    Ok(duration)
}

fn print(measurement: &Measurement) {
    let line = |name: &str, value: String| console::result(format!("{name:<22}{value}"));
    line("requests per second", format!("{:.0}  ({} in {:.2} s)", measurement.rate, measurement.completed, measurement.seconds));
    let summaries = [
        ("latency", measurement.latency),
        ("time to first chunk", measurement.first_chunk),
        ("chunk delay", measurement.chunk_delay),
        ("send lag", measurement.send_lag),
    ];
    for (name, summary) in summaries {
        let Some(summary) = summary else { continue };
        let figures = [summary.p50_us, summary.p90_us, summary.p99_us, summary.p999_us, summary.max_us].map(|us| format!("{us:.0}"));
        line(name, format!("{} µs  (p50, p90, p99, p99.9, max)", figures.join(" / ")));
    }
    if measurement.chunks > 0 {
        line("chunks", format!("{}  ({} streams open at the end)", measurement.chunks, measurement.open_streams));
    }
    if let Some(cpu) = measurement.cpu_seconds {
        let per_thousand = cpu * 1e6 / measurement.completed.max(1) as f64;
        line("CPU", format!("{cpu:.2} s, {per_thousand:.1} ms per 1,000 requests"));
    }
    if let Some(rss) = measurement.rss_bytes {
        line("resident memory", format!("{:.1} MiB", rss as f64 / 1_048_576.0));
    }
    line("generator CPU", format!("{:.2} s", measurement.generator_cpu_seconds));
    let failures = measurement.failures;
    line("failures", failures.total().to_string());
    if failures.total() > 0 {
        line("", format!("{failures:?}"));
        line("first error", measurement.first_error.clone().unwrap_or_default());
    }
}
