//! The state machine of openraft: feeds committed entries to the application, and keeps its snapshots.
//!
//! The state itself lives in memory. A start reads the newest snapshot and lets openraft apply the log behind it again.

mod files;
mod machine;
mod shelf;

use std::io;
use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use openraft::OptionalSend;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use parking_lot::Mutex;
use tokio::sync::watch;

pub(crate) use self::files::{Directory, Files};
pub(crate) use self::machine::Machine;
pub(crate) use self::shelf::Shelf;

use crate::application::Application;
use crate::member::Uuid;
use crate::snapshot::Snapshot;
use crate::types::{Applied, LogId, SnapshotMeta, StoredMembership, Types};

/// The state machine. Clones are the same one.
pub(crate) struct StateStore<C> {
    shared: Arc<Shared>,
    _types: PhantomData<fn() -> C>,
}

impl<C> Clone for StateStore<C> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), _types: PhantomData }
    }
}

struct Shared {
    machine: Mutex<Machine>,
    shelf: Shelf,
    /// Empty as long as the node belongs to no cluster; then nothing is applied either.
    cluster_id: Mutex<String>,
    applied: watch::Sender<u64>,
    on_applied: OnApplied,
    offload: Offload,
}

/// Called with what each entry gave.
pub(crate) type OnApplied = Box<dyn Fn(&Applied) + Send + Sync>;

/// Where work that blocks is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offload {
    /// On the blocking threads of the runtime.
    Threads,
    /// Here and now: the simulator has one thread.
    #[cfg_attr(not(test), expect(dead_code, reason = "for the simulator"))]
    Inline,
}

/// What a snapshot is while openraft holds it: the whole file.
pub(crate) type SnapshotFile = Bytes;

type OpenraftSnapshot = openraft::Snapshot<crate::types::LeaderId, u64, crate::member::Instance, SnapshotFile>;

impl<C: Types> StateStore<C> {
    /// Brings the application to the newest snapshot.
    pub(crate) fn open(
        application: Box<dyn Application>,
        shelf: Shelf,
        cluster_id: String,
        offload: Offload,
        on_applied: OnApplied,
    ) -> io::Result<Self> {
        let mut machine = Machine::new(application);
        if let Some((_, snapshot)) = shelf.newest()? {
            if !cluster_id.is_empty() && snapshot.cluster_id != cluster_id {
                let text = format!("the snapshot is of cluster `{}`, the log of cluster `{cluster_id}`", snapshot.cluster_id);
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
            machine.restore(snapshot).map_err(io::Error::other)?;
        }
        let applied = watch::Sender::new(machine.last_applied().map_or(0, |last| last.index));
        let shared = Shared { machine: Mutex::new(machine), shelf, cluster_id: Mutex::new(cluster_id), applied, on_applied, offload };
        Ok(Self { shared: Arc::new(shared), _types: PhantomData })
    }

    /// The node has become part of a cluster.
    pub(crate) fn set_cluster_id(&self, cluster_id: &str) {
        cluster_id.clone_into(&mut self.shared.cluster_id.lock());
    }

    /// Puts a foreign state in place, before openraft is started. Durable when it returns.
    pub(crate) fn seed(&self, snapshot: Snapshot) -> io::Result<()> {
        self.shared.shelf.put(snapshot.last_log_id, &snapshot.encode()?)?;
        let mut machine = self.shared.machine.lock();
        machine.restore(snapshot).map_err(io::Error::other)?;
        self.shared.applied.send_replace(machine.last_applied().map_or(0, |last| last.index));
        Ok(())
    }

    /// Index of the last applied entry, as it grows.
    pub(crate) fn applied(&self) -> watch::Receiver<u64> {
        self.shared.applied.subscribe()
    }

    /// The number of an instance, when it was given one.
    pub(crate) fn allocated(&self, uuid: &Uuid) -> Option<u64> {
        self.shared.machine.lock().allocated(uuid)
    }

    /// The agreed state as a snapshot, without putting it on the shelf.
    pub(crate) async fn export(&self) -> io::Result<Snapshot> {
        let frozen = self.freeze();
        self.blocking(move |_| Ok(frozen.into_snapshot())).await
    }

    fn freeze(&self) -> machine::FrozenMachine {
        let cluster_id = self.shared.cluster_id.lock().clone();
        self.shared.machine.lock().freeze(cluster_id)
    }

    /// Runs what blocks where it may.
    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Shared) -> io::Result<T> + Send + 'static) -> io::Result<T> {
        match self.shared.offload {
            Offload::Inline => work(&self.shared),
            Offload::Threads => {
                let shared = Arc::clone(&self.shared);
                tokio::task::spawn_blocking(move || work(&shared)).await.map_err(io::Error::other)?
            }
        }
    }
}

/// Writes one snapshot.
pub(crate) struct Builder<C> {
    store: StateStore<C>,
    frozen: Option<machine::FrozenMachine>,
}

impl<C: Types> RaftSnapshotBuilder<C> for Builder<C> {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> io::Result<OpenraftSnapshot> {
        let frozen = self.frozen.take().unwrap_or_else(|| self.store.freeze());
        let (snapshot, file) = self
            .store
            .blocking(move |shared| {
                let last = frozen.last_log_id();
                let snapshot = frozen.into_snapshot();
                let file = snapshot.encode()?;
                shared.shelf.put(last, &file)?;
                Ok((snapshot, file))
            })
            .await?;
        Ok(OpenraftSnapshot { meta: meta(snapshot.last_log_id, snapshot.membership), snapshot: file })
    }
}

impl<C: Types> RaftStateMachine<C> for StateStore<C> {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = Builder<C>;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let machine = self.shared.machine.lock();
        Ok((machine.last_applied(), machine.membership().clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<C>>> + Unpin + OptionalSend,
    {
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            let index = entry.log_id.index;
            let response = self.shared.machine.lock().apply(entry).map_err(io::Error::other)?;
            // First, so that whoever gets the answer also sees its effect.
            self.shared.applied.send_replace(index);
            (self.shared.on_applied)(&response);
            if let Some(responder) = responder {
                responder.send(response);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder<C> {
        Builder { frozen: Some(self.freeze()), store: self.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, file: SnapshotFile) -> io::Result<()> {
        let meta = meta.clone();
        self.blocking(move |shared| {
            let snapshot = Snapshot::decode(&file)?;
            let own = shared.cluster_id.lock().clone();
            if snapshot.cluster_id != own {
                let text = format!("a snapshot of cluster `{}` on a node of cluster `{own}`", snapshot.cluster_id);
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
            if snapshot.last_log_id != meta.last_log_id || snapshot.membership != meta.last_membership {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a snapshot of another point of the log than announced"));
            }
            shared.shelf.put(snapshot.last_log_id, &file)?;
            let mut machine = shared.machine.lock();
            machine.restore(snapshot).map_err(io::Error::other)?;
            shared.applied.send_replace(machine.last_applied().map_or(0, |last| last.index));
            Ok(())
        })
        .await
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<OpenraftSnapshot>> {
        self.blocking(|shared| {
            let newest = shared.shelf.newest()?;
            Ok(newest.map(|(file, snapshot)| OpenraftSnapshot { meta: meta(snapshot.last_log_id, snapshot.membership), snapshot: file }))
        })
        .await
    }
}

fn meta(last_log_id: Option<LogId>, last_membership: StoredMembership) -> SnapshotMeta {
    SnapshotMeta { last_log_id, last_membership }
}

#[cfg(test)]
pub(crate) mod tests;
