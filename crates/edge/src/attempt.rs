//! One upstream try: encode, send, wait for the first token, or say what went wrong.
//!
//! No retry here: the plan decides whether there is a next try and where.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use secrecy::{ExposeSecret, SecretString};
use smallvec::SmallVec;
use tidegate_routing::{AttemptEnd, AttemptPlan, Endpoint, ParameterSet, RateHint, Timestamp};
use tidegate_wire::{
    ChatCall, Completion, ErrorType, Failure, FailureKind, RequestError, Stamp, StreamReader, UpstreamRequest, classify, encode,
    rate_limits, read_completion,
};
use tokio::time::Instant;

use crate::deadline::before;
use crate::error::{EdgeError, FailedAttempts};
use crate::generation::{AttemptDetails, Generation};
use crate::hedge;
use crate::quota::Refused;
use crate::shared::Shared;
use crate::state::Target;
use crate::upstream::{Broken, Head, Outgoing, Pool, ResponseBody, SegmentBody, SendError};

/// What a request brings to every attempt.
pub(crate) struct Ask {
    pub(crate) call: ChatCall,
    /// The caller's end user, hashed with the account.
    pub(crate) user: Option<String>,
    /// The caller's `anthropic-beta` flags.
    pub(crate) anthropic_beta: Option<HeaderValue>,
}

/// A try that can be given to the caller.
pub(crate) enum Answer {
    /// A whole answer, read and understood.
    Complete(Box<(Completion, AttemptDetails)>),
    /// A stream whose first token is here.
    Stream(Box<OpenStream>),
}

/// An answer and the moment of its first token.
pub(crate) struct Found {
    pub(crate) answer: Answer,
    pub(crate) at: Timestamp,
}

/// An upstream stream and what came of it so far.
pub(crate) struct OpenStream {
    pub(crate) body: ResponseBody,
    pub(crate) reader: StreamReader,
    /// Rewritten events up to and including the first token.
    pub(crate) first: BytesMut,
    pub(crate) idle_timeout: Duration,
    pub(crate) rate: Option<RateHint>,
    /// The provider's end was seen already.
    pub(crate) finished: bool,
}

/// A try that failed before anything was relayed.
pub(crate) struct AttemptFailure {
    pub(crate) end: AttemptEnd,
    pub(crate) details: AttemptDetails,
    pub(crate) failure: Failure,
    /// The field to blame, when the request cannot be put into this provider's dialect.
    pub(crate) param: Option<String>,
    /// The caller's limit for this provider that refused.
    pub(crate) refused: Option<Box<Refused>>,
}

/// A try that is ready to be sent. It borrows nothing of the generation, so that two can be under way at once.
pub(crate) struct Prepared {
    target: Arc<Target>,
    stamp: Stamp,
    outgoing: Outgoing,
    attempt: AttemptPlan,
}

/// What happened to a try that failed, and which one it was.
pub(crate) type Failed = (AttemptPlan, Box<AttemptFailure>);

/// Makes the try that `generation` has just taken up, and a second one elsewhere where that is wanted.
pub(crate) async fn run(
    generation: &mut Generation,
    pool: &Arc<Pool>,
    ask: &Ask,
    attempt: AttemptPlan,
    failures: &mut FailedAttempts,
) -> Result<Answer, Failed> {
    if generation.has_provider_limits() {
        // Boxed: few callers have such limits, and every request's future would carry its state.
        Box::pin(hold(generation)).await.map_err(|failed| (attempt, failed))?;
    }
    let prepared = prepare(generation, ask, attempt).map_err(|failed| (attempt, failed))?;
    let shared = Arc::clone(&generation.shared);
    let exchange = pin!(exchange(&shared, pool, ask, &prepared));
    let waiting = before(Instant::now() + attempt.first_token_timeout, exchange);
    let outcome = match generation.hedge_after(&attempt) {
        None => waiting.await.unwrap_or_else(|| Err(timed_out(&attempt))),
        // Boxed: hedging is rare, and every request's future would carry its state.
        Some(after) => return Box::pin(hedge::race(generation, pool, ask, attempt, waiting, after, failures)).await,
    };
    settle(generation, attempt, outcome)
}

/// Asks the caller's limits for the provider of the try that `generation` has just taken up.
pub(crate) async fn hold(generation: &mut Generation) -> Result<(), Box<AttemptFailure>> {
    let Err(error) = generation.hold_attempt().await else { return Ok(()) };
    let failure = seen(FailureKind::RateLimited, "the caller's limit for this provider has no room");
    let refused = match error {
        EdgeError::Quota(refused) => Some(refused),
        _ => None,
    };
    Err(Box::new(AttemptFailure { refused, ..*failed(AttemptEnd::OverLimit, failure) }))
}

/// What a finished exchange means for the generation.
pub(crate) fn settle(
    generation: &mut Generation,
    attempt: AttemptPlan,
    outcome: Result<Found, Box<AttemptFailure>>,
) -> Result<Answer, Failed> {
    match outcome {
        Ok(found) => {
            generation.answered(found.at);
            Ok(found.answer)
        }
        Err(failed) => Err((attempt, failed)),
    }
}

/// Notes a failed try, for the plan and for the error that the caller reads if nothing else comes.
pub(crate) fn note(generation: &mut Generation, failures: &mut FailedAttempts, (attempt, failed): Failed) {
    let mut failed = *failed;
    generation.state.redact(attempt.credential, &mut failed.failure);
    let details = AttemptDetails {
        status: failed.details.status,
        retry_after: failed.details.retry_after,
        rate: failed.details.rate,
        ..AttemptDetails::default()
    };
    generation.end_attempt(failed.end, details);
    let provider = Arc::clone(&generation.state.target(attempt.endpoint).provider);
    failures.push(&provider.name, failed);
}

/// Encodes the try that `generation` has just taken up, and notes that it is on its way.
pub(crate) fn prepare(generation: &mut Generation, ask: &Ask, attempt: AttemptPlan) -> Result<Prepared, Box<AttemptFailure>> {
    let state = Arc::clone(&generation.state);
    let target = Arc::clone(state.target(attempt.endpoint));
    let encoded = encode_for(ask, &target, state.endpoint(attempt.endpoint)).map_err(not_encodable)?;
    let outgoing = Outgoing {
        uri: uri_of(&target, &encoded.path, state.credential_query(attempt.credential)).map_err(not_encodable)?,
        body: SegmentBody::new(encoded.body),
        headers: headers_of(generation, ask, &target, encoded.headers, state.credential_header(attempt.credential)),
    };
    if ask.call.debug_echo() && ask.call.stream() {
        generation.echo(outgoing.body.contiguous());
    }
    generation.sent();
    Ok(Prepared { stamp: generation.stamp(&target), target, outgoing, attempt })
}

/// The first token took longer than this attempt is given.
pub(crate) fn timed_out(attempt: &AttemptPlan) -> Box<AttemptFailure> {
    let waited = attempt.first_token_timeout.as_secs_f64();
    failed(AttemptEnd::FirstTokenTimeout, seen(FailureKind::Timeout, format!("no answer within {waited:.1} s")))
}

/// Sends, and reads up to the first token (a stream) or the end (a whole answer).
pub(crate) async fn exchange(shared: &Shared, pool: &Arc<Pool>, ask: &Ask, prepared: &Prepared) -> Result<Found, Box<AttemptFailure>> {
    let Prepared { target, stamp, outgoing, attempt } = prepared;
    let origin = &target.provider.origin;
    let (head, body) = match pool.send(origin, outgoing).await {
        Ok(answer) => answer,
        Err(SendError::Connect(error)) => {
            tracing::debug!(%error, endpoint = %target.name, "cannot connect");
            return Err(failed(AttemptEnd::Connect, seen(FailureKind::Server, "the provider cannot be reached")));
        }
        Err(SendError::Broken(error)) => {
            tracing::debug!(%error, endpoint = %target.name, "the connection broke");
            return Err(failed(AttemptEnd::Server(502), seen(FailureKind::Cut, "the connection broke before an answer came")));
        }
    };
    let now = shared.clock.unix_seconds();
    let rate = rate_limits(&head.headers, target.provider.info.rate_limits, now)
        .map(|limits| RateHint { remaining_ratio: limits.remaining_ratio, reset: limits.reset });
    if !head.status.is_success() {
        return Err(Box::pin(read_failure(head, body, Arc::clone(target), now, rate)).await);
    }
    if !ask.call.stream() {
        return read_whole(shared, ask, body, target, stamp, rate).await;
    }
    if is_json(&head.headers) {
        // Some hosts report errors of a stream request as a plain JSON body with status 200.
        let bytes = read_up_to(body, ERROR_BYTES).await;
        let failure = classify(target.provider.dialect(), head.status.as_u16(), &head.headers, &bytes, now);
        return Err(with_details(failure, AttemptEnd::Malformed, rate));
    }
    open_stream(shared, ask, body, prepared, attempt, rate).await
}

async fn open_stream(
    shared: &Shared,
    ask: &Ask,
    mut body: ResponseBody,
    prepared: &Prepared,
    attempt: &AttemptPlan,
    rate: Option<RateHint>,
) -> Result<Found, Box<AttemptFailure>> {
    let target = &prepared.target;
    let mut reader = StreamReader::new(target.provider.dialect(), prepared.stamp.clone(), true);
    if ask.call.hides_reasoning() {
        reader.hide_reasoning();
    }
    let mut first = BytesMut::new();
    let finished = loop {
        let Some(data) = body.data().await else {
            let ended = reader.end_into(&mut first);
            // An answer without content is only an answer when the provider says why it is empty.
            if ended.is_ok() && reader.facts().finish_reason.is_some() && reader.facts().usage.is_some() {
                break true;
            }
            let failure = ended.err().unwrap_or_else(|| seen(FailureKind::Empty, "the answer was empty"));
            let end = if failure.kind == FailureKind::Cut { AttemptEnd::Server(502) } else { AttemptEnd::Empty };
            return Err(with_details(failure, end, rate));
        };
        let data = data.map_err(|error| {
            tracing::debug!(%error, endpoint = %target.name, "the stream broke before its first token");
            with_details(seen(FailureKind::Cut, "the stream broke before its first token"), AttemptEnd::Server(502), rate)
        })?;
        let progress = reader.push(data, &mut first).map_err(|failure| {
            let end = end_of(&failure);
            with_details(failure, end, rate)
        })?;
        if progress.content {
            break progress.finished;
        }
        if progress.finished && reader.facts().finish_reason.is_none() {
            return Err(with_details(seen(FailureKind::Empty, "the answer was empty"), AttemptEnd::Empty, rate));
        }
        if progress.finished {
            break true;
        }
    };
    let at = Timestamp(shared.clock.micros());
    let answer = Answer::Stream(Box::new(OpenStream { body, reader, first, idle_timeout: attempt.idle_timeout, rate, finished }));
    Ok(Found { answer, at })
}

async fn read_whole(
    shared: &Shared,
    ask: &Ask,
    body: ResponseBody,
    target: &Target,
    stamp: &Stamp,
    rate: Option<RateHint>,
) -> Result<Found, Box<AttemptFailure>> {
    let limit = shared.config.limits.answer_bytes;
    let bytes = match collect(body, limit).await {
        Ok(bytes) => bytes,
        Err(Collect::TooLarge) => {
            let failure = seen(FailureKind::Malformed, format!("the answer is larger than {limit} bytes"));
            return Err(with_details(failure, AttemptEnd::Malformed, rate));
        }
        Err(Collect::Broken(error)) => {
            tracing::debug!(%error, endpoint = %target.name, "the answer broke off");
            return Err(with_details(seen(FailureKind::Cut, "the answer broke off"), AttemptEnd::Server(502), rate));
        }
    };
    let at = Timestamp(shared.clock.micros());
    let completion = read_completion(target.provider.dialect(), bytes, Some(&ask.call), stamp.clone()).map_err(|failure| {
        let end = end_of(&failure);
        with_details(failure, end, rate)
    })?;
    let facts = completion.facts();
    if !facts.content_seen && facts.finish_reason.is_none() {
        return Err(with_details(seen(FailureKind::Empty, "the answer was empty"), AttemptEnd::Empty, rate));
    }
    let details = AttemptDetails {
        status: Some(200),
        rate,
        output_tokens: facts.usage.as_ref().and_then(|usage| u32::try_from(usage.completion_tokens).ok()),
        upstream_id: facts.upstream_id.clone(),
        retry_after: None,
    };
    Ok(Found { answer: Answer::Complete(Box::new((completion, details))), at })
}

async fn read_failure(head: Head, body: ResponseBody, target: Arc<Target>, now: u64, rate: Option<RateHint>) -> Box<AttemptFailure> {
    let bytes = read_up_to(body, ERROR_BYTES).await;
    let failure = classify(target.provider.dialect(), head.status.as_u16(), &head.headers, &bytes, now);
    let end = end_of(&failure);
    with_details(failure, end, rate)
}

/// What a provider's failure means for routing: the seam between `wire` and `routing`.
pub(crate) fn end_of(failure: &Failure) -> AttemptEnd {
    match failure.kind {
        FailureKind::RateLimited => AttemptEnd::RateLimited,
        FailureKind::CreditExhausted => AttemptEnd::CreditExhausted,
        FailureKind::Unauthorized => AttemptEnd::Unauthorized,
        FailureKind::Forbidden => AttemptEnd::Forbidden,
        FailureKind::ModelNotFound => AttemptEnd::ModelNotFound,
        FailureKind::ContextLength
        | FailureKind::ContentPolicy
        | FailureKind::InvalidRequest
        | FailureKind::PayloadTooLarge
        | FailureKind::Unprocessable => AttemptEnd::Rejected(failure.status.filter(|status| *status >= 400).unwrap_or(400)),
        FailureKind::Timeout => AttemptEnd::Server(failure.status.filter(|status| *status >= 500).unwrap_or(504)),
        FailureKind::Server | FailureKind::Cut => AttemptEnd::Server(failure.status.filter(|status| *status >= 500).unwrap_or(502)),
        FailureKind::Overloaded => AttemptEnd::Overloaded,
        FailureKind::Malformed => AttemptEnd::Malformed,
        FailureKind::Empty => AttemptEnd::Empty,
    }
}

/// A failure that we saw ourselves, in our own words.
pub(crate) fn seen(kind: FailureKind, message: impl Into<String>) -> Failure {
    let error_type = if kind == FailureKind::Timeout { ErrorType::Timeout } else { ErrorType::ProviderUnavailable };
    Failure { kind, status: None, error_type, provider_code: None, message: message.into(), retry_after: None, raw: None }
}

fn failed(end: AttemptEnd, failure: Failure) -> Box<AttemptFailure> {
    with_details(failure, end, None)
}

fn with_details(failure: Failure, end: AttemptEnd, rate: Option<RateHint>) -> Box<AttemptFailure> {
    let details = AttemptDetails { status: failure.status, retry_after: failure.retry_after, rate, ..AttemptDetails::default() };
    Box::new(AttemptFailure { end, details, failure, param: None, refused: None })
}

/// The request has no form in this dialect: the caller's fault, and no reason to blame the endpoint.
fn not_encodable(error: RequestError) -> Box<AttemptFailure> {
    let failure = Failure { status: Some(error.status), error_type: error.error_type, ..seen(FailureKind::InvalidRequest, error.message) };
    Box::new(AttemptFailure { param: error.param, ..*with_details(failure, AttemptEnd::Rejected(error.status), None) })
}

fn encode_for(ask: &Ask, target: &Target, endpoint: &Endpoint) -> Result<UpstreamRequest, RequestError> {
    let parameters = endpoint.parameters;
    let supports = move |name: &str| ParameterSet::from_name(name).is_none_or(|parameter| parameters.contains(parameter));
    encode(
        &ask.call,
        &tidegate_wire::Target {
            dialect: target.provider.dialect(),
            model: &target.upstream_model,
            provider: &target.provider.info,
            supports: &supports,
            max_output: endpoint.max_output,
            user: ask.user.as_deref(),
            stream: ask.call.stream(),
        },
    )
}

/// Headers by allow-list: nothing of the caller's head goes upstream but what is named here.
fn headers_of(
    generation: &Generation,
    ask: &Ask,
    target: &Target,
    encoded: SmallVec<[(HeaderName, HeaderValue); 4]>,
    credential: Option<(HeaderName, HeaderValue)>,
) -> SmallVec<[(HeaderName, HeaderValue); 8]> {
    let accept = if ask.call.stream() { "text/event-stream" } else { "application/json" };
    let mut headers: SmallVec<[(HeaderName, HeaderValue); 8]> = SmallVec::new();
    headers.push((CONTENT_TYPE, HeaderValue::from_static("application/json")));
    headers.push((ACCEPT, HeaderValue::from_static(accept)));
    headers.push((USER_AGENT, HeaderValue::from_static(concat!("tidegate/", env!("CARGO_PKG_VERSION")))));
    headers.extend(target.provider.headers.iter().cloned());
    headers.extend(encoded);
    headers.extend(credential);
    if let Some(beta) = &ask.anthropic_beta
        && target.provider.dialect() == tidegate_wire::Dialect::AnthropicMessages
    {
        headers.push((HeaderName::from_static("anthropic-beta"), beta.clone()));
    }
    if target.provider.propagate_trace
        && let Some(traceparent) = generation.traceparent()
    {
        headers.push((HeaderName::from_static("traceparent"), traceparent));
    }
    headers
}

fn uri_of(target: &Target, path: &str, credential: Option<&SecretString>) -> Result<Uri, RequestError> {
    let base = &target.provider.origin.base_path;
    let mut text = String::with_capacity(base.len() + path.len());
    text.push_str(base);
    text.push_str(path);
    if let Some(credential) = credential {
        text.push(if path.contains('?') { '&' } else { '?' });
        text.push_str(credential.expose_secret());
    }
    Uri::try_from(text).map_err(|_| RequestError::of(ErrorType::InvalidRequest, "the model's name cannot be put into the provider's path"))
}

fn is_json(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/json"))
}

enum Collect {
    TooLarge,
    Broken(Broken),
}

/// Reads a body to its end; one that came in one piece is not copied.
async fn collect(mut body: ResponseBody, limit: usize) -> Result<Bytes, Collect> {
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data.map_err(Collect::Broken)?;
        if first.len() + rest.len() + data.len() > limit {
            return Err(Collect::TooLarge);
        }
        if first.is_empty() && rest.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                rest.reserve(2 * (first.len() + data.len()));
                rest.extend_from_slice(&std::mem::take(&mut first));
            }
            rest.extend_from_slice(&data);
        }
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}

/// The beginning of an error body; what breaks or never comes is left out.
async fn read_up_to(mut body: ResponseBody, most: usize) -> Bytes {
    let mut bytes = BytesMut::new();
    let deadline = Instant::now() + ERROR_PATIENCE;
    while let Some(Some(Ok(data))) = before(deadline, pin!(body.data())).await {
        let room = most - bytes.len();
        bytes.extend_from_slice(&data[..data.len().min(room)]);
        if bytes.len() == most {
            break;
        }
    }
    bytes.freeze()
}

/// Error bodies are a few hundred bytes; more is not read.
const ERROR_BYTES: usize = 64 * 1024;
/// The status is known already; the body only explains it.
const ERROR_PATIENCE: Duration = Duration::from_secs(5);
