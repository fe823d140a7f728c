//! Staged rollouts: what is risky reaches one edge per region first, then a tenth, then everyone.
//!
//! At most one runs. While it does, the state holds two sides (see [`super::resources`]): edges that the leader named have the newest, all
//! others what was there before. Another risky change takes over what the running rollout has not finished and begins anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use imbl::OrdMap;
use tidegate_proto::Kind;
use tidegate_proto::v1::{AdvanceRollout, RefusalCode, Refused, RevertRollout, Rollout, RolloutStage};

use super::Id;
use super::draft::{Draft, refuse};
use super::resources::{Reach, body_of};

/// Rollouts that are kept, the running one included.
pub const ROLLOUTS_KEPT: usize = 100;

/// Rollouts by the revision that started them.
#[derive(Debug, Clone, Default)]
pub struct Rollouts {
    rollouts: OrdMap<u64, Arc<Rollout>>,
}

impl Rollouts {
    /// Oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Rollout>> {
        self.rollouts.values()
    }

    /// The one that some edges have and others have not.
    pub fn running(&self) -> Option<&Arc<Rollout>> {
        let (_, newest) = self.rollouts.get_max()?;
        match newest.stage() {
            RolloutStage::Waiting | RolloutStage::Canary | RolloutStage::Tenth => Some(newest),
            RolloutStage::Done | RolloutStage::Reverted | RolloutStage::Superseded | RolloutStage::Unspecified => None,
        }
    }

    /// Whether an edge has what a rollout changes.
    pub fn reaches(rollout: &Rollout, edge: &str) -> bool {
        match rollout.stage() {
            RolloutStage::Canary | RolloutStage::Tenth => rollout.cohort.iter().any(|name| name == edge),
            RolloutStage::Done | RolloutStage::Superseded => true,
            RolloutStage::Waiting | RolloutStage::Reverted | RolloutStage::Unspecified => false,
        }
    }

    pub(super) fn restored(rollouts: Vec<Rollout>) -> Rollouts {
        Rollouts { rollouts: rollouts.into_iter().map(|rollout| (rollout.revision, Arc::new(rollout))).collect() }
    }

    fn set(&mut self, rollout: Rollout) {
        self.rollouts.insert(rollout.revision, Arc::new(rollout));
        while self.rollouts.len() > ROLLOUTS_KEPT {
            let Some((oldest, _)) = self.rollouts.get_min().cloned() else { break };
            self.rollouts.remove(&oldest);
        }
    }
}

/// Makes declared things so: what is risky in stages unless `immediate`, the rest at once.
pub(super) fn put_declared(draft: &mut Draft<'_>, wanted: BTreeMap<Id, Option<Bytes>>, immediate: bool) {
    for (id, body) in wanted {
        let reach = if immediate || !is_risky(&id) { Reach::All } else { Reach::Cohort };
        draft.put(&id, body, reach);
    }
    let differing: Vec<Id> = draft.state.resources.differing().iter().cloned().collect();
    let renewed = differing.iter().any(|id| draft.touched().any(|touched| touched == id));
    let running = draft.state.rollouts.running().cloned();
    if let Some(running) = &running
        && (renewed || differing.is_empty())
    {
        let note = format!("revision {} came", draft.index);
        enter(draft, running, RolloutStage::Superseded, note, Vec::new());
    }
    if renewed {
        // Edges that the rollout before had reached go back to what is settled until they are named again.
        draft.revisit(differing.iter().cloned());
        let changes = differing.iter().map(Into::into).collect();
        draft.state.rollouts.set(Rollout {
            revision: draft.index,
            stage: RolloutStage::Waiting.into(),
            started_ms: draft.now_ms,
            stage_ms: draft.now_ms,
            stage_index: draft.index,
            changes,
            note: String::new(),
            cohort: Vec::new(),
        });
    }
    super::credentials::sweep(draft);
}

pub(super) fn advance(draft: &mut Draft<'_>, asked: &AdvanceRollout) -> Result<(), Refused> {
    let rollout = running(draft, asked.revision)?;
    if rollout.stage() != asked.from() {
        let message = format!("rollout {} is not in stage {}", asked.revision, asked.from().as_str_name());
        return Err(refuse(RefusalCode::Conflict, message));
    }
    match asked.to() {
        RolloutStage::Canary | RolloutStage::Tenth if asked.to() > asked.from() => {}
        RolloutStage::Done => {
            draft.state.resources.settle();
        }
        RolloutStage::Canary
        | RolloutStage::Tenth
        | RolloutStage::Waiting
        | RolloutStage::Reverted
        | RolloutStage::Superseded
        | RolloutStage::Unspecified => {
            return Err(refuse(RefusalCode::Malformed, "a rollout goes forward: canary, tenth, done"));
        }
    }
    draft.revisit(rollout.changes.iter().map(Id::from));
    enter(draft, &rollout, asked.to(), asked.note.clone(), asked.cohort.clone());
    if asked.to() == RolloutStage::Done {
        super::credentials::sweep(draft);
    }
    Ok(())
}

pub(super) fn revert(draft: &mut Draft<'_>, asked: &RevertRollout) -> Result<(), Refused> {
    let rollout = running(draft, asked.revision)?;
    let differing: Vec<Id> = draft.state.resources.differing().iter().cloned().collect();
    for id in differing {
        let settled = body_of(draft.state.resources.settled().get(&id)).cloned();
        draft.put(&id, settled, Reach::Cohort);
    }
    enter(draft, &rollout, RolloutStage::Reverted, asked.cause.clone(), rollout.cohort.clone());
    super::credentials::sweep(draft);
    Ok(())
}

fn running(draft: &Draft<'_>, revision: u64) -> Result<Arc<Rollout>, Refused> {
    match draft.state.rollouts.running() {
        Some(rollout) if rollout.revision == revision => Ok(rollout.clone()),
        Some(_) | None => Err(refuse(RefusalCode::NotFound, format!("rollout {revision} does not run"))),
    }
}

fn enter(draft: &mut Draft<'_>, rollout: &Rollout, stage: RolloutStage, note: String, cohort: Vec<String>) {
    let (stage_ms, stage_index) = (draft.now_ms, draft.index);
    draft.state.rollouts.set(Rollout { stage: stage.into(), stage_ms, stage_index, note, cohort, ..rollout.clone() });
}

/// What can take traffic down when it is wrong. Organisations and workspaces are not staged, because keys that every edge has refer to
/// them.
fn is_risky(id: &Id) -> bool {
    match id.kind() {
        Some(Kind::Defaults | Kind::Routing | Kind::Provider | Kind::Model | Kind::Endpoint | Kind::Preset) | None => true,
        Some(Kind::Organisation | Kind::Workspace | Kind::Credential | Kind::Key | Kind::Override) => false,
    }
}
