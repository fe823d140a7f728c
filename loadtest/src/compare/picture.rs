//! A picture of the main figures: panels of horizontal bars, medians with a whisker from least to greatest.
//!
//! Written by hand as SVG, so that no drawing library is needed; it follows the reader's light or dark scheme.

use std::fmt::Write as _;

use super::results::{Results, Spread};

const WIDTH: f64 = 860.0;
const LABELS: f64 = 130.0;
const VALUES: f64 = 90.0;
const BAR: f64 = 18.0;
const STEP: f64 = 26.0;
const TITLE: f64 = 44.0;

/// One panel: its title, digits of its values, and what each contender showed.
struct Panel<'a> {
    title: &'static str,
    digits: usize,
    bars: Vec<(&'a str, Spread)>,
}

/// The picture; `None` when nothing that it shows was measured.
pub(crate) fn svg(results: &Results) -> Option<String> {
    let cpu = |scenario: &str, metric: &str, who: &str| results.ratio(scenario, metric, who, "floor F");
    let panels = [
        panel(results, "CPU per request, 64 connections (F = 1)", 2, "json/closed-64", |who| cpu("json/closed-64", "cpu_ms_per_1000", who)),
        panel(results, "Requests per second, 64 connections", 0, "json/closed-64", |who| results.spread("json/closed-64", who, "rps")),
        panel(results, "Added p50 at 1,000 requests/s, µs", 0, "json/rate-1000", |who| added(results, "json/rate-1000", "p50_us", who)),
        panel(results, "Added p99 at 1,000 requests/s, µs", 0, "json/rate-1000", |who| added(results, "json/rate-1000", "p99_us", who)),
        panel(results, "CPU per chunk, 200 streams at 5 ms (F = 1)", 2, "sse/200x5ms", |who| cpu("sse/200x5ms", "cpu_us_per_chunk", who)),
        panel(results, "CPU per 100-chunk stream, unpaced (F = 1)", 2, "sse/unpaced", |who| cpu("sse/unpaced", "cpu_ms_per_1000", who)),
        panel(results, "CPU per TLS handshake, µs", 0, "tls/handshake", |who| results.spread("tls/handshake", who, "cpu_ms_per_1000")),
        panel(results, "Memory per open stream, KiB", 1, "memory/streams", |who| results.spread("memory/streams", who, "stream_kib")),
    ];
    let panels: Vec<_> = panels.into_iter().filter(|panel| !panel.bars.is_empty()).collect();
    if panels.is_empty() {
        return None;
    }
    let height: f64 = panels.iter().map(|panel| TITLE + STEP * panel.bars.len() as f64).sum::<f64>() + 16.0;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\">\n\
         <title>Tidegate and its peers, measured in one interleaved run</title>\n\
         <style>text{{font:13px system-ui,sans-serif;fill:#223}}.t{{font-weight:600}}rect{{fill:#9ab}}.us{{fill:#0a7e8c}}line{{stroke:#223;stroke-width:1.2}}\n\
         @media(prefers-color-scheme:dark){{text{{fill:#dde}}rect{{fill:#567}}.us{{fill:#2bb3c0}}line{{stroke:#dde}}}}</style>\n"
    );
    let mut top = 0.0;
    for panel in &panels {
        draw(panel, top, &mut text);
        top += TITLE + STEP * panel.bars.len() as f64;
    }
    text.push_str("</svg>\n");
    Some(text)
}

fn added(results: &Results, scenario: &str, metric: &str, who: &str) -> Option<Spread> {
    results.difference(scenario, metric, who, "direct").filter(|_| who != "direct")
}

fn panel<'a>(
    results: &'a Results,
    title: &'static str,
    digits: usize,
    scenario: &str,
    value: impl Fn(&str) -> Option<Spread>,
) -> Panel<'a> {
    let bars = results.contenders(scenario).into_iter().filter_map(|who| Some((who, value(who)?))).collect();
    Panel { title, digits, bars }
}

fn draw(panel: &Panel<'_>, top: f64, text: &mut String) {
    let _ = writeln!(text, "<text class=\"t\" x=\"8\" y=\"{}\">{}</text>", top + 30.0, escaped(panel.title));
    let space = WIDTH - LABELS - VALUES;
    let largest = panel.bars.iter().map(|(_, spread)| spread.median).fold(0.0, f64::max);
    // One gateway that is a hundred times slower would press all others flat: its bar is cut and its number says so.
    let scale = largest.min(8.0 * median(panel)).max(f64::MIN_POSITIVE);
    let place = |value: f64| LABELS + (value / scale).clamp(0.0, 1.0) * space;
    for (index, (name, spread)) in panel.bars.iter().enumerate() {
        let y = top + TITLE + STEP * index as f64;
        let (middle, end) = (y + BAR / 2.0, place(spread.median));
        let class = if name.starts_with("tidegate") { " class=\"us\"" } else { "" };
        let _ = writeln!(text, "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>", LABELS - 8.0, middle + 4.5, escaped(name));
        let _ = writeln!(text, "<rect{class} x=\"{LABELS}\" y=\"{y}\" width=\"{:.1}\" height=\"{BAR}\"/>", end - LABELS);
        let _ = writeln!(text, "<line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle}\" y2=\"{middle}\"/>", place(spread.min), place(spread.max));
        let beside = place(spread.max).max(end) + 6.0;
        let _ = writeln!(text, "<text x=\"{beside:.1}\" y=\"{}\">{:.*}</text>", middle + 4.5, panel.digits, spread.median);
    }
}

fn median(panel: &Panel<'_>) -> f64 {
    Spread::of(panel.bars.iter().map(|(_, spread)| spread.median)).map_or(0.0, |spread| spread.median)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::results::Sample;

    #[test]
    fn bars_show_what_was_measured() {
        let mut results = Results::default();
        for (contender, rps) in [("floor F", 30_000.0), ("tidegate", 25_000.0), ("<odd>", 10.0)] {
            let metrics = [("rps", rps)].into();
            results.push(Sample { scenario: "json/closed-64".into(), round: 1, contender: contender.into(), metrics, error: None });
        }
        let picture = svg(&results).unwrap();
        assert_eq!(picture.matches("<rect").count(), 3);
        assert!(picture.contains("class=\"us\"") && picture.contains(">25000<") && picture.contains("&lt;odd&gt;"));
        assert_eq!(svg(&Results::default()), None);
    }
}
