//! What stays true of one request from its head to its end.

use std::sync::Arc;

use tidegate_routing::ModelIndex;
use tidegate_wire::ChatCall;

use crate::hints::Hints;

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
        hints: Hints,
        call: &ChatCall,
        model: ModelIndex,
        preset: Option<Arc<str>>,
        request_bytes: usize,
    ) -> Self {
        Self {
            id: arrived.id,
            created_ms: arrived.created_ms,
            model,
            streamed: call.stream(),
            session_id: call.session_id().map(str::to_owned).or(hints.session),
            user: call.user().map(str::to_owned),
            preset,
            origin: hints.origin,
            referer: hints.referer,
            title: hints.title,
            user_agent: hints.user_agent,
            region: arrived.region,
            nothing: arrived.nothing,
            metadata_field: hints.metadata_field,
            request_bytes,
        }
    }
}
