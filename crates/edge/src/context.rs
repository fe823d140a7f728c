//! What stays true of one request from its head to its end.

use std::sync::Arc;

use http::HeaderMap;
use tidegate_routing::ModelIndex;
use tidegate_wire::ChatCall;

/// Facts of a request that records, logs and headers mention.
#[derive(Debug)]
pub(crate) struct RequestContext {
    /// `gen-…`.
    pub(crate) id: Arc<str>,
    /// Arrival, milliseconds of Unix time.
    pub(crate) created_ms: u64,
    /// The first model asked for.
    pub(crate) model: ModelIndex,
    pub(crate) streamed: bool,
    pub(crate) session_id: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) preset: Option<Arc<str>>,
    pub(crate) origin: Option<String>,
    pub(crate) referer: Option<String>,
    pub(crate) title: Option<String>,
    pub(crate) user_agent: Option<String>,
    pub(crate) region: Arc<str>,
    /// The shared empty string.
    pub(crate) nothing: Arc<str>,
    /// Field name of router metadata when the caller asked for it: OpenRouter's name by its header, ours by ours.
    pub(crate) metadata_field: Option<&'static str>,
    /// Bytes of the request body.
    pub(crate) request_bytes: usize,
}

/// What is known of a request before its body is.
pub(crate) struct Arrived {
    pub(crate) id: Arc<str>,
    pub(crate) created_ms: u64,
    pub(crate) region: Arc<str>,
    pub(crate) nothing: Arc<str>,
}

impl RequestContext {
    pub(crate) fn new(
        arrived: Arrived,
        headers: &HeaderMap,
        call: &ChatCall,
        model: ModelIndex,
        preset: Option<Arc<str>>,
        request_bytes: usize,
    ) -> Self {
        let text = |name: &str| bounded(headers, name);
        Self {
            id: arrived.id,
            created_ms: arrived.created_ms,
            model,
            streamed: call.stream(),
            session_id: call.session_id().map(str::to_owned).or_else(|| session_header(headers).map(str::to_owned)),
            user: call.user().map(str::to_owned),
            preset,
            origin: text("origin"),
            referer: text("http-referer").or_else(|| text("referer")),
            title: text("x-openrouter-title").or_else(|| text("x-title")),
            user_agent: text("user-agent"),
            region: arrived.region,
            nothing: arrived.nothing,
            metadata_field: metadata_field(headers),
            request_bytes,
        }
    }
}

/// The session that a header names, in order of trust: OpenRouter and opencode, Codex, Claude Code.
pub(crate) fn session_header(headers: &HeaderMap) -> Option<&str> {
    SESSION_HEADERS
        .iter()
        .find_map(|name| headers.get(*name)?.to_str().ok().filter(|value| !value.is_empty() && value.len() <= SESSION_MAX))
}

/// The field that router metadata is wanted in, if it is wanted.
pub(crate) fn metadata_field(headers: &HeaderMap) -> Option<&'static str> {
    let enabled = |name: &str| headers.get(name).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"enabled"));
    if enabled("x-tidegate-metadata") {
        return Some("tidegate_metadata");
    }
    let theirs = enabled("x-openrouter-metadata") || enabled("x-openrouter-experimental-metadata");
    theirs.then_some("openrouter_metadata")
}

fn bounded(headers: &HeaderMap, name: &str) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?;
    let end = value.char_indices().map(|(at, _)| at).nth(TEXT_MAX).unwrap_or(value.len());
    (!value.is_empty()).then(|| value[..end].to_owned())
}

const SESSION_HEADERS: [&str; 5] = ["x-session-id", "x-session-affinity", "session-id", "thread-id", "x-claude-code-session-id"];
/// The reference's bound for session ids.
const SESSION_MAX: usize = 256;
/// Characters kept of an attribution header: callers choose them, records are kept.
const TEXT_MAX: usize = 128;
