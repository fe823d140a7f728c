//! Decides how an answer of a wanted shape is obtained; the reasons are in the module's own text.

use crate::{
    canonical::{NamedSchema, OutputShape, Parameters, Request},
    error::RequestError,
};

/// How the wanted shape of the answer is obtained.
#[derive(Clone, Copy)]
pub(super) enum Output<'r, 'a> {
    /// No shape was asked for.
    Free,
    /// The API's own constraint.
    Native(&'r NamedSchema<'a>),
    /// One forced tool, with the schema if there is one.
    Tool(Option<&'r NamedSchema<'a>>),
    /// A sentence in the system prompt.
    Instruction(Option<&'r NamedSchema<'a>>),
}

impl<'r, 'a> Output<'r, 'a> {
    /// `can_force` is true where a forced tool would neither hide the caller's own tools nor meet thinking, which excludes it.
    pub(super) fn choose(
        request: &'r Request<'a>,
        parameters: &mut Parameters<'_>,
        can_force: bool,
    ) -> Result<Output<'r, 'a>, RequestError> {
        let Some(format) = &request.response_format else {
            return Ok(Output::Free);
        };
        let native = parameters.supports("structured_outputs");
        let fallback = |schema| if can_force { Output::Tool(schema) } else { Output::Instruction(schema) };
        let shape = format.shape()?;
        if matches!(shape, OutputShape::Text) {
            return Ok(Output::Free);
        }
        if !native && !parameters.supports("response_format") {
            parameters.drop("response_format");
            return Ok(Output::Free);
        }
        Ok(match shape {
            // The API's constraint demands closed objects throughout, which only strict schemas promise.
            OutputShape::Schema(schema) if native && (schema.strict == Some(true) || !can_force) => Output::Native(schema),
            OutputShape::Schema(schema) => fallback(Some(schema)),
            OutputShape::Object => fallback(None),
            OutputShape::Text | OutputShape::Other => {
                parameters.drop("response_format");
                Output::Free
            }
        })
    }

    /// The sentence to add to the system prompt, if that is the way.
    pub(super) fn instruction(self) -> Option<String> {
        match self {
            Output::Instruction(None) => Some("Answer with one JSON object and nothing else: no prose, no code fence.".to_owned()),
            Output::Instruction(Some(schema)) => Some(format!(
                "Answer with JSON that is valid under this JSON Schema and nothing else: no prose, no code fence.\n{}",
                schema.schema()
            )),
            Output::Free | Output::Native(_) | Output::Tool(_) => None,
        }
    }
}
