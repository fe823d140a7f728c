//! Which ids changed with which entry: what an edge that comes back has missed, without the log.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::OrdMap;
use tidegate_proto::Digest;
use tidegate_proto::v1::ChangeRecord;

use super::Id;

/// Ids that are remembered; older ones are answered by a snapshot. 20,000 are hours of a busy control plane, and about 1 MiB.
pub const REMEMBERED_CHANGES: usize = 20_000;

/// Digests of both sides after an entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Digests {
    /// Of what edges of the rollout have.
    pub newest: Digest,
    /// Of what all others have.
    pub settled: Digest,
}

/// What one entry changed.
#[derive(Debug)]
pub struct Changed {
    /// What to look up again.
    pub ids: Vec<Id>,
    /// After the entry.
    pub digests: Digests,
    /// Keys among the ids were revoked, and their running answers are to be cut.
    pub kill_streams: bool,
}

/// A ring of [`Changed`] by log index.
#[derive(Debug, Clone, Default)]
pub(super) struct Changes {
    records: OrdMap<u64, Arc<Changed>>,
    ids: usize,
    floor: u64,
    floor_digests: Digests,
}

impl Changes {
    pub(super) fn push(&mut self, index: u64, changed: Changed) {
        self.ids += changed.ids.len();
        self.records.insert(index, Arc::new(changed));
        while self.ids > REMEMBERED_CHANGES {
            let Some((index, oldest)) = self.records.get_min().cloned() else { break };
            self.records.remove(&index);
            self.ids -= oldest.ids.len();
            (self.floor, self.floor_digests) = (index, oldest.digests);
        }
    }

    /// Entries after an index, oldest first; `None` when they are no longer all remembered.
    pub(super) fn since(&self, index: u64) -> Option<impl Iterator<Item = (u64, &Arc<Changed>)>> {
        (index >= self.floor).then(|| self.records.range(index.saturating_add(1)..).map(|(index, changed)| (*index, changed)))
    }

    pub(super) fn digests_at(&self, index: u64) -> Option<Digests> {
        if index < self.floor {
            return None;
        }
        Some(self.records.range(..=index).next_back().map_or(self.floor_digests, |(_, changed)| changed.digests))
    }

    pub(super) fn to_wire(&self) -> (ChangeRecord, Vec<ChangeRecord>) {
        let record = |index, ids: &[Id], digests: Digests, kill_streams| ChangeRecord {
            index,
            ids: ids.iter().map(Into::into).collect(),
            newest: digests.newest.to_bytes().to_vec().into(),
            settled: digests.settled.to_bytes().to_vec().into(),
            kill_streams,
        };
        let records = self.records.iter().map(|(index, changed)| record(*index, &changed.ids, changed.digests, changed.kill_streams));
        (record(self.floor, &[], self.floor_digests, false), records.collect())
    }

    pub(super) fn from_wire(floor: &ChangeRecord, records: &[ChangeRecord]) -> Option<Changes> {
        let digests = |record: &ChangeRecord| {
            Some(Digests { newest: Digest::from_slice(&record.newest)?, settled: Digest::from_slice(&record.settled)? })
        };
        let mut changes = Changes { floor: floor.index, floor_digests: digests(floor)?, ..Changes::default() };
        for record in records {
            let ids = record.ids.iter().map(Id::from).collect();
            changes.push(record.index, Changed { ids, digests: digests(record)?, kill_streams: record.kill_streams });
        }
        Some(changes)
    }
}

/// Each id once.
pub(super) fn coalesced<'a>(changes: impl Iterator<Item = (u64, &'a Arc<Changed>)>) -> BTreeSet<Id> {
    changes.flat_map(|(_, changed)| changed.ids.iter().cloned()).collect()
}
