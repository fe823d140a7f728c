//! Spans of a request and its attempts, in the vocabulary of OpenTelemetry's GenAI conventions (attribute names of the registry,
//! `gen_ai.*`). This is the one file that knows these names.
//!
//! Spans are made when the request is over, so that a request that is not exported costs a few integers and nothing else.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use tidegate_ledger::Ending;
use tidegate_routing::{AttemptEnd, Timestamp};
use tidegate_runtime::telemetry::{FinishedSpan, KeyValue, SpanKind, Telemetry, TraceContext, TraceEnd, parse_traceparent};
use tidegate_wire::Facts;

use crate::bill::Bill;
use crate::generation::{End, Generation};

/// Where a request stands in its trace.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestTrace {
    pub(crate) context: TraceContext,
    caller: Option<TraceContext>,
}

impl RequestTrace {
    /// Continues the caller's trace, or begins one.
    pub(crate) fn begin(telemetry: &Telemetry, headers: &HeaderMap) -> Self {
        let caller = headers.get("traceparent").and_then(|value| parse_traceparent(value.to_str().ok()?));
        let mut random = fastrand::Rng::with_seed(fastrand::u64(..));
        Self { context: telemetry.begin(caller, &mut random), caller }
    }

    /// The place of a new attempt.
    pub(crate) fn attempt(&self) -> TraceContext {
        self.context.child(&mut fastrand::Rng::with_seed(fastrand::u64(..)))
    }
}

/// The `traceparent` that an attempt sends upstream.
pub(crate) fn outgoing(context: TraceContext) -> HeaderValue {
    context.to_header()
}

/// Exports the spans of a finished generation, if anybody wants them.
pub(crate) fn export(generation: &Generation, end: End, facts: &Facts, bill: &Bill, elapsed: Duration) {
    let telemetry = &generation.shared.telemetry;
    let trace = &generation.trace;
    let how = if end.ending == Ending::Completed || end.ending == Ending::Cancelled { TraceEnd::Well } else { TraceEnd::Failed };
    if !telemetry.wants(trace.context, how) {
        return;
    }
    let started = generation.context.created_ms * 1000;
    let received = generation.times().received;
    let unix = |at: Timestamp| started + u64::try_from((at - received).as_micros()).unwrap_or(0);
    for note in generation.attempts() {
        let target = generation.state.target(note.plan.endpoint);
        let mut attributes = vec![
            KeyValue::new("gen_ai.operation.name", "chat"),
            KeyValue::new("gen_ai.provider.name", target.provider.info.slug.clone()),
            KeyValue::new("gen_ai.request.model", target.upstream_model.clone()),
            KeyValue::new("server.address", target.provider.origin.host.clone()),
            KeyValue::new("server.port", i64::from(target.provider.origin.port)),
            KeyValue::new("tidegate.endpoint", target.name.to_string()),
            KeyValue::new("tidegate.attempt", i64::from(note.plan.number)),
        ];
        if let Some(status) = note.status {
            attributes.push(KeyValue::new("http.response.status_code", i64::from(status)));
        }
        telemetry.record(FinishedSpan {
            context: note.trace,
            parent_span_id: Some(trace.context.span_id()),
            parent_is_remote: false,
            name: format!("chat {}", target.model).into(),
            kind: SpanKind::Client,
            start_unix_micros: unix(note.sent),
            duration: note.duration,
            attributes,
            events: Vec::new(),
            error: (note.end != AttemptEnd::Success).then(|| note.end.label()),
        });
    }
    telemetry.record(server_span(generation, trace, end, facts, bill, started, elapsed));
}

fn server_span(
    generation: &Generation,
    trace: &RequestTrace,
    end: End,
    facts: &Facts,
    bill: &Bill,
    started: u64,
    elapsed: Duration,
) -> FinishedSpan {
    let asked = &generation.state.model(generation.context.model).slug;
    let count = |tokens: u64| i64::try_from(tokens).unwrap_or(i64::MAX);
    let mut attributes = vec![
        KeyValue::new("gen_ai.operation.name", "chat"),
        KeyValue::new("gen_ai.request.model", asked.to_string()),
        KeyValue::new("gen_ai.response.id", generation.context.id.to_string()),
        KeyValue::new("gen_ai.usage.input_tokens", count(bill.usage.prompt_tokens)),
        KeyValue::new("gen_ai.usage.output_tokens", count(bill.usage.completion_tokens)),
        KeyValue::new("http.request.method", "POST"),
        KeyValue::new("http.response.status_code", i64::from(end.status)),
        KeyValue::new("tidegate.key", generation.caller.name.to_string()),
        KeyValue::new("tidegate.attempts", count(generation.attempts().len() as u64)),
        KeyValue::new("tidegate.cost_usd", bill.charge.total.to_string()),
        KeyValue::new("tidegate.stream", generation.context.streamed),
    ];
    if let Some(target) = generation.target() {
        attributes.push(KeyValue::new("gen_ai.provider.name", target.provider.info.slug.clone()));
        attributes.push(KeyValue::new("gen_ai.response.model", target.model.to_string()));
    }
    if let Some(reason) = facts.finish_reason {
        attributes.push(KeyValue::new("gen_ai.response.finish_reasons", reason.as_str()));
    }
    FinishedSpan {
        context: trace.context,
        parent_span_id: trace.caller.map(|caller| caller.span_id()),
        parent_is_remote: trace.caller.is_some(),
        name: format!("chat {asked}").into(),
        kind: SpanKind::Server,
        start_unix_micros: started,
        duration: elapsed,
        attributes,
        events: Vec::new(),
        error: (!end.error_type.is_empty()).then_some(end.error_type),
    }
}
