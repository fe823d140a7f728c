//! A streamed answer, chunk by chunk.
//!
//! Almost every chunk of a stream is the chunk before it with another piece of text in the same place. So the reader remembers
//! what stood before and behind the text, and what was written for it; a chunk that matches both needs two comparisons, one
//! search for the end of the string, and one copy. Anything else is read in full, which costs a few hundred nanoseconds.

use bytes::{Bytes, BytesMut};

use super::{
    answer::{self, Answer, Template},
    choices::Reasoning,
};
use crate::{
    facts::{Facts, Stamp},
    failure::{self, Failure, FailureKind},
    scan,
    sse::Event,
    usage::RawUsage,
};

/// Reads the chunks of one stream.
#[derive(Debug, Default)]
pub(crate) struct StreamDecoder {
    done: bool,
    reasoning: Reasoning,
    created: Option<u64>,
    /// `data: {` and the members that say who answers.
    preamble: Vec<u8>,
    form: Option<Form>,
    usage: Option<RawUsage>,
}

/// The form of the last plain chunk.
#[derive(Debug)]
struct Form {
    /// What stood before the text, its opening quote included.
    before: Vec<u8>,
    /// What stood behind it, from its closing quote on.
    behind: Vec<u8>,
    /// What was written.
    template: Template,
}

impl StreamDecoder {
    /// From here on the model's thoughts are not written.
    pub(crate) fn hide_reasoning(&mut self) {
        self.reasoning = Reasoning::Hidden;
    }

    pub(crate) fn push_event(&mut self, event: Event<'_>, stamp: &Stamp, facts: &mut Facts, out: &mut BytesMut) -> Result<(), Failure> {
        if self.done {
            return Ok(());
        }
        if event.name.is_empty()
            && let Some(form) = &self.form
            && let Some(text) = form.text(event.data)
        {
            facts.content_seen = true;
            facts.output_bytes += text.len() as u64;
            form.template.fill(text, out);
            return Ok(());
        }
        self.push_other(event, stamp, facts, out)
    }

    /// `[DONE]` was seen.
    pub(crate) fn finished(&self) -> bool {
        self.done
    }

    /// The upstream's usage object, for the members we do not know.
    pub(crate) fn raw_usage(&self) -> Option<&RawUsage> {
        self.usage.as_ref()
    }

    /// The upstream's creation time, so that all chunks bear the same.
    pub(crate) fn created(&self) -> Option<u64> {
        self.created
    }

    fn push_other(&mut self, event: Event<'_>, stamp: &Stamp, facts: &mut Facts, out: &mut BytesMut) -> Result<(), Failure> {
        let data = event.data.trim_ascii();
        if data.is_empty() {
            return Ok(());
        }
        if data == b"[DONE]" {
            self.done = true;
            return Ok(());
        }
        if event.name == b"error" {
            return Err(failure::reported_in_body(data));
        }
        let was_finished = facts.finish_reason.is_some();
        let mut chunk = Answer::read(data, facts, self.reasoning).map_err(|error| {
            Failure::seen(FailureKind::Malformed, format!("the upstream's stream holds a chunk that is not valid: {error}"))
        })?;
        if let Some(error) = chunk.error {
            return Err(failure::reported_in_body(error.of(data)));
        }
        self.created = self.created.or(chunk.created.filter(|created| *created > 0));
        let plain = chunk.is_plain();
        let reports_usage = chunk.usage.is_some();
        if let Some((raw, theirs)) = chunk.take_usage() {
            self.usage = Some(RawUsage::new(Bytes::copy_from_slice(raw), theirs));
        }
        // Usage waits for its price; chunks that say nothing else end here. What a vendor says beside it passes.
        if chunk.choices.count == 0 && (chunk.unknown == 0 || reports_usage) {
            return Ok(());
        }
        // Aggregators report usage beside one more choice, which has ended before and holds nothing.
        if reports_usage && was_finished && !chunk.choices.special && chunk.choices.text.is_none() {
            return Ok(());
        }
        if self.preamble.is_empty() {
            self.preamble.extend_from_slice(b"data: {");
            answer::preamble(stamp, "chat.completion.chunk", &mut self.preamble);
        }
        let text = chunk.choices.text.map(|token| token.inner);
        let mut template = match self.form.take() {
            // Its memory is used again.
            Some(Form { template: Template { mut bytes, mut holes }, .. }) => {
                bytes.clear();
                holes.clear();
                Template { bytes, holes }
            }
            None => Template::default(),
        };
        let created = chunk.created.is_none().then_some(self.created.unwrap_or(stamp.created));
        chunk.write(&self.preamble, &mut template);
        if let Some(created) = created {
            template.own(b",\"created\":");
            template.own(itoa::Buffer::new().format(created).as_bytes());
        }
        template.own(b"}\n\n");
        template.fill(text.map(|span| span.of(data)).unwrap_or_default(), out);
        let behind = text.and_then(|span| data.get(span.end..)).unwrap_or_default().to_vec();
        let before = text.and_then(|span| data.get(..span.start)).unwrap_or_default();
        // A form without text to match still lends its memory; an empty `before` matches nothing.
        let before = if plain { before.to_vec() } else { Vec::new() };
        self.form = Some(Form { before, behind, template });
        Ok(())
    }
}

impl Form {
    /// The text of a chunk that has this form, if it has.
    fn text<'a>(&self, data: &'a [u8]) -> Option<&'a [u8]> {
        if self.before.is_empty() {
            return None;
        }
        let rest = data.strip_prefix(self.before.as_slice())?;
        let text = rest.strip_suffix(self.behind.as_slice())?;
        // The first quote that ends the string must be the one that `behind` starts with.
        let (end, _) = scan::string_end(rest, 0).ok()?;
        let whole = end == text.len() && !text.is_empty();
        let clean = !text.iter().fold(false, |found, &byte| found | (byte < 0x20));
        (whole && clean && std::str::from_utf8(text).is_ok()).then_some(text)
    }
}
