//! A whole answer: the upstream's bytes under our identity, with its end reasons normalised.

use bytes::Bytes;

use super::{
    answer::{self, Answer, Template},
    choices::Reasoning,
};
use crate::{
    completion::Completion,
    facts::{Facts, Stamp},
    failure::{self, Failure, FailureKind},
    json,
    usage::RawUsage,
};

/// Reads an answer that came with a success status. Some vendors send their errors that way too.
pub(crate) fn read_completion(body: Bytes, stamp: Stamp, reasoning: Reasoning) -> Result<Completion, Failure> {
    let mut facts = Facts::default();
    let mut answer = match Answer::read(&body, &mut facts, reasoning) {
        Ok(answer) => answer,
        Err(error) => {
            return Err(Failure::seen(FailureKind::Malformed, format!("the upstream's answer is not valid: {error}")));
        }
    };
    if let Some(error) = answer.error {
        return Err(failure::reported_in_body(error.of(&body)));
    }
    if answer.choices.count == 0 {
        return Err(failure::without_choices(&body));
    }
    let usage = answer.take_usage().map(|(raw, theirs)| RawUsage::new(body.slice_ref(raw), theirs));
    let text = answer.choices.text.map(|token| token.inner);
    let created = answer.created;
    let mut head = Vec::with_capacity(256);
    head.push(b'{');
    answer::preamble(&stamp, "chat.completion", &mut head);
    if created.is_none() {
        json::Members::continuing(&mut head).integer("created", stamp.created);
    }
    if !answer.fingerprint {
        // Clients with a schema want the member; hosts other than OpenAI often leave it out.
        json::Members::continuing(&mut head).raw("system_fingerprint", b"null");
    }
    let mut template = Template { bytes: Vec::with_capacity(body.len() + 512), ..Template::default() };
    answer.write(&head, &mut template);
    let text = text.map(|span| span.of(&body)).unwrap_or_default();
    let head = if template.holes.is_empty() {
        template.bytes
    } else {
        let mut whole = Vec::with_capacity(template.bytes.len() + template.holes.len() * text.len() + 512);
        template.fill(text, &mut whole);
        whole
    };
    Ok(Completion::new(facts, head, usage))
}
