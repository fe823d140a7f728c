//! `tidegate quota`: what limits mean.

use std::fmt::Write as _;
use std::process::ExitCode;

use serde_json::{Value, json};
use tidegate_quota::{Bound, Dimension, Funding, Topology};

use super::{BAD_CONFIG, show_problems};
use crate::cli::QuotaExplainArgs;
use crate::config::{self, Environment, Secrets};
use crate::output::Output;

/// Every limit of a key: how it counts, and how far off it can be in each failure.
pub(super) fn explain(args: &QuotaExplainArgs, output: &mut Output) -> anyhow::Result<ExitCode> {
    let (config, report) = config::load(&args.config, &Environment::of_process(), Secrets::Optional);
    let Some(config) = config else {
        show_problems(&report, output);
        return Ok(ExitCode::from(BAD_CONFIG));
    };
    let Some(limits) = tidegate_edge::limits_of(&config.mesh, &args.key)? else {
        output.line(format_args!("`{}` has no limits, and neither have its workspace and its organisation.", args.key));
        return Ok(ExitCode::SUCCESS);
    };
    let topology = Topology {
        known_edges: args.edges,
        most_edges: args.most_edges.unwrap_or(args.edges),
        regions: args.regions,
        shared_store: config.edge.quota.is_shared(),
    };
    let bounds = tidegate_quota::explain(&limits, limits.select_all(), topology);
    if args.json {
        output.line(serde_json::to_string_pretty(&bounds.iter().map(shown).collect::<Vec<Value>>())?);
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = format!("Limits of `{}`, broadest first. On a store that is away: {:?}.\n", args.key, limits.on_store_down());
    for bound in &bounds {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "\n{}\n  {}", title(bound), counted(bound.bucket.limit.dimension));
        for sentence in &bound.words {
            let _ = writeln!(text, "  {sentence}");
        }
        let _ = writeln!(text, "  At most per window: {}", amount(bound, bound.store_up));
        let away = bound.store_down.map_or_else(|| "unbounded".to_owned(), |most| amount(bound, most));
        let _ = writeln!(text, "  At most per window with the store away: {away}");
        if bound.failover > 0 {
            let _ = writeln!(text, "  More after a fail-over that loses its last writes: {}", amount(bound, bound.failover));
        }
    }
    output.text(text);
    Ok(ExitCode::SUCCESS)
}

fn title(bound: &Bound) -> String {
    let limit = &bound.bucket.limit;
    let mut title = format!("{} · {} · {}", limit.scope, limit.dimension, amount(bound, limit.amount));
    if let Some(model) = &limit.model {
        let _ = write!(title, " · only {model}");
    }
    if let Some(percent) = limit.warn_at {
        let _ = write!(title, " · warns at {percent} %");
    }
    if limit.dimension.is_spend() && limit.funding == Funding::Prepaid {
        title.push_str(" · prepaid");
    }
    if limit.shadow {
        title.push_str(" · shadow");
    }
    title
}

/// How a dimension counts, in one sentence.
fn counted(dimension: Dimension) -> &'static str {
    match dimension {
        Dimension::RequestsPerMinute => "Each request takes one; they come back evenly over the minute.",
        Dimension::TokensPerMinute(_) => {
            "An estimate is held when a request begins and corrected when it ends; tokens come back evenly over the minute."
        }
        Dimension::Concurrent => "A slot is held while a request runs. The slots of an edge that dies are free after 60 s.",
        Dimension::Spend(_) => {
            "An estimate is held when a request begins and replaced by the exact charge when it ends; below a tenth of the budget the most that \
             the answer can cost is held, so that requests that give `max_tokens` cannot outrun it."
        }
        Dimension::FreeRequestsPerDay => "Each request to a model without a price takes one, until midnight.",
    }
}

fn amount(bound: &Bound, amount: u64) -> String {
    if bound.bucket.limit.dimension.is_spend() {
        return format!("${}", tidegate_ledger::Money::from_picodollars(i128::from(amount) * 1_000_000));
    }
    amount.to_string()
}

fn shown(bound: &Bound) -> Value {
    let limit = &bound.bucket.limit;
    json!({
        "limit": limit,
        "most_per_window": bound.store_up,
        "most_per_window_store_down": bound.store_down,
        "most_at_once": bound.burst,
        "more_after_failover": bound.failover,
        "counted": counted(limit.dimension),
        "words": bound.words,
    })
}
