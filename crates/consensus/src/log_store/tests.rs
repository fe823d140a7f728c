//! The log against openraft's own suite and against disks that fail.

pub(crate) mod disk;
mod script;

use openraft::EntryPayload;
use openraft::storage::RaftLogStorage as _;
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt as _;
use openraft::vote::RaftLeaderId as _;
use redb::backends::{FileBackend, InMemoryBackend};

use self::disk::{Disk, Fault};
use self::script::{Model, Script};
use super::*;
use crate::seeds;
use crate::state_store::tests::Kept;
use crate::state_store::{Directory, Offload, Shelf, StateStore};
use crate::types::{Command, LeaderId, Tokio};

const CRASHES: u64 = 40;
const ERRORS: u64 = 100;
const FLIPS: u64 = 150;

/// Builds a log on a backend, and a state machine in a directory.
struct Builder<F>(F);

/// What the store of one check of the suite stands on.
struct Ground {
    _directory: tempfile::TempDir,
    lossy: Option<Disk>,
}

impl Drop for Ground {
    /// All that the suite was told is on disk must still be there once the power is lost.
    fn drop(&mut self) {
        if let Some(disk) = &self.lossy {
            let found = Model::found_on(disk.pull_the_plug(&mut fastrand::Rng::with_seed(1)));
            // The suite begins some logs in the middle, which a real one never does.
            assert!(found.as_ref().err().is_none_or(|error| error.to_string().contains("is due")), "{found:?}");
        }
    }
}

impl<F, B> StoreBuilder<Tokio, LogStore<Tokio>, StateStore<Tokio>, Ground> for Builder<F>
where
    F: Fn(&std::path::Path) -> (B, Option<Disk>) + Send + Sync,
    B: StorageBackend,
{
    async fn build(&self) -> Result<(Ground, LogStore<Tokio>, StateStore<Tokio>), openraft::StorageError<Tokio>> {
        let directory = tempfile::tempdir().unwrap();
        let (backend, lossy) = (self.0)(directory.path());
        let (log, _writer) = LogStore::open(backend, TailLimits { entries: 3, bytes: 1 << 20 }, Box::new(|_| {})).unwrap();
        let shelf = Shelf::new(Box::new(Directory::open(&directory.path().join("snapshots")).unwrap()));
        let state = StateStore::open(Box::new(Kept::default()), shelf, String::new(), Offload::Threads, Box::new(|_| {})).unwrap();
        Ok((Ground { _directory: directory, lossy }, log, state))
    }
}

#[tokio::test]
async fn the_suite_passes_on_a_file() {
    let builder = Builder(|directory: &std::path::Path| {
        let file = std::fs::File::options().read(true).write(true).create(true).truncate(false).open(directory.join("log")).unwrap();
        (FileBackend::new(file).unwrap(), None)
    });
    Suite::test_all(builder).await.unwrap();
}

#[tokio::test]
async fn the_suite_passes_in_memory() {
    Suite::test_all(Builder(|_: &std::path::Path| (InMemoryBackend::new(), None))).await.unwrap();
}

#[tokio::test]
async fn the_suite_passes_on_a_disk_that_loses_what_is_not_synced() {
    let builder = Builder(|_: &std::path::Path| {
        let disk = Disk::default();
        (disk.clone(), Some(disk))
    });
    Suite::test_all(builder).await.unwrap();
}

/// A disk with an empty log. A file gets its name only once this far, so a loss of power while it is made leaves none.
fn created() -> Disk {
    let disk = Disk::default();
    drop(LogDatabase::open(disk.clone(), 1, 1).unwrap());
    disk.reopen()
}

/// Cuts the power at each operation of one random script. After the restart the disk holds all of every batch that was acknowledged, and of
/// the one that was not either all or nothing.
fn power_loss_at_every_operation(seed: u64) -> Result<(), String> {
    let mut random = fastrand::Rng::with_seed(seed);
    let script = Script::random(&mut random, 3);
    let whole = created();
    script.play(&whole);
    for operation in 0..=whole.operations() {
        let disk = created();
        disk.fail_at(operation, Fault::PowerLoss);
        let played = script.play(&disk);
        let found = Model::found_after_power_loss(&disk, &mut random).map_err(|error| format!("operation {operation}: {error}"))?;
        let allowed = &script.models[played.acknowledged..script.models.len().min(played.acknowledged + 2)];
        if !allowed.contains(&found) {
            return Err(format!("operation {operation}: {} batches were acknowledged, found {found:?}", played.acknowledged));
        }
    }
    Ok(())
}

#[test]
fn power_lost_at_any_operation_loses_nothing_that_was_acknowledged() {
    seeds::run("TIDEGATE_CRASH_SEEDS", CRASHES, "power_lost_at_any_operation", power_loss_at_every_operation);
}

/// A disk that reports an error is not used again: everything behind the error is refused, and nothing that was acknowledged is lost.
fn disk_error(seed: u64) -> Result<(), String> {
    let mut random = fastrand::Rng::with_seed(seed);
    let script = Script::random(&mut random, 4);
    let whole = created();
    script.play(&whole);
    let disk = created();
    let fault = [Fault::Sync, Fault::Full, Fault::ShortWrite][random.usize(0..3)];
    disk.fail_at(random.u64(0..whole.operations()), fault);
    let played = script.play(&disk);
    if disk.fault_was_met() && !played.failed && played.acknowledged < script.models.len() - 1 {
        return Err(format!("{fault:?} went unnoticed"));
    }
    let found = Model::found_after_power_loss(&disk, &mut random).map_err(|error| format!("after {fault:?}: {error}"))?;
    let allowed = &script.models[played.acknowledged..script.models.len().min(played.acknowledged + 2)];
    if allowed.contains(&found) { Ok(()) } else { Err(format!("after {fault:?}: {played:?}, found {found:?}")) }
}

#[test]
fn a_disk_error_is_final_and_loses_nothing_that_was_acknowledged() {
    seeds::run("TIDEGATE_DISK_SEEDS", ERRORS, "a_disk_error_is_final", disk_error);
}

/// A flipped bit either is where nothing is kept, or is noticed. It never gives another log.
fn bit_flip(seed: u64) -> Result<bool, String> {
    let mut random = fastrand::Rng::with_seed(seed);
    let script = Script::random(&mut random, 4);
    let disk = created();
    script.play(&disk);
    let flipped = if random.bool() { disk.reopen() } else { disk.pull_the_plug(&mut random) };
    let bit = flipped.flip_a_bit(&mut random);
    match Model::found_on(flipped) {
        Err(_) => Ok(true),
        Ok(found) if found == script.models[script.models.len() - 1] => Ok(false),
        Ok(found) => Err(format!("bit {bit} was flipped and gave {found:?}")),
    }
}

#[test]
fn a_flipped_bit_is_noticed_or_harmless() {
    let noticed = std::sync::atomic::AtomicU64::new(0);
    let runs = seeds::run("TIDEGATE_FLIP_SEEDS", FLIPS, "a_flipped_bit_is_noticed", |seed| {
        noticed.fetch_add(u64::from(bit_flip(seed)?), std::sync::atomic::Ordering::Relaxed);
        Ok(())
    });
    assert!(runs < 100 || noticed.into_inner() > 0, "no flip was ever noticed: the test looks at nothing");
}

/// 10,000 random operations against a model, on a log whose cache is far too small for them.
#[test]
fn a_long_life_matches_the_model() {
    let mut random = fastrand::Rng::with_seed(11);
    let script = Script::random(&mut random, 600);
    let disk = Disk::default();
    assert!(!script.play(&disk).failed);
    assert_eq!(Model::found_on(disk.reopen()).unwrap(), script.models[script.models.len() - 1]);
}

fn entry(term: u64, index: u64) -> Entry {
    let payload = EntryPayload::Normal(Command::Application(vec![7; 100].into()));
    Entry { log_id: LogId::new(LeaderId::new(term, 1), index), payload }
}

fn on_memory(limits: TailLimits) -> LogStore<Tokio> {
    LogStore::open(InMemoryBackend::new(), limits, Box::new(|_| {})).unwrap().0
}

#[tokio::test]
async fn callbacks_come_in_the_order_of_the_appends() {
    let mut log = on_memory(TailLimits::default());
    let mut answers = Vec::new();
    for index in 0..300 {
        let (flushed, answer) = Tokio::oneshot();
        log.append([entry(1, index)], IOFlushed::signal(flushed)).await.unwrap();
        answers.push(answer);
    }
    // Looked at from the last to the first: when one is there, all before it must be.
    let mut later_is_there = false;
    for answer in answers.iter_mut().rev() {
        let there = answer.try_recv().is_ok();
        assert!(there || !later_is_there);
        later_is_there |= there;
    }
}

#[tokio::test]
async fn many_appends_share_a_transaction() {
    let commits = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counted = Arc::clone(&commits);
    let on_commit = Box::new(move |_| {
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    });
    let (mut log, mut writer, mut queue) =
        LogStore::<Tokio>::open_without_writer(InMemoryBackend::new(), TailLimits::default(), on_commit).unwrap();
    let mut answers = Vec::new();
    for index in 0..200 {
        let (flushed, answer) = Tokio::oneshot();
        log.append([entry(1, index)], IOFlushed::signal(flushed)).await.unwrap();
        answers.push(answer);
    }
    let mut batch = Vec::new();
    queue.recv_many(&mut batch, QUEUE).await;
    writer.execute(&mut batch);
    for answer in answers {
        answer.await.unwrap().unwrap();
    }
    assert_eq!(commits.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_hole_is_refused() {
    let mut log = on_memory(TailLimits::default());
    log.append([entry(1, 0), entry(1, 1)], IOFlushed::noop()).await.unwrap();
    let error = log.append([entry(1, 3)], IOFlushed::noop()).await.unwrap_err();
    assert!(error.to_string().contains("append entry 3 where 2 is due"), "{error}");
}

#[tokio::test]
async fn a_limited_read_gives_a_message_full_and_never_nothing() {
    let mut log = on_memory(TailLimits { entries: 4, bytes: 1 << 30 });
    let large = |index| Entry {
        log_id: LogId::new(LeaderId::new(1, 1), index),
        payload: EntryPayload::Normal(Command::Application(vec![1; MESSAGE_BYTES / 2 + 1].into())),
    };
    for index in 0..12 {
        let (flushed, answer) = Tokio::oneshot();
        log.append([large(index)], IOFlushed::signal(flushed)).await.unwrap();
        answer.await.unwrap().unwrap();
    }
    let mut reader = log.get_log_reader().await;
    let mut next = 0;
    while next < 12 {
        let read = <_ as RaftLogReader<Tokio>>::limited_get_log_entries(&mut reader, next, 12).await.unwrap();
        assert!((1..=2).contains(&read.len()), "{} entries from {next}", read.len());
        assert!(read.iter().map(|entry| entry.log_id.index).eq(next..next + read.len() as u64));
        next += read.len() as u64;
    }
}

#[tokio::test]
async fn who_the_node_is_survives_a_restart() {
    let disk = Disk::default();
    let identity = v1::RaftHello { cluster_id: "north".into(), sender: 7, ..Default::default() };
    let (log, writer) = LogStore::<Tokio>::open(disk.clone(), TailLimits::default(), Box::new(|_| {})).unwrap();
    assert_eq!(log.identity(), None);
    log.save_identity(identity.clone()).await.unwrap();
    drop(log);
    writer.join().unwrap();
    let (log, _writer) = LogStore::<Tokio>::open(disk.reopen(), TailLimits::default(), Box::new(|_| {})).unwrap();
    assert_eq!(log.identity(), Some(identity));
}

#[cfg(feature = "known-bugs")]
mod known_bugs {
    use super::*;
    use crate::known_bugs::{Bug, make};

    #[test]
    fn acknowledging_before_the_flush_is_noticed_when_the_power_is_lost() {
        let _made = make(Bug::AcknowledgeBeforeFlush);
        assert!((0..20).any(|seed| power_loss_at_every_operation(seed).is_err()));
    }
}
