//! Keeping the store of counters to what the ledger knows: new limits begin with what was spent before, and a store that has lost
//! something is told again.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tidegate_runtime::Shutdown;

use super::{Spent, restore};
use crate::config::StoreConfig;
use crate::shared::Shared;

/// Ends with the edge.
pub(crate) async fn keep_restored(shared: Arc<Shared>, stopped: Shutdown) {
    let remote = !matches!(shared.config.quota.store, StoreConfig::Memory);
    let mut rounds = Rounds::default();
    loop {
        // None of these loses anything when another one is ready: a notice that nobody waited for is kept.
        tokio::select! {
            biased;
            () = stopped.requested() => return,
            () = shared.limits_changed.notified() => rounds.changed(),
            () = in_doubt(&shared), if rounds.heeds_doubt() => rounds.doubted(),
            () = rounds.due() => {
                tell(&shared).await;
                rounds.told(remote);
            }
        }
    }
}

async fn in_doubt(shared: &Shared) {
    let lost = async {
        match shared.sums.region() {
            Some(region) => region.lost().await,
            None => pending().await,
        }
    };
    // Either is a doubt, and one that is left is kept.
    tokio::select! {
        () = shared.quotas.gate().spend_in_doubt() => {}
        () = lost => {}
    }
}

async fn tell(shared: &Shared) {
    shared.quotas.gate().all_told(TOLD_WITHIN).await;
    let (keys, state) = (shared.keys.load_full(), shared.state.load_full());
    let spent = Spent {
        own: &shared.ledger.rollups_shared(),
        region: shared.sums.region(),
        retention: shared.config.ledger.retention,
        providers: &state.config.providers,
    };
    restore(shared.quotas.gate().store().as_ref(), &keys, &state.owners, &spent, shared.clock.unix_micros()).await;
}

/// When the store is told. After a loss several times, as the other edges of the region fill its ledger again meanwhile; a store that
/// keeps saying that it does not know is asked no more often for it.
#[derive(Debug, Default, PartialEq)]
struct Rounds {
    next: Option<(usize, Duration)>,
}

impl Rounds {
    /// Limits changed: what was spent is known, and needed at once.
    fn changed(&mut self) {
        self.next = match self.next {
            None => Some((PAUSES.len(), Duration::ZERO)),
            // Not before the region's ledger is filled again.
            Some((0, pause)) => Some((0, pause)),
            Some((round, _)) => Some((round, Duration::ZERO)),
        };
    }

    /// The store may have lost something.
    fn doubted(&mut self) {
        self.next = Some((0, PAUSES[0]));
    }

    /// Not while it is told again and again.
    fn heeds_doubt(&self) -> bool {
        self.next.is_none()
    }

    fn told(&mut self, remote: bool) {
        self.next = self.next.and_then(|(round, _)| PAUSES.get(round + 1).map(|pause| (round + 1, *pause))).filter(|_| remote);
    }

    async fn due(&self) {
        match self.next {
            Some((_, pause)) => tokio::time::sleep(pause).await,
            None => pending().await,
        }
    }
}

/// Settlements that waited for the store are sent as soon as it is back.
const TOLD_WITHIN: Duration = Duration::from_secs(5);
/// Before each round. The first one leaves every edge of the region the time to notice (half a second) and to pass its journal on, also where
/// machines are busy: what an edge settles after another one has told the sum that contains it counts twice.
const PAUSES: [Duration; 6] = [
    Duration::from_secs(3),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(16),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doubt_is_answered_several_times_and_ever_more_slowly() {
        let mut rounds = Rounds::default();
        assert!(rounds.heeds_doubt());
        rounds.doubted();
        let mut told = 0;
        let mut before = Duration::ZERO;
        while let Some((round, pause)) = rounds.next {
            assert!(!rounds.heeds_doubt(), "a store that keeps saying so is not told faster");
            assert!(round < 2 || pause > before, "{pause:?} after {before:?}");
            (told, before) = (told + 1, pause);
            rounds.told(true);
        }
        assert_eq!(told, PAUSES.len());
        assert!(rounds.heeds_doubt());
        rounds.doubted();
        rounds.changed();
        assert_eq!(rounds.next, Some((0, PAUSES[0])), "too early would be too low");
        rounds.told(true);
        rounds.changed();
        assert_eq!(rounds.next, Some((1, Duration::ZERO)), "and the rest follows");
    }

    #[test]
    fn new_limits_are_told_once_and_a_store_in_this_process_loses_nothing() {
        let mut rounds = Rounds::default();
        rounds.changed();
        assert_eq!(rounds.next, Some((PAUSES.len(), Duration::ZERO)));
        rounds.told(true);
        assert_eq!(rounds, Rounds::default());
        rounds.doubted();
        rounds.told(false);
        assert_eq!(rounds, Rounds::default());
    }
}
