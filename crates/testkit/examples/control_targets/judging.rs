//! What the share of one control node in a region's health costs, by the number of edges: CPU time of everything but the network.

use std::time::Duration;

use tidegate_control::fleet::{Fleet, ViewCursor};
use tidegate_control::state::Health;
use tidegate_proto::v1::{HealthReport, ReportCell};
use tidegate_routing::{EndpointId, Histogram, Timestamp};

use crate::plane::endpoint_name;
use crate::row;

/// Endpoints that each edge uses, of twenty times as many.
const USED: usize = 50;
const ALL: usize = 1_000;
/// Four reports a second of each edge.
const TICKS: u64 = 80;
const UNIX_MS: u64 = 1_800_000_000_000;

pub(crate) fn measure() {
    let mut before: Option<(usize, f64)> = None;
    for edges in [100, 1_000, 5_000] {
        let [quiet, flapping] = [false, true].map(|flaps| cost(edges, flaps));
        let all = flapping.iter().sum::<f64>();
        let growth = before
            .map_or_else(String::new, |(fewer, cost)| format!("; {:.1} times that of {} times fewer edges", all / cost, edges / fewer));
        before = Some((edges, all));
        row(
            format!("CPU of health on one node, {edges} edges with {USED} of {ALL} endpoints each"),
            "linear",
            format!(
                "{:.0} ms/s; everything flapping {all:.0} ms/s (reports {:.0}, verdicts {:.0}, views {:.0}, digests {:.0}){growth}",
                quiet.iter().sum::<f64>(),
                flapping[0],
                flapping[1],
                flapping[2],
                flapping[3]
            ),
        );
    }
}

/// Milliseconds of CPU per second: taking reports in, judging, telling edges, digesting.
fn cost(edges: usize, flaps: bool) -> [f64; 4] {
    let (mut fleet, agreed) = (Fleet::new("eu", 1, 1), Health::default());
    let mut cursors: Vec<ViewCursor> = (0..edges).map(|_| ViewCursor::default()).collect();
    let names: Vec<String> = (0..edges).map(|edge| format!("edge-{edge}")).collect();
    let ids: Vec<u64> = (0..ALL).map(|number| EndpointId::of(&endpoint_name(number as u32)).0).collect();
    let mut first_token = Histogram::default();
    [310.0, 420.0, 515.0, 700.0].into_iter().for_each(|millis| first_token.record(millis));
    let sketch: Vec<u8> = first_token.encode();
    let at = |tick: u64| Timestamp((tick * 250 + 1_000_000) * 1_000);
    fleet.tick(&agreed, Timestamp(0));
    let mut spent = [0.0; 4];
    for tick in 0..TICKS {
        let now = at(tick);
        let fails = flaps && (tick / 8) % 2 == 1;
        for (edge, name) in names.iter().enumerate() {
            let cell = |number: usize| ReportCell {
                endpoint: ids[(edge * 7 + number) % ALL],
                ok: if fails { 1 } else { 4 },
                server_error: if fails { 5 } else { 0 },
                first_token: sketch.clone().into(),
                ..ReportCell::default()
            };
            // Made outside of what is measured.
            let cells = (0..USED).map(cell).collect();
            let report = HealthReport { incarnation: 1, seq: tick + 1, window_ms: 250, confidence: 100, cells, ..HealthReport::default() };
            let began = cpu();
            fleet.take_report(name, report, UNIX_MS + tick * 250, now);
            spent[0] += (cpu() - began).as_secs_f64();
        }
        let began = cpu();
        fleet.tick(&agreed, now);
        let judged = cpu();
        for (name, cursor) in names.iter().zip(&mut cursors) {
            std::hint::black_box(fleet.view_for(name, cursor, now));
        }
        let told = cpu();
        std::hint::black_box(fleet.digest(&agreed, UNIX_MS + tick * 250, now));
        std::hint::black_box(fleet.exchange(now));
        spent[1] += (judged - began).as_secs_f64();
        spent[2] += (told - judged).as_secs_f64();
        spent[3] += (cpu() - told).as_secs_f64();
    }
    let seconds = TICKS as f64 / 4.0;
    spent.map(|spent| spent * 1e3 / seconds)
}

/// CPU time of this thread: other work of the machine is not in it.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}
