//! One file per command.

mod catalog;
pub(crate) mod certs;
mod check;
mod completions;
pub(crate) mod control;
pub(crate) mod declare;
pub(crate) mod dev;
pub(crate) mod drain;
mod edge;
mod explain;
pub(crate) mod kek;
mod key;
pub(crate) mod keys;
mod schema;
mod version;

use std::process::ExitCode;

use crate::cli::{CatalogCommand, Cli, Command, KeyCommand};
use crate::config::Report;
use crate::output::Output;

/// A configuration is not good; also what clap uses for arguments that are not.
const BAD_CONFIG: u8 = 2;

/// Does what the command line asks.
pub(crate) fn run(cli: Cli, output: &mut Output) -> anyhow::Result<ExitCode> {
    let Cli { global, command } = cli;
    match command {
        Command::Dev(args) => dev::run(&args, &global),
        Command::Edge(args) => edge::run(&args, &global, output),
        Command::Control(args) => control::run(&args, &global, output),
        Command::Apply(args) => declare::apply(&args, output),
        Command::Diff(args) => declare::diff(&args, output),
        Command::History(args) => declare::history(&args, output),
        Command::Rollback(args) => declare::rollback(&args, output),
        Command::Keys(command) => keys::run(&command, output),
        Command::Drain(args) => drain::run(&args, output),
        Command::Edges(args) => declare::edges(&args, output),
        Command::Check(args) => check::run(&args, output),
        Command::Schema { of } => schema::run(of, output),
        Command::Catalog(CatalogCommand::Import(args)) => catalog::import(&args, output),
        Command::Catalog(CatalogCommand::Show) => Ok(catalog::show(output)),
        Command::Explain(args) => explain::run(&args, output),
        Command::Key(KeyCommand::New(args)) => key::new(&args, output),
        Command::Key(KeyCommand::Digest(args)) => key::digest(&args, output),
        Command::Certs(command) => certs::run(&command, output),
        Command::Kek(command) => kek::run(&command, output),
        Command::Completions { shell } => Ok(completions::run(shell, output)),
        Command::Version => Ok(version::run(output)),
    }
}

/// Shows what is wrong with a configuration, and how much.
fn show_problems(report: &Report, output: &mut Output) {
    let colour = output.colour_err();
    output.note_text(report.render(colour));
    let (errors, warnings) = (report.errors(), report.warnings());
    let count = |number: usize, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
    match (errors, warnings) {
        (0, 0) => {}
        (0, _) => output.note(count(warnings, "warning")),
        (_, 0) => output.note(count(errors, "error")),
        _ => output.note(format_args!("{}, {}", count(errors, "error"), count(warnings, "warning"))),
    }
}
