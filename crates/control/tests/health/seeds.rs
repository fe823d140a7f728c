//! Which seeds a test runs, and how one is run again.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// How many seeds: the usual number times `TIDEGATE_SEEDS`.
pub(crate) fn seeds(usual: u64) -> u64 {
    usual * number("TIDEGATE_SEEDS").unwrap_or(1).max(1)
}

/// Runs a test over its seeds, or over the one that `TIDEGATE_SEED` names.
#[expect(clippy::print_stderr, reason = "a seed that failed says how it is run again")]
pub(crate) fn each_seed(test: &str, usual: u64, mut run: impl FnMut(u64)) {
    let range = match number("TIDEGATE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..seeds(usual),
    };
    for seed in range {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(seed))) {
            eprintln!("seed {seed} failed; to run it again:");
            eprintln!("    TIDEGATE_SEED={seed} cargo nextest run -p tidegate-control --test health {test}");
            resume_unwind(panic);
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
