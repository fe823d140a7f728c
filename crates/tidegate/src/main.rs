//! The `tidegate` binary: arguments and files become domain configurations, and a role starts.
//!
//! Everything that decides or serves lives in the library crates; here is what touches the command line, the environment, files and
//! the terminal.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod admin_client;
mod catalog;
mod cli;
mod commands;
mod config;
mod key;
mod output;

use std::process::ExitCode;

use clap::Parser;

use cli::Cli;
use output::{Colour, Output};

/// Every request makes a few dozen small allocations on one thread and frees them there, which is what this allocator is made for.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    keep_pages_small();
    let cli = Cli::parse();
    let colour = if cli.global.no_color { Colour::Never } else { Colour::Auto };
    let no_color_set = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let mut output = Output::of_process(colour, no_color_set);
    match commands::run(cli, &mut output) {
        Ok(code) => code,
        Err(error) => {
            let label = output.bad("error");
            output.note(format_args!("{label}: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// No transparent huge pages: the allocator asks for them, and clearing two megabytes for a few objects costs start-up time, ten
/// megabytes of idle memory and a quarter of the memory per stream.
fn keep_pages_small() {
    // Refused where the kernel has no such pages; then there is nothing to keep small.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}
