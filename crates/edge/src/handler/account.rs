//! What a key may do, has used and was charged: `GET /key`, `/credits`, `/activity` and `/generation`.
//!
//! Answers come from the ledger's sums and the store of counters, so that they agree with the records to the pico-dollar. A key sees what is
//! its own; credits are those of its organisation.

mod activity;
mod generation;
pub(super) mod key;

use std::sync::Arc;

use http::Response;
use serde_json::json;
use tidegate_ledger::{Filter, Money};

use super::{Reading, authenticate, value_answer};
use crate::auth::Caller;
use crate::body::EdgeBody;
use crate::error::EdgeError;

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub(super) enum Account {
    Key,
    Credits,
    Activity,
    Generation,
}

/// Answers one of them.
pub(super) async fn answer(account: Account, reading: &Reading<'_>) -> Result<Response<EdgeBody>, EdgeError> {
    let caller = authenticate(reading.shared, reading.connection, reading.headers)?;
    caller.resolve(&reading.state.owners);
    match account {
        Account::Key => key::current(reading, &caller).await,
        Account::Credits => credits(reading, &caller).await,
        Account::Activity => activity::daily(reading, &caller).await,
        Account::Generation => generation::lookup(reading, &caller).await,
    }
}

/// What the organisation has bought and used; a key without one has bought nothing.
async fn credits(reading: &Reading<'_>, caller: &Arc<Caller>) -> Result<Response<EdgeBody>, EdgeError> {
    let filter = match &caller.account().organisation {
        Some(organisation) => Filter { organisation: Some(organisation.to_string()), ..Filter::default() },
        None => of_key(caller),
    };
    let used = reading.shared.sums.total(caller, &filter).await?;
    let bought = Money::from_picodollars(i128::from(caller.account().credits.unwrap_or_default()) * 1_000_000);
    Ok(value_answer(&json!({ "data": { "total_credits": bought, "total_usage": used.charged } })))
}

/// What belongs to this key.
fn of_key(caller: &Caller) -> Filter {
    Filter { key: Some(caller.counted_as().to_string()), ..Filter::default() }
}
