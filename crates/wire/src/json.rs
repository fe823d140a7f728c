//! Writing JSON by hand: strings with escapes, integers, and members with their commas.
//!
//! The answers of this crate are mostly other people's bytes with a few of our own members between them, so there is no value
//! tree to serialise; these are the three things one needs instead.

/// Writes `text` as a JSON string with its quotes.
pub(crate) fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let special = |byte: u8| (byte < 0x20) | (byte == b'"') | (byte == b'\\');
    if !bytes.iter().fold(false, |found, &byte| found | special(byte)) {
        out.extend_from_slice(bytes);
        out.push(b'"');
        return;
    }
    let mut start = 0;
    for (index, &byte) in bytes.iter().enumerate() {
        let escape: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0..0x20 => b"",
            _ => continue,
        };
        out.extend_from_slice(&bytes[start..index]);
        if escape.is_empty() {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            out.extend_from_slice(b"\\u00");
            out.push(HEX[usize::from(byte >> 4)]);
            out.push(HEX[usize::from(byte & 15)]);
        } else {
            out.extend_from_slice(escape);
        }
        start = index + 1;
    }
    out.extend_from_slice(&bytes[start..]);
    out.push(b'"');
}

/// Writes a decimal integer.
pub(crate) fn write_integer(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Writes the members of an object whose braces the caller writes.
pub(crate) struct Members<'a> {
    out: &'a mut Vec<u8>,
    comma: bool,
}

impl<'a> Members<'a> {
    /// The object has no member yet.
    pub(crate) fn starting(out: &'a mut Vec<u8>) -> Self {
        Self { out, comma: false }
    }

    /// The object already has a member.
    pub(crate) fn continuing(out: &'a mut Vec<u8>) -> Self {
        Self { out, comma: true }
    }

    /// Writes the comma, the key and the colon; the caller writes the value.
    pub(crate) fn key(&mut self, name: &str) -> &mut Vec<u8> {
        self.comma();
        write_string(self.out, name);
        self.out.push(b':');
        self.out
    }

    /// A member whose key (with its quotes) and value are JSON already.
    pub(crate) fn copy(&mut self, key: &[u8], value: &[u8]) {
        self.comma();
        self.out.extend_from_slice(key);
        self.out.push(b':');
        self.out.extend_from_slice(value);
    }

    fn comma(&mut self) {
        if self.comma {
            self.out.push(b',');
        }
        self.comma = true;
    }

    /// A member whose value is a string.
    pub(crate) fn string(&mut self, name: &str, value: &str) {
        write_string(self.key(name), value);
    }

    /// A string member, or nothing.
    pub(crate) fn optional_string(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.string(name, value);
        }
    }

    /// An integer member.
    pub(crate) fn integer(&mut self, name: &str, value: u64) {
        write_integer(self.key(name), value);
    }

    /// A member whose value is JSON already.
    pub(crate) fn raw(&mut self, name: &str, json: &[u8]) {
        self.key(name).extend_from_slice(json);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn written_strings_read_back(text in any::<String>()) {
            let mut out = Vec::new();
            write_string(&mut out, &text);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }
}
