//! The owned, named tasks of a process and the one way to stop them.
//!
//! A task that nobody owns outlives the reason it was started for, and a panic in it goes unnoticed. So every task is started
//! through [`Tasks`] under a name, a panic is logged with that name (never with its payload), and [`Tasks::close`] waits for all of
//! them. One set may span several tokio runtimes: the per-core layout gives each worker thread its own.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinHandle};
use tokio_util::sync::CancellationToken;

/// A request to stop, seen by everyone who holds a clone. It cannot be taken back.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    token: CancellationToken,
}

impl Shutdown {
    /// A new request, not yet made.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks everyone to stop. Later calls change nothing.
    pub fn request(&self) {
        self.token.cancel();
    }

    /// Whether the stop was asked for.
    pub fn is_requested(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Completes when the stop is asked for, at once if it was before.
    pub async fn requested(&self) {
        self.token.cancelled().await;
    }

    /// A request that follows this one, and that can also be made on its own.
    pub fn child(&self) -> Self {
        Self { token: self.token.child_token() }
    }
}

/// The tasks that a process, or a part of it, owns. Clones share the set.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    set: Arc<TaskSet>,
    shutdown: Shutdown,
}

impl Tasks {
    /// An empty set with its own stop request.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty set that stops with `shutdown`.
    pub fn with_shutdown(shutdown: Shutdown) -> Self {
        Self { set: Arc::default(), shutdown }
    }

    /// The stop request that the tasks of this set should heed.
    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// Starts a task on the current runtime. Panics outside of a tokio runtime.
    pub fn spawn<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.spawn_on(&Handle::current(), name, task);
    }

    /// Starts a task on the given runtime.
    pub fn spawn_on<F>(&self, runtime: &Handle, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let membership = TaskSet::join(&self.set, name);
        let id = membership.id;
        let started = runtime.spawn(async move {
            let _membership = membership;
            task.await;
        });
        self.set.started(id, &started);
    }

    /// Starts a task that stays on this thread. Panics outside of a `LocalSet`.
    pub fn spawn_local<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + 'static,
    {
        let membership = TaskSet::join(&self.set, name);
        let id = membership.id;
        let started = tokio::task::spawn_local(async move {
            let _membership = membership;
            task.await;
        });
        self.set.started(id, &started);
    }

    /// How many tasks run.
    pub fn len(&self) -> usize {
        self.set.members.lock().len()
    }

    /// Whether no task runs.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many tasks ended in a panic since the set was made.
    pub fn panics(&self) -> u64 {
        self.set.panics.load(Ordering::Relaxed)
    }

    /// The names of the running tasks with their numbers, in order of the name.
    pub fn running(&self) -> Vec<(&'static str, usize)> {
        self.set.running()
    }

    /// Completes when no task runs; does not ask any to stop.
    pub async fn wait(&self) {
        loop {
            let emptied = self.set.emptied.notified();
            tokio::pin!(emptied);
            // Registered before the look, so that a task that ends in between is not missed.
            emptied.as_mut().enable();
            if self.is_empty() {
                return;
            }
            emptied.await;
        }
    }

    /// Asks all tasks to stop, waits up to `deadline` and aborts what is left then, naming it.
    pub async fn close(&self, deadline: Duration) -> Result<(), Unfinished> {
        self.shutdown.request();
        if tokio::time::timeout(deadline, self.wait()).await.is_ok() {
            return Ok(());
        }
        let left = self.running();
        self.set.abort_all();
        if left.is_empty() {
            return Ok(());
        }
        Err(Unfinished { tasks: left })
    }
}

/// Tasks that had to be aborted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// Name and number of the tasks that were still running.
    pub tasks: Vec<(&'static str, usize)>,
}

impl std::fmt::Display for Unfinished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("tasks did not end in time:")?;
        for (name, count) in &self.tasks {
            write!(f, " {name} ({count})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Unfinished {}

#[derive(Debug, Default)]
struct TaskSet {
    members: Mutex<HashMap<u64, Member>>,
    next_id: AtomicU64,
    panics: AtomicU64,
    emptied: Notify,
}

#[derive(Debug)]
struct Member {
    name: &'static str,
    /// `None` for the moment between joining and the start of the task.
    abort: Option<AbortHandle>,
}

impl TaskSet {
    /// Joins before the task starts: it may end before its starter runs on, and must find itself in the set to leave it.
    fn join(set: &Arc<Self>, name: &'static str) -> Membership {
        let id = set.next_id.fetch_add(1, Ordering::Relaxed);
        set.members.lock().insert(id, Member { name, abort: None });
        Membership { set: Arc::clone(set), id, name }
    }

    fn started(&self, id: u64, task: &JoinHandle<()>) {
        if let Some(member) = self.members.lock().get_mut(&id) {
            member.abort = Some(task.abort_handle());
        }
    }

    fn running(&self) -> Vec<(&'static str, usize)> {
        let mut names: Vec<&'static str> = self.members.lock().values().map(|m| m.name).collect();
        names.sort_unstable();
        names.chunk_by(|a, b| a == b).filter_map(|same| Some((*same.first()?, same.len()))).collect()
    }

    fn abort_all(&self) {
        // Collected first: an abort may drop the task on this thread, and the drop leaves the set.
        let handles: Vec<AbortHandle> = self.members.lock().values().filter_map(|m| m.abort.clone()).collect();
        for handle in handles {
            handle.abort();
        }
    }
}

/// Held by a running task; its drop is the end of the task, however it came.
struct Membership {
    set: Arc<TaskSet>,
    id: u64,
    name: &'static str,
}

impl Drop for Membership {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.set.panics.fetch_add(1, Ordering::Relaxed);
            tracing::error!(task = self.name, "a task panicked");
        }
        let emptied = {
            let mut members = self.set.members.lock();
            members.remove(&self.id);
            members.is_empty()
        };
        if emptied {
            self.set.emptied.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn close_waits_for_tasks_that_heed_the_request() {
        let tasks = Tasks::new();
        for _ in 0..3 {
            let shutdown = tasks.shutdown().clone();
            tasks.spawn("waiter", async move { shutdown.requested().await });
        }
        assert_eq!(tasks.running(), [("waiter", 3)]);
        tasks.close(LONG).await.unwrap();
        assert!(tasks.is_empty());
        assert!(tasks.shutdown().is_requested());
    }

    #[tokio::test]
    async fn close_aborts_and_names_what_does_not_end() {
        let tasks = Tasks::new();
        tasks.spawn("stubborn", std::future::pending());
        let unfinished = tasks.close(Duration::ZERO).await.unwrap_err();
        assert_eq!(unfinished.tasks, [("stubborn", 1)]);
        assert!(unfinished.to_string().contains("stubborn (1)"));
        tasks.wait().await;
    }

    #[tokio::test]
    async fn a_panic_leaves_the_set_and_is_counted() {
        let tasks = Tasks::new();
        tasks.spawn("doomed", async { panic!("on purpose") });
        tasks.wait().await;
        assert_eq!(tasks.panics(), 1);
    }

    #[test]
    fn one_set_spans_several_runtimes() {
        let runtimes: Vec<_> =
            (0..2).map(|_| tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()).collect();
        let tasks = Tasks::new();
        for runtime in &runtimes {
            let shutdown = tasks.shutdown().clone();
            tasks.spawn_on(runtime.handle(), "worker", async move {
                shutdown.requested().await;
            });
        }
        assert_eq!(tasks.len(), 2);
        runtimes[0].block_on(tasks.close(LONG)).unwrap();
    }

    #[test]
    fn a_child_follows_its_parent_but_not_the_other_way() {
        let parent = Shutdown::new();
        let (one, two) = (parent.child(), parent.child());
        one.request();
        assert!(one.is_requested() && !parent.is_requested() && !two.is_requested());
        parent.request();
        assert!(two.is_requested());
    }
}
