//! What others say about an endpoint: a prior that lowers the bar, never an order that overrides what this edge sees.
//!
//! A lone edge has nobody to ask: confidence is 0 then, and every formula works without a special case.

use serde::{Deserialize, Serialize};

use super::verdict::{Elsewhere, RegionVerdict};
use crate::{Settings, Timestamp};

/// Evidence of the region or of other regions about one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RemoteEvidence {
    /// Share of successes the others saw, 0 to 1.
    pub success: f64,
    /// How much to believe it when it was fresh, 0 to 1.
    pub confidence: f64,
    /// What they concluded.
    pub verdict: RemoteVerdict,
    /// When it was received.
    pub received: Timestamp,
}

/// What others concluded about an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RemoteVerdict {
    /// Nothing is wrong.
    #[default]
    Healthy,
    /// Fewer failures than usual open the breaker.
    Degraded,
    /// The region's quorum took it out.
    Ejected,
}

/// What the region's aggregator said about an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RegionEvidence {
    /// Its verdict.
    pub verdict: RegionVerdict,
    /// Weighted share of successes, 0 to 1.
    pub success: f64,
    /// min(1, reporters / 3).
    pub confidence: f64,
}

/// One piece of evidence of two: the own region's where it has any, else other regions'. The verdict is the graver one, but only the own
/// region can eject.
#[must_use]
pub fn combine(region: RegionEvidence, others: Option<Elsewhere>, received: Timestamp) -> RemoteEvidence {
    let verdict = match region.verdict {
        RegionVerdict::Ejected | RegionVerdict::Probing => RemoteVerdict::Ejected,
        RegionVerdict::Degraded => RemoteVerdict::Degraded,
        RegionVerdict::Healthy if others.is_some_and(|others| others.degraded) => RemoteVerdict::Degraded,
        RegionVerdict::Healthy => RemoteVerdict::Healthy,
    };
    let (success, confidence) = match others {
        _ if region.confidence > 0.0 => (region.success, region.confidence),
        Some(others) => (others.success, others.confidence),
        None => (region.success, 0.0),
    };
    // An ejected endpoint has no samples, so no confidence; its verdict holds all the same.
    let confidence = if verdict == RemoteVerdict::Healthy { confidence } else { confidence.max(LEAST_CONFIDENCE) };
    RemoteEvidence { success, confidence, verdict, received }
}

/// Keeps a verdict in force while adding next to nothing to the posterior.
const LEAST_CONFIDENCE: f64 = 0.01;

impl Default for RemoteEvidence {
    fn default() -> RemoteEvidence {
        RemoteEvidence { success: 1.0, confidence: 0.0, verdict: RemoteVerdict::Healthy, received: Timestamp(0) }
    }
}

impl RemoteEvidence {
    /// Confidence after fading.
    pub(crate) fn confidence_at(&self, settings: &Settings, now: Timestamp) -> f64 {
        if self.confidence <= 0.0 || settings.remote_fade.is_zero() {
            return 0.0;
        }
        let age = now.seconds_since(self.received);
        self.confidence.min(1.0) * (-age / settings.remote_fade.as_secs_f64()).exp()
    }

    /// Whether the bar is lower.
    pub(crate) fn is_degraded(&self, settings: &Settings, now: Timestamp) -> bool {
        self.verdict != RemoteVerdict::Healthy && self.holds(settings, now)
    }

    /// Whether it is taken out.
    pub(crate) fn is_ejected(&self, settings: &Settings, now: Timestamp) -> bool {
        self.verdict == RemoteVerdict::Ejected && self.holds(settings, now)
    }

    /// A verdict lives for three fading times (15 s), then the silence of its source ends it.
    pub(crate) fn holds(&self, settings: &Settings, now: Timestamp) -> bool {
        self.confidence > 0.0 && now.since(self.received) <= settings.remote_fade * 3
    }
}
