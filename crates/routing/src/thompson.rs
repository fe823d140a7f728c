//! Thompson sampling: a success probability drawn from what is known of it instead of its mean.
//!
//! An endpoint with few samples is drawn high or low now and then, and so gets traffic in proportion to the chance that it is the best.
//! Useful with many endpoints, noisier with few; a setting, off by default.

use fastrand::Rng;

/// A draw from Beta(1 + `successes`, 1 + `failures`).
pub(crate) fn success(successes: f64, failures: f64, rng: &mut Rng) -> f64 {
    let good = gamma(1.0 + successes.max(0.0), rng);
    let bad = gamma(1.0 + failures.max(0.0), rng);
    good / (good + bad)
}

/// A draw from Gamma(`shape`, 1), for shapes of at least 1 (Marsaglia and Tsang, "A simple method for generating gamma variables",
/// 2000). A try is accepted in more than 95 % of all cases.
fn gamma(shape: f64, rng: &mut Rng) -> f64 {
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    for _ in 0..MOST_TRIES {
        let normal = normal(rng);
        let v = (1.0 + c * normal).powi(3);
        if v <= 0.0 {
            continue;
        }
        let uniform = 1.0 - rng.f64();
        if uniform.ln() < 0.5 * normal * normal + d - d * v + d * v.ln() {
            return d * v;
        }
    }
    shape
}

/// A draw from the standard normal distribution (Box and Muller).
fn normal(rng: &mut Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.f64()).cos()
}

/// Unlucky this often in a row is nobody; it only bounds the loop.
const MOST_TRIES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_have_the_mean_and_spread_of_the_distribution() {
        let mut rng = Rng::with_seed(7);
        for (good, bad) in [(0.0, 0.0), (3.0, 1.0), (40.0, 0.0), (500.0, 20.0)] {
            let draws: Vec<f64> = (0..20_000).map(|_| success(good, bad, &mut rng)).collect();
            let count = draws.len() as f64;
            let mean = draws.iter().sum::<f64>() / count;
            let variance = draws.iter().map(|draw| (draw - mean).powi(2)).sum::<f64>() / count;
            let (a, b) = (1.0 + good, 1.0 + bad);
            let (expected, spread) = (a / (a + b), a * b / ((a + b).powi(2) * (a + b + 1.0)));
            assert!((mean - expected).abs() < 0.01, "{good} {bad}: {mean} {expected}");
            assert!((variance / spread - 1.0).abs() < 0.1, "{good} {bad}: {variance} {spread}");
            assert!(draws.iter().all(|draw| (0.0..=1.0).contains(draw)));
        }
    }
}
