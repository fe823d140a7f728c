//! Key-encryption keys and the files they come in.
//!
//! A key file is text, one key a line, the first one current: `kek-v1:<id>:<base64>` for private halves (edges), `kek-pub-v1:…` for
//! public ones (whoever seals). Empty lines and lines that begin with `#` mean nothing. It is meant to be one entry of a Kubernetes
//! secret. On a laptop a passphrase does instead: the key is derived from it once, at start.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::agreement::{PrivateKey, X25519};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use rustls::crypto::hpke::{HpkePrivateKey, HpkePublicKey};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

/// A key-encryption key, both halves. Opens what its public half sealed.
pub struct Kek {
    private: HpkePrivateKey,
    public: PublicKek,
}

/// The half that seals. Not secret.
#[derive(Clone)]
pub struct PublicKek {
    id: String,
    key: HpkePublicKey,
}

/// Several keys by id, one of them current.
#[derive(Debug)]
pub struct Keyring {
    keks: BTreeMap<String, Kek>,
    current: String,
}

/// Several public halves by id, one of them current.
#[derive(Debug, Clone)]
pub struct PublicKeyring {
    keks: BTreeMap<String, PublicKek>,
    current: String,
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KekError {
    /// The file cannot be read.
    #[error("read the key file {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A line is not a key.
    #[error("key file {}, line {line}: {problem}", path.display())]
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it. Never repeats it.
        problem: &'static str,
    },
    /// The file has no key.
    #[error("the key file {} holds no key; make one with `tidegate kek new`", path.display())]
    Empty {
        /// Which file.
        path: PathBuf,
    },
    /// The command gives no keys.
    #[error("the command `{command}` that gives the key-encryption keys: {problem}")]
    Command {
        /// Its program.
        command: String,
        /// What is wrong.
        problem: String,
    },
    /// The id of a key is not usable.
    #[error("a key id has 1 to {MAX_ID} characters of a-z, 0-9, `-`, `_` and `.`")]
    Id,
    /// The passphrase is too easily guessed.
    #[error("the passphrase must have at least {MIN_PASSPHRASE} characters")]
    Passphrase,
    /// The cryptography failed.
    #[error("make a key-encryption key: {0}")]
    Make(String),
}

impl Kek {
    /// A new key from the operating system's randomness.
    pub fn generate(id: &str) -> Result<Self, KekError> {
        let mut seed = Zeroizing::new([0; KEY]);
        getrandom::fill(&mut *seed).map_err(|error| KekError::Make(error.to_string()))?;
        Self::from_seed(id, &seed)
    }

    /// The key of a passphrase: for development, where a file with a key would be no better protected. Argon2id with 64 MiB and three
    /// passes (the second recommended option of RFC 9106, section 4); takes about a quarter of a second, so do it once. `cluster` is the
    /// salt: equal passphrases of two clusters make different keys. The id follows from the key.
    pub fn from_passphrase(passphrase: &SecretString, cluster: &str) -> Result<Self, KekError> {
        let made = |error: String| KekError::Make(error);
        let passphrase = passphrase.expose_secret().trim();
        if passphrase.chars().count() < MIN_PASSPHRASE {
            return Err(KekError::Passphrase);
        }
        let params = Params::new(ARGON_KIB, ARGON_PASSES, ARGON_LANES, Some(KEY)).map_err(|error| made(error.to_string()))?;
        let mut seed = Zeroizing::new([0; KEY]);
        // A hash, because a salt has a least length and a cluster id has not.
        let salt = blake3::derive_key("tidegate kek passphrase salt 1", cluster.as_bytes());
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase.as_bytes(), &salt, &mut *seed)
            .map_err(|error| made(error.to_string()))?;
        let nameless = Self::from_seed("passphrase", &seed)?;
        let id = format!("passphrase-{}", &blake3::hash(&nameless.public.key.0).to_hex()[..8]);
        Self::from_seed(&id, &seed)
    }

    fn from_seed(id: &str, seed: &[u8; KEY]) -> Result<Self, KekError> {
        check_id(id)?;
        let made = || KekError::Make("not an X25519 key".to_owned());
        let private = PrivateKey::from_private_key(&X25519, seed).map_err(|_| made())?;
        let public = private.compute_public_key().map_err(|_| made())?;
        let key = HpkePublicKey(public.as_ref().to_vec());
        Ok(Self { private: HpkePrivateKey::from(seed.to_vec()), public: PublicKek { id: id.to_owned(), key } })
    }

    /// Its name.
    pub fn id(&self) -> &str {
        &self.public.id
    }

    /// The half that seals.
    pub fn public(&self) -> &PublicKek {
        &self.public
    }

    /// Its line of a key file. Secret.
    pub fn to_line(&self) -> SecretString {
        let encoded = Zeroizing::new(STANDARD_NO_PAD.encode(self.private.secret_bytes()));
        SecretString::from(format!("{PRIVATE}:{}:{}", self.id(), encoded.as_str()))
    }

    pub(super) fn key(&self) -> &HpkePrivateKey {
        &self.private
    }
}

impl fmt::Debug for Kek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kek({})", self.id())
    }
}

impl PublicKek {
    /// Its name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its line of a file of public keys. Not secret.
    pub fn to_line(&self) -> String {
        format!("{PUBLIC}:{}:{}", self.id, STANDARD_NO_PAD.encode(&self.key.0))
    }

    pub(super) fn key(&self) -> &HpkePublicKey {
        &self.key
    }
}

impl fmt::Debug for PublicKek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKek({})", self.id)
    }
}

impl Keyring {
    /// Only this one.
    pub fn of(kek: Kek) -> Self {
        let current = kek.id().to_owned();
        Self { keks: BTreeMap::from([(current.clone(), kek)]), current }
    }

    /// Reads a file of private halves.
    pub fn read(path: &Path) -> Result<Self, KekError> {
        let (keks, current) = read(path, PRIVATE, |id, bytes| Kek::from_seed(id, bytes).ok())?;
        Ok(Self { keks, current })
    }

    /// Reads the text of such a file; `path` says in errors where it is from.
    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, KekError> {
        let (keks, current) = parse(path, text, PRIVATE, |id, bytes| Kek::from_seed(id, bytes).ok())?;
        Ok(Self { keks, current })
    }

    /// Reads a passphrase from a file and derives the key of this cluster from it. Slow on purpose; see [`Kek::from_passphrase`].
    pub fn read_passphrase(path: &Path, cluster: &str) -> Result<Self, KekError> {
        let text = fs::read_to_string(path).map_err(|source| KekError::Read { path: path.to_owned(), source })?;
        Kek::from_passphrase(&SecretString::from(text), cluster).map(Self::of)
    }

    /// The key that new data keys should be wrapped with.
    pub fn current(&self) -> Option<&Kek> {
        self.keks.get(&self.current)
    }

    /// A key by its id.
    pub fn get(&self, id: &str) -> Option<&Kek> {
        self.keks.get(id)
    }

    /// The ids, in order.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.keks.keys().map(String::as_str)
    }

    /// The public halves, for whoever seals.
    pub fn public(&self) -> PublicKeyring {
        let keks = self.keks.iter().map(|(id, kek)| (id.clone(), kek.public.clone())).collect();
        PublicKeyring { keks, current: self.current.clone() }
    }
}

impl PublicKeyring {
    /// Reads a file of public halves.
    pub fn read(path: &Path) -> Result<Self, KekError> {
        let public = |id: &str, bytes: &[u8; KEY]| Some(PublicKek { id: id.to_owned(), key: HpkePublicKey(bytes.to_vec()) });
        let (keks, current) = read(path, PUBLIC, public)?;
        Ok(Self { keks, current })
    }

    /// The key to seal with.
    pub fn current(&self) -> Option<&PublicKek> {
        self.keks.get(&self.current)
    }

    /// Names of the keys.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.keks.keys().map(String::as_str)
    }

    /// The file of these keys, the current one first.
    pub fn to_text(&self) -> String {
        let others = self.keks.values().filter(|kek| kek.id != self.current);
        self.current().into_iter().chain(others).map(|kek| kek.to_line() + "\n").collect()
    }
}

/// Reads the keys of one kind.
fn read<K>(path: &Path, kind: &str, make: impl Fn(&str, &[u8; KEY]) -> Option<K>) -> Result<(BTreeMap<String, K>, String), KekError> {
    let text = fs::read_to_string(path).map_err(|source| KekError::Read { path: path.to_owned(), source })?;
    parse(path, &Zeroizing::new(text), kind, make)
}

fn parse<K>(
    path: &Path,
    text: &str,
    kind: &str,
    make: impl Fn(&str, &[u8; KEY]) -> Option<K>,
) -> Result<(BTreeMap<String, K>, String), KekError> {
    let (mut keks, mut current) = (BTreeMap::new(), None);
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |problem| KekError::Line { path: path.to_owned(), line: number + 1, problem };
        let (id, bytes) = parse_line(line, kind).map_err(wrong)?;
        let kek = make(id, &bytes).ok_or_else(|| wrong("not a usable key"))?;
        if keks.insert(id.to_owned(), kek).is_some() {
            return Err(wrong("the id stands above already; every key has an id of its own"));
        }
        current.get_or_insert_with(|| id.to_owned());
    }
    let current = current.ok_or_else(|| KekError::Empty { path: path.to_owned() })?;
    Ok((keks, current))
}

fn parse_line<'a>(line: &'a str, kind: &str) -> Result<(&'a str, Zeroizing<[u8; KEY]>), &'static str> {
    let mut parts = line.splitn(3, ':');
    let (Some(found), Some(id), Some(encoded)) = (parts.next(), parts.next(), parts.next()) else {
        return Err("not of the form `<kind>:<id>:<key>`; make keys with `tidegate kek new`");
    };
    if found != kind {
        return Err(match found {
            PRIVATE => "a private key, where only public ones belong; print them with `tidegate kek public`",
            PUBLIC => "a public key, which opens nothing; this file needs the private ones",
            _ => "an unknown kind of key; make keys with `tidegate kek new`",
        });
    }
    check_id(id).map_err(|_| "the id is not usable")?;
    let decoded = Zeroizing::new(STANDARD_NO_PAD.decode(encoded).map_err(|_| "the key is not base64; was it cut?")?);
    let mut bytes = Zeroizing::new([0; KEY]);
    if decoded.len() != KEY {
        return Err("the key has the wrong length; was it cut?");
    }
    bytes.copy_from_slice(&decoded);
    Ok((id, bytes))
}

fn check_id(id: &str) -> Result<(), KekError> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_' | b'.');
    if id.is_empty() || id.len() > MAX_ID || !id.bytes().all(fits) { Err(KekError::Id) } else { Ok(()) }
}

const PRIVATE: &str = "kek-v1";
const PUBLIC: &str = "kek-pub-v1";
/// Bytes of each half.
const KEY: usize = 32;
const MAX_ID: usize = 64;
/// Short ones fall to a word list whatever the derivation costs.
const MIN_PASSPHRASE: usize = 12;
/// 64 MiB.
const ARGON_KIB: u32 = 64 * 1_024;
const ARGON_PASSES: u32 = 3;
/// RFC 9106 asks for four, which changes the result but not the strength where they run one after the other.
const ARGON_LANES: u32 = 4;
