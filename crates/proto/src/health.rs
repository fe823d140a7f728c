//! Health between its messages and what routing makes of them.

use tidegate_routing::{
    Elsewhere, EndpointId, FailureClass, Histogram, HistogramError, Increment, RegionEvidence, RegionVerdict, RemoteEvidence, Rule,
    Timestamp, combine,
};

use crate::v1::{HealthView, ReportCell, Verdict, VerdictRule, ViewCell};

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
        }
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
