//! What follows from a model's name: how it is told to think.

use crate::{
    canonical::Request,
    reasoning::{Bounds, Effort, Thinking},
};

/// Output limit from which a budget is derived when neither caller nor catalogue knows one; that of the 2.5 models.
const DEFAULT_MAX_TOKENS: u32 = 65_536;

/// A model as far as its name tells.
#[derive(Clone, Copy, Debug)]
pub(super) struct Model<'a> {
    name: &'a str,
    /// Major and minor version; `None` for names such as `gemini-flash-latest`, and for other families.
    version: Option<(u8, u8)>,
}

/// The `thinkingConfig` object.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ThinkingConfig {
    pub(super) budget: Option<u32>,
    pub(super) level: Option<Effort>,
    pub(super) include_thoughts: bool,
}

/// How a model is told to think.
#[derive(Clone, Copy, Debug)]
enum Style {
    /// It cannot be told.
    None,
    /// A token budget; `off` is the closest to none that it accepts.
    Budget { bounds: Bounds, off: u32 },
    /// A level, from the lowest.
    Level(&'static [Effort]),
}

impl<'a> Model<'a> {
    /// Reads the version out of names such as `gemini-2.5-pro` or `models/gemini-3-pro-preview`.
    pub(super) fn of(name: &'a str) -> Model<'a> {
        let version = name.split_once("gemini-").and_then(|(_, rest)| {
            let number = rest.split('-').next()?;
            let (major, minor) = number.split_once('.').unwrap_or((number, "0"));
            Some((major.parse().ok()?, minor.parse().ok()?))
        });
        Model { name, version }
    }

    /// Whether functions go together with search and with a response schema, and calls need their signature.
    pub(super) fn is_third_generation(self) -> bool {
        self.version.is_some_and(|version| version >= (3, 0))
    }

    fn style(self) -> Style {
        if ["image", "tts", "audio"].iter().any(|kind| self.name.contains(kind)) {
            return Style::None;
        }
        match self.version {
            Some(version) if version < (2, 5) => Style::None,
            Some(version) if version >= (3, 0) => Style::Level(if self.name.contains("flash") {
                &[Effort::Minimal, Effort::Low, Effort::Medium, Effort::High]
            } else if version == (3, 0) {
                &[Effort::Low, Effort::High]
            } else {
                &[Effort::Low, Effort::Medium, Effort::High]
            }),
            Some(_) if self.name.contains("pro") => Style::Budget { bounds: Bounds { least: 128, most: 32_768 }, off: 128 },
            Some(_) if self.name.contains("lite") => Style::Budget { bounds: Bounds { least: 512, most: 24_576 }, off: 0 },
            // Newer models accept budgets too, so an unknown version is told in tokens.
            Some(_) | None => Style::Budget { bounds: Bounds { least: 1, most: 24_576 }, off: 0 },
        }
    }

    /// Whether it thinks unless told not to, and its thoughts can be asked for without further words.
    fn thinks_unasked(self) -> bool {
        self.version.is_some() && !self.name.contains("lite") && !matches!(self.style(), Style::None)
    }

    /// The configuration for what the caller wants; `Err` when thoughts were asked for in vain. `able` is false where
    /// the endpoint does not reason.
    pub(super) fn thinking(self, request: &Request<'_>, wish: Thinking, cap: Option<u32>, able: bool) -> Result<ThinkingConfig, Unable> {
        let style = if able { self.style() } else { Style::None };
        let max_tokens = request.max_output.or(cap).unwrap_or(DEFAULT_MAX_TOKENS);
        let visible = !request.hides_reasoning();
        let budget = |budget| ThinkingConfig { budget: Some(budget), level: None, include_thoughts: visible };
        match (wish, style) {
            (Thinking::Unset | Thinking::Off, Style::None) => Ok(ThinkingConfig::default()),
            (Thinking::Effort(_) | Thinking::Budget(_), Style::None) => Err(Unable),
            (Thinking::Unset, Style::Budget { .. } | Style::Level(_)) => {
                Ok(ThinkingConfig { include_thoughts: visible && self.thinks_unasked(), ..ThinkingConfig::default() })
            }
            (Thinking::Off, Style::Budget { off, .. }) => Ok(ThinkingConfig { budget: Some(off), ..ThinkingConfig::default() }),
            (Thinking::Off, Style::Level(levels)) => Ok(ThinkingConfig { level: levels.first().copied(), ..ThinkingConfig::default() }),
            (Thinking::Effort(effort), Style::Budget { bounds, .. }) => Ok(budget(effort.budget(max_tokens, bounds))),
            (Thinking::Effort(effort), Style::Level(levels)) => {
                Ok(ThinkingConfig { budget: None, level: effort.nearest(levels), include_thoughts: visible })
            }
            (Thinking::Budget(tokens), Style::Budget { bounds, .. }) => Ok(budget(bounds.clamp(tokens))),
            // Still understood beside levels, and closer to what was asked than a level would be.
            (Thinking::Budget(tokens), Style::Level(_)) => Ok(budget(tokens)),
        }
    }
}

/// The model does not think.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unable;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::{ChatCall, ReadLimits};

    fn thinking(model: &str, extra: &str) -> Result<ThinkingConfig, Unable> {
        let body = format!(r#"{{"messages":[{{"role":"user","content":"x"}}],"max_tokens":10000{extra}}}"#);
        let call = ChatCall::read(body.into(), &ReadLimits::default()).unwrap();
        let request = Request::parse(&call).unwrap();
        Model::of(model).thinking(&request, request.thinking().unwrap(), None, true)
    }

    fn budget(tokens: u32) -> Result<ThinkingConfig, Unable> {
        Ok(ThinkingConfig { budget: Some(tokens), level: None, include_thoughts: true })
    }

    fn level(effort: Effort) -> Result<ThinkingConfig, Unable> {
        Ok(ThinkingConfig { budget: None, level: Some(effort), include_thoughts: true })
    }

    #[test]
    fn older_thinkers_get_a_budget_in_their_bounds() {
        assert_eq!(thinking("gemini-2.5-pro", r#","reasoning":{"effort":"high"}"#), budget(8000));
        assert_eq!(thinking("gemini-2.5-pro", r#","reasoning":{"max_tokens":99999}"#), budget(32_768));
        assert_eq!(thinking("gemini-2.5-flash-lite", r#","reasoning":{"max_tokens":5}"#), budget(512));
    }

    #[test]
    fn newer_thinkers_get_the_nearest_level() {
        assert_eq!(thinking("gemini-3-pro-preview", r#","reasoning":{"effort":"medium"}"#), level(Effort::High));
        assert_eq!(thinking("gemini-3-flash", r#","reasoning":{"effort":"minimal"}"#), level(Effort::Minimal));
        assert_eq!(thinking("gemini-3.1-pro", r#","reasoning":{"effort":"xhigh"}"#), level(Effort::High));
        assert_eq!(thinking("gemini-3-pro", r#","reasoning":{"max_tokens":2000}"#), budget(2000));
    }

    #[test]
    fn off_is_the_least_the_model_accepts() {
        let off = r#","reasoning":{"effort":"none"}"#;
        let config = |budget, level| Ok(ThinkingConfig { budget, level, include_thoughts: false });
        assert_eq!(thinking("gemini-2.5-flash", off), config(Some(0), None));
        assert_eq!(thinking("gemini-2.5-pro", off), config(Some(128), None));
        assert_eq!(thinking("gemini-3-pro", off), config(None, Some(Effort::Low)));
    }

    #[test]
    fn what_cannot_think_says_so() {
        assert_eq!(thinking("gemini-2.0-flash", r#","reasoning":{"enabled":true}"#), Err(Unable));
        assert_eq!(thinking("gemini-2.0-flash", ""), Ok(ThinkingConfig::default()));
    }
}
