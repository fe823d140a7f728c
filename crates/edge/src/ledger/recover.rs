//! What a start finds: the sums so far, and the requests that were open when the process ended.
//!
//! Reads the file of sums and the journal after it. A torn tail of the newest segment is what a crash leaves; it is cut off, and said.
//! Requests that had begun and not ended become records: cut, charged for what was noted as delivered, or free when nothing was.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::sync::Arc;

use tidegate_ledger::{ApiType, Charge, Ending, Generation, Money, Rollups, Usage};
use tidegate_proto::v1::journal_entry::Entry;
use tidegate_proto::v1::{Begun, Delivered, GenerationRecord, Holding};

use super::segment::{self, Item, Position, SegmentReader};
use super::sums::{self, Sums};

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    /// Everything that is in the journal, counted.
    pub(crate) rollups: Rollups,
    /// Requests that had begun and not ended.
    pub(crate) open: Vec<(Begun, Option<Delivered>)>,
    /// What attempts of the open ones have reserved, by the request's id, in the order in which they did.
    pub(crate) holding: HashMap<String, Vec<Holding>>,
    /// Records of which it is not known whether their reservation was settled with the counting store.
    pub(crate) unsettled: Vec<GenerationRecord>,
    /// Where the journal ends.
    pub(crate) end: Position,
    /// Bytes that were no entries and were cut off.
    pub(crate) torn_bytes: u64,
    /// Segments whose rest could not be read, other than the newest.
    pub(crate) damaged: Vec<u64>,
    /// Entries that this version does not know.
    pub(crate) foreign: u64,
}

/// What is not done at the place that reading has come to.
#[derive(Default)]
struct Reading {
    open: HashMap<String, (Begun, Option<Delivered>)>,
    holding: HashMap<String, Vec<Holding>>,
    unsettled: HashMap<String, GenerationRecord>,
}

/// Reads a directory.
pub(crate) fn recover(directory: &Path) -> io::Result<Recovered> {
    let numbers = segment::numbers(directory)?;
    let Sums { position, rollups, open, holding, unsettled } = sums::read(directory)?.unwrap_or_default();
    let mut found = Recovered { rollups, end: position, ..Recovered::default() };
    let mut reading = Reading {
        open: open.into_iter().map(|(begun, delivered)| (begun.id.clone(), (begun, delivered))).collect(),
        holding: HashMap::new(),
        unsettled: unsettled.into_iter().map(|record| (record.id.clone(), record)).collect(),
    };
    for held in holding {
        reading.holding.entry(held.id.clone()).or_default().push(held);
    }
    let newest = numbers.last().copied();
    for number in numbers.into_iter().filter(|number| *number >= position.segment) {
        let from = if number == position.segment { position } else { Position { segment: number, offset: 0 } };
        let mut reader = match SegmentReader::open(directory, from) {
            Ok(reader) => reader,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                found.damaged.push(number);
                continue;
            }
            Err(error) => return Err(error),
        };
        let torn = loop {
            match reader.next()? {
                Item::Entry(entry) => found.take(entry, &mut reading),
                Item::Foreign => found.foreign += 1,
                Item::End => break false,
                Item::Torn => break true,
            }
        };
        found.end = reader.position;
        if torn && Some(number) == newest {
            found.torn_bytes = truncate(directory, reader.position)?;
        } else if torn {
            found.damaged.push(number);
        }
    }
    found.open = reading.open.into_values().collect();
    found.holding = reading.holding;
    found.unsettled = reading.unsettled.into_values().collect();
    // In the order in which they began, so that a recovery is the same each time.
    found.open.sort_by(|a, b| a.0.id.cmp(&b.0.id));
    found.unsettled.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(found)
}

impl Recovered {
    fn take(&mut self, entry: Entry, reading: &mut Reading) {
        match entry {
            Entry::Begun(begun) => {
                reading.open.insert(begun.id.clone(), (begun, None));
            }
            Entry::Delivered(delivered) => {
                if let Some(request) = reading.open.get_mut(&delivered.id) {
                    request.1 = Some(delivered);
                }
            }
            Entry::Holding(held) => {
                if reading.open.contains_key(&held.id) {
                    reading.holding.entry(held.id.clone()).or_default().push(held);
                }
            }
            Entry::Ended(record) => {
                reading.open.remove(&record.id);
                reading.holding.remove(&record.id);
                match Generation::try_from(record.clone()) {
                    Ok(generation) => self.rollups.add(&generation),
                    Err(_) => self.foreign += 1,
                }
                if !(record.reservation.is_empty() && record.attempt_reservation.is_empty()) {
                    reading.unsettled.insert(record.id.clone(), record);
                }
            }
        }
    }
}

/// Cuts a segment off where its last whole entry ends; returns how much went.
fn truncate(directory: &Path, end: Position) -> io::Result<u64> {
    let file = OpenOptions::new().write(true).open(segment::path(directory, end.segment))?;
    let torn = file.metadata()?.len().saturating_sub(end.offset);
    file.set_len(end.offset)?;
    file.sync_data()?;
    Ok(torn)
}

/// The record of a request that a crash ended.
pub(crate) fn record_of(begun: &Begun, delivered: Option<&Delivered>) -> Generation {
    let nothing: Arc<str> = "".into();
    let text = |text: &str| -> Option<Arc<str>> { (!text.is_empty()).then(|| text.into()) };
    let owned = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let money = |amount: Option<&tidegate_proto::v1::Amount>| amount.map(Money::from).unwrap_or_default();
    Generation {
        id: begun.id.as_str().into(),
        upstream_id: None,
        request_id: begun.id.as_str().into(),
        session_id: None,
        created_ms: begun.created_ms,
        model: delivered.map_or(begun.model.as_str(), |delivered| &delivered.model).into(),
        provider_name: delivered.map_or(Arc::clone(&nothing), |delivered| delivered.provider_name.as_str().into()),
        endpoint: delivered.map_or(nothing, |delivered| delivered.endpoint.as_str().into()),
        router: None,
        api_type: ApiType::Completions,
        streamed: begun.streamed,
        ending: if delivered.is_some() { Ending::Cut } else { Ending::Failed },
        first_token_us: None,
        generation_us: None,
        finish_reason: None,
        native_finish_reason: None,
        usage: delivered.and_then(|delivered| delivered.usage.as_ref()).map(Usage::from).unwrap_or_default(),
        usage_estimated: true,
        charge: delivered.and_then(|delivered| delivered.charge.as_ref()).map(Charge::from).unwrap_or_default(),
        fee: money(delivered.and_then(|delivered| delivered.fee.as_ref())),
        charged: money(delivered.and_then(|delivered| delivered.charged.as_ref())),
        upstream_cost: money(delivered.and_then(|delivered| delivered.upstream_cost.as_ref())),
        is_byok: delivered.is_some_and(|delivered| delivered.own_key),
        service_tier: None,
        data_region: None,
        region: begun.region.as_str().into(),
        origin: None,
        http_referer: owned(&begun.http_referer),
        app_title: owned(&begun.app_title),
        user_agent: None,
        external_user: None,
        preset_id: None,
        key: begun.key.as_str().into(),
        organisation: text(&begun.organisation),
        workspace: text(&begun.workspace),
        error_type: "server".into(),
        recovered: true,
        attempts: Vec::new(),
    }
}

#[cfg(test)]
mod tests;
