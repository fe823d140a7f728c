//! The `instructions` command: instructions per request of Tidegate, counted by callgrind.
//!
//! Counts do not depend on what else the machine does, so they show what a change costs where every clock is too coarse. The kernel's
//! share is not in them, and neither is time-dependent behaviour: everything is some fifty times slower under valgrind. Nothing is
//! compared or judged here; the numbers are for whoever changes the hot path.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::fleet::{self, PEER_KEY, first_request};
use super::launch::{Process, find_program, free_address};
use super::tidegate::{self, ANTHROPIC, GEMINI, SAME_DIALECT};
use crate::console;
use crate::load::{self, Plan, RequestStyle};
use crate::loopback::Target;
use crate::scenario::Scenario;

/// Arguments of `instructions`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Tidegate's binary; built with `cargo build --profile dist -p tidegate` when not given. Line tables make the profiles readable:
    /// `CARGO_PROFILE_DIST_DEBUG=line-tables-only CARGO_PROFILE_DIST_STRIP=none`.
    #[arg(long)]
    tidegate: Option<PathBuf>,
    /// Folder for the profiles, one for each case, to be read with `callgrind_annotate` [default: target/loadtest/TIMESTAMP].
    #[arg(long)]
    out: Option<PathBuf>,
}

/// One kind of request.
struct Case {
    name: &'static str,
    author: &'static str,
    scenario: Scenario,
    body: usize,
    requests: u64,
}

const fn case(name: &'static str, author: &'static str, scenario: Scenario, body: usize, requests: u64) -> Case {
    Case { name, author, scenario, body, requests }
}

const STREAM: Scenario = Scenario::sse(100, 0);
/// Enough of each that start and end of a connection do not show.
const CASES: &[Case] = &[
    case("json", SAME_DIALECT, Scenario::Json, 2_000, 1_500),
    case("sse-100", SAME_DIALECT, STREAM, 2_000, 200),
    case("json-anthropic", ANTHROPIC, Scenario::Json, 2_000, 800),
    case("sse-100-anthropic", ANTHROPIC, STREAM, 2_000, 150),
    case("json-gemini", GEMINI, Scenario::Json, 2_000, 800),
    case("json-200k", SAME_DIALECT, Scenario::Json, 200_000, 200),
    case("json-1m", SAME_DIALECT, Scenario::Json, 1_000_000, 80),
];

/// Valgrind starts a program some hundred times slower than the kernel does.
const START: Duration = Duration::from_secs(120);
/// Longest that one case may take.
const WINDOW: Duration = Duration::from_secs(300);
const CONNECTIONS: usize = 8;

/// Counts and prints.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let valgrind = find_program("valgrind").context("valgrind is not installed (Debian and Ubuntu: apt-get install valgrind)")?;
    let control = find_program("callgrind_control").context("callgrind_control, a part of valgrind, is missing")?;
    let binary = super::tidegate_binary(arguments.tidegate.as_deref())?;
    let out = super::out_folder(arguments.out.as_deref())?;
    let (_mock, upstream) = fleet::start_mock(&out, None)?;
    let listen = free_address()?;
    let text = tidegate::config(&tidegate::Setup {
        listen,
        secure: None,
        operations: free_address()?,
        upstream,
        access_log: &out.join("access.log"),
        scenarios: &[Scenario::Json, STREAM],
        translated: true,
        extra_models: 0,
        keys: 10,
        runtime: "per-core",
    });
    let config = out.join("tidegate.yaml");
    std::fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
    let profile = out.join("callgrind.out");
    let mut command = Command::new(valgrind);
    command.args(["--tool=callgrind", "--dump-line=yes"]).arg(format!("--callgrind-out-file={}", profile.display()));
    command.arg(&binary).args(["edge", "--config"]).arg(&config).env(tidegate::UPSTREAM_KEY_VARIABLE, PEER_KEY);
    let headers = vec![("authorization".to_owned(), format!("Bearer {}", tidegate::key(0)))];
    let mut edge = Process::start("edge", &mut command, &out)?;
    edge.wait_for_answer(listen, &first_request(listen, &headers), START)?;
    let target = Target::parse(&format!("http://{listen}/v1"))?;
    console::result("case                 thousand instructions per request");
    for case in CASES {
        let style = RequestStyle { headers: headers.clone(), body_bytes: case.body, variants: 8 };
        let requests = load::requests(&target, case.scenario, &style, |_| (format!("{}/{}", case.author, case.scenario), Vec::new()));
        let send = |count: u64| -> Result<()> {
            let plan = Plan {
                connections: CONNECTIONS,
                warm_up: Duration::ZERO,
                window: WINDOW,
                most_requests: Some(count),
                ..Plan::new(target.clone(), case.scenario, requests.clone())
            };
            let measured = plan.run()?;
            if measured.completed < count || measured.failures.total() > 0 {
                bail!("{}: {} of {count} requests were answered: {:?}", case.name, measured.completed, measured.first_error);
            }
            Ok(())
        };
        send(case.requests / 4 + 20)?;
        tell(&control, &["--zero"], edge.pid())?;
        send(case.requests)?;
        tell(&control, &[&format!("--dump={}", case.name)], edge.pid())?;
        let dump = newest(&out)?;
        let kept = out.join(format!("{}.callgrind", case.name));
        std::fs::rename(&dump, &kept).with_context(|| format!("keep {}", dump.display()))?;
        let total = total(&std::fs::read_to_string(&kept).with_context(|| format!("read {}", kept.display()))?)?;
        console::result(format!("{:<20} {:.1}", case.name, total as f64 / case.requests as f64 / 1e3));
    }
    console::progress(format!("profiles: {}/*.callgrind", out.display()));
    Ok(())
}

/// Speaks to callgrind inside the process; it has done what it is told when this returns.
fn tell(control: &Path, what: &[&str], pid: u32) -> Result<()> {
    let output = Command::new(control).args(what).arg(pid.to_string()).output().context("run callgrind_control")?;
    if !output.status.success() {
        bail!("callgrind_control {what:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// The dump that was just written: dumps are numbered, and each is moved away before the next.
fn newest(folder: &Path) -> Result<PathBuf> {
    let files = std::fs::read_dir(folder).with_context(|| format!("look into {}", folder.display()))?;
    let mut dumps: Vec<_> = files
        .filter_map(|file| Some(file.ok()?.path()))
        .filter(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("callgrind.out.")))
        .collect();
    dumps.sort();
    dumps.pop().context("callgrind wrote no profile")
}

/// Instructions in a profile.
fn total(profile: &str) -> Result<u64> {
    let line = profile.lines().find_map(|line| line.strip_prefix("totals: ").or_else(|| line.strip_prefix("summary: ")));
    line.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok()).context("the profile has no total")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_of_a_profile_is_found() {
        assert_eq!(total("version: 1\nevents: Ir\nsummary: 188123431\n\nfn=(1) main\n").unwrap(), 188_123_431);
        assert!(total("version: 1\n").is_err());
    }

    #[test]
    fn the_only_dump_is_the_newest_one() {
        let folder = tempfile::tempdir().unwrap();
        assert!(newest(folder.path()).is_err());
        for name in ["callgrind.out", "callgrind.out.2", "json.callgrind"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(newest(folder.path()).unwrap().file_name().unwrap(), "callgrind.out.2");
    }
}
