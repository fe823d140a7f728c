//! A file taken apart into resources means the same as the file.

use secrecy::ExposeSecret;
use tidegate_proto::v1::{Override, OverrideAction, Resource, ResourceId};

use super::*;
use crate::config::lower::{Agreed, agreed, key_policy};

const MESH: &str = r#"
providers:
  openai: { credentials: [env:OPENAI_API_KEY, {name: second, secret: "file:/nowhere", weight: 3}] }
  local: { base_url: "http://127.0.0.1:9/v1", credentials: [none] }
models:
  acme/one: { name: One, aliases: [acme/latest] }
endpoints:
  - { provider: openai, model: acme/one, prices: { prompt: 0.10, completion: "0.2" }, context_length: 1000 }
  - { provider: local, model: acme/one, name: mine, prices: { prompt: 0, completion: 0 }, context_length: 1000 }
presets:
  warm: { temperature: 0.7, system: "z", a: 1 }
organisations: { acme: {} }
workspaces: { dev: { organisation: acme } }
defaults: { model: acme/one, max_attempts: 2 }
routing: { price_exponent: 3 }
"#;

fn environment() -> Environment {
    Environment([("OPENAI_API_KEY".to_owned(), "sk-secret".to_owned())].into())
}

fn take_apart(text: &str) -> Declared {
    let (declared, report) = declared("mesh.yaml", text, &environment());
    declared.unwrap_or_else(|| panic!("{}", report.render(false)))
}

fn resources(declared: &Declared) -> Vec<Resource> {
    let resource = |declared: &DeclaredResource| Resource {
        id: Some(ResourceId { kind: declared.kind.to_string(), name: declared.name.clone() }),
        body: declared.body.clone(),
        revision: 1,
    };
    declared.resources.iter().map(resource).collect()
}

fn options<'a>() -> Agreed<'a> {
    Agreed { revision: 7, region: Some("eu"), open: None, pepper: None }
}

#[test]
fn a_file_and_its_resources_compile_to_the_same_mesh() {
    let (config, report) = crate::config::parse("mesh.yaml", MESH, &environment(), Secrets::Optional);
    let mut file = config.unwrap_or_else(|| panic!("{}", report.render(false))).mesh;
    file.revision = 7;
    let mut mesh = agreed(resources(&take_apart(MESH)).iter(), options()).unwrap();
    // Sections have no order of their own in the agreed state.
    mesh.providers.sort_by(|a, b| b.info.slug.cmp(&a.info.slug));
    for mesh in [&mut mesh, &mut file] {
        for credential in mesh.providers.iter_mut().flat_map(|provider| &mut provider.credentials) {
            credential.secret = None;
        }
        mesh.endpoints.sort_by(|a, b| a.name.cmp(&b.name));
        mesh.presets.sort_by(|a, b| a.slug.cmp(&b.slug));
    }
    file.providers.sort_by(|a, b| b.info.slug.cmp(&a.info.slug));
    assert_eq!(format!("{mesh:?}"), format!("{file:?}"));
    assert_eq!(mesh.presets[0].fields, r#"{"temperature":0.7,"system":"z","a":1}"#);
}

#[test]
fn secrets_stay_out_of_resources() {
    let declared = take_apart(MESH);
    let bodies: String = declared.resources.iter().map(|resource| String::from_utf8_lossy(&resource.body).into_owned()).collect();
    assert!(!bodies.contains("sk-secret") && !bodies.contains("OPENAI_API_KEY\",\"secret\":\"env"), "{bodies}");
    let found: Vec<_> = declared
        .secrets
        .iter()
        .map(|secret| {
            (secret.provider.as_str(), secret.credential.as_str(), secret.secret.as_ref().map(|secret| secret.expose_secret().to_owned()))
        })
        .collect();
    assert_eq!(found, [("openai", "OPENAI_API_KEY", Some("sk-secret".to_owned())), ("openai", "second", None)]);
}

#[test]
fn sealed_secrets_are_opened_by_provider_and_name() {
    let open = |provider: &str, credential: &str| match credential {
        "second" => Err("no such credential".to_owned()),
        credential => Ok(SecretString::from(format!("{provider}/{credential}"))),
    };
    let text = MESH.replace(r#", {name: second, secret: "file:/nowhere", weight: 3}"#, "");
    let mesh = agreed(resources(&take_apart(&text)).iter(), Agreed { open: Some(&open), ..options() }).unwrap();
    let openai = mesh.providers.iter().find(|provider| provider.info.slug == "openai").unwrap();
    assert_eq!(openai.credentials[0].secret.as_ref().unwrap().expose_secret(), "openai/OPENAI_API_KEY");
    let problems = agreed(resources(&take_apart(MESH)).iter(), Agreed { open: Some(&open), ..options() }).unwrap_err();
    assert_eq!(problems[0].path, "credentials[1].secret");
    assert_eq!(problems[0].message, "no such credential");
}

#[test]
fn a_problem_names_the_resource_and_the_key_inside_it() {
    let mut set = resources(&take_apart(MESH));
    for resource in &mut set {
        match resource.id.as_ref().unwrap().name.as_str() {
            "mine" => {
                resource.body =
                    r#"{"context_length":1,"model":"acme/two","prices":{"completion":0,"prompt":"x"},"provider":"local"}"#.into()
            }
            "openai" => resource.body = r#"{"base_ur":"x"}"#.into(),
            _ => {}
        }
    }
    let problems = agreed(set.iter(), options()).unwrap_err();
    let mut found: Vec<_> =
        problems.iter().map(|problem| (problem.resource.as_ref().unwrap().name.as_str(), problem.path.as_str())).collect();
    found.sort_unstable();
    assert_eq!(found, [("mine", "model"), ("mine", "prices.prompt"), ("openai", "base_ur")], "{problems:?}");
}

#[test]
fn what_operators_force_holds_in_its_region() {
    let forced = |kind: &str, name: &str, action: OverrideAction, region: &str| {
        let target = Some(ResourceId { kind: kind.into(), name: name.into() });
        let value = Override { target, action: action.into(), region: region.into(), ..Override::default() };
        Resource {
            id: Some(ResourceId { kind: "override".into(), name: format!("{kind}/{name}") }),
            body: prost::Message::encode_to_vec(&value).into(),
            revision: 2,
        }
    };
    let with = |forced: Resource| {
        let mut set = resources(&take_apart(MESH));
        set.push(forced);
        agreed(set.iter(), options()).unwrap()
    };
    let drained = |mesh: &tidegate_edge::config::MeshConfig| mesh.endpoints.iter().filter(|endpoint| endpoint.drained).count();
    assert_eq!(drained(&with(forced("provider", "local", OverrideAction::Drain, "eu"))), 1);
    let pinned = with(forced("endpoint", "mine", OverrideAction::Pin, ""));
    assert_eq!(pinned.endpoints.iter().filter(|endpoint| endpoint.pinned).count(), 1);
    assert_eq!(drained(&with(forced("endpoint", "mine", OverrideAction::Drain, ""))), 1);
    assert_eq!(drained(&with(forced("provider", "local", OverrideAction::Drain, "us"))), 0);
    let disabled = with(forced("provider", "local", OverrideAction::Disable, ""));
    assert_eq!((disabled.providers.len(), disabled.endpoints.len()), (1, 1));
}

#[test]
fn reordered_keys_are_the_same_resource() {
    let one = take_apart("models: { acme/one: { name: One, description: x } }");
    let other = take_apart("models:\n  acme/one:\n    description: x\n    name: One\n");
    assert_eq!(one.resources, other.resources);
}

#[test]
fn the_shipped_catalogue_becomes_entries_of_declared_providers() {
    let declared = take_apart("catalog: shipped\nproviders: { openai: { credentials: [env:OPENAI_API_KEY] } }");
    let providers: Vec<_> = declared.resources.iter().filter(|resource| resource.kind == Kind::Provider).collect();
    assert_eq!(providers.len(), 1);
    let mesh = agreed(resources(&declared).iter(), options()).unwrap();
    assert!(mesh.endpoints.len() > 3 && mesh.endpoints.iter().all(|endpoint| endpoint.provider == "openai"));
    assert!(mesh.models.iter().all(|model| mesh.endpoints.iter().any(|endpoint| endpoint.model == model.slug)));
}

#[test]
fn what_belongs_to_a_process_is_left_out_with_a_warning() {
    let (declared, report) = declared("mesh.yaml", "region: eu\nmodels: { acme/one: {} }\n", &environment());
    assert_eq!(declared.unwrap().resources.len(), 1);
    assert_eq!(report.problems.iter().map(|problem| problem.path.as_str()).collect::<Vec<_>>(), ["region"]);
}

#[test]
fn a_workspace_belongs_to_an_organisation() {
    let (declared, report) =
        declared("mesh.yaml", "workspaces: { dev: { organisation: acne } }\norganisations: { acme: {} }", &environment());
    assert!(declared.is_none());
    assert_eq!(report.problems[0].help, ["did you mean `acme`?"]);
}

#[test]
fn a_file_of_its_own_has_no_sealed_secrets() {
    let text = "providers: { openai: { credentials: [sealed] } }";
    let (config, report) = crate::config::parse("tidegate.yaml", text, &environment(), Secrets::Required);
    assert!(config.is_none());
    assert!(report.problems.iter().any(|problem| problem.message.contains("only the control plane")), "{}", report.render(false));
}

#[test]
fn policies_of_keys_are_read_by_the_rules_of_the_file() {
    let policy = key_policy(br#"{"allowed_models":["acme/one"],"preferences":{"zdr":true},"grace":"5m"}"#).unwrap();
    assert_eq!(policy.allowed_models, ["acme/one"]);
    assert_eq!(policy.grace, Some(std::time::Duration::from_secs(300)));
    assert_eq!(key_policy(b"").unwrap(), tidegate_edge::config::KeyPolicy::default());
    let problems = key_policy(br#"{"allowed_model":[]}"#).unwrap_err();
    assert_eq!((problems[0].path.as_str(), problems.len()), ("allowed_model", 1));
}
