//! How much of the memory that this process may use is in use.
//!
//! A container that reaches its limit is killed with everything it carries, so an edge must say "not now" before. The limit is that of
//! the control group (version 2 or 1); a process without one is not limited by this.

use std::fs;
use std::path::{Path, PathBuf};

/// A control group's memory files.
#[derive(Debug, Clone)]
pub struct MemoryLimit {
    limit: u64,
    used: PathBuf,
    stat: PathBuf,
    /// Name of the file cache that can be given back at once, within the statistics.
    inactive: &'static str,
}

impl MemoryLimit {
    /// The tightest limit around this process; `None` when there is none, or none that can be read.
    pub fn find() -> Option<Self> {
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        Self::within(Path::new("/sys/fs/cgroup"), &groups)
    }

    /// Share of the limit that is in use, file cache that can be given back not counted.
    pub fn used_share(&self) -> Option<f64> {
        let used: u64 = fs::read_to_string(&self.used).ok()?.trim().parse().ok()?;
        let stat = fs::read_to_string(&self.stat).unwrap_or_default();
        let cache = stat.lines().find_map(|line| line.strip_prefix(self.inactive)?.trim().parse().ok()).unwrap_or(0);
        Some(used.saturating_sub(cache) as f64 / self.limit as f64)
    }

    fn within(root: &Path, groups: &str) -> Option<Self> {
        // `<number>:<controllers>:<path>`; version 2 has the one line with number 0 and no controllers (cgroups(7)).
        let of = |line: &'_ str| -> Option<(bool, String)> {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?);
            let second = controllers.is_empty();
            (second || controllers.split(',').any(|name| name == "memory")).then(|| (second, path.trim_start_matches('/').to_owned()))
        };
        let candidates = groups.lines().filter_map(of).flat_map(|(second, path)| {
            let base = if second { root.to_path_buf() } else { root.join("memory") };
            // Inside a container the path is often that of the host, and the files are at the root.
            let mut folders: Vec<PathBuf> = Path::new(&path).ancestors().map(|part| base.join(part)).collect();
            folders.dedup();
            folders.into_iter().filter_map(move |folder| Self::of(&folder, second))
        });
        candidates.min_by_key(|group| group.limit)
    }

    fn of(folder: &Path, second: bool) -> Option<Self> {
        let (limit, used, inactive) = if second {
            ("memory.max", "memory.current", "inactive_file ")
        } else {
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file ")
        };
        // "max" means no limit, and so does what no machine has.
        let limit = fs::read_to_string(folder.join(limit)).ok()?.trim().parse().ok().filter(|limit| (1..NO_LIMIT).contains(limit))?;
        Some(Self { limit, used: folder.join(used), stat: folder.join("memory.stat"), inactive })
    }
}

/// Version 1 writes about 2^63 where there is no limit.
const NO_LIMIT: u64 = 1 << 60;

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, files: &[(&str, &str)]) {
        fs::create_dir_all(folder).unwrap();
        for (name, text) in files {
            fs::write(folder.join(name), text).unwrap();
        }
    }

    #[test]
    fn the_tightest_group_of_version_two_counts_without_its_cache() {
        let root = tempfile::tempdir().unwrap();
        write(
            &root.path().join("pod"),
            &[("memory.max", "1000\n"), ("memory.current", "900\n"), ("memory.stat", "anon 1\ninactive_file 200\n")],
        );
        write(&root.path().join("pod/edge"), &[("memory.max", "max\n"), ("memory.current", "1\n")]);
        let limit = MemoryLimit::within(root.path(), "0::/pod/edge\n").unwrap();
        assert_eq!(limit.used_share(), Some(0.7));
    }

    #[test]
    fn version_one_is_read_too_and_no_limit_is_none() {
        let root = tempfile::tempdir().unwrap();
        let groups = "5:cpu,cpuacct:/x\n4:memory:/x\n";
        write(&root.path().join("memory"), &[("memory.limit_in_bytes", "9223372036854771712\n")]);
        assert!(MemoryLimit::within(root.path(), groups).is_none());
        write(&root.path().join("memory"), &[("memory.limit_in_bytes", "400\n"), ("memory.usage_in_bytes", "300\n")]);
        assert_eq!(MemoryLimit::within(root.path(), groups).and_then(|limit| limit.used_share()), Some(0.75));
        assert!(MemoryLimit::within(root.path(), "nonsense").is_none());
    }
}
