//! Shares of limits: between messages and the quota crate's types.

use thiserror::Error;
use tidegate_quota::{Assign, Dimension, LimitName, Period, Scope, ShareReport};

use crate::v1;

/// A reference that names no limit of this version.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{what} `{word}` is unknown to this version")]
pub struct LimitRefError {
    what: &'static str,
    word: String,
}

/// The limit that a reference names.
///
/// # Errors
/// A word that this version does not know.
pub fn limit_name(wire: &v1::LimitRef) -> Result<LimitName, LimitRefError> {
    let unknown = |what, word: &str| LimitRefError { what, word: word.to_owned() };
    let dimension = Dimension::from_word(&wire.dimension).ok_or_else(|| unknown("dimension", &wire.dimension))?;
    let text = |text: &str| (!text.is_empty()).then(|| text.into());
    let offset = i16::try_from(wire.utc_offset_minutes).map_err(|_| unknown("offset", &wire.utc_offset_minutes.to_string()))?;
    let period = dimension.window().map(|window| Period {
        start: wire.period_start_us,
        end: wire.period_end_us,
        window,
        utc_offset_minutes: offset,
    });
    Ok(LimitName {
        scope: Scope::from_word(&wire.scope).ok_or_else(|| unknown("scope", &wire.scope))?,
        owner: wire.owner.as_str().into(),
        dimension,
        model: text(&wire.model),
        provider: text(&wire.provider),
        period,
    })
}

/// The reference to a limit.
#[must_use]
pub fn limit_ref(name: &LimitName) -> v1::LimitRef {
    let text = |text: &Option<std::sync::Arc<str>>| text.as_deref().unwrap_or_default().to_owned();
    v1::LimitRef {
        scope: name.scope.as_str().to_owned(),
        owner: name.owner.to_string(),
        dimension: name.dimension.as_str().to_owned(),
        model: text(&name.model),
        provider: text(&name.provider),
        period_start_us: name.period.map_or(0, |period| period.start),
        period_end_us: name.period.map_or(0, |period| period.end),
        utc_offset_minutes: name.period.map_or(0, |period| period.utc_offset_minutes.into()),
    }
}

impl v1::ShareReport {
    /// A report as a message.
    #[must_use]
    pub fn of(name: &LimitName, report: &ShareReport) -> Self {
        Self {
            limit: Some(limit_ref(name)),
            id: report.id,
            holding: report.holding,
            amount: report.amount,
            left_us: report.left,
            demand: report.demand,
            spent: report.spent,
            wanted: report.wanted,
        }
    }

    /// Everything but the name.
    #[must_use]
    pub fn report(&self) -> ShareReport {
        ShareReport {
            id: self.id,
            holding: self.holding,
            amount: self.amount,
            left: self.left_us,
            demand: self.demand,
            spent: self.spent,
            wanted: self.wanted,
        }
    }
}

impl From<Assign> for v1::ShareAssign {
    fn from(assign: Assign) -> Self {
        let Assign { report, sequence, amount, floor, lease, left } = assign;
        Self { report, sequence, amount, floor, lease_us: lease, left }
    }
}

impl From<v1::ShareAssign> for Assign {
    fn from(wire: v1::ShareAssign) -> Self {
        let v1::ShareAssign { report, sequence, amount, floor, lease_us, left } = wire;
        Self { report, sequence, amount, floor, lease: lease_us, left }
    }
}

#[cfg(test)]
mod tests {
    use tidegate_quota::Window;

    use super::*;

    #[test]
    fn a_reference_names_the_limit_that_it_was_made_of() {
        let rate = LimitName {
            scope: Scope::Key,
            owner: "a:b@c".into(),
            dimension: Dimension::Concurrent,
            model: Some("openai/gpt-5".into()),
            provider: None,
            period: None,
        };
        let period = Period::containing(1_795_824_000_000_000, Window::Month, -120);
        let budget = LimitName { dimension: Dimension::Spend(Window::Month), period: Some(period), ..rate.clone() };
        for name in [rate, budget] {
            assert_eq!(limit_name(&limit_ref(&name)), Ok(name));
        }
        let strange = v1::LimitRef { scope: "galaxy".into(), dimension: "rpm".into(), ..v1::LimitRef::default() };
        assert_eq!(limit_name(&strange).unwrap_err().to_string(), "scope `galaxy` is unknown to this version");
    }
}
