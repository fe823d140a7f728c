use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tracing_subscriber::layer::SubscriberExt;

use super::*;

const LONG: Duration = Duration::from_secs(30);

/// A collector that passes on the body of every export request, undecoded, and answers with success.
async fn collector(tasks: &Tasks) -> (SocketAddr, mpsc::Receiver<Bytes>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = mpsc::channel(64);
    tasks.spawn("collector", async move {
        let (stream, _) = listener.accept().await.unwrap();
        let service = service_fn(move |request: Request<Incoming>| {
            let sender = sender.clone();
            async move {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                sender.send(body).await.unwrap();
                // A gRPC frame that holds an empty message.
                let response = Response::builder()
                    .header("content-type", "application/grpc")
                    .header("grpc-status", "0")
                    .body(Full::new(Bytes::from_static(&[0; 5])));
                Ok::<_, Infallible>(response.unwrap())
            }
        });
        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
    });
    (address, receiver)
}

fn config(address: SocketAddr) -> TelemetryConfig {
    TelemetryConfig { region: "eu-test".to_owned(), sample_ratio: 0.0, ..TelemetryConfig::new(format!("http://{address}")) }
}

fn span(context: TraceContext, name: &'static str) -> FinishedSpan {
    FinishedSpan {
        context,
        parent_span_id: None,
        parent_is_remote: false,
        name: name.into(),
        kind: SpanKind::Server,
        start_unix_micros: 1_790_000_000_000_000,
        duration: Duration::from_millis(5),
        attributes: vec![KeyValue::new("gen_ai.request.model", "acme/one")],
        events: vec![SpanEvent { name: "first token", unix_micros: 1_790_000_000_001_000 }],
        error: Some("timeout"),
    }
}

fn holds(body: &Bytes, text: &str) -> bool {
    body.windows(text.len()).any(|window| window == text.as_bytes())
}

fn spans(registry: &Registry, result: &str) -> u64 {
    let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    let label = format!("tidegate_trace_spans_total{{result=\"{result}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&label)?.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn what_is_queued_at_the_stop_still_reaches_the_collector() {
    let (server, exporting) = (Tasks::new(), Tasks::new());
    let (address, mut bodies) = collector(&server).await;
    let registry = Registry::new();
    let telemetry = Telemetry::start(&config(address), &registry, &exporting).unwrap();
    let mut random = fastrand::Rng::with_seed(3);
    let context = telemetry.begin(None, &mut random);
    assert!(!telemetry.wants(context, TraceEnd::Well));
    assert!(telemetry.wants(context, TraceEnd::Failed));
    telemetry.record(span(context, "chat acme"));
    exporting.close(LONG).await.unwrap();
    let body = bodies.recv().await.unwrap();
    for text in ["chat acme", "acme/one", "first token", "eu-test", "timeout", "tidegate"] {
        assert!(holds(&body, text), "{text} is missing");
    }
    assert_eq!(spans(&registry, "exported"), 1);
    telemetry.record(span(context, "too late"));
    assert_eq!(spans(&registry, "dropped"), 1);
    // The collector's connection ends only with its client.
    drop(telemetry);
    let _ = server.close(Duration::ZERO).await;
}

#[tokio::test]
async fn spans_of_the_log_take_the_same_road() {
    let (server, exporting) = (Tasks::new(), Tasks::new());
    let (address, mut bodies) = collector(&server).await;
    let everything = TelemetryConfig { sample_ratio: 1.0, ..config(address) };
    let telemetry = Telemetry::start(&everything, &Registry::new(), &exporting).unwrap();
    let subscriber = tracing_subscriber::registry().with(vec![telemetry.layer().unwrap()]);
    tracing::subscriber::with_default(subscriber, || tracing::info_span!("reload of everything").in_scope(|| {}));
    exporting.close(LONG).await.unwrap();
    assert!(holds(&bodies.recv().await.unwrap(), "reload of everything"));
    let _ = server.close(Duration::ZERO).await;
}

#[tokio::test]
async fn a_full_queue_drops_and_counts_without_waiting() {
    let tasks = Tasks::new();
    // Nobody listens there, and nothing is exported before this test yields.
    let small = TelemetryConfig { queue: 2, timeout: Duration::from_millis(1), ..TelemetryConfig::new("http://127.0.0.1:1") };
    let registry = Registry::new();
    let telemetry = Telemetry::start(&small, &registry, &tasks).unwrap();
    let mut random = fastrand::Rng::with_seed(4);
    for _ in 0..5 {
        telemetry.record(span(TraceContext::root(&mut random), "one of many"));
    }
    assert_eq!(spans(&registry, "dropped"), 3);
    tasks.close(LONG).await.unwrap();
    assert_eq!(spans(&registry, "failed"), 2);
}

#[tokio::test]
async fn bad_settings_are_refused() {
    let tasks = Tasks::new();
    let start = |config: &TelemetryConfig| Telemetry::start(config, &Registry::new(), &tasks).map(|_| ());
    let mut config = TelemetryConfig::new("http://[broken");
    assert!(start(&config).unwrap_err().to_string().contains("`http://[broken`"));
    config.sample_ratio = 1.5;
    assert!(matches!(start(&config), Err(TelemetryError::Ratio(_))));
}

#[test]
fn without_a_collector_contexts_still_flow() {
    let telemetry = Telemetry::off();
    let mut random = fastrand::Rng::with_seed(5);
    let caller = parse_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
    let context = telemetry.begin(Some(caller), &mut random);
    assert_eq!(context.trace_id(), caller.trace_id());
    assert!(context.is_sampled() && !telemetry.wants(context, TraceEnd::Failed));
    assert!(telemetry.layer().is_none());
}
