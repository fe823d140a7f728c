//! Kinds of input a request carries and an endpoint accepts.

use serde::{Deserialize, Serialize};

/// A set of input modalities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ModalitySet(u8);

impl ModalitySet {
    /// Nothing.
    pub const EMPTY: ModalitySet = ModalitySet(0);
    /// Text.
    pub const TEXT: ModalitySet = ModalitySet(1);
    /// Images.
    pub const IMAGE: ModalitySet = ModalitySet(1 << 1);
    /// Files such as PDF documents.
    pub const FILE: ModalitySet = ModalitySet(1 << 2);
    /// Audio.
    pub const AUDIO: ModalitySet = ModalitySet(1 << 3);
    /// Video.
    pub const VIDEO: ModalitySet = ModalitySet(1 << 4);

    /// Every modality.
    pub const fn all() -> ModalitySet {
        ModalitySet((1 << NAMES.len()) - 1)
    }

    /// The set of one modality by its wire name.
    pub fn from_name(name: &str) -> Option<ModalitySet> {
        NAMES.iter().position(|known| *known == name).map(|bit| ModalitySet(1 << bit))
    }

    /// Both sets together.
    pub const fn union(self, other: ModalitySet) -> ModalitySet {
        ModalitySet(self.0 | other.0)
    }

    /// Whether every member of `other` is in `self`.
    pub const fn contains(self, other: ModalitySet) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether nothing is in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Members of `self` that `supported` lacks.
    pub const fn missing_from(self, supported: ModalitySet) -> ModalitySet {
        ModalitySet(self.0 & !supported.0)
    }

    /// Wire names of the members.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES.iter().enumerate().filter(move |(bit, _)| self.0 & (1 << bit) != 0).map(|(_, name)| *name)
    }
}

impl std::ops::BitOr for ModalitySet {
    type Output = ModalitySet;

    fn bitor(self, other: ModalitySet) -> ModalitySet {
        self.union(other)
    }
}

/// Wire names by bit.
const NAMES: [&str; 5] = ["text", "image", "file", "audio", "video"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_bits_agree() {
        let set = ModalitySet::TEXT | ModalitySet::VIDEO;
        assert_eq!(set.names().collect::<Vec<_>>(), ["text", "video"]);
        assert_eq!(ModalitySet::from_name("audio"), Some(ModalitySet::AUDIO));
        assert_eq!(ModalitySet::from_name("smell"), None);
        assert_eq!(set.missing_from(ModalitySet::TEXT), ModalitySet::VIDEO);
        assert!(ModalitySet::all().contains(set));
    }
}
