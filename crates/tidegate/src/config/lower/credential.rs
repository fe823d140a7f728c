//! Credentials of providers: references to secrets, read where they are needed.

use std::collections::HashSet;
use std::path::Path;

use secrecy::SecretString;
use tidegate_edge::config::CredentialConfig;
use tidegate_wire::{AuthScheme, ProviderInfo};

use super::{Lowering, Place, Secrets};
use crate::config::file::{Credential, Provider};
use crate::config::read::Environment;
use crate::config::scalar::SecretRef;

impl<'a> Lowering<'a> {
    /// At least one credential; `None` is a reported problem that leaves the provider unusable.
    pub(super) fn credentials(&mut self, raw: &Provider, info: &ProviderInfo, place: Place<'a>) -> Option<Vec<CredentialConfig>> {
        if raw.credentials.is_empty() {
            let unreadable = self.whole.get("providers").get(&info.slug).get("credentials").node().items();
            if !unreadable.is_empty() {
                // They were there, and what is wrong with them has been reported.
                return Some(vec![CredentialConfig {
                    name: "unreadable".to_owned(),
                    weight: 1,
                    secret: Some(placeholder()),
                    own_key: false,
                }]);
            }
            return self.well_known_credential(info, place);
        }
        let place = place.get("credentials");
        let mut names = HashSet::new();
        let mut configs = Vec::with_capacity(raw.credentials.len());
        for (index, credential) in raw.credentials.iter().enumerate() {
            let place = place.item(index);
            let name = credential.name.clone().unwrap_or_else(|| default_name(&credential.secret));
            if !names.insert(name.clone()) {
                self.error(place, format!("a second credential named `{name}`"), "give one of them a `name`");
                continue;
            }
            configs.push(self.credential(name, credential, place));
        }
        if configs.iter().all(|credential| credential.weight == 0) {
            self.error(place, "no credential has a weight", "give one a `weight` of at least 1, or set `drained` on the endpoints");
        }
        Some(configs)
    }

    fn credential(&mut self, name: String, raw: &Credential, place: Place<'a>) -> CredentialConfig {
        let place = if place.has("secret") { place.get("secret") } else { place };
        let secret = self.secret(&raw.secret, place);
        if let Some(secret) = &secret
            && http::HeaderValue::try_from(secrecy::ExposeSecret::expose_secret(secret)).is_err()
        {
            self.error(place, "the secret holds characters that no key has", "check for line breaks or quotes around it");
        }
        CredentialConfig { name, weight: raw.weight.unwrap_or(1), secret, own_key: raw.own_key.unwrap_or(false) }
    }

    fn well_known_credential(&mut self, info: &ProviderInfo, place: Place<'a>) -> Option<Vec<CredentialConfig>> {
        if matches!(info.auth, AuthScheme::None) {
            return Some(vec![CredentialConfig { name: "none".to_owned(), weight: 1, secret: None, own_key: false }]);
        }
        if let Some((name, secret)) = well_known(info, self.environment) {
            return Some(vec![CredentialConfig { name, weight: 1, secret: Some(secret), own_key: false }]);
        }
        let message = format!("no credentials for `{}`", info.slug);
        match info.key_env.first() {
            Some(variable) => {
                self.missing(place, message, format!("set {variable}, or add `credentials: [env:NAME]`"));
                Some(vec![CredentialConfig { name: variable.clone(), weight: 1, secret: Some(placeholder()), own_key: false }])
            }
            None => {
                self.error(place, message, "add `credentials: [env:NAME]`, or `[none]` for a provider that needs no key");
                None
            }
        }
    }

    /// Reads a secret; a placeholder stands in for one that could not be read, which has been reported.
    pub(super) fn secret(&mut self, reference: &SecretRef, place: Place<'a>) -> Option<SecretString> {
        if let SecretRef::File(path) = reference {
            self.report.files.push(path.clone());
        }
        let text = match reference {
            SecretRef::None => return None,
            SecretRef::Env(name) => match self.environment.get(name) {
                Some(value) => value.to_owned(),
                None => {
                    let help = format!("set it where the edge runs: `export {name}=…`");
                    self.missing(place, format!("environment variable {name} is not set"), help);
                    return Some(placeholder());
                }
            },
            SecretRef::File(path) => match std::fs::read_to_string(path) {
                Ok(text) => text,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    self.missing(place, format!("{} does not exist", path.display()), "mount it where the edge runs");
                    return Some(placeholder());
                }
                Err(error) => {
                    self.error(
                        place,
                        format!("cannot read {}: {error}", path.display()),
                        "check owner and mode; the edge must be able to read it",
                    );
                    return Some(placeholder());
                }
            },
        };
        let text = text.trim();
        if text.is_empty() {
            self.error(place, format!("the secret at {reference} is empty"), "put the key there, or write `none` for no key");
            return Some(placeholder());
        }
        Some(SecretString::from(text))
    }

    /// What is not here: an error where it is needed now, a warning elsewhere.
    pub(super) fn missing(&mut self, place: Place<'a>, message: impl Into<String>, help: impl Into<String>) {
        match self.secrets {
            Secrets::Required => self.error(place, message, help),
            Secrets::Optional => self.warning(place, message, help),
        }
    }

    pub(super) fn file_exists(&mut self, path: &Path, place: Place<'a>) {
        if !path.is_file() {
            self.missing(place, format!("{} is not there", path.display()), "mount it where the edge runs");
        }
    }
}

/// The key found in the variables that customarily hold one.
pub(super) fn well_known(info: &ProviderInfo, environment: &Environment) -> Option<(String, SecretString)> {
    info.key_env.iter().find_map(|name| {
        let value = environment.get(name).map(str::trim).filter(|value| !value.is_empty())?;
        Some((name.clone(), SecretString::from(value)))
    })
}

/// Stands in for a secret that is not here, so that the rest of the configuration can be checked.
fn placeholder() -> SecretString {
    SecretString::from("not-set")
}

fn default_name(reference: &SecretRef) -> String {
    match reference {
        SecretRef::Env(name) => name.clone(),
        SecretRef::File(path) => path.file_name().map_or_else(|| "file".to_owned(), |name| name.to_string_lossy().into_owned()),
        SecretRef::None => "none".to_owned(),
    }
}
