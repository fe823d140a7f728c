//! What the control plane costs, beside what it may cost. Every measurement runs in a process of its own, so that memory is its own:
//!
//! `cargo run --release --workspace --example control_targets` prints all of it as one table,
//! `… -- NAME` only the rows of one of `keys`, `memory`, `wire`, `health`, `judging` and `distance`. The last needs root for its network.

#![expect(clippy::print_stdout, reason = "it is a report")]

mod distance;
mod health;
mod judging;
mod keys;
mod memory;
mod plane;
mod wire;

use std::fmt::Display;
use std::process::Command;

const ALL: [&str; 6] = ["keys", "memory", "wire", "health", "judging", "distance"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Some(what) = std::env::args().nth(1) else {
        println!("| what | target | measured |");
        println!("|---|---|---|");
        for what in ALL {
            let done = Command::new(std::env::current_exe()?).arg(what).status()?;
            if !done.success() {
                return Err(format!("`{what}`: {done}").into());
            }
        }
        return Ok(());
    };
    match what.as_str() {
        "keys" => runtime()?.block_on(keys::measure()),
        "memory" => runtime()?.block_on(memory::measure()),
        "wire" => wire::measure(),
        "health" => runtime()?.block_on(health::measure()),
        "judging" => judging::measure(),
        "distance" => distance::measure(),
        other => return Err(format!("`{other}`: one of {}", ALL.join(", ")).into()),
    }
    Ok(())
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
}

/// A line of the table.
fn row(what: impl Display, target: impl Display, measured: impl Display) {
    println!("| {what} | {target} | {measured} |");
}

/// Resident memory of this process, bytes: now, and at its most.
fn resident() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let of = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    (of("VmRSS:").unwrap_or(0) << 10, of("VmHWM:").unwrap_or(0) << 10)
}
