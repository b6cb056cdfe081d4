//! Where the key of a sealed state comes from, when somebody becomes its owner.

use std::sync::Arc;

use super::control::{Failure, FailureKind};
use crate::store::{SealError, SealHeader, StateDir, StateKey};

type Source = dyn Fn(&SealHeader) -> Result<StateKey, Failure> + Send + Sync;

/// Finds the key of a state that is sealed. The default has none.
#[derive(Clone, Default)]
pub struct Unlock(Option<Arc<Source>>);

impl Unlock {
    /// By asking this, each time that a sealed state is taken. It may block.
    pub fn by(source: impl Fn(&SealHeader) -> Result<StateKey, Failure> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(source)))
    }

    /// Opens a state that was taken; nothing is asked where it is not sealed.
    ///
    /// # Errors
    /// There is no key, or another.
    pub fn open(&self, state: &StateDir) -> Result<(), Failure> {
        let Some(header) = state.seal_header()? else { return Ok(()) };
        let source = self.0.as_ref().ok_or_else(|| SealError::NoKey { path: state.path().to_owned() })?;
        state.unlock(source(&header)?);
        Ok(())
    }
}

impl std::fmt::Debug for Unlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Unlock(…)" } else { "Unlock" })
    }
}

impl From<SealError> for Failure {
    fn from(error: SealError) -> Self {
        let failure = Self::new(FailureKind::Failed, error.to_string());
        match error {
            SealError::NoKey { .. } => failure.hint(
                "give it with --key-file FILE, as the credential `pigeonfs.key` of the service, or type it on a terminal",
            ),
            SealError::WrongKey { .. } => failure.hint("look for a typing error, or for another --key-file or --state"),
            SealError::NotSealed { .. } => failure.hint("`pigeonfs seal` seals it"),
            _ => failure,
        }
    }
}
