//! What an answer told us, apart from its text: the vocabulary shared by all dialects' readers.

use std::sync::Arc;

use crate::usage::Usage;

/// What the gateway writes over the upstream's own identity in every answer and every chunk.
#[derive(Debug, Clone)]
pub struct Stamp {
    /// Our generation id (`gen-…`), which replaces the upstream's `id`.
    pub generation_id: Arc<str>,
    /// The model that serves, by our slug.
    pub model: Arc<str>,
    /// The provider's display name.
    pub provider: Arc<str>,
    /// Unix seconds, written where the upstream gives no creation time of its own.
    pub created: u64,
}

/// Facts collected while an answer passes through. They grow with the stream and are final after its end.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// What the upstream counted; the last report wins, reports are never summed.
    pub usage: Option<Usage>,
    /// Whether the upstream was asked to report usage, so that its absence is worth noticing.
    pub usage_expected: bool,
    /// Normalised reason of the first choice that ended.
    pub finish_reason: Option<FinishReason>,
    /// The upstream's own word for it.
    pub native_finish_reason: Option<String>,
    /// Some text, reasoning or tool call was produced.
    pub content_seen: bool,
    /// Tool calls begun, over all choices.
    pub tool_calls: u32,
    /// The upstream's id of the generation.
    pub upstream_id: Option<String>,
    /// Service tier that the upstream says it used.
    pub service_tier: Option<String>,
    /// What an aggregator upstream says it charged: decimal text in US dollars.
    pub upstream_cost: Option<String>,
    /// Bytes of generated text, reasoning and tool arguments as they were on the wire (escapes included).
    pub output_bytes: u64,
}

/// Why a generation ended, in the five words callers may rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FinishReason {
    /// The model was done, or met a stop sequence.
    Stop,
    /// The token limit was reached.
    Length,
    /// The model wants tools to be called.
    ToolCalls,
    /// A filter or a refusal ended the answer.
    ContentFilter,
    /// The upstream failed while it generated.
    Error,
}

impl FinishReason {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ToolCalls => "tool_calls",
            Self::ContentFilter => "content_filter",
            Self::Error => "error",
        }
    }

    /// Normalises an upstream's word. Vendors differ in case and spelling; a word nobody knows yet counts as an ordinary stop,
    /// because the answer before it is complete, and the raw word is kept beside it.
    pub fn from_native(native: &str) -> Self {
        let mut lower = [0_u8; 40];
        let Some(word) = lower.get_mut(..native.len()) else { return Self::Stop };
        word.copy_from_slice(native.as_bytes());
        word.make_ascii_lowercase();
        match &*word {
            b"length"
            | b"max_tokens"
            | b"max_output_tokens"
            | b"model_length"
            | b"max_length"
            | b"token_limit"
            | b"context_length"
            | b"model_context_window_exceeded"
            | b"insufficient_context" => Self::Length,
            b"tool_calls" | b"tool_call" | b"tool_use" | b"function_call" | b"function_calls" => Self::ToolCalls,
            b"content_filter"
            | b"content_filtered"
            | b"safety"
            | b"refusal"
            | b"recitation"
            | b"blocklist"
            | b"prohibited_content"
            | b"spii"
            | b"sensitive"
            | b"guardrail_intervened"
            | b"image_safety"
            | b"language"
            | b"error_toxic" => Self::ContentFilter,
            b"error"
            | b"error_limit"
            | b"network_error"
            | b"insufficient_system_resource"
            | b"server_error"
            | b"malformed_function_call"
            | b"unexpected_tool_call"
            | b"abort"
            | b"aborted"
            | b"repetition_truncation" => Self::Error,
            _ => Self::Stop,
        }
    }
}

/// What the gateway adds at the end of an answer.
#[derive(Debug, Clone, Copy, Default)]
pub struct Closing<'a> {
    /// Money; left out of `usage` when unknown.
    pub cost: Option<Cost<'a>>,
    /// Router metadata as raw JSON, for callers who asked for it.
    pub metadata: Option<&'a str>,
    /// Name of the member that carries the metadata, such as `openrouter_metadata`.
    pub metadata_field: &'a str,
}

/// Money of one answer. Every amount is the text of a decimal JSON number in US dollars.
#[derive(Debug, Clone, Copy)]
pub struct Cost<'a> {
    /// What the caller is charged.
    pub total: &'a str,
    /// What the upstream charges.
    pub upstream: &'a str,
    /// The upstream's charge for the prompt.
    pub upstream_prompt: &'a str,
    /// The upstream's charge for the completion.
    pub upstream_completion: &'a str,
    /// The caller's own provider key was used.
    pub is_byok: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn native_reasons_of_the_known_vendors_are_normalised() {
        for (native, normal) in [
            ("stop", FinishReason::Stop),
            ("end_turn", FinishReason::Stop),
            ("eos", FinishReason::Stop),
            ("STOP", FinishReason::Stop),
            ("max_tokens", FinishReason::Length),
            ("MAX_TOKENS", FinishReason::Length),
            ("tool_use", FinishReason::ToolCalls),
            ("function_call", FinishReason::ToolCalls),
            ("SAFETY", FinishReason::ContentFilter),
            ("insufficient_system_resource", FinishReason::Error),
            ("a word that is far longer than any finish reason has ever been", FinishReason::Stop),
        ] {
            assert_eq!(FinishReason::from_native(native), normal, "{native}");
        }
    }
}
