//! The immutable view that one decision is made over.
//!
//! A snapshot either builds completely or says everything that is wrong with it at once. It holds what was *configured*; what
//! was *measured* lives in [`Health`](crate::Health), which outlives snapshots.

use std::collections::{HashMap, HashSet};

use thiserror::Error;

use crate::endpoint::Endpoint;
use crate::id::{EndpointIndex, ModelIndex, ProviderIndex};
use crate::model::{Model, Provider};
use crate::{EndpointSpec, ModelSpec, ProviderSpec, Settings};

/// What a snapshot is built from. Positions in these lists become the indices.
#[derive(Clone, Debug, Default)]
pub struct SnapshotSpec {
    /// Number of this view; grows.
    pub revision: u64,
    /// Providers with their credentials.
    pub providers: Vec<ProviderSpec>,
    /// Models.
    pub models: Vec<ModelSpec>,
    /// Endpoints.
    pub endpoints: Vec<EndpointSpec>,
    /// Constants of routing.
    pub settings: Settings,
}

/// The immutable view.
#[derive(Debug)]
pub struct Snapshot {
    revision: u64,
    providers: Vec<Provider>,
    models: Vec<Model>,
    endpoints: Vec<Endpoint>,
    by_name: HashMap<String, ModelIndex>,
    of_model: Vec<Box<[EndpointIndex]>>,
    credentials: u32,
    settings: Settings,
}

impl Snapshot {
    /// Builds the view, or says everything that is wrong with the spec.
    pub fn build(spec: SnapshotSpec) -> Result<Snapshot, Vec<BuildError>> {
        let mut errors = Vec::new();
        for (name, reason) in spec.settings.problems() {
            errors.push(BuildError::Setting { name, reason });
        }
        let provider_index = index_providers(&spec.providers, &mut errors);
        let by_name = index_models(&spec.models, &mut errors);

        let mut names = HashSet::new();
        let mut endpoints = Vec::with_capacity(spec.endpoints.len());
        let mut of_model = vec![Vec::new(); spec.models.len()];
        for (at, endpoint) in spec.endpoints.into_iter().enumerate() {
            check_endpoint(&endpoint, &mut errors);
            if !names.insert(endpoint.name.clone()) {
                errors.push(BuildError::DuplicateEndpoint(endpoint.name.clone()));
            }
            let provider = provider_index.get(endpoint.provider.as_str()).copied();
            if provider.is_none() {
                errors.push(BuildError::UnknownProvider { endpoint: endpoint.name.clone(), provider: endpoint.provider.clone() });
            }
            let model = by_name.get(endpoint.model.as_str()).copied();
            if model.is_none() {
                errors.push(BuildError::UnknownModel { endpoint: endpoint.name.clone(), model: endpoint.model.clone() });
            }
            let (Some(provider), Some(model)) = (provider, model) else {
                continue;
            };
            of_model[model.get()].push(EndpointIndex(at as u32));
            endpoints.push((endpoint, provider, model));
        }

        let mut credentials = 0;
        let mut providers = Vec::with_capacity(spec.providers.len());
        for (at, provider) in spec.providers.into_iter().enumerate() {
            let served = endpoints.iter().any(|(_, of, _)| of.get() == at);
            if served && provider.credentials.iter().all(|one| one.weight == 0) {
                errors.push(BuildError::NoCredential(provider.slug.clone()));
            }
            let first = credentials;
            credentials += provider.credentials.len() as u32;
            providers.push(Provider::new(provider, first));
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Snapshot {
            revision: spec.revision,
            providers,
            models: spec.models.into_iter().map(|spec| Model { spec }).collect(),
            endpoints: endpoints.into_iter().map(|(spec, of, model)| Endpoint::new(spec, of, model)).collect(),
            by_name,
            of_model: of_model.into_iter().map(Vec::into_boxed_slice).collect(),
            credentials,
            settings: spec.settings,
        })
    }

    /// The model that has this slug or alias. Exact; variants are the caller's business.
    pub fn model(&self, slug_or_alias: &str) -> Option<ModelIndex> {
        self.by_name.get(slug_or_alias).copied()
    }

    /// All models by index.
    pub fn models(&self) -> &[Model] {
        &self.models
    }

    /// The endpoints of a model, in the order of the spec; none for an index of another snapshot.
    pub fn endpoints_of(&self, model: ModelIndex) -> &[EndpointIndex] {
        self.of_model.get(model.get()).map_or(&[], |endpoints| endpoints)
    }

    /// One endpoint.
    ///
    /// # Panics
    /// On an index that another, larger snapshot gave out.
    pub fn endpoint(&self, endpoint: EndpointIndex) -> &Endpoint {
        &self.endpoints[endpoint.get()]
    }

    /// All endpoints by index.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// One provider.
    ///
    /// # Panics
    /// On an index that another, larger snapshot gave out.
    pub fn provider(&self, provider: ProviderIndex) -> &Provider {
        &self.providers[provider.get()]
    }

    /// All providers by index.
    pub fn providers(&self) -> &[Provider] {
        &self.providers
    }

    /// Number of credentials of all providers together.
    pub fn credential_count(&self) -> usize {
        self.credentials as usize
    }

    /// Number of this view.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The constants that decisions are made with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }
}

/// One thing that is wrong with a spec.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BuildError {
    /// A constant that cannot work.
    #[error("setting `{name}` {reason}")]
    Setting {
        /// Name of the field.
        name: &'static str,
        /// What it must be.
        reason: &'static str,
    },
    /// Something has no name.
    #[error("a {0} has an empty name")]
    EmptyName(&'static str),
    /// Two providers with one slug.
    #[error("provider `{0}` is declared twice")]
    DuplicateProvider(String),
    /// Two credentials of a provider with one name.
    #[error("provider `{provider}`: credential `{credential}` is declared twice")]
    DuplicateCredential {
        /// Slug of the provider.
        provider: String,
        /// Name of the credential.
        credential: String,
    },
    /// A provider that has endpoints but no account to call them with.
    #[error("provider `{0}` has endpoints but no credential with a weight above 0")]
    NoCredential(String),
    /// Two models share a slug or an alias.
    #[error("model name `{0}` is declared twice, as slug or alias")]
    DuplicateModel(String),
    /// Two endpoints with one name.
    #[error("endpoint `{0}` is declared twice")]
    DuplicateEndpoint(String),
    /// An endpoint of a provider that is not declared.
    #[error("endpoint `{endpoint}`: no provider `{provider}`")]
    UnknownProvider {
        /// Name of the endpoint.
        endpoint: String,
        /// The slug it gives.
        provider: String,
    },
    /// An endpoint of a model that is not declared.
    #[error("endpoint `{endpoint}`: no model `{model}`")]
    UnknownModel {
        /// Name of the endpoint.
        endpoint: String,
        /// The slug it gives.
        model: String,
    },
    /// A field of an endpoint that cannot work.
    #[error("endpoint `{endpoint}`: `{field}` {reason}")]
    Endpoint {
        /// Name of the endpoint.
        endpoint: String,
        /// Name of the field.
        field: &'static str,
        /// What it must be.
        reason: &'static str,
    },
}

fn index_providers<'a>(providers: &'a [ProviderSpec], errors: &mut Vec<BuildError>) -> HashMap<&'a str, ProviderIndex> {
    let mut index = HashMap::new();
    for (at, provider) in providers.iter().enumerate() {
        if provider.slug.is_empty() {
            errors.push(BuildError::EmptyName("provider"));
        }
        if index.insert(provider.slug.as_str(), ProviderIndex(at as u32)).is_some() {
            errors.push(BuildError::DuplicateProvider(provider.slug.clone()));
        }
        let mut names = HashSet::new();
        for credential in &provider.credentials {
            if credential.name.is_empty() {
                errors.push(BuildError::EmptyName("credential"));
            }
            if !names.insert(credential.name.as_str()) {
                errors.push(BuildError::DuplicateCredential { provider: provider.slug.clone(), credential: credential.name.clone() });
            }
        }
    }
    index
}

fn index_models(models: &[ModelSpec], errors: &mut Vec<BuildError>) -> HashMap<String, ModelIndex> {
    let mut index = HashMap::new();
    for (at, model) in models.iter().enumerate() {
        for name in std::iter::once(&model.slug).chain(&model.aliases) {
            if name.is_empty() {
                errors.push(BuildError::EmptyName("model"));
            }
            if index.insert(name.clone(), ModelIndex(at as u32)).is_some() {
                errors.push(BuildError::DuplicateModel(name.clone()));
            }
        }
    }
    index
}

fn check_endpoint(endpoint: &EndpointSpec, errors: &mut Vec<BuildError>) {
    if endpoint.name.is_empty() {
        errors.push(BuildError::EmptyName("endpoint"));
    }
    let checks = [
        ("tag", !endpoint.tag.is_empty(), "must not be empty"),
        ("context_length", endpoint.context_length > 0, "must be above 0"),
        ("max_output", endpoint.max_output != Some(0), "must be above 0"),
        ("max_concurrency", endpoint.max_concurrency != Some(0), "must be above 0; drain the endpoint instead"),
        ("inputs", !endpoint.inputs.is_empty(), "must not be empty"),
        ("prior_first_token", endpoint.prior_first_token.is_none_or(|prior| !prior.is_zero()), "must be above 0"),
        (
            "prior_tokens_per_second",
            endpoint.prior_tokens_per_second.is_none_or(|prior| prior.is_finite() && prior > 0.0),
            "must be above 0",
        ),
    ];
    for (field, holds, reason) in checks {
        if !holds {
            errors.push(BuildError::Endpoint { endpoint: endpoint.name.clone(), field, reason });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CredentialSpec;

    fn spec() -> SnapshotSpec {
        let credentials = vec![CredentialSpec { name: "main".into(), weight: 1 }];
        SnapshotSpec {
            revision: 7,
            providers: vec![
                ProviderSpec { slug: "a".into(), name: "A".into(), credentials: credentials.clone() },
                ProviderSpec { slug: "b".into(), name: "B".into(), credentials },
            ],
            models: vec![
                ModelSpec { slug: "x/one".into(), aliases: vec!["one".into()], distillable: true },
                ModelSpec { slug: "x/two".into(), ..ModelSpec::default() },
            ],
            endpoints: vec![
                EndpointSpec::new("a-one", "a", "x/one"),
                EndpointSpec::new("b-two", "b", "x/two"),
                EndpointSpec::new("b-one", "b", "x/one"),
            ],
            settings: Settings::default(),
        }
    }

    #[test]
    fn indices_follow_the_spec_and_aliases_resolve() {
        let snapshot = Snapshot::build(spec()).unwrap();
        let one = snapshot.model("one").unwrap();
        assert_eq!(snapshot.model("x/one"), Some(one));
        assert_eq!(snapshot.model("x/three"), None);
        assert_eq!(snapshot.endpoints_of(one), [EndpointIndex(0), EndpointIndex(2)]);
        let second: Vec<_> = snapshot.providers()[1].credentials().map(|(index, _)| index.get()).collect();
        assert_eq!(second, [1]);
        assert_eq!(snapshot.credential_count(), 2);
    }

    #[test]
    fn everything_wrong_is_reported_at_once() {
        let mut broken = spec();
        broken.settings.max_attempts = 0;
        broken.providers[1].slug = "a".into();
        broken.models[1].aliases.push("x/one".into());
        broken.endpoints[0].name = "b-two".into();
        broken.endpoints[0].context_length = 0;
        broken.endpoints[1].provider = "z".into();
        broken.endpoints[2].model = "z".into();
        let errors = Snapshot::build(broken).unwrap_err();
        for expected in [
            BuildError::Setting { name: "max_attempts", reason: "must be at least 1" },
            BuildError::DuplicateProvider("a".into()),
            BuildError::DuplicateModel("x/one".into()),
            BuildError::DuplicateEndpoint("b-two".into()),
            BuildError::UnknownProvider { endpoint: "b-two".into(), provider: "z".into() },
            BuildError::UnknownModel { endpoint: "b-one".into(), model: "z".into() },
            BuildError::Endpoint { endpoint: "b-two".into(), field: "context_length", reason: "must be above 0" },
        ] {
            assert!(errors.contains(&expected), "{expected:?} in {errors:?}");
        }
    }

    #[test]
    fn a_provider_with_endpoints_needs_a_credential() {
        let mut broken = spec();
        broken.providers[0].credentials[0].weight = 0;
        assert_eq!(Snapshot::build(broken).unwrap_err(), [BuildError::NoCredential("a".into())]);
    }
}
