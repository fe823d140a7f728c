//! A set of resources that two sides hold, and the digest by which they know that it is the same set.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::v1::{Resource, ResourceId};

/// What can be declared. The order is the order in which a set is compiled: things before what refers to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Mesh-wide defaults; one resource named `mesh`.
    Defaults,
    /// Constants of routing; one resource named `mesh`.
    Routing,
    /// A vendor.
    Provider,
    /// A sealed secret of a vendor; body is `SealedCredential`.
    Credential,
    /// What callers can name.
    Model,
    /// One provider's deployment of one model.
    Endpoint,
    /// A named request fragment.
    Preset,
    /// Owner of workspaces, keys, budgets.
    Organisation,
    /// Part of an organisation.
    Workspace,
    /// A caller's key; body is `Key`.
    Key,
    /// What an operator forces; body is `Override`.
    Override,
}

/// A kind that this build does not know. It is kept and passed on, but not understood.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is not a kind of resource that this version knows")]
pub struct UnknownKind(pub String);

impl Kind {
    /// Every kind, in order.
    pub const ALL: [Kind; 11] = [
        Kind::Defaults,
        Kind::Routing,
        Kind::Provider,
        Kind::Credential,
        Kind::Model,
        Kind::Endpoint,
        Kind::Preset,
        Kind::Organisation,
        Kind::Workspace,
        Kind::Key,
        Kind::Override,
    ];

    /// The name on the wire, on disk and in the admin API.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Defaults => "defaults",
            Kind::Routing => "routing",
            Kind::Provider => "provider",
            Kind::Credential => "credential",
            Kind::Model => "model",
            Kind::Endpoint => "endpoint",
            Kind::Preset => "preset",
            Kind::Organisation => "organisation",
            Kind::Workspace => "workspace",
            Kind::Key => "key",
            Kind::Override => "override",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Kind::ALL.into_iter().find(|kind| kind.as_str() == name).ok_or_else(|| UnknownKind(name.to_owned()))
    }
}

/// Digest of a set of resources: the sum, modulo 2^128, of a hash of each resource's id and revision. It is kept up to date with one
/// addition or subtraction per change, and does not depend on the order of changes (an incremental multiset hash, Bellare and
/// Micciancio 1997, "A New Paradigm for Collision-free Hashing"). It finds divergence by accident, not by an adversary: peers are
/// authenticated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Digest(u128);

impl Digest {
    /// Counts a resource in.
    pub fn add(&mut self, id: &ResourceId, revision: u64) {
        self.0 = self.0.wrapping_add(element(id, revision));
    }

    /// Counts a resource out.
    pub fn remove(&mut self, id: &ResourceId, revision: u64) {
        self.0 = self.0.wrapping_sub(element(id, revision));
    }

    /// Digest of two sets that have nothing in common, taken together.
    #[must_use]
    pub fn with(self, other: Digest) -> Self {
        Self(self.0.wrapping_add(other.0))
    }

    /// 16 bytes, for the wire.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// From the wire; `None` unless there are 16 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        Some(Self(u128::from_be_bytes(bytes.try_into().ok()?)))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", self.0)
    }
}

fn element(id: &ResourceId, revision: u64) -> u128 {
    let mut hasher = blake3::Hasher::new();
    for part in [&id.kind, &id.name] {
        hasher.update(&(part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.update(&revision.to_be_bytes());
    let mut first = [0; 16];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    u128::from_be_bytes(first)
}

/// Resources by id, with the digest kept along. What an edge holds; the control plane keeps its own persistent map and the same digest.
#[derive(Debug, Clone, Default)]
pub struct ResourceMap {
    resources: BTreeMap<(String, String), Resource>,
    digest: Digest,
}

impl ResourceMap {
    /// Adds or replaces. A resource without an id is ignored.
    pub fn upsert(&mut self, resource: Resource) {
        let Some(id) = resource.id.clone() else { return };
        self.digest.add(&id, resource.revision);
        let before = self.resources.insert((id.kind.clone(), id.name.clone()), resource);
        if let Some(before) = before {
            self.digest.remove(&id, before.revision);
        }
    }

    /// Removes; whether it was there.
    pub fn remove(&mut self, id: &ResourceId) -> bool {
        let Some(before) = self.resources.remove(&(id.kind.clone(), id.name.clone())) else { return false };
        self.digest.remove(id, before.revision);
        true
    }

    /// One resource.
    pub fn get(&self, kind: Kind, name: &str) -> Option<&Resource> {
        self.resources.get(&(kind.as_str().to_owned(), name.to_owned()))
    }

    /// All of a kind, by name.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Resource> {
        let kind = kind.as_str();
        self.resources.range((kind.to_owned(), String::new())..).take_while(move |((of, _), _)| of == kind).map(|(_, resource)| resource)
    }

    /// All resources, by kind and name.
    pub fn iter(&self) -> impl Iterator<Item = &Resource> {
        self.resources.values()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.resources.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.resources.is_empty()
    }

    /// Digest of what is there.
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn resource(name: u8, revision: u64) -> Resource {
        let id = ResourceId { kind: "model".into(), name: name.to_string() };
        Resource { id: Some(id), body: "{}".into(), revision }
    }

    #[test]
    fn every_kind_has_a_name_of_its_own() {
        for kind in Kind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(kind));
        }
        assert_eq!("cupboard".parse::<Kind>(), Err(UnknownKind("cupboard".into())));
    }

    proptest! {
        /// However a set came to be, its digest is that of what it holds.
        #[test]
        fn the_digest_is_that_of_the_contents(changes in prop::collection::vec((any::<u8>(), 1..1000u64, any::<bool>()), 0..200)) {
            let mut map = ResourceMap::default();
            for (name, revision, keep) in changes {
                let resource = resource(name % 20, revision);
                if keep {
                    map.upsert(resource);
                } else {
                    map.remove(resource.id.as_ref().unwrap());
                }
            }
            let mut anew = ResourceMap::default();
            for resource in map.iter().collect::<Vec<_>>().into_iter().rev() {
                anew.upsert(resource.clone());
            }
            prop_assert_eq!(map.digest(), anew.digest());
            prop_assert_eq!(map.is_empty(), map.digest() == Digest::default());
        }
    }
}
