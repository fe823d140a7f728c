//! `tidegate check`: every problem of a configuration, or what it says.

use std::process::ExitCode;

use serde::Serialize;

use super::{BAD_CONFIG, show_problems};
use crate::cli::CheckArgs;
use crate::config::problem::Finding;
use crate::config::{self, Config, Environment, Report, Secrets};
use crate::output::Output;

pub(super) fn run(args: &CheckArgs, output: &mut Output) -> anyhow::Result<ExitCode> {
    let secrets = if args.strict { Secrets::Required } else { Secrets::Optional };
    if config::is_control(&args.file) {
        return control(args, secrets, output);
    }
    let (config, report) = config::load(&args.file, &Environment::of_process(), secrets);
    if args.json {
        output.line(serde_json::to_string_pretty(&Answer::of(config.as_ref(), &report))?);
    } else {
        show_problems(&report, output);
        if let Some(config) = &config {
            let good = output.good("good");
            output.line(format_args!("{}: {good}, {}", args.file.display(), Counts::of(config)));
        }
    }
    Ok(if config.is_some() { ExitCode::SUCCESS } else { ExitCode::from(BAD_CONFIG) })
}

/// The file of a control node.
fn control(args: &CheckArgs, secrets: Secrets, output: &mut Output) -> anyhow::Result<ExitCode> {
    let (control, report) = config::load_control(&args.file, &Environment::of_process(), secrets);
    if args.json {
        let mut answer = Answer::of(None, &report);
        answer.good = control.is_some();
        output.line(serde_json::to_string_pretty(&answer)?);
    } else {
        show_problems(&report, output);
        if let Some(control) = &control {
            let good = output.good("good");
            let name = &control.node.consensus.name;
            output.line(format_args!("{}: {good}, control node `{name}` at {}", args.file.display(), control.node.consensus.address));
        }
    }
    Ok(if control.is_some() { ExitCode::SUCCESS } else { ExitCode::from(BAD_CONFIG) })
}

/// For machines.
#[derive(Serialize)]
struct Answer<'a> {
    good: bool,
    errors: usize,
    warnings: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    counts: Option<Counts>,
    problems: Vec<Finding<'a>>,
}

/// How much there is of everything.
#[derive(Serialize)]
struct Counts {
    listeners: usize,
    providers: usize,
    models: usize,
    endpoints: usize,
    keys: usize,
    presets: usize,
}

impl<'a> Answer<'a> {
    fn of(config: Option<&Config>, report: &'a Report) -> Answer<'a> {
        Answer {
            good: config.is_some(),
            errors: report.errors(),
            warnings: report.warnings(),
            counts: config.map(Counts::of),
            problems: report.findings().collect(),
        }
    }
}

impl Counts {
    fn of(config: &Config) -> Counts {
        Counts {
            listeners: config.edge.listeners.len(),
            providers: config.mesh.providers.len(),
            models: config.mesh.models.len(),
            endpoints: config.mesh.endpoints.len(),
            keys: config.mesh.keys.len(),
            presets: config.mesh.presets.len(),
        }
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let counts = [
            (self.listeners, "listener"),
            (self.providers, "provider"),
            (self.models, "model"),
            (self.endpoints, "endpoint"),
            (self.keys, "key"),
            (self.presets, "preset"),
        ];
        for (index, (number, what)) in counts.into_iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            let plural = if number == 1 { "" } else { "s" };
            write!(f, "{separator}{number} {what}{plural}")?;
        }
        Ok(())
    }
}
