//! How long the answers of a key usually are: a running 95th percentile per key and model.
//!
//! A fixed table of counters, found by hash: no lock and no growth. Two pairs may share one; what is read is an estimate either way.

use std::sync::atomic::{AtomicU32, Ordering};

use tidegate_routing::ModelIndex;

/// The table.
pub(super) struct Outputs {
    /// Sixteenths of a token; 0 means that nothing is known.
    cells: Box<[AtomicU32]>,
}

impl Outputs {
    pub(super) fn new() -> Self {
        Self { cells: (0..CELLS).map(|_| AtomicU32::new(0)).collect() }
    }

    /// Tokens that 19 of 20 answers stay below; `None` when nothing is known.
    pub(super) fn expected(&self, salt: u64, model: ModelIndex) -> Option<u32> {
        match self.cell(salt, model).load(Ordering::Relaxed) {
            0 => None,
            value => Some((value / UNIT).max(1)),
        }
    }

    /// Takes an answer into account. The estimate rises by a twentieth of itself and falls by a 380th, so that it rests where one in twenty
    /// answers is longer (stochastic approximation of a quantile).
    pub(super) fn answered(&self, salt: u64, model: ModelIndex, tokens: u64) {
        let cell = self.cell(salt, model);
        let tokens = u32::try_from(tokens).unwrap_or(u32::MAX).min(MOST_TOKENS) * UNIT;
        let before = cell.load(Ordering::Relaxed);
        let after = if before == 0 {
            // One answer says little: begin above it.
            tokens.saturating_add(tokens / 2).max(1)
        } else if tokens > before {
            before + (before / 20).max(UNIT)
        } else {
            before.saturating_sub((before / 380).max(1)).max(1)
        };
        // Lost updates of parallel answers only make it learn more slowly.
        cell.store(after.min(MOST_TOKENS * UNIT), Ordering::Relaxed);
    }

    fn cell(&self, salt: u64, model: ModelIndex) -> &AtomicU32 {
        let mixed = (salt ^ (model.get() as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        &self.cells[(mixed >> 32) as usize % CELLS]
    }
}

/// 256 KiB.
const CELLS: usize = 65_536;
const UNIT: u32 = 16;
/// No answer is longer.
const MOST_TOKENS: u32 = 10_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_rests_near_the_95th_percentile() {
        let (outputs, model) = (Outputs::new(), ModelIndex::new(3));
        assert_eq!(outputs.expected(9, model), None);
        let mut random = fastrand::Rng::with_seed(4);
        let mut above = 0;
        for round in 0..40_000 {
            let tokens = random.u64(0..1_000);
            if round >= 20_000 && tokens > u64::from(outputs.expected(9, model).expect("it has learned")) {
                above += 1;
            }
            outputs.answered(9, model, tokens);
        }
        assert!((600..1_600).contains(&above), "{above} of 20000 answers were longer");
        assert_eq!(outputs.expected(9, ModelIndex::new(4)), None, "another model");
    }
}
