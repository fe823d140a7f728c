//! From a file to resources of the agreed state.
//!
//! Each entry of a section becomes a resource whose body is the entry as canonical JSON: keys sorted (except in presets, where the order is
//! part of what a model reads), numbers as they were written, references to secrets replaced by `sealed`. So a set difference over bodies
//! is the difference between what is declared and what is agreed.

use std::path::Path;

use bytes::Bytes;
use secrecy::SecretString;
use serde_json::Value as Json;
use tidegate_proto::Kind;
use tidegate_wire::{AuthScheme, ProviderCatalog};

use super::lower::credential::{default_name, well_known};
use super::lower::{self, section_of};
use super::problem::{Problem, Report};
use super::read::{self, Environment};
use super::scalar::SecretRef;
use super::tree::{Node, Value};
use super::{Secrets, text_of, unreadable};
use crate::catalog::SHIPPED;

/// What a file declares.
#[derive(Debug, Default)]
pub(crate) struct Declared {
    /// In the order of kinds, then of the file.
    pub(crate) resources: Vec<DeclaredResource>,
    /// Secrets that the file refers to.
    pub(crate) secrets: Vec<DeclaredSecret>,
}

/// One entry of a section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeclaredResource {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    /// Canonical JSON.
    pub(crate) body: Bytes,
}

/// A secret of a provider's credential.
#[derive(Debug)]
pub(crate) struct DeclaredSecret {
    pub(crate) provider: String,
    pub(crate) credential: String,
    /// Where it was looked for.
    pub(crate) reference: String,
    /// `None` when it is not there: fine as long as the control plane has it already.
    pub(crate) secret: Option<SecretString>,
}

/// Reads and checks a file of declarations.
pub(crate) fn load(path: &Path, environment: &Environment) -> (Option<Declared>, Report) {
    match text_of(path) {
        Ok(text) => declared(&path.display().to_string(), &text, environment),
        Err(message) => (None, unreadable(path, message)),
    }
}

/// Checks a text by the rules that hold for every file, and takes it apart.
pub(crate) fn declared(name: &str, text: &str, environment: &Environment) -> (Option<Declared>, Report) {
    let reading = match read::read(name, text, environment) {
        Ok(reading) => reading,
        Err(report) => return (None, report),
    };
    let tree = reading.tree.clone();
    let (config, mut report) = lower::lower(reading, environment, Secrets::Optional);
    for entry in tree.entries() {
        let declarable = Kind::ALL.into_iter().any(|kind| kind != Kind::Key && section_of(kind) == entry.key);
        if !declarable && entry.key != "catalog" && entry.key != "keys" {
            let problem = Problem::at(&entry.node, format!("`{}` is not part of the agreed state and is left out", entry.key)).warning();
            report.problems.push(problem.help("it belongs into the file of each process"));
        }
        if entry.key == "keys" {
            let problem = Problem::at(&entry.node, "keys of a file are not part of the agreed state and are left out").warning();
            report.problems.push(problem.help("make keys of the control plane with `tidegate keys create`"));
        }
    }
    // Whether keys exist is not this file's business.
    report.problems.retain(|problem| !problem.message.starts_with("no keys and no anonymous access"));
    report.tidy();
    if config.is_none() || report.has_errors() {
        return (None, report);
    }
    let mut declared = Declared::default();
    for kind in Kind::ALL {
        let Some(section) = tree.get(section_of(kind)) else { continue };
        match kind {
            Kind::Defaults | Kind::Routing if !section.entries().is_empty() => declared.push(kind, "mesh", canonical(section)),
            Kind::Provider => {
                for entry in section.entries() {
                    declared.provider(&entry.key, &entry.node, environment);
                }
            }
            Kind::Endpoint => section.items().iter().for_each(|item| declared.endpoint(item)),
            Kind::Preset => {
                section.entries().iter().for_each(|entry| declared.push(kind, &entry.key, json(&entry.node, Fractions::Numbers)))
            }
            Kind::Model | Kind::Organisation | Kind::Workspace => {
                section.entries().iter().for_each(|entry| declared.push(kind, &entry.key, canonical(&entry.node)));
            }
            Kind::Defaults | Kind::Routing | Kind::Credential | Kind::Key | Kind::Override => {}
        }
    }
    if tree.get("catalog").and_then(Node::text) == Some("shipped") {
        declared.add_shipped();
    }
    declared.resources.sort_by_key(|resource| resource.kind);
    (Some(declared), report)
}

impl Declared {
    fn push(&mut self, kind: Kind, name: &str, body: Json) {
        self.resources.push(DeclaredResource { kind, name: name.to_owned(), body: body.to_string().into() });
    }

    fn has(&self, kind: Kind, name: &str) -> bool {
        self.resources.iter().any(|resource| resource.kind == kind && resource.name == name)
    }

    fn provider(&mut self, slug: &str, node: &Node, environment: &Environment) {
        let mut body = canonical(node);
        let mut credentials = Vec::new();
        for item in node.get("credentials").map(Node::items).unwrap_or_default() {
            let reference = item.text().or_else(|| item.get("secret")?.text()).and_then(reference_of);
            let Some(reference) = reference else { continue };
            let name = item.get("name").and_then(Node::text).map_or_else(|| default_name(&reference), str::to_owned);
            let mut credential = serde_json::json!({ "name": name });
            credential["secret"] = self.secret(slug, &name, &reference, environment).into();
            if let Some(weight) = item.get("weight") {
                credential["weight"] = canonical(weight);
            }
            credentials.push(sorted(credential));
        }
        if credentials.is_empty()
            && let Some(credential) = self.customary(slug, node, environment)
        {
            credentials.push(credential);
        }
        if body.is_null() {
            body = Json::Object(serde_json::Map::new());
        }
        if !credentials.is_empty() {
            body["credentials"] = Json::Array(credentials);
        }
        self.push(Kind::Provider, slug, sorted(body));
    }

    /// The credential of a shipped provider whose customary variable is looked at because the file names none.
    fn customary(&mut self, slug: &str, node: &Node, environment: &Environment) -> Option<Json> {
        let parent = node.get("inherits").and_then(Node::text).unwrap_or(slug);
        let info = ProviderCatalog::shipped().get(parent)?;
        if matches!(info.auth, AuthScheme::None) {
            return None;
        }
        let variable = well_known(info, environment).map(|(name, _)| name).or_else(|| info.key_env.first().cloned())?;
        let secret = self.secret(slug, &variable, &SecretRef::Env(variable.clone()), environment);
        Some(sorted(serde_json::json!({ "name": variable, "secret": secret })))
    }

    /// Notes a secret; what stands in its place.
    fn secret(&mut self, provider: &str, credential: &str, reference: &SecretRef, environment: &Environment) -> String {
        let text = match reference {
            SecretRef::None => return reference.to_string(),
            SecretRef::Sealed => None,
            SecretRef::Env(name) => environment.get(name).map(str::to_owned),
            SecretRef::File(path) => std::fs::read_to_string(path).ok(),
        };
        let secret = text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()).map(SecretString::from);
        self.secrets.push(DeclaredSecret {
            provider: provider.to_owned(),
            credential: credential.to_owned(),
            reference: reference.to_string(),
            secret,
        });
        SecretRef::Sealed.to_string()
    }

    fn endpoint(&mut self, node: &Node) {
        let body = canonical(node);
        let text = |key: &str| node.get(key).and_then(Node::text);
        let tag = text("tag").or(text("provider")).unwrap_or_default();
        let name = text("name").map_or_else(|| format!("{}@{tag}", text("model").unwrap_or_default()), str::to_owned);
        self.push(Kind::Endpoint, &name, body);
    }

    /// Adds shipped endpoints of declared providers and the models they serve; the file's own entries win.
    fn add_shipped(&mut self) {
        let mut problems = Vec::new();
        let Some(tree) = Node::read(SHIPPED, 0, &mut problems) else { return };
        let mut shipped = Declared::default();
        for item in tree.get("endpoints").map(Node::items).unwrap_or_default() {
            if item.get("provider").and_then(Node::text).is_some_and(|provider| self.has(Kind::Provider, provider)) {
                shipped.endpoint(item);
            }
        }
        let own = shipped.resources.iter().filter(|endpoint| !self.has(Kind::Endpoint, &endpoint.name)).cloned().collect::<Vec<_>>();
        let served: Vec<String> = own
            .iter()
            .filter_map(|endpoint| serde_json::from_slice::<Json>(&endpoint.body).ok()?.get("model")?.as_str().map(str::to_owned))
            .collect();
        for entry in tree.get("models").map(Node::entries).unwrap_or_default() {
            if served.contains(&entry.key) && !self.has(Kind::Model, &entry.key) {
                self.push(Kind::Model, &entry.key, canonical(&entry.node));
            }
        }
        self.resources.extend(own);
    }
}

fn reference_of(text: &str) -> Option<SecretRef> {
    serde::Deserialize::deserialize(serde::de::value::StrDeserializer::<serde::de::value::Error>::new(text)).ok()
}

/// A value as JSON with sorted keys.
fn canonical(node: &Node) -> Json {
    sorted(json(node, Fractions::Exact))
}

/// What becomes of a number with a fraction.
#[derive(Debug, Clone, Copy)]
enum Fractions {
    /// It stays the text that it was written as, because a binary float would round a price; fields that take numbers read both.
    Exact,
    /// It is a JSON number, as in a request.
    Numbers,
}

/// A value as JSON, keys in the order of the file.
fn json(node: &Node, fractions: Fractions) -> Json {
    match &node.value {
        Value::Scalar { text, plain: false } => Json::String(text.clone()),
        Value::Scalar { .. } if node.is_null() => Json::Null,
        Value::Scalar { text, plain: true } => match text.as_str() {
            "true" | "True" | "TRUE" => Json::Bool(true),
            "false" | "False" | "FALSE" => Json::Bool(false),
            text => number(text, fractions).unwrap_or_else(|| Json::String(text.to_owned())),
        },
        Value::Sequence(items) => items.iter().map(|item| json(item, fractions)).collect(),
        Value::Mapping(entries) => entries.iter().map(|entry| (entry.key.clone(), json(&entry.node, fractions))).collect(),
    }
}

fn number(text: &str, fractions: Fractions) -> Option<Json> {
    if let Ok(number) = text.parse::<u64>() {
        return Some(number.into());
    }
    if let Ok(number) = text.parse::<i64>() {
        return Some(number.into());
    }
    match fractions {
        Fractions::Exact => None,
        Fractions::Numbers if text.contains(|c: char| c.is_ascii_digit()) => {
            serde_json::Number::from_f64(text.parse().ok()?).map(Json::Number)
        }
        Fractions::Numbers => None,
    }
}

fn sorted(value: Json) -> Json {
    match value {
        Json::Object(fields) => {
            let mut fields: Vec<_> = fields.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            fields.sort_by(|a, b| a.0.cmp(&b.0));
            Json::Object(fields.into_iter().collect())
        }
        Json::Array(items) => items.into_iter().map(sorted).collect(),
        scalar => scalar,
    }
}

#[cfg(test)]
mod tests;
