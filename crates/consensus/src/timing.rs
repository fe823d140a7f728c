//! How long to wait: the timing profiles, and the rule for networks that fit none.
//!
//! A follower campaigns after the lease (the longest election timeout) plus a random time between the shortest and the longest, so that a
//! lost leader is replaced after 1.5 to 2 times the longest timeout, not after one.

use std::time::Duration;

/// Intervals of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Between two heartbeats of the leader.
    pub heartbeat: Duration,
    /// Shortest election timeout.
    pub election_min: Duration,
    /// Longest election timeout, and the leader's lease.
    pub election_max: Duration,
    /// How long a leader that has lost its quorum is silent, so that a follower that still hears it may campaign.
    pub quorum_loss_probe: Duration,
}

impl Timing {
    /// One region: round trips of at most 5 ms. A lost leader costs 0.8 s of writes.
    pub const LOCAL: Self = Self::of_millis(50, 250, 500, 1_100);
    /// Regions of one continent: round trips of at most 120 ms. A lost leader costs about 4 s of writes.
    pub const CONTINENTAL: Self = Self::of_millis(250, 1_000, 2_000, 4_500);
    /// Anywhere: round trips of at most 250 ms. A lost leader costs 6 to 9 s of writes.
    pub const GLOBAL: Self = Self::of_millis(500, 2_000, 4_000, 9_000);

    const fn of_millis(heartbeat: u64, election_min: u64, election_max: u64, probe: u64) -> Self {
        Self {
            heartbeat: Duration::from_millis(heartbeat),
            election_min: Duration::from_millis(election_min),
            election_max: Duration::from_millis(election_max),
            quorum_loss_probe: Duration::from_millis(probe),
        }
    }

    /// The profile of a name: `local`, `continental` or `global`.
    pub fn named(profile: &str) -> Option<Self> {
        match profile {
            "local" => Some(Self::LOCAL),
            "continental" => Some(Self::CONTINENTAL),
            "global" => Some(Self::GLOBAL),
            _ => None,
        }
    }

    /// The rule for any network: a heartbeat must outlast the round trip to the voter that completes the quorum (99th percentile) and
    /// five flushes of the disk (99th percentile).
    pub fn for_network(round_trip: Duration, flush: Duration) -> Self {
        let heartbeat = SHORTEST_HEARTBEAT.max(round_trip.mul_f64(1.5)).max(flush * 5);
        Self { heartbeat, election_min: heartbeat * 4, election_max: heartbeat * 8, quorum_loss_probe: heartbeat * 8 * 2 + heartbeat * 2 }
    }

    /// Says what is wrong with these intervals.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn check(&self) -> Result<(), String> {
        if self.heartbeat.is_zero() || self.election_min < self.heartbeat * 2 {
            return Err(format!(
                "the shortest election timeout ({:?}) must be at least twice the heartbeat ({:?}), which must not be zero",
                self.election_min, self.heartbeat
            ));
        }
        if self.election_max <= self.election_min {
            return Err(format!(
                "the longest election timeout ({:?}) must be longer than the shortest ({:?})",
                self.election_max, self.election_min
            ));
        }
        if self.quorum_loss_probe < self.election_max * 2 {
            return Err(format!(
                "the quorum-loss probe ({:?}) must be at least the lease and the longest election timeout ({:?})",
                self.quorum_loss_probe,
                self.election_max * 2
            ));
        }
        Ok(())
    }

    /// Says whether the disk is too slow for these intervals: a flush may take a tenth of the shortest election timeout.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn check_disk(&self, flush: Duration) -> Result<(), String> {
        if self.election_min < flush * 10 {
            return Err(format!(
                "the disk takes {flush:?} to flush, too slow for elections after {:?}: use a faster disk or a slower timing profile",
                self.election_min
            ));
        }
        Ok(())
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self::CONTINENTAL
    }
}

const SHORTEST_HEARTBEAT: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profiles_obey_their_own_rules() {
        for profile in ["local", "continental", "global"] {
            Timing::named(profile).unwrap().check().unwrap();
        }
        assert_eq!(Timing::named("lunar"), None);
    }

    #[test]
    fn the_rule_scales_with_the_slower_of_network_and_disk() {
        let ms = Duration::from_millis;
        assert_eq!(Timing::for_network(ms(2), ms(1)).heartbeat, ms(50));
        assert_eq!(Timing::for_network(ms(200), ms(1)).heartbeat, ms(300));
        assert_eq!(Timing::for_network(ms(2), ms(40)).heartbeat, ms(200));
        let any = Timing::for_network(ms(200), ms(8));
        assert_eq!((any.election_min, any.election_max), (ms(1_200), ms(2_400)));
        any.check().unwrap();
    }

    #[test]
    fn what_cannot_work_is_refused_with_a_reason() {
        let mut timing = Timing::LOCAL;
        timing.election_max = timing.election_min;
        assert!(timing.check().unwrap_err().contains("longest election timeout"));
        let mut timing = Timing::LOCAL;
        timing.quorum_loss_probe = timing.election_max;
        assert!(timing.check().unwrap_err().contains("quorum-loss probe"));
        let mut timing = Timing::LOCAL;
        timing.heartbeat = timing.election_min;
        assert!(timing.check().unwrap_err().contains("heartbeat"));
        assert!(Timing::LOCAL.check_disk(Duration::from_millis(26)).is_err());
        assert!(Timing::LOCAL.check_disk(Duration::from_millis(25)).is_ok());
    }
}
