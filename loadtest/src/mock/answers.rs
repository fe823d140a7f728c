//! The constant bytes of each dialect.

use std::fmt::Write as _;

use bytes::Bytes;

use crate::scenario::Scenario;
use crate::sse::{STAMP_DIGITS, STAMP_MARK, write_stamp};

/// The API shape that a path asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Dialect {
    /// `…/chat/completions`, and every other path.
    Openai,
    /// `…/messages`.
    Anthropic,
    /// `…/models/<model>:generateContent` and `:streamGenerateContent`.
    Gemini,
}

impl Dialect {
    /// In the order of their discriminants.
    pub(crate) const ALL: [Self; 3] = [Self::Openai, Self::Anthropic, Self::Gemini];

    /// The dialect of a path, and the scenario when the path holds the model.
    pub(crate) fn of_path(path: &str) -> (Self, Option<Scenario>) {
        let path = path.split('?').next().unwrap_or(path);
        if let Some((models, _)) = path.rsplit_once(':') {
            let model = models.rsplit("models/").next().unwrap_or(models).replace("%2F", "/");
            return (Self::Gemini, Some(Scenario::of_model(&model)));
        }
        if path.ends_with("/messages") { (Self::Anthropic, None) } else { (Self::Openai, None) }
    }
}

/// A whole JSON response.
pub(crate) fn json(dialect: Dialect) -> Bytes {
    let body = json_answer(dialect);
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}").into()
}

/// The parts of a stream.
pub(crate) struct Stream {
    /// Response head and the events before the first content.
    pub(crate) opening: Bytes,
    /// One content chunk.
    pub(crate) chunk: Chunk,
    /// The events after the last content and the end of the body.
    pub(crate) closing: Bytes,
}

/// One content event in chunked framing, with a place for the moment of sending.
#[derive(Clone)]
pub(crate) struct Chunk {
    bytes: Vec<u8>,
    /// Where the digits start.
    stamp: usize,
}

impl Chunk {
    fn new(event: &str) -> Self {
        let bytes = framed(event).into_bytes();
        let stamp = memchr::memchr(STAMP_MARK, &bytes).map_or(0, |at| at + 1);
        debug_assert!(bytes[stamp..stamp + STAMP_DIGITS].iter().all(|digit| *digit == b'0'));
        Self { bytes, stamp }
    }

    /// Writes the moment of sending, microseconds of the wall clock.
    pub(crate) fn stamp(&mut self, micros: u64) {
        if let Some(digits) = self.bytes[self.stamp..].first_chunk_mut::<STAMP_DIGITS>() {
            write_stamp(micros, digits);
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Stream {
    pub(crate) fn new(dialect: Dialect) -> Self {
        let (before, content, after) = events(dialect);
        let mut opening =
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
                .to_owned();
        for event in before {
            opening.push_str(&framed(event));
        }
        let mut closing: String = after.iter().map(|event| framed(event)).collect();
        closing.push_str("0\r\n\r\n");
        Self { opening: opening.into(), chunk: Chunk::new(content), closing: closing.into() }
    }
}

/// One event in one HTTP chunk, as providers send them.
fn framed(event: &str) -> String {
    let mut chunk = String::new();
    let _ = write!(chunk, "{:x}\r\n{event}\r\n", event.len());
    chunk
}

/// Events before the content, one content event, events after it.
fn events(dialect: Dialect) -> (&'static [&'static str], &'static str, &'static [&'static str]) {
    match dialect {
        Dialect::Openai => (
            &[
                "data: {\"id\":\"chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG\",\"object\":\"chat.completion.chunk\",\"created\":1764567890,\"model\":\"mock\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n",
            ],
            "data: {\"id\":\"chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG\",\"object\":\"chat.completion.chunk\",\"created\":1764567890,\"model\":\"mock\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" tide @0000000000000000\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n",
            &[
                "data: {\"id\":\"chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG\",\"object\":\"chat.completion.chunk\",\"created\":1764567890,\"model\":\"mock\",\"choices\":[{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}]}\n\n",
                "data: {\"id\":\"chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG\",\"object\":\"chat.completion.chunk\",\"created\":1764567890,\"model\":\"mock\",\"choices\":[],\"usage\":{\"prompt_tokens\":420,\"completion_tokens\":100,\"total_tokens\":520,\"prompt_tokens_details\":{\"cached_tokens\":0},\"completion_tokens_details\":{\"reasoning_tokens\":0}}}\n\n",
                "data: [DONE]\n\n",
            ],
        ),
        Dialect::Anthropic => (
            &[
                "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_01XFDUDYJgAACzvnptvVoYEL\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"mock\",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\"usage\":{\"input_tokens\":420,\"output_tokens\":1}}}\n\n",
                "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n",
            ],
            "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\" tide @0000000000000000\"}}\n\n",
            &[
                "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n",
                "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":100}}\n\n",
                "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
            ],
        ),
        Dialect::Gemini => (
            &[],
            "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\" tide @0000000000000000\"}],\"role\":\"model\"},\"index\":0}],\"usageMetadata\":{\"promptTokenCount\":420,\"candidatesTokenCount\":10,\"totalTokenCount\":430},\"modelVersion\":\"mock\"}\n\n",
            &[
                "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"\"}],\"role\":\"model\"},\"finishReason\":\"STOP\",\"index\":0}],\"usageMetadata\":{\"promptTokenCount\":420,\"candidatesTokenCount\":100,\"totalTokenCount\":520},\"modelVersion\":\"mock\"}\n\n",
            ],
        ),
    }
}

/// A JSON answer of about 0.6 KB.
fn json_answer(dialect: Dialect) -> String {
    let text = "The gate opens while the river runs out and shuts by itself when the tide turns, so the fields behind it stay dry.";
    match dialect {
        Dialect::Openai => format!(
            "{{\"id\":\"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT\",\"object\":\"chat.completion\",\"created\":1764567890,\"model\":\"mock\",\"choices\":[{{\"index\":0,\"message\":{{\"role\":\"assistant\",\"content\":\"{text}\",\"refusal\":null,\"annotations\":[]}},\"logprobs\":null,\"finish_reason\":\"stop\"}}],\"usage\":{{\"prompt_tokens\":420,\"completion_tokens\":26,\"total_tokens\":446,\"prompt_tokens_details\":{{\"cached_tokens\":0,\"audio_tokens\":0}},\"completion_tokens_details\":{{\"reasoning_tokens\":0,\"audio_tokens\":0}}}},\"service_tier\":\"default\",\"system_fingerprint\":\"fp_44709d6fcb\"}}"
        ),
        Dialect::Anthropic => format!(
            "{{\"id\":\"msg_01XFDUDYJgAACzvnptvVoYEL\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"mock\",\"content\":[{{\"type\":\"text\",\"text\":\"{text}\"}}],\"stop_reason\":\"end_turn\",\"stop_sequence\":null,\"usage\":{{\"input_tokens\":420,\"cache_creation_input_tokens\":0,\"cache_read_input_tokens\":0,\"output_tokens\":26,\"service_tier\":\"standard\"}}}}"
        ),
        Dialect::Gemini => format!(
            "{{\"candidates\":[{{\"content\":{{\"parts\":[{{\"text\":\"{text}\"}}],\"role\":\"model\"}},\"finishReason\":\"STOP\",\"index\":0,\"avgLogprobs\":-0.07}}],\"usageMetadata\":{{\"promptTokenCount\":420,\"candidatesTokenCount\":26,\"totalTokenCount\":446,\"promptTokensDetails\":[{{\"modality\":\"TEXT\",\"tokenCount\":420}}]}},\"modelVersion\":\"mock\",\"responseId\":\"mLGHaf3oDLSf\"}}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::{BodyReader, Head};
    use crate::sse::{Event, EventScanner};

    #[test]
    fn json_answers_are_valid_and_of_the_stated_size() {
        for dialect in Dialect::ALL {
            let body = json_answer(dialect);
            assert!(serde_json::from_str::<serde_json::Value>(&body).is_ok(), "{dialect:?}");
            assert!((400..700).contains(&body.len()), "{dialect:?}: {}", body.len());
        }
    }

    #[test]
    fn streams_hold_the_wanted_chunks_in_valid_framing() {
        for dialect in Dialect::ALL {
            let mut stream = Stream::new(dialect);
            stream.chunk.stamp(1_795_410_000_123_456);
            let bytes = [&stream.opening[..], &stream.chunk.bytes().repeat(5), &stream.closing].concat();
            let head = Head::response(&bytes).unwrap().unwrap();
            let mut reader = BodyReader::new(head.framing);
            let (mut scanner, mut chunks) = (EventScanner::default(), 0);
            let mut count = |event| chunks += u32::from(event == Event::Chunk(1_795_410_000_123_456));
            reader.feed(&bytes[head.length..], |data| scanner.feed(data, &mut count)).unwrap();
            assert!(reader.done());
            assert_eq!(chunks, 5, "{dialect:?}");
        }
    }

    #[test]
    fn every_event_is_json() {
        for dialect in Dialect::ALL {
            let (before, content, after) = events(dialect);
            for event in before.iter().chain([&content]).chain(after) {
                let data = event.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
                assert!(data == "[DONE]" || serde_json::from_str::<serde_json::Value>(data).is_ok(), "{event}");
            }
        }
    }

    #[test]
    fn paths_choose_the_dialect() {
        assert_eq!(Dialect::of_path("/v1/chat/completions"), (Dialect::Openai, None));
        assert_eq!(Dialect::of_path("/anthropic/v1/messages?beta=true"), (Dialect::Anthropic, None));
        let gemini = Dialect::of_path("/v1beta/models/bench/sse-4-5:streamGenerateContent?alt=sse");
        assert_eq!(gemini, (Dialect::Gemini, Some(Scenario::sse(4, 5))));
    }
}
