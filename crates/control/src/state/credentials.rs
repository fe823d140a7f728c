//! Sealed secrets of providers.

use bytes::Bytes;
use prost::Message;
use tidegate_proto::Kind;
use tidegate_proto::v1::{RefusalCode, Refused, RewrapCredentials, SealedCredential};

use super::Id;
use super::apply::BODY_BYTES;
use super::draft::{Draft, refuse};
use super::resources::Reach;

/// Data keys of one command: a few dozen KiB.
const REWRAPPED_AT_ONCE: usize = 500;
/// Largest wrapped data key, bytes; those of today have 80.
const WRAPPED_BYTES: usize = 1024;

pub(super) fn put(draft: &mut Draft<'_>, sealed: &SealedCredential) -> Result<(), Refused> {
    let provider = Id::new(Kind::Provider, &sealed.provider);
    if draft.body(&provider).is_none() {
        return Err(refuse(RefusalCode::NotFound, format!("{provider} is not declared: declare it first")));
    }
    if sealed.credential.is_empty() || sealed.ciphertext.len() > BODY_BYTES {
        return Err(refuse(RefusalCode::Malformed, format!("credential of {provider}: no name, or too large")));
    }
    let id = credential_id(&sealed.provider, &sealed.credential);
    let present = draft.body(&id).and_then(|body| SealedCredential::decode(body.clone()).ok()).map_or(0, |sealed| sealed.version);
    if sealed.version != present.saturating_add(1) {
        let message = format!("{id} is at version {present}, and version {} was sealed: seal it again", sealed.version);
        return Err(refuse(RefusalCode::Conflict, message));
    }
    draft.put(&id, Some(sealed.encode_to_vec().into()), Reach::All);
    Ok(())
}

fn credential_id(provider: &str, credential: &str) -> Id {
    Id::new(Kind::Credential, &format!("{provider}/{credential}"))
}

/// Secrets go with their provider, once no edge has it any more.
pub(super) fn sweep(draft: &mut Draft<'_>) {
    let gone = |id: &Id| match id.name().split_once('/') {
        Some((provider, _)) => {
            let provider = Id::new(Kind::Provider, provider);
            draft.state.newest().get(&provider).is_none() && draft.state.settled().get(&provider).is_none()
        }
        None => true,
    };
    let orphans: Vec<Id> = draft.state.newest().of_kind(Kind::Credential).map(|(id, _)| id).filter(|id| gone(id)).cloned().collect();
    for id in orphans {
        draft.put(&id, None::<Bytes>, Reach::All);
    }
}

/// The same secrets under another key. Versions stay: they are part of what was sealed.
pub(super) fn rewrap(draft: &mut Draft<'_>, asked: &RewrapCredentials) -> Result<(), Refused> {
    if asked.keys.len() > REWRAPPED_AT_ONCE {
        return Err(refuse(RefusalCode::Limit, format!("more than {REWRAPPED_AT_ONCE} data keys at once")));
    }
    for key in &asked.keys {
        let id = credential_id(&key.provider, &key.credential);
        if key.kek_id.is_empty() || key.wrapped_dek.is_empty() || key.wrapped_dek.len() > WRAPPED_BYTES {
            return Err(refuse(RefusalCode::Malformed, format!("{id}: no wrapped data key, or too large")));
        }
        let Some(present) = draft.body(&id).and_then(|body| SealedCredential::decode(body.clone()).ok()) else {
            return Err(refuse(RefusalCode::NotFound, format!("there is no {id} any more: read them again")));
        };
        if (present.version, &present.kek_id) != (key.version, &key.from_kek) {
            let message = format!("{id} is at version {} under key `{}`: read them again", present.version, present.kek_id);
            return Err(refuse(RefusalCode::Conflict, message));
        }
        let sealed = SealedCredential { kek_id: key.kek_id.clone(), wrapped_dek: key.wrapped_dek.clone(), ..present };
        draft.put(&id, Some(sealed.encode_to_vec().into()), Reach::All);
    }
    Ok(())
}
