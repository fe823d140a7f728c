//! The end of the log in memory: all that is not flushed yet, and as much before it as fits.

use std::collections::VecDeque;
use std::ops::Range;

use crate::message::weight;
use crate::types::{Entry, LogId};

/// The end of the log. Its entries are contiguous, and reach to the last one.
#[derive(Debug)]
pub(super) struct Tail {
    entries: VecDeque<Entry>,
    bytes: usize,
    /// Entries from this index on are not flushed and must not be let go.
    unflushed_from: u64,
    limits: TailLimits,
}

/// How much is kept beyond what must be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TailLimits {
    pub(crate) entries: usize,
    pub(crate) bytes: usize,
}

impl Default for TailLimits {
    /// More than what stays in the log behind a snapshot, so that followers that keep up never make the leader read the disk.
    fn default() -> Self {
        Self { entries: 4_096, bytes: 16 << 20 }
    }
}

impl Tail {
    /// The tail of a log whose entries are all flushed.
    pub(super) fn new(entries: Vec<Entry>, limits: TailLimits) -> Self {
        let unflushed_from = entries.last().map_or(0, |last| last.log_id.index + 1);
        let bytes = entries.iter().map(weight).sum();
        let mut this = Self { entries: entries.into(), bytes, unflushed_from, limits };
        this.trim();
        this
    }

    /// Index of the first entry here.
    pub(super) fn first(&self) -> Option<u64> {
        self.entries.front().map(|entry| entry.log_id.index)
    }

    /// The last entry's id.
    pub(super) fn last(&self) -> Option<LogId> {
        self.entries.back().map(|entry| entry.log_id)
    }

    /// Takes an entry behind the last.
    pub(super) fn push(&mut self, entry: Entry) {
        if self.entries.is_empty() {
            self.unflushed_from = entry.log_id.index;
        }
        self.bytes += weight(&entry);
        self.entries.push_back(entry);
    }

    /// All entries up to this one are flushed. Says nothing about another entry at its index, which may have replaced it meanwhile.
    pub(super) fn flushed(&mut self, log_id: LogId) {
        let Some(first) = self.first() else {
            return;
        };
        let place = log_id.index.checked_sub(first).and_then(|place| usize::try_from(place).ok());
        if place.and_then(|place| self.entries.get(place)).is_some_and(|entry| entry.log_id == log_id) {
            self.unflushed_from = self.unflushed_from.max(log_id.index + 1);
            self.trim();
        }
    }

    /// Removes the entries behind `last`, or all.
    pub(super) fn truncate_after(&mut self, last: Option<u64>) {
        let from = last.map_or(0, |last| last + 1);
        while self.entries.back().is_some_and(|entry| entry.log_id.index >= from) {
            self.bytes -= self.entries.pop_back().as_ref().map_or(0, weight);
        }
        self.unflushed_from = self.unflushed_from.min(from);
    }

    /// Removes the entries up to `index`.
    pub(super) fn purge(&mut self, index: u64) {
        while self.entries.front().is_some_and(|entry| entry.log_id.index <= index) {
            self.bytes -= self.entries.pop_front().as_ref().map_or(0, weight);
        }
    }

    /// Entries of the range, up to about `bytes`; at least one when there is any. The range must start at or behind [`Self::first`].
    pub(super) fn read(&self, range: Range<u64>, bytes: usize) -> Vec<Entry> {
        let Some(first) = self.first() else {
            return Vec::new();
        };
        let skip = usize::try_from(range.start.saturating_sub(first)).unwrap_or(usize::MAX);
        let mut taken = 0;
        let mut out = Vec::new();
        for entry in self.entries.iter().skip(skip) {
            taken += weight(entry);
            if entry.log_id.index >= range.end || (taken > bytes && !out.is_empty()) {
                break;
            }
            out.push(entry.clone());
        }
        out
    }

    /// All entries here, and the index from which they are not flushed.
    #[cfg(test)]
    pub(super) fn peek(&self) -> (impl Iterator<Item = &Entry>, u64) {
        (self.entries.iter(), self.unflushed_from)
    }

    /// Lets go what is beyond the limits and flushed. One entry always stays: it is the last log id.
    fn trim(&mut self) {
        while self.entries.len() > 1
            && (self.entries.len() > self.limits.entries || self.bytes > self.limits.bytes)
            && self.entries.front().is_some_and(|entry| entry.log_id.index < self.unflushed_from)
        {
            self.bytes -= self.entries.pop_front().as_ref().map_or(0, weight);
        }
    }
}
