//! What control nodes of one process need to gather health together: the real fleet service of each, over one log and real sockets.

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::Registry;
use prost::Message;
use tidegate_control::fleet::{FleetConfig, FleetPeers, FleetService, Leader, endpoint_names};
use tidegate_control::node::tell_edges;
use tidegate_control::publisher::Followers;
use tidegate_control::{Alone, Published};
use tidegate_proto::v1::{Command, command};
use tidegate_runtime::Tasks;
use tidegate_runtime::clock::Clock;
use tidegate_runtime::mesh::PlainDialer;

/// The nodes that know each other, in the order in which they came. The first leads.
#[derive(Clone)]
pub(crate) struct Shared {
    clock: Clock,
    nodes: Arc<Mutex<Vec<Place>>>,
}

#[derive(Clone)]
struct Place {
    region: String,
    address: String,
}

impl Shared {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, nodes: Arc::default() }
    }

    /// Starts the share of the node at this address. Its tasks end with the others of the node.
    pub(crate) fn gather(
        &self,
        region: &str,
        address: &str,
        log: &Alone,
        published: &Published,
        followers: &Followers,
        tasks: &Tasks,
    ) -> FleetService {
        let place = Place { region: region.to_owned(), address: address.to_owned() };
        let number = {
            let mut nodes = self.nodes.lock();
            let known = nodes.iter().position(|known| known.address == place.address);
            known.unwrap_or_else(|| {
                nodes.push(place.clone());
                nodes.len() - 1
            })
        };
        let (named, near, leading, clock, log) = (published.clone(), self.nodes.clone(), self.nodes.clone(), self.clock, log.clone());
        let guests = followers.clone();
        let peers = FleetPeers {
            published: published.clone(),
            names: Arc::new(move || endpoint_names(&named.load())),
            nodes_of: Arc::new(move |region| {
                let nodes = near.lock();
                let others = nodes.iter().filter(|other| other.region == region && other.address != place.address);
                others.map(|other| other.address.clone()).collect()
            }),
            tell_guest: Arc::new(move |edge, view| guests.offer_health(edge, view)),
            leader: Arc::new(move || match number {
                0 => Leader::Here,
                _ => leading.lock().first().map_or(Leader::Unknown, |first| Leader::At(first.address.clone())),
            }),
            propose: Arc::new(move |batch| {
                let command = Command {
                    leader_time_ms: clock.unix_millis(),
                    actor: "system/health".to_owned(),
                    body: Some(command::Body::HealthBatch(batch)),
                    ..Command::default()
                };
                log.propose(command.encode_to_vec().into());
                Box::pin(std::future::ready(Ok(())))
            }),
            dial: Arc::new(PlainDialer::default()),
        };
        let config = FleetConfig { region: region.to_owned(), node_id: number as u64 + 1 };
        let service = FleetService::new(config, peers, self.clock, &Registry::new()).expect("a registry of its own");
        service.start(tasks);
        tasks.spawn("health-views", tell_edges(service.clone(), followers.clone(), tasks.shutdown().clone()));
        service
    }
}
