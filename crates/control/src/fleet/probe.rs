//! One probe per region: who may try an endpoint that was taken out.
//!
//! A token holds for ten seconds and allows one request at a time. It goes to edges that used the endpoint, in turn, because only a
//! real request can use it, and an edge nobody asks for that model would let it lapse.

use std::sync::Arc;
use std::time::Duration;

use tidegate_proto::v1::{FleetExchange, HeldProbe, ProbeToken};
use tidegate_routing::{EndpointId, RegionVerdict, Timestamp};

use super::{EDGE_SILENT, Edge, Fleet};

/// A token that was handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) edge: Arc<str>,
    pub(super) until: Timestamp,
}

impl Fleet {
    pub(super) fn hand_out_probes(&mut self, now: Timestamp) {
        let edges = &self.edges.known;
        let can_probe = |edge: &Edge| edge.here && !edge.suspect && now.since(edge.seen) <= EDGE_SILENT;
        for state in self.endpoints.values_mut() {
            if state.verdict() != RegionVerdict::Probing {
                state.token = None;
                continue;
            }
            state.token = state.token.take().filter(|held| held.until > now && edges.get(&held.edge).is_some_and(can_probe));
            state.foreign_token = state.foreign_token.filter(|(_, until)| *until > now);
            if state.token.is_some() || state.foreign_token.is_some() {
                continue;
            }
            let candidates = || edges.iter().filter(|(_, edge)| can_probe(edge)).map(|(name, _)| name);
            let users = || candidates().filter(|name| state.is_used_by(name));
            let after = |name: &&Arc<str>| state.last_holder.as_ref().is_none_or(|last| *name > last);
            let next = users().find(after).or_else(|| users().next()).or_else(|| candidates().find(after)).or_else(|| candidates().next());
            let Some(edge) = next.cloned() else { continue };
            state.last_holder = Some(Arc::clone(&edge));
            state.token = Some(Held { edge, until: now + TOKEN_LIFETIME });
        }
    }

    /// Other nodes' tokens. When two were handed out at the same moment, the lower node keeps its own.
    pub(super) fn take_foreign_probes(&mut self, exchange: &FleetExchange, now: Timestamp) {
        for state in self.endpoints.values_mut() {
            state.foreign_token = state.foreign_token.filter(|(node, _)| *node != exchange.node_id);
        }
        for probe in &exchange.probes {
            let Some(state) = self.endpoints.get_mut(&EndpointId(probe.endpoint)) else { continue };
            let until = now + Duration::from_millis(probe.expires_in_ms.into()).min(TOKEN_LIFETIME);
            state.foreign_token = Some((exchange.node_id, until));
            if exchange.node_id < self.node_id {
                state.token = None;
            }
        }
    }

    pub(super) fn held_probes(&self, now: Timestamp) -> Vec<HeldProbe> {
        let held = self.endpoints.iter().filter_map(|(id, state)| Some((id, state.token.as_ref()?)));
        let told = held.map(|(id, held)| HeldProbe {
            endpoint: id.0,
            edge: held.edge.to_string(),
            expires_in_ms: held.until.since(now).as_millis() as u32,
        });
        told.collect()
    }

    /// The tokens an edge holds.
    pub(super) fn tokens_of(&self, edge: &str, now: Timestamp) -> Vec<ProbeToken> {
        let held = self.endpoints.iter().filter_map(|(id, state)| Some((id, state.token.as_ref()?)));
        let own = held.filter(|(_, held)| &*held.edge == edge);
        own.map(|(id, held)| ProbeToken { endpoint: id.0, expires_in_ms: held.until.since(now).as_millis() as u32 }).collect()
    }
}

/// How long an edge has to find a request that can use it.
const TOKEN_LIFETIME: Duration = Duration::from_secs(10);
