//! The queue between the spans and the collector, and the task that empties it.
//!
//! The SDK has a batch processor of its own; it is not used because it does not tell how many spans it dropped, and because it brings
//! a thread that our task set does not own.

use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter, SpanProcessor};
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::{Instant, timeout_at};

use crate::tasks::Shutdown;

/// The end that takes spans in.
#[derive(Debug, Clone)]
pub(super) struct Queue {
    sender: Sender<SpanData>,
    dropped: IntCounter,
}

impl Queue {
    /// A queue for `capacity` spans, and what empties it.
    pub(super) fn new(capacity: usize, registry: &Registry) -> prometheus::Result<(Self, Pump)> {
        let spans = IntCounterVec::new(
            Opts::new(
                "tidegate_trace_spans_total",
                "Spans by what became of them: exported, dropped because the queue was full, failed at the collector.",
            ),
            &["result"],
        )?;
        registry.register(Box::new(spans.clone()))?;
        // The bound is the configuration's: it is the memory that tracing may take.
        let (sender, receiver) = channel(capacity.max(1));
        let queue = Self { sender, dropped: spans.with_label_values(&["dropped"]) };
        let pump = Pump { receiver, exported: spans.with_label_values(&["exported"]), failed: spans.with_label_values(&["failed"]) };
        Ok((queue, pump))
    }

    /// Takes a span, or counts it as dropped when there is no room or the export has ended.
    pub(super) fn offer(&self, span: SpanData) {
        if self.sender.try_send(span).is_err() {
            self.dropped.inc();
        }
    }
}

/// Lets the SDK's own spans take the same road.
impl SpanProcessor for Queue {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() {
            self.offer(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }

    fn set_resource(&mut self, _resource: &Resource) {}
}

/// The end that gives them to the collector.
#[derive(Debug)]
pub(super) struct Pump {
    receiver: Receiver<SpanData>,
    exported: IntCounter,
    failed: IntCounter,
}

impl Pump {
    /// Exports until the stop is requested, then what is still queued, within [`LAST_EXPORT`].
    pub(super) async fn run<E: SpanExporter>(mut self, exporter: E, shutdown: Shutdown) {
        loop {
            let mut batch = Vec::with_capacity(LARGEST_BATCH);
            // Losing the gathering is safe: spans leave the queue for the batch in one step, and the batch is looked at below.
            tokio::select! {
                () = self.gather(&mut batch) => {}
                () = shutdown.requested() => {}
            }
            if shutdown.is_requested() {
                return self.finish(exporter, batch).await;
            }
            if batch.is_empty() {
                return;
            }
            self.export(&exporter, batch).await;
        }
    }

    /// Waits for a first span, then a little for company.
    async fn gather(&mut self, batch: &mut Vec<SpanData>) {
        if self.receiver.recv_many(batch, LARGEST_BATCH).await == 0 {
            return;
        }
        let until = Instant::now() + LINGER;
        while batch.len() < LARGEST_BATCH {
            let room = LARGEST_BATCH - batch.len();
            match timeout_at(until, self.receiver.recv_many(batch, room)).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return,
            }
        }
    }

    async fn finish<E: SpanExporter>(mut self, exporter: E, mut batch: Vec<SpanData>) {
        self.receiver.close();
        let until = Instant::now() + LAST_EXPORT;
        loop {
            let room = LARGEST_BATCH.saturating_sub(batch.len()).max(1);
            let more = self.receiver.recv_many(&mut batch, room).await;
            if batch.is_empty() {
                return;
            }
            let count = batch.len() as u64;
            if timeout_at(until, self.export(&exporter, std::mem::take(&mut batch))).await.is_err() {
                self.failed.inc_by(count + self.receiver.len() as u64);
                return;
            }
            if more == 0 {
                return;
            }
        }
    }

    async fn export<E: SpanExporter>(&self, exporter: &E, batch: Vec<SpanData>) {
        let count = batch.len() as u64;
        match exporter.export(batch).await {
            Ok(()) => self.exported.inc_by(count),
            Err(error) => {
                self.failed.inc_by(count);
                // Not a warning each time: the metric says how often, and a collector may be away for hours.
                tracing::debug!(%error, spans = count, "the collector did not take the spans");
            }
        }
    }
}

/// As the OpenTelemetry SDK.
const LARGEST_BATCH: usize = 512;
/// Longest time that a span waits for others to share its request.
const LINGER: Duration = Duration::from_secs(1);
/// A process that stops waits no longer than this for its collector.
const LAST_EXPORT: Duration = Duration::from_secs(3);
