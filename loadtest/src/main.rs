//! Measures Tidegate from outside, next to what else could stand in its place.
//!
//! One binary holds everything a measurement needs: the upstream (`mock`), two relays that mark what is possible (`floor`,
//! `raw`), the load generator (`run`) and the whole comparison (`compare`). It knows no crate of Tidegate, only its binary.
//! Everything runs on loopback addresses; method and figures are in `docs/performance.md`.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod body;
mod compare;
mod console;
mod floor;
mod histogram;
mod http1;
mod interrupt;
mod load;
mod loopback;
mod mock;
mod process;
mod raw;
mod run;
mod scenario;
mod serve;
mod sse;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measure an LLM gateway: upstream, floors, load generator and the interleaved comparison in one binary.
///
/// Start with `tidegate-loadtest compare`: it builds Tidegate, starts everything, measures in interleaved rounds, and prints the
/// tables of docs/performance.md with a verdict for each target. The other commands are its parts, for experiments by hand:
///
///     tidegate-loadtest mock  --listen 127.0.0.1:9100
///     tidegate-loadtest floor --listen 127.0.0.1:9200 --upstream 127.0.0.1:9100
///     tidegate-loadtest run http://127.0.0.1:9200/v1 --connections 64 --seconds 5
#[derive(Debug, Parser)]
#[command(name = "tidegate-loadtest", version, verbatim_doc_comment)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve constant answers: OpenAI chat, Anthropic Messages and Gemini, JSON and streams.
    ///
    /// The model name says what to answer: `json` is one object of 0.6 KB, `sse-100-5` a stream of 100 content chunks, one every
    /// 5 ms (`sse-100-0` sends all at once). Everything before the last slash of the name is ignored.
    Mock(mock::Arguments),
    /// Relay with hyper and hyper-util's client and no features: F, the unit of every target.
    Floor(floor::Arguments),
    /// Relay with bare tokio and httparse, bytes forwarded as they come: what the machine allows.
    Raw(raw::Arguments),
    /// Load one running target and print what was measured.
    Run(Box<run::Arguments>),
    /// Measure Tidegate, the floors and other proxies, interleaved, and judge the targets.
    Compare(Box<compare::Arguments>),
    /// Count Tidegate's instructions per request under valgrind: what a change costs, whatever else the machine does.
    Instructions(compare::instructions::Arguments),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Mock(arguments) => mock::run(&arguments),
        Command::Floor(arguments) => floor::run(&arguments),
        Command::Raw(arguments) => raw::run(&arguments),
        Command::Run(arguments) => interrupt::listen().and_then(|()| run::run(&arguments)),
        Command::Instructions(arguments) => interrupt::listen().and_then(|()| compare::instructions::run(&arguments)),
        Command::Compare(arguments) => interrupt::listen().and_then(|()| compare::run(&arguments)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            console::progress(format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
