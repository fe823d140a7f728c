//! Models, and the providers and credentials that serve them.

use crate::id::{CredentialIndex, stable_hash};

/// What configuration says about a model.
#[derive(Clone, Debug, Default)]
pub struct ModelSpec {
    /// `author/name`.
    pub slug: String,
    /// Other names of the same model.
    pub aliases: Vec<String>,
    /// Whether the author permits training on the output.
    pub distillable: bool,
}

/// A model inside a snapshot.
#[derive(Debug)]
pub struct Model {
    pub(crate) spec: ModelSpec,
}

impl Model {
    /// `author/name`.
    pub fn slug(&self) -> &str {
        &self.spec.slug
    }

    /// Other names of the same model.
    pub fn aliases(&self) -> &[String] {
        &self.spec.aliases
    }

    /// Whether the author permits training on the output.
    pub fn distillable(&self) -> bool {
        self.spec.distillable
    }
}

/// What configuration says about a provider.
#[derive(Clone, Debug, Default)]
pub struct ProviderSpec {
    /// Base slug, such as `deepinfra`.
    pub slug: String,
    /// Display name.
    pub name: String,
    /// Accounts at the provider. At least one with a weight, else its endpoints cannot be called.
    pub credentials: Vec<CredentialSpec>,
}

/// One account at a provider. The secret itself never comes here.
#[derive(Clone, Debug, Default)]
pub struct CredentialSpec {
    /// Unique within the provider and stable: blocks are carried over by it.
    pub name: String,
    /// Share of the provider's traffic relative to its other credentials; 0 takes it out.
    pub weight: u32,
}

/// A provider inside a snapshot.
#[derive(Debug)]
pub struct Provider {
    slug: String,
    name: String,
    first: u32,
    credentials: Vec<Credential>,
}

impl Provider {
    pub(crate) fn new(spec: ProviderSpec, first: u32) -> Provider {
        let credentials = spec
            .credentials
            .into_iter()
            .map(|credential| Credential { id: stable_hash(&[&spec.slug, &credential.name]), spec: credential })
            .collect();
        Provider { slug: spec.slug, name: spec.name, first, credentials }
    }

    /// Base slug.
    pub fn slug(&self) -> &str {
        &self.slug
    }

    /// Display name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its credentials with their indices.
    pub fn credentials(&self) -> impl ExactSizeIterator<Item = (CredentialIndex, &Credential)> {
        let first = self.first;
        self.credentials.iter().enumerate().map(move |(at, one)| (CredentialIndex(first + at as u32), one))
    }
}

/// A credential inside a snapshot.
#[derive(Debug)]
pub struct Credential {
    spec: CredentialSpec,
    id: u64,
}

impl Credential {
    /// Its name within the provider.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Its share relative to the provider's other credentials.
    pub fn weight(&self) -> u32 {
        self.spec.weight
    }

    /// Stable over snapshots: made of the provider's slug and the name.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }
}
