//! What has expired: overrides, secrets of rotated keys, keys that nobody needs to be told about any more.

use prost::Message;
use tidegate_proto::Kind;
use tidegate_proto::v1::{Expire, Key, Override, command};

use crate::state::{KEY_TOMBSTONE_SECONDS, State};

/// Things that one command takes out; the rest waits for the next.
const AT_ONCE: usize = 500;

/// The command that takes out what has expired, if anything has.
pub(super) fn due(state: &State, now_ms: u64) -> Option<command::Body> {
    let now = now_ms / 1000;
    let passed = |expires_at: u64| expires_at != 0 && expires_at <= now;
    let overrides = state
        .newest()
        .of_kind(Kind::Override)
        .filter(|(_, resource)| Override::decode(resource.body.clone()).is_ok_and(|value| passed(value.expires_at)));
    let overrides: Vec<String> = overrides.take(AT_ONCE).map(|(id, _)| id.name().to_owned()).collect();
    let keys = state.newest().of_kind(Kind::Key).filter(|(_, resource)| {
        Key::decode(resource.body.clone()).is_ok_and(|key| {
            let forgotten = key.expires_at != 0 && key.expires_at.saturating_add(KEY_TOMBSTONE_SECONDS) <= now;
            // The last secret of a key stays: a key has one.
            let rotated = key.secrets.len() > 1 && key.secrets.iter().any(|secret| passed(secret.expires_at));
            forgotten || rotated
        })
    });
    let keys: Vec<String> = keys.take(AT_ONCE).map(|(id, _)| id.name().to_owned()).collect();
    (!overrides.is_empty() || !keys.is_empty()).then_some(command::Body::Expire(Expire { overrides, keys }))
}
