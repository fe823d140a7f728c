//! How hard a model is asked to think: effort names, token budgets, and the bridge between the two.
//!
//! Callers speak in efforts (`low`, `high`, ...) or in tokens; upstreams accept one or the other and
//! rarely all of the names. This file holds the tables and nothing about any one dialect; a dialect asks
//! it for a budget within its bounds or for the nearest name on its own list.

/// One step of the effort scale, in ascending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Effort {
    /// No thinking at all.
    None,
    /// The least that still is thinking.
    Minimal,
    /// Short deliberation.
    Low,
    /// What `enabled: true` means.
    Medium,
    /// Long deliberation.
    High,
    /// Longer still; the same token share as `Max`.
    Xhigh,
    /// As much as the upstream allows.
    Max,
}

impl Effort {
    /// Every step, lowest first.
    pub(crate) const ALL: [Effort; 7] =
        [Effort::None, Effort::Minimal, Effort::Low, Effort::Medium, Effort::High, Effort::Xhigh, Effort::Max];

    /// The step that a caller named, if it is a name we know.
    pub(crate) fn parse(name: &str) -> Option<Effort> {
        Effort::ALL.into_iter().find(|effort| effort.as_str() == name)
    }

    /// The name on the wire.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Effort::None => "none",
            Effort::Minimal => "minimal",
            Effort::Low => "low",
            Effort::Medium => "medium",
            Effort::High => "high",
            Effort::Xhigh => "xhigh",
            Effort::Max => "max",
        }
    }

    /// Share of the output limit that thinking may use, in percent.
    fn percent(self) -> u64 {
        match self {
            Effort::None => 0,
            Effort::Minimal => 10,
            Effort::Low => 20,
            Effort::Medium => 50,
            Effort::High => 80,
            Effort::Xhigh | Effort::Max => 95,
        }
    }

    /// Thinking tokens out of an output limit of `max_tokens`, held within `bounds` (tokens, inclusive).
    pub(crate) fn budget(self, max_tokens: u32, bounds: Bounds) -> u32 {
        let share = u64::from(max_tokens) * self.percent() / 100;
        bounds.clamp(u32::try_from(share).unwrap_or(u32::MAX))
    }

    /// The lowest effort whose share of `max_tokens` covers `budget`: for an upstream that knows only names.
    pub(crate) fn covering(budget: u32, max_tokens: u32) -> Effort {
        let wanted = u64::from(budget) * 100;
        Effort::ALL.into_iter().find(|effort| u64::from(max_tokens) * effort.percent() >= wanted).unwrap_or(Effort::Max)
    }

    /// The member of `supported` with the fewest steps between; of two equally near, the higher, because a
    /// caller notices too little thinking sooner than too much. `None` when the list is empty.
    pub(crate) fn nearest(self, supported: &[Effort]) -> Option<Effort> {
        let steps = |other: Effort| (other as i8 - self as i8).unsigned_abs();
        supported.iter().copied().min_by_key(|&other| (steps(other), std::cmp::Reverse(other)))
    }
}

/// The least and the most thinking tokens an upstream accepts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Fewest tokens, inclusive.
    pub(crate) least: u32,
    /// Most tokens, inclusive; never below `least`.
    pub(crate) most: u32,
}

impl Bounds {
    /// `tokens`, moved to the nearer bound when outside.
    pub(crate) fn clamp(self, tokens: u32) -> u32 {
        tokens.max(self.least).min(self.most)
    }
}

/// What the caller asked for, once the several spellings are folded together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Thinking {
    /// Nothing was said: the upstream's default applies.
    Unset,
    /// Explicitly none.
    Off,
    /// By name.
    Effort(Effort),
    /// By number of tokens.
    Budget(u32),
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANTHROPIC: Bounds = Bounds { least: 1024, most: 128_000 };

    #[test]
    fn budget_is_the_effort_share_within_bounds() {
        assert_eq!(Effort::High.budget(10_000, ANTHROPIC), 8_000);
        assert_eq!(Effort::Minimal.budget(4_000, ANTHROPIC), 1_024);
        assert_eq!(Effort::Max.budget(1_000_000, ANTHROPIC), 128_000);
        assert_eq!(Effort::Xhigh.budget(10_000, ANTHROPIC), Effort::Max.budget(10_000, ANTHROPIC));
        assert_eq!(Effort::Max.budget(u32::MAX, Bounds { least: 0, most: u32::MAX }), 4_080_218_930);
    }

    #[test]
    fn budget_maps_back_to_the_lowest_covering_effort() {
        assert_eq!(Effort::covering(0, 10_000), Effort::None);
        assert_eq!(Effort::covering(1_000, 10_000), Effort::Minimal);
        assert_eq!(Effort::covering(5_001, 10_000), Effort::High);
        assert_eq!(Effort::covering(20_000, 10_000), Effort::Max);
    }

    #[test]
    fn unsupported_effort_moves_to_the_nearest_and_ties_go_up() {
        let levels = [Effort::Low, Effort::High];
        assert_eq!(Effort::Medium.nearest(&levels), Some(Effort::High));
        assert_eq!(Effort::Minimal.nearest(&levels), Some(Effort::Low));
        assert_eq!(Effort::Max.nearest(&levels), Some(Effort::High));
        assert_eq!(Effort::Max.nearest(&[]), None);
    }

    #[test]
    fn every_name_parses_back() {
        for effort in Effort::ALL {
            assert_eq!(Effort::parse(effort.as_str()), Some(effort));
        }
        assert_eq!(Effort::parse("extreme"), None);
    }
}
