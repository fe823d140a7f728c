//! A positive number in one byte.

/// An 8-bit logarithm: 0 means unknown, 1 to 255 are 0.1 to 600,000 in steps of 6.3 %, so a value is off by at most 3.2 %. What a region tells
/// the others about its latency has to fit 32 bytes per endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Log8(pub u8);

impl Log8 {
    /// The nearest step; unknown stays unknown.
    #[must_use]
    pub fn of(value: Option<f64>) -> Log8 {
        let Some(value) = value else { return Log8(0) };
        let steps = ((value / LOWEST).max(1.0).ln() / STEP).round().min(254.0);
        Log8(steps as u8 + 1)
    }

    /// The value of the step.
    #[must_use]
    pub fn value(self) -> Option<f64> {
        (self.0 > 0).then(|| LOWEST * (f64::from(self.0 - 1) * STEP).exp())
    }
}

const LOWEST: f64 = 0.1;
/// ln(6,000,000) / 254.
const STEP: f64 = 0.061_445_944_988_946_18;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_survives_within_a_half_step() {
        assert_eq!(Log8::of(None).value(), None);
        for value in [0.1, 1.0, 47.0, 850.0, 30_000.0, 600_000.0] {
            let back = Log8::of(Some(value)).value().unwrap();
            assert!((back / value - 1.0).abs() < 0.032, "{back} for {value}");
        }
        assert_eq!(Log8::of(Some(f64::NAN)).0, 1);
        assert_eq!(Log8::of(Some(1e12)).0, 255);
    }
}
