//! What an endpoint charges, as far as choosing needs to know it. Exact billing lives in the ledger; here prices only have to
//! be compared.

use serde::{Deserialize, Serialize};

/// Prices of one endpoint in pico-dollars (1e-12 USD) per unit: per token, per request, per image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Price {
    /// Per prompt token.
    pub prompt: u64,
    /// Per completion token.
    pub completion: u64,
    /// Per prompt token read from the provider's cache; absent when the provider has no cheaper read.
    pub cache_read: Option<u64>,
    /// Per prompt token written to the provider's cache.
    pub cache_write: Option<u64>,
    /// Per request.
    pub request: u64,
    /// Per input image.
    pub image: u64,
    /// Per audio token.
    pub audio: u64,
}

impl Price {
    /// Pico-dollars that a request of this size is expected to cost.
    pub fn expected(&self, prompt_tokens: u32, output_tokens: u32) -> f64 {
        self.prompt as f64 * f64::from(prompt_tokens) + self.completion as f64 * f64::from(output_tokens) + self.request as f64
    }

    /// Whether coming back to this endpoint with the same prompt is cheaper than going elsewhere.
    pub fn rewards_stickiness(&self) -> bool {
        self.cache_read.is_some_and(|read| read < self.prompt)
    }
}

/// Upper bounds a caller accepts, in the units of [`Price`]. `None` is no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MaxPrice {
    /// Pico-dollars per prompt token.
    pub prompt: Option<u64>,
    /// Pico-dollars per completion token.
    pub completion: Option<u64>,
    /// Pico-dollars per request.
    pub request: Option<u64>,
    /// Pico-dollars per image.
    pub image: Option<u64>,
    /// Pico-dollars per audio token.
    pub audio: Option<u64>,
}

impl MaxPrice {
    /// Name of the first part of `price` that is above its bound.
    pub fn exceeded_by(&self, price: &Price) -> Option<&'static str> {
        let above = |bound: Option<u64>, charged: u64| bound.is_some_and(|bound| charged > bound);
        if above(self.prompt, price.prompt) {
            Some("prompt")
        } else if above(self.completion, price.completion) {
            Some("completion")
        } else if above(self.request, price.request) {
            Some("request")
        } else if above(self.image, price.image) {
            Some("image")
        } else if above(self.audio, price.audio) {
            Some("audio")
        } else {
            None
        }
    }

    /// The lower bound of both, part by part.
    pub fn tightened(self, other: MaxPrice) -> MaxPrice {
        let lower = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (one, None) | (None, one) => one,
        };
        MaxPrice {
            prompt: lower(self.prompt, other.prompt),
            completion: lower(self.completion, other.completion),
            request: lower(self.request, other.request),
            image: lower(self.image, other.image),
            audio: lower(self.audio, other.audio),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expected_price_counts_every_part() {
        let price = Price { prompt: 2, completion: 3, request: 5, ..Price::default() };
        assert_eq!(price.expected(10, 100), 325.0);
    }

    #[test]
    fn a_bound_is_inclusive_and_names_what_broke_it() {
        let bound = MaxPrice { prompt: Some(2), completion: Some(2), ..MaxPrice::default() };
        assert_eq!(bound.exceeded_by(&Price { prompt: 2, completion: 2, ..Price::default() }), None);
        assert_eq!(bound.exceeded_by(&Price { prompt: 1, completion: 3, ..Price::default() }), Some("completion"));
    }
}
