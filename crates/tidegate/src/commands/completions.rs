//! `tidegate completions`.

use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::output::Output;

pub(super) fn run(shell: Shell, output: &mut Output) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tidegate", &mut script);
    output.text(String::from_utf8_lossy(&script));
    ExitCode::SUCCESS
}
