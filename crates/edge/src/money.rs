//! Exact money as the decimal text that goes into answers.

use tidegate_ledger::DecimalText;
use tidegate_wire::Cost;

use crate::bill::Bill;

/// The amounts of one answer, as JSON number texts.
pub(crate) struct CostText {
    total: DecimalText,
    upstream: DecimalText,
    prompt: DecimalText,
    completion: DecimalText,
    own_key: bool,
}

impl CostText {
    pub(crate) fn of(bill: &Bill) -> Self {
        let charge = &bill.charge;
        Self {
            total: bill.toll.charged.text(),
            upstream: bill.upstream.text(),
            prompt: charge.prompt.text(),
            completion: charge.completion.text(),
            own_key: bill.own_key,
        }
    }

    pub(crate) fn as_cost(&self) -> Cost<'_> {
        Cost {
            total: self.total.as_str(),
            upstream: self.upstream.as_str(),
            upstream_prompt: self.prompt.as_str(),
            upstream_completion: self.completion.as_str(),
            is_byok: self.own_key,
        }
    }
}

/// An estimate in the wire's words.
pub(crate) fn wire_usage(usage: &tidegate_ledger::Usage) -> tidegate_wire::Usage {
    tidegate_wire::Usage {
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
