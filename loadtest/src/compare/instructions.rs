//! The `instructions` command: what one request costs Tidegate and the floor F, counted instead of timed.
//!
//! Three counts, each beside that of F: instructions of the program itself, by callgrind; system calls, by strace; switches of threads
//! and CPU time of program and kernel, by the kernel's own accounting. Instructions do not depend on what else the machine does, so they
//! show what a change costs where every clock is too coarse; the calls and switches are what the kernel is asked to do, which is most
//! of the price. Time-dependent behaviour is not in the instructions: everything is some fifty times slower under valgrind. Nothing is
//! judged here; the numbers are for whoever changes the hot path.

mod calls;

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;

use super::certificate::Certificate;
use super::fleet::{self, Contender, Ground, Kind, PROFILE, Size};
use super::launch::find_program;
use super::tidegate::{ANTHROPIC, ENDPOINTS_PER_MODEL, GEMINI, Part, SAME_DIALECT, extra_model, key};
use crate::console;
use crate::load::{self, Plan, RequestStyle};
use crate::scenario::Scenario;
use calls::Calls;

/// Arguments of `instructions`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    tidegate-loadtest instructions                                            every case, Tidegate beside F\n  \
    tidegate-loadtest instructions --only json,json-1m --tidegate <file>      two cases of a binary that exists\n  \
    tidegate-loadtest instructions --only json --without-floor --count calls  system calls of Tidegate alone\n  \
    tidegate-loadtest instructions --only json --without limits,journal       what is left of it without quotas and journal\n  \
    tidegate-loadtest instructions --count scale                              4,000 endpoints and 100,000 keys over 3 and 10")]
pub(crate) struct Arguments {
    /// Tidegate's binary; built with `cargo build --profile dist -p tidegate` when not given. Line tables make the profiles readable:
    /// `CARGO_PROFILE_DIST_DEBUG=line-tables-only CARGO_PROFILE_DIST_STRIP=none`.
    #[arg(long)]
    tidegate: Option<PathBuf>,
    /// Cases to count, separated by commas; all when not given.
    #[arg(long, value_delimiter = ',', value_parser = clap::builder::PossibleValuesParser::new(CASES.iter().map(|case| case.name)))]
    only: Vec<String>,
    /// What to count, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["user", "calls"])]
    count: Vec<What>,
    /// Leave the floor out.
    #[arg(long)]
    without_floor: bool,
    /// What Tidegate is to do without, separated by commas: what a part costs is the difference.
    #[arg(long, value_enum, value_delimiter = ',')]
    without: Vec<Part>,
    /// How Tidegate's threads share connections: `per-core` or `shared`.
    #[arg(long, default_value = "per-core", value_parser = ["per-core", "shared"])]
    runtime: String,
    /// Folder for profiles and logs [default: target/loadtest/TIMESTAMP]. A profile is read with `callgrind_annotate`.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// A kind of count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// Instructions of the program itself (needs valgrind).
    User,
    /// System calls (needs strace), switches, CPU time.
    Calls,
    /// Instructions with 4,000 endpoints and 100,000 keys over those with 3 and 10 (needs valgrind, takes minutes).
    Scale,
}

/// One kind of request.
struct Case {
    name: &'static str,
    author: &'static str,
    scenario: Scenario,
    body: usize,
    /// Counted under callgrind; enough that start and end of a connection do not show.
    requests: u64,
    tls: bool,
}

const fn case(name: &'static str, author: &'static str, scenario: Scenario, body: usize, requests: u64) -> Case {
    Case { name, author, scenario, body, requests, tls: false }
}

const STREAM: Scenario = Scenario::sse(100, 0);
const CASES: &[Case] = &[
    case("json", SAME_DIALECT, Scenario::Json, 2_000, 1_500),
    case("json-200k", SAME_DIALECT, Scenario::Json, 200_000, 200),
    case("json-1m", SAME_DIALECT, Scenario::Json, 1_000_000, 80),
    case("sse-100", SAME_DIALECT, STREAM, 2_000, 200),
    Case { tls: true, ..case("json-tls", SAME_DIALECT, Scenario::Json, 2_000, 800) },
    case("json-anthropic", ANTHROPIC, Scenario::Json, 2_000, 800),
    case("sse-100-anthropic", ANTHROPIC, STREAM, 2_000, 150),
    case("json-gemini", GEMINI, Scenario::Json, 2_000, 800),
    case("sse-100-gemini", GEMINI, STREAM, 2_000, 150),
];

/// Longest that one case may take.
const WINDOW: Duration = Duration::from_secs(300);
/// Connections under callgrind, where threads take turns anyway.
const CONNECTIONS: usize = 8;
/// Requests without valgrind are so many times more.
const MORE: u64 = 12;
/// Connections without valgrind, as in the figures.
const MANY_CONNECTIONS: usize = 64;
/// Different conversations.
const VARIANTS: usize = 8;
/// Different conversations of the scale count, spread over keys and models.
const SCALE_VARIANTS: usize = 256;
const SCALE_REQUESTS: u64 = 2_000;
/// Keys and endpoints that are compared.
const SCALE_SIZES: [(usize, usize); 2] = [(10, 3), (100_000, 4_000)];

/// Counts and prints.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let valgrind = find_program("valgrind").context("valgrind is not installed (Debian and Ubuntu: apt-get install valgrind)")?;
    let control = find_program("callgrind_control").context("callgrind_control, a part of valgrind, is missing")?;
    let binary = super::tidegate_binary(arguments.tidegate.as_deref())?;
    let out = super::out_folder(arguments.out.as_deref())?;
    let certificate = Certificate::create(&out)?;
    let (_mock, upstream) = fleet::start_mock(&out, None)?;
    let ground = Ground {
        directory: &out,
        started: Cell::new(0),
        upstream,
        certificate: &certificate,
        workers: crate::serve::threads(None),
        tidegate: Some(&binary),
        without: &arguments.without,
        scenarios: &[Scenario::Json, STREAM],
        valgrind: None,
    };
    let counter = Counter { tls: load::tls_client(&certificate.cert)?, control };
    let tidegate = if arguments.runtime == "shared" { Kind::TidegateShared } else { Kind::Tidegate };
    let kinds = if arguments.without_floor { vec![tidegate] } else { vec![tidegate, Kind::Floor] };
    let cases: Vec<_> =
        CASES.iter().filter(|case| arguments.only.is_empty() || arguments.only.iter().any(|name| name == case.name)).collect();
    for what in &arguments.count {
        match what {
            What::User => counter.user(&Ground { valgrind: Some(&valgrind), started: ground.started.clone(), ..ground }, &kinds, &cases)?,
            What::Calls => counter.calls(&ground, &kinds, &cases)?,
            What::Scale => counter.scale(&Ground { valgrind: Some(&valgrind), started: ground.started.clone(), ..ground })?,
        }
    }
    console::progress(format!("profiles and logs: {}", out.display()));
    Ok(())
}

struct Counter {
    tls: Arc<rustls::ClientConfig>,
    /// `callgrind_control`.
    control: PathBuf,
}

impl Counter {
    /// Instructions of the program itself.
    fn user(&self, ground: &Ground<'_>, kinds: &[Kind], cases: &[&Case]) -> Result<()> {
        console::progress("starting under valgrind");
        let contenders = kinds.iter().map(|kind| ground.start(*kind)).collect::<Result<Vec<_>>>()?;
        console::result("thousand instructions of the program per request");
        console::result(format!("{:<20}{:>12}{:>12}{:>8}", "case", "tidegate", "F", "ratio"));
        for case in cases {
            let mut figures = Vec::new();
            for one in &contenders {
                let Some(plan) = self.plan(one, case) else { continue };
                let profile = one.folder.join(format!("{}.callgrind", case.name));
                figures.push(self.instructions(one, &plan, case.requests, &profile)? / 1e3);
            }
            console::result(format!("{:<20}{}", case.name, beside(&figures)));
        }
        Ok(())
    }

    /// What the kernel is asked to do, with nothing else between.
    fn calls(&self, ground: &Ground<'_>, kinds: &[Kind], cases: &[&Case]) -> Result<()> {
        let contenders = kinds.iter().map(|kind| ground.start(*kind)).collect::<Result<Vec<_>>>()?;
        console::result("per request, tidegate | F");
        console::result(format!(
            "{:<20}{:>20}{:>20}{:>26}  most frequent calls",
            "case", "system calls", "switches", "CPU µs program + kernel"
        ));
        for case in cases {
            let mut counted = Vec::new();
            for one in &contenders {
                let Some(plan) = self.plan(one, case) else { continue };
                let plan = Plan { connections: MANY_CONNECTIONS, ..plan };
                let pid = one.pid.context("the contender has no process")?;
                let requests = case.requests * MORE;
                send(&plan, requests / 4)?;
                counted.push(Calls::count(pid, &one.folder.join(format!("{}.strace", case.name)), requests, |count| send(&plan, count))?);
            }
            let column = |show: &dyn Fn(&Calls) -> String| counted.iter().map(show).collect::<Vec<_>>().join(" | ");
            console::result(format!(
                "{:<20}{:>20}{:>20}{:>26}  {}",
                case.name,
                column(&|calls| calls.total.map_or_else(|| "-".to_owned(), |total| format!("{total:.2}"))),
                column(&|calls| format!("{:.2}", calls.switches)),
                column(&|calls| format!("{:.1} + {:.1}", calls.user_us, calls.kernel_us)),
                column(&|calls| calls.frequent()),
            ));
        }
        Ok(())
    }

    /// Neither keys nor endpoints may cost anything per request.
    fn scale(&self, ground: &Ground<'_>) -> Result<()> {
        let mut figures = Vec::new();
        for (keys, endpoints) in SCALE_SIZES {
            let models = endpoints.div_ceil(ENDPOINTS_PER_MODEL);
            let name = format!("tidegate-{endpoints}x{keys}");
            console::progress(format!("starting {name} under valgrind"));
            let size = Size { keys, extra_models: models - 1, all_models: false };
            let one = ground.start_as(Kind::Tidegate, &name, size)?;
            let style = RequestStyle { headers: Vec::new(), body_bytes: 2_000, variants: SCALE_VARIANTS };
            let requests = load::requests(&one.plain, Scenario::Json, &style, |variant| {
                let model = match variant * (models - 1) / SCALE_VARIANTS {
                    0 => format!("{SAME_DIALECT}/{}", Scenario::Json),
                    number => extra_model(number - 1),
                };
                (model, vec![("authorization".to_owned(), format!("Bearer {}", key(variant * keys / SCALE_VARIANTS)))])
            });
            let plan = plan_of(&one, Scenario::Json, requests);
            let thousands = self.instructions(&one, &plan, SCALE_REQUESTS, &one.folder.join("scale.callgrind"))? / 1e3;
            console::result(format!("{name:<28}{thousands:>12.1} thousand instructions per request"));
            figures.push(thousands);
        }
        if let [small, large] = figures[..] {
            console::result(format!("G15: {:.3}", large / small));
        }
        Ok(())
    }

    /// Sends so many requests under callgrind and keeps the profile of all but the first ones.
    fn instructions(&self, one: &Contender, plan: &Plan, requests: u64, profile: &Path) -> Result<f64> {
        let pid = one.pid.context("the contender has no process")?;
        send(plan, requests / 4 + 20)?;
        self.tell(&["--zero"], pid)?;
        send(plan, requests)?;
        self.tell(&["--dump"], pid)?;
        let dump = newest(&one.folder)?;
        std::fs::rename(&dump, profile).with_context(|| format!("keep {}", dump.display()))?;
        let text = std::fs::read_to_string(profile).with_context(|| format!("read {}", profile.display()))?;
        Ok(total(&text)? as f64 / requests as f64)
    }

    /// Speaks to callgrind inside the process; it has done what it is told when this returns.
    fn tell(&self, what: &[&str], pid: u32) -> Result<()> {
        let output = Command::new(&self.control).args(what).arg(pid.to_string()).output().context("run callgrind_control")?;
        if !output.status.success() {
            bail!("callgrind_control {what:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    /// `None` where the contender cannot do it.
    fn plan(&self, one: &Contender, case: &Case) -> Option<Plan> {
        let author = if one.kind == Kind::Floor { SAME_DIALECT } else { case.author };
        let style = RequestStyle { headers: one.headers.clone(), body_bytes: case.body, variants: VARIANTS };
        let requests = load::requests(&one.plain, case.scenario, &style, |_| (format!("{author}/{}", case.scenario), Vec::new()));
        let plan = plan_of(one, case.scenario, requests);
        match case.tls {
            true => Some(Plan { target: one.secure.clone()?, tls: Some(Arc::clone(&self.tls)), ..plan }),
            false => Some(plan),
        }
    }
}

fn plan_of(one: &Contender, scenario: Scenario, requests: Arc<[Bytes]>) -> Plan {
    Plan { connections: CONNECTIONS, warm_up: Duration::ZERO, window: WINDOW, ..Plan::new(one.plain.clone(), scenario, requests) }
}

fn send(plan: &Plan, count: u64) -> Result<()> {
    let measured = Plan { most_requests: Some(count), ..plan.clone() }.run()?;
    if measured.completed < count || measured.failures.total() > 0 {
        bail!("{} of {count} requests were answered: {:?}", measured.completed, measured.first_error);
    }
    Ok(())
}

/// Tidegate's figure, F's, and their ratio, as far as they are there.
fn beside(figures: &[f64]) -> String {
    match figures {
        [ours, floor] => format!("{ours:>12.1}{floor:>12.1}{:>8.2}", ours / floor),
        [ours] => format!("{ours:>12.1}"),
        _ => String::new(),
    }
}

/// The dump that was just written: dumps are numbered, and each is moved away before the next.
fn newest(folder: &Path) -> Result<PathBuf> {
    let files = std::fs::read_dir(folder).with_context(|| format!("look into {}", folder.display()))?;
    let numbered = format!("{PROFILE}.");
    let mut dumps: Vec<_> = files
        .filter_map(|file| Some(file.ok()?.path()))
        .filter(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(&numbered)))
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

    #[test]
    fn a_figure_without_a_floor_stands_alone() {
        assert_eq!(beside(&[110.0, 55.0]).split_whitespace().collect::<Vec<_>>(), ["110.0", "55.0", "2.00"]);
        assert_eq!(beside(&[110.0]).trim(), "110.0");
    }
}
