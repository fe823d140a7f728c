//! `tidegate quota`: what limits mean.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::Context;
use serde_json::{Value, json};
use tidegate_quota::{Bound, Dimension, Funding, Topology};

use super::{BAD_CONFIG, operations, show_problems};
use crate::cli::QuotaExplainArgs;
use crate::config::{self, Environment, Secrets};
use crate::output::Output;

/// Every limit of a key: how it counts, and how far off it can be in each failure.
pub(super) fn explain(args: &QuotaExplainArgs, output: &mut Output) -> anyhow::Result<ExitCode> {
    let now = args.operations.as_deref().map(|url| shares_now(url, &args.key)).transpose()?;
    let Some(path) = &args.config else {
        let now = now.context("give a configuration, or the operations port of an edge: `--operations http://127.0.0.1:9090`")?;
        return explain_now(&now, args, output);
    };
    let (config, report) = config::load(path, &Environment::of_process(), Secrets::Optional);
    let Some(config) = config else {
        show_problems(&report, output);
        return Ok(ExitCode::from(BAD_CONFIG));
    };
    let Some(limits) = tidegate_edge::limits_of(&config.mesh, &args.key)? else {
        output.line(format_args!("`{}` has no limits, and neither have its workspace and its organisation.", args.key));
        return Ok(ExitCode::SUCCESS);
    };
    let sharing = u32::try_from(config.mesh.defaults.quota_regions.len()).unwrap_or(u32::MAX);
    let topology = Topology {
        known_edges: args.edges,
        most_edges: args.most_edges.unwrap_or(args.edges),
        regions: args.regions.unwrap_or(sharing).max(1),
        sharing,
        shared_store: config.edge.quota.is_shared(),
    };
    let bounds = tidegate_quota::explain(&limits, limits.select_all(), topology);
    if args.json {
        let limits = bounds.iter().map(|bound| shown(bound, now.as_ref())).collect::<Vec<Value>>();
        output.line(serde_json::to_string_pretty(&limits)?);
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
        if let Some(share) = now.as_ref().and_then(|now| share_of(now, bound)) {
            let region = now.as_ref().and_then(|now| now["region"].as_str()).unwrap_or_default();
            let _ = writeln!(text, "  {}", told(Unit::of(bound.bucket.limit.dimension), share, region));
        }
        if bound.failover > 0 {
            let _ = writeln!(text, "  More after a fail-over that loses its last writes: {}", amount(bound, bound.failover));
        }
    }
    output.text(text);
    Ok(ExitCode::SUCCESS)
}

/// The shared limits of a key that only the control plane knows, as an edge shows them.
fn explain_now(now: &Value, args: &QuotaExplainArgs, output: &mut Output) -> anyhow::Result<ExitCode> {
    if args.json {
        output.line(serde_json::to_string_pretty(now)?);
        return Ok(ExitCode::SUCCESS);
    }
    let limits = now["limits"].as_array().map_or(&[][..], Vec::as_slice);
    if limits.is_empty() {
        output.line(format_args!("No limit of `{}` is shared by regions.", args.key));
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = format!("Limits of `{}` that regions share, as this edge has them.\n", args.key);
    let region = now["region"].as_str().unwrap_or_default();
    for share in limits {
        let unit = Unit::named(share["dimension"].as_str().unwrap_or_default());
        // Writing to a String cannot fail.
        let _ = writeln!(text, "\n{} · {}", share["limit"].as_str().unwrap_or_default(), unit.shown(share["amount"].as_u64().unwrap_or(0)));
        let _ = writeln!(text, "  {}", told(unit, share, region));
        for sentence in share["words"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let _ = writeln!(text, "  {sentence}");
        }
        let _ = writeln!(text, "  At most in all regions per window: {}", unit.shown(share["most_per_window"].as_u64().unwrap_or(0)));
    }
    output.text(text);
    Ok(ExitCode::SUCCESS)
}

/// What the edge behind an operations port says of a key's shares.
fn shares_now(url: &str, key: &str) -> anyhow::Result<Value> {
    let path = format!("/quota/shares?key={}", percent_encoded(key));
    let (status, body) = operations::wait(operations::get(url, &path))?;
    let answer: Value = serde_json::from_str(&body).with_context(|| format!("the answer of {url} is not JSON"))?;
    anyhow::ensure!(status.is_success(), "{url}: {}", answer["error"].as_str().unwrap_or("no such route: is this an edge?"));
    Ok(answer)
}

/// The share of one limit among those that an edge shows.
fn share_of<'a>(now: &'a Value, bound: &Bound) -> Option<&'a Value> {
    let limit = &bound.bucket.limit;
    let same = |share: &&Value| {
        share["scope"] == limit.scope.as_str()
            && share["dimension"] == limit.dimension.as_str()
            && share["model"].as_str() == limit.model.as_deref()
            && share["provider"].as_str() == limit.provider.as_deref()
    };
    now["limits"].as_array()?.iter().find(same)
}

/// A share as it is now, in a sentence.
fn told(unit: Unit, share: &Value, region: &str) -> String {
    let number = |name: &str| unit.shown(share[name].as_u64().unwrap_or(0));
    let Some(age) = share["age_seconds"].as_f64() else {
        return format!("Now in region {region}: not assigned; {} is reserved.", number("floor"));
    };
    let lease = share["lease_left_seconds"].as_f64().unwrap_or(0.0);
    let away = if share["home_away"] == true { " The control plane has not answered for 15 s." } else { "" };
    if !share["left_elsewhere"].is_null() {
        return format!(
            "Now in region {region}: lent {} since the period began, told {age:.1} s ago, for {lease:.0} s; {} is neither spent nor lent elsewhere.{away}",
            number("share"),
            number("left_elsewhere")
        );
    }
    format!(
        "Now in region {region}: {} of {}, told {age:.1} s ago, for {lease:.1} s, then {}.{away}",
        number("share"),
        number("amount"),
        number("floor")
    )
}

/// How an amount is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Dollars,
    Count,
}

impl Unit {
    fn of(dimension: Dimension) -> Self {
        if dimension.is_spend() { Self::Dollars } else { Self::Count }
    }

    fn named(dimension: &str) -> Self {
        Dimension::from_word(dimension).map_or(Self::Count, Self::of)
    }

    /// Micro-dollars as dollars.
    fn shown(self, amount: u64) -> String {
        match self {
            Self::Dollars => format!("${}", tidegate_ledger::Money::from_picodollars(i128::from(amount) * 1_000_000)),
            Self::Count => amount.to_string(),
        }
    }
}

fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            // Writing to a String cannot fail.
            _ => drop(write!(out, "%{byte:02X}")),
        }
        out
    })
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
    Unit::of(bound.bucket.limit.dimension).shown(amount)
}

fn shown(bound: &Bound, now: Option<&Value>) -> Value {
    let limit = &bound.bucket.limit;
    json!({
        "now": now.and_then(|now| share_of(now, bound)),
        "limit": limit,
        "most_per_window": bound.store_up,
        "most_per_window_store_down": bound.store_down,
        "most_at_once": bound.burst,
        "more_after_failover": bound.failover,
        "counted": counted(limit.dimension),
        "words": bound.words,
    })
}
