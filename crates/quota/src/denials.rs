//! Refusals that are remembered: a limit that refuses for two seconds need not be asked in between.
//!
//! Only rates. A budget may be raised or refunded at any moment and a slot may come free, so those are asked each time.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::ask::Ask;
use crate::bucket::{Cost, Meter};
use crate::clock::Micros;
use crate::decision::{Decision, Mode, Refusal, RefusalKind};

/// The refusals of this edge that still hold.
#[derive(Debug)]
pub(crate) struct Denials {
    shards: Vec<Mutex<HashMap<Arc<str>, Denial>>>,
    hasher: std::collections::hash_map::RandomState,
}

#[derive(Debug, Clone, Copy)]
struct Denial {
    until: Micros,
    /// The refused cost: a smaller one may pass.
    cost: Cost,
    /// The amount it was refused against: a changed limit is asked anew.
    amount: u64,
}

const SHARDS: usize = 16;
/// Settlements give back what was reserved too much, so a long refusal is asked about again.
const LONGEST: Micros = 2_000_000;
/// Per shard; beyond it expired ones are dropped, and all of them if that is not enough: only a cache.
const MOST: usize = 4_096;

impl Denials {
    pub(crate) fn new() -> Self {
        Self { shards: std::iter::repeat_with(Mutex::default).take(SHARDS).collect(), hasher: Default::default() }
    }

    /// The remembered refusal of any limit of this question.
    pub(crate) fn find(&self, ask: &Ask<'_>, now: Micros) -> Option<Refusal> {
        ask.rows.iter().filter(|row| row.bucket.meter() == Meter::Rate && !row.bucket.limit.shadow).find_map(|row| {
            let denial = *self.shard(&row.bucket.key).lock().get(&row.bucket.key)?;
            (denial.until > now && row.least >= denial.cost && row.amount == denial.amount).then(|| Refusal {
                kind: RefusalKind::Rate,
                bucket: Some(row.bucket.clone()),
                retry_after: Some(Duration::from_micros(denial.until - now)),
                remaining: 0,
                too_big: false,
                mode: Mode::Exact,
            })
        })
    }

    /// Remembers what the store refused.
    pub(crate) fn remember(&self, ask: &Ask<'_>, decision: &Decision, now: Micros) {
        let Decision::Refused(Refusal { bucket: Some(bucket), retry_after: Some(wait), too_big: false, .. }) = decision else { return };
        let Some(row) = ask.rows.iter().find(|row| row.bucket.key == bucket.key) else { return };
        if bucket.meter() != Meter::Rate {
            return;
        }
        let wait = crate::ask::micros(*wait).min(LONGEST);
        let mut shard = self.shard(&bucket.key).lock();
        if shard.len() >= MOST {
            shard.retain(|_, denial| denial.until > now);
            if shard.len() >= MOST {
                shard.clear();
            }
        }
        shard.insert(bucket.key.clone(), Denial { until: now.saturating_add(wait), cost: row.least, amount: row.amount });
    }

    fn shard(&self, key: &str) -> &Mutex<HashMap<Arc<str>, Denial>> {
        &self.shards[usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).unwrap_or(0)]
    }
}
