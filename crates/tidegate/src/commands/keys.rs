//! `tidegate keys …`: callers' keys of the control plane.

use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand, ValueHint};
use http::Method;
use serde_json::{Value, json};

use crate::admin_client::{AdminClient, ControlPlane, Reason, encode};
use crate::key::KeyEnvName;
use crate::output::{Output, moment, table};

/// `tidegate keys …`. For keys of a file see `tidegate key`.
#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Make a key. It is shown once, on standard output.
    Create(CreateArgs),
    /// List keys.
    List {
        /// Only those of this workspace.
        #[arg(long)]
        workspace: Option<String>,
        /// How many.
        #[arg(long, default_value_t = 1_000)]
        limit: u32,
        #[command(flatten)]
        plane: ControlPlane,
    },
    /// Show a key.
    Show {
        /// Its id: the ten characters after `tg_live_`.
        id: String,
        #[command(flatten)]
        plane: ControlPlane,
    },
    /// Give a key a new secret. The old one holds for a while.
    Rotate {
        /// Its id.
        id: String,
        /// How long the old secret holds, hours; 0 ends it at once.
        #[arg(long, default_value_t = 24)]
        overlap_hours: u64,
        #[command(flatten)]
        reason: Reason,
        #[command(flatten)]
        plane: ControlPlane,
    },
    /// Revoke a key for good.
    Revoke {
        /// Its id.
        id: String,
        /// Return when every live edge has confirmed, or name those that have not.
        #[arg(long)]
        wait: bool,
        /// Cut running answers too.
        #[arg(long)]
        kill_streams: bool,
        #[command(flatten)]
        reason: Reason,
        #[command(flatten)]
        plane: ControlPlane,
    },
    /// Refuse a key without forgetting it.
    Disable {
        /// Its id.
        id: String,
        #[command(flatten)]
        reason: Reason,
        #[command(flatten)]
        plane: ControlPlane,
    },
    /// Accept a disabled key again.
    Enable {
        /// Its id.
        id: String,
        #[command(flatten)]
        reason: Reason,
        #[command(flatten)]
        plane: ControlPlane,
    },
}

/// `tidegate keys create`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate keys create --name search
  tidegate keys create --name search --workspace dev --organisation acme --policy policy.json
  tidegate keys create --name deploy --management")]
pub(crate) struct CreateArgs {
    /// Name in logs and bills.
    #[arg(long)]
    name: String,
    /// Owner; declared under `organisations`.
    #[arg(long)]
    organisation: Option<String>,
    /// Part of the owner; declared under `workspaces`.
    #[arg(long)]
    workspace: Option<String>,
    /// What the key is meant for; shows in its first letters.
    #[arg(long, value_enum, default_value = "live")]
    env: KeyEnvName,
    /// A key that manages keys and cannot call models.
    #[arg(long)]
    management: bool,
    /// Days until it expires.
    #[arg(long, value_name = "DAYS")]
    expires_in_days: Option<u64>,
    /// JSON file of what the key may do: `allowed_models`, `preferences`, `mode`, `raw_errors`, `grace`.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    policy: Option<std::path::PathBuf>,
    #[command(flatten)]
    reason: Reason,
    #[command(flatten)]
    plane: ControlPlane,
}

pub(super) fn run(command: &KeysCommand, output: &mut Output) -> anyhow::Result<ExitCode> {
    match command {
        KeysCommand::Create(args) => create(args, output),
        KeysCommand::List { workspace, limit, plane } => list(workspace.as_deref(), *limit, plane, output),
        KeysCommand::Show { id, plane } => {
            let answer = AdminClient::new(plane)?.get(&path(id, ""))?;
            output.line(serde_json::to_string_pretty(&answer)?);
            Ok(ExitCode::SUCCESS)
        }
        KeysCommand::Rotate { id, overlap_hours, reason, plane } => {
            let body = json!({ "overlap_seconds": overlap_hours.saturating_mul(3_600), "reason": reason.or("tidegate keys rotate") });
            let answer = post(plane, &path(id, "/rotate"), &body)?;
            let until = answer["previous_until"].as_u64().filter(|until| *until > 0);
            let ends = until.map_or_else(|| "ended at once".to_owned(), |until| format!("holds until {}", moment(until)));
            shown_once(&answer, plane, output, &format!("The old secret {ends}."))
        }
        KeysCommand::Revoke { id, wait, kill_streams, reason, plane } => {
            let body = json!({ "kill_streams": kill_streams, "reason": reason.or("tidegate keys revoke") });
            let answer = post(plane, &path(id, if *wait { "/revoke?wait=all" } else { "/revoke" }), &body)?;
            revoked(id, &answer, *wait, plane, output)
        }
        KeysCommand::Disable { id, reason, plane } => switch(id, "disable", reason, plane, output),
        KeysCommand::Enable { id, reason, plane } => switch(id, "enable", reason, plane, output),
    }
}

fn create(args: &CreateArgs, output: &mut Output) -> anyhow::Result<ExitCode> {
    let policy: Option<Value> = match &args.policy {
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
            Some(serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))?)
        }
        None => None,
    };
    let now = tidegate_runtime::Clock::start().unix_seconds();
    let body = json!({
        "name": args.name,
        "organisation": args.organisation.clone().unwrap_or_default(),
        "workspace": args.workspace.clone().unwrap_or_default(),
        "env": tidegate_runtime::api_key::KeyEnv::from(args.env).as_str(),
        "role": if args.management { "management" } else { "inference" },
        "expires_at": args.expires_in_days.map(|days| now.saturating_add(days.saturating_mul(86_400))),
        "policy": policy,
        "reason": args.reason.or(format!("tidegate keys create --name {}", args.name)),
    });
    let answer = post(&args.plane, "/keys", &body)?;
    let id = answer["id"].as_str().unwrap_or_default();
    shown_once(&answer, &args.plane, output, &format!("Its id is {id}."))
}

/// The key goes to standard output, everything else to standard error, so that it can be piped into a secret store.
fn shown_once(answer: &Value, plane: &ControlPlane, output: &mut Output, note: &str) -> anyhow::Result<ExitCode> {
    if plane.json {
        output.line(answer);
        return Ok(ExitCode::SUCCESS);
    }
    output.note("This is the only time the key is shown:");
    output.line(answer["key"].as_str().context("the answer holds no key")?);
    output.note(note);
    Ok(ExitCode::SUCCESS)
}

fn list(workspace: Option<&str>, limit: u32, plane: &ControlPlane, output: &mut Output) -> anyhow::Result<ExitCode> {
    let narrowed = workspace.map(|workspace| format!("&workspace={}", encode(workspace))).unwrap_or_default();
    let answer = AdminClient::new(plane)?.get(&format!("/keys?limit={limit}{narrowed}"))?;
    if plane.json {
        output.line(&answer);
        return Ok(ExitCode::SUCCESS);
    }
    let rows = answer["keys"].as_array().into_iter().flatten().map(|key| {
        let text = |field: &str| key[field].as_str().unwrap_or("-").to_owned();
        let state = match key["disabled"].as_bool() {
            Some(true) => "disabled",
            _ => "enabled",
        };
        let secrets = key["secrets"].as_array().map_or(0, Vec::len);
        let expires = key["expires_at"].as_u64().map_or_else(|| "never".to_owned(), moment);
        vec![
            text("id"),
            text("name"),
            text("organisation"),
            text("workspace"),
            text("role"),
            state.to_owned(),
            secrets.to_string(),
            expires,
        ]
    });
    output.text(table(&["ID", "NAME", "ORGANISATION", "WORKSPACE", "ROLE", "STATE", "SECRETS", "EXPIRES"], rows));
    if answer["more"] == true {
        output.note(format_args!("more than {limit} keys: raise `--limit`"));
    }
    Ok(ExitCode::SUCCESS)
}

fn revoked(id: &str, answer: &Value, waited: bool, plane: &ControlPlane, output: &mut Output) -> anyhow::Result<ExitCode> {
    let empty = |key: &str| answer[key].as_array().is_none_or(Vec::is_empty);
    let all = empty("missing") && empty("lost") && empty("unreachable_nodes");
    if plane.json {
        output.line(answer);
    } else if waited {
        output.line(format_args!("key {id} is revoked (revision {}), {} edges have confirmed", answer["revision"], answer["confirmed"]));
        for edge in answer["missing"].as_array().into_iter().flatten() {
            let text = |key: &str| edge[key].as_str().unwrap_or("-");
            output.note(format_args!("edge {} in {} has not", text("edge"), text("region")));
        }
        for edge in answer["lost"].as_array().into_iter().flatten() {
            let text = |key: &str| edge[key].as_str().unwrap_or("-");
            let seconds = edge["silent_ms"].as_u64().unwrap_or_default() / 1_000;
            output.note(format_args!(
                "edge {} in {} has not: it is cut off since {seconds} s, and accepts the key until it is back or the key's grace ends",
                text("edge"),
                text("region")
            ));
        }
        for node in answer["unreachable_nodes"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            output.note(format_args!("control node {node} did not answer for its edges"));
        }
    } else {
        output.line(format_args!("key {id} is revoked (revision {})", answer["revision"]));
    }
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn switch(id: &str, what: &str, reason: &Reason, plane: &ControlPlane, output: &mut Output) -> anyhow::Result<ExitCode> {
    let answer = post(plane, &path(id, &format!("/{what}")), &json!({ "reason": reason.or(format!("tidegate keys {what}")) }))?;
    if plane.json {
        output.line(&answer);
    } else {
        output.line(format_args!("key {id} is {what}d (revision {})", answer["revision"]));
    }
    Ok(ExitCode::SUCCESS)
}

fn path(id: &str, below: &str) -> String {
    format!("/keys/{}{below}", encode(id))
}

fn post(plane: &ControlPlane, path: &str, body: &Value) -> anyhow::Result<Value> {
    AdminClient::new(plane)?.send_json(Method::POST, path, body)
}
