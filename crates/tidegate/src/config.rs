//! Configuration files: from YAML to what an edge is told, with every problem named at its line.
//!
//! The road has three stations. [`tree`] keeps places, [`read`] gives the raw [`file::File`] that the schema is made from, and
//! [`lower`] holds the rules. `tidegate check` and `tidegate edge` take the same road; they differ in whether a secret may be missing.

mod de;
pub(crate) mod file;
pub(crate) mod lower;
mod mask;
pub(crate) mod problem;
pub(crate) mod read;
pub(crate) mod resources;
pub(crate) mod scalar;
pub(crate) mod suggest;
#[cfg(test)]
mod tests;
mod tree;

use std::path::Path;

pub(crate) use lower::{Config, Secrets};
pub(crate) use problem::Report;
pub(crate) use read::Environment;

use problem::{Problem, Source};

/// Largest file that is read. A mesh of 10 000 endpoints takes about 6 MB.
const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;

/// Reads and checks a file. The report holds every problem; the configuration is there when none of them is an error.
pub(crate) fn load(path: &Path, environment: &Environment, secrets: Secrets) -> (Option<Config>, Report) {
    match text_of(path) {
        Ok(text) => parse(&path.display().to_string(), &text, environment, secrets),
        Err(message) => (None, unreadable(path, message)),
    }
}

fn unreadable(path: &Path, message: String) -> Report {
    let source = Source { name: path.display().to_string(), text: String::new() };
    let span = tree::Span { source: 0, range: 0..0 };
    let problem = Problem::error(span, message).help("check the path, and that this user may read it");
    Report { sources: vec![source], problems: vec![problem], files: Vec::new() }
}

/// Reads and checks the file of a control node.
pub(crate) fn load_control(path: &Path, environment: &Environment, secrets: Secrets) -> (Option<lower::ControlNode>, Report) {
    match text_of(path) {
        Ok(text) => lower::control_node(&path.display().to_string(), &text, environment, secrets),
        Err(message) => (None, unreadable(path, message)),
    }
}

/// Whether a file is one of a control node: only those say how nodes agree.
pub(crate) fn is_control(path: &Path) -> bool {
    let Ok(text) = text_of(path) else { return false };
    tree::Node::read(&text, 0, &mut Vec::new()).is_some_and(|tree| tree.get("raft").is_some())
}

/// Checks a text. `name` is what messages call it.
pub(crate) fn parse(name: &str, text: &str, environment: &Environment, secrets: Secrets) -> (Option<Config>, Report) {
    match read::read(name, text, environment) {
        Ok(reading) => lower::lower(reading, environment, secrets),
        Err(report) => (None, report),
    }
}

fn text_of(path: &Path) -> Result<String, String> {
    let length = std::fs::metadata(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?.len();
    if length > MAX_FILE_BYTES {
        return Err(format!("{} has {length} bytes; at most {MAX_FILE_BYTES} are read", path.display()));
    }
    std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}
