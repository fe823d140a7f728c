//! The canonical form between dialects: the caller's chat request as borrowed, typed parts, and the caller's answer as a
//! writer.
//!
//! Only translated calls come here; same-dialect calls are spliced. Parsing borrows from the caller's bytes and keeps text
//! as JSON literals ([`JsonStr`]), schemas as raw values, so that property order and escapes survive and nothing is copied
//! twice. It is typed, not a value tree: what no field names is skipped. Values are not range-checked here, since
//! [`ChatCall::read`] did that.

mod answer;
mod chunk;
mod json;
mod message;
mod output;
mod parameters;
mod reply;
mod text;
mod tools;

use serde::Deserialize;
use serde_json::value::RawValue;

pub(crate) use answer::{Choice, complete};
pub(crate) use chunk::{ChunkWriter, Position};
pub(crate) use json::Json;
pub(crate) use message::{CacheControl, CacheLifetime, CachedText, Content, DataUrl, File, Message, Part, ReasoningDetail, Role, ToolCall};
pub(crate) use output::{NamedSchema, OutputFormat, OutputShape};
pub(crate) use parameters::Parameters;
pub(crate) use reply::{Annotation, Call, Detail, DetailBody, Media, Piece, Source};
pub(crate) use text::{JsonStr, Text};
pub(crate) use tools::{Tool, ToolChoice};

use crate::{
    call::ChatCall,
    error::{ErrorType, RequestError},
    reasoning::{Effort, Thinking},
};

/// The caller's request, as far as a translation can use it. Absent and `null` are the same.
#[derive(Debug, Deserialize)]
pub(crate) struct Request<'a> {
    #[serde(borrow)]
    pub(crate) messages: Vec<Message<'a>>,
    #[serde(borrow, default)]
    pub(crate) tools: Option<Vec<Tool<'a>>>,
    #[serde(borrow, default)]
    tool_choice: Option<&'a RawValue>,
    #[serde(default)]
    pub(crate) parallel_tool_calls: Option<bool>,
    #[serde(borrow, default)]
    pub(crate) response_format: Option<OutputFormat<'a>>,
    #[serde(borrow, default)]
    reasoning: Option<Reasoning<'a>>,
    #[serde(borrow, default)]
    reasoning_effort: Option<Text<'a>>,
    #[serde(default)]
    include_reasoning: Option<bool>,
    #[serde(borrow, default)]
    pub(crate) verbosity: Option<Text<'a>>,
    /// The lower of the two spellings of the output limit, as the call read it; in tokens.
    #[serde(skip)]
    pub(crate) max_output: Option<u32>,
    #[serde(default)]
    pub(crate) temperature: Option<f64>,
    #[serde(default)]
    pub(crate) top_p: Option<f64>,
    #[serde(default)]
    pub(crate) top_k: Option<u64>,
    #[serde(default)]
    pub(crate) min_p: Option<f64>,
    #[serde(default)]
    pub(crate) top_a: Option<f64>,
    #[serde(default)]
    pub(crate) frequency_penalty: Option<f64>,
    #[serde(default)]
    pub(crate) presence_penalty: Option<f64>,
    #[serde(default)]
    pub(crate) repetition_penalty: Option<f64>,
    #[serde(default)]
    pub(crate) seed: Option<i64>,
    #[serde(borrow, default)]
    stop: Option<&'a RawValue>,
    #[serde(default)]
    pub(crate) n: Option<u64>,
    #[serde(default)]
    pub(crate) logprobs: Option<bool>,
    #[serde(default)]
    pub(crate) top_logprobs: Option<u32>,
    #[serde(borrow, default)]
    pub(crate) logit_bias: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) modalities: Option<Vec<Text<'a>>>,
    #[serde(borrow, default)]
    pub(crate) image_config: Option<ImageConfig<'a>>,
    #[serde(borrow, default)]
    pub(crate) prediction: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) web_search_options: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) service_tier: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(crate) cache_control: Option<CacheControl<'a>>,
    /// Gemini's own filter thresholds, passed on as they are.
    #[serde(borrow, default, alias = "safetySettings")]
    pub(crate) safety_settings: Option<&'a RawValue>,
    /// Gemini's explicit cache entry, passed on as it is.
    #[serde(borrow, default, alias = "cachedContent")]
    pub(crate) cached_content: Option<JsonStr<'a>>,
}

/// The `reasoning` object.
#[derive(Debug, Deserialize)]
struct Reasoning<'a> {
    #[serde(borrow, default)]
    effort: Option<Text<'a>>,
    #[serde(default)]
    max_tokens: Option<u64>,
    #[serde(default)]
    enabled: Option<bool>,
    #[serde(default)]
    exclude: Option<bool>,
}

/// The `image_config` members that have a counterpart elsewhere.
#[derive(Debug, Deserialize)]
pub(crate) struct ImageConfig<'a> {
    #[serde(borrow, default)]
    pub(crate) aspect_ratio: Option<JsonStr<'a>>,
    #[serde(borrow, default)]
    pub(crate) image_size: Option<JsonStr<'a>>,
}

impl<'a> Request<'a> {
    /// Parses what `call` has checked, one level deeper.
    pub(crate) fn parse(call: &'a ChatCall) -> Result<Request<'a>, RequestError> {
        let mut request: Request<'a> = serde_json::from_slice(call.body()).map_err(|error| {
            // The place only, not serde's text: that quotes values, which may be prompts.
            let (line, column) = (error.line(), error.column());
            RequestError::of(
                ErrorType::InvalidRequest,
                format!("a value does not have the type that a chat completion gives it, at line {line}, column {column}"),
            )
        })?;
        if let Some(index) = request.messages.iter().position(|message| message.role == Role::Function) {
            return Err(RequestError::invalid(
                format!("messages[{index}].role"),
                "this model needs the role tool with a tool_call_id instead of function",
            ));
        }
        request.max_output = call.max_output();
        Ok(request)
    }

    /// How hard to think, from whichever spelling was used; the object wins over the shorthand.
    pub(crate) fn thinking(&self) -> Result<Thinking, RequestError> {
        if let Some(reasoning) = &self.reasoning {
            if reasoning.enabled == Some(false) {
                return Ok(Thinking::Off);
            }
            if let Some(budget) = reasoning.max_tokens {
                let budget = u32::try_from(budget).unwrap_or(u32::MAX);
                return Ok(if budget == 0 { Thinking::Off } else { Thinking::Budget(budget) });
            }
            if let Some(effort) = &reasoning.effort {
                return parse_effort("reasoning.effort", effort);
            }
            if reasoning.enabled == Some(true) {
                return Ok(Thinking::Effort(Effort::Medium));
            }
        }
        match &self.reasoning_effort {
            Some(effort) => parse_effort("reasoning_effort", effort),
            None => Ok(Thinking::Unset),
        }
    }

    /// Whether the caller wants thoughts left out of the answer.
    pub(crate) fn hides_reasoning(&self) -> bool {
        match self.reasoning.as_ref().and_then(|reasoning| reasoning.exclude) {
            Some(exclude) => exclude,
            None => self.include_reasoning == Some(false),
        }
    }

    /// Which tools may or must be called.
    pub(crate) fn tool_choice(&self) -> Result<Option<ToolChoice<'a>>, RequestError> {
        self.tool_choice.map(ToolChoice::parse).transpose()
    }

    /// The stop sequences, whether one or a list was given.
    pub(crate) fn stop(&self) -> Result<Vec<JsonStr<'a>>, RequestError> {
        let Some(raw) = self.stop else {
            return Ok(Vec::new());
        };
        match JsonStr::from_raw(raw) {
            Some(one) => Ok(vec![one]),
            None => serde_json::from_str(raw.get()).map_err(|_| RequestError::invalid("stop", "expected a string or a list of strings")),
        }
    }

    /// System and developer messages, wherever they stand. When there is nothing else, there are none: a model must be
    /// given something to answer, so they are then treated as the user's words.
    pub(crate) fn system(&self) -> impl Iterator<Item = (usize, &Message<'a>)> {
        let lonely = self.is_only_system();
        self.messages.iter().enumerate().filter(move |(_, message)| !lonely && message.role.is_system())
    }

    /// Whether [`Request::system`] has anything to say.
    pub(crate) fn has_system(&self) -> bool {
        self.system().any(|(_, message)| message.has_content())
    }

    /// Everything that is not system text, with its place in the caller's list.
    pub(crate) fn turns(&self) -> impl Iterator<Item = (usize, &Message<'a>)> {
        let lonely = self.is_only_system();
        self.messages.iter().enumerate().filter(move |(_, message)| lonely || !message.role.is_system())
    }

    fn is_only_system(&self) -> bool {
        self.messages.iter().all(|message| message.role.is_system())
    }
}

fn parse_effort(param: &str, name: &str) -> Result<Thinking, RequestError> {
    match Effort::parse(name) {
        Some(Effort::None) => Ok(Thinking::Off),
        Some(effort) => Ok(Thinking::Effort(effort)),
        None => Err(RequestError::invalid(param, "expected max, xhigh, high, medium, low, minimal or none")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::ReadLimits;

    fn call(members: &str) -> ChatCall {
        let body = format!(r#"{{"messages":[{{"role":"user","content":"x"}}]{members}}}"#);
        ChatCall::read(body.into(), &ReadLimits::default()).unwrap()
    }

    #[test]
    fn the_spellings_of_reasoning_fold_together() {
        for (members, thinking) in [
            ("", Thinking::Unset),
            (r#","reasoning":{}"#, Thinking::Unset),
            (r#","reasoning":{"enabled":true}"#, Thinking::Effort(Effort::Medium)),
            (r#","reasoning":{"enabled":false,"effort":"high"}"#, Thinking::Off),
            (r#","reasoning":{"effort":"none"}"#, Thinking::Off),
            (r#","reasoning":{"max_tokens":2000}"#, Thinking::Budget(2000)),
            (r#","reasoning_effort":"xhigh""#, Thinking::Effort(Effort::Xhigh)),
            (r#","reasoning":{"effort":"low"},"reasoning_effort":"high""#, Thinking::Effort(Effort::Low)),
        ] {
            assert_eq!(Request::parse(&call(members)).unwrap().thinking().unwrap(), thinking, "{members}");
        }
    }

    #[test]
    fn reasoning_is_hidden_by_either_word() {
        for (members, hidden) in [
            ("", false),
            (r#","reasoning":{"exclude":true}"#, true),
            (r#","include_reasoning":false"#, true),
            (r#","include_reasoning":false,"reasoning":{"exclude":false}"#, false),
        ] {
            assert_eq!(Request::parse(&call(members)).unwrap().hides_reasoning(), hidden, "{members}");
        }
    }

    #[test]
    fn a_wrong_type_is_placed_but_not_quoted() {
        let body = r#"{"messages":[{"role":"user","content":{"secret":1}}]}"#;
        if let Ok(call) = ChatCall::read(body.into(), &ReadLimits::default()) {
            let error = Request::parse(&call).unwrap_err();
            assert_eq!(error.status, 400);
            assert!(!error.message.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_lone_system_message_becomes_the_turn() {
        let body = r#"{"messages":[{"role":"system","content":"a"},{"role":"developer","content":"b"}]}"#;
        let call = ChatCall::read(body.into(), &ReadLimits::default()).unwrap();
        let request = Request::parse(&call).unwrap();
        assert_eq!((request.system().count(), request.turns().count()), (0, 2));
    }
}
