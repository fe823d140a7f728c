//! How long ago the control plane last confirmed the keys, and what that means for a caller.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use super::{AuthFailure, Caller};

/// When the keys were last known to be current. An edge that is configured by a file is its own authority.
#[derive(Debug)]
pub(crate) struct Contact {
    /// Microseconds of the process's clock; before its start after a restart; `ALWAYS` or `NEVER` otherwise.
    confirmed: AtomicI64,
    grace: Duration,
}

impl Contact {
    /// Keys of a file.
    pub(crate) fn own_authority() -> Self {
        Self { confirmed: AtomicI64::new(ALWAYS), grace: Duration::MAX }
    }

    /// Keys of the control plane, not yet heard from. Keys without a grace of their own are served for `grace` after the last contact.
    pub(crate) fn following(grace: Duration) -> Self {
        Self { confirmed: AtomicI64::new(NEVER), grace }
    }

    /// The keys were current at this moment.
    pub(crate) fn confirmed_at(&self, micros: i64) {
        self.confirmed.fetch_max(micros, Ordering::Release);
    }

    /// Time since the keys were last known to be current; `None` when they never were.
    pub(crate) fn age(&self, now_micros: u64) -> Option<Duration> {
        match self.confirmed.load(Ordering::Acquire) {
            ALWAYS => Some(Duration::ZERO),
            NEVER => None,
            confirmed => {
                let age = i64::try_from(now_micros).unwrap_or(i64::MAX).saturating_sub(confirmed);
                Some(Duration::from_micros(u64::try_from(age).unwrap_or(0)))
            }
        }
    }

    /// What an unknown key is told: that it is unknown only where that is certain.
    pub(crate) fn unknown(&self, now_micros: u64) -> AuthFailure {
        match self.age(now_micros) {
            Some(age) if age <= DECIDABLE => AuthFailure::Unknown,
            _ => AuthFailure::Undecided,
        }
    }

    /// Whether a known key may still be served. One that may not is not refused for good: it was valid.
    pub(crate) fn covers(&self, caller: &Caller, now_micros: u64) -> Result<(), AuthFailure> {
        // A small pause is none; it takes a reconnection to notice.
        let grace = caller.grace().unwrap_or(self.grace).max(DECIDABLE);
        match self.age(now_micros) {
            Some(age) if age <= grace => Ok(()),
            _ => Err(AuthFailure::Undecided),
        }
    }
}

/// A key made or revoked elsewhere is known here within this time while the edge is connected: three missed bookmarks and a
/// reconnection.
const DECIDABLE: Duration = Duration::from_secs(15);
const ALWAYS: i64 = i64::MAX;
const NEVER: i64 = i64::MIN;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Keys;
    use crate::config::Defaults;

    fn caller() -> std::sync::Arc<Caller> {
        let keys = Keys::of_config(&[], None, &Defaults { anonymous: true, ..Defaults::default() });
        keys.authenticate(&http::HeaderMap::new(), 0).unwrap()
    }

    #[test]
    fn an_unknown_key_is_called_so_only_while_that_is_certain() {
        let contact = Contact::following(Duration::from_secs(3600));
        assert_eq!(contact.unknown(0), AuthFailure::Undecided, "never heard from");
        contact.confirmed_at(1_000_000);
        assert_eq!(contact.unknown(16_000_000), AuthFailure::Unknown);
        assert_eq!(contact.unknown(16_000_001), AuthFailure::Undecided);
        assert_eq!(Contact::own_authority().unknown(u64::MAX), AuthFailure::Unknown);
    }

    #[test]
    fn a_known_key_is_served_within_its_grace_and_undecided_after() {
        let contact = Contact::following(Duration::from_secs(3600));
        let caller = caller();
        assert_eq!(contact.covers(&caller, 0), Err(AuthFailure::Undecided));
        // After a restart the last contact lies before the process's start.
        contact.confirmed_at(-3_000_000_000);
        assert_eq!(contact.covers(&caller, 600_000_000), Ok(()));
        assert_eq!(contact.covers(&caller, 600_000_001), Err(AuthFailure::Undecided));
        contact.confirmed_at(-4_000_000_000);
        assert_eq!(contact.covers(&caller, 600_000_000), Ok(()), "news that are older than others change nothing");
        assert_eq!(Contact::own_authority().covers(&caller, u64::MAX), Ok(()));
    }
}
