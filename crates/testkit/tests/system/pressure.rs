//! The journal on disks that take nothing: requests are answered, quotas are settled, and what is lost is counted.

use std::path::{Path, PathBuf};
use std::process::Command;

use tidegate_edge::config::LedgerConfig;
use tidegate_quota::{Dimension, Limit, Scope};
use tidegate_testkit::{Mesh, Topology, chat};

const CHAT: &str = "/v1/chat/completions";

/// A file system of its own, small enough to be filled; gone with the test.
struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    /// `None`, with a word about it, where this process may not mount.
    #[expect(clippy::print_stderr, reason = "a skipped proof says so")]
    fn of(bytes: u64) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a directory");
        let options = format!("size={bytes},mode=0700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder.path()).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self { folder });
        }
        eprintln!("skipped: a small file system can be mounted by root only");
        None
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn fill(&self) -> PathBuf {
        let path = self.path().join("ballast");
        let mut size = 1 << 20;
        let mut ballast = Vec::new();
        while size > 0 {
            ballast.resize(ballast.len() + size, 0);
            if std::fs::write(&path, &ballast).is_err() {
                ballast.truncate(ballast.len() - size);
                std::fs::write(&path, &ballast).expect("what fitted before");
                size /= 2;
            }
        }
        path
    }

    /// `ro` or `rw`.
    fn remount(&self, how: &str) {
        let done = Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(self.path()).status().expect("mount");
        assert!(done.success(), "remount {how}");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

fn topology(directory: &Path) -> Topology {
    let ledger = LedgerConfig { directory: Some(directory.join("ledger")), ..LedgerConfig::default() };
    Topology::new().provider("a", |_| {}).with(|topology| {
        topology.ledger = ledger;
        topology.key.limits = vec![Limit::new(Scope::Key, Dimension::Concurrent, 1)];
    })
}

async fn mesh(directory: &Path) -> Mesh {
    topology(directory).start().await
}

/// One after the other: each finds its slot free, as those before are settled.
async fn served(mesh: &Mesh, count: u32) {
    for _ in 0..count {
        let answer = mesh.post(CHAT, &chat("m", "hello")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

/// Entries that an edge has counted as lost, also after its end.
fn lost(registry: &prometheus::Registry) -> f64 {
    let families = registry.gather();
    let series = families.iter().filter(|family| family.name() == "tidegate_ledger_dropped_total").flat_map(|family| family.get_metric());
    series.map(|metric| metric.get_counter().get_value()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_keeps_nobody_waiting_and_what_waited_is_written_when_there_is_room() {
    let Some(disk) = Disk::of(4 << 20) else { return };
    let first = mesh(disk.path()).await;
    served(&first, 5).await;
    first.until_metric("tidegate_ledger_records_total", &[], |records| records == 5.0).await;
    let ballast = disk.fill();
    served(&first, 60).await;
    first.until_metric("tidegate_ledger_write_errors_total", &[], |errors| errors > 0.0).await;
    served(&first, 20).await;
    first.until_metric("tidegate_ledger_records_total", &[], |records| records == 85.0).await;
    std::fs::remove_file(ballast).expect("the ballast");
    served(&first, 5).await;
    let registry = first.edge.registry().clone();
    first.edge.shutdown().await;
    assert_eq!(lost(&registry), 0.0, "all of it waited in memory");
    let second = mesh(disk.path()).await;
    let usage = second.operations().get("/usage?period=all").await.json();
    assert_eq!(usage["total"]["requests"], 90, "{usage}");
    second.edge.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_full_disk_never_took_is_counted_as_lost() {
    let Some(disk) = Disk::of(4 << 20) else { return };
    let first = mesh(disk.path()).await;
    served(&first, 3).await;
    first.until_metric("tidegate_ledger_records_total", &[], |records| records == 3.0).await;
    let ballast = disk.fill();
    served(&first, 100).await;
    let registry = first.edge.registry().clone();
    first.edge.shutdown().await;
    let lost = lost(&registry);
    assert!((1.0..=200.0).contains(&lost), "{lost} entries of 100 requests are counted as lost");
    std::fs::remove_file(ballast).expect("the ballast");
    let second = mesh(disk.path()).await;
    let usage = second.operations().get("/usage?period=all").await.json();
    let kept = usage["total"]["requests"].as_f64().expect("a number");
    assert!(kept >= 3.0 && kept + lost >= 103.0, "{kept} are kept, {lost} were counted as lost");
    second.edge.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_cannot_write_its_journal_says_so_and_does_not_start() {
    let Some(disk) = Disk::of(4 << 20) else { return };
    let first = mesh(disk.path()).await;
    served(&first, 3).await;
    first.edge.shutdown().await;
    disk.remount("ro");
    let error = topology(disk.path()).try_start().await.err().expect("no journal, no start");
    let said = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source()).map(ToString::to_string);
    let said = said.collect::<Vec<_>>().join(": ");
    assert!(said.contains(&format!("ledger directory {}", disk.path().display())) && said.contains("ead-only"), "{said}");
    disk.remount("rw");
    let again = mesh(disk.path()).await;
    served(&again, 1).await;
    again.edge.shutdown().await;
}
