//! Which path does what.
//!
//! One table holds every route; the OpenAPI document is generated from it, so a route cannot exist without being described.

use std::future::Future;
use std::pin::Pin;

use http::{Method, StatusCode};

use super::access::{Permission, Role};
use super::call::{Call, decode};
use super::error::AdminError;
use super::openapi::Operation;
use super::{Admin, answer, cluster, credentials, declared, history, keys, overrides, rollouts, status};

/// Everything is below this.
pub(crate) const PREFIX: &str = "/admin/v1";

type Handled = Pin<Box<dyn Future<Output = answer::Result> + Send>>;

/// One row of the table.
pub(crate) struct Route {
    pub(crate) method: Method,
    /// Below the prefix; `{…}` matches one segment, `{…*}` the rest.
    pub(crate) path: &'static str,
    pub(crate) permission: Permission,
    pub(crate) operation: Operation,
    /// Most bytes of a body.
    pub(crate) body: usize,
    pub(crate) action: fn(Admin, Call) -> Handled,
}

/// Bodies: a change of ten thousand entries.
const USUAL: usize = 16 << 20;
/// A backup of a million keys.
const BACKUP: usize = 1 << 30;

macro_rules! routes {
    ($($method:ident $path:literal $permission:expr, $action:path, $body:expr, $id:literal, $summary:literal;)*) => {
        /// The table. To add an admin call, write its handler and add its row.
        pub(crate) static ROUTES: &[Route] = &[$(Route {
            method: Method::$method,
            path: $path,
            permission: $permission,
            operation: Operation { id: $id, summary: $summary },
            body: $body,
            action: |admin, call| Box::pin($action(admin, call)),
        },)*];
    };
}

const READ: Permission = Permission::Read;
const OPERATOR: Permission = Permission::Needs(Role::Operator);
const KEYS: Permission = Permission::Needs(Role::KeyAdmin);
const SECRETS: Permission = Permission::Needs(Role::SecretAdmin);

routes! {
    GET "/status" READ, status::status, 0, "getStatus", "How this node is. Answers without a leader too";
    GET "/cluster" READ, status::cluster, 0, "getCluster", "Members of the cluster, and how far each has followed";
    POST "/cluster/init" OPERATOR, cluster::init, USUAL, "initCluster", "Found a cluster with this node as its first voter";
    POST "/cluster/join" OPERATOR, cluster::join, USUAL, "joinCluster", "Ask for a place in a cluster";
    POST "/cluster/promote" OPERATOR, cluster::promote, USUAL, "promoteMember", "Make a learner a voter";
    POST "/cluster/remove" OPERATOR, cluster::remove, USUAL, "removeMember", "Take a member out";
    POST "/cluster/replace" OPERATOR, cluster::replace, USUAL, "replaceMember", "Make a learner a voter in another's place";
    POST "/cluster/transfer-leader" OPERATOR, cluster::transfer, USUAL, "transferLeader", "Hand leadership over";
    GET "/cluster/backup" OPERATOR, cluster::backup, 0, "backup", "The agreed state as a file. Secrets in it stay sealed";
    POST "/cluster/restore" OPERATOR, cluster::restore, BACKUP, "restore", "Found a new cluster from a backup, on an empty node";
    GET "/resources" READ, declared::list, 0, "listResources", "What is declared, `kind` narrows it down";
    GET "/resources/{kind}/{name*}" READ, declared::get, 0, "getResource", "One resource";
    POST "/plan" READ, declared::plan, USUAL, "plan", "What a change would do, and whether it may";
    POST "/apply" READ, declared::apply, USUAL, "apply", "Make declared things so, as one revision. Needs operator unless `dry_run`";
    GET "/history" READ, history::list, 0, "listHistory", "Revisions, newest first; of one resource with `kind` and `name`";
    GET "/revisions/{revision}" READ, history::revision, 0, "getRevision", "What a revision changed";
    POST "/rollback" READ, history::rollback, USUAL, "rollback", "Declare what was declared at a revision. Needs operator unless `dry_run`";
    GET "/prices" READ, history::prices, 0, "listPrices", "What endpoints have cost, newest first";
    GET "/audit" READ, history::audit, 0, "listAudit", "Who did what and why, newest first, as a chain of hashes";
    GET "/rollouts" READ, rollouts::list, 0, "listRollouts", "Staged rollouts, newest first";
    POST "/rollouts/{revision}/revert" OPERATOR, rollouts::revert, USUAL, "revertRollout", "Take a running rollout back";
    GET "/keys" READ, keys::list, 0, "listKeys", "Callers' keys; `after`, `limit` and `workspace` narrow it down";
    POST "/keys" KEYS, keys::create, USUAL, "createKey", "Make a key. Its text is in this answer and nowhere else";
    GET "/keys/{id}" READ, keys::get, 0, "getKey", "One key";
    PATCH "/keys/{id}" KEYS, keys::edit, USUAL, "editKey", "Change what is given";
    DELETE "/keys/{id}" KEYS, keys::revoke, USUAL, "deleteKey", "Revoke a key for good";
    POST "/keys/{id}/rotate" KEYS, keys::rotate, USUAL, "rotateKey", "Give a key a new secret; the old one holds for a while";
    POST "/keys/{id}/revoke" KEYS, keys::revoke, USUAL, "revokeKey", "Revoke a key; with `wait=all` when every live edge has confirmed";
    POST "/keys/{id}/disable" KEYS, keys::disable, USUAL, "disableKey", "Refuse a key without forgetting it";
    POST "/keys/{id}/enable" KEYS, keys::enable, USUAL, "enableKey", "Accept a disabled key again";
    GET "/credentials" READ, credentials::list, 0, "listCredentials", "Which secrets there are, without them";
    GET "/credentials/sealed" SECRETS, credentials::sealed, 0, "listSealedKeys", "Wrapped data keys, for `tidegate kek rewrap`";
    POST "/credentials/rewrap" SECRETS, credentials::rewrap, USUAL, "rewrapCredentials", "Put data keys under another key. Secrets stay as they are";
    PUT "/credentials" SECRETS, credentials::put, USUAL, "putCredential", "Seal a provider's secret. It cannot be read back";
    GET "/overrides" READ, overrides::list, 0, "listOverrides", "What operators force";
    PUT "/overrides" OPERATOR, overrides::put, USUAL, "putOverride", "Drain, pin or disable a provider or an endpoint";
    DELETE "/overrides" OPERATOR, overrides::lift, USUAL, "liftOverride", "Force no longer; `name` says what";
    GET "/health" READ, status::health, 0, "getHealth", "Providers as the regions see them";
    GET "/edges" READ, status::edges, 0, "listEdges", "Live edges of all control nodes, and how far each has followed";
}

/// The route of a request, and what its `{…}` matched.
pub(crate) fn find(method: &Method, path: &str) -> Result<(&'static Route, Vec<String>), AdminError> {
    let below = path.strip_prefix(PREFIX).unwrap_or_default();
    let mut allowed: Vec<&str> = Vec::new();
    for route in ROUTES {
        let Some(segments) = matched(route.path, below) else { continue };
        if route.method == *method {
            let segments = segments.into_iter().map(decode).collect::<Result<_, _>>()?;
            return Ok((route, segments));
        }
        allowed.push(route.method.as_str());
    }
    if allowed.is_empty() {
        return Err(AdminError::not_found(format!("no route {method} {path}; `/openapi.json` lists all")));
    }
    let message = format!("{path} takes {}", allowed.join(", "));
    Err(AdminError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message))
}

fn matched<'a>(pattern: &str, path: &'a str) -> Option<Vec<&'a str>> {
    let mut segments = Vec::new();
    let mut rest = path.trim_end_matches('/');
    for wanted in pattern.split('/').skip(1) {
        rest = rest.strip_prefix('/')?;
        if wanted.ends_with("*}") {
            return (!rest.is_empty()).then(|| {
                segments.push(rest);
                segments
            });
        }
        let (part, after) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if wanted.starts_with('{') && !part.is_empty() {
            segments.push(part);
        } else if wanted != part {
            return None;
        }
        rest = after;
    }
    rest.is_empty().then_some(segments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_have_slashes_and_escapes() {
        let (route, segments) = find(&Method::GET, "/admin/v1/resources/model/acme/one%20x").unwrap();
        assert_eq!((route.operation.id, segments), ("getResource", vec!["model".to_owned(), "acme/one x".to_owned()]));
        let (route, segments) = find(&Method::POST, "/admin/v1/keys/AbC/revoke/").unwrap();
        assert_eq!((route.operation.id, segments), ("revokeKey", vec!["AbC".to_owned()]));
    }

    #[test]
    fn a_wrong_method_names_the_right_ones() {
        let error = find(&Method::PATCH, "/admin/v1/keys").err().unwrap();
        assert_eq!((error.status, error.message.as_str()), (StatusCode::METHOD_NOT_ALLOWED, "/admin/v1/keys takes GET, POST"));
        for path in ["/", "/admin/v1", "/admin/v1/", "/admin/v1/keys/a/b/c", "/admin/v2/keys", "/admin/v1/resources/model"] {
            assert_eq!(find(&Method::GET, path).err().unwrap().status, StatusCode::NOT_FOUND, "{path}");
        }
    }

    #[test]
    fn operations_have_names_of_their_own_and_changes_need_a_role() {
        let mut ids: Vec<_> = ROUTES.iter().map(|route| route.operation.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), ROUTES.len());
        // Those that decide by what is asked: with `dry_run` they only read.
        let by_themselves = ["plan", "apply", "rollback"];
        for route in ROUTES.iter().filter(|route| route.method != Method::GET && !by_themselves.contains(&route.operation.id)) {
            assert_ne!(route.permission, Permission::Read, "{}", route.operation.id);
        }
    }
}
