//! The state machine and its snapshots.

use std::collections::BTreeMap;

use openraft::EntryPayload;
use openraft::vote::RaftLeaderId as _;

use super::*;
use crate::application::{Frozen, RestoreError};
use crate::types::{Command, Entry, LeaderId, Tokio};

/// An application that keeps what it was given, by index.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Kept {
    pub(crate) commands: BTreeMap<u64, Bytes>,
}

impl Application for Kept {
    fn apply(&mut self, index: u64, _term: u64, payload: Bytes) -> Bytes {
        self.commands.insert(index, payload.clone());
        payload
    }

    fn freeze(&self) -> Box<dyn Frozen> {
        Box::new(self.clone())
    }

    fn restore(&mut self, sections: Vec<(String, Bytes)>) -> Result<(), RestoreError> {
        self.commands = sections
            .into_iter()
            .map(|(name, content)| {
                let index = name.parse().map_err(|_| RestoreError { section: name.clone(), reason: "not a number".into() })?;
                Ok((index, content))
            })
            .collect::<Result<_, RestoreError>>()?;
        Ok(())
    }
}

impl Frozen for Kept {
    fn sections(&self) -> Vec<(String, Bytes)> {
        self.commands.iter().map(|(index, payload)| (index.to_string(), payload.clone())).collect()
    }
}

fn store(directory: &std::path::Path, cluster: &str) -> io::Result<StateStore<Tokio>> {
    let shelf = Shelf::new(Box::new(Directory::open(directory)?));
    StateStore::open(Box::new(Kept::default()), shelf, cluster.to_owned(), Offload::Threads, Box::new(|_| {}))
}

async fn apply(store: &mut StateStore<Tokio>, indices: std::ops::Range<u64>) {
    let entries = indices.map(|index| {
        let payload = EntryPayload::Normal(Command::Application(Bytes::from(index.to_string())));
        Ok((Entry { log_id: LogId::new(LeaderId::new(1, 1), index), payload }, None))
    });
    store.apply(futures_util::stream::iter(entries)).await.unwrap();
}

async fn snapshot(store: &mut StateStore<Tokio>) -> OpenraftSnapshot {
    store.try_create_snapshot_builder(true).await.unwrap().build_snapshot().await.unwrap()
}

#[tokio::test]
async fn a_restart_begins_at_the_newest_snapshot() {
    let directory = tempfile::tempdir().unwrap();
    let mut first = store(directory.path(), "north").unwrap();
    apply(&mut first, 1..5).await;
    snapshot(&mut first).await;
    apply(&mut first, 5..9).await;
    snapshot(&mut first).await;
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "the older one is gone");
    let exported = first.export().await.unwrap();
    let mut again = store(directory.path(), "north").unwrap();
    assert_eq!(*again.applied().borrow(), 8);
    assert_eq!(again.applied_state().await.unwrap().0.unwrap().index, 8);
    assert_eq!(again.export().await.unwrap(), exported);
}

#[tokio::test]
async fn a_snapshot_of_another_cluster_is_refused() {
    let (north, south) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut sender = store(north.path(), "north").unwrap();
    apply(&mut sender, 1..5).await;
    let sent = snapshot(&mut sender).await;
    let mut receiver = store(south.path(), "south").unwrap();
    let error = receiver.install_snapshot(&sent.meta, sent.snapshot).await.unwrap_err();
    assert!(error.to_string().contains("cluster `north` on a node of cluster `south`"), "{error}");
    assert_eq!(*receiver.applied().borrow(), 0);
    let error = store(north.path(), "south").err().unwrap();
    assert!(error.to_string().contains("of cluster `north`"), "{error}");
}

#[tokio::test]
async fn a_damaged_snapshot_is_never_restored() {
    let directory = tempfile::tempdir().unwrap();
    let mut sender = store(directory.path(), "north").unwrap();
    apply(&mut sender, 1..50).await;
    let sent = snapshot(&mut sender).await;
    for bit in (0..sent.snapshot.len() * 8).step_by(37) {
        let mut damaged = sent.snapshot.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let other = tempfile::tempdir().unwrap();
        let mut receiver = store(other.path(), "north").unwrap();
        receiver.install_snapshot(&sent.meta, damaged.clone().into()).await.unwrap_err();
        assert_eq!(*receiver.applied().borrow(), 0);
        let name = std::fs::read_dir(directory.path()).unwrap().next().unwrap().unwrap().file_name();
        std::fs::write(other.path().join(name), &damaged).unwrap();
        assert!(store(other.path(), "north").is_err(), "a start from a damaged file, bit {bit}");
    }
}

#[tokio::test]
async fn a_late_snapshot_does_not_push_out_a_newer_one() {
    let directory = tempfile::tempdir().unwrap();
    let mut slow = store(directory.path(), "north").unwrap();
    apply(&mut slow, 1..5).await;
    let mut late = slow.try_create_snapshot_builder(true).await.unwrap();
    let other = tempfile::tempdir().unwrap();
    let mut ahead = store(other.path(), "north").unwrap();
    apply(&mut ahead, 1..20).await;
    let newer = snapshot(&mut ahead).await;
    slow.install_snapshot(&newer.meta, newer.snapshot).await.unwrap();
    late.build_snapshot().await.unwrap();
    assert_eq!(slow.get_current_snapshot().await.unwrap().unwrap().meta, newer.meta);
}

#[tokio::test]
async fn one_instance_gets_one_number() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = store(directory.path(), "north").unwrap();
    let instance = |byte| crate::member::Instance { uuid: Uuid([byte; 16]), ..Default::default() };
    let entries = [(4, 1), (5, 2), (6, 1)].map(|(index, byte)| {
        let payload = EntryPayload::Normal(Command::AllocateNodeId(instance(byte)));
        Ok((Entry { log_id: LogId::new(LeaderId::new(1, 1), index), payload }, None))
    });
    store.apply(futures_util::stream::iter(entries)).await.unwrap();
    assert_eq!(store.allocated(&Uuid([1; 16])), Some(4));
    assert_eq!(store.allocated(&Uuid([2; 16])), Some(5));
    assert_eq!(store.allocated(&Uuid([3; 16])), None);
}

#[cfg(feature = "known-bugs")]
mod known_bugs {
    use super::*;
    use crate::known_bugs::{Bug, make};
    use crate::snapshot::Snapshot;

    /// What `snapshot::tests` and `a_damaged_snapshot_is_never_restored` would say.
    #[test]
    fn a_snapshot_taken_without_its_digest_gives_another_state() {
        let good = Snapshot { sections: vec![("1".into(), Bytes::from_static(b"value"))], ..Default::default() };
        let file = good.encode().unwrap();
        let _made = make(Bug::SnapshotWithoutDigest);
        let wrong = (0..file.len() * 8).any(|bit| {
            let mut flipped = file.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            Snapshot::decode(&flipped.into()).is_ok()
        });
        assert!(wrong, "the digest guards against nothing");
    }
}
