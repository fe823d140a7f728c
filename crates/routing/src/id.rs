//! Indices into a [`Snapshot`](crate::Snapshot), and the time the crate is told.
//!
//! An index is only meaningful together with the snapshot that gave it out: positions follow the order of the spec the
//! snapshot was built from, so whoever builds the spec can keep parallel tables. Nothing here reads a clock.

use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A moment, in microseconds since an epoch the process chooses once (usually its start). Arithmetic saturates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Later than every moment that can be reached.
    pub const MAX: Timestamp = Timestamp(u64::MAX);

    /// Microseconds since the process's epoch.
    pub const fn micros(self) -> u64 {
        self.0
    }

    /// Time from `earlier` to `self`; zero if `earlier` is not earlier.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// The same as [`since`](Self::since), in seconds.
    pub(crate) fn seconds_since(self, earlier: Timestamp) -> f64 {
        self.0.saturating_sub(earlier.0) as f64 / 1e6
    }
}

impl Add<Duration> for Timestamp {
    type Output = Timestamp;

    fn add(self, duration: Duration) -> Timestamp {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Timestamp(self.0.saturating_add(micros))
    }
}

impl Sub for Timestamp {
    type Output = Duration;

    fn sub(self, earlier: Timestamp) -> Duration {
        self.since(earlier)
    }
}

macro_rules! index {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub(crate) u32);

        impl $name {
            /// The position in the spec.
            pub const fn get(self) -> usize {
                self.0 as usize
            }

            /// The index of a position that is known to be inside the snapshot.
            pub const fn new(position: u32) -> Self {
                Self(position)
            }
        }
    };
}

index!(
    /// Position of a model in its snapshot.
    ModelIndex
);
index!(
    /// Position of an endpoint in its snapshot.
    EndpointIndex
);
index!(
    /// Position of a provider in its snapshot.
    ProviderIndex
);
index!(
    /// Position of a credential, counted through all providers in the order of the spec.
    CredentialIndex
);

/// An endpoint's name in eight bytes: what processes call it when they talk about health. Positions differ between snapshots and names are
/// long; whoever holds the configuration can hash the names it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EndpointId(pub u64);

impl EndpointId {
    /// The id of a name. Stable over processes and releases.
    #[must_use]
    pub fn of(name: &str) -> EndpointId {
        EndpointId(stable_hash(&[name]))
    }
}

/// FNV-1a over the parts, with a separator that no part can imitate. Stable over processes and releases, because health
/// carry-over and rendezvous hashing both depend on it; not meant to resist an adversary (names come from configuration).
pub(crate) fn stable_hash(parts: &[&str]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        for byte in part.bytes().chain(std::iter::once(0xff)) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    mix(hash)
}

/// Finaliser of SplitMix64: spreads every input bit over the whole word.
pub(crate) fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_saturates_at_both_ends() {
        assert_eq!(Timestamp(5) - Timestamp(9), Duration::ZERO);
        assert_eq!(Timestamp(5) + Duration::MAX, Timestamp::MAX);
        assert_eq!(Timestamp(2_000_000).seconds_since(Timestamp(500_000)), 1.5);
    }

    #[test]
    fn hash_separates_parts() {
        assert_ne!(stable_hash(&["ab", "c"]), stable_hash(&["a", "bc"]));
    }
}
