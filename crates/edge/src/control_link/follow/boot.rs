//! The start: what was kept over a restart is there before the first request.

use std::sync::Arc;
use std::time::Duration;

use tidegate_proto::v1::LastGood;

use super::super::guard::BootGuard;
use super::super::replica::Restored;
use super::super::trial::{Candidate, try_out};
use super::keep::{BUILD, Kept};
use super::{Link, millis_to_micros};

impl Link {
    pub(super) fn boot(&mut self) {
        let Some(store) = self.store.clone() else { return };
        match store.trial() {
            Ok(found) => {
                if let Some(trial) = &found {
                    tracing::error!(
                        revision = trial.index,
                        "the process before this one did not survive this revision; going on with the one before"
                    );
                }
                self.guard = BootGuard::new(found);
            }
            // A note that cannot be read was being written: nothing had been tried yet.
            Err(error) => tracing::warn!(%error, "the note of a trial cannot be read"),
        }
        let (found, problems) = store.last_good();
        for problem in problems {
            tracing::error!(error = %problem, "a kept state cannot be used");
        }
        let Some(found) = found else { return };
        let age_ms = self.shared().clock.unix_millis().saturating_sub(found.confirmed_ms);
        if Duration::from_millis(age_ms) > self.config.max_boot_staleness {
            tracing::error!(age_hours = age_ms / 3_600_000, "the kept state is too old to start with; waiting for a control node");
            return;
        }
        self.restore(found, age_ms);
    }

    pub(super) fn restore(&mut self, found: LastGood, age_ms: u64) {
        let LastGood { cluster_id, position, floor, mesh, keys, revoked, build, .. } = found;
        if build == BUILD {
            self.health.seen_to_work();
        }
        self.cluster_id = cluster_id;
        let index = position.as_ref().map_or(floor, |position| position.index);
        self.replica.restore(Restored { position, floor, mesh, keys, newest_revocation: revoked });
        let confirmed = i64::try_from(self.shared().clock.micros()).unwrap_or(i64::MAX).saturating_sub(millis_to_micros(age_ms));
        self.confirmed_micros = Some(confirmed);
        self.shared().routed.confirmed_at(confirmed);
        let shared = Arc::clone(self.shared());
        let candidate = Candidate { cluster_id: &self.cluster_id, index, mesh: self.replica.mesh() };
        match try_out(&candidate, &shared.state.load(), &self.services.compile, &shared.metrics) {
            Ok(state) => {
                self.route_by(Arc::new(state), self.replica.mesh().clone(), index);
                self.routed.good = self.routed.mesh.clone();
                self.kept = Kept { digest: Some(self.replica.digest()), at_micros: shared.clock.micros() };
                tracing::info!(index, age_seconds = age_ms / 1000, keys = self.replica.key_count(), "started with the kept state");
            }
            Err(refusal) => {
                tracing::error!(reason = %refusal.reason, stage = refusal.stage.as_str(), "the kept state does not work any more");
                self.publish_keys();
                self.replica.distrust();
            }
        }
    }
}
