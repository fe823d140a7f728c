//! The task that follows: connects, takes in, applies, keeps.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tidegate_proto::v1::{Ack, ControlMessage, Hello, LastGood, Nack, Resource, ResourceId, Revoke, Trial, control_message, edge_message};
use tidegate_proto::{Digest, Kind, ResourceMap};
use tidegate_routing::Timestamp;
use tidegate_runtime::Shutdown;
use tidegate_runtime::mesh::BoxFuture;
use tidegate_runtime::ops::Condition;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tonic::Status;

use super::ControlServices;
use super::guard::{self, BootGuard};
use super::last_good::{Store, StoreError};
use super::places::Places;
use super::replica::{Divergence, Replica, Restored, Taken};
use super::stream::{self, OpenError, Stream};
use super::trial::{Candidate, Refusal, Stage, try_out};
use crate::config::ControlLinkConfig;
use crate::region::HealthLink;
use crate::shared::Shared;
use crate::state::RoutingState;
use crate::worker::Workers;

/// What the link is attached to.
pub(crate) struct Place {
    pub(crate) shared: Arc<Shared>,
    pub(crate) workers: Arc<Workers>,
    /// Holds while the edge has something to route by.
    pub(crate) ready: Condition,
    /// Holds while the edge does not take itself for sick.
    pub(crate) sound: Condition,
}

/// The link.
pub(crate) struct Link {
    place: Place,
    config: ControlLinkConfig,
    services: ControlServices,
    store: Option<Store>,
    places: Places,
    instance: u64,
    /// Empty until a control node has said it.
    cluster_id: String,
    replica: Replica,
    guard: BootGuard,
    routed: Routed,
    refused: Option<Refused>,
    compiling: Option<Compiling>,
    baking: Option<Baking>,
    keeping: Option<JoinHandle<Result<(), StoreError>>>,
    kept: Kept,
    stream: Option<Stream>,
    opening: Option<BoxFuture<'static, Result<Stream, OpenError>>>,
    retry_at: Instant,
    connected: Instant,
    /// Microseconds of the last message that says something of the state.
    heard_micros: u64,
    /// Since when the node is behind this edge, microseconds.
    behind_since: Option<u64>,
    acknowledged: Ack,
    stale_logged: bool,
    health: HealthLink,
    report_at: Instant,
}

/// What requests are routed by.
struct Routed {
    mesh: ResourceMap,
    index: u64,
    /// The last that has proven itself.
    good: ResourceMap,
    /// Something is routed by at all.
    ever: bool,
}

/// What is not used, so that it is not tried again and again.
struct Refused {
    digest: Digest,
    nack: Nack,
}

struct Compiling {
    index: u64,
    mesh: Arc<ResourceMap>,
    trial: Trial,
    job: JoinHandle<Result<RoutingState, Refusal>>,
}

/// A configuration that serves but has not proven itself.
struct Baking {
    until_micros: u64,
    trial: Trial,
    /// What to go back to.
    before: Arc<RoutingState>,
    before_mesh: ResourceMap,
    before_index: u64,
    panics: u64,
    outcomes: (u64, u64),
    extensions: u32,
}

#[derive(Default)]
struct Kept {
    digest: Option<Digest>,
    at_micros: u64,
}

/// How a stream ended.
enum Ended {
    Lost(String),
    Away { after: Duration, reason: String, hints: Vec<String> },
    Diverged(Divergence),
    OtherCluster(String),
}

impl Link {
    /// Starts from what was kept, if anything was. Reads files; to be called before requests are served.
    pub(crate) fn start(place: Place, config: ControlLinkConfig, services: ControlServices) -> Self {
        let store = config.state_dir.as_deref().and_then(|directory| match Store::open(directory) {
            Ok(store) => Some(store),
            Err(error) => {
                tracing::error!(%error, "nothing can be kept over a restart; check owner and mode of the state directory");
                None
            }
        });
        for stage in Stage::ALL {
            place.shared.metrics.knows_stage(stage.as_str());
        }
        let clock = place.shared.clock;
        let pepper = place.shared.state.load().config.keys_pepper.clone();
        let mut link = Self {
            places: Places::new(config.endpoints.clone(), &place.shared.region, fastrand::u64(..)),
            instance: fastrand::u64(..),
            cluster_id: String::new(),
            replica: Replica::new(pepper.as_ref(), Arc::clone(&services.read_policy)),
            guard: BootGuard::default(),
            routed: Routed { mesh: ResourceMap::default(), index: 0, good: ResourceMap::default(), ever: false },
            refused: None,
            compiling: None,
            baking: None,
            keeping: None,
            kept: Kept::default(),
            stream: None,
            opening: None,
            retry_at: Instant::now(),
            connected: Instant::now(),
            heard_micros: clock.micros(),
            behind_since: None,
            acknowledged: Ack::default(),
            stale_logged: false,
            health: HealthLink::new(clock.unix_millis(), place.sound.clone(), Timestamp(clock.micros())),
            report_at: Instant::now(),
            place,
            config,
            services,
            store,
        };
        link.place.ready.unmet("no configuration yet: no control node was reached, and none was kept from before");
        link.boot();
        link
    }

    fn boot(&mut self) {
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

    fn restore(&mut self, found: LastGood, age_ms: u64) {
        let LastGood { cluster_id, position, floor, mesh, keys, revoked, build, .. } = found;
        if build == BUILD {
            self.health.seen_to_work();
        }
        self.cluster_id = cluster_id;
        let index = position.as_ref().map_or(floor, |position| position.index);
        self.replica.restore(Restored { position, floor, mesh, keys, newest_revocation: revoked });
        let confirmed = i64::try_from(self.shared().clock.micros()).unwrap_or(i64::MAX).saturating_sub(millis_to_micros(age_ms));
        self.shared().contact.confirmed_at(confirmed);
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

    fn shared(&self) -> &Arc<Shared> {
        &self.place.shared
    }

    /// Follows until shutdown is requested.
    pub(crate) async fn run(mut self, shutdown: Shutdown) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let shared = Arc::clone(self.shared());
        loop {
            // Losing a branch is safe: connecting, compiling and keeping go on in their own futures, tonic's reader keeps what it has,
            // news that nobody took is told again, and the rest are clocks.
            tokio::select! {
                biased;
                () = shutdown.requested() => break,
                opened = or_never(&mut self.opening) => self.opened(opened),
                message = next_of(&mut self.stream) => self.heard(message),
                compiled = or_never_job(&mut self.compiling) => self.compiled(compiled),
                kept = or_never(&mut self.keeping) => self.finished_keeping(kept),
                () = sleep_until(self.retry_at), if self.stream.is_none() && self.opening.is_none() => self.connect(),
                () = self.place.shared.health_news.notified() => self.hurry(),
                () = sleep_until(self.report_at) => self.report_health(),
                // What does not fit is reported again.
                reports = shared.share_link.outgoing(), if self.stream.is_some() => {
                    self.say(edge_message::Body::ShareReports(reports));
                }
                _ = ticks.tick() => self.tick(),
            }
        }
        self.keep_now().await;
    }

    fn connect(&mut self) {
        let Some(endpoint) = self.places.next() else { return };
        let hello = Hello {
            cluster_id: self.cluster_id.clone(),
            edge_id: self.config.edge.clone(),
            region: self.shared().region.to_string(),
            build: env!("CARGO_PKG_VERSION").to_owned(),
            schema_max: SCHEMA,
            resume: self.replica.position(),
            applied: self.applied(),
            instance: self.instance,
        };
        self.opening = Some(Box::pin(stream::open(Arc::clone(&self.services.dial), endpoint, hello)));
    }

    fn opened(&mut self, opened: Result<Stream, OpenError>) {
        self.opening = None;
        match opened {
            Ok(stream) => {
                tracing::info!(address = %stream.endpoint.address, index = self.replica.index(), "following a control node");
                self.shared().metrics.control_connected.set(1);
                self.heard_micros = self.shared().clock.micros();
                self.connected = Instant::now();
                self.behind_since = None;
                self.acknowledged = Ack::default();
                self.shared().management.connected(stream.channel.clone());
                self.stream = Some(stream);
                for report in self.health.resend(&Arc::clone(self.shared())) {
                    self.say(edge_message::Body::HealthReport(report));
                }
            }
            Err(error) => {
                let wait = self.places.failed();
                self.retry_at = Instant::now() + wait;
                match &error {
                    OpenError::Unreachable { .. } => {
                        self.shared().metrics.control_stream("unreachable");
                        tracing::debug!(%error, wait_ms = wait.as_millis() as u64, "trying another control node");
                    }
                    OpenError::Refused { .. } => {
                        self.shared().metrics.control_stream("refused");
                        tracing::warn!(%error, "trying another control node");
                    }
                }
            }
        }
    }

    fn heard(&mut self, message: Result<Option<ControlMessage>, Status>) {
        let taken = match message {
            Ok(Some(message)) => self.take(message),
            Ok(None) => Err(Ended::Lost("the control node closed the stream".to_owned())),
            Err(status) => Err(Ended::Lost(format!("{:?}: {}", status.code(), status.message()))),
        };
        if let Err(ended) = taken {
            self.end(ended);
        }
    }

    fn take(&mut self, message: ControlMessage) -> Result<(), Ended> {
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

    fn revoke(&mut self, revoke: &Revoke) -> Taken {
        let taken = self.replica.revoke(revoke);
        if revoke.leader_time_ms > 0 {
            let lag_ms = self.shared().clock.unix_millis().saturating_sub(revoke.leader_time_ms);
            // Observed once it is in force, which is with the next statement of the caller; publishing takes microseconds.
            self.shared().metrics.revocation_lag.observe(lag_ms as f64 / 1e3);
        }
        taken
    }

    fn took(&mut self, taken: Taken, stale_ms: u64) {
        if taken.keys {
            self.publish_keys();
        }
        if let Some(position) = self.replica.position() {
            self.shared().management.taken(position.index);
        }
        self.shared().cuts.add(taken.cut);
        if taken.current {
            let now = i64::try_from(self.shared().clock.micros()).unwrap_or(i64::MAX).saturating_sub(millis_to_micros(stale_ms));
            self.shared().contact.confirmed_at(now);
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

    fn publish_keys(&self) {
        let keys = self.replica.keys().clone();
        self.shared().keys.store(Arc::new(keys));
        self.shared().limits_changed.notify_one();
        let index = i64::try_from(self.replica.index()).unwrap_or(i64::MAX);
        self.shared().metrics.state_revision.with_label_values(&["keys"]).set(index);
    }

    /// Tries what was received, unless that is what is in use, or was refused, or something is being tried already.
    fn consider(&mut self) {
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
        if let Err(reason) = self.guard.admits(self.replica.mesh()) {
            return self.refuse(index, digest, &Refusal::new(Stage::BootGuard, reason));
        }
        let mesh = Arc::new(self.replica.mesh().clone());
        let trial = guard::trial(index, &self.routed.good, &mesh);
        let (shared, compile) = (Arc::clone(self.shared()), Arc::clone(&self.services.compile));
        let (store, note, tried, cluster_id) = (self.store.clone(), trial.clone(), Arc::clone(&mesh), self.cluster_id.clone());
        let job = tokio::task::spawn_blocking(move || {
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

    fn compiled(&mut self, outcome: Result<Result<RoutingState, Refusal>, tokio::task::JoinError>) {
        let Some(Compiling { index, mesh, trial, .. }) = self.compiling.take() else { return };
        let outcome = outcome.unwrap_or_else(|error| Err(Refusal::new(Stage::Panic, format!("compiling it failed: {error}"))));
        match outcome {
            Ok(state) => {
                let (before, before_mesh, before_index) = (self.shared().state.load_full(), self.routed.mesh.clone(), self.routed.index);
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

    fn route_by(&mut self, state: Arc<RoutingState>, mesh: ResourceMap, index: u64) {
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
        if self.stream.is_some() {
            shared.routed.confirmed_at(i64::try_from(shared.clock.micros()).unwrap_or(i64::MAX));
        }
        shared.metrics.state_revision.with_label_values(&["snapshot"]).set(i64::try_from(index).unwrap_or(i64::MAX));
        self.place.ready.met();
    }

    fn refuse(&mut self, index: u64, digest: Digest, refusal: &Refusal) {
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

    fn tell_refused(&self) {
        if let Some(refused) = &self.refused {
            self.say(edge_message::Body::Nack(refused.nack.clone()));
        }
    }

    /// Newest index that is routed by: that of everything received when nothing else than keys has changed since.
    fn applied(&self) -> u64 {
        let same = self.routed.ever && self.replica.mesh().digest() == self.routed.mesh.digest();
        if same { self.replica.index() } else { self.routed.index }
    }

    fn acknowledge(&mut self) {
        let received = self.replica.position().map_or(0, |position| position.index);
        let ack = Ack { received, applied: self.applied(), revoked: self.replica.newest_revocation() };
        if ack != self.acknowledged && self.say(edge_message::Body::Ack(ack)) {
            self.acknowledged = ack;
        }
    }

    fn say(&self, body: edge_message::Body) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.say(body))
    }

    fn end(&mut self, ended: Ended) {
        let Some(stream) = self.stream.take() else { return };
        let address = &stream.endpoint.address;
        self.replica.disconnected();
        self.link_shares(false);
        self.shared().management.disconnected();
        self.shared().metrics.control_connected.set(0);
        let (label, wait) = match ended {
            Ended::Lost(reason) => {
                tracing::warn!(%address, %reason, "lost the control node; everything goes on as it was");
                ("lost", self.places.failed())
            }
            Ended::Away { after, reason, hints } => {
                tracing::info!(%address, %reason, "the control node sends this edge elsewhere");
                self.places.served();
                self.places.hinted(&hints);
                ("sent_away", after)
            }
            Ended::Diverged(divergence) => {
                tracing::error!(%address, %divergence, "this edge and the control node do not hold the same; asking for everything anew");
                ("diverged", self.places.failed())
            }
            Ended::OtherCluster(other) => {
                tracing::error!(%address, ours = %self.cluster_id, theirs = %other, "that control node belongs to another cluster");
                ("other_cluster", self.places.failed())
            }
        };
        self.shared().metrics.control_stream(label);
        self.retry_at = Instant::now() + wait;
    }

    /// The next report is due sooner than it was.
    fn hurry(&mut self) {
        if let Some(wait) = self.health.due(&Arc::clone(self.shared())) {
            self.report_at = self.report_at.min(Instant::now() + wait);
        }
    }

    fn link_shares(&self, takes: bool) {
        let shares = Arc::clone(self.shared().state.load().owners.shares());
        self.shared().share_link.link(&shares, takes);
    }

    fn report_health(&mut self) {
        self.report_at = Instant::now() + self.health.interval();
        let has_room = self.stream.as_ref().is_some_and(Stream::has_room);
        if let Some(report) = self.health.report(&Arc::clone(self.shared()), has_room) {
            self.say(edge_message::Body::HealthReport(report));
        }
    }

    fn tick(&mut self) {
        let now = self.shared().clock.micros();
        if self.stream.is_some() {
            if now.saturating_sub(self.heard_micros) > micros(SILENCE) {
                self.end(Ended::Lost(format!("nothing for {} s", SILENCE.as_secs())));
            } else if self.behind_since.is_some_and(|since| now.saturating_sub(since) > micros(BEHIND)) {
                self.end(Ended::Lost("the control node is behind this edge and does not catch up".to_owned()));
            } else if self.connected.elapsed() > SILENCE {
                self.places.served();
            }
        }
        self.watch_staleness(now);
        self.judge(now);
        self.keep(now);
        self.acknowledge();
    }

    fn watch_staleness(&mut self, now: u64) {
        let stale = self.shared().contact.age(now).is_none_or(|age| age > STALE_ALARM);
        if stale && !self.stale_logged && self.routed.ever {
            tracing::error!(
                minutes = STALE_ALARM.as_secs() / 60,
                "no control node for a while; known keys are served, nothing new is learnt"
            );
        }
        self.stale_logged = stale;
    }

    /// Looks whether what is baking is good.
    fn judge(&mut self, now: u64) {
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
        self.routed.good = self.routed.mesh.clone();
        self.end_trial();
    }

    /// Requests panicked that did not before.
    fn go_back(&mut self) {
        let Some(Baking { trial, before, before_mesh, before_index, .. }) = self.baking.take() else { return };
        let (index, digest) = (self.routed.index, self.routed.mesh.digest());
        self.route_by(before, before_mesh, before_index);
        self.end_trial();
        self.guard = BootGuard::new(Some(trial));
        self.refuse(index, digest, &Refusal::new(Stage::Panic, "requests panicked that did not before; went back to the revision before"));
        self.acknowledge();
    }

    fn end_trial(&self) {
        if let Some(store) = &self.store
            && let Err(error) = store.end_trial()
        {
            tracing::error!(%error, "the note of a trial cannot be removed");
        }
    }

    /// Keeps what is good, at most every ten seconds, and now and then only to say that it is still current.
    fn keep(&mut self, now: u64) {
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
        self.keeping = Some(tokio::task::spawn_blocking(move || store.keep(&what())));
    }

    fn keepable_digest(&self) -> Digest {
        // Keys and what is good; that the rest was received does not make it worth keeping.
        let received = self.replica.digest();
        let (mut digest, mesh) = (self.routed.good.digest(), self.replica.mesh().digest());
        digest = digest.with(received).with(mesh);
        digest
    }

    /// Makes what is to be kept, which takes a while with many keys.
    fn keepable(&self) -> impl FnOnce() -> LastGood + Send + 'static {
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

    fn finished_keeping(&mut self, kept: Result<Result<(), StoreError>, tokio::task::JoinError>) {
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
    async fn keep_now(mut self) {
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
        match tokio::task::spawn_blocking(move || store.keep(&what())).await {
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

/// More than two points more failures than before, with enough requests on both sides to tell.
fn is_worse(before: (u64, u64), now: (u64, u64)) -> bool {
    let (all, failed) = (now.0.saturating_sub(before.0), now.1.saturating_sub(before.1));
    if all < ENOUGH_REQUESTS || before.0 < ENOUGH_REQUESTS {
        return false;
    }
    let ratio = |failed: u64, all: u64| failed as f64 / all as f64;
    ratio(failed, all) > ratio(before.1, before.0) + WORSE_BY
}

async fn or_never<F: Future + Unpin>(future: &mut Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}

async fn or_never_job(compiling: &mut Option<Compiling>) -> Result<Result<RoutingState, Refusal>, tokio::task::JoinError> {
    match compiling {
        Some(compiling) => (&mut compiling.job).await,
        None => pending().await,
    }
}

async fn next_of(stream: &mut Option<Stream>) -> Result<Option<ControlMessage>, Status> {
    match stream {
        Some(stream) => stream.next().await,
        None => pending().await,
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn millis_to_micros(millis: u64) -> i64 {
    i64::try_from(millis).unwrap_or(i64::MAX).saturating_mul(1000)
}

/// What tells one build from another.
const BUILD: &str = match option_env!("TIDEGATE_COMMIT") {
    Some(commit) => commit,
    None => env!("CARGO_PKG_VERSION"),
};
/// Version of the protocol that this build speaks.
const SCHEMA: u32 = 1;
/// Bookmarks come every two seconds; after five that did not the node is left.
const SILENCE: Duration = Duration::from_secs(10);
/// A node that does not catch up with what this edge has seen elsewhere is cut off from the others.
const BEHIND: Duration = Duration::from_secs(15);
/// When to say that nothing was heard.
const STALE_ALARM: Duration = Duration::from_secs(5 * 60);
const TICK: Duration = Duration::from_millis(250);
/// The file is not written more often.
const KEEP_EVERY: Duration = Duration::from_secs(10);
/// Nor more rarely, so that its age says how long the edge was off.
const KEEP_AT_LEAST_EVERY: Duration = Duration::from_secs(10 * 60);
/// Keys of one message that are complained about one by one.
const KEY_PROBLEMS: usize = 10;
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
