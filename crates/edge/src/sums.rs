//! Where answers about use come from: the sums of this edge, or those of its region.

use std::sync::Arc;

use tidegate_ledger::{Filter, Generation, Row, Sums};

use crate::error::EdgeError;
use crate::ledger::Ledger;

/// The sums that answers are made of.
pub(crate) enum SumsView {
    /// One edge by itself: everything it served.
    Local(Arc<Ledger>),
}

impl SumsView {
    /// Daily sums.
    pub(crate) async fn days(&self, filter: &Filter) -> Result<Vec<Row>, EdgeError> {
        match self {
            Self::Local(ledger) => Ok(ledger.rollups().days(filter)),
        }
    }

    /// Hourly sums.
    pub(crate) async fn hours(&self, filter: &Filter) -> Result<Vec<Row>, EdgeError> {
        match self {
            Self::Local(ledger) => Ok(ledger.rollups().hours(filter)),
        }
    }

    /// Sums since the beginning.
    pub(crate) async fn total(&self, filter: &Filter) -> Result<Sums, EdgeError> {
        match self {
            Self::Local(ledger) => Ok(ledger.rollups().total(filter)),
        }
    }

    /// A generation that another edge of the region served.
    pub(crate) async fn generation(&self, _id: &str) -> Result<Option<Generation>, EdgeError> {
        match self {
            Self::Local(_) => Ok(None),
        }
    }
}
