//! `seal.json`: that a state is sealed, and its key under a passphrase.
//!
//! ```text
//! {"version": 1, "kdf": "argon2id", "memory_kib": 65536, "passes": 3, "lanes": 4, "salt": BASE64, "key": BASE64}
//! ```
//!
//! `key` is the state's key, encrypted with AES-256-GCM-SIV under Argon2id(passphrase, salt), nonce zero (each salt is
//! used once), with the numbers before it as associated data.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use aes_gcm_siv::aead::{Aead, KeyInit, Payload};
use aes_gcm_siv::{Aes256GcmSiv, Nonce};
use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::StateKey;
use crate::store::private_dir::{PrivateDir, PrivateDirError};

/// Its name in the state directory.
pub(in crate::store) const FILE: &str = "seal.json";
/// The same before it is whole.
pub(super) const NEW: &str = "seal.json.new";
/// Most bytes of a passphrase or a key file.
pub const MAX_PASSPHRASE_BYTES: usize = 4096;
const MAX_HEADER_BYTES: u64 = 4096;
const VERSION: u32 = 1;
const KDF: &str = "argon2id";
/// RFC 9106, section 4: the second recommended choice, for machines that cannot spare 2 GiB.
const MEMORY_KIB: u32 = if cfg!(test) { 64 } else { 64 << 10 };
const PASSES: u32 = 3;
const LANES: u32 = 4;
/// More than this is no header of ours, and would take the machine's memory or a day.
const LARGEST: (u32, u32, u32) = (4 << 20, 64, 64);

/// Why a state cannot be opened or sealed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// It opens another state, or none.
    #[error("this is not the key of the state {path:?}")]
    WrongKey {
        /// The state directory.
        path: PathBuf,
    },
    /// No passphrase is empty or longer than a file of them may be.
    #[error("a key has between 1 and {MAX_PASSPHRASE_BYTES} bytes")]
    BadPassphrase,
    /// `seal.json` is none, or is of a later version.
    #[error("{path:?} cannot be understood: {reason}")]
    BadHeader {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The state is sealed, and nobody gave its key.
    #[error("the state {path:?} is sealed, and its key was not given")]
    NoKey {
        /// The state directory.
        path: PathBuf,
    },
    /// It is sealed, or not, already.
    #[error("the state {path:?} is not sealed")]
    NotSealed {
        /// The state directory.
        path: PathBuf,
    },
    /// The machine refused.
    #[error("{reason}")]
    Machine {
        /// What it says.
        reason: String,
    },
}

impl From<PrivateDirError> for SealError {
    fn from(error: PrivateDirError) -> Self {
        Self::Machine { reason: error.to_string() }
    }
}

impl From<io::Error> for SealError {
    fn from(error: io::Error) -> Self {
        Self::Machine { reason: error.to_string() }
    }
}

impl From<rusqlite::Error> for SealError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Machine { reason: error.to_string() }
    }
}

/// What a person knows or a key file holds. Never shown, and wiped when it is dropped.
#[derive(Clone)]
pub struct Passphrase(Arc<Zeroizing<Vec<u8>>>);

impl Passphrase {
    /// Of these bytes.
    ///
    /// # Errors
    /// There are none, or too many.
    pub fn new(bytes: Zeroizing<Vec<u8>>) -> Result<Self, SealError> {
        let fits = (1..=MAX_PASSPHRASE_BYTES).contains(&bytes.len());
        fits.then(|| Self(Arc::new(bytes))).ok_or(SealError::BadPassphrase)
    }

    /// Of what a file holds, without one newline at its end.
    ///
    /// # Errors
    /// There is nothing, or too much.
    pub fn of_file(mut bytes: Zeroizing<Vec<u8>>) -> Result<Self, SealError> {
        if bytes.len() > MAX_PASSPHRASE_BYTES {
            return Err(SealError::BadPassphrase);
        }
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
        }
        Self::new(bytes)
    }
}

impl std::fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passphrase(…)")
    }
}

/// What `seal.json` says.
#[derive(Clone, Debug)]
pub struct SealHeader {
    state: PathBuf,
    json: Json,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Json {
    version: u32,
    kdf: String,
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    salt: String,
    key: String,
}

impl SealHeader {
    /// That of a state; `None`: it is not sealed.
    ///
    /// # Errors
    /// It cannot be read or understood.
    pub fn read(dir: &PrivateDir) -> Result<Option<Self>, SealError> {
        let file = match dir.file(FILE, OFlags::RDONLY) {
            Ok(file) => file,
            Err(PrivateDirError::Missing { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut text = String::new();
        file.take(MAX_HEADER_BYTES).read_to_string(&mut text)?;
        let path = dir.path().join(FILE);
        let bad = |reason: String| SealError::BadHeader { path: path.clone(), reason };
        let json: Json = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
        if (json.version, json.kdf.as_str()) != (VERSION, KDF) {
            return Err(bad(format!("it is of version {} with {:?}", json.version, json.kdf)));
        }
        if json.memory_kib > LARGEST.0 || json.passes > LARGEST.1 || json.lanes > LARGEST.2 {
            return Err(bad("it asks for more memory or time than any state does".to_owned()));
        }
        Ok(Some(Self { state: dir.path().to_owned(), json }))
    }

    /// The state directory, as it was named.
    pub fn state(&self) -> &std::path::Path {
        &self.state
    }

    /// A new one, for a state with this key and the passphrase that it is to have. Takes a while, as a guess does.
    ///
    /// # Errors
    /// The machine refused randomness or memory.
    pub fn new(dir: &PrivateDir, key: &StateKey, passphrase: &Passphrase) -> Result<Self, SealError> {
        let mut salt = [0; 32];
        getrandom::fill(&mut salt).map_err(|error| SealError::Machine { reason: error.to_string() })?;
        let json = Json {
            version: VERSION,
            kdf: KDF.to_owned(),
            memory_kib: MEMORY_KIB,
            passes: PASSES,
            lanes: LANES,
            salt: STANDARD.encode(salt),
            key: String::new(),
        };
        let mut header = Self { state: dir.path().to_owned(), json };
        let cipher = header.cipher(passphrase)?;
        let about = header.about();
        let payload = Payload { msg: &key.0[..], aad: about.as_bytes() };
        let wrapped = cipher.encrypt(&Nonce::default(), payload);
        let wrapped =
            wrapped.map_err(|_| SealError::Machine { reason: "the key could not be encrypted".to_owned() })?;
        header.json.key = STANDARD.encode(wrapped);
        Ok(header)
    }

    /// The key of the state.
    ///
    /// # Errors
    /// [`SealError::WrongKey`]; the machine refused memory.
    pub fn open(&self, passphrase: &Passphrase) -> Result<StateKey, SealError> {
        let cipher = self.cipher(passphrase)?;
        let wrapped = STANDARD.decode(&self.json.key).map_err(|error| self.bad(&error))?;
        let about = self.about();
        let payload = Payload { msg: &wrapped, aad: about.as_bytes() };
        let wrong = || SealError::WrongKey { path: self.state.clone() };
        let opened = Zeroizing::new(cipher.decrypt(&Nonce::default(), payload).map_err(|_| wrong())?);
        let mut key = Zeroizing::new([0; 32]);
        if opened.len() != key.len() {
            return Err(wrong());
        }
        key.copy_from_slice(&opened);
        Ok(StateKey(Arc::new(key)))
    }

    /// Puts it in place of what is there, in one step: a crash leaves the one or the other. From then on the state is
    /// sealed, and what was there is overwritten: with an old passphrase it would open the state for ever.
    pub(in crate::store) fn write(&self, dir: &PrivateDir) -> Result<(), SealError> {
        let mut text = serde_json::to_string(&self.json).map_err(|error| self.bad(&error))?;
        text.push('\n');
        let mut file = dir.file(NEW, OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        let old = match dir.file(FILE, OFlags::WRONLY) {
            Ok(old) => Some(old),
            Err(PrivateDirError::Missing { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        dir.rename(NEW, FILE)?;
        dir.sync()?;
        if let Some(mut old) = old {
            let length = usize::try_from(old.metadata()?.len().min(MAX_HEADER_BYTES)).unwrap_or(0);
            old.write_all(&vec![0; length])?;
            old.sync_all()?;
        }
        Ok(())
    }

    fn about(&self) -> String {
        let Json { version, memory_kib, passes, lanes, .. } = &self.json;
        format!("pigeonfs seal {version} {KDF} {memory_kib} {passes} {lanes}")
    }

    fn cipher(&self, passphrase: &Passphrase) -> Result<Aes256GcmSiv, SealError> {
        let Json { memory_kib, passes, lanes, .. } = self.json;
        let params = Params::new(memory_kib, passes, lanes, Some(32)).map_err(|error| self.bad(&error))?;
        let salt = STANDARD.decode(&self.json.salt).map_err(|error| self.bad(&error))?;
        let mut key = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(&passphrase.0, &salt, &mut *key)
            .map_err(|error| self.bad(&error))?;
        Ok(Aes256GcmSiv::new((&*key).into()))
    }

    fn bad(&self, reason: &dyn std::fmt::Display) -> SealError {
        SealError::BadHeader { path: self.state.join(FILE), reason: reason.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passphrase(text: &str) -> Passphrase {
        Passphrase::of_file(Zeroizing::new(text.as_bytes().to_vec())).unwrap()
    }

    #[test]
    fn only_the_passphrase_opens_it_and_another_one_can_take_its_place() {
        let place = tempfile::tempdir().unwrap();
        let dir = PrivateDir::open(place.path()).unwrap();
        assert!(SealHeader::read(&dir).unwrap().is_none());
        let key = StateKey::random().unwrap();
        SealHeader::new(&dir, &key, &passphrase("one")).unwrap().write(&dir).unwrap();
        let header = SealHeader::read(&dir).unwrap().unwrap();
        assert_eq!(*header.open(&passphrase("one\n")).unwrap().0, *key.0);
        let wrong = SealError::WrongKey { path: place.path().to_owned() };
        assert_eq!(header.open(&passphrase("one\n\n")).unwrap_err(), wrong);
        SealHeader::new(&dir, &key, &passphrase("two")).unwrap().write(&dir).unwrap();
        let header = SealHeader::read(&dir).unwrap().unwrap();
        assert_eq!(*header.open(&passphrase("two")).unwrap().0, *key.0);
        assert_eq!(header.open(&passphrase("one")).unwrap_err(), wrong);
    }

    #[test]
    fn a_header_of_something_else_is_told() {
        let place = tempfile::tempdir().unwrap();
        let dir = PrivateDir::open(place.path()).unwrap();
        for text in
            ["", "{}", r#"{"version":2,"kdf":"argon2id","memory_kib":8,"passes":1,"lanes":1,"salt":"","key":""}"#]
        {
            std::fs::write(place.path().join(FILE), text).unwrap();
            assert!(matches!(SealHeader::read(&dir), Err(SealError::BadHeader { .. })), "{text}");
        }
        let greedy =
            r#"{"version":1,"kdf":"argon2id","memory_kib":4294967295,"passes":1,"lanes":1,"salt":"","key":""}"#;
        std::fs::write(place.path().join(FILE), greedy).unwrap();
        assert!(matches!(SealHeader::read(&dir), Err(SealError::BadHeader { .. })));
    }

    #[test]
    fn a_passphrase_has_some_bytes_and_not_too_many() {
        let of_file = |bytes: Vec<u8>| Passphrase::of_file(Zeroizing::new(bytes)).map(drop);
        assert_eq!(of_file(Vec::new()), Err(SealError::BadPassphrase));
        assert_eq!(of_file(b"\n".to_vec()), Err(SealError::BadPassphrase));
        assert_eq!(of_file(vec![0; MAX_PASSPHRASE_BYTES]), Ok(()));
        assert_eq!(of_file(vec![0; MAX_PASSPHRASE_BYTES + 1]), Err(SealError::BadPassphrase));
    }
}
