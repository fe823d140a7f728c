//! What a line of the access log says. Fields by allow-list: no key, no prompt, no header value that a caller chose.

use std::io::Write;
use std::time::Duration;

use tidegate_wire::Facts;

use crate::bill::Bill;
use crate::generation::{End, Generation};

/// Appends the line of a generation, without its line end.
pub(crate) fn generation(line: &mut Vec<u8>, generation: &Generation, end: End, facts: &Facts, bill: &Bill, elapsed: Duration) {
    let context = &generation.context;
    let mut fields = Fields::begin(line);
    fields.number("ts_ms", context.created_ms);
    fields.text("id", &context.id);
    fields.plain("trace_id", &generation.trace.context.trace_id_hex());
    fields.text("key", &generation.caller.name);
    fields.text("model", &generation.state.model(context.model).slug);
    fields.number("status", u64::from(end.status));
    if !end.error_type.is_empty() {
        fields.text("error_type", end.error_type);
    }
    fields.flag("stream", context.streamed);
    if let Some(target) = generation.target() {
        fields.text("provider", &target.provider.info.slug);
        fields.text("endpoint", &target.name);
    }
    fields.number("attempts", generation.attempts().len() as u64);
    if let Some(last) = generation.attempts().last() {
        fields.text("outcome", last.end.label());
        fields.text("credential", generation.state.credential_name(last.plan.credential));
    }
    let times = generation.times();
    if let Some(answered) = times.answered {
        fields.micros("first_token_ms", answered - times.received);
    }
    fields.micros("duration_ms", elapsed);
    fields.micros("overhead_ms", times.overhead());
    fields.number("request_bytes", context.request_bytes as u64);
    fields.number("prompt_tokens", bill.usage.prompt_tokens);
    fields.number("completion_tokens", bill.usage.completion_tokens);
    if bill.usage.cached_tokens > 0 {
        fields.number("cached_tokens", bill.usage.cached_tokens);
    }
    fields.raw("cost_usd", bill.charge.total.text().as_str().as_bytes());
    if let Some(reason) = facts.finish_reason {
        fields.text("finish_reason", reason.as_str());
    }
    fields.end();
}

/// Appends the line of a request that never became a generation: refused, or only a question about the catalogue or a key.
pub(crate) fn plain(line: &mut Vec<u8>, created_ms: u64, id: &str, status: u16, error_type: &str) {
    let mut fields = Fields::begin(line);
    fields.number("ts_ms", created_ms);
    fields.text("id", id);
    fields.number("status", u64::from(status));
    if !error_type.is_empty() {
        fields.text("error_type", error_type);
    }
    fields.end();
}

/// Members of a JSON object, written straight into the buffer.
struct Fields<'a> {
    line: &'a mut Vec<u8>,
    first: bool,
}

impl<'a> Fields<'a> {
    fn begin(line: &'a mut Vec<u8>) -> Self {
        line.push(b'{');
        Self { line, first: true }
    }

    fn name(&mut self, name: &str) {
        if !std::mem::replace(&mut self.first, false) {
            self.line.push(b',');
        }
        self.line.push(b'"');
        self.line.extend_from_slice(name.as_bytes());
        self.line.extend_from_slice(b"\":");
    }

    fn number(&mut self, name: &str, value: u64) {
        self.name(name);
        self.line.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    /// Milliseconds with three decimals.
    fn micros(&mut self, name: &str, value: Duration) {
        self.name(name);
        let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        self.line.extend_from_slice(itoa::Buffer::new().format(micros / 1000).as_bytes());
        let rest = micros % 1000;
        let digit = |value: u64| b'0' + u8::try_from(value % 10).unwrap_or(0);
        self.line.extend_from_slice(&[b'.', digit(rest / 100), digit(rest / 10), digit(rest)]);
    }

    fn flag(&mut self, name: &str, value: bool) {
        self.name(name);
        self.line.extend_from_slice(if value { b"true" } else { b"false" });
    }

    /// A value that is JSON already.
    fn raw(&mut self, name: &str, value: &[u8]) {
        self.name(name);
        self.line.extend_from_slice(value);
    }

    /// A string without anything to escape.
    fn plain(&mut self, name: &str, value: &[u8]) {
        self.name(name);
        self.line.push(b'"');
        self.line.extend_from_slice(value);
        self.line.push(b'"');
    }

    fn text(&mut self, name: &str, value: &str) {
        // Nearly every value is clean; asking first, all bytes at once, is cheaper than looking at each on its way.
        let dirty = |byte: u8| (byte < 0x20) | (byte == b'"') | (byte == b'\\');
        if !value.bytes().fold(false, |found, byte| found | dirty(byte)) {
            return self.plain(name, value.as_bytes());
        }
        self.name(name);
        self.line.push(b'"');
        for byte in value.bytes() {
            match byte {
                b'"' | b'\\' => self.line.extend_from_slice(&[b'\\', byte]),
                0..0x20 => {
                    // Writing to a Vec cannot fail.
                    let _ = write!(self.line, "\\u{byte:04x}");
                }
                _ => self.line.push(byte),
            }
        }
        self.line.push(b'"');
    }

    fn end(self) {
        self.line.push(b'}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_json_whatever_the_values() {
        let mut line = Vec::new();
        let mut fields = Fields::begin(&mut line);
        fields.text("name", "a\"b\\c\nd\u{1}é");
        fields.micros("ms", Duration::from_micros(1_234_005));
        fields.number("n", 7);
        fields.flag("f", true);
        fields.end();
        let value: serde_json::Value = serde_json::from_slice(&line).expect("valid JSON");
        assert_eq!(value, serde_json::json!({"name": "a\"b\\c\nd\u{1}é", "ms": 1234.005, "n": 7, "f": true}));
    }
}
