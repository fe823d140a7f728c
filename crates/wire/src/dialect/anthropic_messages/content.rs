//! Writes the conversation: the caller's messages as system blocks and strictly alternating turns.

use super::{REASONING_FORMAT, media};
use crate::{
    canonical::{CacheControl, CacheLifetime, CachedText, Content, Json, JsonStr, Message, Part, ReasoningDetail, Request, Role, ToolCall},
    error::{ErrorType, RequestError},
};

/// What a conversation that begins with the assistant is opened with; the API wants the user to speak first.
const OPENING: &str = "(continued)";

/// Writes the conversation and remembers what else the request then needs.
pub(super) struct Conversation<'j, 'b> {
    json: &'j mut Json<'b>,
    speaker: Option<Speaker>,
    /// A file stored at the upstream is referred to.
    pub(super) uses_files: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Speaker {
    User,
    Assistant,
}

impl<'j, 'b> Conversation<'j, 'b> {
    /// Writes into the open `messages` array behind `json`.
    pub(super) fn new(json: &'j mut Json<'b>) -> Conversation<'j, 'b> {
        Conversation { json, speaker: None, uses_files: false }
    }

    /// Writes every turn and closes the last.
    pub(super) fn write(&mut self, request: &Request<'_>) -> Result<(), RequestError> {
        let last = request.turns().last().map(|(index, _)| index);
        for (index, message) in request.turns() {
            match message.role {
                Role::User | Role::System | Role::Developer | Role::Function => self.user(index, message)?,
                Role::Assistant => self.assistant(index, message, Some(index) == last)?,
                Role::Tool => self.tool_result(index, message)?,
            }
        }
        if self.speaker.is_none() {
            return Err(RequestError::invalid("messages", "no message has any content"));
        }
        self.json.close_array();
        self.json.close_object();
        Ok(())
    }

    fn user(&mut self, index: usize, message: &Message<'_>) -> Result<(), RequestError> {
        let mut name = message.name;
        match &message.content {
            None => Ok(()),
            Some(Content::Text(text)) if text.is_blank() => Ok(()),
            Some(Content::Text(text)) => {
                self.open_block(Speaker::User);
                write_text(self.json, name, *text);
                write_cache(self.json, message.cache_control.as_ref())?;
                self.json.close_object();
                Ok(())
            }
            Some(Content::Parts(parts)) => {
                let last = parts.iter().rposition(|part| !is_blank_text(part));
                for (at, part) in parts.iter().enumerate() {
                    if is_blank_text(part) {
                        continue;
                    }
                    self.open_block(Speaker::User);
                    let name = if part.text.is_some() { name.take() } else { None };
                    self.part(part, name, index, at)?;
                    let inherited = message.cache_control.as_ref().filter(|_| Some(at) == last);
                    write_cache(self.json, part.cache_control.as_ref().or(inherited))?;
                    self.json.close_object();
                }
                Ok(())
            }
        }
    }

    /// Thoughts first, then text, then calls: the order in which the API produces them.
    fn assistant(&mut self, index: usize, message: &Message<'_>, is_last: bool) -> Result<(), RequestError> {
        self.thoughts(message.reasoning_details());
        let calls = message.tool_calls();
        let inherited = message.cache_control.as_ref();
        let mut name = message.name;
        let texts = spoken(message);
        let last_text = texts.len().saturating_sub(1);
        for (at, (text, own)) in texts.into_iter().enumerate() {
            self.open_block(Speaker::Assistant);
            if is_last && at == last_text && calls.is_empty() {
                self.write_prefill(name.take(), text);
            } else {
                write_text(self.json, name.take(), text);
            }
            write_cache(self.json, own.or(inherited.filter(|_| calls.is_empty() && at == last_text)))?;
            self.json.close_object();
        }
        for (at, call) in calls.iter().enumerate() {
            self.tool_use(index, at, call)?;
            write_cache(self.json, inherited.filter(|_| at + 1 == calls.len()))?;
            self.json.close_object();
        }
        Ok(())
    }

    /// The API refuses an answer begun with trailing white space.
    fn write_prefill(&mut self, name: Option<JsonStr<'_>>, text: JsonStr<'_>) {
        let decoded = text.decode();
        let trimmed = decoded.trim_end();
        if trimmed.len() == decoded.len() {
            return write_text(self.json, name, text);
        }
        self.json.string_at("type", "text");
        match name {
            Some(name) => self.json.string_at("text", &format!("{}: {trimmed}", name.decode())),
            None => self.json.string_at("text", trimmed),
        }
    }

    /// Echoes the blocks of thought that this API signed. A streaming caller may return a block in the pieces it received
    /// it in; pieces of one index are put together again, up to the signature that closes them.
    fn thoughts(&mut self, details: &[ReasoningDetail<'_>]) {
        let mut pieces: Vec<JsonStr<'_>> = Vec::new();
        let mut index = None;
        for detail in details.iter().filter(|detail| detail.is_of(REASONING_FORMAT)) {
            match detail.kind.as_deref() {
                Some("reasoning.text") => {
                    if detail.index != index {
                        pieces.clear();
                        index = detail.index;
                    }
                    pieces.extend(detail.text);
                    let Some(signature) = detail.signature.filter(|signature| !signature.is_empty()) else {
                        continue;
                    };
                    self.open_block(Speaker::Assistant);
                    self.json.string_at("type", "thinking");
                    self.json.key("thinking");
                    self.json.joined(&pieces);
                    self.json.literal_at("signature", signature);
                    self.json.close_object();
                    pieces.clear();
                }
                Some("reasoning.encrypted") => {
                    let Some(data) = detail.data else { continue };
                    self.open_block(Speaker::Assistant);
                    self.json.string_at("type", "redacted_thinking");
                    self.json.literal_at("data", data);
                    self.json.close_object();
                }
                _ => {}
            }
        }
    }

    /// Opens a `tool_use` block and leaves it open.
    fn tool_use(&mut self, index: usize, at: usize, call: &ToolCall<'_>) -> Result<(), RequestError> {
        let id =
            call.id.as_deref().ok_or_else(|| RequestError::invalid(format!("messages[{index}].tool_calls[{at}].id"), "is required"))?;
        self.open_block(Speaker::Assistant);
        self.json.string_at("type", "tool_use");
        write_id(self.json, "id", id);
        self.json.literal_at("name", call.function.name);
        self.json.key("input");
        self.json.raw(&call.function.arguments_object());
        Ok(())
    }

    fn tool_result(&mut self, index: usize, message: &Message<'_>) -> Result<(), RequestError> {
        let id = message
            .tool_call_id
            .as_deref()
            .ok_or_else(|| RequestError::invalid(format!("messages[{index}].tool_call_id"), "is required in a tool message"))?;
        self.open_block(Speaker::User);
        self.json.string_at("type", "tool_result");
        write_id(self.json, "tool_use_id", id);
        match &message.content {
            Some(Content::Text(text)) if !text.is_blank() => self.json.literal_at("content", *text),
            Some(Content::Parts(parts)) if parts.iter().any(|part| !is_blank_text(part)) => {
                self.json.array_at("content");
                for (at, part) in parts.iter().enumerate().filter(|(_, part)| !is_blank_text(part)) {
                    self.json.open_object();
                    self.part(part, None, index, at)?;
                    write_cache(self.json, part.cache_control.as_ref())?;
                    self.json.close_object();
                }
                self.json.close_array();
            }
            _ => {}
        }
        write_cache(self.json, message.cache_control.as_ref())?;
        self.json.close_object();
        Ok(())
    }

    /// Writes the members of a block for `part`, without its cache marker.
    fn part(&mut self, part: &Part<'_>, name: Option<JsonStr<'_>>, index: usize, at: usize) -> Result<(), RequestError> {
        let path = |field: &str| format!("messages[{index}].content[{at}].{field}");
        match (&*part.kind, part) {
            (_, Part { text: Some(text), .. }) => write_text(self.json, name, *text),
            ("image_url", Part { image_url: Some(image), .. }) => {
                media::write_image(self.json, &image.url).map_err(|problem| bad_image(path("image_url.url"), problem))?;
            }
            ("file", Part { file: Some(file), .. }) => {
                self.uses_files |= file.file_id.is_some();
                media::write_file(self.json, file).map_err(|problem| RequestError::invalid(path("file"), problem))?;
            }
            ("input_audio", _) => {
                return Err(RequestError::invalid(path("type"), "this model does not take audio input"));
            }
            ("video_url", _) => {
                return Err(RequestError::invalid(path("type"), "this model does not take video input"));
            }
            _ => {
                return Err(RequestError::invalid(path("type"), "unknown part type, or its member is missing"));
            }
        }
        Ok(())
    }

    /// Opens a block in the turn of `speaker`, beginning that turn if the other one spoke last.
    fn open_block(&mut self, speaker: Speaker) {
        match self.speaker {
            Some(current) if current == speaker => {}
            Some(_) => {
                self.json.close_array();
                self.json.close_object();
                self.open_turn(speaker);
            }
            None => {
                if speaker == Speaker::Assistant {
                    self.open_block(Speaker::User);
                    self.json.string_at("type", "text");
                    self.json.string_at("text", OPENING);
                    self.json.close_object();
                    return self.open_block(speaker);
                }
                self.open_turn(speaker);
            }
        }
        self.json.open_object();
    }

    fn open_turn(&mut self, speaker: Speaker) {
        self.speaker = Some(speaker);
        self.json.open_object();
        self.json.string_at(
            "role",
            match speaker {
                Speaker::User => "user",
                Speaker::Assistant => "assistant",
            },
        );
        self.json.array_at("content");
    }
}

/// What the assistant said. Pictures and other parts of its own making cannot be given back to this API.
fn spoken<'m, 'a>(message: &'m Message<'a>) -> Vec<CachedText<'m, 'a>> {
    match &message.content {
        None => Vec::new(),
        Some(Content::Text(text)) if text.is_blank() => Vec::new(),
        Some(Content::Text(text)) => vec![(*text, None)],
        Some(Content::Parts(parts)) => parts
            .iter()
            .filter_map(|part| Some((part.text.or(part.refusal)?, part.cache_control.as_ref())))
            .filter(|(text, _)| !text.is_blank())
            .collect(),
    }
}

fn is_blank_text(part: &Part<'_>) -> bool {
    part.text.is_some_and(JsonStr::is_blank)
}

/// Writes the members of a text block; a name goes before the text, since this API has no field for it.
pub(super) fn write_text(json: &mut Json<'_>, name: Option<JsonStr<'_>>, text: JsonStr<'_>) {
    json.string_at("type", "text");
    json.key("text");
    match name {
        None => json.literal(text),
        Some(name) => json.prefixed(name, ": ", text),
    }
}

/// Writes a cache marker, if there is one.
pub(super) fn write_cache(json: &mut Json<'_>, cache: Option<&CacheControl<'_>>) -> Result<(), RequestError> {
    let Some(cache) = cache else { return Ok(()) };
    let lifetime = cache.lifetime()?;
    json.object_at("cache_control");
    json.string_at("type", "ephemeral");
    match lifetime {
        CacheLifetime::Default => {}
        CacheLifetime::FiveMinutes => json.string_at("ttl", "5m"),
        CacheLifetime::OneHour => json.string_at("ttl", "1h"),
    }
    json.close_object();
    Ok(())
}

/// Ids that other vendors made may hold characters that this API refuses; both ends of a call are changed alike.
fn write_id(json: &mut Json<'_>, key: &'static str, id: &str) {
    let accepted = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if id.chars().all(accepted) {
        json.string_at(key, id);
    } else {
        json.string_at(key, &id.replace(|c| !accepted(c), "_"));
    }
}

fn bad_image(param: String, problem: &str) -> RequestError {
    RequestError { error_type: ErrorType::InvalidImage, ..RequestError::invalid(param, problem) }
}
