//! Traces: W3C context in and out, and export to an OpenTelemetry collector when one is configured.
//!
//! Spans are recorded when they are over, with all they know, because only then is it known whether the request failed: a failed one
//! is exported even if the dice said no. The hot path copies a few integers; what is not exported costs nothing. Recording never
//! waits: a queue of bounded length lies between it and the one task that talks to the collector, and what does not fit is counted
//! and dropped.

mod context;
mod export;
mod span;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::tonic_types::transport::{Certificate, ClientTlsConfig};
use opentelemetry_otlp::{WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, SpanExporter};
use prometheus::Registry;
use tracing_subscriber::layer::Layer;

pub use context::{TraceContext, parse_traceparent};
pub use opentelemetry::{Key, KeyValue, Value};
pub use span::{FinishedSpan, SpanEvent, SpanKind, TraceEnd};

use crate::logging::BoxedLayer;
use crate::tasks::Tasks;
use export::Queue;

/// What to export, and where to.
#[derive(Debug, Clone, PartialEq)]
pub struct TelemetryConfig {
    /// OTLP/gRPC address of the collector, such as `http://127.0.0.1:4317`. `https` is possible.
    pub endpoint: String,
    /// Authorities to trust for `https` beside the system's; a PEM file.
    pub ca: Option<PathBuf>,
    /// Share of new traces that are exported, 0 to 1. A caller's own decision comes first.
    pub sample_ratio: f64,
    /// Export failed requests whatever the ratio.
    pub always_on_error: bool,
    /// Most spans that wait for export; further ones are dropped and counted.
    pub queue: usize,
    /// Time that the collector gets for one batch.
    pub timeout: Duration,
    /// Resource attribute `service.name`.
    pub service_name: String,
    /// Resource attribute `service.version`.
    pub service_version: String,
    /// Resource attribute `cloud.region`, also sent as `tidegate.region`.
    pub region: String,
}

impl TelemetryConfig {
    /// Everything but the address at its default.
    pub fn new(endpoint: impl Into<String>) -> Self {
        Self {
            endpoint: endpoint.into(),
            ca: None,
            sample_ratio: DEFAULT_SAMPLE_RATIO,
            always_on_error: true,
            queue: DEFAULT_QUEUE,
            timeout: DEFAULT_TIMEOUT,
            service_name: "tidegate".to_owned(),
            service_version: env!("CARGO_PKG_VERSION").to_owned(),
            region: String::new(),
        }
    }
}

/// Why traces cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The collector's address or TLS is not usable.
    #[error("trace export to `{endpoint}`: {problem}")]
    Exporter {
        /// The address as configured.
        endpoint: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The ratio is not one.
    #[error("the sampling ratio {0} is not between 0 and 1")]
    Ratio(f64),
    /// The metrics are there already.
    #[error("register the metrics of the trace export")]
    Metrics(#[from] prometheus::Error),
}

/// Where finished spans go. Cheap to clone; without a collector everything but the context is free.
#[derive(Debug, Clone, Default)]
pub struct Telemetry {
    exporting: Option<Arc<Exporting>>,
}

#[derive(Debug)]
struct Exporting {
    queue: Queue,
    sample_ratio: f64,
    always_on_error: bool,
    provider: SdkTracerProvider,
}

impl Telemetry {
    /// No export.
    pub fn off() -> Self {
        Self::default()
    }

    /// Exports from a task on the current runtime, which ends, after a last export, when the stop of `tasks` is requested: give it
    /// tasks that stop after the last request. The collector need not be there; it is connected to when there is something to say.
    /// Panics outside of a tokio runtime.
    pub fn start(config: &TelemetryConfig, registry: &Registry, tasks: &Tasks) -> Result<Self, TelemetryError> {
        if !(0.0..=1.0).contains(&config.sample_ratio) {
            return Err(TelemetryError::Ratio(config.sample_ratio));
        }
        let resource = resource(config);
        let mut exporter = exporter(config)?;
        exporter.set_resource(&resource);
        let (queue, pump) = Queue::new(config.queue, registry)?;
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(config.sample_ratio))))
            .with_span_processor(queue.clone())
            .with_resource(resource)
            .build();
        tasks.spawn("trace-export", pump.run(exporter, tasks.shutdown().clone()));
        Ok(Self {
            exporting: Some(Arc::new(Exporting {
                queue,
                sample_ratio: config.sample_ratio,
                always_on_error: config.always_on_error,
                provider,
            })),
        })
    }

    /// Whether there is a collector.
    pub fn is_on(&self) -> bool {
        self.exporting.is_some()
    }

    /// The context of a new request: a child of the caller's, or the root of a new trace. A caller's decision to sample is kept.
    pub fn begin(&self, caller: Option<TraceContext>, random: &mut fastrand::Rng) -> TraceContext {
        if let Some(caller) = caller {
            return caller.child(random);
        }
        let root = TraceContext::root(random);
        match &self.exporting {
            Some(exporting) => root.sampled_at(exporting.sample_ratio),
            None => root,
        }
    }

    /// Whether the spans of this request are to be recorded; ask before building them.
    pub fn wants(&self, context: TraceContext, end: TraceEnd) -> bool {
        self.exporting.as_ref().is_some_and(|exporting| context.is_sampled() || (exporting.always_on_error && end == TraceEnd::Failed))
    }

    /// Hands a span over to the export. Never waits.
    pub fn record(&self, span: FinishedSpan) {
        if let Some(exporting) = &self.exporting {
            exporting.queue.offer(span.into_data());
        }
    }

    /// A log layer that turns the spans of our own crates into exported ones, for the parts that are not on the hot path. `None` when
    /// there is no collector.
    pub fn layer(&self) -> Option<BoxedLayer> {
        let tracer = self.exporting.as_ref()?.provider.tracer("tidegate");
        // Not those of the HTTP and gRPC libraries: the export would export itself.
        let ours = tracing_subscriber::filter::filter_fn(|metadata| metadata.target().starts_with("tidegate"));
        let layer = tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(ours);
        Some(Box::new(layer))
    }
}

fn resource(config: &TelemetryConfig) -> Resource {
    Resource::builder_empty()
        .with_service_name(config.service_name.clone())
        .with_attributes([
            KeyValue::new("service.version", config.service_version.clone()),
            KeyValue::new("cloud.region", config.region.clone()),
            KeyValue::new("tidegate.region", config.region.clone()),
        ])
        .build()
}

fn exporter(config: &TelemetryConfig) -> Result<opentelemetry_otlp::SpanExporter, TelemetryError> {
    let failed = |problem: String| TelemetryError::Exporter { endpoint: config.endpoint.clone(), problem };
    let mut builder =
        opentelemetry_otlp::SpanExporter::builder().with_tonic().with_endpoint(config.endpoint.clone()).with_timeout(config.timeout);
    if config.endpoint.starts_with("https:") {
        let mut tls = ClientTlsConfig::new().with_enabled_roots();
        if let Some(path) = &config.ca {
            let pem = std::fs::read(path).map_err(|error| failed(format!("read {}: {error}", path.display())))?;
            tls = tls.ca_certificate(Certificate::from_pem(pem));
        }
        builder = builder.with_tls_config(tls);
    }
    builder.build().map_err(|error| failed(error.to_string()))
}

/// Enough to see how requests flow without paying for each; raised where traffic is thin.
const DEFAULT_SAMPLE_RATIO: f64 = 0.01;
/// As the OpenTelemetry SDK; about 2 MiB when full.
const DEFAULT_QUEUE: usize = 2_048;
/// As the OpenTelemetry protocol's default.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
