//! What names a resource in the agreed state.

use std::fmt;
use std::sync::Arc;

use tidegate_proto::Kind;
use tidegate_proto::v1::ResourceId;

/// Kind and name of a resource, cheap to clone. Ordered by kind, so that all of a kind stand together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    kind: KindName,
    name: Arc<str>,
}

/// A kind that this build knows, or one that a newer build put there: it is kept and passed on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum KindName {
    Known(Kind),
    Other(Arc<str>),
}

impl Id {
    /// The id of a resource of a known kind.
    pub fn new(kind: Kind, name: &str) -> Id {
        Id { kind: KindName::Known(kind), name: name.into() }
    }

    /// The smallest id of a kind.
    pub(super) fn first(kind: Kind) -> Id {
        Id::new(kind, "")
    }

    /// The kind, if this build knows it.
    pub fn kind(&self) -> Option<Kind> {
        match self.kind {
            KindName::Known(kind) => Some(kind),
            KindName::Other(_) => None,
        }
    }

    /// Name of the kind, known or not.
    pub fn kind_name(&self) -> &str {
        match &self.kind {
            KindName::Known(kind) => kind.as_str(),
            KindName::Other(name) => name,
        }
    }

    /// Unique within the kind.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl From<&ResourceId> for Id {
    fn from(id: &ResourceId) -> Id {
        let kind = match id.kind.parse() {
            Ok(kind) => KindName::Known(kind),
            Err(_) => KindName::Other(id.kind.as_str().into()),
        };
        Id { kind, name: id.name.as_str().into() }
    }
}

impl From<&Id> for ResourceId {
    fn from(id: &Id) -> ResourceId {
        ResourceId { kind: id.kind_name().to_owned(), name: id.name.to_string() }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} `{}`", self.kind_name(), self.name)
    }
}
