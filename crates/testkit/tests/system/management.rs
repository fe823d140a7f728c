//! `/keys` from outside: management keys make, change and take away keys through an edge that follows a control node.

use http::Method;
use serde_json::{Value, json};
use tidegate_proto::Kind;
use tidegate_proto::v1::sync_client::SyncClient;
use tidegate_proto::v1::{CreateKey, KeyRole, ManageOperation, ManageRequest, command};
use tidegate_testkit::control::{Body, Following, FollowingEdge, key_of};
use tidegate_testkit::{Answer, Caller, Topology, chat};

const MANAGER: &str = "a-management-key-of-this-test";
const KEYS: &str = "/api/v1/keys";

fn one() -> Following {
    Topology::new().provider("a", |p| p.price = "2".into()).under_control()
}

/// Makes a management key and waits until the edge knows it.
async fn manager(following: &Following, edge: &FollowingEdge, id: &str, text: &str, organisation: &str) -> Caller {
    let mut key = key_of(id, text, "");
    key.set_role(KeyRole::Management);
    key.organisation = organisation.to_owned();
    let index = following.node.agree(command::Body::CreateKey(CreateKey { key: Some(key), ..CreateKey::default() }));
    following.node.until_applied("e", index).await;
    edge.caller().with_key(text)
}

async fn change(caller: &Caller, method: Method, hash: &str, body: &Value) -> Answer {
    caller.send(method, &format!("{KEYS}/{hash}"), body.to_string().into()).await
}

/// A good answer to `PATCH`.
async fn patch(caller: &Caller, hash: &str, body: Value) -> Value {
    let answer = change(caller, Method::PATCH, hash, &body).await;
    assert_eq!(answer.status, 200, "{body}: {}", answer.text());
    answer.json()["data"].clone()
}

async fn ask(caller: &Caller) -> u16 {
    caller.post("/v1/chat/completions", &chat("m", "hello")).await.status
}

async fn hashes(caller: &Caller, query: &str) -> Vec<String> {
    let answer = caller.get(&format!("{KEYS}{query}")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let keys = answer.json()["data"].as_array().expect("a list").clone();
    keys.iter().map(|key| key["hash"].as_str().expect("a hash").to_owned()).collect()
}

#[tokio::test]
async fn a_key_lives_from_its_creation_to_its_end() {
    let following = one();
    let edge = following.ready_edge("e").await;
    let manager = manager(&following, &edge, "manager", MANAGER, "").await;

    let asked = json!({ "name": "ci", "limit": 5, "limit_reset": "daily", "expires_at": "2100-01-01T00:00:00Z" });
    let made = manager.post(KEYS, &asked).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let (text, data) = (made.json()["key"].as_str().expect("the key, once").to_owned(), made.json()["data"].clone());
    let hash = data["hash"].as_str().expect("a hash").to_owned();
    assert!(text.starts_with("tg_live_") && hash.len() == 64, "{text} {hash}");
    assert_eq!((&data["name"], &data["limit"], &data["limit_reset"]), (&json!("ci"), &json!(5), &json!("daily")));
    assert_eq!((&data["expires_at"], &data["disabled"]), (&json!("2100-01-01T00:00:00.000Z"), &json!(false)));
    assert_eq!((&data["limit_remaining"], &data["usage"]), (&json!(5), &json!(0)));

    // The answer came after this edge had taken it in.
    let user = edge.caller().with_key(&text);
    assert_eq!(ask(&user).await, 200);
    // The ledger takes an answer in a moment after its last byte.
    let itself = loop {
        let itself = user.get("/v1/key").await.json()["data"].clone();
        if itself["usage"].as_f64().is_some_and(|usage| usage > 0.0) {
            break itself;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((&itself["hash"], &itself["limit"], itself["limit_reset"].as_str()), (&json!(hash), &json!(5), Some("daily")));
    let shown = manager.get(&format!("/v1/keys/{hash}")).await;
    let shown_data = shown.json()["data"].clone();
    for field in ["usage", "usage_daily", "usage_monthly"] {
        assert_eq!(shown_data[field], itself[field], "{field}");
    }
    assert!(shown_data["limit_remaining"].as_f64().is_some_and(|left| left > 4.0 && left < 5.0), "{shown_data}");
    assert!(!shown.text().contains(&text), "the text was there once");
    let id = shown_data["tidegate"]["id"].as_str().expect("an id").to_owned();
    assert_eq!(manager.get(&format!("{KEYS}/{id}")).await.json()["data"]["hash"], json!(hash), "its id names it too");

    // The first key of the mesh and this one; management keys are not among them.
    let listed = hashes(&manager, "").await;
    assert!(listed.len() == 2 && listed.contains(&hash), "{listed:?}");
    assert_eq!(hashes(&manager, "?offset=1").await.len(), 1);

    let poor = patch(&manager, &hash, json!({ "limit": 0.000001 })).await;
    assert_eq!((&poor["limit"], &poor["limit_reset"], &poor["limit_remaining"]), (&json!(0.000001), &json!("daily"), &json!(0)));
    // What was spent before is told to the counter of a new limit a moment later.
    let mut status = ask(&user).await;
    for _ in 0..1_000 {
        if status == 402 {
            break;
        }
        tokio::task::yield_now().await;
        status = ask(&user).await;
    }
    assert_eq!(status, 402);
    let free = patch(&manager, &hash, json!({ "limit": null, "name": "ci 2", "expires_at": null })).await;
    assert_eq!((&free["limit"], &free["name"], &free["expires_at"]), (&Value::Null, &json!("ci 2"), &Value::Null));
    assert_eq!(ask(&user).await, 200);

    patch(&manager, &hash, json!({ "disabled": true })).await;
    assert_eq!(ask(&user).await, 401);
    assert!(!hashes(&manager, "").await.contains(&hash) && hashes(&manager, "?include_disabled=true").await.contains(&hash));
    patch(&manager, &hash, json!({ "disabled": false })).await;
    assert_eq!(ask(&user).await, 200);

    let gone = change(&manager, Method::DELETE, &hash, &json!({})).await;
    assert_eq!((gone.status, gone.json()), (200, json!({ "deleted": true })));
    assert_eq!(ask(&user).await, 401);
    assert_eq!(manager.get(&format!("{KEYS}/{hash}")).await.status, 404);
    assert_eq!(ask(&edge.caller()).await, 200, "others are not concerned");

    let state = following.node.published().load();
    let said: Vec<_> = state.audit().entries().filter(|entry| entry.actor == "key:manager").map(|entry| entry.action.clone()).collect();
    assert_eq!(
        (said.first().map(String::as_str), said.last().map(String::as_str), said.len()),
        (Some("create_key"), Some("revoke_keys"), 6)
    );
    edge.edge.shutdown().await;
}

#[tokio::test]
async fn a_request_that_is_sent_again_makes_one_key() {
    let following = one();
    let edge = following.ready_edge("e").await;
    let manager = manager(&following, &edge, "manager", MANAGER, "").await.with_header("idempotency-key", "7");
    let first = manager.post(KEYS, &json!({ "name": "ci" })).await.json();
    let second = manager.post(KEYS, &json!({ "name": "ci" })).await.json();
    assert_eq!(first["data"]["hash"], second["data"]["hash"]);
    assert!(first["key"].is_string() && second.get("key").is_none(), "{second}");
    assert_eq!(manager.post(KEYS, &json!({ "name": "other" })).await.status, 422, "a name for one request");
    edge.edge.shutdown().await;
}

#[tokio::test]
async fn the_wrong_kind_of_key_and_wrong_requests_are_refused() {
    let following = one();
    let edge = following.ready_edge("e").await;
    let manager = manager(&following, &edge, "manager", MANAGER, "").await;
    let inference = edge.get(KEYS).await;
    assert_eq!((inference.status, inference.error_type().as_str()), (403, "permission_denied"), "{}", inference.text());
    assert_eq!(edge.post(KEYS, &json!({ "name": "x" })).await.status, 403);
    assert_eq!(ask(&manager).await, 403, "nor does a management key call models");
    assert_eq!(edge.caller().without_key().get(KEYS).await.status, 401);
    for body in [
        json!({}),
        json!([]),
        json!({ "name": " " }),
        json!({ "name": "x", "limit": -1 }),
        json!({ "name": "x", "limit": "5" }),
        json!({ "name": "x", "limit": 5, "limit_reset": "hourly" }),
        json!({ "name": "x", "limitt": 5 }),
        json!({ "name": "x", "expires_at": 5 }),
        json!({ "name": "x", "expires_at": "2026-12-31T00:00:00+02:00" }),
        json!({ "name": "x", "include_byok_in_limit": true }),
    ] {
        let answer = manager.post(KEYS, &body).await;
        assert_eq!((answer.status, answer.error_type().as_str()), (400, "invalid_request"), "{body}: {}", answer.text());
    }
    assert_eq!(manager.post(KEYS, &json!({ "name": "x", "workspace_id": "nowhere" })).await.status, 404);
    assert_eq!(manager.get(&format!("{KEYS}?offset=few")).await.status, 400);
    // Itself it does not reach: a management key cannot lock itself out, or make others of its kind.
    for handle in ["nothing", "manager", &"0".repeat(64)] {
        assert_eq!(manager.get(&format!("{KEYS}/{handle}")).await.status, 404, "{handle}");
        assert_eq!(change(&manager, Method::DELETE, handle, &json!({})).await.status, 404, "{handle}");
    }
    let wrong = manager.post(&format!("{KEYS}/x"), &json!({})).await;
    assert_eq!((wrong.status, wrong.header("allow")), (405, "GET, HEAD, PATCH, DELETE, OPTIONS"));
    edge.edge.shutdown().await;
}

#[tokio::test]
async fn a_management_key_of_an_organisation_reaches_its_keys_only() {
    let following = one();
    following.node.put(&[(Kind::Organisation, "acme", Body::default()), (Kind::Organisation, "other", Body::default())]);
    let edge = following.ready_edge("e").await;
    let acme = manager(&following, &edge, "manager", MANAGER, "acme").await;
    let other = manager(&following, &edge, "other", "another-management-key", "other").await;
    assert!(hashes(&acme, "").await.is_empty(), "the first key belongs to nobody");
    let made = acme.post(KEYS, &json!({ "name": "ci" })).await.json();
    assert_eq!(made["data"]["tidegate"]["organisation"], "acme");
    let hash = made["data"]["hash"].as_str().expect("a hash").to_owned();
    assert_eq!(hashes(&acme, "").await, std::slice::from_ref(&hash));
    assert!(hashes(&other, "").await.is_empty());
    assert_eq!(change(&other, Method::DELETE, &hash, &json!({})).await.status, 404);
    edge.edge.shutdown().await;
}

/// Edges hold digests of all keys, but not their texts: one that lies gets nothing.
#[tokio::test]
async fn an_edge_cannot_act_for_a_key_that_it_was_not_sent() {
    let following = one();
    let edge = following.ready_edge("e").await;
    manager(&following, &edge, "manager", MANAGER, "").await;
    let mut client = SyncClient::connect(format!("http://{}", following.node.address())).await.expect("the node listens");
    let mut list = async |public_id: &str, key: &str| {
        let operation = ManageOperation::List.into();
        let request = ManageRequest { public_id: public_id.into(), key: key.into(), operation, ..ManageRequest::default() };
        client.manage(request).await.expect("an answer").into_inner().status
    };
    assert_eq!(list("manager", MANAGER).await, 200);
    assert_eq!(list("manager", "").await, 401);
    assert_eq!(list("manager", tidegate_testkit::KEY).await, 401);
    assert_eq!(list("test", MANAGER).await, 401);
    assert_eq!(list("test", tidegate_testkit::KEY).await, 403);
    let index = following.node.set_disabled("manager", true);
    following.node.until_applied("e", index).await;
    assert_eq!(list("manager", MANAGER).await, 401);
    edge.edge.shutdown().await;
}

#[tokio::test]
async fn without_a_control_plane_the_answer_says_so() {
    let mesh = Topology::new().provider("a", |_| {}).start().await;
    let answer = mesh.get(KEYS).await;
    assert_eq!(answer.status, 404);
    assert!(answer.text().contains("no control plane"), "{}", answer.text());

    let following = one();
    let edge = following.ready_edge("e").await;
    let manager = manager(&following, &edge, "manager", MANAGER, "").await;
    following.node.kill().await;
    let answer = loop {
        let answer = manager.get(KEYS).await;
        assert_eq!(answer.status, 503, "{}", answer.text());
        // Until the edge has noticed, the call itself fails, which says less.
        if answer.text().contains("No control node can be reached") {
            break answer;
        }
    };
    assert_eq!(answer.header("retry-after"), "5");
    assert_eq!(ask(&edge.caller()).await, 200, "models are not concerned");
    following.node.revive().await;
    let found = async {
        while manager.get(KEYS).await.status != 200 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), found).await.expect("the edge finds it again");
    edge.edge.shutdown().await;
}
