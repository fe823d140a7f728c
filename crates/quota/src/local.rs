//! Counting alone: what an edge decides while its store cannot be asked.
//!
//! Rates and slots: this edge's part of the limit, by the number of edges it knows of. Money: a prepaid key spends only what was bought
//! before (slices); a postpaid budget may be outrun by 5 % in all, split over the edges.

use std::hash::BuildHasher;
use std::time::Duration;

use parking_lot::Mutex;

use crate::ask::{Ask, Given, Verdict};
use crate::bucket::Rule;
use crate::clock::Micros;
use crate::decision::{Decision, Mode, Refusal, RefusalKind};
use crate::limit::{Funding, StoreDown};
use crate::memory::Cells;
use crate::settlement::Settlement;
use crate::store::ReserveRequest;

/// The edge's own counters.
#[derive(Debug)]
pub(crate) struct Local {
    shards: Vec<Mutex<Cells>>,
    hasher: std::collections::hash_map::RandomState,
}

const SHARDS: usize = 16;
/// A postpaid budget may be outrun by a twentieth while nobody can count it.
pub(crate) const POSTPAID_PART: u64 = 20;
/// What a caller is told to wait for the store.
const STORE_WAIT: Duration = Duration::from_secs(2);

impl Local {
    pub(crate) fn new() -> Self {
        Self { shards: std::iter::repeat_with(Mutex::default).take(SHARDS).collect(), hasher: Default::default() }
    }

    /// Decides by the key's policy, as one of `edges`.
    pub(crate) fn reserve(&self, request: &ReserveRequest<'_>, now: Micros, edges: u32) -> Decision {
        let mut ask = Ask::reserve(request, now, edges.max(1));
        match request.limits.on_store_down {
            StoreDown::Closed => Decision::Refused(unavailable(None)),
            StoreDown::Open => {
                let given = ask.rows.iter().map(|row| Given { held: 0, left: untouched(&row.rule), full_in: 0 }).collect();
                ask.decision(Verdict::Granted(given), now, Mode::Open)
            }
            StoreDown::Local => {
                for row in &mut ask.rows {
                    let limit = &row.bucket.limit;
                    if !limit.dimension.is_spend() || limit.shadow {
                        continue;
                    }
                    if limit.funding == Funding::Prepaid {
                        return Decision::Refused(unavailable(Some(row.bucket.clone())));
                    }
                    if let Rule::Budget { limit, .. } = &mut row.rule {
                        *limit = row.amount / POSTPAID_PART / u64::from(edges.max(1));
                    }
                }
                let verdict = self.shard(&request.limits.slot).lock().reserve(&ask, now);
                ask.decision(verdict, now, Mode::Local)
            }
        }
    }

    pub(crate) fn settle(&self, settlement: &Settlement, now: Micros) {
        self.shard(&settlement.reservation.slot).lock().settle(settlement, now);
    }

    pub(crate) fn renew(&self, reservation: &crate::decision::Reservation, now: Micros) {
        self.shard(&reservation.slot).lock().renew(reservation, now);
    }

    fn shard(&self, slot: &str) -> &Mutex<Cells> {
        &self.shards[usize::try_from(self.hasher.hash_one(slot) % SHARDS as u64).unwrap_or(0)]
    }
}

fn untouched(rule: &Rule) -> i64 {
    i64::try_from(rule.capacity()).unwrap_or(i64::MAX)
}

fn unavailable(bucket: Option<std::sync::Arc<crate::bucket::Bucket>>) -> Refusal {
    Refusal { kind: RefusalKind::Unavailable, bucket, retry_after: Some(STORE_WAIT), remaining: 0, too_big: false, mode: Mode::Local }
}
