//! `tidegate control audit`: who did what and why, checked line by line.

use std::process::ExitCode;

use anyhow::Context;
use serde_json::{Value, json};
use tidegate_control::admin::audit_entry;
use tidegate_control::state::verify_audit;
use tidegate_proto::v1::AuditEntry;

use crate::admin_client::{AdminClient, ControlPlane};
use crate::output::{Output, table};

/// Lines per request; the most that one answer has.
const PAGE: usize = 1_000;

pub(super) fn run(limit: usize, since: Option<&str>, plane: &ControlPlane, output: &mut Output) -> anyhow::Result<ExitCode> {
    let Log { newest_first, archived } = Log::read(&AdminClient::new(plane)?)?;
    let problem = check(&newest_first, archived, since).err();
    let shown = &newest_first[..limit.min(newest_first.len())];
    let newest = newest_first.first().map(|line| &line["hash"]);
    if plane.json {
        output.line(json!({
            "verified": problem.is_none(),
            "problem": problem,
            "lines": newest_first.len(),
            "archived": archived,
            "newest": newest,
            "entries": shown,
        }));
    } else {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let rows = shown.iter().map(|line| {
            let changes = line["changes"].as_array().map_or(0, Vec::len) as u64 + line["more"].as_u64().unwrap_or(0);
            vec![text(&line["index"]), text(&line["actor"]), text(&line["action"]), changes.to_string(), text(&line["reason"])]
        });
        output.text(table(&["INDEX", "ACTOR", "ACTION", "CHANGES", "REASON"], rows));
        match &problem {
            Some(problem) => output.note(problem),
            None => output.note(format_args!(
                "the chain holds: {} lines, {archived} older ones in the nodes' archives; newest {}",
                newest_first.len(),
                newest.and_then(Value::as_str).unwrap_or("none"),
            )),
        }
    }
    Ok(if problem.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What the cluster keeps of the log.
struct Log {
    newest_first: Vec<Value>,
    /// Lines before those.
    archived: u64,
}

impl Log {
    fn read(client: &AdminClient) -> anyhow::Result<Log> {
        let mut log = Log { newest_first: Vec::new(), archived: 0 };
        loop {
            let before = log.newest_first.last().and_then(|line| line["index"].as_u64());
            let before = before.map(|before| format!("&before={before}")).unwrap_or_default();
            let answer = client.get(&format!("/audit?limit={PAGE}{before}"))?;
            let lines = answer["entries"].as_array().context("the answer has no `entries`: is this a control node of this version?")?;
            log.archived = answer["archived"].as_u64().context("the answer does not say how much is `archived`")?;
            log.newest_first.extend(lines.iter().cloned());
            // A node that ignores `before` must not keep us here.
            let older = lines.last().and_then(|line| line["index"].as_u64()) < lines.first().and_then(|line| line["index"].as_u64());
            if lines.len() < PAGE || !older {
                return Ok(log);
            }
        }
    }
}

/// Whether every line is what its hash says and follows the one before it, and whether the log goes back to a hash.
fn check(newest_first: &[Value], archived: u64, since: Option<&str>) -> Result<(), String> {
    let read = |line: &Value| audit_entry(line).ok_or_else(|| format!("this is no line of an audit log: {line}"));
    let entries: Vec<AuditEntry> = newest_first.iter().rev().map(read).collect::<Result<_, _>>()?;
    let anchor = match entries.first() {
        // Nothing is said of lines that only the archives have.
        Some(oldest) if archived > 0 => oldest.previous.clone(),
        _ => Default::default(),
    };
    verify_audit(&anchor, &entries).map_err(|broken| format!("the audit log was tampered with: {broken}"))?;
    match since {
        Some(since) if !newest_first.iter().any(|line| line["hash"] == since || line["previous"] == since) => {
            Err(format!("the audit log does not go back to {since}: it was cut, or that line is in the archives only"))
        }
        Some(_) | None => Ok(()),
    }
}
