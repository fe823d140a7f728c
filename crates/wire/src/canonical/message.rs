//! Messages and their parts, as the caller wrote them.

use std::borrow::Cow;

use serde::de::{self, Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::text::{JsonStr, Text};
use crate::error::RequestError;

/// One entry of `messages`.
#[derive(Debug, serde::Deserialize)]
pub(crate) struct Message<'a> {
    pub(crate) role: Role,
    #[serde(borrow, default)]
    pub(crate) content: Option<Content<'a>>,
    #[serde(borrow, default)]
    pub(crate) name: Option<JsonStr<'a>>,
    #[serde(borrow, default)]
    pub(crate) tool_calls: Option<Vec<ToolCall<'a>>>,
    #[serde(borrow, default)]
    pub(crate) tool_call_id: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(crate) reasoning_details: Option<Vec<ReasoningDetail<'a>>>,
    #[serde(borrow, default)]
    pub(crate) cache_control: Option<CacheControl<'a>>,
}

impl<'a> Message<'a> {
    /// The texts of a system message that say something; `index` is the message's place in the caller's list.
    pub(crate) fn system_texts(&self, index: usize) -> Result<Vec<CachedText<'_, 'a>>, RequestError> {
        let parts = match &self.content {
            None => return Ok(Vec::new()),
            Some(Content::Text(text)) if text.is_blank() => return Ok(Vec::new()),
            Some(Content::Text(text)) => return Ok(vec![(*text, None)]),
            Some(Content::Parts(parts)) => parts,
        };
        let mut texts = Vec::with_capacity(parts.len());
        for (at, part) in parts.iter().enumerate() {
            let text = part
                .text
                .ok_or_else(|| RequestError::invalid(format!("messages[{index}].content[{at}].type"), "system messages hold text only"))?;
            if !text.is_blank() {
                texts.push((text, part.cache_control.as_ref()));
            }
        }
        Ok(texts)
    }

    /// Whether it says or shows anything.
    pub(crate) fn has_content(&self) -> bool {
        match &self.content {
            None => false,
            Some(Content::Text(text)) => !text.is_blank(),
            Some(Content::Parts(parts)) => parts.iter().any(|part| !part.text.is_some_and(JsonStr::is_blank)),
        }
    }

    /// The tool calls, or an empty list.
    pub(crate) fn tool_calls(&self) -> &[ToolCall<'a>] {
        self.tool_calls.as_deref().unwrap_or_default()
    }

    /// The reasoning blocks the caller echoes, or an empty list.
    pub(crate) fn reasoning_details(&self) -> &[ReasoningDetail<'a>] {
        self.reasoning_details.as_deref().unwrap_or_default()
    }
}

/// A text with its own cache marker.
pub(crate) type CachedText<'m, 'a> = (JsonStr<'a>, Option<&'m CacheControl<'a>>);

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    System,
    Developer,
    User,
    Assistant,
    Tool,
    /// The predecessor of `Tool`; no translation has a use for it.
    Function,
}

impl Role {
    /// Instructions rather than conversation.
    pub(crate) fn is_system(self) -> bool {
        matches!(self, Role::System | Role::Developer)
    }
}

/// A message's content: plain text or a list of parts.
#[derive(Debug)]
pub(crate) enum Content<'a> {
    Text(JsonStr<'a>),
    Parts(Vec<Part<'a>>),
}

impl<'de: 'a, 'a> Deserialize<'de> for Content<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&'a RawValue>::deserialize(deserializer)?;
        if let Some(text) = JsonStr::from_raw(raw) {
            return Ok(Content::Text(text));
        }
        serde_json::from_str(raw.get()).map(Content::Parts).map_err(de::Error::custom)
    }
}

/// One content part. A struct of options rather than a tagged enum, because a tag would make serde buffer the value and
/// lose the borrowed literals.
#[derive(Debug, serde::Deserialize)]
pub(crate) struct Part<'a> {
    #[serde(borrow, rename = "type")]
    pub(crate) kind: Text<'a>,
    #[serde(borrow, default)]
    pub(crate) text: Option<JsonStr<'a>>,
    #[serde(borrow, default)]
    pub(crate) refusal: Option<JsonStr<'a>>,
    #[serde(borrow, default)]
    pub(crate) image_url: Option<Address<'a>>,
    #[serde(borrow, default)]
    pub(crate) video_url: Option<Address<'a>>,
    #[serde(borrow, default)]
    pub(crate) input_audio: Option<Audio<'a>>,
    #[serde(borrow, default)]
    pub(crate) file: Option<File<'a>>,
    #[serde(borrow, default)]
    pub(crate) cache_control: Option<CacheControl<'a>>,
}

/// `{"url": …}`, or the address alone as some clients send it.
#[derive(Debug)]
pub(crate) struct Address<'a> {
    pub(crate) url: Cow<'a, str>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Address<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        struct Object<'a> {
            #[serde(borrow)]
            url: Text<'a>,
        }

        let raw = <&'a RawValue>::deserialize(deserializer)?;
        if let Some(url) = JsonStr::from_raw(raw) {
            return Ok(Address { url: url.decode() });
        }
        let object: Object<'a> = serde_json::from_str(raw.get()).map_err(de::Error::custom)?;
        Ok(Address { url: object.url.0 })
    }
}

/// Recorded speech, base64.
#[derive(Debug, serde::Deserialize)]
pub(crate) struct Audio<'a> {
    #[serde(borrow)]
    pub(crate) data: JsonStr<'a>,
    #[serde(borrow)]
    pub(crate) format: Text<'a>,
}

/// An attached document: inline, by address, or by the upstream's own id.
#[derive(Debug, serde::Deserialize)]
pub(crate) struct File<'a> {
    #[serde(borrow, default)]
    pub(crate) filename: Option<JsonStr<'a>>,
    #[serde(borrow, default, alias = "fileData", alias = "file_url")]
    pub(crate) file_data: Option<Text<'a>>,
    #[serde(borrow, default, alias = "fileId")]
    pub(crate) file_id: Option<JsonStr<'a>>,
}

/// A call that the assistant made earlier.
#[derive(Debug, serde::Deserialize)]
pub(crate) struct ToolCall<'a> {
    #[serde(borrow, default)]
    pub(crate) id: Option<Text<'a>>,
    #[serde(borrow)]
    pub(crate) function: Function<'a>,
}

/// The function half of a [`ToolCall`].
#[derive(Debug, serde::Deserialize)]
pub(crate) struct Function<'a> {
    #[serde(borrow)]
    pub(crate) name: JsonStr<'a>,
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
}

impl Function<'_> {
    /// The arguments as a JSON object. Upstreams other than OpenAI's accept nothing else, yet a model may have produced
    /// broken JSON two turns ago, and refusing would make that conversation unusable: text that is no object is wrapped
    /// as `{"arguments": "…"}`.
    pub(crate) fn arguments_object(&self) -> Cow<'_, str> {
        const EMPTY: Cow<'static, str> = Cow::Borrowed("{}");
        let Some(raw) = self.arguments else {
            return EMPTY;
        };
        let Some(text) = JsonStr::from_raw(raw) else {
            return if raw.get().starts_with('{') { Cow::Borrowed(raw.get()) } else { wrap(raw.get()) };
        };
        let decoded = text.decode();
        let trimmed = decoded.trim();
        if trimmed.is_empty() {
            return EMPTY;
        }
        let is_object = trimmed.starts_with('{') && serde_json::from_str::<&RawValue>(trimmed).is_ok();
        if !is_object {
            return wrap(text.literal());
        }
        match decoded {
            Cow::Borrowed(decoded) => Cow::Borrowed(decoded.trim()),
            Cow::Owned(decoded) => Cow::Owned(decoded),
        }
    }
}

fn wrap(json: &str) -> Cow<'static, str> {
    Cow::Owned(format!("{{\"arguments\":{json}}}"))
}

/// One block of earlier reasoning, echoed by the caller so that the upstream can continue its thought.
#[derive(Debug, serde::Deserialize)]
pub(crate) struct ReasoningDetail<'a> {
    #[serde(borrow, default, rename = "type")]
    pub(crate) kind: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(crate) text: Option<JsonStr<'a>>,
    #[serde(borrow, default)]
    pub(crate) signature: Option<JsonStr<'a>>,
    #[serde(borrow, default)]
    pub(crate) data: Option<JsonStr<'a>>,
    #[serde(borrow, default)]
    pub(crate) id: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(crate) format: Option<Text<'a>>,
    #[serde(default)]
    pub(crate) index: Option<u32>,
}

impl ReasoningDetail<'_> {
    /// Whether the block may be sent to an upstream whose blocks carry `format`. Signatures are worthless elsewhere; an
    /// unmarked block is given the benefit of the doubt.
    pub(crate) fn is_of(&self, format: &str) -> bool {
        match self.format.as_deref() {
            None | Some("unknown") => true,
            Some(own) => own == format,
        }
    }
}

/// A prompt-cache breakpoint.
#[derive(Debug, serde::Deserialize)]
pub(crate) struct CacheControl<'a> {
    #[serde(borrow, default)]
    ttl: Option<Text<'a>>,
}

/// How long a cached prefix is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CacheLifetime {
    /// Not said: the upstream's default, five minutes.
    Default,
    /// `5m`.
    FiveMinutes,
    /// `1h`.
    OneHour,
}

impl CacheControl<'_> {
    /// The lifetime asked for.
    pub(crate) fn lifetime(&self) -> Result<CacheLifetime, RequestError> {
        match self.ttl.as_deref() {
            None => Ok(CacheLifetime::Default),
            Some("5m") => Ok(CacheLifetime::FiveMinutes),
            Some("1h") => Ok(CacheLifetime::OneHour),
            Some(_) => Err(RequestError::invalid("cache_control.ttl", "expected 5m or 1h")),
        }
    }
}

/// The pieces of a `data:` URL whose data is base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DataUrl<'a> {
    /// Media type without parameters; empty when the URL names none.
    pub(crate) media_type: &'a str,
    /// The base64 text. Free of characters that JSON would have to escape.
    pub(crate) data: &'a str,
}

impl<'a> DataUrl<'a> {
    /// Splits `url`; `None` when it is no `data:` URL at all.
    pub(crate) fn parse(url: &'a str) -> Option<Result<DataUrl<'a>, &'static str>> {
        let rest = url.strip_prefix("data:")?;
        Some(Self::parse_rest(rest))
    }

    fn parse_rest(rest: &'a str) -> Result<DataUrl<'a>, &'static str> {
        let (head, data) = rest.split_once(',').ok_or("the data URL has no comma")?;
        let head = head.strip_suffix(";base64").ok_or("the data URL is not base64")?;
        let media_type = head.split(';').next().unwrap_or_default();
        let alphabet = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'-' | b'_');
        if data.is_empty() || !data.bytes().all(alphabet) {
            return Err("the data URL does not hold base64");
        }
        Ok(DataUrl { media_type, data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(json: &str) -> String {
        let source = format!(r#"{{"name":"f","arguments":{json}}}"#);
        let function: Function<'_> = serde_json::from_str(&source).unwrap();
        function.arguments_object().into_owned()
    }

    #[test]
    fn arguments_are_always_an_object() {
        for (given, object) in [
            (r#""{\"b\": 1, \"a\": 2}""#, r#"{"b": 1, "a": 2}"#),
            (r#"" {} ""#, "{}"),
            (r#""""#, "{}"),
            ("null", "{}"),
            (r#"{"a":1}"#, r#"{"a":1}"#),
            (r#""{\"a\":""#, r#"{"arguments":"{\"a\":"}"#),
            (r#""[1]""#, r#"{"arguments":"[1]"}"#),
            ("7", r#"{"arguments":7}"#),
        ] {
            assert_eq!(arguments(given), object, "{given}");
            assert!(serde_json::from_str::<serde_json::Value>(&arguments(given)).unwrap().is_object());
        }
    }

    #[test]
    fn data_urls_are_split_and_checked() {
        let parsed = DataUrl::parse("data:image/png;charset=x;base64,aGk=");
        assert_eq!(parsed, Some(Ok(DataUrl { media_type: "image/png", data: "aGk=" })));
        assert_eq!(DataUrl::parse("data:;base64,aGk=").map(|url| url.map(|url| url.media_type)), Some(Ok("")));
        assert_eq!(DataUrl::parse("https://example.org"), None);
        for broken in ["data:image/png;base64", "data:image/png,abc", "data:image/png;base64,", "data:;base64,a\"b"] {
            assert!(DataUrl::parse(broken).unwrap().is_err(), "{broken}");
        }
    }

    #[test]
    fn foreign_reasoning_is_not_echoed() {
        let detail = |json: &'static str| serde_json::from_str::<ReasoningDetail<'_>>(json).unwrap();
        assert!(detail(r#"{"format":"a"}"#).is_of("a"));
        assert!(!detail(r#"{"format":"b"}"#).is_of("a"));
        assert!(detail(r#"{"format":"unknown"}"#).is_of("a"));
        assert!(detail(r#"{"format":null}"#).is_of("a"));
    }
}
