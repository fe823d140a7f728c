//! The API's token counts, which leave cached tokens out of `input_tokens`.

use serde::Deserialize;

use crate::{canonical::Text, facts::Facts, usage::Usage};

/// The `usage` object of an answer or of a stream event. Streams report twice: the input side with the first event and
/// everything, cumulatively, with the last.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Reported<'a> {
    #[serde(default)]
    input_tokens: Option<u64>,
    #[serde(default)]
    cache_creation_input_tokens: Option<u64>,
    #[serde(default)]
    cache_read_input_tokens: Option<u64>,
    #[serde(default)]
    cache_creation: Option<CacheCreation>,
    #[serde(default)]
    output_tokens: Option<u64>,
    #[serde(default)]
    output_tokens_details: Option<OutputDetails>,
    #[serde(borrow, default)]
    service_tier: Option<Text<'a>>,
}

#[derive(Debug, Deserialize)]
struct CacheCreation {
    #[serde(default)]
    ephemeral_5m_input_tokens: Option<u64>,
    #[serde(default)]
    ephemeral_1h_input_tokens: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct OutputDetails {
    #[serde(default, alias = "thinking_tokens")]
    reasoning_tokens: Option<u64>,
}

/// The highest counts reported so far. Counts only grow, so the highest is the last, and a vendor that repeats the input
/// side as zero at the end does no harm.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    input: u64,
    cache_read: u64,
    cache_write_5m: u64,
    cache_write_1h: u64,
    cache_write: u64,
    output: u64,
    reasoning: u64,
}

impl Counts {
    /// Takes in a report and brings `facts` up to date.
    pub(super) fn absorb(&mut self, reported: &Reported<'_>, facts: &mut Facts) {
        let grow = |count: &mut u64, reported: Option<u64>| *count = (*count).max(reported.unwrap_or(0));
        grow(&mut self.input, reported.input_tokens);
        grow(&mut self.cache_read, reported.cache_read_input_tokens);
        grow(&mut self.cache_write, reported.cache_creation_input_tokens);
        if let Some(split) = &reported.cache_creation {
            grow(&mut self.cache_write_5m, split.ephemeral_5m_input_tokens);
            grow(&mut self.cache_write_1h, split.ephemeral_1h_input_tokens);
        }
        grow(&mut self.output, reported.output_tokens);
        grow(&mut self.reasoning, reported.output_tokens_details.as_ref().and_then(|details| details.reasoning_tokens));
        if let Some(tier) = &reported.service_tier {
            // The caller's dialect has another word for the ordinary tier.
            let tier = if &**tier == "standard" { "default" } else { tier };
            facts.service_tier = Some(tier.to_owned());
        }
        facts.usage = Some(self.usage());
    }

    fn usage(&self) -> Usage {
        let split = self.cache_write_5m.saturating_add(self.cache_write_1h);
        let cache_write = self.cache_write.max(split);
        Usage {
            prompt_tokens: self.input.saturating_add(self.cache_read).saturating_add(cache_write),
            cached_tokens: self.cache_read,
            cache_write_tokens: cache_write,
            cache_write_1h_tokens: self.cache_write_1h,
            completion_tokens: self.output,
            reasoning_tokens: self.reasoning.min(self.output),
            ..Usage::default()
        }
    }
}
