//! The journal on disks that take nothing: requests are answered, quotas are settled, and what is lost is counted.

use std::path::{Path, PathBuf};
use std::process::Command;

use tidegate_edge::config::LedgerConfig;
use tidegate_ledger::Money;
use tidegate_quota::{Dimension, Limit, Scope, Window};
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

/// A file system in a file, which can be made to fail as disks do: read-only from one moment on, also for files that are open.
struct Fragile {
    folder: tempfile::TempDir,
}

impl Fragile {
    /// `None`, with a word about it, where this process may not mount.
    #[expect(clippy::print_stderr, reason = "a skipped proof says so")]
    fn new() -> Option<Self> {
        let disk = Self { folder: tempfile::tempdir().expect("a directory") };
        std::fs::create_dir(disk.path()).expect("a directory");
        let image = std::fs::File::create(disk.image()).expect("a file");
        image.set_len(16 << 20).expect("a size");
        let made = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(disk.image()).output().is_ok_and(|output| output.status.success());
        if made && disk.mount() {
            return Some(disk);
        }
        eprintln!("skipped: a file system in a file can be mounted by root only, where there are loop devices and mkfs.ext4");
        None
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    fn mount(&self) -> bool {
        Command::new("mount").args(["-o", "loop"]).arg(self.image()).arg(self.path()).output().is_ok_and(|output| output.status.success())
    }

    /// What was written is on the disk.
    fn make_safe(&self) {
        let done = Command::new("sync").arg("-f").arg(self.path()).status().expect("sync");
        assert!(done.success(), "sync");
    }

    /// What the kernel does when the disk below has failed.
    fn fail(&self) {
        let done = Command::new("mount").args(["-o", "remount,abort"]).arg(self.path()).status().expect("mount");
        assert!(done.success(), "remount,abort");
    }

    /// What an operator does then.
    fn repair(&self) {
        let done = Command::new("umount").arg(self.path()).status().expect("umount");
        assert!(done.success(), "nobody uses it any more");
        // 1: errors were corrected.
        let checked = Command::new("e2fsck").args(["-f", "-y"]).arg(self.image()).output().expect("e2fsck");
        assert!(matches!(checked.status.code(), Some(0 | 1)), "{}", String::from_utf8_lossy(&checked.stdout));
        assert!(self.mount(), "mounted again");
    }
}

impl Drop for Fragile {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).output();
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

/// What all who were served were told to pay.
async fn told(mesh: &Mesh, count: u32) -> Money {
    let mut sum = Money::ZERO;
    for _ in 0..count {
        let answer = mesh.post(CHAT, &chat("m", "hello")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        sum += Money::parse_usd(&answer.json()["usage"]["cost"].to_string()).expect("a cost");
    }
    sum
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
async fn a_full_queue_loses_records_and_counts_them_while_quotas_stay_right() {
    let Some(disk) = Disk::of(4 << 20) else { return };
    let small = topology(disk.path()).with(|topology| {
        // Room for what an edge does in a second: here some forty requests.
        (topology.ledger.waiting_bytes, topology.ledger.waiting_notes) = (1_000, 64);
        topology.key.limits.push(Limit::new(Scope::Key, Dimension::Spend(Window::Day), 1_000_000_000));
    });
    let first = small.start().await;
    let mut paid = told(&first, 5).await;
    first.until_metric("tidegate_ledger_records_total", &[], |records| records == 5.0).await;
    let ballast = disk.fill();
    // Nobody waits, and the one slot is free for each of them.
    paid += told(&first, 120).await;
    let dropped = first.metric("tidegate_ledger_dropped_total", &[("reason", "queue_full")]);
    assert!(dropped > 50.0, "{dropped} notes of 240 found no room");
    let counted = first.get("/v1/key").await.json()["data"].clone();
    let left = Money::parse_usd(&counted["limit_remaining"].to_string()).expect("an amount");
    assert_eq!(Money::from_picodollars(1_000_000_000 * 1_000_000) - left, paid, "the budget knows of every request: {counted}");
    // With room again the journal goes on, with what waited first.
    std::fs::remove_file(ballast).expect("the ballast");
    let before = first.metric("tidegate_ledger_written_bytes_total", &[]);
    first.until_metric("tidegate_ledger_written_bytes_total", &[], |bytes| bytes > before).await;
    served(&first, 5).await;
    let registry = first.edge.registry().clone();
    first.edge.shutdown().await;
    let lost = lost(&registry);
    let second = mesh(disk.path()).await;
    let usage = second.operations().get("/usage?period=all").await.json();
    let kept = usage["total"]["requests"].as_f64().expect("a number");
    println!("130 served: {kept} are in the ledger, {lost} notes were lost and counted");
    // A request leaves two notes, and one whose first alone was kept is ended by the next start.
    assert!((10.0..130.0).contains(&kept) && kept + lost >= 130.0, "{kept} are kept, {lost} notes were counted as lost");
    second.edge.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_turns_read_only_keeps_nobody_waiting_and_is_used_again_when_it_is_repaired() {
    let Some(disk) = Fragile::new() else { return };
    let first = mesh(&disk.path()).await;
    let mut ids = Vec::new();
    for _ in 0..10 {
        ids.push(first.post(CHAT, &chat("m", "hello")).await.json()["id"].as_str().expect("an id").to_owned());
    }
    let is_written = || {
        let journal = std::fs::read(disk.path().join("ledger/journal-0000000001.tgj")).expect("the journal");
        let journal = String::from_utf8_lossy(&journal);
        ids.iter().all(|id| journal.contains(id))
    };
    first.until_metric("tidegate_ledger_written_bytes_total", &[], |_| is_written()).await;
    disk.make_safe();
    disk.fail();
    served(&first, 30).await;
    first.until_metric("tidegate_ledger_write_errors_total", &[], |errors| errors > 0.0).await;
    served(&first, 10).await;
    first.until_metric("tidegate_ledger_records_total", &[], |records| records == 50.0).await;
    let data = first.get("/v1/key").await.json()["data"].clone();
    assert_eq!(data["tidegate"]["limits"][0]["used"], 0, "no slot is held: {data}");
    let registry = first.edge.registry().clone();
    first.edge.shutdown().await;
    let lost = lost(&registry);
    assert!((40.0..=80.0).contains(&lost), "{lost} notes of 40 requests are counted as lost");
    disk.repair();
    let second = mesh(&disk.path()).await;
    served(&second, 1).await;
    second.until_metric("tidegate_ledger_records_total", &[], |records| records == 1.0).await;
    let usage = second.operations().get("/usage?period=all").await.json();
    assert_eq!(usage["total"]["requests"], 11, "what was safe is there: {usage}");
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
