//! Whether bytes are UTF-8, many at a time and without a branch.
//!
//! Whether two neighbours may follow each other is told by three half bytes: those of the first, and the upper one of the second. Each
//! half looks up the mistakes it may be part of, one bit each; what all three agree on is one. (Keiser and Lemire, "Validating UTF-8
//! in less than one instruction per byte", 2021, section 6.)

use fearless_simd::{prelude::*, u8x64};

use super::{BLOCK, look_up, nibbles};

/// A lead is not followed by a continuation.
const TOO_SHORT: u8 = 1 << 0;
/// ASCII is followed by a continuation.
const TOO_LONG: u8 = 1 << 1;
/// Three bytes for what two can say: E0 and less than A0.
const OVERLONG_3: u8 = 1 << 2;
/// Beyond U+10FFFF: F4 and 90 or more, F5 and more with 90 or more.
const TOO_LARGE: u8 = 1 << 3;
/// U+D800 to U+DFFF: ED and A0 or more.
const SURROGATE: u8 = 1 << 4;
/// Two bytes for what one can say: C0 or C1.
const OVERLONG_2: u8 = 1 << 5;
/// Four bytes for what three can say: F0 and 80 to 8F; and F5 and more with those.
const OUT_OF_FOUR: u8 = 1 << 6;
/// Two continuations, which is right where a lead of three or four stands before them.
const TWO_CONTINUATIONS: u8 = 1 << 7;

/// Mistakes that do not depend on the lower half of the first byte.
const ANY_LOW: u8 = TOO_SHORT | TOO_LONG | TWO_CONTINUATIONS;

const FIRST_HIGH: [u8; 16] = {
    let mut table = [TOO_LONG; 16];
    let mut half = 0x8;
    while half <= 0xB {
        table[half] = TWO_CONTINUATIONS;
        half += 1;
    }
    table[0xC] = TOO_SHORT | OVERLONG_2;
    table[0xD] = TOO_SHORT;
    table[0xE] = TOO_SHORT | OVERLONG_3 | SURROGATE;
    table[0xF] = TOO_SHORT | TOO_LARGE | OUT_OF_FOUR;
    table
};

const FIRST_LOW: [u8; 16] = {
    let mut table = [ANY_LOW | TOO_LARGE | OUT_OF_FOUR; 16];
    table[0x0] = ANY_LOW | OVERLONG_2 | OVERLONG_3 | OUT_OF_FOUR;
    table[0x1] = ANY_LOW | OVERLONG_2;
    table[0x2] = ANY_LOW;
    table[0x3] = ANY_LOW;
    table[0x4] = ANY_LOW | TOO_LARGE;
    table[0xD] |= SURROGATE;
    table
};

const SECOND_HIGH: [u8; 16] = {
    const CONTINUES: u8 = TOO_LONG | OVERLONG_2 | TWO_CONTINUATIONS;
    let mut table = [TOO_SHORT; 16];
    table[0x8] = CONTINUES | OVERLONG_3 | OUT_OF_FOUR;
    table[0x9] = CONTINUES | OVERLONG_3 | TOO_LARGE;
    table[0xA] = CONTINUES | SURROGATE | TOO_LARGE;
    table[0xB] = CONTINUES | SURROGATE | TOO_LARGE;
    table
};

/// Not all zero where a byte of `block` cannot stand behind those before it, which are at the end of `before`.
#[inline(always)]
pub(super) fn mistakes<S: Simd>(simd: S, before: u8x64<S>, block: u8x64<S>) -> u8x64<S> {
    let (first_high, first_low) = nibbles(before.slide::<{ BLOCK - 1 }>(block));
    let (second_high, _) = nibbles(block);
    let first = look_up(simd, &FIRST_HIGH, first_high) & look_up(simd, &FIRST_LOW, first_low);
    let wrong = first & look_up(simd, &SECOND_HIGH, second_high);
    // The top bit is set where the lead two or three bytes before asks for this continuation: E0 and more, F0 and more.
    let third = before.slide::<{ BLOCK - 2 }>(block).saturating_sub(u8x64::splat(simd, 0xE0 - 0x80));
    let fourth = before.slide::<{ BLOCK - 3 }>(block).saturating_sub(u8x64::splat(simd, 0xF0 - 0x80));
    wrong ^ ((third | fourth) & TWO_CONTINUATIONS)
}
