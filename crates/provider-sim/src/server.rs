//! Serving requests: what is asked, what is to go wrong, and the answer.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::{Map, Value, json};

use crate::answer::{Answer, Words};
use crate::ask::Ask;
use crate::body::{Due, End, Events, SimBody};
use crate::dialect::{Dialect, Event, Reply, Route, Trouble};
use crate::fault::{Fault, Misfortune};
use crate::rate_limit::Standing;
use crate::script::Script;
use crate::socket::ResetSwitch;
use crate::spec::{Answering, FixedAnswer, Timing};
use crate::state::{RecordedRequest, Serving, Settings, State};
use crate::text;

/// Serves one request. An error breaks the connection.
pub(crate) async fn serve(
    state: Arc<State>,
    reset: ResetSwitch,
    request: Request<Incoming>,
) -> io::Result<Response<SimBody>> {
    let serving = state.request_began();
    let settings = state.settings();
    let (head, body) = request.into_parts();
    let query = head.uri.query().unwrap_or_default().to_owned();
    let body = match Limited::new(body, LARGEST_BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return Err(io::Error::from(io::ErrorKind::InvalidData)),
    };
    let arrived = RecordedRequest {
        number: serving.number,
        at: Instant::now(),
        method: head.method,
        path: head.uri.path().to_owned(),
        query,
        headers: head.headers,
        body,
    };
    if state.keep_requests > 0 {
        state.record(arrived.clone());
    }
    match Route::of(&arrived.method, &arrived.path) {
        Route::Models(dialect) => Ok(models(&state, &settings, dialect, serving)),
        Route::Nowhere => Ok(nowhere(serving)),
        Route::Generate {
            dialect,
            path_model,
            path_stream,
        } => {
            let exchange = Exchange {
                dialect,
                timing: settings.timing,
                random: text::generator(state.seed, &serving.number.to_string()),
                state,
                settings,
                arrived,
                serving,
            };
            exchange.answer(path_model, path_stream, &reset).await
        }
    }
}

/// One request on its way to an answer.
struct Exchange {
    state: Arc<State>,
    settings: Arc<Settings>,
    dialect: Dialect,
    arrived: RecordedRequest,
    timing: Timing,
    /// Chances of this request alone.
    random: fastrand::Rng,
    serving: Serving,
}

impl Exchange {
    async fn answer(
        mut self,
        path_model: Option<String>,
        path_stream: bool,
        reset: &ResetSwitch,
    ) -> io::Result<Response<SimBody>> {
        let script = match self.script() {
            Ok(script) => script,
            Err(trouble) => return Ok(self.refuse(&trouble, None, None)),
        };
        let body = self.parse();
        let model = path_model.or_else(|| Some(body.as_ref()?.get("model")?.as_str()?.to_owned()));
        let fate = self.fate(script.as_ref(), model.as_deref().unwrap_or_default());
        match &fate.fault {
            Some(Fault::Reset | Fault::Refuse) => {
                reset.turn();
                self.serving.finished();
                return Err(io::Error::from(io::ErrorKind::ConnectionReset));
            }
            // Ends when the caller leaves, and then counts as a disconnect.
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Status {
                status,
                retry_after,
            }) => {
                let trouble = Trouble::of_status(*status);
                return Ok(self.refuse(&trouble, *retry_after, None));
            }
            _ => {}
        }
        if let Answering::Fixed(fixed) = &self.settings.answering {
            let fixed = Arc::clone(fixed);
            return self.answer_fixed(fixed, path_stream, fate.fault).await;
        }
        let mut ask = match self.admit(body.as_ref()) {
            Ok(ask) => ask,
            Err(trouble) => return Ok(self.refuse(&trouble, None, None)),
        };
        if self.dialect == Dialect::Gemini {
            ask.model = model.unwrap_or_default();
            ask.stream = path_stream;
        }
        if let Err(trouble) = self.check_limits(&ask) {
            return Ok(self.refuse(&trouble, None, None));
        }
        let standing = self.state.take_rate(ask.prompt_tokens());
        if let Some(exceeded) = standing.filter(|standing| standing.exceeded) {
            let trouble = Trouble::of_status(429);
            return Ok(self.refuse(&trouble, Some(exceeded.reset), Some(&exceeded)));
        }
        let answer = self.compose(&ask, script, fate.fault.as_ref());
        if ask.stream {
            Ok(self.stream(&ask, &answer, fate.fault.as_ref(), standing.as_ref()))
        } else {
            self.whole(&ask, &answer, fate.fault.as_ref(), standing.as_ref())
                .await
        }
    }

    /// The header's script comes before the queue's; a request with one does not use up the other.
    fn script(&self) -> Result<Option<Script>, Trouble> {
        let Some(header) = self.arrived.headers.get(SCRIPT_HEADER) else {
            return Ok(self.state.next_script());
        };
        let text = String::from_utf8_lossy(header.as_bytes());
        text.parse()
            .map(Some)
            .map_err(|error: crate::script::ScriptError| Trouble::invalid(error.to_string(), None))
    }

    /// A fixed answer needs nothing of the body.
    fn parse(&self) -> Option<Value> {
        match self.settings.answering {
            Answering::Fixed(_) => None,
            Answering::Written | Answering::Echo => serde_json::from_slice(&self.arrived.body).ok(),
        }
    }

    fn fate(&mut self, script: Option<&Script>, model: &str) -> Misfortune {
        let fate = match script {
            None => Misfortune::draw(
                &self.settings.faults,
                self.state.since_start(),
                model,
                &mut self.random,
            ),
            Some(script) => {
                let mut fate = Misfortune {
                    fault: None,
                    slowness: 1.0,
                };
                let slow = script.slowness.map(|factor| Fault::Slow { factor });
                slow.iter()
                    .chain(&script.fault)
                    .for_each(|fault| fate.add(fault));
                self.timing.first_token = script.first_token.unwrap_or(self.timing.first_token);
                self.timing.tokens_per_second = script
                    .tokens_per_second
                    .unwrap_or(self.timing.tokens_per_second);
                fate
            }
        };
        self.timing = self.timing.slowed(fate.slowness);
        fate
    }

    fn admit(&self, body: Option<&Value>) -> Result<Ask, Trouble> {
        let keys = &self.settings.keys;
        if !keys.is_empty() && !presented_key(&self.arrived).is_some_and(|key| keys.contains(&key))
        {
            return Err(Trouble::of_status(401));
        }
        let body = body.ok_or_else(|| {
            Trouble::invalid("We could not parse the JSON body of your request.", None)
        })?;
        self.dialect.read(body, &self.arrived.headers)
    }

    fn check_limits(&self, ask: &Ask) -> Result<(), Trouble> {
        let models = &self.settings.models;
        if !models.is_empty() && !models.contains(&ask.model) {
            return Err(Trouble::unknown_model(&ask.model));
        }
        match self.state.context_length {
            Some(limit) if ask.prompt_tokens() > limit => {
                Err(Trouble::context_length(limit, ask.prompt_tokens()))
            }
            _ => Ok(()),
        }
    }

    fn compose(&self, ask: &Ask, script: Option<Script>, fault: Option<&Fault>) -> Answer {
        let script = script.unwrap_or_default();
        let echo = script.echo || matches!(self.settings.answering, Answering::Echo);
        let words = match (fault, script.text) {
            (Some(Fault::Empty), _) => Words::None,
            (_, Some(text)) => Words::Given(text),
            (_, None) if echo => Words::Given(echo_of(&self.arrived)),
            (_, None) => Words::Written,
        };
        // Anthropic caches what is marked, the others what they please.
        let caches = self.dialect != Dialect::AnthropicMessages || ask.cache_marked;
        let cached = if caches {
            self.state.read_cache(&ask.prompt)
        } else {
            Default::default()
        };
        Answer::compose(ask, words, cached, self.state.seed)
    }

    fn reply<'r>(&self, ask: &'r Ask, answer: &'r Answer) -> Reply<'r> {
        Reply {
            ask,
            answer,
            number: self.serving.number,
            created: self.state.clock.unix_seconds(),
            tokens_per_chunk: usize::try_from(self.timing.tokens_per_chunk).unwrap_or(1),
        }
    }

    fn stream(
        mut self,
        ask: &Ask,
        answer: &Answer,
        fault: Option<&Fault>,
        standing: Option<&Standing>,
    ) -> Response<SimBody> {
        let mut events = self.dialect.events(&self.reply(ask, answer));
        let end = misfortune_of_stream(self.dialect, fault, &mut events);
        let first_token = self.timing.draw_first_token(&mut self.random);
        let mut tokens_before = 0;
        let events = events
            .into_iter()
            .map(|event| {
                let after = first_token + self.timing.span(tokens_before);
                tokens_before += event.tokens;
                Due { event, after }
            })
            .collect();
        let mut response = self.head(200, "text/event-stream; charset=utf-8", standing);
        response.insert(
            http::header::CACHE_CONTROL,
            HeaderValue::from_static("no-cache"),
        );
        respond(
            200,
            response,
            SimBody::stream(Events::Made(events), end, self.serving),
        )
    }

    async fn whole(
        mut self,
        ask: &Ask,
        answer: &Answer,
        fault: Option<&Fault>,
        standing: Option<&Standing>,
    ) -> io::Result<Response<SimBody>> {
        let time = self.timing.draw_first_token(&mut self.random)
            + self.timing.span(answer.usage.completion);
        pause(time).await;
        if let Some(Fault::ErrorEvent { .. }) = fault {
            return Ok(self.refuse(&Trouble::of_status(500), None, standing));
        }
        let text = Bytes::from(self.dialect.whole(&self.reply(ask, answer)).to_string());
        let headers = self.head(200, "application/json", standing);
        Ok(self.send_whole(text, answer.usage.completion, headers, fault))
    }

    async fn answer_fixed(
        mut self,
        fixed: Arc<FixedAnswer>,
        path_stream: bool,
        fault: Option<Fault>,
    ) -> io::Result<Response<SimBody>> {
        let streams = path_stream || asks_for_stream(&self.arrived.body);
        let delay = self.timing.draw_first_token(&mut self.random);
        if streams {
            let headers = self.head(200, "text/event-stream; charset=utf-8", None);
            let (events, end) = match fault {
                None => (
                    Events::Fixed {
                        answer: fixed,
                        delay,
                    },
                    End::Regular,
                ),
                Some(_) => self.broken_fixed(&fixed, delay, fault.as_ref()),
            };
            return Ok(respond(
                200,
                headers,
                SimBody::stream(events, end, self.serving),
            ));
        }
        pause(delay).await;
        let headers = self.head(200, "application/json", None);
        Ok(self.send_whole(fixed.json.clone(), 0, headers, fault.as_ref()))
    }

    /// An answer at once, or the part of it that the fault leaves.
    fn send_whole(
        mut self,
        text: Bytes,
        tokens: u32,
        mut headers: HeaderMap,
        fault: Option<&Fault>,
    ) -> Response<SimBody> {
        let half = text.slice(..text.len() / 2);
        let end = match fault {
            Some(Fault::Cut { .. }) => End::Break,
            Some(Fault::Stall { .. }) => End::Silence,
            Some(Fault::Malformed) => {
                return respond(200, headers, SimBody::whole(half, self.serving));
            }
            _ => {
                self.serving.sent(tokens);
                return respond(200, headers, SimBody::whole(text, self.serving));
            }
        };
        // The full length is announced, so the caller knows that something is missing.
        headers.insert(CONTENT_LENGTH, HeaderValue::from(text.len()));
        let first = Due {
            event: Event {
                bytes: half,
                tokens: 0,
            },
            after: Duration::ZERO,
        };
        let body = SimBody::stream(Events::Made(vec![first]), end, self.serving);
        respond(200, headers, body)
    }

    fn broken_fixed(
        &self,
        fixed: &FixedAnswer,
        delay: Duration,
        fault: Option<&Fault>,
    ) -> (Events, End) {
        let mut events: Vec<Event> = fixed
            .events
            .iter()
            .map(|bytes| Event {
                bytes: bytes.clone(),
                tokens: 1,
            })
            .collect();
        let end = misfortune_of_stream(self.dialect, fault, &mut events);
        let due = (0_u32..).zip(events).map(|(step, event)| Due {
            event,
            after: delay + fixed.pace.saturating_mul(step),
        });
        (Events::Made(due.collect()), end)
    }

    fn refuse(
        mut self,
        trouble: &Trouble,
        retry_after: Option<Duration>,
        standing: Option<&Standing>,
    ) -> Response<SimBody> {
        let text = Bytes::from(self.dialect.error(trouble).to_string());
        let mut headers = self.head(trouble.status, "application/json", standing);
        if let Some(after) = retry_after {
            // Whole seconds, rounded up: coming back too early is what the header is to prevent.
            headers.insert(
                RETRY_AFTER,
                HeaderValue::from(after.as_millis().div_ceil(1_000) as u64),
            );
        }
        respond(trouble.status, headers, SimBody::whole(text, self.serving))
    }

    /// Counts the answer and makes its headers.
    fn head(
        &mut self,
        status: u16,
        content_type: &'static str,
        standing: Option<&Standing>,
    ) -> HeaderMap {
        self.serving.answered(status);
        let mut headers = HeaderMap::with_capacity(12);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        if let Ok(id) = HeaderValue::try_from(format!("req_{:016x}", self.serving.number)) {
            headers.insert(
                HeaderName::from_static(self.dialect.request_id_header()),
                id,
            );
        }
        if let Some(standing) = standing {
            self.dialect
                .rate_headers(standing, self.state.clock.unix_seconds(), &mut headers);
        }
        headers
    }
}

/// Changes the events as the fault wants it, and says how they end.
fn misfortune_of_stream(dialect: Dialect, fault: Option<&Fault>, events: &mut Vec<Event>) -> End {
    match fault {
        Some(Fault::Stall { after }) => {
            events.truncate(*after);
            End::Silence
        }
        Some(Fault::Cut { after }) => {
            events.truncate(*after);
            End::Break
        }
        Some(Fault::ErrorEvent { after }) => {
            events.truncate(*after);
            let status = if dialect == Dialect::AnthropicMessages {
                529
            } else {
                500
            };
            events.push(dialect.error_event(&Trouble::of_status(status)));
            End::Regular
        }
        Some(Fault::Malformed) => {
            events.insert(0, dialect.broken_event());
            End::Regular
        }
        None
        | Some(
            Fault::Status { .. }
            | Fault::Refuse
            | Fault::Reset
            | Fault::Hang
            | Fault::Empty
            | Fault::Slow { .. },
        ) => End::Regular,
    }
}

fn models(
    state: &State,
    settings: &Settings,
    dialect: Dialect,
    mut serving: Serving,
) -> Response<SimBody> {
    serving.answered(200);
    let text = dialect.models(&settings.models, &state.name).to_string();
    respond(
        200,
        json_headers(),
        SimBody::whole(Bytes::from(text), serving),
    )
}

fn nowhere(mut serving: Serving) -> Response<SimBody> {
    serving.answered(404);
    let text = Dialect::OpenaiChat
        .error(&Trouble::of_status(404))
        .to_string();
    respond(
        404,
        json_headers(),
        SimBody::whole(Bytes::from(text), serving),
    )
}

fn json_headers() -> HeaderMap {
    HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))])
}

fn respond(status: u16, headers: HeaderMap, body: SimBody) -> Response<SimBody> {
    let mut response = Response::new(body);
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    *response.headers_mut() = headers;
    response
}

/// The key in any of the places where providers look for it.
fn presented_key(request: &RecordedRequest) -> Option<String> {
    let text = |name: &str| {
        request
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    let bearer = text(AUTHORIZATION.as_str()).and_then(|value| value.strip_prefix("Bearer "));
    let header = ["x-api-key", "x-goog-api-key", "api-key"]
        .into_iter()
        .find_map(text);
    let query = request
        .query
        .split('&')
        .find_map(|pair| pair.strip_prefix("key="));
    bearer.or(header).or(query).map(str::to_owned)
}

/// The request as JSON.
fn echo_of(request: &RecordedRequest) -> String {
    let mut headers: Map<String, Value> = Map::new();
    for (name, value) in &request.headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        match headers.get_mut(name.as_str()) {
            Some(Value::String(all)) => {
                all.push_str(", ");
                all.push_str(&value);
            }
            _ => {
                headers.insert(name.as_str().to_owned(), Value::String(value.into_owned()));
            }
        }
    }
    json!({
        "method": request.method.as_str(),
        "path": request.path,
        "query": request.query,
        "headers": headers,
        "body": request.json(),
    })
    .to_string()
}

/// Whether the body says `"stream": true`, without parsing it.
fn asks_for_stream(body: &[u8]) -> bool {
    memchr::memmem::find_iter(body, br#""stream""#).any(|at| {
        let rest = body
            .get(at + br#""stream""#.len()..)
            .unwrap_or_default()
            .trim_ascii_start();
        let value = rest
            .strip_prefix(b":")
            .unwrap_or_default()
            .trim_ascii_start();
        value.starts_with(b"true")
    })
}

async fn pause(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

const SCRIPT_HEADER: &str = "x-sim-script";
/// Above what gateways pass on.
const LARGEST_BODY: usize = 256 * 1024 * 1024;
