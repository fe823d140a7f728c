use std::collections::BTreeMap;

use proptest::prelude::*;
use tidegate_proto::v1::{Key, KeySecret};

use super::*;
use crate::auth::{Policies, digest};

fn key(secret: &str) -> KeyConfig {
    KeyConfig { expires_at: Some(1_000), allowed_models: vec!["a/b".to_owned()], ..KeyConfig::new("team", digest(secret, None)) }
}

fn headers(name: &'static str, value: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(name, value.parse().expect("a header value of this test"));
    headers
}

fn bearer(key: &str) -> HeaderMap {
    headers("authorization", &format!("Bearer {key}"))
}

fn policies() -> Policies {
    Policies::new(Arc::new(|_| Ok(crate::config::KeyPolicy::default())))
}

/// A key of the agreed state with these secrets, each with the time it ends.
fn agreed(id: &str, secrets: &[(&str, u64)]) -> Arc<Caller> {
    let secrets = secrets.iter().map(|(text, expires_at)| KeySecret {
        digest: digest(text, None).to_vec().into(),
        expires_at: *expires_at,
        ..KeySecret::default()
    });
    let key = Key { public_id: id.to_owned(), name: id.to_owned(), secrets: secrets.collect(), ..Key::default() };
    Arc::new(Caller::of_agreed(&key, 7, &mut policies()).unwrap())
}

#[test]
fn either_header_is_accepted_and_wrong_keys_are_told_apart() {
    let disabled = KeyConfig { name: "off".to_owned(), disabled: true, ..key("off") };
    let keys = Keys::of_config(&[key("secret"), disabled], None, &Defaults::default());
    let check = |headers: HeaderMap, now| keys.authenticate(&headers, now).map(|caller| caller.name.to_string());
    assert_eq!(check(headers("authorization", "Bearer secret"), 999), Ok("team".to_owned()));
    assert_eq!(check(headers("authorization", "bearer  secret "), 999), Ok("team".to_owned()));
    assert_eq!(check(headers("x-api-key", "secret"), 999), Ok("team".to_owned()));
    assert_eq!(check(headers("authorization", "Bearer secret"), 1_000), Err(AuthFailure::Expired));
    assert_eq!(check(headers("authorization", "Bearer off"), 1), Err(AuthFailure::Disabled));
    assert_eq!(check(headers("authorization", "Bearer other"), 1), Err(AuthFailure::Unknown));
    assert_eq!(check(headers("authorization", "Basic secret"), 1), Err(AuthFailure::Missing));
    assert_eq!(check(HeaderMap::new(), 1), Err(AuthFailure::Missing));
}

#[test]
fn both_secrets_of_a_rotated_key_hold_until_their_own_ends() {
    let mut keys = Keys::empty(None);
    assert!(keys.put(&agreed("k", &[("new", 0), ("old", 100)])));
    assert!(keys.authenticate(&bearer("new"), 1_000).is_ok());
    assert!(keys.authenticate(&bearer("old"), 99).is_ok());
    assert_eq!(keys.authenticate(&bearer("old"), 100).map(drop), Err(AuthFailure::Expired));
    assert!(keys.put(&agreed("k", &[("new", 0)])));
    assert_eq!(keys.authenticate(&bearer("old"), 1).map(drop), Err(AuthFailure::Unknown));
    assert_eq!(keys.len(), 1);
}

#[test]
fn a_secret_belongs_to_one_key() {
    let mut keys = Keys::empty(None);
    assert!(keys.put(&agreed("a", &[("one", 0)])));
    assert!(!keys.put(&agreed("b", &[("two", 0), ("one", 0)])));
    assert_eq!(&*keys.authenticate(&bearer("one"), 1).unwrap().public_id, "a");
    assert_eq!(keys.authenticate(&bearer("two"), 1).map(drop), Err(AuthFailure::Unknown));
}

#[test]
fn what_is_kept_over_a_restart_is_the_key() {
    let caller = agreed("k", &[("new", 5), ("old", 100)]);
    let again = Caller::of_agreed(&caller.to_agreed(), caller.revision, &mut policies()).unwrap();
    assert_eq!((&again.first, &again.second, again.salt), (&caller.first, &caller.second, caller.salt));
}

proptest! {
    /// However the table came to be, it finds exactly the secrets of the keys it holds; earlier versions stay as they were.
    #[test]
    fn the_table_is_a_map(changes in prop::collection::vec((0..30_u8, prop::option::of((0..40_u8, prop::option::of(0..40_u8)))), 0..120)) {
        let mut keys = Keys::empty(None);
        let mut model: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
        for (id, secrets) in changes {
            let before = keys.clone();
            let known_before: Vec<bool> = (0..40_u8).map(|secret| before.authenticate(&bearer(&secret.to_string()), 0).is_ok()).collect();
            model.remove(&id);
            match secrets {
                None => keys.remove(&id.to_string()),
                Some((first, second)) => {
                    let secrets: Vec<u8> = std::iter::once(first).chain(second.filter(|second| *second != first)).collect();
                    let texts: Vec<String> = secrets.iter().map(ToString::to_string).collect();
                    let pairs: Vec<(&str, u64)> = texts.iter().map(|text| (text.as_str(), 0)).collect();
                    if !model.values().flatten().any(|taken| secrets.contains(taken)) {
                        model.insert(id, secrets.clone());
                    }
                    keys.put(&agreed(&id.to_string(), &pairs));
                }
            }
            let known_still: Vec<bool> = (0..40_u8).map(|secret| before.authenticate(&bearer(&secret.to_string()), 0).is_ok()).collect();
            prop_assert_eq!(known_before, known_still);
        }
        prop_assert_eq!(keys.len(), model.len());
        for secret in 0..40_u8 {
            let owner = model.iter().find(|(_, secrets)| secrets.contains(&secret)).map(|(id, _)| id.to_string());
            let found = keys.authenticate(&bearer(&secret.to_string()), 0).ok().map(|caller| caller.public_id.to_string());
            prop_assert_eq!(found, owner);
        }
    }
}
