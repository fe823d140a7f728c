//! From used tokens to money, and when nothing is charged at all.

use crate::money::Money;
use crate::price::PriceTable;

/// What one generation used, in the provider's own counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// All prompt tokens: plain, cached, written to the cache and audio.
    pub prompt_tokens: u64,
    /// Prompt tokens read from the provider's cache.
    pub cached_tokens: u64,
    /// Prompt tokens written to the provider's cache, whatever their lifetime.
    pub cache_write_tokens: u64,
    /// Of these, tokens written for one hour.
    pub cache_write_1h_tokens: u64,
    /// All completion tokens, reasoning included.
    pub completion_tokens: u64,
    /// Completion tokens spent on reasoning.
    pub reasoning_tokens: u64,
    /// Images in the prompt.
    pub image_count: u64,
    /// Audio tokens of the prompt.
    pub audio_tokens: u64,
}

/// What one generation cost. `total` is the exact sum of `prompt`, `completion` and `request`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Charge {
    /// All of it.
    pub total: Money,
    /// Prompt tokens, cache reads and writes, images and audio.
    pub prompt: Money,
    /// Completion and reasoning tokens.
    pub completion: Money,
    /// The fee per request.
    pub request: Money,
    /// What caching saved against the plain prompt price; negative when cache writes cost more than reads saved.
    pub cache_discount: Money,
}

/// How a generation ended, as far as billing cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ending {
    /// The provider said that it was done.
    Completed,
    /// Nothing usable came back.
    Failed,
    /// The caller left.
    Cancelled,
    /// The answer broke off after a part of it had been delivered.
    Cut,
}

impl Ending {
    /// Every ending.
    pub const ALL: [Ending; 4] = [Ending::Completed, Ending::Failed, Ending::Cancelled, Ending::Cut];

    /// The word in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Ending::Completed => "completed",
            Ending::Failed => "failed",
            Ending::Cancelled => "cancelled",
            Ending::Cut => "cut",
        }
    }
}

/// What a generation costs, given how it ended.
///
/// Zero-completion insurance: a failed generation, one that ended with finish reason `error`, and one that produced neither a
/// completion token nor a finish reason are free, request fee included. A cancelled or cut one costs what `usage` says was
/// delivered. `finish_reason` is the normalised reason of the provider's answer, `None` when it never gave one.
pub fn charge_for(ending: Ending, finish_reason: Option<&str>, usage: &Usage, prices: &PriceTable, utc_hhmm: u16) -> Charge {
    let insured = match ending {
        Ending::Failed => true,
        Ending::Completed | Ending::Cancelled | Ending::Cut => match finish_reason {
            Some(reason) => reason == "error",
            None => usage.completion_tokens == 0,
        },
    };
    if insured {
        return Charge::default();
    }
    prices.charge(usage, utc_hhmm)
}

impl Charge {
    /// Prices `usage` by a table without overrides.
    pub(crate) fn of(usage: &Usage, table: &PriceTable) -> Charge {
        let parts = PromptParts::of(usage);
        let images = table.image.times(usage.image_count);
        let audio = table.audio.unwrap_or(table.prompt).times(parts.audio);
        let cache_write = table.cache_write.unwrap_or(table.prompt);
        let cached = table.cache_read.unwrap_or(table.prompt).times(parts.cached)
            + cache_write.times(parts.written_5m)
            + table.cache_write_1h.unwrap_or(cache_write).times(parts.written_1h);
        let uncached = table.prompt.times(parts.cached + parts.written_5m + parts.written_1h);
        let plain = table.prompt.times(parts.plain);

        let reasoning = usage.reasoning_tokens.min(usage.completion_tokens);
        let completion =
            table.completion.times(usage.completion_tokens - reasoning) + table.reasoning.unwrap_or(table.completion).times(reasoning);

        // Rounding by the discount happens once per part, so that the parts still add up to the total.
        let prompt = table.discounted(plain + cached + audio + images);
        let completion = table.discounted(completion);
        let request = table.discounted(table.request.times(1));
        Charge {
            total: prompt + completion + request,
            prompt,
            completion,
            request,
            cache_discount: table.discounted(plain + uncached + audio + images) - prompt,
        }
    }
}

/// The prompt split into parts that are priced differently and add up to `prompt_tokens`.
///
/// Providers' numbers are not trusted to be consistent: each part is capped by what the total still has room for, so that no
/// prompt token is charged twice.
struct PromptParts {
    plain: u64,
    cached: u64,
    written_5m: u64,
    written_1h: u64,
    audio: u64,
}

impl PromptParts {
    fn of(usage: &Usage) -> PromptParts {
        let mut rest = usage.prompt_tokens;
        let mut take = |wanted: u64| {
            let taken = wanted.min(rest);
            rest -= taken;
            taken
        };
        let cached = take(usage.cached_tokens);
        let written = take(usage.cache_write_tokens);
        let audio = take(usage.audio_tokens);
        let written_1h = usage.cache_write_1h_tokens.min(written);
        PromptParts { plain: rest, cached, written_5m: written - written_1h, written_1h, audio }
    }
}

#[cfg(test)]
mod tests;
