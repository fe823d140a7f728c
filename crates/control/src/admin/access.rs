//! Who may do what: roles, and the certificates and tokens that have them.

use std::collections::BTreeSet;
use std::fmt;

use http::{HeaderMap, StatusCode, header};
use tidegate_runtime::mesh::{Peer, Role as MeshRole};

use super::error::AdminError;

/// What an identity may do. Each can read everything that is not secret; nothing here can read a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Reads.
    Viewer,
    /// Declares, rolls back, overrides, and changes the cluster.
    Operator,
    /// Manages callers' keys.
    KeyAdmin,
    /// Puts providers' credentials.
    SecretAdmin,
}

impl Role {
    /// Every role.
    pub const ALL: [Role; 4] = [Role::Viewer, Role::Operator, Role::KeyAdmin, Role::SecretAdmin];

    /// The name in configurations and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::KeyAdmin => "key-admin",
            Role::SecretAdmin => "secret-admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// What a route asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Permission {
    /// Any role.
    Read,
    /// This role.
    Needs(Role),
}

/// Who may do what.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Bearer tokens.
    pub tokens: Vec<Token>,
    /// Certificates of role admin.
    pub certificates: Vec<Certificate>,
    /// What callers may do who prove nothing. Empty unless the listener is plain and on a loopback address.
    pub anyone: BTreeSet<Role>,
}

/// A bearer token, known by its digest.
#[derive(Clone)]
pub struct Token {
    /// Shown in the audit log.
    pub name: String,
    /// BLAKE3 of the token's text.
    pub digest: [u8; 32],
    /// What it may do.
    pub roles: BTreeSet<Role>,
}

/// The name in a certificate of role admin.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// Last part of the SPIFFE name; `*` is every certificate of role admin.
    pub name: String,
    /// What it may do.
    pub roles: BTreeSet<Role>,
}

/// The caller of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Principal {
    pub(crate) name: String,
    pub(crate) roles: BTreeSet<Role>,
}

impl Access {
    /// Who is calling. A token wins over the certificate of its connection, so that a proxy can hand on whom it serves.
    pub(crate) fn principal(&self, peer: &Peer, headers: &HeaderMap) -> Result<Principal, AdminError> {
        if let Some(token) = bearer(headers) {
            let digest = blake3::hash(token.as_bytes());
            // Comparing BLAKE3 hashes compares in constant time.
            let known = self.tokens.iter().find(|known| blake3::Hash::from_bytes(known.digest) == digest);
            return match known {
                Some(known) => Ok(Principal { name: known.name.clone(), roles: known.roles.clone() }),
                None => Err(unauthorised("the token is not known here: check it, and `admin.tokens` of the control node's configuration")),
            };
        }
        if let Some(name) = peer.name.as_ref().filter(|name| name.role() == MeshRole::Admin) {
            let mut roles = BTreeSet::new();
            for known in self.certificates.iter().filter(|known| known.name == "*" || known.name == name.name()) {
                roles.extend(&known.roles);
            }
            return Ok(Principal { name: name.name().to_owned(), roles });
        }
        if !self.anyone.is_empty() {
            return Ok(Principal { name: "anyone".to_owned(), roles: self.anyone.clone() });
        }
        Err(unauthorised("send `Authorization: Bearer <token>`, or call with a certificate of role admin"))
    }
}

impl Principal {
    pub(crate) fn may(&self, permission: Permission) -> Result<(), AdminError> {
        let missing = match permission {
            Permission::Read if !self.roles.is_empty() => return Ok(()),
            Permission::Needs(role) if self.roles.contains(&role) => return Ok(()),
            Permission::Read => Role::Viewer,
            Permission::Needs(role) => role,
        };
        let message = format!("`{}` lacks the role `{missing}`", self.name);
        Err(AdminError::new(StatusCode::FORBIDDEN, "forbidden", message))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Token").field("name", &self.name).field("roles", &self.roles).finish_non_exhaustive()
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn unauthorised(message: &str) -> AdminError {
    AdminError::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access() -> Access {
        Access {
            tokens: vec![Token { name: "ci".into(), digest: *blake3::hash(b"secret").as_bytes(), roles: [Role::Operator].into() }],
            certificates: vec![
                Certificate { name: "ann".into(), roles: [Role::KeyAdmin].into() },
                Certificate { name: "*".into(), roles: [Role::Viewer].into() },
            ],
            anyone: BTreeSet::new(),
        }
    }

    fn peer(name: Option<&str>) -> Peer {
        Peer {
            name: name.map(|name| name.parse().unwrap()),
            address: ([127, 0, 0, 1], 1).into(),
            carried: tidegate_runtime::mesh::Carried::default(),
        }
    }

    fn with(authorization: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, authorization.parse().unwrap())])
    }

    #[test]
    fn tokens_and_certificates_have_the_roles_that_were_declared() {
        let access = access();
        let ci = access.principal(&peer(None), &with("bearer secret")).unwrap();
        assert_eq!((ci.name.as_str(), ci.roles.clone()), ("ci", [Role::Operator].into()));
        let ann = access.principal(&peer(Some("spiffe://mesh/region/eu/admin/ann")), &HeaderMap::new()).unwrap();
        assert_eq!(ann.roles, [Role::Viewer, Role::KeyAdmin].into());
        let bob = access.principal(&peer(Some("spiffe://mesh/region/eu/admin/bob")), &HeaderMap::new()).unwrap();
        assert_eq!(bob.roles, [Role::Viewer].into());
    }

    #[test]
    fn a_wrong_token_is_refused_even_over_a_good_certificate() {
        let ann = peer(Some("spiffe://mesh/region/eu/admin/ann"));
        assert_eq!(access().principal(&ann, &with("Bearer guess")).unwrap_err().status, StatusCode::UNAUTHORIZED);
    }

    #[test]
    fn edges_and_strangers_are_nobody() {
        for name in [None, Some("spiffe://mesh/region/eu/edge/ann"), Some("spiffe://mesh/region/eu/control/ann")] {
            assert_eq!(access().principal(&peer(name), &HeaderMap::new()).unwrap_err().status, StatusCode::UNAUTHORIZED);
        }
    }

    #[test]
    fn a_role_permits_its_own_things_and_reading() {
        let keys = Principal { name: "ann".into(), roles: [Role::KeyAdmin].into() };
        assert!(keys.may(Permission::Read).is_ok());
        assert!(keys.may(Permission::Needs(Role::KeyAdmin)).is_ok());
        for role in [Role::Operator, Role::SecretAdmin] {
            assert_eq!(keys.may(Permission::Needs(role)).unwrap_err().status, StatusCode::FORBIDDEN);
        }
        let none = Principal { name: "bob".into(), roles: BTreeSet::new() };
        assert_eq!(none.may(Permission::Read).unwrap_err().code, "forbidden");
    }
}
