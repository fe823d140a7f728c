//! Configurations that harm, each of a kind that took a mesh down somewhere.

use tidegate_edge::config::{CredentialConfig, MeshConfig, ModelConfig, PresetConfig};

/// What it is, and what is done to a mesh of two providers `a` and `b` that serve a model `m`.
pub type Poison = (&'static str, fn(&mut MeshConfig));

/// All of them. A body of a test's resource names one (see [`crate::control::Body::poison`]).
pub const POISONS: &[Poison] = &[
    ("the compiler panics", |_| panic!("a configuration that panics")),
    ("the compiler panics over an index", |mesh| drop(mesh.endpoints.remove(99))),
    ("the compiler panics over a blank field", |mesh| assert!(mesh.models[0].slug.is_empty(), "called on a blank field")),
    ("no endpoint is left", |mesh| mesh.endpoints.clear()),
    ("no model is left", |mesh| mesh.models.clear()),
    ("no provider is left", |mesh| mesh.providers.clear()),
    ("nothing is left", |mesh| {
        mesh.providers.clear();
        mesh.models.clear();
        mesh.endpoints.clear();
    }),
    ("everything is free", |mesh| {
        for endpoint in &mut mesh.endpoints {
            endpoint.prices = tidegate_ledger::PriceTable::default();
        }
    }),
    ("a provider's name is blank", |mesh| mesh.providers[0].info.slug.clear()),
    ("a provider's address is blank", |mesh| mesh.providers[0].info.base_url.clear()),
    ("a provider's address is no address", |mesh| mesh.providers[0].info.base_url = "http://".to_owned()),
    ("a provider's address has a hole", |mesh| mesh.providers[0].info.base_url = "http://{region}.example".to_owned()),
    ("a provider's address is of another scheme", |mesh| mesh.providers[0].info.base_url = "ftp://127.0.0.1/".to_owned()),
    ("a provider's address is plain where that is not allowed", |mesh| mesh.providers[0].allow_plain_http = false),
    ("a provider has no account", |mesh| mesh.providers[0].credentials.clear()),
    ("a provider's account has no weight", |mesh| {
        for credential in &mut mesh.providers[0].credentials {
            credential.weight = 0;
        }
    }),
    ("a secret holds a line end", |mesh| {
        let secret = Some("sk-1\r\nx-injected: yes".into());
        mesh.providers[0].info.auth = tidegate_wire::AuthScheme::Bearer;
        mesh.providers[0].credentials = vec![CredentialConfig { name: "c".to_owned(), weight: 1, secret, own_key: false }];
    }),
    ("a header of a provider has a blank name", |mesh| {
        mesh.providers[0].info.extra_headers.insert(String::new(), "x".to_owned());
    }),
    ("a header of a provider holds a line end", |mesh| {
        mesh.providers[0].info.extra_headers.insert("x-a".to_owned(), "x\ny".to_owned());
    }),
    ("a file of authorities is not there", |mesh| {
        mesh.providers[0].info.base_url = "https://127.0.0.1:1".to_owned();
        mesh.providers[0].extra_roots.push("/nowhere/ca.pem".into());
    }),
    ("a provider is there twice", |mesh| mesh.providers.push(mesh.providers[0].clone())),
    ("a model's name is blank", |mesh| mesh.models[0].slug.clear()),
    ("a model is there twice", |mesh| mesh.models.push(mesh.models[0].clone())),
    ("an alias is the name of another model", |mesh| {
        let other = ModelConfig { slug: "other".to_owned(), aliases: vec!["m".to_owned()], ..mesh.models[0].clone() };
        mesh.models.push(other);
    }),
    ("an endpoint's name is blank", |mesh| mesh.endpoints[0].name.clear()),
    ("an endpoint is there twice", |mesh| mesh.endpoints.push(mesh.endpoints[0].clone())),
    ("an endpoint's provider is blank", |mesh| mesh.endpoints[0].provider.clear()),
    ("an endpoint's provider is not there", |mesh| mesh.endpoints[0].provider = "gone".to_owned()),
    ("an endpoint's model is not there", |mesh| mesh.endpoints[0].model = "gone".to_owned()),
    ("an endpoint's tag is blank", |mesh| mesh.endpoints[0].tag.clear()),
    ("an endpoint holds no tokens", |mesh| mesh.endpoints[0].context_length = 0),
    ("a preset is no object", |mesh| mesh.presets.push(PresetConfig { slug: "p".to_owned(), fields: "[1]".to_owned() })),
    ("a preset is cut off", |mesh| mesh.presets.push(PresetConfig { slug: "p".to_owned(), fields: r#"{"temperature":"#.to_owned() })),
    ("the default model is not there", |mesh| mesh.defaults.model = Some("gone".to_owned())),
    ("nothing may be tried", |mesh| mesh.defaults.max_attempts = 0),
    ("no time is given", |mesh| mesh.defaults.deadline = std::time::Duration::ZERO),
];

/// Does one of them.
///
/// # Panics
/// When it is of that kind, and when there is none of this name.
pub fn apply(name: &str, mesh: &mut MeshConfig) {
    let (_, harm) = POISONS.iter().find(|(known, _)| *known == name).expect("a poison of the table");
    harm(mesh);
}
