//! Server-sent events, read just far enough to time them.
//!
//! The mock writes the moment of sending into the text of every chunk: `@` and sixteen digits, microseconds of the wall clock.
//! Mock and generator share one machine, so the difference is the time the chunk spent on its way, however a gateway re-framed it
//! and whatever dialect it came from. Sixteen zeros mark chunks that are counted but not timed.

use memchr::{memchr, memchr_iter};

/// Digits of a stamp; enough for microseconds until the year 2286.
pub(crate) const STAMP_DIGITS: usize = 16;
/// What stands before the digits.
pub(crate) const STAMP_MARK: u8 = b'@';

/// Longest line that is kept while it is incomplete, bytes; a longer one is not an event of the mock.
const LONGEST_LINE: usize = 64 * 1024;

/// What one event was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// A chunk with content, and when the mock sent it (µs of the wall clock; 0 when not timed).
    Chunk(u64),
    /// `data: [DONE]`.
    Done,
    /// An event without a stamp: roles, usage, errors.
    Other,
}

/// Splits a stream of bytes into events.
#[derive(Debug, Default)]
pub(crate) struct EventScanner {
    partial: Vec<u8>,
}

impl EventScanner {
    /// Reads the next bytes of the body; calls `event` for each `data:` line that they complete.
    pub(crate) fn feed(&mut self, bytes: &[u8], mut event: impl FnMut(Event)) {
        let mut start = 0;
        for end in memchr_iter(b'\n', bytes) {
            let line = &bytes[start..end];
            if self.partial.is_empty() {
                classify(line, &mut event);
            } else {
                self.partial.extend_from_slice(line);
                classify(&self.partial, &mut event);
                self.partial.clear();
            }
            start = end + 1;
        }
        if self.partial.len() < LONGEST_LINE {
            self.partial.extend_from_slice(&bytes[start..]);
        }
    }

    /// Forgets an incomplete line; a new stream begins.
    pub(crate) fn clear(&mut self) {
        self.partial.clear();
    }
}

fn classify(line: &[u8], event: &mut impl FnMut(Event)) {
    let Some(data) = line.strip_prefix(b"data:") else {
        return;
    };
    let data = data.trim_ascii();
    event(match stamp(data) {
        Some(sent) => Event::Chunk(sent),
        None if data == b"[DONE]" => Event::Done,
        None => Event::Other,
    });
}

/// The number behind the first mark that has enough digits behind it.
fn stamp(mut data: &[u8]) -> Option<u64> {
    while let Some(at) = memchr(STAMP_MARK, data) {
        data = &data[at + 1..];
        if let Some(digits) = data.get(..STAMP_DIGITS)
            && digits.iter().all(u8::is_ascii_digit)
        {
            return Some(digits.iter().fold(0, |value, digit| value * 10 + u64::from(digit - b'0')));
        }
    }
    None
}

/// Writes a stamp over sixteen bytes.
pub(crate) fn write_stamp(micros: u64, digits: &mut [u8; STAMP_DIGITS]) {
    let mut rest = micros;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}

/// Microseconds of the wall clock.
pub(crate) fn wall_micros() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_whatever_the_split() {
        let body = b": comment\n\ndata: {\"role\":\"assistant\"}\n\ndata: {\"content\":\"a @ b@0001764567890123\"}\r\n\r\ndata: [DONE]\n\n";
        let expected = [Event::Other, Event::Chunk(1_764_567_890_123), Event::Done];
        for split in 0..body.len() {
            let mut scanner = EventScanner::default();
            let mut seen = Vec::new();
            scanner.feed(&body[..split], |event| seen.push(event));
            scanner.feed(&body[split..], |event| seen.push(event));
            assert_eq!(seen, expected, "split at {split}");
        }
    }

    #[test]
    fn a_stamp_survives_a_round_trip() {
        let mut digits = [0; STAMP_DIGITS];
        write_stamp(1_795_410_000_123_456, &mut digits);
        assert_eq!(&digits, b"1795410000123456");
        let mut line = b"data: x@".to_vec();
        line.extend_from_slice(&digits);
        let mut seen = None;
        classify(&line, &mut |event| seen = Some(event));
        assert_eq!(seen, Some(Event::Chunk(1_795_410_000_123_456)));
    }
}
