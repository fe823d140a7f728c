//! The shape of the workspace, held by a test: who may depend on whom, what the pure crates may pull in, how files are
//! named, and what lies at the top of the repository. `crates/README.md` is the source of truth for the crate map; this
//! file only compares.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

type TestResult = Result<(), Box<dyn std::error::Error>>;

/// Packages that bring an async runtime, sockets, a TLS stack, a clock service or system randomness.
const IMPURE: &[&str] = &[
    "async-io",
    "async-std",
    "getrandom",
    "h2",
    "hyper",
    "hyper-util",
    "mio",
    "quinn",
    "rand",
    "reqwest",
    "rustls",
    "smol",
    "socket2",
    "tokio",
    "tokio-util",
];

/// Names that say nothing about what a file is about: things end up there because they have no home.
const NAMELESS: &[&str] = &["common", "helper", "helpers", "manager", "misc", "util", "utils"];

/// What may lie at the top of the repository.
const TOP_LEVEL: &[&str] = &[
    ".cargo",
    ".ci",
    ".clippy.toml",
    ".config",
    ".deny.toml",
    ".dockerignore",
    ".github",
    ".gitignore",
    ".rustfmt.toml",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "Dockerfile",
    "LICENSE",
    "README.md",
    "crates",
    "docs",
    "helm",
    "k8s",
    "loadtest",
    "proto",
];

#[test]
fn every_dependency_between_crates_is_allowed_by_the_map() -> TestResult {
    let map = crate_map()?;
    let mut wrong = Vec::new();
    for (name, edges) in internal_edges()? {
        let Some(rule) = map.get(&name) else {
            wrong.push(format!("`{name}` has no row in crates/README.md"));
            continue;
        };
        for target in edges.iter().filter(|target| !rule.permits(target)) {
            wrong.push(format!("`{name}` depends on `{target}`, which its row does not allow"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn every_row_of_the_map_is_a_crate() -> TestResult {
    let crates = internal_edges()?;
    let map = crate_map()?;
    let stale: Vec<_> = map.keys().filter(|name| !crates.contains_key(*name)).collect();
    assert!(stale.is_empty(), "rows of crates/README.md without a crate: {stale:?}");
    for (name, rule) in &map {
        let unknown: Vec<_> = rule.names().filter(|target| !crates.contains_key(*target)).collect();
        assert!(unknown.is_empty(), "the row of `{name}` names unknown crates: {unknown:?}");
    }
    Ok(())
}

#[test]
fn pure_crates_pull_in_no_runtime_and_no_sockets() -> TestResult {
    for (name, row) in crate_map()?.iter().filter(|(_, row)| row.pure) {
        assert_eq!(row.allowed, Allowed::Only(BTreeSet::new()), "`{name}` is pure and depends on no other crate here");
        let tree = cargo(&["tree", "--offline", "--edges=normal", "--prefix=none", "--format={p}", "--package", &package_name(name)])?;
        let packages: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
        let found: Vec<_> = IMPURE.iter().filter(|package| packages.contains(**package)).collect();
        assert!(found.is_empty(), "`{name}` is pure but its dependencies hold {found:?}");
    }
    Ok(())
}

#[test]
fn the_clippy_lists_of_the_pure_crates_are_the_same() -> TestResult {
    let lists: BTreeSet<String> = crate_map()?
        .iter()
        .filter(|(_, row)| row.pure)
        .map(|(name, _)| fs::read_to_string(root().join("crates").join(name).join("clippy.toml")))
        .collect::<Result<_, _>>()?;
    assert_eq!(lists.len(), 1, "the clippy.toml files of the pure crates differ");
    Ok(())
}

#[test]
fn no_file_has_a_name_that_says_nothing() -> TestResult {
    let nameless: Vec<_> = rust_files()?
        .into_iter()
        .filter(|path| {
            let named = path.strip_prefix(root()).unwrap_or(path);
            named
                .iter()
                .map(|part| Path::new(part).file_stem().unwrap_or(part).to_string_lossy().into_owned())
                .any(|part| NAMELESS.contains(&part.as_str()))
        })
        .collect();
    assert!(nameless.is_empty(), "name these for what they are about: {nameless:?}");
    Ok(())
}

#[test]
fn every_crate_root_opens_with_what_it_is() -> TestResult {
    let metadata: Value = serde_json::from_str(&metadata()?)?;
    let mut silent = Vec::new();
    for target in
        metadata["packages"].as_array().into_iter().flatten().flat_map(|package| package["targets"].as_array().into_iter().flatten())
    {
        let path = target["src_path"].as_str().unwrap_or_default();
        if !fs::read_to_string(path)?.starts_with("//! ") {
            silent.push(path.to_owned());
        }
    }
    assert!(silent.is_empty(), "these crate roots do not open with a `//!` comment: {silent:?}");
    Ok(())
}

#[test]
fn nothing_unexpected_lies_at_the_top() -> TestResult {
    let strangers: Vec<_> = tracked_top_level()?.into_iter().filter(|name| !TOP_LEVEL.contains(&name.as_str())).collect();
    assert!(strangers.is_empty(), "these belong into a folder: {strangers:?}");
    Ok(())
}

/// One row of the crate map.
struct Row {
    /// The sentence ends in "Pure.": no clock, no randomness, no environment, no I/O.
    pure: bool,
    allowed: Allowed,
}

#[derive(Debug, PartialEq, Eq)]
enum Allowed {
    /// `all`, or `all but` some.
    AllBut(BTreeSet<String>),
    /// A list, or `–` for none.
    Only(BTreeSet<String>),
}

impl Row {
    fn permits(&self, name: &str) -> bool {
        match &self.allowed {
            Allowed::AllBut(except) => !except.contains(name),
            Allowed::Only(names) => names.contains(name),
        }
    }

    fn names(&self) -> impl Iterator<Item = &String> {
        match &self.allowed {
            Allowed::AllBut(names) | Allowed::Only(names) => names.iter(),
        }
    }
}

/// The table of `crates/README.md` whose header starts with `| crate |`, by directory name.
fn crate_map() -> Result<BTreeMap<String, Row>, Box<dyn std::error::Error>> {
    let text = fs::read_to_string(root().join("crates/README.md"))?;
    let rows: BTreeMap<String, Row> = text
        .lines()
        .skip_while(|line| !line.starts_with("| crate |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .filter_map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [name, sentence, allowed] = cells.as_slice() else {
                return None;
            };
            let name = quoted(name).pop_first()?;
            let names = quoted(allowed);
            let allowed = if allowed.starts_with("all") { Allowed::AllBut(names) } else { Allowed::Only(names) };
            Some((name.trim_start_matches("../").to_owned(), Row { pure: sentence.ends_with("Pure."), allowed }))
        })
        .collect();
    if rows.is_empty() {
        return Err("crates/README.md has no table that starts with `| crate |`".into());
    }
    Ok(rows)
}

/// The words between backticks.
fn quoted(cell: &str) -> BTreeSet<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Normal and build dependencies between members, by directory name. Dev-dependencies are free: a test may use whatever
/// it needs.
fn internal_edges() -> Result<BTreeMap<String, BTreeSet<String>>, Box<dyn std::error::Error>> {
    let metadata: Value = serde_json::from_str(&metadata()?)?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata lists no packages")?;
    let edges = packages
        .iter()
        .map(|package| {
            let targets = package["dependencies"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|dependency| dependency["path"].is_string() && dependency["kind"] != "dev")
                .filter_map(|dependency| dependency["name"].as_str())
                .map(directory_name)
                .collect();
            (directory_name(package["name"].as_str().unwrap_or_default()), targets)
        })
        .collect();
    Ok(edges)
}

/// `tidegate-wire` lives in `wire`; the binary package is called `tidegate` like its directory.
fn directory_name(package: &str) -> String {
    package.strip_prefix("tidegate-").unwrap_or(package).to_owned()
}

fn package_name(directory: &str) -> String {
    if directory == "tidegate" { directory.to_owned() } else { format!("tidegate-{directory}") }
}

fn metadata() -> Result<String, Box<dyn std::error::Error>> {
    cargo(&["metadata", "--no-deps", "--offline", "--format-version", "1"])
}

fn cargo(arguments: &[&str]) -> Result<String, Box<dyn std::error::Error>> {
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(root()).output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("cargo {} failed: {said}", arguments.join(" ")).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// What git tracks at the top; without git (a source archive) everything that is not a build product.
fn tracked_top_level() -> Result<BTreeSet<String>, Box<dyn std::error::Error>> {
    let git = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output();
    if let Some(output) = git.ok().filter(|output| output.status.success() && !output.stdout.is_empty()) {
        let listed = String::from_utf8(output.stdout)?;
        return Ok(listed
            .split('\0')
            .filter(|path| !path.is_empty())
            .filter_map(|path| path.split('/').next())
            .map(str::to_owned)
            .collect());
    }
    let ignored = fs::read_to_string(root().join(".gitignore"))?;
    let ignored: BTreeSet<&str> = ignored.lines().map(|line| line.trim_matches('/')).collect();
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(root())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !ignored.contains(name.as_str()) {
            names.insert(name);
        }
    }
    Ok(names)
}

/// Every Rust file of the workspace, build products and installed packages left out.
fn rust_files() -> Result<Vec<PathBuf>, Box<dyn std::error::Error>> {
    let mut found = Vec::new();
    let mut open = vec![root().join("crates"), root().join("loadtest")];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                if !name.starts_with('.') && name != "target" && name != "node_modules" {
                    open.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    Ok(found)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
