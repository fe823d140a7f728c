//! What a control node says, taken in.

use std::sync::Arc;
use std::time::Duration;

use tidegate_proto::Kind;
use tidegate_proto::v1::{ControlMessage, ResourceId, Revoke, control_message, edge_message};

use super::super::replica::Taken;
use super::super::trial::{Refusal, Stage};
use super::{Ended, Link, millis_to_micros};

impl Link {
    pub(super) fn take(&mut self, message: ControlMessage) -> Result<(), Ended> {
        let now = self.shared().clock.micros();
        let mut stale_ms = 0;
        let taken = match message.body {
            Some(control_message::Body::Welcome(welcome)) => {
                if !self.cluster_id.is_empty() && self.cluster_id != welcome.cluster_id {
                    return Err(Ended::OtherCluster(welcome.cluster_id));
                }
                self.cluster_id = welcome.cluster_id;
                self.link_shares(welcome.takes_shares);
                self.tell_refused();
                Taken::default()
            }
            Some(control_message::Body::Snapshot(part)) => {
                let taken = self.replica.snapshot(part).map_err(Ended::Diverged)?;
                if taken.current {
                    self.shared().metrics.control_snapshots.inc();
                }
                taken
            }
            Some(control_message::Body::Delta(part)) => self.replica.delta(part).map_err(Ended::Diverged)?,
            Some(control_message::Body::Bookmark(bookmark)) => {
                let taken = self.replica.bookmark(&bookmark).map_err(Ended::Diverged)?;
                stale_ms = bookmark.stale_ms;
                let behind = bookmark.at.as_ref().is_some_and(|at| at.index < self.replica.index());
                self.behind_since = if behind { self.behind_since.or(Some(now)) } else { None };
                taken
            }
            Some(control_message::Body::Revoke(revoke)) => self.revoke(&revoke),
            Some(control_message::Body::GoAway(away)) => {
                let after = Duration::from_millis(u64::from(away.retry_after_ms));
                return Err(Ended::Away { after, reason: away.reason, hints: away.hints });
            }
            // Health has its own time and says nothing of the state.
            Some(control_message::Body::HealthView(view)) => {
                self.health.heard(view, &Arc::clone(self.shared()));
                return Ok(());
            }
            // Shares have their own time as well.
            Some(control_message::Body::Assign(assign)) => {
                let shares = Arc::clone(self.shared().state.load().owners.shares());
                self.shared().share_link.heard(&shares, assign);
                return Ok(());
            }
            // Keys are pushed whole.
            Some(control_message::Body::KeyInfo(_)) | None => {
                return Ok(());
            }
        };
        self.heard_micros = now;
        self.took(taken, stale_ms);
        Ok(())
    }

    pub(super) fn revoke(&mut self, revoke: &Revoke) -> Taken {
        let taken = self.replica.revoke(revoke);
        if revoke.leader_time_ms > 0 {
            let lag_ms = self.shared().clock.unix_millis().saturating_sub(revoke.leader_time_ms);
            // Observed once it is in force, which is with the next statement of the caller; publishing takes microseconds.
            self.shared().metrics.revocation_lag.observe(lag_ms as f64 / 1e3);
        }
        taken
    }

    pub(super) fn took(&mut self, taken: Taken, stale_ms: u64) {
        if taken.keys {
            self.publish_keys();
        }
        if let Some(position) = self.replica.position() {
            self.shared().management.taken(position.index);
        }
        self.shared().cuts.add(taken.cut);
        if taken.current {
            let now = i64::try_from(self.shared().clock.micros()).unwrap_or(i64::MAX).saturating_sub(millis_to_micros(stale_ms));
            self.confirmed_micros = self.confirmed_micros.max(Some(now));
            // An edge that knows callers and nothing to send them to would tell them that their model does not exist.
            if self.routed.ever {
                self.shared().contact.confirmed_at(now);
            }
            if self.replica.mesh().digest() == self.routed.mesh.digest() {
                self.shared().routed.confirmed_at(now);
            }
        }
        for (key, reason) in taken.unusable.into_iter().take(KEY_PROBLEMS) {
            let resource = Some(ResourceId { kind: Kind::Key.as_str().to_owned(), name: key });
            let refusal = Refusal { resource, ..Refusal::new(Stage::Key, reason) };
            self.shared().metrics.refused_revision(refusal.stage.as_str());
            self.say(edge_message::Body::Nack(refusal.to_nack(self.replica.index())));
        }
        self.consider();
        self.acknowledge();
    }

    pub(super) fn publish_keys(&self) {
        let keys = self.replica.keys().clone();
        self.shared().keys.store(Arc::new(keys));
        self.shared().limits_changed.notify_one();
        let index = i64::try_from(self.replica.index()).unwrap_or(i64::MAX);
        self.shared().metrics.state_revision.with_label_values(&["keys"]).set(index);
    }
}

/// Keys of one message that are complained about one by one.
const KEY_PROBLEMS: usize = 10;
