//! CPU time and memory of a process and everything below it, from the kernel's accounting in `/proc`.
//!
//! CPU per request is the steadiest figure on a small shared machine. It is user plus system time of all threads, of living
//! descendants (nginx's workers) and of children already waited for. `stat` reports it in ticks of 10 ms, which is coarse at low
//! rates; `schedstat` of each thread counts nanoseconds but forgets threads that ended. Where both agree the finer one is used.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// Kernel ticks per second in `/proc/<pid>/stat`: `USER_HZ`, 100 on every Linux architecture we build for.
const TICKS_PER_SECOND: u64 = 100;

/// What a process tree has used so far, and holds now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// User plus system time, in whole ticks.
    pub(crate) cpu: Duration,
    /// The same of the threads that are alive, to the nanosecond.
    pub(crate) cpu_of_living: Duration,
    /// Resident memory, bytes. Pages shared between processes of the tree count once per process.
    pub(crate) rss: u64,
    /// Processes in the tree.
    pub(crate) processes: usize,
}

impl Usage {
    /// Reads the tree rooted at `pid`; zero when it is gone.
    pub(crate) fn of_tree(pid: u32) -> Self {
        let table = ProcessTable::read();
        let mut usage = Self::default();
        for pid in table.tree(pid) {
            let Some(stat) = table.stats.get(&pid) else {
                continue;
            };
            usage.cpu += ticks(stat.own_ticks + stat.waited_ticks);
            usage.cpu_of_living += running_time(pid);
            usage.rss += resident(pid);
            usage.processes += 1;
        }
        usage
    }

    /// CPU time used since an earlier look at the same tree.
    pub(crate) fn cpu_since(&self, before: &Self) -> Duration {
        let coarse = self.cpu.saturating_sub(before.cpu);
        let fine = self.cpu_of_living.saturating_sub(before.cpu_of_living);
        // A thread that came and went, or a kernel without the finer figure, shows as a difference beyond rounding.
        let rounding = ticks(1 + self.processes as u64) + coarse / 50;
        if fine.abs_diff(coarse) <= rounding { fine } else { coarse }
    }

    /// Reads this process alone, without its children.
    pub(crate) fn of_self() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").ok().and_then(|line| Stat::parse(&line));
        Self {
            cpu: ticks(stat.map_or(0, |stat| stat.own_ticks)),
            cpu_of_living: running_time(std::process::id()),
            rss: resident(std::process::id()),
            processes: 1,
        }
    }
}

/// CPU time of one process, ended threads included: in its own code, and in the kernel on its behalf. In whole ticks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Times {
    pub(crate) user: Duration,
    pub(crate) kernel: Duration,
}

impl Times {
    /// Reads them; an error when the process is gone.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/stat");
        let line = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        Stat::times(&line).with_context(|| format!("understand {path}"))
    }

    /// What was used since an earlier look.
    pub(crate) fn since(self, before: Self) -> Self {
        Self { user: self.user.saturating_sub(before.user), kernel: self.kernel.saturating_sub(before.kernel) }
    }
}

fn ticks(count: u64) -> Duration {
    Duration::from_millis(count * (1000 / TICKS_PER_SECOND))
}

/// All processes of the machine at one moment.
#[derive(Debug, Default)]
pub(crate) struct ProcessTable {
    stats: HashMap<u32, Stat>,
}

impl ProcessTable {
    /// Reads `/proc`; processes that end meanwhile are left out.
    pub(crate) fn read() -> Self {
        let pids = fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let stats = pids.filter_map(|pid: u32| Some((pid, Stat::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?)));
        Self { stats: stats.collect() }
    }

    /// `root` and all its descendants, parents first.
    pub(crate) fn tree(&self, root: u32) -> Vec<u32> {
        let mut tree = vec![root];
        let mut next = 0;
        while let Some(parent) = tree.get(next).copied() {
            tree.extend(self.stats.iter().filter(|(_, stat)| stat.parent == parent).map(|(pid, _)| *pid));
            next += 1;
        }
        tree
    }
}

/// The fields of `/proc/<pid>/stat` that we use (proc_pid_stat(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    parent: u32,
    /// utime + stime: the whole thread group, ended threads included.
    own_ticks: u64,
    /// cutime + cstime: children that were waited for.
    waited_ticks: u64,
}

impl Stat {
    /// What follows the command's name, which is in parentheses and may itself hold spaces and parentheses.
    fn fields(line: &str) -> Option<Vec<&str>> {
        Some(line.get(line.rfind(')')? + 1..)?.split_ascii_whitespace().collect())
    }

    fn times(line: &str) -> Option<Times> {
        let fields = Self::fields(line)?;
        let time = |index: usize| fields.get(index)?.parse::<u64>().ok().map(ticks);
        Some(Times { user: time(11)?, kernel: time(12)? })
    }

    fn parse(line: &str) -> Option<Self> {
        let fields = Self::fields(line)?;
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        // fields[0] is field 3 of the manual page: the state.
        Some(Self { parent: fields.get(1)?.parse().ok()?, own_ticks: number(11)? + number(12)?, waited_ticks: number(13)? + number(14)? })
    }
}

/// Time on a processor of all living threads: the first field of `/proc/<pid>/task/<tid>/schedstat`, nanoseconds.
fn running_time(pid: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let times = threads.filter_map(|thread| parse_running_time(&fs::read_to_string(thread.path().join("schedstat")).ok()?));
    times.sum()
}

fn parse_running_time(schedstat: &str) -> Option<Duration> {
    schedstat.split_ascii_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

/// Resident memory from `/proc/<pid>/status`, bytes.
fn resident(pid: u32) -> u64 {
    fs::read_to_string(format!("/proc/{pid}/status")).ok().and_then(|status| parse_resident(&status)).unwrap_or(0)
}

fn parse_resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let line = "4242 (ngi) nx: w) S 17 4242 4242 0 -1 4194560 100 5 0 0 250 125 30 20 20 0 4 0 100 1000 200";
        assert_eq!(Stat::parse(line), Some(Stat { parent: 17, own_ticks: 375, waited_ticks: 50 }));
        assert_eq!(Stat::times(line), Some(Times { user: Duration::from_millis(2_500), kernel: Duration::from_millis(1_250) }));
        assert_eq!(Stat::parse("4242 (x) S 17"), None);
        assert_eq!(Stat::parse(""), None);
    }

    #[test]
    fn resident_memory_is_read_in_bytes() {
        assert_eq!(parse_resident("Name:\tx\nVmRSS:\t    1234 kB\nRssAnon:\t 1 kB\n"), Some(1234 * 1024));
        assert_eq!(parse_resident("Name:\tx\n"), None);
    }

    #[test]
    fn the_finer_figure_is_used_when_both_agree() {
        let usage =
            |cpu, living| Usage { cpu: Duration::from_millis(cpu), cpu_of_living: Duration::from_micros(living), rss: 0, processes: 1 };
        let before = usage(1_000, 995_000);
        assert_eq!(usage(1_240, 1_241_300).cpu_since(&before), Duration::from_micros(246_300));
        // A thread ended and took 200 ms with it; or nothing is known of threads.
        assert_eq!(usage(1_400, 1_195_000).cpu_since(&before), Duration::from_millis(400));
        assert_eq!(usage(1_400, 0).cpu_since(&usage(1_000, 0)), Duration::from_millis(400));
        assert_eq!(parse_running_time("123456789 5 7\n"), Some(Duration::from_nanos(123_456_789)));
        assert_eq!(parse_running_time(""), None);
    }

    #[test]
    fn descendants_of_all_generations_belong_to_the_tree() {
        let stat = |parent| Stat { parent, own_ticks: 1, waited_ticks: 0 };
        let table = ProcessTable { stats: [(1, stat(0)), (2, stat(1)), (3, stat(2)), (4, stat(0))].into() };
        assert_eq!(table.tree(1), [1, 2, 3]);
    }

    #[test]
    fn this_process_uses_memory() {
        let usage = Usage::of_tree(std::process::id());
        assert!(usage.rss > 0 && usage.processes >= 1);
        assert_eq!(Usage::of_tree(u32::MAX), Usage::default());
    }
}
