//! Prints how long a provider fault goes unnoticed by an edge alone, in its region and elsewhere, and draws it:
//! `cargo run --release -p tidegate-control --example detection -- [SEEDS] [FILE.svg]`.

#[path = "../tests/health/detection.rs"]
mod detection;
#[path = "../tests/health/world.rs"]
mod world;

use std::fmt::Write as _;
use std::io::Write as _;

use detection::{Found, ROWS, at, measure};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let seeds = arguments.next().map_or(Ok(20), |seeds| seeds.parse())?;
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "| requests/s per edge | failing | alone: median | region: median (most) | elsewhere: median (p99) | bad requests, alone → shared |"
    )?;
    writeln!(out, "|---|---|---|---|---|---|")?;
    let mut pictured = None;
    for row in ROWS {
        let found = measure(row, seeds);
        writeln!(
            out,
            "| {} | {:.0} % | {:.1} s | {:.2} s ({:.2}) | {:.2} s ({:.2}) | {:.0} → {:.0} |",
            row.rate,
            row.failing * 100.0,
            found.local,
            found.region,
            found.region_most,
            found.other,
            found.other_p99,
            found.bad_local,
            found.bad_shared
        )?;
        // The middle row: half a request per second and edge, all failing.
        if row.rate == 0.5 && row.failing == 1.0 {
            pictured = Some(found);
        }
    }
    if let (Some(path), Some(found)) = (arguments.next(), pictured) {
        std::fs::write(&path, picture(&found))?;
        writeln!(out, "drawn to {path}")?;
    }
    Ok(())
}

/// Share of edges that know, over seconds since the fault, on a logarithmic axis from 0.1 s to 100 s.
fn picture(found: &Found) -> String {
    const WIDTH: f64 = 720.0;
    const HEIGHT: f64 = 360.0;
    let (left, right, top, bottom) = (60.0, WIDTH - 20.0, 30.0, HEIGHT - 50.0);
    let x = |seconds: f64| left + (seconds.clamp(0.1, 100.0).log10() + 1.0) / 3.0 * (right - left);
    let y = |share: f64| bottom - share * (bottom - top);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    for seconds in [0.1, 1.0, 10.0, 100.0] {
        let x = x(seconds);
        let _ = writeln!(
            svg,
            "<path d=\"M{x:.1} {top}V{bottom}\" stroke=\"#ddd\"/><text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{seconds} s</text>",
            bottom + 18.0
        );
    }
    for share in [0.0, 0.5, 1.0] {
        let y = y(share);
        let _ = writeln!(
            svg,
            "<path d=\"M{left} {y:.1}H{right}\" stroke=\"#ddd\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{:.0} %</text>",
            left - 8.0,
            y + 4.0,
            share * 100.0
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">time since the provider failed</text>",
        (left + right) / 2.0,
        HEIGHT - 12.0
    );
    let _ = writeln!(svg, "<text x=\"{left}\" y=\"18\">edges that know (40 per region, 0.5 requests/s each, 80 ms between regions)</text>");
    let curves = [("each edge alone", "#b3261e"), ("same region, shared", "#1a7f37"), ("other region, shared", "#0b57d0")];
    for (number, ((name, colour), times)) in curves.into_iter().zip(&found.times).enumerate() {
        let mut path = format!("M{:.1} {:.1}", x(0.1), y(0.0));
        // A hundred steps are as fine as the line is thick.
        for step in 1..=100 {
            let share = f64::from(step) / 100.0;
            let _ = write!(path, "H{:.1}V{:.1}", x(at(times, share)), y(share));
        }
        let _ = writeln!(svg, "<path d=\"{path}H{:.1}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>", x(100.0));
        let y = top + 20.0 + 20.0 * number as f64;
        let _ = writeln!(
            svg,
            "<path d=\"M{0} {y}h24\" stroke=\"{colour}\" stroke-width=\"3\"/><text x=\"{1}\" y=\"{2}\">{name}</text>",
            left + 12.0,
            left + 42.0,
            y + 4.0
        );
    }
    svg.push_str("</svg>\n");
    svg
}
