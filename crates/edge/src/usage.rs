//! `GET /usage` of the operations port: the sums of this edge's region where it has a ledger of its own, else of this edge, for
//! `tidegate usage`. The answer says which of them it is, so that nobody adds a region up twice.
//!
//! Without authentication, as everything there: it is for operators.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use tidegate_ledger::{Facet, Filter, Period, Row, Sums, UnixMillis};
use tidegate_quota::StoreError;
use tidegate_runtime::ops::{OpsAnswer, OpsResponse, OpsRoute};

use crate::handler::percent_decoded;
use crate::shared::Shared;

/// The route.
pub(crate) fn route(shared: &Arc<Shared>) -> OpsRoute {
    let shared = Arc::clone(shared);
    OpsRoute::asking(
        "/usage",
        "what the region was used for and charged, by ?by=model,provider,endpoint,key,organisation,workspace,app,region; ?scope=edge: by this edge",
        move |request| {
            if request.path != "/usage" {
                return None;
            }
            let text = |name: &str| request.parameter(name).map(percent_decoded).filter(|text| !text.is_empty());
            Some(match Question::read(text) {
                Ok(question) if question.of_region && shared.sums.region().is_some() => {
                    let shared = Arc::clone(&shared);
                    OpsAnswer::Later(Box::pin(async move { question.answer_for_region(&shared).await }))
                }
                Ok(question) => OpsAnswer::Now(OpsResponse::json(200, question.answer(&shared).to_string())),
                Err(reason) => OpsAnswer::Now(OpsResponse::json(400, json!({ "error": reason }).to_string())),
            })
        },
    )
}

/// What is asked.
struct Question {
    by: Vec<Facet>,
    period: PeriodName,
    filter: Filter,
    /// Of the region, where there is a ledger of it.
    of_region: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PeriodName {
    Hour,
    Day,
    /// One row over all days.
    All,
}

impl Question {
    fn read(text: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let mut by = Vec::new();
        for name in text("by").as_deref().unwrap_or("model").split(',') {
            by.push(Facet::parse(name).ok_or_else(|| format!("`{name}` is nothing that use can be shown by"))?);
        }
        let period = match text("period").as_deref() {
            None | Some("day") => PeriodName::Day,
            Some("hour") => PeriodName::Hour,
            Some("all") => PeriodName::All,
            Some(other) => return Err(format!("`{other}` is not a period: `hour`, `day` or `all`")),
        };
        let of_region = match text("scope").as_deref() {
            None | Some("region") => true,
            Some("edge") => false,
            Some(other) => return Err(format!("`{other}` is not a scope: `region` or `edge`")),
        };
        let number = |name: &str| match text(name) {
            None => Ok(0),
            Some(value) => value.parse().map_err(|_| format!("`{name}` is the number of an hour or day since 1970")),
        };
        let filter = Filter {
            key: text("key"),
            organisation: text("organisation"),
            workspace: text("workspace"),
            from: number("from")?,
            until: number("until")?,
        };
        Ok(Self { by, period, filter, of_region })
    }

    fn answer(&self, shared: &Shared) -> Value {
        let rollups = shared.ledger.rollups();
        let rows = if self.period == PeriodName::Hour { rollups.hours(&self.filter) } else { rollups.days(&self.filter) };
        drop(rollups);
        self.shown(shared, rows, "edge")
    }

    async fn answer_for_region(&self, shared: &Shared) -> OpsResponse {
        match self.rows_of_region(shared).await {
            Ok(rows) => OpsResponse::json(200, self.shown(shared, rows, "region").to_string()),
            Err(error) => {
                let reason = format!("{error}; `scope=edge` asks for what this edge alone has served");
                OpsResponse::json(503, json!({ "error": reason }).to_string())
            }
        }
    }

    async fn rows_of_region(&self, shared: &Shared) -> Result<Vec<Row>, StoreError> {
        let Some(region) = shared.sums.region() else { return Ok(Vec::new()) };
        let (now, retention) = (shared.clock.unix_millis(), shared.config.ledger.retention);
        let (this, kept) = match self.period {
            PeriodName::Hour => (Period::hour_of(now).number(), retention.hours),
            PeriodName::Day | PeriodName::All => (Period::day_of(now).number(), retention.days),
        };
        let last = if self.filter.until == 0 { this } else { this.min(self.filter.until.saturating_sub(1)) };
        let periods = self.filter.from.max(this.saturating_sub(kept))..=last;
        let periods = periods.map(|number| if self.period == PeriodName::Hour { Period::Hour(number) } else { Period::Day(number) });
        region.everybody(&self.filter, &periods.collect::<Vec<_>>()).await
    }

    /// `scope` says whose sums these are.
    fn shown(&self, shared: &Shared, mut rows: Vec<Row>, scope: &str) -> Value {
        if self.period == PeriodName::All {
            for row in &mut rows {
                row.period = Period::Total;
            }
        }
        let rows = Row::grouped(rows, &self.by);
        let total = Row::sum(&rows);
        json!({
            "region": &*shared.region,
            "scope": scope,
            "rows": rows.iter().map(|row| self.row(row)).collect::<Vec<Value>>(),
            "total": sums(&total),
        })
    }

    fn row(&self, row: &Row) -> Value {
        let mut object = Map::new();
        if row.period != Period::Total {
            object.insert("period".to_owned(), UnixMillis(row.period.begins_ms()).to_string().into());
        }
        for facet in &self.by {
            object.insert(facet.as_str().to_owned(), row.facets.get(*facet).as_ref().into());
        }
        if let Value::Object(counted) = sums(&row.sums) {
            object.extend(counted);
        }
        Value::Object(object)
    }
}

/// Money as exact decimal text: a JSON number would lose digits in most readers.
fn sums(sums: &Sums) -> Value {
    json!({
        "requests": sums.requests,
        "failed": sums.failed,
        "cancelled": sums.cancelled,
        "cut": sums.cut,
        "prompt_tokens": sums.prompt_tokens,
        "completion_tokens": sums.completion_tokens,
        "reasoning_tokens": sums.reasoning_tokens,
        "cached_tokens": sums.cached_tokens,
        "cost_usd": sums.cost.to_string(),
        "fee_usd": sums.fee.to_string(),
        "charged_usd": sums.charged.to_string(),
        "upstream_usd": sums.upstream.to_string(),
    })
}
