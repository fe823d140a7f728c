//! What endpoints have cost, and since when. It outlives the history of revisions, because bills are asked about later than configurations.

use bytes::Bytes;
use imbl::Vector;
use serde_json::value::RawValue;
use tidegate_proto::v1::PriceChange;

/// Changes that are kept, over all endpoints: years, at the rate at which providers change prices.
pub const PRICE_CHANGES_KEPT: usize = 20_000;

/// Changes of prices, oldest first.
#[derive(Debug, Clone, Default)]
pub struct Prices {
    changes: Vector<PriceChange>,
}

impl Prices {
    /// All that are kept, oldest first.
    pub fn changes(&self) -> impl DoubleEndedIterator<Item = &PriceChange> {
        self.changes.iter()
    }

    /// Those of one endpoint, oldest first.
    pub fn of<'a>(&'a self, endpoint: &'a str) -> impl Iterator<Item = &'a PriceChange> {
        self.changes.iter().filter(move |change| change.endpoint == endpoint)
    }

    /// Notes what an endpoint's bodies say, if it is about money.
    pub(super) fn note(&mut self, endpoint: &str, index: u64, time_ms: u64, before: Option<&Bytes>, after: Option<&Bytes>) {
        let (before, after) = (before.map(prices_of), after.map(prices_of).unwrap_or_default());
        if before.as_ref() == Some(&after) {
            return;
        }
        self.changes.push_back(PriceChange { endpoint: endpoint.to_owned(), index, time_ms, prices: after });
        while self.changes.len() > PRICE_CHANGES_KEPT {
            self.changes.pop_front();
        }
    }

    pub(super) fn restored(changes: Vec<PriceChange>) -> Prices {
        Prices { changes: changes.into() }
    }
}

/// The one member of an endpoint's body that this crate knows: `prices`, as it was written.
fn prices_of(body: &Bytes) -> Bytes {
    #[derive(serde::Deserialize)]
    struct Endpoint<'a> {
        #[serde(borrow)]
        prices: Option<&'a RawValue>,
    }
    match serde_json::from_slice::<Endpoint<'_>>(body) {
        Ok(Endpoint { prices: Some(prices) }) => Bytes::copy_from_slice(prices.get().as_bytes()),
        Ok(Endpoint { prices: None }) | Err(_) => Bytes::new(),
    }
}
