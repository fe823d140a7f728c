//! Running requests that hold slots of a concurrency limit: their leases are renewed while they run.

use std::collections::HashMap;

use parking_lot::Mutex;
use ulid::Ulid;

use crate::clock::Micros;
use crate::decision::Reservation;

/// The leased reservations of this edge.
#[derive(Debug)]
pub(super) struct Leases {
    shards: Vec<Mutex<HashMap<Ulid, (Reservation, Micros)>>>,
}

const SHARDS: usize = 16;
/// A third of the lease: two renewals may fail.
const EVERY: Micros = crate::ask::LEASE / 3;

impl Leases {
    pub(super) fn new() -> Self {
        Self { shards: std::iter::repeat_with(Mutex::default).take(SHARDS).collect() }
    }

    /// Watches a reservation, if it holds slots.
    pub(super) fn watch(&self, reservation: &Reservation, now: Micros) {
        if reservation.is_leased() {
            self.shard(reservation.id).lock().insert(reservation.id, (reservation.clone(), now + EVERY));
        }
    }

    /// The request has ended.
    pub(super) fn forget(&self, reservation: &Reservation) {
        if reservation.is_leased() {
            self.shard(reservation.id).lock().remove(&reservation.id);
        }
    }

    /// Calls `renew` for each that is due. One that nobody settled ends with its reservation.
    pub(super) fn due(&self, now: Micros, mut renew: impl FnMut(&Reservation)) {
        for shard in &self.shards {
            shard.lock().retain(|_, (reservation, at)| {
                if now >= *at {
                    *at = now + EVERY;
                    renew(reservation);
                }
                reservation.expires_at > now
            });
        }
    }

    fn shard(&self, id: Ulid) -> &Mutex<HashMap<Ulid, (Reservation, Micros)>> {
        // The low bits of the random part.
        &self.shards[usize::from(id.to_bytes()[15]) % SHARDS]
    }
}
