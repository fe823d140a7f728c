//! From received to routed by: a configuration is compiled beside the road, serves, and has proven itself after a while without harm.

use std::sync::Arc;

use tidegate_proto::v1::{Nack, Trial, edge_message};
use tidegate_proto::{Digest, ResourceMap};
use tokio::task::JoinHandle;

use super::super::guard::{self, BootGuard};
use super::super::trial::{Candidate, Refusal, Stage, try_out};
use super::{Link, micros};
use crate::state::RoutingState;

/// What requests are routed by.
pub(super) struct Routed {
    pub(super) mesh: ResourceMap,
    pub(super) index: u64,
    /// The last that has proven itself.
    pub(super) good: ResourceMap,
    /// Something is routed by at all.
    pub(super) ever: bool,
}

/// What is not used, so that it is not tried again and again.
pub(super) struct Refused {
    pub(super) digest: Digest,
    pub(super) nack: Nack,
}

pub(super) struct Compiling {
    pub(super) index: u64,
    pub(super) mesh: Arc<ResourceMap>,
    pub(super) trial: Trial,
    pub(super) job: JoinHandle<Result<RoutingState, Refusal>>,
}

/// A configuration that serves but has not proven itself.
pub(super) struct Baking {
    pub(super) until_micros: u64,
    pub(super) trial: Trial,
    /// What to go back to.
    pub(super) before: Arc<RoutingState>,
    pub(super) before_mesh: ResourceMap,
    pub(super) before_index: u64,
    pub(super) panics: u64,
    pub(super) outcomes: (u64, u64),
    pub(super) extensions: u32,
}

impl Link {
    /// Tries what was received, unless that is what is in use, or was refused, or something is being tried already.
    pub(super) fn consider(&mut self) {
        let digest = self.replica.mesh().digest();
        let known = digest == self.routed.mesh.digest() && self.routed.ever;
        if self.replica.position().is_none() || self.compiling.is_some() || known {
            if known {
                self.refused = None;
            }
            return;
        }
        if self.refused.as_ref().is_some_and(|refused| refused.digest == digest) {
            return;
        }
        let index = self.replica.index();
        // With nothing to go back to, refusing would leave an edge that serves nobody because it was once killed at a bad moment.
        if self.routed.ever
            && let Err(reason) = self.guard.admits(self.replica.mesh())
        {
            return self.refuse(index, digest, &Refusal::new(Stage::BootGuard, reason));
        }
        let mesh = Arc::new(self.replica.mesh().clone());
        let trial = guard::trial(index, &self.routed.good, &mesh);
        let (shared, compile) = (Arc::clone(self.shared()), Arc::clone(&self.services.compile));
        let (store, note, tried, cluster_id) = (self.store.clone(), trial.clone(), Arc::clone(&mesh), self.cluster_id.clone());
        let job = self.aside.run(move || {
            // Durable before anything is tried: a crash of the compiler must find it.
            if let Some(store) = &store
                && let Err(error) = store.begin_trial(&note)
            {
                tracing::error!(%error, "a trial cannot be noted; a revision that ends this process would be tried again");
            }
            let previous = shared.state.load_full();
            let candidate = Candidate { cluster_id: &cluster_id, index: note.index, mesh: &tried };
            try_out(&candidate, &previous, &compile, &shared.metrics)
        });
        self.compiling = Some(Compiling { index, mesh, trial, job });
    }

    pub(super) fn compiled(&mut self, outcome: Result<Result<RoutingState, Refusal>, tokio::task::JoinError>) {
        let Some(Compiling { index, mesh, trial, .. }) = self.compiling.take() else { return };
        let outcome = outcome.unwrap_or_else(|error| Err(Refusal::new(Stage::Panic, format!("compiling it failed: {error}"))));
        match outcome {
            Ok(state) => {
                let (before, before_mesh, before_index) = (self.shared().state.load_full(), self.routed.mesh.clone(), self.routed.index);
                if self.routed.ever {
                    self.shared().missed.begin(&before.config, &state.config);
                }
                self.route_by(Arc::new(state), Arc::unwrap_or_clone(mesh), index);
                self.refused = None;
                self.guard.clear();
                self.baking = Some(Baking {
                    until_micros: self.shared().clock.micros().saturating_add(micros(self.config.bake)),
                    trial,
                    before,
                    before_mesh,
                    before_index,
                    panics: self.place.workers.panics(),
                    outcomes: self.shared().metrics.outcomes(),
                    extensions: 0,
                });
                tracing::info!(index, "routing by a newer revision");
            }
            Err(refusal) => {
                if self.baking.is_none() {
                    self.end_trial();
                } else if let (Some(store), Some(baking)) = (&self.store, &self.baking)
                    // The note speaks of what is baking again.
                    && let Err(error) = store.begin_trial(&baking.trial)
                {
                    tracing::error!(%error, "a trial cannot be noted");
                }
                self.refuse(index, mesh.digest(), &refusal);
            }
        }
        // Something newer may have come meanwhile.
        self.consider();
        self.acknowledge();
    }

    pub(super) fn route_by(&mut self, state: Arc<RoutingState>, mesh: ResourceMap, index: u64) {
        let shared = Arc::clone(self.shared());
        let defaults = state.config.defaults.clone();
        shared.state.store(state);
        shared.limits_changed.notify_one();
        let (keys, policies) = self.replica.keys_mut();
        policies.rebase(&defaults.preferences);
        keys.set_anonymous(&defaults);
        self.publish_keys();
        self.routed.mesh = mesh;
        self.routed.index = index;
        self.routed.ever = true;
        if let Some(confirmed) = self.confirmed_micros {
            shared.contact.confirmed_at(confirmed);
        }
        if self.stream.is_some() {
            shared.routed.confirmed_at(i64::try_from(shared.clock.micros()).unwrap_or(i64::MAX));
        }
        shared.metrics.state_revision.with_label_values(&["snapshot"]).set(i64::try_from(index).unwrap_or(i64::MAX));
        self.place.ready.met();
    }

    pub(super) fn refuse(&mut self, index: u64, digest: Digest, refusal: &Refusal) {
        let nack = refusal.to_nack(index);
        tracing::error!(
            revision = index,
            stage = refusal.stage.as_str(),
            resource = ?refusal.resource.as_ref().map(|id| format!("{} `{}`", id.kind, id.name)),
            reason = %refusal.reason,
            more = refusal.more,
            "a revision is refused; the one before goes on"
        );
        self.shared().metrics.refused_revision(refusal.stage.as_str());
        self.refused = Some(Refused { digest, nack });
        self.tell_refused();
    }

    pub(super) fn tell_refused(&self) {
        if let Some(refused) = &self.refused {
            self.say(edge_message::Body::Nack(refused.nack.clone()));
        }
    }

    /// Looks whether what is baking is good.
    pub(super) fn judge(&mut self, now: u64) {
        let Some(baking) = &mut self.baking else { return };
        if self.place.workers.panics() > baking.panics {
            return self.go_back();
        }
        if now < baking.until_micros {
            return;
        }
        let outcomes = self.place.shared.metrics.outcomes();
        if baking.extensions < EXTENSIONS && is_worse(baking.outcomes, outcomes) {
            baking.extensions += 1;
            baking.until_micros = now.saturating_add(micros(self.config.bake));
            return;
        }
        self.baking = None;
        self.place.shared.missed.end();
        self.routed.good = self.routed.mesh.clone();
        self.end_trial();
    }

    /// Requests panicked that did not before.
    pub(super) fn go_back(&mut self) {
        let Some(Baking { trial, before, before_mesh, before_index, .. }) = self.baking.take() else { return };
        let (index, digest) = (self.routed.index, self.routed.mesh.digest());
        self.place.shared.missed.end();
        self.route_by(before, before_mesh, before_index);
        self.end_trial();
        self.guard = BootGuard::new(Some(trial));
        self.refuse(index, digest, &Refusal::new(Stage::Panic, "requests panicked that did not before; went back to the revision before"));
        self.acknowledge();
    }

    pub(super) fn end_trial(&self) {
        if let Some(store) = &self.store
            && let Err(error) = store.end_trial()
        {
            tracing::error!(%error, "the note of a trial cannot be removed");
        }
    }
}

/// More than two points more failures than before, with enough requests on both sides to tell.
fn is_worse(before: (u64, u64), now: (u64, u64)) -> bool {
    let (all, failed) = (now.0.saturating_sub(before.0), now.1.saturating_sub(before.1));
    if all < ENOUGH_REQUESTS || before.0 < ENOUGH_REQUESTS {
        return false;
    }
    let ratio = |failed: u64, all: u64| failed as f64 / all as f64;
    ratio(failed, all) > ratio(before.1, before.0) + WORSE_BY
}

/// A provider that fails while a revision bakes must not keep it from being kept for ever.
const EXTENSIONS: u32 = 10;
/// Requests without which a ratio says nothing.
const ENOUGH_REQUESTS: u64 = 100;
/// Two points.
const WORSE_BY: f64 = 0.02;

#[cfg(test)]
mod tests {
    use super::is_worse;

    #[test]
    fn two_points_more_failures_are_worse_when_there_are_enough_requests() {
        assert!(!is_worse((1_000, 10), (2_000, 40)), "1 % before, 3 % now");
        assert!(is_worse((1_000, 10), (2_000, 50)), "1 % before, 4 % now");
        assert!(!is_worse((1_000, 10), (1_050, 60)), "too few to tell");
        assert!(!is_worse((10, 0), (1_000, 500)), "too few before");
    }
}
