//! Token probabilities.

use bytes::BytesMut;
use serde::Deserialize;

use crate::canonical::{Json, JsonStr};

/// `logprobsResult`: the tokens chosen, and for each the most likely ones.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Logprobs<'a> {
    #[serde(borrow, default)]
    chosen_candidates: Vec<TokenProbability<'a>>,
    #[serde(borrow, default)]
    top_candidates: Vec<Alternatives<'a>>,
}

#[derive(Debug, Deserialize)]
struct Alternatives<'a> {
    #[serde(borrow, default)]
    candidates: Vec<TokenProbability<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TokenProbability<'a> {
    #[serde(borrow, default)]
    token: Option<JsonStr<'a>>,
    #[serde(default)]
    log_probability: f64,
}

impl Logprobs<'_> {
    /// The `logprobs` object in the caller's form; `None` when there are no tokens.
    pub(super) fn to_json(&self) -> Option<BytesMut> {
        if self.chosen_candidates.is_empty() {
            return None;
        }
        let mut out = BytesMut::with_capacity(64 * self.chosen_candidates.len());
        let mut json = Json::new(&mut out);
        json.open_object();
        json.array_at("content");
        for (at, chosen) in self.chosen_candidates.iter().enumerate() {
            json.open_object();
            chosen.write_members(&mut json);
            json.array_at("top_logprobs");
            for other in self.top_candidates.get(at).map_or(&[][..], |top| &top.candidates) {
                json.open_object();
                other.write_members(&mut json);
                json.close_object();
            }
            json.close_array();
            json.close_object();
        }
        json.close_array();
        json.key("refusal");
        json.null();
        json.close_object();
        Some(out)
    }
}

impl TokenProbability<'_> {
    fn write_members(&self, json: &mut Json<'_>) {
        json.key("token");
        match self.token {
            Some(token) => json.literal(token),
            None => json.string(""),
        }
        json.key("logprob");
        json.float(self.log_probability);
        json.key("bytes");
        json.null();
    }
}
