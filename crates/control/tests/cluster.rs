//! Three control nodes in one process over real sockets and disks: commands from any node, a lost leader, a node that comes back, a backup.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tidegate_consensus::{ConsensusConfig, Timing};
use tidegate_control::admin::{Access, Role};
use tidegate_control::shares::Declared;
use tidegate_control::{ControlConfig, Node, NodeServices};
use tidegate_proto::Kind;
use tidegate_proto::v1::relay_client::RelayClient;
use tidegate_proto::v1::shares_client::SharesClient;
use tidegate_proto::v1::sync_client::SyncClient;
use tidegate_proto::v1::{self, EdgeMessage, Goodbye, Hello, Position, ShareAssign, ShareReports, control_message, edge_message, proposed};
use tidegate_quota::{Dimension, Limit, LimitName, Period, Scope, ShareReport, Window};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Far above what any step takes, so that only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(60);

fn config(directory: &Path, name: &str, peers: &[String]) -> ControlConfig {
    let local: SocketAddr = ([127, 0, 0, 1], 0).into();
    let mut consensus = ConsensusConfig::new(directory.join(name), name, "127.0.0.1:0");
    consensus.region = "eu".into();
    consensus.timing = Timing::LOCAL;
    consensus.peers = peers.to_vec();
    consensus.ballast = 1 << 20;
    ControlConfig {
        consensus,
        raft_listen: local,
        sync_listen: local,
        admin_listen: local,
        operations: None,
        admin_address: "127.0.0.1:0".into(),
        sync_address: "127.0.0.1:0".into(),
        identity: None,
        access: Access { anyone: Role::ALL.into_iter().collect(), ..Access::default() },
        keyring: None,
        pepper: None,
        bake: Duration::from_secs(1),
        audit_archive: directory.join(name).join("audit"),
    }
}

async fn start(config: ControlConfig) -> Node {
    let services = NodeServices {
        registry: prometheus::Registry::new(),
        validate: Arc::new(|_| Ok(())),
        validate_policy: Arc::new(|_| Ok(())),
        read_limits: Arc::new(read_limits),
        build: "test".into(),
    };
    Node::start(config, services).await.unwrap()
}

async fn send(address: SocketAddr, method: Method, path: &str, body: Bytes) -> (StatusCode, Bytes) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let request = Request::builder().method(method).uri(format!("/admin/v1{path}")).header("host", "control").header("x-reason", "test");
    let asking = async {
        let response = sender.send_request(request.body(Full::new(body)).unwrap()).await.unwrap();
        let status = response.status();
        (status, response.into_body().collect().await.unwrap().to_bytes())
    };
    tokio::pin!(asking);
    tokio::select! {
        answer = &mut asking => answer,
        _ = connection => asking.await,
    }
}

async fn call(node: &Node, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
    let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
    let (status, body) = send(node.bound().admin, method, path, body).await;
    (status, serde_json::from_slice(&body).unwrap())
}

async fn good(node: &Node, method: Method, path: &str, body: Value) -> Value {
    let (status, body) = call(node, method, path, body).await;
    assert!(status.is_success(), "{path}: {status} {body}");
    body
}

/// Waits until an answer is what is wanted; the last one is shown when it never is.
async fn until(what: &str, node: &Node, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    let waiting = async {
        loop {
            last = call(node, Method::GET, path, Value::Null).await.1;
            if wanted(&last) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let done = tokio::time::timeout(PATIENCE, waiting).await.is_ok();
    assert!(done, "{what}: {last}");
    last
}

fn voters(cluster: &Value) -> usize {
    cluster["members"].as_array().into_iter().flatten().filter(|member| member["voter"] == true).count()
}

async fn three(directory: &Path) -> Vec<Node> {
    let first = start(config(directory, "a", &[])).await;
    good(&first, Method::POST, "/cluster/init", json!({ "cluster_id": "test" })).await;
    good(&first, Method::POST, "/cluster/init", json!({ "cluster_id": "test" })).await;
    let peers = [first.bound().raft.to_string()];
    let mut nodes = vec![first];
    for name in ["b", "c"] {
        let node = start(config(directory, name, &peers)).await;
        good(&node, Method::POST, "/cluster/join", json!({})).await;
        nodes.push(node);
    }
    until("three voters", &nodes[0], "/cluster", |cluster| voters(cluster) == 3).await;
    nodes
}

fn model(number: u32) -> Value {
    json!({ "upserts": [{ "kind": "model", "name": format!("acme/m{number}"), "spec": { "n": number } }], "immediate": true })
}

async fn stop(nodes: Vec<Node>) {
    for node in nodes {
        node.shutdown(Duration::from_secs(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_node_takes_commands_and_answers_reads_that_see_them() {
    let directory = tempfile::tempdir().unwrap();
    let nodes = three(directory.path()).await;
    for (number, node) in nodes.iter().enumerate() {
        let done = good(node, Method::POST, "/apply", model(number as u32)).await;
        for other in &nodes {
            let seen = good(other, Method::GET, "/resources?kind=model", Value::Null).await;
            assert_eq!(seen["resources"].as_array().unwrap().len(), number + 1, "a read after a write sees it, wherever");
            assert_eq!(seen["revision"], done["revision"]);
        }
    }
    let digests: Vec<String> = nodes.iter().map(|node| node.published().load().digest().to_string()).collect();
    assert!(digests.iter().all(|digest| *digest == digests[0]));
    // Leadership moves on request, asked of any node.
    let leader = nodes[0].consensus().status().leader.unwrap();
    let follower = nodes.iter().find(|node| node.consensus().status().node_id != leader).unwrap();
    let moved = good(follower, Method::POST, "/cluster/transfer-leader", json!({})).await;
    assert_ne!(moved["node_id"], leader);
    let audit =
        until("the change is in the audit log", follower, "/audit", |audit| audit["entries"][0]["action"] == "transfer leadership").await;
    assert_eq!(audit["entries"][0]["actor"], "anyone");
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_go_on_without_one_node_and_it_catches_up() {
    let directory = tempfile::tempdir().unwrap();
    let mut nodes = three(directory.path()).await;
    good(&nodes[0], Method::POST, "/apply", model(1)).await;
    let leader = nodes[0].consensus().status().leader.unwrap();
    let position = nodes.iter().position(|node| node.consensus().status().node_id == leader).unwrap();
    let lost = nodes.remove(position);
    let (name, raft) = (["a", "b", "c"][position], lost.bound().raft);
    lost.shutdown(Duration::from_secs(5)).await;

    // The caller waits while another leader is found.
    good(&nodes[0], Method::POST, "/apply", model(2)).await;
    let mut again = config(directory.path(), name, &[]);
    again.raft_listen = raft;
    let back = start(again).await;
    let seen =
        until("it has caught up", &back, "/resources?kind=model", |seen| seen["resources"].as_array().is_some_and(|all| all.len() == 2))
            .await;
    assert_eq!(seen["resources"][1]["spec"], json!({ "n": 2 }));
    nodes.push(back);
    stop(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_founds_another_cluster_with_the_same_state() {
    let directory = tempfile::tempdir().unwrap();
    let first = start(config(directory.path(), "a", &[])).await;
    let (early, _) = call(&first, Method::POST, "/apply", model(1)).await;
    assert_eq!(early, StatusCode::SERVICE_UNAVAILABLE, "a node without a cluster takes no commands");
    good(&first, Method::POST, "/cluster/init", json!({ "cluster_id": "test" })).await;
    let (other, refused) = call(&first, Method::POST, "/cluster/init", json!({ "cluster_id": "other" })).await;
    assert_eq!(other, StatusCode::CONFLICT, "{refused}");
    good(&first, Method::POST, "/apply", model(1)).await;
    let (status, backup) = send(first.bound().admin, Method::GET, "/cluster/backup", Bytes::new()).await;
    assert_eq!(status, StatusCode::OK);

    let second = start(config(directory.path(), "b", &[])).await;
    let (status, answer) = send(second.bound().admin, Method::POST, "/cluster/restore?cluster_id=copy", backup).await;
    assert_eq!(status, StatusCode::OK, "{answer:?}");
    let seen = until("it answers", &second, "/resources?kind=model", |seen| seen["resources"].is_array()).await;
    assert_eq!(seen["resources"][0]["spec"], json!({ "n": 1 }));
    good(&second, Method::POST, "/apply", model(2)).await;
    assert_eq!(good(&first, Method::GET, "/resources", Value::Null).await["resources"].as_array().unwrap().len(), 1);
    stop(vec![first, second]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_edges_a_staged_change_is_everywhere_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(config(directory.path(), "a", &[])).await;
    good(&node, Method::POST, "/cluster/init", json!({ "cluster_id": "test" })).await;
    let mut change = model(1);
    change["immediate"] = false.into();
    good(&node, Method::POST, "/apply", change).await;
    let rollouts = until("the rollout is done", &node, "/rollouts", |rollouts| rollouts["rollouts"][0]["stage"] == "done").await;
    assert_eq!(rollouts["rollouts"][0]["note"], "no edge is connected");
    stop(vec![node]).await;
}

/// `{"rate": N}`, `{"budget": N}` or `{"regions": […]}`.
/// A relayed command that is longer than what the leader reads of it comes from a newer node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_does_not_know_all_of_a_command_is_named_and_proposes_nothing_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let nodes = three(directory.path()).await;
    let status = nodes[0].consensus().status();
    let leader = nodes.iter().find(|node| node.consensus().status().node_id == status.leader.unwrap()).unwrap();
    let name = status.leader_member().unwrap().instance.name.clone();
    let mut client = RelayClient::connect(format!("http://{}", leader.bound().raft)).await.unwrap();
    let note = v1::Command {
        actor: "ann".into(),
        body: Some(v1::command::Body::Note(v1::Note { action: "look".into() })),
        ..v1::Command::default()
    };
    let mut propose = async |more: usize| {
        let mut request = tonic::Request::new(note.clone());
        let bytes = prost::Message::encoded_len(&note) + more;
        request.metadata_mut().insert("tidegate-command-bytes", bytes.to_string().parse().unwrap());
        client.propose(request).await.unwrap().into_inner().outcome.unwrap()
    };
    let entries = || leader.published().load().audit().entries().filter(|entry| entry.action == "look").count();
    let before = entries();
    match propose(3).await {
        proposed::Outcome::Outdated(outdated) => assert_eq!((outdated.node, outdated.build), (name, "test".to_owned())),
        other => panic!("{other:?}"),
    }
    assert_eq!(entries(), before, "nothing of it was agreed on");
    assert!(matches!(propose(0).await, proposed::Outcome::Committed(_)));
    assert_eq!(entries(), before + 1);
    stop(nodes).await;
}

/// An edge as far as a control node can tell: it takes what comes and confirms it.
struct Follower {
    say: mpsc::Sender<EdgeMessage>,
    following: tokio::task::JoinSet<()>,
}

impl Follower {
    async fn start(node: &Node, name: &str) -> Follower {
        let (say, queue) = mpsc::channel(16);
        let hello = Hello { edge_id: name.into(), region: "eu".into(), build: "t".into(), schema_max: 1, ..Hello::default() };
        say.send(EdgeMessage { body: Some(edge_message::Body::Hello(hello)) }).await.unwrap();
        let mut client = SyncClient::connect(format!("http://{}", node.bound().sync)).await.unwrap();
        let mut incoming = client.follow(ReceiverStream::new(queue)).await.unwrap().into_inner();
        let confirm = say.downgrade();
        let mut following = tokio::task::JoinSet::new();
        following.spawn(async move {
            while let Ok(Some(message)) = incoming.message().await {
                let received = match message.body {
                    Some(control_message::Body::Snapshot(v1::Snapshot { part: Some(v1::snapshot::Part::End(end)) })) => end.position,
                    Some(control_message::Body::Delta(delta)) => delta.to,
                    _ => None,
                };
                let (Some(Position { index, .. }), Some(say)) = (received, confirm.upgrade()) else { continue };
                let ack = v1::Ack { received: index, applied: index, revoked: index };
                let _ = say.send(EdgeMessage { body: Some(edge_message::Body::Ack(ack)) }).await;
            }
        });
        Follower { say, following }
    }

    /// As a process that is killed, or a cable that is cut.
    fn cut(mut self) {
        self.following.abort_all();
    }

    async fn stop(mut self) {
        self.say.send(EdgeMessage { body: Some(edge_message::Body::Goodbye(Goodbye {})) }).await.unwrap();
        drop(self.say);
        self.following.join_next().await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_names_the_edge_that_was_cut_off_and_none_that_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let nodes = three(directory.path()).await;
    let (stays, cut) = (Follower::start(&nodes[0], "stays").await, Follower::start(&nodes[1], "cut").await);
    let (moves, stops) = (Follower::start(&nodes[1], "moves").await, Follower::start(&nodes[1], "stops").await);
    let count = |what: &'static str, many: usize| move |seen: &Value| seen[what].as_array().is_some_and(|edges| edges.len() == many);
    until("four edges", &nodes[2], "/edges", count("edges", 4)).await;
    // From one node to another and then away for good: the first node only knows that it went.
    moves.cut();
    let moved = Follower::start(&nodes[0], "moves").await;
    stops.stop().await;
    cut.cut();
    until("one is lost", &nodes[2], "/edges", count("lost", 1)).await;

    let revoke = async |node: &Node| {
        let key = good(node, Method::POST, "/keys", json!({ "name": "k" })).await;
        let id = key["id"].as_str().unwrap();
        good(node, Method::POST, &format!("/keys/{id}/revoke?wait=all"), json!({})).await
    };
    let answer = revoke(&nodes[2]).await;
    assert_eq!((&answer["confirmed"], &answer["missing"]), (&json!(2), &json!([])), "{answer}");
    let lost = answer["lost"].as_array().unwrap();
    assert_eq!((lost.len(), &lost[0]["edge"], &lost[0]["region"]), (1, &json!("cut"), &json!("eu")), "{answer}");

    // It comes back, wherever, and has it all before anything else; another one stops.
    let back = Follower::start(&nodes[0], "cut").await;
    moved.stop().await;
    until("two are left, none is lost", &nodes[2], "/edges", |seen| count("edges", 2)(seen) && count("lost", 0)(seen)).await;
    let answer = revoke(&nodes[2]).await;
    assert_eq!((&answer["confirmed"], &answer["missing"], &answer["lost"]), (&json!(2), &json!([]), &json!([])), "{answer}");
    stays.cut();
    back.cut();
    stop(nodes).await;
}

fn read_limits(kind: Kind, body: &[u8]) -> Declared {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let limit = |name: &str, dimension| {
        let amount = body[name].as_u64()?;
        Some(Limit { global: true, ..Limit::new(Scope::Organisation, dimension, amount) })
    };
    match kind {
        Kind::Organisation => {
            let limits = [limit("rate", Dimension::RequestsPerMinute), limit("budget", Dimension::Spend(Window::Total))];
            Declared { limits: limits.into_iter().flatten().collect(), regions: Vec::new() }
        }
        Kind::Defaults => {
            let regions = body["regions"].as_array().into_iter().flatten().filter_map(Value::as_str);
            Declared { limits: Vec::new(), regions: regions.map(str::to_owned).collect() }
        }
        _ => Declared::default(),
    }
}

/// What the node that leads answers to one report of a region; asked of every node until one does.
async fn share(nodes: &[Node], region: &str, limit: &LimitName, report: ShareReport) -> ShareAssign {
    let reports = ShareReports {
        region: region.into(),
        edge: format!("{region}-1"),
        shared_store: true,
        reports: vec![v1::ShareReport::of(limit, &report)],
        ..ShareReports::default()
    };
    let asking = async {
        loop {
            for node in nodes {
                let mut client = SharesClient::connect(format!("http://{}", node.bound().raft)).await.unwrap();
                let answer = client.report(reports.clone()).await.unwrap().into_inner();
                if let Some(share) = answer.assign.and_then(|assign| assign.shares.first().copied()) {
                    return share;
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.expect("some node leads and knows the limit")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_regions_were_lent_and_hold_outlives_the_leader_and_reports_cost_no_entries() {
    const BUDGET: u64 = 5_000_000;
    let directory = tempfile::tempdir().unwrap();
    let mut nodes = three(directory.path()).await;
    let declared = json!({ "immediate": true, "upserts": [
        { "kind": "organisation", "name": "acme", "spec": { "budget": BUDGET } },
        { "kind": "organisation", "name": "blue", "spec": { "rate": 600 } },
        { "kind": "defaults", "name": "mesh", "spec": { "regions": ["eu", "us"] } },
    ] });
    good(&nodes[0], Method::POST, "/apply", declared).await;
    let name = |owner: &str, dimension: Dimension| LimitName {
        scope: Scope::Organisation,
        owner: owner.into(),
        dimension,
        model: None,
        provider: None,
        period: dimension.window().map(|window| Period::containing(0, window, 0)),
    };
    let (budget, rate) = (name("acme", Dimension::Spend(Window::Total)), name("blue", Dimension::RequestsPerMinute));

    let asks = ShareReport { id: 1, demand: 100, wanted: 500_000, ..ShareReport::default() };
    let lent = loop {
        let share = share(&nodes, "eu", &budget, asks.clone()).await;
        if share.amount > 0 {
            break share;
        }
    };
    let held = share(&nodes, "eu", &rate, ShareReport { id: 2, demand: 100, ..ShareReport::default() }).await;
    assert_eq!((lent.amount, held.amount), (1_500_000, 570));

    // Reports that change nothing leave no trace in the log.
    let applied = |nodes: &[Node]| nodes.iter().map(|node| node.consensus().status().applied).max().unwrap();
    let before = applied(&nodes);
    for id in 10..210 {
        share(&nodes, "eu", &budget, ShareReport { id, holding: lent.sequence, ..asks.clone() }).await;
        share(&nodes, "eu", &rate, ShareReport { id, demand: id, holding: held.sequence, ..ShareReport::default() }).await;
    }
    let entries = applied(&nodes) - before;
    println!("400 reports, {entries} entries");
    assert!(entries <= 4, "{entries} entries for 400 reports");

    let leader = nodes[0].consensus().status().leader.unwrap();
    let position = nodes.iter().position(|node| node.consensus().status().node_id == leader).unwrap();
    nodes.remove(position).shutdown(Duration::from_secs(5)).await;

    // The new leader prolongs what one region proves to hold, and does not know yet that the other holds nothing.
    let proof =
        ShareReport { id: 300, demand: 100, holding: held.sequence, amount: held.amount, left: 14_000_000, ..ShareReport::default() };
    let kept = share(&nodes, "eu", &rate, proof).await;
    assert_eq!(kept.amount, held.amount);
    assert!(kept.sequence > held.sequence, "newer than what the leader before told");
    let other = share(&nodes, "us", &rate, ShareReport { id: 301, demand: 10_000, ..ShareReport::default() }).await;
    assert_eq!(other.amount, 30, "its floor");
    // Money that was lent stays lent.
    let greedy = ShareReport { id: 302, demand: 1, wanted: 100 * BUDGET, ..ShareReport::default() };
    let rest = loop {
        let share = share(&nodes, "us", &budget, greedy.clone()).await;
        if share.amount > 0 {
            break share;
        }
    };
    assert_eq!(rest.amount, BUDGET - lent.amount);
    stop(nodes).await;
}
