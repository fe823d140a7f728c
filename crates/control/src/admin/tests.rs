//! The API over real sockets, on a cluster of one node in memory.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tidegate_proto::Problem;
use tidegate_runtime::mesh::{PlainDialer, PlainListener};
use tidegate_runtime::sealing::{Kek, Keyring};
use tidegate_runtime::{Clock, Tasks};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::agreement::{Agreement, Alone};
use crate::machine::Machine;
use crate::publisher::Followers;

const OPERATOR: &str = "t-operator";
const KEYS: &str = "t-keys";
const SECRETS: &str = "t-secrets";
const VIEWER: &str = "t-viewer";

struct Api {
    address: SocketAddr,
    published: Published,
    tasks: Tasks,
    keyring: Keyring,
}

/// What the rules of these tests say: a model whose spec is `"bad"` cannot be used.
fn no_bad_models(resources: &[Resource]) -> Result<(), Vec<Problem>> {
    let bad = resources.iter().filter(|resource| resource.body.as_ref() == b"\"bad\"");
    let problems: Vec<_> = bad
        .map(|resource| Problem {
            resource: resource.id.clone(),
            path: "x".into(),
            message: "it is bad".into(),
            help: vec!["be good".into()],
        })
        .collect();
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

impl Api {
    async fn start() -> Api {
        let machine = Machine::new();
        let published = machine.published().clone();
        let agreement = Agreement::Alone(Alone::new("here", machine));
        let (clock, tasks) = (Clock::start(), Tasks::new());
        let peers = Arc::new(Peers::new(Arc::new(PlainDialer::default())));
        let token = |name: &str, roles: &[Role]| Token {
            name: name[2..].to_owned(),
            digest: *blake3::hash(name.as_bytes()).as_bytes(),
            roles: roles.iter().copied().collect(),
        };
        let keyring = Keyring::of(Kek::generate("k1").unwrap());
        let admin = Admin::new(AdminParts {
            proposer: Proposer::new(agreement.clone(), published.clone(), Arc::clone(&peers), clock),
            published: published.clone(),
            peers: Arc::clone(&peers),
            edges: Edges::new(Followers::default(), peers, agreement, clock),
            fleet: Arc::default(),
            access: Access {
                tokens: vec![
                    token(OPERATOR, &[Role::Operator]),
                    token(KEYS, &[Role::KeyAdmin]),
                    token(SECRETS, &[Role::Operator, Role::SecretAdmin]),
                    token(VIEWER, &[Role::Viewer]),
                ],
                ..Access::default()
            },
            validate: Arc::new(no_bad_models),
            validate_policy: Arc::new(|policy| {
                let problem = Problem { resource: None, path: String::new(), message: "not so".into(), help: Vec::new() };
                if policy.starts_with(br#"{"no"#) { Err(vec![problem]) } else { Ok(()) }
            }),
            keyring: Some(keyring.public()),
            pepper: None,
            join_peers: Vec::new(),
            build: "test".into(),
            clock,
            tasks: tasks.clone(),
        });
        let listener = PlainListener::new(TcpListener::bind("127.0.0.1:0").await.unwrap());
        let address = listener.local_addr().unwrap();
        tasks.spawn("admin", serve(admin, Arc::new(listener)));
        Api { address, published, tasks, keyring }
    }

    async fn call(&self, method: Method, path: &str, token: &str, body: Option<Value>) -> (StatusCode, Value) {
        self.call_with(method, path, token, body, &[]).await
    }

    async fn call_with(
        &self,
        method: Method,
        path: &str,
        token: &str,
        body: Option<Value>,
        headers: &[(&str, &str)],
    ) -> (StatusCode, Value) {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        self.tasks.spawn("client", async move {
            let _ = connection.await;
        });
        let mut request = Request::builder().method(method).uri(path).header("host", "control");
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let response = sender.send_request(request.body(Full::new(body)).unwrap()).await.unwrap();
        assert!(response.headers().contains_key("x-index"));
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{error}: {body:?}")))
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = self.call(Method::GET, &format!("/admin/v1{path}"), VIEWER, None).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        body
    }

    async fn post(&self, path: &str, token: &str, body: Value) -> (StatusCode, Value) {
        self.call(Method::POST, &format!("/admin/v1{path}"), token, Some(body)).await
    }
}

fn model(name: &str, spec: Value) -> Value {
    json!({ "kind": "model", "name": name, "spec": spec })
}

fn code(answer: &(StatusCode, Value)) -> (u16, &str) {
    (answer.0.as_u16(), answer.1["error"]["code"].as_str().unwrap_or("none"))
}

#[tokio::test]
async fn what_is_applied_is_planned_first_and_is_one_revision() {
    let api = Api::start().await;
    let change = json!({ "upserts": [model("a/b", json!({"z": 1, "a": 2})), model("a/c", json!({}))], "reason": "first" });
    let (status, plan) = api.post("/plan", VIEWER, change.clone()).await;
    assert_eq!((status, plan["changes"].as_array().unwrap().len()), (StatusCode::OK, 2));
    assert_eq!(plan["changes"][0]["action"], "create");
    assert_eq!(api.get("/resources").await["resources"], json!([]), "a plan changes nothing");

    let (status, done) = api.post("/apply", OPERATOR, change.clone()).await;
    assert_eq!((status, &done["changed"]), (StatusCode::OK, &json!(2)), "{done}");
    let revision = done["revision"].as_u64().unwrap();
    let (_, again) = api.post("/apply", OPERATOR, change).await;
    assert_eq!((again["changed"].as_u64(), again["revision"].as_u64()), (Some(0), Some(revision)));
    let one = api.get("/resources/model/a/b").await;
    assert_eq!(one["spec"].to_string(), r#"{"a":2,"z":1}"#, "canonical");

    let (_, pruned) = api.post("/apply", OPERATOR, json!({ "upserts": [model("a/c", json!({}))], "prune": true, "reason": "less" })).await;
    assert_eq!(pruned["changes"], json!([{ "action": "delete", "kind": "model", "name": "a/b", "before": {"a":2,"z":1}, "after": null }]));
}

#[tokio::test]
async fn rules_are_asked_before_anything_is_agreed_on() {
    let api = Api::start().await;
    let refused = api.post("/apply", OPERATOR, json!({ "upserts": [model("a/b", json!("bad"))], "reason": "r" })).await;
    assert_eq!(code(&refused), (422, "invalid"));
    assert_eq!(
        refused.1["error"]["problems"][0],
        json!({ "kind": "model", "name": "a/b", "path": "x", "message": "it is bad", "help": ["be good"] })
    );
    assert_eq!(api.published.load().applied(), 0);
}

#[tokio::test]
async fn roles_are_needed_and_so_is_a_reason() {
    let api = Api::start().await;
    let change = json!({ "upserts": [model("a/b", json!({}))], "reason": "r" });
    assert_eq!(code(&api.post("/apply", "", change.clone()).await), (401, "unauthorized"));
    assert_eq!(code(&api.post("/apply", "t-guess", change.clone()).await), (401, "unauthorized"));
    for token in [VIEWER, KEYS] {
        assert_eq!(code(&api.post("/apply", token, change.clone()).await), (403, "forbidden"));
    }
    assert_eq!(code(&api.post("/apply", OPERATOR, json!({ "upserts": [] })).await), (400, "bad_request"));
    assert_eq!(code(&api.post("/keys", OPERATOR, json!({ "name": "k", "reason": "r" })).await), (403, "forbidden"));
    assert_eq!(code(&api.post("/apply", OPERATOR, json!({ "upsert": [], "reason": "r" })).await), (400, "bad_request"));
}

#[tokio::test]
async fn an_expected_revision_that_is_not_there_is_a_conflict() {
    let api = Api::start().await;
    let with = |expected: u64| json!({ "upserts": [model("a/b", json!(expected))], "expected_revision": expected, "reason": "r" });
    assert_eq!(api.post("/apply", OPERATOR, with(0)).await.0, StatusCode::OK);
    assert_eq!(code(&api.post("/apply", OPERATOR, with(0)).await), (409, "conflict"));
}

#[tokio::test]
async fn an_edit_of_a_key_names_the_revision_that_it_was_decided_on() {
    let api = Api::start().await;
    let (_, made) = api.post("/keys", KEYS, json!({ "name": "search", "reason": "r" })).await;
    let path = format!("/keys/{}", made["id"].as_str().unwrap());
    let edit = |name: &str, expected: Option<u64>| json!({ "name": name, "expected_revision": expected, "reason": "r" });
    let whole = format!("/admin/v1{path}");
    let patch = |body| api.call(Method::PATCH, &whole, KEYS, Some(body));
    let seen = api.get(&path).await["revision"].as_u64();
    assert!(seen > Some(0), "{seen:?}");
    assert_eq!(patch(edit("first", seen)).await.0, StatusCode::OK);
    let now = api.get(&path).await["revision"].as_u64();
    let late = patch(edit("second", seen)).await;
    assert_eq!(code(&late), (409, "conflict"));
    assert_eq!(late.1["error"]["revision"].as_u64(), now, "{}", late.1);
    assert_eq!(patch(edit("third", now)).await.0, StatusCode::OK);
    assert_eq!(api.get(&path).await["name"], "third");
}

#[tokio::test]
async fn a_key_is_shown_once_and_known_by_its_digest() {
    let api = Api::start().await;
    let asked = json!({ "name": "search", "policy": { "raw_errors": true }, "reason": "new team" });
    let headers = [("idempotency-key", "one")];
    let (status, made) = api.call_with(Method::POST, "/admin/v1/keys", KEYS, Some(asked.clone()), &headers).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let (id, text) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
    assert!(text.starts_with("tg_live_") && text.contains(id));
    let (_, again) = api.call_with(Method::POST, "/admin/v1/keys", KEYS, Some(asked), &headers).await;
    assert_eq!((again["id"].as_str(), again["replayed"].as_bool(), again.get("key")), (Some(id), Some(true), None));

    let shown = api.get(&format!("/keys/{id}")).await;
    assert_eq!((shown["name"].as_str(), shown["creator"].as_str()), (Some("search"), Some("keys")));
    assert_eq!(api.get("/keys").await["keys"].as_array().unwrap().len(), 1);
    let everything = format!("{}{}{}", api.get("/keys").await, api.get("/audit").await, api.get("/resources").await);
    assert!(!everything.contains(text), "the text of a key is nowhere");
    let state = api.published.load();
    let resource = state.get(tidegate_proto::Kind::Key, id).unwrap();
    let key = <tidegate_proto::v1::Key as prost::Message>::decode(resource.body.clone()).unwrap();
    assert_eq!(key.secrets[0].digest.as_ref(), blake3::hash(text.as_bytes()).as_bytes());

    let (_, rotated) = api.post(&format!("/keys/{id}/rotate"), KEYS, json!({ "reason": "quarterly", "overlap_seconds": 60 })).await;
    let second = rotated["key"].as_str().unwrap();
    assert!(second != text && second.contains(id));
    assert_eq!(api.get(&format!("/keys/{id}")).await["secrets"].as_array().unwrap().len(), 2);
    assert_eq!(api.post(&format!("/keys/{id}/disable"), KEYS, json!({ "reason": "lost" })).await.0, StatusCode::OK);
    assert_eq!(api.get(&format!("/keys/{id}")).await["disabled"], true);

    let (status, gone) = api.post(&format!("/keys/{id}/revoke?wait=all"), KEYS, json!({ "reason": "leaked" })).await;
    assert_eq!((status, &gone["missing"], &gone["confirmed"]), (StatusCode::OK, &json!([]), &json!(0)), "{gone}");
    assert_eq!(code(&api.post(&format!("/keys/{id}/revoke"), KEYS, json!({ "reason": "leaked" })).await), (404, "not_found"));
}

#[tokio::test]
async fn a_key_belongs_to_what_is_declared_and_its_policy_obeys_the_rules() {
    let api = Api::start().await;
    let stray = api.post("/keys", KEYS, json!({ "name": "k", "organisation": "acme", "reason": "r" })).await;
    assert_eq!(code(&stray), (404, "not_found"));
    let bad = api.post("/keys", KEYS, json!({ "name": "k", "policy": { "no": 1 }, "reason": "r" })).await;
    assert_eq!(code(&bad), (422, "invalid"));
    let declared = json!({ "upserts": [
        { "kind": "organisation", "name": "acme", "spec": {} },
        { "kind": "workspace", "name": "dev", "spec": { "organisation": "acme" } },
        { "kind": "organisation", "name": "other", "spec": {} },
    ], "reason": "r" });
    assert_eq!(api.post("/apply", OPERATOR, declared).await.0, StatusCode::OK);
    let owned = |organisation: &str| json!({ "name": "k", "organisation": organisation, "workspace": "dev", "reason": "r" });
    assert_eq!(api.post("/keys", KEYS, owned("acme")).await.0, StatusCode::CREATED);
    assert_eq!(code(&api.post("/keys", KEYS, owned("other")).await), (400, "bad_request"));
}

#[tokio::test]
async fn secrets_are_sealed_compared_and_never_shown() {
    let api = Api::start().await;
    let change = |secret: Value| {
        json!({
            "upserts": [{ "kind": "provider", "name": "groq", "spec": { "credentials": [{ "name": "main", "secret": "sealed" }] } }],
            "secrets": [{ "provider": "groq", "credential": "main", "secret": secret }],
            "reason": "r",
        })
    };
    let missing = api.post("/apply", SECRETS, change(Value::Null)).await;
    assert_eq!(code(&missing), (422, "invalid"), "neither given nor there");
    assert_eq!(code(&api.post("/apply", OPERATOR, change(json!("gsk-1"))).await), (403, "forbidden"));
    let (status, done) = api.post("/apply", SECRETS, change(json!("gsk-1"))).await;
    assert_eq!((status, done["secrets"].as_array().unwrap().len()), (StatusCode::OK, 1), "{done}");
    for (token, secret) in [(SECRETS, json!("gsk-1")), (OPERATOR, json!("gsk-1")), (OPERATOR, Value::Null)] {
        let (_, again) = api.post("/apply", token, change(secret)).await;
        assert_eq!((&again["changed"], &again["secrets"]), (&json!(0), &json!([])), "the same secret is no change");
    }
    let put = json!({ "provider": "groq", "credential": "main", "secret": "gsk-2", "reason": "rotated" });
    let (_, put) = api.call(Method::PUT, "/admin/v1/credentials", SECRETS, Some(put)).await;
    assert_eq!(put["version"], 2);

    let state = api.published.load();
    let all: Vec<u8> = state.to_sections().into_iter().flat_map(|(_, section)| section.to_vec()).collect();
    assert!(!all.windows(4).any(|window| window == b"gsk-"), "no section holds a secret");
    let listed = api.get("/credentials").await;
    assert_eq!(listed["credentials"][0]["spec"], json!({ "provider": "groq", "credential": "main", "version": 2, "kek": "k1" }));

    let resource = state.get(tidegate_proto::Kind::Credential, "groq/main").unwrap();
    let sealed = <tidegate_proto::v1::SealedCredential as prost::Message>::decode(resource.body.clone()).unwrap();
    let place = tidegate_runtime::sealing::Place { cluster: "here", credential: "groq/main", version: 2 };
    let opened = tidegate_runtime::sealing::Sealed {
        kek_id: sealed.kek_id,
        wrapped_dek: sealed.wrapped_dek.to_vec(),
        nonce: sealed.nonce.to_vec(),
        ciphertext: sealed.ciphertext.to_vec(),
    };
    assert_eq!(secrecy::ExposeSecret::expose_secret(&api.keyring.open(place, &opened).unwrap()), "gsk-2");
}

#[tokio::test]
async fn the_way_back_is_shown_first_and_checked() {
    let api = Api::start().await;
    for spec in [json!(1), json!(2)] {
        api.post("/apply", OPERATOR, json!({ "upserts": [model("a/b", spec)], "immediate": true, "reason": "r" })).await;
    }
    let (_, plan) = api.post("/rollback", VIEWER, json!({ "to": 1, "dry_run": true })).await;
    assert_eq!((&plan["changes"][0]["before"], &plan["changes"][0]["after"]), (&json!(2), &json!(1)));
    assert_eq!(code(&api.post("/rollback", VIEWER, json!({ "to": 1, "reason": "r" })).await), (403, "forbidden"));
    let (_, back) = api.post("/rollback", OPERATOR, json!({ "to": 1, "reason": "worse" })).await;
    assert_eq!((&back["revision"], &back["changed"]), (&json!(3), &json!(1)), "{back}");
    let versions = api.get("/history?kind=model&name=a/b").await;
    let specs: Vec<&Value> = versions["revisions"].as_array().unwrap().iter().map(|version| &version["spec"]).collect();
    assert_eq!(specs, [&json!(1), &json!(2), &json!(1)]);
    assert_eq!(api.get("/revisions/2").await["changes"][0]["before"], json!(1));
    let audit = api.get("/audit?limit=1").await;
    assert_eq!((&audit["entries"][0]["action"], &audit["entries"][0]["reason"]), (&json!("rollback"), &json!("worse")));
}

#[tokio::test]
async fn overrides_are_put_and_lifted() {
    let api = Api::start().await;
    let drain = json!({ "kind": "provider", "target": "groq", "action": "drain", "region": "eu", "reason": "maintenance" });
    assert_eq!(code(&api.call(Method::PUT, "/admin/v1/overrides", OPERATOR, Some(drain.clone())).await), (404, "not_found"));
    api.post("/apply", OPERATOR, json!({ "upserts": [{ "kind": "provider", "name": "groq", "spec": {} }], "reason": "r" })).await;
    let (_, put) = api.call(Method::PUT, "/admin/v1/overrides", OPERATOR, Some(drain)).await;
    assert_eq!(put["name"], "provider/groq@eu");
    let listed = api.get("/overrides").await;
    assert_eq!(listed["overrides"][0]["spec"]["reason"], "maintenance");
    let lift = "/admin/v1/overrides?name=provider%2Fgroq%40eu&reason=over";
    assert_eq!(api.call(Method::DELETE, lift, OPERATOR, None).await.0, StatusCode::OK);
    assert_eq!(api.get("/overrides").await["overrides"], json!([]));
}

#[tokio::test]
async fn a_reader_can_wait_for_what_was_written() {
    let api = Api::start().await;
    let late = api.call_with(Method::GET, "/admin/v1/resources", VIEWER, None, &[("x-min-index", "5")]).await;
    assert_eq!(code(&late), (503, "behind"));
    api.post("/apply", OPERATOR, json!({ "upserts": [model("a/b", json!(1))], "reason": "r" })).await;
    let (status, _) = api.call_with(Method::GET, "/admin/v1/resources", VIEWER, None, &[("x-min-index", "1")]).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn the_document_lists_every_route_to_everyone() {
    let api = Api::start().await;
    let (status, document) = api.call(Method::GET, "/openapi.json", "", None).await;
    assert_eq!(status, StatusCode::OK);
    let operations: usize = document["paths"].as_object().unwrap().values().map(|path| path.as_object().unwrap().len()).sum();
    assert_eq!(operations, routes::ROUTES.len());
    assert_eq!(document["paths"]["/admin/v1/resources/{kind}/{name}"]["get"]["parameters"][1]["name"], "name");
}

#[tokio::test]
async fn status_says_who_and_where() {
    let api = Api::start().await;
    let status = api.get("/status").await;
    assert_eq!((&status["role"], &status["cluster_id"]), (&json!("leader"), &json!("here")));
    assert_eq!(api.get("/cluster").await["members"].as_array().unwrap().len(), 1);
    assert_eq!(api.get("/edges").await["edges"], json!([]));
}
