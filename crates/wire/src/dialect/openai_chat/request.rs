//! The request: the caller's bytes with a few members replaced, renamed, taken out or put in.

use smallvec::SmallVec;

use super::reasoning;
use crate::{
    call::{ChatCall, Member},
    error::RequestError,
    field::{Field, Treatment},
    json,
    provider::{MaxTokensField, Quirks},
    scan::{Kind, Span},
    splice::Edits,
    target::{Target, UpstreamRequest},
};

/// Members of `provider` that name providers. An aggregator upstream would read them as names of *its* providers.
const PROVIDER_NAMES: [&str; 5] = ["order", "only", "ignore", "allow_fallbacks", "options"];

/// Writes `call` for an upstream that speaks the same dialect.
pub(crate) fn encode(call: &ChatCall, target: &Target<'_>) -> Result<UpstreamRequest, RequestError> {
    let mut writer =
        Writer { call, target, quirks: &target.provider.quirks, edits: Edits::default(), appended: Vec::new(), dropped: SmallVec::new() };
    writer.write();
    let Writer { edits, dropped, .. } = writer;
    Ok(UpstreamRequest {
        path: target.provider.chat_path.clone().unwrap_or_else(|| "/chat/completions".to_owned()),
        body: edits.apply(call.body()),
        headers: SmallVec::new(),
        dropped,
    })
}

struct Writer<'a> {
    call: &'a ChatCall,
    target: &'a Target<'a>,
    quirks: &'a Quirks,
    edits: Edits,
    /// New members, each with a leading comma.
    appended: Vec<u8>,
    dropped: SmallVec<[&'static str; 4]>,
}

/// What becomes of one member.
enum Fate {
    Keep,
    Remove,
    /// A new value under the same key.
    Value(Vec<u8>),
    /// A new key for the same value.
    Key(&'static str),
}

impl Writer<'_> {
    fn write(&mut self) {
        let members = self.call.members();
        let mut removed: SmallVec<[bool; 32]> = SmallVec::with_capacity(members.len());
        for member in members {
            let fate = if member.kind == Kind::Null { Fate::Remove } else { self.fate(member) };
            removed.push(matches!(fate, Fate::Remove));
            match fate {
                Fate::Keep | Fate::Remove => {}
                Fate::Value(value) => self.edits.replace(member.value, value),
                Fate::Key(name) => self.edits.replace(member.key.inner, name),
            }
        }
        self.remove(members, &removed);
        self.append_missing();
        // `messages` is always kept, so the new members follow another one.
        if let (Some(last), false) = (members.last(), self.appended.is_empty()) {
            self.edits.insert(last.value.end, std::mem::take(&mut self.appended));
        }
    }

    /// Takes members out with the commas that would be left over.
    fn remove(&mut self, members: &[Member], removed: &[bool]) {
        let leading = removed.iter().take_while(|removed| **removed).count();
        if let (Some(first), Some(kept), true) = (members.first(), members.get(leading), leading > 0) {
            self.edits.remove(Span { start: first.key.outer().start, end: kept.key.outer().start });
        }
        for (index, pair) in members.windows(2).enumerate().skip(leading) {
            if removed[index + 1] {
                self.edits.remove(Span { start: pair[0].value.end, end: pair[1].value.end });
            }
        }
    }

    fn fate(&mut self, member: &Member) -> Fate {
        let Some(field) = member.field else {
            // Unknown fields pass, unless this vendor is known to refuse them.
            let refused = !self.quirks.rejects.is_empty() && self.rejects(&member.key.decode(self.call.body()));
            return if refused { Fate::Remove } else { Fate::Keep };
        };
        match field.treatment() {
            Treatment::Core => self.core(field, member),
            Treatment::Gateway => self.gateway(field),
            Treatment::Reasoning => self.reasoning(field),
            Treatment::Parameter => self.parameter(field, member),
            Treatment::Extra if self.rejects(field.name()) => self.drop(field),
            Treatment::Extra => Fate::Keep,
        }
    }

    fn core(&mut self, field: Field, member: &Member) -> Fate {
        match field {
            Field::Model => Fate::Value(string(self.target.model)),
            Field::Messages => {
                if !self.quirks.developer_role {
                    for role in &self.call.messages().developer_roles {
                        self.edits.replace(*role, *b"\"system\"");
                    }
                }
                Fate::Keep
            }
            Field::Stream if self.call.stream() == self.target.stream => Fate::Keep,
            Field::Stream => Fate::Value(self.target.stream.to_string().into_bytes()),
            Field::StreamOptions => self.stream_options(member),
            Field::User => match self.target.user {
                Some(user) if self.quirks.user && !self.rejects("user") => Fate::Value(string(user)),
                _ => Fate::Remove,
            },
            Field::MaxTokens | Field::MaxCompletionTokens => self.output_limit(field),
            _ => Fate::Keep,
        }
    }

    /// Vendors refuse the two names together, so one limit goes out: the lower, under the name the vendor knows.
    fn output_limit(&mut self, field: Field) -> Fate {
        let both = self.call.raw(Field::MaxTokens).is_some() && self.call.raw(Field::MaxCompletionTokens).is_some();
        if both && field == Field::MaxTokens {
            return Fate::Remove;
        }
        let name = match self.quirks.max_tokens_field {
            MaxTokensField::AsSent => field.name(),
            MaxTokensField::MaxTokens => Field::MaxTokens.name(),
            MaxTokensField::MaxCompletionTokens => Field::MaxCompletionTokens.name(),
        };
        match self.call.max_output() {
            Some(limit) if both => {
                self.append(name, limit.to_string().as_bytes());
                Fate::Remove
            }
            _ if name == field.name() => Fate::Keep,
            _ => Fate::Key(name),
        }
    }

    fn stream_options(&mut self, member: &Member) -> Fate {
        if !self.target.stream || !self.quirks.stream_options {
            return Fate::Remove;
        }
        let raw = member.value.of(self.call.body());
        let mut options: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(raw).unwrap_or_default();
        if options.get("include_usage") == Some(&serde_json::Value::Bool(true)) {
            return Fate::Keep;
        }
        options.insert("include_usage".to_owned(), true.into());
        Fate::Value(serde_json::Value::Object(options).to_string().into_bytes())
    }

    fn gateway(&mut self, field: Field) -> Fate {
        if !self.quirks.aggregator || self.rejects(field.name()) {
            return Fate::Remove;
        }
        match field {
            // Which model to use, and what to echo, has been decided here.
            Field::Models | Field::Route | Field::Preset | Field::Debug => Fate::Remove,
            Field::Provider => self.provider_constraints(),
            _ => Fate::Keep,
        }
    }

    /// The part of `provider` that an aggregator upstream must honour too: data policy, price, quality.
    fn provider_constraints(&self) -> Fate {
        let raw = self.call.provider().unwrap_or_default();
        let mut preferences: serde_json::Map<String, serde_json::Value> = serde_json::from_str(raw).unwrap_or_default();
        preferences.retain(|name, _| !PROVIDER_NAMES.contains(&name.as_str()));
        if preferences.is_empty() {
            return Fate::Remove;
        }
        Fate::Value(serde_json::Value::Object(preferences).to_string().into_bytes())
    }

    fn reasoning(&mut self, field: Field) -> Fate {
        let supported = (self.target.supports)("reasoning") && !self.rejects(field.name());
        let first =
            [Field::Reasoning, Field::ReasoningEffort, Field::IncludeReasoning].into_iter().find(|field| self.call.raw(*field).is_some());
        if supported {
            match reasoning::keep(self.call, field, self.quirks) {
                reasoning::Keep::AsSent => return Fate::Keep,
                reasoning::Keep::Replaced => {
                    // The several spellings become the vendor's one, written once, at the end.
                    if first == Some(field) {
                        for (name, value) in reasoning::translate(self.call, self.quirks) {
                            self.append(name, value.as_bytes());
                        }
                    }
                    return Fate::Remove;
                }
                reasoning::Keep::Unknown => {}
            }
        }
        self.drop(field)
    }

    fn parameter(&mut self, field: Field, member: &Member) -> Fate {
        let name = field.name();
        // Without tools, what is said about their use has no object, and several vendors refuse it.
        let orphan = matches!(field, Field::ToolChoice | Field::ParallelToolCalls) && !(self.target.supports)("tools");
        if orphan || self.rejects(name) || !(self.target.supports)(name) {
            return self.drop(field);
        }
        if field == Field::Verbosity && !self.quirks.aggregator {
            // The scale of OpenAI and its copies ends at `high`.
            let beyond = matches!(member.value.of(self.call.body()), b"\"xhigh\"" | b"\"max\"");
            if beyond {
                return Fate::Value(string("high"));
            }
        }
        Fate::Keep
    }

    fn append_missing(&mut self) {
        let target = self.target;
        if self.call.raw(Field::Model).is_none() {
            self.append("model", &string(target.model));
        }
        if target.stream {
            if self.call.raw(Field::Stream).is_none() {
                self.append("stream", b"true");
            }
            if self.quirks.stream_options && self.call.raw(Field::StreamOptions).is_none() {
                self.append("stream_options", b"{\"include_usage\":true}");
            }
        }
        if let Some(user) = target.user
            && self.quirks.user
            && self.call.raw(Field::User).is_none()
            && !self.rejects("user")
        {
            self.append("user", &string(user));
        }
    }

    fn append(&mut self, name: &str, value: &[u8]) {
        json::Members::continuing(&mut self.appended).raw(name, value);
    }

    fn drop(&mut self, field: Field) -> Fate {
        self.dropped.push(field.name());
        Fate::Remove
    }

    fn rejects(&self, name: &str) -> bool {
        self.quirks.rejects.iter().any(|rejected| rejected == name)
    }
}

fn string(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 2);
    json::write_string(&mut out, text);
    out
}

#[cfg(test)]
mod tests;
