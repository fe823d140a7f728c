//! Lays a preset under a request: what the request does not say, the preset says.

use super::{ChatCall, ReadLimits, not_json};
use crate::{
    error::RequestError,
    field::Field,
    json,
    scan::{Cursor, Kind, Span},
};

/// The preset's own name for a system prompt, which is put before the messages of a request that brings none.
const SYSTEM_PROMPT: &str = "system_prompt";

/// A model name that stands for a whole preset, so that the preset's model replaces it.
const PRESET_MODEL: &str = "@preset/";

impl ChatCall {
    /// Merges a preset, given as a JSON object. The merge is shallow and the request wins; `tools` are united by name; a
    /// `system_prompt` of the preset is used when the request has no system message. The request's `preset` field has done its
    /// duty and is removed.
    pub fn with_preset(self, fields: &str) -> Result<Self, RequestError> {
        let preset = fields.as_bytes();
        let preset_members = read_members(preset)?;
        let mut body = Vec::with_capacity(self.body.len() + preset.len());
        body.push(b'{');
        let mut out = json::Members::starting(&mut body);
        let preset_model = self.model().is_some_and(|model| model.starts_with(PRESET_MODEL));
        for member in &self.members {
            let replaced =
                member.kind == Kind::Null || member.field == Some(Field::Preset) || (member.field == Some(Field::Model) && preset_model);
            if replaced {
                continue;
            }
            let theirs = |name: &str| preset_members.iter().find(|(key, kind, _)| key == name && *kind != Kind::Null);
            let name = member.key.decode(&self.body);
            let value = out.key(&name);
            match member.field {
                Some(Field::Tools) if let Some((_, Kind::Array, tools)) = theirs("tools") => {
                    unite_tools(value, member.value.of(&self.body), tools.of(preset))?;
                }
                Some(Field::Messages)
                    if let Some((_, Kind::String, prompt)) = theirs(SYSTEM_PROMPT)
                        && !self.messages.has_system() =>
                {
                    value.extend_from_slice(b"[{\"role\":\"system\",\"content\":");
                    value.extend_from_slice(prompt.of(preset));
                    value.extend_from_slice(b"},");
                    // The array is not empty and starts with its bracket.
                    value.extend_from_slice(&member.value.of(&self.body)[1..]);
                }
                _ => value.extend_from_slice(member.value.of(&self.body)),
            }
        }
        for (name, kind, value) in &preset_members {
            let given = match name.as_str() {
                SYSTEM_PROMPT | "messages" | "preset" => true,
                "model" if preset_model => false,
                name => self.field(name).is_some(),
            };
            if !given && *kind != Kind::Null {
                out.raw(name, value.of(preset));
            }
        }
        body.push(b'}');
        let limits = ReadLimits { max_body: usize::MAX, max_messages: usize::MAX, max_models: usize::MAX, max_depth: u32::MAX };
        Self::read(body.into(), &limits)
    }
}

fn read_members(object: &[u8]) -> Result<Vec<(String, Kind, Span)>, RequestError> {
    let broken = |error| RequestError { param: Some("preset".to_owned()), ..not_json(error) };
    let mut members = Vec::new();
    let mut cursor = Cursor::open(object).map_err(broken)?;
    let mut pull = cursor.enter_object().map_err(broken)?;
    while let Some(key) = cursor.next_key(&mut pull).map_err(broken)? {
        let kind = cursor.kind().map_err(broken)?;
        members.push((key.decode(object).into_owned(), kind, cursor.skip().map_err(broken)?));
    }
    cursor.finish().map_err(broken)?;
    Ok(members)
}

/// The request's tools, then those of the preset whose identity (function name, or else the whole definition) is new.
fn unite_tools(out: &mut Vec<u8>, ours: &[u8], theirs: &[u8]) -> Result<(), RequestError> {
    let parse = |tools: &[u8]| -> Result<Vec<serde_json::Value>, RequestError> {
        serde_json::from_slice(tools).map_err(|_| RequestError::invalid("tools", "`tools` must be an array"))
    };
    let identity = |tool: &serde_json::Value| match tool["function"]["name"].as_str() {
        Some(name) => name.to_owned(),
        None => tool.to_string(),
    };
    let known: Vec<String> = parse(ours)?.iter().map(identity).collect();
    let mut comma = !known.is_empty();
    let body = ours.strip_suffix(b"]").unwrap_or(ours);
    out.extend_from_slice(body.trim_ascii_end());
    for tool in parse(theirs)? {
        if known.contains(&identity(&tool)) {
            continue;
        }
        if comma {
            out.push(b',');
        }
        comma = true;
        out.extend_from_slice(tool.to_string().as_bytes());
    }
    out.push(b']');
    Ok(())
}
