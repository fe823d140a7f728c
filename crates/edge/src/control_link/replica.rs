//! The edge's copy of the agreed state: what it received, and how it knows that it is the same.
//!
//! Pure: messages in, what they changed out. Keys live in the table that requests use, everything else in a [`ResourceMap`]; one digest
//! covers both. Nothing of a message in several parts shows before its last part has come and the digest agrees, and the index never
//! goes back.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use secrecy::SecretString;
use tidegate_proto::v1::{Bookmark, Delta, Key, Position, Resource, ResourceId, Revoke, Snapshot, snapshot};
use tidegate_proto::{Digest, Kind, ResourceMap};

use crate::auth::{Caller, Keys, Policies, ReadPolicy};

/// What an edge holds.
pub struct Replica {
    /// What it holds everything of; `None` until there is something, and after a divergence.
    position: Option<(u64, Digest)>,
    /// Newest index that was ever held.
    floor: u64,
    leader_time_ms: u64,
    mesh: ResourceMap,
    keys: KeySet,
    policies: Policies,
    partial: Partial,
    /// Keys that were revoked ahead of the index that is held, with the index of their revocation.
    revoked: BTreeMap<String, u64>,
    newest_revocation: u64,
}

/// All keys, with what is needed to know them to be all.
#[derive(Clone)]
struct KeySet {
    table: Keys,
    digest: Digest,
    /// Revisions of keys that cannot be used. They are part of the agreed state all the same.
    unusable: BTreeMap<String, u64>,
}

/// What has come so far of a message in parts.
enum Partial {
    Nothing,
    Snapshot { index: u64, leader_time_ms: u64, mesh: ResourceMap, keys: Box<KeySet> },
    Delta { to: u64, upserts: Vec<Resource>, removes: Vec<ResourceId> },
}

/// What a message changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Something other than keys.
    pub mesh: bool,
    /// Keys.
    pub keys: bool,
    /// What is held is what the control node holds: nothing is known to be missing.
    pub current: bool,
    /// Keys that cannot be used, and why.
    pub unusable: Vec<(String, String)>,
    /// Keys whose running answers are to be cut.
    pub cut: Vec<String>,
}

/// The edge and the control node do not mean the same state: only a snapshot helps.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Divergence {
    /// Changes since an index other than the one that is held.
    #[error("changes since index {from} came, but the edge holds {held:?}")]
    Gap {
        /// Where the changes begin.
        from: u64,
        /// What is held.
        held: Option<u64>,
    },
    /// The digests do not agree.
    #[error("at index {index} the edge's digest is {ours}, the control node's {theirs}")]
    Digest {
        /// Where.
        index: u64,
        /// Of what is held.
        ours: Digest,
        /// As sent.
        theirs: String,
    },
    /// A snapshot that is older than what was held before.
    #[error("the control node's snapshot is of index {index}, the edge has held {floor}; another node is ahead")]
    Behind {
        /// Of the snapshot.
        index: u64,
        /// Of the edge.
        floor: u64,
    },
    /// A message without a part that it must have, or parts out of order.
    #[error("a message that is not well-formed: {0}")]
    Malformed(&'static str),
}

impl Replica {
    /// Holds nothing. `read_policy` understands what keys may do.
    #[must_use]
    pub fn new(pepper: Option<&SecretString>, read_policy: ReadPolicy) -> Self {
        Self {
            position: None,
            floor: 0,
            leader_time_ms: 0,
            mesh: ResourceMap::default(),
            keys: KeySet { table: Keys::empty(pepper), digest: Digest::default(), unusable: BTreeMap::new() },
            policies: Policies::new(read_policy),
            partial: Partial::Nothing,
            revoked: BTreeMap::new(),
            newest_revocation: 0,
        }
    }

    /// Newest index that was held as a whole; 0 before the first.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.floor
    }

    /// Where to go on; `None` asks for a snapshot.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.position.map(|(index, digest)| Position { index, digest: Bytes::copy_from_slice(&digest.to_bytes()) })
    }

    /// Everything but keys.
    #[must_use]
    pub fn mesh(&self) -> &ResourceMap {
        &self.mesh
    }

    /// Number of keys.
    #[must_use]
    pub fn key_count(&self) -> usize {
        self.keys.table.len()
    }

    /// Digest of what is held.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.mesh.digest().with(self.keys.digest)
    }

    /// Newest revocation in force.
    #[must_use]
    pub fn newest_revocation(&self) -> u64 {
        self.newest_revocation
    }

    /// The leader's clock when what is held was agreed, Unix milliseconds.
    #[must_use]
    pub fn leader_time_ms(&self) -> u64 {
        self.leader_time_ms
    }

    pub(crate) fn keys(&self) -> &Keys {
        &self.keys.table
    }

    pub(crate) fn keys_mut(&mut self) -> (&mut Keys, &mut Policies) {
        (&mut self.keys.table, &mut self.policies)
    }

    /// Whether a request with these headers comes from a known key; for measurements.
    #[doc(hidden)]
    #[must_use]
    pub fn knows(&self, headers: &http::HeaderMap, unix_now: u64) -> bool {
        self.keys.table.authenticate(headers, unix_now).is_ok()
    }

    /// Forgets one resource without noticing, as a flipped bit would. For tests of what is done about it; whether there was one.
    #[doc(hidden)]
    pub fn corrupt_for_test(&mut self, seed: u64) -> bool {
        let nth = usize::try_from(seed).unwrap_or(0) % self.mesh.len().max(1);
        let Some(id) = self.mesh.iter().nth(nth).and_then(|resource| resource.id.clone()) else { return false };
        let removed = self.mesh.remove(&id);
        if let Some((_, digest)) = &mut self.position {
            *digest = self.mesh.digest().with(self.keys.digest);
        }
        removed
    }

    /// Whether a key of this id could be used now.
    #[must_use]
    pub fn serves(&self, public_id: &str) -> bool {
        self.keys.table.by_id(public_id).is_some_and(|caller| !caller.disabled)
    }

    /// A connection ended: what has come of a message in parts is worth nothing.
    pub fn disconnected(&mut self) {
        self.partial = Partial::Nothing;
    }

    /// Asks for a snapshot when the edge connects again.
    pub fn distrust(&mut self) {
        self.partial = Partial::Nothing;
        self.position = None;
    }

    /// What was kept over a restart.
    pub(crate) fn restore(&mut self, kept: Restored) {
        let Restored { position, floor, mesh, keys, newest_revocation } = kept;
        for resource in mesh {
            self.mesh.upsert(resource);
        }
        let mut unusable = Vec::new();
        for key in keys {
            self.keys.put(key, &mut self.policies, &self.revoked, &mut unusable);
        }
        for (id, reason) in unusable {
            tracing::warn!(key = %id, %reason, "a key that was kept cannot be used");
        }
        self.floor = floor;
        self.newest_revocation = newest_revocation;
        let digest = self.digest();
        let kept = position.filter(|position| Digest::from_slice(&position.digest) == Some(digest));
        self.position = kept.map(|position| (position.index, digest));
    }

    /// Takes a part of a snapshot.
    ///
    /// # Errors
    /// When it does not fit; then the stream has to end, and the next one asks for a snapshot.
    pub fn snapshot(&mut self, message: Snapshot) -> Result<Taken, Divergence> {
        let mut taken = Taken::default();
        match (message.part, &mut self.partial) {
            (Some(snapshot::Part::Begin(begin)), _) => {
                if begin.index < self.floor {
                    self.distrust();
                    return Err(Divergence::Behind { index: begin.index, floor: self.floor });
                }
                let table = self.keys.table.without_keys();
                self.partial = Partial::Snapshot {
                    index: begin.index,
                    leader_time_ms: begin.leader_time_ms,
                    mesh: ResourceMap::default(),
                    keys: Box::new(KeySet { table, digest: Digest::default(), unusable: BTreeMap::new() }),
                };
            }
            (Some(snapshot::Part::Chunk(chunk)), Partial::Snapshot { mesh, keys, .. }) => {
                for resource in chunk.resources {
                    if is_key(resource.id.as_ref()) {
                        keys.put(resource, &mut self.policies, &self.revoked, &mut taken.unusable);
                    } else {
                        mesh.upsert(resource);
                    }
                }
            }
            (Some(snapshot::Part::End(end)), Partial::Snapshot { .. }) => {
                let Partial::Snapshot { index, leader_time_ms, mesh, keys } = std::mem::replace(&mut self.partial, Partial::Nothing) else {
                    return Err(Divergence::Malformed("unreachable"));
                };
                let position = end.position.unwrap_or_default();
                let digest = mesh.digest().with(keys.digest);
                if position.index != index {
                    self.distrust();
                    return Err(Divergence::Malformed("a snapshot ends at another index than it begins with"));
                }
                self.agree(index, digest, &position)?;
                taken.mesh = self.mesh.digest() != mesh.digest();
                taken.keys = true;
                (self.mesh, self.keys) = (mesh, *keys);
                self.hold(index, digest, leader_time_ms);
                taken.current = true;
            }
            (None | Some(_), _) => {
                self.distrust();
                return Err(Divergence::Malformed("parts of a snapshot out of order"));
            }
        }
        Ok(taken)
    }

    /// Takes a part of a difference.
    ///
    /// # Errors
    /// As [`Replica::snapshot`].
    pub fn delta(&mut self, delta: Delta) -> Result<Taken, Divergence> {
        let held = self.position.map(|(index, _)| index);
        let Some(to) = delta.to else {
            self.distrust();
            return Err(Divergence::Malformed("a difference without an end"));
        };
        if held != Some(delta.from) || to.index < delta.from {
            self.distrust();
            return Err(Divergence::Gap { from: delta.from, held });
        }
        match &mut self.partial {
            Partial::Delta { to: begun, upserts, removes } if *begun == to.index => {
                upserts.extend(delta.upserts);
                removes.extend(delta.removes);
            }
            _ => self.partial = Partial::Delta { to: to.index, upserts: delta.upserts, removes: delta.removes },
        }
        if delta.more {
            return Ok(Taken::default());
        }
        let Partial::Delta { upserts, removes, .. } = std::mem::replace(&mut self.partial, Partial::Nothing) else {
            return Err(Divergence::Malformed("unreachable"));
        };
        let mut taken = Taken { current: true, ..Taken::default() };
        // The table is copied by its shards' pointers; the other resources are copied when one of them changes.
        let mut keys = self.keys.clone();
        let mut mesh = None;
        for id in removes {
            if is_key(Some(&id)) {
                keys.remove(&id.name);
                taken.keys = true;
            } else {
                mesh.get_or_insert_with(|| self.mesh.clone()).remove(&id);
            }
        }
        for resource in upserts {
            if is_key(resource.id.as_ref()) {
                keys.put(resource, &mut self.policies, &self.revoked, &mut taken.unusable);
                taken.keys = true;
            } else {
                mesh.get_or_insert_with(|| self.mesh.clone()).upsert(resource);
            }
        }
        let digest = mesh.as_ref().unwrap_or(&self.mesh).digest().with(keys.digest);
        self.agree(to.index, digest, &to)?;
        if let Some(mesh) = mesh {
            taken.mesh = mesh.digest() != self.mesh.digest();
            self.mesh = mesh;
        }
        self.keys = keys;
        self.hold(to.index, digest, delta.leader_time_ms);
        Ok(taken)
    }

    /// Takes a sign of life, which is also a proof that nothing is missing.
    ///
    /// # Errors
    /// When what is held is not what the control node holds.
    pub fn bookmark(&mut self, bookmark: &Bookmark) -> Result<Taken, Divergence> {
        let Some(at) = &bookmark.at else { return Err(Divergence::Malformed("a bookmark without a position")) };
        let Some((index, digest)) = self.position else { return Ok(Taken::default()) };
        if at.index < index || !matches!(self.partial, Partial::Nothing) {
            // The node is behind the edge; it says that it lives, not that the edge is current.
            return Ok(Taken::default());
        }
        self.agree(at.index, digest, at)?;
        self.hold(at.index, digest, bookmark.leader_time_ms);
        Ok(Taken { current: true, ..Taken::default() })
    }

    /// Takes revocations, ahead of the difference that they are part of.
    pub fn revoke(&mut self, revoke: &Revoke) -> Taken {
        let mut taken = Taken::default();
        let ahead = revoke.index > self.position.map_or(0, |(index, _)| index);
        for id in &revoke.public_ids {
            if ahead {
                self.revoked.insert(id.clone(), revoke.index);
            }
            let stands = self.keys.table.by_id(id).filter(|caller| caller.revision < revoke.index && !caller.disabled);
            if let Some(refused) = stands.map(|caller| Arc::new(caller.refused())) {
                self.keys.table.put(&refused);
                taken.keys = true;
            }
            if let Partial::Snapshot { index, keys, .. } = &mut self.partial
                && *index < revoke.index
                && let Some(caller) = keys.table.by_id(id).cloned()
            {
                keys.table.put(&Arc::new(caller.refused()));
            }
        }
        if revoke.kill_streams {
            taken.cut.clone_from(&revoke.public_ids);
        }
        self.newest_revocation = self.newest_revocation.max(revoke.index);
        taken
    }

    fn agree(&mut self, index: u64, ours: Digest, theirs: &Position) -> Result<(), Divergence> {
        if Digest::from_slice(&theirs.digest) == Some(ours) {
            return Ok(());
        }
        self.distrust();
        let theirs = Digest::from_slice(&theirs.digest).map_or_else(|| "missing".to_owned(), |digest| digest.to_string());
        Err(Divergence::Digest { index, ours, theirs })
    }

    fn hold(&mut self, index: u64, digest: Digest, leader_time_ms: u64) {
        self.position = Some((index, digest));
        self.floor = self.floor.max(index);
        self.leader_time_ms = self.leader_time_ms.max(leader_time_ms);
        // From their index on, revocations are part of the state itself.
        self.revoked.retain(|_, revoked| *revoked > index);
        self.newest_revocation = self.newest_revocation.max(index);
    }
}

/// What was kept over a restart.
pub(crate) struct Restored {
    pub(crate) position: Option<Position>,
    pub(crate) floor: u64,
    pub(crate) mesh: Vec<Resource>,
    pub(crate) keys: Vec<Resource>,
    pub(crate) newest_revocation: u64,
}

impl KeySet {
    fn put(&mut self, resource: Resource, policies: &mut Policies, revoked: &BTreeMap<String, u64>, unusable: &mut Vec<(String, String)>) {
        let Some(id) = resource.id else { return };
        self.remove(&id.name);
        self.digest.add(&id, resource.revision);
        let read = Key::decode(resource.body).map_err(|error| error.to_string()).and_then(|mut key| {
            key.public_id.clone_from(&id.name);
            Caller::of_agreed(&key, resource.revision, policies)
        });
        let mut fault = None;
        match read {
            Ok(mut caller) => {
                // Sent as of an index before its revocation.
                caller.disabled |= revoked.get(&id.name).is_some_and(|index| resource.revision < *index);
                if !self.table.put(&Arc::new(caller)) {
                    fault = Some("another key has the same secret".to_owned());
                }
            }
            Err(reason) => fault = Some(reason),
        }
        if let Some(reason) = fault {
            self.unusable.insert(id.name.clone(), resource.revision);
            unusable.push((id.name, reason));
        }
    }

    fn remove(&mut self, name: &str) {
        let known = self.table.by_id(name).map(|caller| caller.revision);
        if let Some(revision) = known.or_else(|| self.unusable.remove(name)) {
            self.digest.remove(&ResourceId { kind: Kind::Key.as_str().to_owned(), name: name.to_owned() }, revision);
            self.table.remove(name);
        }
    }
}

fn is_key(id: Option<&ResourceId>) -> bool {
    id.is_some_and(|id| id.kind == Kind::Key.as_str())
}

#[cfg(test)]
mod tests;
