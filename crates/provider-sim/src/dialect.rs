//! The dialects: how a request is found and read, and how an answer or an error is written.

mod anthropic;
mod gemini;
mod openai;

use bytes::Bytes;
use http::HeaderMap;
use serde_json::Value;

use crate::answer::Answer;
use crate::ask::Ask;
use crate::rate_limit::Standing;

/// The shape of an API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// OpenAI chat completions.
    OpenaiChat,
    /// Anthropic messages.
    AnthropicMessages,
    /// Gemini `generateContent`.
    Gemini,
}

/// A request that is not served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) status: u16,
    pub(crate) message: String,
    /// The field that is wrong.
    pub(crate) param: Option<&'static str>,
    /// OpenAI's code, where a status has several meanings.
    pub(crate) code: Option<&'static str>,
}

impl Trouble {
    pub(crate) fn invalid(message: impl Into<String>, param: Option<&'static str>) -> Self {
        Self { status: 400, message: message.into(), param, code: None }
    }

    /// A status that came about by itself.
    pub(crate) fn of_status(status: u16) -> Self {
        let message = match status {
            401 => "The API key is not valid.",
            402 => "The account has no credit left.",
            404 => "There is no such resource.",
            429 => "The rate limit is exceeded; try again later.",
            503 | 529 => "The service is overloaded; try again later.",
            400..500 => "The request was refused.",
            _ => "The server had an error while processing the request.",
        };
        Self { status, message: message.to_owned(), param: None, code: None }
    }

    pub(crate) fn unknown_model(model: &str) -> Self {
        Self { status: 404, message: format!("The model `{model}` does not exist."), param: Some("model"), code: Some("model_not_found") }
    }

    pub(crate) fn context_length(limit: u32, asked: u32) -> Self {
        Self {
            status: 400,
            message: format!(
                "This model's maximum context length is {limit} tokens, but the prompt is too long: {asked} tokens > {limit} maximum."
            ),
            param: Some("messages"),
            code: Some("context_length_exceeded"),
        }
    }
}

/// All that an answer is written from.
pub(crate) struct Reply<'a> {
    pub(crate) ask: &'a Ask,
    pub(crate) answer: &'a Answer,
    /// Becomes the answer's id.
    pub(crate) number: u64,
    /// Seconds since the Unix epoch.
    pub(crate) created: u64,
    pub(crate) tokens_per_chunk: usize,
}

/// One event of a stream, ready to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) bytes: Bytes,
    /// Tokens that the model made for it.
    pub(crate) tokens: u32,
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    /// An answer is wanted. Gemini says in the path for which model and whether streamed.
    Generate {
        dialect: Dialect,
        path_model: Option<String>,
        path_stream: bool,
    },
    Models(Dialect),
    Nowhere,
}

impl Route {
    pub(crate) fn of(method: &http::Method, path: &str) -> Self {
        let generate = |dialect| Self::Generate { dialect, path_model: None, path_stream: false };
        if *method == http::Method::GET {
            return match path {
                _ if !path.ends_with("/models") => Self::Nowhere,
                _ if path.contains("/v1beta") => Self::Models(Dialect::Gemini),
                _ => Self::Models(Dialect::OpenaiChat),
            };
        }
        if *method != http::Method::POST {
            return Self::Nowhere;
        }
        if path.ends_with("/chat/completions") {
            return generate(Dialect::OpenaiChat);
        }
        if path.ends_with("/v1/messages") {
            return generate(Dialect::AnthropicMessages);
        }
        let Some((model, action)) = path.split_once("/models/").and_then(|(_, rest)| rest.rsplit_once(':')) else {
            return Self::Nowhere;
        };
        let path_stream = match action {
            "generateContent" => false,
            "streamGenerateContent" => true,
            _ => return Self::Nowhere,
        };
        Self::Generate { dialect: Dialect::Gemini, path_model: Some(model.to_owned()), path_stream }
    }
}

impl Dialect {
    /// Reads a request and refuses what every provider refuses.
    pub(crate) fn read(self, body: &Value, headers: &HeaderMap) -> Result<Ask, Trouble> {
        match self {
            Self::OpenaiChat => openai::read(body),
            Self::AnthropicMessages => anthropic::read(body, headers),
            Self::Gemini => gemini::read(body),
        }
    }

    /// The whole answer at once.
    pub(crate) fn whole(self, reply: &Reply<'_>) -> Value {
        match self {
            Self::OpenaiChat => openai::whole(reply),
            Self::AnthropicMessages => anthropic::whole(reply),
            Self::Gemini => gemini::whole(reply),
        }
    }

    /// The answer as a stream, with the dialect's end.
    pub(crate) fn events(self, reply: &Reply<'_>) -> Vec<Event> {
        match self {
            Self::OpenaiChat => openai::events(reply),
            Self::AnthropicMessages => anthropic::events(reply),
            Self::Gemini => gemini::events(reply),
        }
    }

    /// The body of an error.
    pub(crate) fn error(self, trouble: &Trouble) -> Value {
        match self {
            Self::OpenaiChat => openai::error(trouble),
            Self::AnthropicMessages => anthropic::error(trouble),
            Self::Gemini => gemini::error(trouble),
        }
    }

    /// An error in the middle of a stream.
    pub(crate) fn error_event(self, trouble: &Trouble) -> Event {
        let error = self.error(trouble);
        match self {
            Self::OpenaiChat | Self::Gemini => data(&error, 0),
            Self::AnthropicMessages => anthropic::event(&error, 0),
        }
    }

    /// An event whose JSON breaks off.
    pub(crate) fn broken_event(self) -> Event {
        let text: &[u8] = match self {
            Self::OpenaiChat => b"data: {\"id\":\"chatcmpl-broken\",\"choices\":[{\"delta\":{\"cont\n\n",
            Self::AnthropicMessages => b"event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\n\n",
            Self::Gemini => b"data: {\"candidates\":[{\"content\":{\"par\n\n",
        };
        Event { bytes: Bytes::from_static(text), tokens: 0 }
    }

    /// The headers that tell how a caller stands.
    pub(crate) fn rate_headers(self, standing: &Standing, unix_now: u64, headers: &mut HeaderMap) {
        match self {
            Self::OpenaiChat => openai::rate_headers(standing, headers),
            Self::AnthropicMessages => anthropic::rate_headers(standing, unix_now, headers),
            // Google sends none.
            Self::Gemini => {}
        }
    }

    /// Name of the header with the request's id.
    pub(crate) fn request_id_header(self) -> &'static str {
        match self {
            Self::OpenaiChat => "x-request-id",
            Self::AnthropicMessages => "request-id",
            Self::Gemini => "x-goog-request-id",
        }
    }

    /// The list of models.
    pub(crate) fn models(self, models: &[String], owner: &str) -> Value {
        match self {
            Self::Gemini => gemini::models(models),
            Self::OpenaiChat | Self::AnthropicMessages => openai::models(models, owner),
        }
    }
}

/// A server-sent event without a name.
fn data(value: &Value, tokens: u32) -> Event {
    Event { bytes: Bytes::from(format!("data: {value}\n\n")), tokens }
}

/// Tokens in groups of so many, joined, with their number.
fn grouped(tokens: &[String], per_group: usize) -> impl Iterator<Item = (String, u32)> {
    tokens.chunks(per_group.max(1)).map(|group| (group.concat(), u32::try_from(group.len()).unwrap_or(u32::MAX)))
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    #[test]
    fn paths_tell_the_dialect() {
        let dialect = |path| match Route::of(&Method::POST, path) {
            Route::Generate { dialect, .. } => Some(dialect),
            _ => None,
        };
        assert_eq!(dialect("/v1/chat/completions"), Some(Dialect::OpenaiChat));
        assert_eq!(dialect("/openai/deployments/x/chat/completions"), Some(Dialect::OpenaiChat));
        assert_eq!(dialect("/v1/messages"), Some(Dialect::AnthropicMessages));
        assert_eq!(dialect("/v1/messages/count_tokens"), None);
        assert_eq!(
            Route::of(&Method::POST, "/v1beta/models/gem-1:streamGenerateContent"),
            Route::Generate { dialect: Dialect::Gemini, path_model: Some("gem-1".to_owned()), path_stream: true }
        );
        assert_eq!(Route::of(&Method::GET, "/v1/models"), Route::Models(Dialect::OpenaiChat));
        assert_eq!(Route::of(&Method::GET, "/v1beta/models"), Route::Models(Dialect::Gemini));
        assert_eq!(Route::of(&Method::DELETE, "/v1/messages"), Route::Nowhere);
    }
}
