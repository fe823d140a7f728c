//! A whole answer in the caller's dialect.

use bytes::BytesMut;

use super::{
    json::Json,
    reply::{Annotation, Call, Detail, DetailBody, Media, Piece},
    text::JsonStr,
};
use crate::{
    completion::Completion,
    facts::{Facts, FinishReason, Stamp},
};

/// One alternative answer, gathered from the upstream's blocks.
#[derive(Debug, Default)]
pub(crate) struct Choice<'a> {
    pub(crate) text: Vec<Piece<'a>>,
    /// Every block of thought; the readable ones also make up `reasoning`.
    pub(crate) details: Vec<Detail<'a>>,
    pub(crate) calls: Vec<Call<'a>>,
    pub(crate) media: Vec<Media<'a>>,
    pub(crate) annotations: Vec<Annotation<'a>>,
    pub(crate) refusal: Option<JsonStr<'a>>,
    pub(crate) finish: Option<FinishReason>,
    pub(crate) native_finish: Option<JsonStr<'a>>,
    /// JSON, already in the caller's form.
    pub(crate) logprobs: Option<BytesMut>,
}

impl<'a> Choice<'a> {
    fn thoughts(&self) -> impl Iterator<Item = JsonStr<'a>> {
        self.details.iter().filter_map(|detail| match detail.body {
            DetailBody::Text { text, .. } => text,
            DetailBody::Encrypted { .. } => None,
        })
    }

    /// Adds what this choice tells about the answer.
    fn note(&self, facts: &mut Facts) {
        let text: usize = self.text.iter().map(Piece::len).sum();
        let thoughts: usize = self.thoughts().map(|text| text.inner().len()).sum();
        let arguments: usize = self.calls.iter().map(|call| call.arguments.len()).sum();
        facts.output_bytes += (text + thoughts + arguments) as u64;
        facts.tool_calls += u32::try_from(self.calls.len()).unwrap_or(u32::MAX);
        facts.content_seen |= text + thoughts > 0 || !self.calls.is_empty() || !self.media.is_empty();
        if facts.finish_reason.is_none() {
            facts.finish_reason = self.finish;
            facts.native_finish_reason = self.native_finish.map(|native| native.decode().into_owned());
        }
    }

    fn write(&self, index: usize, json: &mut Json<'_>) {
        json.open_object();
        json.key("index");
        json.integer(index);
        json.key("finish_reason");
        match self.finish {
            Some(finish) => json.string(finish.as_str()),
            None => json.null(),
        }
        json.key("native_finish_reason");
        match self.native_finish {
            Some(native) => json.literal(native),
            None => json.null(),
        }
        json.key("logprobs");
        match &self.logprobs {
            Some(logprobs) => json.raw_bytes(logprobs),
            None => json.null(),
        }
        json.object_at("message");
        self.write_message(json);
        json.close_object();
        json.close_object();
    }

    fn write_message(&self, json: &mut Json<'_>) {
        json.string_at("role", "assistant");
        json.key("content");
        if self.text.is_empty() {
            json.null();
        } else {
            json.open_string();
            self.text.iter().for_each(|piece| piece.write_inner(json));
            json.close_string();
        }
        json.key("refusal");
        match self.refusal {
            Some(refusal) => json.literal(refusal),
            None => json.null(),
        }
        if !self.details.is_empty() {
            let thoughts: Vec<_> = self.thoughts().collect();
            json.key("reasoning");
            if thoughts.is_empty() {
                json.null();
            } else {
                json.joined(&thoughts);
            }
            json.array_at("reasoning_details");
            self.details.iter().for_each(|detail| detail.write(json));
            json.close_array();
        }
        if !self.calls.is_empty() {
            json.array_at("tool_calls");
            for (index, call) in self.calls.iter().enumerate() {
                json.open_object();
                json.key("index");
                json.integer(index);
                call.write_members(json);
                json.close_object();
            }
            json.close_array();
        }
        if self.media.iter().any(|media| !media.is_audio()) {
            json.array_at("images");
            let images = self.media.iter().filter(|media| !media.is_audio());
            images.enumerate().for_each(|(index, image)| image.write_image(index, json));
            json.close_array();
        }
        if let Some(audio) = self.media.iter().find(|media| media.is_audio()) {
            json.key("audio");
            audio.write_audio(json);
        }
        if !self.annotations.is_empty() {
            json.array_at("annotations");
            self.annotations.iter().for_each(|annotation| annotation.write(json));
            json.close_array();
        }
    }
}

/// Writes the answer up to its usage, and completes `facts` from the choices.
pub(crate) fn complete(stamp: &Stamp, mut facts: Facts, choices: &[Choice<'_>]) -> Completion {
    for choice in choices {
        choice.note(&mut facts);
    }
    let mut out = BytesMut::with_capacity(512 + usize::try_from(facts.output_bytes).unwrap_or(0));
    let mut json = Json::new(&mut out);
    json.open_object();
    json.string_at("id", &stamp.generation_id);
    json.string_at("object", "chat.completion");
    json.key("created");
    json.integer(stamp.created);
    json.string_at("model", &stamp.model);
    json.string_at("provider", &stamp.provider);
    if let Some(tier) = &facts.service_tier {
        json.string_at("service_tier", tier);
    }
    json.key("system_fingerprint");
    json.null();
    json.array_at("choices");
    choices.iter().enumerate().for_each(|(index, choice)| choice.write(index, &mut json));
    json.close_array();
    Completion::new(facts, out.into(), None)
}
