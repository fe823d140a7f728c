//! The task that follows: connects, takes in, applies, keeps.
//!
//! Here is the loop and its connection. What is done with what comes is in `messages`, how it becomes what is routed by in `prove`, what
//! outlives the process in `keep`, and how a process begins with that in `boot`.

mod boot;
mod keep;
mod messages;
mod prove;

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tidegate_proto::ResourceMap;
use tidegate_proto::v1::{Ack, Answers, ControlMessage, Hello, edge_message};
use tidegate_routing::Timestamp;
use tidegate_runtime::Shutdown;
use tidegate_runtime::mesh::BoxFuture;
use tidegate_runtime::ops::Condition;
use tokio::task::JoinHandle;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};
use tonic::Status;

use self::keep::Kept;
use self::prove::{Baking, Compiling, Refused, Routed};
use super::ControlServices;
use super::guard::BootGuard;
use super::last_good::{Store, StoreError};
use super::places::Places;
use super::replica::{Divergence, Replica};
use super::stream::{self, OpenError, Stream};
use super::trial::{Refusal, Stage};
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
    /// When what is held was last known to be current, microseconds.
    confirmed_micros: Option<i64>,
    /// Since when the node is behind this edge, microseconds.
    behind_since: Option<u64>,
    acknowledged: Ack,
    stale_logged: bool,
    health: HealthLink,
    report_at: Instant,
    /// Requests, and failures among them, that were told or do not have to be; and when the next are.
    told: (u64, u64),
    tell_at: Instant,
    ticks: Interval,
    aside: Aside,
}

/// Where what takes long is done, so that the loop goes on meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aside {
    /// On a thread for such work.
    Thread,
    /// In a task of the same runtime, as a simulation needs it whose every run is the same.
    Task,
}

impl Aside {
    #[expect(clippy::disallowed_methods, reason = "the link owns the handle and looks at how it ends; only simulations have the task")]
    fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        match self {
            Aside::Thread => tokio::task::spawn_blocking(work),
            Aside::Task => tokio::spawn(async move { work() }),
        }
    }
}

/// How a stream ended.
enum Ended {
    Lost(String),
    Away { after: Duration, reason: String, hints: Vec<String> },
    Diverged(Divergence),
    OtherCluster(String),
}

impl Link {
    /// Starts from what was kept, if anything was. Reads files; to be called before requests are served, within a runtime.
    pub(crate) fn start(place: Place, config: ControlLinkConfig, services: ControlServices, aside: Aside) -> Self {
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
            confirmed_micros: None,
            behind_since: None,
            acknowledged: Ack::default(),
            stale_logged: false,
            health: HealthLink::new(clock.unix_millis(), place.sound.clone(), Timestamp(clock.micros())),
            report_at: Instant::now(),
            told: (0, 0),
            tell_at: Instant::now(),
            ticks: interval(TICK),
            aside,
            place,
            config,
            services,
            store,
        };
        link.ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        link.place.ready.unmet("no configuration yet: no control node was reached, and none was kept from before");
        link.boot();
        link
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.place.shared
    }

    /// Follows until shutdown is requested.
    pub(crate) async fn run(mut self, shutdown: Shutdown) {
        loop {
            // Losing a branch is safe: shutdown is a level, and a turn waits for one thing before it changes anything.
            tokio::select! {
                biased;
                () = shutdown.requested() => break,
                () = self.turn() => {}
            }
        }
        let leaving = self.stream.take().map(Stream::leave);
        // Dropping neither: both end by themselves.
        tokio::join!(self.keep_now(), async {
            if let Some(leaving) = leaving {
                leaving.await;
            }
        });
    }

    /// Waits for the next thing to happen and deals with it. Dropping it is safe: nothing is changed before that thing is there.
    pub(crate) async fn turn(&mut self) {
        // Losing a branch is safe: connecting, compiling and keeping go on in their own futures, tonic's reader keeps what it has, news that
        // nobody took is told again, and the rest are clocks.
        let shared = Arc::clone(self.shared());
        tokio::select! {
            biased;
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
            _ = self.ticks.tick() => self.tick(),
        }
    }

    /// What was received.
    pub(crate) fn replica(&self) -> &Replica {
        &self.replica
    }

    /// To damage what was received.
    pub(crate) fn replica_mut(&mut self) -> &mut Replica {
        &mut self.replica
    }

    /// Whether a stream to a control node is open.
    pub(crate) fn follows(&self) -> bool {
        self.stream.is_some()
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
                // A rollout is judged by what happens now, not by what an edge went through alone.
                self.told = self.shared().metrics.outcomes();
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

    /// Tells what callers were answered.
    fn tell_answers(&mut self) {
        if self.stream.is_none() || Instant::now() < self.tell_at {
            return;
        }
        self.tell_at = Instant::now() + TELL_EVERY;
        let now = self.shared().metrics.outcomes();
        let (requests, failures) = (now.0.saturating_sub(self.told.0), now.1.saturating_sub(self.told.1));
        // What does not fit is told with the next.
        if requests > 0 && self.say(edge_message::Body::Answers(Answers { requests, failures })) {
            self.told = now;
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
        self.tell_answers();
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

/// Version of the protocol that this build speaks.
const SCHEMA: u32 = 1;
/// Bookmarks come every two seconds; after five that did not the node is left.
const SILENCE: Duration = Duration::from_secs(10);
/// A node that does not catch up with what this edge has seen elsewhere is cut off from the others.
const BEHIND: Duration = Duration::from_secs(15);
/// When to say that nothing was heard.
const STALE_ALARM: Duration = Duration::from_secs(5 * 60);
/// Looking at all counters takes some tenths of a millisecond on a large mesh.
const TELL_EVERY: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(250);
