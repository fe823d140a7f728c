//! `tidegate version`.

use std::process::ExitCode;

use crate::output::Output;

pub(super) fn run(output: &mut Output) -> ExitCode {
    output.line(format_args!("tidegate {}", env!("CARGO_PKG_VERSION")));
    if let Some(commit) = option_env!("TIDEGATE_COMMIT") {
        output.line(format_args!("commit {commit}"));
    }
    ExitCode::SUCCESS
}
