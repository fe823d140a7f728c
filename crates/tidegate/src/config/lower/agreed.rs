//! Resources of the agreed state, compiled by the rules of the file.
//!
//! The body of a declared resource is the JSON of its section's entry, so the resources of a set together are a file: it is put together
//! here and takes the same road. A problem's place is then a resource and a key path inside it.

use std::collections::HashMap;

use secrecy::SecretString;
use tidegate_control::shares::Declared as SharedLimits;
use tidegate_edge::config::{EndpointConfig, KeyPolicy, MeshConfig, ProviderConfig};
use tidegate_proto::v1::{Override, OverrideAction, Resource, ResourceId};
use tidegate_proto::{Kind, Problem};
use tidegate_quota::Scope;

use super::{Lowering, OpenSealed, Place, Sealed, Secrets};
use crate::config::file::{self, File, ModeName};
use crate::config::problem::{self, Report, Severity};
use crate::config::read::{Environment, read_structure};
use crate::config::tree::{Entry, Node, Span, Value};

/// What a compilation needs besides the resources.
pub(crate) struct Agreed<'a> {
    /// Number of the configuration to be.
    pub(crate) revision: u64,
    /// Region of the edge: overrides of other regions do not hold here. `None` where every override is left out.
    pub(crate) region: Option<&'a str>,
    /// Opens sealed secrets; `None` where only the rules are to be checked.
    pub(crate) open: Option<OpenSealed<'a>>,
    /// Keys the digest function.
    pub(crate) pepper: Option<SecretString>,
}

/// Compiles a set of resources. Keys are not part of it: an edge holds them in a table of its own.
///
/// # Errors
/// Everything that is wrong with it.
pub(crate) fn agreed<'r>(resources: impl Iterator<Item = &'r Resource>, options: Agreed<'_>) -> Result<MeshConfig, Vec<Problem>> {
    let mut assembly = Assembly::default();
    let mut overrides = Vec::new();
    for resource in resources {
        let Some(id) = &resource.id else { continue };
        match id.kind.parse() {
            Ok(Kind::Override) => overrides.extend(prost::Message::decode(resource.body.clone()).ok()),
            // Credentials are looked up where a provider names them. What a newer version declares is passed on, not understood.
            Ok(Kind::Key | Kind::Credential) | Err(_) => {}
            Ok(kind) => assembly.add(kind, id, &resource.body),
        }
    }
    let Assembly { mut sections, sources, mut report } = assembly;
    let mut tree = sections.root();
    tree.name_paths("");
    let bases = sources.iter().map(|id| base_of(&tree, id)).collect::<Vec<_>>();
    let whole = tree.clone();
    let file: Option<File> = read_structure(&mut tree, &mut report);
    let Some(file) = file else { return Err(located(&report, &sources, &bases)) };
    let environment = Environment::default();
    let sealed = options.open.map_or(Sealed::Unopened, Sealed::Open);
    let mut lowering = Lowering {
        environment: &environment,
        secrets: Secrets::Optional,
        sealed,
        report,
        whole: Place::of(&whole),
        dangling: HashMap::new(),
    };
    let root = Place::of(&tree);
    let mut mesh = lowering.mesh(&file, root);
    if mesh.defaults.anonymous {
        let help = "a mesh that everyone may use cannot be declared: make keys, or use a file of its own on a loopback address";
        lowering.error(root.get("defaults").get("anonymous"), "requests without a key", help);
    }
    mesh.revision = options.revision;
    mesh.keys_pepper = options.pepper;
    let mut problems = located(&lowering.report, &sources, &bases);
    if problems.is_empty()
        && let Err(found) = tidegate_edge::check(&mesh)
    {
        problems.extend(found.into_iter().map(|problem| Problem {
            resource: kind_of_section(problem.section).map(|kind| ResourceId { kind: kind.to_string(), name: problem.entry.clone() }),
            path: String::new(),
            message: problem.message,
            help: Vec::new(),
        }));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    if let Some(region) = options.region {
        force(&mut mesh, &overrides, region);
    }
    Ok(mesh)
}

/// Compiles the policy of a key: `body` is the JSON that its resource holds; empty means nothing in particular.
///
/// # Errors
/// Everything that is wrong with it. Models are not looked up: a key may be there before its models are.
pub(crate) fn key_policy(body: &[u8]) -> Result<KeyPolicy, Vec<Problem>> {
    if body.is_empty() {
        return Ok(KeyPolicy::default());
    }
    let whole = |message: &str| Problem { resource: None, path: String::new(), message: message.to_owned(), help: Vec::new() };
    let text = str::from_utf8(body).map_err(|_| vec![whole("the policy is not text")])?;
    let mut report = Report::default();
    report.sources.push(problem::Source { name: "policy".to_owned(), text: text.to_owned() });
    let Some(mut tree) = Node::read(text, 0, &mut report.problems) else { return Err(plain(&report)) };
    let raw: Option<file::KeyPolicy> = read_structure(&mut tree, &mut report);
    let Some(raw) = raw else { return Err(plain(&report)) };
    let environment = Environment::default();
    let mut lowering = Lowering {
        environment: &environment,
        secrets: Secrets::Optional,
        sealed: Sealed::Unopened,
        report,
        whole: Place::of(&tree),
        dangling: HashMap::new(),
    };
    let preferences = lowering.preferences(&raw.preferences, Place::of(&tree).get("preferences"));
    let limits = lowering.owner_limits(&raw.limits, Scope::Key, None, Place::of(&tree).get("limits"));
    let problems = plain(&lowering.report);
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(KeyPolicy {
        allowed_models: raw.allowed_models,
        preferences,
        mode: raw.mode.map(ModeName::lower),
        hedge: raw.hedge,
        raw_errors: raw.raw_errors,
        limits,
        on_store_down: raw.on_store_down.lower(),
        store_content: raw.store_content,
        grace: raw.grace.map(|span| span.0),
    })
}

/// The limits that a resource declares, and of the mesh's defaults the regions that share them: what home of shared limits needs to know. What
/// cannot be read declares none; edges refuse it as well.
pub(crate) fn shared_limits(kind: Kind, body: &[u8]) -> SharedLimits {
    let limits = |limits| SharedLimits { limits, regions: Vec::new() };
    match kind {
        Kind::Key => {
            let key = <tidegate_proto::v1::Key as prost::Message>::decode(body).ok();
            limits(key.and_then(|key| key_policy(&key.policy).ok()).map_or_else(Vec::new, |policy| policy.limits))
        }
        Kind::Organisation => limits(
            lowered(body, |lowering, raw: &file::Organisation, place| lowering.organisation_limits(raw, None, place).0).unwrap_or_default(),
        ),
        Kind::Workspace => limits(
            lowered(body, |lowering, raw: &file::Workspace, place| {
                lowering.owner_limits(&raw.limits, Scope::Workspace, None, place.get("limits"))
            })
            .unwrap_or_default(),
        ),
        Kind::Defaults => {
            let regions = lowered(body, |_, raw: &file::Defaults, _| raw.quota_regions.clone());
            SharedLimits { limits: Vec::new(), regions: regions.unwrap_or_default() }
        }
        Kind::Routing | Kind::Provider | Kind::Credential | Kind::Model | Kind::Endpoint | Kind::Preset | Kind::Override => {
            SharedLimits::default()
        }
    }
}

/// One resource's body by the rules of its section.
fn lowered<R, T>(body: &[u8], lower: impl for<'a> FnOnce(&mut Lowering<'a>, &R, Place<'a>) -> T) -> Option<T>
where
    R: serde::de::DeserializeOwned,
{
    let text = str::from_utf8(body).ok()?;
    let mut report = Report::default();
    report.sources.push(problem::Source { name: "resource".to_owned(), text: text.to_owned() });
    let mut tree = Node::read(text, 0, &mut report.problems)?;
    let raw: R = read_structure(&mut tree, &mut report)?;
    let environment = Environment::default();
    let mut lowering = Lowering {
        environment: &environment,
        secrets: Secrets::Optional,
        sealed: Sealed::Unopened,
        report,
        whole: Place::of(&tree),
        dangling: HashMap::new(),
    };
    Some(lower(&mut lowering, &raw, Place::of(&tree)))
}

/// What operators force holds over what is declared.
fn force(mesh: &mut MeshConfig, overrides: &[Override], region: &str) {
    for forced in overrides.iter().filter(|forced| forced.region.is_empty() || forced.region == region) {
        let Some(target) = &forced.target else { continue };
        let provider = |endpoint: &EndpointConfig| target.kind == Kind::Provider.as_str() && endpoint.provider == target.name;
        let meant =
            |endpoint: &EndpointConfig| provider(endpoint) || target.kind == Kind::Endpoint.as_str() && endpoint.name == target.name;
        match forced.action() {
            OverrideAction::Drain => {
                for endpoint in mesh.endpoints.iter_mut().filter(|endpoint| meant(endpoint)) {
                    endpoint.drained = true;
                }
            }
            OverrideAction::Disable => {
                mesh.endpoints.retain(|endpoint| !meant(endpoint));
                let named = |config: &ProviderConfig| target.kind == Kind::Provider.as_str() && config.info.slug == target.name;
                mesh.providers.retain(|config| !named(config));
            }
            OverrideAction::Pin => {
                for endpoint in mesh.endpoints.iter_mut().filter(|endpoint| meant(endpoint)) {
                    endpoint.pinned = true;
                }
            }
            OverrideAction::Unspecified => {}
        }
    }
}

/// The sections of a file while they are filled.
#[derive(Default)]
struct Sections {
    mappings: HashMap<&'static str, Vec<Entry>>,
    endpoints: Vec<Node>,
    singles: Vec<Entry>,
}

#[derive(Default)]
struct Assembly {
    sections: Sections,
    /// Which resource a source is the body of.
    sources: Vec<ResourceId>,
    report: Report,
}

impl Assembly {
    fn add(&mut self, kind: Kind, id: &ResourceId, body: &[u8]) {
        let source = self.sources.len();
        self.sources.push(id.clone());
        let text = String::from_utf8_lossy(body).into_owned();
        let mut node = Node::read(&text, source, &mut self.report.problems);
        self.report.sources.push(problem::Source { name: format!("{} `{}`", id.kind, id.name), text });
        let Some(node) = node.take() else { return };
        let entry = |key: &str, node: Node| Entry { key: key.to_owned(), key_span: node.span.clone(), node };
        match (kind, section_of(kind)) {
            (Kind::Endpoint, _) => self.sections.endpoints.push(node),
            (Kind::Defaults | Kind::Routing, section) => self.sections.singles.push(entry(section, node)),
            (_, section) => self.sections.mappings.entry(section).or_default().push(entry(&id.name, node)),
        }
    }
}

impl Sections {
    fn root(&mut self) -> Node {
        let nowhere = || Span { source: usize::MAX, range: 0..0 };
        let node = |value| Node { span: nowhere(), path: String::new(), value };
        let entry = |key: &str, node: Node| Entry { key: key.to_owned(), key_span: nowhere(), node };
        let mut entries = std::mem::take(&mut self.singles);
        entries.extend(self.mappings.drain().map(|(section, below)| entry(section, node(Value::Mapping(below)))));
        entries.push(entry("endpoints", node(Value::Sequence(std::mem::take(&mut self.endpoints)))));
        node(Value::Mapping(entries))
    }
}

/// Section of the file that holds a kind.
pub(crate) fn section_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Defaults => "defaults",
        Kind::Routing => "routing",
        Kind::Provider => "providers",
        Kind::Model => "models",
        Kind::Endpoint => "endpoints",
        Kind::Preset => "presets",
        Kind::Organisation => "organisations",
        Kind::Workspace => "workspaces",
        Kind::Key => "keys",
        // Not in files.
        Kind::Credential => "credentials",
        Kind::Override => "overrides",
    }
}

fn kind_of_section(section: &str) -> Option<Kind> {
    Kind::ALL.into_iter().find(|kind| section_of(*kind) == section)
}

/// Key path of a resource in the file that the set makes.
fn base_of(tree: &Node, id: &ResourceId) -> String {
    let Ok(kind) = id.kind.parse::<Kind>() else { return String::new() };
    match kind {
        Kind::Defaults | Kind::Routing => section_of(kind).to_owned(),
        // Positions shift when one cannot be read: the source tells which it is, the path begins after the bracket.
        Kind::Endpoint => String::new(),
        _ => tree.get(section_of(kind)).and_then(|section| section.get(&id.name)).map(|node| node.path.clone()).unwrap_or_default(),
    }
}

/// Errors, each with the resource it is about. Warnings are for those who write files.
fn located(report: &Report, sources: &[ResourceId], bases: &[String]) -> Vec<Problem> {
    let errors = report.problems.iter().filter(|problem| problem.severity == Severity::Error);
    errors
        .map(|problem| {
            let resource = sources.get(problem.span.source).cloned();
            let path = match bases.get(problem.span.source) {
                Some(base) if !base.is_empty() => problem.path.strip_prefix(base.as_str()).unwrap_or(&problem.path),
                // `endpoints[3].prices.prompt`
                Some(_) => problem.path.split_once(']').map_or("", |(_, below)| below),
                None => &problem.path,
            };
            Problem {
                resource,
                path: path.trim_start_matches('.').to_owned(),
                message: problem.message.clone(),
                help: problem.help.clone(),
            }
        })
        .collect()
}

fn plain(report: &Report) -> Vec<Problem> {
    let errors = report.problems.iter().filter(|problem| problem.severity == Severity::Error);
    errors
        .map(|problem| Problem { resource: None, path: problem.path.clone(), message: problem.message.clone(), help: problem.help.clone() })
        .collect()
}
