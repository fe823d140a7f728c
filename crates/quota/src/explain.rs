//! How wrong each limit of a key can become, and why: the numbers behind `tidegate quota explain`.

use std::fmt;
use std::sync::Arc;

use crate::bucket::{Bucket, Meter};
use crate::limit::{Funding, StoreDown};
use crate::local::POSTPAID_PART;
use crate::set::{LimitSet, Selection};
use crate::share::Allocator;

/// Where a limit is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topology {
    /// Edges of this region that the control plane knows of.
    pub known_edges: u32,
    /// Edges that may truly run: more than are known while the control plane cannot be reached (an autoscaler's maximum).
    pub most_edges: u32,
    /// Regions that serve this organisation.
    pub regions: u32,
    /// Regions that are declared to share global limits; fewer than two share nothing.
    pub sharing: u32,
    /// Whether the store is shared by the edges (Redis), or each edge counts by itself.
    pub shared_store: bool,
}

/// The worst case of one limit, in the limit's unit per window.
#[derive(Debug, Clone)]
pub struct Bound {
    /// The limit.
    pub bucket: Arc<Bucket>,
    /// Admitted per window at most while the store answers; a rate's burst comes on top once.
    pub store_up: u64,
    /// Admitted at most in one window during which the store is away; `None` when nothing bounds it (`open`, or a shadow limit).
    pub store_down: Option<u64>,
    /// Admitted at once at most (rates).
    pub burst: Option<u64>,
    /// Extra units after a fail-over that loses its last writes: two seconds of the rate.
    pub failover: u64,
    /// The sentences for people.
    pub words: Vec<String>,
}

/// Longest tail of writes that a fail-over may lose, in seconds, with `min-replicas-max-lag 2`.
const LOST_TAIL_SECONDS: u64 = 2;

/// The bounds of every selected limit of a key.
pub fn explain(limits: &LimitSet, selection: Selection, topology: Topology) -> Vec<Bound> {
    limits.buckets(selection).map(|bucket| bound(bucket, limits.on_store_down(), topology)).collect()
}

fn bound(bucket: &Arc<Bucket>, policy: StoreDown, topology: Topology) -> Bound {
    let limit = &bucket.limit;
    let amount = limit.amount;
    let (known, most) = (u64::from(topology.known_edges.max(1)), u64::from(topology.most_edges.max(topology.known_edges).max(1)));
    let sharing = u64::from(topology.sharing);
    let is_shared = limit.global && sharing > 1;
    let regions = if is_shared { 1 } else { u64::from(topology.regions.max(1)) };
    let mut words = Vec::new();

    let counters = if topology.shared_store { 1 } else { known };
    let edge_part = part(bucket, amount, counters).saturating_mul(if topology.shared_store { 1 } else { most });
    let store_up = edge_part.saturating_mul(regions);
    if is_shared {
        words.push(shared_words(bucket, sharing));
    } else if limit.global && regions > 1 {
        words.push(format!(
            "Counted in each of {regions} regions by itself, though it is global: name the regions in `defaults.quota_regions`."
        ));
    } else if regions > 1 {
        words.push(format!("Counted in each of {regions} regions by itself: {regions} times the limit in all. `global: true` shares it."));
    }
    if !topology.shared_store && known > 1 {
        words.push(format!("No shared store: each of {known} known edges counts a part by itself."));
    }

    let burst = match bucket.rule(amount, 0, 1) {
        crate::bucket::Rule::Rate(rate) => Some(rate.units(rate.tolerance).saturating_mul(regions)),
        crate::bucket::Rule::Slots { .. } | crate::bucket::Rule::Budget { .. } => None,
    };
    if let Some(burst) = burst {
        words.push(format!("Up to {burst} at once after a pause; a request larger than that is let in and its rest is waited off."));
    }

    let whole = |units: u64| units.saturating_mul(regions);
    let store_down = match (limit.shadow, policy) {
        (true, _) => {
            words.push("Shadow: counted and reported, never refused.".to_owned());
            None
        }
        (false, StoreDown::Open) => {
            words.push("Store away: everything is let in and settled later (`on_store_down: open`).".to_owned());
            None
        }
        (false, StoreDown::Closed) => {
            words.push("Store away: nothing is let in, 503 (`on_store_down: closed`).".to_owned());
            Some(0)
        }
        (false, StoreDown::Local) if limit.dimension.is_spend() && limit.funding == Funding::Prepaid => {
            words.push("Store away: only what the edges had bought before is spent, then 503. Nothing beyond the credits.".to_owned());
            Some(0)
        }
        (false, StoreDown::Local) if limit.dimension.is_spend() => {
            let extra = (amount / POSTPAID_PART / known).saturating_mul(most);
            words.push(format!(
                "Store away: up to {} more than the store knows of, 5 % of the budget for all known edges.",
                shown(bucket, whole(extra))
            ));
            Some(whole(amount.saturating_add(extra)))
        }
        (false, StoreDown::Local) => {
            let admitted = part(bucket, amount, known).saturating_mul(most);
            words.push(format!(
                "Store away: each of {known} known edges allows its part; with {most} running that is {} in all.",
                whole(admitted)
            ));
            Some(whole(admitted))
        }
    };
    let failover = match bucket.meter() {
        Meter::Rate => whole(amount.saturating_mul(LOST_TAIL_SECONDS).div_ceil(60)),
        Meter::Slots | Meter::Budget(_) => 0,
    };
    Bound { bucket: bucket.clone(), store_up, store_down, burst, failover, words }
}

/// How a limit is shared, and what happens without home.
fn shared_words(bucket: &Bucket, regions: u64) -> String {
    let limit = &bucket.limit;
    match (bucket.meter(), limit.funding) {
        (Meter::Rate | Meter::Slots, _) => format!(
            "Shared by {regions} regions: the sum of their shares never exceeds the limit. A region that is cut off keeps its share for 15 s, \
             then {}, which is always reserved for it.",
            Allocator::floor_of(limit.amount, &vec!["".into(); usize::try_from(regions).unwrap_or(1)], "")
        ),
        (Meter::Budget(_), Funding::Prepaid) => format!(
            "Shared by {regions} regions, which are lent a hundredth of what is left at a time, at least $1. A region that is cut off spends what \
             it was lent, then nothing."
        ),
        (Meter::Budget(_), Funding::Postpaid) => format!(
            "Shared by {regions} regions, which are lent a hundredth of what is left at a time, at least $1 or ten requests. A region that is cut \
             off spends what it was lent, then up to {} more by the key's `on_store_down`.",
            shown(bucket, limit.amount / POSTPAID_PART / regions)
        ),
    }
}

/// An amount for people: micro-dollars as dollars.
fn shown(bucket: &Bucket, amount: u64) -> String {
    if !bucket.limit.dimension.is_spend() {
        return amount.to_string();
    }
    let text = format!("${}.{:06}", amount / 1_000_000, amount % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// What one of `counters` allows: exact for a rate, never below one for what is countable.
fn part(bucket: &Bucket, amount: u64, counters: u64) -> u64 {
    match bucket.meter() {
        Meter::Rate => amount.div_ceil(counters.max(1)),
        Meter::Slots | Meter::Budget(_) if amount == 0 => 0,
        Meter::Slots | Meter::Budget(_) => (amount / counters.max(1)).max(1),
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limit = &self.bucket.limit;
        write!(out, "{} {} {}: at most {}", limit.scope, limit.dimension, limit.amount, self.store_up)?;
        match self.store_down {
            Some(most) => write!(out, ", with the store away {most}")?,
            None => write!(out, ", with the store away unbounded")?,
        }
        for sentence in &self.words {
            write!(out, "\n  {sentence}")?;
        }
        Ok(())
    }
}
