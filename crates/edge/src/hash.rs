//! One stable hash for names and conversations; not for secrets.

/// A 64-bit BLAKE3 prefix of the parts, each preceded by its length so that no two lists of parts collide by concatenation.
pub(crate) fn of(parts: &[&[u8]]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(first)
}
