//! What an edge needs to follow the control plane: its identity, its keys for sealed credentials, and the rules of the file.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use prost::Message;
use secrecy::SecretString;
use tidegate_edge::Services;
use tidegate_edge::config::KeyPolicy;
use tidegate_edge::control_link::{Compile, ControlServices, ReadPolicy};
use tidegate_proto::v1::SealedCredential;
use tidegate_proto::{Kind, Problem, ResourceMap};
use tidegate_runtime::mesh::{Dial, Identity, MeshMetrics, MtlsDialer, MtlsOptions, PlainDialer};
use tidegate_runtime::sealing::{KekStore, Place, Sealed};
use tidegate_runtime::{Clock, Tasks};

use crate::config::Config;
use crate::config::lower::{Agreed, ControlFiles, agreed, key_policy};

/// What an edge follows with.
pub(super) struct Followed {
    pub(super) services: ControlServices,
    /// To be looked at when asked to.
    pub(super) identity: Option<Arc<Identity>>,
}

/// Reads the files. The identity is looked at again now and then by a task that ends with `tasks`.
pub(super) fn services(files: &ControlFiles, config: &Config, services: &Services, tasks: &Tasks) -> anyhow::Result<Followed> {
    let keyring = match &files.kek {
        Some(source) => Some(Arc::new(KekStore::open(source.clone()).context("read the keys that open sealed credentials")?)),
        None => None,
    };
    let (dial, identity) = dial(files, services, tasks)?;
    let services = ControlServices {
        dial,
        compile: compile(keyring, config.edge.region.clone(), config.mesh.keys_pepper.clone()),
        read_policy: read_policy(),
    };
    Ok(Followed { services, identity })
}

type Dialing = (Arc<dyn Dial>, Option<Arc<Identity>>);

fn dial(files: &ControlFiles, services: &Services, tasks: &Tasks) -> anyhow::Result<Dialing> {
    let Some(identity) = &files.identity else { return Ok((Arc::new(PlainDialer::default()), None)) };
    let clock = Clock::start();
    let identity = Identity::load(identity.clone(), Identity::DEFAULT_OVERLAP, clock.unix_seconds());
    let identity = identity.context("read the certificate of this edge in the mesh")?;
    identity.start(LOOK_EVERY, clock, tasks);
    let metrics = MeshMetrics::register(&services.registry).context("register metrics")?;
    Ok((Arc::new(MtlsDialer::new(Arc::clone(&identity), metrics, MtlsOptions::default())), Some(identity)))
}

fn compile(keyring: Option<Arc<KekStore>>, region: String, pepper: Option<SecretString>) -> Compile {
    Arc::new(move |cluster: &str, resources: &ResourceMap| {
        let open = |provider: &str, credential: &str| opened(keyring.as_deref(), cluster, resources, provider, credential);
        agreed(resources.iter(), Agreed { revision: 0, region: Some(&region), open: Some(&open), pepper: pepper.clone() })
    })
}

/// A provider's secret out of the agreed state.
fn opened(
    keyring: Option<&KekStore>,
    cluster: &str,
    resources: &ResourceMap,
    provider: &str,
    credential: &str,
) -> Result<SecretString, String> {
    let Some(keyring) = keyring else {
        return Err("this edge has no key for sealed credentials: add `control.kek` or `control.kek_command` to its file".to_owned());
    };
    let name = format!("{provider}/{credential}");
    let resource = resources.get(Kind::Credential, &name).ok_or_else(|| format!("there is no sealed credential `{name}`"))?;
    let found = SealedCredential::decode(resource.body.clone()).map_err(|error| format!("credential `{name}` cannot be read: {error}"))?;
    let sealed = Sealed {
        kek_id: found.kek_id,
        wrapped_dek: found.wrapped_dek.to_vec(),
        nonce: found.nonce.to_vec(),
        ciphertext: found.ciphertext.to_vec(),
    };
    // A cluster founded from a backup has secrets that were sealed in the one before; what is said here is authenticated by the seal.
    let cluster = if found.cluster.is_empty() { cluster } else { &found.cluster };
    let place = Place { cluster, credential: &name, version: found.version };
    keyring.open_sealed(place, &sealed).map_err(|error| format!("credential `{name}`: {error}"))
}

fn read_policy() -> ReadPolicy {
    Arc::new(|text: &[u8]| -> Result<KeyPolicy, String> {
        key_policy(text).map_err(|problems| problems.first().map(Problem::to_string).unwrap_or_default())
    })
}

/// A leaf lives for a day; cert-manager renews it hours before.
const LOOK_EVERY: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;
    use tidegate_proto::v1::{Resource, ResourceId};
    use tidegate_runtime::sealing::{Kek, KekSource};

    use super::*;

    fn resource(kind: Kind, name: &str, body: impl Into<bytes::Bytes>) -> Resource {
        Resource { id: Some(ResourceId { kind: kind.to_string(), name: name.to_owned() }), body: body.into(), revision: 1 }
    }

    fn sealed(kek: &Kek, cluster: &str, said: &str) -> Vec<u8> {
        let place = Place { cluster, credential: "openai/main", version: 3 };
        let sealed = kek.public().seal(place, &"sk-secret".into()).unwrap();
        SealedCredential {
            provider: "openai".to_owned(),
            credential: "main".to_owned(),
            version: 3,
            kek_id: sealed.kek_id,
            wrapped_dek: sealed.wrapped_dek.into(),
            nonce: sealed.nonce.into(),
            ciphertext: sealed.ciphertext.into(),
            cluster: said.to_owned(),
            ..SealedCredential::default()
        }
        .encode_to_vec()
    }

    #[test]
    fn a_sealed_credential_is_opened_with_the_edges_key_and_for_its_cluster_only() {
        let kek = Kek::generate("k1").unwrap();
        let mut resources = ResourceMap::default();
        resources.upsert(resource(Kind::Provider, "openai", r#"{"credentials":[{"name":"main","secret":"sealed"}]}"#));
        resources.upsert(resource(Kind::Credential, "openai/main", sealed(&kek, "c1", "")));
        let mut restored = resources.clone();
        restored.upsert(resource(Kind::Credential, "openai/main", sealed(&kek, "c1", "c1")));
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kek");
        std::fs::write(&path, kek.to_line().expose_secret()).unwrap();
        let keyring = Arc::new(KekStore::open(KekSource::File(path)).unwrap());
        let compile_with = |keyring| compile(keyring, "eu".to_owned(), None);
        let mesh = compile_with(Some(Arc::clone(&keyring)))("c1", &resources).unwrap();
        let secret = mesh.providers[0].credentials[0].secret.as_ref().unwrap();
        assert_eq!(secret.expose_secret(), "sk-secret");
        assert!(compile_with(Some(Arc::clone(&keyring)))("c2", &restored).is_ok(), "after a restore the cluster has another name");
        let other = compile_with(Some(keyring))("c2", &resources).unwrap_err();
        assert_eq!(other[0].resource.as_ref().unwrap().name, "openai");
        assert!(compile_with(None)("c1", &resources).unwrap_err()[0].message.contains("control.kek"));
    }
}
