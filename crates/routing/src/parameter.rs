//! The request parameters an endpoint may or may not support, as one machine word, so that filtering a candidate costs one
//! `and`.

use serde::{Deserialize, Serialize};

/// A set of request parameters by their wire names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ParameterSet(u64);

impl ParameterSet {
    /// No parameter.
    pub const EMPTY: ParameterSet = ParameterSet(0);

    /// Every parameter that has a name here.
    pub const fn all() -> ParameterSet {
        ParameterSet((1 << NAMES.len()) - 1)
    }

    /// The set of one parameter by its wire name; `None` for a name that routing knows nothing about.
    pub fn from_name(name: &str) -> Option<ParameterSet> {
        NAMES.iter().position(|known| *known == name).map(|bit| ParameterSet(1 << bit))
    }

    /// The set of all names that are known; the others are left out.
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> ParameterSet {
        names.into_iter().filter_map(ParameterSet::from_name).fold(ParameterSet::EMPTY, ParameterSet::union)
    }

    /// Both sets together.
    pub const fn union(self, other: ParameterSet) -> ParameterSet {
        ParameterSet(self.0 | other.0)
    }

    /// What is in both.
    pub const fn intersection(self, other: ParameterSet) -> ParameterSet {
        ParameterSet(self.0 & other.0)
    }

    /// Whether every member of `other` is in `self`.
    pub const fn contains(self, other: ParameterSet) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether nothing is in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Members of `self` that `supported` lacks.
    pub const fn missing_from(self, supported: ParameterSet) -> ParameterSet {
        ParameterSet(self.0 & !supported.0)
    }

    /// What an endpoint must support to honour this request: names of the gateway's own are dropped, and names with two
    /// spellings are folded into the one that catalogues list.
    pub fn required(self) -> ParameterSet {
        let mut bits = self.0 & !GATEWAY;
        for (alias, listed) in ALIASES {
            if bits & alias != 0 {
                bits = (bits & !alias) | listed;
            }
        }
        ParameterSet(bits)
    }

    /// What is preferred without being demanded, by reference section 2.4: tools, output format, verbosity.
    pub const fn steering(self) -> ParameterSet {
        ParameterSet(self.0 & STEERING)
    }

    /// Whether tools are part of the request.
    pub const fn has_tools(self) -> bool {
        self.0 & bit("tools") != 0
    }

    /// Wire names of the members.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES.iter().enumerate().filter(move |(bit, _)| self.0 & (1 << bit) != 0).map(|(_, name)| *name)
    }
}

impl std::ops::BitOr for ParameterSet {
    type Output = ParameterSet;

    fn bitor(self, other: ParameterSet) -> ParameterSet {
        self.union(other)
    }
}

const fn bit(name: &str) -> u64 {
    let name = name.as_bytes();
    let mut index = 0;
    while index < NAMES.len() {
        let known = NAMES[index].as_bytes();
        let mut at = 0;
        while at < known.len() && at < name.len() && known[at] == name[at] {
            at += 1;
        }
        if at == known.len() && at == name.len() {
            return 1 << index;
        }
        index += 1;
    }
    panic!("every name used in this file is in the table; checked when compiling");
}

/// Preferred but never demanded. `structured_outputs` travels inside `response_format`, so asking for the latter is enough.
const STEERING: u64 = bit("tools") | bit("response_format") | bit("verbosity");

/// Understood by the gateway itself or without effect on the answer: an endpoint without them still does what was asked.
const GATEWAY: u64 = bit("service_tier")
    | bit("user")
    | bit("metadata")
    | bit("store")
    | bit("stream_options")
    | bit("prompt_cache_key")
    | bit("safety_identifier");

/// Two spellings of one wish.
const ALIASES: [(u64, u64); 3] = [
    (bit("max_completion_tokens"), bit("max_tokens")),
    (bit("include_reasoning"), bit("reasoning")),
    (bit("reasoning_effort"), bit("reasoning")),
];

/// Wire names by bit. Fewer than 64, so that [`ParameterSet::all`] does not overflow.
const NAMES: [&str; 41] = [
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "response_format",
    "structured_outputs",
    "verbosity",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "top_a",
    "seed",
    "stop",
    "logprobs",
    "top_logprobs",
    "logit_bias",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
    "max_tokens",
    "max_completion_tokens",
    "reasoning",
    "include_reasoning",
    "reasoning_effort",
    "prediction",
    "web_search_options",
    "modalities",
    "service_tier",
    "n",
    "audio",
    "image_config",
    "functions",
    "function_call",
    "user",
    "metadata",
    "store",
    "stream_options",
    "prompt_cache_key",
    "safety_identifier",
    "thinking",
    "context_management",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_round_trips() {
        for name in NAMES {
            let set = ParameterSet::from_name(name).unwrap();
            assert_eq!(set.names().collect::<Vec<_>>(), [name]);
            assert!(ParameterSet::all().contains(set));
        }
        assert_eq!(ParameterSet::from_name("messages"), None);
    }

    #[test]
    fn requirements_fold_aliases_and_drop_the_gateways_own() {
        let asked = ParameterSet::from_names(["max_completion_tokens", "user", "seed"]);
        assert_eq!(asked.required(), ParameterSet::from_names(["max_tokens", "seed"]));
    }

    #[test]
    fn steering_is_tools_format_and_verbosity() {
        let asked = ParameterSet::from_names(["tools", "temperature", "response_format", "verbosity"]);
        assert_eq!(asked.steering().names().collect::<Vec<_>>(), ["tools", "response_format", "verbosity"]);
    }
}
