//! Writes the system prompt: every system and developer message of the conversation, in order, as one list of blocks.

use super::content::{CachedText, write_cache, write_text};
use crate::{
    canonical::{Content, Json, Message, Request},
    error::RequestError,
};

/// Writes the system blocks into an open array.
pub(super) fn write(request: &Request<'_>, json: &mut Json<'_>) -> Result<(), RequestError> {
    for (index, message) in request.system() {
        let mut name = message.name;
        let texts = texts_of(message, index)?;
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

/// Whether any system text would be written.
pub(super) fn is_given(request: &Request<'_>) -> bool {
    request.system().any(|(_, message)| match &message.content {
        Some(Content::Text(text)) => !text.is_blank(),
        Some(Content::Parts(parts)) => !parts.is_empty(),
        None => false,
    })
}

fn texts_of<'m, 'a>(message: &'m Message<'a>, index: usize) -> Result<Vec<CachedText<'m, 'a>>, RequestError> {
    match &message.content {
        None => Ok(Vec::new()),
        Some(Content::Text(text)) => Ok(if text.is_blank() { Vec::new() } else { vec![(*text, None)] }),
        Some(Content::Parts(parts)) => {
            let mut texts = Vec::with_capacity(parts.len());
            for (at, part) in parts.iter().enumerate() {
                let text = part.text.ok_or_else(|| {
                    RequestError::invalid(format!("messages[{index}].content[{at}].type"), "system messages hold text only")
                })?;
                if !text.is_blank() {
                    texts.push((text, part.cache_control.as_ref()));
                }
            }
            Ok(texts)
        }
    }
}
