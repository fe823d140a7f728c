//! What a whole answer and a chunk have in common: their top level, and how it is written with our identity.

use bytes::BufMut;
use smallvec::SmallVec;

use super::choices::{self, Choices, Reasoning, Replacement};
use crate::{
    facts::{Facts, Stamp},
    json,
    scan::{Cursor, Kind, ScanError, Span, StringToken},
    usage::{self, Theirs},
};

/// An answer or a chunk, read. Spans lie in `bytes`.
#[derive(Debug)]
pub(super) struct Answer<'a> {
    bytes: &'a [u8],
    /// Members that are written as they came, `choices` among them.
    kept: SmallVec<[Span; 8]>,
    /// The upstream's `created`.
    pub(super) created: Option<u64>,
    pub(super) choices: Choices,
    /// The top-level usage object, and what in it is not ours to write.
    pub(super) usage: Option<(Span, Theirs)>,
    /// A top-level `error` that is not null, or a body that is an error as a whole.
    pub(super) error: Option<Span>,
    /// `system_fingerprint` is there.
    pub(super) fingerprint: bool,
    /// Members of no known name.
    pub(super) unknown: usize,
}

impl<'a> Answer<'a> {
    /// Reads one JSON object and keeps what it says in `facts`.
    pub(super) fn read(bytes: &'a [u8], facts: &mut Facts, reasoning: Reasoning) -> Result<Self, ScanError> {
        let mut answer = Self {
            bytes,
            kept: SmallVec::new(),
            created: None,
            choices: Choices::default(),
            usage: None,
            error: None,
            fingerprint: false,
            unknown: 0,
        };
        let mut says_error = false;
        let mut seen_choices = false;
        let mut cursor = Cursor::open(bytes)?;
        let mut object = cursor.enter_object()?;
        while let Some(key) = cursor.next_key(&mut object)? {
            let kind = cursor.kind()?;
            let start = key.outer().start;
            let name = key.inner.of(bytes);
            if name == b"choices" && !seen_choices {
                seen_choices = true;
                answer.choices = choices::read(&mut cursor, facts, reasoning)?;
                answer.kept.push(Span { start, end: cursor.position() });
                continue;
            }
            if name == b"usage" && kind == Kind::Object {
                answer.usage = Some(usage::read_openai(&mut cursor, facts)?);
                continue;
            }
            let value = cursor.skip()?;
            match name {
                b"id" => {
                    if kind == Kind::String && facts.upstream_id.is_none() {
                        facts.upstream_id = Some(text(bytes, value)).filter(|id| !id.is_empty());
                    }
                    continue;
                }
                // Written anew.
                b"provider" | b"model" | b"choices" | b"usage" => continue,
                b"object" => {
                    says_error |= value.of(bytes) == b"\"error\"";
                    continue;
                }
                b"error" => {
                    if kind != Kind::Null {
                        answer.error = Some(value);
                    }
                    continue;
                }
                b"created" => answer.created = value.text(bytes).parse().ok(),
                b"service_tier" => {
                    if kind == Kind::String && facts.service_tier.is_none() {
                        facts.service_tier = Some(text(bytes, value));
                    }
                }
                b"x_groq" if kind == Kind::Object && facts.usage.is_none() => read_groq_usage(value.of(bytes), facts)?,
                b"system_fingerprint" => answer.fingerprint = true,
                b"obfuscation" => {}
                _ => answer.unknown += 1,
            }
            answer.kept.push(Span { start, end: value.end });
        }
        cursor.finish()?;
        if says_error && answer.error.is_none() {
            answer.error = Some(Span { start: 0, end: bytes.len() });
        }
        Ok(answer)
    }

    /// Whether another answer of the same form differs only in the text of its one choice.
    pub(super) fn is_plain(&self) -> bool {
        !self.choices.special && self.choices.text.is_some() && self.usage.is_none() && self.error.is_none()
    }

    /// The upstream's usage object, wherever it was.
    pub(super) fn take_usage(&mut self) -> Option<(&'a [u8], Theirs)> {
        let (span, theirs) = self.usage.take().or_else(|| self.choices.usage.take())?;
        Some((span.of(self.bytes), theirs))
    }

    /// Writes everything but the generated text behind an opening brace and our own members, and without the closing brace.
    pub(super) fn write(mut self, preamble: &[u8], out: &mut Template) {
        out.own(preamble);
        self.choices.edits.sort_by_key(|edit| (edit.span.start, edit.span.end));
        let mut edits = self.choices.edits.into_iter().peekable();
        let text = self.choices.text;
        for member in self.kept {
            out.own(b",");
            let mut at = member.start;
            while let Some(edit) = edits.next_if(|edit| edit.span.end <= member.end) {
                out.copy(self.bytes, Span { start: at, end: edit.span.start }, text);
                match edit.text {
                    Replacement::Own(bytes) => out.own(&bytes),
                    Replacement::Reasoning { text: token, name, details } => {
                        if name {
                            out.own(b",\"reasoning\":");
                            out.copy(self.bytes, token.outer(), text);
                        }
                        if details {
                            out.own(b",\"reasoning_details\":[{\"type\":\"reasoning.text\",\"text\":");
                            out.copy(self.bytes, token.outer(), text);
                            out.own(b",\"format\":\"unknown\",\"index\":0}]");
                        }
                    }
                }
                at = edit.span.end;
            }
            out.copy(self.bytes, Span { start: at, end: member.end }, text);
        }
    }
}

/// Output in which the places of the generated text are remembered, so that the next chunk of the same form can be filled in.
#[derive(Debug, Default)]
pub(super) struct Template {
    pub(super) bytes: Vec<u8>,
    /// Where the text stands in `bytes`; it is not itself in there.
    pub(super) holes: SmallVec<[usize; 3]>,
}

impl Template {
    pub(super) fn own(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Copies `span`, leaving a hole where it covers `text`.
    fn copy(&mut self, bytes: &[u8], span: Span, text: Option<StringToken>) {
        match text.map(|token| token.inner) {
            Some(hole) if span.start <= hole.start && hole.end <= span.end => {
                self.own(Span { start: span.start, end: hole.start }.of(bytes));
                self.holes.push(self.bytes.len());
                self.own(Span { start: hole.end, end: span.end }.of(bytes));
            }
            _ => self.own(span.of(bytes)),
        }
    }

    /// Appends the template to `out` with `text` in every hole.
    pub(super) fn fill(&self, text: &[u8], out: &mut impl BufMut) {
        let mut at = 0;
        for &hole in &self.holes {
            out.put_slice(&self.bytes[at..hole]);
            out.put_slice(text);
            at = hole;
        }
        out.put_slice(&self.bytes[at..]);
    }
}

/// The members that say who answers, without the object's opening brace: `"id":…,"provider":…,"model":…,"object":…`.
pub(super) fn preamble(stamp: &Stamp, object: &str, out: &mut Vec<u8>) {
    let mut members = json::Members::starting(out);
    members.string("id", &stamp.generation_id);
    members.string("provider", &stamp.provider);
    members.string("model", &stamp.model);
    members.string("object", object);
}

fn text(bytes: &[u8], value: Span) -> String {
    let token = Cursor::resume(bytes, value.start).string();
    token.map(|token| token.decode(bytes).into_owned()).unwrap_or_default()
}

/// Older Groq models report usage inside a member of their own.
fn read_groq_usage(x_groq: &[u8], facts: &mut Facts) -> Result<(), ScanError> {
    let mut cursor = Cursor::resume(x_groq, 0);
    let mut object = cursor.enter_object()?;
    while let Some(key) = cursor.next_key(&mut object)? {
        if cursor.kind()? == Kind::Object && key.is(x_groq, "usage") {
            usage::read_openai(&mut cursor, facts)?;
        } else {
            cursor.skip()?;
        }
    }
    Ok(())
}
