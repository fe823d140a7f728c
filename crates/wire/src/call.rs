//! A chat request as its caller sent it: the bytes, where their top-level fields are, and the facts a router needs.
//!
//! Reading walks the body once. It checks the whole of it as JSON, checks the fields it knows against the ranges the API
//! promises, and remembers spans; unknown fields are neither judged nor lost. A top-level field that is given twice is refused:
//! JSON leaves open which one counts, and a gateway must never judge one and forward the other. `null` means absent.

mod messages;
mod preset;
mod validate;

use bytes::Bytes;
use smallvec::SmallVec;

pub(crate) use self::messages::Messages;
use crate::{
    error::{ErrorType, RequestError},
    field::{Field, Treatment},
    scan::{Cursor, Kind, ScanError, Span, StringToken},
};

/// Output tokens assumed where the caller sets no lower limit; the median answer of a chat is a few hundred tokens.
const EXPECTED_OUTPUT: u32 = 512;

/// Bytes per token of ordinary text, times ten. English is about 4, code and other languages less.
const TENTH_BYTES_PER_TOKEN: u64 = 35;

/// Tokens counted for each image, file, audio or video part, whose bytes say nothing about its tokens. Vendors charge 85 to 1,600.
const TOKENS_PER_MEDIA_PART: u64 = 256;

/// Bounds on what is read.
#[derive(Debug, Clone, Copy)]
pub struct ReadLimits {
    /// Longest body in bytes.
    pub max_body: usize,
    /// Most messages in one request.
    pub max_messages: usize,
    /// Most entries of `models`.
    pub max_models: usize,
    /// Deepest nesting of the JSON, at most [`crate::scan::MAX_DEPTH`].
    pub max_depth: u32,
}

impl Default for ReadLimits {
    /// 32 MiB, ten thousand messages, 64 models: far above honest use, low enough to bound work.
    fn default() -> Self {
        Self { max_body: 32 << 20, max_messages: 10_000, max_models: 64, max_depth: crate::scan::MAX_DEPTH }
    }
}

/// Which kinds of content other than text the messages hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Inputs {
    /// `image_url` parts.
    pub image: bool,
    /// `file` parts.
    pub file: bool,
    /// `input_audio` parts.
    pub audio: bool,
    /// `video_url` parts.
    pub video: bool,
}

/// What `response_format` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseFormat {
    /// Plain text.
    Text,
    /// Any JSON object.
    JsonObject,
    /// JSON that follows a schema.
    JsonSchema,
    /// A grammar, a language, or something newer.
    Other,
}

/// An OpenAI/OpenRouter chat request.
#[derive(Debug, Clone)]
pub struct ChatCall {
    body: Bytes,
    members: SmallVec<[Member; 16]>,
    messages: Messages,
    facts: RequestFacts,
}

/// One top-level member.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Member {
    pub(crate) key: StringToken,
    pub(crate) value: Span,
    pub(crate) kind: Kind,
    pub(crate) field: Option<Field>,
}

/// What the known fields said. Spans lie in the body.
#[derive(Debug, Clone, Default)]
struct RequestFacts {
    model: Option<Text>,
    models: Vec<String>,
    stream: bool,
    wants_usage: bool,
    preset: Option<Text>,
    session_id: Option<Text>,
    prompt_cache_key: Option<Text>,
    user: Option<Text>,
    metadata_user_id: Option<Text>,
    service_tier: Option<Text>,
    route: Option<Text>,
    max_output: Option<u32>,
    response_format: Option<ResponseFormat>,
    has_tools: bool,
    tools_bytes: u64,
    format_bytes: u64,
    debug_echo: bool,
    cache_marked: bool,
    hides_reasoning: bool,
}

/// A string of the request: a span where the bytes are the text, else the decoded text.
#[derive(Debug, Clone)]
enum Text {
    Plain(Span),
    Decoded(Box<str>),
}

impl Text {
    fn new(token: StringToken, body: &[u8]) -> Self {
        if token.escaped { Self::Decoded(token.decode(body).into()) } else { Self::Plain(token.inner) }
    }

    fn get<'a>(&'a self, body: &'a [u8]) -> &'a str {
        match self {
            Self::Plain(span) => span.text(body),
            Self::Decoded(text) => text,
        }
    }
}

impl ChatCall {
    /// Reads and checks a request body.
    pub fn read(body: Bytes, limits: &ReadLimits) -> Result<Self, RequestError> {
        if body.len() > limits.max_body {
            let message = format!("the request body is larger than {} bytes", limits.max_body);
            return Err(RequestError::of(ErrorType::PayloadTooLarge, message));
        }
        let mut cursor = Cursor::open(&body).map_err(not_json)?.bounded(limits.max_depth);
        if cursor.kind().map_err(not_json)? != Kind::Object {
            let no_object = RequestError::of(ErrorType::InvalidRequest, "the request body must be a JSON object");
            return Err(cursor.wrong_text().map_or(no_object, not_json));
        }
        let mut members: SmallVec<[Member; 16]> = SmallVec::new();
        let mut messages = None;
        let mut object = cursor.enter_object().map_err(not_json)?;
        while let Some(key) = cursor.next_key(&mut object).map_err(not_json)? {
            let field = if key.escaped { Field::from_name(key.decode(&body).as_bytes()) } else { Field::from_name(key.inner.of(&body)) };
            let kind = cursor.kind().map_err(not_json)?;
            let value = if field == Some(Field::Messages) && kind != Kind::Null {
                let read = Messages::read(&mut cursor, limits.max_messages);
                let read = read.map_err(|error| cursor.wrong_text().map_or(error, not_json))?;
                let span = read.span;
                messages = Some(read);
                span
            } else {
                cursor.skip().map_err(not_json)?
            };
            members.push(Member { key, value, kind, field });
        }
        cursor.finish().map_err(not_json)?;
        refuse_duplicates(&members, &body)?;
        let Some(messages) = messages else {
            return Err(RequestError::invalid("messages", "`messages` is required"));
        };
        let facts = validate::read_facts(&body, &members, limits)?;
        Ok(Self { body, members, messages, facts })
    }

    /// The caller's bytes.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The top-level fields that are not null, in order: name and raw JSON.
    pub fn fields(&self) -> impl Iterator<Item = (std::borrow::Cow<'_, str>, &str)> {
        let given = self.members.iter().filter(|member| member.kind != Kind::Null);
        given.map(|member| (member.key.decode(&self.body), member.value.text(&self.body)))
    }

    /// Raw JSON of one top-level field, if it is given and not null.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields().find(|(given, _)| given == name).map(|(_, value)| value)
    }

    /// `model`.
    pub fn model(&self) -> Option<&str> {
        self.text(&self.facts.model)
    }

    /// `models`: ordered fallbacks; empty when absent.
    pub fn models(&self) -> &[String] {
        &self.facts.models
    }

    /// `stream`.
    pub fn stream(&self) -> bool {
        self.facts.stream
    }

    /// The caller asked for usage in so many words. It has no effect: usage is always given.
    pub fn wants_usage(&self) -> bool {
        self.facts.wants_usage
    }

    /// `provider` as raw JSON.
    pub fn provider(&self) -> Option<&str> {
        self.raw(Field::Provider)
    }

    /// `preset`.
    pub fn preset(&self) -> Option<&str> {
        self.text(&self.facts.preset)
    }

    /// `session_id`.
    pub fn session_id(&self) -> Option<&str> {
        self.text(&self.facts.session_id)
    }

    /// `prompt_cache_key`.
    pub fn prompt_cache_key(&self) -> Option<&str> {
        self.text(&self.facts.prompt_cache_key)
    }

    /// `user`.
    pub fn user(&self) -> Option<&str> {
        self.text(&self.facts.user)
    }

    /// `metadata.user_id`, which some agents fill with a session.
    pub fn metadata_user_id(&self) -> Option<&str> {
        self.text(&self.facts.metadata_user_id)
    }

    /// The lower of `max_completion_tokens` and `max_tokens`.
    pub fn max_output(&self) -> Option<u32> {
        self.facts.max_output
    }

    /// A guess at the tokens of the answer, for estimates of time and money.
    pub fn expected_output(&self) -> u32 {
        self.facts.max_output.map_or(EXPECTED_OUTPUT, |limit| limit.min(EXPECTED_OUTPUT))
    }

    /// Names of the parameters an endpoint must support to honour this request, in the vocabulary of `supported_parameters`:
    /// both spellings of the output limit count as `max_tokens`, `reasoning_effort` as `reasoning`, and a `json_schema` format
    /// also as `structured_outputs`. A name may come twice.
    pub fn parameters(&self) -> impl Iterator<Item = &'static str> {
        let schema = self.facts.response_format == Some(ResponseFormat::JsonSchema);
        let named = self.members.iter().filter(|member| member.kind != Kind::Null).filter_map(|member| {
            let field = member.field?;
            match (field, field.treatment()) {
                (Field::MaxTokens | Field::MaxCompletionTokens, _) => Some("max_tokens"),
                (Field::ReasoningEffort, _) => Some("reasoning"),
                (_, Treatment::Parameter | Treatment::Reasoning) => Some(field.name()),
                _ => None,
            }
        });
        named.chain(schema.then_some("structured_outputs"))
    }

    /// Which media the messages hold.
    pub fn inputs(&self) -> Inputs {
        self.messages.inputs
    }

    /// `tools` is given and not empty.
    pub fn has_tools(&self) -> bool {
        self.facts.has_tools
    }

    /// What `response_format` asks for.
    pub fn response_format(&self) -> Option<ResponseFormat> {
        self.facts.response_format
    }

    /// Prompt tokens, guessed from the bytes of text and tools plus a tenth. Base64 data is not text and not counted.
    pub fn prompt_tokens_estimate(&self) -> u32 {
        let bytes = self.messages.text_bytes + self.facts.tools_bytes + self.facts.format_bytes;
        let tokens = bytes * 11 / TENTH_BYTES_PER_TOKEN + u64::from(self.messages.media_parts) * TOKENS_PER_MEDIA_PART;
        u32::try_from(tokens).unwrap_or(u32::MAX).max(1)
    }

    /// Identifies the conversation for sticky routing: a hash of the first system message and the first other one, equal on
    /// every machine. Not cryptographic; callers mix in the account.
    pub fn conversation_hash(&self) -> u64 {
        self.messages.conversation_hash(&self.body)
    }

    /// `service_tier`.
    pub fn service_tier(&self) -> Option<&str> {
        self.text(&self.facts.service_tier)
    }

    /// `plugins` as raw JSON.
    pub fn plugins(&self) -> Option<&str> {
        self.raw(Field::Plugins)
    }

    /// `trace` as raw JSON.
    pub fn trace(&self) -> Option<&str> {
        self.raw(Field::Trace)
    }

    /// `debug.echo_upstream_body`.
    pub fn debug_echo(&self) -> bool {
        self.facts.debug_echo
    }

    /// The deprecated `route`: `fallback` or `sort`.
    pub fn route(&self) -> Option<&str> {
        self.text(&self.facts.route)
    }

    /// A `cache_control` mark is somewhere at the top level or in the messages.
    pub fn cache_marked(&self) -> bool {
        self.facts.cache_marked || self.messages.cache_marked
    }

    /// The model may think, but its thoughts are not to be shown: `reasoning.exclude`, or `include_reasoning: false`.
    pub fn hides_reasoning(&self) -> bool {
        self.facts.hides_reasoning
    }

    /// Number of messages.
    pub fn message_count(&self) -> usize {
        self.messages.count
    }

    pub(crate) fn members(&self) -> &[Member] {
        &self.members
    }

    pub(crate) fn messages(&self) -> &Messages {
        &self.messages
    }

    pub(crate) fn raw(&self, field: Field) -> Option<&str> {
        let given = self.members.iter().find(|member| member.field == Some(field) && member.kind != Kind::Null);
        given.map(|member| member.value.text(&self.body))
    }

    fn text<'a>(&'a self, text: &'a Option<Text>) -> Option<&'a str> {
        text.as_ref().map(|text| text.get(&self.body))
    }
}

fn refuse_duplicates(members: &[Member], body: &[u8]) -> Result<(), RequestError> {
    for (index, member) in members.iter().enumerate() {
        let same = |other: &Member| match (member.field, other.field) {
            (Some(one), Some(two)) => one == two,
            (None, None) if !member.key.escaped && !other.key.escaped => member.key.inner.of(body) == other.key.inner.of(body),
            (None, None) => member.key.decode(body) == other.key.decode(body),
            _ => false,
        };
        // Quadratic in the number of fields, so only that many are compared; honest requests have a dozen.
        if index >= MAX_FIELDS {
            return Err(RequestError::of(ErrorType::InvalidRequest, format!("more than {MAX_FIELDS} top-level fields")));
        }
        if members[..index].iter().any(same) {
            let name: String = member.key.decode(body).chars().take(64).collect();
            return Err(RequestError::invalid(name, "the field is given twice"));
        }
    }
    Ok(())
}

/// Most top-level fields; the published API has about sixty.
const MAX_FIELDS: usize = 256;

fn not_json(error: ScanError) -> RequestError {
    RequestError::of(ErrorType::InvalidRequest, format!("the request body is not valid JSON: {error}"))
}

#[cfg(test)]
mod tests;
