//! Where answers about use come from: the sums of this edge, or those of its region.

use std::sync::Arc;

use tidegate_ledger::{Filter, Generation, Row, Sums};
use tidegate_quota::StoreError;

use crate::auth::Caller;
use crate::error::EdgeError;
use crate::ledger::Ledger;
use crate::ledger::region::{RegionLedger, owner_of};

/// The sums that answers are made of.
pub(crate) enum SumsView {
    /// One edge by itself: everything it served.
    Local(Arc<Ledger>),
    /// Every edge of the region, a moment later.
    Region(Arc<RegionLedger>),
}

impl SumsView {
    /// The region's ledger, where there is one.
    pub(crate) fn region(&self) -> Option<&RegionLedger> {
        match self {
            Self::Local(_) => None,
            Self::Region(region) => Some(region),
        }
    }

    /// Daily sums of a caller.
    pub(crate) async fn days(&self, caller: &Caller, filter: &Filter) -> Result<Vec<Row>, EdgeError> {
        match self {
            Self::Local(ledger) => Ok(ledger.rollups().days(filter)),
            Self::Region(region) => region.days(&owner(caller), filter).await.map_err(unavailable),
        }
    }

    /// Sums of a caller since the beginning.
    pub(crate) async fn total(&self, caller: &Caller, filter: &Filter) -> Result<Sums, EdgeError> {
        match self {
            Self::Local(ledger) => Ok(ledger.rollups().total(filter)),
            Self::Region(region) => region.total(&owner(caller), filter).await.map_err(unavailable),
        }
    }

    /// A generation that another edge of the region served.
    pub(crate) async fn generation(&self, id: &str) -> Result<Option<Generation>, EdgeError> {
        match self {
            Self::Local(_) => Ok(None),
            Self::Region(region) => region.generation(id).await.map_err(unavailable),
        }
    }
}

fn owner(caller: &Caller) -> String {
    owner_of(caller.account().organisation.as_ref(), caller.counted_as())
}

fn unavailable(error: StoreError) -> EdgeError {
    tracing::debug!(%error, "the region's ledger gave no answer");
    EdgeError::SumsUnavailable
}
