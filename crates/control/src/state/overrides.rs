//! What operators force, beside what is declared.

use prost::Message;
use tidegate_proto::Kind;
use tidegate_proto::v1::{LiftOverride, Override, OverrideAction, PutOverride, RefusalCode, Refused, ResourceId};

use super::Id;
use super::draft::{Draft, refuse};
use super::resources::Reach;

/// Most overrides at once.
const OVERRIDES: usize = 10_000;

/// Name of the resource that holds an override: `provider/groq`, `endpoint/NAME@eu`.
pub fn override_name(target: &ResourceId, region: &str) -> String {
    let at = if region.is_empty() { String::new() } else { format!("@{region}") };
    format!("{}/{}{at}", target.kind, target.name)
}

pub(super) fn put(draft: &mut Draft<'_>, asked: &PutOverride) -> Result<String, Refused> {
    let Some((value, target)) = asked.value.as_ref().and_then(|value| Some((value, value.target.as_ref()?))) else {
        return Err(refuse(RefusalCode::Malformed, "an override has a target"));
    };
    let target_id = Id::from(target);
    if !matches!(target_id.kind(), Some(Kind::Provider | Kind::Endpoint)) {
        return Err(refuse(RefusalCode::Malformed, format!("{target_id} cannot be overridden: providers and endpoints can")));
    }
    if value.action() == OverrideAction::Unspecified {
        return Err(refuse(RefusalCode::Malformed, "an override says what to do: drain, pin or disable"));
    }
    if draft.body(&target_id).is_none() {
        return Err(refuse(RefusalCode::NotFound, format!("{target_id} is not declared")));
    }
    if draft.state.newest().of_kind(Kind::Override).take(OVERRIDES).count() == OVERRIDES {
        return Err(refuse(RefusalCode::Limit, format!("more than {OVERRIDES} overrides: lift some")));
    }
    let name = override_name(target, &value.region);
    let value = Override { actor: draft.actor().to_owned(), ..value.clone() };
    draft.put(&Id::new(Kind::Override, &name), Some(value.encode_to_vec().into()), Reach::All);
    Ok(name)
}

pub(super) fn lift(draft: &mut Draft<'_>, asked: &LiftOverride) -> Result<(), Refused> {
    let id = Id::new(Kind::Override, &asked.name);
    if draft.body(&id).is_none() {
        return Err(refuse(RefusalCode::NotFound, format!("no such override: {}", asked.name)));
    }
    draft.put(&id, None, Reach::All);
    Ok(())
}

pub(super) fn expire(draft: &mut Draft<'_>, names: &[String]) {
    let now = draft.now_seconds();
    for name in names {
        let id = Id::new(Kind::Override, name);
        let expires_at = draft.body(&id).and_then(|body| Override::decode(body.clone()).ok()).map_or(0, |value| value.expires_at);
        if expires_at != 0 && expires_at <= now {
            draft.put(&id, None, Reach::All);
        }
    }
}
