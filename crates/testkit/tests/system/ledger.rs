//! The ledger from outside: every generation leaves one record, and records, charges and sums are one number.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tidegate_edge::config::{ContentConfig, ExportConfig, LedgerConfig};
use tidegate_ledger::{Money, Rate};
use tidegate_provider_sim::Script;
use tidegate_testkit::{Mesh, Topology, chat, key, stream};

const CHAT: &str = "/v1/chat/completions";

fn ledger(directory: &Path) -> LedgerConfig {
    LedgerConfig { directory: Some(directory.join("ledger")), checkpoint: Duration::from_millis(5), ..LedgerConfig::default() }
}

async fn mesh(ledger: LedgerConfig) -> Mesh {
    Topology::new().provider("a", |_| {}).with(|topology| topology.ledger = ledger).start().await
}

fn money(value: &Value) -> Money {
    Money::parse_usd(&value.to_string()).unwrap_or_else(|error| panic!("{value}: {error}"))
}

async fn today(mesh: &Mesh) -> Vec<Value> {
    // The day of the answer's own clock: a test at midnight looks at both.
    let usage = mesh.operations().get("/usage?by=key&period=day").await.json();
    let mut rows = Vec::new();
    for row in usage["rows"].as_array().expect("rows") {
        let day = &row["period"].as_str().expect("a day")[..10];
        let answer = mesh.get(&format!("/v1/activity?date={day}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        rows.extend(answer.json()["data"].as_array().expect("rows").clone());
    }
    rows
}

async fn recorded(mesh: &Mesh, records: usize) {
    mesh.until_metric("tidegate_ledger_records_total", &[], |made| made == records as f64).await;
}

/// Complete, failed, cut and cancelled, whole and streamed: the ids with what callers were told to pay.
async fn all_endings(mesh: &Mesh) -> Vec<(String, Option<Money>)> {
    let mut ids = Vec::new();
    for _ in 0..3 {
        let answer = mesh.post(CHAT, &chat("m", "hello")).await.json();
        ids.push((answer["id"].as_str().expect("an id").to_owned(), Some(money(&answer["usage"]["cost"]))));
        let events = mesh.stream(CHAT, &stream("m", "hello")).await.collect().await;
        let last = events.iter().rev().find_map(|event| event.data().filter(|data| data["usage"].is_object())).expect("usage");
        ids.push((last["id"].as_str().expect("an id").to_owned(), Some(money(&last["usage"]["cost"]))));
    }
    mesh.sim("a").push_script("status=400".parse().expect("a script"));
    let failed = mesh.post(CHAT, &chat("m", "hello")).await;
    ids.push((failed.header("x-generation-id").to_owned(), Some(Money::ZERO)));
    for script in ["cut=6", "error-event=6"] {
        mesh.sim("a").push_script(script.parse().expect("a script"));
        let broken = mesh.stream(CHAT, &stream("m", "hello")).await;
        ids.push((broken.headers["x-generation-id"].to_str().expect("an id").to_owned(), None));
        broken.collect().await;
    }
    mesh.sim("a").push_script("stall=5".parse().expect("a script"));
    let mut left = mesh.stream(CHAT, &stream("m", "hello")).await;
    ids.push((left.headers["x-generation-id"].to_str().expect("an id").to_owned(), None));
    left.next().await.expect("a first token");
    drop(left);
    ids
}

#[tokio::test]
async fn records_charges_and_sums_are_one_number() {
    let directory = tempfile::tempdir().expect("a directory");
    let mesh = mesh(ledger(directory.path())).await;
    let ids = all_endings(&mesh).await;
    recorded(&mesh, ids.len()).await;
    let mut sum = Money::ZERO;
    let rate = Rate::per_million_usd("1").expect("a rate");
    for (id, told) in &ids {
        let record = mesh.generation(id).await;
        let charged = money(&record["total_cost"]);
        if let Some(told) = told {
            assert_eq!(charged, *told, "{record}");
        }
        let ending = record["tidegate"]["ending"].as_str().expect("an ending");
        let tokens = record["tokens_prompt"].as_u64().zip(record["tokens_completion"].as_u64()).map(|(a, b)| a + b).expect("tokens");
        assert_eq!(charged, if ending == "failed" { Money::ZERO } else { rate.times(tokens) }, "{record}");
        if ending == "cut" || ending == "cancelled" {
            assert!(charged > Money::ZERO, "what was delivered is charged: {record}");
        }
        sum += charged;
    }
    let activity = today(&mesh).await;
    assert_eq!(activity.iter().map(|row| money(&row["usage"])).sum::<Money>(), sum);
    assert_eq!(activity.iter().filter_map(|row| row["requests"].as_u64()).sum::<u64>(), ids.len() as u64);
    let data = mesh.get("/v1/key").await.json()["data"].clone();
    assert_eq!(money(&data["usage"]), sum);
    let usage = mesh.operations().get("/usage?by=model,provider,key,app,region&period=hour").await.json();
    assert_eq!(usage["total"]["charged_usd"], sum.to_string());
    for ending in ["completed", "failed", "cut", "cancelled"] {
        assert!(mesh.metric("tidegate_ledger_records_total", &[("ending", ending)]) >= 1.0, "{ending}");
    }
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn a_restart_continues_sums_and_budgets() {
    let directory = tempfile::tempdir().expect("a directory");
    let first = mesh(ledger(directory.path())).await;
    let ids = all_endings(&first).await;
    recorded(&first, ids.len()).await;
    let before = first.get("/v1/key").await.json()["data"]["usage"].clone();
    first.edge.shutdown().await;
    let second = mesh(ledger(directory.path())).await;
    assert_eq!(second.get("/v1/key").await.json()["data"]["usage"], before);
    assert_eq!(second.metric("tidegate_ledger_recovered_total", &[]), 0.0, "nothing was open");
    second.edge.shutdown().await;
}

#[tokio::test]
async fn exported_files_hold_every_record_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let export = directory.path().join("export");
    let config = |rotate_bytes| LedgerConfig {
        export: Some(ExportConfig { directory: export.clone(), rotate_bytes, rotate_every: Duration::from_secs(3600) }),
        ..ledger(directory.path())
    };
    let mut ids = Vec::new();
    // A file per few records, then one that only the end of the process finishes.
    for rotate_bytes in [2_000, 1 << 20] {
        let mesh = mesh(config(rotate_bytes)).await;
        let more = all_endings(&mesh).await;
        recorded(&mesh, more.len()).await;
        ids.extend(more.into_iter().map(|(id, _)| id));
        mesh.edge.shutdown().await;
    }
    let mut found = Vec::new();
    let mut files = 0;
    for entry in std::fs::read_dir(&export).expect("the directory") {
        let path = entry.expect("an entry").path();
        assert!(path.to_string_lossy().ends_with(".jsonl.zst"), "{}", path.display());
        files += 1;
        let text = zstd::decode_all(std::fs::File::open(&path).expect("a file")).expect("zstd");
        for line in String::from_utf8(text).expect("text").lines() {
            let line: Value = serde_json::from_str(line).expect("JSON");
            assert_eq!((line["v"].as_u64(), line["key"].as_str()), (Some(1), Some("test")));
            found.push(line["id"].as_str().expect("an id").to_owned());
        }
    }
    assert!(files >= 3, "{files} files");
    found.sort();
    ids.sort();
    assert_eq!(found, ids);
}

#[tokio::test]
async fn content_is_stored_for_keys_that_opted_in_and_nowhere_else() {
    let directory = tempfile::tempdir().expect("a directory");
    let content = directory.path().join("content");
    let config = LedgerConfig { content: Some(ContentConfig { directory: content.clone() }), ..ledger(directory.path()) };
    let mesh = Topology::new()
        .provider("a", |_| {})
        .with(|topology| {
            topology.ledger = config;
            let mut opted_in = key("opted/in", "opted-in-key");
            opted_in.store_content = true;
            topology.more_keys = vec![opted_in];
        })
        .start()
        .await;
    for text in ["canary-one", "canary-two"] {
        mesh.sim("a").push_script(Script::text(format!("answer-{text}")));
    }
    let opted_in = mesh.caller().with_key("opted-in-key");
    assert_eq!(opted_in.post(CHAT, &chat("m", "prompt-canary")).await.status, 200);
    opted_in.stream(CHAT, &stream("m", "prompt-canary")).await.collect().await;
    mesh.sim("a").push_script(Script::text("answer-secret"));
    assert_eq!(mesh.post(CHAT, &chat("m", "prompt-secret")).await.status, 200);
    mesh.edge.shutdown().await;
    let (mut stored, mut elsewhere) = (String::new(), Vec::new());
    visit(directory.path(), &mut |path, bytes| {
        if path.starts_with(&content) {
            stored.push_str(&String::from_utf8_lossy(bytes));
        } else {
            elsewhere.extend_from_slice(bytes);
        }
    });
    let lines: Vec<Value> = stored.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 2, "{stored}");
    assert!(lines[0]["request"]["messages"][0]["content"].to_string().contains("prompt-canary"));
    assert!(lines[0]["response"].to_string().contains("answer-canary-one"));
    assert_eq!((lines[1]["ending"].clone(), lines[1]["key"].clone()), ("completed".into(), "opted/in".into()));
    assert!(lines[1]["response"].to_string().contains("canary"), "the events of the stream");
    assert!(!stored.contains("secret"), "the other key did not opt in");
    let elsewhere = String::from_utf8_lossy(&elsewhere);
    assert!(!elsewhere.contains("canary") && !elsewhere.contains("prompt-secret"), "nothing of it in journal and sums");
}

fn visit(directory: &Path, look: &mut dyn FnMut(&Path, &[u8])) {
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            visit(&path, look);
        } else {
            look(&path, &std::fs::read(&path).expect("a file"));
        }
    }
}

#[tokio::test]
async fn a_key_sees_its_own_use_only() {
    let mesh = Topology::new().provider("a", |_| {}).with(|topology| topology.more_keys = vec![key("other", "other-key")]).start().await;
    let answer = mesh.post(CHAT, &chat("m", "hello")).await.json();
    recorded(&mesh, 1).await;
    let other = mesh.caller().with_key("other-key");
    assert_eq!(money(&other.get("/v1/key").await.json()["data"]["usage"]), Money::ZERO);
    let id = answer["id"].as_str().expect("an id");
    assert_eq!(other.get(&format!("/v1/generation?id={id}")).await.status, 404);
    for path in ["/v1/activity?date=tomorrow", "/v1/activity?date=1999-01-01", "/v1/activity?api_key_hash=abc"] {
        let refused = mesh.get(path).await;
        assert_eq!((refused.status, refused.error_type().as_str()), (400, "invalid_request"), "{path}");
    }
    for path in ["/v1/key", "/v1/credits", "/v1/activity", "/v1/generation?id=gen-1"] {
        assert_eq!(mesh.caller().without_key().get(path).await.status, 401, "{path}");
    }
    mesh.edge.shutdown().await;
}
