//! The `choices` array of an answer or a chunk: what it says, and the few edits it needs.

use smallvec::SmallVec;

use crate::{
    facts::{Facts, FinishReason},
    json,
    scan::{Cursor, Kind, ScanError, Span, StringToken},
    usage::{self, Theirs},
};

/// Whether the caller wants to read the model's thoughts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Reasoning {
    #[default]
    Shown,
    /// Their members are written as null, so that chunks keep flowing while the model thinks.
    Hidden,
}

/// One insertion or replacement, in the order of the document.
#[derive(Debug)]
pub(super) struct Edit {
    pub(super) span: Span,
    pub(super) text: Replacement,
}

#[derive(Debug)]
pub(super) enum Replacement {
    /// Our own bytes.
    Own(Vec<u8>),
    /// Shows the reasoning text under the names callers know: `reasoning`, and `reasoning_details` if there are none. The text is
    /// written as it came, escapes and all.
    Reasoning { text: StringToken, name: bool, details: bool },
}

/// The upstream's own `native_finish_reason`, or where it says that it has none.
struct Native {
    given: Option<StringToken>,
    null: Option<Span>,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Choices {
    reasoning: Reasoning,
    pub(super) count: usize,
    pub(super) edits: SmallVec<[Edit; 2]>,
    /// The only generated text, if there is exactly one piece of it and nothing but text was generated.
    pub(super) text: Option<StringToken>,
    /// Something happened that will not repeat from chunk to chunk: an end, a tool call, usage.
    pub(super) special: bool,
    /// A usage object inside a choice, as Moonshot has it.
    pub(super) usage: Option<(Span, Theirs)>,
}

/// Consumes the array the cursor stands before.
pub(super) fn read(cursor: &mut Cursor<'_>, facts: &mut Facts, reasoning: Reasoning) -> Result<Choices, ScanError> {
    let mut choices = Choices { reasoning, ..Choices::default() };
    if cursor.kind()? != Kind::Array {
        cursor.skip()?;
        return Ok(choices);
    }
    let mut array = cursor.enter_array()?;
    while cursor.next_element(&mut array)? {
        choices.count += 1;
        if cursor.kind()? == Kind::Object {
            choices.read_choice(cursor, facts)?;
        } else {
            cursor.skip()?;
        }
    }
    choices.special |= choices.count != 1;
    Ok(choices)
}

impl Choices {
    fn read_choice(&mut self, cursor: &mut Cursor<'_>, facts: &mut Facts) -> Result<(), ScanError> {
        let bytes = cursor.bytes();
        let mut finish = None;
        let mut native = None;
        let mut no_native = None;
        let mut object = cursor.enter_object()?;
        while let Some(key) = cursor.next_key(&mut object)? {
            let kind = cursor.kind()?;
            match (key.inner.of(bytes), kind) {
                (b"delta" | b"message", Kind::Object) => self.read_message(cursor, facts)?,
                (b"finish_reason", Kind::String) => finish = Some(cursor.string()?),
                (b"native_finish_reason", Kind::String) => native = Some(cursor.string()?),
                (b"native_finish_reason", _) => no_native = Some(cursor.skip()?),
                (b"usage", Kind::Object) => {
                    self.usage = Some(usage::read_openai(cursor, facts)?);
                    self.special = true;
                }
                (b"text", Kind::String) => {
                    let token = cursor.string()?;
                    self.generated(token, facts);
                    self.special = true;
                }
                _ => {
                    cursor.skip()?;
                }
            }
        }
        if let Some(finish) = finish {
            self.special = true;
            self.finish(bytes, finish, &Native { given: native, null: no_native }, facts);
        }
        Ok(())
    }

    fn finish(&mut self, bytes: &[u8], finish: StringToken, native: &Native, facts: &mut Facts) {
        let word = finish.decode(bytes);
        if word.is_empty() {
            // Some vendors write "" for "not yet".
            return;
        }
        let reason = FinishReason::from_native(&word);
        if facts.finish_reason.is_none() {
            facts.finish_reason = Some(reason);
            let native = native.given.map_or(&*word, |token| token.inner.text(bytes));
            facts.native_finish_reason = Some(native.to_owned());
        }
        let raw = finish.outer().of(bytes);
        let mut text = Vec::with_capacity(64);
        json::write_string(&mut text, reason.as_str());
        match native {
            Native { given: Some(_), .. } => {}
            Native { null: Some(span), .. } => {
                self.edits.push(Edit { span: *span, text: Replacement::Own(raw.to_vec()) });
            }
            Native { .. } => {
                text.extend_from_slice(b",\"native_finish_reason\":");
                text.extend_from_slice(raw);
            }
        }
        self.edits.push(Edit { span: finish.outer(), text: Replacement::Own(text) });
    }

    fn read_message(&mut self, cursor: &mut Cursor<'_>, facts: &mut Facts) -> Result<(), ScanError> {
        let bytes = cursor.bytes();
        let mut vendor_reasoning = None;
        let mut reasoning = None;
        let mut details = false;
        let mut object = cursor.enter_object()?;
        while let Some(key) = cursor.next_key(&mut object)? {
            let kind = cursor.kind()?;
            match (key.inner.of(bytes), kind) {
                (b"content" | b"refusal", Kind::String) => {
                    let token = cursor.string()?;
                    self.generated(token, facts);
                }
                (b"reasoning_content", Kind::String) => {
                    let token = cursor.string()?;
                    vendor_reasoning = Some(token);
                }
                (b"reasoning", Kind::String) => {
                    let token = cursor.string()?;
                    reasoning = Some(token);
                }
                (b"reasoning_details", Kind::Array) => {
                    let span = cursor.skip()?;
                    self.hide(span);
                    details |= !is_empty_array(span.of(bytes));
                    facts.content_seen |= details;
                    self.special = true;
                }
                (b"tool_calls", Kind::Array) => {
                    self.special = true;
                    read_tool_calls(cursor, facts)?;
                }
                (b"function_call" | b"audio", Kind::Object) => {
                    let span = cursor.skip()?;
                    facts.content_seen = true;
                    facts.output_bytes += span.len() as u64;
                    self.special = true;
                }
                (b"content" | b"images", Kind::Array) => {
                    let span = cursor.skip()?;
                    if !is_empty_array(span.of(bytes)) {
                        facts.content_seen = true;
                        facts.output_bytes += span.len() as u64;
                    }
                    self.special = true;
                }
                _ => {
                    cursor.skip()?;
                }
            }
        }
        for token in [reasoning, vendor_reasoning].into_iter().flatten() {
            self.hide(token.outer());
        }
        if let Some(token) = reasoning.or(vendor_reasoning)
            && !token.inner.is_empty()
        {
            self.generated(token, facts);
            let name = reasoning.is_none();
            if self.reasoning == Reasoning::Shown && (name || !details) {
                let end = token.outer().end;
                let text = Replacement::Reasoning { text: token, name, details: !details };
                self.edits.push(Edit { span: Span { start: end, end }, text });
            }
        }
        Ok(())
    }

    fn hide(&mut self, span: Span) {
        if self.reasoning == Reasoning::Hidden {
            self.edits.push(Edit { span, text: Replacement::Own(b"null".to_vec()) });
        }
    }

    /// Text, reasoning or a refusal; an empty piece is no token.
    fn generated(&mut self, token: StringToken, facts: &mut Facts) {
        if token.inner.is_empty() {
            return;
        }
        facts.content_seen = true;
        facts.output_bytes += token.inner.len() as u64;
        self.special |= self.text.is_some();
        self.text = Some(token);
    }
}

/// Counts the calls that begin here: in a stream only the first piece of a call carries its function's name.
fn read_tool_calls(cursor: &mut Cursor<'_>, facts: &mut Facts) -> Result<(), ScanError> {
    let bytes = cursor.bytes();
    let mut array = cursor.enter_array()?;
    while cursor.next_element(&mut array)? {
        if cursor.kind()? != Kind::Object {
            cursor.skip()?;
            continue;
        }
        let mut begins = false;
        let mut object = cursor.enter_object()?;
        while let Some(key) = cursor.next_key(&mut object)? {
            let kind = cursor.kind()?;
            let span = cursor.skip()?;
            match key.inner.of(bytes) {
                b"id" => begins |= kind == Kind::String && span.len() > 2,
                b"function" => facts.output_bytes += span.len() as u64,
                _ => {}
            }
        }
        facts.content_seen = true;
        facts.tool_calls += u32::from(begins);
    }
    Ok(())
}

fn is_empty_array(array: &[u8]) -> bool {
    array.iter().all(|byte| matches!(byte, b'[' | b']') || byte.is_ascii_whitespace()) && array.len() < 64
}
