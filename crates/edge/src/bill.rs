//! What an answer cost, and what its caller is charged: for answers that end, and for those that a crash may end at any moment.

use tidegate_ledger::{Charge, Ending, Fee, Money, Toll, Usage, charge_for};
use tidegate_wire::Facts;

use crate::state::Target;

/// The money of one answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bill {
    pub(crate) usage: Usage,
    pub(crate) charge: Charge,
    /// What the caller is charged, and the part of it that is a fee.
    pub(crate) toll: Toll,
    /// What the provider says that it charges, where it says so; else the list price.
    pub(crate) upstream: Money,
    pub(crate) estimated: bool,
    /// Served by the caller's own account at the provider.
    pub(crate) own_key: bool,
}

/// What was delivered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Delivered<'a> {
    /// As the provider counted.
    pub(crate) reported: Option<Usage>,
    /// Bytes of text, reasoning and tool arguments.
    pub(crate) output_bytes: u64,
    pub(crate) content_seen: bool,
    /// Normalised reason to stop, if the provider gave one.
    pub(crate) finish_reason: Option<&'a str>,
    /// As the provider told.
    pub(crate) upstream_cost: Option<&'a str>,
    /// Our own estimate of the prompt.
    pub(crate) prompt_tokens: u32,
}

impl<'a> Delivered<'a> {
    pub(crate) fn of(facts: &'a Facts, prompt_tokens: u32) -> Self {
        Self {
            reported: facts.usage.as_ref().map(ledger_usage),
            output_bytes: facts.output_bytes,
            content_seen: facts.content_seen,
            finish_reason: facts.finish_reason.map(|reason| reason.as_str()),
            upstream_cost: facts.upstream_cost.as_deref(),
            prompt_tokens,
        }
    }

    /// Tokens, and whether they are an estimate. A provider that reports no usage is billed by what went over the wire; one that reports
    /// it only at the end has, when it never came to that, delivered at least what went over the wire.
    fn usage(&self) -> (Usage, bool) {
        let by_bytes = self.output_bytes.div_ceil(BYTES_PER_TOKEN);
        match self.reported {
            Some(usage) if self.finish_reason.is_some() || usage.completion_tokens >= by_bytes => (usage, false),
            Some(usage) => (Usage { completion_tokens: by_bytes, ..usage }, true),
            None if self.content_seen => {
                let prompt_tokens = u64::from(self.prompt_tokens);
                (Usage { prompt_tokens, completion_tokens: by_bytes, ..Usage::default() }, true)
            }
            None => (Usage::default(), true),
        }
    }
}

impl Bill {
    /// Prices what was delivered. Without a `target` nothing was, and nothing is charged.
    pub(crate) fn of(ending: Ending, delivered: &Delivered<'_>, target: Option<&Target>, own_key: bool, fee: Fee, utc_hhmm: u16) -> Self {
        let (usage, estimated) = delivered.usage();
        let charge = target.map(|target| charge_for(ending, delivered.finish_reason, &usage, &target.prices, utc_hhmm)).unwrap_or_default();
        let told = delivered.upstream_cost.filter(|_| target.is_some()).and_then(|cost| Money::parse_usd(cost).ok());
        Self { usage, charge, toll: fee.on(&charge, own_key), upstream: told.unwrap_or(charge.total), estimated, own_key }
    }
}

fn ledger_usage(usage: &tidegate_wire::Usage) -> Usage {
    Usage {
        prompt_tokens: usage.prompt_tokens,
        cached_tokens: usage.cached_tokens,
        cache_write_tokens: usage.cache_write_tokens,
        cache_write_1h_tokens: usage.cache_write_1h_tokens,
        completion_tokens: usage.completion_tokens,
        reasoning_tokens: usage.reasoning_tokens,
        image_count: usage.image_count,
        audio_tokens: usage.audio_tokens,
    }
}

/// Bytes of output per token where the provider does not count: English text at the usual tokenizers.
const BYTES_PER_TOKEN: u64 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn delivered(reported: Option<Usage>, output_bytes: u64, finish_reason: Option<&str>) -> Delivered<'_> {
        Delivered { reported, output_bytes, content_seen: output_bytes > 0, finish_reason, upstream_cost: None, prompt_tokens: 7 }
    }

    #[test]
    fn a_broken_answer_counts_what_went_over_the_wire() {
        let begun = Usage { prompt_tokens: 50, completion_tokens: 1, ..Usage::default() };
        let (usage, estimated) = delivered(Some(begun), 41, None).usage();
        assert_eq!((usage.prompt_tokens, usage.completion_tokens, estimated), (50, 11, true), "only the beginning was reported");
        let whole = Usage { completion_tokens: 4, ..begun };
        assert_eq!(delivered(Some(whole), 41, Some("stop")).usage(), (whole, false), "a finished answer is as the provider counted");
        assert_eq!(delivered(None, 41, None).usage().0, Usage { prompt_tokens: 7, completion_tokens: 11, ..Usage::default() });
        assert_eq!(delivered(None, 0, None).usage(), (Usage::default(), true));
    }
}
