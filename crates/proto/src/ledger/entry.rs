//! A record as a journal entry, written straight from its pieces: an edge writes one per request, and making the generated message first
//! would copy every name in it.
//!
//! Numbers of fields stand here a second time; a test reads what is written by the generated code.

use tidegate_ledger::{AttemptRecord, Charge, Generation, Money, Usage};

use crate::v1;

/// Appends the bytes of a `JournalEntry` that says that a generation has ended.
pub fn encode_ended(record: &Generation, reservation: &[u8], attempt_reservation: &[u8], out: &mut Vec<u8>) {
    Fields(out).message(3, |fields| record_fields(fields, record, reservation, attempt_reservation));
}

fn record_fields(fields: &mut Fields<'_>, record: &Generation, reservation: &[u8], attempt_reservation: &[u8]) {
    fields.text(1, &record.id);
    fields.some_text(2, record.upstream_id.as_deref());
    fields.text(3, &record.request_id);
    fields.some_text(4, record.session_id.as_deref());
    fields.number(5, record.created_ms);
    fields.text(6, &record.model);
    fields.text(7, &record.provider_name);
    fields.text(8, &record.endpoint);
    fields.some_text(9, record.router.as_deref());
    fields.text(10, record.api_type.as_str());
    fields.flag(11, record.streamed);
    fields.text(12, record.ending.as_str());
    fields.some_number(13, record.first_token_us);
    fields.some_number(14, record.generation_us);
    fields.some_text(15, record.finish_reason.as_deref());
    fields.some_text(16, record.native_finish_reason.as_deref());
    fields.message(17, |fields| usage(fields, &record.usage));
    fields.flag(18, record.usage_estimated);
    fields.message(19, |fields| charge(fields, &record.charge));
    fields.amount(20, record.fee);
    fields.amount(21, record.charged);
    fields.amount(22, record.upstream_cost);
    fields.flag(23, record.is_byok);
    fields.some_text(24, record.service_tier.as_deref());
    fields.some_text(25, record.data_region.as_deref());
    fields.text(26, &record.region);
    fields.some_text(27, record.origin.as_deref());
    fields.some_text(28, record.http_referer.as_deref());
    fields.some_text(29, record.app_title.as_deref());
    fields.some_text(30, record.user_agent.as_deref());
    fields.some_text(31, record.external_user.as_deref());
    fields.some_text(32, record.preset_id.as_deref());
    fields.text(33, &record.key);
    fields.some_text(34, record.organisation.as_deref());
    fields.some_text(35, record.workspace.as_deref());
    fields.text(36, &record.error_type);
    fields.flag(37, record.recovered);
    for attempt in &record.attempts {
        fields.message(38, |fields| attempt_fields(fields, attempt));
    }
    fields.bytes(39, reservation);
    fields.bytes(40, attempt_reservation);
}

fn attempt_fields(fields: &mut Fields<'_>, attempt: &AttemptRecord) {
    fields.number(1, attempt.number.into());
    fields.text(2, &attempt.provider_name);
    fields.text(3, &attempt.model);
    fields.text(4, &attempt.endpoint);
    fields.some_number(5, attempt.status.map(Into::into));
    fields.text(6, &attempt.outcome);
    fields.number(7, attempt.latency_us);
    fields.some_text(8, attempt.service_tier.as_deref());
    fields.some_text(9, attempt.upstream_id.as_deref());
    fields.flag(10, attempt.is_byok);
}

fn usage(fields: &mut Fields<'_>, usage: &Usage) {
    fields.number(1, usage.prompt_tokens);
    fields.number(2, usage.cached_tokens);
    fields.number(3, usage.cache_write_tokens);
    fields.number(4, usage.cache_write_1h_tokens);
    fields.number(5, usage.completion_tokens);
    fields.number(6, usage.reasoning_tokens);
    fields.number(7, usage.image_count);
    fields.number(8, usage.audio_tokens);
}

fn charge(fields: &mut Fields<'_>, charge: &Charge) {
    fields.amount(1, charge.total);
    fields.amount(2, charge.prompt);
    fields.amount(3, charge.completion);
    fields.amount(4, charge.request);
    fields.amount(5, charge.cache_discount);
}

/// Fields of a message, one after the other.
struct Fields<'a>(&'a mut Vec<u8>);

impl Fields<'_> {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(&mut self, field: u32, value: u64) {
        if value != 0 {
            self.some_number(field, Some(value));
        }
    }

    fn some_number(&mut self, field: u32, value: Option<u64>) {
        if let Some(value) = value {
            self.varint(u64::from(field) << 3);
            self.varint(value);
        }
    }

    fn flag(&mut self, field: u32, value: bool) {
        self.number(field, value.into());
    }

    fn text(&mut self, field: u32, text: &str) {
        self.bytes(field, text.as_bytes());
    }

    fn some_text(&mut self, field: u32, text: Option<&str>) {
        if let Some(text) = text {
            self.some_bytes(field, text.as_bytes());
        }
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.some_bytes(field, bytes);
        }
    }

    fn some_bytes(&mut self, field: u32, bytes: &[u8]) {
        self.varint(u64::from(field) << 3 | DELIMITED);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn amount(&mut self, field: u32, amount: Money) {
        let v1::Amount { dollars, picodollars } = amount.into();
        self.message(field, |fields| {
            fields.number(1, zigzag(dollars));
            fields.number(2, zigzag(picodollars));
        });
    }

    /// A message of its own, behind its length, which is known when it is there.
    fn message(&mut self, field: u32, write: impl FnOnce(&mut Fields<'_>)) {
        self.varint(u64::from(field) << 3 | DELIMITED);
        let start = self.0.len();
        self.0.push(0);
        write(&mut Fields(self.0));
        let length = self.0.len() - start - 1;
        if length < 0x80 {
            self.0[start] = length as u8;
            return;
        }
        let mut head = Vec::with_capacity(5);
        Fields(&mut head).varint(length as u64);
        self.0.splice(start..=start, head);
    }
}

/// Signed numbers, small ones first.
fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

/// The wire type of texts, bytes and messages.
const DELIMITED: u64 = 2;
