//! The road of a chat request, top to bottom.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Request, Response};
use hyper::body::Incoming;
use tidegate_ledger::Ending;
use tidegate_routing::{AttemptEnd, ModelIndex, Next, Plan, Timestamp};
use tidegate_wire::{ChatCall, Closing, Completion, Facts, ReadLimits};
use tokio::time::Instant;

use crate::admission::{Admitted, read_body};
use crate::attempt::{self, Answer, Ask};
use crate::body::EdgeBody;
use crate::connection::ConnectionInfo;
use crate::content::Captured;
use crate::context::{Arrived, RequestContext};
use crate::deadline::before;
use crate::error::{EdgeError, FailedAttempts};
use crate::generation::{AttemptDetails, End, Generation, Parts};
use crate::hints::Hints;
use crate::intent::{self, Circumstances};
use crate::money::CostText;
use crate::quota::{self, Demand};
use crate::relay::{Attempts, Relay};
use crate::state::RoutingState;
use crate::trace::RequestTrace;
use crate::upstream::Pool;
use crate::worker::Worker;
use crate::{explain, handler};

/// Attempts that came to something the caller can have.
pub(crate) struct Committed {
    pub(crate) generation: Box<Generation>,
    pub(crate) answer: Answer,
}

/// Answers a chat request. An error before there is a generation is returned; later ones are answered here.
pub(crate) async fn chat(
    worker: &Arc<Worker>,
    connection: &ConnectionInfo,
    arrived: Arrived,
    request: Request<Incoming>,
) -> Result<Response<EdgeBody>, EdgeError> {
    let shared = &worker.shared;
    let received = Timestamp(shared.clock.micros());
    let (head, body) = request.into_parts();
    let caller = handler::authenticate_for_models(shared, connection, &head.headers)?;
    let state = shared.state.load_full();
    let admitted = Admitted::admit(&shared.in_flight, shared.config.limits.requests_in_flight, &shared.memory)?;
    let bytes = read_body(body, &shared.config.limits, &worker.spares).await?;
    let complete = Timestamp(shared.clock.micros());

    let request_bytes = bytes.len();
    let limits = &shared.config.limits;
    let limits = ReadLimits {
        max_body: limits.body_bytes,
        max_depth: u32::try_from(limits.json_depth).unwrap_or(u32::MAX),
        ..ReadLimits::default()
    };
    let call = ChatCall::read(bytes, &limits)?;
    let (call, preset) = intent::with_preset(call, &state)?;
    let mut hints = Hints::read(&head.headers);
    let around = Circumstances {
        state: &state,
        caller: &caller,
        affinity: &shared.affinity,
        session_header: hints.session.as_deref(),
        patience: hints.patience(state.config.defaults.deadline),
        now: received,
        seed: fastrand::u64(..),
    };
    let resolved = intent::resolve(&call, &around)?;
    let (first_model, prompt_tokens) = (resolved.intent.models[0], resolved.intent.needs.prompt_tokens);
    let (models, deadline) = (resolved.intent.models.clone(), resolved.intent.deadline);
    let account = caller.resolve(&state.owners);
    let demand = Demand {
        state: &state,
        caller: &caller,
        account: &account,
        call: &call,
        models: &models,
        prompt_tokens,
        id: &arrived.id,
        patience: deadline - received,
    };
    // Given back by its drop when nothing comes of the request.
    let held = shared.quotas.reserve(&demand).await?;
    let limits = held.reservation().filter(|_| hints.limit_headers).map(|reservation| quota::headers(reservation, arrived.created_ms));
    let plan = Plan::new(&state.snapshot, resolved.intent).map_err(|why| {
        let metadata = hints.metadata_field.map(|field| (field, explain::refused(&state, first_model, &why, &arrived.region)));
        EdgeError::NoRoute { why: Box::new(why), models: slugs(&state, &models), metadata }
    })?;

    let id = Arc::clone(&arrived.id);
    let trace = RequestTrace::begin(&shared.telemetry, &head.headers);
    let anthropic_beta = hints.anthropic_beta.take();
    let context = RequestContext::new(arrived, hints, &call, first_model, preset, request_bytes);
    let streamed = context.streamed;
    let captured = (shared.content.is_on() && caller.stores_content()).then(|| Box::new(Captured::of(call.body().clone())));
    let ask = Box::new(Ask { user: call.user().map(|user| caller.hashed_user(user)), anthropic_beta, call });
    let generation = Box::new(Generation::begin(Parts {
        shared: Arc::clone(shared),
        state,
        context,
        caller,
        plan,
        conversation: resolved.conversation,
        session_named: resolved.session_named,
        prompt_tokens,
        received,
        complete,
        deadline,
        trace,
        admitted,
        held,
        captured,
    }));
    // Boxed once: its state is several times that of the rest, and would lie in every connection from its first request on.
    let attempts: Attempts = Box::pin(attempts(generation, Arc::clone(&worker.pool), ask));
    let mut response = if streamed { stream_answer(attempts, worker, &id).await } else { whole_answer(attempts.await, &id) };
    if let Some(limits) = limits {
        response.headers_mut().extend(limits);
    }
    Ok(response)
}

/// The loop: plan, try, and again elsewhere, until something can be given to the caller or nothing is left.
async fn attempts(mut generation: Box<Generation>, pool: Arc<Pool>, ask: Box<Ask>) -> Result<Committed, (Box<Generation>, EdgeError)> {
    let mut failures = FailedAttempts::new();
    loop {
        let plan = match generation.next() {
            Some(Next::Attempt(plan)) => plan,
            exhausted => {
                let error = failures.exhausted(exhausted, requested(&generation), generation.now());
                return Err((generation, error));
            }
        };
        match attempt::run(&mut generation, &pool, &ask, plan, &mut failures).await {
            Ok(answer) => return Ok(Committed { generation, answer }),
            Err(failed) => attempt::note(&mut generation, &mut failures, failed),
        }
    }
}

/// Every model that the caller accepts, in order.
fn requested(generation: &Generation) -> Vec<String> {
    let models = generation.decision().map_or(&[][..], |decision| &decision.models);
    slugs(&generation.state, models)
}

fn slugs(state: &RoutingState, models: &[ModelIndex]) -> Vec<String> {
    models.iter().map(|model| state.model(*model).slug.to_string()).collect()
}

/// A stream: the head goes out with the first token, or with the first keep-alive comment when the token takes long.
async fn stream_answer(mut attempts: Attempts, worker: &Worker, id: &str) -> Response<EdgeBody> {
    let keep_alive = worker.shared.config.limits.keep_alive_comment;
    let relay = match before(Instant::now() + keep_alive, attempts.as_mut()).await {
        None => Relay::waiting(attempts, keep_alive),
        Some(Ok(Committed { generation, answer: Answer::Stream(stream) })) => Relay::of(generation, *stream, keep_alive),
        Some(other) => return whole_answer(other, id),
    };
    let mut response = Response::new(EdgeBody::relay(relay));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Proxies on the way must not collect a stream.
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    with_id(response, id)
}

/// A whole answer, or an error before the first byte.
fn whole_answer(outcome: Result<Committed, (Box<Generation>, EdgeError)>, id: &str) -> Response<EdgeBody> {
    let response = match outcome {
        Ok(Committed { mut generation, answer: Answer::Complete(complete) }) => {
            let (completion, details) = *complete;
            let mut response = Response::new(EdgeBody::full(finish(&mut generation, completion, details)));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        Ok(Committed { mut generation, answer: Answer::Stream(_) }) => {
            // A whole was asked for; the provider's stream ends here unused.
            generation.end_attempt(AttemptEnd::Malformed, AttemptDetails::default());
            refuse(&mut generation, &EdgeError::Attempts(Box::new(FailedAttempts::new())))
        }
        Err((mut generation, error)) => refuse(&mut generation, &error),
    };
    with_id(response, id)
}

fn refuse(generation: &mut Generation, error: &EdgeError) -> Response<EdgeBody> {
    let fault = error.fault(generation);
    let facts = Facts::default();
    let bill = generation.bill(Ending::Failed, &facts);
    generation.settle(End { ending: Ending::Failed, status: fault.status, error_type: fault.label() }, &facts, &bill);
    fault.into_response()
}

/// Prices a whole answer and accounts for it.
fn finish(generation: &mut Generation, mut completion: Completion, details: AttemptDetails) -> Bytes {
    let answered = generation.times().answered.unwrap_or_else(|| generation.now());
    generation.end_attempt_at(AttemptEnd::Success, details, answered);
    let bill = generation.bill(Ending::Completed, completion.facts());
    if bill.estimated {
        completion.assume_usage(crate::money::wire_usage(&bill.usage));
    }
    let cost = CostText::of(&bill);
    let field = generation.context.metadata_field;
    let metadata = field.map(|_| explain::metadata(generation, None));
    let facts = completion.facts().clone();
    let closing = Closing { cost: Some(cost.as_cost()), metadata: metadata.as_deref(), metadata_field: field.unwrap_or_default() };
    let bytes = completion.write(&closing);
    generation.delivered(&facts, &bytes);
    let committed = generation.committed();
    generation.shared.metrics.response_bytes.inc_by(bytes.len() as u64);
    generation.settle_at(End { ending: Ending::Completed, status: 200, error_type: "" }, &facts, &bill, committed);
    bytes
}

pub(crate) fn with_id(mut response: Response<EdgeBody>, id: &str) -> Response<EdgeBody> {
    if let Ok(value) = HeaderValue::from_str(id) {
        response.headers_mut().insert(GENERATION_ID, value);
    }
    response
}

const GENERATION_ID: HeaderName = HeaderName::from_static("x-generation-id");
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
