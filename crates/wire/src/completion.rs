//! A whole (not streamed) answer, waiting for its price.

use bytes::Bytes;

use crate::{
    facts::{Closing, Facts},
    usage::{self, RawUsage},
};

/// A read answer: the caller's JSON without its last members, which only the end of the request knows.
#[derive(Debug)]
pub struct Completion {
    facts: Facts,
    /// An object without its closing brace and without `usage`; at least one member.
    head: Vec<u8>,
    /// The upstream's own `usage` object, whose unknown members survive.
    usage: Option<RawUsage>,
}

impl Completion {
    /// `head` is the answer in the caller's dialect up to, and without, its closing brace and its `usage` member.
    pub(crate) fn new(facts: Facts, head: Vec<u8>, usage: Option<RawUsage>) -> Self {
        Self { facts, head, usage }
    }

    /// What the answer told us.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Takes an estimate where the upstream reported nothing.
    pub fn assume_usage(&mut self, usage: crate::Usage) {
        self.facts.usage.get_or_insert(usage);
    }

    /// The answer with usage, cost and router metadata.
    pub fn write(self, closing: &Closing<'_>) -> Bytes {
        let Self { facts, head: mut out, usage } = self;
        usage::write_closing(&mut out, facts.usage.as_ref(), usage.as_ref(), closing);
        out.push(b'}');
        out.into()
    }
}
