//! A structural JSON scanner: checks a whole document once, byte by byte, and gives back where things are.
//!
//! A gateway needs a dozen small facts from a body that is mostly one long string. Building a value tree for that costs more
//! than relaying the body, so this walks the bytes, skips strings at vector speed, and hands out [`Span`]s. What it accepts is
//! exactly what RFC 8259 calls JSON (a property test holds it against `serde_json`), at most [`MAX_DEPTH`] deep.
//!
//! Encoding is checked ahead of the cursor and, by [`Cursor::finish`], to the end, so a span of a document that was read to its end is
//! UTF-8 if it lies on token boundaries.

mod survey;

use std::borrow::Cow;

use self::survey::Survey;

/// Deepest nesting accepted. Sixty-four levels fit the bits of one word, and no honest request needs twenty.
pub const MAX_DEPTH: u32 = 64;

/// A half-open range of byte offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl Span {
    /// The bytes it covers; empty if it does not lie within `bytes`.
    pub fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.start..self.end).unwrap_or_default()
    }

    /// The text it covers; empty if that is not UTF-8, which token spans of a checked document always are.
    pub fn text(self, bytes: &[u8]) -> &str {
        std::str::from_utf8(self.of(bytes)).unwrap_or_default()
    }

    /// Number of bytes.
    pub fn len(self) -> usize {
        self.end - self.start
    }

    /// Whether it covers nothing.
    pub fn is_empty(self) -> bool {
        self.end == self.start
    }
}

/// A string token: the span between its quotes, and whether anything in it is escaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StringToken {
    /// What lies between the quotes.
    pub inner: Span,
    /// Whether it holds a backslash.
    pub escaped: bool,
}

impl StringToken {
    /// The token with its quotes.
    pub fn outer(self) -> Span {
        Span { start: self.inner.start - 1, end: self.inner.end + 1 }
    }

    /// The text it stands for. Lone surrogates, which JSON allows and UTF-8 does not, become U+FFFD.
    pub fn decode(self, bytes: &[u8]) -> Cow<'_, str> {
        let raw = self.inner.text(bytes);
        if self.escaped { Cow::Owned(unescape(raw)) } else { Cow::Borrowed(raw) }
    }

    /// Whether it stands for exactly `text`.
    pub fn is(self, bytes: &[u8], text: &str) -> bool {
        if self.escaped { self.decode(bytes) == text } else { self.inner.of(bytes) == text.as_bytes() }
    }
}

/// Kind of a value, from its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `{…}`
    Object,
    /// `[…]`
    Array,
    /// `"…"`
    String,
    /// A number.
    Number,
    /// `true` or `false`.
    Bool,
    /// `null`
    Null,
}

/// Why a document was refused, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{reason} at byte {at}")]
pub struct ScanError {
    /// Byte offset.
    pub at: usize,
    /// What is wrong.
    pub reason: &'static str,
}

/// A position in a document. Values are pulled in order; nothing can be visited twice.
#[derive(Debug, Clone)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: u32,
    /// Deepest nesting that is accepted, at most [`MAX_DEPTH`].
    deepest: u32,
    /// What the next bytes are; a cursor inside an accepted document searches instead.
    survey: Option<Survey<'a>>,
}

impl<'a> Cursor<'a> {
    /// Stands before the first value.
    pub fn open(bytes: &'a [u8]) -> Result<Self, ScanError> {
        Ok(Self { bytes, at: 0, depth: 0, deepest: MAX_DEPTH, survey: Some(Survey::of(bytes)?) })
    }

    /// Accepts less nesting than [`MAX_DEPTH`].
    #[must_use]
    pub fn bounded(mut self, deepest: u32) -> Self {
        self.deepest = deepest.min(MAX_DEPTH);
        self
    }

    /// Stands at `at` inside a document that some other cursor has accepted whole.
    pub(crate) fn resume(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at, depth: 0, deepest: MAX_DEPTH, survey: None }
    }

    /// The document.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Offset of the next byte.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Kind of the next value, without consuming it.
    pub fn kind(&mut self) -> Result<Kind, ScanError> {
        self.skip_whitespace();
        Ok(match self.peek() {
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            Some(b'"') => Kind::String,
            Some(b'-' | b'0'..=b'9') => Kind::Number,
            Some(b't' | b'f') => Kind::Bool,
            Some(b'n') => Kind::Null,
            _ => return Err(self.error("expected a value")),
        })
    }

    /// Enters an object. Pull its members with [`Cursor::next_key`] until that says `None`.
    pub fn enter_object(&mut self) -> Result<Members, ScanError> {
        self.enter(b'{', "expected an object")?;
        Ok(Members { first: true })
    }

    /// The next key, standing before its value; `None` when the object has been left.
    pub fn next_key(&mut self, members: &mut Members) -> Result<Option<StringToken>, ScanError> {
        self.skip_whitespace();
        if self.peek() == Some(b'}') && members.first {
            self.at += 1;
            self.depth -= 1;
            return Ok(None);
        }
        if !members.first {
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    self.depth -= 1;
                    return Ok(None);
                }
                _ => return Err(self.error("expected `,` or `}`")),
            }
            self.skip_whitespace();
        }
        members.first = false;
        let key = self.string()?;
        self.skip_whitespace();
        if self.peek() != Some(b':') {
            return Err(self.error("expected `:`"));
        }
        self.at += 1;
        Ok(Some(key))
    }

    /// Enters an array. Stand before each element with [`Cursor::next_element`] until that says `false`.
    pub fn enter_array(&mut self) -> Result<Members, ScanError> {
        self.enter(b'[', "expected an array")?;
        Ok(Members { first: true })
    }

    /// Whether there is another element, standing before it; when not, the array has been left.
    pub fn next_element(&mut self, members: &mut Members) -> Result<bool, ScanError> {
        self.skip_whitespace();
        match self.peek() {
            Some(b']') => {
                self.at += 1;
                self.depth -= 1;
                return Ok(false);
            }
            _ if members.first => members.first = false,
            Some(b',') => {
                self.at += 1;
                self.skip_whitespace();
                if self.peek() == Some(b']') {
                    return Err(self.error("expected a value"));
                }
            }
            _ => return Err(self.error("expected `,` or `]`")),
        }
        Ok(true)
    }

    /// Consumes one string.
    pub fn string(&mut self) -> Result<StringToken, ScanError> {
        self.skip_whitespace();
        if self.peek() != Some(b'"') {
            return Err(self.error("expected a string"));
        }
        let start = self.at + 1;
        let (end, escaped) = self.end_of_string(start)?;
        self.at = end + 1;
        Ok(StringToken { inner: Span { start, end }, escaped })
    }

    /// Consumes one value of any kind and checks it throughout.
    pub fn skip(&mut self) -> Result<Span, ScanError> {
        self.skip_whitespace();
        let start = self.at;
        match self.peek() {
            Some(b'"') => {
                self.string()?;
            }
            Some(b'{' | b'[') => self.container()?,
            _ => self.scalar()?,
        }
        Ok(Span { start, end: self.at })
    }

    /// Nothing but whitespace may follow.
    pub fn finish(&mut self) -> Result<(), ScanError> {
        self.skip_whitespace();
        if self.at < self.bytes.len() {
            return Err(self.error("trailing characters"));
        }
        self.survey.as_mut().map_or(Ok(()), Survey::finish)
    }

    /// An error at the present position, unless the encoding or an escape is wrong anywhere: that is said first.
    #[cold]
    pub fn error(&self, reason: &'static str) -> ScanError {
        self.wrong_text().unwrap_or(ScanError { at: self.at, reason })
    }

    /// What is wrong with the encoding or an escape from here on, if anything is.
    #[cold]
    pub(crate) fn wrong_text(&self) -> Option<ScanError> {
        self.survey.clone()?.finish().err()
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn enter(&mut self, opening: u8, reason: &'static str) -> Result<(), ScanError> {
        self.skip_whitespace();
        if self.peek() != Some(opening) {
            return Err(self.error(reason));
        }
        if self.depth >= self.deepest {
            return Err(self.error("nested too deeply"));
        }
        self.depth += 1;
        self.at += 1;
        Ok(())
    }

    #[inline]
    fn skip_whitespace(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    /// Skips an object or array without recursion; the bits of `objects` say which open containers are objects.
    fn container(&mut self) -> Result<(), ScanError> {
        let base = self.depth;
        let mut objects = 0_u64;
        let mut expect = Expect::Value;
        loop {
            self.skip_whitespace();
            let Some(byte) = self.peek() else { return Err(self.error("unexpected end")) };
            match (expect, byte) {
                (Expect::Value | Expect::ValueOrEnd, b'{' | b'[') => {
                    if self.depth >= self.deepest {
                        return Err(self.error("nested too deeply"));
                    }
                    self.depth += 1;
                    objects = objects << 1 | u64::from(byte == b'{');
                    self.at += 1;
                    expect = if byte == b'{' { Expect::KeyOrEnd } else { Expect::ValueOrEnd };
                    continue;
                }
                (Expect::Value | Expect::ValueOrEnd, b'"') => {
                    self.string()?;
                }
                (Expect::ValueOrEnd, b']') | (Expect::KeyOrEnd, b'}') => {
                    self.at += 1;
                    self.depth -= 1;
                    objects >>= 1;
                }
                (Expect::Value | Expect::ValueOrEnd, _) => self.scalar()?,
                (Expect::Key | Expect::KeyOrEnd, b'"') => {
                    self.string()?;
                    self.skip_whitespace();
                    if self.peek() != Some(b':') {
                        return Err(self.error("expected `:`"));
                    }
                    self.at += 1;
                    expect = Expect::Value;
                    continue;
                }
                (Expect::Key | Expect::KeyOrEnd, _) => return Err(self.error("expected a key")),
            }
            // A value has ended: close as many containers as close here, then expect what follows a comma.
            loop {
                if self.depth == base {
                    return Ok(());
                }
                self.skip_whitespace();
                let in_object = objects & 1 == 1;
                match self.peek() {
                    Some(b',') => {
                        self.at += 1;
                        expect = if in_object { Expect::Key } else { Expect::Value };
                        break;
                    }
                    Some(b'}') if in_object => {}
                    Some(b']') if !in_object => {}
                    _ => return Err(self.error(if in_object { "expected `,` or `}`" } else { "expected `,` or `]`" })),
                }
                self.at += 1;
                self.depth -= 1;
                objects >>= 1;
            }
        }
    }

    fn scalar(&mut self) -> Result<(), ScanError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let word = match rest.first() {
            Some(b't') => b"true".as_slice(),
            Some(b'f') => b"false",
            Some(b'n') => b"null",
            Some(b'-' | b'0'..=b'9') => return self.number(),
            _ => return Err(self.error("expected a value")),
        };
        if !rest.starts_with(word) {
            return Err(self.error("expected a value"));
        }
        self.at += word.len();
        Ok(())
    }

    fn number(&mut self) -> Result<(), ScanError> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), ScanError> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at == start { Err(self.error("invalid number")) } else { Ok(()) }
    }

    /// Position of the closing quote of a string whose content starts at `start`, and whether it holds escapes.
    #[inline]
    fn end_of_string(&mut self, start: usize) -> Result<(usize, bool), ScanError> {
        match &mut self.survey {
            Some(survey) => {
                let Some((end, escaped)) = survey.next_end(start)? else {
                    return Err(ScanError { at: self.bytes.len(), reason: "unterminated string" });
                };
                if self.bytes[end] != b'"' {
                    self.at = end;
                    return Err(self.error("raw control character in a string"));
                }
                Ok((end, escaped))
            }
            // The document was accepted before: there is no control character in its strings.
            None => string_end(self.bytes, start),
        }
    }
}

/// Whether the next member of a container is its first.
#[derive(Debug, Clone, Copy)]
pub struct Members {
    first: bool,
}

/// Checks one whole document and gives the span of its only value.
pub fn check(bytes: &[u8]) -> Result<Span, ScanError> {
    let mut cursor = Cursor::open(bytes)?;
    let span = cursor.skip()?;
    cursor.finish()?;
    Ok(span)
}

#[derive(Debug, Clone, Copy)]
enum Expect {
    Value,
    ValueOrEnd,
    Key,
    KeyOrEnd,
}

/// Finds the closing quote and checks the escapes on the way.
pub(crate) fn string_end(bytes: &[u8], start: usize) -> Result<(usize, bool), ScanError> {
    let mut at = start;
    let mut escaped = false;
    loop {
        let Some(index) = next_special(bytes, at) else {
            return Err(ScanError { at: bytes.len(), reason: "unterminated string" });
        };
        if bytes[index] == b'"' {
            return Ok((index, escaped));
        }
        escaped = true;
        at = index + 2;
        match bytes.get(index + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {}
            Some(b'u') => {
                let hex = bytes.get(at..at + 4).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit));
                if !hex {
                    return Err(ScanError { at: index, reason: "invalid escape" });
                }
                at += 4;
            }
            _ => return Err(ScanError { at: index, reason: "invalid escape" }),
        }
    }
}

/// The next quote or backslash. Keys, short values and text with many escapes end within two dozen bytes, where eight bytes
/// at a time in a register beat the set-up of a vector search.
#[inline]
fn next_special(bytes: &[u8], start: usize) -> Option<usize> {
    const NEAR_WORDS: usize = 3;
    let mut at = start;
    for _ in 0..NEAR_WORDS {
        let Some(word) = bytes.get(at..).and_then(<[u8]>::first_chunk) else { break };
        if let Some(index) = special_in(*word) {
            return Some(at + index);
        }
        at += 8;
    }
    memchr::memchr2(b'"', b'\\', bytes.get(at..)?).map(|index| at + index)
}

/// Index of the first quote or backslash among eight bytes.
#[inline]
fn special_in(word: [u8; 8]) -> Option<usize> {
    let found = equal_bytes(word, b'"') | equal_bytes(word, b'\\');
    (found != 0).then(|| found.trailing_zeros() as usize / 8)
}

/// The high bit of each byte of `word` that equals `byte`; bytes above the first match may be marked wrongly (a borrow runs
/// upwards), so only the lowest mark counts.
#[inline]
fn equal_bytes(word: [u8; 8], byte: u8) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let difference = u64::from_le_bytes(word) ^ (ONES * u64::from(byte));
    difference.wrapping_sub(ONES) & !difference & (ONES << 7)
}

fn unescape(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(index) = rest.find('\\') {
        out.push_str(&rest[..index]);
        let after = &rest[index + 1..];
        let Some(letter) = after.chars().next() else { return out };
        rest = &after[letter.len_utf8()..];
        match letter {
            'b' => out.push('\u{8}'),
            'f' => out.push('\u{c}'),
            'n' => out.push('\n'),
            'r' => out.push('\r'),
            't' => out.push('\t'),
            'u' => {
                let (unit, tail) = hex_unit(rest);
                rest = tail;
                let low = rest.strip_prefix("\\u").map(hex_unit).filter(|(low, _)| (0xDC00..0xE000).contains(low));
                let (code, tail) = match low {
                    Some((low, tail)) if (0xD800..0xDC00).contains(&unit) => (0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00), tail),
                    _ => (unit, rest),
                };
                rest = tail;
                out.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            other => out.push(other),
        }
    }
    out.push_str(rest);
    out
}

/// Reads four hexadecimal digits; the scanner has checked that they are there.
fn hex_unit(text: &str) -> (u32, &str) {
    match (text.get(..4), text.get(4..)) {
        (Some(digits), Some(rest)) => (u32::from_str_radix(digits, 16).unwrap_or(0xFFFD), rest),
        _ => (0xFFFD, ""),
    }
}

#[cfg(test)]
mod tests;
