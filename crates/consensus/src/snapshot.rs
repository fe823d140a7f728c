//! The snapshot file: the agreed state at one point of the log, in one piece that says by itself whether it is whole. Pure.
//!
//! ```text
//! "TGSNAP01" | format u32 | head length u32 | head (protobuf) | sections, each compressed by zstd | BLAKE3 of all before
//! ```

use bytes::Bytes;
use prost::Message as _;
use tidegate_proto::v1;

use crate::message::{Message, optional, required};
use crate::types::{LogId, StoredMembership};

/// What a snapshot holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Snapshot {
    pub(crate) cluster_id: String,
    pub(crate) last_log_id: Option<LogId>,
    pub(crate) membership: StoredMembership,
    /// Node ids given so far.
    pub(crate) allocated: Vec<v1::RaftMember>,
    /// Sections of the application.
    pub(crate) sections: Vec<(String, Bytes)>,
}

/// Bytes that are no snapshot of ours, or not any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    #[error("the snapshot is damaged: {0}")]
    Damaged(&'static str),
    #[error("the snapshot has format {0}; this version reads format {FORMAT}")]
    Format(u32),
    #[error("section `{section}` of the snapshot")]
    Compression {
        section: String,
        #[source]
        source: std::io::Error,
    },
}

impl From<SnapshotError> for std::io::Error {
    fn from(error: SnapshotError) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, error)
    }
}

impl Snapshot {
    /// The file.
    pub(crate) fn encode(&self) -> Result<Bytes, SnapshotError> {
        let mut packed = Vec::with_capacity(self.sections.len());
        let mut sections = Vec::with_capacity(self.sections.len());
        for (name, content) in &self.sections {
            let bytes = zstd::bulk::compress(content, COMPRESSION)
                .map_err(|source| SnapshotError::Compression { section: name.clone(), source })?;
            sections.push(v1::RaftSection { name: name.clone(), stored: bytes.len() as u64, length: content.len() as u64 });
            packed.push(bytes);
        }
        let head = v1::RaftSnapshotHead {
            cluster_id: self.cluster_id.clone(),
            last_log_id: self.last_log_id.as_ref().map(Message::to_proto),
            membership: Some(self.membership.to_proto()),
            sections,
            allocated: self.allocated.clone(),
        }
        .encode_to_vec();
        let head_length = u32::try_from(head.len()).map_err(|_| SnapshotError::Damaged("its head would be larger than 4 GiB"))?;
        let mut file = Vec::with_capacity(FIXED + head.len() + packed.iter().map(Vec::len).sum::<usize>() + DIGEST);
        file.extend_from_slice(MAGIC);
        file.extend_from_slice(&FORMAT.to_le_bytes());
        file.extend_from_slice(&head_length.to_le_bytes());
        file.extend_from_slice(&head);
        packed.iter().for_each(|bytes| file.extend_from_slice(bytes));
        let digest = blake3::hash(&file);
        file.extend_from_slice(digest.as_bytes());
        Ok(file.into())
    }

    /// The content of a file, once its digest has been found right.
    pub(crate) fn decode(file: &Bytes) -> Result<Self, SnapshotError> {
        let head = head(file)?;
        let mut rest = body(file)?;
        let mut sections = Vec::with_capacity(head.sections.len());
        for section in head.sections {
            let stored = usize::try_from(section.stored).unwrap_or(usize::MAX);
            let Some((packed, behind)) = rest.split_at_checked(stored) else {
                return Err(SnapshotError::Damaged("a section reaches beyond its end"));
            };
            rest = behind;
            let length = usize::try_from(section.length).ok().filter(|length| *length <= LARGEST_SECTION);
            let length = length.ok_or(SnapshotError::Damaged("a section is larger than any can be"))?;
            let content = zstd::bulk::decompress(packed, length)
                .map_err(|source| SnapshotError::Compression { section: section.name.clone(), source })?;
            if content.len() != length {
                return Err(SnapshotError::Damaged("a section is shorter than it says"));
            }
            sections.push((section.name, Bytes::from(content)));
        }
        if !rest.is_empty() {
            return Err(SnapshotError::Damaged("there is more in it than its head says"));
        }
        let malformed = |_| SnapshotError::Damaged("its head is malformed");
        Ok(Self {
            cluster_id: head.cluster_id,
            last_log_id: optional(head.last_log_id).map_err(malformed)?,
            membership: required(head.membership, "membership").map_err(malformed)?,
            allocated: head.allocated,
            sections,
        })
    }
}

/// Looks at the digest only.
pub(crate) fn verify(file: &[u8]) -> Result<(), SnapshotError> {
    let Some((content, digest)) = file.len().checked_sub(DIGEST).map(|at| file.split_at(at)) else {
        return Err(SnapshotError::Damaged("it is too short"));
    };
    if crate::known_bugs::on(crate::known_bugs::Bug::SnapshotWithoutDigest) {
        return Ok(());
    }
    // No secret is compared here, so the time it takes says nothing.
    if blake3::hash(content).as_bytes() != digest {
        return Err(SnapshotError::Damaged("its digest does not match"));
    }
    Ok(())
}

fn head(file: &[u8]) -> Result<v1::RaftSnapshotHead, SnapshotError> {
    if !file.starts_with(MAGIC) {
        return Err(SnapshotError::Damaged("it does not begin like one"));
    }
    let format = number(file, MAGIC.len())?;
    if format != FORMAT {
        return Err(SnapshotError::Format(format));
    }
    verify(file)?;
    let length = number(file, MAGIC.len() + 4)? as usize;
    let bytes = file.get(FIXED..FIXED + length).ok_or(SnapshotError::Damaged("its head reaches beyond its end"))?;
    v1::RaftSnapshotHead::decode(bytes).map_err(|_| SnapshotError::Damaged("its head is malformed"))
}

/// What stands between head and digest.
fn body(file: &[u8]) -> Result<&[u8], SnapshotError> {
    let start = FIXED + number(file, MAGIC.len() + 4)? as usize;
    file.get(start..file.len().saturating_sub(DIGEST)).ok_or(SnapshotError::Damaged("its head reaches beyond its end"))
}

fn number(file: &[u8], at: usize) -> Result<u32, SnapshotError> {
    let bytes: [u8; 4] = file.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).ok_or(SnapshotError::Damaged("it is too short"))?;
    Ok(u32::from_le_bytes(bytes))
}

const MAGIC: &[u8; 8] = b"TGSNAP01";
const FORMAT: u32 = 1;
const FIXED: usize = MAGIC.len() + 8;
const DIGEST: usize = blake3::OUT_LEN;
/// zstd's own default: protobuf of this kind shrinks to about a third.
const COMPRESSION: i32 = 3;
/// A state of 300 MB is the most a node is made for.
const LARGEST_SECTION: usize = 1 << 30;
/// The same for the whole file.
pub(crate) const LARGEST_SNAPSHOT: u64 = 1 << 30;

#[cfg(test)]
mod tests {
    use openraft::vote::RaftLeaderId as _;
    use proptest::prelude::*;

    use super::*;
    use crate::types::LeaderId;

    fn sample() -> Snapshot {
        Snapshot {
            cluster_id: "north".into(),
            last_log_id: Some(LogId::new(LeaderId::new(3, 1), 12)),
            membership: StoredMembership::default(),
            allocated: vec![v1::RaftMember { id: 7, node: Some(v1::RaftNode::default()) }],
            sections: vec![("keys".into(), Bytes::from(vec![7; 300])), ("empty".into(), Bytes::new())],
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_seen() {
        let snapshot = sample();
        let file = snapshot.encode().unwrap();
        assert_eq!(Snapshot::decode(&file).unwrap(), snapshot);
        for bit in 0..file.len() * 8 {
            let mut flipped = file.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Snapshot::decode(&flipped.into()).is_err(), "bit {bit}");
        }
        for length in 0..file.len() {
            assert!(Snapshot::decode(&file.slice(..length)).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn a_later_format_is_named() {
        let mut file = sample().encode().unwrap().to_vec();
        file[8] = 9;
        let error = Snapshot::decode(&file.into()).unwrap_err();
        assert!(matches!(error, SnapshotError::Format(9)), "{error}");
    }

    /// The digest is right and what it covers is not: damage by a bug of a writer, or by malice.
    #[test]
    fn lengths_that_lie_are_refused() {
        for (stored, length) in [(u64::MAX, 1), (1, u64::MAX), (0, 5), (3, 1 << 31)] {
            let head = v1::RaftSnapshotHead {
                membership: Some(StoredMembership::default().to_proto()),
                sections: vec![v1::RaftSection { name: "lie".into(), stored, length }],
                ..Default::default()
            }
            .encode_to_vec();
            let mut file = MAGIC.to_vec();
            file.extend_from_slice(&FORMAT.to_le_bytes());
            file.extend_from_slice(&(head.len() as u32).to_le_bytes());
            file.extend_from_slice(&head);
            let digest = blake3::hash(&file);
            file.extend_from_slice(digest.as_bytes());
            assert!(Snapshot::decode(&file.into()).is_err(), "{stored} {length}");
        }
    }

    proptest! {
        #[test]
        fn sections_survive(sections in prop::collection::vec((".{0,8}", prop::collection::vec(any::<u8>(), 0..2_000)), 0..5)) {
            let sections = sections.into_iter().map(|(name, content)| (name, Bytes::from(content))).collect();
            let snapshot = Snapshot { sections, ..Default::default() };
            prop_assert_eq!(Snapshot::decode(&snapshot.encode().unwrap()).unwrap(), snapshot);
        }

        #[test]
        fn any_bytes_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut file = MAGIC.to_vec();
            file.extend_from_slice(&bytes);
            prop_assert!(Snapshot::decode(&file.into()).is_err());
        }
    }
}
