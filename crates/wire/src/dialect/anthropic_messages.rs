//! Anthropic's Messages API, spoken to on behalf of callers of the OpenAI chat dialect.
//!
//! Structured output takes one of three roads, chosen in [`structured`]: the API's own `output_config.format` where the endpoint
//! declares `structured_outputs`; a single forced tool under a reserved name, whose arguments the readers here turn back
//! into text, so that they need not know the request; and an instruction where a forced tool is not allowed. Interleaved
//! thinking is not asked for, because the caller's dialect cannot say where between texts and calls a thought stood; models
//! that interleave by themselves get their thoughts back at the start of the message.

mod content;
mod media;
mod model;
mod request;
mod response;
mod sampling;
mod stream;
mod structured;
mod system;
mod thinking;
mod tools;
mod usage;

pub(crate) use request::encode;
pub(crate) use response::read_completion;
pub(crate) use stream::StreamDecoder;

use crate::facts::FinishReason;

/// Marks the reasoning blocks of this API, so that they are never echoed to another.
const REASONING_FORMAT: &str = "anthropic-claude-v1";

/// The tool that stands in for structured output; its arguments are the answer.
const ANSWER_TOOL: &str = "tidegate_json_answer";

/// Why the model stopped, in the caller's words.
fn finish_reason(stop_reason: &str) -> FinishReason {
    match stop_reason {
        "max_tokens" | "model_context_window_exceeded" | "pause_turn" => FinishReason::Length,
        "tool_use" => FinishReason::ToolCalls,
        "refusal" => FinishReason::ContentFilter,
        // `end_turn`, `stop_sequence`, and whatever is invented next: the text before it is complete.
        _ => FinishReason::Stop,
    }
}
