//! Metrics of the process itself, read from `/proc` when scraped. Elsewhere than on Linux they are simply absent.

use std::fs;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge, IntGauge, IntGaugeVec, Opts, Registry};

/// What was built, for `tidegate_build_info`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuildInfo {
    /// Version of the package.
    pub version: &'static str,
    /// Commit, or `unknown`.
    pub commit: &'static str,
    /// Compiler version, or `unknown`.
    pub rustc: &'static str,
}

/// Adds `tidegate_build_info`, whose value is always 1.
pub fn register_build_info(registry: &Registry, build: &BuildInfo) -> prometheus::Result<()> {
    let info = IntGaugeVec::new(
        Opts::new("tidegate_build_info", "Version, commit and compiler of this process; always 1."),
        &["version", "commit", "rustc"],
    )?;
    info.get_metric_with_label_values(&[build.version, build.commit, build.rustc])?.set(1);
    registry.register(Box::new(info))
}

/// Adds `process_cpu_seconds_total`, `process_resident_memory_bytes`, `process_open_fds`, `process_max_fds`, `process_threads` and
/// `process_start_time_seconds`.
pub fn register_process_metrics(registry: &Registry) -> prometheus::Result<()> {
    registry.register(Box::new(ProcessCollector::new()?))
}

struct ProcessCollector {
    cpu: Counter,
    resident: Gauge,
    open_files: IntGauge,
    most_files: IntGauge,
    threads: IntGauge,
    started: Gauge,
}

impl ProcessCollector {
    fn new() -> prometheus::Result<Self> {
        Ok(Self {
            cpu: Counter::new("process_cpu_seconds_total", "CPU time used, user and system, seconds.")?,
            resident: Gauge::new("process_resident_memory_bytes", "Resident memory, bytes.")?,
            open_files: IntGauge::new("process_open_fds", "Open file descriptors.")?,
            most_files: IntGauge::new("process_max_fds", "Limit of open file descriptors.")?,
            threads: IntGauge::new("process_threads", "Threads of the process.")?,
            started: Gauge::new("process_start_time_seconds", "When the process started, seconds since the Unix epoch.")?,
        })
    }

    fn families(&self) -> [&dyn Collector; 6] {
        [&self.cpu, &self.resident, &self.open_files, &self.most_files, &self.threads, &self.started]
    }
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.families().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Some(sample) = Sample::read() else {
            return Vec::new();
        };
        // Two scrapes at once may both add the same step; a counter must not fall, and the error does not add up.
        self.cpu.inc_by((sample.cpu_seconds - self.cpu.get()).max(0.0));
        self.resident.set(sample.resident_bytes);
        self.open_files.set(sample.open_files);
        self.most_files.set(sample.most_files);
        self.threads.set(sample.threads);
        self.started.set(sample.started_unix_seconds);
        self.families().into_iter().flat_map(Collector::collect).collect()
    }
}

struct Sample {
    cpu_seconds: f64,
    resident_bytes: f64,
    open_files: i64,
    most_files: i64,
    threads: i64,
    started_unix_seconds: f64,
}

impl Sample {
    fn read() -> Option<Self> {
        let stat = Stat::parse(&fs::read_to_string("/proc/self/stat").ok()?)?;
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let boot = value_after(&fs::read_to_string("/proc/stat").ok()?, "btime")?;
        let limits = fs::read_to_string("/proc/self/limits").ok()?;
        // Reading the directory is itself one open descriptor.
        let open_files = fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1);
        Some(Self {
            cpu_seconds: stat.cpu_ticks / TICKS_PER_SECOND,
            resident_bytes: value_after(&status, "VmRSS:")? * 1_024.0,
            open_files: i64::try_from(open_files).unwrap_or(i64::MAX),
            // "unlimited" has no number; the gauge then shows zero, as the official client libraries do.
            most_files: value_after(&limits, "Max open files").map_or(0, |limit| limit as i64),
            threads: value_after(&status, "Threads:")? as i64,
            started_unix_seconds: boot + stat.started_ticks / TICKS_PER_SECOND,
        })
    }
}

struct Stat {
    cpu_ticks: f64,
    started_ticks: f64,
}

impl Stat {
    /// Reads `/proc/self/stat` (proc_pid_stat(5)). The command name, second field, may itself hold blanks and brackets, so counting
    /// starts after the last closing one, at the third field.
    fn parse(text: &str) -> Option<Self> {
        let (_, after_name) = text.rsplit_once(')')?;
        let field = |number: usize| -> Option<f64> { after_name.split_ascii_whitespace().nth(number - 3)?.parse().ok() };
        Some(Self { cpu_ticks: field(14)? + field(15)?, started_ticks: field(22)? })
    }
}

/// The number that follows `label` at the start of a line.
fn value_after(text: &str, label: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(label))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// Linux reports times to user space in hundredths of a second on every architecture we build for (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_with_brackets_does_not_shift_the_fields() {
        let text = "42 (a ) b) S 1 1 1 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 9 0 12345 1 1";
        let stat = Stat::parse(text).unwrap();
        assert_eq!((stat.cpu_ticks, stat.started_ticks), (300.0, 12_345.0));
    }

    #[test]
    fn broken_text_is_no_sample() {
        assert!(Stat::parse("").is_none());
        assert!(Stat::parse("1 (x) S 1").is_none());
        assert!(value_after("VmRSS: none", "VmRSS:").is_none());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_plausible_figures() {
        let sample = Sample::read().unwrap();
        assert!(sample.resident_bytes > 100_000.0);
        assert!(sample.open_files > 2 && sample.threads >= 1);
        assert!(sample.started_unix_seconds > 1_500_000_000.0);
    }
}
