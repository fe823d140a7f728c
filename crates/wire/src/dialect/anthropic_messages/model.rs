//! What follows from a model's name: the API changed with the generations, and refuses what a generation does not know.

use crate::reasoning::Effort;

/// Major and minor version of a Claude model; `None` for the models of vendors that copied the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Generation(Option<(u8, u8)>);

/// How a model is told to think.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ThinkingStyle {
    /// It cannot.
    None,
    /// A token budget.
    Budget,
    /// An effort, or still a budget.
    EffortOrBudget,
    /// An effort only.
    Effort,
}

impl Generation {
    /// Reads the version out of names such as `claude-3-7-sonnet-20250219`, `claude-opus-4.6` or
    /// `anthropic.claude-sonnet-4-5-v1:0`: the first number of at most two digits after `claude`, and the one right
    /// after it. Longer numbers are dates.
    pub(super) fn of(model: &str) -> Generation {
        let Some((_, rest)) = model.split_once("claude") else {
            return Generation(None);
        };
        let mut segments = rest.split(['-', '.', '@', ':']).map(|segment| if segment.len() <= 2 { segment.parse().ok() } else { None });
        let Some(major) = segments.by_ref().flatten().next() else {
            return Generation(None);
        };
        let minor = segments.next().flatten().unwrap_or(0);
        Generation(Some((major, minor)))
    }

    /// How it is told to think. Copies of the API follow its first form.
    pub(super) fn thinking(self) -> ThinkingStyle {
        match self.0 {
            None => ThinkingStyle::Budget,
            Some(version) if version < (3, 7) => ThinkingStyle::None,
            Some(version) if version < (4, 6) => ThinkingStyle::Budget,
            Some((4, 6)) => ThinkingStyle::EffortOrBudget,
            Some(_) => ThinkingStyle::Effort,
        }
    }

    /// The effort names it knows.
    pub(super) fn efforts(self) -> &'static [Effort] {
        match self.0 {
            Some((4, 6)) => &[Effort::Low, Effort::Medium, Effort::High, Effort::Max],
            _ => &[Effort::Low, Effort::Medium, Effort::High, Effort::Xhigh, Effort::Max],
        }
    }

    /// Whether it has an effort setting at all.
    pub(super) fn takes_effort(self) -> bool {
        matches!(self.thinking(), ThinkingStyle::EffortOrBudget | ThinkingStyle::Effort)
    }

    /// Whether it can think without showing what; earlier models and copies of the API always show it.
    pub(super) fn can_omit_thoughts(self) -> bool {
        self.0.is_some_and(|version| version >= (4, 0))
    }

    /// Whether temperature, `top_p` and `top_k` are answered with 400.
    pub(super) fn refuses_sampling(self) -> bool {
        self.0.is_some_and(|version| version >= (4, 7))
    }

    /// Whether temperature and `top_p` exclude each other.
    pub(super) fn wants_one_sampler(self) -> bool {
        self.0.is_some_and(|version| version >= (4, 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_every_spelling() {
        for (name, version) in [
            ("claude-3-haiku-20240307", Some((3, 0))),
            ("claude-3-7-sonnet-20250219", Some((3, 7))),
            ("claude-sonnet-4-20250514", Some((4, 0))),
            ("claude-opus-4-1-20250805", Some((4, 1))),
            ("claude-opus-4.6", Some((4, 6))),
            ("eu.anthropic.claude-sonnet-4-5-20250929-v1:0", Some((4, 5))),
            ("claude-opus-5", Some((5, 0))),
            ("deepseek-chat", None),
            ("claude-instant", None),
        ] {
            assert_eq!(Generation::of(name), Generation(version), "{name}");
        }
    }

    #[test]
    fn thinking_follows_the_generation() {
        assert_eq!(Generation::of("claude-3-5-haiku").thinking(), ThinkingStyle::None);
        assert_eq!(Generation::of("claude-sonnet-4-5").thinking(), ThinkingStyle::Budget);
        assert_eq!(Generation::of("claude-sonnet-4-6").thinking(), ThinkingStyle::EffortOrBudget);
        assert_eq!(Generation::of("claude-opus-4-7").thinking(), ThinkingStyle::Effort);
        assert_eq!(Generation::of("MiniMax-M2").thinking(), ThinkingStyle::Budget);
    }
}
