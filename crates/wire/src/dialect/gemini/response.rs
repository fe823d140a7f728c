//! Reads a whole answer, and the shape that stream chunks share with it.

use std::borrow::Cow;

use bytes::Bytes;
use http::HeaderMap;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{REASONING_FORMAT, finish_reason, grounding::Grounding, logprobs::Logprobs, own_call_id, usage::Reported};
use crate::{
    canonical::{Call, Choice, Detail, DetailBody, JsonStr, Media, Piece, Text, complete},
    completion::Completion,
    dialect::Dialect,
    facts::{Facts, FinishReason, Stamp},
    failure::{Failure, FailureKind, classify},
};

/// Translates the upstream's answer.
pub(crate) fn read_completion(body: Bytes, stamp: Stamp) -> Result<Completion, Failure> {
    let answer = Answer::parse(&body)?;
    let mut facts = Facts { upstream_id: answer.response_id.as_deref().map(str::to_owned), ..Facts::default() };
    let mut choices: Vec<Choice<'_>> = Vec::with_capacity(answer.candidates.len());
    for (index, candidate) in answer.candidates.iter().enumerate() {
        choices.push(candidate.choice(&stamp, u32::try_from(index).unwrap_or(u32::MAX)));
    }
    if choices.is_empty() {
        let blocked = answer.block().ok_or_else(|| Failure::seen(FailureKind::Empty, "the upstream's answer had nothing in it"))?;
        choices.push(Choice {
            finish: Some(FinishReason::ContentFilter),
            native_finish: Some(blocked.reason),
            refusal: blocked.message,
            ..Choice::default()
        });
    }
    if let Some(reported) = &answer.usage_metadata {
        let images = choices.iter().flat_map(|choice| &choice.media).filter(|media| !media.is_audio()).count();
        facts.usage = Some(reported.usage(images as u64));
    }
    Ok(complete(&stamp, facts, &choices))
}

/// `GenerateContentResponse`: an answer, or one chunk of it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Answer<'a> {
    #[serde(borrow, default)]
    pub(super) candidates: Vec<Candidate<'a>>,
    #[serde(borrow, default)]
    prompt_feedback: Option<PromptFeedback<'a>>,
    #[serde(borrow, default)]
    pub(super) usage_metadata: Option<Reported<'a>>,
    #[serde(borrow, default)]
    pub(super) response_id: Option<Text<'a>>,
    #[serde(default)]
    error: Option<ErrorDetail>,
}

#[derive(Debug, Deserialize)]
struct ErrorDetail {
    #[serde(default)]
    code: Option<u16>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PromptFeedback<'a> {
    #[serde(borrow, default)]
    block_reason: Option<JsonStr<'a>>,
    #[serde(borrow, default)]
    block_reason_message: Option<JsonStr<'a>>,
}

/// Why the prompt itself was refused.
pub(super) struct Blocked<'a> {
    pub(super) reason: JsonStr<'a>,
    pub(super) message: Option<JsonStr<'a>>,
}

/// One alternative.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Candidate<'a> {
    #[serde(default)]
    pub(super) index: Option<u32>,
    #[serde(borrow, default)]
    content: Option<Content<'a>>,
    #[serde(borrow, default)]
    pub(super) finish_reason: Option<JsonStr<'a>>,
    #[serde(borrow, default)]
    pub(super) finish_message: Option<JsonStr<'a>>,
    #[serde(borrow, default)]
    pub(super) grounding_metadata: Option<Grounding<'a>>,
    #[serde(borrow, default)]
    pub(super) logprobs_result: Option<Logprobs<'a>>,
}

#[derive(Debug, Deserialize)]
struct Content<'a> {
    #[serde(borrow, default)]
    parts: Vec<Part<'a>>,
}

/// One part of a candidate. Options rather than an untagged enum, which would have serde buffer it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Part<'a> {
    #[serde(borrow, default)]
    pub(super) text: Option<JsonStr<'a>>,
    #[serde(default)]
    pub(super) thought: Option<bool>,
    #[serde(borrow, default)]
    pub(super) thought_signature: Option<JsonStr<'a>>,
    #[serde(borrow, default)]
    pub(super) function_call: Option<FunctionCall<'a>>,
    #[serde(borrow, default)]
    inline_data: Option<InlineData<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct FunctionCall<'a> {
    #[serde(borrow, default)]
    id: Option<Text<'a>>,
    #[serde(borrow)]
    name: JsonStr<'a>,
    #[serde(borrow, default)]
    args: Option<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct InlineData<'a> {
    #[serde(borrow)]
    mime_type: JsonStr<'a>,
    #[serde(borrow)]
    data: JsonStr<'a>,
}

impl<'a> Answer<'a> {
    /// Parses an answer; errors may come in an array, and either may come with status 200.
    pub(super) fn parse(body: &'a [u8]) -> Result<Answer<'a>, Failure> {
        let malformed = |_| Failure::seen(FailureKind::Malformed, "the upstream's answer is not of the Gemini dialect");
        let answer: Answer<'a> = if body.trim_ascii_start().starts_with(b"[") {
            let mut answers: Vec<Answer<'a>> = serde_json::from_slice(body).map_err(malformed)?;
            if answers.is_empty() {
                return Err(Failure::seen(FailureKind::Empty, "the upstream's answer had nothing in it"));
            }
            answers.swap_remove(0)
        } else {
            serde_json::from_slice(body).map_err(malformed)?
        };
        match &answer.error {
            None => Ok(answer),
            Some(error) => Err(classify(Dialect::Gemini, error.code.unwrap_or(500), &HeaderMap::new(), body, 0)),
        }
    }

    /// The refusal of the prompt, if it was refused.
    pub(super) fn block(&self) -> Option<Blocked<'a>> {
        let feedback = self.prompt_feedback.as_ref()?;
        Some(Blocked { reason: feedback.block_reason?, message: feedback.block_reason_message })
    }
}

impl<'a> Candidate<'a> {
    /// Its parts.
    pub(super) fn parts(&self) -> &[Part<'a>] {
        self.content.as_ref().map_or(&[], |content| &content.parts)
    }

    fn choice(&self, stamp: &Stamp, index: u32) -> Choice<'a> {
        let mut choice = Choice::default();
        for part in self.parts() {
            let next_detail = |choice: &Choice<'_>| u32::try_from(choice.details.len()).unwrap_or(u32::MAX);
            let mut signed = None;
            if let Some(text) = part.text.filter(|text| !text.is_empty()) {
                if part.thought == Some(true) {
                    let body = DetailBody::Text { text: Some(text), signature: None };
                    let index = next_detail(&choice);
                    choice.details.push(Detail { body, format: REASONING_FORMAT, index });
                } else {
                    choice.text.push(Piece::Literal(text));
                }
            }
            if let Some(function) = &part.function_call {
                let number = u32::try_from(choice.calls.len()).unwrap_or(u32::MAX);
                let call = function.call(stamp, index, number);
                signed = Some(call.id.clone());
                choice.calls.push(call);
            }
            choice.media.extend(part.media());
            if let Some(data) = part.thought_signature {
                let index = next_detail(&choice);
                let body = DetailBody::Encrypted { data, id: signed };
                choice.details.push(Detail { body, format: REASONING_FORMAT, index });
            }
        }
        choice.native_finish = self.finish_reason;
        choice.finish = self.finish_reason.map(|native| finish_reason(native.inner(), !choice.calls.is_empty()));
        choice.refusal = self.finish_message.filter(|_| choice.finish == Some(FinishReason::ContentFilter));
        choice.logprobs = self.logprobs_result.as_ref().and_then(Logprobs::to_json);
        if let Some(grounding) = &self.grounding_metadata {
            let text: String = choice
                .text
                .iter()
                .map(|piece| match piece {
                    Piece::Literal(text) => text.decode(),
                    Piece::Json(json) => Cow::Borrowed(*json),
                })
                .collect();
            choice.annotations = grounding.annotations(&text);
        }
        choice
    }
}

impl<'a> FunctionCall<'a> {
    /// The caller's form of it, the `number`th of its choice.
    pub(super) fn call(&self, stamp: &Stamp, choice: u32, number: u32) -> Call<'a> {
        let id = match &self.id {
            Some(id) if !id.is_empty() => Cow::clone(&id.0),
            _ => Cow::Owned(own_call_id(stamp, choice, number)),
        };
        Call { id, name: self.name, arguments: self.args.map_or("{}", RawValue::get) }
    }
}

impl<'a> Part<'a> {
    /// What it shows or plays.
    pub(super) fn media(&self) -> Option<Media<'a>> {
        self.inline_data.as_ref().map(|inline| Media { media_type: inline.mime_type, data: inline.data })
    }
}
