//! How much a request is expected to use, or did use.

use serde::{Deserialize, Serialize};

use crate::limit::{Dimension, TokenKind};

/// Amounts of one request: the estimate when reserving, the truth when settling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// 1 for a request that counts as one; 0 gives a request back.
    pub requests: u32,
    /// Tokens of the prompt.
    pub input_tokens: u64,
    /// Tokens of the answer, reasoning included.
    pub output_tokens: u64,
    /// Money in micro-dollars, rounded up from the exact price.
    pub micro_dollars: u64,
    /// Whether the model is free: only then requests per day for free models count.
    pub free: bool,
}

impl Usage {
    /// The amount of a dimension, in the dimension's unit.
    pub fn amount(&self, dimension: Dimension) -> u64 {
        match dimension {
            Dimension::RequestsPerMinute => u64::from(self.requests),
            Dimension::TokensPerMinute(TokenKind::Input) => self.input_tokens,
            Dimension::TokensPerMinute(TokenKind::Output) => self.output_tokens,
            Dimension::TokensPerMinute(TokenKind::Both) => self.input_tokens.saturating_add(self.output_tokens),
            Dimension::Concurrent => 1,
            Dimension::Spend(_) => self.micro_dollars,
            Dimension::FreeRequestsPerDay => u64::from(self.free) * u64::from(self.requests),
        }
    }

    /// Pico-dollars (the ledger's unit) as micro-dollars, rounded **up**: a counter never knows less than was spent.
    pub const fn micro_dollars_from_pico(pico: u128) -> u64 {
        let micro = pico.div_ceil(1_000_000);
        if micro > u64::MAX as u128 { u64::MAX } else { micro as u64 }
    }
}
