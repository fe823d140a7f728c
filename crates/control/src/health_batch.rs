//! The leader's side of shared health: the regions' digests become one entry of the log at a time.
//!
//! However many edges there are and whatever they see, the log gets at most two entries in any second, of at most 2,000 cells and 64 KiB
//! each. What changes choices elsewhere goes at once, everything else together once a second, so that the second entry of a second is free
//! for what cannot wait. What does not fit waits: changed verdicts go first, then what moved furthest, then what is only kept alive.

use std::collections::BTreeMap;
use std::time::Duration;

use prost::Message;
use tidegate_proto::v1::{HealthBatch, HealthCell, RegionCells, RegionDigest, UptimeShare};
use tidegate_routing::{EndpointId, Timestamp};

use crate::fleet::{is_urgent, movement};
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
    pace: Pace,
}

/// When entries went into the log.
#[derive(Debug, Default)]
struct Pace {
    /// The last one, and the one before.
    last: [Option<Timestamp>; 2],
    /// Until when the log is left alone, because it was slow with the last one.
    rest: Timestamp,
}

impl Pace {
    /// When the next may go.
    fn next(&self, urgent: bool) -> Timestamp {
        let [last, before] = self.last;
        let after = |entry: Option<Timestamp>, wait: Duration| entry.map_or(Timestamp(0), |entry| entry + wait);
        let full = if urgent { after(before, SECOND) } else { after(last, SECOND) };
        full.max(self.rest)
    }
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

    /// How long the next entry has to wait; nothing when there is nothing to tell.
    pub fn wait(&mut self, agreed: &Health, now: Timestamp) -> Option<Duration> {
        self.drop_agreed(agreed);
        if self.cells.is_empty() && self.shares.is_empty() {
            return None;
        }
        let known = |key: &(String, u64)| agreed.cell(EndpointId(key.1), &key.0).map(|(known, _)| known);
        let urgent = self.cells.len() > ENTRY_CELLS || self.cells.iter().any(|(key, cell)| is_urgent(cell, known(key)));
        Some(self.pace.next(urgent).since(now))
    }

    /// An entry was brought into the log, or not, between two moments.
    pub fn went(&mut self, began: Timestamp, ended: Timestamp) {
        // Health must not be what fills a slow disk.
        let rest = ended + (ended.since(began).saturating_sub(HEALTHY_COMMIT) * SLOWDOWN).min(LONGEST_REST);
        self.pace = Pace { last: [Some(began), self.pace.last[0]], rest };
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

    /// Forgets everything but when it last wrote: this node no longer leads.
    pub fn clear(&mut self) {
        *self = HealthBatcher { pace: std::mem::take(&mut self.pace), ..HealthBatcher::default() };
    }

    fn drop_agreed(&mut self, agreed: &Health) {
        self.shares.retain(|(node, seq), _| *seq > agreed.share_applied(*node));
    }

    fn share_bytes(&self) -> usize {
        self.shares.values().map(|share| share.encoded_len() + REGION_BYTES).sum()
    }
}

/// At most two entries in it.
const SECOND: Duration = Duration::from_secs(1);
/// Longest pause after an entry that the log was slow with.
const LONGEST_REST: Duration = Duration::from_secs(5);
/// The next entry waits for as long as twice the time by which the last took longer
const SLOWDOWN: u32 = 2;
/// than this: twice what a healthy quorum across regions takes.
const HEALTHY_COMMIT: Duration = Duration::from_millis(250);
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

    fn second(millis: u64) -> Timestamp {
        Timestamp(10_000_000 + millis * 1_000)
    }

    #[test]
    fn what_changes_choices_goes_at_once_and_the_rest_once_a_second() {
        let (mut batcher, mut agreed) = (HealthBatcher::default(), Health::default());
        let mut seq = 0;
        let mut say = |batcher: &mut HealthBatcher, cell: HealthCell| {
            seq += 1;
            batcher.take(digest(seq, vec![cell]));
        };
        let write = |batcher: &mut HealthBatcher, agreed: &mut Health, millis| {
            agreed.apply(batcher.next(agreed).unwrap(), millis);
            batcher.went(second(millis), second(millis + 85));
        };
        let millis = Duration::from_millis;
        assert_eq!(batcher.wait(&agreed, second(0)), None);
        say(&mut batcher, cell(1, 1_000));
        assert_eq!(batcher.wait(&agreed, second(0)), Some(millis(0)));
        write(&mut batcher, &mut agreed, 0);
        say(&mut batcher, cell(1, 950));
        assert_eq!(batcher.wait(&agreed, second(300)), Some(millis(700)), "once a second");
        say(&mut batcher, HealthCell { verdict: Verdict::Ejected as i32, ..cell(1, 950) });
        assert_eq!(batcher.wait(&agreed, second(300)), Some(millis(0)), "a verdict does not wait");
        write(&mut batcher, &mut agreed, 300);
        say(&mut batcher, HealthCell { verdict: Verdict::Ejected as i32, ..cell(2, 0) });
        assert_eq!(batcher.wait(&agreed, second(400)), Some(millis(600)), "but there are no three in a second");
        write(&mut batcher, &mut agreed, 1_000);
        say(&mut batcher, cell(1, 1_000));
        assert_eq!(batcher.wait(&agreed, second(1_100)), Some(millis(200)), "back: the one of 300 ms is over by then");
    }

    #[test]
    fn a_slow_log_gets_fewer_entries() {
        let (mut batcher, agreed) = (HealthBatcher::default(), Health::default());
        batcher.take(digest(1, vec![HealthCell { verdict: Verdict::Ejected as i32, ..cell(1, 0) }]));
        for (took, wait) in [(85, 0), (250, 0), (900, 1_300), (60_000, 5_000)] {
            batcher.pace = Pace::default();
            batcher.went(second(0), second(took));
            assert_eq!(batcher.wait(&agreed, second(took)), Some(Duration::from_millis(wait)), "{took} ms");
        }
    }
}
