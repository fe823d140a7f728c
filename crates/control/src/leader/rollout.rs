//! The next step of a staged rollout: a pure function of where it is, of the edges, and of the time.
//!
//! One edge per region, then a tenth of each region, then everyone; each stage lasts until it has baked on edges that use it. An edge that
//! refuses the configuration takes it back; so do edges that have it and fail noticeably more than those without, whether it shows in what
//! callers were answered or only in attempts that were made good elsewhere.

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_proto::v1::{AdvanceRollout, EdgeStatus, RevertRollout, Rollout, RolloutStage, command};

/// How long a stage lasts at least.
pub const BAKE: Duration = Duration::from_secs(30);
/// How long edges of a stage may take to use what they were sent, before the stage is taken to have failed.
const LATEST: Duration = Duration::from_secs(120);
/// How much larger the share of failures may be among edges that have it, as a share of requests.
const WORSE: f64 = 0.02;
/// How many there have to be on either side before shares say something.
const ENOUGH: u64 = 100;

/// One edge as the stepper sees it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EdgeView {
    /// Its name.
    pub name: String,
    /// Its region.
    pub region: String,
    /// Newest index that it routes by.
    pub applied: u64,
    /// Newest index that it has refused and not gone beyond, and why.
    pub refused: Option<(u64, String)>,
    /// Attempts at providers lately.
    pub attempts: Outcomes,
    /// Requests of callers lately.
    pub requests: Outcomes,
}

/// How many there were, and how many of them failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// All.
    pub all: u64,
    /// Those that failed.
    pub failed: u64,
}

impl From<&EdgeStatus> for EdgeView {
    fn from(edge: &EdgeStatus) -> EdgeView {
        EdgeView {
            name: edge.edge.clone(),
            region: edge.region.clone(),
            applied: edge.applied,
            refused: edge.refused.as_ref().map(|nack| (nack.index, nack.reason.clone())),
            attempts: Outcomes { all: edge.attempts, failed: edge.failures },
            requests: Outcomes { all: edge.requests, failed: edge.failed_requests },
        }
    }
}

/// What to do about a rollout.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "one is made a second, and moved once")]
pub enum Step {
    /// Nothing yet.
    Wait,
    /// Propose this, for this reason.
    Do(command::Body, String),
}

/// Decides. `edges` are the live ones.
pub fn step(rollout: &Rollout, edges: &[EdgeView], now_ms: u64, bake: Duration) -> Step {
    let since = Duration::from_millis(now_ms.saturating_sub(rollout.stage_ms));
    let stage = rollout.stage();
    match stage {
        RolloutStage::Waiting => return advance(rollout, edges, "first edges chosen"),
        RolloutStage::Canary | RolloutStage::Tenth => {}
        RolloutStage::Done | RolloutStage::Reverted | RolloutStage::Superseded | RolloutStage::Unspecified => return Step::Wait,
    }
    let (with, without): (Vec<_>, Vec<_>) = edges.iter().partition(|edge| rollout.cohort.contains(&edge.name));
    if let Some((edge, reason)) = with.iter().find_map(|edge| {
        let (index, reason) = edge.refused.as_ref()?;
        (*index >= rollout.revision).then_some((edge, reason))
    }) {
        return revert(rollout, format!("edge `{}` refused it: {reason}", edge.name));
    }
    // Callers first: retries elsewhere hide a provider that fails, and nothing hides an answer that failed by the edge's own fault.
    let requests = worse(&with, &without, |edge| edge.requests).map(|worse| (worse, "requests of callers"));
    if let Some((worse, what)) = requests.or_else(|| Some((worse(&with, &without, |edge| edge.attempts)?, "attempts at providers"))) {
        return revert(rollout, format!("{:.1} % more {what} fail on edges that have it", worse * 100.0));
    }
    if with.is_empty() {
        // All of them left: others have to try it.
        return match edges.is_empty() {
            true => Step::Wait,
            false => choose_again(rollout, edges),
        };
    }
    let using = with.iter().all(|edge| edge.applied >= rollout.stage_index);
    if !using {
        let late = since >= LATEST.max(bake);
        return if late { revert(rollout, format!("an edge does not use it after {} s", since.as_secs())) } else { Step::Wait };
    }
    if since < bake { Step::Wait } else { advance(rollout, edges, &format!("baked for {} s", since.as_secs())) }
}

fn advance(rollout: &Rollout, edges: &[EdgeView], reason: &str) -> Step {
    let from = rollout.stage();
    let regions = by_region(edges);
    let (mut to, mut cohort) = match from {
        RolloutStage::Waiting => (RolloutStage::Canary, chosen(rollout, &regions, |_| 1)),
        RolloutStage::Canary => (RolloutStage::Tenth, chosen(rollout, &regions, |edges| edges.div_ceil(10))),
        _ => (RolloutStage::Done, Vec::new()),
    };
    // A tenth that is no more than what has it already proves nothing new; a cohort of everyone is done.
    let same = to == RolloutStage::Tenth && cohort.len() <= rollout.cohort.len();
    if same || cohort.len() == edges.len() && from != RolloutStage::Waiting || edges.is_empty() {
        (to, cohort) = (RolloutStage::Done, Vec::new());
    }
    let note = if edges.is_empty() { "no edge is connected".to_owned() } else { reason.to_owned() };
    let advance = AdvanceRollout { revision: rollout.revision, from: from.into(), to: to.into(), note: note.clone(), cohort };
    Step::Do(command::Body::AdvanceRollout(advance), note)
}

/// The edges of a stage have left: the stage begins anew with others.
fn choose_again(rollout: &Rollout, edges: &[EdgeView]) -> Step {
    let waiting = Rollout { stage: RolloutStage::Waiting.into(), ..rollout.clone() };
    match advance(&waiting, edges, "the edges of the stage have left") {
        Step::Do(command::Body::AdvanceRollout(mut advance), reason) => {
            // Forward only: from the first stage to the next one, with other edges.
            (advance.from, advance.to) = match rollout.stage() {
                RolloutStage::Canary => (RolloutStage::Canary.into(), RolloutStage::Tenth.into()),
                _ => (rollout.stage, RolloutStage::Done.into()),
            };
            Step::Do(command::Body::AdvanceRollout(advance), reason)
        }
        other => other,
    }
}

fn revert(rollout: &Rollout, cause: String) -> Step {
    Step::Do(command::Body::RevertRollout(RevertRollout { revision: rollout.revision, cause: cause.clone() }), cause)
}

/// How much larger the share of failures is among edges that have it, when that is more than chance and noise.
fn worse(with: &[&EdgeView], without: &[&EdgeView], outcomes: fn(&EdgeView) -> Outcomes) -> Option<f64> {
    let share = |edges: &[&EdgeView]| {
        let all: u64 = edges.iter().map(|edge| outcomes(edge).all).sum();
        let failed: u64 = edges.iter().map(|edge| outcomes(edge).failed).sum();
        (all >= ENOUGH).then(|| failed as f64 / all as f64)
    };
    let more = share(with)? - share(without)?;
    (more > WORSE).then_some(more)
}

fn by_region(edges: &[EdgeView]) -> BTreeMap<&str, Vec<&str>> {
    let mut regions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for edge in edges {
        regions.entry(&edge.region).or_default().push(&edge.name);
    }
    regions
}

/// As many edges of each region as `count` says of its number. Those that have it stay; others are drawn by a hash, so that it is not always
/// the same edge that goes first.
fn chosen(rollout: &Rollout, regions: &BTreeMap<&str, Vec<&str>>, count: impl Fn(usize) -> usize) -> Vec<String> {
    let mut chosen = Vec::new();
    for names in regions.values() {
        let mut names = names.clone();
        names.sort_unstable();
        names.dedup();
        let wanted = count(names.len());
        names.sort_by_key(|name| (!rollout.cohort.iter().any(|has| has == name), lot(rollout.revision, name)));
        chosen.extend(names.into_iter().take(wanted).map(str::to_owned));
    }
    chosen
}

fn lot(revision: u64, name: &str) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&revision.to_be_bytes());
    hasher.update(name.as_bytes());
    *hasher.finalize().as_bytes()
}
