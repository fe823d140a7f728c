//! What a running simulation knows: its settings, and what it has seen.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tidegate_runtime::Clock;
use tokio::sync::Notify;

use crate::ask::Prefix;
use crate::fault::{self, FaultRule};
use crate::prompt_cache::{Cached, PromptCache};
use crate::rate_limit::{RateLimit, Standing};
use crate::recorded::RecordedRequest;
use crate::script::Script;
use crate::spec::{Answering, PromptCacheSpec, RateLimitSpec, SimSpec, Timing};

/// Figures of a simulation, all since its start.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    /// Requests whose head arrived.
    pub requests: u64,
    /// Answers by status, counted when the head is sent.
    pub by_status: BTreeMap<u16, u64>,
    /// Requests that are neither answered in full nor given up.
    pub active_requests: u64,
    /// Streams that are running.
    pub active_streams: u64,
    /// Events of streams that were handed to the connection; an answer that is not streamed counts as one.
    pub events_sent: u64,
    /// Tokens in them, and in answers that were not streamed.
    pub tokens_delivered: u64,
    /// Connections that were accepted.
    pub connections: u64,
    /// Connections that are open.
    pub open_connections: u64,
    /// Requests whose caller left before the end, the last thousand.
    pub disconnects: Vec<Disconnect>,
}

/// A caller that left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disconnect {
    /// Number of the request, from 1.
    pub request: u64,
    /// When it was noticed.
    pub at: Instant,
    /// Whether a stream was running.
    pub streaming: bool,
    /// Events that were sent before.
    pub events_sent: u64,
    /// Tokens that were sent before.
    pub tokens_sent: u64,
}

/// What can be changed while running.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) answering: Answering,
    pub(crate) timing: Timing,
    pub(crate) faults: Vec<FaultRule>,
    pub(crate) models: Vec<String>,
    pub(crate) keys: Vec<String>,
}

/// Shared by the accepting task, the connections and the handle.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) name: String,
    pub(crate) seed: u64,
    pub(crate) context_length: Option<u32>,
    pub(crate) clock: Clock,
    started: Instant,
    settings: Mutex<Arc<Settings>>,
    /// The accepting task looks anew at whether it should listen.
    pub(crate) faults_changed: Notify,
    scripts: Mutex<VecDeque<Script>>,
    /// Length of `scripts`, so that no lock is taken when there are none.
    scripts_left: AtomicUsize,
    cache: Mutex<PromptCache>,
    cache_spec: Option<PromptCacheSpec>,
    rate_limit: Mutex<RateLimit>,
    rate_limit_spec: Option<RateLimitSpec>,
    pub(crate) keep_requests: usize,
    recorded: Mutex<VecDeque<RecordedRequest>>,
    counts: Mutex<Stats>,
    events_sent: AtomicU64,
    tokens_delivered: AtomicU64,
    watchers: AtomicUsize,
    changed: Notify,
}

impl State {
    pub(crate) fn new(spec: SimSpec) -> Self {
        Self {
            name: spec.name,
            seed: spec.seed,
            context_length: spec.context_length,
            clock: Clock::start(),
            started: Instant::now(),
            settings: Mutex::new(Arc::new(Settings {
                answering: spec.answering,
                timing: spec.timing,
                faults: spec.faults,
                models: spec.models,
                keys: spec.keys,
            })),
            faults_changed: Notify::new(),
            scripts: Mutex::default(),
            scripts_left: AtomicUsize::new(0),
            cache: Mutex::default(),
            cache_spec: spec.prompt_cache,
            rate_limit: Mutex::default(),
            rate_limit_spec: spec.rate_limit,
            keep_requests: spec.keep_requests,
            recorded: Mutex::default(),
            counts: Mutex::default(),
            events_sent: AtomicU64::new(0),
            tokens_delivered: AtomicU64::new(0),
            watchers: AtomicUsize::new(0),
            changed: Notify::new(),
        }
    }

    pub(crate) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.lock())
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Settings)) {
        change(Arc::make_mut(&mut self.settings.lock()));
        self.faults_changed.notify_waiters();
    }

    pub(crate) fn since_start(&self) -> Duration {
        self.started.elapsed()
    }

    /// Whether nobody should listen now.
    pub(crate) fn refuses(&self) -> bool {
        fault::refuses(&self.settings().faults, self.since_start())
    }

    /// How long until that may change by schedule.
    pub(crate) fn until_refusal_change(&self) -> Option<Duration> {
        let now = self.since_start();
        let change = fault::next_refusal_change(&self.settings().faults, now)?;
        Some(change.saturating_sub(now))
    }

    pub(crate) fn push_script(&self, script: Script) {
        let mut scripts = self.scripts.lock();
        scripts.push_back(script);
        self.scripts_left.store(scripts.len(), Ordering::Release);
    }

    pub(crate) fn next_script(&self) -> Option<Script> {
        if self.scripts_left.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut scripts = self.scripts.lock();
        let next = scripts.pop_front();
        self.scripts_left.store(scripts.len(), Ordering::Release);
        next
    }

    /// What the prompt finds in the cache.
    pub(crate) fn read_cache(&self, prompt: &[Prefix]) -> Cached {
        match self.cache_spec {
            Some(spec) => self.cache.lock().read(prompt, spec, Instant::now()),
            None => Cached::default(),
        }
    }

    pub(crate) fn take_rate(&self, tokens: u32) -> Option<Standing> {
        let spec = self.rate_limit_spec?;
        Some(self.rate_limit.lock().take(spec, tokens, Instant::now()))
    }

    pub(crate) fn record(&self, request: RecordedRequest) {
        let mut recorded = self.recorded.lock();
        while recorded.len() >= self.keep_requests.max(1) {
            recorded.pop_front();
        }
        recorded.push_back(request);
        drop(recorded);
        self.tell();
    }

    pub(crate) fn recorded(&self) -> Vec<RecordedRequest> {
        self.recorded.lock().iter().cloned().collect()
    }

    pub(crate) fn stats(&self) -> Stats {
        let mut stats = self.counts.lock().clone();
        stats.events_sent = self.events_sent.load(Ordering::Relaxed);
        stats.tokens_delivered = self.tokens_delivered.load(Ordering::Relaxed);
        stats
    }

    /// Completes when the figures satisfy `wanted`.
    pub(crate) async fn wait_until(&self, wanted: impl Fn(&Stats) -> bool) -> Stats {
        let _watching = Watching::begin(&self.watchers);
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before the look, so that a change in between is not missed.
            changed.as_mut().enable();
            let stats = self.stats();
            if wanted(&stats) {
                return stats;
            }
            changed.await;
        }
    }

    pub(crate) fn connection_opened(self: &Arc<Self>) -> OpenConnection {
        let mut counts = self.counts.lock();
        counts.connections += 1;
        counts.open_connections += 1;
        drop(counts);
        self.tell();
        OpenConnection { state: Arc::clone(self) }
    }

    pub(crate) fn request_began(self: &Arc<Self>) -> Serving {
        let mut counts = self.counts.lock();
        counts.requests += 1;
        counts.active_requests += 1;
        let number = counts.requests;
        drop(counts);
        self.tell();
        Serving { state: Arc::clone(self), number, streaming: false, finished: false, events: 0, tokens: 0 }
    }

    /// Wakes those who wait for figures. Without any this is one atomic load.
    fn tell(&self) {
        if self.watchers.load(Ordering::Acquire) > 0 {
            self.changed.notify_waiters();
        }
    }
}

struct Watching<'a>(&'a AtomicUsize);

impl<'a> Watching<'a> {
    fn begin(watchers: &'a AtomicUsize) -> Self {
        watchers.fetch_add(1, Ordering::AcqRel);
        Self(watchers)
    }
}

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Held by a connection while it is open.
#[derive(Debug)]
pub(crate) struct OpenConnection {
    state: Arc<State>,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.state.counts.lock().open_connections -= 1;
        self.state.tell();
    }
}

/// Held by a request while it is served. Dropped before its end, the caller has left.
#[derive(Debug)]
pub(crate) struct Serving {
    state: Arc<State>,
    pub(crate) number: u64,
    streaming: bool,
    finished: bool,
    events: u64,
    tokens: u64,
}

impl Serving {
    /// The head goes out.
    pub(crate) fn answered(&mut self, status: u16) {
        *self.state.counts.lock().by_status.entry(status).or_default() += 1;
        self.state.tell();
    }

    /// The body will be a stream.
    pub(crate) fn streams(&mut self) {
        self.streaming = true;
        self.state.counts.lock().active_streams += 1;
    }

    pub(crate) fn sent(&mut self, tokens: u32) {
        self.events += 1;
        self.tokens += u64::from(tokens);
        self.state.events_sent.fetch_add(1, Ordering::Relaxed);
        self.state.tokens_delivered.fetch_add(u64::from(tokens), Ordering::Relaxed);
        self.state.tell();
    }

    /// Whatever comes now is our doing, not the caller's.
    pub(crate) fn finished(&mut self) {
        self.finished = true;
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let mut counts = self.state.counts.lock();
        counts.active_requests -= 1;
        counts.active_streams -= u64::from(self.streaming);
        if !self.finished {
            if counts.disconnects.len() >= MOST_DISCONNECTS {
                counts.disconnects.remove(0);
            }
            counts.disconnects.push(Disconnect {
                request: self.number,
                at: Instant::now(),
                streaming: self.streaming,
                events_sent: self.events,
                tokens_sent: self.tokens,
            });
        }
        drop(counts);
        self.state.tell();
    }
}

const MOST_DISCONNECTS: usize = 1_000;
