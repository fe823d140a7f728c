//! The agreed state: a pure function of the commands in the log.
//!
//! [`State::apply`] takes no clock, no randomness and does no I/O, so every node that applied the same entries holds the same state, to the
//! byte of its snapshot. Everything inside is a persistent map: a clone costs a dozen reference counts, which is how the state is
//! published after each entry and frozen for a snapshot.

mod apply;
mod audit;
mod changes;
mod credentials;
mod draft;
mod grants;
mod health;
mod history;
mod id;
mod keys;
mod overrides;
mod prices;
mod requests;
mod resources;
mod rollouts;
mod sections;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::OrdMap;
use tidegate_proto::v1::{Command, MemberMeta, Reply, Resource};
use tidegate_proto::{Digest, Kind};

pub use audit::{AUDIT_KEPT, Audit, BrokenChain, verify as verify_audit};
pub use changes::{Changed, Digests, REMEMBERED_CHANGES};
pub use grants::Grants;
pub use health::{Health, UptimeCounts, UptimeWindow};
pub use history::{History, REVISION_BYTES_KEPT, REVISIONS_KEPT};
pub use id::Id;
pub use keys::KEY_TOMBSTONE_SECONDS;
pub use overrides::override_name;
pub use prices::{PRICE_CHANGES_KEPT, Prices};
pub use requests::REQUESTS_KEPT;
pub use resources::ResourceSet;
pub use rollouts::{ROLLOUTS_KEPT, Rollouts};
pub use sections::{FORMAT, SectionError};

use changes::Changes;
use requests::Requests;
use resources::Resources;

/// What a cluster has agreed on.
#[derive(Debug, Clone, Default)]
pub struct State {
    applied: u64,
    term: u64,
    revision: u64,
    leader_time_ms: u64,
    resources: Resources,
    rollouts: Rollouts,
    history: History,
    prices: Prices,
    audit: Audit,
    requests: Requests,
    members: OrdMap<u64, MemberMeta>,
    changes: Changes,
    health: Health,
    grants: Grants,
}

impl State {
    /// Applies one entry of the log. A refused command leaves everything as it was but [`State::applied`].
    pub fn apply(&mut self, index: u64, term: u64, command: &Command) -> Reply {
        self.applied = index;
        self.term = term;
        apply::apply(self, index, term, command)
    }

    /// Notes an entry that carries no command.
    pub fn skip(&mut self, index: u64, term: u64) {
        self.applied = index;
        self.term = term;
    }

    /// Index of the newest entry that was applied.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// Term of that entry.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// Index of the newest entry that changed a resource: the version of what is declared.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The newest leader's stamp that was applied, Unix milliseconds.
    pub fn leader_time_ms(&self) -> u64 {
        self.leader_time_ms
    }

    /// What is declared, the newest.
    pub fn newest(&self) -> &ResourceSet {
        self.resources.newest()
    }

    /// What edges have that a running rollout has not reached; the same as [`State::newest`] when none runs.
    pub fn settled(&self) -> &ResourceSet {
        self.resources.settled()
    }

    /// What an edge of this name is to have.
    pub fn for_edge(&self, edge: &str) -> &ResourceSet {
        match self.rollouts.running() {
            Some(rollout) if !Rollouts::reaches(rollout, edge) => self.settled(),
            Some(_) | None => self.newest(),
        }
    }

    /// All resources, the newest, by kind and name.
    pub fn resources(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.newest().iter().map(|(_, resource)| resource)
    }

    /// One resource, the newest.
    pub fn get(&self, kind: Kind, name: &str) -> Option<&Arc<Resource>> {
        self.newest().get(&Id::new(kind, name))
    }

    /// Digest of the newest resources.
    pub fn digest(&self) -> Digest {
        self.newest().digest()
    }

    /// Digests of both sides as they were after an entry; `None` when that is no longer remembered.
    pub fn digests_at(&self, index: u64) -> Option<Digests> {
        self.changes.digests_at(index)
    }

    /// Entries after `index` that changed something for edges, oldest first; `None` when they are no longer all remembered, so that only a
    /// snapshot helps.
    pub fn changes_since(&self, index: u64) -> Option<impl Iterator<Item = (u64, &Arc<Changed>)>> {
        self.changes.since(index)
    }

    /// The ids of [`State::changes_since`], each once.
    pub fn changed_ids_since(&self, index: u64) -> Option<BTreeSet<Id>> {
        Some(changes::coalesced(self.changes.since(index)?))
    }

    /// Revisions of what operators declare.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// What endpoints have cost.
    pub fn prices(&self) -> &Prices {
        &self.prices
    }

    /// The audit log.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// Staged rollouts, running and past.
    pub fn rollouts(&self) -> &Rollouts {
        &self.rollouts
    }

    /// How to reach control nodes, by node id.
    pub fn members_meta(&self) -> &OrdMap<u64, MemberMeta> {
        &self.members
    }

    /// What of budgets that span regions is lent to whom.
    pub fn grants(&self) -> &Grants {
        &self.grants
    }

    /// Health as agreed.
    pub fn health(&self) -> &Health {
        &self.health
    }
}
