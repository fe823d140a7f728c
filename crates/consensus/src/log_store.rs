//! The log of this node: votes and entries, durable before anyone is told that they are.
//!
//! A [`LogStore`] is a handle: it changes what is in memory at once, so that entries can be read as soon as they are appended, and queues
//! the same change for the one writer. Any error of the disk is final; see [`writer`].

mod database;
mod record;
mod tail;
mod writer;

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use parking_lot::Mutex;
use redb::StorageBackend;
use tidegate_proto::v1;
use tokio::sync::{mpsc, oneshot};

pub(crate) use self::tail::TailLimits;

use self::database::{Found, LogDatabase};
use self::tail::Tail;
use self::writer::{Done, Job, QUEUE, Writer};
use crate::types::{Entry, LogId, Types, Vote};

/// The log. Clones are the same log.
pub(crate) struct LogStore<C: Types> {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Job<C>>,
}

impl<C: Types> Clone for LogStore<C> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), queue: self.queue.clone() }
    }
}

/// Reads the log.
pub(crate) struct LogReader {
    shared: Arc<Shared>,
}

/// See [`LogStore::peek`].
#[cfg(test)]
#[derive(Debug, Clone)]
pub(crate) struct Peek {
    pub(crate) vote: Option<Vote>,
    pub(crate) purged: Option<LogId>,
    pub(crate) entries: Vec<LogId>,
    /// The last entry that is on disk.
    pub(crate) flushed: Option<LogId>,
}

/// Called after each transaction with the time it took.
pub(crate) type OnCommit = Box<dyn Fn(Duration) + Send + Sync>;

/// What the handles, the readers and the writer share.
struct Shared {
    database: LogDatabase,
    state: Mutex<State>,
    failure: Mutex<Option<String>>,
    on_commit: OnCommit,
}

/// The log as it is once the queue is worked off.
struct State {
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    tail: Tail,
    identity: Option<v1::RaftHello>,
}

impl State {
    fn last(&self) -> Option<LogId> {
        self.tail.last().or(self.purged)
    }
}

impl<C: Types> LogStore<C> {
    /// Opens the log and starts its writer. The writer ends when the last handle is dropped; joining it afterwards closes the file.
    pub(crate) fn open(backend: impl StorageBackend, limits: TailLimits, on_commit: OnCommit) -> io::Result<(Self, JoinHandle<()>)> {
        let (this, writer, queue) = Self::open_without_writer(backend, limits, on_commit)?;
        let thread = std::thread::Builder::new().name("raft-log".to_owned()).spawn(move || writer.run(queue))?;
        Ok((this, thread))
    }

    /// Makes an empty log and closes it.
    pub(crate) fn create(backend: impl StorageBackend) -> io::Result<()> {
        LogDatabase::open(backend, 0, 0).map(drop)
    }

    /// Opens the log and leaves it to the caller to run the writer.
    fn open_without_writer(
        backend: impl StorageBackend,
        limits: TailLimits,
        on_commit: OnCommit,
    ) -> io::Result<(Self, Writer<C>, mpsc::Receiver<Job<C>>)> {
        let (database, found) = LogDatabase::open(backend, limits.entries, limits.bytes)?;
        let Found { vote, committed, purged, tail, identity } = found;
        let state = State { vote, committed, purged, tail: Tail::new(tail, limits), identity };
        let shared = Arc::new(Shared { database, state: Mutex::new(state), failure: Mutex::new(None), on_commit });
        // One batch of the writer; openraft's own queues hold the rest back.
        let (sender, queue) = mpsc::channel(QUEUE);
        Ok((Self { shared: Arc::clone(&shared), queue: sender }, Writer::new(shared), queue))
    }

    /// Opens the log with a writer that is a task of the simulator. A flush takes as long as `delay` says.
    #[cfg(test)]
    pub(crate) fn open_simulated(backend: impl StorageBackend, mut delay: impl FnMut() -> Duration + Send + 'static) -> io::Result<Self> {
        use openraft::type_config::TypeConfigExt as _;
        let everything = TailLimits { entries: usize::MAX, bytes: usize::MAX };
        let (this, mut writer, mut queue) = Self::open_without_writer(backend, everything, Box::new(|_| {}))?;
        drop(C::spawn(async move {
            let mut batch = Vec::new();
            while queue.recv_many(&mut batch, QUEUE).await > 0 {
                C::sleep(delay()).await;
                writer.execute(&mut batch);
            }
        }));
        Ok(this)
    }

    /// What is in memory of a log that keeps everything there, for the invariants.
    #[cfg(test)]
    pub(crate) fn peek(&self) -> Peek {
        let state = self.shared.state.lock();
        let (entries, unflushed_from) = state.tail.peek();
        let entries: Vec<LogId> = entries.map(|entry| entry.log_id).collect();
        let flushed = entries.iter().rev().find(|id| id.index < unflushed_from).copied().or(state.purged);
        Peek { vote: state.vote, purged: state.purged, entries, flushed }
    }

    /// Who this node is, when it is anyone yet.
    pub(crate) fn identity(&self) -> Option<v1::RaftHello> {
        self.shared.state.lock().identity.clone()
    }

    /// Writes down who this node is.
    pub(crate) async fn save_identity(&self, identity: v1::RaftHello) -> io::Result<()> {
        self.shared.state.lock().identity = Some(identity.clone());
        self.durably(|done| Job::Identity(identity, done)).await
    }

    /// Why the log has failed, when it has.
    pub(crate) fn failure(&self) -> Option<String> {
        self.shared.failure.lock().clone()
    }

    /// Ends the writer once it has done what is queued. Whatever comes later is refused.
    pub(crate) async fn close(&self) {
        // A writer that has ended already is what is wanted.
        let _ = self.enqueue(Job::Close).await;
    }

    /// Queues the work and waits until it is durable.
    async fn durably(&self, job: impl FnOnce(Done) -> Job<C>) -> io::Result<()> {
        let (done, outcome) = oneshot::channel();
        self.enqueue(job(done)).await?;
        outcome.await.map_err(|_| gone())?
    }

    async fn enqueue(&self, job: Job<C>) -> io::Result<()> {
        self.queue.send(job).await.map_err(|_| gone())
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the writer of the log has ended")
}

impl LogReader {
    fn entries(&self, range: Range<u64>, bytes: usize) -> io::Result<Vec<Entry>> {
        let (before, range) = {
            let state = self.shared.state.lock();
            let Some(last) = state.tail.last() else {
                return Ok(Vec::new());
            };
            let range = range.start.max(state.purged.map_or(0, |purged| purged.index + 1))..range.end.min(last.index + 1);
            if range.is_empty() {
                return Ok(Vec::new());
            }
            let first = state.tail.first().unwrap_or(range.end);
            if range.start >= first {
                return Ok(state.tail.read(range, bytes));
            }
            (range.start..range.end.min(first), range)
        };
        // Only a follower that is far behind makes us read the file, a batch at a time and mostly from the page cache.
        let mut entries = self.shared.database.read(before.clone(), bytes)?;
        let all_before = entries.last().is_none_or(|last| last.log_id.index + 1 == before.end);
        if all_before && before.end < range.end {
            let taken: usize = entries.iter().map(crate::message::weight).sum();
            if taken < bytes {
                let state = self.shared.state.lock();
                // What was at the front of the tail may have been let go meanwhile; then these entries come with the next call.
                if state.tail.first().is_some_and(|first| first <= before.end) {
                    entries.extend(state.tail.read(before.end..range.end, bytes - taken));
                }
            }
        }
        Ok(entries)
    }
}

/// The range of indices that bounds stand for.
fn indices(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(index) => *index,
        Bound::Excluded(index) => index.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(index) => index.saturating_add(1),
        Bound::Excluded(index) => *index,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

impl<C: Types> RaftLogReader<C> for LogReader {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(&mut self, range: RB) -> io::Result<Vec<Entry>> {
        let mut range = indices(&range);
        let mut entries = self.entries(range.clone(), usize::MAX)?;
        // A reader and the writer may pass each other at the front of the tail; what was missed is on disk by then.
        loop {
            let Some(last) = entries.last() else {
                return Ok(entries);
            };
            range.start = last.log_id.index + 1;
            let more = self.entries(range.clone(), usize::MAX)?;
            if more.is_empty() {
                return Ok(entries);
            }
            entries.extend(more);
        }
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.shared.state.lock().vote)
    }

    /// As many entries as fit in one message; never none of a range that has some.
    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        // What was purged meanwhile must not look like a log with a hole. Openraft takes nothing for a heartbeat.
        if self.shared.state.lock().purged.is_some_and(|purged| purged.index >= start) {
            return Ok(Vec::new());
        }
        self.entries(start..end, MESSAGE_BYTES)
    }
}

impl<C: Types> RaftLogStorage<C> for LogStore<C> {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> io::Result<LogState<C>> {
        let state = self.shared.state.lock();
        Ok(LogState { last_purged_log_id: state.purged, last_log_id: state.last() })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        LogReader { shared: Arc::clone(&self.shared) }
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let vote = *vote;
        self.durably(|done| Job::Vote(vote, done)).await?;
        // Readers see a vote only once it is durable: they may act on it.
        self.shared.state.lock().vote = Some(vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.shared.state.lock().committed = committed;
        self.enqueue(Job::Committed(committed)).await
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.shared.state.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<C>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        {
            let mut state = self.shared.state.lock();
            let mut last = state.last().map(|last| last.index);
            for entry in &entries {
                let index = entry.log_id.index;
                if last.is_some_and(|last| last + 1 != index) {
                    let due = last.map_or(0, |last| last + 1);
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("append entry {index} where {due} is due")));
                }
                last = Some(index);
                state.tail.push(entry.clone());
            }
        }
        self.enqueue(Job::Append(entries, callback)).await
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        let last = last_log_id.map(|last| last.index);
        {
            let mut state = self.shared.state.lock();
            state.tail.truncate_after(last);
            if state.tail.last().is_none() && last > state.purged.map(|purged| purged.index) {
                // All of the tail is gone, and the log goes on before it: the last entry that stays becomes the tail. It is flushed, or it
                // would have been part of the tail.
                let last = last.unwrap_or(0);
                let kept = self.shared.database.read(last..last + 1, usize::MAX)?;
                for entry in kept {
                    let log_id = entry.log_id;
                    state.tail.push(entry);
                    state.tail.flushed(log_id);
                }
            }
        }
        self.durably(|done| Job::TruncateAfter(last, done)).await
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        {
            let mut state = self.shared.state.lock();
            if state.purged >= Some(log_id) {
                return Ok(());
            }
            state.purged = Some(log_id);
            state.tail.purge(log_id.index);
        }
        self.durably(|done| Job::Purge(log_id, done)).await
    }
}

/// A quarter of the largest message a peer takes.
const MESSAGE_BYTES: usize = 1 << 20;

#[cfg(test)]
pub(crate) mod tests;
