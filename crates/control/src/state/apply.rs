//! One command after the other: idempotency and bounds around, the command itself in the module of what it changes.

use std::collections::BTreeMap;

use tidegate_proto::v1::{
    AnsweredRequest, Applied, Change, Command, MemberMeta, PutCredential, RefusalCode, Refused, Reply, ResourceId, Rollback, command, reply,
};

use super::draft::{Draft, is_declared, refuse};
use super::requests::Seen;
use super::{Id, State, credentials, keys, overrides, rollouts};

/// Largest body of a resource.
pub(super) const BODY_BYTES: usize = 256 << 10;
/// Longest name, actor, reason and request id, bytes.
const TEXT_BYTES: usize = 1024;
/// Most entries of one change.
const CHANGE_ENTRIES: usize = 20_000;
/// Most resources of all kinds together: a million keys and what they use.
const RESOURCES: usize = 1_200_000;

pub(super) fn apply(state: &mut State, index: u64, term: u64, command: &Command) -> Reply {
    if !command.request_id.is_empty() {
        match state.requests.look(&command.request_id, &command.request_digest) {
            Seen::Never => {}
            Seen::Same(mut reply) => {
                if let Some(reply::Outcome::Applied(applied)) = &mut reply.outcome {
                    applied.replayed = true;
                }
                return reply;
            }
            Seen::Other => {
                let message = format!("request id `{}` was used for another request: choose a new one", command.request_id);
                return refused(state, refuse(RefusalCode::RequestReused, message));
            }
        }
    }
    let outcome = match checked(term, command) {
        Ok((action, body)) => run(Draft::new(state, index, command, action), body),
        Err(refusal) => Err(refusal),
    };
    let reply = match outcome {
        Ok((next, applied)) => {
            *state = next;
            Reply { outcome: Some(reply::Outcome::Applied(applied)) }
        }
        Err(refusal) => refused(state, refusal),
    };
    // A refusal is not kept: what was in its way may be gone when the request comes again.
    let done = matches!(reply.outcome, Some(reply::Outcome::Applied(_)));
    if done && !command.request_id.is_empty() {
        state.requests.push(AnsweredRequest {
            request_id: command.request_id.clone(),
            request_digest: command.request_digest.clone(),
            index,
            reply: Some(reply.clone()),
        });
    }
    reply
}

fn refused(state: &State, refusal: Refused) -> Reply {
    // Who has looked at one resource only knows its revision.
    let revision = if refusal.revision == 0 { state.revision } else { refusal.revision };
    Reply { outcome: Some(reply::Outcome::Refused(Refused { revision, ..refusal })) }
}

/// The body and the name that the audit log gives it.
fn checked(term: u64, command: &Command) -> Result<(&'static str, &command::Body), Refused> {
    let Some(body) = &command.body else {
        return Err(refuse(RefusalCode::Malformed, "the command has no body that this version knows"));
    };
    for (what, text) in [("actor", &command.actor), ("reason", &command.reason), ("request id", &command.request_id)] {
        if text.len() > TEXT_BYTES {
            return Err(refuse(RefusalCode::Limit, format!("{what} is longer than {TEXT_BYTES} bytes")));
        }
    }
    if command.term != 0 && command.term != term {
        return Err(refuse(RefusalCode::StaleTerm, format!("decided in term {}, and term {term} came", command.term)));
    }
    Ok((action(body), body))
}

fn action(body: &command::Body) -> &'static str {
    match body {
        command::Body::Change(_) => "change",
        command::Body::Rollback(_) => "rollback",
        command::Body::CreateKey(_) => "create_key",
        command::Body::EditKey(_) => "edit_key",
        command::Body::RotateKey(_) => "rotate_key",
        command::Body::RevokeKeys(_) => "revoke_keys",
        command::Body::PutCredential(_) => "put_credential",
        command::Body::RewrapCredentials(_) => "rewrap_credentials",
        command::Body::PutOverride(_) => "put_override",
        command::Body::LiftOverride(_) => "lift_override",
        command::Body::Expire(_) => "expire",
        command::Body::HealthBatch(_) => "health_batch",
        command::Body::AdvanceRollout(_) => "advance_rollout",
        command::Body::RevertRollout(_) => "revert_rollout",
        command::Body::PutMember(_) => "put_member",
        command::Body::RemoveMember(_) => "remove_member",
        command::Body::Note(_) => "note",
        command::Body::GrantBatch(_) => "grant_batch",
    }
}

fn run<'a>(mut draft: Draft<'a>, body: &'a command::Body) -> Result<(State, Applied), Refused> {
    let mut name = String::new();
    match body {
        command::Body::Change(asked) => change(&mut draft, asked)?,
        command::Body::Rollback(asked) => rollback(&mut draft, asked)?,
        command::Body::CreateKey(asked) => name = keys::create(&mut draft, asked)?,
        command::Body::EditKey(asked) => keys::edit(&mut draft, asked)?,
        command::Body::RotateKey(asked) => keys::rotate(&mut draft, asked)?,
        command::Body::RevokeKeys(asked) => keys::revoke(&mut draft, asked)?,
        command::Body::PutCredential(PutCredential { credential: Some(sealed) }) => credentials::put(&mut draft, sealed)?,
        command::Body::RewrapCredentials(asked) => credentials::rewrap(&mut draft, asked)?,
        command::Body::PutOverride(asked) => name = overrides::put(&mut draft, asked)?,
        command::Body::LiftOverride(asked) => overrides::lift(&mut draft, asked)?,
        command::Body::Expire(asked) => {
            overrides::expire(&mut draft, &asked.overrides);
            keys::expire(&mut draft, &asked.keys);
        }
        command::Body::HealthBatch(batch) => {
            let now = draft.now_ms;
            draft.state.health.apply(batch.clone(), now);
        }
        command::Body::GrantBatch(batch) => {
            let now = draft.now_ms;
            draft.state.grants.apply(batch, now);
        }
        command::Body::AdvanceRollout(asked) => rollouts::advance(&mut draft, asked)?,
        command::Body::RevertRollout(asked) => rollouts::revert(&mut draft, asked)?,
        command::Body::PutMember(asked) => put_member(&mut draft, asked.member.as_ref())?,
        command::Body::RemoveMember(asked) => {
            draft.state.members.remove(&asked.node_id);
        }
        command::Body::Note(asked) => draft.note(&asked.action),
        command::Body::PutCredential(PutCredential { credential: None }) => {
            return Err(refuse(RefusalCode::Malformed, "the credential is missing"));
        }
    }
    if draft.state.resources.newest().len() > RESOURCES {
        return Err(refuse(RefusalCode::Limit, format!("more than {RESOURCES} resources")));
    }
    let (state, changed) = draft.finish();
    let revision = state.revision;
    Ok((state, Applied { revision, changed, replayed: false, name }))
}

pub(super) fn expect_revision(draft: &Draft<'_>, expected: Option<u64>) -> Result<(), Refused> {
    let revision = draft.state.revision;
    match expected {
        Some(expected) if expected != revision => {
            let message = format!("revision {expected} was expected, the state is at revision {revision}: read it again and decide anew");
            Err(refuse(RefusalCode::Conflict, message))
        }
        Some(_) | None => Ok(()),
    }
}

fn change(draft: &mut Draft<'_>, asked: &Change) -> Result<(), Refused> {
    expect_revision(draft, asked.expected_revision)?;
    if asked.upserts.len() + asked.removes.len() + asked.credentials.len() > CHANGE_ENTRIES {
        return Err(refuse(RefusalCode::Limit, format!("more than {CHANGE_ENTRIES} entries in one change")));
    }
    let mut wanted = BTreeMap::new();
    for resource in &asked.upserts {
        let id = declared(resource.id.as_ref())?;
        if resource.body.len() > BODY_BYTES {
            return Err(refuse(RefusalCode::Limit, format!("{id} is larger than {BODY_BYTES} bytes")));
        }
        wanted.insert(id, Some(resource.body.clone()));
    }
    for id in &asked.removes {
        wanted.insert(declared(Some(id))?, None);
    }
    rollouts::put_declared(draft, wanted, asked.immediate);
    for sealed in &asked.credentials {
        credentials::put(draft, sealed)?;
    }
    Ok(())
}

fn declared(id: Option<&ResourceId>) -> Result<Id, Refused> {
    let Some(wire) = id else { return Err(refuse(RefusalCode::Malformed, "a resource without an id")) };
    let id = Id::from(wire);
    if wire.name.is_empty() || wire.name.len() > TEXT_BYTES || wire.kind.is_empty() || wire.kind.len() > TEXT_BYTES {
        return Err(refuse(RefusalCode::Malformed, format!("{id}: kind and name have 1 to {TEXT_BYTES} bytes")));
    }
    if !is_declared(&id) {
        return Err(refuse(RefusalCode::Malformed, format!("{id} is not declared: kind `{}` has commands of its own", id.kind_name())));
    }
    Ok(id)
}

fn rollback(draft: &mut Draft<'_>, asked: &Rollback) -> Result<(), Refused> {
    expect_revision(draft, asked.expected_revision)?;
    if asked.to > draft.state.revision {
        return Err(refuse(RefusalCode::NotFound, format!("revision {} is yet to come", asked.to)));
    }
    let Some(wanted) = draft.state.history.back_to(asked.to) else {
        let floor = draft.state.history.floor();
        return Err(refuse(RefusalCode::TooOld, format!("history reaches back to revision {floor} only")));
    };
    rollouts::put_declared(draft, wanted, !asked.staged);
    Ok(())
}

fn put_member(draft: &mut Draft<'_>, member: Option<&MemberMeta>) -> Result<(), Refused> {
    match member {
        Some(member) if member.node_id != 0 => {
            draft.state.members.insert(member.node_id, member.clone());
            Ok(())
        }
        Some(_) | None => Err(refuse(RefusalCode::Malformed, "a member without a node id")),
    }
}
