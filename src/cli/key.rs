//! The key of a sealed state: from a file, from the service manager, or from the person at the terminal.

use std::fs::Metadata;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use zeroize::Zeroizing;

use super::{failure, secret_input};
use crate::engine::Unlock;
use crate::engine::control::{Failure, FailureKind};
use crate::store::{MAX_PASSPHRASE_BYTES, Passphrase, SealError, SealHeader, StateKey};
use crate::text::shown_path;

/// The credential of the service manager (systemd.exec(5), LoadCredential=).
const CREDENTIAL: &str = "pigeonfs.key";
/// How often a person may try.
const TRIES: usize = 3;

/// Where the key of the state comes from.
#[derive(Clone, Debug, Default)]
pub(super) struct Keys {
    file: Option<PathBuf>,
    known: Arc<Mutex<Known>>,
}

/// What is known of the key so far.
#[derive(Debug, Default)]
enum Known {
    /// Nobody has looked.
    #[default]
    Nothing,
    /// What the file or the credential holds, where there is one. It may be a pipe, which is read once.
    Given(Option<Passphrase>),
    /// It has opened the state.
    Opened(StateKey),
}

impl Keys {
    pub(super) fn new(file: Option<PathBuf>) -> Self {
        Self { file, known: Arc::default() }
    }

    /// Whether a file was named.
    pub(super) fn names_a_file(&self) -> bool {
        self.file.is_some()
    }

    /// For whoever becomes the owner of the state. Nobody is asked: see [`Keys::ask`].
    pub(super) fn unlock(&self) -> Unlock {
        let keys = self.clone();
        Unlock::by(move |header| {
            if let Known::Opened(key) = &*keys.known() {
                return Ok(key.clone());
            }
            let passphrase = keys.given()?.ok_or_else(|| no_key(header))?;
            let key = header.open(&passphrase)?;
            *keys.known() = Known::Opened(key.clone());
            Ok(key)
        })
    }

    /// Has the person type the key of the state, where no other source has it.
    pub(super) fn ask(&self, header: &SealHeader) -> Result<(), Failure> {
        if matches!(*self.known(), Known::Opened(_)) || self.given()?.is_some() {
            return Ok(());
        }
        let prompt = format!("passphrase of {}: ", shown_path(header.state()));
        let mut tries = 0;
        loop {
            let typed = secret_input::passphrase(&prompt)?.ok_or_else(|| no_key(header))?;
            tries += 1;
            match header.open(&Passphrase::new(typed)?) {
                Ok(key) => {
                    *self.known() = Known::Opened(key);
                    return Ok(());
                }
                Err(error @ SealError::WrongKey { .. }) if tries < TRIES => failure::warn(&error.to_string()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The key that a state is to have: from the file or the credential, else typed twice.
    pub(super) fn fresh(&self) -> Result<Passphrase, Failure> {
        match self.given()? {
            Some(passphrase) => Ok(passphrase),
            None => typed_twice("--key-file"),
        }
    }

    fn given(&self) -> Result<Option<Passphrase>, Failure> {
        let credential = || {
            let directory = std::env::var_os("CREDENTIALS_DIRECTORY").filter(|path| !path.is_empty())?;
            Some(Path::new(&directory).join(CREDENTIAL)).filter(|path| path.exists())
        };
        if let Known::Given(given) = &*self.known() {
            return Ok(given.clone());
        }
        let given = self.file.clone().or_else(credential).map(|path| of_file(&path)).transpose()?;
        *self.known() = Known::Given(given.clone());
        Ok(given)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Nothing panics while it is held.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a key file holds.
pub(super) fn of_file(path: &Path) -> Result<Passphrase, Failure> {
    let bytes = secret_input::bounded_file(path).map_err(|error| {
        Failure::new(FailureKind::Failed, format!("the key file {} cannot be read: {error}", shown_path(path)))
    })?;
    let open_to_others = |found: &Metadata| found.is_file() && found.permissions().mode() & 0o077 != 0;
    if std::fs::metadata(path).is_ok_and(|found| open_to_others(&found)) {
        let shown = shown_path(path);
        failure::warn(&format!("the key file {shown} is open to other users of this machine: chmod 600 {shown}"));
    }
    Passphrase::of_file(bytes).map_err(|_| {
        let text = format!(
            "the key file {} is empty or too long: a key has between 1 and {MAX_PASSPHRASE_BYTES} bytes",
            shown_path(path)
        );
        Failure::new(FailureKind::Failed, text)
    })
}

/// A new passphrase, as the person types it. `option` names the file that could have it instead.
pub(super) fn typed_twice(option: &str) -> Result<Passphrase, Failure> {
    let ask = |prompt: &str| -> Result<Zeroizing<Vec<u8>>, Failure> {
        secret_input::passphrase(prompt)?.ok_or_else(|| {
            Failure::new(FailureKind::Failed, "no key was given, and there is no terminal to ask for one")
                .hint(format!("give a file that holds it with {option} FILE"))
        })
    };
    let first = ask("new passphrase: ")?;
    if first.is_empty() {
        return Err(Failure::new(FailureKind::Failed, "an empty passphrase protects nothing"));
    }
    if *ask("the same again: ")? != *first {
        return Err(Failure::new(FailureKind::Failed, "the two are not the same; nothing was changed"));
    }
    Ok(Passphrase::new(first)?)
}

fn no_key(header: &SealHeader) -> Failure {
    SealError::NoKey { path: header.state().to_owned() }.into()
}
