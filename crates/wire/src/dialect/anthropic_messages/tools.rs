//! Writes tool definitions and the choice among them.

use super::{ANSWER_TOOL, content, request::Encoder, structured::Output};
use crate::{
    canonical::{Json, NamedSchema, ToolChoice},
    error::RequestError,
};

impl Encoder<'_, '_> {
    /// Writes `tools`: the caller's, the search the API runs itself, and the stand-in for structured output.
    pub(super) fn write_tools(&mut self, json: &mut Json<'_>) -> Result<(), RequestError> {
        let search = self.parameters.take("web_search_options", self.request.web_search_options).is_some();
        let answer = match self.output {
            Output::Tool(schema) => Some(schema),
            Output::Free | Output::Native(_) | Output::Instruction(_) => None,
        };
        if self.tools.is_empty() && !search && answer.is_none() {
            return Ok(());
        }
        json.array_at("tools");
        for (index, tool) in self.tools.iter().enumerate() {
            let function = tool.function(index)?;
            json.open_object();
            json.literal_at("name", function.name);
            if let Some(description) = function.description {
                json.literal_at("description", description);
            }
            json.key("input_schema");
            write_object_schema(json, function.parameters.map(serde_json::value::RawValue::get));
            if function.strict == Some(true) && self.parameters.supports("structured_outputs") {
                json.key("strict");
                json.boolean(true);
            }
            content::write_cache(json, tool.cache_control.as_ref())?;
            json.close_object();
        }
        if search {
            json.open_object();
            json.string_at("type", "web_search_20250305");
            json.string_at("name", "web_search");
            json.close_object();
        }
        if let Some(schema) = answer {
            json.open_object();
            json.string_at("name", ANSWER_TOOL);
            json.key("description");
            match schema.and_then(|schema| schema.description) {
                Some(description) => json.literal(description),
                None => json.string("Gives the whole answer to the user as structured data."),
            }
            json.key("input_schema");
            write_object_schema(json, schema.map(NamedSchema::schema));
            json.close_object();
        }
        json.close_array();
        Ok(())
    }

    /// Writes `tool_choice`, which also carries the wish for one call at a time.
    pub(super) fn write_tool_choice(&mut self, json: &mut Json<'_>) {
        if let Output::Tool(_) = self.output {
            json.object_at("tool_choice");
            json.string_at("type", "tool");
            json.string_at("name", ANSWER_TOOL);
            json.close_object();
            return;
        }
        let parallel = self.request.parallel_tool_calls.filter(|_| !self.tools.is_empty());
        let serial = self.parameters.take("parallel_tool_calls", parallel) == Some(false);
        let kind = match (&self.tool_choice, serial) {
            (None, false) => return,
            (None | Some(ToolChoice::Auto), _) => "auto",
            (Some(ToolChoice::None), _) => "none",
            (Some(ToolChoice::Required), _) => "any",
            (Some(ToolChoice::Function(_)), _) => "tool",
        };
        json.object_at("tool_choice");
        json.string_at("type", kind);
        if let Some(ToolChoice::Function(name)) = self.tool_choice {
            json.literal_at("name", name);
        }
        if serial && kind != "none" {
            json.key("disable_parallel_tool_use");
            json.boolean(true);
        }
        json.close_object();
    }
}

/// The API insists on `"type": "object"` at the top of a tool's schema, which callers often leave out.
fn write_object_schema(json: &mut Json<'_>, schema: Option<&str>) {
    #[derive(serde::Deserialize)]
    struct Probe {
        #[serde(rename = "type")]
        kind: Option<serde::de::IgnoredAny>,
    }

    const ANY_OBJECT: &str = "{\"type\":\"object\",\"properties\":{}}";
    let Some(schema) = schema.filter(|schema| schema.starts_with('{')) else {
        return json.raw(ANY_OBJECT);
    };
    match serde_json::from_str::<Probe>(schema) {
        Ok(Probe { kind: None }) => {
            let members = schema[1..].trim_start();
            if members.starts_with('}') {
                return json.raw(ANY_OBJECT);
            }
            json.open_object();
            json.string_at("type", "object");
            json.raw(members);
        }
        Ok(Probe { kind: Some(_) }) | Err(_) => json.raw(schema),
    }
}
