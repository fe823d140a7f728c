//! Revisions of what operators declare, each with what it replaced: enough to say what was when, and to go back.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use imbl::OrdMap;
use tidegate_proto::v1::{Resource, Revision};

use super::Id;

/// Revisions that are kept.
pub const REVISIONS_KEPT: usize = 1_000;
/// Bytes of bodies that are kept, whichever bound comes first.
pub const REVISION_BYTES_KEPT: usize = 64 << 20;

/// Revisions by index.
#[derive(Debug, Clone, Default)]
pub struct History {
    revisions: OrdMap<u64, Arc<Revision>>,
    bytes: usize,
    floor: u64,
}

impl History {
    /// Oldest first.
    pub fn revisions(&self) -> impl DoubleEndedIterator<Item = &Arc<Revision>> {
        self.revisions.values()
    }

    /// One of them.
    pub fn get(&self, index: u64) -> Option<&Arc<Revision>> {
        self.revisions.get(&index)
    }

    /// Revision before which nothing is known.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// What has to be put to be as it was at a revision; `None` when history does not reach back to it.
    pub fn back_to(&self, revision: u64) -> Option<BTreeMap<Id, Option<Bytes>>> {
        if revision < self.floor {
            return None;
        }
        let mut target = BTreeMap::new();
        for undone in self.revisions.range(revision.saturating_add(1)..).map(|(_, revision)| revision).rev() {
            for change in &undone.changes {
                let Some(id) = change.id.as_ref() else { continue };
                // Older revisions come later here and win.
                target.insert(Id::from(id), change.before.as_ref().map(|resource| resource.body.clone()));
            }
        }
        Some(target)
    }

    /// Every version of a resource that is known, oldest first: the revision and what it was then.
    pub fn of<'a>(&'a self, id: &'a Id) -> impl Iterator<Item = (&'a Arc<Revision>, Option<&'a Resource>)> {
        self.revisions.values().filter_map(move |revision| {
            let change = revision
                .changes
                .iter()
                .find(|change| change.id.as_ref().is_some_and(|changed| changed.kind == id.kind_name() && changed.name == id.name()))?;
            Some((revision, change.after.as_ref()))
        })
    }

    pub(super) fn push(&mut self, revision: Revision) {
        self.bytes += weight(&revision);
        self.revisions.insert(revision.index, Arc::new(revision));
        while self.revisions.len() > REVISIONS_KEPT || (self.bytes > REVISION_BYTES_KEPT && self.revisions.len() > 1) {
            let Some((index, oldest)) = self.revisions.get_min().cloned() else { break };
            self.revisions.remove(&index);
            self.bytes -= weight(&oldest);
            self.floor = index;
        }
    }

    pub(super) fn restored(revisions: Vec<Revision>, floor: u64) -> History {
        let mut history = History { floor, ..History::default() };
        for revision in revisions {
            history.push(revision);
        }
        history
    }
}

fn weight(revision: &Revision) -> usize {
    let body = |resource: &Option<Resource>| resource.as_ref().map_or(0, |resource| resource.body.len());
    revision.changes.iter().map(|change| body(&change.before) + body(&change.after)).sum()
}
