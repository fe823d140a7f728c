//! One generator thread: its connections, the open loop's queue, and a watchman for streams that stopped.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::sync::Notify;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::sleep_until;

use super::connection::{Connection, Observer};
use super::pacer::{Alarm, Schedule};
use super::tally::{Tally, Window};
use super::{DRAIN, Plan, STALL, Shape, handshake};
use crate::interrupt;

/// After a failed request a closed-loop connection waits, so that a dead target is not hammered.
const AFTER_FAILURE: Duration = Duration::from_millis(20);
/// How often the watchman looks at the streams.
const WATCH_EVERY: Duration = Duration::from_millis(200);

/// How many counted requests may still complete, over all threads.
#[derive(Debug)]
pub(super) struct Budget(AtomicU64);

impl Budget {
    pub(super) fn new(count: u64) -> Self {
        Self(AtomicU64::new(count))
    }

    pub(super) fn spent(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    fn take(&self) {
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
    }
}

/// What one thread has to do.
#[derive(Debug, Clone)]
pub(super) struct Share {
    pub(super) index: usize,
    pub(super) of: usize,
    pub(super) begin: Instant,
    pub(super) window: (Instant, Instant),
    pub(super) budget: Option<Arc<Budget>>,
}

/// Runs until the window and the drain are over.
pub(super) fn run(plan: &Plan, share: &Share) -> Result<Tally> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    let window = Window { start: share.window.0, end: share.window.1 };
    let shared = Rc::new(Shared {
        plan: plan.clone(),
        window,
        budget: share.budget.clone(),
        tally: RefCell::default(),
        queue: RefCell::default(),
        wake: Notify::new(),
        next_request: Cell::new(share.index),
    });
    LocalSet::new().block_on(&runtime, drive(&shared, share))?;
    let mut tally = std::mem::take(&mut *shared.tally.borrow_mut());
    tally.failures.unanswered += count(shared.queue.borrow().len());
    Ok(tally)
}

async fn drive(shared: &Rc<Shared>, share: &Share) -> Result<()> {
    let plan = &shared.plan;
    let mine = (share.index..plan.connections.max(share.of)).step_by(share.of).count();
    // Opened over the first half of the warm-up; a thousand streams that start together would stay in step.
    let ramp = plan.warm_up / 2;
    let mut connections = JoinSet::new();
    let mut slots = Vec::new();
    for number in 0..mine {
        let slot = Rc::new(Slot::default());
        let start = share.begin + ramp.mul_f64(number as f64 / mine as f64);
        connections.spawn_local(connection(Rc::clone(shared), Rc::clone(&slot), start));
        slots.push(slot);
    }
    let pacer = async {
        match plan.shape {
            Shape::Open { rate } => pace(shared, Schedule::new(share.begin + ramp, rate, share.index, share.of)).await,
            Shape::Closed | Shape::Handshakes => Ok(()),
        }
    };
    // The watchman never ends before the others should; dropping the pacer or the watchman loses no request.
    let watched = async { tokio::join!(pacer, watch(shared, &slots)).0 };
    watched.await?;
    drain(shared, &slots).await;
    connections.abort_all();
    Ok(())
}

/// Puts intended send times into the queue as they come.
async fn pace(shared: &Shared, mut schedule: Schedule) -> Result<()> {
    let alarm = Alarm::new()?;
    while !shared.over(Instant::now()) && schedule.peek() < shared.window.end {
        alarm.wait_until(schedule.peek()).await?;
        while let Some(moment) = schedule.take_due(Instant::now(), shared.window.end) {
            shared.queue.borrow_mut().push_back(moment);
            shared.wake.notify_one();
        }
    }
    Ok(())
}

/// Looks for stalled streams until the window ends.
async fn watch(shared: &Shared, slots: &[Rc<Slot>]) {
    loop {
        let now = Instant::now();
        for slot in slots {
            if shared.plan.scenario.stream().is_some() && slot.silent_for(now) > STALL && !slot.stalled.replace(true) {
                shared.tally.borrow_mut().failures.stalled_streams += 1;
            }
        }
        if shared.over(now) {
            let open = slots.iter().filter(|slot| slot.busy_since.get().is_some()).count();
            shared.tally.borrow_mut().open_streams = if shared.plan.scenario.stream().is_some() { count(open) } else { 0 };
            return;
        }
        sleep_until((now + WATCH_EVERY).min(shared.window.end).into()).await;
    }
}

/// Waits for what was sent. In the open loop what stays unanswered is counted with the latency it has reached.
async fn drain(shared: &Shared, slots: &[Rc<Slot>]) {
    // A paced stream may be longer than the drain; its end is not waited for.
    if shared.plan.scenario.stream().is_some_and(|stream| stream.pace_ms > 0) || shared.plan.most_requests.is_some() {
        return;
    }
    let end = Instant::now() + DRAIN;
    let busy = || slots.iter().any(|slot| slot.busy_since.get().is_some()) || !shared.queue.borrow().is_empty();
    while busy() && Instant::now() < end && !interrupt::requested() {
        sleep_until((Instant::now() + Duration::from_millis(5)).into()).await;
    }
    let mut tally = shared.tally.borrow_mut();
    let now = Instant::now();
    for since in slots.iter().filter_map(|slot| slot.busy_since.get()) {
        tally.failures.unanswered += 1;
        if shared.window.contains(since) {
            tally.latency.record(now - since);
        }
    }
    for since in shared.queue.borrow().iter().filter(|since| shared.window.contains(**since)) {
        tally.latency.record(now - *since);
    }
}

/// What the tasks of one thread share.
struct Shared {
    plan: Plan,
    window: Window,
    budget: Option<Arc<Budget>>,
    tally: RefCell<Tally>,
    /// Intended send times that no connection has taken yet; bounded by rate times duration.
    queue: RefCell<VecDeque<Instant>>,
    wake: Notify,
    next_request: Cell<usize>,
}

impl Shared {
    fn over(&self, now: Instant) -> bool {
        now >= self.window.end || self.budget.as_deref().is_some_and(Budget::spent) || interrupt::requested()
    }

    /// When the next request should be sent; `None` when there is no further one.
    async fn next(&self) -> Option<Instant> {
        loop {
            let now = Instant::now();
            match self.plan.shape {
                Shape::Closed | Shape::Handshakes => return (!self.over(now)).then_some(now),
                Shape::Open { .. } => {
                    let taken = self.queue.borrow_mut().pop_front();
                    if taken.is_some() {
                        return taken;
                    }
                    if self.over(now) {
                        return None;
                    }
                    self.wake.notified().await;
                }
            }
        }
    }
}

/// What the watchman sees of a connection.
#[derive(Default)]
struct Slot {
    /// Intended send time of the request under way.
    busy_since: Cell<Option<Instant>>,
    last_progress: Cell<Option<Instant>>,
    stalled: Cell<bool>,
}

impl Slot {
    fn silent_for(&self, now: Instant) -> Duration {
        let since = self.busy_since.get().and(self.last_progress.get());
        since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }
}

async fn connection(shared: Rc<Shared>, slot: Rc<Slot>, start: Instant) {
    sleep_until(start.into()).await;
    let mut open = None;
    while let Some(intended) = shared.next().await {
        slot.busy_since.set(Some(intended));
        slot.last_progress.set(Some(Instant::now()));
        slot.stalled.set(false);
        let succeeded = match shared.plan.shape {
            Shape::Handshakes => handshake(&shared, intended).await,
            Shape::Closed | Shape::Open { .. } => request(&shared, &slot, &mut open, intended).await,
        };
        slot.busy_since.set(None);
        if !succeeded {
            open = None;
            sleep_until((Instant::now() + AFTER_FAILURE).into()).await;
        }
    }
}

async fn handshake(shared: &Shared, intended: Instant) -> bool {
    let outcome = handshake::once(&shared.plan).await;
    let now = Instant::now();
    let mut tally = shared.tally.borrow_mut();
    match outcome {
        Ok(()) if shared.window.contains(now) => {
            tally.completed += 1;
            tally.latency.record(now - intended);
            true
        }
        Ok(()) => true,
        Err(error) => {
            tally.failures.connect += 1;
            tally.note(|| format!("{error:#}"));
            false
        }
    }
}

/// One request; opens the connection when there is none. Tells whether it went well.
async fn request(shared: &Shared, slot: &Slot, open: &mut Option<Connection>, intended: Instant) -> bool {
    let plan = &shared.plan;
    if open.is_none() {
        match Connection::open(&plan.target, plan.tls.as_ref()).await {
            Ok(connection) => *open = Some(connection),
            Err(error) => {
                let mut tally = shared.tally.borrow_mut();
                tally.failures.connect += 1;
                tally.note(|| format!("{error:#}"));
                return false;
            }
        }
    }
    let Some(connection) = open.as_mut() else {
        return false;
    };
    let number = shared.next_request.get();
    shared.next_request.set(number + 1);
    let bytes = &plan.requests[number % plan.requests.len()];
    if shared.window.contains(intended) {
        shared.tally.borrow_mut().send_lag.record(intended.elapsed());
    }
    let mut timing = Timing { shared, slot, intended };
    let outcome = connection.exchange(bytes, plan.scenario, &mut timing).await;
    let now = Instant::now();
    let mut tally = shared.tally.borrow_mut();
    let answer = match outcome {
        Ok(answer) => answer,
        Err(error) => {
            tally.failures.broken += 1;
            tally.note(|| format!("{error:#}"));
            return false;
        }
    };
    if answer.status != 200 {
        tally.failures.status += 1;
        tally.note(|| format!("status {}", answer.status));
        if !answer.keep_alive {
            *open = None;
        }
        return false;
    }
    if let Some(stream) = plan.scenario.stream()
        && stream.chunks != answer.chunks
    {
        tally.failures.short_streams += 1;
        tally.note(|| format!("{} of {} chunks", answer.chunks, stream.chunks));
    }
    if shared.window.contains(now) && !shared.budget.as_deref().is_some_and(Budget::spent) {
        tally.completed += 1;
        if let Some(budget) = &shared.budget {
            budget.take();
        }
    }
    if shared.window.contains(intended) {
        tally.latency.record(now - intended);
    }
    if !answer.keep_alive {
        *open = None;
    }
    true
}

/// Records what happens inside one answer.
struct Timing<'a> {
    shared: &'a Shared,
    slot: &'a Slot,
    intended: Instant,
}

impl Observer for Timing<'_> {
    fn chunk(&mut self, number: u32, now: Instant, delay: Option<Duration>) {
        let mut tally = self.shared.tally.borrow_mut();
        let counts = self.shared.window.contains(now);
        if counts {
            tally.chunks += 1;
        }
        if let Some(delay) = delay.filter(|_| counts) {
            tally.chunk_delay.record(delay);
        }
        if number == 1 && self.shared.window.contains(self.intended) {
            tally.first_chunk.record(now - self.intended);
        }
    }

    fn progress(&mut self, now: Instant) {
        self.slot.last_progress.set(Some(now));
    }
}

fn count(length: usize) -> u64 {
    length as u64
}
