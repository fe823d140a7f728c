//! Token counts: reading the many spellings of OpenAI's usage object, and writing ours.

use smallvec::SmallVec;

use crate::{
    facts::{Closing, Cost, Facts},
    json,
    scan::{Cursor, Kind, ScanError, Span, StringToken},
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

/// Members of an upstream usage object that are written anew and therefore not copied.
const REWRITTEN: [&[u8]; 10] = [
    b"prompt_tokens",
    b"completion_tokens",
    b"total_tokens",
    b"prompt_tokens_details",
    b"completion_tokens_details",
    b"cost",
    b"cost_details",
    b"is_byok",
    b"input_tokens",
    b"output_tokens",
];

/// Reads an OpenAI-like usage object into the facts. Anything that is not such an object changes nothing.
pub(crate) fn read_openai(raw: &[u8], facts: &mut Facts) {
    if let Ok(Some((usage, cost))) = parse(raw) {
        facts.usage = Some(usage);
        if cost.is_some() {
            facts.upstream_cost = cost;
        }
    }
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

type Reading = Option<(Usage, Option<String>)>;

fn parse(raw: &[u8]) -> Result<Reading, ScanError> {
    let mut counts = Raw::default();
    members(raw, |key, kind, span| {
        let count = || number(span.of(raw));
        match key.inner.of(raw) {
            b"prompt_tokens" | b"input_tokens" => counts.prompt = counts.prompt.or(count()),
            b"completion_tokens" | b"output_tokens" => counts.completion = counts.completion.or(count()),
            b"total_tokens" => counts.total = count(),
            // Spellings of DeepSeek, Moonshot and Anthropic; the standard place wins, whichever comes first.
            b"prompt_cache_hit_tokens" | b"cached_tokens" | b"cache_read_input_tokens" => {
                counts.cached = counts.cached.or(count());
            }
            b"cache_creation_input_tokens" => counts.cache_write = counts.cache_write.or(count()),
            b"reasoning_tokens" => counts.reasoning = counts.reasoning.or(count()),
            b"cost" if kind == Kind::Number => counts.cost = Some(span.text(raw).to_owned()),
            b"prompt_tokens_details" | b"input_tokens_details" if kind == Kind::Object => {
                let details = span.of(raw);
                members(details, |key, _, span| {
                    let number = number(span.of(details));
                    match key.inner.of(details) {
                        b"cached_tokens" => counts.cached = number.or(counts.cached),
                        b"cache_write_tokens" | b"cache_creation_tokens" => counts.cache_write = number.or(counts.cache_write),
                        b"cache_write_1h_tokens" => counts.cache_write_1h = number,
                        b"audio_tokens" => counts.audio = counts.audio.saturating_add(number.unwrap_or(0)),
                        _ => {}
                    }
                    Ok(())
                })?;
            }
            b"completion_tokens_details" | b"output_tokens_details" if kind == Kind::Object => {
                let details = span.of(raw);
                members(details, |key, _, span| {
                    let number = number(span.of(details));
                    match key.inner.of(details) {
                        b"reasoning_tokens" => counts.reasoning = number.or(counts.reasoning),
                        b"audio_tokens" => counts.audio = counts.audio.saturating_add(number.unwrap_or(0)),
                        _ => {}
                    }
                    Ok(())
                })?;
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok(counts.reconcile())
}

/// A count; vendors that compute in floats write `12.0`.
fn number(text: &[u8]) -> Option<u64> {
    if !text.first()?.is_ascii_digit() {
        return None;
    }
    let text = std::str::from_utf8(text).ok()?;
    text.parse().ok().or_else(|| text.parse::<f64>().ok().filter(|number| (0.0..1e15).contains(number)).map(|n| n as u64))
}

fn members(object: &[u8], mut visit: impl FnMut(StringToken, Kind, Span) -> Result<(), ScanError>) -> Result<(), ScanError> {
    let mut cursor = Cursor::resume(object, 0);
    let mut pull = cursor.enter_object()?;
    while let Some(key) = cursor.next_key(&mut pull)? {
        let kind = cursor.kind()?;
        visit(key, kind, cursor.skip()?)?;
    }
    Ok(())
}

/// Writes `,"usage":{…}` and the router metadata member, behind at least one other member. `upstream` is the upstream's own
/// usage object, whose unknown members survive. Nothing is written about usage when nothing is known.
pub(crate) fn write_closing(out: &mut Vec<u8>, usage: Option<&Usage>, upstream: Option<&[u8]>, closing: &Closing<'_>) {
    let mut members = json::Members::continuing(out);
    if usage.is_some() || closing.cost.is_some() {
        let usage = usage.copied().unwrap_or_default();
        write_usage(members.key("usage"), &usage, upstream.unwrap_or(b"{}"), closing.cost.as_ref());
    }
    if let Some(metadata) = closing.metadata.filter(|_| !closing.metadata_field.is_empty()) {
        members.raw(closing.metadata_field, metadata.as_bytes());
    }
}

fn write_usage(out: &mut Vec<u8>, usage: &Usage, upstream: &[u8], cost: Option<&Cost<'_>>) {
    let theirs = Theirs::find(upstream);
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
    copy_others(out, theirs.prompt_details.of(upstream), &[b"cached_tokens", b"cache_write_tokens"]);
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
    copy_others(out, theirs.completion_details.of(upstream), &[b"reasoning_tokens"]);
    out.push(b'}');
    let mut object = json::Members::continuing(out);
    for (key, value) in theirs.others {
        object.copy(key.of(upstream), value.of(upstream));
    }
    out.push(b'}');
}

/// Where an upstream's usage object has what is not ours to write.
#[derive(Default)]
struct Theirs {
    prompt_details: Span,
    completion_details: Span,
    /// A vendor's own members, such as queue times: key with quotes, and value.
    others: SmallVec<[(Span, Span); 4]>,
}

impl Theirs {
    fn find(upstream: &[u8]) -> Self {
        let mut theirs = Self::default();
        // The object was accepted by the scanner before; should it not be one, there is nothing of theirs.
        let _ = members(upstream, |key, kind, value| {
            match key.inner.of(upstream) {
                b"prompt_tokens_details" if kind == Kind::Object => theirs.prompt_details = value,
                b"completion_tokens_details" if kind == Kind::Object => theirs.completion_details = value,
                name if REWRITTEN.contains(&name) => {}
                _ => theirs.others.push((key.outer(), value)),
            }
            Ok(())
        });
        theirs
    }
}

/// Copies the members of a details object that are not null and not among the `known`, each with a leading comma.
fn copy_others(out: &mut Vec<u8>, details: &[u8], known: &[&[u8]]) {
    if details.is_empty() {
        return;
    }
    let mut copied = json::Members::continuing(out);
    let _ = members(details, |key, kind, value| {
        if kind != Kind::Null && !known.contains(&key.inner.of(details)) {
            copied.copy(key.outer().of(details), value.of(details));
        }
        Ok(())
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Usage {
        let mut facts = Facts::default();
        read_openai(json.as_bytes(), &mut facts);
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
        read_openai(br#"{"prompt_tokens":1,"completion_tokens":1,"cost":0.00012}"#, &mut facts);
        assert_eq!(facts.upstream_cost.as_deref(), Some("0.00012"));
        read_openai(b"null", &mut facts);
        read_openai(b"{}", &mut facts);
        assert!(facts.usage.is_some());
    }

    #[test]
    fn the_written_object_keeps_what_it_does_not_know() {
        let upstream = br#"{"prompt_tokens":1,"queue_time":0.5,"cost":9,"prompt_tokens_details":{"cached_tokens":1,"text_tokens":4,"audio_tokens":null}}"#;
        let usage = Usage { prompt_tokens: 10, completion_tokens: 5, cached_tokens: 3, ..Usage::default() };
        let cost = Cost { total: "0.1", upstream: "0.09", upstream_prompt: "0.05", upstream_completion: "0.04", is_byok: false };
        let closing = Closing { cost: Some(cost), metadata: Some("{\"attempt\":1}"), metadata_field: "openrouter_metadata" };
        let mut out = b"{\"id\":1".to_vec();
        write_closing(&mut out, Some(&usage), Some(upstream), &closing);
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
