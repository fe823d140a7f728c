//! One pass over a document, sixteen bytes at a time, that answers every question about single bytes at once.
//!
//! It checks the encoding and the escapes, and notes, one bit per byte, where strings can end and where backslashes are. Finding the
//! end of a string is then a look at a few bits, however short the string is and however many escapes it holds; searching for it byte
//! by byte, or with a fresh vector search per escape, costs several times more on ordinary chat text.

use smallvec::SmallVec;
use wide::u8x16;

use super::ScanError;

/// What the pass found.
#[derive(Debug, Clone)]
pub(super) struct Survey {
    words: SmallVec<[Word; INLINE]>,
}

/// Sixty-four bytes, one bit each.
#[derive(Debug, Clone, Copy, Default)]
struct Word {
    /// Quotes that are not escaped, and control characters.
    ends: u64,
    backslashes: u64,
}

impl Survey {
    /// Looks at the whole document; refuses what is not UTF-8, and escapes that JSON does not know. A backslash has no place outside of
    /// strings, so an escape is wrong wherever it is.
    pub(super) fn of(bytes: &[u8]) -> Result<Survey, ScanError> {
        let (blocks, rest) = bytes.as_chunks::<BLOCK>();
        let mut words: SmallVec<[Word; INLINE]> = SmallVec::new();
        words.resize(blocks.len() + 1, Word::default());
        let mut state = Walk { bytes, foreign: None, carry: 0 };
        for ((number, block), word) in blocks.iter().enumerate().zip(words.iter_mut()) {
            *word = state.step(number * BLOCK, block)?;
        }
        let tail = bytes.len() - rest.len();
        // A space is nothing special and ASCII.
        let mut last = [b' '; BLOCK];
        last[..rest.len()].copy_from_slice(rest);
        if let Some(word) = words.last_mut() {
            *word = state.step(tail, &last)?;
        }
        if let Some(start) = state.foreign {
            utf8(bytes, start, bytes.len())?;
        }
        Ok(Survey { words })
    }

    /// The next quote that ends a string, or control character, at or behind `start`.
    #[inline]
    pub(super) fn next_end(&self, start: usize) -> Option<usize> {
        let mut at = start / BLOCK;
        let mut bits = self.words.get(at)?.ends & (u64::MAX << (start % BLOCK));
        while bits == 0 {
            at += 1;
            bits = self.words.get(at)?.ends;
        }
        Some(at * BLOCK + bits.trailing_zeros() as usize)
    }

    /// Whether there is a backslash from `start` up to, and without, `end`.
    #[inline]
    pub(super) fn has_backslash(&self, start: usize, end: usize) -> bool {
        let (first, last) = (start / BLOCK, end / BLOCK);
        let Some(words) = self.words.get(first..=last) else { return false };
        let from = u64::MAX << (start % BLOCK);
        let until = !(u64::MAX << (end % BLOCK));
        match words {
            [word] => word.backslashes & from & until != 0,
            [one, between @ .., other] => {
                one.backslashes & from != 0 || other.backslashes & until != 0 || between.iter().any(|word| word.backslashes != 0)
            }
            [] => false,
        }
    }
}

/// What is carried from block to block.
struct Walk<'a> {
    bytes: &'a [u8],
    /// Where a stretch with bytes above ASCII begins. A block of ASCII before and behind it means that no character is cut.
    foreign: Option<usize>,
    /// 1 when the first byte of the next block is escaped.
    carry: u64,
}

impl Walk<'_> {
    #[inline]
    fn step(&mut self, start: usize, block: &[u8; BLOCK]) -> Result<Word, ScanError> {
        let (lanes, _) = block.as_chunks::<16>();
        let mut found = [(u8x16::splat(0), u8x16::splat(0)); BLOCK / 16];
        let (mut union, mut special) = (u8x16::splat(0), u8x16::splat(0));
        for (lane, (ends, backslashes)) in lanes.iter().zip(&mut found) {
            let bytes = u8x16::new(*lane);
            // The second bit moves the quote below the space, next to the control characters, and the space above it.
            let moved = bytes ^ u8x16::splat(b'"' ^ b' ');
            *ends = moved.min(u8x16::splat(b' ')).cmp_eq(moved);
            *backslashes = bytes.cmp_eq(u8x16::splat(b'\\'));
            union |= bytes;
            special |= *ends | *backslashes;
        }
        match (self.foreign, union.move_mask() == 0) {
            (None, false) => self.foreign = Some(start),
            (Some(begun), true) => {
                utf8(self.bytes, begun, start)?;
                self.foreign = None;
            }
            (None, true) | (Some(_), false) => {}
        }
        // Long texts have whole blocks of nothing but letters.
        if special.move_mask() == 0 && self.carry == 0 {
            return Ok(Word::default());
        }
        let (mut ends, mut backslashes) = (0, 0);
        for (number, (lane_ends, lane_backslashes)) in found.iter().enumerate() {
            ends |= bits(*lane_ends) << (16 * number);
            backslashes |= bits(*lane_backslashes) << (16 * number);
        }
        if backslashes | self.carry != 0 {
            let escaped = self.escaped(backslashes);
            self.check_escapes(start, escaped)?;
            // No control character is among these: an escaped one has just been refused.
            ends &= !escaped;
        }
        Ok(Word { ends, backslashes })
    }

    /// Bytes behind an odd number of backslashes: a run that begins at an even place is found by the addition that carries through it
    /// (Langdale and Lemire, "Parsing gigabytes of JSON per second", 2019, section 3.1.1).
    #[inline]
    fn escaped(&mut self, backslashes: u64) -> u64 {
        const EVEN: u64 = 0x5555_5555_5555_5555;
        let backslashes = backslashes & !self.carry;
        let follows = backslashes << 1 | self.carry;
        let odd_starts = backslashes & !EVEN & !follows;
        let (through, overflow) = odd_starts.overflowing_add(backslashes);
        self.carry = u64::from(overflow);
        (EVEN ^ (through << 1)) & follows
    }

    #[inline]
    fn check_escapes(&self, start: usize, mut escaped: u64) -> Result<(), ScanError> {
        while escaped != 0 {
            let at = start + escaped.trailing_zeros() as usize;
            escaped &= escaped - 1;
            let good = match self.bytes.get(at) {
                Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => true,
                Some(b'u') => self.bytes.get(at + 1..at + 5).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)),
                // The document ends with a backslash: its string has no end, and that is said elsewhere.
                None => true,
                Some(_) => false,
            };
            if !good {
                return Err(ScanError { at: at - 1, reason: "invalid escape" });
            }
        }
        Ok(())
    }
}

#[inline]
fn bits(lane: u8x16) -> u64 {
    u64::from(lane.move_mask() as u16)
}

fn utf8(bytes: &[u8], start: usize, end: usize) -> Result<(), ScanError> {
    let stretch = bytes.get(start..end).unwrap_or_default();
    match simdutf8::compat::from_utf8(stretch) {
        Ok(_) => Ok(()),
        Err(error) => Err(ScanError { at: start + error.valid_up_to(), reason: "invalid UTF-8" }),
    }
}

/// Bytes that one word of bits stands for.
const BLOCK: usize = 64;
/// Words without an allocation: answers and requests of up to 2 KiB.
const INLINE: usize = 33;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same, byte by byte.
    fn plain(bytes: &[u8]) -> (Vec<usize>, Vec<usize>) {
        let (mut ends, mut backslashes, mut escaped) = (Vec::new(), Vec::new(), false);
        for (at, &byte) in bytes.iter().enumerate() {
            if byte == b'\\' {
                backslashes.push(at);
            }
            if (byte == b'"' && !escaped) || byte < 0x20 {
                ends.push(at);
            }
            escaped = byte == b'\\' && !escaped;
        }
        (ends, backslashes)
    }

    proptest! {
        #[test]
        fn the_bits_are_those_of_a_plain_walk(
            text in "([a-z\"\n\u{1f}é→\u{1F600}]|(\\\\[\"\\\\/bfnrt]){1,9}|\\\\u00e9){0,200}",
            start in 0..400_usize,
            length in 0..200_usize,
        ) {
            let bytes = text.as_bytes();
            let survey = Survey::of(bytes).unwrap();
            let (ends, backslashes) = plain(bytes);
            prop_assert_eq!(survey.next_end(start), ends.iter().copied().find(|at| *at >= start));
            let end = (start + length).min(bytes.len());
            if start <= end {
                prop_assert_eq!(survey.has_backslash(start, end), backslashes.iter().any(|at| (start..end).contains(at)));
            }
        }

        #[test]
        fn an_escape_is_refused_exactly_when_json_does_not_know_it(before in "(\\\\\\\\|[a-z]){0,80}", letter in any::<char>()) {
            let text = format!("{before}\\{letter}0000");
            let known = "\"\\/bfnrtu".contains(letter);
            prop_assert_eq!(Survey::of(text.as_bytes()).is_ok(), known, "{}", text);
        }

        #[test]
        fn encoding_is_judged_as_the_standard_library_judges_it(
            text in "[a-z]{0,150}(é|→|\u{1F600}|[a-z]){0,100}[a-z]{0,150}",
            damage in prop::option::of((any::<prop::sample::Index>(), any::<u8>().prop_filter("no escape", |byte| *byte != b'\\'))),
        ) {
            let mut bytes = text.into_bytes();
            if let (Some((at, byte)), false) = (damage, bytes.is_empty()) {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let expected = std::str::from_utf8(&bytes).map_err(|error| error.valid_up_to()).map(drop);
            prop_assert_eq!(Survey::of(&bytes).map_err(|error| error.at).map(drop), expected);
        }
    }
}
