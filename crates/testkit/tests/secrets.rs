//! Canaries: a marked text in everything that comes in, and a look at everything that goes out.

use std::io::Write;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tidegate_edge::config::{
    AccessLogConfig, ContentConfig, CredentialConfig, ExportConfig, KeyConfig, LedgerConfig, MeshConfig, PresetConfig,
};
use tidegate_testkit::raw::{RawUpstream, completion};
use tidegate_testkit::{Answer, Event, Mesh, Topology, chat, key, stream};
use tidegate_wire::{AuthScheme, Dialect};
use tracing_subscriber::fmt::MakeWriter;

/// What every secret begins with.
const MARK: &str = "canary";
const CALLER_KEY: &str = "canary-caller-key-4f9d1c";
const RAW_KEY: &str = "canary-raw-key-77ab02";
const WRONG_KEY: &str = "canary-wrong-key-93b1ee";
const CREDENTIAL: &str = "canary-credential-e07a55";
const PEPPER: &str = "canary-pepper-1b2c3d";
const PROMPT: &str = "canary-prompt-5d5d5d";

/// Everything that this process has logged, whatever the thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Installs itself once; our own crates at their most talkative, libraries as an operator would debug them.
    fn capture() -> Self {
        static LOG: OnceLock<Log> = OnceLock::new();
        let log = LOG.get_or_init(|| {
            let log = Self::default();
            let filter = "debug,tidegate_edge=trace,tidegate_wire=trace,tidegate_routing=trace,tidegate_runtime=trace";
            let subscriber = tracing_subscriber::fmt().json().with_env_filter(filter).with_writer(log.clone()).finish();
            tracing::subscriber::set_global_default(subscriber).expect("nobody else logs in this process");
            tracing::info!("the log is being captured");
            log
        });
        log.clone()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock()).into_owned()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

fn clean(what: &str, text: &str) {
    let lower = text.to_ascii_lowercase();
    if let Some(at) = lower.find(MARK) {
        let around: String = text.chars().skip(lower[..at].chars().count().saturating_sub(200)).take(400).collect();
        panic!("{what} gives something away: …{around}…");
    }
}

fn peppered(name: &str, text: &str) -> KeyConfig {
    KeyConfig { digest: tidegate_edge::auth::digest(text, Some(&PEPPER.into())), ..key(name, text) }
}

fn secretive(config: &MeshConfig) -> MeshConfig {
    let mut config = config.clone();
    config.revision += 1;
    config.keys_pepper = Some(PEPPER.into());
    config.keys = vec![peppered("plain", CALLER_KEY), KeyConfig { raw_errors: true, ..peppered("raw", RAW_KEY) }];
    for provider in &mut config.providers {
        provider.credentials =
            vec![CredentialConfig { name: "main".to_owned(), weight: 1, secret: Some(CREDENTIAL.into()), own_key: false }];
    }
    config.presets = vec![PresetConfig {
        slug: "careful".to_owned(),
        fields: json!({ "messages": [{ "role": "system", "content": "canary-preset-0a0b0c" }] }).to_string(),
    }];
    config
}

/// The same endpoints and accounts under names without a history: one that was refused once would not be asked again.
fn renamed(mut config: MeshConfig, suffix: &str) -> MeshConfig {
    for endpoint in &mut config.endpoints {
        endpoint.name = format!("{}/{suffix}", endpoint.name);
    }
    for provider in &mut config.providers {
        provider.credentials[0].name = suffix.to_owned();
    }
    config
}

/// A chat request with a canary wherever a caller can put one.
fn marked(streamed: bool) -> Value {
    let mut request = if streamed { stream("m", PROMPT) } else { chat("m", PROMPT) };
    request["user"] = json!("canary-user-12ab34");
    request["session_id"] = json!("canary-session-56cd78");
    request["metadata"] = json!({ "canary-metadata-name": "canary-metadata-value" });
    request["tools"] = json!([{ "type": "function", "function": { "name": "canary_tool", "parameters": { "type": "object" } } }]);
    request["stop"] = json!(["canary-stop-word"]);
    request["canary_unknown_field"] = json!("canary-unknown-value");
    request
}

fn caller(mesh: &Mesh, key: &str) -> tidegate_testkit::Caller {
    mesh.caller()
        .with_key(key)
        .with_header("cookie", "canary-cookie")
        .with_header("x-title", "canary-title")
        .with_header("user-agent", "canary-agent")
        .with_header("origin", "https://canary-origin.example.org")
        .with_header("http-referer", "https://canary-referer.example.org")
        .with_header("x-canary-name", "canary-header-value")
        .with_header("tracestate", "canary=canary")
}

/// What a generation's record shows to its own caller and to operators, as the API prescribes. Everything else must be clean.
fn without_attribution(mut record: Value) -> Value {
    for field in ["external_user", "session_id", "http_referer", "user_agent", "origin"] {
        record[field] = Value::Null;
    }
    record["tidegate"]["app_title"] = Value::Null;
    record
}

async fn look_at_generation(mesh: &Mesh, key: &str, id: &str) {
    let record = caller(mesh, key).get(&format!("/v1/generation?id={id}")).await;
    assert_eq!(record.status, 200, "{}", record.text());
    clean("a generation's record", &without_attribution(record.json()["data"].clone()).to_string());
    let explained = mesh.operations().get(&format!("/explain/{id}")).await;
    assert_eq!(explained.status, 200);
    let mut explained = explained.json();
    explained["generation"] = without_attribution(explained["generation"].clone());
    clean("an explanation", &explained.to_string());
}

fn look_at_error(what: &str, answer: &Answer) {
    assert!(answer.status >= 400, "{what}: {}", answer.text());
    clean(what, &answer.text());
    for (name, value) in &answer.headers {
        clean(what, &format!("{name}: {value:?}"));
    }
}

#[tokio::test]
async fn what_comes_in_does_not_come_out_elsewhere() {
    let log = Log::capture();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("access.log");
    let access_log = AccessLogConfig::File(path.clone());
    let mesh = Topology::new()
        .provider("openai", |_| {})
        .provider("anthropic", |draft| draft.dialect = Dialect::AnthropicMessages)
        .provider("gemini", |draft| {
            draft.dialect = Dialect::Gemini;
            draft.provider = Box::new(|provider| provider.info.auth = AuthScheme::Query("key".to_owned()));
        })
        .with(|topology| topology.access_log = access_log)
        .start()
        .await;
    mesh.edge.reload(secretive(&mesh.config)).expect("a good configuration");
    for slug in ["openai", "anthropic", "gemini"] {
        for streamed in [false, true] {
            let mut request = marked(streamed);
            request["provider"] = json!({ "only": [slug] });
            request["model"] = json!("m@preset/careful");
            mesh.sim(slug).push_script(tidegate_provider_sim::Script::text("canary-answer"));
            let answer = caller(&mesh, CALLER_KEY).post("/v1/chat/completions", &request).await;
            assert_eq!(answer.status, 200, "{slug}: {}", answer.text());
            assert!(answer.text().contains("canary-answer"));
            for secret in [CREDENTIAL, PEPPER, CALLER_KEY] {
                assert!(!answer.text().contains(secret), "{slug}: {}", answer.text());
            }
            let seen = mesh.sim(slug).last_request().expect("a request");
            assert!(String::from_utf8_lossy(&seen.body).contains(PROMPT), "the provider is who it is meant for");
            assert!(!String::from_utf8_lossy(&seen.body).contains("canary-user"), "end users are hashed");
            look_at_generation(&mesh, CALLER_KEY, answer.header("x-generation-id")).await;
        }
        for fault in ["status=401", "status=402", "status=429", "status=500", "reset", "malformed", "cut=3"] {
            let mut request = marked(fault == "cut=3");
            request["provider"] = json!({ "only": [slug] });
            mesh.edge.reload(renamed(secretive(&mesh.config), fault)).expect("a good configuration");
            mesh.sim(slug).push_script(fault.parse().expect("a script"));
            let answer = caller(&mesh, CALLER_KEY).post("/v1/chat/completions", &request).await;
            look_at_generation(&mesh, CALLER_KEY, answer.header("x-generation-id")).await;
        }
    }
    let unknown = json!({ "model": "m", "messages": [{ "role": PROMPT, "content": PROMPT }] });
    look_at_error("a bad role", &caller(&mesh, CALLER_KEY).post("/v1/chat/completions", &unknown).await);
    let mistyped = json!({ "model": "m", "messages": [{ "role": "user", "content": "x" }], "temperature": PROMPT, "user": [PROMPT] });
    look_at_error("a bad type", &caller(&mesh, CALLER_KEY).post("/v1/chat/completions", &mistyped).await);
    let half = format!("{{\"model\":\"m\",\"messages\":[{{\"role\":\"user\",\"content\":\"{PROMPT}");
    look_at_error("half a body", &caller(&mesh, CALLER_KEY).send(http::Method::POST, "/v1/chat/completions", half.into()).await);
    look_at_error("a wrong key", &caller(&mesh, WRONG_KEY).post("/v1/chat/completions", &marked(false)).await);
    look_at_error("a wrong key", &caller(&mesh, WRONG_KEY).get("/v1/key").await);
    for route in ["/v1/key", "/v1/models", "/v1/providers", "/v1/models/m/m/endpoints"] {
        clean(route, &caller(&mesh, CALLER_KEY).get(route).await.text());
    }
    for route in ["/metrics", "/livez", "/readyz"] {
        clean(route, &mesh.operations().get(route).await.text());
    }
    mesh.edge.shutdown().await;
    let lines = std::fs::read_to_string(&path).expect("the access log");
    assert!(lines.lines().count() > 20);
    clean("the access log", &lines);
    let logged = log.text();
    assert!(logged.contains("tidegate_edge"), "something was logged at all: {logged}");
    clean("the log", &logged);
}

/// Everything below a directory, exports unpacked.
fn kept(directory: &std::path::Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            text.push_str(&kept(&path));
            continue;
        }
        let bytes = std::fs::read(&path).expect("a file");
        let packed = path.extension().is_some_and(|extension| extension == "zst");
        let bytes = if packed { zstd::decode_all(bytes.as_slice()).expect("zstd") } else { bytes };
        text.push_str(&String::from_utf8_lossy(&bytes));
    }
    text
}

#[tokio::test]
async fn journal_and_exports_hold_no_secret_and_content_is_where_it_belongs() {
    const OPTED: &str = "canary-opted-prompt-6e6e6e";
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (records, exports, content) = (directory.path().join("ledger"), directory.path().join("export"), directory.path().join("content"));
    let ledger = LedgerConfig {
        directory: Some(records.clone()),
        checkpoint: std::time::Duration::from_millis(5),
        export: Some(ExportConfig { directory: exports.clone(), rotate_bytes: 4_000, rotate_every: std::time::Duration::from_secs(3600) }),
        content: Some(ContentConfig { directory: content.clone() }),
        ..LedgerConfig::default()
    };
    let mesh = Topology::new().provider("openai", |_| {}).with(|topology| topology.ledger = ledger).start().await;
    let mut config = secretive(&mesh.config);
    config.keys[1].store_content = true;
    mesh.edge.reload(config.clone()).expect("a good configuration");
    for fault in ["", "cut=3", "status=401", "malformed"] {
        mesh.edge
            .reload(renamed(MeshConfig { revision: config.revision + 1, ..config.clone() }, &format!("account{fault}")))
            .expect("a good configuration");
        config.revision += 1;
        for (key, prompt) in [(CALLER_KEY, PROMPT), (RAW_KEY, OPTED)] {
            for streamed in [false, true] {
                let script =
                    if fault.is_empty() { tidegate_provider_sim::Script::text("canary-answer") } else { fault.parse().expect("a script") };
                mesh.sim("openai").push_script(script);
                let mut request = marked(streamed);
                request["messages"][0]["content"] = json!(prompt);
                request["model"] = json!("m@preset/careful");
                caller(&mesh, key).post("/v1/chat/completions", &request).await;
            }
        }
    }
    mesh.edge.shutdown().await;
    let secrets = [CALLER_KEY, RAW_KEY, CREDENTIAL, PEPPER, "canary-cookie", "canary-header-value"];
    let words =
        ["canary-answer", "canary-preset", "canary-stop-word", "canary-metadata", "canary_tool", "canary-unknown", "canary-opted", PROMPT];
    for (what, place) in [("the journal", &records), ("an export", &exports)] {
        let text = kept(place);
        assert!(text.contains("gen-"), "{what} is there");
        for word in secrets.iter().chain(&words) {
            assert!(!text.contains(word), "{what} holds {word}");
        }
    }
    let stored = kept(&content);
    assert!(stored.contains(OPTED) && stored.contains("canary-answer"), "what was opted into is stored");
    for word in secrets.iter().chain([&PROMPT]) {
        assert!(!stored.contains(word), "the stored content holds {word}");
    }
}

#[tokio::test]
async fn a_providers_own_words_stay_inside() {
    let log = Log::capture();
    let upstream = RawUpstream::bind().await;
    let mesh = Topology::new().raw("raw", &upstream).start().await;
    let inside = json!({ "error": { "message": "canary-host db-7 down", "type": "canary_type", "param": "canary_param" } }).to_string();
    for line in ["401 No", "402 No", "429 No", "500 No", "502 No", "503 No", "529 No"] {
        mesh.edge.reload(renamed(secretive(&mesh.config), line)).expect("a good configuration");
        let request = marked(false);
        let caller = caller(&mesh, CALLER_KEY);
        let (answer, ()) = tokio::join!(caller.post("/v1/chat/completions", &request), async {
            upstream.accept().await.answer(line, "content-type: application/json\r\nx-request-id: canary-id\r\n", &inside).await;
        });
        let text = answer.text();
        assert!(answer.status >= 400 && !text.contains("db-7"), "{line}: {text}");
        look_at_generation(&mesh, CALLER_KEY, answer.header("x-generation-id")).await;
    }
    mesh.edge.shutdown().await;
    clean("the log", &log.text());
}

#[tokio::test]
async fn a_provider_that_repeats_our_credential_does_not_give_it_away() {
    let log = Log::capture();
    let upstream = RawUpstream::bind().await;
    let mesh = Topology::new().raw("raw", &upstream).start().await;
    let repeating = json!({ "error": { "message": format!("bad key {CREDENTIAL}"), "code": CREDENTIAL, "type": CREDENTIAL } }).to_string();
    for line in ["400 Bad", "401 No", "403 No", "404 No", "422 No", "500 No"] {
        for (user, key) in [("plain", CALLER_KEY), ("raw", RAW_KEY)] {
            mesh.edge.reload(renamed(secretive(&mesh.config), &format!("{line} {user}"))).expect("a good configuration");
            let caller = mesh.caller().with_key(key);
            let request = chat("m", "hello");
            let (answer, ()) = tokio::join!(caller.post("/v1/chat/completions", &request), async {
                upstream.accept().await.answer(line, "content-type: application/json\r\n", &repeating).await;
            });
            assert!(answer.status >= 400);
            assert!(!answer.text().contains(CREDENTIAL), "{line}: {}", answer.text());
        }
    }
    mesh.edge.reload(secretive(&mesh.config)).expect("a good configuration");
    let raw = mesh.caller().with_key(RAW_KEY);
    let request = stream("m", "hello");
    let (mut running, mut exchange) = tokio::join!(raw.stream("/v1/chat/completions", &request), async {
        let mut exchange = upstream.accept().await;
        exchange.begin_stream().await;
        exchange.text("one").await;
        exchange
    });
    assert!(matches!(running.next().await, Some(Event::Data(_))));
    exchange.event(&serde_json::from_str(&repeating).expect("JSON")).await;
    let rest = running.collect().await;
    assert!(!format!("{rest:?}").contains(CREDENTIAL), "{rest:?}");
    mesh.edge.shutdown().await;
    assert!(!log.text().contains(CREDENTIAL));
}

#[tokio::test]
async fn printing_a_configuration_shows_no_secret() {
    let mesh = Topology::new().provider("a", |_| {}).start().await;
    let config = secretive(&mesh.config);
    clean("a configuration", &format!("{config:?}"));
    clean("a configuration", &format!("{config:#?}"));
    let mut bad = config.clone();
    bad.providers[0].credentials[0].secret = Some(format!("{CREDENTIAL}\r\n").into());
    let problems = mesh.edge.reload(bad).expect_err("a line end in a credential");
    clean("a problem", &format!("{problems:?} {}", problems[0]));
    let mut bad = config;
    bad.providers[0].info.auth = AuthScheme::Query("key".to_owned());
    bad.providers[0].credentials[0].secret = Some(format!("{CREDENTIAL}&x").into());
    let problems = mesh.edge.reload(bad).expect_err("a separator in a credential of an address");
    clean("a problem", &format!("{problems:?} {}", problems[0]));
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn one_key_does_not_see_anothers_generations() {
    let upstream = RawUpstream::bind().await;
    let mesh = Topology::new().raw("raw", &upstream).start().await;
    mesh.edge.reload(secretive(&mesh.config)).expect("a good configuration");
    let caller = mesh.caller().with_key(CALLER_KEY);
    let request = marked(false);
    let (answer, ()) = tokio::join!(caller.post("/v1/chat/completions", &request), async {
        upstream.accept().await.answer("200 OK", "content-type: application/json\r\n", &completion("hi").to_string()).await;
    });
    let path = format!("/v1/generation?id={}", answer.header("x-generation-id"));
    assert_eq!(caller.get(&path).await.status, 200);
    let other = mesh.caller().with_key(RAW_KEY).get(&path).await;
    assert_eq!(other.status, 404, "{}", other.text());
    assert!(!other.text().contains(MARK));
    mesh.edge.shutdown().await;
}
