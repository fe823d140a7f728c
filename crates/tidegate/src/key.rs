//! API keys as text: `tg_<env>_<public id>_<secret>_<checksum>`.
//!
//! The shape lets scanners find leaked keys and lets a typing error be told apart from a wrong key without asking anyone. The edge
//! never looks inside a key; it knows digests only, made by [`tidegate_edge::auth::digest`].

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

/// 0-9, A-Z, a-z: safe in URLs, shells and YAML.
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Characters of the public id: 59 bits, so that ids of one mesh do not meet.
const PUBLIC_ID: usize = 10;
/// Characters of the secret: 256 bits.
const SECRET: usize = 43;
/// Characters of the checksum: one slip in 57 billion goes unnoticed.
const CHECKSUM: usize = 6;
/// How a digest is written.
const DIGEST_PREFIX: &str = "blake3:";

/// What a key is meant for. It changes nothing but the looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum KeyEnv {
    /// For production.
    #[default]
    Live,
    /// For trying things out.
    Test,
}

/// A new or checked key. Its text is shown once and never logged.
pub(crate) struct ApiKey(SecretString);

/// Why a text is not a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyError {
    /// The parts or their lengths are wrong.
    #[error("not of the form `tg_<env>_<10 characters>_<43 characters>_<6 characters>`")]
    Shape,
    /// A character was mistyped or lost.
    #[error("the checksum does not match: the key was mistyped or cut")]
    Checksum,
}

impl ApiKey {
    /// A new key from the operating system's randomness.
    pub(crate) fn generate(env: KeyEnv) -> Result<ApiKey, getrandom::Error> {
        let mut random = [0; 64];
        getrandom::fill(&mut random)?;
        Ok(ApiKey::from_random(env, &random))
    }

    /// The key that these random bytes make.
    fn from_random(env: KeyEnv, random: &[u8; 64]) -> ApiKey {
        let (id, secret) = random.split_at(16);
        let body = format!("tg_{}_{}_{}", env.as_str(), base62::<PUBLIC_ID>(id), base62::<SECRET>(secret));
        let checksum = checksum(&body);
        ApiKey(SecretString::from(format!("{body}_{checksum}")))
    }

    /// Checks form and checksum.
    pub(crate) fn parse(text: &str) -> Result<ApiKey, KeyError> {
        let mut parts = text.split('_');
        let mut next = || parts.next().ok_or(KeyError::Shape);
        let (prefix, env, id, secret, given) = (next()?, next()?, next()?, next()?, next()?);
        let shaped = prefix == "tg"
            && matches!(env, "live" | "test")
            && [(id, PUBLIC_ID), (secret, SECRET), (given, CHECKSUM)]
                .into_iter()
                .all(|(part, length)| part.len() == length && part.bytes().all(|byte| ALPHABET.contains(&byte)))
            && parts.next().is_none();
        if !shaped {
            return Err(KeyError::Shape);
        }
        let body = &text[..text.len() - CHECKSUM - 1];
        if checksum(body) != given {
            return Err(KeyError::Checksum);
        }
        Ok(ApiKey(SecretString::from(text)))
    }

    /// The part that may be shown: `tg_live_AbCdEf0123`.
    pub(crate) fn public_part(&self) -> &str {
        let text = self.0.expose_secret();
        &text[..text.len() - SECRET - CHECKSUM - 2]
    }

    /// The whole key, for the one time it is shown.
    pub(crate) fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// How a configuration names the key: `blake3:<hex>`.
    pub(crate) fn digest(&self, pepper: Option<&SecretString>) -> String {
        let digest = tidegate_edge::auth::digest(self.expose(), pepper);
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{DIGEST_PREFIX}{hex}")
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKey({}_…)", self.public_part())
    }
}

impl KeyEnv {
    fn as_str(self) -> &'static str {
        match self {
            KeyEnv::Live => "live",
            KeyEnv::Test => "test",
        }
    }
}

/// Reads `blake3:<64 hex digits>`.
pub(crate) fn parse_digest(text: &str) -> Option<[u8; 32]> {
    let hex = text.strip_prefix(DIGEST_PREFIX)?;
    if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut digest = [0; 32];
    for (byte, pair) in digest.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(digest)
}

fn checksum(body: &str) -> String {
    base62::<CHECKSUM>(&blake3::hash(body.as_bytes()).as_bytes()[..16])
}

/// `N` digits of the number that `bytes` spell, least significant first. More bits go in than come out, so no digit is favoured
/// by more than 2^-64 when at least eight bytes are to spare.
fn base62<const N: usize>(bytes: &[u8]) -> String {
    let mut number = bytes.to_vec();
    let mut text = String::with_capacity(N);
    for _ in 0..N {
        let mut rest = 0u32;
        for byte in &mut number {
            let value = rest << 8 | u32::from(*byte);
            *byte = (value / 62) as u8;
            rest = value % 62;
        }
        text.push(char::from(ALPHABET[rest as usize]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_keys_have_the_documented_form() {
        let key = ApiKey::generate(KeyEnv::Live).unwrap();
        let parts: Vec<usize> = key.expose().split('_').map(str::len).collect();
        assert_eq!(parts, [2, 4, 10, 43, 6]);
        assert!(key.expose().starts_with("tg_live_"));
        assert_eq!(ApiKey::parse(key.expose()).unwrap().expose(), key.expose());
        assert_ne!(ApiKey::generate(KeyEnv::Test).unwrap().expose(), ApiKey::generate(KeyEnv::Test).unwrap().expose());
        assert!(!format!("{key:?}").contains(&key.expose()[19..]), "debug output shows the public part only");
    }

    #[test]
    fn a_slip_of_the_finger_is_found_offline() {
        let key = ApiKey::from_random(KeyEnv::Test, &[7; 64]);
        let text = key.expose();
        for (at, byte) in text.bytes().enumerate().skip(8) {
            let other = if byte == b'x' { 'y' } else { 'x' };
            let slipped = format!("{}{other}{}", &text[..at], &text[at + 1..]);
            assert!(ApiKey::parse(&slipped).is_err(), "position {at}");
        }
        assert_eq!(ApiKey::parse(&text[..text.len() - 1]).unwrap_err(), KeyError::Shape);
        assert_eq!(ApiKey::parse("sk-something-else").unwrap_err(), KeyError::Shape);
    }

    #[test]
    fn digests_round_trip() {
        let key = ApiKey::from_random(KeyEnv::Live, &[1; 64]);
        let digest = parse_digest(&key.digest(None)).unwrap();
        assert_eq!(digest, tidegate_edge::auth::digest(key.expose(), None));
        assert_ne!(key.digest(None), key.digest(Some(&SecretString::from("pepper"))));
        for wrong in ["", "blake3:", "blake3:00", "sha256:00", &"0".repeat(64)] {
            assert_eq!(parse_digest(wrong), None);
        }
    }
}
