//! `tidegate apply` and its kin: what is declared, as it was, and as it will be.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, ValueHint};
use http::Method;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::{BAD_CONFIG, show_problems};
use crate::admin_client::{AdminClient, ControlPlane, Reason, encode};
use crate::config::Environment;
use crate::config::resources::{self, Declared};
use crate::output::{Output, table};

/// `tidegate apply`.
#[derive(Debug, Args)]
#[command(after_help = "\
The plan is shown first. Nothing that the file does not name is touched unless `--prune` is given. All of it is one revision: either
everything is so afterwards, or nothing has changed. What can take traffic down reaches one edge per region first, then a tenth, then all;
`--immediate` skips that.

Secrets that the file refers to (`env:`, `file:`) are read here and sealed by the control node before anything is agreed on.

Examples:
  tidegate apply -f mesh.yaml
  tidegate apply -f mesh.yaml --dry-run
  tidegate apply -f mesh.yaml --prune --yes --reason 'retire the old models'")]
pub(crate) struct ApplyArgs {
    /// What is to be so: sections of a configuration file.
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: PathBuf,
    /// Show the plan and stop.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
    /// Remove what the file does not declare.
    #[arg(long)]
    prune: bool,
    /// Reach every edge at once instead of in stages.
    #[arg(long)]
    immediate: bool,
    /// Only if the state still has this revision.
    #[arg(long, value_name = "REVISION")]
    expect: Option<u64>,
    #[command(flatten)]
    reason: Reason,
    #[command(flatten)]
    plane: ControlPlane,
}

/// `tidegate diff`.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 nothing differs, 1 something does, 2 the file is not good.

Example:
  tidegate diff -f mesh.yaml")]
pub(crate) struct DiffArgs {
    /// What is to be so.
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: PathBuf,
    /// Count what the file does not declare as a difference too.
    #[arg(long)]
    prune: bool,
    #[command(flatten)]
    plane: ControlPlane,
}

/// `tidegate history`.
#[derive(Debug, Args)]
#[command(after_help = "\
The newest 1,000 revisions are kept (or 64 MiB of them, whichever is less).

Examples:
  tidegate history
  tidegate history endpoint acme/one@groq
  tidegate history --revision 812")]
pub(crate) struct HistoryArgs {
    /// Kind of one resource.
    #[arg(value_name = "KIND", requires = "name")]
    kind: Option<String>,
    /// Its name.
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// What one revision changed.
    #[arg(long, value_name = "REVISION", conflicts_with = "kind")]
    revision: Option<u64>,
    /// How many lines.
    #[arg(long, default_value_t = 20)]
    limit: u32,
    #[command(flatten)]
    plane: ControlPlane,
}

/// `tidegate rollback`.
#[derive(Debug, Args)]
#[command(after_help = "\
Declares again what was declared at a revision, as a new revision. Keys, credentials and overrides stay as they are. It reaches every edge
at once, because it has been in service before; `--staged` goes through the stages.

Example:
  tidegate rollback --to 811 --reason 'the new prices were wrong'")]
pub(crate) struct RollbackArgs {
    /// Revision to return to.
    #[arg(long, value_name = "REVISION")]
    to: u64,
    /// Show the plan and stop.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
    /// Go through the stages of a rollout.
    #[arg(long)]
    staged: bool,
    #[command(flatten)]
    reason: Reason,
    #[command(flatten)]
    plane: ControlPlane,
}

pub(super) fn apply(args: &ApplyArgs, output: &mut Output) -> anyhow::Result<ExitCode> {
    let Some(declared) = read(&args.file, output) else { return Ok(ExitCode::from(BAD_CONFIG)) };
    let client = AdminClient::new(&args.plane)?;
    let mut body = change(&declared);
    body["prune"] = args.prune.into();
    body["immediate"] = args.immediate.into();
    body["reason"] = args.reason.or(format!("tidegate apply -f {}", args.file.display())).into();
    if let Some(expect) = args.expect {
        body["expected_revision"] = expect.into();
    }
    let plan = client.send_json(Method::POST, "/plan", &body)?;
    if !args.plane.json {
        show(&plan, output);
    }
    if args.dry_run || nothing(&plan) {
        if args.plane.json {
            output.line(&plan);
        }
        return Ok(ExitCode::SUCCESS);
    }
    if !args.yes && !confirmed(output)? {
        output.note("nothing was changed");
        return Ok(ExitCode::FAILURE);
    }
    // What was shown is what is done: on another revision it would be another plan.
    body["expected_revision"] = plan["base_revision"].clone();
    let done = client.send_json(Method::POST, "/apply", &body)?;
    finish(&done, &args.plane, output);
    Ok(ExitCode::SUCCESS)
}

pub(super) fn diff(args: &DiffArgs, output: &mut Output) -> anyhow::Result<ExitCode> {
    let Some(declared) = read(&args.file, output) else { return Ok(ExitCode::from(BAD_CONFIG)) };
    let mut body = change(&declared);
    body["prune"] = args.prune.into();
    let plan = AdminClient::new(&args.plane)?.send_json(Method::POST, "/plan", &body)?;
    if args.plane.json {
        output.line(&plan);
    } else {
        show(&plan, output);
        show_bodies(&plan, output);
    }
    Ok(if nothing(&plan) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub(super) fn history(args: &HistoryArgs, output: &mut Output) -> anyhow::Result<ExitCode> {
    let client = AdminClient::new(&args.plane)?;
    if let Some(revision) = args.revision {
        let answer = client.get(&format!("/revisions/{revision}"))?;
        if args.plane.json {
            output.line(&answer);
        } else {
            output.line(headline(&answer));
            show(&answer, output);
            show_bodies(&answer, output);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let path = match (&args.kind, &args.name) {
        (Some(kind), Some(name)) => format!("/history?kind={}&name={}&limit={}", encode(kind), encode(name), args.limit),
        _ => format!("/history?limit={}", args.limit),
    };
    let answer = client.get(&path)?;
    if args.plane.json {
        output.line(&answer);
        return Ok(ExitCode::SUCCESS);
    }
    for revision in answer["revisions"].as_array().into_iter().flatten() {
        output.line(headline(revision));
        if let Some(spec) = revision.get("spec") {
            output.line(format_args!("  {spec}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn rollback(args: &RollbackArgs, output: &mut Output) -> anyhow::Result<ExitCode> {
    let client = AdminClient::new(&args.plane)?;
    let reason = args.reason.or(format!("tidegate rollback --to {}", args.to));
    let mut body = json!({ "to": args.to, "staged": args.staged, "dry_run": true, "reason": reason });
    let plan = client.send_json(Method::POST, "/rollback", &body)?;
    if !args.plane.json {
        show(&plan, output);
    }
    if args.dry_run || nothing(&plan) {
        if args.plane.json {
            output.line(&plan);
        }
        return Ok(ExitCode::SUCCESS);
    }
    if !args.yes && !confirmed(output)? {
        output.note("nothing was changed");
        return Ok(ExitCode::FAILURE);
    }
    body["dry_run"] = false.into();
    body["expected_revision"] = plan["base_revision"].clone();
    let done = client.send_json(Method::POST, "/rollback", &body)?;
    finish(&done, &args.plane, output);
    Ok(ExitCode::SUCCESS)
}

fn read(path: &std::path::Path, output: &mut Output) -> Option<Declared> {
    let (declared, report) = resources::load(path, &Environment::of_process());
    // Secrets that are missing here may be there already; the control node says so if not.
    show_problems(&report, output);
    declared
}

fn change(declared: &Declared) -> Value {
    let upserts: Vec<Value> = declared
        .resources
        .iter()
        .map(|resource| {
            let spec: Value = serde_json::from_slice(&resource.body).unwrap_or_default();
            json!({ "kind": resource.kind.as_str(), "name": resource.name, "spec": spec })
        })
        .collect();
    let secrets: Vec<Value> = declared
        .secrets
        .iter()
        .map(|secret| {
            let text = secret.secret.as_ref().map(ExposeSecret::expose_secret);
            json!({ "provider": secret.provider, "credential": secret.credential, "secret": text, "reference": secret.reference })
        })
        .collect();
    json!({ "upserts": upserts, "secrets": secrets })
}

fn nothing(plan: &Value) -> bool {
    let empty = |key: &str| plan[key].as_array().is_none_or(Vec::is_empty);
    empty("changes") && empty("secrets")
}

fn show(plan: &Value, output: &mut Output) {
    if nothing(plan) {
        output.line("nothing to change");
        return;
    }
    let mut counts = [0usize; 3];
    for change in plan["changes"].as_array().into_iter().flatten() {
        let text = |key: &str| change[key].as_str().unwrap_or_default();
        let (sign, position) = match text("action") {
            "create" => ("+", 0),
            "delete" => ("-", 2),
            _ => ("~", 1),
        };
        counts[position] += 1;
        output.line(format_args!("{sign} {} {}", text("kind"), text("name")));
    }
    for secret in plan["secrets"].as_array().into_iter().flatten() {
        let text = |key: &str| secret[key].as_str().unwrap_or_default();
        output.line(format_args!("* secret {}/{}", text("provider"), text("credential")));
    }
    let secrets = plan["secrets"].as_array().map_or(0, Vec::len);
    let [create, update, delete] = counts;
    output.line(format_args!("{create} to create, {update} to change, {delete} to delete, {secrets} secrets to seal"));
}

/// Lines that go and lines that come, of what changes.
fn show_bodies(plan: &Value, output: &mut Output) {
    for change in plan["changes"].as_array().into_iter().flatten() {
        let text = |key: &str| change[key].as_str().unwrap_or_default();
        output.line(format_args!("\n{} {}", text("kind"), text("name")));
        let lines = |key: &str| -> Vec<String> {
            let pretty = |value| serde_json::to_string_pretty(value).unwrap_or_default();
            Some(&change[key])
                .filter(|value| !value.is_null())
                .map(|value| pretty(value).lines().map(str::to_owned).collect())
                .unwrap_or_default()
        };
        let (before, after) = (lines("before"), lines("after"));
        before.iter().filter(|line| !after.contains(line)).for_each(|line| output.line(format_args!("- {line}")));
        after.iter().filter(|line| !before.contains(line)).for_each(|line| output.line(format_args!("+ {line}")));
    }
}

fn headline(revision: &Value) -> String {
    let text = |key: &str| revision[key].as_str().unwrap_or_default();
    let time = crate::output::moment(revision["time_ms"].as_u64().unwrap_or_default() / 1000);
    let changes = revision["changes"].as_array().map_or(0, Vec::len);
    let plural = if changes == 1 { "" } else { "s" };
    format!("{}  {time}  {}  {changes} change{plural}  {}", revision["revision"], text("actor"), text("reason"))
}

fn finish(done: &Value, plane: &ControlPlane, output: &mut Output) {
    if plane.json {
        output.line(done);
    } else {
        output.line(format_args!("revision {}", done["revision"]));
    }
}

/// Asks, on a terminal only.
fn confirmed(output: &mut Output) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("nobody can be asked here: give `--yes`, or `--dry-run` to see the plan only");
    }
    output.note_text("Do this? [y/N] ");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// `tidegate edges`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  tidegate edges")]
pub(crate) struct EdgesArgs {
    #[command(flatten)]
    plane: ControlPlane,
}

pub(super) fn edges(args: &EdgesArgs, output: &mut Output) -> anyhow::Result<ExitCode> {
    let answer = AdminClient::new(&args.plane)?.get("/edges")?;
    if args.plane.json {
        output.line(&answer);
        return Ok(ExitCode::SUCCESS);
    }
    let applied = answer["applied"].as_u64().unwrap_or_default();
    let rows = answer["edges"].as_array().into_iter().flatten().map(|edge| {
        let text = |key: &str| edge[key].as_str().unwrap_or("-").to_owned();
        let behind = applied.saturating_sub(edge["applied"].as_u64().unwrap_or_default());
        let refused = match &edge["refused"] {
            Value::Null => "-".to_owned(),
            refused => format!("{}: {}", refused["index"], refused["reason"].as_str().unwrap_or_default()),
        };
        vec![text("name"), text("region"), text("build"), edge["applied"].to_string(), behind.to_string(), refused]
    });
    output.text(table(&["EDGE", "REGION", "BUILD", "APPLIED", "BEHIND", "REFUSES"], rows));
    for edge in answer["lost"].as_array().into_iter().flatten() {
        let (name, seconds) = (edge["name"].as_str().unwrap_or("-"), edge["silent_ms"].as_u64().unwrap_or_default() / 1_000);
        output.note(format_args!("edge {name} follows no node since {seconds} s and did not say that it stops"));
    }
    for node in answer["unreachable_nodes"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        output.note(format_args!("control node {node} did not answer: its edges are not listed"));
    }
    Ok(ExitCode::SUCCESS)
}
