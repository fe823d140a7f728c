//! The `compare` command: everything in one interleaved run, then tables, verdicts and a picture.

mod certificate;
mod fleet;
pub(crate) mod instructions;
mod launch;
mod measure;
mod packages;
mod picture;
mod proxies;
mod report;
mod results;
mod tidegate;
mod verdict;

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::console;
use crate::interrupt;
use crate::load;
use certificate::Certificate;
use fleet::{Contender, Ground, Kind};
use measure::Bench;
use results::Results;

/// What can be measured on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Group {
    /// Figures 1 and 2: latency at fixed rates, closed loop.
    Json,
    /// Figure 2: most requests per second under limits of p99.
    Frontier,
    /// Figure 3: request bodies of 2 KB to 1 MB.
    Bodies,
    /// Figure 3: upstreams of another dialect.
    Translated,
    /// Figure 4: streams, unpaced and paced.
    Sse,
    /// Figure 4: most concurrent streams.
    Hold,
    /// Figure 5: idle, with 1,000 streams, after; with --long also under a fixed load.
    Memory,
    /// Figure 6: handshakes and kept-alive requests.
    Tls,
    /// Figure 7: start to first answer, size of the binary.
    Startup,
    /// Figure 7: up to 4,000 endpoints and 100,000 keys.
    Scale,
    /// Write stalls in sequential requests.
    Stall,
}

/// Peers that are installed on demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Peer {
    /// LiteLLM's proxy, with pip into a cached virtual environment.
    Litellm,
    /// Portkey's gateway, with npm into a cached folder.
    Portkey,
}

/// Arguments of `compare`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    tidegate-loadtest compare                                  every figure, about an hour\n  \
    tidegate-loadtest compare --only json,sse --rounds 5       two groups, more rounds\n  \
    tidegate-loadtest compare --brief --seconds 2              those that the targets speak of, a third of the time\n  \
    tidegate-loadtest compare --without-tidegate --only json   floors and proxies only\n  \
    tidegate-loadtest compare --only memory --long 30m         does memory grow?")]
pub(crate) struct Arguments {
    /// Groups to measure, separated by commas; all when not given.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) only: Vec<Group>,
    /// Interleaved rounds; medians of fewer than three say little.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub(crate) rounds: u16,
    /// Seconds that count in each measurement.
    #[arg(long, default_value_t = 4.0, value_parser = seconds)]
    pub(crate) seconds: f64,
    /// Tidegate's binary; built with `cargo build --profile dist -p tidegate` when not given.
    #[arg(long)]
    pub(crate) tidegate: Option<PathBuf>,
    /// Measure only those that the targets speak of: direct, F, nginx and Tidegate.
    #[arg(long, conflicts_with = "with")]
    pub(crate) brief: bool,
    /// Measure only the others.
    #[arg(long, conflicts_with = "tidegate")]
    pub(crate) without_tidegate: bool,
    /// Measure Tidegate also with one shared runtime (`runtime.model: shared`), as a contender of its own.
    #[arg(long, conflicts_with = "without_tidegate")]
    pub(crate) runtime_models: bool,
    /// Peers to install and measure besides nginx and HAProxy; may be repeated.
    #[arg(long = "with", value_enum, value_delimiter = ',')]
    pub(crate) with: Vec<Peer>,
    /// A gateway that runs already, as `name=url#pid;header: value`; its model names must be the mock's (`bench/json`, …).
    #[arg(long = "peer")]
    pub(crate) peers: Vec<String>,
    /// Address of the mock, for peers that were configured before; a free port when not given.
    #[arg(long, value_parser = crate::loopback::address)]
    pub(crate) mock: Option<std::net::SocketAddr>,
    /// Fixed load for the memory figure, such as 30m.
    #[arg(long, value_parser = duration)]
    pub(crate) long: Option<Duration>,
    /// Worker threads or processes of each contender; one per core when not given.
    #[arg(long)]
    pub(crate) workers: Option<usize>,
    /// Folder for results, logs and generated configurations [default: target/loadtest/TIMESTAMP].
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
}

/// Measures, then prints and writes what was found; an interrupted run reports what it has.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    raise_file_limit();
    let binary = if arguments.without_tidegate { None } else { Some(tidegate_binary(arguments.tidegate.as_deref())?) };
    let out = out_folder(arguments.out.as_deref())?;
    let certificate = Certificate::create(&out)?;
    let (_mock, upstream) = fleet::start_mock(&out, arguments.mock)?;
    let ground = Ground {
        directory: &out,
        started: Cell::new(0),
        upstream,
        certificate: &certificate,
        workers: crate::serve::threads(arguments.workers),
        tidegate: binary.as_deref(),
        without: &[],
        scenarios: measure::SCENARIOS,
        valgrind: None,
    };
    let contenders = contenders(arguments, &ground)?;
    let names: Vec<_> = contenders.iter().map(|one| one.name.as_str()).collect();
    console::progress(format!("measuring {}; results go to {}", names.join(", "), out.display()));
    let tls = load::tls_client(&certificate.cert)?;
    let mut bench = Bench { arguments, ground: &ground, contenders: &contenders, tls, results: Results::default() };
    let groups = if arguments.only.is_empty() { <Group as clap::ValueEnum>::value_variants() } else { &arguments.only };
    let mut failed = Vec::new();
    for group in groups {
        console::progress(format!("--- {group:?}"));
        // A figure that cannot be had must not cost the others; an interruption ends them all.
        if let Err(error) = bench.group(*group) {
            console::progress(format!("{group:?} is incomplete: {error:#}"));
            failed.push(format!("{group:?}: {error:#}"));
        }
        if interrupt::requested() {
            break;
        }
    }
    publish(&bench.results, arguments, &out)?;
    match failed.as_slice() {
        [] => Ok(()),
        reasons => bail!("not everything was measured: {}", reasons.join("; ")),
    }
}

/// Starts everyone that can take part; says in one line why somebody cannot.
fn contenders(arguments: &Arguments, ground: &Ground<'_>) -> Result<Vec<Contender>> {
    let mut contenders = vec![ground.start(Kind::Direct)?, ground.start(Kind::Floor)?];
    let proxies: &[_] = if arguments.brief {
        &[Kind::Nginx]
    } else {
        contenders.extend([ground.start(Kind::FloorPerCore)?, ground.start(Kind::Raw)?]);
        &[Kind::Nginx, Kind::Haproxy]
    };
    let mut add = |kind: Kind, outcome: Result<Contender>| match outcome {
        Ok(contender) => contenders.push(contender),
        Err(error) => console::progress(format!("without {}: {error:#}", kind.name())),
    };
    for &kind in proxies {
        add(kind, proxies::install_with_apt(kind.name()).and_then(|()| ground.start(kind)));
    }
    for peer in &arguments.with {
        let kind = match peer {
            Peer::Litellm => Kind::Litellm,
            Peer::Portkey => Kind::Portkey,
        };
        add(kind, ground.start(kind));
    }
    for peer in &arguments.peers {
        contenders.push(fleet::external(peer)?);
    }
    if ground.tidegate.is_some() {
        // The one that must not be missing.
        contenders.push(ground.start(Kind::Tidegate)?);
        if arguments.runtime_models {
            contenders.push(ground.start(Kind::TidegateShared)?);
        }
    }
    Ok(contenders)
}

/// Prints the tables; writes them, the samples and the picture into the folder.
fn publish(results: &Results, arguments: &Arguments, out: &Path) -> Result<()> {
    let verdicts = verdict::all(results);
    let machine = machine();
    let report = report::markdown(results, &verdicts, &machine, arguments.rounds);
    let all =
        json!({"machine": machine, "rounds": arguments.rounds, "seconds": arguments.seconds, "verdicts": verdicts, "samples": results});
    write(out, "results.json", &serde_json::to_string_pretty(&all).context("write the results")?)?;
    write(out, "results.md", &report)?;
    if let Some(picture) = picture::svg(results) {
        write(out, "results.svg", &picture)?;
    }
    console::result(&report);
    console::progress(format!("written: {}/results.{{json,md,svg}}", out.display()));
    Ok(())
}

fn write(folder: &Path, name: &str, text: &str) -> Result<()> {
    let file = folder.join(name);
    fs::write(&file, text).with_context(|| format!("write {}", file.display()))
}

/// The given binary, or a fresh build of what is shipped.
fn tidegate_binary(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(binary) = given {
        return binary.canonicalize().with_context(|| format!("find {}", binary.display()));
    }
    console::progress("building Tidegate as it is shipped: cargo build --profile dist -p tidegate");
    let status = Command::new("cargo")
        .args(["build", "--profile", "dist", "-p", "tidegate"])
        .stdin(Stdio::null())
        .stdout(Stdio::inherit())
        .status()
        .context("run cargo; or give a binary with --tidegate")?;
    if !status.success() {
        bail!("Tidegate did not build ({status}); give a binary with --tidegate");
    }
    let binary = target_folder().join("dist/tidegate");
    binary.canonicalize().with_context(|| format!("find {}", binary.display()))
}

/// An absolute, fresh folder: configurations that name files in it are read by processes with other working directories.
fn out_folder(given: Option<&Path>) -> Result<PathBuf> {
    let folder = given.map_or_else(
        || {
            let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
            target_folder().join("loadtest").join(seconds.to_string())
        },
        Path::to_path_buf,
    );
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    folder.canonicalize().with_context(|| format!("find {}", folder.display()))
}

/// Where cargo puts its output.
fn target_folder() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from)
}

/// Cores, processor and kernel, for the head of the report.
fn machine() -> String {
    let cores = crate::serve::threads(None);
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor =
        processor.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("unknown processor", |parts| parts.1);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} cores, {processor}, Linux {}", kernel.trim())
}

/// Thousands of streams need as many descriptors here and, by inheritance, in every contender.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // A refusal shows later as failed connections, with the reason.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.2..=3_600.0).contains(&seconds) => Ok(seconds),
        _ => Err("a number of seconds from 0.2 to 3600".to_owned()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let factor = match unit {
        "s" | "" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return Err("write 90s, 30m or 2h".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| "write 90s, 30m or 2h".to_owned())?;
    match number.checked_mul(factor) {
        Some(seconds) if (20..=86_400).contains(&seconds) => Ok(Duration::from_secs(seconds)),
        _ => Err("between 20s and 24h".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_unit() {
        assert_eq!(duration("30m"), Ok(Duration::from_secs(1800)));
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        for wrong in ["", "m", "5d", "1s", "99999999999999999999h", "25h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert!(seconds("0").is_err() && seconds("x").is_err() && seconds("4").is_ok());
    }
}
