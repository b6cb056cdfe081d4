//! Files that nobody needs any more: those of records that are stored, of channels that were forgotten, and of verbs that
//! died while they staged.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use tracing::warn;

use super::{Drops, Turn, Worker};
use crate::model::NetworkId;
use crate::store::StoreError;

pub(super) struct Sweeper {
    drops: Drops,
    /// The listing of channels when all was looked at.
    listed: Option<SystemTime>,
}

impl Sweeper {
    pub(super) fn new(drops: Drops) -> Self {
        Self { drops, listed: None }
    }

    fn work(&mut self, stop: &AtomicBool) -> Result<bool, StoreError> {
        let store = &self.drops.0.store;
        let stored = store.records_to_unstage()?;
        for record in &stored {
            if stop.load(Ordering::Relaxed) {
                return Ok(false);
            }
            let Some(staging) = &record.staging else { continue };
            // In this order: a name without a file is what a reader of it is prepared for.
            remove(&self.drops.staged(staging));
            match store.unstage(record.channel, record.id).wait() {
                Ok(()) | Err(StoreError::NoChannel | StoreError::NoRecord) => {}
                Err(error) => return Err(error),
            }
        }
        let listed = store.usage()?.listing_changed;
        if self.listed != Some(listed) {
            self.leftovers()?;
            self.listed = Some(listed);
        }
        Ok(!stored.is_empty())
    }

    fn leftovers(&self) -> Result<(), StoreError> {
        let directory = &self.drops.0.directory;
        for path in files(&directory.join("incoming")) {
            let Ok(Some(name)) = path.strip_prefix(directory).map(Path::to_str) else { continue };
            if let Ok(file) = File::open(&path)
                && !matches!(file.try_lock(), Err(TryLockError::WouldBlock))
                && !self.drops.0.store.is_staged(name)?
            {
                self.remove_abandoned(&path, name)?;
            }
        }
        Ok(())
    }
}

impl Sweeper {
    /// Deletes a file that nobody has locked and that no committed row names. The verb that staged it may have handed it
    /// over before it died: nobody is in the middle of that while this looks, and the rows that are on their way to the
    /// disk are asked too.
    fn remove_abandoned(&self, path: &Path, name: &str) -> Result<(), StoreError> {
        let _alone = self.drops.0.handing.write().unwrap_or_else(PoisonError::into_inner);
        if !self.drops.0.store.is_staged_in_order(name).wait()? {
            remove(path);
        }
        Ok(())
    }
}

impl Worker for Sweeper {
    fn turn(&mut self, _: Option<&(NetworkId, usize)>, stop: &AtomicBool) -> Turn {
        match self.work(stop) {
            Ok(true) => Turn::More,
            Ok(false) | Err(StoreError::Closed) => Turn::Done,
            Err(error) => {
                warn!(%error, "files that are no longer needed could not be deleted; trying again");
                Turn::Failed
            }
        }
    }
}

/// The files of a directory; none where there is no directory.
fn files(directory: &Path) -> Vec<std::path::PathBuf> {
    fs::read_dir(directory).map(|entries| entries.flatten().map(|entry| entry.path()).collect()).unwrap_or_default()
}

fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => warn!(%error, path = %path.display(), "not deleted"),
        _ => {}
    }
}
