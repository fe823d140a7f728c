//! The part of HTTP/1.1 that a load generator, a mock and a relay need: heads, body framing, and nothing else.
//!
//! Heads are parsed by `httparse`; [`Chunked`] walks the chunked framing without copying. No limits beyond those that protect
//! this process, because both ends are ours.

use anyhow::{Result, bail};
use memchr::memmem;

/// Longest head we read, bytes.
pub(crate) const LONGEST_HEAD: usize = 64 * 1024;

/// How the end of a body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// `Content-Length`; 0 also stands for "no body".
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// Everything until the connection ends.
    UntilClose,
}

/// A head that was read completely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// Bytes of the head, blank line included.
    pub(crate) length: usize,
    /// Status of a response; 0 for a request.
    pub(crate) status: u16,
    /// Framing of the body that follows.
    pub(crate) framing: Framing,
    /// The sender will keep the connection open.
    pub(crate) keep_alive: bool,
}

impl Head {
    /// Reads a response head; `None` when bytes are missing. Interim (1xx) responses are returned like any other, with no body.
    pub(crate) fn response(bytes: &[u8]) -> Result<Option<Self>> {
        if !complete(bytes)? {
            return Ok(None);
        }
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(length) = response.parse(bytes)? else {
            return Ok(None);
        };
        let status = response.code.unwrap_or(0);
        let facts = Facts::of(response.headers)?;
        let framing = match status {
            100..=199 | 204 | 304 => Framing::Length(0),
            _ => facts.framing.unwrap_or(Framing::UntilClose),
        };
        let keep_alive = facts.keep_alive(response.version) && framing != Framing::UntilClose;
        Ok(Some(Self { length, status, framing, keep_alive }))
    }

    /// Reads a request head; `None` when bytes are missing. Also returns the span of the path.
    pub(crate) fn request(bytes: &[u8]) -> Result<Option<(Self, &str)>> {
        if !complete(bytes)? {
            return Ok(None);
        }
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut headers);
        let httparse::Status::Complete(length) = request.parse(bytes)? else {
            return Ok(None);
        };
        let facts = Facts::of(request.headers)?;
        let keep_alive = facts.keep_alive(request.version);
        let head = Self { length, status: 0, framing: facts.framing.unwrap_or(Framing::Length(0)), keep_alive };
        Ok(Some((head, request.path.unwrap_or("/"))))
    }
}

/// Looks for the blank line first, so that a head arriving in pieces is parsed once.
fn complete(bytes: &[u8]) -> Result<bool> {
    match memmem::find(bytes, b"\r\n\r\n") {
        Some(_) => Ok(true),
        None if bytes.len() > LONGEST_HEAD => bail!("head is longer than {LONGEST_HEAD} bytes"),
        None => Ok(false),
    }
}

/// What headers say about the message.
#[derive(Default)]
struct Facts {
    framing: Option<Framing>,
    close: bool,
    keep: bool,
}

impl Facts {
    fn of(headers: &[httparse::Header<'_>]) -> Result<Self> {
        let mut facts = Self::default();
        for header in headers {
            if header.name.eq_ignore_ascii_case("content-length") {
                // Chunked framing wins over a length (RFC 9112, 6.3).
                if facts.framing.is_none() {
                    facts.framing = Some(Framing::Length(std::str::from_utf8(header.value)?.trim().parse()?));
                }
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                if header.value.to_ascii_lowercase().ends_with(b"chunked") {
                    facts.framing = Some(Framing::Chunked);
                }
            } else if header.name.eq_ignore_ascii_case("connection") {
                let value = header.value.to_ascii_lowercase();
                facts.close |= memmem::find(&value, b"close").is_some();
                facts.keep |= memmem::find(&value, b"keep-alive").is_some();
            }
        }
        Ok(facts)
    }

    fn keep_alive(&self, version: Option<u8>) -> bool {
        !self.close && (version == Some(1) || self.keep)
    }
}

/// Walks a chunked body as it arrives.
#[derive(Debug, Default)]
pub(crate) struct Chunked {
    state: State,
}

#[derive(Debug, Default)]
enum State {
    /// Before the first digit of a chunk size.
    #[default]
    Start,
    /// Inside the size, with its value so far.
    Size(u64),
    /// After the digits, up to the line end.
    Extension(u64),
    /// Inside the data, with the bytes that are left.
    Data(u64),
    /// Between data and the next size: waiting for the line feed.
    AfterData,
    /// In the trailer section; the number of bytes of the current line.
    Trailer(u32),
    Done,
}

impl Chunked {
    /// Consumes `bytes`, hands the payload to `data` and returns how many bytes belonged to this body.
    pub(crate) fn feed(&mut self, bytes: &[u8], mut data: impl FnMut(&[u8])) -> Result<usize> {
        let mut at = 0;
        while at < bytes.len() {
            let byte = bytes[at];
            match &mut self.state {
                State::Done => break,
                State::Data(left) => {
                    let take = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len() - at);
                    data(&bytes[at..at + take]);
                    at += take;
                    *left -= take as u64;
                    if *left == 0 {
                        self.state = State::AfterData;
                    }
                    continue;
                }
                State::Start => {
                    let Some(digit) = hex(byte) else { bail!("chunk size starts with byte {byte:#04x}") };
                    self.state = State::Size(digit);
                }
                State::Size(size) => match hex(byte) {
                    Some(digit) if *size >> 56 == 0 => *size = *size << 4 | digit,
                    Some(_) => bail!("chunk size is out of range"),
                    None => {
                        let size = *size;
                        self.state = if byte == b'\n' { after_size(size) } else { State::Extension(size) };
                    }
                },
                State::Extension(size) => {
                    if byte == b'\n' {
                        self.state = after_size(*size);
                    }
                }
                State::AfterData => match byte {
                    b'\r' => {}
                    b'\n' => self.state = State::Start,
                    other => bail!("chunk data ends with byte {other:#04x}"),
                },
                State::Trailer(length) => match byte {
                    b'\r' => {}
                    b'\n' if *length == 0 => self.state = State::Done,
                    b'\n' => *length = 0,
                    _ => *length += 1,
                },
            }
            at += 1;
        }
        Ok(at)
    }

    /// The last chunk and the trailer section were seen.
    pub(crate) fn done(&self) -> bool {
        matches!(self.state, State::Done)
    }
}

fn after_size(size: u64) -> State {
    if size == 0 { State::Trailer(0) } else { State::Data(size) }
}

fn hex(byte: u8) -> Option<u64> {
    char::from(byte).to_digit(16).map(u64::from)
}

/// A body of either framing, as it arrives.
#[derive(Debug)]
pub(crate) enum BodyReader {
    /// Bytes left.
    Length(u64),
    /// Chunked framing.
    Chunked(Chunked),
    /// Ends with the connection.
    UntilClose,
}

impl BodyReader {
    /// A reader at the first byte of the body.
    pub(crate) fn new(framing: Framing) -> Self {
        match framing {
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Chunked::default()),
            Framing::UntilClose => Self::UntilClose,
        }
    }

    /// Consumes `bytes`, hands the payload to `data` and returns how many bytes belonged to this body.
    pub(crate) fn feed(&mut self, bytes: &[u8], mut data: impl FnMut(&[u8])) -> Result<usize> {
        match self {
            Self::Length(left) => {
                let take = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= take as u64;
                data(&bytes[..take]);
                Ok(take)
            }
            Self::Chunked(chunked) => chunked.feed(bytes, data),
            Self::UntilClose => {
                data(bytes);
                Ok(bytes.len())
            }
        }
    }

    /// The body is complete.
    pub(crate) fn done(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunked) => chunked.done(),
            Self::UntilClose => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_head_says_how_its_body_ends() {
        let head = Head::response(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n").unwrap().unwrap();
        assert_eq!((head.status, head.framing, head.keep_alive), (200, Framing::Length(12), true));
        let head = Head::response(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n").unwrap().unwrap();
        assert_eq!(head.framing, Framing::Chunked);
        let head = Head::response(b"HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\n\r\n").unwrap().unwrap();
        assert_eq!((head.framing, head.keep_alive), (Framing::UntilClose, false));
        let head = Head::response(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap().unwrap();
        assert!(!head.keep_alive);
    }

    #[test]
    fn a_head_in_pieces_waits_and_garbage_is_an_error() {
        assert_eq!(Head::response(b"HTTP/1.1 200 OK\r\nContent-Le").unwrap(), None);
        assert!(Head::response(b"SSH-2.0-x\r\n\r\n").is_err());
        assert!(Head::response(&vec![b'a'; LONGEST_HEAD + 1]).is_err());
    }

    #[test]
    fn a_request_head_gives_path_and_length() {
        let bytes = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello";
        let (head, path) = Head::request(bytes).unwrap().unwrap();
        assert_eq!((path, head.framing, &bytes[head.length..]), ("/v1/chat/completions", Framing::Length(5), &b"hello"[..]));
    }

    #[test]
    fn chunked_bodies_are_read_whatever_the_split() {
        let wire = b"5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\nTrailer: x\r\n\r\nNEXT";
        for split in 0..wire.len() {
            let mut body = Vec::new();
            let mut chunked = Chunked::default();
            let mut used = chunked.feed(&wire[..split], |data| body.extend_from_slice(data)).unwrap();
            if used == split {
                used += chunked.feed(&wire[split..], |data| body.extend_from_slice(data)).unwrap();
            }
            assert_eq!(body, b"hello world", "split at {split}");
            assert!(chunked.done());
            assert_eq!(&wire[used..], b"NEXT");
        }
    }

    #[test]
    fn broken_chunks_are_errors() {
        for wire in [&b"x\r\n"[..], b"2\r\nabc", b"fffffffffffffffff\r\n"] {
            assert!(Chunked::default().feed(wire, |_| {}).is_err(), "{wire:?}");
        }
    }
}
