//! What shape the answer's text must have.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::text::{JsonStr, Text};
use crate::error::RequestError;

/// The `response_format` object.
#[derive(Debug, Deserialize)]
pub(crate) struct OutputFormat<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow, default)]
    json_schema: Option<NamedSchema<'a>>,
}

/// A JSON Schema under a name.
#[derive(Debug, Deserialize)]
pub(crate) struct NamedSchema<'a> {
    #[serde(borrow, default)]
    pub(crate) description: Option<JsonStr<'a>>,
    #[serde(borrow, default)]
    pub(crate) schema: Option<&'a RawValue>,
    #[serde(default)]
    pub(crate) strict: Option<bool>,
}

impl<'a> NamedSchema<'a> {
    /// The schema's JSON; without one, any object will do.
    pub(crate) fn schema(&self) -> &'a str {
        self.schema.map_or("{\"type\":\"object\"}", RawValue::get)
    }
}

/// The shapes that a translation distinguishes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum OutputShape<'r, 'a> {
    /// Anything.
    Text,
    /// Any JSON object.
    Object,
    /// JSON after this schema.
    Schema(&'r NamedSchema<'a>),
    /// A grammar or program, which no translated dialect can express.
    Other,
}

impl<'a> OutputFormat<'a> {
    /// The shape asked for.
    pub(crate) fn shape(&self) -> Result<OutputShape<'_, 'a>, RequestError> {
        match &*self.kind {
            "text" => Ok(OutputShape::Text),
            "json_object" => Ok(OutputShape::Object),
            "json_schema" => self
                .json_schema
                .as_ref()
                .map(OutputShape::Schema)
                .ok_or_else(|| RequestError::invalid("response_format.json_schema", "is required with type json_schema")),
            _ => Ok(OutputShape::Other),
        }
    }
}
