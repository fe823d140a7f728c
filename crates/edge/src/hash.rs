//! One stable hash for names and conversations; not for secrets.

use smallvec::SmallVec;

/// A 64-bit BLAKE3 prefix of the parts, each preceded by its length so that no two lists of parts collide by concatenation.
pub(crate) fn of(parts: &[&[u8]]) -> u64 {
    // Put together first: hashing one short text costs half of feeding a hasher piece by piece.
    let mut text: SmallVec<[u8; SHORT]> = SmallVec::new();
    for part in parts {
        text.extend_from_slice(&(part.len() as u64).to_le_bytes());
        text.extend_from_slice(part);
    }
    let mut first = [0; 8];
    first.copy_from_slice(&blake3::hash(&text).as_bytes()[..8]);
    u64::from_le_bytes(first)
}

/// Bytes of the parts of a usual conversation.
const SHORT: usize = 128;

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn the_hash_is_the_same_in_every_version() {
        // Edges of different versions have to send a conversation to the same account.
        let mut hasher = blake3::Hasher::new();
        hasher.update(&3_u64.to_le_bytes()).update(b"abc").update(&0_u64.to_le_bytes());
        let expected = u64::from_le_bytes(hasher.finalize().as_bytes()[..8].try_into().expect("eight bytes"));
        assert_eq!(of(&[b"abc", b""]), expected);
        assert_ne!(of(&[b"ab", b"c"]), of(&[b"abc"]));
        let long = [7; 1000];
        assert_ne!(of(&[&long]), of(&[&long[1..]]));
    }
}
