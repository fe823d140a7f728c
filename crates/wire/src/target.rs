//! Where a request goes, and what is sent there.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use smallvec::SmallVec;

use crate::{dialect::Dialect, provider::ProviderInfo};

/// One upstream endpoint as the encoder needs to know it.
pub struct Target<'a> {
    /// The dialect to write.
    pub dialect: Dialect,
    /// The upstream's name of the model.
    pub model: &'a str,
    /// The provider with its quirks.
    pub provider: &'a ProviderInfo,
    /// Whether the endpoint supports a request parameter, by its OpenAI/OpenRouter name.
    pub supports: &'a dyn Fn(&str) -> bool,
    /// Most tokens the endpoint writes in one answer. Dialects that require a limit fall back to it.
    pub max_output: Option<u32>,
    /// The end user, already hashed with the account; `None` sends no user at all.
    pub user: Option<&'a str>,
    /// Whether the upstream is asked to stream.
    pub stream: bool,
}

impl std::fmt::Debug for Target<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target")
            .field("dialect", &self.dialect)
            .field("model", &self.model)
            .field("provider", &self.provider.slug)
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

/// A request ready to be sent, apart from authentication, which the edge adds.
#[derive(Debug, Clone)]
pub struct UpstreamRequest {
    /// Path and query below the provider's base URL, with a leading slash.
    pub path: String,
    /// The body in order. More than one segment when slices of the caller's own bytes are reused.
    pub body: SmallVec<[Bytes; 4]>,
    /// Headers that this request needs beyond the provider's fixed ones.
    pub headers: SmallVec<[(HeaderName, HeaderValue); 4]>,
    /// Parameters the caller gave and this endpoint will not see.
    pub dropped: SmallVec<[&'static str; 4]>,
}

impl UpstreamRequest {
    /// Length of the whole body in bytes.
    pub fn content_length(&self) -> usize {
        self.body.iter().map(Bytes::len).sum()
    }

    /// The body as one buffer; copies unless there is a single segment.
    pub fn contiguous_body(&self) -> Bytes {
        if let [only] = self.body.as_slice() {
            return only.clone();
        }
        let mut whole = Vec::with_capacity(self.content_length());
        for segment in &self.body {
            whole.extend_from_slice(segment);
        }
        whole.into()
    }
}
