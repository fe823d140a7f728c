//! Google's `generateContent`, spoken to on behalf of callers of the OpenAI chat dialect.
//!
//! Schemas travel as JSON Schema (`parametersJsonSchema`, `responseJsonSchema`), which the API has accepted since its 2.0
//! models, so nothing is rewritten into Google's own subset. Thought signatures leave as `reasoning.encrypted` blocks that
//! carry the id of the call they belong to, or none for text, and come back the same way.

mod content;
mod grounding;
mod logprobs;
mod media;
mod model;
mod request;
mod response;
mod stream;
mod usage;

pub(crate) use request::encode;
pub(crate) use response::read_completion;
pub(crate) use stream::StreamDecoder;

use crate::facts::{FinishReason, Stamp};

/// Marks the reasoning blocks of this API, so that they are never echoed to another.
const REASONING_FORMAT: &str = "google-gemini-v1";

/// Begins the ids that we give to calls the API left without one; they mean nothing to it and are not sent back.
const OWN_CALL_ID: &str = "call_tg_";

/// An id for the `number`th call of an answer.
fn own_call_id(stamp: &Stamp, choice: u32, number: u32) -> String {
    let generation = stamp.generation_id.strip_prefix("gen-").unwrap_or(&stamp.generation_id);
    format!("{OWN_CALL_ID}{generation}_{choice}_{number}")
}

/// Why the model stopped, in the caller's words. `called` says whether it called a function, which the API reports as an
/// ordinary stop.
fn finish_reason(native: &str, called: bool) -> FinishReason {
    match native {
        "STOP" if called => FinishReason::ToolCalls,
        "MAX_TOKENS" => FinishReason::Length,
        "SAFETY"
        | "RECITATION"
        | "LANGUAGE"
        | "BLOCKLIST"
        | "PROHIBITED_CONTENT"
        | "SPII"
        | "IMAGE_SAFETY"
        | "IMAGE_PROHIBITED_CONTENT"
        | "IMAGE_RECITATION" => FinishReason::ContentFilter,
        "MALFORMED_FUNCTION_CALL"
        | "UNEXPECTED_TOOL_CALL"
        | "TOO_MANY_TOOL_CALLS"
        | "MISSING_THOUGHT_SIGNATURE"
        | "MALFORMED_RESPONSE"
        | "NO_IMAGE"
        | "IMAGE_OTHER" => FinishReason::Error,
        // `STOP`, `OTHER`, and whatever is invented next: the native word tells the rest.
        _ => FinishReason::Stop,
    }
}
