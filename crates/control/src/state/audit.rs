//! Who did what and why, as a chain: a line that is changed or left out breaks every hash after it.

use std::sync::Arc;

use imbl::Vector;
use prost::Message;
use thiserror::Error;
use tidegate_proto::v1::AuditEntry;

/// Lines that are kept in the state. Older ones are in the archive that every control node writes beside its data.
pub const AUDIT_KEPT: usize = 10_000;

/// The chain's newest lines.
#[derive(Debug, Clone, Default)]
pub struct Audit {
    entries: Vector<Arc<AuditEntry>>,
    /// Hash of the last line that is no longer kept; empty when all are.
    anchor: Vec<u8>,
    dropped: u64,
}

/// Where the chain does not hold.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BrokenChain {
    /// The line does not follow the one before it.
    #[error("audit line of index {0} does not follow the line before it")]
    Unlinked(u64),
    /// The line is not what its hash says.
    #[error("audit line of index {0} was changed")]
    Altered(u64),
}

impl Audit {
    /// Lines that are kept, oldest first.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = &Arc<AuditEntry>> {
        self.entries.iter()
    }

    /// How many lines came before those.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Hash of the last line that is no longer kept; empty when all are.
    pub fn anchor(&self) -> &[u8] {
        &self.anchor
    }

    pub(super) fn restored(entries: Vec<AuditEntry>, anchor: Vec<u8>, dropped: u64) -> Result<Audit, BrokenChain> {
        verify(&anchor, &entries)?;
        Ok(Audit { entries: entries.into_iter().map(Arc::new).collect(), anchor, dropped })
    }

    pub(super) fn push(&mut self, mut entry: AuditEntry) {
        entry.previous = match self.entries.last() {
            Some(last) => last.hash.clone(),
            None => self.anchor.clone().into(),
        };
        entry.hash = hash(&entry).to_vec().into();
        self.entries.push_back(Arc::new(entry));
        while self.entries.len() > AUDIT_KEPT {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.anchor = oldest.hash.to_vec();
            self.dropped += 1;
        }
    }
}

/// Checks lines that follow the line whose hash is `anchor` (empty for the first line ever).
///
/// # Errors
/// Names the first line that does not hold.
pub fn verify<'a>(anchor: &[u8], entries: impl IntoIterator<Item = &'a AuditEntry>) -> Result<(), BrokenChain> {
    let mut previous = anchor.to_vec();
    for entry in entries {
        if entry.previous != previous {
            return Err(BrokenChain::Unlinked(entry.index));
        }
        if entry.hash != hash(entry).as_slice() {
            return Err(BrokenChain::Altered(entry.index));
        }
        previous = entry.hash.to_vec();
    }
    Ok(())
}

fn hash(entry: &AuditEntry) -> [u8; 32] {
    let bare = AuditEntry { hash: bytes::Bytes::new(), ..entry.clone() };
    *blake3::hash(&bare.encode_to_vec()).as_bytes()
}
