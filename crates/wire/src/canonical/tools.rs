//! Tool definitions and the choice among them.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    message::CacheControl,
    text::{JsonStr, Text},
};
use crate::error::RequestError;

/// One entry of `tools`.
#[derive(Debug, Deserialize)]
pub(crate) struct Tool<'a> {
    #[serde(borrow, rename = "type", default)]
    kind: Option<Text<'a>>,
    #[serde(borrow, default)]
    function: Option<FunctionTool<'a>>,
    #[serde(borrow, default)]
    pub(crate) cache_control: Option<CacheControl<'a>>,
}

/// A function that the caller runs.
#[derive(Debug, Deserialize)]
pub(crate) struct FunctionTool<'a> {
    #[serde(borrow)]
    pub(crate) name: JsonStr<'a>,
    #[serde(borrow, default)]
    pub(crate) description: Option<JsonStr<'a>>,
    /// JSON Schema of the arguments, in the caller's own property order.
    #[serde(borrow, default)]
    pub(crate) parameters: Option<&'a RawValue>,
    #[serde(default)]
    pub(crate) strict: Option<bool>,
}

impl<'a> Tool<'a> {
    /// The function; `index` is the tool's place in the caller's list.
    pub(crate) fn function(&self, index: usize) -> Result<&FunctionTool<'a>, RequestError> {
        match (&self.function, self.kind.as_deref()) {
            (Some(function), None | Some("function")) => Ok(function),
            _ => Err(RequestError::invalid(format!("tools[{index}].type"), "this model can only be given tools of type function")),
        }
    }
}

/// Which tools may or must be called.
#[derive(Debug)]
pub(crate) enum ToolChoice<'a> {
    Auto,
    None,
    Required,
    Function(JsonStr<'a>),
}

impl<'a> ToolChoice<'a> {
    /// Reads the word or the object.
    pub(crate) fn parse(raw: &'a RawValue) -> Result<ToolChoice<'a>, RequestError> {
        #[derive(Deserialize)]
        struct Named<'a> {
            #[serde(borrow, default)]
            function: Option<Name<'a>>,
        }
        #[derive(Deserialize)]
        struct Name<'a> {
            #[serde(borrow)]
            name: JsonStr<'a>,
        }

        let invalid = || RequestError::invalid("tool_choice", "expected auto, none, required or a named function");
        if let Some(word) = JsonStr::from_raw(raw) {
            return match &*word.decode() {
                "auto" => Ok(ToolChoice::Auto),
                "none" => Ok(ToolChoice::None),
                "required" | "any" => Ok(ToolChoice::Required),
                _ => Err(invalid()),
            };
        }
        let named: Named<'a> = serde_json::from_str(raw.get()).map_err(|_| invalid())?;
        named.function.map(|function| ToolChoice::Function(function.name)).ok_or_else(invalid)
    }
}
