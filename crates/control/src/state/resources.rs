//! The declared things, twice: as they are newest, and as edges have them that a staged rollout has not reached.
//!
//! Both sides are persistent maps, so that they share everything but what differs, and a copy of the state costs nothing.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use imbl::{OrdMap, OrdSet};
use tidegate_proto::v1::{Resource, ResourceId};
use tidegate_proto::{Digest, Kind};

use super::Id;

/// A set of resources and its digest.
#[derive(Debug, Clone, Default)]
pub struct ResourceSet {
    map: OrdMap<Id, Arc<Resource>>,
    digest: Digest,
}

impl ResourceSet {
    /// One resource.
    pub fn get(&self, id: &Id) -> Option<&Arc<Resource>> {
        self.map.get(id)
    }

    /// All of a kind, by name.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (&Id, &Arc<Resource>)> {
        self.map.range(Id::first(kind)..).take_while(move |(id, _)| id.kind() == Some(kind))
    }

    /// All, by kind and name.
    pub fn iter(&self) -> impl Iterator<Item = (&Id, &Arc<Resource>)> {
        self.map.iter()
    }

    /// Those that stand after an id in the order of [`ResourceSet::iter`].
    pub fn after(&self, id: Option<&Id>) -> impl Iterator<Item = (&Id, &Arc<Resource>)> {
        let from = id.map_or(Bound::Unbounded, Bound::Excluded);
        self.map.range::<_, Id>((from, Bound::Unbounded))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Digest of what is there.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    fn set(&mut self, id: &Id, resource: Option<Arc<Resource>>) -> Option<Arc<Resource>> {
        let wire = ResourceId::from(id);
        if let Some(resource) = &resource {
            self.digest.add(&wire, resource.revision);
        }
        let before = match resource {
            Some(resource) => self.map.insert(id.clone(), resource),
            None => self.map.remove(id),
        };
        if let Some(before) = &before {
            self.digest.remove(&wire, before.revision);
        }
        before
    }
}

/// Who sees a change at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Every edge.
    All,
    /// Edges of the rollout only.
    Cohort,
}

/// Both sides.
#[derive(Debug, Clone, Default)]
pub(super) struct Resources {
    newest: ResourceSet,
    settled: ResourceSet,
    differing: OrdSet<Id>,
}

impl Resources {
    pub(super) fn newest(&self) -> &ResourceSet {
        &self.newest
    }

    pub(super) fn settled(&self) -> &ResourceSet {
        &self.settled
    }

    /// Ids that are not the same on both sides.
    pub(super) fn differing(&self) -> &OrdSet<Id> {
        &self.differing
    }

    /// Sets or, without a body, removes.
    pub(super) fn put(&mut self, id: &Id, body: Option<Bytes>, revision: u64, reach: Reach) {
        let resource = body.map(|body| Arc::new(Resource { id: Some(id.into()), body, revision }));
        match reach {
            Reach::All => {
                self.settled.set(id, resource.clone());
                self.newest.set(id, resource);
                self.differing.remove(id);
            }
            Reach::Cohort => {
                let settled = self.settled.get(id).cloned();
                let same = body_of(settled.as_ref()) == body_of(resource.as_ref());
                // Back to what it was: the very same resource, so that nothing differs.
                self.newest.set(id, if same { settled } else { resource });
                if same {
                    self.differing.remove(id);
                } else {
                    self.differing.insert(id.clone());
                }
            }
        }
    }

    /// What is newest becomes what everyone has.
    pub(super) fn settle(&mut self) {
        self.settled = self.newest.clone();
        self.differing.clear();
    }

    /// From the sections of a snapshot.
    pub(super) fn restored(newest: Vec<Resource>, differing: Vec<ResourceId>, settled: Vec<Resource>) -> Resources {
        let mut resources = Resources::default();
        for resource in newest {
            let Some(id) = resource.id.as_ref().map(Id::from) else { continue };
            resources.newest.set(&id, Some(Arc::new(resource)));
        }
        resources.settled = resources.newest.clone();
        for id in &differing {
            let id = Id::from(id);
            resources.settled.set(&id, None);
            resources.differing.insert(id);
        }
        for resource in settled {
            let Some(id) = resource.id.as_ref().map(Id::from) else { continue };
            resources.settled.set(&id, Some(Arc::new(resource)));
        }
        resources
    }
}

/// The body, where there is a resource.
pub(super) fn body_of(resource: Option<&Arc<Resource>>) -> Option<&Bytes> {
    resource.map(|resource| &resource.body)
}
