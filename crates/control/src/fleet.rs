//! What the edges of a region see, merged: soft state of one control node, never in the log.
//!
//! [`Fleet`] is pure: reports, the agreed health and the time go in, views for edges and digests for the leader come out. Every node of a
//! region gets every report, its own edges' directly and the others' by exchange, and merges them by addition, so that each of them comes
//! to the same view and any of them can answer. [`FleetService`] is the shell around it.

mod digest;
mod endpoint;
mod gauges;
mod guests;
mod probe;
mod report;
mod ring;
mod service;
mod summary;
mod table;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tidegate_proto::v1::{FleetExchange, HealthReport};
use tidegate_routing::{EndpointId, Seen, Settings, Timestamp, VerdictRules};

pub use digest::Digested;
pub(crate) use digest::{is_urgent, movement};
pub use gauges::endpoint_names;
pub use service::{FleetConfig, FleetError, FleetPeers, FleetService, Leader, NodesOf, TellGuest};
pub use table::{HealthRow, HealthTable};
pub use view::ViewCursor;

use crate::state::Health;
use endpoint::{Age, EndpointState, WINDOWS};
use report::Reported;
use summary::Summaries;

/// The region's soft state on one control node.
#[derive(Debug)]
pub struct Fleet {
    region: String,
    node_id: u64,
    /// Start of this node, Unix milliseconds.
    epoch: u64,
    judges: Judges,
    edges: Edges,
    endpoints: BTreeMap<EndpointId, EndpointState>,
    /// Which endpoint's cell changed at which version; one entry per endpoint.
    changed: BTreeMap<u64, EndpointId>,
    version: u64,
    /// Endpoints of which something was said that may change their verdict.
    stirred: BTreeSet<EndpointId>,
    summaries: Summaries,
    /// First tick.
    began: Option<Timestamp>,
    agreed: Agreed,
    outbox: Vec<HealthReport>,
    minutes: digest::Minutes,
    digest_seq: u64,
    /// Guests' edges, by the node that they follow.
    hosted: BTreeMap<u64, guests::Hosted>,
    #[cfg(feature = "known-bugs")]
    bug: Option<KnownBug>,
}

/// A bug put back on purpose, to prove that a test catches it.
#[cfg(feature = "known-bugs")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnownBug {
    /// The newest report replaces what others reported instead of being added to it.
    HealthByLastWriter,
    /// One failing edge is quorum enough, and no edge's weight is capped.
    VerdictBySingleEdge,
}

/// What verdicts are made with.
#[derive(Debug)]
struct Judges {
    rules: VerdictRules,
    settings: Settings,
    /// Room for what edges saw, kept from one endpoint to the next.
    seen: [Seen; WINDOWS],
}

/// The edges of the region.
#[derive(Debug, Default)]
struct Edges {
    known: BTreeMap<Arc<str>, Edge>,
    /// Of those that reported lately: who trusts itself,
    active: u32,
    /// and who does not.
    suspects: u32,
}

impl Edges {
    fn of(&self, name: &str) -> Option<&Edge> {
        self.known.get(name)
    }

    fn count(&mut self, now: Timestamp) {
        self.known.retain(|_, edge| now.since(edge.seen) <= EDGE_FORGOTTEN);
        let is_here = |edge: &&Edge| now.since(edge.seen) <= EDGE_SILENT;
        let suspects = self.known.values().filter(is_here).filter(|edge| edge.suspect).count();
        self.suspects = suspects as u32;
        self.active = (self.known.values().filter(is_here).count() - suspects) as u32;
    }
}

/// One edge of the region.
#[derive(Debug)]
struct Edge {
    incarnation: u64,
    seq: u64,
    seen: Timestamp,
    /// Connected to this node, not known from an exchange.
    here: bool,
    /// 0 to 1.
    confidence: f64,
    suspect: bool,
}

/// What the log says, as last looked at.
#[derive(Debug, Default)]
struct Agreed {
    leader_time_ms: u64,
    /// When the leader's time was last seen to move.
    moved: Timestamp,
}

/// What became of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Merged.
    New,
    /// Seen before: dropped, and acknowledged again.
    Repeated,
    /// Not taken: too large, or from a process that was replaced.
    Refused(&'static str),
}

impl Fleet {
    /// An empty fleet. `epoch` is the node's start in Unix milliseconds; it must differ between two starts.
    #[must_use]
    pub fn new(region: impl Into<String>, node_id: u64, epoch: u64) -> Fleet {
        Fleet {
            region: region.into(),
            node_id,
            epoch,
            judges: Judges { rules: VerdictRules::default(), settings: Settings::default(), seen: endpoint::room() },
            edges: Edges::default(),
            endpoints: BTreeMap::new(),
            changed: BTreeMap::new(),
            version: 0,
            stirred: BTreeSet::new(),
            summaries: Summaries::default(),
            began: None,
            agreed: Agreed::default(),
            outbox: Vec::new(),
            minutes: digest::Minutes::default(),
            digest_seq: 0,
            hosted: BTreeMap::new(),
            #[cfg(feature = "known-bugs")]
            bug: None,
        }
    }

    /// Puts a bug back.
    #[cfg(feature = "known-bugs")]
    pub fn reintroduce(&mut self, bug: KnownBug) {
        self.bug = Some(bug);
        if bug == KnownBug::VerdictBySingleEdge {
            let rules = self.judges.rules;
            self.judges.rules = VerdictRules { least_quorum: 1, faulty_in: usize::MAX, reporter_cap: 1.0, few_edges: 0, ..rules };
        }
    }

    /// The region it is about.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.region
    }

    /// Takes an edge's report in. `edge` is who the connection proved to be, whatever the report says.
    pub fn take_report(&mut self, edge: &str, mut report: HealthReport, unix_ms: u64, now: Timestamp) -> Taken {
        if report.cells.len() > MOST_ENDPOINTS {
            return Taken::Refused("more cells than there can be endpoints");
        }
        let taken = self.merge(edge, &report, true, now);
        if taken == Taken::New {
            self.minutes.count(&report, unix_ms);
            if self.outbox.len() < MOST_OUTGOING {
                report.edge = edge.to_owned();
                self.outbox.push(report);
            }
        }
        taken
    }

    /// Takes in what another node of the region received.
    pub fn take_exchange(&mut self, exchange: &FleetExchange, now: Timestamp) {
        if exchange.region != self.region || exchange.node_id == self.node_id {
            return;
        }
        for report in exchange.reports.iter().filter(|report| report.cells.len() <= MOST_ENDPOINTS) {
            self.merge(&report.edge, report, false, now);
        }
        self.take_foreign_probes(exchange, now);
    }

    /// What this node's edges reported since the last call, for the other nodes of the region.
    pub fn exchange(&mut self, now: Timestamp) -> FleetExchange {
        FleetExchange {
            region: self.region.clone(),
            node_id: self.node_id,
            reports: std::mem::take(&mut self.outbox),
            probes: self.held_probes(now),
            ..FleetExchange::default()
        }
    }

    fn merge(&mut self, edge: &str, report: &HealthReport, here: bool, now: Timestamp) -> Taken {
        let name: Arc<str> = match self.edges.known.get_key_value(edge) {
            Some((name, _)) => Arc::clone(name),
            None if self.edges.known.len() >= MOST_EDGES => return Taken::Refused("too many edges for one region"),
            None => edge.into(),
        };
        let known = self.edges.known.entry(Arc::clone(&name)).or_insert(Edge {
            incarnation: report.incarnation,
            seq: 0,
            seen: now,
            here,
            confidence: 0.0,
            suspect: false,
        });
        if report.incarnation < known.incarnation {
            return Taken::Refused("of a process that was replaced");
        }
        if report.incarnation > known.incarnation {
            *known = Edge { incarnation: report.incarnation, seq: 0, ..*known };
        }
        known.seen = now;
        if here {
            known.here = true;
        }
        if report.seq <= known.seq {
            return Taken::Repeated;
        }
        // An edge that reports elsewhere now is no longer this node's.
        known.here = here;
        known.seq = report.seq;
        known.suspect = report.suspect;
        known.confidence = if report.suspect { 0.0 } else { f64::from(report.confidence.min(100)) / 100.0 };
        let age = match report.window_ms {
            0..=NEWEST_WINDOW_MS => Age::New,
            millis if millis <= OLDEST_WINDOW_MS => Age::Recent,
            _ => Age::Old,
        };
        for cell in &report.cells {
            let id = EndpointId(cell.endpoint);
            if self.endpoints.len() >= MOST_ENDPOINTS && !self.endpoints.contains_key(&id) {
                continue;
            }
            // A cell that does not parse is an edge of another build; its counts without distributions would be a half truth.
            let Some(reported) = Reported::of(cell, now) else { continue };
            let state = self.endpoints.entry(id).or_default();
            #[cfg(feature = "known-bugs")]
            if self.bug == Some(KnownBug::HealthByLastWriter) {
                state.forget_reporters();
            }
            if state.add(&name, &reported, age, now) {
                self.stirred.insert(id);
            }
        }
        Taken::New
    }

    /// Judges everything anew. Call it every 250 ms. Whether edges have something new to hear.
    pub fn tick(&mut self, agreed: &Health, now: Timestamp) -> bool {
        let before = (self.version, self.edges());
        self.edges.count(now);
        self.stirred.clear();
        if self.is_warm(now) {
            for (id, state) in &mut self.endpoints {
                state.judge(*id, &self.edges, &mut self.judges, now);
            }
        }
        self.hear_others(agreed, now);
        self.hand_out_probes(now);
        self.publish(now);
        self.summaries.refresh(&self.region, &self.endpoints, agreed, now);
        before != (self.version, self.edges())
    }

    /// Whether something was said that may change a verdict; then [`Fleet::look_again`] is worth its while before the next tick.
    #[must_use]
    pub fn is_stirred(&self) -> bool {
        !self.stirred.is_empty()
    }

    /// Judges anew what was stirred. Whether edges have something new to hear.
    pub fn look_again(&mut self, now: Timestamp) -> bool {
        let before = self.version;
        let stirred = std::mem::take(&mut self.stirred);
        if !self.is_warm(now) {
            return false;
        }
        for id in stirred {
            if let Some(state) = self.endpoints.get_mut(&id) {
                state.judge(id, &self.edges, &mut self.judges, now);
            }
            self.publish_one(id);
        }
        self.version != before
    }

    /// Takes in what was agreed, before the next tick. Whether edges have something new to hear.
    pub fn hear(&mut self, agreed: &Health, now: Timestamp) -> bool {
        let before = self.version;
        self.hear_others(agreed, now);
        self.publish(now);
        self.version != before
    }

    /// Edges that reported in the last ten seconds: those that trust themselves, and those that do not.
    #[must_use]
    pub fn edges(&self) -> (u32, u32) {
        (self.edges.active, self.edges.suspects)
    }

    /// Who is connected first need not be who is there: a few of many edges make no quorum.
    fn is_warm(&mut self, now: Timestamp) -> bool {
        now.since(*self.began.get_or_insert(now)) >= WARM_UP
    }

    /// Evidence of other regions, and what it is worth at its age.
    fn hear_others(&mut self, agreed: &Health, now: Timestamp) {
        if agreed.leader_time_ms() != self.agreed.leader_time_ms {
            self.agreed = Agreed { leader_time_ms: agreed.leader_time_ms(), moved: now };
        }
        let quiet_ms = now.since(self.agreed.moved).as_millis() as u64;
        let mut said: BTreeMap<EndpointId, Vec<tidegate_routing::RegionSays>> = BTreeMap::new();
        for (_, cell, leader_time_ms) in agreed.cells().filter(|(region, _, _)| *region != self.region) {
            let age_ms = self.agreed.leader_time_ms.saturating_sub(leader_time_ms) + quiet_ms;
            if let Some(says) = digest::says(cell, age_ms) {
                said.entry(EndpointId(cell.endpoint)).or_default().push(says);
            }
        }
        for (id, state) in &mut self.endpoints {
            state.elsewhere = said.remove(id).and_then(|regions| tidegate_routing::elsewhere(&regions));
        }
        for (id, regions) in said {
            if self.endpoints.len() < MOST_ENDPOINTS {
                self.endpoints.entry(id).or_default().elsewhere = tidegate_routing::elsewhere(&regions);
            }
        }
    }

    /// Gives a new version to every cell that differs from what edges were told.
    fn publish(&mut self, now: Timestamp) {
        let mut gone = Vec::new();
        for (id, state) in &mut self.endpoints {
            state.expire(now);
            if state.republish(*id, &mut self.version, &mut self.changed) {
                continue;
            }
            if state.is_forgettable(now) {
                gone.push((*id, state.version()));
            }
        }
        for (id, version) in gone {
            self.endpoints.remove(&id);
            self.changed.remove(&version);
        }
    }

    fn publish_one(&mut self, id: EndpointId) {
        if let Some(state) = self.endpoints.get_mut(&id) {
            state.republish(id, &mut self.version, &mut self.changed);
        }
    }
}

/// A node that has just started waits for the region's edges before it concludes anything.
const WARM_UP: Duration = Duration::from_secs(5);
/// Most edges of a region that one node takes reports of; see the scale document for what breaks beyond.
const MOST_EDGES: usize = 5_000;
/// Most endpoints; the design sizes for 2,000.
const MOST_ENDPOINTS: usize = 20_000;
/// Reports that wait for the next exchange: 5,000 edges for 250 ms.
const MOST_OUTGOING: usize = 5_000;
/// An edge without a report for this long has no say.
const EDGE_SILENT: Duration = Duration::from_secs(10);
/// And is forgotten after this long.
const EDGE_FORGOTTEN: Duration = Duration::from_secs(60);
/// An increment over a longer time, from an edge that was cut off, says little about now: it counts for uptime only.
const OLDEST_WINDOW_MS: u32 = 5_000;
/// Reports come once a second at least; one that covers more was kept back, and how a breaker was then is not how it is now.
const NEWEST_WINDOW_MS: u32 = 1_500;

#[cfg(test)]
mod tests;
