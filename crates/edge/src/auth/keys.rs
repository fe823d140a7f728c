//! The table of keys: found by digest on the way of every request, found by id when one changes.
//!
//! A [`Keys`] is immutable, so a reader takes one pointer and no lock. It is cut into 256 shards that a new version shares with the old
//! one: changing a key copies a 256th of the pointers, never the keys. Both indices hold the same `Arc`s; a key costs its own memory
//! plus two pointers in tables that are on average two thirds full.

use std::sync::Arc;

use hashbrown::HashTable;
use http::HeaderMap;
use secrecy::SecretString;

use super::{AuthFailure, Caller, Digester, key_of};
use crate::config::{Defaults, KeyConfig};
use crate::hash;

/// All keys of one moment.
#[derive(Clone)]
pub(crate) struct Keys {
    digester: Digester,
    /// By first secret, which is the only one unless a key is being rotated.
    by_first: Shards,
    by_second: Shards,
    by_id: Shards,
    anonymous: Option<Arc<Caller>>,
}

type Shards = Box<[Arc<HashTable<Arc<Caller>>>]>;

impl Keys {
    /// No keys.
    pub(crate) fn empty(pepper: Option<&SecretString>) -> Self {
        let shards = || (0..SHARDS).map(|_| Arc::default()).collect();
        Self { digester: Digester::new(pepper), by_first: shards(), by_second: shards(), by_id: shards(), anonymous: None }
    }

    /// As this one, but without a single key.
    pub(crate) fn without_keys(&self) -> Self {
        Self { digester: self.digester.clone(), anonymous: self.anonymous.clone(), ..Self::empty(None) }
    }

    /// The keys of a configuration file.
    pub(crate) fn of_config(keys: &[KeyConfig], pepper: Option<&SecretString>, defaults: &Defaults) -> Self {
        let mut table = Self::empty(pepper);
        table.set_anonymous(defaults);
        let mut previous: Option<Arc<Caller>> = None;
        for key in keys {
            let caller = Arc::new(Caller::of_config(key, previous.as_deref(), defaults));
            table.put(&caller);
            previous = Some(caller);
        }
        table
    }

    /// Callers without a key are served or not, as the defaults say.
    pub(crate) fn set_anonymous(&mut self, defaults: &Defaults) {
        self.anonymous = defaults.anonymous.then(|| Arc::new(Caller::anonymous(defaults)));
    }

    /// Adds or replaces a key. False when a secret of this key belongs to another one; what was known of this key is then gone too.
    pub(crate) fn put(&mut self, caller: &Arc<Caller>) -> bool {
        self.remove(&caller.public_id);
        if caller.secrets().any(|secret| self.by_digest(&secret.digest).is_some()) {
            return false;
        }
        insert(&mut self.by_first, caller, first_hash);
        if caller.second.is_some() {
            insert(&mut self.by_second, caller, second_hash);
        }
        insert(&mut self.by_id, caller, id_hash);
        true
    }

    /// Takes a key out, if it is there.
    pub(crate) fn remove(&mut self, id: &str) {
        let Some(caller) = self.by_id(id).cloned() else { return };
        take(&mut self.by_first, &caller, first_hash);
        if caller.second.is_some() {
            take(&mut self.by_second, &caller, second_hash);
        }
        take(&mut self.by_id, &caller, id_hash);
    }

    fn by_digest(&self, digest: &[u8; 32]) -> Option<&Arc<Caller>> {
        let hash = hash_of(digest);
        let shard = shard_of(hash);
        let first = self.by_first[shard].find(hash, |caller| caller.first.is(digest));
        first.or_else(|| self.by_second[shard].find(hash, |caller| caller.second.as_ref().is_some_and(|second| second.is(digest))))
    }

    /// The key of this id.
    pub(crate) fn by_id(&self, id: &str) -> Option<&Arc<Caller>> {
        let hash = hash_of_id(id);
        self.by_id[shard_of(hash)].find(hash, |caller| *caller.public_id == *id)
    }

    /// Every key, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Caller>> {
        self.by_id.iter().flat_map(|shard| shard.iter())
    }

    /// How many keys there are.
    pub(crate) fn len(&self) -> usize {
        self.by_id.iter().map(|shard| shard.len()).sum()
    }

    /// Finds the caller of a request. The key may stand in `Authorization: Bearer` or in `x-api-key`, as SDKs differ.
    pub(crate) fn authenticate(&self, headers: &HeaderMap, unix_now: u64) -> Result<Arc<Caller>, AuthFailure> {
        let Some(key) = key_of(headers) else {
            return self.anonymous.clone().ok_or(AuthFailure::Missing);
        };
        let digest = self.digester.digest(key);
        let Some(caller) = self.by_digest(&digest) else { return Err(AuthFailure::Unknown) };
        if caller.disabled {
            return Err(AuthFailure::Disabled);
        }
        let ended = |at: u64| at != 0 && at <= unix_now;
        if ended(caller.expires_at) || caller.secret(&digest).is_none_or(|secret| ended(secret.expires_at)) {
            return Err(AuthFailure::Expired);
        }
        Ok(Arc::clone(caller))
    }
}

fn insert(shards: &mut Shards, caller: &Arc<Caller>, hash: fn(&Caller) -> u64) {
    let at = hash(caller);
    Arc::make_mut(&mut shards[shard_of(at)]).insert_unique(at, Arc::clone(caller), |other| hash(other));
}

fn take(shards: &mut Shards, caller: &Arc<Caller>, hash: fn(&Caller) -> u64) {
    let at = hash(caller);
    if let Ok(entry) = Arc::make_mut(&mut shards[shard_of(at)]).find_entry(at, |other| Arc::ptr_eq(other, caller)) {
        entry.remove();
    }
}

fn first_hash(caller: &Caller) -> u64 {
    hash_of(&caller.first.digest)
}

fn second_hash(caller: &Caller) -> u64 {
    caller.second.as_ref().map_or(0, |second| hash_of(&second.digest))
}

fn id_hash(caller: &Caller) -> u64 {
    hash_of_id(&caller.public_id)
}

/// A digest of 256 random bits is its own hash.
fn hash_of(digest: &[u8; 32]) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_le_bytes(first)
}

fn hash_of_id(id: &str) -> u64 {
    hash::of(&[id.as_bytes()])
}

/// The table uses the lowest and the highest bits of a hash; these are neither, as a shard has less than 2^32 places.
fn shard_of(hash: u64) -> usize {
    (hash >> 40) as usize % SHARDS
}

/// Copying a shard of 100,000 keys takes about a microsecond; copying the list of shards, less.
const SHARDS: usize = 256;

#[cfg(test)]
mod tests;
