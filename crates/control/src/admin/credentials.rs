//! Providers' credentials: put and counted, never shown. Sealing happens in this node's memory; the log has ciphertext only.

use bytes::Bytes;
use http::StatusCode;
use prost::Message;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Value, json};
use tidegate_proto::Kind;
use tidegate_proto::v1::{PutCredential, RefusalCode, RewrapCredentials, RewrappedKey, SealedCredential, command};
use tidegate_runtime::sealing::Place;

use super::answer::{self, Result, ok, written};
use super::call::Call;
use super::declared::exposed;
use super::error::AdminError;
use super::{Admin, AdminParts};
use crate::proposer::SubmitError;
use crate::state::State;

/// How often a secret is sealed anew because another version came in between.
const ATTEMPTS: usize = 3;

pub(super) async fn list(admin: Admin, call: Call) -> Result {
    let state = admin.read(&call).await?;
    let credentials: Vec<Value> = state.newest().of_kind(Kind::Credential).map(|(id, resource)| answer::resource(id, resource)).collect();
    ok(json!({ "revision": state.revision(), "credentials": credentials }))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    provider: String,
    credential: String,
    secret: SecretString,
    #[serde(default, rename = "reason")]
    _reason: String,
}

pub(super) async fn put(admin: Admin, call: Call) -> Result {
    call.needs_reason()?;
    let asked: Asked = call.json()?;
    let mut refusal = None;
    for _ in 0..ATTEMPTS {
        let state = admin.read(&call).await?;
        let sealed = seal(&admin.parts, &state, &asked.provider, &asked.credential, &asked.secret)?;
        let version = sealed.version;
        match admin.write(&call, command::Body::PutCredential(PutCredential { credential: Some(sealed) })).await {
            Ok(applied) => {
                let mut body = written(&applied);
                body["version"] = version.into();
                return ok(body);
            }
            Err(SubmitError::Refused(refused)) if refused.code() == RefusalCode::Conflict => refusal = Some(refused),
            Err(error) => return Err(error.into()),
        }
    }
    Err(refusal.unwrap_or_default().into())
}

/// What a holder of the edges' keys needs to wrap data keys anew. Nothing in it is secret, and without those keys it is of no use.
pub(super) async fn sealed(admin: Admin, call: Call) -> Result {
    let state = admin.read(&call).await?;
    let cluster = admin.parts.proposer.agreement().status().cluster_id;
    let shown = |(_, resource): (_, &std::sync::Arc<tidegate_proto::v1::Resource>)| {
        let sealed = SealedCredential::decode(resource.body.clone()).ok()?;
        let cluster = if sealed.cluster.is_empty() { cluster.clone() } else { sealed.cluster };
        Some(json!({
            "provider": sealed.provider,
            "credential": sealed.credential,
            "version": sealed.version,
            "cluster": cluster,
            "kek": sealed.kek_id,
            "wrapped_dek": answer::hex(&sealed.wrapped_dek),
        }))
    };
    let credentials: Vec<Value> = state.newest().of_kind(Kind::Credential).filter_map(shown).collect();
    ok(json!({ "revision": state.revision(), "credentials": credentials }))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rewrap {
    credentials: Vec<Rewrapped>,
    #[serde(default, rename = "reason")]
    _reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rewrapped {
    provider: String,
    credential: String,
    version: u32,
    /// Key that wrapped it until now.
    from: String,
    kek: String,
    /// Hex.
    wrapped_dek: String,
}

pub(super) async fn rewrap(admin: Admin, call: Call) -> Result {
    call.needs_reason()?;
    let asked: Rewrap = call.json()?;
    let known = admin.parts.keyring.as_ref().map(|keyring| keyring.ids().collect::<Vec<_>>()).unwrap_or_default();
    let mut keys = Vec::with_capacity(asked.credentials.len());
    for Rewrapped { provider, credential, version, from, kek, wrapped_dek } in asked.credentials {
        // Otherwise what is put next would be sealed with a key that edges may have let go of.
        if !known.contains(&kek.as_str()) {
            let help = "give control nodes the new public keys first (`tidegate kek public`)";
            return Err(AdminError::bad_request(format!("this node does not know the key `{kek}`: {help}")));
        }
        let wrapped_dek = unhex(&wrapped_dek).ok_or_else(|| AdminError::bad_request("`wrapped_dek` is not hex"))?;
        keys.push(RewrappedKey { provider, credential, version, from_kek: from, kek_id: kek, wrapped_dek });
    }
    let applied = admin.write(&call, command::Body::RewrapCredentials(RewrapCredentials { keys })).await?;
    ok(written(&applied))
}

fn unhex(text: &str) -> Option<Bytes> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect::<Option<Vec<u8>>>().map(Bytes::from)
}

/// Seals a secret as the next version of a credential.
pub(super) fn seal(
    parts: &AdminParts,
    state: &State,
    provider: &str,
    credential: &str,
    secret: &SecretString,
) -> std::result::Result<SealedCredential, AdminError> {
    let Some(kek) = parts.keyring.as_ref().and_then(|keyring| keyring.current()) else {
        let help = "make a pair with `tidegate kek new` and name its public file as `sealing.key_file` in the control node's configuration";
        return Err(AdminError::new(StatusCode::PRECONDITION_FAILED, "no_sealing_key", format!("this node cannot seal secrets: {help}")));
    };
    let status = parts.proposer.agreement().status();
    let name = format!("{provider}/{credential}");
    let present = state.get(Kind::Credential, &name).and_then(|resource| SealedCredential::decode(resource.body.clone()).ok());
    let version = present.map_or(0, |present| present.version).saturating_add(1);
    let place = Place { cluster: &status.cluster_id, credential: &name, version };
    let sealed = kek
        .seal(place, secret)
        .map_err(|error| AdminError::new(StatusCode::INTERNAL_SERVER_ERROR, "sealing", format!("seal `{name}`: {error}")))?;
    Ok(SealedCredential {
        provider: provider.to_owned(),
        credential: credential.to_owned(),
        version,
        kek_id: sealed.kek_id,
        wrapped_dek: sealed.wrapped_dek.into(),
        nonce: sealed.nonce.into(),
        ciphertext: sealed.ciphertext.into(),
        fingerprint: fingerprint(&status.cluster_id, &name, secret),
        cluster: status.cluster_id,
    })
}

/// See `SealedCredential.fingerprint`.
pub(super) fn fingerprint(cluster: &str, name: &str, secret: &SecretString) -> Bytes {
    let mut hasher = blake3::Hasher::new_derive_key("tidegate 2026 fingerprint of a provider's credential");
    for part in [cluster, name, exposed(secret)] {
        hasher.update(&(part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    Bytes::copy_from_slice(&hasher.finalize().as_bytes()[..16])
}
