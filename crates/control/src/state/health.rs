//! What regions said about endpoints, as agreed: the newest cell per endpoint and region, and how often each worked over 90 days.
//!
//! Bounded: one cell per endpoint and region, two bytes per minute and hour of history, and caps on both numbers. Time is the leader's, as
//! stamped on the entry; nothing here asks a clock.

mod history;
mod minifloat;

use std::sync::Arc;

use imbl::OrdMap;
use tidegate_proto::v1::{AgreedCell, HealthBatch, HealthCell, HealthSection, UptimeApplied};
use tidegate_routing::EndpointId;

pub use history::{UptimeCounts, UptimeWindow};

use history::History;

/// Newest cell per region and endpoint, and the history.
#[derive(Debug, Clone, Default)]
pub struct Health {
    cells: OrdMap<Key, Agreed>,
    history: OrdMap<Key, Arc<History>>,
    /// Newest share applied per node, so that one sent twice counts once.
    applied: OrdMap<u64, u64>,
    /// The newest stamp.
    leader_time_ms: u64,
}

/// Endpoint first, so that its regions are neighbours.
type Key = (u64, Arc<str>);

/// A cell and when it was agreed.
#[derive(Debug, Clone, PartialEq)]
struct Agreed {
    cell: HealthCell,
    leader_time_ms: u64,
}

impl Health {
    /// Everything agreed about endpoints, by endpoint and region: region, cell, and the leader's time of it.
    pub fn cells(&self) -> impl Iterator<Item = (&str, &HealthCell, u64)> {
        self.cells.iter().map(|((_, region), agreed)| (region.as_ref(), &agreed.cell, agreed.leader_time_ms))
    }

    /// What each region said about an endpoint.
    pub fn of(&self, endpoint: EndpointId) -> impl Iterator<Item = (&str, &HealthCell, u64)> {
        let from = (endpoint.0, Arc::from(""));
        let range = self.cells.range(from..).take_while(move |((id, _), _)| *id == endpoint.0);
        range.map(|((_, region), agreed)| (region.as_ref(), &agreed.cell, agreed.leader_time_ms))
    }

    /// What a region said about an endpoint, and when.
    pub fn cell(&self, endpoint: EndpointId, region: &str) -> Option<(&HealthCell, u64)> {
        self.cells.get(&(endpoint.0, Arc::from(region))).map(|agreed| (&agreed.cell, agreed.leader_time_ms))
    }

    /// Successes and failures of an endpoint as seen from a region, up to a moment (Unix milliseconds).
    pub fn uptime(&self, endpoint: EndpointId, region: &str, window: UptimeWindow, now_ms: u64) -> UptimeCounts {
        let history = self.history.get(&(endpoint.0, Arc::from(region)));
        history.map_or_else(UptimeCounts::default, |history| history.sum(window, now_ms / MINUTE_MS))
    }

    /// Hours of a day or more, oldest first: number of the hour (Unix time / 3600) and its counts.
    pub fn hours(&self, endpoint: EndpointId, region: &str, from_hour: u64) -> Vec<(u64, UptimeCounts)> {
        self.history.get(&(endpoint.0, Arc::from(region))).map_or_else(Vec::new, |history| history.hours(from_hour))
    }

    /// Endpoints and regions that have a history.
    pub fn with_history(&self) -> impl Iterator<Item = (EndpointId, &str)> {
        self.history.keys().map(|(endpoint, region)| (EndpointId(*endpoint), region.as_ref()))
    }

    /// The newest share of a node that is in the history.
    pub fn share_applied(&self, node_id: u64) -> u64 {
        self.applied.get(&node_id).copied().unwrap_or(0)
    }

    /// The newest leader's time that was applied, Unix milliseconds.
    pub fn leader_time_ms(&self) -> u64 {
        self.leader_time_ms
    }

    /// Takes an agreed batch in.
    pub fn apply(&mut self, batch: HealthBatch, leader_time_ms: u64) {
        let hour_before = self.leader_time_ms / HOUR_MS;
        self.leader_time_ms = self.leader_time_ms.max(leader_time_ms);
        for region in batch.regions {
            let name: Arc<str> = region.region.into();
            for cell in region.cells {
                let key = (cell.endpoint, Arc::clone(&name));
                if self.cells.len() < MOST_CELLS || self.cells.contains_key(&key) {
                    self.cells.insert(key, Agreed { cell, leader_time_ms });
                }
            }
        }
        for share in batch.shares {
            if share.seq <= self.share_applied(share.node_id) || self.share_is_from_another_time(share.minute) {
                continue;
            }
            self.applied.insert(share.node_id, share.seq);
            let name: Arc<str> = share.region.into();
            for count in share.counts {
                let key = (count.endpoint, Arc::clone(&name));
                if self.history.len() < MOST_CELLS || self.history.contains_key(&key) {
                    Arc::make_mut(self.history.entry(key).or_default()).add(share.minute, count.ok, count.failed);
                }
            }
        }
        if self.leader_time_ms / HOUR_MS != hour_before {
            self.forget();
        }
    }

    /// A node whose clock is off must not spread counts over the future or evict the present. Hours old is a node that was cut off.
    fn share_is_from_another_time(&self, minute: u64) -> bool {
        let now = self.leader_time_ms / MINUTE_MS;
        minute > now + 2 || minute + OLDEST_SHARE_MINUTES < now
    }

    /// Once an hour: what is a day old without a word, and histories that have run empty.
    fn forget(&mut self) {
        let (now, minute) = (self.leader_time_ms, self.leader_time_ms / MINUTE_MS);
        let old = self.cells.iter().filter(|(_, agreed)| agreed.leader_time_ms + DAY_MS <= now);
        for key in old.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            self.cells.remove(&key);
        }
        let keys: Vec<Key> = self.history.keys().cloned().collect();
        for key in keys {
            let Some(history) = self.history.get_mut(&key) else { continue };
            if Arc::make_mut(history).forget(minute) {
                self.history.remove(&key);
            }
        }
    }

    /// The section of a snapshot.
    pub fn to_section(&self) -> HealthSection {
        let cells = self.cells.iter().map(|((_, region), agreed)| AgreedCell {
            region: region.to_string(),
            cell: Some(agreed.cell),
            leader_time_ms: agreed.leader_time_ms,
        });
        HealthSection {
            format: FORMAT,
            cells: cells.collect(),
            history: self.history.iter().map(|((endpoint, region), history)| history.to_proto(*endpoint, region)).collect(),
            applied: self.applied.iter().map(|(node_id, seq)| UptimeApplied { node_id: *node_id, seq: *seq }).collect(),
            leader_time_ms: self.leader_time_ms,
        }
    }

    /// Reads the section back; nothing when a newer build wrote it, or it is damaged.
    pub fn from_section(section: HealthSection) -> Option<Health> {
        if section.format > FORMAT {
            return None;
        }
        let mut health = Health { leader_time_ms: section.leader_time_ms, ..Health::default() };
        for agreed in section.cells {
            let cell = agreed.cell?;
            health.cells.insert((cell.endpoint, agreed.region.into()), Agreed { cell, leader_time_ms: agreed.leader_time_ms });
        }
        for history in section.history {
            let key = (history.endpoint, history.region.as_str().into());
            health.history.insert(key, Arc::new(History::from_proto(&history)?));
        }
        health.applied = section.applied.into_iter().map(|applied| (applied.node_id, applied.seq)).collect();
        Some(health)
    }
}

/// Number of the section's format.
const FORMAT: u32 = 1;
const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;
/// Endpoints times regions: 2,000 × 8 is what the design sizes for.
const MOST_CELLS: usize = 100_000;
/// Minutes after which a share is too late to be told.
const OLDEST_SHARE_MINUTES: u64 = 120;

#[cfg(test)]
mod tests;
