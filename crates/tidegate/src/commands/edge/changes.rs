//! What a reload changes, by name, for the log.

use std::collections::BTreeMap;
use std::fmt::Debug;

use secrecy::ExposeSecret;
use tidegate_edge::config::{MeshConfig, ProviderConfig};

use crate::config::Config;

/// Differences between two configurations.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Sections of named entries.
    sections: Vec<(&'static str, Delta)>,
    /// Sections that changed as a whole.
    whole: Vec<&'static str>,
    /// Sections that only a restart takes over.
    restart: Vec<&'static str>,
}

/// Names that came, went or mean something else.
#[derive(Debug, Default, PartialEq, Eq)]
struct Delta {
    added: Vec<String>,
    removed: Vec<String>,
    changed: Vec<String>,
}

impl Changes {
    pub(super) fn between(old: &Config, new: &Config) -> Changes {
        let sections = [
            ("providers", delta(providers(&old.mesh), providers(&new.mesh))),
            ("models", delta(named(&old.mesh.models, |model| &model.slug), named(&new.mesh.models, |model| &model.slug))),
            (
                "endpoints",
                delta(named(&old.mesh.endpoints, |endpoint| &endpoint.name), named(&new.mesh.endpoints, |endpoint| &endpoint.name)),
            ),
            ("organisations", delta(named(&old.mesh.organisations, |one| &one.name), named(&new.mesh.organisations, |one| &one.name))),
            ("workspaces", delta(named(&old.mesh.workspaces, |one| &one.name), named(&new.mesh.workspaces, |one| &one.name))),
            ("keys", delta(named(&old.mesh.keys, |key| &key.name), named(&new.mesh.keys, |key| &key.name))),
            ("presets", delta(named(&old.mesh.presets, |preset| &preset.slug), named(&new.mesh.presets, |preset| &preset.slug))),
        ];
        let pepper = |mesh: &MeshConfig| mesh.keys_pepper.as_ref().map(|pepper| pepper.expose_secret().to_owned());
        let whole = [
            ("defaults", differ(&old.mesh.defaults, &new.mesh.defaults)),
            ("routing", old.mesh.settings != new.mesh.settings),
            ("keys_pepper", pepper(&old.mesh) != pepper(&new.mesh)),
            ("log.level", old.process.log.filter != new.process.log.filter),
        ];
        let restart = [
            ("region", old.edge.region != new.edge.region),
            ("listeners", differ(&old.edge.listeners, &new.edge.listeners)),
            ("operations", old.edge.operations != new.edge.operations),
            ("runtime", differ(&old.edge.workers, &new.edge.workers)),
            ("limits", differ(&old.edge.limits, &new.edge.limits)),
            ("access_log", old.edge.access_log != new.edge.access_log),
            ("generations", old.edge.generations_kept != new.edge.generations_kept || old.edge.generations_ttl != new.edge.generations_ttl),
            ("ledger", differ(&old.edge.ledger, &new.edge.ledger)),
            ("quota", differ(&old.edge.quota, &new.edge.quota)),
            ("log.format", old.process.log.format != new.process.log.format),
            ("telemetry", old.process.telemetry != new.process.telemetry),
        ];
        let names = |list: &[(&'static str, bool)]| list.iter().filter(|(_, differs)| *differs).map(|(name, _)| *name).collect();
        Changes {
            sections: sections.into_iter().filter(|(_, delta)| *delta != Delta::default()).collect(),
            whole: names(&whole),
            restart: names(&restart),
        }
    }

    /// Nothing differs.
    pub(super) fn is_empty(&self) -> bool {
        *self == Changes::default()
    }

    /// Says what was taken over and what was not.
    pub(super) fn log(&self, revision: u64) {
        for (section, delta) in &self.sections {
            tracing::info!(
                section,
                added = shortened(&delta.added),
                removed = shortened(&delta.removed),
                changed = shortened(&delta.changed),
                "configuration changed"
            );
        }
        for section in &self.whole {
            tracing::info!(section, "configuration changed");
        }
        if !self.restart.is_empty() {
            tracing::warn!(sections = self.restart.join(", "), "changed in the file, but only a restart takes it over");
        }
        tracing::info!(revision, "the new configuration is in use");
    }
}

/// More names than this are counted, not listed.
const MOST_LISTED: usize = 20;

fn shortened(names: &[String]) -> String {
    if names.len() <= MOST_LISTED {
        return names.join(", ");
    }
    format!("{} and {} more", names[..MOST_LISTED].join(", "), names.len() - MOST_LISTED)
}

fn delta(old: BTreeMap<String, String>, mut new: BTreeMap<String, String>) -> Delta {
    let mut delta = Delta::default();
    for (name, meaning) in old {
        match new.remove(&name) {
            None => delta.removed.push(name),
            Some(other) if other != meaning => delta.changed.push(name),
            Some(_) => {}
        }
    }
    delta.added = new.into_keys().collect();
    delta
}

fn named<T: Debug>(entries: &[T], name: impl Fn(&T) -> &String) -> BTreeMap<String, String> {
    entries.iter().map(|entry| (name(entry).clone(), format!("{entry:?}"))).collect()
}

/// Debug output hides secrets, so their digests stand beside it: a rotated credential is a change.
fn providers(mesh: &MeshConfig) -> BTreeMap<String, String> {
    let meaning = |provider: &ProviderConfig| {
        let mut secrets = blake3::Hasher::new();
        for credential in &provider.credentials {
            let secret = credential.secret.as_ref().map(ExposeSecret::expose_secret).unwrap_or_default();
            secrets.update(&(secret.len() as u64).to_le_bytes()).update(secret.as_bytes());
        }
        // The order of a header map differs from run to run.
        let headers: BTreeMap<_, _> = provider.info.extra_headers.iter().collect();
        let mut plain = provider.clone();
        plain.info.extra_headers.clear();
        format!("{plain:?} {headers:?} {}", secrets.finalize())
    };
    mesh.providers.iter().map(|provider| (provider.info.slug.clone(), meaning(provider))).collect()
}

fn differ<T: Debug>(old: &T, new: &T) -> bool {
    format!("{old:?}") != format!("{new:?}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, Secrets, parse};

    fn config(text: &str, secret: &str) -> Config {
        let variables = [("KEY".to_owned(), secret.to_owned())];
        let (config, report) = parse("test.yaml", text, &Environment(variables.into()), Secrets::Required);
        config.unwrap_or_else(|| panic!("{}", report.render(false)))
    }

    const BASE: &str = "
providers: {openai: {credentials: [env:KEY], headers: {a: b, c: d, e: f}}}
models: {openai/a: {}, openai/b: {}}
endpoints:
  - {provider: openai, model: openai/a, context_length: 1000, prices: {prompt: 1, completion: 2}}
  - {provider: openai, model: openai/b, context_length: 1000, prices: {prompt: 1, completion: 2}}
defaults: {anonymous: true}
listeners: [{address: 127.0.0.1:8080}]
";

    #[test]
    fn nothing_changes_by_reading_twice() {
        assert!(Changes::between(&config(BASE, "one"), &config(BASE, "one")).is_empty());
    }

    #[test]
    fn names_what_came_went_and_differs() {
        let new = BASE
            .replace("openai/b: {}", "openai/c: {}")
            .replace("model: openai/b", "model: openai/c")
            .replacen("prompt: 1", "prompt: 1.5", 1)
            .replace("anonymous: true", "anonymous: true, max_attempts: 2")
            .replace("8080", "8081");
        let changes = Changes::between(&config(BASE, "one"), &config(&new, "two"));
        let names: Vec<&str> = changes.sections.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["providers", "models", "endpoints"]);
        assert_eq!(changes.sections[0].1.changed, ["openai"], "the rotated credential");
        let endpoints = &changes.sections[2].1;
        assert_eq!(endpoints.added, ["openai/c@openai"]);
        assert_eq!(endpoints.removed, ["openai/b@openai"]);
        assert_eq!(endpoints.changed, ["openai/a@openai"]);
        assert_eq!(changes.whole, ["defaults"]);
        assert_eq!(changes.restart, ["listeners"]);
    }
}
