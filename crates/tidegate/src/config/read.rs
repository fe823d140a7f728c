//! From text to [`File`], with every structural problem found in one go.
//!
//! Serde stops at the first error. So each error is noted, the value that caused it is taken out of the tree, and the reading is
//! repeated, until it succeeds or nothing is left to take out. The number of rounds is bounded by the number of problems reported.

use std::collections::{BTreeMap, HashSet};

use serde::de::DeserializeOwned;

use super::file::File;
use super::mask;
use super::problem::{Problem, Report, Source};
use super::tree::{Entry, Node, Span, Value, join};

/// Environment variables as the process found them. An argument everywhere, so that tests have their own.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment(pub(crate) BTreeMap<String, String>);

impl Environment {
    /// The variables of this process whose names and values are text.
    pub(crate) fn of_process() -> Environment {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
        Environment(std::env::vars_os().filter_map(text).collect())
    }

    /// As if the variable had this value.
    pub(crate) fn set(&mut self, name: &str, value: String) {
        self.0.insert(name.to_owned(), value);
    }

    /// The value of a variable.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

/// What a reading yields.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) report: Report,
    /// What could be read; without the values that could not.
    pub(crate) file: File,
    /// The values of `file`, with their places.
    pub(crate) tree: Node,
    /// All values, also those that could not be read: a reference to one of them is not one problem more.
    pub(crate) whole: Node,
}

/// What a reading of any kind of file yields.
#[derive(Debug)]
pub(super) struct ReadingOf<T> {
    pub(super) report: Report,
    /// What could be read; without the values that could not.
    pub(super) file: T,
    /// The values of `file`, with their places.
    pub(super) tree: Node,
    /// All values, also those that could not be read.
    pub(super) whole: Node,
}

/// Reads a configuration. `name` is what messages call the file. A text of which nothing can be read yields its report only.
pub(crate) fn read(name: &str, text: &str, environment: &Environment) -> Result<Reading, Report> {
    let ReadingOf { report, file, tree, whole } = read_as(name, text, environment)?;
    Ok(Reading { report, file, tree, whole })
}

/// Reads any kind of file.
pub(super) fn read_as<T: DeserializeOwned>(name: &str, text: &str, environment: &Environment) -> Result<ReadingOf<T>, Report> {
    let mut report =
        Report { sources: vec![Source { name: name.to_owned(), text: text.to_owned() }], problems: Vec::new(), files: Vec::new() };
    let Some(mut tree) = Node::read(text, 0, &mut report.problems) else {
        mask::unreadable(&mut report.sources);
        return Err(report);
    };
    apply_environment(&mut tree, environment, &mut report);
    tree.name_paths("");
    mask::secrets(&tree, &mut report.sources);

    let whole = tree.clone();
    let Some(file) = read_structure(&mut tree, &mut report) else {
        report.tidy();
        return Err(report);
    };
    Ok(ReadingOf { report, file, tree, whole })
}

/// Variables with this prefix override keys: `TIDEGATE__OPERATIONS__ADDRESS` is `operations.address`.
const PREFIX: &str = "TIDEGATE__";

/// More structural problems than this are not looked for.
const MAX_ROUNDS: usize = 200;

/// Reads a structure out of a tree whose paths are named; what cannot be read is reported and taken out.
pub(super) fn read_structure<T: DeserializeOwned>(tree: &mut Node, report: &mut Report) -> Option<T> {
    let mut taken_out: HashSet<String> = HashSet::new();
    for _ in 0..MAX_ROUNDS {
        let failure = match T::deserialize(&*tree) {
            Ok(file) => return Some(file),
            Err(error) => error.into_failure(tree),
        };
        // A key that was there but could not be read has been reported already.
        let known = failure.missing.is_some_and(|field| taken_out.contains(&join(&failure.path, field)));
        if !known {
            report.problems.push(Problem {
                path: failure.path.clone(),
                help: failure.help,
                ..Problem::error(failure.span, failure.message)
            });
        }
        if !take_out(tree, &failure.path) {
            return None;
        }
        taken_out.insert(failure.path);
    }
    let more = Problem::error(tree.span.clone(), format!("more than {MAX_ROUNDS} problems; there may be others"));
    report.problems.push(more.help("solve these first, then check again"));
    None
}

/// Removes the value with this key path; false when there is none.
fn take_out(node: &mut Node, path: &str) -> bool {
    let below = |candidate: &Node| path.starts_with(&candidate.path);
    match &mut node.value {
        Value::Scalar { .. } => false,
        Value::Sequence(items) => {
            if let Some(index) = items.iter().position(|item| item.path == path) {
                items.remove(index);
                return true;
            }
            items.iter_mut().filter(|item| below(item)).any(|item| take_out(item, path))
        }
        Value::Mapping(entries) => {
            if let Some(index) = entries.iter().position(|entry| entry.node.path == path) {
                entries.remove(index);
                return true;
            }
            entries.iter_mut().filter(|entry| below(&entry.node)).any(|entry| take_out(&mut entry.node, path))
        }
    }
}

fn apply_environment(tree: &mut Node, environment: &Environment, report: &mut Report) {
    for (name, text) in &environment.0 {
        let Some(keys) = name.strip_prefix(PREFIX) else { continue };
        let keys: Vec<String> = keys.split("__").map(str::to_lowercase).collect();
        let source = report.sources.len();
        report.sources.push(Source { name: format!("environment variable {name}"), text: text.clone() });
        let Some(value) = Node::read(text, source, &mut report.problems) else { continue };
        if let Err(message) = set(tree, &keys, value) {
            let span = Span { source, range: 0..text.len() };
            report.problems.push(Problem::error(span, message).help("keys are joined by `__`, list items are numbered from 0"));
        }
    }
}

fn set(node: &mut Node, keys: &[String], value: Node) -> Result<(), String> {
    let Some((key, rest)) = keys.split_first() else {
        *node = value;
        return Ok(());
    };
    if key.is_empty() {
        return Err("an empty key in the name of the variable".to_owned());
    }
    if node.is_null() {
        node.value = Value::Mapping(Vec::new());
    }
    match &mut node.value {
        Value::Scalar { .. } => Err(format!("cannot set `{key}` inside {}", node.kind())),
        Value::Sequence(items) => match key.parse::<usize>().ok().and_then(|index| items.get_mut(index)) {
            Some(item) => set(item, rest, value),
            None => Err(format!("the list has {} items, and none is number `{key}`", items.len())),
        },
        Value::Mapping(entries) => {
            if let Some(entry) = entries.iter_mut().find(|entry| entry.key == *key) {
                return set(&mut entry.node, rest, value);
            }
            let span = value.span.clone();
            let mut node = Node { span: span.clone(), path: String::new(), value: Value::Mapping(Vec::new()) };
            set(&mut node, rest, value)?;
            entries.push(Entry { key: key.clone(), key_span: span, node });
            Ok(())
        }
    }
}
