//! Control nodes of this process, and what is agreed on in them.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use tidegate_consensus::{ConsensusConfig, Timing};
use tidegate_control::admin::Access;
use tidegate_control::{ControlConfig, Node, NodeServices};
use tidegate_proto::Kind;
use tidegate_proto::v1::{Change, Command, Reply, Resource, command, reply};
use tidegate_testkit::control::id;

/// Where a node is.
pub(crate) struct Place<'a> {
    pub(crate) name: &'a str,
    pub(crate) region: &'a str,
    pub(crate) address: IpAddr,
    pub(crate) timing: Timing,
    pub(crate) peers: Vec<String>,
}

/// A node on a disk of its own, which belongs to no cluster yet.
pub(crate) async fn node(directory: &Path, place: Place<'_>) -> (Node, prometheus::Registry) {
    let any_port = SocketAddr::new(place.address, 0);
    let mut consensus = ConsensusConfig::new(directory.join(place.name), place.name, any_port.to_string());
    place.region.clone_into(&mut consensus.region);
    (consensus.timing, consensus.peers) = (place.timing, place.peers);
    let config = ControlConfig {
        consensus,
        raft_listen: any_port,
        sync_listen: any_port,
        admin_listen: any_port,
        operations: None,
        admin_address: any_port.to_string(),
        sync_address: any_port.to_string(),
        identity: None,
        access: Access::default(),
        keyring: None,
        pepper: None,
        bake: Duration::from_secs(30),
        audit_archive: directory.join(place.name).join("audit"),
    };
    let registry = prometheus::Registry::new();
    let services = NodeServices {
        registry: registry.clone(),
        validate: Arc::new(|_| Ok(())),
        validate_policy: Arc::new(|_| Ok(())),
        read_limits: Arc::new(|_, _| tidegate_control::shares::Declared::default()),
        build: "measured".into(),
    };
    (Box::pin(Node::start(config, services)).await.expect("the node starts"), registry)
}

/// One node of a cluster of one.
pub(crate) async fn alone(directory: &Path) -> (Node, prometheus::Registry) {
    let place = Place { name: "a", region: "eu", address: [127, 0, 0, 1].into(), timing: Timing::LOCAL, peers: Vec::new() };
    let (node, registry) = node(directory, place).await;
    found(&node).await;
    (node, registry)
}

pub(crate) async fn found(node: &Node) {
    node.consensus().init("mesh").await.expect("a cluster of one");
    while !node.consensus().leads() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) async fn propose(node: &Node, body: command::Body) {
    let command = Command { leader_time_ms: 1, actor: "measure".to_owned(), body: Some(body), ..Command::default() };
    let committed = node.consensus().propose(command.encode_to_vec().into()).await.expect("a leader");
    let reply = Reply::decode(committed.response).expect("a reply");
    assert!(matches!(reply.outcome, Some(reply::Outcome::Applied(_))), "{reply:?}");
}

pub(crate) async fn declare(node: &Node, endpoints: u32) {
    let body = |name: &str| {
        format!(
            r#"{{"provider":"p","model":"{name}","upstream_model":"{name}-2027-01","prices":{{"prompt":1.25,"completion":10,"cache_read":0.125}},"context_length":400000,"max_output":32000}}"#
        )
    };
    let endpoint = |number: u32| {
        let name = endpoint_name(number);
        Resource { id: Some(id(Kind::Endpoint, &name)), body: body(&name).into(), revision: 0 }
    };
    let upserts = (0..endpoints).map(endpoint).collect();
    propose(node, command::Body::Change(Change { upserts, immediate: true, ..Change::default() })).await;
}

pub(crate) fn endpoint_name(number: u32) -> String {
    format!("acme/model-{number}@provider-{}", number % 60)
}
