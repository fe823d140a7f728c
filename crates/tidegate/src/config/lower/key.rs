//! Callers' keys.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use tidegate_edge::config::KeyConfig;
use tidegate_runtime::api_key::parse_digest;

use super::time::unix_seconds;
use super::{Lowering, Names, Place};
use crate::config::file::{Key, ModeName};
use crate::config::scalar::Named;

impl<'a> Lowering<'a> {
    pub(super) fn keys(&mut self, keys: &Named<Key>, names: &Names, place: Place<'a>) -> Vec<KeyConfig> {
        let mut configs: Vec<KeyConfig> = Vec::with_capacity(keys.0.len());
        // Files hold up to a hundred thousand keys: comparing each with all before it would take minutes.
        let mut owners: HashMap<[u8; 32], &str> = HashMap::with_capacity(keys.0.len());
        for (name, raw) in &keys.0 {
            if name.is_empty() || name.chars().any(char::is_control) || name.len() > 100 {
                let help = "use 1 to 100 printable characters; it appears in logs and records";
                self.error_of_key(place, name, "not a name for a key", help);
            }
            let place = place.get(name);
            if let Some(config) = self.key(name, raw, names, place) {
                match owners.entry(config.digest) {
                    Entry::Occupied(twin) => {
                        let message = format!("the same key as `{}`", twin.get());
                        self.error(place.get("digest"), message, "make a key of its own with `tidegate key new`");
                    }
                    Entry::Vacant(place) => {
                        place.insert(name);
                    }
                }
                configs.push(config);
            }
        }
        configs
    }

    fn key(&mut self, name: &str, raw: &Key, names: &Names, place: Place<'a>) -> Option<KeyConfig> {
        let mut expires_at = None;
        if let Some(text) = &raw.expires_at {
            expires_at = unix_seconds(text);
            if expires_at.is_none() {
                self.error(place.get("expires_at"), format!("`{text}` is not a moment"), "write `2027-01-31` or `2027-01-31T18:00:00Z`");
            }
        }
        for (index, slug) in raw.allowed_models.iter().enumerate() {
            self.known_model(slug, names, place.get("allowed_models").item(index));
        }
        let preferences = self.preferences(&raw.preferences, place.get("preferences"));
        let digest = parse_digest(&raw.digest);
        if digest.is_none() {
            self.error(
                place.get("digest"),
                "not the digest of a key",
                "write `blake3:` and 64 hex digits, as printed by `tidegate key new`; never the key itself",
            );
        }
        Some(KeyConfig {
            name: name.to_owned(),
            digest: digest?,
            disabled: raw.disabled,
            expires_at,
            allowed_models: raw.allowed_models.iter().map(|slug| names.models.get(slug).unwrap_or(slug).clone()).collect(),
            preferences,
            mode: raw.mode.map(ModeName::lower),
            hedge: raw.hedge,
            raw_errors: raw.raw_errors,
        })
    }
}
