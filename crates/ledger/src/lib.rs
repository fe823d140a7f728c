//! What was used and what it cost: prices to money, the record of each generation, and sums over them.
//!
//! Pure arithmetic over arguments: no clock, no I/O, no floating point. Money is counted in whole pico-dollars (1e-12 USD), because
//! provider prices are multiples of a pico-dollar per token and sums of integers do not drift. Counting what a key may still spend is
//! not done here; this crate only says what one generation cost.
//!
//! ```
//! use tidegate_ledger::{PriceTable, Rate, Usage};
//!
//! let prices = PriceTable {
//!     prompt: Rate::per_million_usd("2.50")?,
//!     completion: Rate::per_million_usd("10")?,
//!     ..PriceTable::default()
//! };
//! let usage = Usage { prompt_tokens: 1_000, completion_tokens: 200, ..Usage::default() };
//! assert_eq!(prices.charge(&usage, 1200).total.to_string(), "0.0045");
//! # Ok::<(), tidegate_ledger::MoneyError>(())
//! ```

#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod charge;
mod decimal;
mod fee;
mod generation;
mod money;
mod price;
mod rollup;

pub use charge::{Charge, Ending, Usage, charge_for};
pub use decimal::DecimalText;
pub use fee::{Fee, Toll};
pub use generation::{ApiType, AttemptRecord, Generation, Line, UnixMillis};
pub use money::{Money, MoneyError, Rate};
pub use price::{PriceOverride, PriceTable, UtcWindow};
pub use rollup::{Facet, Facets, Filter, Period, Retention, Rollups, Row, Sums};
