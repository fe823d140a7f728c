//! The ledger of a region, in its Redis: what every edge there has served, so that each can answer for all.
//!
//! An edge passes its journal on in batches. A batch is one script: records for `GET /generation`, a bounded stream for whoever wants to
//! follow, and sums by the hour, by the day and since the beginning, together with the edge's place in its journal. A batch is therefore
//! taken over exactly once, and a Redis that was wiped is filled again from what the journals still hold. All keys share one slot.

mod export;
mod row;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use redis::{Value, cmd};
use tidegate_ledger::{Filter, Generation, Period, Row, Sums};
use tidegate_proto::v1::GenerationRecord;
use tidegate_quota::{RedisLink, RedisOptions, StoreError};
use tokio::sync::Notify;

pub(crate) use export::Export;

/// A region's ledger.
pub(crate) struct RegionLedger {
    link: RedisLink,
    /// Start of every key, slot tag included.
    prefix: String,
    /// It was found to be empty where it should not be.
    lost: Notify,
}

impl RegionLedger {
    pub(crate) fn new(options: &RedisOptions, region: &str) -> Result<Self, StoreError> {
        let link = RedisLink::new(options.clone(), CALL_TIMEOUT)?;
        Ok(Self { link, prefix: format!("tidegate:{{ledger:{}}}", escaped(region)), lost: Notify::new() })
    }

    /// A generation that an edge of this region served.
    pub(crate) async fn generation(&self, id: &str) -> Result<Option<Generation>, StoreError> {
        let answer = self.link.run("generation", cmd("GET").arg(self.record_key(id))).await?;
        let Some(bytes) = bytes_of(&answer) else { return Ok(None) };
        // A record of a newer version is one that this edge cannot show.
        Ok(GenerationRecord::decode(bytes).ok().and_then(|record| Generation::try_from(record).ok()))
    }

    /// Sums of an owner by day.
    pub(crate) async fn days(&self, owner: &str, filter: &Filter) -> Result<Vec<Row>, StoreError> {
        let until = if filter.until == 0 { filter.from.saturating_add(MOST_DAYS) } else { filter.until };
        let days: Vec<Period> = (filter.from..until.min(filter.from.saturating_add(MOST_DAYS))).map(Period::Day).collect();
        Ok(self.rows(owner, &days).await?.into_iter().filter(|row| filter.wants(row)).collect())
    }

    /// Sums of an owner of every hour or every day from the first to the last, both included; or those since the beginning.
    pub(crate) async fn between(&self, owner: &str, first: Period, last: Period) -> Result<Vec<Row>, StoreError> {
        let periods: Vec<Period> = match (first, last) {
            (Period::Day(first), Period::Day(last)) => (first..=last).map(Period::Day).collect(),
            (Period::Hour(first), Period::Hour(last)) => (first..=last).map(Period::Hour).collect(),
            _ => vec![Period::Total],
        };
        let mut rows = Vec::new();
        for some in periods.chunks(AT_ONCE) {
            rows.extend(self.rows(owner, some).await?);
        }
        Ok(rows)
    }

    /// Sums of every owner that the filter leaves, of each of the periods.
    pub(crate) async fn everybody(&self, filter: &Filter, periods: &[Period]) -> Result<Vec<Row>, StoreError> {
        let answer = self.link.run("owners", cmd("SMEMBERS").arg(self.owners_key())).await?;
        let (Value::Array(owners) | Value::Set(owners)) = answer else { return Ok(Vec::new()) };
        let mut owners: Vec<String> = owners.iter().filter_map(bytes_of).map(|name| String::from_utf8_lossy(name).into_owned()).collect();
        if let Some(organisation) = filter.organisation.as_deref().filter(|name| !name.is_empty()) {
            let only = format!("organisation:{organisation}");
            owners.retain(|owner| *owner == only);
        }
        owners.sort();
        let mut rows = Vec::new();
        for owner in owners {
            for some in periods.chunks(AT_ONCE) {
                rows.extend(self.rows(&owner, some).await?.into_iter().filter(|row| filter.wants(row)));
            }
        }
        Ok(rows)
    }

    /// Waits until it was found to have lost what was passed on to it: what is kept beside it may be lost as well.
    pub(crate) async fn lost(&self) {
        self.lost.notified().await;
    }

    /// Sums of an owner since the beginning.
    pub(crate) async fn total(&self, owner: &str, filter: &Filter) -> Result<Sums, StoreError> {
        let rows = self.rows(owner, &[Period::Total]).await?;
        Ok(Row::sum(rows.iter().filter(|row| filter.wants(row))))
    }

    async fn rows(&self, owner: &str, periods: &[Period]) -> Result<Vec<Row>, StoreError> {
        let mut command = cmd("EVAL");
        command.arg(READ).arg(periods.len());
        for period in periods {
            command.arg(self.sums_key(owner, *period));
        }
        let answer = self.link.run("sums", &command).await?;
        let Value::Array(hashes) = answer else { return Ok(Vec::new()) };
        let mut rows = Vec::new();
        for (period, hash) in periods.iter().zip(hashes) {
            let Value::Array(pairs) = hash else { continue };
            let mut fields = HashMap::with_capacity(pairs.len() / 2);
            for pair in pairs.chunks_exact(2) {
                if let (Some(field), Some(value)) = (bytes_of(&pair[0]), bytes_of(&pair[1])) {
                    fields.insert(field, value);
                }
            }
            rows.extend(row::rows_of(*period, &fields));
        }
        Ok(rows)
    }

    /// The set of everybody of whom there are sums.
    fn owners_key(&self) -> String {
        format!("{}:owners", self.prefix)
    }

    fn record_key(&self, id: &str) -> String {
        format!("{}:record:{}", self.prefix, escaped(id))
    }

    fn sums_key(&self, owner: &str, period: Period) -> String {
        let (prefix, owner) = (&self.prefix, escaped(owner));
        match period {
            Period::Hour(number) => format!("{prefix}:sums:h:{number}:{owner}"),
            Period::Day(number) => format!("{prefix}:sums:d:{number}:{owner}"),
            Period::Total => format!("{prefix}:sums:t:{owner}"),
        }
    }
}

/// Under whose name sums are kept: the organisation's, or the key's when it has none. What a caller may ask about is of one owner.
pub(crate) fn owner_of(organisation: Option<&Arc<str>>, key: &str) -> String {
    organisation.map_or_else(|| format!("key:{key}"), |organisation| format!("organisation:{organisation}"))
}

fn bytes_of(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.as_bytes()),
        _ => None,
    }
}

/// Names inside of a key: what could end the slot tag or a part is written as `%XX`.
fn escaped(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/');
    name.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// Several hashes in one answer.
const READ: &str = "local all = {} for index, key in ipairs(KEYS) do all[index] = redis.call('HGETALL', key) end return all";
/// Nobody waits for these calls with a request in hand, except who asks about use.
const CALL_TIMEOUT: Duration = Duration::from_millis(500);
/// Hashes of one call.
const AT_ONCE: usize = 100;
/// Days of one question.
const MOST_DAYS: u32 = 62;
