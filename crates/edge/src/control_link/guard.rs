//! A configuration that takes the process down does so once.
//!
//! Before the edge routes by something new it writes down what is new (a [`Trial`]), and takes the note away once it has served with it
//! for a while. A process that finds a note at its start is the next life of one that did not survive: it goes on with what was good
//! before, and refuses every state in which all that was new is still as it was. When one of the suspects changes, it tries again.

use tidegate_proto::ResourceMap;
use tidegate_proto::v1::{ResourceId, Trial, TriedResource};

/// What must not be tried again.
#[derive(Debug, Default)]
pub(super) struct BootGuard {
    suspects: Option<Trial>,
}

impl BootGuard {
    /// `found` is the note that the process found at its start.
    pub(super) fn new(found: Option<Trial>) -> Self {
        Self { suspects: found }
    }

    /// Whether this may be tried; why not otherwise.
    pub(super) fn admits(&self, mesh: &ResourceMap) -> Result<(), String> {
        let Some(trial) = &self.suspects else { return Ok(()) };
        let same = if trial.changes.is_empty() {
            trial.digest.as_ref() == mesh.digest().to_bytes()
        } else {
            trial.changes.iter().all(|tried| tried.id.as_ref().is_none_or(|id| revision_of(mesh, id) == tried.revision))
        };
        if !same {
            return Ok(());
        }
        Err(format!(
            "the process that tried revision {} ended within a minute; it is refused until what it changed is changed again ({})",
            trial.index,
            named(&trial.changes)
        ))
    }

    /// Something else was tried and went well, or is being tried.
    pub(super) fn clear(&mut self) {
        self.suspects = None;
    }
}

/// The note for what is about to be tried instead of what was good.
pub(super) fn trial(index: u64, good: &ResourceMap, mesh: &ResourceMap) -> Trial {
    let mut changed = differences(good, mesh);
    if changed.len() > MOST_SUSPECTS {
        changed.clear();
    }
    Trial { index, changes: changed, digest: mesh.digest().to_bytes().to_vec().into() }
}

/// What is not the same in both, as it is in the second.
fn differences(good: &ResourceMap, mesh: &ResourceMap) -> Vec<TriedResource> {
    let came = mesh.iter().filter_map(|resource| Some((resource.id.as_ref()?, resource.revision)));
    let came = came.filter(|(id, revision)| revision_of(good, id) != *revision);
    let gone = good.iter().filter_map(|resource| resource.id.as_ref()).filter(|id| revision_of(mesh, id) == 0).map(|id| (id, 0));
    came.chain(gone).map(|(id, revision)| TriedResource { id: Some(id.clone()), revision }).collect()
}

fn revision_of(mesh: &ResourceMap, id: &ResourceId) -> u64 {
    id.kind.parse().ok().and_then(|kind| mesh.get(kind, &id.name)).map_or(0, |resource| resource.revision)
}

fn named(changes: &[TriedResource]) -> String {
    let mut names: Vec<String> =
        changes.iter().filter_map(|tried| tried.id.as_ref()).take(MOST_NAMED).map(|id| format!("{} `{}`", id.kind, id.name)).collect();
    if changes.is_empty() {
        names.push("anything".to_owned());
    }
    if changes.len() > MOST_NAMED {
        names.push(format!("and {} more", changes.len() - MOST_NAMED));
    }
    names.join(", ")
}

/// A note lists this many suspects; with more, only the set as a whole is refused.
const MOST_SUSPECTS: usize = 1_000;
/// Suspects that a message names.
const MOST_NAMED: usize = 5;

#[cfg(test)]
mod tests {
    use tidegate_proto::v1::Resource;

    use super::*;

    fn id(name: &str) -> ResourceId {
        ResourceId { kind: "model".to_owned(), name: name.to_owned() }
    }

    fn mesh(resources: &[(&str, u64)]) -> ResourceMap {
        let mut mesh = ResourceMap::default();
        for (name, revision) in resources {
            mesh.upsert(Resource { id: Some(id(name)), body: "{}".into(), revision: *revision });
        }
        mesh
    }

    #[test]
    fn what_did_not_survive_is_refused_until_a_suspect_changes() {
        let good = mesh(&[("a", 1), ("c", 1), ("d", 2)]);
        let poison = mesh(&[("a", 1), ("b", 7), ("d", 2)]);
        let guard = BootGuard::new(Some(trial(7, &good, &poison)));
        assert!(guard.admits(&poison).unwrap_err().contains("model `b`, model `c`"));
        assert!(guard.admits(&mesh(&[("a", 9), ("b", 7)])).is_err(), "another change does not make it better");
        assert!(guard.admits(&mesh(&[("a", 1), ("b", 9)])).is_ok());
        assert!(guard.admits(&good).is_ok(), "what was good is");
        assert!(guard.admits(&mesh(&[("b", 7), ("c", 8)])).is_ok(), "one that was gone is back");
        assert!(BootGuard::new(None).admits(&poison).is_ok());
    }

    #[test]
    fn with_too_many_suspects_the_set_as_a_whole_is_refused() {
        let many: Vec<String> = (0..=MOST_SUSPECTS).map(|number| number.to_string()).collect();
        let poison = mesh(&many.iter().map(|name| (name.as_str(), 5)).collect::<Vec<_>>());
        let guard = BootGuard::new(Some(trial(5, &ResourceMap::default(), &poison)));
        assert!(guard.admits(&poison).is_err());
        assert!(guard.admits(&mesh(&[("1", 5)])).is_ok());
    }
}
