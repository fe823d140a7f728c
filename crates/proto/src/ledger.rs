//! Records and sums of the ledger, to protobuf and back.
//!
//! Nothing is rounded on the way. What a newer version wrote and this one does not know (an ending, a kind of call) is an error, because
//! a record that is counted wrongly is worse than one that is reported.

mod entry;
mod rollup;

use std::sync::Arc;

use thiserror::Error;
use tidegate_ledger::{ApiType, AttemptRecord, Charge, Ending, Generation, Money, Usage};

pub use self::entry::encode_ended;
use crate::v1;

/// Why a message is not a record.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RecordError {
    /// Written by a newer version.
    #[error("`{value}` is not a known {what}: it was written by a newer version")]
    Unknown {
        /// Which field.
        what: &'static str,
        /// What it says.
        value: String,
    },
    /// Beyond what the field can hold.
    #[error("{what} is out of range")]
    OutOfRange {
        /// Which field.
        what: &'static str,
    },
}

/// Pico-dollars in a dollar.
const PICO: i128 = SMALL_PICO as i128;
const SMALL_PICO: i64 = 1_000_000_000_000;

impl From<Money> for v1::Amount {
    fn from(amount: Money) -> Self {
        if let Ok(small) = i64::try_from(amount.picodollars()) {
            // Below nine million dollars, as all amounts of one request are: a division in one instruction.
            return Self { dollars: small / SMALL_PICO, picodollars: small % SMALL_PICO };
        }
        let (dollars, picodollars) = (amount.picodollars() / PICO, amount.picodollars() % PICO);
        // Nine quintillion dollars: no sum of charges reaches it.
        let dollars = i64::try_from(dollars).unwrap_or(if dollars < 0 { i64::MIN } else { i64::MAX });
        Self { dollars, picodollars: i64::try_from(picodollars).unwrap_or_default() }
    }
}

impl From<&v1::Amount> for Money {
    fn from(amount: &v1::Amount) -> Self {
        Money::from_picodollars(i128::from(amount.dollars) * PICO + i128::from(amount.picodollars))
    }
}

pub(crate) fn money(amount: Option<&v1::Amount>) -> Money {
    amount.map(Money::from).unwrap_or_default()
}

impl From<&Usage> for v1::Usage {
    fn from(usage: &Usage) -> Self {
        Self {
            prompt_tokens: usage.prompt_tokens,
            cached_tokens: usage.cached_tokens,
            cache_write_tokens: usage.cache_write_tokens,
            cache_write_1h_tokens: usage.cache_write_1h_tokens,
            completion_tokens: usage.completion_tokens,
            reasoning_tokens: usage.reasoning_tokens,
            image_count: usage.image_count,
            audio_tokens: usage.audio_tokens,
        }
    }
}

impl From<&v1::Usage> for Usage {
    fn from(usage: &v1::Usage) -> Self {
        Self {
            prompt_tokens: usage.prompt_tokens,
            cached_tokens: usage.cached_tokens,
            cache_write_tokens: usage.cache_write_tokens,
            cache_write_1h_tokens: usage.cache_write_1h_tokens,
            completion_tokens: usage.completion_tokens,
            reasoning_tokens: usage.reasoning_tokens,
            image_count: usage.image_count,
            audio_tokens: usage.audio_tokens,
        }
    }
}

impl From<&Charge> for v1::Charge {
    fn from(charge: &Charge) -> Self {
        Self {
            total: Some(charge.total.into()),
            prompt: Some(charge.prompt.into()),
            completion: Some(charge.completion.into()),
            request: Some(charge.request.into()),
            cache_discount: Some(charge.cache_discount.into()),
        }
    }
}

impl From<&v1::Charge> for Charge {
    fn from(charge: &v1::Charge) -> Self {
        Self {
            total: money(charge.total.as_ref()),
            prompt: money(charge.prompt.as_ref()),
            completion: money(charge.completion.as_ref()),
            request: money(charge.request.as_ref()),
            cache_discount: money(charge.cache_discount.as_ref()),
        }
    }
}

impl From<&Generation> for v1::GenerationRecord {
    fn from(record: &Generation) -> Self {
        let owned = |text: &Option<Arc<str>>| text.as_deref().map(str::to_owned);
        Self {
            id: record.id.to_string(),
            upstream_id: record.upstream_id.clone(),
            request_id: record.request_id.to_string(),
            session_id: record.session_id.clone(),
            created_ms: record.created_ms,
            model: record.model.to_string(),
            provider_name: record.provider_name.to_string(),
            endpoint: record.endpoint.to_string(),
            router: owned(&record.router),
            api_type: record.api_type.as_str().to_owned(),
            streamed: record.streamed,
            ending: record.ending.as_str().to_owned(),
            first_token_us: record.first_token_us,
            generation_us: record.generation_us,
            finish_reason: owned(&record.finish_reason),
            native_finish_reason: record.native_finish_reason.clone(),
            usage: Some((&record.usage).into()),
            usage_estimated: record.usage_estimated,
            charge: Some((&record.charge).into()),
            fee: Some(record.fee.into()),
            charged: Some(record.charged.into()),
            upstream_cost: Some(record.upstream_cost.into()),
            own_key: record.is_byok,
            service_tier: record.service_tier.clone(),
            data_region: owned(&record.data_region),
            region: record.region.to_string(),
            origin: record.origin.clone(),
            http_referer: record.http_referer.clone(),
            app_title: record.app_title.clone(),
            user_agent: record.user_agent.clone(),
            external_user: record.external_user.clone(),
            preset_id: owned(&record.preset_id),
            key: record.key.to_string(),
            organisation: owned(&record.organisation),
            workspace: owned(&record.workspace),
            error_type: record.error_type.to_string(),
            recovered: record.recovered,
            attempts: record.attempts.iter().map(Into::into).collect(),
            reservation: Default::default(),
            attempt_reservation: Default::default(),
        }
    }
}

impl TryFrom<v1::GenerationRecord> for Generation {
    type Error = RecordError;

    fn try_from(record: v1::GenerationRecord) -> Result<Self, RecordError> {
        let api_type = ApiType::parse(&record.api_type)
            .ok_or_else(|| RecordError::Unknown { what: "kind of call", value: record.api_type.clone() })?;
        let ending = Ending::ALL
            .into_iter()
            .find(|ending| ending.as_str() == record.ending)
            .ok_or_else(|| RecordError::Unknown { what: "ending", value: record.ending.clone() })?;
        let shared = |text: Option<String>| text.map(Arc::<str>::from);
        Ok(Self {
            id: record.id.into(),
            upstream_id: record.upstream_id,
            request_id: record.request_id.into(),
            session_id: record.session_id,
            created_ms: record.created_ms,
            model: record.model.into(),
            provider_name: record.provider_name.into(),
            endpoint: record.endpoint.into(),
            router: shared(record.router),
            api_type,
            streamed: record.streamed,
            ending,
            first_token_us: record.first_token_us,
            generation_us: record.generation_us,
            finish_reason: shared(record.finish_reason),
            native_finish_reason: record.native_finish_reason,
            usage: record.usage.as_ref().map(Usage::from).unwrap_or_default(),
            usage_estimated: record.usage_estimated,
            charge: record.charge.as_ref().map(Charge::from).unwrap_or_default(),
            fee: money(record.fee.as_ref()),
            charged: money(record.charged.as_ref()),
            upstream_cost: money(record.upstream_cost.as_ref()),
            is_byok: record.own_key,
            service_tier: record.service_tier,
            data_region: shared(record.data_region),
            region: record.region.into(),
            origin: record.origin,
            http_referer: record.http_referer,
            app_title: record.app_title,
            user_agent: record.user_agent,
            external_user: record.external_user,
            preset_id: shared(record.preset_id),
            key: record.key.into(),
            organisation: shared(record.organisation),
            workspace: shared(record.workspace),
            error_type: record.error_type.into(),
            recovered: record.recovered,
            attempts: record.attempts.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
        })
    }
}

impl From<&AttemptRecord> for v1::AttemptRecord {
    fn from(attempt: &AttemptRecord) -> Self {
        Self {
            number: attempt.number.into(),
            provider_name: attempt.provider_name.to_string(),
            model: attempt.model.to_string(),
            endpoint: attempt.endpoint.to_string(),
            status: attempt.status.map(Into::into),
            outcome: attempt.outcome.to_string(),
            latency_us: attempt.latency_us,
            service_tier: attempt.service_tier.clone(),
            upstream_id: attempt.upstream_id.clone(),
            own_key: attempt.is_byok,
        }
    }
}

impl TryFrom<v1::AttemptRecord> for AttemptRecord {
    type Error = RecordError;

    fn try_from(attempt: v1::AttemptRecord) -> Result<Self, RecordError> {
        let out_of_range = |what| move |_| RecordError::OutOfRange { what };
        Ok(Self {
            number: attempt.number.try_into().map_err(out_of_range("the number of an attempt"))?,
            provider_name: attempt.provider_name.into(),
            model: attempt.model.into(),
            endpoint: attempt.endpoint.into(),
            status: attempt.status.map(TryInto::try_into).transpose().map_err(out_of_range("the status of an attempt"))?,
            outcome: attempt.outcome.into(),
            latency_us: attempt.latency_us,
            service_tier: attempt.service_tier,
            upstream_id: attempt.upstream_id,
            is_byok: attempt.own_key,
        })
    }
}

#[cfg(test)]
mod tests;
