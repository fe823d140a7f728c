//! Writes the system prompt: every system and developer message of the conversation, in order, as one list of blocks.

use super::content::{write_cache, write_text};
use crate::{
    canonical::{Json, Request},
    error::RequestError,
};

/// Writes the system blocks into an open array.
pub(super) fn write(request: &Request<'_>, json: &mut Json<'_>) -> Result<(), RequestError> {
    for (index, message) in request.system() {
        let mut name = message.name;
        let texts = message.system_texts(index)?;
        let last = texts.len().saturating_sub(1);
        for (at, (text, own)) in texts.into_iter().enumerate() {
            json.open_object();
            write_text(json, name.take(), text);
            write_cache(json, own.or(message.cache_control.as_ref().filter(|_| at == last)))?;
            json.close_object();
        }
    }
    Ok(())
}
