//! Reads a stream: every event is a partial answer, whose parts become chunks.

use bytes::BytesMut;
use smallvec::SmallVec;

use super::{
    REASONING_FORMAT, finish_reason,
    logprobs::Logprobs,
    response::{Answer, Candidate, Part},
};
use crate::{
    canonical::{ChunkWriter, Detail, DetailBody, Piece, Position},
    facts::{Facts, FinishReason, Stamp},
    failure::Failure,
    sse,
};

/// The state between two events. The API has no end marker; its streams end with the body.
#[derive(Debug, Default)]
pub(crate) struct StreamDecoder {
    writer: ChunkWriter,
    choices: SmallVec<[ChoiceState; 1]>,
    images: u64,
    ended: bool,
}

/// What has been written of one choice.
#[derive(Debug, Default)]
struct ChoiceState {
    calls: u32,
    images: usize,
    details: u32,
    /// The last part was a readable thought, and the next one continues it.
    in_thought: bool,
    finished: bool,
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
        // Not this API's, but proxies in front of it add OpenAI's end.
        if event.data == b"[DONE]" {
            self.ended = true;
            return Ok(());
        }
        let answer = Answer::parse(event.data)?;
        if facts.upstream_id.is_none() {
            facts.upstream_id = answer.response_id.as_deref().map(str::to_owned);
        }
        for candidate in &answer.candidates {
            // Beyond what any model offers: a number out of bounds must not make us hold that many states.
            let choice = candidate.index.unwrap_or(0).min(MAX_CHOICE);
            self.candidate(candidate, &mut Position { choice, stamp, facts, out });
        }
        if let Some(blocked) = answer.block()
            && answer.candidates.is_empty()
        {
            let mut at = Position { choice: 0, stamp, facts, out };
            self.writer.finish(&mut at, FinishReason::ContentFilter, blocked.reason, blocked.message);
            self.ended = true;
        }
        if let Some(reported) = &answer.usage_metadata {
            facts.usage = Some(reported.usage(self.images));
        }
        Ok(())
    }

    /// An end was seen that nothing can follow. A finish reason is none: further candidates, their sources or the final
    /// counts may come after it, and the end of the body is the only sign that they will not.
    pub(crate) fn finished(&self) -> bool {
        self.ended
    }

    fn candidate(&mut self, candidate: &Candidate<'_>, at: &mut Position<'_>) {
        let place = at.choice as usize;
        if self.choices.len() <= place {
            self.choices.resize_with(place + 1, ChoiceState::default);
        }
        for part in candidate.parts() {
            self.part(part, at);
        }
        if let Some(logprobs) = candidate.logprobs_result.as_ref().and_then(Logprobs::to_json) {
            self.writer.logprobs(at, &logprobs);
        }
        // The text they refer to is gone by now, so they carry no places.
        if let Some(grounding) = &candidate.grounding_metadata {
            self.writer.annotations(at, &grounding.annotations(""));
        }
        let state = &mut self.choices[place];
        if let Some(native) = candidate.finish_reason
            && !state.finished
        {
            state.finished = true;
            let reason = finish_reason(native.inner(), state.calls > 0);
            let refusal = candidate.finish_message.filter(|_| reason == FinishReason::ContentFilter);
            self.writer.finish(at, reason, native, refusal);
        }
    }

    fn part(&mut self, part: &Part<'_>, at: &mut Position<'_>) {
        let Self { writer, choices, images, .. } = self;
        let state = &mut choices[at.choice as usize];
        let mut signed = None;
        if let Some(text) = part.text.filter(|text| !text.is_empty()) {
            if part.thought == Some(true) {
                if !state.in_thought {
                    state.in_thought = true;
                    state.details += 1;
                }
                let body = DetailBody::Text { text: Some(text), signature: None };
                writer.detail(at, &Detail { body, format: REASONING_FORMAT, index: state.details - 1 });
            } else {
                state.in_thought = false;
                writer.text(at, Piece::Literal(text));
            }
        }
        let call = part.function_call.as_ref().map(|function| function.call(at.stamp, at.choice, state.calls));
        if let Some(call) = &call {
            signed = Some(call.id.clone());
        }
        // Before the call, so that a caller who stops reading at the call has it.
        if let Some(data) = part.thought_signature {
            state.in_thought = false;
            let body = DetailBody::Encrypted { data, id: signed };
            writer.detail(at, &Detail { body, format: REASONING_FORMAT, index: state.details });
            state.details += 1;
        }
        if let Some(call) = call {
            writer.call(at, state.calls, &call);
            state.calls += 1;
            state.in_thought = false;
        }
        if let Some(media) = part.media() {
            writer.media(at, state.images, &media);
            if !media.is_audio() {
                state.images += 1;
                *images += 1;
            }
        }
    }
}

/// Highest index of a choice; the API offers eight.
const MAX_CHOICE: u32 = 63;
