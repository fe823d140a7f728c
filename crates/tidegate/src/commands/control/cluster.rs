//! Who takes part: the commands of `tidegate control` that ask a running node.

use std::process::ExitCode;

use anyhow::Context;
use http::Method;
use hyper::body::Bytes;
use serde_json::{Value, json};

use super::ControlCommand;
use crate::admin_client::{AdminClient, ControlPlane, encode};
use crate::output::{Output, table};

pub(super) fn run(command: &ControlCommand, output: &mut Output) -> anyhow::Result<ExitCode> {
    match command {
        ControlCommand::Init { cluster_id, reason, plane } => {
            let body = json!({ "cluster_id": cluster_id, "reason": reason.or("tidegate control init") });
            let answer = post(plane, "init", &body)?;
            done(output, plane, &answer, |answer| format!("cluster {cluster_id} has node {} as its first voter", answer["node_id"]));
        }
        ControlCommand::Join { peer, reason, plane } => {
            let answer = post(plane, "join", &json!({ "peers": peer, "reason": reason.or("tidegate control join") }))?;
            done(output, plane, &answer, |answer| {
                format!("node {} of cluster {}", answer["node_id"], answer["cluster_id"].as_str().unwrap_or_default())
            });
        }
        ControlCommand::Status { plane } => status(plane, output)?,
        ControlCommand::TransferLeader { to, reason, plane } => {
            let answer = post(plane, "transfer-leader", &json!({ "to": to, "reason": reason.or("tidegate control transfer-leader") }))?;
            done(output, plane, &answer, |answer| format!("node {} leads", answer["node_id"]));
        }
        ControlCommand::Promote { id, reason, plane } => {
            let answer = post(plane, "promote", &json!({ "id": id, "reason": reason.or("tidegate control promote") }))?;
            done(output, plane, &answer, |_| format!("node {id} is a voter"));
        }
        ControlCommand::Remove { id, reason, plane } => {
            let answer = post(plane, "remove", &json!({ "id": id, "reason": reason.or("tidegate control remove") }))?;
            done(output, plane, &answer, |_| format!("node {id} is no member any more; stop its process"));
        }
        ControlCommand::Replace { old, new, reason, plane } => {
            let body = json!({ "old": old, "new": new, "reason": reason.or("tidegate control replace") });
            let answer = post(plane, "replace", &body)?;
            done(output, plane, &answer, |_| format!("node {new} votes in the place of node {old}; stop the process of {old}"));
        }
        ControlCommand::Audit { limit, since, plane } => return super::audit::run(*limit, since.as_deref(), plane, output),
        ControlCommand::Backup { output: path, plane } => {
            let backup = AdminClient::new(plane)?.download("/cluster/backup")?;
            std::fs::write(path, &backup).with_context(|| format!("write {}", path.display()))?;
            let answer = json!({ "file": path, "bytes": backup.len() });
            done(output, plane, &answer, |_| format!("{} bytes in {}", backup.len(), path.display()));
        }
        ControlCommand::Restore { file, cluster_id, reason, plane } => {
            let backup = std::fs::read(file).with_context(|| format!("read {}", file.display()))?;
            let reason = encode(&reason.or("tidegate control restore"));
            let path = format!("/cluster/restore?cluster_id={}&reason={reason}", encode(cluster_id));
            let answer = AdminClient::new(plane)?.send(Method::POST, &path, Bytes::from(backup))?;
            let answer: Value = serde_json::from_slice(&answer).context("the answer is not JSON")?;
            done(output, plane, &answer, |answer| format!("cluster {cluster_id} has node {} as its first voter", answer["node_id"]));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn post(plane: &ControlPlane, what: &str, body: &Value) -> anyhow::Result<Value> {
    AdminClient::new(plane)?.send_json(Method::POST, &format!("/cluster/{what}"), body)
}

fn done(output: &mut Output, plane: &ControlPlane, answer: &Value, text: impl Fn(&Value) -> String) {
    if plane.json {
        output.line(answer);
    } else {
        output.line(text(answer));
    }
}

fn status(plane: &ControlPlane, output: &mut Output) -> anyhow::Result<()> {
    let client = AdminClient::new(plane)?;
    let (node, cluster) = (client.get("/status")?, client.get("/cluster")?);
    if plane.json {
        output.line(json!({ "node": node, "cluster": cluster }));
        return Ok(());
    }
    let text = |value: &Value, key: &str| match &value[key] {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if node["node_id"] == 0 {
        output.line("this node belongs to no cluster: `tidegate control init --cluster-id NAME`, or `tidegate control join`");
        return Ok(());
    }
    output.line(format_args!(
        "cluster {}, node {} ({}), term {}, revision {}, applied {}",
        text(&node, "cluster_id"),
        text(&node, "node_id"),
        text(&node, "role"),
        text(&node, "term"),
        text(&node, "revision"),
        text(&node, "applied"),
    ));
    for (key, what) in [("refusing", "refuses commands"), ("fatal", "has stopped")] {
        if let Some(why) = node[key].as_str() {
            output.note(format_args!("{what}: {why}"));
        }
    }
    let rows = cluster["members"].as_array().into_iter().flatten().map(|member| {
        let role = match (member["leader"].as_bool(), member["voter"].as_bool()) {
            (Some(true), _) => "leader",
            (_, Some(true)) => "voter",
            _ => "learner",
        };
        vec![
            text(member, "id"),
            text(member, "name"),
            text(member, "region"),
            role.to_owned(),
            text(member, "lag"),
            text(member, "address"),
            text(member, "admin_address"),
        ]
    });
    output.text(table(&["ID", "NAME", "REGION", "ROLE", "LAG", "RAFT", "ADMIN"], rows));
    Ok(())
}
