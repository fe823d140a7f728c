//! What a shared limit is called between edges and home: enough to find its declaration, and one text for maps and logs.

use std::fmt;
use std::sync::Arc;

use crate::limit::{Dimension, Limit, Scope};
use crate::period::Period;
use crate::set::{Subject, escaped};
use crate::share::Shared;

/// A limit of one owner; of a budget, in one period.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LimitName {
    /// Whose use is counted together.
    pub scope: Scope,
    /// The key's public id, or the name of the workspace or the organisation.
    pub owner: Arc<str>,
    /// What is counted.
    pub dimension: Dimension,
    /// See [`Limit::model`].
    pub model: Option<Arc<str>>,
    /// See [`Limit::provider`].
    pub provider: Option<Arc<str>>,
    /// The period of a budget.
    pub period: Option<Period>,
}

impl LimitName {
    /// The name of a declared limit of this subject; without its period.
    pub fn of(limit: &Limit, subject: &Subject) -> Self {
        let owner = match limit.scope {
            Scope::Key => subject.key.clone(),
            Scope::Workspace => subject.workspace.clone().unwrap_or_default(),
            Scope::Organisation => subject.organisation.clone(),
        };
        Self {
            scope: limit.scope,
            owner,
            dimension: limit.dimension,
            model: limit.model.clone(),
            provider: limit.provider.clone(),
            period: None,
        }
    }

    /// The same limit in a period.
    #[must_use]
    pub fn in_period(&self, period: Option<Period>) -> Self {
        Self { period, ..self.clone() }
    }

    /// Whether a declaration is this limit's.
    pub fn is_of(&self, limit: &Limit) -> bool {
        limit.scope == self.scope && limit.dimension == self.dimension && limit.model == self.model && limit.provider == self.provider
    }

    /// How it is shared.
    pub const fn shared(&self) -> Shared {
        match self.dimension {
            Dimension::RequestsPerMinute | Dimension::TokensPerMinute(_) | Dimension::Concurrent => Shared::Rate,
            Dimension::Spend(_) | Dimension::FreeRequestsPerDay => Shared::Budget,
        }
    }
}

/// `organisation:acme:rpm`, `key:team:spend_day:m=openai/gpt-5@d:2026-11-30`.
impl fmt::Display for LimitName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}:{}", self.scope, escaped(&self.owner), self.dimension)?;
        for (name, value) in [("m", &self.model), ("p", &self.provider)] {
            if let Some(value) = value {
                write!(out, ":{name}={}", escaped(value))?;
            }
        }
        match &self.period {
            Some(period) => write!(out, "@{period}"),
            None => Ok(()),
        }
    }
}
