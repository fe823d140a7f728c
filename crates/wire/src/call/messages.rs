//! The one pass over `messages`: roles, kinds of content, how much text, and where the first messages are.

use smallvec::SmallVec;

use super::{Inputs, not_json};
use crate::{
    error::RequestError,
    scan::{Cursor, Kind, ScanError, Span},
};

/// Text bytes counted for the frame of each message; vendors add three or four tokens.
const FRAME_BYTES: u64 = 12;

/// How much of the start and of the end of a message identifies it.
const HASHED_HEAD: usize = 1024;
const HASHED_TAIL: usize = 128;

/// Facts of the messages. Spans lie in the body.
#[derive(Debug, Clone, Default)]
pub(crate) struct Messages {
    /// The array.
    pub(crate) span: Span,
    pub(crate) count: usize,
    pub(crate) inputs: Inputs,
    /// Bytes of text as sent, base64 data left out.
    pub(crate) text_bytes: u64,
    pub(crate) media_parts: u32,
    pub(crate) cache_marked: bool,
    /// The role values (with quotes) that say `developer`.
    pub(crate) developer_roles: SmallVec<[Span; 2]>,
    /// Content of the first system or developer message.
    first_system: Option<Span>,
    /// Content of the first other message.
    first_other: Option<Span>,
}

impl Messages {
    /// Consumes the array the cursor stands before.
    pub(crate) fn read(cursor: &mut Cursor<'_>, max_messages: usize) -> Result<Self, RequestError> {
        if cursor.kind().map_err(not_json)? != Kind::Array {
            return Err(RequestError::invalid("messages", "`messages` must be an array"));
        }
        let mut messages = Self::default();
        let start = cursor.position();
        let mut array = cursor.enter_array().map_err(not_json)?;
        while cursor.next_element(&mut array).map_err(not_json)? {
            if messages.count == max_messages {
                return Err(RequestError::invalid("messages", format!("more than {max_messages} messages")));
            }
            messages.read_message(cursor)?;
            messages.count += 1;
        }
        if messages.count == 0 {
            return Err(RequestError::invalid("messages", "`messages` must not be empty"));
        }
        messages.span = Span { start, end: cursor.position() };
        Ok(messages)
    }

    /// Whether any message is a system or developer message.
    pub(crate) fn has_system(&self) -> bool {
        self.first_system.is_some()
    }

    pub(crate) fn conversation_hash(&self, body: &[u8]) -> u64 {
        let mut hash = Fold::default();
        for (tag, span) in [(1, self.first_system), (2, self.first_other)] {
            let Some(span) = span else { continue };
            let bytes = span.of(body);
            hash.word(tag);
            hash.word(bytes.len() as u64);
            hash.bytes(&bytes[..bytes.len().min(HASHED_HEAD)]);
            hash.bytes(&bytes[bytes.len().saturating_sub(HASHED_TAIL)..]);
        }
        hash.0
    }

    fn read_message(&mut self, cursor: &mut Cursor<'_>) -> Result<(), RequestError> {
        let at = self.count;
        if cursor.kind().map_err(not_json)? != Kind::Object {
            return Err(RequestError::invalid(format!("messages[{at}]"), "a message must be an object"));
        }
        let mut role = None;
        let mut content = Span::default();
        let bytes = cursor.bytes();
        let mut object = cursor.enter_object().map_err(not_json)?;
        while let Some(key) = cursor.next_key(&mut object).map_err(not_json)? {
            let kind = cursor.kind().map_err(not_json)?;
            if key.is(bytes, "role") {
                if kind != Kind::String {
                    return Err(RequestError::invalid(format!("messages[{at}].role"), "`role` must be a string"));
                }
                role = Some(cursor.string().map_err(not_json)?);
            } else if key.is(bytes, "content") {
                let start = cursor.position();
                self.read_content(cursor, kind)?;
                content = Span { start, end: cursor.position() };
            } else {
                let value = cursor.skip().map_err(not_json)?;
                if key.is(bytes, "cache_control") && kind != Kind::Null {
                    self.cache_marked = true;
                } else if matches!(kind, Kind::Array | Kind::Object | Kind::String) {
                    self.text_bytes += value.len() as u64;
                }
            }
        }
        let Some(role) = role else {
            return Err(RequestError::invalid(format!("messages[{at}].role"), "`role` is required"));
        };
        let system = match &*role.decode(bytes) {
            "developer" => {
                self.developer_roles.push(role.outer());
                true
            }
            "system" => true,
            "user" | "assistant" | "tool" | "function" => false,
            _ => {
                let message = "`role` must be one of system, developer, user, assistant, tool";
                return Err(RequestError::invalid(format!("messages[{at}].role"), message));
            }
        };
        let first = if system { &mut self.first_system } else { &mut self.first_other };
        first.get_or_insert(content);
        self.text_bytes += FRAME_BYTES;
        Ok(())
    }

    fn read_content(&mut self, cursor: &mut Cursor<'_>, kind: Kind) -> Result<(), RequestError> {
        let at = self.count;
        match kind {
            Kind::Null => {
                cursor.skip().map_err(not_json)?;
            }
            Kind::String => self.text_bytes += cursor.string().map_err(not_json)?.inner.len() as u64,
            Kind::Array => {
                let mut array = cursor.enter_array().map_err(not_json)?;
                let mut index = 0;
                while cursor.next_element(&mut array).map_err(not_json)? {
                    if cursor.kind().map_err(not_json)? != Kind::Object {
                        let param = format!("messages[{at}].content[{index}]");
                        return Err(RequestError::invalid(param, "a content part must be an object"));
                    }
                    self.read_part(cursor).map_err(not_json)?;
                    index += 1;
                }
            }
            Kind::Object | Kind::Number | Kind::Bool => {
                let param = format!("messages[{at}].content");
                return Err(RequestError::invalid(param, "`content` must be a string or an array of parts"));
            }
        }
        Ok(())
    }

    /// Parts of unknown types are the upstream's business.
    fn read_part(&mut self, cursor: &mut Cursor<'_>) -> Result<(), ScanError> {
        let bytes = cursor.bytes();
        let mut object = cursor.enter_object()?;
        while let Some(key) = cursor.next_key(&mut object)? {
            let kind = cursor.kind()?;
            if kind == Kind::String && key.is(bytes, "type") {
                let word = cursor.string()?;
                let media = match &*word.decode(bytes) {
                    "image_url" => &mut self.inputs.image,
                    "file" => &mut self.inputs.file,
                    "input_audio" => &mut self.inputs.audio,
                    "video_url" => &mut self.inputs.video,
                    _ => continue,
                };
                *media = true;
                self.media_parts += 1;
            } else if kind == Kind::String {
                let text = cursor.string()?.inner;
                // A link may stand where an object belongs; inline data is base64.
                if !text.of(bytes).starts_with(b"data:") {
                    self.text_bytes += text.len() as u64;
                }
            } else {
                // Objects are media sources (links or base64, neither of them text) or cache marks.
                cursor.skip()?;
                if kind != Kind::Null && key.is(bytes, "cache_control") {
                    self.cache_marked = true;
                }
            }
        }
        Ok(())
    }
}

/// A multiply-and-fold hash over sixteen bytes at a time: a few lines that never change, so that edges of different versions agree.
struct Fold(u64);

impl Default for Fold {
    fn default() -> Self {
        Self(0x9E37_79B9_7F4A_7C15)
    }
}

impl Fold {
    fn word(&mut self, word: u64) {
        self.pair(word, 0);
    }

    fn pair(&mut self, low: u64, high: u64) {
        let product = u128::from(self.0 ^ low ^ 0xA076_1D64_78BD_642F) * u128::from(high ^ 0xE703_7ED1_A0B4_28DB);
        self.0 = (product as u64) ^ ((product >> 64) as u64) ^ self.0.rotate_left(23);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        let (pairs, rest) = bytes.as_chunks::<16>();
        for pair in pairs {
            let pair = u128::from_le_bytes(*pair);
            self.pair(pair as u64, (pair >> 64) as u64);
        }
        let mut last = [0; 16];
        last[..rest.len()].copy_from_slice(rest);
        let last = u128::from_le_bytes(last);
        self.pair(last as u64, (last >> 64) as u64);
    }
}
