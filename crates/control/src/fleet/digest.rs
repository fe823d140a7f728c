//! What a region tells the others: cells that changed materially since what the log says, and closed minutes for the history.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tidegate_proto::region_verdict;
use tidegate_proto::v1::{HealthCell, HealthReport, RegionDigest, UptimeCount, UptimeShare};
use tidegate_routing::{RegionSays, RegionVerdict, Timestamp};

use super::Fleet;
use super::report::uptime_of;
use crate::state::Health;

/// A digest, and whether it should not wait for the next second.
#[derive(Debug)]
pub struct Digested {
    /// For the leader.
    pub digest: RegionDigest,
    /// A verdict changed, or so many more or fewer requests work that edges elsewhere would choose otherwise.
    pub urgent: bool,
}

impl Fleet {
    /// What differs materially from what the log says of this region; nothing when nothing does.
    pub fn digest(&mut self, agreed: &Health, unix_ms: u64, now: Timestamp) -> Option<Digested> {
        let mut cells = Vec::new();
        let mut urgent = false;
        for (id, state) in &mut self.endpoints {
            let cell = state.digest(*id, now);
            let known = agreed.cell(*id, &self.region);
            let age = match (known, state.agreed_since) {
                (Some((_, at)), Some((seen, since))) if at == seen => now.since(since),
                (Some((_, at)), _) => {
                    state.agreed_since = Some((at, now));
                    Duration::ZERO
                }
                (None, _) => Duration::MAX,
            };
            let known = known.map(|(cell, _)| cell);
            if is_material(&cell, known, age) {
                urgent |= is_urgent(&cell, known);
                cells.push(cell);
            }
        }
        let shares = self.minutes.shares(&self.region, self.node_id, agreed.share_applied(self.node_id), unix_ms);
        if cells.is_empty() && shares.is_empty() {
            return None;
        }
        self.digest_seq += 1;
        let digest =
            RegionDigest { region: self.region.clone(), node_id: self.node_id, epoch: self.epoch, seq: self.digest_seq, cells, shares };
        Some(Digested { digest, urgent })
    }
}

/// Whether the log should hear it.
fn is_material(cell: &HealthCell, known: Option<&HealthCell>, age: Duration) -> bool {
    let speaks = cell.samples > 0 || region_verdict(cell.verdict) != RegionVerdict::Healthy;
    let Some(known) = known else { return speaks };
    if cell.verdict != known.verdict {
        return true;
    }
    if !speaks {
        // One last word when traffic ends; then silence until the cell is too old to count.
        return known.samples > 0 && age < CELL_LIFETIME;
    }
    let moved = |new: u32, old: u32, most: u32| new.abs_diff(old) > most;
    moved(cell.success_permille, known.success_permille, MATERIAL_PERMILLE)
        || moved(cell.rate_limited_permille, known.rate_limited_permille, MATERIAL_PERMILLE)
        || moved(cell.first_token_p50, known.first_token_p50, MATERIAL_STEPS)
        || moved(cell.first_token_p95, known.first_token_p95, MATERIAL_STEPS)
        || age >= KEEP_ALIVE
}

/// Whether others should hear it at once, and not with the second's other news.
pub(crate) fn is_urgent(cell: &HealthCell, known: Option<&HealthCell>) -> bool {
    let Some(known) = known else {
        let fails = cell.samples > 0 && cell.success_permille + URGENT_PERMILLE <= 1_000;
        return fails || region_verdict(cell.verdict) != RegionVerdict::Healthy;
    };
    let both_say = cell.samples > 0 && known.samples > 0;
    cell.verdict != known.verdict || (both_say && cell.success_permille.abs_diff(known.success_permille) >= URGENT_PERMILLE)
}

/// How far a cell moved from what the log says, to decide what waits when not everything fits: a changed verdict before all else.
pub(crate) fn movement(cell: &HealthCell, known: Option<&HealthCell>) -> u32 {
    let Some(known) = known else { return CHANGED_VERDICT };
    if cell.verdict != known.verdict {
        return CHANGED_VERDICT;
    }
    let success = cell.success_permille.abs_diff(known.success_permille);
    let limited = cell.rate_limited_permille.abs_diff(known.rate_limited_permille);
    // A step of the logarithm is about as much news as six thousandths.
    let latency = cell.first_token_p50.abs_diff(known.first_token_p50) + cell.first_token_p95.abs_diff(known.first_token_p95);
    success + limited + latency.saturating_mul(6)
}

/// What an agreed cell of another region says at its age; nothing when it is too old or says nothing.
pub(super) fn says(cell: &HealthCell, age_ms: u64) -> Option<RegionSays> {
    let age = Duration::from_millis(age_ms);
    if age > CELL_LIFETIME {
        return None;
    }
    let verdict = region_verdict(cell.verdict);
    // Within the keep-alive silence means no change; beyond it, trust fades in quarters, so that edges are not told of every step.
    let late = age.saturating_sub(KEEP_ALIVE).as_secs_f64() / FADE.as_secs_f64();
    let trust = ((-late).exp() * 4.0).round() / 4.0;
    let own = f64::from(cell.confidence.min(100)) / 100.0;
    // A region that sends nothing there any more has no samples, but its verdict stands.
    let own = if verdict.is_out() { own.max(VERDICT_CONFIDENCE) } else { own };
    (own > 0.0).then(|| RegionSays {
        verdict,
        success: f64::from(cell.success_permille.min(1_000)) / 1_000.0,
        confidence: own * trust,
        ours: cell.ours,
    })
}

/// Minutes of this node's own edges: the open ones, and the shares that are not in the history yet.
#[derive(Debug, Default)]
pub(super) struct Minutes {
    open: BTreeMap<u64, BTreeMap<u64, (u64, u64)>>,
    waiting: VecDeque<UptimeShare>,
    last_seq: u64,
}

impl Minutes {
    pub(super) fn count(&mut self, report: &HealthReport, unix_ms: u64) {
        if report.cells.is_empty() {
            return;
        }
        let minute = self.open.entry(unix_ms / MINUTE_MS).or_default();
        for cell in &report.cells {
            let (ok, failed) = uptime_of(cell);
            if ok + failed > 0 {
                let sum = minute.entry(cell.endpoint).or_default();
                sum.0 += ok;
                sum.1 += failed;
            }
        }
    }

    /// Shares that are to be told, oldest first: those after `applied`. A few at a time, so that health comes through beside them.
    fn shares(&mut self, region: &str, node_id: u64, applied: u64, unix_ms: u64) -> Vec<UptimeShare> {
        self.close(region, node_id, unix_ms);
        while self.waiting.front().is_some_and(|share| share.seq <= applied) {
            self.waiting.pop_front();
        }
        self.waiting.iter().take(SHARES_AT_ONCE).cloned().collect()
    }

    fn close(&mut self, region: &str, node_id: u64, unix_ms: u64) {
        let present = unix_ms / MINUTE_MS;
        // A clock that was set back leaves minutes in the future; they are closed when it gets there.
        let still_open = self.open.split_off(&present);
        for (minute, counts) in std::mem::replace(&mut self.open, still_open) {
            let counts: Vec<UptimeCount> =
                counts.into_iter().map(|(endpoint, (ok, failed))| UptimeCount { endpoint, ok, failed }).collect();
            for chunk in counts.chunks(SHARE_COUNTS) {
                self.last_seq = (self.last_seq + 1).max(unix_ms);
                self.waiting.push_back(UptimeShare {
                    region: region.to_owned(),
                    node_id,
                    seq: self.last_seq,
                    minute,
                    counts: chunk.to_vec(),
                });
            }
        }
        // Without a leader for long, the oldest minutes are lost.
        while self.waiting.len() > MOST_WAITING {
            self.waiting.pop_front();
        }
    }
}

/// Above this every numeric movement is.
const CHANGED_VERDICT: u32 = u32::MAX;
/// A quarter of all requests: the weight of an endpoint that is not used here halves with it.
const URGENT_PERMILLE: u32 = 250;
/// Two points.
const MATERIAL_PERMILLE: u32 = 20;
/// More than one step of 6.3 %: the first whole step beyond 10 %.
const MATERIAL_STEPS: u32 = 1;
/// An unchanged cell is told again after this long.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// And counts for nothing after this long.
const CELL_LIFETIME: Duration = Duration::from_secs(15);
const FADE: Duration = Duration::from_secs(5);
/// An ejection is the word of a quorum, however few samples are left.
const VERDICT_CONFIDENCE: f64 = 1.0;
const MINUTE_MS: u64 = 60_000;
/// Some 14 bytes each: a share takes at most an eighth of an entry.
const SHARE_COUNTS: usize = 500;
const SHARES_AT_ONCE: usize = 4;
/// Fifteen minutes of 2,000 endpoints.
const MOST_WAITING: usize = 60;
