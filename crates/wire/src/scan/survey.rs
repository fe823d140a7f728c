//! One pass over a document, sixteen bytes at a time, that answers every question about single bytes at once.
//!
//! It checks the encoding and notes, one bit per byte, where quotes, backslashes and control characters are. Finding the end of a
//! string is then a look at a few bits, however short the string is and however many escapes it holds; searching for it byte by
//! byte or with a fresh vector search per escape costs several times more on ordinary chat text.

use smallvec::SmallVec;
use wide::u8x16;

use super::ScanError;

/// What the pass found.
#[derive(Debug, Clone)]
pub(super) struct Survey {
    /// One bit per byte that cannot stand in a string as it is: quote, backslash, control character.
    special: SmallVec<[u64; INLINE]>,
}

impl Survey {
    /// Looks at the whole document; refuses what is not UTF-8.
    pub(super) fn of(bytes: &[u8]) -> Result<Survey, ScanError> {
        let mut special = SmallVec::with_capacity(bytes.len() / BLOCK + 1);
        let (blocks, rest) = bytes.as_chunks::<BLOCK>();
        // Where a stretch with bytes above ASCII begins. A block of ASCII before and behind it means that no character is cut.
        let mut foreign = None;
        for (number, block) in blocks.iter().enumerate() {
            let found = look(block);
            special.push(found.special);
            match (foreign, found.ascii) {
                (None, false) => foreign = Some(number * BLOCK),
                (Some(start), true) => {
                    utf8(bytes, start, number * BLOCK)?;
                    foreign = None;
                }
                (None, true) | (Some(_), false) => {}
            }
        }
        let tail = bytes.len() - rest.len();
        // A space is neither special nor above ASCII.
        let mut last = [b' '; BLOCK];
        last[..rest.len()].copy_from_slice(rest);
        let found = look(&last);
        special.push(found.special);
        if let Some(start) = foreign.or((!found.ascii).then_some(tail)) {
            utf8(bytes, start, bytes.len())?;
        }
        Ok(Survey { special })
    }

    /// The next special byte at or behind `start`.
    #[inline]
    pub(super) fn next(&self, start: usize) -> Option<usize> {
        let mut word = start / BLOCK;
        let mut bits = self.special.get(word)? & (u64::MAX << (start % BLOCK));
        while bits == 0 {
            word += 1;
            bits = *self.special.get(word)?;
        }
        Some(word * BLOCK + bits.trailing_zeros() as usize)
    }
}

struct Found {
    special: u64,
    ascii: bool,
}

#[inline]
fn look(block: &[u8; BLOCK]) -> Found {
    let (lanes, _) = block.as_chunks::<16>();
    let mut special = 0;
    let mut union = u8x16::splat(0);
    for (number, lane) in lanes.iter().enumerate() {
        let bytes = u8x16::new(*lane);
        union |= bytes;
        let control = bytes.min(u8x16::splat(LAST_CONTROL)).cmp_eq(bytes);
        let found = bytes.cmp_eq(u8x16::splat(b'"')) | bytes.cmp_eq(u8x16::splat(b'\\')) | control;
        special |= u64::from(found.move_mask() as u16) << (16 * number);
    }
    Found { special, ascii: union.move_mask() == 0 }
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
/// The last of the ASCII control characters that JSON forbids in strings.
const LAST_CONTROL: u8 = 0x1f;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_special(byte: u8) -> bool {
        byte < 0x20 || byte == b'"' || byte == b'\\'
    }

    proptest! {
        #[test]
        fn the_bits_are_those_of_a_plain_search(text in "[a-z\"\\\\\n\u{1f}é→\u{1F600}]{0,300}", start in 0..400_usize) {
            let bytes = text.as_bytes();
            let survey = Survey::of(bytes).unwrap();
            let expected = (start..bytes.len()).find(|at| is_special(bytes[*at]));
            prop_assert_eq!(survey.next(start), expected);
        }

        #[test]
        fn encoding_is_judged_as_the_standard_library_judges_it(
            text in "[a-z]{0,150}(é|→|\u{1F600}|[a-z]){0,100}[a-z]{0,150}",
            damage in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
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
