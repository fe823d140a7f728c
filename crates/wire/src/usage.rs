//! Token counts: reading the many spellings of OpenAI's usage object, and writing ours.

use bytes::Bytes;
use smallvec::SmallVec;

use crate::{
    facts::{Closing, Cost, Facts},
    json,
    scan::{Cursor, Kind, ScanError, Span},
};

/// What one generation used. Counts are tokens unless named otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Prompt tokens, cached and cache-written ones included.
    pub prompt_tokens: u64,
    /// Prompt tokens read from a cache.
    pub cached_tokens: u64,
    /// Prompt tokens written to a cache, all lifetimes.
    pub cache_write_tokens: u64,
    /// Of those, with the one-hour lifetime.
    pub cache_write_1h_tokens: u64,
    /// Generated tokens, reasoning included.
    pub completion_tokens: u64,
    /// Of those, reasoning.
    pub reasoning_tokens: u64,
    /// Images generated.
    pub image_count: u64,
    /// Audio tokens, both directions.
    pub audio_tokens: u64,
}

impl Usage {
    /// Prompt and completion.
    pub fn total_tokens(&self) -> u64 {
        self.prompt_tokens.saturating_add(self.completion_tokens)
    }
}

/// An upstream's own usage object, whose members that we do not know survive.
#[derive(Debug, Clone, Default)]
pub(crate) struct RawUsage {
    /// The object's bytes.
    bytes: Bytes,
    theirs: Theirs,
}

/// What an upstream's usage object holds that is not ours to write: key with quotes, and value. Spans count from the object's
/// start, so that they hold in a copy of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Theirs {
    prompt_details: SmallVec<[(Span, Span); 2]>,
    completion_details: SmallVec<[(Span, Span); 3]>,
    /// A vendor's own members, such as queue times.
    others: SmallVec<[(Span, Span); 4]>,
}

impl RawUsage {
    /// `bytes` are those that [`read_openai`] gave `theirs` for.
    pub(crate) fn new(bytes: Bytes, theirs: Theirs) -> Self {
        Self { bytes, theirs }
    }
}

/// Consumes the OpenAI-like usage object the cursor stands before, keeps its counts in the facts, and gives its span and what else
/// is in it. An object without counts changes nothing.
pub(crate) fn read_openai(cursor: &mut Cursor<'_>, facts: &mut Facts) -> Result<(Span, Theirs), ScanError> {
    let (mut counts, mut theirs) = (Raw::default(), Theirs::default());
    let span = parse(cursor, &mut counts, &mut theirs)?;
    if let Some((usage, cost)) = counts.reconcile() {
        facts.usage = Some(usage);
        if cost.is_some() {
            facts.upstream_cost = cost;
        }
    }
    Ok((span, theirs))
}

/// The counts as they were spelled, before they are reconciled.
#[derive(Debug, Default)]
struct Raw {
    prompt: Option<u64>,
    completion: Option<u64>,
    total: Option<u64>,
    cached: Option<u64>,
    cache_write: Option<u64>,
    cache_write_1h: Option<u64>,
    reasoning: Option<u64>,
    audio: u64,
    cost: Option<String>,
}

impl Raw {
    fn reconcile(self) -> Option<(Usage, Option<String>)> {
        let (prompt, completion, total, cost) = (self.prompt, self.completion, self.total, self.cost);
        let prompt_tokens = prompt.or_else(|| total?.checked_sub(completion?))?;
        let mut completion_tokens = completion.or_else(|| total?.checked_sub(prompt_tokens)).unwrap_or(0);
        let reasoning_tokens = self.reasoning.unwrap_or(0);
        // xAI counts reasoning beside the completion; the total tells.
        let beside = prompt_tokens.saturating_add(completion_tokens).saturating_add(reasoning_tokens);
        if reasoning_tokens > 0 && total == Some(beside) {
            completion_tokens += reasoning_tokens;
        }
        let usage = Usage {
            prompt_tokens,
            cached_tokens: self.cached.unwrap_or(0).min(prompt_tokens),
            cache_write_tokens: self.cache_write.unwrap_or(0).min(prompt_tokens),
            cache_write_1h_tokens: self.cache_write_1h.unwrap_or(0).min(self.cache_write.unwrap_or(0)),
            completion_tokens,
            reasoning_tokens: reasoning_tokens.min(completion_tokens),
            image_count: 0,
            audio_tokens: self.audio,
        };
        Some((usage, cost))
    }
}

fn parse(cursor: &mut Cursor<'_>, counts: &mut Raw, theirs: &mut Theirs) -> Result<Span, ScanError> {
    let raw = cursor.bytes();
    cursor.kind()?;
    let start = cursor.position();
    let moved = |span: Span| Span { start: span.start - start, end: span.end - start };
    let mut object = cursor.enter_object()?;
    while let Some(key) = cursor.next_key(&mut object)? {
        let kind = cursor.kind()?;
        let name = key.inner.of(raw);
        match (name, kind) {
            (b"prompt_tokens_details" | b"input_tokens_details", Kind::Object) => {
                let kept = (name[0] == b'p').then_some(&mut theirs.prompt_details);
                let others = details(cursor, kept, moved, |name, number| match name {
                    b"cached_tokens" => counts.cached = number.or(counts.cached),
                    b"cache_write_tokens" | b"cache_creation_tokens" => counts.cache_write = number.or(counts.cache_write),
                    b"cache_write_1h_tokens" => counts.cache_write_1h = number,
                    b"audio_tokens" => counts.audio = counts.audio.saturating_add(number.unwrap_or(0)),
                    _ => {}
                })?;
                if name[0] == b'i' {
                    theirs.others.push((moved(key.outer()), moved(others)));
                }
            }
            (b"completion_tokens_details" | b"output_tokens_details", Kind::Object) => {
                let kept = (name[0] == b'c').then_some(&mut theirs.completion_details);
                let others = details(cursor, kept, moved, |name, number| match name {
                    b"reasoning_tokens" => counts.reasoning = number.or(counts.reasoning),
                    b"audio_tokens" => counts.audio = counts.audio.saturating_add(number.unwrap_or(0)),
                    _ => {}
                })?;
                if name[0] == b'o' {
                    theirs.others.push((moved(key.outer()), moved(others)));
                }
            }
            _ => {
                let span = cursor.skip()?;
                let count = || number(span.of(raw));
                match name {
                    // Written anew.
                    b"prompt_tokens" | b"input_tokens" => counts.prompt = counts.prompt.or(count()),
                    b"completion_tokens" | b"output_tokens" => counts.completion = counts.completion.or(count()),
                    b"total_tokens" => counts.total = count(),
                    b"cost" => {
                        if kind == Kind::Number {
                            counts.cost = Some(span.text(raw).to_owned());
                        }
                    }
                    b"prompt_tokens_details" | b"completion_tokens_details" | b"cost_details" | b"is_byok" => {}
                    _ => {
                        // Spellings of DeepSeek, Moonshot and Anthropic; the standard place wins, whichever comes first.
                        match name {
                            b"prompt_cache_hit_tokens" | b"cached_tokens" | b"cache_read_input_tokens" => {
                                counts.cached = counts.cached.or(count());
                            }
                            b"cache_creation_input_tokens" => counts.cache_write = counts.cache_write.or(count()),
                            b"reasoning_tokens" => counts.reasoning = counts.reasoning.or(count()),
                            _ => {}
                        }
                        theirs.others.push((moved(key.outer()), moved(span)));
                    }
                }
            }
        }
    }
    Ok(Span { start, end: cursor.position() })
}

/// Consumes a details object: hands every member to `visit`, and keeps those that are not written anew and not null.
fn details<const N: usize>(
    cursor: &mut Cursor<'_>,
    mut kept: Option<&mut SmallVec<[(Span, Span); N]>>,
    moved: impl Fn(Span) -> Span,
    mut visit: impl FnMut(&[u8], Option<u64>),
) -> Result<Span, ScanError> {
    let raw = cursor.bytes();
    let start = cursor.position();
    let mut object = cursor.enter_object()?;
    while let Some(key) = cursor.next_key(&mut object)? {
        let kind = cursor.kind()?;
        let span = cursor.skip()?;
        let name = key.inner.of(raw);
        visit(name, number(span.of(raw)));
        let ours = matches!(name, b"cached_tokens" | b"cache_write_tokens" | b"reasoning_tokens");
        if let Some(kept) = kept.as_mut()
            && !ours
            && kind != Kind::Null
        {
            kept.push((moved(key.outer()), moved(span)));
        }
    }
    Ok(Span { start, end: cursor.position() })
}

/// A count; vendors that compute in floats write `12.0`.
fn number(text: &[u8]) -> Option<u64> {
    if !text.first()?.is_ascii_digit() {
        return None;
    }
    let mut value = 0_u64;
    for byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            let number = std::str::from_utf8(text).ok()?.parse::<f64>().ok()?;
            return (0.0..1e15).contains(&number).then_some(number as u64);
        }
        value = value.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    Some(value)
}

/// Writes `,"usage":{…}` and the router metadata member, behind at least one other member. `upstream` is the upstream's own
/// usage object, whose unknown members survive. Nothing is written about usage when nothing is known.
pub(crate) fn write_closing(out: &mut Vec<u8>, usage: Option<&Usage>, upstream: Option<&RawUsage>, closing: &Closing<'_>) {
    let mut members = json::Members::continuing(out);
    if usage.is_some() || closing.cost.is_some() {
        let usage = usage.copied().unwrap_or_default();
        write_usage(members.key("usage"), &usage, upstream, closing.cost.as_ref());
    }
    if let Some(metadata) = closing.metadata.filter(|_| !closing.metadata_field.is_empty()) {
        members.raw(closing.metadata_field, metadata.as_bytes());
    }
}

fn write_usage(out: &mut Vec<u8>, usage: &Usage, upstream: Option<&RawUsage>, cost: Option<&Cost<'_>>) {
    let copy = |out: &mut Vec<u8>, members: &[(Span, Span)]| {
        let Some(upstream) = upstream else { return };
        let mut object = json::Members::continuing(out);
        for (key, value) in members {
            object.copy(key.of(&upstream.bytes), value.of(&upstream.bytes));
        }
    };
    let theirs = upstream.map(|upstream| &upstream.theirs);
    // Every answer passes here, so the fixed text is written in large pieces.
    out.extend_from_slice(b"{\"prompt_tokens\":");
    json::write_integer(out, usage.prompt_tokens);
    out.extend_from_slice(b",\"completion_tokens\":");
    json::write_integer(out, usage.completion_tokens);
    out.extend_from_slice(b",\"total_tokens\":");
    json::write_integer(out, usage.total_tokens());
    if let Some(cost) = cost {
        out.extend_from_slice(b",\"cost\":");
        out.extend_from_slice(cost.total.as_bytes());
        out.extend_from_slice(if cost.is_byok { b",\"is_byok\":true" } else { b",\"is_byok\":false" });
    }
    out.extend_from_slice(b",\"prompt_tokens_details\":{\"cached_tokens\":");
    json::write_integer(out, usage.cached_tokens);
    out.extend_from_slice(b",\"cache_write_tokens\":");
    json::write_integer(out, usage.cache_write_tokens);
    copy(out, theirs.map_or(&[][..], |theirs| &theirs.prompt_details));
    if let Some(cost) = cost {
        out.extend_from_slice(b"},\"cost_details\":{\"upstream_inference_cost\":");
        out.extend_from_slice(cost.upstream.as_bytes());
        out.extend_from_slice(b",\"upstream_inference_prompt_cost\":");
        out.extend_from_slice(cost.upstream_prompt.as_bytes());
        out.extend_from_slice(b",\"upstream_inference_completions_cost\":");
        out.extend_from_slice(cost.upstream_completion.as_bytes());
    }
    out.extend_from_slice(b"},\"completion_tokens_details\":{\"reasoning_tokens\":");
    json::write_integer(out, usage.reasoning_tokens);
    copy(out, theirs.map_or(&[][..], |theirs| &theirs.completion_details));
    out.push(b'}');
    copy(out, theirs.map_or(&[][..], |theirs| &theirs.others));
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_into(json: &[u8], facts: &mut Facts) -> Option<RawUsage> {
        let (span, theirs) = read_openai(&mut Cursor::open(json).unwrap(), facts).ok()?;
        Some(RawUsage::new(Bytes::copy_from_slice(span.of(json)), theirs))
    }

    fn read(json: &str) -> Usage {
        let mut facts = Facts::default();
        read_into(json.as_bytes(), &mut facts);
        facts.usage.unwrap()
    }

    #[test]
    fn every_vendors_spelling_is_understood() {
        let openai = read(
            r#"{"prompt_tokens":100,"completion_tokens":20,"total_tokens":120,
                "prompt_tokens_details":{"cached_tokens":60,"cache_write_tokens":10,"audio_tokens":3},
                "completion_tokens_details":{"reasoning_tokens":7,"audio_tokens":2}}"#,
        );
        assert_eq!(
            openai,
            Usage {
                prompt_tokens: 100,
                cached_tokens: 60,
                cache_write_tokens: 10,
                completion_tokens: 20,
                reasoning_tokens: 7,
                audio_tokens: 5,
                ..Usage::default()
            }
        );
        let deepseek = read(r#"{"prompt_tokens":9,"completion_tokens":1,"prompt_cache_hit_tokens":8,"prompt_cache_miss_tokens":1}"#);
        assert_eq!((deepseek.prompt_tokens, deepseek.cached_tokens), (9, 8));
        let moonshot = read(r#"{"prompt_tokens":9,"completion_tokens":1,"cached_tokens":4}"#);
        assert_eq!(moonshot.cached_tokens, 4);
        let xai =
            read(r#"{"prompt_tokens":9,"completion_tokens":2,"total_tokens":31,"completion_tokens_details":{"reasoning_tokens":20}}"#);
        assert_eq!((xai.completion_tokens, xai.reasoning_tokens), (22, 20));
        let floats = read(r#"{"prompt_tokens":9.0,"completion_tokens":null,"total_tokens":11}"#);
        assert_eq!((floats.prompt_tokens, floats.completion_tokens), (9, 2));
        assert_eq!(read(r#"{"input_tokens":5,"output_tokens":6}"#).total_tokens(), 11);
    }

    #[test]
    fn an_aggregators_cost_is_kept_as_text() {
        let mut facts = Facts::default();
        read_into(br#"{"prompt_tokens":1,"completion_tokens":1,"cost":0.00012}"#, &mut facts);
        assert_eq!(facts.upstream_cost.as_deref(), Some("0.00012"));
        read_into(b"null", &mut facts);
        read_into(b"{}", &mut facts);
        assert!(facts.usage.is_some());
    }

    #[test]
    fn the_written_object_keeps_what_it_does_not_know() {
        let upstream = read_into(br#"{"prompt_tokens":1,"queue_time":0.5,"cost":9,"prompt_tokens_details":{"cached_tokens":1,"text_tokens":4,"audio_tokens":null}}"#, &mut Facts::default());
        let usage = Usage { prompt_tokens: 10, completion_tokens: 5, cached_tokens: 3, ..Usage::default() };
        let cost = Cost { total: "0.1", upstream: "0.09", upstream_prompt: "0.05", upstream_completion: "0.04", is_byok: false };
        let closing = Closing { cost: Some(cost), metadata: Some("{\"attempt\":1}"), metadata_field: "openrouter_metadata" };
        let mut out = b"{\"id\":1".to_vec();
        write_closing(&mut out, Some(&usage), upstream.as_ref(), &closing);
        out.push(b'}');
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(
            value,
            serde_json::json!({
                "id": 1,
                "usage": {
                    "prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "cost": 0.1, "is_byok": false,
                    "prompt_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0, "text_tokens": 4},
                    "cost_details": {
                        "upstream_inference_cost": 0.09,
                        "upstream_inference_prompt_cost": 0.05,
                        "upstream_inference_completions_cost": 0.04
                    },
                    "completion_tokens_details": {"reasoning_tokens": 0},
                    "queue_time": 0.5
                },
                "openrouter_metadata": {"attempt": 1}
            })
        );
    }

    #[test]
    fn nothing_known_writes_nothing() {
        let mut out = Vec::new();
        write_closing(&mut out, None, None, &Closing::default());
        assert!(out.is_empty());
    }
}
