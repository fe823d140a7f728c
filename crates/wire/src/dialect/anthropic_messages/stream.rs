//! Reads a stream: one event in, at most one chunk out.

use bytes::BytesMut;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    REASONING_FORMAT,
    response::{Block, Citation, ErrorDetail, StopDetails, failure, normal_finish},
    usage::{Counts, Reported},
};
use crate::{
    canonical::{ChunkWriter, Detail, DetailBody, JsonStr, Piece, Position, Text},
    facts::{Facts, Stamp},
    failure::{Failure, FailureKind},
    sse,
};

/// The state between two events.
#[derive(Debug, Default)]
pub(crate) struct StreamDecoder {
    writer: ChunkWriter,
    counts: Counts,
    /// The block being written; the API finishes one before it begins the next.
    block: Open,
    /// Calls begun, which is the next call's index.
    calls: u32,
    /// Blocks of thought begun.
    details: u32,
    /// The stand-in for structured output was "called".
    answered: bool,
    ended: bool,
}

/// What the next deltas belong to.
#[derive(Debug, Default)]
enum Open {
    /// Text, or a block nobody needs.
    #[default]
    Plain,
    /// A thought with this index.
    Thought(u32),
    /// A call, or with `index` `None` the structured answer. `whole` is what to write at the end when no piece of the
    /// arguments came: a call without arguments still has `{}`, and some vendors give all at the start.
    Arguments { index: Option<u32>, begun: bool, whole: Box<str> },
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Option<Text<'a>>,
    #[serde(borrow, default)]
    delta: Option<Delta<'a>>,
    #[serde(borrow, default)]
    content_block: Option<Block<'a>>,
    #[serde(borrow, default)]
    message: Option<Start<'a>>,
    #[serde(borrow, default)]
    usage: Option<Reported<'a>>,
    #[serde(borrow, default)]
    error: Option<ErrorDetail<'a>>,
}

#[derive(Deserialize)]
struct Start<'a> {
    #[serde(borrow, default)]
    id: Option<Text<'a>>,
    #[serde(borrow, default)]
    usage: Option<Reported<'a>>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow, default)]
    text: Option<JsonStr<'a>>,
    #[serde(borrow, default)]
    partial_json: Option<JsonStr<'a>>,
    #[serde(borrow, default)]
    thinking: Option<JsonStr<'a>>,
    #[serde(borrow, default)]
    signature: Option<JsonStr<'a>>,
    #[serde(borrow, default)]
    citation: Option<Citation<'a>>,
    #[serde(borrow, default)]
    stop_reason: Option<JsonStr<'a>>,
    #[serde(borrow, default)]
    stop_details: Option<StopDetails<'a>>,
}

impl StreamDecoder {
    /// Reads one event; see the convention in [`crate::dialect`].
    pub(crate) fn push_event(
        &mut self,
        event: sse::Event<'_>,
        stamp: &Stamp,
        facts: &mut Facts,
        out: &mut BytesMut,
    ) -> Result<(), Failure> {
        // Not this API's, but several copies of it end like OpenAI's.
        if event.data == b"[DONE]" {
            self.ended = true;
            return Ok(());
        }
        let event_data = event.data;
        let event: Event<'_> = serde_json::from_slice(event_data)
            .map_err(|_| Failure::seen(FailureKind::Malformed, "a stream event is not of the Messages dialect"))?;
        if let Some(error) = &event.error {
            return Err(failure(error, event_data));
        }
        let mut at = Position { choice: 0, stamp, facts, out };
        match event.kind.as_deref() {
            Some("content_block_delta") => {
                if let Some(delta) = &event.delta {
                    self.delta(&mut at, delta);
                }
            }
            Some("content_block_start") => {
                if let Some(block) = &event.content_block {
                    self.block_starts(&mut at, block);
                }
            }
            Some("content_block_stop") => self.block_stops(&mut at),
            Some("message_start") => {
                if let Some(start) = event.message {
                    at.facts.upstream_id = start.id.map(|id| id.0.into_owned());
                    if let Some(usage) = &start.usage {
                        self.counts.absorb(usage, at.facts);
                    }
                }
            }
            Some("message_delta") => {
                if let Some(usage) = &event.usage {
                    self.counts.absorb(usage, at.facts);
                }
                if let Some(delta) = &event.delta {
                    self.message_delta(&mut at, delta);
                }
            }
            Some("message_stop") => self.ended = true,
            // `ping`, and the event types that the API reserves the right to add.
            _ => {}
        }
        Ok(())
    }

    /// The end of the message was seen.
    pub(crate) fn finished(&self) -> bool {
        self.ended
    }

    fn delta(&mut self, at: &mut Position<'_>, delta: &Delta<'_>) {
        if let Some(text) = delta.text {
            self.writer.text(at, Piece::Literal(text));
        }
        if let Some(json) = delta.partial_json.filter(|json| !json.is_empty())
            && let Open::Arguments { index, begun, .. } = &mut self.block
        {
            *begun = true;
            match *index {
                Some(index) => self.writer.call_arguments(at, index, Piece::Literal(json)),
                None => self.writer.text(at, Piece::Literal(json)),
            }
        }
        let thinking = delta.thinking.filter(|text| !text.is_empty());
        let signature = delta.signature.filter(|signature| !signature.is_empty());
        if thinking.is_some() || signature.is_some() {
            self.thought(at, thinking, signature);
        }
        if let Some(annotation) = delta.citation.as_ref().and_then(|citation| citation.annotation((0, 0))) {
            self.writer.annotations(at, &[annotation]);
        }
    }

    fn thought(&mut self, at: &mut Position<'_>, text: Option<JsonStr<'_>>, signature: Option<JsonStr<'_>>) {
        let Open::Thought(index) = self.block else {
            return;
        };
        let body = DetailBody::Text { text, signature };
        self.writer.detail(at, &Detail { body, format: REASONING_FORMAT, index });
    }

    fn block_starts(&mut self, at: &mut Position<'_>, block: &Block<'_>) {
        self.block = Open::Plain;
        match &*block.kind {
            "text" => {
                if let Some(text) = block.text {
                    self.writer.text(at, Piece::Literal(text));
                }
            }
            "thinking" => {
                self.block = Open::Thought(self.next_detail());
                let thinking = block.thinking.filter(|text| !text.is_empty());
                let signature = block.signature.filter(|signature| !signature.is_empty());
                if thinking.is_some() || signature.is_some() {
                    self.thought(at, thinking, signature);
                }
            }
            "redacted_thinking" => {
                let Some(data) = block.data else { return };
                let index = self.next_detail();
                let body = DetailBody::Encrypted { data, id: None };
                self.writer.detail(at, &Detail { body, format: REASONING_FORMAT, index });
            }
            "tool_use" => {
                let whole = block.input.map_or("{}", RawValue::get).into();
                if block.is_answer() {
                    self.answered = true;
                    self.block = Open::Arguments { index: None, begun: false, whole };
                    return;
                }
                let (Some(id), Some(name)) = (&block.id, block.name) else {
                    return;
                };
                let index = self.calls;
                self.calls += 1;
                self.block = Open::Arguments { index: Some(index), begun: false, whole };
                self.writer.call_begins(at, index, id, name);
            }
            _ => {}
        }
    }

    fn block_stops(&mut self, at: &mut Position<'_>) {
        if let Open::Arguments { index, begun: false, whole } = std::mem::take(&mut self.block) {
            match index {
                Some(index) => self.writer.call_arguments(at, index, Piece::Json(&whole)),
                None => self.writer.text(at, Piece::Json(&whole)),
            }
        }
    }

    fn message_delta(&mut self, at: &mut Position<'_>, delta: &Delta<'_>) {
        // Some vendors repeat the reason with the final counts; the answer ends once.
        let Some(native) = delta.stop_reason.filter(|_| at.facts.finish_reason.is_none()) else {
            return;
        };
        let refusal = delta.stop_details.as_ref().and_then(|details| details.explanation);
        self.writer.finish(at, normal_finish(native, self.answered), native, refusal);
    }

    fn next_detail(&mut self) -> u32 {
        let index = self.details;
        self.details += 1;
        index
    }
}
