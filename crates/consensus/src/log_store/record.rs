//! One value on disk: a format number, a checksum that also covers the key, and a message.
//!
//! The database has checksums of its own, over its pages. This one says that a record is the one that was written under this very key,
//! whatever happened to the file meanwhile.

use std::io;

use prost::Message;

/// Bytes of a record.
pub(super) fn seal(key: &[u8], message: &impl Message) -> Vec<u8> {
    let mut record = Vec::with_capacity(HEAD + message.encoded_len());
    record.push(FORMAT);
    record.extend_from_slice(&[0; CHECKSUM]);
    // Encoding into a vector that grows cannot run out of room.
    let _ = message.encode(&mut record);
    let sum = checksum(key, &record[HEAD..]);
    record[1..HEAD].copy_from_slice(&sum);
    record
}

/// The message of a record.
pub(super) fn open<M: Message + Default>(key: &[u8], record: &[u8]) -> io::Result<M> {
    let Some((&format, rest)) = record.split_first() else {
        return Err(corrupt("an empty record"));
    };
    if format != FORMAT {
        return Err(newer(format));
    }
    let Some((sum, body)) = rest.split_at_checked(CHECKSUM) else {
        return Err(corrupt("a record that is too short"));
    };
    if sum != checksum(key, body) {
        return Err(corrupt("a record whose checksum does not match"));
    }
    M::decode(body).map_err(|error| corrupt(format!("a record that is no message of ours: {error}")))
}

/// An error that says that what is on disk is not for this version. It stays as it is.
fn newer(format: u8) -> io::Error {
    let text = format!("the log has a record of format {format}, and this version reads format {FORMAT}: start the version that wrote it");
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// An error that says that what is on disk is not what was written.
pub(super) fn corrupt(what: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the log is damaged: found {what}"))
}

fn checksum(key: &[u8], body: &[u8]) -> [u8; CHECKSUM] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(body);
    let mut sum = [0; CHECKSUM];
    hasher.finalize_xof().fill(&mut sum);
    sum
}

const FORMAT: u8 = 1;
/// 64 bits: a chance flip goes unseen once in 10^19.
const CHECKSUM: usize = 8;
const HEAD: usize = 1 + CHECKSUM;

#[cfg(test)]
mod tests {
    use tidegate_proto::v1::RaftLogId;

    use super::*;

    #[test]
    fn a_record_of_another_format_is_not_called_damaged() {
        let mut record = seal(b"key", &RaftLogId::default());
        record[0] = FORMAT + 1;
        let error = open::<RaftLogId>(b"key", &record).unwrap_err().to_string();
        assert!(error.contains("a record of format 2, and this version reads format 1"), "{error}");
        assert!(!error.contains("damaged"), "{error}");
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let message = RaftLogId { term: 3, leader: 2, index: 77 };
        let record = seal(b"key", &message);
        assert_eq!(open::<RaftLogId>(b"key", &record).unwrap(), message);
        for bit in 0..record.len() * 8 {
            let mut flipped = record.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(open::<RaftLogId>(b"key", &flipped).is_err(), "bit {bit}");
        }
        assert!(open::<RaftLogId>(b"another key", &record).is_err());
        for length in 0..record.len() {
            assert!(open::<RaftLogId>(b"key", &record[..length]).is_err(), "{length} bytes");
        }
    }
}
