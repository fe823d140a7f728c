//! How tests with random input choose their seeds, and how a failure is replayed.

use std::sync::atomic::{AtomicU64, Ordering};

/// Runs a test for the usual number of seeds times `TIDEGATE_SEEDS`, or for as many as `variable` says. With `TIDEGATE_SEED` only for that
/// one. Returns the number of runs.
///
/// The seeds are shared out over two threads. Panics with the command that replays the first failure.
pub(crate) fn run(variable: &str, usual: u64, test: &str, one: impl Fn(u64) -> Result<(), String> + Sync) -> u64 {
    let only = number("TIDEGATE_SEED");
    let first = only.or_else(|| number("TIDEGATE_FIRST_SEED")).unwrap_or(0);
    let count = if only.is_some() { 1 } else { number(variable).unwrap_or(usual * number("TIDEGATE_SEEDS").unwrap_or(1).max(1)) };
    let next = AtomicU64::new(first);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + count {
                return Ok(());
            }
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| one(seed)));
            let failure = match outcome {
                Ok(Ok(())) => continue,
                Ok(Err(text)) => text,
                Err(panic) => panic_text(&*panic),
            };
            next.store(u64::MAX / 2, Ordering::Relaxed);
            return Err((seed, failure));
        }
    };
    let failure = std::thread::scope(|scope| {
        let other = (count > 1).then(|| scope.spawn(work));
        let mine = work();
        mine.and(other.map_or(Ok(()), |other| other.join().unwrap()))
    });
    if let Err((seed, failure)) = failure {
        panic!("seed {seed}: {failure}\nreplay: TIDEGATE_SEED={seed} cargo test -p tidegate-consensus {test}");
    }
    count
}

/// A number from the environment, which only tests read.
pub(crate) fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_else(|| "panicked".to_owned())
}
