//! Where a value stands, also when it does not: a key that is absent is reported at the nearest thing that is there.

use crate::config::tree::{Node, Span};

/// A value of the file, or the nearest one above it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a>(&'a Node);

impl<'a> Place<'a> {
    pub(super) fn of(node: &'a Node) -> Place<'a> {
        Place(node)
    }

    /// The value of a key of a mapping.
    pub(super) fn get(self, key: &str) -> Place<'a> {
        self.0.get(key).map_or(self, Place)
    }

    /// An item of a list.
    pub(super) fn item(self, index: usize) -> Place<'a> {
        self.0.items().get(index).map_or(self, Place)
    }

    /// The key is there.
    pub(super) fn has(self, key: &str) -> bool {
        self.0.get(key).is_some()
    }

    /// Where the key itself stands.
    pub(super) fn key_span(self, key: &str) -> Option<&'a Span> {
        self.0.entries().iter().find(|entry| entry.key == key).map(|entry| &entry.key_span)
    }

    pub(super) fn node(self) -> &'a Node {
        self.0
    }
}
