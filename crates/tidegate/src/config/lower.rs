//! From what a file says to what an edge is told: the rules, and every breach of them.
//!
//! Nothing stops at the first problem. A value that cannot be used is reported and left out, and what refers to it is not reported
//! again. When everything holds, the edge itself is asked to build its state, because it has the last word.

mod agreed;
mod control;
mod control_node;
pub(crate) mod credential;
mod endpoint;
mod key;
mod ledger;
mod owner;
mod place;
mod preferences;
mod price;
mod process;
mod provider;
mod quota;
mod time;

use std::collections::{HashMap, HashSet};

use tidegate_edge::config::{Defaults, EdgeConfig, EndpointConfig, MeshConfig, ModelConfig, PresetConfig, ProviderConfig};
use tidegate_routing::{Mode, Settings};
use tidegate_wire::ProviderCatalog;

use super::file::{CatalogChoice, File, JsonObject, ModeName};
use super::problem::{Problem, Report};
use super::read::{Environment, Reading};
use super::scalar::Named;
use super::suggest;
use crate::catalog::Catalogue;
pub(crate) use agreed::{Agreed, agreed, key_policy, section_of, shared_limits};
pub(crate) use control::ControlFiles;
pub(crate) use control_node::{ControlNode, control_node};
use place::Place;
pub(crate) use process::ProcessConfig;
pub(crate) use time::unix_seconds;

/// How seriously missing secrets and files are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Secrets {
    /// A missing one is an error: the edge is about to use it.
    Required,
    /// A missing one is a warning: the file is checked somewhere else than where it will run.
    Optional,
}

/// How a sealed secret of a provider's credential is opened, or why it cannot be.
pub(crate) type OpenSealed<'a> = &'a dyn Fn(&str, &str) -> Result<secrecy::SecretString, String>;

/// Where sealed secrets are.
#[derive(Clone, Copy)]
enum Sealed<'a> {
    /// There are none: a file of its own is read.
    Nowhere,
    /// In the agreed state, and this process has no business with what is in them.
    Unopened,
    /// In the agreed state, by provider and credential.
    Open(OpenSealed<'a>),
}

/// A configuration that an edge can use.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) process: ProcessConfig,
    pub(crate) edge: EdgeConfig,
    pub(crate) mesh: MeshConfig,
}

/// Applies the rules. The report holds all problems; the configuration is there when none of them is an error.
pub(crate) fn lower(reading: Reading, environment: &Environment, secrets: Secrets) -> (Option<Config>, Report) {
    let Reading { report, file, tree, whole } = reading;
    let mut lowering =
        Lowering { environment, secrets, sealed: Sealed::Nowhere, report, whole: Place::of(&whole), dangling: HashMap::new() };
    let root = Place::of(&tree);

    let (process, edge) = lowering.process(&file, root);
    let mesh = lowering.mesh(&file, root);
    let Lowering { mut report, .. } = lowering;
    if !report.has_errors()
        && let Err(problems) = tidegate_edge::check(&mesh)
    {
        for problem in problems {
            let place = root.get(problem.section).get(&problem.entry);
            report.problems.push(Problem::at(place.node(), problem.message));
        }
    }
    report.tidy();
    let config = (!report.has_errors()).then_some(Config { process, edge, mesh });
    (config, report)
}

/// Reads a file of models and endpoints of shipped providers, as the catalogue is one.
pub(crate) fn catalogue(name: &str, text: &str) -> Result<Catalogue, Report> {
    let environment = Environment::default();
    let Reading { report, file, tree, whole } = super::read::read(name, text, &environment)?;
    let mut lowering = Lowering {
        environment: &environment,
        secrets: Secrets::Optional,
        sealed: Sealed::Nowhere,
        report,
        whole: Place::of(&whole),
        dangling: HashMap::new(),
    };
    let root = Place::of(&tree);
    let models = lowering.models(&file.models, root.get("models"));
    let mut names = Names::of(&[], &models);
    names.providers = ProviderCatalog::shipped().iter().map(|provider| provider.slug.clone()).collect();
    let endpoints = lowering.endpoints(&file.endpoints, &names, root.get("endpoints"));
    lowering.models_are_consistent(&file.models, &names, root.get("models"));
    let mut report = lowering.report;
    report.tidy();
    if report.has_errors() { Err(report) } else { Ok(Catalogue { models, endpoints }) }
}

/// The state of one lowering.
struct Lowering<'a> {
    environment: &'a Environment,
    secrets: Secrets,
    sealed: Sealed<'a>,
    report: Report,
    /// The file with the values that could not be read.
    whole: Place<'a>,
    /// Slugs that exist but could not be used, by section.
    dangling: HashMap<&'static str, Vec<String>>,
}

/// What other parts may refer to.
struct Names {
    providers: HashSet<String>,
    /// Slugs and aliases of models; the value is the slug.
    models: HashMap<String, String>,
}

impl<'a> Lowering<'a> {
    fn mesh(&mut self, file: &File, root: Place<'a>) -> MeshConfig {
        let mut providers = self.providers(&file.providers, root.get("providers"));
        let mut models = self.models(&file.models, root.get("models"));
        let shipped = (file.catalog == Some(CatalogChoice::Shipped)).then(|| self.shipped(&mut providers, &mut models));
        let names = Names::of(&providers, &models);
        let mut endpoints = self.endpoints(&file.endpoints, &names, root.get("endpoints"));
        for endpoint in shipped.into_iter().flatten() {
            // The file's own entries win.
            if !endpoints.iter().any(|own| own.name == endpoint.name) {
                endpoints.push(endpoint);
            }
        }
        self.models_are_consistent(&file.models, &names, root.get("models"));
        let keys_pepper = match &file.keys_pepper {
            Some(reference) => self.secret(reference, root.get("keys_pepper")),
            None => None,
        };
        MeshConfig {
            revision: 1,
            organisations: self.organisations(&file.organisations, &names, root.get("organisations")),
            workspaces: self.workspaces(&file.workspaces, &file.organisations, &names, root.get("workspaces")),
            keys: self.keys(&file.keys, &names, root.get("keys")),
            presets: self.presets(&file.presets, root.get("presets")),
            defaults: self.defaults(file, &names, root.get("defaults")),
            settings: self.settings(file, root.get("routing")),
            keys_pepper,
            providers,
            models,
            endpoints,
        }
    }

    /// Adds the shipped catalogue's providers and models, and returns its endpoints.
    fn shipped(&mut self, providers: &mut Vec<ProviderConfig>, models: &mut Vec<ModelConfig>) -> Vec<EndpointConfig> {
        let catalogue = crate::catalog::shipped();
        let mut endpoints = Vec::new();
        for endpoint in &catalogue.endpoints {
            if !providers.iter().any(|provider| provider.info.slug == endpoint.provider) {
                match provider::from_environment(&endpoint.provider, self.environment) {
                    Some(provider) => providers.push(provider),
                    None => continue,
                }
            }
            endpoints.push(endpoint.clone());
        }
        for model in &catalogue.models {
            let served = self.secrets == Secrets::Optional || endpoints.iter().any(|endpoint| endpoint.model == model.slug);
            if served && !models.iter().any(|own| own.slug == model.slug) {
                models.push(model.clone());
            }
        }
        // A file may give a shipped slug as an alias of its own; the catalogue's entry gives way.
        endpoints.retain(|endpoint| models.iter().any(|model| model.slug == endpoint.model));
        endpoints
    }

    fn presets(&mut self, presets: &Named<JsonObject>, place: Place<'a>) -> Vec<PresetConfig> {
        let mut configs = Vec::new();
        for (slug, JsonObject(fields)) in &presets.0 {
            if !is_slug(slug) {
                self.error_of_key(place, slug, format!("`{slug}` cannot be the slug of a preset"), SLUG_HELP);
                continue;
            }
            configs.push(PresetConfig { slug: slug.clone(), fields: serde_json::Value::Object(fields.clone()).to_string() });
        }
        configs
    }

    fn defaults(&mut self, file: &File, names: &Names, place: Place<'a>) -> Defaults {
        let raw = &file.defaults;
        let built_in = Defaults::default();
        if let Some(model) = &raw.model {
            self.known_model(model, names, place.get("model"));
        }
        let max_attempts = raw.max_attempts.unwrap_or(built_in.max_attempts);
        if !(1..=MOST_ATTEMPTS).contains(&max_attempts) {
            self.error(
                place.get("max_attempts"),
                format!("{max_attempts} attempts"),
                format!("use 1 to {MOST_ATTEMPTS}; the first try counts as one"),
            );
        }
        let deadline = raw.deadline.map_or(built_in.deadline, |span| span.0);
        if deadline.is_zero() {
            self.error(place.get("deadline"), "a deadline of no time", "give requests at least a second, such as `10m`");
        }
        if raw.anonymous && !file.listeners.iter().all(|listener| listener.address.0.ip().is_loopback()) {
            self.error(
                place.get("anonymous"),
                "requests without a key would be served to everyone who can reach a listener",
                "bind every listener to a loopback address such as `127.0.0.1:8080`, or require keys",
            );
        }
        if !raw.anonymous && file.control.is_none() && file.keys.0.is_empty() && self.whole.get("keys").node().entries().is_empty() {
            self.warning(
                place,
                "no keys and no anonymous access: every request will be refused",
                "make a key with `tidegate key new`, or set `defaults.anonymous: true` on a loopback listener",
            );
        }
        let mut seen = HashSet::new();
        for (index, region) in raw.quota_regions.iter().enumerate() {
            let place = place.get("quota_regions").item(index);
            if region.is_empty() || region.len() > 100 || region.contains('/') || region.chars().any(char::is_control) {
                self.error(place, format!("`{region}` is not the name of a region"), "write what the edges there have as their `region`");
            } else if !seen.insert(region) {
                self.error(place, format!("region `{region}` is named twice"), "name each region once: each has a part of its own");
            }
        }
        Defaults {
            model: raw.model.clone(),
            mode: raw.mode.map_or(built_in.mode, ModeName::lower),
            preferences: self.preferences(&raw.preferences, place.get("preferences")),
            deadline,
            max_attempts,
            anonymous: raw.anonymous,
            sticky: raw.sticky.unwrap_or(built_in.sticky),
            sticky_for: raw.sticky_for.map_or(built_in.sticky_for, |span| span.0),
            quota_regions: raw.quota_regions.clone(),
        }
    }

    fn settings(&mut self, file: &File, place: Place<'a>) -> Settings {
        let settings = Settings::from(&file.routing);
        for (name, reason) in settings.problems() {
            self.error(place.get(name), format!("`{name}` {reason}"), "leave it out to use the built-in value");
        }
        settings
    }

    /// Reports a slug that is no model.
    fn known_model(&mut self, slug: &str, names: &Names, place: Place<'a>) {
        if names.models.contains_key(slug) || self.is_dangling("models", slug) {
            return;
        }
        let known: Vec<&str> = names.models.keys().map(String::as_str).collect();
        self.report.problems.push(
            Problem::at(place.node(), format!("no model `{slug}`")).help(
                suggest::nearest(slug, known).map_or("declare it under `models`".to_owned(), |near| format!("did you mean `{near}`?")),
            ),
        );
    }

    /// Reports an address that is not a name or a number with a port.
    fn host_and_port(&mut self, address: &str, place: Place<'a>, example: &'static str) {
        let good = address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        if !good || address.contains(['/', ' ']) {
            self.error(place, format!("`{address}` is not a host and a port"), example);
        }
    }

    /// The entry stands in the file but could not be used, which has been reported.
    fn is_dangling(&self, section: &'static str, slug: &str) -> bool {
        self.whole.has(section) && self.whole.get(section).has(slug)
            || self.dangling.get(section).is_some_and(|slugs| slugs.iter().any(|known| known == slug))
    }

    fn error(&mut self, place: Place<'a>, message: impl Into<String>, help: impl Into<String>) {
        self.report.problems.push(Problem::at(place.node(), message).help(help));
    }

    /// Reports the name of an entry rather than its value.
    fn error_of_key(&mut self, section: Place<'a>, key: &str, message: impl Into<String>, help: impl Into<String>) {
        let mut problem = Problem::at(section.get(key).node(), message).help(help);
        if let Some(span) = section.key_span(key) {
            problem.span = span.clone();
        }
        self.report.problems.push(problem);
    }

    fn warning(&mut self, place: Place<'a>, message: impl Into<String>, help: impl Into<String>) {
        self.report.problems.push(Problem::at(place.node(), message).help(help).warning());
    }
}

impl Names {
    fn of(providers: &[ProviderConfig], models: &[ModelConfig]) -> Names {
        let mut by_name = HashMap::new();
        for model in models {
            for alias in &model.aliases {
                by_name.insert(alias.clone(), model.slug.clone());
            }
        }
        // After all aliases: a slug means its own model, also where an alias collides with it.
        for model in models {
            by_name.insert(model.slug.clone(), model.slug.clone());
        }
        Names { providers: providers.iter().map(|provider| provider.info.slug.clone()).collect(), models: by_name }
    }
}

impl ModeName {
    fn lower(self) -> Mode {
        match self {
            ModeName::Balanced => Mode::Balanced,
            ModeName::Simple => Mode::Simple,
            ModeName::Price => Mode::Price,
            ModeName::Latency => Mode::Latency,
            ModeName::Throughput => Mode::Throughput,
            ModeName::Order => Mode::Order,
            ModeName::Sticky => Mode::Sticky,
            ModeName::Exacto => Mode::Exacto,
        }
    }
}

/// Lower-case letters, digits and `-._`, as in provider and preset slugs.
fn is_slug(slug: &str) -> bool {
    !slug.is_empty()
        && slug.len() <= 64
        && slug.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.' | b'_'))
}

/// More attempts would outlive any caller's patience and multiply an outage.
const MOST_ATTEMPTS: u8 = 10;
const SLUG_HELP: &str = "use lower-case letters, digits, `-`, `.` and `_`, at most 64 of them";
