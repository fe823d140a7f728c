//! Which seeds are run, and how one that fails is run again.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Runs a scenario with each seed. `usual` is how many seeds are cheap enough for every change.
pub(crate) fn run<F, R>(test: &str, usual: u64, scenario: F)
where
    F: Fn(u64) -> R + Sync,
    R: Future<Output = ()>,
{
    let number = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().expect("a number"));
    let seeds: Vec<u64> = match (number("TIDEGATE_FOLLOW_SEED"), number("TIDEGATE_FOLLOW_SEEDS")) {
        (Some(seed), _) => vec![seed],
        (None, Some(many)) => (0..many).collect(),
        (None, None) => (0..usual).collect(),
    };
    for seed in seeds {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| once(seed, &scenario))) {
            #[expect(clippy::print_stderr, reason = "the one line that whoever reads the failure needs")]
            {
                eprintln!(
                    "replay: TIDEGATE_FOLLOW_SEED={seed} cargo nextest run --workspace -E 'binary(follow) and test({test})' --no-capture"
                );
            }
            resume_unwind(panic);
        }
    }
}

/// Runs a scenario once, in a runtime of its own whose time passes only when nothing else can be done.
pub(crate) fn once<R: Future>(seed: u64, scenario: impl Fn(u64) -> R) -> R::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(scenario(seed))
}
