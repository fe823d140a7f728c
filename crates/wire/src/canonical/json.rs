//! Writes JSON straight into a byte buffer.
//!
//! No value tree and no formatter state: whether a comma is due follows from the last byte written. Only what the
//! translated hot path needs is here; the caller is responsible for closing what it opened.

use bytes::BytesMut;

use super::text::JsonStr;

/// A JSON document under construction at the end of `out`.
pub(crate) struct Json<'b> {
    out: &'b mut BytesMut,
}

impl<'b> Json<'b> {
    /// Appends to `out`, which must be empty or end inside an open container.
    pub(crate) fn new(out: &'b mut BytesMut) -> Json<'b> {
        Json { out }
    }

    /// `{`, as the next element or value.
    pub(crate) fn open_object(&mut self) {
        self.separate();
        self.byte(b'{');
    }

    /// `}`.
    pub(crate) fn close_object(&mut self) {
        self.byte(b'}');
    }

    /// `]`.
    pub(crate) fn close_array(&mut self) {
        self.byte(b']');
    }

    /// `"name":`; `name` is one of ours and needs no escape.
    pub(crate) fn key(&mut self, name: &'static str) {
        self.separate();
        self.byte(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    /// `"name":{`.
    pub(crate) fn object_at(&mut self, name: &'static str) {
        self.key(name);
        self.byte(b'{');
    }

    /// `"name":[`.
    pub(crate) fn array_at(&mut self, name: &'static str) {
        self.key(name);
        self.byte(b'[');
    }

    /// A string, escaped.
    pub(crate) fn string(&mut self, text: &str) {
        self.separate();
        self.byte(b'"');
        escape(text, self.out);
        self.byte(b'"');
    }

    /// A string literal that already is JSON.
    pub(crate) fn literal(&mut self, text: JsonStr<'_>) {
        self.raw(text.literal());
    }

    /// The opening quote of a string whose escaped characters the caller appends to [`Json::buffer`].
    pub(crate) fn open_string(&mut self) {
        self.separate();
        self.byte(b'"');
    }

    /// The closing quote.
    pub(crate) fn close_string(&mut self) {
        self.byte(b'"');
    }

    /// Several literals as one string.
    pub(crate) fn joined(&mut self, pieces: &[JsonStr<'_>]) {
        self.open_string();
        for piece in pieces {
            self.out.extend_from_slice(piece.inner().as_bytes());
        }
        self.close_string();
    }

    /// `before`, `between` and `after` as one string; `between` is ours and needs no escape.
    pub(crate) fn prefixed(&mut self, before: JsonStr<'_>, between: &'static str, after: JsonStr<'_>) {
        self.open_string();
        for piece in [before.inner(), between, after.inner()] {
            self.out.extend_from_slice(piece.as_bytes());
        }
        self.close_string();
    }

    /// A value that already is JSON.
    pub(crate) fn raw(&mut self, json: &str) {
        self.separate();
        self.out.extend_from_slice(json.as_bytes());
    }

    /// A value that already is JSON, in a buffer of its own.
    pub(crate) fn raw_bytes(&mut self, json: &BytesMut) {
        self.separate();
        self.out.extend_from_slice(json);
    }

    /// A whole number.
    pub(crate) fn integer(&mut self, number: impl itoa::Integer) {
        self.raw(itoa::Buffer::new().format(number));
    }

    /// A number; what JSON cannot express (infinities, not-a-number) is written as 0, which no caller can send.
    pub(crate) fn float(&mut self, number: f64) {
        match serde_json::Number::from_f64(number) {
            Some(number) => self.raw(&number.to_string()),
            None => self.raw("0"),
        }
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&mut self, value: bool) {
        self.raw(if value { "true" } else { "false" });
    }

    /// `null`.
    pub(crate) fn null(&mut self) {
        self.raw("null");
    }

    /// `"name":"text"`.
    pub(crate) fn string_at(&mut self, name: &'static str, text: &str) {
        self.key(name);
        self.string(text);
    }

    /// `"name":"text"` for text without anything to escape, such as base64: long, and not worth a look at every byte.
    pub(crate) fn plain_at(&mut self, name: &'static str, text: &str) {
        self.key(name);
        self.byte(b'"');
        self.out.extend_from_slice(text.as_bytes());
        self.byte(b'"');
    }

    /// `"name":"text"` from a literal.
    pub(crate) fn literal_at(&mut self, name: &'static str, text: JsonStr<'_>) {
        self.key(name);
        self.literal(text);
    }

    /// The bytes behind the document, for text that is escaped already.
    pub(crate) fn buffer(&mut self) -> &mut BytesMut {
        self.out
    }

    fn separate(&mut self) {
        // Every complete value ends in a quote, a digit, a letter or a closing bracket, so these bytes at the end can
        // only be structure.
        if !matches!(self.out.last(), None | Some(b'{' | b'[' | b':' | b',' | b' ')) {
            self.byte(b',');
        }
    }

    fn byte(&mut self, byte: u8) {
        self.out.extend_from_slice(&[byte]);
    }
}

/// Appends `text` with the escapes JSON demands, without quotes.
pub(crate) fn escape(text: &str, out: &mut BytesMut) {
    let bytes = text.as_bytes();
    out.reserve(bytes.len());
    let mut clean = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        let short = match byte {
            b'"' => b'"',
            b'\\' => b'\\',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0..=0x1f => b'u',
            _ => continue,
        };
        out.extend_from_slice(&bytes[clean..at]);
        clean = at + 1;
        out.extend_from_slice(&[b'\\', short]);
        if short == b'u' {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            out.extend_from_slice(&[b'0', b'0', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    }
    out.extend_from_slice(&bytes[clean..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_follow_from_structure() {
        let mut out = BytesMut::new();
        let mut json = Json::new(&mut out);
        json.open_object();
        json.array_at("a");
        json.integer(1u32);
        json.string("x{");
        json.open_object();
        json.close_object();
        json.close_array();
        json.key("b");
        json.float(0.5);
        json.key("c");
        json.null();
        json.close_object();
        assert_eq!(&out[..], br#"{"a":[1,"x{",{}],"b":0.5,"c":null}"#);
    }

    #[test]
    fn escapes_agree_with_the_reference_encoder() {
        let text: String = (0u8..=127).map(char::from).chain("é漢🦀".chars()).collect();
        let mut out = BytesMut::new();
        Json::new(&mut out).string(&text);
        assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
    }

    #[test]
    fn literals_join_into_one_string() {
        let pieces: Vec<JsonStr<'_>> = serde_json::from_str(r#"["a\n","","b"]"#).unwrap();
        let mut out = BytesMut::new();
        Json::new(&mut out).joined(&pieces);
        assert_eq!(&out[..], br#""a\nb""#);
    }
}
