//! `tidegate quota`: what limits mean.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::Context;
use serde_json::{Value, json};
use tidegate_quota::{Bound, Dimension, Funding, StoreDown, Topology};

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
    let policy = match limits.on_store_down() {
        StoreDown::Local => "local",
        StoreDown::Open => "open",
        StoreDown::Closed => "closed",
    };
    let mut text = format!("Limits of `{}`, broadest first. With the store away: `{policy}`.\n", args.key);
    for bound in &bounds {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "\n{}\n  {}", title(bound), counted(bound.bucket.limit.dimension));
        for sentence in &bound.words {
            let _ = writeln!(text, "  {sentence}");
        }
        let at_most = if bound.bucket.limit.dimension == Dimension::Concurrent { "At most at the same time" } else { "At most per window" };
        let _ = writeln!(text, "  {at_most}: {}", amount(bound, bound.store_up));
        let away = bound.store_down.map_or_else(|| "unbounded".to_owned(), |most| amount(bound, most));
        let _ = writeln!(text, "  {at_most} with the store away: {away}");
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
    if let Some(provider) = &limit.provider {
        let _ = write!(title, " · only at {provider}");
    }
    if let Some(percent) = limit.warn_at {
        let _ = write!(title, " · warns at {percent} %");
    }
    if limit.dimension.is_spend() && limit.funding == Funding::Prepaid {
        title.push_str(" · prepaid");
    }
    if limit.global {
        title.push_str(" · global");
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

#[cfg(test)]
mod tests {
    use std::io::{self, Read, Write};
    use std::net::{SocketAddr, TcpListener};
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    const ROOT: &str = env!("CARGO_MANIFEST_DIR");

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// An operations port that shows three shares: of a rate, of a budget, and of one that home has not said anything about.
    fn edge() -> (SocketAddr, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let share = |scope: &str, dimension: &str, amount: u64, now: Value| {
            let mut share = json!({ "scope": scope, "dimension": dimension, "model": null, "provider": null, "amount": amount });
            share.as_object_mut().unwrap().extend(now.as_object().unwrap().clone());
            share
        };
        let rate = json!({ "share": 3912, "floor": 200, "age_seconds": 1.2, "lease_left_seconds": 12.7, "home_away": false });
        let lent = json!({ "share": 61_400_000, "floor": 0, "age_seconds": 0.4, "lease_left_seconds": 588.0, "left_elsewhere": 97_300_000, "home_away": false });
        let slots = json!({ "share": 2, "floor": 2, "age_seconds": null, "lease_left_seconds": 0.0, "home_away": true });
        let answer = json!({ "key": "everything", "region": "eu", "regions": ["eu", "us", "ap"], "limits": [
            share("organisation", "rpm", 6000, rate), share("workspace", "spend_month", 200_000_000, lent), share("key", "concurrent", 60, slots),
        ]});
        let answering = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut heard = [0; 1024];
            let read = socket.read(&mut heard).unwrap();
            let body = answer.to_string();
            write!(socket, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
            String::from_utf8_lossy(&heard[..read]).lines().next().unwrap_or_default().to_owned()
        });
        (address, answering)
    }

    /// `TIDEGATE_UPDATE_GOLDEN=1 cargo nextest run --workspace -E 'binary(tidegate) and test(explain)'` writes the expected page anew.
    #[test]
    fn every_kind_of_limit_is_explained_as_the_documentation_shows() {
        let golden = format!("{ROOT}/tests/golden/quota_explain.txt");
        let (address, asked) = edge();
        let page = Page::default();
        let args = QuotaExplainArgs {
            key: "everything".to_owned(),
            config: Some(format!("{ROOT}/tests/golden/quota_explain.yaml").into()),
            edges: 4,
            most_edges: Some(6),
            regions: None,
            operations: Some(format!("http://{address}")),
            json: false,
        };
        explain(&args, &mut Output::captured(page.clone())).unwrap();
        assert_eq!(asked.join().unwrap(), "GET /quota/shares?key=everything HTTP/1.1");
        let text = String::from_utf8(page.0.lock().clone()).unwrap();
        if std::env::var_os("TIDEGATE_UPDATE_GOLDEN").is_some() {
            std::fs::write(&golden, &text).unwrap();
        }
        assert!(std::fs::read_to_string(&golden).unwrap_or_default() == text, "the page differs from {golden}:\n{text}");
        let documented = std::fs::read_to_string(format!("{ROOT}/../../docs/quotas.md")).unwrap();
        assert!(documented.contains(&text), "docs/quotas.md shows another page than {golden}");
    }

    #[test]
    fn a_share_says_when_home_is_away() {
        let share = json!({ "share": 5, "amount": 60, "floor": 2, "age_seconds": 20.0, "lease_left_seconds": 0.0, "home_away": true });
        let told = told(Unit::Count, &share, "eu");
        assert_eq!(told, "Now in region eu: 5 of 60, told 20.0 s ago, for 0.0 s, then 2. The control plane has not answered for 15 s.");
    }
}
