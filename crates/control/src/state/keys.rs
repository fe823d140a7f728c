//! Callers' keys. Each command works on the key as it is when it is applied, so that two operators cannot undo each other.

use prost::Message;
use tidegate_proto::Kind;
use tidegate_proto::v1::{CreateKey, EditKey, Key, KeySecret, RefusalCode, Refused, RevokeKeys, RotateKey};

use super::Id;
use super::apply::expect_revision;
use super::draft::{Draft, refuse};
use super::resources::Reach;

/// Time that an expired key stays known, seconds: its caller is told that it has expired, not that it never was.
pub const KEY_TOMBSTONE_SECONDS: u64 = 30 * 24 * 3600;
/// Secrets that a key may have at once: one in use, one that replaces it.
const SECRETS: usize = 2;
/// Longest name and policy, bytes.
const NAME_BYTES: usize = 256;
const POLICY_BYTES: usize = 64 << 10;

pub(super) fn create(draft: &mut Draft<'_>, asked: &CreateKey) -> Result<String, Refused> {
    expect_revision(draft, asked.expected_revision)?;
    let Some(key) = &asked.key else { return Err(refuse(RefusalCode::Malformed, "the key is missing")) };
    let id = Id::new(Kind::Key, &key.public_id);
    if draft.body(&id).is_some() {
        return Err(refuse(RefusalCode::Exists, format!("{id} is there already")));
    }
    let mut key = key.clone();
    key.created_at = draft.now_seconds();
    key.creator = draft.actor().to_owned();
    for secret in &mut key.secrets {
        secret.created_at = key.created_at;
    }
    put(draft, &id, &key)?;
    Ok(key.public_id)
}

pub(super) fn edit(draft: &mut Draft<'_>, asked: &EditKey) -> Result<(), Refused> {
    let (id, mut key) = present(draft, &asked.public_id)?;
    let revision = draft.revision_of(&id);
    if let Some(expected) = asked.expected_revision.filter(|expected| *expected != revision) {
        let message = format!("{id} was expected as revision {expected} left it, and revision {revision} has changed it: read it again");
        return Err(Refused { revision, ..refuse(RefusalCode::Conflict, message) });
    }
    fn set<T: Clone>(field: &mut T, asked: Option<&T>) {
        if let Some(asked) = asked {
            *field = asked.clone();
        }
    }
    set(&mut key.name, asked.name.as_ref());
    set(&mut key.disabled, asked.disabled.as_ref());
    set(&mut key.expires_at, asked.expires_at.as_ref());
    set(&mut key.policy, asked.policy.as_ref());
    set(&mut key.organisation, asked.organisation.as_ref());
    set(&mut key.workspace, asked.workspace.as_ref());
    put(draft, &id, &key)
}

pub(super) fn rotate(draft: &mut Draft<'_>, asked: &RotateKey) -> Result<(), Refused> {
    let (id, mut key) = present(draft, &asked.public_id)?;
    let Some(secret) = &asked.secret else { return Err(refuse(RefusalCode::Malformed, "the new secret is missing")) };
    let now = draft.now_seconds();
    for old in &mut key.secrets {
        old.expires_at = if old.expires_at == 0 { asked.previous_until } else { old.expires_at.min(asked.previous_until) };
    }
    key.secrets.retain(|old| old.expires_at > now);
    key.secrets.push(KeySecret { created_at: now, ..secret.clone() });
    let superfluous = key.secrets.len().saturating_sub(SECRETS);
    key.secrets.drain(..superfluous);
    put(draft, &id, &key)
}

pub(super) fn revoke(draft: &mut Draft<'_>, asked: &RevokeKeys) -> Result<(), Refused> {
    let ids: Vec<Id> = asked.public_ids.iter().map(|public_id| Id::new(Kind::Key, public_id)).collect();
    if !ids.iter().any(|id| draft.body(id).is_some()) {
        return Err(refuse(RefusalCode::NotFound, format!("no such key: {}", asked.public_ids.join(", "))));
    }
    for id in ids {
        draft.put(&id, None, Reach::All);
    }
    if asked.kill_streams {
        draft.cut_streams();
    }
    Ok(())
}

pub(super) fn expire(draft: &mut Draft<'_>, public_ids: &[String]) {
    let now = draft.now_seconds();
    for public_id in public_ids {
        let Ok((id, mut key)) = present(draft, public_id) else { continue };
        if key.expires_at != 0 && key.expires_at.saturating_add(KEY_TOMBSTONE_SECONDS) <= now {
            draft.put(&id, None, Reach::All);
            continue;
        }
        key.secrets.retain(|secret| secret.expires_at == 0 || secret.expires_at > now);
        draft.put(&id, Some(key.encode_to_vec().into()), Reach::All);
    }
}

fn present(draft: &Draft<'_>, public_id: &str) -> Result<(Id, Key), Refused> {
    let id = Id::new(Kind::Key, public_id);
    let Some(body) = draft.body(&id) else { return Err(refuse(RefusalCode::NotFound, format!("no such key: {public_id}"))) };
    match Key::decode(body.clone()) {
        Ok(key) => Ok((id, key)),
        Err(error) => Err(refuse(RefusalCode::Malformed, format!("{id} cannot be read: {error}"))),
    }
}

fn put(draft: &mut Draft<'_>, id: &Id, key: &Key) -> Result<(), Refused> {
    let malformed = |what: &str| Err(refuse(RefusalCode::Malformed, format!("{id}: {what}")));
    if key.public_id.is_empty() || key.public_id.len() > NAME_BYTES || key.name.len() > NAME_BYTES {
        return malformed("public id and name have at most 256 bytes, and the public id is not empty");
    }
    if key.secrets.is_empty() || key.secrets.len() > SECRETS || key.secrets.iter().any(|secret| secret.digest.len() != 32) {
        return malformed("a key has one or two secrets, each a digest of 32 bytes");
    }
    if key.policy.len() > POLICY_BYTES {
        return malformed("the policy is larger than 64 KiB");
    }
    draft.put(id, Some(key.encode_to_vec().into()), Reach::All);
    Ok(())
}
