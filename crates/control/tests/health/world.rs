//! Regions of edges, their control nodes and a leader, in virtual time: the real routing, fleet and batch code with delays for a network.
//!
//! Everything random comes from one seed. Time moves in steps of 10 ms; reports, views, digests and entries take the time the network
//! would. An edge here is routing's health and plans plus the reporting rule of a real edge, without sockets.

#![allow(dead_code, reason = "each user of this file uses a part of it")]

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tidegate_control::fleet::{Fleet, ViewCursor};
use tidegate_control::health_batch::HealthBatcher;
use tidegate_control::state::Health as Agreed;
use tidegate_proto::v1::{HealthBatch, HealthReport, HealthView, OpenBreaker, RegionDigest, ReportCell, ViewCell};
use tidegate_routing::explain::Gate;
use tidegate_routing::{
    AttemptEnd, AttemptPlan, BreakerState, CredentialSpec, Decision, EndpointId, EndpointIndex, EndpointSpec, Health, Intent, ModelSpec,
    News, Next, Outcome, Plan, Preferences, Price, ProviderSpec, RemoteVerdict, SelfTest, Settings, Sight, Snapshot, SnapshotSpec,
    Timestamp,
};

pub(crate) const STEP_MS: u64 = 10;
/// What stirred is looked at so long after the first word of it.
const LOOK_AFTER_MS: u64 = 20;
pub(crate) const MODEL: &str = "author/model";
const UNIX_MS: u64 = 1_800_000_000_000;

/// What a world looks like.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) regions: usize,
    pub(crate) edges: usize,
    pub(crate) endpoints: usize,
    /// Requests per second of each edge.
    pub(crate) rate: f64,
    /// One way within a region, milliseconds.
    pub(crate) near_ms: u64,
    /// One way between regions, milliseconds.
    pub(crate) far_ms: u64,
    /// Requests go to the first endpoint only.
    pub(crate) only_first: bool,
    /// Whether edges hear views at all.
    pub(crate) shared: bool,
}

impl Default for Shape {
    fn default() -> Shape {
        Shape { regions: 1, edges: 40, endpoints: 2, rate: 2.0, near_ms: 2, far_ms: 40, only_first: false, shared: true }
    }
}

/// Something that is broken for a while.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) from_ms: u64,
    pub(crate) until_ms: u64,
    /// Everywhere, or seen from one region only.
    pub(crate) region: Option<usize>,
    /// Edges (of every region) below this number; all without.
    pub(crate) edges: Option<usize>,
    /// One endpoint, or all.
    pub(crate) endpoint: Option<usize>,
    pub(crate) probability: f64,
    pub(crate) end: AttemptEnd,
    /// How much longer an answer takes that comes all the same.
    pub(crate) slower: u32,
    /// It comes and goes with this period, milliseconds; there all the time without.
    pub(crate) period_ms: Option<u64>,
}

impl Fault {
    pub(crate) fn of(endpoint: usize, from_ms: u64, probability: f64) -> Fault {
        let end = AttemptEnd::Server(500);
        Fault {
            from_ms,
            until_ms: u64::MAX,
            region: None,
            edges: None,
            endpoint: Some(endpoint),
            probability,
            end,
            slower: 1,
            period_ms: None,
        }
    }

    fn hits(&self, region: usize, edge: usize, endpoint: usize, now_ms: u64) -> bool {
        (self.from_ms..self.until_ms).contains(&now_ms)
            && self.period_ms.is_none_or(|period| ((now_ms - self.from_ms) / period).is_multiple_of(2))
            && self.region.is_none_or(|only| only == region)
            && self.edges.is_none_or(|below| edge < below)
            && self.endpoint.is_none_or(|only| only == endpoint)
    }
}

/// What faulty reporters claim, whatever they saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// What they saw, all turned into failures.
    Pessimist,
    /// A thousand failures per report, at every endpoint, and every breaker just opened.
    Flood,
    /// A success for every failure.
    Optimist,
    /// Every endpoint used, and failing every other few seconds, each in its own rhythm.
    Flapping,
}

pub(crate) struct Edge {
    pub(crate) health: Health,
    pub(crate) lie: Option<Lie>,
    name: String,
    incarnation: u64,
    seq: u64,
    next_report_ms: u64,
    next_request_ms: f64,
    from_ms: u64,
    cells: HashMap<u64, (EndpointIndex, ViewCell)>,
    tokens: Vec<u64>,
    self_test: SelfTest,
    seen: Vec<(u64, usize, bool)>,
    pub(crate) suspect: bool,
    pub(crate) left_ms: Option<u64>,
    /// When it last tried or heard anything: what it thinks cannot have changed since.
    pub(crate) moved_ms: u64,
    /// Endpoints tried since the last report.
    tried: Vec<bool>,
    /// When each endpoint's breaker was last told to be open.
    told_open: Vec<Option<u64>>,
    reported_ms: u64,
    /// When the start of failures was last worth a report of its own.
    hurried_ms: Option<u64>,
    suspects: (u32, u32),
    pub(crate) bad: u32,
}

pub(crate) struct Region {
    pub(crate) edges: Vec<Edge>,
    pub(crate) fleet: Fleet,
    cursors: Vec<ViewCursor>,
    pub(crate) agreed: Agreed,
    next_digest_ms: u64,
    phase_ms: u64,
    /// When something stirred is looked at.
    look_ms: Option<u64>,
    /// Something was agreed that its fleet has not heard yet.
    heard: bool,
}

enum Event {
    Report(usize, usize, HealthReport),
    View(usize, usize, HealthView),
    Digest(RegionDigest),
    Committed(HealthBatch, u64),
    Applied(usize, HealthBatch, u64),
}

/// One entry of the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) at_ms: u64,
    pub(crate) bytes: usize,
    pub(crate) cells: usize,
}

pub(crate) struct World {
    pub(crate) shape: Shape,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) regions: Vec<Region>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) now_ms: u64,
    pub(crate) entries: Vec<Entry>,
    pub(crate) callers: BTreeMap<u64, (u32, u32)>,
    /// First attempts of the second, by endpoint.
    pub(crate) firsts: BTreeMap<u64, Vec<u32>>,
    /// Second and further attempts of the second.
    pub(crate) retries: BTreeMap<u64, u32>,
    /// The largest share of a model's endpoints that a choice left out for their health, and how many choices ignored ejections.
    pub(crate) left_out: f64,
    pub(crate) panics: u32,
    events: BTreeMap<(u64, u64), Event>,
    event_number: u64,
    batcher: HealthBatcher,
    log: Agreed,
    proposing: bool,
    proposed_ms: u64,
    rng: fastrand::Rng,
}

pub(crate) fn at(now_ms: u64) -> Timestamp {
    Timestamp((1_000_000 + now_ms) * 1_000)
}

fn snapshot(endpoints: usize) -> Snapshot {
    let slug = |number: usize| format!("provider-{number}");
    let account = || CredentialSpec { name: "main".into(), weight: 1 };
    let endpoint = |number: usize| {
        let mut spec = EndpointSpec::new(format!("endpoint-{number}"), slug(number), MODEL);
        spec.tag = slug(number);
        spec.price = Price { prompt: 1_000_000, completion: 1_000_000, ..Price::default() };
        spec
    };
    Snapshot::build(SnapshotSpec {
        revision: 1,
        providers: (0..endpoints)
            .map(|number| ProviderSpec { slug: slug(number), name: slug(number), credentials: vec![account()] })
            .collect(),
        models: vec![ModelSpec { slug: MODEL.into(), ..ModelSpec::default() }],
        endpoints: (0..endpoints).map(endpoint).collect(),
        settings: Settings::default(),
    })
    .expect("a plain snapshot builds")
}

impl Edge {
    /// The next report sooner, as a real edge does: at once when a breaker opens, once a second when failures begin.
    fn hurry(&mut self, now_ms: u64) {
        let Some(news) = self.health.take_news() else { return };
        let is_soon = news == News::BreakerOpened || self.hurried_ms.is_none_or(|hurried| now_ms >= hurried + 1_000);
        if is_soon {
            if news == News::FailureBegan {
                self.hurried_ms = Some(now_ms);
            }
            self.next_report_ms = self.next_report_ms.min(now_ms.max(self.reported_ms + 50));
        }
    }

    /// What a real edge reports of an endpoint.
    fn cell_of(&mut self, snapshot: &Snapshot, number: usize, now_ms: u64) -> Option<ReportCell> {
        // Only what was tried since the last report, or is open, can have anything to tell.
        let tried = std::mem::take(&mut self.tried[number]);
        if !tried && self.told_open[number].is_none() {
            return None;
        }
        let index = EndpointIndex::new(number as u32);
        let opening = self.health.opening(index, at(now_ms));
        let told = self.told_open[number];
        let is_due = match opening {
            Some(_) => told.is_none_or(|told| now_ms >= told + 1_000),
            None => told.is_some(),
        };
        let increment = self.health.take_increment(index);
        if increment.is_none() && !is_due {
            return None;
        }
        self.told_open[number] = opening.map(|_| now_ms);
        Some(ReportCell::of(snapshot.endpoint(index).id(), &increment.unwrap_or_default(), 0).with_opening(opening, at(now_ms)))
    }
}

impl World {
    pub(crate) fn new(shape: Shape, seed: u64) -> World {
        let mut rng = fastrand::Rng::with_seed(seed);
        let snapshot = Arc::new(snapshot(shape.endpoints));
        let regions = (0..shape.regions)
            .map(|region| Region {
                edges: (0..shape.edges)
                    .map(|edge| Edge {
                        health: Health::new(&snapshot, None),
                        lie: None,
                        name: format!("edge-{edge:04}"),
                        incarnation: 1,
                        seq: 0,
                        next_report_ms: rng.u64(0..250),
                        next_request_ms: exponential(&mut rng, shape.rate),
                        from_ms: 0,
                        cells: HashMap::new(),
                        tokens: Vec::new(),
                        self_test: SelfTest::default(),
                        seen: Vec::new(),
                        suspect: false,
                        left_ms: None,
                        moved_ms: 0,
                        tried: vec![false; shape.endpoints],
                        told_open: vec![None; shape.endpoints],
                        reported_ms: 0,
                        hurried_ms: None,
                        suspects: (0, 0),
                        bad: 0,
                    })
                    .collect(),
                fleet: Fleet::new(format!("region-{region}"), region as u64 + 1, 1),
                cursors: (0..shape.edges).map(|_| ViewCursor::default()).collect(),
                agreed: Agreed::default(),
                next_digest_ms: rng.u64(0..1_000),
                phase_ms: rng.u64(0..25) * STEP_MS,
                look_ms: None,
                heard: false,
            })
            .collect();
        World {
            shape,
            snapshot,
            regions,
            faults: Vec::new(),
            now_ms: 0,
            entries: Vec::new(),
            callers: BTreeMap::new(),
            firsts: BTreeMap::new(),
            retries: BTreeMap::new(),
            left_out: 0.0,
            panics: 0,
            events: BTreeMap::new(),
            event_number: 0,
            batcher: HealthBatcher::default(),
            log: Agreed::default(),
            proposing: false,
            proposed_ms: 0,
            rng,
        }
    }

    /// Whether an edge tried or heard anything in this step.
    pub(crate) fn moved(&self, region: usize, edge: usize) -> bool {
        self.regions[region].edges[edge].moved_ms == self.now_ms
    }

    /// Every edge of every region claims that every endpoint flaps, and does nothing else.
    pub(crate) fn flap(&mut self) {
        for region in 0..self.regions.len() {
            self.silence(region);
            self.regions[region].edges.iter_mut().for_each(|edge| edge.lie = Some(Lie::Flapping));
        }
    }

    /// Nobody in a region sends anything.
    pub(crate) fn silence(&mut self, region: usize) {
        self.regions[region].edges.iter_mut().for_each(|edge| edge.next_request_ms = f64::INFINITY);
    }

    /// Runs until the moment, or until `done`. Whether it was done.
    pub(crate) fn run_until(&mut self, until_ms: u64, mut done: impl FnMut(&World) -> bool) -> bool {
        while self.now_ms < until_ms {
            self.step();
            if done(self) {
                return true;
            }
        }
        false
    }

    pub(crate) fn step(&mut self) {
        self.now_ms += STEP_MS;
        while let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 <= self.now_ms) {
            let event = entry.remove();
            self.handle(event);
        }
        for region in 0..self.regions.len() {
            for edge in 0..self.shape.edges {
                if !self.is_idle(region, edge) {
                    self.requests(region, edge);
                    self.report(region, edge);
                }
            }
            self.tick(region);
        }
        self.propose();
    }

    fn post(&mut self, after_ms: u64, event: Event) {
        self.event_number += 1;
        self.events.insert((self.now_ms + after_ms, self.event_number), event);
    }

    fn is_idle(&self, region: usize, edge: usize) -> bool {
        let edge = &self.regions[region].edges[edge];
        edge.next_request_ms > self.now_ms as f64 && edge.next_report_ms > self.now_ms
    }

    fn requests(&mut self, region: usize, edge: usize) {
        while self.regions[region].edges[edge].next_request_ms <= self.now_ms as f64 {
            let wait = exponential(&mut self.rng, self.shape.rate);
            self.regions[region].edges[edge].next_request_ms += wait;
            if self.regions[region].edges[edge].left_ms.is_none() {
                self.request(region, edge);
            }
        }
    }

    fn request(&mut self, region: usize, edge: usize) {
        let (snapshot, now) = (Arc::clone(&self.snapshot), at(self.now_ms));
        let Some(model) = snapshot.model(MODEL) else { return };
        let mut intent = Intent::new(model, now + Duration::from_secs(60), self.rng.u64(..));
        if self.shape.only_first {
            intent.preferences = Arc::new(Preferences { only: vec![vec!["provider-0".into()]], ..Preferences::default() });
            intent.max_attempts = 1;
        }
        let Ok(mut plan) = Plan::new(&snapshot, intent) else { return };
        let mut worked = false;
        while let Next::Attempt(attempt) = plan.next(&snapshot, &self.regions[region].edges[edge].health, now) {
            let outcome = self.attempt(region, edge, &attempt);
            worked = outcome.end == AttemptEnd::Success;
            let sick = &mut self.regions[region].edges[edge];
            sick.seen.push((self.now_ms, attempt.endpoint.get(), worked));
            sick.tried[attempt.endpoint.get()] = true;
            sick.moved_ms = self.now_ms;
            sick.bad += u32::from(!worked);
            plan.ended(&snapshot, &sick.health, &attempt, &outcome, now);
            sick.hurry(self.now_ms);
        }
        self.look_at(plan.decision());
        let tally = self.callers.entry(self.now_ms / 1_000).or_default();
        tally.0 += 1;
        tally.1 += u32::from(!worked);
    }

    fn look_at(&mut self, decision: &Decision) {
        let (second, endpoints) = (self.now_ms / 1_000, self.shape.endpoints);
        for choice in &decision.attempts {
            let Some(chosen) = choice.chosen else { continue };
            if choice.number > 1 {
                *self.retries.entry(second).or_default() += 1;
                continue;
            }
            self.firsts.entry(second).or_insert_with(|| vec![0; endpoints])[chosen.endpoint.get()] += 1;
            let considered = choice.considered(decision);
            let ejected = |gate| matches!(gate, Gate::BreakerOpen { .. } | Gate::Probing | Gate::BackingOff { .. } | Gate::RemoteEjected);
            let out = considered.iter().filter(|one| ejected(one.gate)).count();
            if choice.panicked {
                self.panics += 1;
            } else {
                // All cost the same: a share of them is a share of the weight.
                self.left_out = self.left_out.max(out as f64 / considered.len() as f64);
            }
        }
    }

    fn attempt(&mut self, region: usize, edge: usize, attempt: &AttemptPlan) -> Outcome {
        let endpoint = attempt.endpoint.get();
        let broken = self.faults.iter().filter(|fault| fault.hits(region, edge, endpoint, self.now_ms));
        let (mut end, mut slower) = (AttemptEnd::Success, 1);
        for fault in broken {
            slower = slower.max(fault.slower);
            if self.rng.f64() < fault.probability {
                end = fault.end;
            }
        }
        let mut outcome = Outcome::new(end, Duration::from_millis(20));
        outcome.prompt_tokens = 100;
        if end == AttemptEnd::Success {
            outcome.first_token = Some(Duration::from_millis(400 + self.rng.u64(0..200)) * slower);
            outcome.elapsed = Duration::from_millis(1_500) * slower;
            outcome.output_tokens = Some(100);
        }
        outcome
    }

    fn report(&mut self, region: usize, edge: usize) {
        let now_ms = self.now_ms;
        let one = &mut self.regions[region].edges[edge];
        if one.next_report_ms > now_ms {
            return;
        }
        one.next_report_ms = now_ms + self.rng.u64(200..=300);
        one.reported_ms = now_ms;
        self.examine(region, edge);
        let one = &mut self.regions[region].edges[edge];
        let endpoints = 0..self.shape.endpoints;
        let mut cells: Vec<ReportCell> = endpoints.clone().filter_map(|number| one.cell_of(&self.snapshot, number, now_ms)).collect();
        match one.lie {
            None => {}
            Some(Lie::Pessimist) => cells.iter_mut().for_each(|cell| cell.server_error += std::mem::take(&mut cell.ok)),
            Some(Lie::Optimist) => cells.iter_mut().for_each(|cell| cell.ok += std::mem::take(&mut cell.server_error)),
            Some(Lie::Flood) => {
                let open = OpenBreaker { began_ms: 10, opened_ms: 0, samples: 1_000.0, failed: 1_000.0, connect: 0.0 };
                let claims = endpoints.map(|number| claim(&self.snapshot, number, 0, 1_000));
                cells = claims.map(|cell| ReportCell { open: Some(open), ..cell }).collect();
            }
            Some(Lie::Flapping) => {
                let broken = |number: usize| (now_ms / (1_000 + 137 * number as u64)).is_multiple_of(2);
                let says = |number| if broken(number) { (0, 6) } else { (6, 0) };
                cells = endpoints.map(|number| claim(&self.snapshot, number, says(number).0, says(number).1)).collect();
            }
        }
        one.seq += 1;
        let report = HealthReport {
            edge: String::new(),
            incarnation: one.incarnation,
            seq: one.seq,
            window_ms: (now_ms - one.from_ms) as u32,
            // A liar does not doubt itself.
            confidence: if one.suspect && one.lie.is_none() { 0 } else { 100 },
            suspect: one.suspect && one.lie.is_none(),
            cells,
        };
        one.from_ms = now_ms;
        let near = self.shape.near_ms;
        self.post(near, Event::Report(region, edge, report));
    }

    /// The self-test as a real edge does it: what was seen in half a minute beside what the region says.
    fn examine(&mut self, region: usize, edge: usize) {
        let now_ms = self.now_ms;
        let one = &mut self.regions[region].edges[edge];
        one.seen.retain(|(seen_ms, _, _)| seen_ms + 30_000 > now_ms);
        let mut sights: BTreeMap<usize, Sight> = BTreeMap::new();
        for (_, endpoint, worked) in &one.seen {
            let sight = sights.entry(*endpoint).or_default();
            sight.samples += 1.0;
            sight.failed += f64::from(u8::from(!*worked));
        }
        let sights: Vec<_> = sights
            .into_iter()
            .map(|(endpoint, mut sight)| {
                let endpoint = self.snapshot.endpoint(EndpointIndex::new(endpoint as u32));
                if let Some((_, cell)) = one.cells.get(&endpoint.id().0) {
                    let out = tidegate_proto::region_verdict(cell.verdict).is_out();
                    sight.region_reporters = if out { cell.reporters.max(2) } else { cell.reporters };
                    sight.region_failed = if out { 1.0 } else { 1.0 - f64::from(cell.success_permille) / 1_000.0 };
                }
                (endpoint.provider(), sight)
            })
            .collect();
        let (active, suspects) = one.suspects;
        let verdict = one.self_test.step(sights, active + suspects, suspects, at(now_ms));
        one.suspect = verdict.suspect;
        if verdict.leave {
            one.left_ms.get_or_insert(now_ms);
        }
    }

    fn tick(&mut self, number: usize) {
        let now_ms = self.now_ms;
        let region = &mut self.regions[number];
        let is_turn = now_ms % 250 == region.phase_ms % 250;
        if region.look_ms.is_none() && region.fleet.is_stirred() {
            region.look_ms = Some(now_ms + LOOK_AFTER_MS);
        }
        let mut changed = false;
        if is_turn {
            region.fleet.tick(&region.agreed, at(now_ms));
        } else if region.look_ms.is_some_and(|look| look <= now_ms) {
            changed = region.fleet.look_again(at(now_ms));
        }
        if is_turn || region.look_ms.is_some_and(|look| look <= now_ms) {
            region.look_ms = None;
        }
        if std::mem::take(&mut region.heard) {
            changed |= region.fleet.hear(&region.agreed, at(now_ms));
        }
        if !is_turn && !changed {
            return;
        }
        let digest_is_due = now_ms >= region.next_digest_ms;
        if let Some(digested) = region.fleet.digest(&region.agreed, UNIX_MS + now_ms, at(now_ms))
            && (digested.urgent || digest_is_due)
        {
            region.next_digest_ms = now_ms + 1_000;
            let way = if number == 0 { 0 } else { self.shape.far_ms };
            self.post(way, Event::Digest(digested.digest));
        }
        if !self.shape.shared {
            return;
        }
        let mut views = Vec::new();
        let region = &mut self.regions[number];
        for (edge, cursor) in region.cursors.iter_mut().enumerate() {
            if let Some(view) = region.fleet.view_for(&region.edges[edge].name, cursor, at(now_ms)) {
                views.push((edge, view));
            }
        }
        let near = self.shape.near_ms;
        for (edge, view) in views {
            self.post(near, Event::View(number, edge, view));
        }
    }

    /// The leader stands in the first region.
    fn propose(&mut self) {
        if self.proposing || self.batcher.wait(&self.log, at(self.now_ms)) != Some(Duration::ZERO) {
            return;
        }
        let Some(batch) = self.batcher.next(&self.log) else { return };
        self.proposed_ms = self.now_ms;
        let cells = batch.regions.iter().map(|region| region.cells.len()).sum();
        self.entries.push(Entry { at_ms: self.now_ms, bytes: prost::Message::encoded_len(&batch), cells });
        self.proposing = true;
        // A quorum answers after one round trip; the disk takes a few milliseconds.
        let commit = if self.shape.regions > 1 { 2 * self.shape.far_ms + 5 } else { 2 * self.shape.near_ms + 5 };
        let leader_ms = UNIX_MS + self.now_ms;
        self.post(commit, Event::Committed(batch, leader_ms));
    }

    fn handle(&mut self, event: Event) {
        let (now_ms, now) = (self.now_ms, at(self.now_ms));
        match event {
            Event::Report(region, edge, report) => {
                let region = &mut self.regions[region];
                region.fleet.take_report(&region.edges[edge].name, report, UNIX_MS + now_ms, now);
            }
            Event::Digest(digest) => {
                self.batcher.take(digest);
            }
            Event::Committed(batch, leader_ms) => {
                self.proposing = false;
                self.batcher.went(at(self.proposed_ms), now);
                self.log.apply(batch.clone(), leader_ms);
                for region in 0..self.regions.len() {
                    let way = if region == 0 { 0 } else { self.shape.far_ms };
                    self.post(way, Event::Applied(region, batch.clone(), leader_ms));
                }
            }
            Event::Applied(region, batch, leader_ms) => {
                self.regions[region].agreed.apply(batch, leader_ms);
                self.regions[region].heard = true;
            }
            Event::View(region, edge, view) => self.hear(region, edge, &view),
        }
    }

    fn hear(&mut self, region: usize, edge: usize, view: &HealthView) {
        let now = at(self.now_ms);
        let snapshot = Arc::clone(&self.snapshot);
        let one = &mut self.regions[region].edges[edge];
        one.suspects = (view.active_edges, view.suspect_edges);
        for cell in &view.cells {
            let Some(index) = find(&snapshot, cell.endpoint) else { continue };
            let before = one.cells.insert(cell.endpoint, (index, *cell));
            if before.is_some_and(|(_, before)| before.closings != cell.closings) {
                one.health.taken_back(index, now + Duration::from_millis(self.rng.u64(0..5_000)), now);
            }
        }
        let held: Vec<u64> = view.probes.iter().map(|probe| probe.endpoint).collect();
        for lost in one.tokens.iter().filter(|token| !held.contains(token)) {
            find(&snapshot, *lost).inspect(|index| one.health.grant_probe(*index, Timestamp(0)));
        }
        for probe in view.probes.iter().filter(|probe| !one.tokens.contains(&probe.endpoint)) {
            let until = now + Duration::from_millis(probe.expires_in_ms.into());
            find(&snapshot, probe.endpoint).inspect(|index| one.health.grant_probe(*index, until));
        }
        one.tokens = held;
        for (index, cell) in one.cells.values() {
            one.health.set_remote(*index, cell.evidence(now));
        }
        one.moved_ms = self.now_ms;
    }

    /// Whether an edge's own breaker took the endpoint out.
    pub(crate) fn is_open(&self, region: usize, edge: usize, endpoint: usize) -> bool {
        let view = self.regions[region].edges[edge].health.endpoint_view(EndpointIndex::new(endpoint as u32), at(self.now_ms));
        matches!(view.breaker, BreakerState::Open { .. } | BreakerState::HalfOpen)
    }

    /// What an edge was told.
    pub(crate) fn told(&self, region: usize, edge: usize, endpoint: usize) -> Option<(RemoteVerdict, f64)> {
        let view = self.regions[region].edges[edge].health.endpoint_view(EndpointIndex::new(endpoint as u32), at(self.now_ms));
        view.remote.map(|remote| (remote.verdict, remote.success))
    }

    pub(crate) fn is_ejected(&self, region: usize, edge: usize, endpoint: usize) -> bool {
        self.told(region, edge, endpoint).is_some_and(|(verdict, _)| verdict == RemoteVerdict::Ejected)
    }
}

/// A cell out of thin air.
pub(crate) fn claim(snapshot: &Snapshot, endpoint: usize, ok: u32, failed: u32) -> ReportCell {
    let endpoint = snapshot.endpoint(EndpointIndex::new(endpoint as u32)).id().0;
    ReportCell { endpoint, ok, server_error: failed, ..ReportCell::default() }
}

fn find(snapshot: &Snapshot, id: u64) -> Option<EndpointIndex> {
    let position = snapshot.endpoints().iter().position(|endpoint| endpoint.id() == EndpointId(id))?;
    Some(EndpointIndex::new(position as u32))
}

/// Milliseconds to the next of events at this rate per second.
fn exponential(rng: &mut fastrand::Rng, rate: f64) -> f64 {
    -(1.0 - rng.f64()).ln() / rate * 1_000.0
}
