//! What is answered, whichever dialect it is written in.

use serde_json::{Value, json};

use crate::ask::{Ask, Format, Tool, ToolChoice};
use crate::prompt_cache::Cached;
use crate::{schema, text};

/// A finished answer, in tokens.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) reasoning: Vec<String>,
    pub(crate) text: Vec<String>,
    pub(crate) calls: Vec<Call>,
    pub(crate) finish: Finish,
    pub(crate) usage: Usage,
}

/// A call of a tool.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// Becomes the dialect's id.
    pub(crate) number: u64,
    pub(crate) name: String,
    /// JSON.
    pub(crate) arguments: String,
}

/// Why the answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finish {
    Stop,
    Length,
    ToolCalls,
}

/// What it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Usage {
    /// With what was cached.
    pub(crate) prompt: u32,
    pub(crate) cached: u32,
    pub(crate) cache_write: u32,
    /// With the reasoning.
    pub(crate) completion: u32,
    pub(crate) reasoning: u32,
}

/// Where the words come from.
#[derive(Debug, Clone)]
pub(crate) enum Words {
    /// Made up.
    Written,
    /// Given.
    Given(String),
    /// Nowhere: an answer without content.
    None,
}

impl Answer {
    pub(crate) fn compose(ask: &Ask, words: Words, cached: Cached, seed: u64) -> Self {
        let mut random = text::generator(seed, &ask.question);
        let mut answer = Self {
            reasoning: Vec::new(),
            text: Vec::new(),
            calls: Vec::new(),
            finish: Finish::Stop,
            usage: Usage { prompt: ask.prompt_tokens(), cached: cached.read, cache_write: cached.written, ..Usage::default() },
        };
        match words {
            Words::None => return answer,
            Words::Given(given) => answer.text = text::tokens(&given),
            Words::Written => {
                if ask.reasoning {
                    answer.reasoning = text::reasoning(seed, &ask.question);
                }
                answer.calls = calls(ask, &mut random);
                if answer.calls.is_empty() {
                    answer.text = written(ask, seed, &mut random);
                }
            }
        }
        answer.cut_to(ask.max_tokens);
        answer.count();
        answer
    }

    /// A limit counts reasoning first. Calls are not cut: half a call would be malformed.
    fn cut_to(&mut self, max_tokens: Option<u32>) {
        if !self.calls.is_empty() {
            self.finish = Finish::ToolCalls;
        }
        let Some(limit) = max_tokens.and_then(|limit| usize::try_from(limit).ok()) else {
            return;
        };
        let whole = self.reasoning.len() + self.text.len();
        if whole <= limit {
            return;
        }
        self.reasoning.truncate(limit);
        self.text.truncate(limit - self.reasoning.len());
        if self.calls.is_empty() {
            self.finish = Finish::Length;
        }
    }

    fn count(&mut self) {
        let calls: u32 = self.calls.iter().map(Call::tokens).sum();
        self.usage.reasoning = length(&self.reasoning);
        self.usage.completion = self.usage.reasoning + length(&self.text) + calls;
    }
}

impl Call {
    /// The name counts as one token, the arguments by four characters.
    pub(crate) fn tokens(&self) -> u32 {
        1 + u32::try_from(self.arguments.chars().count().div_ceil(4)).unwrap_or(u32::MAX - 1)
    }
}

fn written(ask: &Ask, seed: u64, random: &mut fastrand::Rng) -> Vec<String> {
    match &ask.format {
        Format::Text => text::answer(seed, &ask.question),
        Format::Json => text::pieces(&json!({"answer": text::answer(seed, &ask.question).concat()}).to_string()),
        Format::Schema(schema) => text::pieces(&schema::instance(schema, random).to_string()),
    }
}

fn calls(ask: &Ask, random: &mut fastrand::Rng) -> Vec<Call> {
    let question = ask.question.to_lowercase();
    let mut chosen: Vec<&Tool> = match &ask.tool_choice {
        ToolChoice::Never => Vec::new(),
        ToolChoice::Named(name) => ask.tools.iter().filter(|tool| tool.name == *name).collect(),
        ToolChoice::Required => named_or_first(ask, &question),
        ToolChoice::Auto if ask.after_tool => Vec::new(),
        ToolChoice::Auto if wants_tool(ask, &question) => named_or_first(ask, &question),
        ToolChoice::Auto => Vec::new(),
    };
    if !ask.parallel_calls {
        chosen.truncate(1);
    } else if let [only] = chosen[..]
        && PARALLEL_WORDS.iter().any(|word| question.contains(word))
    {
        chosen.push(only);
    }
    chosen
        .into_iter()
        .map(|tool| Call { number: random.u64(..), name: tool.name.clone(), arguments: arguments(tool, random).to_string() })
        .collect()
}

/// The tools that the question names, or else the first one.
fn named_or_first<'a>(ask: &'a Ask, question: &str) -> Vec<&'a Tool> {
    let named: Vec<&Tool> = ask.tools.iter().filter(|tool| names(question, tool)).collect();
    if named.is_empty() { ask.tools.iter().take(1).collect() } else { named }
}

fn wants_tool(ask: &Ask, question: &str) -> bool {
    TOOL_WORDS.iter().any(|word| question.contains(word)) || ask.tools.iter().any(|tool| names(question, tool))
}

fn names(question: &str, tool: &Tool) -> bool {
    let name = tool.name.to_lowercase();
    question.contains(&name) || question.contains(&name.replace('_', " "))
}

/// Arguments are always an object, also for a tool without a schema.
fn arguments(tool: &Tool, random: &mut fastrand::Rng) -> Value {
    match schema::instance(&tool.schema, random) {
        made @ Value::Object(_) => made,
        _ => json!({}),
    }
}

fn length(tokens: &[String]) -> u32 {
    u32::try_from(tokens.len()).unwrap_or(u32::MAX)
}

const TOOL_WORDS: [&str; 6] = ["tool", "weather", "look up", "search", "function", "calculate"];
const PARALLEL_WORDS: [&str; 3] = ["parallel", "both", "two places"];
