//! `tidegate usage`: the sums of a region, or of single edges.

use std::collections::{BTreeMap, HashSet};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use clap::ValueEnum;
use serde_json::{Map, Value};
use tidegate_ledger::Money;

use super::operations;
use crate::cli::{UsageArgs, UsagePeriod};
use crate::config::lower::unix_seconds;
use crate::output::Output;

pub(super) fn run(args: &UsageArgs, output: &mut Output) -> anyhow::Result<ExitCode> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?.as_secs();
    let path = path(args, now)?;
    let mut rows = Rows::default();
    let mut regions = HashSet::new();
    for url in &args.url {
        match operations::wait(operations::get(url, &path))? {
            // Every edge of a region with a ledger tells the same.
            (http::StatusCode::OK, text) if region_of(&text).is_some_and(|region| !regions.insert(region)) => {}
            (http::StatusCode::OK, text) => rows.add(&text, args).with_context(|| format!("read the answer of {url}"))?,
            (status, text) => bail!("the edge at {url} answered {status}: {text}"),
        }
    }
    if args.json {
        output.line(serde_json::to_string_pretty(&rows.json(args))?);
    } else if args.csv {
        output.text(rows.csv(args));
    } else {
        output.text(rows.table(args));
    }
    Ok(ExitCode::SUCCESS)
}

/// The region whose sums these are; `None` for those of a single edge.
fn region_of(text: &str) -> Option<String> {
    let answer: Value = serde_json::from_str(text).ok()?;
    (answer["scope"] == "region").then(|| answer["region"].as_str().map(str::to_owned))?
}

/// The question as the operations port understands it.
fn path(args: &UsageArgs, now: u64) -> anyhow::Result<String> {
    let today = now / DAY;
    let day = |text: &Option<String>, default: u64| match text {
        None => Ok(default),
        Some(text) => match unix_seconds(text).filter(|seconds| seconds % DAY == 0) {
            Some(seconds) => Ok(seconds / DAY),
            None => bail!("`{text}` is not a day, such as 2026-11-28"),
        },
    };
    let usual = if args.period == UsagePeriod::Hour { 1 } else { 30 };
    let (from, until) = (day(&args.since, today.saturating_sub(usual))?, day(&args.until, today)? + 1);
    if from >= until {
        bail!("the last day is before the first one");
    }
    let factor = if args.period == UsagePeriod::Hour { 24 } else { 1 };
    let names: Vec<String> = args.by.iter().map(|facet| name(*facet)).collect();
    let mut path = format!("/usage?by={}&period={}&from={}&until={}", names.join(","), name(args.period), from * factor, until * factor);
    for (parameter, value) in [("key", &args.key), ("organisation", &args.organisation), ("workspace", &args.workspace)] {
        if let Some(value) = value {
            path.push_str(&format!("&{parameter}={}", encoded(value)));
        }
    }
    if args.edge {
        path.push_str("&scope=edge");
    }
    Ok(path)
}

/// The word of the command line, which is that of the operations port too.
fn name(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// Rows of all edges, added up by what they are about.
#[derive(Default)]
struct Rows(BTreeMap<Vec<String>, Counted>);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counted {
    counts: [u64; COUNTS.len()],
    amounts: [Money; AMOUNTS.len()],
}

impl Rows {
    fn add(&mut self, text: &str, args: &UsageArgs) -> anyhow::Result<()> {
        let answer: Value = serde_json::from_str(text).context("the answer is not JSON")?;
        for row in answer["rows"].as_array().context("the answer has no rows")? {
            let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
            let mut key = vec![text("period")];
            key.extend(args.by.iter().map(|facet| text(&name(*facet))));
            let sum = self.0.entry(key).or_default();
            for (sum, name) in sum.counts.iter_mut().zip(COUNTS) {
                *sum = sum.saturating_add(row[name].as_u64().with_context(|| format!("`{name}` is missing"))?);
            }
            for (sum, name) in sum.amounts.iter_mut().zip(AMOUNTS) {
                let amount = row[name].as_str().and_then(|text| Money::parse_usd(text).ok());
                *sum += amount.with_context(|| format!("`{name}` is missing"))?;
            }
        }
        Ok(())
    }

    /// Names of the columns.
    fn head(args: &UsageArgs) -> Vec<String> {
        let period = (args.period != UsagePeriod::All).then(|| "period".to_owned());
        let facets = args.by.iter().map(|facet| name(*facet));
        period.into_iter().chain(facets).chain(COUNTS.into_iter().chain(AMOUNTS).map(str::to_owned)).collect()
    }

    /// The rows as texts, a sum at the end of which the names are empty.
    fn texts(&self, args: &UsageArgs) -> Vec<Vec<String>> {
        let cells = |key: &[String], counted: &Counted| -> Vec<String> {
            let skipped = usize::from(args.period == UsagePeriod::All);
            let shown = key.iter().skip(skipped).map(|text| match args.period {
                UsagePeriod::Day => text.strip_suffix("T00:00:00.000Z").unwrap_or(text).to_owned(),
                UsagePeriod::Hour | UsagePeriod::All => text.replace(":00:00.000Z", "h"),
            });
            shown.chain(counted.counts.iter().map(u64::to_string)).chain(counted.amounts.iter().map(Money::to_string)).collect()
        };
        self.0.iter().map(|(key, counted)| cells(key, counted)).collect()
    }

    fn json(&self, args: &UsageArgs) -> Value {
        let head = Self::head(args);
        let names = head.len() - COUNTS.len() - AMOUNTS.len();
        let object = |row: Vec<String>| -> Value {
            let value = |(at, text): (usize, String)| match text.parse::<u64>() {
                Ok(number) if (names..names + COUNTS.len()).contains(&at) => number.into(),
                _ => Value::String(text),
            };
            head.iter().cloned().zip(row.into_iter().enumerate().map(value)).collect::<Map<_, _>>().into()
        };
        self.texts(args).into_iter().map(object).collect()
    }

    fn csv(&self, args: &UsageArgs) -> String {
        let quoted = |text: &String| {
            // What a spreadsheet would take for a formula is made a text; names of applications are chosen by callers.
            let text = if text.starts_with(['=', '+', '@', '\t']) { format!("'{text}") } else { text.clone() };
            if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
        };
        let line = |row: &[String]| row.iter().map(quoted).collect::<Vec<_>>().join(",") + "\n";
        std::iter::once(Self::head(args)).chain(self.texts(args)).map(|row| line(&row)).collect()
    }

    fn table(&self, args: &UsageArgs) -> String {
        if self.0.is_empty() {
            return "Nothing was used in this time.\n".to_owned();
        }
        let mut total = Counted::default();
        for counted in self.0.values() {
            total.add(counted);
        }
        let head = Self::head(args);
        let names = head.len() - COUNTS.len() - AMOUNTS.len();
        let mut rows: Vec<Vec<String>> =
            std::iter::once(head.iter().map(|name| name.replace('_', " ")).collect()).chain(self.texts(args)).collect();
        let mut last = vec![String::new(); names];
        if let Some(first) = last.first_mut() {
            "total".clone_into(first);
        }
        last.extend(total.counts.iter().map(u64::to_string).chain(total.amounts.iter().map(Money::to_string)));
        rows.push(last);
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        let line = |row: &Vec<String>| {
            let cell = |(at, text): (usize, &String)| {
                // Names to the left, numbers to the right. Control characters of an application's name are not for terminals.
                let text: String = text.chars().filter(|c| !c.is_control()).collect();
                let width = widths[at];
                if at < names { format!("{text:<width$}") } else { format!("{text:>width$}") }
            };
            row.iter().enumerate().map(cell).collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
        };
        rows.iter().map(line).collect()
    }
}

impl Counted {
    fn add(&mut self, other: &Self) {
        for (sum, more) in self.counts.iter_mut().zip(other.counts) {
            *sum = sum.saturating_add(more);
        }
        for (sum, more) in self.amounts.iter_mut().zip(other.amounts) {
            *sum += more;
        }
    }
}

const COUNTS: [&str; 6] = ["requests", "failed", "cancelled", "cut", "prompt_tokens", "completion_tokens"];
const AMOUNTS: [&str; 3] = ["cost_usd", "fee_usd", "charged_usd"];
/// Seconds.
const DAY: u64 = 86_400;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::UsageFacet;

    fn args(by: Vec<UsageFacet>) -> UsageArgs {
        UsageArgs {
            by,
            period: UsagePeriod::Day,
            since: Some("2026-11-01".to_owned()),
            until: Some("2026-11-02".to_owned()),
            key: Some("a b&c".to_owned()),
            organisation: None,
            workspace: None,
            json: false,
            csv: false,
            edge: false,
            url: Vec::new(),
        }
    }

    fn answer(app: &str, charged: &str) -> String {
        serde_json::json!({ "rows": [{
            "period": "2026-11-01T00:00:00.000Z", "app": app, "requests": 2, "failed": 0, "cancelled": 0, "cut": 1,
            "prompt_tokens": 10, "completion_tokens": 20, "cost_usd": "0.1", "fee_usd": "0", "charged_usd": charged,
        }] })
        .to_string()
    }

    #[test]
    fn the_question_names_days_and_keeps_odd_characters() {
        let asked = path(&args(vec![UsageFacet::Key, UsageFacet::Model]), 0).unwrap();
        assert_eq!(asked, "/usage?by=key,model&period=day&from=20758&until=20760&key=a%20b%26c");
        let backwards = UsageArgs { since: Some("2026-11-03".to_owned()), ..args(Vec::new()) };
        assert!(path(&backwards, 0).is_err());
    }

    #[test]
    fn a_region_is_known_by_its_name_and_an_edge_is_not_one() {
        assert_eq!(region_of(r#"{ "region": "eu", "scope": "region", "rows": [] }"#).as_deref(), Some("eu"));
        assert_eq!(region_of(r#"{ "region": "eu", "scope": "edge", "rows": [] }"#), None);
        assert!(path(&UsageArgs { edge: true, ..args(Vec::new()) }, 0).unwrap().ends_with("&scope=edge"));
    }

    #[test]
    fn edges_are_added_up_exactly() {
        let args = args(vec![UsageFacet::App]);
        let mut rows = Rows::default();
        rows.add(&answer("=1+1,", "0.000000000001"), &args).unwrap();
        rows.add(&answer("=1+1,", "12345678.000000000002"), &args).unwrap();
        rows.add(&answer("z", "1"), &args).unwrap();
        let csv = rows.csv(&args);
        let lines: Vec<&str> = csv.lines().collect();
        assert_eq!(lines[0], "period,app,requests,failed,cancelled,cut,prompt_tokens,completion_tokens,cost_usd,fee_usd,charged_usd");
        assert_eq!(lines[1], "2026-11-01,\"'=1+1,\",4,0,0,2,20,40,0.2,0,12345678.000000000003");
        assert_eq!(lines.len(), 3);
        assert!(rows.table(&args).ends_with("12345679.000000000003\n"), "{}", rows.table(&args));
        assert_eq!(rows.json(&args)[0]["requests"], 4);
        assert_eq!(rows.json(&args)[1]["charged_usd"], "1");
    }
}
