//! One pass over a document, a vector at a time, that answers every question about single bytes at once.
//!
//! It checks the encoding and the escapes, and notes, one bit per byte, where strings can end and where backslashes are. Finding the
//! end of a string is then a look at a few bits, however short the string is and however many escapes it holds; searching for it byte
//! by byte, or with a fresh vector search per escape, costs several times more on ordinary chat text.
//!
//! The pass runs ahead of its reader by a window at most: what was noted is still at hand when it is asked for, and a document of
//! any size needs no more memory than a short one. Vectors are as wide as this machine's are.

mod encoding;

use fearless_simd::{Level, dispatch, prelude::*, u8x16, u8x64};

use super::ScanError;

/// The pass, and what it found in the window it looked at last.
#[derive(Debug, Clone)]
pub(super) struct Survey<'a> {
    bytes: &'a [u8],
    window: [Word; WORDS],
    /// Where the window begins and ends. The last one ends behind the document, with what fills its last block.
    begin: usize,
    end: usize,
    /// 1 when the first byte behind the window is escaped by the last one in it, else 0.
    escaped: u64,
    /// There was a byte above ASCII in the window, whose character may go on behind it.
    foreign: bool,
}

/// Sixty-four bytes, one bit each.
#[derive(Debug, Clone, Copy, Default)]
struct Word {
    /// Quotes that are not escaped, and control characters.
    ends: u64,
    backslashes: u64,
}

impl<'a> Survey<'a> {
    /// Stands before the document. The first window is looked at: most documents are not longer.
    pub(super) fn of(bytes: &'a [u8]) -> Result<Self, ScanError> {
        let mut survey = Self { bytes, window: [Word::default(); WORDS], begin: 0, end: 0, escaped: 0, foreign: false };
        survey.advance()?;
        Ok(survey)
    }

    /// The next quote that ends a string, or control character, at or behind `start`, and whether there is a backslash before it. A
    /// window that was left is not looked at again: `start` must not go back.
    #[inline]
    pub(super) fn next_end(&mut self, start: usize) -> Result<Option<(usize, bool)>, ScanError> {
        let mut backslashes = 0;
        let mut mask = u64::MAX << (start % BLOCK);
        let mut block = start - start % BLOCK;
        loop {
            let words = self.window.get(block.saturating_sub(self.begin) / BLOCK..(self.end - self.begin) / BLOCK).unwrap_or_default();
            for word in words {
                let ends = word.ends & mask;
                if ends != 0 {
                    // All bits below the first end.
                    backslashes |= word.backslashes & mask & ((ends ^ (ends - 1)) >> 1);
                    return Ok(Some((block + ends.trailing_zeros() as usize, backslashes != 0)));
                }
                backslashes |= word.backslashes & mask;
                mask = u64::MAX;
                block += BLOCK;
            }
            if !self.advance()? {
                return Ok(None);
            }
        }
    }

    /// Looks at everything that is left.
    pub(super) fn finish(&mut self) -> Result<(), ScanError> {
        while self.advance()? {}
        Ok(())
    }

    /// Looks at the next window; `false` at the end of the document.
    ///
    /// Refuses what is not UTF-8, and escapes that JSON does not know. A backslash has no place outside of strings, so an escape is
    /// wrong wherever it is.
    fn advance(&mut self) -> Result<bool, ScanError> {
        // Beyond, not at: a character must not be cut, and whether it is tells the byte behind it.
        if self.end > self.bytes.len() {
            return Ok(false);
        }
        (self.begin, self.end) = (self.end, dispatch!(Level::new(), simd => self.look(simd))?);
        Ok(true)
    }

    /// Looks at the window from `end` on and gives its end.
    #[inline(always)]
    fn look<S: Simd>(&mut self, simd: S) -> Result<usize, ScanError> {
        let document = self.bytes;
        let begin = self.end;
        let (mut at, mut carry) = (begin, self.escaped);
        let mut union = u8x64::splat(simd, 0);
        for word in &mut self.window {
            let bytes = block(simd, document, at);
            union |= bytes;
            // The second bit moves the quote below the space, next to the control characters, and the space above it.
            let mut ends = (bytes ^ (b'"' ^ b' ')).simd_le(b' ').to_bitmask();
            let backslashes = bytes.simd_eq(b'\\').to_bitmask();
            if backslashes | carry != 0 {
                let escaped = escaped(backslashes, &mut carry);
                check_escapes(simd, document, at, bytes, escaped)?;
                // No control character is among the escaped: it has just been refused.
                ends &= !escaped;
            }
            *word = Word { ends, backslashes };
            at += BLOCK;
            if at > document.len() {
                break;
            }
        }
        self.escaped = carry;
        let foreign = union.simd_ge(0x80).any_true();
        if foreign || self.foreign {
            check_encoding(simd, document, begin, at)?;
        }
        self.foreign = foreign;
        Ok(at)
    }
}

/// The bytes from `at` on. Behind the end of the document stand spaces, which are nothing special and ASCII.
#[inline(always)]
fn block<S: Simd>(simd: S, document: &[u8], at: usize) -> u8x64<S> {
    let rest = document.get(at..).unwrap_or_default();
    let mut filled = [b' '; BLOCK];
    let whole = rest.first_chunk().unwrap_or_else(|| {
        filled[..rest.len()].copy_from_slice(rest);
        &filled
    });
    u8x64::from_slice(simd, whole)
}

/// Bytes behind an odd number of backslashes: a run that begins at an even place is found by the addition that carries through it
/// (Langdale and Lemire, "Parsing gigabytes of JSON per second", 2019, section 3.1.1). `carry` is 1 when the block's first byte is one,
/// and becomes that of the next block.
#[inline(always)]
fn escaped(backslashes: u64, carry: &mut u64) -> u64 {
    const EVEN: u64 = 0x5555_5555_5555_5555;
    let backslashes = backslashes & !*carry;
    let follows = backslashes << 1 | *carry;
    let odd_starts = backslashes & !EVEN & !follows;
    let (through, overflow) = odd_starts.overflowing_add(backslashes);
    *carry = u64::from(overflow);
    (EVEN ^ (through << 1)) & follows
}

#[inline(always)]
fn check_escapes<S: Simd>(simd: S, document: &[u8], start: usize, bytes: u8x64<S>, escaped: u64) -> Result<(), ScanError> {
    let (high, low) = nibbles(bytes);
    let unknown = (look_up(simd, &ESCAPES_HIGH, high) & look_up(simd, &ESCAPES_LOW, low)).simd_eq(0).to_bitmask() & escaped;
    let unicode = bytes.simd_eq(b'u').to_bitmask() & escaped;
    if unknown | unicode != 0 { check_each(document, start, unknown | unicode) } else { Ok(()) }
}

/// Judges the escapes with these letters, byte by byte.
fn check_each(document: &[u8], start: usize, mut letters: u64) -> Result<(), ScanError> {
    while letters != 0 {
        let at = start + letters.trailing_zeros() as usize;
        letters &= letters - 1;
        let good = match document.get(at) {
            Some(b'u') => document.get(at + 1..at + 5).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)),
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

/// Checks the encoding of the blocks from `begin` to `end`.
#[inline(always)]
fn check_encoding<S: Simd>(simd: S, document: &[u8], begin: usize, end: usize) -> Result<(), ScanError> {
    let mut mistakes = u8x64::splat(simd, 0);
    let mut before = match begin {
        0 => mistakes,
        begin => block(simd, document, begin - BLOCK),
    };
    let mut at = begin;
    while at < end {
        let block = block(simd, document, at);
        mistakes |= encoding::mistakes(simd, before, block);
        before = block;
        at += BLOCK;
    }
    if mistakes.simd_eq(0).all_true() { Ok(()) } else { wrong_encoding(document) }
}

/// Where it is wrong.
#[cold]
fn wrong_encoding(document: &[u8]) -> Result<(), ScanError> {
    let wrong = |error: std::str::Utf8Error| ScanError { at: error.valid_up_to(), reason: "invalid UTF-8" };
    std::str::from_utf8(document).map(drop).map_err(wrong)
}

/// What stands in `table` at each half byte.
#[inline(always)]
fn look_up<S: Simd>(simd: S, table: &[u8; 16], halves: u8x64<S>) -> u8x64<S> {
    u8x64::block_splat(u8x16::from_slice(simd, table)).swizzle_dyn_within_blocks(halves)
}

/// The upper and the lower half of each byte.
#[inline(always)]
fn nibbles<S: Simd>(bytes: u8x64<S>) -> (u8x64<S>, u8x64<S>) {
    (bytes >> 4, bytes & 0x0F)
}

/// The letters behind a backslash, `"\\/bfnrtu`: a letter is one of them when its halves share a bit, which is that of its upper half.
const ESCAPES_HIGH: [u8; 16] = {
    let mut table = [0; 16];
    (table[0x2], table[0x5], table[0x6], table[0x7]) = (1, 2, 4, 8);
    table
};
const ESCAPES_LOW: [u8; 16] = {
    let (letters, mut table, mut at) = (b"\"\\/bfnrtu", [0; 16], 0);
    while at < letters.len() {
        table[(letters[at] & 0x0F) as usize] |= ESCAPES_HIGH[(letters[at] >> 4) as usize];
        at += 1;
    }
    table
};

/// Bytes that one word of bits stands for.
const BLOCK: usize = 64;
/// Blocks that are looked at in one go: 2 KiB, more than most answers and all pieces of a stream.
const WORDS: usize = 32;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(bytes: &[u8]) -> Result<(), ScanError> {
        Survey::of(bytes).and_then(|mut survey| survey.finish())
    }

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

    /// Short pieces of interest with dull stretches between them, so that they lie everywhere in blocks and windows.
    fn strewn(piece: &'static str) -> impl Strategy<Value = String> {
        let stretch = prop_oneof![4 => Just(0), 2 => 0..100_usize, 1 => 1_900..2_100_usize];
        prop::collection::vec((stretch, piece), 0..24)
            .prop_map(|pieces| pieces.into_iter().map(|(stretch, piece)| "x".repeat(stretch) + &piece).collect())
    }

    proptest! {
        #[test]
        fn the_bits_are_those_of_a_plain_walk(
            text in strewn("([a-z\"\n\u{1f}é→\u{1F600}]|(\\\\[\"\\\\/bfnrt]){1,9}|\\\\u00e9){0,9}"),
            start in prop_oneof![0..100_usize, 0..9_000_usize],
            step in prop_oneof![1..100_usize, 1..5_000_usize],
        ) {
            let bytes = text.as_bytes();
            let mut survey = Survey::of(bytes).unwrap();
            let (ends, backslashes) = plain(bytes);
            // Forward in steps, as a reader goes.
            let mut start = start;
            while start < bytes.len() + 100 {
                let next = |found: &[usize]| found.get(found.partition_point(|at| *at < start)).copied();
                let end = next(&ends);
                let escaped = next(&backslashes).is_some_and(|at| Some(at) < end);
                prop_assert_eq!(survey.next_end(start).unwrap(), end.map(|end| (end, escaped)));
                start = end.unwrap_or(start) + step;
            }
        }

        #[test]
        fn an_escape_is_refused_exactly_when_json_does_not_know_it(before in strewn("(\\\\\\\\|[a-z]){0,9}"), letter in any::<char>()) {
            let text = format!("{before}\\{letter}0000");
            let known = "\"\\/bfnrtu".contains(letter);
            prop_assert_eq!(whole(text.as_bytes()).is_ok(), known, "{}", text);
        }

        #[test]
        fn encoding_is_judged_as_the_standard_library_judges_it(
            text in strewn("(é|→|\u{1F600}|[a-z]){0,9}"),
            damage in prop::option::of((any::<prop::sample::Index>(), any::<u8>().prop_filter("no escape", |byte| *byte != b'\\'))),
            end in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let mut bytes = text.into_bytes();
            if let (Some((at, byte)), false) = (damage, bytes.is_empty()) {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if let Some(end) = end {
                bytes.truncate(end.index(bytes.len() + 1));
            }
            let expected = std::str::from_utf8(&bytes).map_err(|error| error.valid_up_to()).map(drop);
            prop_assert_eq!(whole(&bytes).map_err(|error| error.at), expected);
        }
    }

    #[test]
    fn every_pair_and_every_short_sequence_of_bytes_is_judged_as_the_standard_library_judges_it() {
        let mut text = [b'x'; BLOCK + 8];
        // Across the border of two blocks, whose bytes come from two vectors.
        for first in 0x80..=0xFF_u8 {
            for second in 0..=0xFF_u8 {
                for rest in [[b'x', b'x'], [0x80, b'x'], [0x80, 0x80], [0xBF, 0xBF]] {
                    text[BLOCK - 2..BLOCK + 2].copy_from_slice(&[first, second, rest[0], rest[1]]);
                    let expected = std::str::from_utf8(&text).map_err(|error| error.valid_up_to()).map(drop);
                    // The backslash is an escape, which is judged elsewhere.
                    if second != b'\\' {
                        assert_eq!(whole(&text).map_err(|error| error.at), expected, "{first:02x} {second:02x} {rest:02x?}");
                    }
                }
            }
        }
    }
}
