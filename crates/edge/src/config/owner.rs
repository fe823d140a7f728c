//! Who pays.

use tidegate_ledger::Fee;
use tidegate_quota::Limit;

/// Who pays for keys.
#[derive(Debug, Clone, PartialEq)]
pub struct OrganisationConfig {
    /// Name in records and limits.
    pub name: String,
    /// What it pays on top of what answers cost.
    pub fee: Fee,
    /// Limits that all its keys share.
    pub limits: Vec<Limit>,
    /// All credits that it ever bought, micro-dollars, when it pays before it spends. Stands among `limits` as a prepaid total too.
    pub credits: Option<u64>,
}

impl OrganisationConfig {
    /// An organisation without limits and fees.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), fee: Fee::default(), limits: Vec::new(), credits: None }
    }
}

/// A part of an organisation.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkspaceConfig {
    /// Name in records and limits; unique over all organisations.
    pub name: String,
    /// Whose part it is.
    pub organisation: String,
    /// Limits that all its keys share.
    pub limits: Vec<Limit>,
}

impl WorkspaceConfig {
    /// A workspace without limits.
    #[must_use]
    pub fn new(name: impl Into<String>, organisation: impl Into<String>) -> Self {
        Self { name: name.into(), organisation: organisation.into(), limits: Vec::new() }
    }
}
