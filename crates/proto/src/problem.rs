//! What is wrong with a set of resources, as those who compile one report it.

use std::fmt;

use crate::v1::ResourceId;

/// One thing that keeps a set of resources from being used.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// Which resource; `None` when it is the set as a whole.
    pub resource: Option<ResourceId>,
    /// Key path inside the resource's body, such as `prices.prompt`; empty for all of it.
    pub path: String,
    /// What is wrong. Never holds a secret.
    pub message: String,
    /// What to do.
    pub help: Vec<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(id) = &self.resource {
            write!(formatter, "{} `{}`: ", id.kind, id.name)?;
        }
        if !self.path.is_empty() {
            write!(formatter, "{}: ", self.path)?;
        }
        formatter.write_str(&self.message)?;
        for help in &self.help {
            write!(formatter, "; {help}")?;
        }
        Ok(())
    }
}
