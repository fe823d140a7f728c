//! The edge's metrics: names, help texts, labels.
//!
//! Labels are bounded by configuration, never by what a caller sends. Handles that a request needs are resolved when the configuration
//! is built ([`EndpointMetrics`], [`ModelMetrics`]), so that the hot path adds to atomics and looks nothing up.

use std::time::Duration;

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, core::Collector,
};
use tidegate_routing::AttemptEnd;

/// Everything the edge counts.
pub(crate) struct Metrics {
    requests: IntCounterVec,
    pub(crate) overhead: Histogram,
    attempts: IntCounterVec,
    first_token: HistogramVec,
    inter_chunk: HistogramVec,
    output_rate: HistogramVec,
    tokens: IntCounterVec,
    cost: IntCounterVec,
    pub(crate) request_bytes: IntCounter,
    pub(crate) response_bytes: IntCounter,
    pub(crate) streams: IntGauge,
    pub(crate) requests_active: IntGauge,
    pub(crate) connections: IntGauge,
    pub(crate) idle_upstreams: IntGauge,
    pub(crate) connections_refused: IntCounter,
    tls_handshakes: IntCounterVec,
    retries: IntCounterVec,
    pub(crate) hedges: IntCounter,
    pub(crate) failovers: IntCounter,
    pub(crate) client_retries: IntCounter,
    pub(crate) access_log_dropped: IntCounter,
    pub(crate) content_dropped: IntCounter,
    pub(crate) state_revision: IntGaugeVec,
    pub(crate) revocation_lag: Histogram,
    pub(crate) control_connected: IntGauge,
    control_streams: IntCounterVec,
    pub(crate) control_snapshots: IntCounter,
    refused_revisions: IntCounterVec,
    /// See [`Metrics::unroutable`].
    unroutable: IntCounter,
    /// Durations of requests, by whether they streamed.
    pub(crate) duration_json: Histogram,
    pub(crate) duration_stream: Histogram,
}

impl Metrics {
    /// Makes and registers them; fails only when a name is already taken in `registry`.
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let request_duration = histogram(
            registry,
            "tidegate_edge_request_duration_seconds",
            "From the request's head to the last byte of its answer.",
            &["dialect", "stream"],
            LONG,
        )?;
        let overhead = histogram(
            registry,
            "tidegate_edge_overhead_seconds",
            "Time of a request spent in the gateway itself, waiting for caller and provider excluded.",
            &["dialect"],
            SHORT,
        )?;
        Ok(Self {
            requests: counters(
                registry,
                "tidegate_edge_requests_total",
                "Requests, by how they ended.",
                &["dialect", "model", "status", "error_type"],
            )?,
            overhead: overhead.with_label_values(&[DIALECT]),
            duration_json: request_duration.with_label_values(&[DIALECT, "false"]),
            duration_stream: request_duration.with_label_values(&[DIALECT, "true"]),
            attempts: counters(
                registry,
                "tidegate_edge_attempts_total",
                "Upstream attempts, by how they ended.",
                &["provider", "endpoint", "outcome"],
            )?,
            first_token: histogram(
                registry,
                "tidegate_edge_first_token_seconds",
                "From sending the request upstream to its first token (the whole answer when it is not streamed).",
                &["provider", "model"],
                LONG,
            )?,
            inter_chunk: histogram(
                registry,
                "tidegate_edge_inter_chunk_seconds",
                "Time between two pieces of a stream as they come from the provider; pieces that are read together count as one.",
                &["provider", "model"],
                CHUNK,
            )?,
            output_rate: histogram(
                registry,
                "tidegate_edge_output_tokens_per_second",
                "Output tokens per second of one answer, first token included.",
                &["provider", "model"],
                RATE,
            )?,
            tokens: counters(
                registry,
                "tidegate_edge_tokens_total",
                "Tokens as the provider counted them.",
                &["provider", "model", "kind"],
            )?,
            cost: counters(
                registry,
                "tidegate_edge_cost_microdollars_total",
                "Cost of answers in millionths of a US dollar, rounded up per answer.",
                &["provider", "model"],
            )?,
            request_bytes: counter(registry, "tidegate_edge_request_bytes_total", "Bytes of request bodies read from callers.")?,
            response_bytes: counter(registry, "tidegate_edge_response_bytes_total", "Bytes of answer bodies given to callers.")?,
            streams: gauge(registry, "tidegate_edge_streams_active", "Streams being relayed.")?,
            requests_active: gauge(registry, "tidegate_edge_requests_active", "Requests being served.")?,
            connections: gauge(registry, "tidegate_edge_connections", "Open downstream connections.")?,
            idle_upstreams: gauge(registry, "tidegate_edge_upstream_connections_idle", "Idle kept-alive connections to providers.")?,
            connections_refused: counter(
                registry,
                "tidegate_edge_connections_refused_total",
                "Connections closed at once because a cap was reached.",
            )?,
            tls_handshakes: counters(
                registry,
                "tidegate_edge_tls_handshakes_total",
                "TLS handshakes with callers, by how they ended.",
                &["listener", "result"],
            )?,
            retries: counters(
                registry,
                "tidegate_edge_retries_total",
                "Attempts after the first of a request, by why the one before failed.",
                &["reason"],
            )?,
            hedges: counter(
                registry,
                "tidegate_edge_hedges_total",
                "Second attempts at another provider while the first was still waited for.",
            )?,
            failovers: counter(
                registry,
                "tidegate_edge_failovers_total",
                "Requests that were answered by a later attempt than the first.",
            )?,
            client_retries: counter(
                registry,
                "tidegate_edge_client_retries_total",
                "Requests that say they repeat an earlier one (x-stainless-retry-count above zero).",
            )?,
            access_log_dropped: counter(
                registry,
                "tidegate_edge_access_log_dropped_total",
                "Access-log lines lost because the disk was too slow or failed.",
            )?,
            content_dropped: counter(
                registry,
                "tidegate_edge_content_dropped_total",
                "Prompts and answers of keys that opted in, lost because the disk was too slow or failed.",
            )?,
            state_revision: register(
                registry,
                IntGaugeVec::new(Opts::new("tidegate_state_revision", "Number of the state that is in use."), &["kind"])?,
            )?,
            revocation_lag: histogram(
                registry,
                "tidegate_revocation_lag_seconds",
                "From a revocation's agreement, by the leader's clock, to its being in force on this edge.",
                &[],
                LAG,
            )?
            .with_label_values::<&str>(&[]),
            control_connected: gauge(registry, "tidegate_edge_control_connected", "1 while this edge follows a control node.")?,
            control_streams: counters(
                registry,
                "tidegate_edge_control_streams_total",
                "Streams to control nodes, by how they ended.",
                &["end"],
            )?,
            control_snapshots: counter(
                registry,
                "tidegate_edge_control_snapshots_total",
                "Whole states taken in from control nodes; differences suffice unless an edge is new or was away for long.",
            )?,
            unroutable: counter(
                registry,
                "tidegate_edge_unroutable_requests_total",
                "Requests for a model without an endpoint, or that the configuration before had and this one, on trial, has not.",
            )?,
            refused_revisions: counters(
                registry,
                "tidegate_edge_refused_revisions_total",
                "Revisions of the agreed state that this edge refused, by the stage that did.",
                &["stage"],
            )?,
        })
    }

    /// Counts a finished request. `model` is a configured slug or empty.
    pub(crate) fn request(&self, model: &str, status: u16, error_type: &str) {
        let mut digits = itoa::Buffer::new();
        self.requests.with_label_values(&[DIALECT, model, digits.format(status), error_type]).inc();
    }

    /// Counts a stream to a control node that ended.
    pub(crate) fn control_stream(&self, end: &'static str) {
        self.control_streams.with_label_values(&[end]).inc();
    }

    /// Shows a stage of refusal before anything was refused there.
    pub(crate) fn knows_stage(&self, stage: &'static str) {
        self.refused_revisions.with_label_values(&[stage]);
    }

    /// Counts a revision that was refused.
    pub(crate) fn refused_revision(&self, stage: &'static str) {
        self.refused_revisions.with_label_values(&[stage]).inc();
    }

    /// Counts a request that the configuration has no place for, by no fault of the caller.
    pub(crate) fn unroutable(&self) {
        self.unroutable.inc();
    }

    /// Finished requests so far, and those of them that failed by no fault of the caller: 5xx, streams that broke off, and
    /// [what cannot be routed](Self::unroutable). Looks at every series: not for the road of a request.
    pub(crate) fn outcomes(&self) -> (u64, u64) {
        let (mut all, mut failed) = (0, self.unroutable.get());
        for metric in self.requests.collect().iter().flat_map(prometheus::proto::MetricFamily::get_metric) {
            // Counts of requests are far below 2^53.
            let count = metric.get_counter().get_value() as u64;
            all += count;
            let value = |name: &str| metric.get_label().iter().find(|label| label.name() == name).map_or("", |label| label.value());
            let broke_off = value("status") == "200" && !value("error_type").is_empty();
            if value("status").starts_with('5') || broke_off {
                failed += count;
            }
        }
        (all, failed)
    }

    /// Counts a finished TLS handshake.
    pub(crate) fn tls_handshake(&self, listener: &str, result: &str) {
        self.tls_handshakes.with_label_values(&[listener, result]).inc();
    }

    /// Counts an attempt that had to be repeated.
    pub(crate) fn retry(&self, reason: &'static str) {
        self.retries.with_label_values(&[reason]).inc();
    }

    /// The handles of one endpoint.
    pub(crate) fn endpoint(&self, provider: &str, model: &str, endpoint: &str) -> EndpointMetrics {
        let labels = &[provider, model];
        let tokens = |kind| self.tokens.with_label_values(&[provider, model, kind]);
        EndpointMetrics {
            attempts: self.attempts.clone(),
            provider: provider.to_owned(),
            endpoint: endpoint.to_owned(),
            succeeded: self.attempts.with_label_values(&[provider, endpoint, AttemptEnd::Success.label()]),
            first_token: self.first_token.with_label_values(labels),
            inter_chunk: self.inter_chunk.with_label_values(labels),
            output_rate: self.output_rate.with_label_values(labels),
            prompt_tokens: tokens("prompt"),
            completion_tokens: tokens("completion"),
            cached_tokens: tokens("cached"),
            reasoning_tokens: tokens("reasoning"),
            cost: self.cost.with_label_values(labels),
        }
    }

    /// The handles of one model.
    pub(crate) fn model(&self, model: &str) -> ModelMetrics {
        ModelMetrics { answered: self.requests.with_label_values(&[DIALECT, model, "200", ""]) }
    }
}

/// Handles of one endpoint, resolved once.
pub(crate) struct EndpointMetrics {
    attempts: IntCounterVec,
    provider: String,
    endpoint: String,
    succeeded: IntCounter,
    pub(crate) first_token: Histogram,
    pub(crate) inter_chunk: Histogram,
    output_rate: Histogram,
    prompt_tokens: IntCounter,
    completion_tokens: IntCounter,
    cached_tokens: IntCounter,
    reasoning_tokens: IntCounter,
    cost: IntCounter,
}

impl EndpointMetrics {
    /// Counts an attempt's end.
    pub(crate) fn attempt(&self, end: AttemptEnd) {
        if end == AttemptEnd::Success {
            return self.succeeded.inc();
        }
        self.attempts.with_label_values(&[self.provider.as_str(), self.endpoint.as_str(), end.label()]).inc();
    }

    /// Counts what an answer used.
    pub(crate) fn used(&self, usage: &tidegate_ledger::Usage, microdollars: u64, elapsed: Duration) {
        self.prompt_tokens.inc_by(usage.prompt_tokens);
        self.completion_tokens.inc_by(usage.completion_tokens);
        if usage.cached_tokens > 0 {
            self.cached_tokens.inc_by(usage.cached_tokens);
        }
        if usage.reasoning_tokens > 0 {
            self.reasoning_tokens.inc_by(usage.reasoning_tokens);
        }
        self.cost.inc_by(microdollars);
        if usage.completion_tokens > 0 && !elapsed.is_zero() {
            self.output_rate.observe(usage.completion_tokens as f64 / elapsed.as_secs_f64());
        }
    }
}

/// Handles of one model, resolved once.
pub(crate) struct ModelMetrics {
    pub(crate) answered: IntCounter,
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> prometheus::Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

fn counter(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntCounter> {
    register(registry, IntCounter::new(name, help)?)
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
    register(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntGauge> {
    register(registry, IntGauge::new(name, help)?)
}

fn histogram(registry: &Registry, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> prometheus::Result<HistogramVec> {
    register(registry, HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels)?)
}

/// The only downstream dialect there is.
const DIALECT: &str = "openai-chat";

/// Seconds: answers take from a cached millisecond to the ten minutes of the default deadline.
const LONG: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];
/// Seconds: the gateway's own time, tens of microseconds when all is well.
const SHORT: &[f64] = &[0.000_025, 0.000_05, 0.000_1, 0.000_2, 0.000_4, 0.000_8, 0.001_6, 0.003_2, 0.006_4, 0.012_8, 0.05, 0.25];
/// Seconds between pieces of a stream.
const CHUNK: &[f64] = &[0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];
/// Seconds: a revocation takes a quorum's round trip and a push.
const LAG: &[f64] = &[0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0, 2.0, 5.0, 15.0, 60.0, 600.0];
/// Tokens per second.
const RATE: &[f64] = &[1.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0, 1280.0, 2560.0];
