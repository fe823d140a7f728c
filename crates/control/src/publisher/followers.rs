//! The edges that follow this node: who they are, how far they are, and what they refuse.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tidegate_proto::v1::{Ack, Answers, Assign, ControlMessage, EdgeStatus, GoAway, GoneEdge, HealthView, Nack, control_message};
use tokio::sync::{Notify, watch};

/// How an edge introduced itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Introduction {
    /// Its name: that of its certificate where it has one.
    pub edge: String,
    /// Its region.
    pub region: String,
    /// Version of its build.
    pub build: String,
    /// Where it called from.
    pub address: String,
    /// Drawn anew by each process.
    pub instance: u64,
}

/// All edges that follow this node. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Followers {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    by_name: Mutex<BTreeMap<(String, u64), Arc<Follower>>>,
    gone: Mutex<Gone>,
    /// Counts what edges say and edges that come and go, for those who wait for something of that kind.
    news: watch::Sender<u64>,
}

impl Default for Inner {
    fn default() -> Self {
        Self { by_name: Mutex::default(), gone: Mutex::default(), news: watch::Sender::new(0) }
    }
}

/// Edges that were here, by name: as they were, and when and how they went.
#[derive(Debug, Default)]
struct Gone {
    by_name: BTreeMap<String, (EdgeStatus, u64, bool)>,
}

impl Gone {
    fn went(&mut self, edge: EdgeStatus, now_ms: u64, goodbye: bool) {
        self.forget(now_ms);
        if self.by_name.len() >= MOST_GONE {
            let oldest = self.by_name.iter().min_by_key(|(_, (_, at, _))| *at).map(|(name, _)| name.clone());
            oldest.and_then(|name| self.by_name.remove(&name));
        }
        self.by_name.insert(edge.edge.clone(), (edge, now_ms, goodbye));
    }

    fn forget(&mut self, now_ms: u64) {
        self.by_name.retain(|_, (_, at, _)| u128::from(now_ms.saturating_sub(*at)) <= GONE_KEPT.as_millis());
    }
}

/// One edge.
#[derive(Debug)]
pub struct Follower {
    /// Who it is.
    pub introduction: Introduction,
    says_goodbye: AtomicBool,
    connected_since_ms: u64,
    progress: Mutex<Progress>,
    outbox: Mutex<Outbox>,
    pub(crate) mail: Notify,
}

#[derive(Debug, Default)]
struct Progress {
    heard_ms: u64,
    ack: Ack,
    sent: u64,
    most_waiting: u64,
    refused: Option<Nack>,
    /// Attempts at providers.
    attempts: Tally,
    /// Requests of callers.
    requests: Tally,
}

/// Tries of the last half to whole minute: two buckets, so that old ones leave without a clock of their own.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    began_ms: u64,
    now: (u64, u64),
    before: (u64, u64),
}

impl Tally {
    fn at(mut self, now_ms: u64) -> Self {
        let age = now_ms.saturating_sub(self.began_ms);
        if age >= TALLY_MS {
            self.before = if age < 2 * TALLY_MS { self.now } else { (0, 0) };
            (self.now, self.began_ms) = ((0, 0), now_ms);
        }
        self
    }

    fn count(&mut self, all: u64, failed: u64, now_ms: u64) {
        *self = self.at(now_ms);
        self.now.0 = self.now.0.saturating_add(all);
        self.now.1 = self.now.1.saturating_add(failed);
    }

    /// All, and those that failed.
    fn sum(self, now_ms: u64) -> (u64, u64) {
        let Tally { now, before, .. } = self.at(now_ms);
        (now.0.saturating_add(before.0), now.1.saturating_add(before.1))
    }
}

/// What is for this edge besides the state. Slots, not queues: the newest of each kind is what matters.
#[derive(Debug, Default)]
struct Outbox {
    go_away: Option<GoAway>,
    health: Option<HealthView>,
    assign: Option<Assign>,
    answers: VecDeque<ControlMessage>,
}

impl Followers {
    /// Adds an edge. The same process that comes again replaces its lost connection, whose stream is told to end.
    pub fn join(&self, introduction: Introduction, now_ms: u64) -> Arc<Follower> {
        let key = (introduction.edge.clone(), introduction.instance);
        self.inner.gone.lock().by_name.remove(&introduction.edge);
        let follower = Arc::new(Follower {
            introduction,
            says_goodbye: AtomicBool::new(false),
            connected_since_ms: now_ms,
            progress: Mutex::new(Progress { heard_ms: now_ms, ..Progress::default() }),
            outbox: Mutex::default(),
            mail: Notify::new(),
        });
        let before = self.inner.by_name.lock().insert(key, Arc::clone(&follower));
        if let Some(before) = before {
            before.go_away(GoAway { reason: "the same edge connected again".to_owned(), ..GoAway::default() });
        }
        self.changed();
        follower
    }

    /// Takes an edge out, unless it has connected again. It is remembered: one that did not say goodbye may serve on.
    pub fn leave(&self, follower: &Arc<Follower>, now_ms: u64) {
        let key = (follower.introduction.edge.clone(), follower.introduction.instance);
        let mut by_name = self.inner.by_name.lock();
        if by_name.get(&key).is_some_and(|present| Arc::ptr_eq(present, follower)) {
            by_name.remove(&key);
            // Another process of this name may be there in its place.
            let name = &follower.introduction.edge;
            if by_name.range((name.clone(), 0)..=(name.clone(), u64::MAX)).next().is_none() {
                let goodbye = follower.says_goodbye.load(Ordering::Relaxed);
                self.inner.gone.lock().went(follower.status(now_ms), now_ms, goodbye);
            }
        }
        drop(by_name);
        self.changed();
    }

    /// Edges that followed this node within the last day and did not come back to it.
    pub fn gone(&self, now_ms: u64) -> Vec<GoneEdge> {
        let mut gone = self.inner.gone.lock();
        gone.forget(now_ms);
        let told = gone.by_name.values().map(|(edge, at, goodbye)| {
            let ago_ms = now_ms.saturating_sub(*at);
            GoneEdge { edge: Some(EdgeStatus { silent_ms: edge.silent_ms + ago_ms, ..edge.clone() }), ago_ms, goodbye: *goodbye }
        });
        told.collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.inner.by_name.lock().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every edge, by name.
    pub fn all(&self) -> Vec<Arc<Follower>> {
        self.inner.by_name.lock().values().cloned().collect()
    }

    /// Every edge as others see it, by name.
    pub fn statuses(&self, now_ms: u64) -> Vec<EdgeStatus> {
        self.all().iter().map(|follower| follower.status(now_ms)).collect()
    }

    /// Gives an edge its view of health; one that was not sent yet becomes one with it, as each tells only what the one before did not.
    pub fn offer_health(&self, edge: &str, view: &HealthView) {
        for follower in self.named(edge) {
            let mut outbox = follower.outbox.lock();
            match &mut outbox.health {
                Some(waiting) => waiting.absorb(view.clone()),
                None => outbox.health = Some(view.clone()),
            }
            drop(outbox);
            follower.mail.notify_one();
        }
    }

    /// Gives an edge its shares of limits, after those that were not sent yet. Beyond a few messages' worth that wait, the edge reports
    /// again.
    pub fn offer_shares(&self, edge: &str, assign: &Assign) {
        for follower in self.named(edge) {
            let mut outbox = follower.outbox.lock();
            match &mut outbox.assign {
                Some(waiting) if waiting.shares.len() + waiting.unknown.len() < SHARES_WAITING => {
                    waiting.shares.extend_from_slice(&assign.shares);
                    waiting.unknown.extend_from_slice(&assign.unknown);
                }
                Some(_) => {}
                None => outbox.assign = Some(assign.clone()),
            }
            drop(outbox);
            follower.mail.notify_one();
        }
    }

    /// Asks every edge to go elsewhere.
    pub fn send_away(&self, go_away: &GoAway) {
        for follower in self.all() {
            follower.go_away(go_away.clone());
        }
    }

    /// Waits until every edge here has a revocation in force. Edges that leave meanwhile are not waited for: they learn it when they come
    /// back, before anything else. Returns the names of those that had not after `patience`.
    pub async fn revoked(&self, index: u64, patience: Duration) -> Vec<String> {
        let missing = || -> Vec<String> {
            let all = self.all();
            all.iter().filter(|follower| follower.progress.lock().ack.revoked < index).map(|f| f.introduction.edge.clone()).collect()
        };
        let mut news = self.inner.news.subscribe();
        let waiting = async {
            while !missing().is_empty() {
                if news.changed().await.is_err() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(patience, waiting).await;
        missing()
    }

    /// Wakes whenever an edge says something of itself, comes or goes.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.inner.news.subscribe()
    }

    fn named(&self, edge: &str) -> Vec<Arc<Follower>> {
        let by_name = self.inner.by_name.lock();
        by_name.range((edge.to_owned(), 0)..=(edge.to_owned(), u64::MAX)).map(|(_, follower)| Arc::clone(follower)).collect()
    }

    /// Counts what an edge reported: attempts at providers, and those of them that failed.
    pub fn count(&self, introduction: &Introduction, attempts: u64, failures: u64, now_ms: u64) {
        let key = (introduction.edge.clone(), introduction.instance);
        let Some(follower) = self.inner.by_name.lock().get(&key).cloned() else { return };
        follower.progress.lock().attempts.count(attempts, failures, now_ms);
    }

    pub(crate) fn acknowledged(&self, follower: &Follower, ack: Ack, now_ms: u64) {
        let mut progress = follower.progress.lock();
        progress.heard_ms = now_ms;
        if progress.refused.as_ref().is_some_and(|refused| ack.applied >= refused.index) {
            progress.refused = None;
        }
        progress.ack =
            Ack { received: progress.ack.received.max(ack.received), applied: ack.applied, revoked: progress.ack.revoked.max(ack.revoked) };
        drop(progress);
        self.changed();
    }

    pub(crate) fn refused(&self, follower: &Follower, nack: Nack, now_ms: u64) {
        let mut progress = follower.progress.lock();
        progress.heard_ms = now_ms;
        progress.refused = Some(nack);
        drop(progress);
        self.changed();
    }

    fn changed(&self) {
        self.inner.news.send_modify(|count| *count = count.wrapping_add(1));
    }
}

impl Follower {
    /// As others see it.
    pub fn status(&self, now_ms: u64) -> EdgeStatus {
        let progress = self.progress.lock();
        let (attempts, failures) = progress.attempts.sum(now_ms);
        let (requests, failed_requests) = progress.requests.sum(now_ms);
        EdgeStatus {
            edge: self.introduction.edge.clone(),
            region: self.introduction.region.clone(),
            build: self.introduction.build.clone(),
            address: self.introduction.address.clone(),
            instance: self.introduction.instance,
            connected_since_ms: self.connected_since_ms,
            silent_ms: now_ms.saturating_sub(progress.heard_ms),
            received: progress.ack.received,
            applied: progress.ack.applied,
            revoked: progress.ack.revoked,
            sent: progress.sent,
            refused: progress.refused.clone(),
            attempts,
            failures,
            requests,
            failed_requests,
        }
    }

    /// Counts what it says its callers were answered.
    pub(crate) fn answered(&self, answers: Answers, now_ms: u64) {
        let mut progress = self.progress.lock();
        progress.heard_ms = now_ms;
        progress.requests.count(answers.requests, answers.failures.min(answers.requests), now_ms);
    }

    /// It stops on purpose.
    pub(crate) fn goodbye(&self) {
        self.says_goodbye.store(true, Ordering::Relaxed);
    }

    pub(crate) fn heard(&self, now_ms: u64) {
        self.progress.lock().heard_ms = now_ms;
    }

    /// Most bytes that waited for its connection to take them.
    pub fn most_waiting(&self) -> u64 {
        self.progress.lock().most_waiting
    }

    pub(crate) fn waiting(&self, bytes: u64) {
        let mut progress = self.progress.lock();
        progress.most_waiting = progress.most_waiting.max(bytes);
    }

    pub(crate) fn sent(&self, index: u64) {
        self.progress.lock().sent = index;
    }

    pub(crate) fn go_away(&self, go_away: GoAway) {
        self.outbox.lock().go_away = Some(go_away);
        self.mail.notify_one();
    }

    /// An answer to what the edge asked. Beyond a few that wait, the edge has to ask again.
    pub(crate) fn answer(&self, body: control_message::Body) {
        let mut outbox = self.outbox.lock();
        if outbox.answers.len() < ANSWERS_WAITING {
            outbox.answers.push_back(ControlMessage { body: Some(body) });
        }
        drop(outbox);
        self.mail.notify_one();
    }

    /// The next thing of the outbox; whether it is the last that this stream sends.
    pub(crate) fn take_mail(&self) -> Option<(ControlMessage, Ends)> {
        let mut outbox = self.outbox.lock();
        if let Some(go_away) = outbox.go_away.take() {
            return Some((ControlMessage { body: Some(control_message::Body::GoAway(go_away)) }, Ends::Stream));
        }
        if let Some(view) = outbox.health.take() {
            return Some((ControlMessage { body: Some(control_message::Body::HealthView(view)) }, Ends::Nothing));
        }
        if let Some(assign) = outbox.assign.take() {
            return Some((ControlMessage { body: Some(control_message::Body::Assign(assign)) }, Ends::Nothing));
        }
        let answer = outbox.answers.pop_front()?;
        Some((answer, Ends::Nothing))
    }
}

/// Whether a message is the last of its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ends {
    /// More may come.
    Nothing,
    /// The stream ends after it.
    Stream,
}

/// For so long an edge that is cut off may go on serving keys that it knows: the usual grace of a key.
const GONE_KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// Twice as many as can follow one node.
const MOST_GONE: usize = 10_000;
/// Length of a bucket of [`Tally`]: a stage of a rollout, so that what is counted is mostly of the stage.
const TALLY_MS: u64 = 30_000;
/// Assignments that wait for an edge that does not read.
const SHARES_WAITING: usize = 2_000;
/// Answers that wait for an edge that does not read.
const ANSWERS_WAITING: usize = 16;
