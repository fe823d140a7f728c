//! What the verdicts of other regions mean here: a prior and a lower bar, never an ejection.

use super::RegionVerdict;

/// What one other region agreed on lately.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RegionSays {
    /// Its verdict.
    pub verdict: RegionVerdict,
    /// Its share of successes, 0 to 1.
    pub success: f64,
    /// How much to believe it now, 0 to 1; fades with age.
    pub confidence: f64,
    /// Whether its failures point at its own egress.
    pub ours: bool,
}

/// Other regions taken together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Elsewhere {
    /// Whether at least two regions took it out. One region's word lowers no bar: it may be that region's egress.
    pub degraded: bool,
    /// Share of successes, 0 to 1.
    pub success: f64,
    /// How much to believe it, 0 to 1.
    pub confidence: f64,
    /// Regions that were heard.
    pub regions: usize,
    /// How many of them took it out, or degraded it where they are too few edges to do more.
    pub against: usize,
}

/// Sums up the other regions; nothing when none has fresh evidence.
///
/// A region whose failures are of the classes that point at itself (name resolution, connect, TLS) is not believed alone: only when a second
/// region says the same does it count.
#[must_use]
pub fn elsewhere(regions: &[RegionSays]) -> Option<Elsewhere> {
    let heard = || regions.iter().filter(|region| region.confidence > 0.0);
    let points_at_itself = |region: &&RegionSays| region.ours && region.success < 1.0 - SUSPICIOUS_FAILURES;
    let alone = heard().filter(points_at_itself).count() < CORROBORATION;
    let believed = || heard().filter(move |region| !(alone && points_at_itself(region)));
    let weight: f64 = believed().map(|region| region.confidence).sum();
    if weight <= 0.0 {
        return None;
    }
    let against = believed().filter(|region| region.verdict != RegionVerdict::Healthy).count();
    Some(Elsewhere {
        degraded: against >= CORROBORATION,
        success: believed().map(|region| region.confidence * region.success).sum::<f64>() / weight,
        confidence: weight.min(1.0),
        regions: believed().count(),
        against,
    })
}

/// Regions that must agree before a verdict means anything elsewhere.
const CORROBORATION: usize = 2;
/// A few failed connects among many successes are noise, not an egress.
const SUSPICIOUS_FAILURES: f64 = 0.1;

#[cfg(test)]
mod tests {
    use super::*;

    fn says(verdict: RegionVerdict, success: f64) -> RegionSays {
        RegionSays { verdict, success, confidence: 1.0, ours: false }
    }

    #[test]
    fn one_region_is_a_prior_and_two_degrade() {
        let one = elsewhere(&[says(RegionVerdict::Ejected, 0.0)]).unwrap();
        assert!(!one.degraded && one.success == 0.0 && one.confidence == 1.0);
        let two = elsewhere(&[says(RegionVerdict::Ejected, 0.0), says(RegionVerdict::Probing, 0.1)]).unwrap();
        assert!(two.degraded && two.against == 2);
        assert_eq!(elsewhere(&[RegionSays { confidence: 0.0, ..says(RegionVerdict::Ejected, 0.0) }]), None);
    }

    #[test]
    fn a_region_that_cannot_connect_is_not_believed_alone() {
        let broken = RegionSays { ours: true, ..says(RegionVerdict::Ejected, 0.0) };
        assert_eq!(elsewhere(&[broken]), None);
        let beside = elsewhere(&[broken, says(RegionVerdict::Healthy, 1.0)]).unwrap();
        assert!(!beside.degraded && beside.success == 1.0 && beside.regions == 1);
        assert!(elsewhere(&[broken, broken]).unwrap().degraded);
    }
}
