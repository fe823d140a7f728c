//! What operators see: metrics, the access log, traces. And what they must not see: anything a caller can choose as a label.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tidegate_edge::Services;
use tidegate_edge::config::AccessLogConfig;
use tidegate_provider_sim::Script;
use tidegate_runtime::Tasks;
use tidegate_runtime::telemetry::{Telemetry, TelemetryConfig};
use tidegate_testkit::{Authority, Event, Mesh, Topology, chat, stream};
use tokio::net::TcpListener;

fn script(text: &str) -> Script {
    text.parse().expect("a script")
}

/// Two providers, TLS, and one of everything that can happen.
async fn lively(change: impl FnOnce(&mut Topology)) -> (Mesh, Authority) {
    let authority = Authority::new();
    let tls = authority.listener(vec![authority.issue("edge", &["localhost"])]);
    let mesh = Topology::new()
        .provider("a", |_| {})
        .provider("b", |_| {})
        .with(|topology| {
            topology.tls = Some(tls);
            topology.settings.uptime_min_requests = 1;
            change(topology);
        })
        .start()
        .await;
    let prefer = |mut request: Value| {
        request["provider"] = json!({ "order": ["a", "b"] });
        request
    };
    assert_eq!(mesh.post("/v1/chat/completions", &prefer(chat("m", "whole"))).await.status, 200);
    let events = mesh.stream("/v1/chat/completions", &prefer(stream("m", "streamed"))).await.collect().await;
    assert_eq!(events.last(), Some(&Event::Done));
    mesh.sim("a").push_script(script("status=500"));
    assert_eq!(mesh.post("/v1/chat/completions", &prefer(chat("m", "failed over"))).await.status, 200);
    let secure = mesh.caller().with_tls(mesh.https(), authority.client(&[], &["http/1.1"], None));
    assert_eq!(secure.post("/v1/chat/completions", &prefer(chat("m", "over TLS"))).await.status, 200);
    (mesh, authority)
}

/// Families with their types, and every series' labels, as a scraper reads them.
struct Scrape {
    types: BTreeMap<String, String>,
    series: Vec<(String, BTreeMap<String, String>)>,
}

impl Scrape {
    async fn of(mesh: &Mesh) -> Self {
        let answer = mesh.operations().get("/metrics").await;
        assert_eq!(answer.status, 200);
        let (mut types, mut series) = (BTreeMap::new(), Vec::new());
        for line in answer.text().lines().filter(|line| !line.starts_with("# HELP")) {
            if let Some(family) = line.strip_prefix("# TYPE ") {
                let (name, kind) = family.split_once(' ').expect("a type line");
                types.insert(name.to_owned(), kind.to_owned());
                continue;
            }
            let (name, rest) = line.split_once(['{', ' ']).expect("a sample");
            let labels = if line.contains('{') { rest.split_once('}').expect("labels end").0 } else { "" };
            series.push((name.to_owned(), labels_of(labels)));
        }
        Self { types, series }
    }
}

fn labels_of(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split("\",").filter(|pair| !pair.is_empty());
    pairs.filter_map(|pair| pair.split_once("=\"")).map(|(name, value)| (name.to_owned(), value.trim_end_matches('"').to_owned())).collect()
}

#[tokio::test]
async fn every_promised_metric_is_there_with_its_type_and_labels() {
    let (mesh, _authority) = lively(|_| {}).await;
    let scrape = Scrape::of(&mesh).await;
    let expected: [(&str, &str, &[&str]); 47] = [
        ("tidegate_edge_requests_total", "counter", &["dialect", "model", "status", "error_type"]),
        ("tidegate_edge_request_duration_seconds", "histogram", &["dialect", "stream"]),
        ("tidegate_edge_overhead_seconds", "histogram", &["dialect"]),
        ("tidegate_edge_attempts_total", "counter", &["provider", "endpoint", "outcome"]),
        ("tidegate_edge_first_token_seconds", "histogram", &["provider", "model"]),
        ("tidegate_edge_inter_chunk_seconds", "histogram", &["provider", "model"]),
        ("tidegate_edge_output_tokens_per_second", "histogram", &["provider", "model"]),
        ("tidegate_edge_tokens_total", "counter", &["provider", "model", "kind"]),
        ("tidegate_edge_cost_microdollars_total", "counter", &["provider", "model"]),
        ("tidegate_edge_request_bytes_total", "counter", &[]),
        ("tidegate_edge_response_bytes_total", "counter", &[]),
        ("tidegate_edge_streams_active", "gauge", &[]),
        ("tidegate_edge_requests_active", "gauge", &[]),
        ("tidegate_edge_connections", "gauge", &[]),
        ("tidegate_edge_connections_refused_total", "counter", &[]),
        ("tidegate_edge_upstream_connections_idle", "gauge", &[]),
        ("tidegate_edge_tls_handshakes_total", "counter", &["listener", "result"]),
        ("tidegate_edge_retries_total", "counter", &["reason"]),
        ("tidegate_edge_failovers_total", "counter", &[]),
        ("tidegate_edge_client_retries_total", "counter", &[]),
        ("tidegate_edge_access_log_dropped_total", "counter", &[]),
        ("tidegate_edge_content_dropped_total", "counter", &[]),
        ("tidegate_ledger_dropped_total", "counter", &["reason"]),
        ("tidegate_ledger_fsync_seconds", "histogram", &[]),
        ("tidegate_ledger_noted_bytes", "gauge", &[]),
        ("tidegate_ledger_open", "gauge", &[]),
        ("tidegate_ledger_records_total", "counter", &["ending"]),
        ("tidegate_ledger_recovered_total", "counter", &[]),
        ("tidegate_ledger_write_errors_total", "counter", &[]),
        ("tidegate_ledger_written_bytes_total", "counter", &[]),
        ("tidegate_edge_breaker_state", "gauge", &["provider", "endpoint"]),
        ("tidegate_edge_endpoint_in_flight", "gauge", &["provider", "endpoint"]),
        ("tidegate_edge_endpoint_limit", "gauge", &["provider", "endpoint"]),
        ("tidegate_edge_endpoint_blocked", "gauge", &["provider", "endpoint"]),
        ("tidegate_provider_up", "gauge", &["provider", "endpoint", "region"]),
        ("tidegate_provider_uptime_ratio", "gauge", &["provider", "endpoint", "region", "window"]),
        ("tidegate_provider_first_token_seconds", "gauge", &["provider", "endpoint", "region", "quantile"]),
        ("tidegate_state_revision", "gauge", &["kind"]),
        ("tidegate_state_age_seconds", "gauge", &["kind"]),
        ("tidegate_revocation_lag_seconds", "histogram", &[]),
        ("tidegate_edge_control_connected", "gauge", &[]),
        ("tidegate_edge_control_snapshots_total", "counter", &[]),
        ("tidegate_cert_expiry_seconds", "gauge", &["certificate"]),
        ("tidegate_build_info", "gauge", &["version"]),
        ("process_resident_memory_bytes", "gauge", &[]),
        ("process_open_fds", "gauge", &[]),
        ("process_start_time_seconds", "gauge", &[]),
    ];
    for (name, kind, labels) in expected {
        assert_eq!(scrape.types.get(name).map(String::as_str), Some(kind), "{name}");
        let sample = if kind == "histogram" { format!("{name}_count") } else { name.to_owned() };
        let seen = scrape.series.iter().find(|(found, _)| *found == sample).unwrap_or_else(|| panic!("{name} has no series"));
        let missing: Vec<&&str> = labels.iter().filter(|label| !seen.1.contains_key(**label)).collect();
        assert!(missing.is_empty(), "{name} lacks {missing:?}: {:?}", seen.1);
    }
    for name in scrape.types.keys().filter(|name| name.starts_with("tidegate_")) {
        let is_counter = scrape.types[name] == "counter";
        assert_eq!(is_counter, name.ends_with("_total"), "{name}: counters, and only they, end in _total");
    }
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn the_figures_add_up() {
    let (mesh, _authority) = lively(|_| {}).await;
    assert_eq!(mesh.metric("tidegate_edge_requests_total", &[("status", "200"), ("model", "m")]), 4.0);
    assert_eq!(mesh.metric("tidegate_edge_attempts_total", &[]), 5.0);
    assert_eq!(mesh.metric("tidegate_edge_attempts_total", &[("provider", "a"), ("outcome", "success")]), 3.0);
    assert_eq!(mesh.metric("tidegate_edge_retries_total", &[]), 1.0);
    assert_eq!(mesh.metric("tidegate_edge_failovers_total", &[]), 1.0);
    assert_eq!(mesh.metric("tidegate_edge_request_duration_seconds", &[("stream", "true")]), 1.0);
    assert_eq!(mesh.metric("tidegate_edge_overhead_seconds", &[]), 4.0);
    assert_eq!(mesh.metric("tidegate_edge_tls_handshakes_total", &[("listener", "https"), ("result", "full")]), 1.0);
    assert_eq!(mesh.metric("tidegate_edge_streams_active", &[]), 0.0);
    assert_eq!(mesh.metric("tidegate_edge_breaker_state", &[]), 0.0);
    assert_eq!(mesh.metric("tidegate_provider_up", &[]), 2.0);
    assert_eq!(mesh.metric("tidegate_provider_uptime_ratio", &[("provider", "a"), ("window", "5m")]), 0.75, "three of four");
    let delivered: u64 = ["a", "b"].map(|slug| mesh.sim(slug).stats().tokens_delivered).iter().sum();
    assert_eq!(mesh.metric("tidegate_edge_tokens_total", &[("kind", "completion")]), delivered as f64);
    let tokens = mesh.metric("tidegate_edge_tokens_total", &[("kind", "completion")])
        + mesh.metric("tidegate_edge_tokens_total", &[("kind", "prompt")]);
    assert_eq!(mesh.metric("tidegate_edge_cost_microdollars_total", &[]), tokens, "a dollar per million tokens");
    mesh.edge.shutdown().await;
}

#[tokio::test]
async fn labels_never_hold_what_a_caller_sent() {
    let (mesh, _authority) = lively(|_| {}).await;
    let series = Scrape::of(&mesh).await.series.len();
    let caller =
        mesh.caller().with_header("x-title", "evil-title").with_header("user-agent", "evil-agent").with_header("origin", "evil-origin");
    for number in 0..20 {
        let mut request = chat(&format!("evil-model-{number}"), "evil-prompt");
        request["user"] = json!("evil-user");
        assert_eq!(caller.post("/v1/chat/completions", &request).await.status, 400);
        request["model"] = json!("m");
        request["provider"] = json!({ "only": [format!("evil-provider-{number}")] });
        assert_eq!(caller.post("/v1/chat/completions", &request).await.status, 404);
        assert_eq!(caller.get(&format!("/v1/evil-path-{number}")).await.status, 404);
        assert_eq!(caller.clone().with_key(&format!("evil-key-{number}")).get("/v1/key").await.status, if number < 20 { 401 } else { 429 });
        let method = Method::from_bytes(format!("EVIL{number}").as_bytes()).expect("a method");
        assert_eq!(caller.send(method, "/v1/models", Bytes::new()).await.status, 405);
    }
    let scrape = Scrape::of(&mesh).await;
    for (name, labels) in &scrape.series {
        assert!(!labels.values().any(|value| value.to_ascii_lowercase().contains("evil")), "{name} {labels:?}");
    }
    let more = scrape.series.len() - series;
    assert!(more <= 6, "{more} series for a hundred requests of a stranger");
    mesh.edge.shutdown().await;
}

fn log_lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).expect("the access log");
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

#[tokio::test]
async fn every_request_leaves_one_line() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("access.log");
    let log = AccessLogConfig::File(path.clone());
    let (mesh, _authority) = lively(|topology| topology.access_log = log).await;
    let mut statuses = vec![200; 4];
    let mut note = |answer: tidegate_testkit::Answer| statuses.push(answer.status);
    mesh.sim("a").push_script(script("status=400"));
    note(mesh.post("/v1/chat/completions", &chat("unknown", "x")).await);
    note(mesh.caller().without_key().post("/v1/chat/completions", &chat("m", "x")).await);
    note(mesh.send(Method::POST, "/v1/chat/completions", Bytes::from_static(b"{")).await);
    note(mesh.get("/v1/nothing").await);
    note(mesh.get("/v1/models").await);
    note(mesh.get("/v1/generation?id=gen-nothing").await);
    let mut both = chat("m", "x");
    both["provider"] = json!({ "only": ["a"] });
    note(mesh.post("/v1/chat/completions", &both).await);
    mesh.sim("a").push_script(script("cut=4"));
    let mut cut = stream("m", "x");
    cut["provider"] = json!({ "only": ["a"] });
    note(mesh.post("/v1/chat/completions", &cut).await);
    mesh.sim("a").push_script(script("first-token=60s"));
    {
        let mut left = stream("m", "x");
        left["provider"] = json!({ "only": ["a"] });
        let leaving = mesh.stream("/v1/chat/completions", &left);
        let seen = mesh.sim("a").wait_until(|stats| stats.active_requests == 1);
        tokio::select! {
            _ = leaving => panic!("there is no answer for a minute"),
            _ = seen => {}
        }
    }
    mesh.until_metric("tidegate_edge_requests_total", &[("error_type", "cancelled")], |count| count == 1.0).await;
    statuses.push(499);
    mesh.edge.shutdown().await;

    let lines = log_lines(&path);
    let mut logged: Vec<u64> = lines.iter().map(|line| line["status"].as_u64().expect("a status")).collect();
    let mut answered: Vec<u64> = statuses.iter().map(|status| u64::from(*status)).collect();
    logged.sort_unstable();
    answered.sort_unstable();
    assert_eq!(logged, answered, "{lines:#?}");
    let ids: BTreeSet<&str> = lines.iter().map(|line| line["id"].as_str().expect("an id")).collect();
    assert_eq!(ids.len(), lines.len(), "each has an id of its own");
    assert!(lines.iter().all(|line| line["ts_ms"].as_u64().is_some_and(|at| at > 1_700_000_000_000)));

    let well = lines.iter().find(|line| line["stream"] == true && line["status"] == 200 && line["error_type"].is_null());
    let well = well.expect("the stream that ended well");
    for (name, value) in
        [("key", "test"), ("model", "m"), ("provider", "a"), ("endpoint", "a/m"), ("outcome", "success"), ("credential", "main")]
    {
        assert_eq!(well[name], value, "{name}: {well}");
    }
    assert_eq!((well["attempts"].as_u64(), well["finish_reason"].as_str()), (Some(1), Some("stop")), "{well}");
    for name in ["first_token_ms", "duration_ms", "overhead_ms", "request_bytes", "prompt_tokens", "completion_tokens", "cost_usd"] {
        assert!(well[name].is_number(), "{name}: {well}");
    }
    assert_eq!(well["trace_id"].as_str().map(str::len), Some(32));
    assert!(well["overhead_ms"].as_f64() <= well["duration_ms"].as_f64());
    let over = lines.iter().find(|line| line["attempts"] == 2).expect("the one that failed over");
    assert_eq!((over["status"].as_u64(), over["provider"].as_str()), (Some(200), Some("b")));
    let cancelled = lines.iter().find(|line| line["status"] == 499).expect("the one who left");
    assert_eq!(cancelled["error_type"], "cancelled");
}

#[tokio::test]
async fn a_trace_goes_through() {
    let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("access.log");
    let log = AccessLogConfig::File(path.clone());
    let mesh = Topology::new().provider("a", |_| {}).with(|topology| topology.access_log = log).start().await;
    let seen = |mesh: &Mesh| {
        let request = mesh.sim("a").last_request().expect("a request");
        let parent = request.headers["traceparent"].to_str().expect("text").to_owned();
        let parts: Vec<String> = parent.split('-').map(str::to_owned).collect();
        assert_eq!((parts.len(), parts[0].as_str(), parts[1].len(), parts[2].len()), (4, "00", 32, 16), "{parent}");
        parts
    };
    for flags in ["01", "00"] {
        let caller = mesh.caller().with_header("traceparent", &format!("00-{trace}-{span}-{flags}"));
        assert_eq!(caller.post("/v1/chat/completions", &chat("m", "x")).await.status, 200);
        let parts = seen(&mesh);
        assert_eq!((parts[1].as_str(), parts[3].as_str()), (trace, flags), "the caller's trace and decision");
        assert_ne!(parts[2], span, "a place of our own in it");
    }
    let zeros = format!("00-{}-{span}-01", "0".repeat(32));
    for bad in ["00-xyz", zeros.as_str(), "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"] {
        let caller = mesh.caller().with_header("traceparent", bad);
        assert_eq!(caller.post("/v1/chat/completions", &chat("m", "x")).await.status, 200);
        let parts = seen(&mesh);
        assert!(parts[1] != trace && parts[1] != "0".repeat(32), "a trace of our own");
    }
    mesh.edge.shutdown().await;
    let lines = log_lines(&path);
    assert_eq!(lines.iter().filter(|line| line["trace_id"] == trace).count(), 2, "{lines:?}");
}

#[tokio::test]
async fn a_provider_that_is_not_to_know_gets_no_trace() {
    let mesh = Topology::new().provider("a", |draft| draft.provider = Box::new(|provider| provider.propagate_trace = false)).start().await;
    assert_eq!(mesh.post("/v1/chat/completions", &chat("m", "x")).await.status, 200);
    assert!(!mesh.sim("a").last_request().expect("a request").headers.contains_key("traceparent"));
    mesh.edge.shutdown().await;
}

/// An OpenTelemetry collector as far as an exporter can tell: takes any gRPC call and keeps its message.
async fn collector() -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free loopback port");
    let address = listener.local_addr().expect("a bound socket");
    let received = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&received);
    spawn(async move {
        loop {
            let Ok((socket, _)) = listener.accept().await else { return };
            let kept = Arc::clone(&kept);
            let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let kept = Arc::clone(&kept);
                async move {
                    assert!(request.uri().path().ends_with("TraceService/Export"), "{}", request.uri());
                    let message = request.into_body().collect().await?.to_bytes();
                    kept.lock().extend_from_slice(&message);
                    // An empty message of five bytes, and the status in the trailers.
                    let trailers =
                        http::HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), http::HeaderValue::from_static("0"))]);
                    let body = http_body_util::Full::new(Bytes::from_static(&[0; 5])).with_trailers(std::future::ready(Some(Ok::<
                        _,
                        std::convert::Infallible,
                    >(
                        trailers
                    ))));
                    let response = http::Response::builder().header("content-type", "application/grpc").body(body);
                    Ok::<_, hyper::Error>(response.expect("a response"))
                }
            });
            let io = hyper_util::rt::TokioIo::new(socket);
            let builder = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
            spawn(async move { drop(builder.serve_connection(io, service).await) });
        }
    });
    (address, received)
}

#[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}

fn exporting(address: SocketAddr, queue: usize, tasks: &Tasks) -> Services {
    let registry = prometheus::Registry::new();
    let config = TelemetryConfig {
        sample_ratio: 1.0,
        queue,
        timeout: Duration::from_millis(200),
        ..TelemetryConfig::new(format!("http://{address}"))
    };
    let telemetry = Telemetry::start(&config, &registry, tasks).expect("an exporter");
    Services { registry, telemetry, ..Services::default() }
}

#[tokio::test]
async fn spans_reach_a_collector() {
    let (address, received) = collector().await;
    let tasks = Tasks::new();
    let services = exporting(address, 64, &tasks);
    let mesh = Topology::new().provider("a", |_| {}).provider("b", |_| {}).with(|topology| topology.services = services).start().await;
    mesh.sim("a").push_script(script("status=500"));
    let mut request = chat("m", "prompt-of-the-caller");
    request["provider"] = json!({ "order": ["a", "b"] });
    let trace = [0x4b, 0xf9, 0x2f, 0x35, 0x77, 0xb3, 0x4d, 0xa6, 0xa3, 0xce, 0x92, 0x9d, 0x0e, 0x0e, 0x47, 0x36];
    let caller = mesh.caller().with_header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let answer = caller.post("/v1/chat/completions", &request).await;
    assert_eq!(answer.status, 200);
    mesh.until_metric("tidegate_trace_spans_total", &[("result", "exported")], |count| count == 3.0).await;
    let message = received.lock().clone();
    let holds = |bytes: &[u8]| message.windows(bytes.len()).any(|window| window == bytes);
    let id = answer.header("x-generation-id").to_owned();
    for text in ["gen_ai.request.model", "gen_ai.provider.name", "gen_ai.usage.output_tokens", "up-m", "a/m", "b/m", "service.name", &id] {
        assert!(holds(text.as_bytes()), "{text} is missing");
    }
    assert!(holds(&trace), "the caller's trace");
    assert!(!holds(b"prompt-of-the-caller"));
    mesh.edge.shutdown().await;
    tasks.close(Duration::from_secs(5)).await.expect("the export ends");
}

#[tokio::test]
async fn a_collector_that_hangs_holds_nobody_up() {
    // Connections are accepted by the kernel and never answered.
    let hanging = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free loopback port");
    let tasks = Tasks::new();
    let services = exporting(hanging.local_addr().expect("a bound socket"), 4, &tasks);
    let mesh = Topology::new().provider("a", |_| {}).with(|topology| topology.services = services).start().await;
    let began = Instant::now();
    // One batch hangs at the collector, the queue behind it fills, and what comes then is lost, and counted.
    while mesh.metric("tidegate_trace_spans_total", &[("result", "dropped")]) == 0.0 {
        let asked = Instant::now();
        assert_eq!(mesh.post("/v1/chat/completions", &chat("m", "x")).await.status, 200);
        assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
        assert!(began.elapsed() < Duration::from_secs(20), "nothing was dropped");
    }
    mesh.edge.shutdown().await;
    tasks.close(Duration::from_secs(10)).await.expect("the export gives up");
}
