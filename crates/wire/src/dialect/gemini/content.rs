//! Writes the conversation: the caller's messages as contents of the roles `user` and `model`.

use smallvec::SmallVec;

use super::{OWN_CALL_ID, REASONING_FORMAT, media};
use crate::{
    canonical::{Content, Json, JsonStr, Message, Request, Role, ToolCall},
    error::RequestError,
};

/// Google's own word for "this call was not made by a model of yours": newer models refuse calls without a signature.
const FOREIGN_CALL: &str = "skip_thought_signature_validator";

/// Writes the system parts into an open array.
pub(super) fn write_system(request: &Request<'_>, json: &mut Json<'_>) -> Result<(), RequestError> {
    for (index, message) in request.system() {
        let mut name = message.name;
        for (text, _) in message.system_texts(index)? {
            write_text(json, name.take(), text);
        }
    }
    Ok(())
}

/// Writes the conversation into an open array.
pub(super) struct Conversation<'j, 'b, 'r, 'a> {
    json: &'j mut Json<'b>,
    speaker: Option<Speaker>,
    /// Calls of the latest assistant message that made any; results are ordered like them.
    calls: &'r [ToolCall<'a>],
    /// Results waiting for their neighbours: place of their call, and the message.
    results: SmallVec<[(usize, usize, &'r Message<'a>); 4]>,
    /// Calls that no model of this API made are marked so.
    marks_foreign_calls: bool,
    /// Where the turn in progress begins; signatures are not asked for before it.
    current_turn: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Speaker {
    User,
    Model,
    /// Function results, which the API wants in a content of their own.
    Functions,
}

impl<'j, 'b, 'r, 'a> Conversation<'j, 'b, 'r, 'a> {
    /// Writes into the open `contents` array behind `json`.
    pub(super) fn new(json: &'j mut Json<'b>, marks_foreign_calls: bool) -> Conversation<'j, 'b, 'r, 'a> {
        Conversation { json, speaker: None, calls: &[], results: SmallVec::new(), marks_foreign_calls, current_turn: 0 }
    }

    /// Writes every turn and closes the last.
    pub(super) fn write(&mut self, request: &'r Request<'a>) -> Result<(), RequestError> {
        let is_user = |message: &Message<'_>| message.role == Role::User;
        self.current_turn = request.messages.iter().rposition(is_user).unwrap_or(0);
        for (index, message) in request.turns() {
            if message.role == Role::Tool {
                self.hold_result(index, message)?;
                continue;
            }
            self.write_results()?;
            match message.role {
                Role::Assistant => self.model(index, message)?,
                Role::User | Role::System | Role::Developer | Role::Tool | Role::Function => self.user(index, message)?,
            }
        }
        self.write_results()?;
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
            None => {}
            // The API refuses empty text.
            Some(Content::Text(text)) if text.is_empty() => {}
            Some(Content::Text(text)) => {
                self.turn_to(Speaker::User);
                write_text(self.json, name, *text);
            }
            Some(Content::Parts(parts)) => {
                for (at, part) in parts.iter().enumerate() {
                    if part.text.is_some_and(JsonStr::is_empty) {
                        continue;
                    }
                    self.turn_to(Speaker::User);
                    match part.text {
                        Some(text) => write_text(self.json, name.take(), text),
                        None => media::write_part(self.json, part, &format!("messages[{index}].content[{at}]"))?,
                    }
                }
            }
        }
        Ok(())
    }

    /// Text first, then calls; each with the signature that it came with.
    fn model(&mut self, index: usize, message: &'r Message<'a>) -> Result<(), RequestError> {
        let own = || message.reasoning_details().iter().filter(|detail| detail.is_of(REASONING_FORMAT));
        let loose = own().rfind(|detail| detail.id.is_none() && detail.data.is_some()).and_then(|detail| detail.data);
        self.spoken(message, loose);

        let calls = message.tool_calls();
        if calls.is_empty() {
            return Ok(());
        }
        self.calls = calls;
        for (at, call) in calls.iter().enumerate() {
            let id =
                call.id.as_deref().ok_or_else(|| RequestError::invalid(format!("messages[{index}].tool_calls[{at}].id"), "is required"))?;
            self.turn_to(Speaker::Model);
            self.json.open_object();
            self.json.object_at("functionCall");
            write_call_id(self.json, id);
            self.json.literal_at("name", call.function.name);
            self.json.key("args");
            self.json.raw(&call.function.arguments_object());
            self.json.close_object();
            match own().find(|detail| detail.id.as_deref() == Some(id)).and_then(|detail| detail.data) {
                Some(signature) => self.json.literal_at("thoughtSignature", signature),
                // Only the first of parallel calls is ever signed.
                None if at == 0 && self.marks_foreign_calls && index >= self.current_turn => {
                    self.json.string_at("thoughtSignature", FOREIGN_CALL)
                }
                None => {}
            }
            self.json.close_object();
        }
        Ok(())
    }

    /// Text of the assistant; the signature goes with its last part, or stands alone where there is no text.
    fn spoken(&mut self, message: &Message<'_>, signature: Option<JsonStr<'_>>) {
        let one;
        let texts: &[JsonStr<'_>] = match &message.content {
            Some(Content::Text(text)) if !text.is_empty() => {
                one = [*text];
                &one
            }
            Some(Content::Parts(parts)) => {
                let texts: Vec<_> = parts.iter().filter_map(|part| part.text.or(part.refusal)).collect();
                return self.texts(&texts, message.name, signature);
            }
            Some(Content::Text(_)) | None => &[],
        };
        self.texts(texts, message.name, signature);
    }

    fn texts(&mut self, texts: &[JsonStr<'_>], mut name: Option<JsonStr<'_>>, signature: Option<JsonStr<'_>>) {
        for (at, text) in texts.iter().enumerate() {
            self.turn_to(Speaker::Model);
            self.json.open_object();
            write_text_member(self.json, name.take(), *text);
            if let Some(signature) = signature.filter(|_| at + 1 == texts.len()) {
                self.json.literal_at("thoughtSignature", signature);
            }
            self.json.close_object();
        }
        if let (Some(signature), true) = (signature, texts.is_empty()) {
            self.turn_to(Speaker::Model);
            self.json.open_object();
            self.json.string_at("text", "");
            self.json.literal_at("thoughtSignature", signature);
            self.json.close_object();
        }
    }

    fn hold_result(&mut self, index: usize, message: &'r Message<'a>) -> Result<(), RequestError> {
        let place = message
            .tool_call_id
            .as_deref()
            .and_then(|id| self.calls.iter().position(|call| call.id.as_deref() == Some(id)))
            .ok_or_else(|| {
                RequestError::invalid(format!("messages[{index}].tool_call_id"), "does not name a call of the assistant message before it")
            })?;
        self.results.push((place, index, message));
        Ok(())
    }

    /// Writes the results held back, in the order of their calls, which is how the API matches them.
    fn write_results(&mut self) -> Result<(), RequestError> {
        let mut results = std::mem::take(&mut self.results);
        results.sort_by_key(|(place, ..)| *place);
        for (place, index, message) in results {
            self.turn_to(Speaker::Functions);
            self.json.open_object();
            self.json.object_at("functionResponse");
            if let Some(id) = &message.tool_call_id {
                write_call_id(self.json, id);
            }
            self.json.literal_at("name", self.calls[place].function.name);
            write_result(self.json, index, message)?;
            self.json.close_object();
            self.json.close_object();
        }
        Ok(())
    }

    /// Makes sure the open content is one of `speaker`.
    fn turn_to(&mut self, speaker: Speaker) {
        if self.speaker == Some(speaker) {
            return;
        }
        if self.speaker.is_some() {
            self.json.close_array();
            self.json.close_object();
        }
        self.speaker = Some(speaker);
        self.json.open_object();
        self.json.string_at(
            "role",
            match speaker {
                Speaker::User | Speaker::Functions => "user",
                Speaker::Model => "model",
            },
        );
        self.json.array_at("parts");
    }
}

/// Writes `response`, which must be an object: the tool's own when it answered with one, else its text under `output`.
/// Pictures and sounds go beside it.
fn write_result(json: &mut Json<'_>, index: usize, message: &Message<'_>) -> Result<(), RequestError> {
    json.key("response");
    match &message.content {
        Some(Content::Text(text)) => {
            write_output(json, &[*text]);
            Ok(())
        }
        Some(Content::Parts(parts)) => {
            let texts: Vec<_> = parts.iter().filter_map(|part| part.text).collect();
            write_output(json, &texts);
            if texts.len() == parts.len() {
                return Ok(());
            }
            json.array_at("parts");
            for (at, part) in parts.iter().enumerate().filter(|(_, part)| part.text.is_none()) {
                media::write_part(json, part, &format!("messages[{index}].content[{at}]"))?;
            }
            json.close_array();
            Ok(())
        }
        None => {
            write_output(json, &[]);
            Ok(())
        }
    }
}

fn write_output(json: &mut Json<'_>, texts: &[JsonStr<'_>]) {
    if let [text] = texts
        && text.inner().starts_with('{')
    {
        let decoded = text.decode();
        if serde_json::from_str::<&serde_json::value::RawValue>(&decoded).is_ok() {
            return json.raw(decoded.trim_end());
        }
    }
    json.open_object();
    json.key("output");
    json.joined(texts);
    json.close_object();
}

fn write_call_id(json: &mut Json<'_>, id: &str) {
    if !id.starts_with(OWN_CALL_ID) {
        json.string_at("id", id);
    }
}

fn write_text(json: &mut Json<'_>, name: Option<JsonStr<'_>>, text: JsonStr<'_>) {
    json.open_object();
    write_text_member(json, name, text);
    json.close_object();
}

fn write_text_member(json: &mut Json<'_>, name: Option<JsonStr<'_>>, text: JsonStr<'_>) {
    json.key("text");
    match name {
        None => json.literal(text),
        Some(name) => json.prefixed(name, ": ", text),
    }
}
