//! Health between its messages and what routing makes of them.

use std::time::Duration;

use tidegate_routing::{
    Elsewhere, EndpointId, FailureClass, Histogram, HistogramError, Increment, Opening, RegionEvidence, RegionVerdict, RemoteEvidence,
    Rule, Timestamp, combine,
};

use crate::v1::{HealthView, OpenBreaker, ReportCell, Verdict, VerdictRule, ViewCell};

impl ReportCell {
    /// One endpoint's increment as an edge reports it.
    #[must_use]
    pub fn of(endpoint: EndpointId, increment: &Increment, in_flight: u32) -> ReportCell {
        let failed = |class: FailureClass| increment.failed[class as usize];
        ReportCell {
            endpoint: endpoint.0,
            ok: increment.ok,
            connect: failed(FailureClass::Connect),
            first_token_timeout: failed(FailureClass::FirstTokenTimeout),
            server_error: failed(FailureClass::Server),
            overloaded: failed(FailureClass::Overloaded),
            cut: failed(FailureClass::Cut),
            malformed: failed(FailureClass::Malformed),
            rate_limited: increment.rate_limited,
            in_flight,
            first_token: increment.first_token.encode().into(),
            speed: increment.speed.encode().into(),
            probe_ok: increment.probe_ok,
            probe_failed: increment.probe_failed,
            open: None,
        }
    }

    /// The same cell, with what the edge's own breaker knows if it is open.
    #[must_use]
    pub fn with_opening(self, opening: Option<Opening>, now: Timestamp) -> ReportCell {
        ReportCell { open: opening.map(|opening| OpenBreaker::of(&opening, now)), ..self }
    }

    /// The increment.
    ///
    /// # Errors
    /// A distribution that cannot be read.
    pub fn increment(&self) -> Result<Increment, HistogramError> {
        Ok(Increment {
            ok: self.ok,
            failed: FailureClass::ALL.map(|class| match class {
                FailureClass::Connect => self.connect,
                FailureClass::FirstTokenTimeout => self.first_token_timeout,
                FailureClass::Server => self.server_error,
                FailureClass::Overloaded => self.overloaded,
                FailureClass::Cut => self.cut,
                FailureClass::Malformed => self.malformed,
            }),
            rate_limited: self.rate_limited,
            probe_ok: self.probe_ok,
            probe_failed: self.probe_failed,
            first_token: Histogram::decode(&self.first_token)?,
            speed: Histogram::decode(&self.speed)?,
        })
    }
}

impl OpenBreaker {
    fn of(opening: &Opening, now: Timestamp) -> OpenBreaker {
        let millis = |since: Timestamp| u32::try_from(now.since(since).as_millis()).unwrap_or(u32::MAX);
        OpenBreaker {
            began_ms: millis(opening.began),
            opened_ms: millis(opening.at),
            samples: opening.samples as f32,
            failed: opening.failed as f32,
            connect: opening.pointing_at_us as f32,
        }
    }

    /// What it says, for someone who hears it now; nothing when it makes no sense.
    #[must_use]
    pub fn opening(&self, now: Timestamp) -> Option<Opening> {
        let ago = |millis: u32| {
            let micros = Duration::from_millis(millis.into()).as_micros() as u64;
            Timestamp(now.micros().saturating_sub(micros))
        };
        // A number that is none is in no range.
        let sane = (0.0..=MOST_SAMPLES).contains(&self.samples)
            && self.samples > 0.0
            && (0.0..=self.samples).contains(&self.failed)
            && (0.0..=self.failed).contains(&self.connect);
        sane.then(|| Opening {
            began: ago(self.began_ms.max(self.opened_ms)),
            at: ago(self.opened_ms),
            samples: self.samples.into(),
            failed: self.failed.into(),
            pointing_at_us: self.connect.into(),
        })
    }
}

/// Far above what opens a breaker; the next one would have opened it before.
const MOST_SAMPLES: f32 = 1e6;

impl HealthView {
    /// Takes in a later view for the same edge, so that the two can be told as one.
    pub fn absorb(&mut self, later: HealthView) {
        if later.full || later.epoch != self.epoch {
            *self = later;
            return;
        }
        let full = self.full;
        let mut cells = std::mem::take(&mut self.cells);
        let mut summaries = std::mem::take(&mut self.summaries);
        cells.retain(|cell| !later.cells.iter().any(|newer| newer.endpoint == cell.endpoint));
        summaries.retain(|old| !later.summaries.iter().any(|new| (new.endpoint, &new.region) == (old.endpoint, &old.region)));
        *self = later;
        self.full = full;
        self.cells.splice(0..0, cells);
        self.summaries.splice(0..0, summaries);
    }
}

impl ViewCell {
    /// What routing hears of an endpoint: the region's word, and other regions' where the region has none.
    #[must_use]
    pub fn evidence(&self, received: Timestamp) -> RemoteEvidence {
        let ratio = |permille: u32| f64::from(permille.min(1_000)) / 1_000.0;
        let percent = |percent: u32| f64::from(percent.min(100)) / 100.0;
        let region = RegionEvidence {
            verdict: region_verdict(self.verdict),
            success: ratio(self.success_permille),
            confidence: if self.samples > 0 { percent(self.confidence) } else { 0.0 },
        };
        let others = self.elsewhere.map(|others| Elsewhere {
            degraded: others.verdict() != Verdict::Healthy,
            success: ratio(others.success_permille),
            confidence: percent(others.confidence),
            regions: others.regions as usize,
            against: others.ejected as usize,
        });
        combine(region, others, received)
    }
}

/// The verdict of a message. What a newer build may say that this one does not know counts as degraded: careful, and not out.
#[must_use]
pub fn region_verdict(message: i32) -> RegionVerdict {
    match Verdict::try_from(message) {
        Ok(Verdict::Healthy) => RegionVerdict::Healthy,
        Ok(Verdict::Ejected) => RegionVerdict::Ejected,
        Ok(Verdict::Probing) => RegionVerdict::Probing,
        Ok(Verdict::Degraded) | Err(_) => RegionVerdict::Degraded,
    }
}

impl From<RegionVerdict> for Verdict {
    fn from(verdict: RegionVerdict) -> Verdict {
        match verdict {
            RegionVerdict::Healthy => Verdict::Healthy,
            RegionVerdict::Degraded => Verdict::Degraded,
            RegionVerdict::Ejected => Verdict::Ejected,
            RegionVerdict::Probing => Verdict::Probing,
        }
    }
}

impl From<Rule> for VerdictRule {
    fn from(rule: Rule) -> VerdictRule {
        match rule {
            Rule::NoEvidence => VerdictRule::NoEvidence,
            Rule::Quorum => VerdictRule::Quorum,
            Rule::FewEdges => VerdictRule::FewEdges,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_routing::RemoteVerdict;

    #[test]
    fn an_increment_comes_back_from_its_cell() {
        let mut increment = Increment { ok: 7, failed: [1, 2, 3, 4, 5, 6], rate_limited: 8, probe_ok: 1, ..Increment::default() };
        increment.first_token.record(412.0);
        increment.speed.record(77.0);
        assert_eq!(ReportCell::of(EndpointId(5), &increment, 3).increment(), Ok(increment));
        let foreign = ReportCell { speed: vec![9, 9].into(), ..ReportCell::default() };
        assert!(foreign.increment().is_err());
    }

    #[test]
    fn an_open_breaker_is_told_by_its_age() {
        let (sent, heard) = (Timestamp(60_000_000), Timestamp(1_000_000_000));
        let opening = Opening { began: Timestamp(58_000_000), at: Timestamp(59_500_000), samples: 5.0, failed: 4.5, pointing_at_us: 1.0 };
        let cell = ReportCell::of(EndpointId(5), &Increment::default(), 0).with_opening(Some(opening), sent);
        let told = cell.open.unwrap();
        let expected = Opening { began: Timestamp(998_000_000), at: Timestamp(999_500_000), ..opening };
        assert_eq!(told.opening(heard), Some(expected));
        for wrong in [
            OpenBreaker { samples: f32::NAN, ..told },
            OpenBreaker { samples: 0.0, failed: 0.0, connect: 0.0, ..told },
            OpenBreaker { failed: 6.0, ..told },
            OpenBreaker { samples: f32::INFINITY, ..told },
            OpenBreaker { connect: -1.0, ..told },
        ] {
            assert_eq!(wrong.opening(heard), None, "{wrong:?}");
        }
    }

    #[test]
    fn two_views_told_as_one_lose_nothing() {
        let cell = |endpoint, samples| ViewCell { endpoint, samples, ..ViewCell::default() };
        let view = |version, full, cells| HealthView { epoch: 1, version, full, cells, acknowledged: version, ..HealthView::default() };
        let mut waiting = view(1, true, vec![cell(1, 10), cell(2, 10)]);
        waiting.absorb(view(2, false, vec![cell(2, 20), cell(3, 20)]));
        assert_eq!(waiting, view(2, true, vec![cell(1, 10), cell(2, 20), cell(3, 20)]));
        waiting.absorb(view(5, true, vec![cell(9, 1)]));
        assert_eq!(waiting, view(5, true, vec![cell(9, 1)]));
    }

    #[test]
    fn a_verdict_of_a_newer_build_degrades() {
        assert_eq!(region_verdict(99), RegionVerdict::Degraded);
        let cell = ViewCell { verdict: 99, ..ViewCell::default() };
        assert_eq!(cell.evidence(Timestamp(1)).verdict, RemoteVerdict::Degraded);
    }
}
