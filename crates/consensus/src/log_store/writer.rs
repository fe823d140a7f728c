//! The one writer: takes what is queued, makes it durable in one transaction, and then tells everyone in the order they came.
//!
//! Votes, entries, truncations and purges go through one queue because their order on disk is part of the protocol: a vote that
//! overtakes an append, or the other way round, can lose committed entries.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use openraft::storage::IOFlushed;
use tidegate_proto::v1;
use tokio::sync::{mpsc, oneshot};

use super::Shared;
use super::database::Change;
use crate::types::{Entry, LogId, Types, Vote};

/// Told when the work is durable, or that it is not.
pub(super) type Done = oneshot::Sender<io::Result<()>>;

/// Work for the writer.
pub(super) enum Job<C: Types> {
    Vote(Vote, Done),
    Append(Vec<Entry>, IOFlushed<C>),
    TruncateAfter(Option<u64>, Done),
    Purge(LogId, Done),
    /// Not worth a flush of its own: goes with the next transaction.
    Committed(Option<LogId>),
    Identity(v1::RaftHello, Done),
    /// The last job.
    Close,
}

/// Who waits for a change.
enum Waiting<C: Types> {
    Done(Done),
    /// With the last entry's id.
    Flushed(IOFlushed<C>, Option<LogId>),
}

/// The state of the writer between two batches.
pub(super) struct Writer<C: Types> {
    shared: Arc<Shared>,
    /// A commit index that still waits for a transaction.
    committed: Option<Option<LogId>>,
    failed: bool,
    waiting: Vec<Waiting<C>>,
}

impl<C: Types> Writer<C> {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, committed: None, failed: false, waiting: Vec::new() }
    }

    /// Works until it is told to close, or every sender of the queue is gone. To be run on a thread of its own: it blocks.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Job<C>>) {
        let mut batch = Vec::with_capacity(QUEUE);
        while queue.blocking_recv_many(&mut batch, QUEUE) > 0 {
            let close = batch.iter().position(|job| matches!(job, Job::Close));
            // What was sent behind the end is dropped, and whoever waits for it sees that.
            batch.truncate(close.unwrap_or(batch.len()));
            self.execute(&mut batch);
            if close.is_some() {
                break;
            }
        }
        self.finish();
    }

    /// Makes a batch durable, in one transaction, and tells everyone.
    pub(super) fn execute(&mut self, batch: &mut Vec<Job<C>>) {
        let mut changes = Vec::with_capacity(batch.len());
        for job in batch.drain(..) {
            match job {
                Job::Vote(vote, done) => {
                    changes.push(Change::Vote(vote));
                    self.waiting.push(Waiting::Done(done));
                }
                Job::Append(entries, flushed) => {
                    let last = entries.last().map(|entry| entry.log_id);
                    changes.push(Change::Append(entries));
                    self.waiting.push(Waiting::Flushed(flushed, last));
                }
                Job::TruncateAfter(last, done) => {
                    changes.push(Change::TruncateAfter(last));
                    self.waiting.push(Waiting::Done(done));
                }
                Job::Purge(upto, done) => {
                    changes.push(Change::Purge(upto));
                    self.waiting.push(Waiting::Done(done));
                }
                Job::Committed(committed) => self.committed = Some(committed),
                Job::Close => {}
                Job::Identity(identity, done) => {
                    changes.push(Change::Identity(identity));
                    self.waiting.push(Waiting::Done(done));
                }
            }
        }
        if self.waiting.is_empty() {
            return;
        }
        if let Some(committed) = self.committed.take() {
            changes.push(Change::Committed(committed));
        }
        if crate::known_bugs::on(crate::known_bugs::Bug::AcknowledgeBeforeFlush) {
            self.tell(&Ok(()));
        }
        let outcome = self.commit(&changes);
        self.tell(&outcome);
    }

    /// Writes what waited for a transaction that did not come.
    pub(super) fn finish(&mut self) {
        if let Some(committed) = self.committed.take() {
            // The commit index is a hint for the next start; the entries themselves are durable.
            if let Err(error) = self.commit(&[Change::Committed(committed)]) {
                tracing::warn!(%error, "write the commit index while closing the log");
            }
        }
    }

    fn commit(&mut self, changes: &[Change]) -> io::Result<()> {
        if self.failed {
            return Err(io::Error::other("the log has failed before; the process must be started anew"));
        }
        let started = Instant::now();
        let outcome = self.shared.database.commit(changes);
        match &outcome {
            Ok(()) => (self.shared.on_commit)(started.elapsed()),
            Err(error) => {
                // What the page cache holds after a failed flush is anyone's guess, so there is no second try.
                self.failed = true;
                *self.shared.failure.lock() = Some(error.to_string());
                tracing::error!(%error, "write to the log: this node stops");
            }
        }
        outcome
    }

    fn tell(&mut self, outcome: &io::Result<()>) {
        let copy = || outcome.as_ref().map(|()| ()).map_err(|error| io::Error::new(error.kind(), error.to_string()));
        for waiting in self.waiting.drain(..) {
            match waiting {
                // Whoever asked may have stopped waiting.
                Waiting::Done(done) => drop(done.send(copy())),
                Waiting::Flushed(flushed, last) => {
                    if let (Ok(()), Some(last)) = (outcome, last) {
                        self.shared.state.lock().tail.flushed(last);
                    }
                    flushed.io_completed(copy());
                }
            }
        }
    }
}

/// Enough that the core never waits for the queue while a flush takes its time, small enough to be drained in one transaction.
pub(super) const QUEUE: usize = 1_024;
