//! A change of the state while it is made: what was touched, to be entered into history, audit log and change records at the end.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tidegate_proto::Kind;
use tidegate_proto::v1::{AuditChange, AuditEntry, Command, RefusalCode, Refused, Resource, Revision, RevisionChange};

use super::changes::{Changed, Digests};
use super::resources::{Reach, body_of};
use super::{Id, State};

/// Changes that one line of the audit log lists.
const AUDIT_CHANGES: usize = 200;

/// The state to be, and what is different in it.
pub(super) struct Draft<'a> {
    pub(super) state: State,
    pub(super) index: u64,
    /// The leader's clock, Unix milliseconds; never behind an earlier one.
    pub(super) now_ms: u64,
    command: &'a Command,
    action: Cow<'a, str>,
    noted: bool,
    before: BTreeMap<Id, Option<Arc<Resource>>>,
    /// Ids that edges have to look up again though the newest side did not change.
    revisited: Vec<Id>,
    kill_streams: bool,
}

impl<'a> Draft<'a> {
    pub(super) fn new(state: &State, index: u64, command: &'a Command, action: &'static str) -> Draft<'a> {
        let mut state = state.clone();
        state.leader_time_ms = state.leader_time_ms.max(command.leader_time_ms);
        Draft {
            index,
            now_ms: state.leader_time_ms,
            state,
            command,
            action: action.into(),
            noted: false,
            before: BTreeMap::new(),
            revisited: Vec::new(),
            kill_streams: false,
        }
    }

    pub(super) fn now_seconds(&self) -> u64 {
        self.now_ms / 1000
    }

    pub(super) fn actor(&self) -> &'a str {
        &self.command.actor
    }

    /// The revision that has last changed a resource; 0 when it was never there.
    pub(super) fn revision_of(&self, id: &Id) -> u64 {
        self.state.resources.newest().get(id).map_or(0, |resource| resource.revision)
    }

    /// The body of a resource, the newest.
    pub(super) fn body(&self, id: &Id) -> Option<&Bytes> {
        body_of(self.state.resources.newest().get(id))
    }

    /// Sets or, without a body, removes. What is so already is left alone.
    pub(super) fn put(&mut self, id: &Id, body: Option<Bytes>, reach: Reach) {
        let newest = self.state.resources.newest().get(id).cloned();
        let everywhere = reach == Reach::Cohort || body_of(self.state.resources.settled().get(id)) == body.as_ref();
        if body_of(newest.as_ref()) == body.as_ref() && everywhere {
            return;
        }
        self.before.entry(id.clone()).or_insert(newest);
        self.state.resources.put(id, body, self.index, reach);
    }

    /// Edges have to look these up again.
    pub(super) fn revisit(&mut self, ids: impl IntoIterator<Item = Id>) {
        self.revisited.extend(ids);
    }

    /// Enters this into the audit log though no resource changes.
    pub(super) fn note(&mut self, action: &'a str) {
        self.action = action.into();
        self.noted = true;
    }

    pub(super) fn cut_streams(&mut self) {
        self.kill_streams = true;
    }

    /// Ids that were put so far.
    pub(super) fn touched(&self) -> impl Iterator<Item = &Id> {
        self.before.keys()
    }

    /// Enters what was done where it is remembered; how many resources changed.
    pub(super) fn finish(self) -> (State, u32) {
        let Draft { mut state, index, now_ms, command, action, noted, before, revisited, kill_streams } = self;
        let changes: Vec<_> = before
            .into_iter()
            .map(|(id, before)| {
                let after = state.resources.newest().get(&id).cloned();
                (id, before, after)
            })
            .collect();
        let mut ids: Vec<Id> = changes.iter().map(|(id, _, _)| id.clone()).chain(revisited).collect();
        ids.sort();
        ids.dedup();
        if !changes.is_empty() {
            state.revision = index;
            for (id, before, after) in changes.iter().filter(|(id, _, _)| id.kind() == Some(Kind::Endpoint)) {
                state.prices.note(id.name(), index, now_ms, body_of(before.as_ref()), body_of(after.as_ref()));
            }
            let declared: Vec<_> = changes
                .iter()
                .filter(|(id, _, _)| is_declared(id))
                .map(|(id, before, after)| RevisionChange {
                    id: Some(id.into()),
                    before: before.as_deref().cloned(),
                    after: after.as_deref().cloned(),
                })
                .collect();
            if !declared.is_empty() {
                let (actor, reason) = (command.actor.clone(), command.reason.clone());
                state.history.push(Revision { index, time_ms: now_ms, actor, reason, changes: declared });
            }
        }
        if noted || !ids.is_empty() {
            let listed = changes.iter().take(AUDIT_CHANGES).map(|(id, before, after)| AuditChange {
                id: Some(id.into()),
                before: digest(before.as_ref()),
                after: digest(after.as_ref()),
            });
            state.audit.push(AuditEntry {
                index,
                time_ms: now_ms,
                actor: command.actor.clone(),
                reason: command.reason.clone(),
                action: action.into_owned(),
                request_id: command.request_id.clone(),
                changes: listed.collect(),
                more: changes.len().saturating_sub(AUDIT_CHANGES) as u32,
                ..AuditEntry::default()
            });
        }
        if !ids.is_empty() {
            let digests = Digests { newest: state.resources.newest().digest(), settled: state.resources.settled().digest() };
            state.changes.push(index, Changed { ids, digests, kill_streams });
        }
        (state, changes.len() as u32)
    }
}

/// Whether operators declare it in a file: what history keeps and a rollback touches.
pub(super) fn is_declared(id: &Id) -> bool {
    match id.kind() {
        Some(Kind::Key | Kind::Credential | Kind::Override) => false,
        Some(
            Kind::Defaults
            | Kind::Routing
            | Kind::Provider
            | Kind::Model
            | Kind::Endpoint
            | Kind::Preset
            | Kind::Organisation
            | Kind::Workspace,
        )
        | None => true,
    }
}

/// A refusal at a revision that the caller fills in.
pub(super) fn refuse(code: RefusalCode, message: impl Into<String>) -> Refused {
    Refused { code: code.into(), message: message.into(), revision: 0 }
}

fn digest(resource: Option<&Arc<Resource>>) -> Bytes {
    let body = body_of(resource);
    body.map(|body| Bytes::copy_from_slice(&blake3::hash(body).as_bytes()[..16])).unwrap_or_default()
}
