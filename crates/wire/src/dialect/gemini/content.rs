//! Writes the conversation: the caller's messages as contents of the roles `user` and `model`.

use smallvec::SmallVec;

use super::{OWN_CALL_ID, REASONING_FORMAT};
use crate::{
    canonical::{Content, DataUrl, File, Json, JsonStr, Message, Part, Request, Role, ToolCall},
    error::{ErrorType, RequestError},
};

/// Google's own word for "this call was not made by a model of yours": newer models refuse calls without a signature.
const FOREIGN_CALL: &str = "skip_thought_signature_validator";

/// Writes the system parts into an open array.
pub(super) fn write_system(request: &Request<'_>, json: &mut Json<'_>) -> Result<(), RequestError> {
    for (index, message) in request.system() {
        let mut name = message.name;
        match &message.content {
            None => {}
            Some(Content::Text(text)) => write_text(json, name, *text),
            Some(Content::Parts(parts)) => {
                for (at, part) in parts.iter().enumerate() {
                    let text = part.text.ok_or_else(|| {
                        RequestError::invalid(format!("messages[{index}].content[{at}].type"), "system messages hold text only")
                    })?;
                    write_text(json, name.take(), text);
                }
            }
        }
    }
    Ok(())
}

/// Whether there is anything for [`write_system`] to write.
pub(super) fn has_system(request: &Request<'_>) -> bool {
    request.system().any(|(_, message)| match &message.content {
        None => false,
        Some(Content::Text(_)) => true,
        Some(Content::Parts(parts)) => !parts.is_empty(),
    })
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
        Conversation { json, speaker: None, calls: &[], results: SmallVec::new(), marks_foreign_calls }
    }

    /// Writes every turn and closes the last.
    pub(super) fn write(&mut self, request: &'r Request<'a>) -> Result<(), RequestError> {
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
            Some(Content::Text(text)) => {
                self.turn_to(Speaker::User);
                write_text(self.json, name, *text);
            }
            Some(Content::Parts(parts)) => {
                for (at, part) in parts.iter().enumerate() {
                    self.turn_to(Speaker::User);
                    match part.text {
                        Some(text) => write_text(self.json, name.take(), text),
                        None => write_media_part(self.json, part, &format!("messages[{index}].content[{at}]"))?,
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
                None if at == 0 && self.marks_foreign_calls => self.json.string_at("thoughtSignature", FOREIGN_CALL),
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
                write_media_part(json, part, &format!("messages[{index}].content[{at}]"))?;
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

fn write_media_part(json: &mut Json<'_>, part: &Part<'_>, path: &str) -> Result<(), RequestError> {
    let invalid = |field: &str, problem: &str| RequestError::invalid(format!("{path}.{field}"), problem);
    json.open_object();
    match (&*part.kind, part) {
        ("image_url", Part { image_url: Some(image), .. }) => {
            write_address(json, &image.url, "image/jpeg")
                .map_err(|problem| RequestError { error_type: ErrorType::InvalidImage, ..invalid("image_url.url", problem) })?;
        }
        ("video_url", Part { video_url: Some(video), .. }) => {
            write_address(json, &video.url, "video/mp4").map_err(|problem| invalid("video_url.url", problem))?;
        }
        ("input_audio", Part { input_audio: Some(audio), .. }) => {
            json.object_at("inlineData");
            json.string_at("mimeType", &format!("audio/{}", &*audio.format));
            json.literal_at("data", audio.data);
            json.close_object();
        }
        ("file", Part { file: Some(file), .. }) => {
            write_file(json, file).map_err(|problem| invalid("file", problem))?;
        }
        _ => return Err(invalid("type", "unknown part type, or its member is missing")),
    }
    json.close_object();
    Ok(())
}

fn write_file(json: &mut Json<'_>, file: &File<'_>) -> Result<(), &'static str> {
    if let Some(id) = file.file_id {
        json.object_at("fileData");
        json.literal_at("fileUri", id);
        json.close_object();
        return Ok(());
    }
    let address = file.file_data.as_deref().ok_or("file_data or file_id is required")?;
    write_address(json, address, "application/pdf")
}

/// Writes `inlineData` or `fileData`; `usual` is the media type when neither the URL nor its ending names one.
fn write_address(json: &mut Json<'_>, url: &str, usual: &'static str) -> Result<(), &'static str> {
    if let Some(data) = DataUrl::parse(url) {
        let data = data?;
        json.object_at("inlineData");
        json.string_at("mimeType", if data.media_type.is_empty() { usual } else { data.media_type });
        json.plain_at("data", data.data);
        json.close_object();
        return Ok(());
    }
    if !["https://", "http://", "gs://"].iter().any(|scheme| url.starts_with(scheme)) {
        return Err("expected an http, https, gs or data URL");
    }
    json.object_at("fileData");
    if !knows_its_type(url) {
        json.string_at("mimeType", media_type_of(url).unwrap_or(usual));
    }
    json.string_at("fileUri", url);
    json.close_object();
    Ok(())
}

/// Uploads and videos of Google's own services, whose type it looks up itself.
fn knows_its_type(url: &str) -> bool {
    ["https://generativelanguage.googleapis.com/", "https://www.youtube.com/", "https://youtube.com/", "https://youtu.be/"]
        .iter()
        .any(|start| url.starts_with(start))
}

fn media_type_of(url: &str) -> Option<&'static str> {
    let path = url.split(['?', '#']).next()?;
    let (_, ending) = path.rsplit_once('.')?;
    let media_type = match ending.to_ascii_lowercase().as_str() {
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "gif" => "image/gif",
        "heic" => "image/heic",
        "pdf" => "application/pdf",
        "txt" => "text/plain",
        "mp4" => "video/mp4",
        "mov" => "video/quicktime",
        "webm" => "video/webm",
        "mp3" => "audio/mpeg",
        "wav" => "audio/wav",
        _ => return None,
    };
    Some(media_type)
}
