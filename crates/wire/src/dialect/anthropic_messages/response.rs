//! Reads a whole answer.

use std::borrow::Cow;

use bytes::Bytes;
use http::HeaderMap;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    ANSWER_TOOL, REASONING_FORMAT, finish_reason,
    usage::{Counts, Reported},
};
use crate::{
    canonical::{Annotation, Call, Choice, Detail, DetailBody, JsonStr, Piece, Source, Text, complete},
    completion::Completion,
    dialect::Dialect,
    facts::{Facts, FinishReason, Stamp},
    failure::{Failure, FailureKind, classify},
};

/// Translates the upstream's answer.
pub(crate) fn read_completion(body: Bytes, stamp: Stamp) -> Result<Completion, Failure> {
    let message: Message<'_> =
        serde_json::from_slice(&body).map_err(|_| Failure::seen(FailureKind::Malformed, "the upstream's answer is not a message"))?;
    if let Some(error) = &message.error {
        return Err(failure(error, &body));
    }
    if message.content.is_empty() && message.stop_reason.is_none() {
        return Err(Failure::seen(FailureKind::Empty, "the upstream's answer had nothing in it"));
    }
    let mut facts = Facts { upstream_id: message.id.as_deref().map(str::to_owned), ..Facts::default() };
    if let Some(usage) = &message.usage {
        Counts::default().absorb(usage, &mut facts);
    }
    Ok(complete(&stamp, facts, &[message.into_choice()]))
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    id: Option<Text<'a>>,
    #[serde(borrow, default)]
    content: Vec<Block<'a>>,
    #[serde(borrow, default)]
    stop_reason: Option<JsonStr<'a>>,
    #[serde(borrow, default)]
    stop_details: Option<StopDetails<'a>>,
    #[serde(borrow, default)]
    usage: Option<Reported<'a>>,
    #[serde(borrow, default)]
    error: Option<ErrorDetail<'a>>,
}

/// A content block, whole or as a stream begins it. Options instead of a tagged enum, which would have serde buffer it.
#[derive(Debug, Deserialize)]
pub(super) struct Block<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) kind: Text<'a>,
    #[serde(borrow, default)]
    pub(super) text: Option<JsonStr<'a>>,
    #[serde(borrow, default)]
    pub(super) thinking: Option<JsonStr<'a>>,
    #[serde(borrow, default)]
    pub(super) signature: Option<JsonStr<'a>>,
    #[serde(borrow, default)]
    pub(super) data: Option<JsonStr<'a>>,
    #[serde(borrow, default)]
    pub(super) id: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) name: Option<JsonStr<'a>>,
    #[serde(borrow, default)]
    pub(super) input: Option<&'a RawValue>,
    #[serde(borrow, default)]
    citations: Option<Vec<Citation<'a>>>,
}

impl<'a> Block<'a> {
    /// Whether this is the tool that stands in for structured output.
    pub(super) fn is_answer(&self) -> bool {
        self.name.is_some_and(|name| name.inner() == ANSWER_TOOL)
    }
}

/// Why a classifier stopped the model.
#[derive(Debug, Deserialize)]
pub(super) struct StopDetails<'a> {
    #[serde(borrow, default)]
    pub(super) explanation: Option<JsonStr<'a>>,
}

/// Where a statement comes from: a search result, or a place in a document of the request.
#[derive(Debug, Deserialize)]
pub(super) struct Citation<'a> {
    #[serde(borrow, default)]
    url: Option<JsonStr<'a>>,
    #[serde(borrow, default)]
    source: Option<JsonStr<'a>>,
    #[serde(borrow, default)]
    title: Option<JsonStr<'a>>,
    #[serde(borrow, default)]
    document_title: Option<JsonStr<'a>>,
    #[serde(default)]
    document_index: Option<u64>,
    #[serde(borrow, default)]
    cited_text: Option<JsonStr<'a>>,
}

impl<'a> Citation<'a> {
    /// The caller's form of it; `range` is the part of the answer that it supports, in characters.
    pub(super) fn annotation(&self, range: (u64, u64)) -> Option<Annotation<'a>> {
        let source = match (self.url.or(self.source), self.document_index) {
            (Some(url), _) => Source::Url(url),
            (None, Some(index)) => Source::Document(index),
            (None, None) => return None,
        };
        Some(Annotation { source, title: self.title.or(self.document_title), quote: self.cited_text, range })
    }
}

impl<'a> Message<'a> {
    fn into_choice(self) -> Choice<'a> {
        let mut choice = Choice::default();
        let mut answered = false;
        for block in &self.content {
            let index = u32::try_from(choice.details.len()).unwrap_or(u32::MAX);
            match &*block.kind {
                "text" => {
                    let Some(text) = block.text else { continue };
                    annotate(&mut choice, text, block.citations.as_deref().unwrap_or_default());
                    choice.text.push(Piece::Literal(text));
                }
                "thinking" => {
                    let signature = block.signature.filter(|signature| !signature.is_empty());
                    let body = DetailBody::Text { text: block.thinking, signature };
                    choice.details.push(Detail { body, format: REASONING_FORMAT, index });
                }
                "redacted_thinking" => {
                    let Some(data) = block.data else { continue };
                    let body = DetailBody::Encrypted { data, id: None };
                    choice.details.push(Detail { body, format: REASONING_FORMAT, index });
                }
                "tool_use" if block.is_answer() => {
                    answered = true;
                    choice.text.extend(block.input.map(|input| Piece::Json(input.get())));
                }
                "tool_use" => {
                    let (Some(id), Some(name)) = (&block.id, block.name) else {
                        continue;
                    };
                    choice.calls.push(Call { id: Cow::clone(&id.0), name, arguments: block.input.map_or("{}", RawValue::get) });
                }
                // Tools that the upstream ran itself, and their results: the text after them says what they found.
                _ => {}
            }
        }
        choice.native_finish = self.stop_reason;
        choice.finish = self.stop_reason.map(|native| normal_finish(native, answered));
        choice.refusal = self.stop_details.and_then(|details| details.explanation);
        choice
    }
}

/// A model that "called" the stand-in for structured output has simply answered.
pub(super) fn normal_finish(native: JsonStr<'_>, answered: bool) -> FinishReason {
    match finish_reason(native.inner()) {
        FinishReason::ToolCalls if answered => FinishReason::Stop,
        reason => reason,
    }
}

fn annotate<'a>(choice: &mut Choice<'a>, text: JsonStr<'a>, citations: &[Citation<'a>]) {
    if citations.is_empty() {
        return;
    }
    let characters = |piece: &Piece<'_>| match piece {
        Piece::Literal(text) => text.decode().chars().count() as u64,
        Piece::Json(json) => json.chars().count() as u64,
    };
    let start: u64 = choice.text.iter().map(characters).sum();
    let end = start + characters(&Piece::Literal(text));
    choice.annotations.extend(citations.iter().filter_map(|citation| citation.annotation((start, end))));
}

/// The `error` object that replaces an answer or ends a stream.
#[derive(Debug, Deserialize)]
pub(super) struct ErrorDetail<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Option<Text<'a>>,
}

/// What an error means that came with status 200; `body` is the whole object it stood in.
pub(super) fn failure(error: &ErrorDetail<'_>, body: &[u8]) -> Failure {
    let status = match error.kind.as_deref() {
        Some("invalid_request_error") => 400,
        Some("authentication_error") => 401,
        Some("billing_error") => 402,
        Some("permission_error") => 403,
        Some("not_found_error") => 404,
        Some("request_too_large") => 413,
        Some("rate_limit_error") => 429,
        Some("timeout_error") => 504,
        Some("overloaded_error") => 529,
        _ => 500,
    };
    classify(Dialect::AnthropicMessages, status, &HeaderMap::new(), body, 0)
}
