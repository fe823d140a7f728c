//! Edges that follow a node of another region than their own.
//!
//! What they report belongs to their own region: it is passed on to the region's nodes, and one of those, their *host*, answers with what
//! the edge is to know. There the edge counts as if it were connected to the host. A region without nodes has no host; its edges count where
//! they are connected.

use std::collections::BTreeMap;

use tidegate_proto::v1::{FleetExchange, FleetExchanged, GuestView, HealthReport};
use tidegate_routing::Timestamp;

use super::{EDGE_FORGOTTEN, EDGE_SILENT, Fleet, MOST_EDGES, MOST_OUTGOING, Taken, ViewCursor};

/// On the node that guests follow: what they said since it was last passed on, by their region.
#[derive(Debug, Default)]
pub(super) struct Guests {
    regions: BTreeMap<String, Region>,
}

#[derive(Debug, Default)]
struct Region {
    edges: BTreeMap<String, Guest>,
    outbox: Vec<HealthReport>,
    host: Option<String>,
    heard: u64,
}

#[derive(Debug)]
struct Guest {
    newest: (u64, u64),
    seen: Timestamp,
}

/// What goes to the nodes of one region.
#[derive(Debug)]
pub(super) struct Errand {
    pub(super) region: String,
    /// Of these nodes, the host. The others get the reports only.
    pub(super) host: String,
    pub(super) others: Vec<String>,
    pub(super) exchange: FleetExchange,
}

impl Guests {
    /// Keeps a report until it is passed on. Whether it is new is for the rollout's count only: the host decides for itself.
    pub(super) fn take(&mut self, region: &str, edge: &str, mut report: HealthReport, now: Timestamp) -> Taken {
        let region = self.regions.entry(region.to_owned()).or_default();
        if !region.edges.contains_key(edge) && region.edges.len() >= MOST_EDGES {
            return Taken::Refused("too many edges of another region");
        }
        let guest = region.edges.entry(edge.to_owned()).or_insert(Guest { newest: (0, 0), seen: now });
        guest.seen = now;
        let number = (report.incarnation, report.seq);
        let taken = if number > guest.newest { Taken::New } else { Taken::Repeated };
        guest.newest = guest.newest.max(number);
        if region.outbox.len() < MOST_OUTGOING {
            edge.clone_into(&mut report.edge);
            region.outbox.push(report);
        }
        taken
    }

    /// What is to be passed on now. A host stays while it is among the nodes of its region.
    pub(super) fn errands(&mut self, node_id: u64, nodes_of: impl Fn(&str) -> Vec<String>, now: Timestamp) -> Vec<Errand> {
        let mut errands = Vec::new();
        self.regions.retain(|name, region| {
            region.edges.retain(|_, guest| now.since(guest.seen) <= EDGE_SILENT);
            if region.edges.is_empty() {
                return false;
            }
            let mut others = nodes_of(name);
            let stays = region.host.as_ref().and_then(|host| others.iter().position(|node| node == host));
            if others.is_empty() {
                return false;
            }
            let host = others.swap_remove(stays.unwrap_or(0));
            if stays.is_none() {
                (region.host, region.heard) = (Some(host.clone()), 0);
            }
            let exchange = FleetExchange {
                region: name.clone(),
                node_id,
                reports: std::mem::take(&mut region.outbox),
                probes: Vec::new(),
                guests: region.edges.keys().cloned().collect(),
                heard: region.heard,
            };
            errands.push(Errand { region: name.clone(), host, others, exchange });
            true
        });
        errands
    }

    /// The host has answered.
    pub(super) fn heard(&mut self, region: &str, host: &str, number: u64) {
        if let Some(region) = self.regions.get_mut(region).filter(|region| region.host.as_deref() == Some(host)) {
            region.heard = number;
        }
    }

    /// The host has not answered: the next node of the region is asked.
    pub(super) fn failed(&mut self, region: &str, host: &str, nodes: &[String]) {
        if let Some(region) = self.regions.get_mut(region).filter(|region| region.host.as_deref() == Some(host)) {
            let next = nodes.iter().position(|node| node == host).map_or(0, |at| (at + 1) % nodes.len());
            (region.host, region.heard) = (nodes.get(next).cloned(), 0);
        }
    }
}

/// On the host: how far the guests of one other node were told.
#[derive(Debug)]
pub(super) struct Hosted {
    number: u64,
    cursors: BTreeMap<String, ViewCursor>,
    seen: Timestamp,
}

impl Fleet {
    /// Takes in what guests reported to a node of another region, and says what they do not know yet.
    pub fn host(&mut self, exchange: FleetExchange, unix_ms: u64, now: Timestamp) -> FleetExchanged {
        if exchange.region != self.region || exchange.node_id == self.node_id || exchange.guests.len() > MOST_EDGES {
            return FleetExchanged::default();
        }
        for report in exchange.reports.iter().filter(|report| report.cells.len() <= super::MOST_ENDPOINTS) {
            if self.merge(&report.edge, report, true, now) == Taken::New {
                self.minutes.count(report, unix_ms);
            }
        }
        self.hosted.retain(|_, hosted| now.since(hosted.seen) <= EDGE_FORGOTTEN);
        let mut hosted = self.hosted.remove(&exchange.node_id).filter(|hosted| hosted.number == exchange.heard).unwrap_or(Hosted {
            // Unlike any that was heard, also after this node has started again.
            number: self.epoch,
            cursors: BTreeMap::new(),
            seen: now,
        });
        let mut cursors = BTreeMap::new();
        let mut views = Vec::new();
        for edge in exchange.guests {
            let mut cursor = hosted.cursors.remove(&edge).unwrap_or_default();
            if let Some(view) = self.view_for(&edge, &mut cursor, now) {
                views.push(GuestView { edge: edge.clone(), view: Some(view) });
            }
            cursors.insert(edge, cursor);
        }
        let number = hosted.number + 1;
        self.hosted.insert(exchange.node_id, Hosted { number, cursors, seen: now });
        FleetExchanged { views, number }
    }
}
