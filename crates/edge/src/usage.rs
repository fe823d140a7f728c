//! `GET /usage` of the operations port: the sums of this edge, for `tidegate usage`.
//!
//! Without authentication, as everything there: it is for operators, who add several edges up by asking each.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use tidegate_ledger::{Facet, Filter, Period, Row, Sums, UnixMillis};
use tidegate_runtime::ops::{OpsResponse, OpsRoute};

use crate::handler::percent_decoded;
use crate::shared::Shared;

/// The route.
pub(crate) fn route(shared: &Arc<Shared>) -> OpsRoute {
    let shared = Arc::clone(shared);
    OpsRoute::new(
        "/usage",
        "what was used and charged, by ?by=model,provider,endpoint,key,organisation,workspace,app,region",
        move |request| {
            if request.path != "/usage" {
                return None;
            }
            let text = |name: &str| request.parameter(name).map(percent_decoded).filter(|text| !text.is_empty());
            Some(match Question::read(text).map(|question| question.answer(&shared)) {
                Ok(answer) => OpsResponse::json(200, answer.to_string()),
                Err(reason) => OpsResponse::json(400, json!({ "error": reason }).to_string()),
            })
        },
    )
}

/// What is asked.
struct Question {
    by: Vec<Facet>,
    period: PeriodName,
    filter: Filter,
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
        Ok(Self { by, period, filter })
    }

    fn answer(&self, shared: &Shared) -> Value {
        let rollups = shared.ledger.rollups();
        let mut rows = if self.period == PeriodName::Hour { rollups.hours(&self.filter) } else { rollups.days(&self.filter) };
        drop(rollups);
        if self.period == PeriodName::All {
            for row in &mut rows {
                row.period = Period::Total;
            }
        }
        let rows = Row::grouped(rows, &self.by);
        let total = Row::sum(&rows);
        json!({
            "region": &*shared.region,
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
