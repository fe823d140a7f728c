//! How hard to think: from the gateway's several spellings to the one of the vendor.

use serde::Deserialize;
use smallvec::SmallVec;

use crate::{
    call::ChatCall,
    field::Field,
    provider::{Quirks, ReasoningStyle},
    reasoning::{Effort, Thinking},
};

/// Output limit assumed when a token budget must become an effort and the caller set no limit.
const ASSUMED_OUTPUT: u32 = 32_768;

/// What becomes of one of the spellings.
pub(super) enum Keep {
    /// The vendor reads it as it is.
    AsSent,
    /// [`translate`] writes all spellings as one member.
    Replaced,
    /// The vendor has no way to be told.
    Unknown,
}

/// The `reasoning` object, as far as a vendor can be told about it.
#[derive(Debug, Default, Deserialize)]
struct Wish {
    effort: Option<String>,
    max_tokens: Option<u32>,
    enabled: Option<bool>,
}

pub(super) fn keep(call: &ChatCall, field: Field, quirks: &Quirks) -> Keep {
    match quirks.reasoning {
        ReasoningStyle::None => Keep::Unknown,
        ReasoningStyle::Object => Keep::AsSent,
        ReasoningStyle::Effort if field == Field::ReasoningEffort && call.raw(Field::Reasoning).is_none() => {
            let accepted = |raw: &str| quirks.efforts.is_empty() || quirks.efforts.iter().any(|name| raw.trim_matches('"') == name);
            if call.raw(field).is_some_and(accepted) { Keep::AsSent } else { Keep::Replaced }
        }
        ReasoningStyle::Effort | ReasoningStyle::Thinking | ReasoningStyle::EnableThinking | ReasoningStyle::TemplateKwargs => {
            Keep::Replaced
        }
    }
}

/// The members that tell this vendor; none when nothing was asked that it could be told.
pub(super) fn translate(call: &ChatCall, quirks: &Quirks) -> SmallVec<[(&'static str, String); 2]> {
    let thinking = thinking(call);
    let on = match thinking {
        Thinking::Unset => return SmallVec::new(),
        Thinking::Off | Thinking::Effort(Effort::None) => false,
        Thinking::Effort(_) | Thinking::Budget(_) => true,
    };
    let mut members: SmallVec<[(&'static str, String); 2]> = SmallVec::new();
    match quirks.reasoning {
        ReasoningStyle::Effort => {
            let effort = match thinking {
                Thinking::Effort(effort) => effort,
                Thinking::Budget(tokens) => Effort::covering(tokens, call.max_output().unwrap_or(ASSUMED_OUTPUT)),
                Thinking::Unset | Thinking::Off => Effort::None,
            };
            let accepted: SmallVec<[Effort; 8]> = quirks.efforts.iter().filter_map(|name| Effort::parse(name)).collect();
            let effort = effort.nearest(&accepted).unwrap_or(effort);
            members.push(("reasoning_effort", format!("\"{}\"", effort.as_str())));
        }
        ReasoningStyle::Thinking => {
            let word = if on { "enabled" } else { "disabled" };
            members.push(("thinking", format!("{{\"type\":\"{word}\"}}")));
        }
        ReasoningStyle::EnableThinking => {
            members.push(("enable_thinking", on.to_string()));
            if let Thinking::Budget(tokens) = thinking {
                members.push(("thinking_budget", tokens.to_string()));
            }
        }
        ReasoningStyle::TemplateKwargs => members.push(("chat_template_kwargs", format!("{{\"enable_thinking\":{on}}}"))),
        ReasoningStyle::Object | ReasoningStyle::None => {}
    }
    // A caller who already speaks the vendor's own spelling knows better, and a member must not come twice.
    members.retain(|member| member.0 == "reasoning_effort" || call.field(member.0).is_none());
    members
}

/// Folds the spellings together; `reasoning` wins over the shorthand, the shorthand over the legacy flag.
fn thinking(call: &ChatCall) -> Thinking {
    let wish: Wish = call.raw(Field::Reasoning).and_then(|raw| serde_json::from_str(raw).ok()).unwrap_or_default();
    let shorthand = || call.raw(Field::ReasoningEffort).map(|raw| raw.trim_matches('"').to_owned());
    if wish.enabled == Some(false) {
        return Thinking::Off;
    }
    if let Some(effort) = wish.effort.or_else(shorthand).and_then(|name| Effort::parse(&name)) {
        return Thinking::Effort(effort);
    }
    match (wish.max_tokens, wish.enabled) {
        (Some(0), _) => Thinking::Off,
        (Some(tokens), _) => Thinking::Budget(tokens),
        (None, Some(true)) => Thinking::Effort(Effort::Medium),
        // `include_reasoning` is about showing thoughts, not about having them.
        (None, _) => Thinking::Unset,
    }
}
