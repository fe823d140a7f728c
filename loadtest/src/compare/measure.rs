//! The scenario groups: which load goes to whom, in which order, and which numbers are kept.
//!
//! Within a scenario contenders take turns, round after round, so that a drift of the machine hits all of them alike.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use rustls::ClientConfig;

use super::fleet::{Contender, Ground, Kind, Size};
use super::results::{Results, Sample};
use super::tidegate::{ANTHROPIC, ENDPOINTS_PER_MODEL, GEMINI, SAME_DIALECT, extra_model, key};
use super::{Arguments, Group};
use crate::console;
use crate::histogram::Summary;
use crate::interrupt;
use crate::load::{self, Measurement, Plan, RequestStyle, Shape};
use crate::process::Usage;
use crate::scenario::Scenario;

/// Connections of the closed loops and of the open loops at most.
const CONNECTIONS: usize = 64;
/// Different conversations that are sent in turn.
const VARIANTS: usize = 8;
/// Usual request, bytes.
const BODY: usize = 2_000;
/// p99 limits of the throughput frontier, milliseconds.
pub(crate) const FRONTIER_LIMITS: &[(&str, f64)] = &[
    ("rps_p99_1ms", 1.0),
    ("rps_p99_5ms", 5.0),
    ("rps_p99_10ms", 10.0),
    ("rps_p99_50ms", 50.0),
    ("rps_p99_100ms", 100.0),
    ("rps_unbounded", f64::INFINITY),
];
/// Steps of the frontier, as shares of the closed loop's throughput.
const FRONTIER_STEPS: &[f64] = &[0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 1.0];
/// Concurrent streams that are tried, at 5 ms and at 20 ms pace.
const HOLD_STEPS: &[(u32, &[usize])] = &[(5, &[100, 200, 400, 800]), (20, &[500, 1_000, 2_000, 4_000])];
/// Body sizes of figure 3.
pub(crate) const BODIES: &[(&str, usize)] = &[("2k", 2_000), ("20k", 20_000), ("200k", 200_000), ("1m", 1_000_000)];
/// Sequential requests of the stall figure (G13).
const SEQUENTIAL: u64 = 1_000;
/// Open streams of the memory figure.
const OPEN_STREAMS: usize = 1_000;
/// Time after the load in which memory may be given back.
const RELEASE: Duration = Duration::from_secs(5);
/// Requests per second of the long fixed load, and its slices.
const LONG_RATE: f64 = 500.0;
const LONG_SLICES: u32 = 20;
/// Keys and endpoints of the scale figures.
pub(crate) const SIZES: &[(usize, usize)] = &[(10, 3), (10, 10), (1_000, 400), (100_000, 4_000)];

const UNPACED: Scenario = Scenario::sse(100, 0);
const FAST: Scenario = Scenario::sse(200, 5);
const STEADY: Scenario = Scenario::sse(100, 50);
const HOLD: [Scenario; 2] = [Scenario::sse(400, 5), Scenario::sse(100, 20)];
const LONG_STREAM: Scenario = Scenario::sse(1_200, 50);
const ONE_CHUNK: Scenario = Scenario::sse(1, 0);

/// Every scenario that needs a model of its own.
pub(crate) const SCENARIOS: &[Scenario] = &[Scenario::Json, UNPACED, FAST, STEADY, HOLD[0], HOLD[1], LONG_STREAM, ONE_CHUNK];

/// A comparison under way.
pub(crate) struct Bench<'a> {
    pub(crate) arguments: &'a Arguments,
    pub(crate) ground: &'a Ground<'a>,
    pub(crate) contenders: &'a [Contender],
    pub(crate) tls: Arc<ClientConfig>,
    pub(crate) results: Results,
}

type Metrics = BTreeMap<&'static str, f64>;

impl Bench<'_> {
    /// Measures one group.
    pub(crate) fn group(&mut self, group: Group) -> Result<()> {
        match group {
            Group::Json => self.json(),
            Group::Frontier => self.frontier(),
            Group::Bodies => self.bodies(),
            Group::Translated => self.translated(),
            Group::Sse => self.sse(),
            Group::Hold => self.hold(),
            Group::Memory => self.memory(),
            Group::Tls => self.tls(),
            Group::Startup => self.startup(),
            Group::Scale => self.scale(),
            Group::Stall => self.stall(),
        }
    }

    fn json(&mut self) -> Result<()> {
        self.turns("json/closed-64", everyone, |bench, one| Ok(bench.plan(one, Scenario::Json)))?;
        self.turns("json/rate-1", everyone, |bench, one| {
            Ok(Plan { shape: Shape::Open { rate: 200.0 }, connections: 1, ..bench.plan(one, Scenario::Json) })
        })?;
        for (scenario, rate) in [("json/rate-500", 500.0), ("json/rate-1000", 1_000.0)] {
            self.turns(scenario, everyone, |bench, one| Ok(Plan { shape: Shape::Open { rate }, ..bench.plan(one, Scenario::Json) }))?;
        }
        Ok(())
    }

    /// Highest open-loop rate under each limit of p99 without a failure.
    fn frontier(&mut self) -> Result<()> {
        for round in 1..=self.arguments.rounds {
            for one in self.contenders {
                let most = self.run("json/frontier", one, &self.plan(one, Scenario::Json))?.rate;
                let mut metrics = Metrics::new();
                for rate in FRONTIER_STEPS.iter().map(|step| step * most).filter(|rate| *rate >= 1.0) {
                    let window = self.window().min(Duration::from_secs(2));
                    let plan = Plan { shape: Shape::Open { rate }, connections: 256, window, ..self.plan(one, Scenario::Json) };
                    let measured = self.run("json/frontier", one, &plan)?;
                    // A process that cannot follow is past its frontier, and so are all higher rates.
                    if measured.failures.total() > 0 || measured.rate < 0.97 * rate {
                        break;
                    }
                    let Some(p99) = measured.latency.map(|latency| latency.p99_us / 1e3) else {
                        break;
                    };
                    for (metric, limit) in FRONTIER_LIMITS {
                        if p99 < *limit {
                            metrics.insert(metric, measured.rate);
                        }
                    }
                }
                self.keep("json/frontier", round, one, metrics, None);
            }
        }
        Ok(())
    }

    fn bodies(&mut self) -> Result<()> {
        for (name, bytes) in BODIES {
            self.turns(&format!("bodies/{name}"), everyone, |bench, one| {
                let requests = bench.requests(one, Scenario::Json, SAME_DIALECT, *bytes);
                Ok(Plan { connections: 16, requests, ..bench.plan(one, Scenario::Json) })
            })?;
        }
        Ok(())
    }

    /// Tidegate translates; the floor relays the same scenario in its own dialect.
    fn translated(&mut self) -> Result<()> {
        let who = |one: &Contender| matches!(one.kind, Kind::Tidegate | Kind::Floor);
        for (author, dialect) in [(ANTHROPIC, "anthropic"), (GEMINI, "gemini")] {
            for (kind, answer, connections) in [("json", Scenario::Json, CONNECTIONS), ("sse", UNPACED, 16)] {
                self.turns(&format!("translated/{dialect}-{kind}"), who, |bench, one| {
                    let author = if one.kind == Kind::Tidegate { author } else { SAME_DIALECT };
                    let requests = bench.requests(one, answer, author, BODY);
                    Ok(Plan { connections, requests, ..bench.plan(one, answer) })
                })?;
            }
        }
        Ok(())
    }

    fn sse(&mut self) -> Result<()> {
        self.turns("sse/unpaced", everyone, |bench, one| Ok(Plan { connections: 16, ..bench.plan(one, UNPACED) }))?;
        self.turns("sse/200x5ms", everyone, |bench, one| {
            let warm_up = Duration::from_secs(2);
            Ok(Plan { connections: 200, warm_up, ..bench.plan(one, FAST) })
        })?;
        self.turns("sse/1000x50ms", everyone, |bench, one| {
            // Streams last five seconds; the ramp takes as long, so that starts and ends are spread evenly.
            let (warm_up, window) = (Duration::from_secs(10), bench.window().max(Duration::from_secs(8)));
            Ok(Plan { connections: 1_000, warm_up, window, ..bench.plan(one, STEADY) })
        })
    }

    /// Most concurrent streams without a dropped or stalled chunk.
    fn hold(&mut self) -> Result<()> {
        for ((pace_ms, steps), answer) in HOLD_STEPS.iter().zip(HOLD) {
            let scenario = format!("hold/{pace_ms}ms");
            for round in 1..=self.arguments.rounds {
                for one in self.contenders {
                    let mut metrics = Metrics::from([("streams", 0.0)]);
                    for &connections in *steps {
                        let warm_up = Duration::from_secs(3);
                        let measured = self.run(&scenario, one, &Plan { connections, warm_up, ..self.plan(one, answer) })?;
                        let due = connections as f64 * measured.seconds * 1_000.0 / f64::from(*pace_ms);
                        if measured.failures.total() > 0 || (measured.chunks as f64) < 0.95 * due {
                            break;
                        }
                        metrics.insert("streams", connections as f64);
                    }
                    self.keep(&scenario, round, one, metrics, None);
                }
            }
        }
        Ok(())
    }

    /// On fresh processes, because what ran before stays in the memory of most allocators.
    fn memory(&mut self) -> Result<()> {
        for round in 1..=self.arguments.rounds {
            for kind in self.light() {
                let one = self.ground.start(kind)?;
                let Some(pid) = one.pid else { continue };
                let rss = || Usage::of_tree(pid).rss as f64 / 1_048_576.0;
                interrupt::sleep_until(Instant::now() + Duration::from_secs(1))?;
                let idle = rss();
                let (warm_up, window) = (Duration::from_secs(4), Duration::from_secs(4));
                let plan = Plan { connections: OPEN_STREAMS, warm_up, window, ..self.plan(&one, LONG_STREAM) };
                let measured = self.run("memory", &one, &plan)?;
                let loaded = measured.rss_bytes.map_or(f64::NAN, |bytes| bytes as f64 / 1_048_576.0);
                interrupt::sleep_until(Instant::now() + RELEASE)?;
                let open = measured.open_streams as f64;
                let metrics = [
                    ("idle_mib", idle),
                    ("streams_mib", loaded),
                    ("open_streams", open),
                    ("stream_kib", (loaded - idle) * 1024.0 / open.max(1.0)),
                    ("released_mib", rss()),
                ];
                self.keep("memory/streams", round, &one, metrics.into(), measured.first_error);
            }
        }
        if let Some(duration) = self.arguments.long {
            self.long_load(duration)?;
        }
        Ok(())
    }

    /// Memory under a fixed load; the trend of its second half, when caches and pools are full.
    fn long_load(&mut self, duration: Duration) -> Result<()> {
        for kind in self.light().into_iter().filter(|kind| matches!(kind, Kind::Tidegate | Kind::Floor)) {
            let one = self.ground.start(kind)?;
            let slice = (duration / LONG_SLICES).max(Duration::from_secs(1));
            let mut points = Vec::new();
            for number in 1..=LONG_SLICES {
                let shape = Shape::Open { rate: LONG_RATE };
                let measured = self.run("memory/long", &one, &Plan { shape, window: slice, ..self.plan(&one, Scenario::Json) })?;
                if let Some(bytes) = measured.rss_bytes {
                    points.push((f64::from(number) * slice.as_secs_f64() / 60.0, bytes as f64 / 1024.0));
                }
            }
            let at_end = points.last().map_or(f64::NAN, |point| point.1 / 1024.0);
            let growth = slope(&points[points.len() / 2..]);
            interrupt::sleep_until(Instant::now() + RELEASE)?;
            let released = one.pid.map_or(f64::NAN, |pid| Usage::of_tree(pid).rss as f64 / 1_048_576.0);
            let metrics = [
                ("minutes", duration.as_secs_f64() / 60.0),
                ("loaded_mib", at_end),
                ("growth_kib_per_minute", growth),
                ("released_mib", released),
            ];
            self.keep("memory/long", 1, &one, metrics.into(), None);
        }
        Ok(())
    }

    fn tls(&mut self) -> Result<()> {
        let secure = |one: &Contender| one.secure.is_some();
        self.turns("tls/handshake", secure, |bench, one| {
            Ok(Plan { shape: Shape::Handshakes, connections: 16, ..bench.secure_plan(one)? })
        })?;
        self.turns("tls/keep-alive", secure, |bench, one| bench.secure_plan(one))
    }

    fn secure_plan(&self, one: &Contender) -> Result<Plan> {
        let target = one.secure.clone().context("the contender has no TLS listener")?;
        Ok(Plan { target, tls: Some(Arc::clone(&self.tls)), ..self.plan(one, Scenario::Json) })
    }

    fn startup(&mut self) -> Result<()> {
        for round in 1..=self.arguments.rounds {
            for kind in self.light() {
                let one = self.ground.start(kind)?;
                let mut metrics = Metrics::from([("first_answer_ms", one.started_in.as_secs_f64() * 1e3)]);
                if let (Kind::Tidegate, Some(binary)) = (kind, self.ground.tidegate) {
                    let bytes = std::fs::metadata(binary).with_context(|| format!("look at {}", binary.display()))?.len();
                    metrics.insert("binary_mb", bytes as f64 / 1e6);
                }
                self.keep("startup/cold", round, &one, metrics, None);
                console::progress(format!("startup/cold  round {round}  {:<16}{:.1} ms", one.name, one.started_in.as_secs_f64() * 1e3));
            }
        }
        Ok(())
    }

    /// Tidegate alone: neither keys nor endpoints may cost anything per request.
    fn scale(&mut self) -> Result<()> {
        if self.ground.tidegate.is_none() {
            return Ok(());
        }
        let mut running = Vec::new();
        for &(keys, endpoints) in SIZES {
            let models = endpoints.div_ceil(ENDPOINTS_PER_MODEL);
            let size = Size { keys, extra_models: models - 1, all_models: false };
            let name = format!("tidegate-{endpoints}x{keys}");
            console::progress(format!("starting {name}: {endpoints} endpoints, {keys} keys"));
            running.push((self.ground.start_as(Kind::Tidegate, &name, size)?, keys, models));
        }
        for round in 1..=self.arguments.rounds {
            for (one, keys, models) in &running {
                // As many conversations for each size, spread over all keys and models there are.
                let style = RequestStyle { headers: Vec::new(), body_bytes: BODY, variants: 256 };
                let requests = load::requests(&one.plain, Scenario::Json, &style, |variant| {
                    let model = match variant * (models - 1) / 256 {
                        0 => format!("{SAME_DIALECT}/{}", Scenario::Json),
                        number => extra_model(number - 1),
                    };
                    (model, vec![("authorization".to_owned(), format!("Bearer {}", key(variant * keys / 256)))])
                });
                let plan = Plan { requests, ..self.plan(one, Scenario::Json) };
                let measured = self.run("scale", one, &plan)?;
                let mut metrics = figures(&measured, Scenario::Json);
                metrics.insert("first_answer_ms", one.started_in.as_secs_f64() * 1e3);
                if let Some(bytes) = measured.rss_bytes {
                    metrics.insert("rss_mib", bytes as f64 / 1_048_576.0);
                }
                self.keep("scale", round, one, metrics, measured.first_error);
            }
        }
        Ok(())
    }

    /// One connection, one request after the other: the pattern in which Nagle's algorithm and delayed acknowledgements meet.
    fn stall(&mut self) -> Result<()> {
        for (scenario, answer) in [("stall/json", Scenario::Json), ("stall/sse", ONE_CHUNK)] {
            self.turns(scenario, everyone, |bench, one| {
                let window = Duration::from_secs(60);
                Ok(Plan { connections: 1, most_requests: Some(SEQUENTIAL), window, ..bench.plan(one, answer) })
            })?;
        }
        Ok(())
    }

    /// Every chosen contender in turn, round after round.
    fn turns(&mut self, scenario: &str, who: impl Fn(&Contender) -> bool, plan: impl Fn(&Self, &Contender) -> Result<Plan>) -> Result<()> {
        for round in 1..=self.arguments.rounds {
            for one in self.contenders.iter().filter(|one| who(one)) {
                let plan = plan(self, one)?;
                let measured = self.run(&format!("{scenario}, round {round}"), one, &plan)?;
                self.keep(scenario, round, one, figures(&measured, plan.scenario), measured.first_error);
            }
        }
        Ok(())
    }

    fn run(&self, label: &str, one: &Contender, plan: &Plan) -> Result<Measurement> {
        if let Some(pid) = one.pid {
            wait_until_quiet(pid)?;
        }
        let measured = plan.run().with_context(|| format!("measure {label} of {}", one.name))?;
        console::progress(format!("{label:<36}{:<16}{}", one.name, in_short(&measured, plan.scenario)));
        Ok(measured)
    }

    fn keep(&mut self, scenario: &str, round: u16, one: &Contender, metrics: Metrics, error: Option<String>) {
        self.results.push(Sample { scenario: scenario.to_owned(), round, contender: one.name.clone(), metrics, error });
    }

    fn plan(&self, one: &Contender, answer: Scenario) -> Plan {
        Plan {
            connections: CONNECTIONS,
            window: self.window(),
            process: one.pid,
            ..Plan::new(one.plain.clone(), answer, self.requests(one, answer, SAME_DIALECT, BODY))
        }
    }

    fn window(&self) -> Duration {
        Duration::from_secs_f64(self.arguments.seconds)
    }

    fn requests(&self, one: &Contender, answer: Scenario, author: &str, body_bytes: usize) -> Arc<[Bytes]> {
        let style = RequestStyle { headers: one.headers.clone(), body_bytes, variants: VARIANTS };
        load::requests(&one.plain, answer, &style, |_| (format!("{author}/{answer}"), Vec::new()))
    }

    /// Contenders that are started afresh for a figure.
    fn light(&self) -> Vec<Kind> {
        self.contenders.iter().map(|one| one.kind).filter(|kind| kind.is_light()).collect()
    }
}

fn everyone(_: &Contender) -> bool {
    true
}

/// The numbers that reports are made of.
fn figures(measured: &Measurement, answer: Scenario) -> Metrics {
    let mut metrics = Metrics::new();
    metrics.insert("failures", measured.failures.total() as f64);
    metrics.insert("completed", measured.completed as f64);
    if measured.completed == 0 && measured.chunks == 0 {
        return metrics;
    }
    metrics.insert("rps", measured.rate);
    metrics.insert("generator_cpu_ms_per_1000", per_thousand(measured.generator_cpu_seconds, measured.completed));
    metrics.insert("slower_than_10ms", measured.slower_than_10ms as f64);
    let mut add = |summary: Option<Summary>, names: [&'static str; 5]| {
        if let Some(summary) = summary {
            let values = [summary.p50_us, summary.p90_us, summary.p99_us, summary.p999_us, summary.max_us];
            metrics.extend(names.into_iter().zip(values));
        }
    };
    add(measured.latency, ["p50_us", "p90_us", "p99_us", "p999_us", "max_us"]);
    add(measured.first_chunk, ["first_p50_us", "first_p90_us", "first_p99_us", "first_p999_us", "first_max_us"]);
    add(measured.chunk_delay, ["delay_p50_us", "delay_p90_us", "delay_p99_us", "delay_p999_us", "delay_max_us"]);
    add(measured.send_lag, ["lag_p50_us", "lag_p90_us", "lag_p99_us", "lag_p999_us", "lag_max_us"]);
    if let Some(cpu) = measured.cpu_seconds {
        metrics.insert("cpu_ms_per_1000", per_thousand(cpu, measured.completed));
        if answer.stream().is_some() && measured.chunks > 0 {
            metrics.insert("cpu_us_per_chunk", cpu * 1e6 / measured.chunks as f64);
        }
    }
    if answer.stream().is_some() {
        metrics.insert("chunks_per_second", measured.chunks as f64 / measured.seconds);
    }
    if let Some(bytes) = measured.rss_bytes {
        metrics.insert("rss_mib", bytes as f64 / 1_048_576.0);
    }
    metrics
}

/// One line for the person who waits.
fn in_short(measured: &Measurement, answer: Scenario) -> String {
    let (count, what) = match answer.stream() {
        Some(stream) if stream.pace_ms > 0 => (measured.chunks, "chunks"),
        Some(_) => (measured.completed, "streams"),
        None => (measured.completed, "requests"),
    };
    let mut line = format!("{:9.0} {what}/s", count as f64 / measured.seconds);
    if let Some(cpu) = measured.cpu_seconds.filter(|_| count > 0) {
        line.push_str(&format!("{:10.1} ms CPU per 1,000", per_thousand(cpu, count)));
    }
    if measured.failures.total() > 0 {
        let error = measured.first_error.as_deref().unwrap_or("unanswered");
        line.push_str(&format!("  {} FAILED: {error}", measured.failures.total()));
    }
    line
}

/// Milliseconds per 1,000 requests; infinite when there was none, which statistics leave out.
fn per_thousand(cpu_seconds: f64, completed: u64) -> f64 {
    cpu_seconds * 1e6 / completed as f64
}

/// Work left over from the last turn (cancelled streams, queued requests) must not be charged to the next.
fn wait_until_quiet(pid: u32) -> Result<()> {
    const LOOK: Duration = Duration::from_millis(60);
    let patience = Instant::now() + Duration::from_secs(10);
    let mut before = Usage::of_tree(pid).cpu;
    loop {
        interrupt::sleep_until(Instant::now() + LOOK)?;
        let now = Usage::of_tree(pid).cpu;
        if now.saturating_sub(before) <= LOOK / 4 || Instant::now() > patience {
            return Ok(());
        }
        before = now;
    }
}

/// Least-squares slope of `y` over `x`; zero for fewer than two points.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let (sum_x, sum_y) = points.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
    let (mean_x, mean_y) = (sum_x / count, sum_y / count);
    let spread: f64 = points.iter().map(|point| (point.0 - mean_x).powi(2)).sum();
    let shared: f64 = points.iter().map(|point| (point.0 - mean_x) * (point.1 - mean_y)).sum();
    if points.len() < 2 || spread == 0.0 { 0.0 } else { shared / spread }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trend_is_told_from_noise() {
        assert_eq!(slope(&[(1.0, 10.0), (2.0, 12.0), (3.0, 14.0)]), 2.0);
        assert!(slope(&[(1.0, 10.0), (2.0, 11.0), (3.0, 11.0), (4.0, 10.0)]).abs() < 1e-9);
        assert_eq!(slope(&[(1.0, 5.0)]), 0.0);
        assert_eq!(slope(&[]), 0.0);
    }
}
