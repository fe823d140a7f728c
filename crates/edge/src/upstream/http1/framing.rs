//! Where a body ends, and what of the bytes on the wire is its payload (RFC 9112, sections 6 and 7). Pure.

/// How far a body has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Framing {
    state: State,
    /// Bytes of extensions and trailers so far, which nobody reads.
    ignored: usize,
    /// Bytes came behind the end, so that what comes next on the connection cannot be told.
    beyond: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// So many bytes are left.
    Length(u64),
    UntilClose,
    /// In the size of a chunk; so many digits of it were read.
    Size {
        value: u64,
        digits: u8,
    },
    /// Behind the size, up to the line end.
    Extension {
        value: u64,
    },
    SizeEnd {
        value: u64,
    },
    Data {
        left: u64,
    },
    DataReturn,
    DataEnd,
    /// At the start of a trailer line.
    Trailer,
    TrailerLine,
    TrailerEnd,
    LastEnd,
    Done,
}

impl Framing {
    pub(super) fn length(bytes: u64) -> Self {
        Self::at(if bytes == 0 { State::Done } else { State::Length(bytes) })
    }

    pub(super) fn chunked() -> Self {
        Self::at(State::Size { value: 0, digits: 0 })
    }

    pub(super) fn until_close() -> Self {
        Self::at(State::UntilClose)
    }

    fn at(state: State) -> Self {
        Self { state, ignored: 0, beyond: false }
    }

    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The body ended where it said, with nothing behind.
    pub(super) fn is_exact(&self) -> bool {
        !self.beyond
    }

    /// The connection ended; false when the body had not.
    pub(super) fn end(&mut self) -> bool {
        if self.state != State::UntilClose {
            return false;
        }
        // Nothing can follow.
        (self.state, self.beyond) = (State::Done, true);
        true
    }

    /// Takes the bytes of a read, moves the payload among them to their front, and gives its length.
    pub(super) fn decode(&mut self, bytes: &mut [u8]) -> Result<usize, &'static str> {
        let (mut at, mut payload) = (0, 0);
        while at < bytes.len() {
            let byte = bytes[at];
            let next = match self.state {
                State::Length(left) | State::Data { left } => {
                    let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len() - at);
                    if at != payload {
                        bytes.copy_within(at..at + here, payload);
                    }
                    at += here;
                    payload += here;
                    let left = left - here as u64;
                    self.state = match self.state {
                        State::Length(_) if left == 0 => State::Done,
                        State::Length(_) => State::Length(left),
                        _ if left == 0 => State::DataReturn,
                        _ => State::Data { left },
                    };
                    continue;
                }
                State::UntilClose => {
                    // Nothing but payload from the first byte on.
                    return Ok(bytes.len());
                }
                State::Size { value, digits } => match (char::from(byte).to_digit(16), byte) {
                    (Some(_), _) if digits == MOST_DIGITS => return Err("a chunk is too large"),
                    (Some(digit), _) => State::Size { value: value << 4 | u64::from(digit), digits: digits + 1 },
                    (None, _) if digits == 0 => return Err("a chunk has no size"),
                    (None, b'\r') => State::SizeEnd { value },
                    (None, b';' | b' ' | b'\t') => State::Extension { value },
                    (None, _) => return Err("a chunk has no size"),
                },
                State::Extension { value } if byte == b'\r' => State::SizeEnd { value },
                State::Extension { .. } if byte == b'\n' => return Err("a chunk's line ends wrongly"),
                State::Extension { value } => self.ignore(State::Extension { value })?,
                State::SizeEnd { value } if byte == b'\n' => match value {
                    0 => State::Trailer,
                    left => State::Data { left },
                },
                State::DataReturn if byte == b'\r' => State::DataEnd,
                State::DataEnd if byte == b'\n' => State::Size { value: 0, digits: 0 },
                State::SizeEnd { .. } | State::DataReturn | State::DataEnd => return Err("a chunk's line ends wrongly"),
                State::Trailer if byte == b'\r' => State::LastEnd,
                State::TrailerLine if byte == b'\r' => State::TrailerEnd,
                State::Trailer | State::TrailerLine => self.ignore(State::TrailerLine)?,
                State::TrailerEnd if byte == b'\n' => State::Trailer,
                State::LastEnd if byte == b'\n' => State::Done,
                State::TrailerEnd | State::LastEnd => return Err("a trailer's line ends wrongly"),
                State::Done => {
                    self.beyond = true;
                    break;
                }
            };
            self.state = next;
            at += 1;
        }
        Ok(payload)
    }

    fn ignore(&mut self, next: State) -> Result<State, &'static str> {
        self.ignored += 1;
        if self.ignored > MOST_IGNORED { Err("its chunks have too much beside the data") } else { Ok(next) }
    }
}

/// Hexadecimal digits of a chunk's size: more than any body has bytes.
const MOST_DIGITS: u8 = 15;
/// Bytes of extensions and trailers of one answer.
const MOST_IGNORED: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Decodes in reads of these sizes, again and again in turn.
    fn decode(framing: &mut Framing, wire: &[u8], sizes: &[usize]) -> Result<Vec<u8>, &'static str> {
        let (mut rest, mut payload, mut turn) = (wire, Vec::new(), 0);
        while !rest.is_empty() {
            let (read, after) = rest.split_at(sizes[turn % sizes.len()].clamp(1, rest.len()));
            let mut read = read.to_vec();
            let length = framing.decode(&mut read)?;
            payload.extend_from_slice(&read[..length]);
            (rest, turn) = (after, turn + 1);
        }
        Ok(payload)
    }

    proptest! {
        #[test]
        fn chunks_come_apart_however_they_are_cut(
            chunks in prop::collection::vec((prop::collection::vec(any::<u8>(), 1..300), "(;[a-z=]{0,9})?", any::<bool>()), 0..9),
            trailer in "(x-[a-z]{1,5}: [a-z]{0,9}\r\n){0,3}",
            sizes in prop::collection::vec(1..200_usize, 1..5),
            behind in prop::collection::vec(any::<u8>(), 0..3),
        ) {
            let (mut wire, mut expected) = (Vec::new(), Vec::new());
            for (data, extension, upper) in &chunks {
                let size = if *upper { format!("{:X}", data.len()) } else { format!("00{:x}", data.len()) };
                wire.extend_from_slice(format!("{size}{extension}\r\n").as_bytes());
                wire.extend_from_slice(data);
                wire.extend_from_slice(b"\r\n");
                expected.extend_from_slice(data);
            }
            wire.extend_from_slice(format!("0\r\n{trailer}\r\n").as_bytes());
            let mut framing = Framing::chunked();
            let whole = wire.len();
            for end in [0, whole / 2] {
                let mut cut = Framing::chunked();
                decode(&mut cut, &wire[..end], &sizes).unwrap();
                prop_assert!(!cut.is_done() && !cut.end(), "a cut body is no whole one");
            }
            wire.extend_from_slice(&behind);
            prop_assert_eq!(decode(&mut framing, &wire, &sizes), Ok(expected));
            prop_assert!(framing.is_done());
            prop_assert_eq!(framing.is_exact(), behind.is_empty());
        }

        #[test]
        fn a_length_takes_that_many_bytes(data in prop::collection::vec(any::<u8>(), 0..500), length in 0..400_usize, size in 1..99_usize) {
            let mut framing = Framing::length(length as u64);
            let payload = decode(&mut framing, &data, &[size]).unwrap();
            prop_assert_eq!(&payload, &data[..length.min(data.len())]);
            prop_assert_eq!(framing.is_done(), data.len() >= length);
            prop_assert_eq!(framing.is_exact(), data.len() <= length);
            prop_assert!(!framing.end());
        }

        #[test]
        fn nothing_makes_it_panic(wire in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b'0'), Just(b';')], 0..200), size in 1..50_usize) {
            // Refused or decoded: both are fine.
            let _ = decode(&mut Framing::chunked(), &wire, &[size]);
        }
    }

    #[test]
    fn until_the_connection_ends_everything_is_payload() {
        let mut framing = Framing::until_close();
        assert_eq!(decode(&mut framing, b"any\r\nthing", &[4]), Ok(b"any\r\nthing".to_vec()));
        assert!(!framing.is_done());
        assert!(framing.end() && framing.is_done());
        assert!(!framing.is_exact(), "nothing can follow on such a connection");
    }

    #[test]
    fn chunks_that_two_readers_could_read_differently_are_refused() {
        for wire in ["\r\n", "g\r\n", "-1\r\n", "0x1\r\n", "1\nx", "1\r\nxy", "1;a\nx", "ffffffffffffffff\r\n", "1\r\nx\r\n0\r\na\r\r"] {
            assert!(decode(&mut Framing::chunked(), wire.as_bytes(), &[1]).is_err(), "{wire:?}");
        }
        let endless = format!("1;{}", "x".repeat(MOST_IGNORED + 1));
        assert!(decode(&mut Framing::chunked(), endless.as_bytes(), &[1000]).is_err());
    }
}
