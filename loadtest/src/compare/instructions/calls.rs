//! What a process asks of the kernel per request: system calls, switches of its threads, CPU time.
//!
//! CPU time and switches come from one run without any tool, system calls from a second one under strace, which makes everything
//! slower and is left out where it is not installed or not allowed to attach.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::compare::launch::find_program;
use crate::console;
use crate::interrupt;
use crate::process::Times;

/// Averages over some requests.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Calls {
    /// System calls; `None` when they were not counted.
    pub(super) total: Option<f64>,
    /// The same by name, most frequent first.
    by_name: Vec<(String, f64)>,
    /// Times that a thread was taken from its core, because it waited or because another one was due.
    pub(super) switches: f64,
    pub(super) user_us: f64,
    pub(super) kernel_us: f64,
}

impl Calls {
    /// Counts over `requests` that `send` makes the process serve, twice.
    pub(super) fn count(pid: u32, trace: &Path, requests: u64, send: impl Fn(u64) -> Result<()>) -> Result<Self> {
        let (times, switches) = (Times::of(pid)?, switches(pid));
        send(requests)?;
        let each = |total: f64| total / requests as f64;
        let (times, switches) = (Times::of(pid)?.since(times), self::switches(pid).saturating_sub(switches));
        let mut calls = Self {
            total: None,
            by_name: Vec::new(),
            switches: each(switches as f64),
            user_us: each(times.user.as_secs_f64() * 1e6),
            kernel_us: each(times.kernel.as_secs_f64() * 1e6),
        };
        let fewer = (requests / 4).max(1);
        match Strace::attach(pid, trace) {
            Ok(strace) => {
                send(fewer)?;
                let names = strace.detach()?;
                calls.total = Some(names.values().sum::<u64>() as f64 / fewer as f64);
                calls.by_name = names.into_iter().map(|(name, count)| (name, count as f64 / fewer as f64)).collect();
                calls.by_name.sort_by(|one, other| other.1.total_cmp(&one.1));
            }
            Err(error) => console::progress(format!("system calls are not counted: {error:#}")),
        }
        Ok(calls)
    }

    /// The calls that matter, in one line.
    pub(super) fn frequent(&self) -> String {
        let shown = self.by_name.iter().filter(|(_, count)| *count >= 0.05).take(6);
        shown.map(|(name, count)| format!("{name} {count:.2}")).collect::<Vec<_>>().join(", ")
    }
}

/// Times that threads of the process left their core, voluntarily or not.
fn switches(pid: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads.filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok()).map(|status| parse_switches(&status)).sum()
}

fn parse_switches(status: &str) -> u64 {
    let of = |line: &str| line.split_once("ctxt_switches:").and_then(|(_, count)| count.trim().parse::<u64>().ok());
    status.lines().filter_map(of).sum()
}

/// A strace that counts.
struct Strace {
    child: Child,
    trace: std::path::PathBuf,
    summary: std::path::PathBuf,
}

impl Strace {
    fn attach(pid: u32, trace: &Path) -> Result<Self> {
        let program = find_program("strace").context("strace is not installed (Debian and Ubuntu: apt-get install strace)")?;
        let summary = trace.with_extension("calls");
        let messages = File::create(trace).with_context(|| format!("create {}", trace.display()))?;
        let mut command = Command::new(program);
        command.args(["-f", "-c", "-o"]).arg(&summary).arg("-p").arg(pid.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(messages);
        let child = command.spawn().context("start strace")?;
        let mut strace = Self { child, trace: trace.to_owned(), summary };
        let patience = Instant::now() + Duration::from_secs(10);
        while !strace.said().contains("attached") {
            interrupt::check()?;
            if strace.child.try_wait().context("look at strace")?.is_some() || Instant::now() > patience {
                bail!("strace cannot attach: {}", strace.said().trim());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(strace)
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.trace).unwrap_or_default()
    }

    fn detach(mut self) -> Result<BTreeMap<String, u64>> {
        self.interrupt();
        self.child.wait().context("wait for strace")?;
        let text = fs::read_to_string(&self.summary).with_context(|| format!("read {}", self.summary.display()))?;
        let names = parse_summary(&text);
        if names.is_empty() {
            bail!("strace counted nothing");
        }
        Ok(names)
    }

    fn interrupt(&self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // Gone already is what we want.
            let _ = kill_process(pid, Signal::INT);
        }
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.interrupt();
            let _ = self.child.wait();
        }
    }
}

/// The table of `strace -c`: share, seconds, microseconds per call, calls, errors where there are any, name.
fn parse_summary(text: &str) -> BTreeMap<String, u64> {
    let rows = text.lines().filter_map(|line| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let (calls, name) = (fields.get(3)?.parse().ok()?, *fields.last()?);
        (fields.len() >= 5 && name != "total").then(|| (name.to_owned(), calls))
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_of_strace_is_read_with_and_without_errors() {
        let text = "% time     seconds  usecs/call     calls    errors syscall\n\
                    ------ ----------- ----------- --------- --------- ----------------\n \
                    60.00    0.004000           1      4000           writev\n \
                    40.00    0.002000           1      2000      1000 recvfrom\n\
                    ------ ----------- ----------- --------- --------- ----------------\n\
                    100.00    0.006000           1      6000      1000 total\n";
        assert_eq!(parse_summary(text), BTreeMap::from([("writev".to_owned(), 4000), ("recvfrom".to_owned(), 2000)]));
    }

    #[test]
    fn both_kinds_of_switches_count() {
        assert_eq!(parse_switches("Name:\tx\nvoluntary_ctxt_switches:\t12\nnonvoluntary_ctxt_switches:\t3\n"), 15);
    }
}
