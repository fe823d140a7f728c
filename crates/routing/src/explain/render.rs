//! A decision as text, for the operator who asks why.

use std::fmt::{self, Write};
use std::time::Duration;

use super::{Choice, Considered, Decision, Gate, Pick};
use crate::{EndpointIndex, Snapshot, Timestamp};

pub(super) fn render(decision: &Decision, snapshot: &Snapshot) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = Text { decision, snapshot }.write(&mut text);
    text
}

struct Text<'a> {
    decision: &'a Decision,
    snapshot: &'a Snapshot,
}

impl Text<'_> {
    fn write(&self, out: &mut String) -> fmt::Result {
        let decision = self.decision;
        let models: Vec<&str> =
            decision.models.iter().map(|model| self.snapshot.models().get(model.get()).map_or("?", |model| model.slug())).collect();
        writeln!(out, "model     {}", models.join(", then "))?;
        writeln!(out, "strategy  {}", decision.strategy)?;
        writeln!(out, "snapshot  revision {}, seed {}", decision.revision, decision.seed)?;
        if decision.revision != self.snapshot.revision() {
            writeln!(out, "          (names below are of revision {})", self.snapshot.revision())?;
        }
        if let Some(sticky) = decision.sticky {
            writeln!(out, "sticky    {}", self.name(sticky))?;
        }
        for excluded in &decision.excluded {
            writeln!(out, "excluded  {}: {}", self.name(excluded.endpoint), excluded.reason.label())?;
        }
        for choice in &decision.attempts {
            self.choice(choice, out)?;
        }
        match decision.stopped {
            Some(reason) => writeln!(out, "stopped   {}", reason.as_str()),
            None => Ok(()),
        }
    }

    fn choice(&self, choice: &Choice, out: &mut String) -> fmt::Result {
        write!(out, "choice {}  ", choice.number)?;
        match choice.chosen {
            None => write!(out, "nothing left")?,
            Some(chosen) => write!(out, "{} {}", self.name(chosen.endpoint), reason(chosen.pick))?,
        }
        if choice.hedge {
            write!(out, ", as a hedge")?;
        }
        if choice.panicked {
            write!(out, ", ejections ignored because too much was ejected")?;
        }
        match choice.end {
            Some(end) => writeln!(out, " -> {}", end.label())?,
            None => writeln!(out)?,
        }
        for considered in choice.considered(self.decision) {
            self.considered(choice, considered, out)?;
        }
        Ok(())
    }

    fn considered(&self, choice: &Choice, one: &Considered, out: &mut String) -> fmt::Result {
        let mark = if choice.chosen.is_some_and(|chosen| chosen.endpoint == one.endpoint) { '>' } else { ' ' };
        write!(out, "  {mark} {:<32} ", self.name(one.endpoint))?;
        write!(out, "weight {:<9.3} cost {:>8.2} s  price {:>9.6} USD", one.weight, one.cost, one.price / 1e12)?;
        write!(out, "  success {:>5.1} % of {:.0}", one.success * 100.0, one.samples)?;
        match one.first_token {
            Some(seconds) => write!(out, "  first token {seconds:.3} s")?,
            None => write!(out, "  first token ?")?,
        }
        match one.speed {
            Some(speed) => write!(out, "  {speed:.0} tokens/s")?,
            None => write!(out, "  ? tokens/s")?,
        }
        write!(out, "  {}/{} in flight", one.in_flight, one.limit)?;
        if one.degraded {
            write!(out, "  degraded by others")?;
        }
        if one.ramp < 1.0 {
            write!(out, "  ramp {:.0} %", one.ramp * 100.0)?;
        }
        if one.remaining < 1.0 {
            write!(out, "  {:.0} % of rate limit left", one.remaining * 100.0)?;
        }
        gate(one.gate, choice.at, out)?;
        writeln!(out)
    }

    fn name(&self, endpoint: EndpointIndex) -> &str {
        self.snapshot.endpoints().get(endpoint.get()).map_or("?", |endpoint| &endpoint.name)
    }
}

fn reason(pick: Pick) -> &'static str {
    match pick {
        Pick::Strategy => "by strategy",
        Pick::Sticky => "because the conversation was there",
        Pick::OtherCredential => "again, with another credential",
        Pick::Probe => "as a probe",
        Pick::Exploration => "to learn about it",
    }
}

fn gate(gate: Gate, at: Timestamp, out: &mut String) -> fmt::Result {
    let left = |until: Timestamp| Duration::from_secs((until - at).as_secs_f64().ceil() as u64);
    match gate {
        Gate::Open => Ok(()),
        Gate::HalfOpen => write!(out, "  [half-open]"),
        Gate::Tried => write!(out, "  [tried]"),
        Gate::ModelClosed => write!(out, "  [model cannot serve this request]"),
        Gate::NoFallback => write!(out, "  [fallbacks not allowed]"),
        Gate::Blocked { until, reason } => {
            write!(out, "  [blocked for {:?}: {reason:?}]", left(until))
        }
        Gate::CredentialsTried => write!(out, "  [every credential tried]"),
        Gate::BreakerOpen { until } => write!(out, "  [breaker open for {:?}]", left(until)),
        Gate::Probing => write!(out, "  [being probed]"),
        Gate::BackingOff { until } => write!(out, "  [asked for rest, {:?} left]", left(until)),
        Gate::RemoteEjected => write!(out, "  [ejected by the region]"),
        Gate::Full => write!(out, "  [full]"),
        Gate::Crowded => write!(out, "  [crowded]"),
        Gate::Late => write!(out, "  [too slow for the deadline]"),
    }
}
