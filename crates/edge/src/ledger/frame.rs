//! One entry as it stands in a file: length, checksum, bytes.
//!
//! A file ends wherever the machine stopped, so that its last frame may be half there, or be zeros that a file system had promised. The
//! checksum tells; whatever is after the first frame that does not hold is not read.

use std::io::{self, Read};

use prost::Message;

/// A whole frame, the end, or neither.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// The payload; `size` is what the whole frame takes in the file.
    Whole {
        /// The entry's bytes.
        payload: Vec<u8>,
        /// With its head, bytes.
        size: u64,
    },
    /// The file ends here, between two frames.
    End,
    /// Here is something that is no frame.
    Torn,
}

/// Appends a message as a frame.
pub(crate) fn append(out: &mut Vec<u8>, message: &impl Message) {
    // Writing to a Vec cannot fail.
    append_with(out, |out| message.encode(out).unwrap_or_default());
}

/// Appends what is written as a frame.
pub(crate) fn append_with(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; HEAD]);
    write(out);
    let payload = &out[start + HEAD..];
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let check = checksum(payload);
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    out[start + 4..start + HEAD].copy_from_slice(&check);
}

/// Reads the next frame.
///
/// # Errors
/// What the file system says, except for its end.
pub(crate) fn read(from: &mut impl Read) -> io::Result<Frame> {
    let mut head = [0; HEAD];
    match fill(from, &mut head)? {
        0 => return Ok(Frame::End),
        HEAD => {}
        _ => return Ok(Frame::Torn),
    }
    let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
    // Zeros would be an empty entry with a wrong checksum; no entry is empty.
    if length == 0 || length > MOST {
        return Ok(Frame::Torn);
    }
    let mut payload = vec![0; length as usize];
    if fill(from, &mut payload)? < payload.len() || checksum(&payload) != head[4..] {
        return Ok(Frame::Torn);
    }
    Ok(Frame::Whole { size: HEAD as u64 + u64::from(length), payload })
}

/// Fills the buffer as far as there is something.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(more) => filled += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// CRC-32C (RFC 3720, appendix B.4), which processors have an instruction for. A torn frame passes once in four billion times.
fn checksum(payload: &[u8]) -> [u8; 4] {
    crc_fast::crc32_iscsi(payload).to_le_bytes()
}

/// Length and checksum.
const HEAD: usize = 8;
/// A record is a few hundred bytes; its largest texts are bounded by the size of a request's head.
const MOST: u32 = 16 << 20;

#[cfg(test)]
mod tests {
    use tidegate_proto::v1::Begun;

    use super::*;

    fn file(ids: &[&str]) -> Vec<u8> {
        let mut out = Vec::new();
        for id in ids {
            append(&mut out, &Begun { id: (*id).to_owned(), ..Begun::default() });
        }
        out
    }

    fn ids(mut bytes: &[u8]) -> (Vec<String>, Frame) {
        let mut ids = Vec::new();
        loop {
            match read(&mut bytes).expect("reading memory") {
                Frame::Whole { payload, .. } => ids.push(Begun::decode(payload.as_slice()).expect("what was written").id),
                end => return (ids, end),
            }
        }
    }

    #[test]
    fn every_cut_leaves_the_whole_frames_before_it() {
        let whole = file(&["one", "two", "three"]);
        assert_eq!(ids(&whole), (vec!["one".to_owned(), "two".to_owned(), "three".to_owned()], Frame::End));
        let ends = [0, file(&["one"]).len(), file(&["one", "two"]).len(), whole.len()];
        for cut in 0..whole.len() {
            let (read, end) = ids(&whole[..cut]);
            assert_eq!(read.len(), ends.iter().filter(|end| **end > 0 && **end <= cut).count(), "cut at {cut}");
            assert_eq!(end == Frame::End, ends.contains(&cut), "cut at {cut}");
        }
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let whole = file(&["one", "two"]);
        let first = file(&["one"]).len();
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0x10;
            let (read, end) = ids(&changed);
            assert_eq!(end, Frame::Torn, "byte {at}");
            assert_eq!(read.len(), usize::from(at >= first), "byte {at}");
        }
    }

    #[test]
    fn the_checksum_is_the_one_of_the_standard() {
        assert_eq!(checksum(b"123456789"), 0xe306_9283_u32.to_le_bytes());
    }

    #[test]
    fn zeros_after_the_end_are_no_frames() {
        let mut zeros = file(&["one"]);
        zeros.extend_from_slice(&[0; 4096]);
        assert_eq!(ids(&zeros), (vec!["one".to_owned()], Frame::Torn));
    }
}
