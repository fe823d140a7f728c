//! Turns the caller's wish to reason into `thinking`, `output_config.effort` and an output limit that goes with them.

use super::{
    REASONING_FORMAT,
    model::{Generation, ThinkingStyle},
};
use crate::{
    canonical::{Message, Request, Role},
    reasoning::{Bounds, Effort, Thinking},
};

/// What the API accepts as a budget; the output limit must be larger still.
const BUDGET: Bounds = Bounds { least: 1024, most: 128_000 };

/// Output limit when neither the caller nor the catalogue knows one; the API insists on a number. Every model since 3.5
/// writes this much.
const DEFAULT_MAX_TOKENS: u32 = 8192;

/// What to write.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) mode: Mode,
    pub(super) max_tokens: u32,
    pub(super) effort: Option<Effort>,
    /// The caller asked for thoughts and gets none.
    pub(super) dropped: bool,
}

/// The `thinking` object.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Not written: the model's default, which is none for budgets.
    Absent,
    /// `disabled`.
    Disabled,
    /// `enabled` with a budget in tokens.
    Enabled { budget: u32 },
    /// `adaptive`.
    Adaptive,
}

impl Plan {
    /// Whether thoughts will be produced on request.
    pub(super) fn thinks(&self) -> bool {
        matches!(self.mode, Mode::Enabled { .. } | Mode::Adaptive)
    }

    /// Decides. `able` is false where the endpoint does not reason, `forced` true where a tool must be called, which the
    /// API does not allow together with thinking; the forced tool wins, since callers rely on it for correctness.
    pub(super) fn new(
        request: &Request<'_>,
        thinking: Thinking,
        generation: Generation,
        cap: Option<u32>,
        able: bool,
        forced: bool,
    ) -> Plan {
        let stated = request.max_output.map(|stated| stated.min(cap.unwrap_or(u32::MAX)));
        let max_tokens = stated.or(cap).unwrap_or(DEFAULT_MAX_TOKENS);
        let plain = |mode, dropped| Plan { mode, max_tokens, effort: None, dropped };
        let style = if able { generation.thinking() } else { ThinkingStyle::None };
        let by_effort =
            |effort: Effort| Plan { mode: Mode::Adaptive, max_tokens, effort: effort.nearest(generation.efforts()), dropped: false };
        let by_budget = |budget: u32| {
            if !continues_thought(request) || is_prefilled(request) {
                return plain(Mode::Absent, true);
            }
            with_budget(BUDGET.clamp(budget), stated, cap)
        };
        match (thinking, style) {
            (Thinking::Unset, _) => plain(Mode::Absent, false),
            (Thinking::Off, ThinkingStyle::None | ThinkingStyle::Budget) => plain(Mode::Absent, false),
            (Thinking::Off, ThinkingStyle::EffortOrBudget | ThinkingStyle::Effort) => plain(Mode::Disabled, false),
            (Thinking::Effort(_) | Thinking::Budget(_), ThinkingStyle::None) => plain(Mode::Absent, true),
            (Thinking::Effort(_) | Thinking::Budget(_), _) if forced => plain(Mode::Absent, true),
            (Thinking::Effort(effort), ThinkingStyle::Budget) => by_budget(effort.budget(max_tokens, BUDGET)),
            (Thinking::Budget(budget), ThinkingStyle::Budget | ThinkingStyle::EffortOrBudget) => by_budget(budget),
            (Thinking::Effort(effort), ThinkingStyle::EffortOrBudget | ThinkingStyle::Effort) => by_effort(effort),
            (Thinking::Budget(budget), ThinkingStyle::Effort) => by_effort(Effort::covering(budget, max_tokens)),
        }
    }
}

/// Fits budget and output limit together. A limit the caller stated stands, and the budget shrinks below it; a limit that
/// leaves no room for the least budget means no thinking.
fn with_budget(budget: u32, stated: Option<u32>, cap: Option<u32>) -> Plan {
    let max_tokens = match (stated, cap) {
        (Some(stated), _) => stated,
        (None, Some(cap)) => cap,
        (None, None) => DEFAULT_MAX_TOKENS.max(budget.saturating_add(DEFAULT_MAX_TOKENS / 2)),
    };
    if max_tokens <= BUDGET.least {
        return Plan { mode: Mode::Absent, max_tokens, effort: None, dropped: true };
    }
    // The largest share that an effort gets: some room for the answer remains.
    let most = Effort::Max.budget(max_tokens, BUDGET);
    Plan { mode: Mode::Enabled { budget: budget.min(most) }, max_tokens, effort: None, dropped: false }
}

/// Whether the turn in progress may go on with thinking on. With a budget the API wants the turn to begin with the thought
/// that led to its tool calls; when the caller did not echo it, thinking must pause until the next turn.
fn continues_thought(request: &Request<'_>) -> bool {
    let mut calls = false;
    for message in request.messages.iter().rev() {
        match message.role {
            Role::User => break,
            Role::Assistant if has_thought(message) => return true,
            Role::Assistant => calls |= !message.tool_calls().is_empty(),
            Role::System | Role::Developer | Role::Tool | Role::Function => {}
        }
    }
    !calls
}

fn has_thought(message: &Message<'_>) -> bool {
    message.reasoning_details().iter().any(|detail| detail.is_of(REASONING_FORMAT) && (detail.signature.is_some() || detail.data.is_some()))
}

/// Whether the assistant's answer is already begun.
fn is_prefilled(request: &Request<'_>) -> bool {
    request.turns().last().is_some_and(|(_, last)| last.role == Role::Assistant)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::{ChatCall, ReadLimits};

    fn plan(body: &str, model: &str, cap: Option<u32>) -> Plan {
        let call = ChatCall::read(body.to_owned().into(), &ReadLimits::default()).unwrap();
        let request = Request::parse(&call).unwrap();
        let thinking = request.thinking().unwrap();
        Plan::new(&request, thinking, Generation::of(model), cap, true, false)
    }

    #[test]
    fn effort_becomes_a_budget_below_the_limit() {
        let body = r#"{"messages":[{"role":"user","content":"x"}],"max_tokens":10000,"reasoning":{"effort":"high"}}"#;
        let plan = plan(body, "claude-sonnet-4-5", None);
        assert_eq!((plan.mode, plan.max_tokens), (Mode::Enabled { budget: 8000 }, 10_000));
    }

    #[test]
    fn explicit_budget_shrinks_under_a_stated_limit_and_grows_a_default_one() {
        let stated = r#"{"messages":[{"role":"user","content":"x"}],"max_tokens":2000,"reasoning":{"max_tokens":4000}}"#;
        assert_eq!(plan(stated, "claude-sonnet-4-5", None).mode, Mode::Enabled { budget: 1900 });
        let open = r#"{"messages":[{"role":"user","content":"x"}],"reasoning":{"max_tokens":30000}}"#;
        let plan = plan(open, "claude-sonnet-4-5", None);
        assert_eq!((plan.mode, plan.max_tokens), (Mode::Enabled { budget: 30_000 }, 34_096));
    }

    #[test]
    fn no_room_for_the_least_budget_means_no_thinking() {
        let body = r#"{"messages":[{"role":"user","content":"x"}],"max_tokens":1024,"reasoning":{"effort":"low"}}"#;
        let plan = plan(body, "claude-sonnet-4-5", None);
        assert_eq!((plan.mode, plan.dropped), (Mode::Absent, true));
    }

    #[test]
    fn newer_models_think_by_effort_and_map_unknown_names() {
        let body = r#"{"messages":[{"role":"user","content":"x"}],"reasoning_effort":"minimal"}"#;
        let plan = plan(body, "claude-opus-4-7", Some(32_000));
        assert_eq!((plan.mode, plan.effort, plan.max_tokens), (Mode::Adaptive, Some(Effort::Low), 32_000));
    }

    #[test]
    fn tool_turn_without_its_thought_pauses_a_budget() {
        let body = r#"{"messages":[{"role":"user","content":"x"},
            {"role":"assistant","tool_calls":[{"id":"a","function":{"name":"f","arguments":"{}"}}]},
            {"role":"tool","tool_call_id":"a","content":"1"}],"max_tokens":9000,"reasoning":{"enabled":true}}"#;
        assert!(plan(body, "claude-sonnet-4-5", None).dropped);
        assert_eq!(plan(body, "claude-opus-4-7", None).mode, Mode::Adaptive);
    }
}
