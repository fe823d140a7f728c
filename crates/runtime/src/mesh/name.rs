//! Names of mesh members, shaped like SPIFFE identifiers so that SPIRE and cert-manager can issue them.
//!
//! Characters and lengths are those of the SPIFFE ID standard (sections 2.1 to 2.3), so a name that parses here is one that every
//! issuer accepts.

use std::fmt;
use std::str::FromStr;

/// What a member of the mesh is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Agrees on state with its peers and publishes it.
    Control,
    /// Serves callers.
    Edge,
    /// An operator, or an operator's tool.
    Admin,
}

impl Role {
    /// All of them.
    pub const ALL: [Role; 3] = [Role::Control, Role::Edge, Role::Admin];

    /// As it stands in a name.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Control => "control",
            Role::Edge => "edge",
            Role::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Role::ALL.into_iter().find(|role| role.as_str() == text).ok_or_else(|| NameError::Role(text.to_owned()))
    }
}

/// Who a member is: `spiffe://<trust>/region/<region>/<role>/<name>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MeshName {
    trust: String,
    region: String,
    role: Role,
    name: String,
}

/// Why a text names no member.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It is not built like a name at all.
    #[error("`{0}` is not of the form spiffe://<trust domain>/region/<region>/<control|edge|admin>/<name>")]
    Shape(String),
    /// The role does not exist.
    #[error("`{0}` is not a role; use control, edge or admin")]
    Role(String),
    /// A part is empty, too long or has characters that do not belong there.
    #[error("{part} `{text}` must have 1 to {max} characters of {allowed}")]
    Part {
        /// Which part.
        part: &'static str,
        /// What stood there.
        text: String,
        /// Longest length, bytes.
        max: usize,
        /// What may stand there.
        allowed: &'static str,
    },
}

impl MeshName {
    /// A name of these parts.
    pub fn new(trust: &str, region: &str, role: Role, name: &str) -> Result<Self, NameError> {
        check(&TRUST, trust)?;
        check(&REGION, region)?;
        check(&NAME, name)?;
        Ok(Self { trust: trust.to_owned(), region: region.to_owned(), role, name: name.to_owned() })
    }

    /// The trust domain: one per mesh.
    pub fn trust(&self) -> &str {
        &self.trust
    }

    /// The region it runs in.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// What it is there for.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Its own name, unique among its role and region.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for MeshName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trust, region, role, name } = self;
        write!(f, "spiffe://{trust}/region/{region}/{role}/{name}")
    }
}

impl FromStr for MeshName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let shape = || NameError::Shape(text.chars().take(SHOWN).collect());
        let rest = text.strip_prefix("spiffe://").ok_or_else(shape)?;
        let mut parts = rest.split('/');
        let mut next = || parts.next().ok_or_else(shape);
        let (trust, word, region, role, name) = (next()?, next()?, next()?, next()?, next()?);
        if word != "region" || parts.next().is_some() {
            return Err(shape());
        }
        Self::new(trust, region, role.parse()?, name)
    }
}

/// The rule of one part.
struct Part {
    part: &'static str,
    max: usize,
    allowed: &'static str,
    fits: fn(u8) -> bool,
}

fn check(rule: &Part, text: &str) -> Result<(), NameError> {
    // A segment of only dots would be a relative path.
    let dots = text.bytes().all(|byte| byte == b'.');
    if text.len() <= rule.max && text.bytes().all(rule.fits) && !dots {
        return Ok(());
    }
    Err(NameError::Part { part: rule.part, text: text.chars().take(SHOWN).collect(), max: rule.max, allowed: rule.allowed })
}

fn is_trust(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_')
}

fn is_segment(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')
}

const SEGMENT: &str = "letters, digits, `.`, `-` and `_`";
const TRUST: Part = Part { part: "trust domain", max: 255, allowed: "lower-case letters, digits, `.`, `-` and `_`", fits: is_trust };
const REGION: Part = Part { part: "region", max: 63, allowed: SEGMENT, fits: is_segment };
/// Pod names have up to 253 characters.
const NAME: Part = Part { part: "name", max: 253, allowed: SEGMENT, fits: is_segment };
/// How much of a wrong text is repeated in an error, characters: it may come from a stranger.
const SHOWN: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_reads_back_as_it_is_written() {
        for role in Role::ALL {
            let name = MeshName::new("mesh.example.org", "eu-west", role, "node_1.a").unwrap();
            assert_eq!(name.to_string(), format!("spiffe://mesh.example.org/region/eu-west/{role}/node_1.a"));
            assert_eq!(name.to_string().parse::<MeshName>().unwrap(), name);
            assert_eq!((name.trust(), name.region(), name.role(), name.name()), ("mesh.example.org", "eu-west", role, "node_1.a"));
        }
    }

    #[test]
    fn what_is_no_name_says_which_part_is_wrong() {
        let table = [
            ("", "is not of the form"),
            ("https://a/region/eu/edge/x", "is not of the form"),
            ("SPIFFE://a/region/eu/edge/x", "is not of the form"),
            ("spiffe://a/regions/eu/edge/x", "is not of the form"),
            ("spiffe://a/region/eu/edge", "is not of the form"),
            ("spiffe://a/region/eu/edge/x/y", "is not of the form"),
            ("spiffe://a/region/eu/edge/x/", "is not of the form"),
            ("spiffe://a/region/eu/router/x", "`router` is not a role"),
            ("spiffe:///region/eu/edge/x", "trust domain `` must have"),
            ("spiffe://A/region/eu/edge/x", "trust domain `A` must have"),
            ("spiffe://a:80/region/eu/edge/x", "trust domain `a:80` must have"),
            ("spiffe://a/region//edge/x", "region `` must have"),
            ("spiffe://a/region/../edge/x", "region `..` must have"),
            ("spiffe://a/region/eu/edge/x?y", "name `x?y` must have"),
            ("spiffe://a/region/eu/edge/%41", "name `%41` must have"),
            ("spiffe://a/region/eu/edge/\u{e9}", "name `\u{e9}` must have"),
        ];
        for (text, reason) in table {
            let error = text.parse::<MeshName>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
        let long = format!("spiffe://a/region/eu/edge/{}", "x".repeat(254));
        assert!(long.parse::<MeshName>().is_err());
        let endless = "x".repeat(100_000).parse::<MeshName>().unwrap_err().to_string();
        assert!(endless.len() < 400, "an error repeats only the beginning");
    }
}
