//! The top-level request fields this gateway knows by name, and how each is treated on its way upstream.

/// How a field travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Treatment {
    /// Handled one by one by every encoder.
    Core,
    /// Addressed to the gateway: removed, unless the upstream is a gateway itself.
    Gateway,
    /// One of the spellings of "how hard to think".
    Reasoning,
    /// Sent if the endpoint supports it, else dropped and reported.
    Parameter,
    /// Known for its own facts, otherwise forwarded like an unknown field.
    Extra,
}

macro_rules! fields {
    ($($variant:ident $name:literal $treatment:ident,)*) => {
        /// A known top-level field.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Field { $($variant,)* }

        /// By length and then by name, for the binary search.
        const TABLE: &[(Field, &str, Treatment)] = &[$((Field::$variant, $name, Treatment::$treatment),)*];
    };
}

fields! {
    N "n" Extra,
    Seed "seed" Parameter,
    Stop "stop" Parameter,
    User "user" Core,
    Audio "audio" Extra,
    Debug "debug" Gateway,
    MinP "min_p" Parameter,
    Model "model" Core,
    Route "route" Gateway,
    Store "store" Extra,
    Tools "tools" Parameter,
    TopA "top_a" Parameter,
    TopK "top_k" Parameter,
    TopP "top_p" Parameter,
    Trace "trace" Gateway,
    Usage "usage" Gateway,
    Models "models" Gateway,
    Preset "preset" Gateway,
    Stream "stream" Core,
    Plugins "plugins" Gateway,
    Logprobs "logprobs" Parameter,
    Messages "messages" Core,
    Metadata "metadata" Extra,
    Provider "provider" Gateway,
    Functions "functions" Extra,
    Reasoning "reasoning" Reasoning,
    Verbosity "verbosity" Parameter,
    LogitBias "logit_bias" Parameter,
    MaxTokens "max_tokens" Core,
    Modalities "modalities" Parameter,
    Prediction "prediction" Parameter,
    SessionId "session_id" Gateway,
    Transforms "transforms" Gateway,
    Temperature "temperature" Parameter,
    ToolChoice "tool_choice" Parameter,
    ImageConfig "image_config" Extra,
    ServiceTier "service_tier" Extra,
    TopLogprobs "top_logprobs" Parameter,
    CacheControl "cache_control" Gateway,
    FunctionCall "function_call" Extra,
    MaxToolCalls "max_tool_calls" Gateway,
    StreamOptions "stream_options" Core,
    ResponseFormat "response_format" Parameter,
    XSearchFilter "x_search_filter" Extra,
    PresencePenalty "presence_penalty" Parameter,
    PromptCacheKey "prompt_cache_key" Extra,
    ReasoningEffort "reasoning_effort" Reasoning,
    FrequencyPenalty "frequency_penalty" Parameter,
    IncludeReasoning "include_reasoning" Reasoning,
    SafetyIdentifier "safety_identifier" Extra,
    RepetitionPenalty "repetition_penalty" Parameter,
    StructuredOutputs "structured_outputs" Parameter,
    WebSearchOptions "web_search_options" Parameter,
    ParallelToolCalls "parallel_tool_calls" Parameter,
    PromptCacheOptions "prompt_cache_options" Gateway,
    MaxCompletionTokens "max_completion_tokens" Core,
    PromptCacheRetention "prompt_cache_retention" Extra,
    StopServerToolsWhen "stop_server_tools_when" Gateway,
}

impl Field {
    pub(crate) fn from_name(name: &[u8]) -> Option<Self> {
        TABLE
            .binary_search_by(|(_, known, _)| known.len().cmp(&name.len()).then_with(|| known.as_bytes().cmp(name)))
            .ok()
            .map(|index| TABLE[index].0)
    }

    pub(crate) fn name(self) -> &'static str {
        TABLE[self as usize].1
    }

    pub(crate) fn treatment(self) -> Treatment {
        TABLE[self as usize].2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_for_its_search() {
        assert!(TABLE.is_sorted_by_key(|(_, name, _)| (name.len(), *name)));
        for (index, &(field, name, _)) in TABLE.iter().enumerate() {
            assert_eq!(field as usize, index);
            assert_eq!(Field::from_name(name.as_bytes()), Some(field));
        }
        assert_eq!(Field::from_name(b"mode"), None);
    }
}
