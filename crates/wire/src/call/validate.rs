//! Checks the known fields against the ranges of the public API, and keeps what they say.

use super::{Member, ReadLimits, RequestFacts, ResponseFormat, Text};
use crate::{
    error::{ErrorType, RequestError},
    field::Field,
    scan::{Cursor, Kind, Members, ScanError, Span, StringToken},
};

/// Longest `session_id` in characters.
const MAX_SESSION_ID: usize = 256;
/// Longest other short string (model names, users, cache keys) in bytes.
const MAX_SHORT_STRING: usize = 2048;
const MAX_STOPS: usize = 4;
const MAX_METADATA_PAIRS: usize = 16;
const MAX_METADATA_KEY: usize = 64;
const MAX_METADATA_VALUE: usize = 512;

pub(super) fn read_facts(body: &[u8], members: &[Member], limits: &ReadLimits) -> Result<RequestFacts, RequestError> {
    let mut facts = RequestFacts::default();
    for member in members {
        if member.kind == Kind::Null {
            continue;
        }
        if let Some(field) = member.field {
            Value { body, field, span: member.value, kind: member.kind }.read(&mut facts, limits)?;
        }
    }
    Ok(facts)
}

/// One known field with its value, inside a body that is known to be well-formed.
#[derive(Clone, Copy)]
struct Value<'a> {
    body: &'a [u8],
    field: Field,
    span: Span,
    kind: Kind,
}

impl<'a> Value<'a> {
    fn read(self, facts: &mut RequestFacts, limits: &ReadLimits) -> Result<(), RequestError> {
        match self.field {
            Field::Model => facts.model = Some(self.short_string()?),
            Field::Models => facts.models = self.strings(limits.max_models)?,
            Field::Stream => facts.stream = self.boolean()?,
            Field::StreamOptions => facts.wants_usage |= self.flag("include_usage")?,
            Field::Usage => facts.wants_usage |= self.flag("include")?,
            Field::Preset => facts.preset = Some(self.short_string()?),
            Field::SessionId => {
                let text = self.short_string()?;
                if text.get(self.body).chars().count() > MAX_SESSION_ID {
                    return Err(self.too_long(format!("`session_id` is longer than {MAX_SESSION_ID} characters")));
                }
                facts.session_id = Some(text);
            }
            Field::PromptCacheKey => facts.prompt_cache_key = Some(self.short_string()?),
            Field::User => facts.user = Some(self.short_string()?),
            Field::ServiceTier => facts.service_tier = Some(self.short_string()?),
            Field::Route => {
                let route = self.short_string()?;
                if !matches!(route.get(self.body), "fallback" | "sort") {
                    return Err(self.invalid("must be `fallback` or `sort`"));
                }
                facts.route = Some(route);
            }
            Field::MaxTokens | Field::MaxCompletionTokens => {
                let limit = self.integer(1, u64::MAX)?;
                let limit = u32::try_from(limit).unwrap_or(u32::MAX);
                facts.max_output = Some(facts.max_output.map_or(limit, |other| other.min(limit)));
            }
            Field::Temperature | Field::RepetitionPenalty => self.number(0.0, 2.0)?,
            Field::TopP | Field::MinP | Field::TopA => self.number(0.0, 1.0)?,
            Field::FrequencyPenalty | Field::PresencePenalty => self.number(-2.0, 2.0)?,
            Field::TopK => {
                self.integer(0, u64::MAX)?;
            }
            Field::TopLogprobs => {
                self.integer(0, 20)?;
            }
            Field::MaxToolCalls => {
                self.integer(0, u64::MAX)?;
            }
            Field::Reasoning => facts.hides_reasoning |= self.flag("exclude")?,
            Field::IncludeReasoning => facts.hides_reasoning |= !self.boolean()?,
            Field::Seed => self.whole_number()?,
            Field::Logprobs | Field::ParallelToolCalls | Field::StructuredOutputs => {
                self.boolean()?;
            }
            Field::LogitBias | Field::Trace | Field::Provider | Field::Prediction => {
                self.expect(Kind::Object, "must be an object")?;
            }
            Field::WebSearchOptions | Field::PromptCacheOptions => self.expect(Kind::Object, "must be an object")?,
            Field::CacheControl => {
                self.expect(Kind::Object, "must be an object")?;
                facts.cache_marked = true;
            }
            Field::Plugins | Field::Modalities | Field::Transforms | Field::StopServerToolsWhen => {
                self.expect(Kind::Array, "must be an array")?;
            }
            Field::Stop => self.stop()?,
            Field::Tools => {
                facts.has_tools = self.tools()?;
                facts.tools_bytes = self.span.len() as u64;
            }
            Field::ToolChoice => {
                if !matches!(self.kind, Kind::String | Kind::Object) {
                    return Err(self.invalid("must be a string or an object"));
                }
            }
            Field::ResponseFormat => {
                facts.response_format = Some(self.response_format()?);
                facts.format_bytes = self.span.len() as u64;
            }
            Field::ReasoningEffort => self.one_of(&["max", "xhigh", "high", "medium", "low", "minimal", "none"])?,
            Field::Verbosity => self.one_of(&["low", "medium", "high", "xhigh", "max"])?,
            Field::Metadata => facts.metadata_user_id = self.metadata()?,
            Field::Debug => facts.debug_echo = self.flag("echo_upstream_body")?,
            // Forwarded unjudged: only the vendor knows their rules.
            Field::Messages
            | Field::N
            | Field::Store
            | Field::SafetyIdentifier
            | Field::Functions
            | Field::FunctionCall
            | Field::Audio
            | Field::ImageConfig
            | Field::XSearchFilter
            | Field::PromptCacheRetention => {}
        }
        Ok(())
    }

    fn short_string(self) -> Result<Text, RequestError> {
        self.expect(Kind::String, "must be a string")?;
        if self.span.len() > MAX_SHORT_STRING {
            return Err(self.too_long(format!("`{}` is longer than {MAX_SHORT_STRING} bytes", self.field.name())));
        }
        Ok(Text::new(self.cursor().string().map_err(|error| self.broken(error))?, self.body))
    }

    fn one_of(self, words: &[&str]) -> Result<(), RequestError> {
        let text = self.short_string()?;
        if words.contains(&text.get(self.body)) {
            return Ok(());
        }
        Err(self.invalid(&format!("must be one of {}", words.join(", "))))
    }

    fn boolean(self) -> Result<bool, RequestError> {
        self.expect(Kind::Bool, "must be a boolean")?;
        Ok(self.span.of(self.body) == b"true")
    }

    fn number(self, least: f64, most: f64) -> Result<(), RequestError> {
        let number = if self.kind == Kind::Number { self.span.text(self.body).parse::<f64>().ok() } else { None };
        match number {
            Some(number) if (least..=most).contains(&number) => Ok(()),
            _ => Err(self.invalid(&format!("must be a number from {least} to {most}"))),
        }
    }

    /// Accepts `1e3` and `1000.0` too: to JSON these are the same number.
    fn integer(self, least: u64, most: u64) -> Result<u64, RequestError> {
        let text = self.span.text(self.body);
        let number = if self.kind == Kind::Number {
            text.parse::<u64>().ok().or_else(|| {
                let number = text.parse::<f64>().ok().filter(|number| number.fract() == 0.0 && *number >= 0.0)?;
                Some(number as u64)
            })
        } else {
            None
        };
        let range = if most == u64::MAX { format!("of at least {least}") } else { format!("from {least} to {most}") };
        number.filter(|number| (least..=most).contains(number)).ok_or_else(|| self.invalid(&format!("must be a whole number {range}")))
    }

    fn whole_number(self) -> Result<(), RequestError> {
        let whole = self.kind == Kind::Number
            && self.span.text(self.body).parse::<f64>().is_ok_and(|number| number.is_finite() && number.fract() == 0.0);
        if whole { Ok(()) } else { Err(self.invalid("must be a whole number")) }
    }

    /// A boolean member of an object; false when absent or null.
    fn flag(self, name: &str) -> Result<bool, RequestError> {
        self.expect(Kind::Object, "must be an object")?;
        let mut found = false;
        let mut wrong = false;
        self.each_member(|key, kind, value| {
            if key.is(self.body, name) {
                wrong = !matches!(kind, Kind::Bool | Kind::Null);
                found = value.of(self.body) == b"true";
            }
        })?;
        if wrong { Err(self.invalid(&format!("has a member `{name}` that must be a boolean"))) } else { Ok(found) }
    }

    fn strings(self, most: usize) -> Result<Vec<String>, RequestError> {
        self.expect(Kind::Array, "must be an array of strings")?;
        let mut strings = Vec::new();
        let mut wrong = None;
        self.each_element(|kind, value| {
            if kind != Kind::String || strings.len() == most || value.len() > MAX_SHORT_STRING {
                wrong.get_or_insert(strings.len());
            } else if let Ok(token) = Cursor::resume(self.body, value.start).string() {
                strings.push(token.decode(self.body).into_owned());
            }
        })?;
        match wrong {
            None => Ok(strings),
            Some(index) if index == most => Err(self.invalid(&format!("holds more than {most} entries"))),
            Some(index) => {
                let name = self.field.name();
                let message = format!("`{name}` must be an array of short strings");
                Err(RequestError::invalid(format!("{name}[{index}]"), message))
            }
        }
    }

    fn stop(self) -> Result<(), RequestError> {
        let mut count = 0;
        let mut strings = true;
        match self.kind {
            Kind::String => return Ok(()),
            Kind::Array => self.each_element(|kind, _| {
                count += 1;
                strings &= kind == Kind::String;
            })?,
            _ => strings = false,
        }
        if strings && count <= MAX_STOPS {
            return Ok(());
        }
        Err(self.invalid(&format!("must be a string or at most {MAX_STOPS} strings")))
    }

    /// Says whether there is any tool.
    fn tools(self) -> Result<bool, RequestError> {
        self.expect(Kind::Array, "must be an array")?;
        let mut count = 0;
        let mut wrong = None;
        self.each_element(|kind, _| {
            if kind != Kind::Object {
                wrong.get_or_insert(count);
            }
            count += 1;
        })?;
        match wrong {
            Some(index) => Err(RequestError::invalid(format!("tools[{index}]"), "a tool must be an object")),
            None => Ok(count > 0),
        }
    }

    fn response_format(self) -> Result<ResponseFormat, RequestError> {
        self.expect(Kind::Object, "must be an object")?;
        let mut format = None;
        self.each_member(|key, kind, value| {
            if key.is(self.body, "type") && kind == Kind::String {
                format = Some(match value.of(self.body) {
                    b"\"text\"" => ResponseFormat::Text,
                    b"\"json_object\"" => ResponseFormat::JsonObject,
                    b"\"json_schema\"" => ResponseFormat::JsonSchema,
                    _ => ResponseFormat::Other,
                });
            }
        })?;
        format.ok_or_else(|| RequestError::invalid("response_format.type", "`response_format.type` must be a string"))
    }

    /// Checks the sizes and gives `user_id`.
    fn metadata(self) -> Result<Option<Text>, RequestError> {
        self.expect(Kind::Object, "must be an object")?;
        let mut pairs = 0;
        let mut long = false;
        let mut strings = true;
        let mut user_id = None;
        self.each_member(|key, kind, value| {
            pairs += 1;
            long |= key.decode(self.body).chars().count() > MAX_METADATA_KEY;
            if kind != Kind::String {
                strings = false;
            } else if let Ok(token) = Cursor::resume(self.body, value.start).string() {
                long |= token.decode(self.body).chars().count() > MAX_METADATA_VALUE;
                if key.is(self.body, "user_id") {
                    user_id = Some(Text::new(token, self.body));
                }
            }
        })?;
        if pairs > MAX_METADATA_PAIRS {
            return Err(self.invalid(&format!("holds more than {MAX_METADATA_PAIRS} pairs")));
        }
        if long {
            let what = format!("must have keys of at most {MAX_METADATA_KEY} and values of at most {MAX_METADATA_VALUE} characters");
            return Err(self.invalid(&what));
        }
        if strings { Ok(user_id) } else { Err(self.invalid("must map strings to strings")) }
    }

    fn each_member(self, mut visit: impl FnMut(StringToken, Kind, Span)) -> Result<(), RequestError> {
        let mut walk = || -> Result<(), ScanError> {
            let mut cursor = self.cursor();
            let mut object: Members = cursor.enter_object()?;
            while let Some(key) = cursor.next_key(&mut object)? {
                let kind = cursor.kind()?;
                visit(key, kind, cursor.skip()?);
            }
            Ok(())
        };
        walk().map_err(|error| self.broken(error))
    }

    fn each_element(self, mut visit: impl FnMut(Kind, Span)) -> Result<(), RequestError> {
        let mut walk = || -> Result<(), ScanError> {
            let mut cursor = self.cursor();
            let mut array: Members = cursor.enter_array()?;
            while cursor.next_element(&mut array)? {
                let kind = cursor.kind()?;
                visit(kind, cursor.skip()?);
            }
            Ok(())
        };
        walk().map_err(|error| self.broken(error))
    }

    fn cursor(self) -> Cursor<'a> {
        Cursor::resume(self.body, self.span.start)
    }

    /// The body was accepted before, so this is not met; it is an answer all the same, because a panic is none.
    fn broken(self, error: ScanError) -> RequestError {
        RequestError::invalid(self.field.name(), error.to_string())
    }

    fn invalid(self, what: &str) -> RequestError {
        RequestError::invalid(self.field.name(), format!("`{}` {what}", self.field.name()))
    }

    fn too_long(self, message: String) -> RequestError {
        RequestError { error_type: ErrorType::StringTooLong, ..RequestError::invalid(self.field.name(), message) }
    }

    fn expect(self, kind: Kind, what: &str) -> Result<(), RequestError> {
        if self.kind == kind { Ok(()) } else { Err(self.invalid(what)) }
    }
}
