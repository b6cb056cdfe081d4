//! A state that is sealed at rest: what there is of it on the disk says nothing without its key.
//!
//! ```text
//! STATE/seal.json         that the state is sealed; its key, encrypted under what was made of a passphrase (header.rs)
//! STATE/pigeonfs.db       SQLCipher
//! STATE/drops/…           staged files (file.rs); below mount/CHANNEL/tree each name is encrypted (names.rs)
//! ```
//!
//! The key of the state is random and stays: another passphrase changes `seal.json` alone. What is needed is derived from
//! it, a key for each purpose. `convert.rs` seals a state that is there, and unseals one.
//!
//! What a sealed state still shows: that it is one, when it was changed, how long the database and each staged file are,
//! where staged files have holes, which names of staged files are the same, and about how long they are.

mod convert;
mod file;
mod header;
mod names;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::sync::Arc;

use zeroize::Zeroizing;

pub(super) use convert::{BETWEEN, settle};
pub use convert::{seal, unseal};
pub use file::{Sequential, StagedFile};
pub(super) use header::FILE as SEAL;
pub use header::{MAX_PASSPHRASE_BYTES, Passphrase, SealError, SealHeader};

/// The key of a sealed state. Never shown, and wiped when it is dropped.
#[derive(Clone)]
pub struct StateKey(Arc<Zeroizing<[u8; 32]>>);

impl StateKey {
    /// A new one.
    ///
    /// # Errors
    /// This machine gives no randomness.
    pub fn random() -> Result<Self, SealError> {
        let mut key = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *key).map_err(|error| SealError::Machine { reason: error.to_string() })?;
        Ok(Self(Arc::new(key)))
    }

    fn derive(&self, purpose: &str) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(blake3::derive_key(purpose, &**self.0))
    }
}

impl std::fmt::Debug for StateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StateKey(…)")
    }
}

/// How what is in a state is kept: as it is, or sealed.
#[derive(Clone, Debug, Default)]
pub struct Sealing(Option<Arc<Keys>>);

struct Keys {
    database: Zeroizing<[u8; 32]>,
    files: Zeroizing<[u8; 32]>,
    names: names::NameCipher,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys(…)")
    }
}

impl Sealing {
    /// That of a state with this key.
    pub fn with(key: &StateKey) -> Self {
        Self(Some(Arc::new(Keys {
            database: key.derive("pigeonfs state database v1"),
            files: key.derive("pigeonfs state files v1"),
            names: names::NameCipher::new(&key.derive("pigeonfs state names v1")),
        })))
    }

    /// Whether the state is sealed.
    pub fn is_sealed(&self) -> bool {
        self.0.is_some()
    }

    /// The key of the database, as SQLCipher reads it.
    pub(super) fn database_key(&self) -> Option<Zeroizing<String>> {
        self.0.as_ref().map(|keys| {
            let mut text = Zeroizing::new(String::with_capacity(67));
            text.push_str("x'");
            for byte in &*keys.database {
                for digit in [byte >> 4, byte & 15] {
                    text.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
                }
            }
            text.push('\'');
            text
        })
    }

    /// A staged file that is there.
    ///
    /// # Errors
    /// It cannot be read; it is not one of this state.
    pub fn open(&self, file: File) -> io::Result<StagedFile> {
        match &self.0 {
            None => Ok(StagedFile::plain(file)),
            Some(keys) => StagedFile::opened(file, &keys.files),
        }
    }

    /// A staged file that was just made, and is empty.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn create(&self, file: File) -> io::Result<StagedFile> {
        match &self.0 {
            None => Ok(StagedFile::plain(file)),
            Some(keys) => StagedFile::begun(file, &file::FileKey::random(&keys.files)?),
        }
    }

    /// A key for one more staged file, for a process that does not have that of the state. `None`: it is written as it
    /// is.
    ///
    /// # Errors
    /// This machine gives no randomness.
    pub fn file_key(&self) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        self.0.as_ref().map(|keys| Ok(file::FileKey::random(&keys.files)?.to_bytes())).transpose()
    }

    /// What a staged file of that length on the disk holds.
    pub fn content_len(&self, on_disk: u64) -> u64 {
        if self.is_sealed() { file::content_len(on_disk) } else { on_disk }
    }

    /// A name as the disk has it.
    ///
    /// # Errors
    /// It is too long to be sealed (ENAMETOOLONG).
    pub fn name(&self, name: &str) -> io::Result<OsString> {
        match &self.0 {
            None => Ok(name.into()),
            Some(keys) => keys.names.seal(name).map(OsString::from),
        }
    }

    /// A name that the disk has, as it was given; `None`: none of ours.
    pub fn plain_name(&self, name: &OsStr) -> Option<String> {
        match &self.0 {
            None => name.to_str().map(str::to_owned),
            Some(keys) => keys.names.open(name.to_str()?),
        }
    }
}
