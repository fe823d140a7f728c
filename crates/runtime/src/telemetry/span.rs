//! A span that is over, as the roles describe it.

use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::trace::{Event, SpanContext, SpanId, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::context::TraceContext;

pub use opentelemetry::trace::SpanKind;

/// How a trace ended, for the decision to export it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceEnd {
    /// As it should.
    Well,
    /// With a failure that someone may want to look into.
    Failed,
}

/// What happened between two moments. Names and keys are fixed texts; values never hold prompts, keys or bodies.
#[derive(Debug, Clone)]
pub struct FinishedSpan {
    /// Place of this span.
    pub context: TraceContext,
    /// Span above this one, `None` for the first of a trace.
    pub parent_span_id: Option<u64>,
    /// Whether the span above lies in another process.
    pub parent_is_remote: bool,
    /// Low-cardinality name, such as `chat gpt-5`.
    pub name: Cow<'static, str>,
    /// Whose side of a call it is.
    pub kind: SpanKind,
    /// Begin, microseconds since the Unix epoch.
    pub start_unix_micros: u64,
    /// How long it took.
    pub duration: Duration,
    /// Attributes.
    pub attributes: Vec<KeyValue>,
    /// Moments within, in order.
    pub events: Vec<SpanEvent>,
    /// The failure it ended with: a word of a closed set, `error.type` of the semantic conventions.
    pub error: Option<&'static str>,
}

/// A moment within a span.
#[derive(Debug, Clone)]
pub struct SpanEvent {
    /// What happened.
    pub name: &'static str,
    /// When, microseconds since the Unix epoch.
    pub unix_micros: u64,
}

impl FinishedSpan {
    pub(super) fn into_data(mut self) -> SpanData {
        let start_time = moment(self.start_unix_micros);
        let status = match self.error {
            None => Status::Unset,
            Some(error) => {
                self.attributes.push(KeyValue::new("error.type", error));
                Status::error(error)
            }
        };
        let mut events = SpanEvents::default();
        events.events = self.events.iter().map(|event| Event::new(event.name, moment(event.unix_micros), Vec::new(), 0)).collect();
        SpanData {
            span_context: SpanContext::new(
                TraceId::from_bytes(self.context.trace_id().to_be_bytes()),
                SpanId::from_bytes(self.context.span_id().to_be_bytes()),
                // What is exported counts as sampled, also when only its failure brought it here.
                TraceFlags::SAMPLED,
                false,
                TraceState::NONE,
            ),
            parent_span_id: SpanId::from_bytes(self.parent_span_id.unwrap_or(0).to_be_bytes()),
            parent_span_is_remote: self.parent_is_remote,
            span_kind: self.kind,
            name: self.name,
            start_time,
            end_time: start_time.checked_add(self.duration).unwrap_or(start_time),
            attributes: self.attributes,
            dropped_attributes_count: 0,
            events,
            links: SpanLinks::default(),
            status,
            instrumentation_scope: InstrumentationScope::builder("tidegate").build(),
        }
    }
}

fn moment(unix_micros: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_micros(unix_micros)).unwrap_or(UNIX_EPOCH)
}
