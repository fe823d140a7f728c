//! Provider credentials at rest: anyone may hold them sealed, only edges can open them.
//!
//! Envelope encryption. Each version of a credential has a random data key of its own, under which XChaCha20-Poly1305 encrypts the
//! value; the data key is wrapped by a key-encryption key (KEK) named by its id. Wrapping is HPKE (RFC 9180: X25519, HKDF-SHA256,
//! ChaCha20-Poly1305), so a KEK has two halves: whoever seals has the public one, which opens nothing, and only edges mount the private
//! one. A control node that is taken over thus gives away no credential. Moving to a new KEK rewraps data keys and leaves ciphertexts
//! alone.
//!
//! Both layers authenticate the cluster, the credential and its version: a ciphertext moved to another place does not open.

mod kek;
mod source;

use std::fmt;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use rustls::crypto::hpke::{EncapsulatedSecret, Hpke};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

pub use kek::{Kek, KekError, Keyring, PublicKek, PublicKeyring};
pub use source::{ASK_EVERY, KekSource, KekStore};

/// What a sealed value belongs to. All of it is authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// The cluster, by its id.
    pub cluster: &'a str,
    /// The credential, by its resource name.
    pub credential: &'a str,
    /// Counts up with each new value.
    pub version: u32,
}

/// A sealed value. Nothing in it is secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Names the KEK that wraps the data key.
    pub kek_id: String,
    /// The data key: 32 bytes of HPKE encapsulation, then 48 of ciphertext.
    pub wrapped_dek: Vec<u8>,
    /// 24 bytes.
    pub nonce: Vec<u8>,
    /// The value, and 16 bytes of authentication.
    pub ciphertext: Vec<u8>,
}

/// Why a value cannot be sealed or opened. Says nothing about the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The KEK is not in the keyring.
    #[error("no key-encryption key `{wanted}`; this keyring has {}. Add its line to the key file", list(.have))]
    UnknownKek {
        /// Which one.
        wanted: String,
        /// Which ones there are.
        have: Vec<String>,
    },
    /// The data key does not unwrap.
    #[error(
        "the data key does not unwrap with key-encryption key `{kek_id}`: another key of that name, another cluster, credential or version, or damage"
    )]
    Unwrap {
        /// By which KEK it should.
        kek_id: String,
    },
    /// The data key unwraps, and the value does not open.
    #[error("the sealed value does not open: it is damaged or belongs to another credential")]
    Open,
    /// The value cannot be encrypted: it is too long, or the KEK is no point of the curve.
    #[error("the value cannot be sealed with key-encryption key `{kek_id}`")]
    Seal {
        /// By which KEK.
        kek_id: String,
    },
    /// The operating system gives no randomness.
    #[error("no randomness from the operating system: {0}")]
    Random(String),
}

impl PublicKek {
    /// Seals a value for `place`. Each call makes a new data key.
    pub fn seal(&self, place: Place<'_>, value: &SecretString) -> Result<Sealed, SealError> {
        let mut dek = Zeroizing::new([0; DEK]);
        let mut nonce = [0; NONCE];
        fill(&mut *dek)?;
        fill(&mut nonce)?;
        let aad = place.aad(VALUE);
        let payload = Payload { msg: value.expose_secret().as_bytes(), aad: &aad };
        let ciphertext =
            cipher(&dek).encrypt(&XNonce::from(nonce), payload).map_err(|_| SealError::Seal { kek_id: self.id().to_owned() })?;
        Ok(Sealed { kek_id: self.id().to_owned(), wrapped_dek: self.wrap(place, &dek)?, nonce: nonce.to_vec(), ciphertext })
    }

    fn wrap(&self, place: Place<'_>, dek: &[u8; DEK]) -> Result<Vec<u8>, SealError> {
        let failed = |_| SealError::Seal { kek_id: self.id().to_owned() };
        let (EncapsulatedSecret(mut wrapped), ciphertext) =
            SUITE.seal(self.id().as_bytes(), &place.aad(WRAPPED), dek, self.key()).map_err(failed)?;
        wrapped.extend(ciphertext);
        Ok(wrapped)
    }
}

impl Keyring {
    /// Opens a value that was sealed for `place`.
    pub fn open(&self, place: Place<'_>, sealed: &Sealed) -> Result<SecretString, SealError> {
        let dek = self.unwrap(place, sealed)?;
        let nonce: [u8; NONCE] = sealed.nonce.as_slice().try_into().map_err(|_| SealError::Open)?;
        let payload = Payload { msg: &sealed.ciphertext, aad: &place.aad(VALUE) };
        let value = Zeroizing::new(cipher(&dek).decrypt(&XNonce::from(nonce), payload).map_err(|_| SealError::Open)?);
        let text = std::str::from_utf8(&value).map_err(|_| SealError::Open)?;
        Ok(SecretString::from(text))
    }

    /// The same value with its data key wrapped by `to`; nonce and ciphertext stay as they are.
    pub fn rewrap(&self, place: Place<'_>, sealed: &Sealed, to: &PublicKek) -> Result<Sealed, SealError> {
        let dek = self.unwrap(place, sealed)?;
        Ok(Sealed { kek_id: to.id().to_owned(), wrapped_dek: to.wrap(place, &dek)?, ..sealed.clone() })
    }

    fn unwrap(&self, place: Place<'_>, sealed: &Sealed) -> Result<Zeroizing<[u8; DEK]>, SealError> {
        let kek = self
            .get(&sealed.kek_id)
            .ok_or_else(|| SealError::UnknownKek { wanted: sealed.kek_id.clone(), have: self.ids().map(str::to_owned).collect() })?;
        let failed = || SealError::Unwrap { kek_id: sealed.kek_id.clone() };
        let (encapsulated, ciphertext) = sealed.wrapped_dek.split_at_checked(ENCAPSULATED).ok_or_else(failed)?;
        let encapsulated = EncapsulatedSecret(encapsulated.to_vec());
        let dek = SUITE
            .open(&encapsulated, sealed.kek_id.as_bytes(), &place.aad(WRAPPED), ciphertext, kek.key())
            .map(Zeroizing::new)
            .map_err(|_| failed())?;
        let mut fixed = Zeroizing::new([0; DEK]);
        if dek.len() != DEK {
            return Err(failed());
        }
        fixed.copy_from_slice(&dek);
        Ok(fixed)
    }
}

impl Place<'_> {
    /// What is authenticated beside the data: cluster ‖ credential ‖ version under a label, each with its length in front, so that no
    /// two places spell the same bytes.
    fn aad(&self, label: &str) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64);
        for part in [label, self.cluster, self.credential] {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        bytes.extend_from_slice(&self.version.to_be_bytes());
        bytes
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealed").field("kek_id", &self.kek_id).field("ciphertext", &self.ciphertext.len()).finish_non_exhaustive()
    }
}

fn cipher(dek: &[u8; DEK]) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(dek.into())
}

fn fill(bytes: &mut [u8]) -> Result<(), SealError> {
    getrandom::fill(bytes).map_err(|error| SealError::Random(error.to_string()))
}

fn list(ids: &[String]) -> String {
    if ids.is_empty() { "none".to_owned() } else { ids.join(", ") }
}

/// DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305.
static SUITE: &dyn Hpke = rustls::crypto::aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_CHACHA20_POLY1305;
/// Bytes of a data key.
const DEK: usize = 32;
/// Bytes of a nonce: long enough to be random.
const NONCE: usize = 24;
/// Bytes of an encapsulated X25519 key.
const ENCAPSULATED: usize = 32;
/// Labels of the two layers, with the version of the format.
const VALUE: &str = "tidegate credential 1";
const WRAPPED: &str = "tidegate data key 1";

#[cfg(test)]
mod tests;
