//! Which path does what.
//!
//! One table holds every route; `GET /openapi.json` is generated from the same table, so a route cannot exist without being described.
//! Unknown query parameters and headers are ignored, as real clients send many.

mod account;
mod catalogue;
mod endpoints;
mod keys;
mod providers;

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::Value;
use tidegate_proto::v1::ManageOperation;

use account::Account;

use crate::auth::{AuthFailure, Caller};
use crate::body::EdgeBody;
use crate::connection::ConnectionInfo;
use crate::context::Arrived;
use crate::error::EdgeError;
use crate::openapi::Operation;
use crate::shared::Shared;
use crate::state::RoutingState;
use crate::worker::Worker;
use crate::{access_line, head, openapi, pipeline};

/// One row of the table.
pub(crate) struct Route {
    pub(crate) method: Method,
    /// Below `/api/v1` and `/v1`, except for the two root routes; `{…}` matches one segment, percent-encoding kept.
    pub(crate) path: &'static str,
    action: Action,
    pub(crate) operation: &'static Operation,
}

#[derive(Clone, Copy)]
enum Action {
    Chat,
    Account(Account),
    /// Of management keys; the control plane answers.
    Keys(ManageOperation),
    Preflight(&'static str),
    Read(fn(&Reading<'_>) -> Result<Response<EdgeBody>, EdgeError>),
}

/// What a reading handler may look at.
pub(crate) struct Reading<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) state: &'a RoutingState,
    pub(crate) connection: &'a ConnectionInfo,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) query: Query<'a>,
    /// What the `{…}` segments matched.
    pub(crate) segments: Vec<&'a str>,
}

/// The table. To add a data-plane endpoint, write its handler and add its row.
pub(crate) static ROUTES: &[Route] = &[
    Route { method: Method::POST, path: "/chat/completions", action: Action::Chat, operation: &openapi::CHAT },
    Route { method: Method::GET, path: "/models", action: Action::Read(catalogue::models), operation: &openapi::MODELS },
    Route {
        method: Method::GET,
        path: "/models/{author}/{slug}/endpoints",
        action: Action::Read(endpoints::of_model),
        operation: &openapi::ENDPOINTS,
    },
    Route { method: Method::GET, path: "/providers", action: Action::Read(providers::list), operation: &openapi::PROVIDERS },
    Route { method: Method::GET, path: "/generation", action: Action::Account(Account::Generation), operation: &openapi::GENERATION },
    Route { method: Method::GET, path: "/key", action: Action::Account(Account::Key), operation: &openapi::KEY },
    Route { method: Method::GET, path: "/keys", action: Action::Keys(ManageOperation::List), operation: &openapi::LIST_KEYS },
    Route { method: Method::POST, path: "/keys", action: Action::Keys(ManageOperation::Create), operation: &openapi::CREATE_KEY },
    Route { method: Method::GET, path: "/keys/{hash}", action: Action::Keys(ManageOperation::Get), operation: &openapi::GET_KEY },
    Route { method: Method::PATCH, path: "/keys/{hash}", action: Action::Keys(ManageOperation::Edit), operation: &openapi::EDIT_KEY },
    Route { method: Method::DELETE, path: "/keys/{hash}", action: Action::Keys(ManageOperation::Delete), operation: &openapi::DELETE_KEY },
    Route { method: Method::GET, path: "/credits", action: Action::Account(Account::Credits), operation: &openapi::CREDITS },
    Route { method: Method::GET, path: "/activity", action: Action::Account(Account::Activity), operation: &openapi::ACTIVITY },
];

/// Prefixes under which every route of the table answers.
pub(crate) const PREFIXES: [&str; 2] = ["/api/v1", "/v1"];

/// Answers one request; errors end here.
pub(crate) async fn handle(worker: &Arc<Worker>, connection: &ConnectionInfo, request: Request<Incoming>) -> Response<EdgeBody> {
    let shared = &worker.shared;
    let created_ms = shared.clock.unix_millis();
    let arrived = Arrived {
        id: shared.generations.new_id(created_ms, fastrand::u128(..)),
        created_ms,
        region: Arc::clone(&shared.region),
        nothing: Arc::clone(&shared.nothing),
    };
    if request.headers().get(&STAINLESS_RETRIES).is_some_and(|count| count.as_bytes() != b"0") {
        shared.metrics.client_retries.inc();
    }
    let id = Arc::clone(&arrived.id);
    match answer(worker, connection, arrived, request).await {
        Ok(response) => response,
        Err(error) => {
            let fault = error.plain_fault(false);
            if fault.status < 500 && shared.missed.is_ours(&error) {
                shared.metrics.unroutable();
            }
            account(shared, &id, created_ms, fault.status, fault.label());
            pipeline::with_id(fault.into_response(), &id)
        }
    }
}

async fn answer(
    worker: &Arc<Worker>,
    connection: &ConnectionInfo,
    arrived: Arrived,
    request: Request<Incoming>,
) -> Result<Response<EdgeBody>, EdgeError> {
    head::check(&request)?;
    let path = request.uri().path();
    let below = PREFIXES.iter().find_map(|prefix| path.strip_prefix(prefix).filter(|rest| rest.starts_with('/')));
    if below == Some("/chat/completions") && request.method() == Method::POST {
        return pipeline::chat(worker, connection, arrived, request).await;
    }
    let shared = &worker.shared;
    let Some(below) = below else {
        let response = root(shared, request.method(), path)?;
        account(shared, &arrived.id, arrived.created_ms, response.status().as_u16(), "");
        return Ok(response);
    };
    let (action, segments) = find(request.method(), below)?;
    match action {
        Action::Chat => pipeline::chat(worker, connection, arrived, request).await,
        Action::Keys(operation) => {
            let handle = segments.first().map(|segment| percent_decoded(segment)).unwrap_or_default();
            let response = Box::pin(keys::answer(operation, handle, shared, connection, request)).await?;
            account(shared, &arrived.id, arrived.created_ms, response.status().as_u16(), "");
            Ok(response)
        }
        Action::Preflight(allowed) => {
            let response = preflight(allowed);
            account(shared, &arrived.id, arrived.created_ms, response.status().as_u16(), "");
            Ok(response)
        }
        Action::Read(_) | Action::Account(_) => {
            let state = shared.state.load_full();
            let reading = Reading {
                shared,
                state: &state,
                connection,
                headers: request.headers(),
                query: Query(request.uri().query().unwrap_or_default()),
                segments,
            };
            let response = match action {
                Action::Read(read) => read(&reading)?,
                Action::Account(which) => Box::pin(account::answer(which, &reading)).await?,
                Action::Chat | Action::Keys(_) | Action::Preflight(_) => return Err(no_route(request.method(), below)),
            };
            account(shared, &arrived.id, arrived.created_ms, response.status().as_u16(), "");
            Ok(response)
        }
    }
}

/// Counts and logs a request that is no generation; those account for themselves.
fn account(shared: &Shared, id: &str, created_ms: u64, status: u16, error_type: &'static str) {
    shared.metrics.request("", status, error_type);
    shared.access_log.line(|line| access_line::plain(line, created_ms, id, status, error_type));
}

/// Paths outside the versioned prefixes: a sign of life without a key, and the document.
fn root(shared: &Shared, method: &Method, path: &str) -> Result<Response<EdgeBody>, EdgeError> {
    let reading = matches!(*method, Method::GET | Method::HEAD);
    match path {
        "/" if reading => Ok(json_answer(Bytes::from_static(br#"{"service":"tidegate","openapi":"/openapi.json"}"#))),
        "/openapi.json" if reading => Ok(public(json_answer(shared.openapi.clone()))),
        ERRORS_PATH if reading => {
            let mut response = Response::new(EdgeBody::full(Bytes::from_static(ERRORS.as_bytes())));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/markdown; charset=utf-8"));
            Ok(public(response))
        }
        "/" | "/openapi.json" if *method == Method::OPTIONS => Ok(preflight("GET, HEAD, OPTIONS")),
        "/" | "/openapi.json" => Err(EdgeError::MethodNotAllowed { allowed: "GET, HEAD, OPTIONS" }),
        _ => Err(no_route(method, path)),
    }
}

fn find<'a>(method: &Method, path: &'a str) -> Result<(Action, Vec<&'a str>), EdgeError> {
    for route in ROUTES {
        let Some(segments) = matched(route.path, path) else { continue };
        if route.method == *method || (*method == Method::HEAD && route.method == Method::GET) {
            return Ok((route.action, segments));
        }
    }
    match allowed(path) {
        Some(allowed) if *method == Method::OPTIONS => Ok((Action::Preflight(allowed), Vec::new())),
        Some(allowed) => Err(EdgeError::MethodNotAllowed { allowed }),
        None => Err(no_route(method, path)),
    }
}

/// The methods that a path answers; `None` when there is no such path.
fn allowed(path: &str) -> Option<&'static str> {
    let has = |method| ROUTES.iter().any(|route| route.method == method && matched(route.path, path).is_some());
    match (has(Method::GET), has(Method::POST), has(Method::PATCH)) {
        (true, _, true) => Some("GET, HEAD, PATCH, DELETE, OPTIONS"),
        (true, true, false) => Some("GET, HEAD, POST, OPTIONS"),
        (true, false, false) => Some("GET, HEAD, OPTIONS"),
        (false, true, _) => Some("POST, OPTIONS"),
        (false, false, _) => None,
    }
}

fn matched<'a>(pattern: &str, path: &'a str) -> Option<Vec<&'a str>> {
    let mut segments = Vec::new();
    let mut parts = path.trim_end_matches('/').split('/');
    for wanted in pattern.split('/') {
        let part = parts.next()?;
        if wanted.starts_with('{') {
            if part.is_empty() {
                return None;
            }
            segments.push(part);
        } else if wanted != part {
            return None;
        }
    }
    parts.next().is_none().then_some(segments)
}

fn no_route(method: &Method, path: &str) -> EdgeError {
    let shown: String = path.chars().filter(|c| !c.is_control()).take(PATH_SHOWN).collect();
    EdgeError::NoSuchRoute { method: method.to_string(), path: shown }
}

/// Finds the caller, and slows guessers down.
pub(crate) fn authenticate(shared: &Shared, connection: &ConnectionInfo, headers: &HeaderMap) -> Result<Arc<Caller>, EdgeError> {
    let found = shared.keys.load().authenticate(headers, shared.clock.unix_seconds());
    let now = shared.clock.micros();
    let failure = match found {
        Ok(caller) => match shared.contact.covers(&caller, now) {
            Ok(()) => return Ok(caller),
            Err(failure) => failure,
        },
        Err(AuthFailure::Unknown) => shared.contact.unknown(now),
        Err(failure) => failure,
    };
    if failure != AuthFailure::Unknown {
        return Err(EdgeError::Auth(failure));
    }
    // Only wrong keys are slowed down: the right ones may share their address, that of a company or of a load balancer.
    let address = connection.peer.ip();
    if shared.auth_failures.is_blocked(address, now) {
        return Err(EdgeError::Guessing);
    }
    shared.auth_failures.failed(address, now);
    Err(EdgeError::Auth(failure))
}

/// [`authenticate`], for requests that call models.
pub(crate) fn authenticate_for_models(shared: &Shared, connection: &ConnectionInfo, headers: &HeaderMap) -> Result<Arc<Caller>, EdgeError> {
    let caller = authenticate(shared, connection, headers)?;
    if caller.management { Err(EdgeError::Auth(AuthFailure::Management)) } else { Ok(caller) }
}

/// The raw query of a URL.
#[derive(Clone, Copy)]
pub(crate) struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    /// Its pairs as they came, but for those of these names.
    pub(crate) fn without(self, names: &[&str]) -> impl Iterator<Item = &'a str> {
        self.0.split('&').filter(move |pair| !pair.is_empty() && !names.contains(&pair.split('=').next().unwrap_or_default()))
    }

    /// The first value of a parameter, percent-decoded; `None` when absent or empty.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        self.0.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key == name && !value.is_empty()).then(|| percent_decoded(value))
        })
    }
}

/// Decodes `%XX` and `+`; what is not valid stays as it is.
pub(crate) fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = |offset: usize| bytes.get(at + offset).and_then(|byte| (*byte as char).to_digit(16));
        match (bytes[at], hex(1), hex(2)) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                at += 3;
            }
            (b'+', ..) => {
                out.push(b' ');
                at += 1;
            }
            (byte, ..) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

pub(crate) fn json_answer(bytes: Bytes) -> Response<EdgeBody> {
    let mut response = Response::new(EdgeBody::full(bytes));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

pub(crate) fn value_answer(value: &Value) -> Response<EdgeBody> {
    json_answer(value.to_string().into())
}

/// Catalogue data may be read by any web page, and kept for a while.
pub(crate) fn public(mut response: Response<EdgeBody>) -> Response<EdgeBody> {
    response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=30"));
    response
}

fn preflight(allowed: &'static str) -> Response<EdgeBody> {
    let mut response = Response::new(EdgeBody::full(Bytes::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(ALLOW, HeaderValue::from_static(allowed));
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert("access-control-allow-methods", HeaderValue::from_static(allowed));
    headers
        .insert("access-control-allow-headers", HeaderValue::from_static("authorization, content-type, x-session-id, x-tidegate-metadata"));
    headers.insert("access-control-max-age", HeaderValue::from_static("86400"));
    response
}

/// What the SDKs that Stainless makes say of their own retries.
static STAINLESS_RETRIES: HeaderName = HeaderName::from_static("x-stainless-retry-count");
/// Where the edge explains its errors; no network beyond the mesh is needed to read it.
pub(crate) const ERRORS_PATH: &str = "/docs/errors";
const ERRORS: &str = include_str!("../../../docs/errors.md");
/// Characters of a path that an error repeats.
const PATH_SHOWN: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_paths() {
        assert_eq!(matched("/models", "/models"), Some(vec![]));
        assert_eq!(matched("/models", "/models/"), Some(vec![]));
        assert_eq!(matched("/models/{author}/{slug}/endpoints", "/models/a/b:free/endpoints"), Some(vec!["a", "b:free"]));
        assert_eq!(matched("/models/{author}/{slug}/endpoints", "/models/a//endpoints"), None);
        assert_eq!(matched("/models", "/models/a"), None);
    }

    #[test]
    fn a_path_names_every_method_it_answers() {
        for route in ROUTES {
            let allowed = allowed(&route.path.replace(['{', '}'], "")).expect("a route of the table");
            assert!(allowed.contains(route.method.as_str()), "{} {}: {allowed}", route.method, route.path);
            assert_eq!(allowed.contains("DELETE"), route.path == "/keys/{hash}", "{}", route.path);
        }
        assert_eq!(allowed("/nothing"), None);
    }

    #[test]
    fn queries_are_decoded_and_unknown_parameters_ignored() {
        let query = Query("beta=true&id=gen-1%2F2+x&empty=");
        assert_eq!(query.get("id").as_deref(), Some("gen-1/2 x"));
        assert_eq!(query.get("empty"), None);
        assert_eq!(query.get("other"), None);
        assert_eq!(percent_decoded("%zz%4"), "%zz%4");
    }
}
