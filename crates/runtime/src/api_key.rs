//! API keys as text: `tg_<env>_<public id>_<secret>_<checksum>`.
//!
//! The shape lets scanners find leaked keys, and lets a typing error be told apart from a wrong key without asking anyone. The public
//! id names the key in look-ups and logs; the secret is 256 random bits, so one fast keyed hash of the whole text is enough to know it
//! by: there is nothing to guess that a slow one would protect.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

/// What a key is meant for. It changes nothing but the looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum KeyEnv {
    /// For production.
    #[default]
    Live,
    /// For trying things out.
    Test,
}

/// A new or checked key. Its text is shown once and never logged.
pub struct ApiKey {
    text: SecretString,
}

/// Why a text is not a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The parts or their lengths are wrong.
    #[error("not of the form `tg_<env>_<10 characters>_<43 characters>_<6 characters>`")]
    Shape,
    /// A character was mistyped or lost.
    #[error("the checksum does not match: the key was mistyped or cut")]
    Checksum,
}

/// Random bytes that a new key takes.
pub const RANDOM_BYTES: usize = 64;

impl ApiKey {
    /// The key that these bytes make; they must be random and used for nothing else.
    pub fn from_random(env: KeyEnv, random: &[u8; RANDOM_BYTES]) -> ApiKey {
        let (id, secret) = random.split_at(16);
        let body = format!("{PREFIX}_{}_{}_{}", env.as_str(), base62::<PUBLIC_ID>(id), base62::<SECRET>(secret));
        let checksum = checksum(&body);
        ApiKey { text: SecretString::from(format!("{body}_{checksum}")) }
    }

    /// Another key of the same public id, as rotation makes one; `None` unless `public_id` is one.
    pub fn of_public_id(env: KeyEnv, public_id: &str, random: &[u8; RANDOM_BYTES]) -> Option<ApiKey> {
        let (_, secret) = random.split_at(16);
        let body = format!("{PREFIX}_{}_{public_id}_{}", env.as_str(), base62::<SECRET>(secret));
        ApiKey::parse(&format!("{body}_{}", checksum(&body))).ok()
    }

    /// Checks form and checksum.
    pub fn parse(text: &str) -> Result<ApiKey, KeyError> {
        public_id(text)?;
        Ok(ApiKey { text: SecretString::from(text) })
    }

    /// The part that names the key: ten characters, not secret.
    pub fn public_id(&self) -> &str {
        let text = self.public_part();
        &text[text.len() - PUBLIC_ID..]
    }

    /// The part that may be shown: `tg_live_AbCdEf0123`.
    pub fn public_part(&self) -> &str {
        let text = self.text.expose_secret();
        &text[..text.len() - SECRET - CHECKSUM - 2]
    }

    /// The whole key, for the one time it is shown.
    pub fn expose(&self) -> &str {
        self.text.expose_secret()
    }

    /// By what the key is known where it is checked.
    pub fn digest(&self, pepper: Option<&SecretString>) -> [u8; 32] {
        Digester::new(pepper).digest(self.expose())
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKey({}_…)", self.public_part())
    }
}

impl KeyEnv {
    /// As it stands in a key.
    pub fn as_str(self) -> &'static str {
        match self {
            KeyEnv::Live => "live",
            KeyEnv::Test => "test",
        }
    }
}

/// Checks form and checksum of a key and gives its public id; allocates nothing. The checksum is no secret and proves nothing beyond
/// careful typing: who knows a public id can make texts that pass.
pub fn public_id(text: &str) -> Result<&str, KeyError> {
    let mut parts = text.split('_');
    let mut next = || parts.next().ok_or(KeyError::Shape);
    let (prefix, env, id, secret, given) = (next()?, next()?, next()?, next()?, next()?);
    let shaped = prefix == PREFIX
        && matches!(env, "live" | "test")
        && [(id, PUBLIC_ID), (secret, SECRET), (given, CHECKSUM)]
            .into_iter()
            .all(|(part, length)| part.len() == length && part.bytes().all(|byte| byte.is_ascii_alphanumeric()))
        && parts.next().is_none();
    if !shaped {
        return Err(KeyError::Shape);
    }
    let body = &text[..text.len() - CHECKSUM - 1];
    if checksum_digits(body) != given.as_bytes() {
        return Err(KeyError::Checksum);
    }
    Ok(id)
}

/// Makes digests of keys: BLAKE3 in keyed mode when there is a pepper (its own BLAKE3 hash is the key), plain otherwise.
#[derive(Clone)]
pub struct Digester {
    pepper: Option<[u8; 32]>,
}

impl Digester {
    /// Prepares the pepper once.
    pub fn new(pepper: Option<&SecretString>) -> Self {
        Self { pepper: pepper.map(|pepper| *blake3::hash(pepper.expose_secret().as_bytes()).as_bytes()) }
    }

    /// The digest of a key's whole text, whatever its form.
    pub fn digest(&self, key: &str) -> [u8; 32] {
        match &self.pepper {
            Some(pepper) => *blake3::keyed_hash(pepper, key.as_bytes()).as_bytes(),
            None => *blake3::hash(key.as_bytes()).as_bytes(),
        }
    }
}

impl fmt::Debug for Digester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Digester").field("peppered", &self.pepper.is_some()).finish()
    }
}

/// A digest as text: `blake3:<64 hex digits>`.
pub fn format_digest(digest: &[u8; 32]) -> String {
    format!("{DIGEST_PREFIX}{}", blake3::Hash::from(*digest).to_hex())
}

/// Reads `blake3:<64 hex digits>`.
pub fn parse_digest(text: &str) -> Option<[u8; 32]> {
    let hex = text.strip_prefix(DIGEST_PREFIX)?;
    Some(*blake3::Hash::from_hex(hex).ok()?.as_bytes())
}

fn checksum(body: &str) -> String {
    checksum_digits(body).into_iter().map(char::from).collect()
}

fn checksum_digits(body: &str) -> [u8; CHECKSUM] {
    let hash = blake3::hash(body.as_bytes());
    let mut number = [0; 16];
    number.copy_from_slice(&hash.as_bytes()[..16]);
    digits(&mut number)
}

fn base62<const N: usize>(bytes: &[u8]) -> String {
    let mut number = zeroize::Zeroizing::new(bytes.to_vec());
    digits::<N>(&mut number).into_iter().map(char::from).collect()
}

/// `N` digits of the number that `bytes` spell, least significant first; eats the number. More bits go in than come out, so no digit
/// is favoured by more than 2^-64 when at least eight bytes are to spare.
fn digits<const N: usize>(number: &mut [u8]) -> [u8; N] {
    std::array::from_fn(|_| {
        let mut rest = 0u32;
        for byte in &mut *number {
            let value = rest << 8 | u32::from(*byte);
            *byte = (value / 62) as u8;
            rest = value % 62;
        }
        ALPHABET[rest as usize]
    })
}

/// 0-9, A-Z, a-z: safe in URLs, shells and YAML.
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// What scanners look for.
const PREFIX: &str = "tg";
/// Characters of the public id: 59 bits, so that ids of one mesh do not meet.
const PUBLIC_ID: usize = 10;
/// Characters of the secret: 256 bits.
const SECRET: usize = 43;
/// Characters of the checksum: one slip in 57 billion goes unnoticed.
const CHECKSUM: usize = 6;
/// How a digest is written.
const DIGEST_PREFIX: &str = "blake3:";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn new_keys_have_the_documented_form() {
        let key = ApiKey::from_random(KeyEnv::Live, &[9; RANDOM_BYTES]);
        let parts: Vec<usize> = key.expose().split('_').map(str::len).collect();
        assert_eq!(parts, [2, 4, 10, 43, 6]);
        assert!(key.expose().starts_with("tg_live_"));
        assert_eq!(key.public_part(), format!("tg_live_{}", key.public_id()));
        assert_eq!(public_id(key.expose()), Ok(key.public_id()));
        assert_eq!(ApiKey::parse(key.expose()).unwrap().expose(), key.expose());
        assert!(!format!("{key:?}").contains(&key.expose()[19..]), "debug output shows the public part only");
    }

    /// Made by the first version; such keys are out in the world and must stay good.
    #[test]
    fn keys_of_the_first_version_are_still_keys() {
        let text = FIRST_VERSION;
        assert_eq!(ApiKey::from_random(KeyEnv::Test, &[7; RANDOM_BYTES]).expose(), text);
        assert!(ApiKey::parse(text).is_ok());
    }

    #[test]
    fn every_slip_of_the_finger_is_found_offline() {
        let key = ApiKey::from_random(KeyEnv::Test, &[7; RANDOM_BYTES]);
        let text = key.expose();
        for at in 0..text.len() {
            for other in ['x', 'y', '_', ' '] {
                let slipped = format!("{}{other}{}", &text[..at], &text[at + 1..]);
                assert!(slipped == text || public_id(&slipped).is_err(), "position {at}");
            }
            let lost = format!("{}{}", &text[..at], &text[at + 1..]);
            assert!(public_id(&lost).is_err(), "position {at} lost");
        }
        // Two neighbours changed places.
        for at in 8..text.len() - 1 {
            let mut bytes = text.as_bytes().to_vec();
            bytes.swap(at, at + 1);
            let swapped = String::from_utf8(bytes).unwrap();
            assert!(swapped == text || public_id(&swapped).is_err(), "position {at} swapped");
        }
        assert_eq!(public_id("sk-something-else"), Err(KeyError::Shape));
        assert_eq!(public_id(&text.to_ascii_lowercase()), Err(KeyError::Checksum));
    }

    #[test]
    fn digests_round_trip_as_text() {
        let key = ApiKey::from_random(KeyEnv::Live, &[1; RANDOM_BYTES]);
        let digest = key.digest(None);
        assert_eq!(parse_digest(&format_digest(&digest)), Some(digest));
        assert_ne!(digest, key.digest(Some(&SecretString::from("pepper"))));
        for wrong in ["", "blake3:", "blake3:00", "sha256:00", &"0".repeat(64), &format!("blake3:{}g", "0".repeat(63))] {
            assert_eq!(parse_digest(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_randomness_makes_a_key_that_parses(random in prop::collection::vec(any::<u8>(), RANDOM_BYTES)) {
            let random: [u8; RANDOM_BYTES] = random.try_into().unwrap();
            let key = ApiKey::from_random(KeyEnv::Live, &random);
            prop_assert_eq!(public_id(key.expose()), Ok(key.public_id()));
        }

        #[test]
        fn no_text_brings_the_parser_down(text in "\\PC{0,80}|tg_(live|test)_[0-9A-Za-z]{10}_[0-9A-Za-z]{43}_[0-9A-Za-z\u{e9}]{6}") {
            let _ = public_id(&text);
        }
    }

    const FIRST_VERSION: &str = "tg_test_7YxPsW3pSk_F67VuXSkp3EZrn02ZR5lQrjiorc4K5C8xE0flpx49gP_aB2E2l";
}
