//! The API shapes that upstreams speak, and the one place where a shape becomes code.
//!
//! To add a dialect, write a module here with the three items below, and add a variant and its arms. There is no trait: the
//! match is closed, so the compiler names every place that a new dialect must answer for.
//!
//! - `pub(crate) fn encode(call: &ChatCall, target: &Target<'_>) -> Result<UpstreamRequest, RequestError>`
//! - `pub(crate) fn read_completion(body: Bytes, stamp: Stamp) -> Result<Completion, Failure>`: builds the caller's JSON without
//!   its closing brace and without `usage`, and hands it with the facts to [`Completion::new`].
//! - `pub(crate) struct StreamDecoder` (`Default + Debug`) with
//!   `push_event(&mut self, event: sse::Event<'_>, stamp: &Stamp, facts: &mut Facts, out: &mut BytesMut) -> Result<(), Failure>`,
//!   which appends complete `data: {chunk}\n\n` events in the caller's dialect to `out` and keeps `facts` current
//!   (`content_seen` with the first text, reasoning or tool call; `usage`; `finish_reason`; `output_bytes` …), and
//!   `finished(&self) -> bool`, true once the dialect's own end marker was seen. It writes neither the usage chunk nor `[DONE]`:
//!   [`crate::StreamReader::close`] does, from the facts. Framing, size bounds and comments are [`crate::sse`]'s business.

pub(crate) mod anthropic_messages;
pub(crate) mod gemini;
pub(crate) mod openai_chat;

use bytes::Bytes;

use crate::{
    call::ChatCall,
    completion::Completion,
    error::RequestError,
    facts::Stamp,
    failure::Failure,
    target::{Target, UpstreamRequest},
};

/// An API shape that an upstream speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dialect {
    /// `POST /chat/completions` as OpenAI defined it and most vendors copy it.
    OpenaiChat,
    /// `POST /v1/messages` of Anthropic.
    AnthropicMessages,
    /// `models/{model}:generateContent` of Google.
    Gemini,
}

impl Dialect {
    /// Every dialect.
    pub const ALL: [Self; 3] = [Self::OpenaiChat, Self::AnthropicMessages, Self::Gemini];

    /// The word in configuration files, logs and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OpenaiChat => "openai-chat",
            Self::AnthropicMessages => "anthropic-messages",
            Self::Gemini => "gemini",
        }
    }

    /// The inverse of [`Dialect::as_str`].
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dialect| dialect.as_str() == word)
    }
}

/// Writes the request that `target` understands.
pub fn encode(call: &ChatCall, target: &Target<'_>) -> Result<UpstreamRequest, RequestError> {
    match target.dialect {
        Dialect::OpenaiChat => openai_chat::encode(call, target),
        Dialect::AnthropicMessages => anthropic_messages::encode(call, target),
        Dialect::Gemini => gemini::encode(call, target),
    }
}

/// Reads a whole answer. `call` is the request it answers, when the caller of this function still has it.
pub fn read_completion(dialect: Dialect, body: Bytes, call: Option<&ChatCall>, stamp: Stamp) -> Result<Completion, Failure> {
    // Translated dialects ask their upstreams not to show thoughts; this one cannot ask, so it looks away.
    let reasoning = match call {
        Some(call) if call.hides_reasoning() => openai_chat::Reasoning::Hidden,
        _ => openai_chat::Reasoning::Shown,
    };
    match dialect {
        Dialect::OpenaiChat => openai_chat::read_completion(body, stamp, reasoning),
        Dialect::AnthropicMessages => anthropic_messages::read_completion(body, stamp),
        Dialect::Gemini => gemini::read_completion(body, stamp),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_read_back() {
        for dialect in Dialect::ALL {
            assert_eq!(Dialect::parse(dialect.as_str()), Some(dialect));
        }
        assert_eq!(Dialect::parse("soap"), None);
    }
}
