//! The tables of `docs/performance.md` as Markdown.

use std::fmt::Write as _;

use super::measure::{BODIES, FRONTIER_LIMITS, SIZES};
use super::results::{Results, Spread};
use super::verdict::Verdict;

const FLOOR: &str = "floor F";
const DIRECT: &str = "direct";
const NGINX: &str = "nginx";

const CPU: &str = "cpu_ms_per_1000";

/// The whole report.
pub(crate) fn markdown(results: &Results, verdicts: &[Verdict], machine: &str, rounds: u16) -> String {
    let mut text = format!(
        "# Measured\n\n{machine}\n\nMedians of {rounds} interleaved rounds, least – greatest in brackets; ratios and differences are \
         paired within the round.\n"
    );
    for table in tables() {
        table.write(results, &mut text);
    }
    targets(verdicts, &mut text);
    let errors = results.errors();
    if !errors.is_empty() {
        text.push_str("\n## Failures\n\n");
        for error in errors {
            let _ = writeln!(text, "- {error}");
        }
    }
    text
}

/// Figures 1 to 7 in their order.
fn tables() -> Vec<Table> {
    let latency = |scenario: &str, title: &str| {
        let percentiles = [("p50", "p50_us"), ("p90", "p90_us"), ("p99", "p99_us"), ("p99.9", "p999_us")];
        let added = percentiles.map(|(name, metric)| Column::new(name, scenario, metric, 0).minus(DIRECT));
        let cpu = [plain("CPU ms per 1,000", scenario, CPU, 1), times(scenario, CPU)];
        Table::new(title, scenario, added.into_iter().chain(cpu))
    };
    let paced = |scenario: &str, title: &str| {
        let added = |name: &str, metric| Column { scale: 1e-3, ..plain(name, scenario, metric, 2) }.minus(DIRECT);
        Table::new(
            title,
            scenario,
            [
                plain("CPU µs per chunk", scenario, "cpu_us_per_chunk", 1),
                times(scenario, "cpu_us_per_chunk"),
                added("added first chunk p50, ms", "first_p50_us"),
                added("p99", "first_p99_us"),
                added("added chunk delay p50, ms", "delay_p50_us"),
                added("p99", "delay_p99_us"),
                plain("RSS MiB", scenario, "rss_mib", 0),
            ],
        )
    };
    let by_case = |group: &str, cases: &[&str]| -> Vec<Column> {
        let columns = |case: &&str| {
            let scenario = format!("{group}/{case}");
            [plain(&format!("{case}: ms per 1,000"), &scenario, CPU, 1), times(&scenario, CPU)]
        };
        cases.iter().flat_map(columns).collect()
    };
    let frontier = FRONTIER_LIMITS.iter().map(|(metric, limit)| {
        let title = if limit.is_finite() { format!("p99 < {limit} ms") } else { "no limit".to_owned() };
        plain(&title, "json/frontier", metric, 0)
    });
    let bodies: Vec<_> = BODIES.iter().map(|(name, _)| *name).collect();
    let smallest = SIZES.first().map(|(keys, endpoints)| format!("tidegate-{endpoints}x{keys}")).unwrap_or_default();
    let stalls = ["json", "sse"].into_iter().flat_map(|answer| {
        let scenario = format!("stall/{answer}");
        let slowest = Column { scale: 1e-3, ..plain("slowest, ms", &scenario, "max_us", 1) };
        [plain(&format!("{answer}: slower than 10 ms"), &scenario, "slower_than_10ms", 0), slowest]
    });
    vec![
        latency("json/rate-1", "1a. Added latency at concurrency 1 (200 requests/s on one connection), µs"),
        latency("json/rate-500", "1b. Added latency at 500 requests/s, µs"),
        latency("json/rate-1000", "1c. Added latency at 1,000 requests/s, µs"),
        Table::new("2a. Most requests per second without a failure, open loop", "json/frontier", frontier),
        Table::new(
            "2b. Closed loop, 64 connections, 2 KB request, 0.6 KB answer",
            "json/closed-64",
            [
                plain("requests/s", "json/closed-64", "rps", 0),
                Column::new("share of direct", "json/closed-64", "rps", 3).over(DIRECT),
                times("json/closed-64", "rps"),
                plain("CPU ms per 1,000", "json/closed-64", CPU, 1),
                times("json/closed-64", CPU),
                plain("RSS MiB", "json/closed-64", "rss_mib", 1),
            ],
        ),
        Table::new("3a. CPU by size of the request body, 16 connections", "bodies/", by_case("bodies", &bodies)),
        Table::new(
            "3b. CPU of a translated dialect (F relays its own)",
            "translated/",
            by_case("translated", &["anthropic-json", "anthropic-sse", "gemini-json", "gemini-sse"]),
        ),
        Table::new(
            "4a. Streams of 100 chunks without pauses, 16 connections",
            "sse/unpaced",
            [plain("streams/s", "sse/unpaced", "rps", 0), plain("CPU ms per 1,000", "sse/unpaced", CPU, 0), times("sse/unpaced", CPU)],
        ),
        paced("sse/200x5ms", "4b. 200 streams at 5 ms"),
        paced("sse/1000x50ms", "4c. 1,000 streams at 50 ms"),
        Table::new(
            "4d. Most concurrent streams without a dropped or stalled chunk (of the numbers tried)",
            "hold/",
            [plain("5 ms pace", "hold/5ms", "streams", 0), plain("20 ms pace", "hold/20ms", "streams", 0)],
        ),
        Table::new(
            "5a. Resident memory, MiB",
            "memory/streams",
            [
                plain("idle", "memory/streams", "idle_mib", 1),
                plain("1,000 streams", "memory/streams", "streams_mib", 1),
                plain("KiB per stream", "memory/streams", "stream_kib", 1),
                plain("5 s after", "memory/streams", "released_mib", 1),
            ],
        ),
        Table::new(
            "5b. Resident memory under 500 requests/s, MiB",
            "memory/long",
            [
                plain("minutes", "memory/long", "minutes", 1),
                plain("at the end", "memory/long", "loaded_mib", 1),
                plain("growth, KiB/min (second half)", "memory/long", "growth_kib_per_minute", 1),
                plain("5 s after", "memory/long", "released_mib", 1),
            ],
        ),
        // Milliseconds per 1,000 are microseconds each.
        Table::new(
            "6a. TLS 1.3 full handshakes, P-256 certificate, X25519",
            "tls/handshake",
            [
                plain("handshakes/s", "tls/handshake", "rps", 0),
                plain("CPU µs each", "tls/handshake", CPU, 0),
                Column::new("÷ nginx", "tls/handshake", CPU, 2).over(NGINX),
            ],
        ),
        Table::new(
            "6b. Kept-alive requests over TLS, 64 connections",
            "tls/keep-alive",
            [
                plain("requests/s", "tls/keep-alive", "rps", 0),
                plain("CPU ms per 1,000", "tls/keep-alive", CPU, 1),
                Column::new("÷ nginx", "tls/keep-alive", CPU, 2).over(NGINX),
            ],
        ),
        Table::new(
            "7a. Start to first answer",
            "startup/cold",
            [plain("first answer, ms", "startup/cold", "first_answer_ms", 1), plain("binary, MB", "startup/cold", "binary_mb", 1)],
        ),
        Table::new(
            "7b. Tidegate with <endpoints> x <keys>",
            "scale",
            [
                plain("CPU ms per 1,000", "scale", CPU, 1),
                Column::new("÷ smallest", "scale", CPU, 3).over(&smallest),
                plain("first answer, ms", "scale", "first_answer_ms", 0),
                plain("RSS MiB", "scale", "rss_mib", 0),
            ],
        ),
        Table::new("7c. Write stalls in 1,000 sequential kept-alive requests", "stall/", stalls),
    ]
}

/// A table with one row for each contender that took part in its scenarios.
struct Table {
    title: String,
    /// Start of the names of its scenarios.
    scenarios: String,
    columns: Vec<Column>,
}

/// One number of each contender.
struct Column {
    title: String,
    scenario: String,
    metric: &'static str,
    digits: usize,
    /// Turns the unit of the metric into the shown one.
    scale: f64,
    relation: Relation,
}

/// What the number is compared with, within the round.
enum Relation {
    Alone,
    Over(String),
    Minus(String),
}

/// A metric as it is.
fn plain(title: &str, scenario: &str, metric: &'static str, digits: usize) -> Column {
    Column::new(title, scenario, metric, digits)
}

/// A metric as a multiple of the floor's.
fn times(scenario: &str, metric: &'static str) -> Column {
    Column::new("× F", scenario, metric, 2).over(FLOOR)
}

impl Column {
    fn new(title: &str, scenario: &str, metric: &'static str, digits: usize) -> Self {
        let (title, scenario) = (title.to_owned(), scenario.to_owned());
        Self { title, scenario, metric, digits, scale: 1.0, relation: Relation::Alone }
    }

    fn over(self, base: &str) -> Self {
        Self { relation: Relation::Over(base.to_owned()), ..self }
    }

    fn minus(self, base: &str) -> Self {
        Self { relation: Relation::Minus(base.to_owned()), ..self }
    }

    fn cell(&self, results: &Results, who: &str) -> String {
        let Self { scenario, metric, digits, scale, .. } = self;
        let spread = match &self.relation {
            Relation::Alone => results.spread(scenario, who, metric),
            Relation::Over(base) => results.ratio(scenario, metric, who, base),
            Relation::Minus(base) => results.difference(scenario, metric, who, base),
        };
        show(spread.map(|Spread { median, min, max }| Spread { median: median * scale, min: min * scale, max: max * scale }), *digits)
    }
}

impl Table {
    fn new(title: &str, scenarios: &str, columns: impl IntoIterator<Item = Column>) -> Self {
        Self { title: title.to_owned(), scenarios: scenarios.to_owned(), columns: columns.into_iter().collect() }
    }

    /// Nothing when nobody took part.
    fn write(&self, results: &Results, text: &mut String) {
        let contenders = results.contenders(&self.scenarios);
        if contenders.is_empty() {
            return;
        }
        let titles: String = self.columns.iter().map(|column| format!(" {} |", column.title)).collect();
        let _ = writeln!(text, "\n## {}\n\n| |{titles}\n|---|{}", self.title, "---|".repeat(self.columns.len()));
        for who in contenders {
            let name = if who == "tidegate" { "**tidegate**" } else { who };
            let cells: String = self.columns.iter().map(|column| format!(" {} |", column.cell(results, who))).collect();
            let _ = writeln!(text, "| {name} |{cells}");
        }
    }
}

fn targets(verdicts: &[Verdict], text: &mut String) {
    text.push_str("\n## Targets\n\n| # | figure | must | aim | measured | verdict |\n|---|---|---|---|---|---|\n");
    for verdict in verdicts {
        let aim = verdict.aim.as_deref().unwrap_or("–");
        let digits = verdict.measured.map_or(0, |spread| if spread.median.abs() < 10.0 { 2 } else { 1 });
        let measured = show(verdict.measured, digits);
        let _ = writeln!(
            text,
            "| {} | {} | {} | {aim} | {measured}{} | {} |",
            verdict.target,
            verdict.figure,
            verdict.must,
            verdict.unit,
            verdict.grade.words()
        );
    }
}

/// `median (min – max)`, with thousands separated; a dash for what is not known.
fn show(spread: Option<Spread>, digits: usize) -> String {
    let Some(Spread { median, min, max }) = spread else {
        return "–".to_owned();
    };
    let [median, min, max] = [median, min, max].map(|value| number(value, digits));
    if min == max { median } else { format!("{median} ({min} – {max})") }
}

fn number(value: f64, digits: usize) -> String {
    let text = format!("{:.digits$}", value.abs());
    let (whole, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let negative = value < 0.0 && text.chars().any(|c| c.is_ascii_digit() && c != '0');
    format!("{}{grouped}{fraction}", if negative { "-" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::results::Sample;
    use crate::compare::verdict;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(number(1_234_567.0, 0), "1,234,567");
        assert_eq!(number(-0.004, 2), "0.00");
        assert_eq!(number(-12.5, 1), "-12.5");
        assert_eq!(number(999.0, 0), "999");
        assert_eq!(show(Spread::of([1.0, 2.0, 3.0]), 1), "2.0 (1.0 – 3.0)");
        assert_eq!(show(None, 1), "–");
    }

    #[test]
    fn a_report_has_the_measured_tables_and_every_target() {
        let mut results = Results::default();
        for (contender, cpu) in [("direct", None), ("floor F", Some(20.0)), ("tidegate", Some(24.0))] {
            let mut metrics = std::collections::BTreeMap::from([("rps", 1000.0)]);
            metrics.extend(cpu.map(|cpu| ("cpu_ms_per_1000", cpu)));
            results.push(Sample { scenario: "json/closed-64".into(), round: 1, contender: contender.into(), metrics, error: None });
        }
        let text = markdown(&results, &verdict::all(&results), "two cores", 1);
        assert!(text.contains("| **tidegate** | 1,000 | 1.000 | 1.00 | 24.0 | 1.20 | – |"), "{text}");
        assert!(text.contains("| G1 | CPU per request, 64 connections | ≤ 1.3 F | ≤ 1 F | 1.20 F | met |"), "{text}");
        assert!(!text.contains("6a."), "{text}");
        for target in ["G1", "G2", "G3", "G4", "G5", "G6", "G7", "G8", "G9", "G10", "G11", "G13", "G14", "G15"] {
            assert!(text.contains(&format!("| {target} |")), "{target}");
        }
    }
}
