//! A streamed answer: chunks of the upstream's body in, complete events for the caller out.

use bytes::{BufMut, Bytes, BytesMut};

use crate::{
    dialect::{Dialect, anthropic_messages, gemini, openai_chat},
    error::ErrorType,
    facts::{Closing, Facts, Stamp},
    failure::{Failure, FailureKind},
    json,
    sse::{Event, SseParser, TooLong},
    usage::{self, Usage},
};

/// What the edge writes while an upstream is silent. A comment: strict parsers dispatch no event for it.
pub const KEEP_ALIVE: &[u8] = b": TIDEGATE PROCESSING\n\n";

/// Reads one upstream stream of any dialect and rewrites it as the caller's.
#[derive(Debug)]
pub struct StreamReader {
    framing: SseParser,
    decoder: Decoder,
    stamp: Stamp,
    facts: Facts,
}

/// How far a stream has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// A first token (text, reasoning, tool call) is in `out`, or was before.
    pub content: bool,
    /// The dialect's end was seen; nothing more will come.
    pub finished: bool,
}

/// One decoder per dialect; boxed, because a reader lives in every open stream and their sizes differ.
#[derive(Debug)]
enum Decoder {
    OpenaiChat(Box<openai_chat::StreamDecoder>),
    AnthropicMessages(Box<anthropic_messages::StreamDecoder>),
    Gemini(Box<gemini::StreamDecoder>),
}

/// Writes a chunk without choices that shows a caller the body that was sent upstream (`debug.echo_upstream_body`).
pub fn write_echo(stamp: &Stamp, body: &[u8], out: &mut BytesMut) {
    let mut chunk = Vec::with_capacity(body.len() + 256);
    chunk.push(b'{');
    let mut members = crate::json::Members::starting(&mut chunk);
    members.string("id", &stamp.generation_id);
    members.string("object", "chat.completion.chunk");
    crate::json::write_integer(members.key("created"), stamp.created);
    members.string("model", &stamp.model);
    members.string("provider", &stamp.provider);
    members.raw("choices", b"[]");
    let debug = members.key("debug");
    debug.extend_from_slice(b"{\"echo_upstream_body\":");
    // A line end inside a `data:` line would end it; within JSON it can only be white space.
    debug.extend(body.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }));
    debug.extend_from_slice(b"}}");
    out.reserve(chunk.len() + 8);
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(&chunk);
    out.extend_from_slice(b"\n\n");
}

impl StreamReader {
    /// `expect_usage` says whether the upstream was asked to report usage.
    pub fn new(dialect: Dialect, stamp: Stamp, expect_usage: bool) -> Self {
        let decoder = match dialect {
            Dialect::OpenaiChat => Decoder::OpenaiChat(Box::default()),
            Dialect::AnthropicMessages => Decoder::AnthropicMessages(Box::default()),
            Dialect::Gemini => Decoder::Gemini(Box::default()),
        };
        let facts = Facts { usage_expected: expect_usage, ..Facts::default() };
        Self { framing: SseParser::default(), decoder, stamp, facts }
    }

    /// Hides the model's thoughts, for callers who asked for that (see [`crate::ChatCall::hides_reasoning`]). Call it before the
    /// first chunk; dialects that can be asked not to show them were asked.
    pub fn hide_reasoning(&mut self) {
        if let Decoder::OpenaiChat(decoder) = &mut self.decoder {
            decoder.hide_reasoning();
        }
    }

    /// Reads a chunk and appends to `out` the caller's events that it completes. A partial event is held, up to 1 MiB.
    ///
    /// After an error the stream is over: `out` holds what came before, and nothing more may be pushed.
    pub fn push(&mut self, chunk: Bytes, out: &mut BytesMut) -> Result<Progress, Failure> {
        let Self { framing, decoder, stamp, facts } = self;
        // The answer is about as long as the chunk; one reservation instead of one per event.
        out.reserve(chunk.len() + 128);
        framing.push(&chunk, |event| decoder.push_event(event, stamp, facts, out))?;
        Ok(self.progress())
    }

    /// The upstream's body has ended. Without the dialect's end, a finish reason counts as one; without either the answer is cut.
    pub fn end(&mut self) -> Result<(), Failure> {
        if self.decoder.finished() || self.facts.finish_reason.is_some() {
            if self.facts.content_seen || self.facts.finish_reason.is_some() {
                return Ok(());
            }
            return Err(Failure::seen(FailureKind::Empty, "the upstream's stream had nothing in it"));
        }
        Err(Failure::seen(FailureKind::Cut, "the upstream's stream ended before the answer did"))
    }

    /// Like [`StreamReader::end`], but first delivers a last event that lacks its blank line.
    pub fn end_into(&mut self, out: &mut BytesMut) -> Result<(), Failure> {
        let Self { framing, decoder, stamp, facts } = self;
        let last = framing.finish(|event| decoder.push_event(event, stamp, facts, out));
        match last {
            // Half a chunk is no chunk: what is wrong with it is that the rest is missing.
            Err(Failure { kind: FailureKind::Malformed, .. }) | Ok(()) => self.end(),
            Err(failure) => Err(failure),
        }
    }

    /// What the stream has told so far.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Takes an estimate where the upstream reported nothing, so that the last chunk can carry usage all the same.
    pub fn assume_usage(&mut self, usage: Usage) {
        self.facts.usage.get_or_insert(usage);
    }

    /// Appends the last chunk (no choices, usage, cost and router metadata) and `[DONE]`.
    pub fn close(&mut self, closing: &Closing<'_>, out: &mut BytesMut) {
        let mut chunk = Vec::with_capacity(640);
        chunk.extend_from_slice(b"data: {");
        let mut members = json::Members::starting(&mut chunk);
        members.string("id", &self.stamp.generation_id);
        members.string("provider", &self.stamp.provider);
        members.string("model", &self.stamp.model);
        members.string("object", "chat.completion.chunk");
        members.integer("created", self.decoder.created().unwrap_or(self.stamp.created));
        members.optional_string("service_tier", self.facts.service_tier.as_deref());
        members.raw("choices", b"[]");
        usage::write_closing(&mut chunk, self.facts.usage.as_ref(), self.decoder.raw_usage(), closing);
        chunk.extend_from_slice(b"}\n\ndata: [DONE]\n\n");
        out.put_slice(&chunk);
    }

    fn progress(&self) -> Progress {
        Progress { content: self.facts.content_seen, finished: self.decoder.finished() }
    }
}

impl Decoder {
    fn push_event(&mut self, event: Event<'_>, stamp: &Stamp, facts: &mut Facts, out: &mut BytesMut) -> Result<(), Failure> {
        match self {
            Self::OpenaiChat(decoder) => decoder.push_event(event, stamp, facts, out),
            Self::AnthropicMessages(decoder) => decoder.push_event(event, stamp, facts, out),
            Self::Gemini(decoder) => decoder.push_event(event, stamp, facts, out),
        }
    }

    fn finished(&self) -> bool {
        match self {
            Self::OpenaiChat(decoder) => decoder.finished(),
            Self::AnthropicMessages(decoder) => decoder.finished(),
            Self::Gemini(decoder) => decoder.finished(),
        }
    }

    /// The upstream's own usage object, where it has the caller's shape.
    fn raw_usage(&self) -> Option<&usage::RawUsage> {
        match self {
            Self::OpenaiChat(decoder) => decoder.raw_usage(),
            Self::AnthropicMessages(_) | Self::Gemini(_) => None,
        }
    }

    /// The creation time the upstream gave to the chunks before.
    fn created(&self) -> Option<u64> {
        match self {
            Self::OpenaiChat(decoder) => decoder.created(),
            Self::AnthropicMessages(_) | Self::Gemini(_) => None,
        }
    }
}

impl From<TooLong> for Failure {
    fn from(error: TooLong) -> Self {
        Self { error_type: ErrorType::ProviderUnavailable, ..Self::seen(FailureKind::Malformed, error.to_string()) }
    }
}
