//! Limits that count in several regions together (`global: true`).
//!
//! Each region counts against a number with a lease: its *share* of a rate, or its *grant* of a budget. One place, home, says how much:
//! [`Allocator`] divides rates, [`BudgetAllocator`] lends money. Each edge has a [`Desk`] that says what its region asks for and spends,
//! and takes over what home answers; decisions read the [`Share`]. Everything but the share itself is pure: messages and times in,
//! messages out.
//!
//! A share belongs to a *cell*: what counts in one place. The edges of a region that share a store are one cell, named like the region; an
//! edge that counts in its own memory is a cell of its own.

mod allocator;
mod budget;
mod desk;
mod held;
mod holder;
mod name;

pub use self::allocator::{Allocator, Assign, Member, Quiet, SHARE_LEASE, ShareReport};
pub use self::budget::{BudgetAllocator, GRANT_LEASE, GrantRow};
pub use self::desk::{Desk, Due, MOST_REPORTS};
pub(crate) use self::held::Waiting;
pub use self::held::{Home, Share, ShareView, Shares};
pub use self::holder::{Holder, Taken};
pub use self::name::LimitName;

/// What is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shared {
    /// A rate or a number of slots: an expired share is free again.
    Rate,
    /// A budget of one period: amounts are totals since the period began, and what is spent does not come back.
    Budget,
}
