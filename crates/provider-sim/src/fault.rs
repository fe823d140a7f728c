//! What can go wrong at a provider, how often and when.

use std::time::Duration;

/// One way to fail.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// An error status with the dialect's own error body, before anything else.
    Status {
        /// Status, such as 503 or 529.
        status: u16,
        /// Value of `retry-after`, whole seconds.
        retry_after: Option<Duration>,
    },
    /// Nobody listens: connections are refused, open ones are reset at their next request.
    Refuse,
    /// The connection is reset instead of an answer.
    Reset,
    /// The request is taken and never answered.
    Hang,
    /// The stream falls silent after so many events, and stays open.
    Stall {
        /// Events sent before.
        after: usize,
    },
    /// The connection breaks after so many events, or in the middle of an answer that is not streamed.
    Cut {
        /// Events sent before.
        after: usize,
    },
    /// An error event of the dialect after so many events, then the end. An answer that is not streamed becomes a 500.
    ErrorEvent {
        /// Events sent before.
        after: usize,
    },
    /// JSON that breaks off: the whole answer, or the first event of a stream.
    Malformed,
    /// A regular answer without any content.
    Empty,
    /// Everything takes so many times longer. Adds to other faults.
    Slow {
        /// At least 1.
        factor: f64,
    },
}

/// A fault that is in force for some requests.
#[derive(Debug, Clone, PartialEq)]
pub struct FaultRule {
    /// What happens.
    pub fault: Fault,
    /// Share of the requests that it happens to, 0 to 1. [`Fault::Refuse`] happens to all.
    pub ratio: f64,
    /// When it happens.
    pub schedule: Schedule,
    /// Only to requests for this model.
    pub model: Option<String>,
}

impl FaultRule {
    /// To every request, always.
    pub fn always(fault: Fault) -> Self {
        Self { fault, ratio: 1.0, schedule: Schedule::Always, model: None }
    }

    /// Only to a share of the requests, 0 to 1.
    #[must_use]
    pub fn with_ratio(mut self, ratio: f64) -> Self {
        self.ratio = ratio;
        self
    }

    /// Only at times.
    #[must_use]
    pub fn with_schedule(mut self, schedule: Schedule) -> Self {
        self.schedule = schedule;
        self
    }

    /// Only for one model.
    #[must_use]
    pub fn for_model(mut self, model: impl Into<String>) -> Self {
        self.model = Some(model.into());
        self
    }

    fn applies(&self, since_start: Duration, model: &str) -> bool {
        self.schedule.is_down(since_start) && self.model.as_deref().is_none_or(|only| only == model)
    }
}

/// When a fault is in force, counted from the start of the simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schedule {
    /// Always.
    Always,
    /// For a while, again and again.
    Every {
        /// Length of a period.
        period: Duration,
        /// How long the fault lasts within each.
        down: Duration,
        /// When the first period begins; the fault is not in force before.
        phase: Duration,
    },
}

impl Schedule {
    /// Whether the fault is in force.
    pub fn is_down(&self, since_start: Duration) -> bool {
        match *self {
            Self::Always => true,
            Self::Every { period, down, phase } => match since_start.checked_sub(phase) {
                None => false,
                Some(_) if period.is_zero() => !down.is_zero(),
                Some(elapsed) => within(elapsed, period) < down,
            },
        }
    }

    /// When that will be otherwise, counted from the start; `None` if never.
    pub(crate) fn next_change(&self, since_start: Duration) -> Option<Duration> {
        let Self::Every { period, down, phase } = *self else {
            return None;
        };
        let Some(elapsed) = since_start.checked_sub(phase) else {
            return Some(phase);
        };
        if period.is_zero() {
            return None;
        }
        let within = within(elapsed, period);
        let begun = since_start - within;
        Some(begun + if within < down.min(period) { down.min(period) } else { period })
    }
}

fn within(elapsed: Duration, period: Duration) -> Duration {
    let nanos = elapsed.as_nanos() % period.as_nanos();
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// What the rules mean for one request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Misfortune {
    /// The first rule that struck, slowness aside.
    pub(crate) fault: Option<Fault>,
    /// Product of all slowness, at least 1.
    pub(crate) slowness: f64,
}

impl Misfortune {
    pub(crate) fn draw(rules: &[FaultRule], since_start: Duration, model: &str, random: &mut fastrand::Rng) -> Self {
        let mut drawn = Self { fault: None, slowness: 1.0 };
        for rule in rules.iter().filter(|rule| rule.applies(since_start, model)) {
            if random.f64() >= rule.ratio {
                continue;
            }
            drawn.add(&rule.fault);
        }
        drawn
    }

    pub(crate) fn add(&mut self, fault: &Fault) {
        match fault {
            Fault::Slow { factor } => self.slowness *= factor.max(1.0),
            other => self.fault = self.fault.take().or_else(|| Some(other.clone())),
        }
    }
}

/// Whether nobody should be listening.
pub(crate) fn refuses(rules: &[FaultRule], since_start: Duration) -> bool {
    rules.iter().any(|rule| rule.fault == Fault::Refuse && rule.schedule.is_down(since_start))
}

/// When [`refuses`] may change, counted from the start.
pub(crate) fn next_refusal_change(rules: &[FaultRule], since_start: Duration) -> Option<Duration> {
    rules.iter().filter(|rule| rule.fault == Fault::Refuse).filter_map(|rule| rule.schedule.next_change(since_start)).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    const TIDE: Schedule = Schedule::Every { period: seconds(25), down: seconds(8), phase: seconds(10) };

    #[test]
    fn a_schedule_comes_and_goes() {
        let down: Vec<u64> = (0..70).filter(|&at| TIDE.is_down(seconds(at))).collect();
        let expected: Vec<u64> = (10..18).chain(35..43).chain(60..68).collect();
        assert_eq!(down, expected);
    }

    #[test]
    fn changes_are_foretold() {
        for at in 0..100 {
            let now = seconds(at);
            let change = TIDE.next_change(now).unwrap();
            assert!(change > now);
            assert_ne!(TIDE.is_down(change), TIDE.is_down(now), "at {at}");
            assert_eq!(TIDE.is_down(change - Duration::from_millis(1)), TIDE.is_down(now));
        }
        assert_eq!(Schedule::Always.next_change(seconds(1)), None);
    }

    #[test]
    fn the_ratio_is_kept_and_slowness_adds_up() {
        let broken = FaultRule::always(Fault::Hang).with_ratio(0.3);
        let slow = FaultRule::always(Fault::Slow { factor: 3.0 });
        let rules = [slow.clone(), broken, slow];
        let mut random = fastrand::Rng::with_seed(9);
        let mut struck = 0;
        for _ in 0..10_000 {
            let drawn = Misfortune::draw(&rules, seconds(0), "m", &mut random);
            assert_eq!(drawn.slowness, 9.0);
            struck += usize::from(drawn.fault == Some(Fault::Hang));
        }
        assert!((2_800..3_200).contains(&struck), "{struck}");
    }

    #[test]
    fn a_rule_for_one_model_spares_the_others() {
        let rules = [FaultRule::always(Fault::Empty).for_model("a")];
        let mut random = fastrand::Rng::with_seed(1);
        assert_eq!(Misfortune::draw(&rules, seconds(0), "b", &mut random).fault, None);
        assert_eq!(Misfortune::draw(&rules, seconds(0), "a", &mut random).fault, Some(Fault::Empty));
    }
}
