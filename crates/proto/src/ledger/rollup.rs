//! Sums, to protobuf and back.

use std::sync::Arc;

use tidegate_ledger::{Facets, Period, Row, Sums};

use super::money;
use crate::v1;

impl From<&Row> for v1::RollupRow {
    fn from(row: &Row) -> Self {
        let (period, number) = match row.period {
            Period::Total => (v1::RollupPeriod::Total, 0),
            Period::Hour(number) => (v1::RollupPeriod::Hour, number),
            Period::Day(number) => (v1::RollupPeriod::Day, number),
        };
        let (facets, sums) = (&row.facets, &row.sums);
        Self {
            period: period.into(),
            number,
            model: facets.model.to_string(),
            provider: facets.provider.to_string(),
            endpoint: facets.endpoint.to_string(),
            key: facets.key.to_string(),
            organisation: facets.organisation.to_string(),
            workspace: facets.workspace.to_string(),
            app: facets.app.to_string(),
            region: facets.region.to_string(),
            requests: sums.requests,
            failed: sums.failed,
            cancelled: sums.cancelled,
            cut: sums.cut,
            own_key: sums.own_key,
            prompt_tokens: sums.prompt_tokens,
            completion_tokens: sums.completion_tokens,
            reasoning_tokens: sums.reasoning_tokens,
            cached_tokens: sums.cached_tokens,
            cache_write_tokens: sums.cache_write_tokens,
            cost: Some(sums.cost.into()),
            upstream: Some(sums.upstream.into()),
            fee: Some(sums.fee.into()),
            charged: Some(sums.charged.into()),
            own_key_cost: Some(sums.own_key_cost.into()),
        }
    }
}

impl From<v1::RollupRow> for Row {
    fn from(row: v1::RollupRow) -> Self {
        let period = match row.period() {
            v1::RollupPeriod::Total => Period::Total,
            v1::RollupPeriod::Hour => Period::Hour(row.number),
            v1::RollupPeriod::Day => Period::Day(row.number),
        };
        let shared = |text: &str| Arc::<str>::from(text);
        Self {
            period,
            facets: Facets {
                model: shared(&row.model),
                provider: shared(&row.provider),
                endpoint: shared(&row.endpoint),
                key: shared(&row.key),
                organisation: shared(&row.organisation),
                workspace: shared(&row.workspace),
                app: shared(&row.app),
                region: shared(&row.region),
            },
            sums: Sums {
                requests: row.requests,
                failed: row.failed,
                cancelled: row.cancelled,
                cut: row.cut,
                own_key: row.own_key,
                prompt_tokens: row.prompt_tokens,
                completion_tokens: row.completion_tokens,
                reasoning_tokens: row.reasoning_tokens,
                cached_tokens: row.cached_tokens,
                cache_write_tokens: row.cache_write_tokens,
                cost: money(row.cost.as_ref()),
                upstream: money(row.upstream.as_ref()),
                fee: money(row.fee.as_ref()),
                charged: money(row.charged.as_ref()),
                own_key_cost: money(row.own_key_cost.as_ref()),
            },
        }
    }
}
