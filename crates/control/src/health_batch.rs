//! The leader's side of shared health: the regions' digests become one entry of the log at a time.
//!
//! However many edges there are and whatever they see, the log gets at most one entry per tick, of at most 2,000 cells and 64 KiB. What
//! does not fit waits: changed verdicts go first, then what moved furthest, then what is only kept alive.

use std::collections::BTreeMap;
use std::time::Duration;

use prost::Message;
use tidegate_proto::v1::{HealthBatch, HealthCell, RegionCells, RegionDigest, UptimeShare};
use tidegate_routing::EndpointId;

use crate::fleet::movement;
use crate::state::Health;

/// The newest word of each region, until it is in the log. Pure.
#[derive(Debug, Default)]
pub struct HealthBatcher {
    /// By region and endpoint.
    cells: BTreeMap<(String, u64), HealthCell>,
    /// By node and number.
    shares: BTreeMap<(u64, u64), UptimeShare>,
    /// Newest digest per node: epoch and number.
    newest: BTreeMap<u64, (u64, u64)>,
}

impl HealthBatcher {
    /// Takes a region's digest in; a newer cell replaces one that still waits. False for one that was overtaken by a newer.
    pub fn take(&mut self, digest: RegionDigest) -> bool {
        let order = (digest.epoch, digest.seq);
        if self.newest.get(&digest.node_id).is_some_and(|newest| *newest >= order) {
            return false;
        }
        if self.newest.len() < MOST_NODES || self.newest.contains_key(&digest.node_id) {
            self.newest.insert(digest.node_id, order);
        }
        for cell in digest.cells {
            let key = (digest.region.clone(), cell.endpoint);
            if self.cells.len() < MOST_WAITING || self.cells.contains_key(&key) {
                self.cells.insert(key, cell);
            }
        }
        for share in digest.shares {
            // Sent again until it is in the log; the map makes it one.
            if self.shares.len() < MOST_SHARES {
                self.shares.insert((share.node_id, share.seq), share);
            }
        }
        true
    }

    /// The next entry, and takes it out of what waits; nothing when nothing waits.
    pub fn next(&mut self, agreed: &Health) -> Option<HealthBatch> {
        self.drop_agreed(agreed);
        let mut order: Vec<(u32, (String, u64))> = self
            .cells
            .iter()
            .map(|(key, cell)| {
                let known = agreed.cell(EndpointId(key.1), &key.0).map(|(known, _)| known);
                (movement(cell, known), key.clone())
            })
            .collect();
        // Furthest first; the key decides among equals, so that the same input makes the same entry.
        order.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        let mut chosen: BTreeMap<String, Vec<HealthCell>> = BTreeMap::new();
        let mut room = ENTRY_BYTES - SHARE_BYTES.min(self.share_bytes());
        for (_, key) in order.into_iter().take(ENTRY_CELLS) {
            let Some(cell) = self.cells.get(&key) else { continue };
            let region = if chosen.contains_key(&key.0) { 0 } else { key.0.len() + REGION_BYTES };
            let bytes = cell.encoded_len() + FIELD_BYTES + region;
            if bytes > room {
                break;
            }
            room -= bytes;
            chosen.entry(key.0.clone()).or_default().extend(self.cells.remove(&key));
        }
        room += SHARE_BYTES.min(self.share_bytes());
        let mut shares = Vec::new();
        while let Some(share) = self.shares.first_entry() {
            let bytes = share.get().encoded_len() + REGION_BYTES;
            if bytes > room {
                break;
            }
            room -= bytes;
            shares.push(share.remove());
        }
        if chosen.is_empty() && shares.is_empty() {
            return None;
        }
        let regions = chosen.into_iter().map(|(region, cells)| RegionCells { region, cells });
        Some(HealthBatch { regions: regions.collect(), shares })
    }

    /// An entry did not get into the log: what it held waits again, unless something newer does.
    pub fn failed(&mut self, batch: HealthBatch) {
        for region in batch.regions {
            for cell in region.cells {
                self.cells.entry((region.region.clone(), cell.endpoint)).or_insert(cell);
            }
        }
        for share in batch.shares {
            self.shares.entry((share.node_id, share.seq)).or_insert(share);
        }
    }

    /// Forgets everything: this node no longer leads.
    pub fn clear(&mut self) {
        *self = HealthBatcher::default();
    }

    fn drop_agreed(&mut self, agreed: &Health) {
        self.shares.retain(|(node, seq), _| *seq > agreed.share_applied(*node));
    }

    fn share_bytes(&self) -> usize {
        self.shares.values().map(|share| share.encoded_len() + REGION_BYTES).sum()
    }
}

/// How long to wait after an entry that took so long to commit: health must not be what fills a slow disk.
#[must_use]
pub fn tick_after(commit: Duration) -> Duration {
    (commit * SLOWDOWN).clamp(TICK, LONGEST_TICK)
}

/// At most two entries a second.
pub const TICK: Duration = Duration::from_millis(500);
const LONGEST_TICK: Duration = Duration::from_secs(5);
/// A commit of 250 ms, twice what a healthy quorum across regions takes, begins to stretch the tick.
const SLOWDOWN: u32 = 2;
/// Most cells of an entry.
pub const ENTRY_CELLS: usize = 2_000;
/// Most bytes of an entry, with some room for the command around it.
pub const ENTRY_BYTES: usize = 64 * 1024 - 512;
/// Kept free for the history when there are shares: a quarter.
const SHARE_BYTES: usize = ENTRY_BYTES / 4;
/// Tag and length of a cell.
const FIELD_BYTES: usize = 3;
/// Tags and lengths around a region's cells or a share.
const REGION_BYTES: usize = 12;
/// 20,000 endpoints in 8 regions.
const MOST_WAITING: usize = 160_000;
const MOST_SHARES: usize = 2_000;
const MOST_NODES: usize = 1_000;

#[cfg(test)]
mod tests {
    use tidegate_proto::v1::{UptimeCount, Verdict};

    use super::*;

    fn digest(seq: u64, cells: Vec<HealthCell>) -> RegionDigest {
        RegionDigest { region: "eu".into(), node_id: 1, epoch: 1, seq, cells, shares: Vec::new() }
    }

    fn cell(endpoint: u64, success_permille: u32) -> HealthCell {
        // As large as a cell gets.
        HealthCell {
            endpoint: u64::MAX - endpoint,
            samples: 100_000,
            success_permille,
            rate_limited_permille: 500,
            first_token_p50: 200,
            first_token_p95: 200,
            speed_p50: 200,
            verdict: Verdict::Healthy as i32,
            reporters: 200,
            confidence: 100,
            ours: true,
        }
    }

    #[test]
    fn an_entry_holds_64_kib_and_the_rest_waits() {
        let (mut batcher, mut agreed) = (HealthBatcher::default(), Health::default());
        assert!(batcher.take(digest(1, (0..6_000).map(|at| cell(at, 500)).collect())));
        let counts = (0..500).map(|endpoint| UptimeCount { endpoint: u64::MAX - endpoint, ok: 100_000, failed: 1_000 }).collect();
        let share = UptimeShare { region: "eu".into(), node_id: 1, seq: 2_000_000_000_000, minute: 30_000_000, counts };
        assert!(batcher.take(RegionDigest { shares: vec![share], ..digest(2, Vec::new()) }));
        let mut entries = 0;
        let mut told = 0;
        while let Some(batch) = batcher.next(&agreed) {
            assert!(batch.encoded_len() <= ENTRY_BYTES, "{}", batch.encoded_len());
            let cells: usize = batch.regions.iter().map(|region| region.cells.len()).sum();
            assert!(cells <= ENTRY_CELLS);
            told += cells;
            entries += 1;
            agreed.apply(batch, 1_800_000_000_000 + entries * 500);
        }
        assert_eq!(told, 6_000);
        assert_eq!(agreed.share_applied(1), 2_000_000_000_000);
        assert!(entries <= 6, "{entries}");
    }

    #[test]
    fn changed_verdicts_go_first_then_what_moved_furthest() {
        let (mut batcher, mut agreed) = (HealthBatcher::default(), Health::default());
        batcher.take(digest(1, (0..2_100).map(|at| cell(at, 1_000)).collect()));
        while let Some(batch) = batcher.next(&agreed) {
            agreed.apply(batch, 1_000);
        }
        // All move a little, one far, and one changes its verdict only.
        let mut cells: Vec<HealthCell> = (0..2_100).map(|at| cell(at, 970)).collect();
        cells[2_090].success_permille = 400;
        cells[2_095] = HealthCell { verdict: Verdict::Ejected as i32, ..cell(2_095, 1_000) };
        batcher.take(digest(2, cells));
        let first = batcher.next(&agreed).unwrap();
        let told = |endpoint: u64| first.regions[0].cells.iter().any(|cell| cell.endpoint == u64::MAX - endpoint);
        assert!(told(2_095) && told(2_090));
        assert!(first.regions[0].cells.len() < 2_100);
    }

    #[test]
    fn an_old_digest_does_not_replace_a_newer_one_and_a_failed_entry_waits_again() {
        let (mut batcher, agreed) = (HealthBatcher::default(), Health::default());
        assert!(batcher.take(digest(2, vec![cell(1, 900)])));
        assert!(!batcher.take(digest(1, vec![cell(1, 100)])));
        let batch = batcher.next(&agreed).unwrap();
        assert_eq!(batcher.next(&agreed), None);
        batcher.failed(batch.clone());
        assert_eq!(batcher.next(&agreed), Some(batch.clone()));
        batcher.take(digest(3, vec![cell(1, 300)]));
        batcher.failed(batch);
        assert_eq!(batcher.next(&agreed).unwrap().regions[0].cells[0].success_permille, 300);
    }

    #[test]
    fn a_slow_log_gets_fewer_entries() {
        assert_eq!(tick_after(Duration::from_millis(80)), TICK);
        assert_eq!(tick_after(Duration::from_millis(900)), Duration::from_millis(1_800));
        assert_eq!(tick_after(Duration::from_secs(60)), LONGEST_TICK);
    }
}
