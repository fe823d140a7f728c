//! Stream chunks in the caller's dialect, written without intermediate values.

use bytes::BytesMut;

use super::{
    json::Json,
    reply::{Annotation, Call, Detail, DetailBody, Media, Piece},
    text::JsonStr,
};
use crate::facts::{Facts, FinishReason, Stamp};

/// Writes the chunks of one stream. Holds what repeats in every chunk, already encoded.
#[derive(Debug, Default)]
pub(crate) struct ChunkWriter {
    /// Everything before the first choice's index.
    head: Vec<u8>,
    /// One bit per choice that has introduced itself; OpenAI names the role in the first delta only.
    introduced: u64,
}

impl ChunkWriter {
    /// A piece of text.
    pub(crate) fn text(&mut self, at: &mut Position<'_>, text: Piece<'_>) {
        if text.is_empty() {
            return;
        }
        at.note(text.len());
        self.delta(at, |json| {
            json.key("content");
            text.write(json);
        });
    }

    /// A piece of thought, readable or not, or a signature. Only readable ones count as the beginning of an answer.
    pub(crate) fn detail(&mut self, at: &mut Position<'_>, detail: &Detail<'_>) {
        let readable = match detail.body {
            DetailBody::Text { text, .. } => text,
            DetailBody::Encrypted { .. } => None,
        };
        if let Some(text) = readable {
            at.note(text.inner().len());
        }
        self.delta(at, |json| {
            if let Some(text) = readable {
                json.literal_at("reasoning", text);
            }
            json.array_at("reasoning_details");
            detail.write(json);
            json.close_array();
        });
    }

    /// The head of a call whose arguments follow.
    pub(crate) fn call_begins(&mut self, at: &mut Position<'_>, index: u32, id: &str, name: JsonStr<'_>) {
        at.note(0);
        at.facts.tool_calls += 1;
        self.delta(at, |json| {
            json.array_at("tool_calls");
            json.open_object();
            json.key("index");
            json.integer(index);
            json.string_at("id", id);
            json.string_at("type", "function");
            json.object_at("function");
            json.literal_at("name", name);
            json.string_at("arguments", "");
            json.close_object();
            json.close_object();
            json.close_array();
        });
    }

    /// A piece of a call's arguments.
    pub(crate) fn call_arguments(&mut self, at: &mut Position<'_>, index: u32, arguments: Piece<'_>) {
        if arguments.is_empty() {
            return;
        }
        at.note(arguments.len());
        self.delta(at, |json| {
            json.array_at("tool_calls");
            json.open_object();
            json.key("index");
            json.integer(index);
            json.object_at("function");
            json.key("arguments");
            arguments.write(json);
            json.close_object();
            json.close_object();
            json.close_array();
        });
    }

    /// A whole call at once.
    pub(crate) fn call(&mut self, at: &mut Position<'_>, index: u32, call: &Call<'_>) {
        at.note(call.arguments.len());
        at.facts.tool_calls += 1;
        self.delta(at, |json| {
            json.array_at("tool_calls");
            json.open_object();
            json.key("index");
            json.integer(index);
            call.write_members(json);
            json.close_object();
            json.close_array();
        });
    }

    /// An image or sound.
    pub(crate) fn media(&mut self, at: &mut Position<'_>, index: usize, media: &Media<'_>) {
        at.note(0);
        self.delta(at, |json| {
            if media.is_audio() {
                json.key("audio");
                media.write_audio(json);
            } else {
                json.array_at("images");
                media.write_image(index, json);
                json.close_array();
            }
        });
    }

    /// Sources of the text so far.
    pub(crate) fn annotations(&mut self, at: &mut Position<'_>, annotations: &[Annotation<'_>]) {
        if annotations.is_empty() {
            return;
        }
        self.delta(at, |json| {
            json.array_at("annotations");
            annotations.iter().for_each(|annotation| annotation.write(json));
            json.close_array();
        });
    }

    /// Probabilities of the tokens so far; `logprobs` is JSON in the caller's form.
    pub(crate) fn logprobs(&mut self, at: &mut Position<'_>, logprobs: &BytesMut) {
        self.open(at);
        at.out.extend_from_slice(b"},\"logprobs\":");
        at.out.extend_from_slice(logprobs);
        at.out.extend_from_slice(b",\"finish_reason\":null,\"native_finish_reason\":null}]}\n\n");
    }

    /// The end of a choice. `refusal` is the upstream's explanation, when it gave one.
    pub(crate) fn finish(&mut self, at: &mut Position<'_>, reason: FinishReason, native: JsonStr<'_>, refusal: Option<JsonStr<'_>>) {
        if at.facts.finish_reason.is_none() {
            at.facts.finish_reason = Some(reason);
            at.facts.native_finish_reason = Some(native.decode().into_owned());
        }
        self.open(at);
        let mut json = Json::new(at.out);
        if let Some(refusal) = refusal {
            json.literal_at("refusal", refusal);
        }
        json.close_object();
        json.string_at("finish_reason", reason.as_str());
        json.literal_at("native_finish_reason", native);
        at.out.extend_from_slice(b"}]}\n\n");
    }

    fn delta(&mut self, at: &mut Position<'_>, members: impl FnOnce(&mut Json<'_>)) {
        self.open(at);
        members(&mut Json::new(at.out));
        at.out.extend_from_slice(b"},\"finish_reason\":null,\"native_finish_reason\":null}]}\n\n");
    }

    /// Everything up to the inside of `delta`.
    fn open(&mut self, at: &mut Position<'_>) {
        if self.head.is_empty() {
            self.head = head(at.stamp);
        }
        at.out.extend_from_slice(&self.head);
        at.out.extend_from_slice(itoa::Buffer::new().format(at.choice).as_bytes());
        at.out.extend_from_slice(b",\"delta\":{");
        // Choices beyond the sixty-fourth share its bit; no upstream offers more than eight.
        let bit = 1 << at.choice.min(63);
        if self.introduced & bit == 0 {
            self.introduced |= bit;
            at.out.extend_from_slice(b"\"role\":\"assistant\"");
        }
    }
}

/// Where a delta goes: which choice of which answer, and the buffers it leaves its traces in.
pub(crate) struct Position<'s> {
    pub(crate) choice: u32,
    pub(crate) stamp: &'s Stamp,
    pub(crate) facts: &'s mut Facts,
    pub(crate) out: &'s mut BytesMut,
}

impl Position<'_> {
    fn note(&mut self, bytes: usize) {
        self.facts.content_seen = true;
        self.facts.output_bytes += bytes as u64;
    }
}

fn head(stamp: &Stamp) -> Vec<u8> {
    let mut out = BytesMut::with_capacity(192);
    out.extend_from_slice(b"data: ");
    let mut json = Json::new(&mut out);
    json.open_object();
    json.string_at("id", &stamp.generation_id);
    json.string_at("object", "chat.completion.chunk");
    json.key("created");
    json.integer(stamp.created);
    json.string_at("model", &stamp.model);
    json.string_at("provider", &stamp.provider);
    json.array_at("choices");
    json.open_object();
    json.key("index");
    out.into()
}
