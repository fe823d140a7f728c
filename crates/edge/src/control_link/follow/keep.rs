//! What is good is kept on disk, for the next process.

use std::time::Duration;

use tidegate_proto::v1::{LastGood, Resource, ResourceId};
use tidegate_proto::{Digest, Kind};

use super::super::last_good::StoreError;
use super::{Link, micros};

#[derive(Default)]
pub(super) struct Kept {
    pub(super) digest: Option<Digest>,
    pub(super) at_micros: u64,
}

impl Link {
    /// Keeps what is good, at most every ten seconds, and now and then only to say that it is still current.
    pub(super) fn keep(&mut self, now: u64) {
        let Some(store) = &self.store else { return };
        if self.keeping.is_some() || !self.routed.ever || self.kept.at_micros.saturating_add(micros(KEEP_EVERY)) > now {
            return;
        }
        let digest = self.keepable_digest();
        if self.kept.digest == Some(digest) && self.kept.at_micros.saturating_add(micros(KEEP_AT_LEAST_EVERY)) > now {
            return;
        }
        if self.routed.good.is_empty() {
            return;
        }
        self.kept = Kept { digest: Some(digest), at_micros: now };
        let (store, what) = (store.clone(), self.keepable());
        self.keeping = Some(self.aside.run(move || store.keep(&what())));
    }

    pub(super) fn keepable_digest(&self) -> Digest {
        // Keys and what is good; that the rest was received does not make it worth keeping.
        let received = self.replica.digest();
        let (mut digest, mesh) = (self.routed.good.digest(), self.replica.mesh().digest());
        digest = digest.with(received).with(mesh);
        digest
    }

    /// Makes what is to be kept, which takes a while with many keys.
    pub(super) fn keepable(&self) -> impl FnOnce() -> LastGood + Send + 'static {
        let whole = self.routed.good.digest() == self.replica.mesh().digest();
        let now = self.shared().clock.micros();
        let age = self.shared().contact.age(now).unwrap_or(self.config.max_boot_staleness);
        let confirmed_ms = self.shared().clock.unix_millis().saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        let (cluster_id, position) = (self.cluster_id.clone(), self.replica.position().filter(|_| whole));
        let (floor, revoked) = (self.replica.index(), self.replica.newest_revocation());
        let (good, keys) = (self.routed.good.clone(), self.replica.keys().clone());
        move || LastGood {
            cluster_id,
            position,
            floor,
            confirmed_ms,
            mesh: good.iter().cloned().collect(),
            keys: keys.iter().map(|caller| resource_of(caller)).collect(),
            revoked,
            build: BUILD.to_owned(),
        }
    }

    pub(super) fn finished_keeping(&mut self, kept: Result<Result<(), StoreError>, tokio::task::JoinError>) {
        self.keeping = None;
        let problem = match kept {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        self.kept.digest = None;
        tracing::error!(error = %problem, "the state could not be kept; a restart would begin with an older one");
    }

    /// The end: what has proven itself is kept, so that the next process starts with it.
    pub(crate) async fn keep_now(mut self) {
        if let Some(keeping) = self.keeping.take() {
            let _ = keeping.await;
        }
        let Some(store) = self.store.clone() else { return };
        if let Some(baking) = self.baking.take()
            && self.place.workers.panics() == baking.panics
        {
            // It ends because it was asked to, not because of what it tried.
            self.end_trial();
            self.routed.good = self.routed.mesh.clone();
        }
        if self.compiling.take().is_some() {
            self.end_trial();
        }
        if !self.routed.ever || self.routed.good.is_empty() {
            return;
        }
        let what = self.keepable();
        match self.aside.run(move || store.keep(&what())).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the state could not be kept"),
            Err(error) => tracing::error!(%error, "the state could not be kept"),
        }
    }
}

fn resource_of(caller: &crate::auth::Caller) -> Resource {
    use prost::Message;
    let id = ResourceId { kind: Kind::Key.as_str().to_owned(), name: caller.public_id.to_string() };
    Resource { id: Some(id), body: caller.to_agreed().encode_to_vec().into(), revision: caller.revision }
}

/// What tells one build from another.
pub(super) const BUILD: &str = match option_env!("TIDEGATE_COMMIT") {
    Some(commit) => commit,
    None => env!("CARGO_PKG_VERSION"),
};
/// The file is not written more often.
const KEEP_EVERY: Duration = Duration::from_secs(10);
/// Nor more rarely, so that its age says how long the edge was off.
const KEEP_AT_LEAST_EVERY: Duration = Duration::from_secs(10 * 60);
