//! `tidegate health`: how every provider works, seen from every region.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use crate::admin_client::{AdminClient, ControlPlane};
use crate::output::Output;

/// `tidegate health`.
#[derive(Debug, Args)]
#[command(after_help = "\
One line per endpoint and region: verdict, the rule it followed, uptime over 5 minutes, 30 minutes and a day, the last 24 hours as bars,
time to first token, and how many edges say so. docs/health.md explains verdicts and rules.

Examples:
  tidegate health
  tidegate health --provider groq --region eu
  tidegate health --unwell
  tidegate health --json | jq '.rows[] | select(.verdict != \"healthy\")'")]
pub(crate) struct HealthArgs {
    /// Only this provider.
    #[arg(long)]
    provider: Option<String>,
    /// Only as seen from this region.
    #[arg(long)]
    region: Option<String>,
    /// Only what is not healthy.
    #[arg(long)]
    unwell: bool,
    #[command(flatten)]
    plane: ControlPlane,
}

pub(super) fn run(args: &HealthArgs, output: &mut Output) -> anyhow::Result<ExitCode> {
    let mut table = AdminClient::new(&args.plane)?.get("/health")?;
    if let Some(rows) = table["rows"].as_array_mut() {
        let is =
            |row: &Value, field: &str, wanted: &Option<String>| wanted.as_ref().is_none_or(|wanted| row[field].as_str() == Some(wanted));
        rows.retain(|row| {
            is(row, "provider", &args.provider) && is(row, "region", &args.region) && !(args.unwell && row["verdict"] == "healthy")
        });
    }
    if args.plane.json {
        output.line(&table);
    } else {
        output.line(render(&table));
    }
    Ok(ExitCode::SUCCESS)
}

/// The table as text.
fn render(table: &Value) -> String {
    let rows = table["rows"].as_array().into_iter().flatten().map(|row| {
        let text = |field: &str| row[field].as_str().unwrap_or("-").to_owned();
        let percent = |field: &str| row[field].as_f64().map_or_else(|| "-".to_owned(), |ratio| format!("{:.2} %", ratio * 100.0));
        let millis = |field: &str| row[field].as_f64().map_or_else(|| "-".to_owned(), |millis| format!("{millis:.0} ms"));
        let hours: Vec<Option<f64>> = row["hours"].as_array().into_iter().flatten().map(Value::as_f64).collect();
        vec![
            text("provider"),
            text("endpoint"),
            text("region"),
            text("verdict"),
            text("rule"),
            percent("uptime_5m"),
            percent("uptime_30m"),
            percent("uptime_1d"),
            bars(&hours),
            millis("first_token_p50_ms"),
            millis("first_token_p95_ms"),
            row["reporters"].as_u64().unwrap_or(0).to_string(),
        ]
    });
    let head = format!(
        "region {}: {} active edges, {} suspect",
        table["region"].as_str().unwrap_or("-"),
        table["active_edges"],
        table["suspect_edges"]
    );
    if table["rows"].as_array().is_none_or(Vec::is_empty) {
        return format!("{head}\nno endpoint has been used lately, or none matches");
    }
    format!("{head}\n{}", crate::output::table(&HEADINGS, rows).trim_end())
}

/// One bar per hour, oldest first: full from 99.9 %, lower steps below, a dot where too little was asked to tell.
fn bars(hours: &[Option<f64>]) -> String {
    let bar = |uptime: &Option<f64>| match uptime {
        None => '·',
        Some(uptime) if *uptime >= 0.999 => '█',
        Some(uptime) if *uptime >= 0.99 => '▇',
        Some(uptime) if *uptime >= 0.95 => '▅',
        Some(uptime) if *uptime >= 0.80 => '▃',
        Some(_) => '▁',
    };
    hours.iter().map(bar).collect()
}

const HEADINGS: [&str; 12] =
    ["provider", "endpoint", "region", "verdict", "rule", "5 min", "30 min", "1 day", "24 hours", "ttft p50", "p95", "reporters"];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_table_says_who_is_out_where_and_by_which_rule() {
        let table = json!({
            "region": "eu", "active_edges": 3, "suspect_edges": 0,
            "rows": [{
                "provider": "acme", "endpoint": "acme/one", "region": "eu", "verdict": "degraded", "rule": "few edges", "reporters": 2,
                "uptime_5m": 0.5, "uptime_30m": 0.98, "uptime_1d": null, "hours": [null, 1.0, 0.97, 0.2],
                "first_token_p50_ms": 412.4, "first_token_p95_ms": null,
            }],
        });
        let text = render(&table);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "region eu: 3 active edges, 0 suspect");
        let row: Vec<&str> = lines[2].split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
        assert_eq!(row, ["acme", "acme/one", "eu", "degraded", "few edges", "50.00 %", "98.00 %", "-", "·█▅▁", "412 ms", "-", "2"]);
    }

    #[test]
    fn an_empty_table_says_so() {
        assert!(render(&json!({ "region": "eu", "active_edges": 0, "suspect_edges": 0, "rows": [] })).contains("no endpoint"));
    }
}
