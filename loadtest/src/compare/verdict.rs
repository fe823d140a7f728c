//! The targets G1 to G16 and whether a run met them.
//!
//! A verdict is about the median; the range is printed beside it. What was not measured is said to be so, never passed over.

use serde::Serialize;

use super::measure::SIZES;
use super::results::{Results, Spread};

const TIDEGATE: &str = "tidegate";
const FLOOR: &str = "floor F";

/// Growth below this is the noise of page-wise accounting, KiB per minute.
const NO_GROWTH: f64 = 64.0;

/// How a target was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Grade {
    /// Better than what we hope for.
    Aim,
    /// Within what we promise.
    Met,
    Missed,
    NotMeasured,
}

impl Grade {
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Aim => "met, aim reached",
            Self::Met => "met",
            Self::Missed => "**missed**",
            Self::NotMeasured => "not measured",
        }
    }
}

/// Which side of a bound is good.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtMost(bound) => value <= bound,
            Self::AtLeast(bound) => value >= bound,
        }
    }

    fn words(self, unit: &str) -> String {
        match self {
            Self::AtMost(bound) => format!("≤ {bound}{unit}"),
            Self::AtLeast(bound) => format!("≥ {bound}{unit}"),
        }
    }
}

/// One line of the verdict table.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Verdict {
    pub(crate) target: &'static str,
    pub(crate) figure: String,
    pub(crate) must: String,
    pub(crate) aim: Option<String>,
    pub(crate) measured: Option<Spread>,
    pub(crate) unit: &'static str,
    pub(crate) grade: Grade,
}

fn judge(
    target: &'static str,
    figure: impl Into<String>,
    must: Bound,
    aim: Option<Bound>,
    unit: &'static str,
    measured: Option<Spread>,
) -> Verdict {
    let grade = match measured.map(|spread| spread.median) {
        None => Grade::NotMeasured,
        Some(value) if !must.holds(value) => Grade::Missed,
        Some(value) if aim.is_some_and(|aim| aim.holds(value)) => Grade::Aim,
        Some(_) => Grade::Met,
    };
    let words = |bound: Bound| bound.words(unit);
    Verdict { target, figure: figure.into(), must: words(must), aim: aim.map(words), measured, unit, grade }
}

/// All verdicts, in the order of the targets.
pub(crate) fn all(results: &Results) -> Vec<Verdict> {
    use Bound::{AtLeast, AtMost};
    let to_floor = |scenario: &str, metric: &str| results.ratio(scenario, metric, TIDEGATE, FLOOR);
    let added = |scenario: &str, metric: &str, unit: f64| {
        results.paired((scenario, TIDEGATE), (scenario, "direct"), metric, |value, base| (value - base) / unit)
    };
    let own = |scenario: &str, metric: &str| results.spread(scenario, TIDEGATE, metric);
    let cpu = "cpu_ms_per_1000";
    let mut verdicts = vec![
        judge("G1", "CPU per request, 64 connections", AtMost(1.3), Some(AtMost(1.0)), " F", to_floor("json/closed-64", cpu)),
        judge("G2", "CPU per request at 1,000 requests/s", AtMost(1.5), Some(AtMost(1.1)), " F", to_floor("json/rate-1000", cpu)),
        judge("G3", "most requests per second", AtLeast(0.77), Some(AtLeast(1.0)), " F", to_floor("json/closed-64", "rps")),
        judge("G4", "added p50 at 1,000 requests/s", AtMost(120.0), Some(AtMost(80.0)), " µs", added("json/rate-1000", "p50_us", 1.0)),
        judge("G4", "added p90 at 1,000 requests/s", AtMost(200.0), None, " µs", added("json/rate-1000", "p90_us", 1.0)),
        judge(
            "G4",
            "p99 at 1,000 requests/s, Envoy's = 1 (run with --peer envoy=…)",
            AtMost(1.0),
            None,
            "",
            results.ratio("json/rate-1000", "p99_us", TIDEGATE, "envoy"),
        ),
        judge("G5", "CPU per SSE chunk, paced", AtMost(1.15), Some(AtMost(0.85)), " F", to_floor("sse/200x5ms", "cpu_us_per_chunk")),
        judge("G6", "CPU per 100-chunk stream, unpaced", AtMost(1.15), Some(AtMost(0.65)), " F", to_floor("sse/unpaced", cpu)),
        judge(
            "G7",
            "1,000 streams: added first chunk, p99",
            AtMost(1.5),
            Some(AtMost(0.7)),
            " ms",
            added("sse/1000x50ms", "first_p99_us", 1e3),
        ),
        judge("G7", "1,000 streams: added chunk delay, p99", AtMost(1.5), None, " ms", added("sse/1000x50ms", "delay_p99_us", 1e3)),
        judge("G8", "memory per open stream", AtMost(50.0), Some(AtMost(25.0)), " KiB", own("memory/streams", "stream_kib")),
        judge("G8", "memory when idle", AtMost(30.0), Some(AtMost(12.0)), " MiB", own("memory/streams", "idle_mib")),
        judge(
            "G8",
            "growth under a long load (--long 30m)",
            AtMost(NO_GROWTH),
            None,
            " KiB/min",
            own("memory/long", "growth_kib_per_minute"),
        ),
        judge("G9", "CPU of a TLS 1.3 handshake", AtMost(0.45), None, " nginx", results.ratio("tls/handshake", cpu, TIDEGATE, "nginx")),
        judge(
            "G9",
            "CPU of a kept-alive request over TLS",
            AtMost(1.15),
            Some(AtMost(1.0)),
            " nginx",
            results.ratio("tls/keep-alive", cpu, TIDEGATE, "nginx"),
        ),
        judge("G10", "CPU, 200 KB body", AtMost(2.0), Some(AtMost(1.3)), " F", to_floor("bodies/200k", cpu)),
        judge("G10", "CPU, 1 MB body", AtMost(2.0), Some(AtMost(1.3)), " F", to_floor("bodies/1m", cpu)),
        judge("G11", "start to first answer", AtMost(100.0), Some(AtMost(50.0)), " ms", own("startup/cold", "first_answer_ms")),
        judge("G11", "size of the binary", AtMost(25.0), Some(AtMost(15.0)), " MB", own("startup/cold", "binary_mb")),
    ];
    for (scenario, what) in [("stall/json", "JSON"), ("stall/sse", "one-chunk streams")] {
        // What the machine itself delays shows on the direct connection too.
        let stalls = results.difference(scenario, "slower_than_10ms", TIDEGATE, "direct");
        let figure = format!("sequential requests more than 10 ms slow, {what}, beyond direct's");
        verdicts.push(judge("G13", figure, AtMost(0.0), None, "", stalls));
    }
    for case in ["anthropic-json", "anthropic-sse", "gemini-json", "gemini-sse"] {
        let measured = to_floor(&format!("translated/{case}"), cpu);
        verdicts.push(judge("G14", format!("CPU translated, {case}"), AtMost(1.8), Some(AtMost(1.4)), " F", measured));
    }
    if let (Some((few_keys, few)), Some((many_keys, many))) = (SIZES.first(), SIZES.last()) {
        let name = |endpoints: &usize, keys: &usize| format!("tidegate-{endpoints}x{keys}");
        let measured = results.ratio("scale", cpu, &name(many, many_keys), &name(few, few_keys));
        let figure = format!("CPU, {many} endpoints × {many_keys} keys over {few} × {few_keys}");
        verdicts.push(judge("G15", figure, AtMost(1.05), Some(AtMost(1.0)), " ×", measured));
    }
    // Aims per gateway: half of Envoy, a fifth of Busbar, and so on.
    for (gateway, aim) in [("envoy", 0.5), ("busbar", 0.2), ("tensorzero", 0.1), ("portkey", 0.025), ("litellm", 0.0025)] {
        if results.contenders("json/").contains(&gateway) {
            let ratio = |metric| results.ratio("json/closed-64", metric, TIDEGATE, gateway);
            verdicts.push(judge("G16", format!("CPU per request, {gateway} = 1"), AtMost(1.0), Some(AtMost(aim)), "", ratio(cpu)));
            verdicts.push(judge("G16", format!("p99 at 64 connections, {gateway} = 1"), AtMost(1.0), None, "", ratio("p99_us")));
        }
    }
    verdicts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::results::Sample;

    fn with(samples: &[(&str, &str, &'static str, f64)]) -> Results {
        let mut results = Results::default();
        for (scenario, contender, metric, value) in samples {
            let metrics = [(*metric, *value)].into();
            results.push(Sample { scenario: (*scenario).into(), round: 1, contender: (*contender).into(), metrics, error: None });
        }
        results
    }

    fn grade_of(results: &Results, target: &str) -> Grade {
        all(results).iter().find(|verdict| verdict.target == target).unwrap().grade
    }

    #[test]
    fn grades_follow_the_bounds() {
        let cpu = |tidegate| {
            with(&[("json/closed-64", TIDEGATE, "cpu_ms_per_1000", tidegate), ("json/closed-64", FLOOR, "cpu_ms_per_1000", 20.0)])
        };
        assert_eq!(grade_of(&cpu(19.0), "G1"), Grade::Aim);
        assert_eq!(grade_of(&cpu(25.0), "G1"), Grade::Met);
        assert_eq!(grade_of(&cpu(27.0), "G1"), Grade::Missed);
    }

    #[test]
    fn throughput_is_better_when_it_is_higher() {
        let rps = |tidegate| with(&[("json/closed-64", TIDEGATE, "rps", tidegate), ("json/closed-64", FLOOR, "rps", 100.0)]);
        assert_eq!(grade_of(&rps(70.0), "G3"), Grade::Missed);
        assert_eq!(grade_of(&rps(80.0), "G3"), Grade::Met);
        assert_eq!(grade_of(&rps(120.0), "G3"), Grade::Aim);
    }

    #[test]
    fn what_was_not_measured_is_not_passed() {
        assert!(all(&Results::default()).iter().all(|verdict| verdict.grade == Grade::NotMeasured));
    }

    #[test]
    fn only_stalls_beyond_the_machines_own_count() {
        let slow =
            |tidegate| with(&[("stall/json", TIDEGATE, "slower_than_10ms", tidegate), ("stall/json", "direct", "slower_than_10ms", 2.0)]);
        assert_eq!(grade_of(&slow(2.0), "G13"), Grade::Met);
        assert_eq!(grade_of(&slow(500.0), "G13"), Grade::Missed);
    }
}
