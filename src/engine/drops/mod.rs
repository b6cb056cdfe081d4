//! Drops: files between the disk and the boxes of a channel. For the mount and the verbs this is the whole of it:
//!
//! ```text
//! a drop that we write                               a drop that we read
//!
//! STATE/drops/…, a file that is complete             boxes before the frontier
//!        │ Drops::accept: one row                           │ (assemble.rs, as they arrive)
//!        ▼                                                  ▼
//!   Waiting → Filling → Filled → stored              Incomplete → Complete | Broken
//!        (fill.rs, a bounded way ahead               Store::records, Drops::read
//!        of what is stored)
//! ```
//!
//! * [`Drops::directory`] is where files are staged: private, on the state's own disk. Whoever stages a file makes a
//!   directory of its own below it, writes the file, and hands it over with [`Drops::accept`] once nobody changes it any
//!   more. From that commit on the file is sent to its end whatever happens, and is unlinked once replicas have all of
//!   it. What was not handed over is its maker's own: nothing here touches it, except what a verb left in
//!   [`Drops::incoming`] when it died.
//! * What there is is asked of the store: [`Store::records`], [`Store::records_named`], [`Store::drop_counts`],
//!   [`Store::open_chains`]; a change of any record wakes those who watch the channel ([`Store::changes`]). The parts of
//!   a chain have records of their own (`part` > 0) beside the file that they make (`part` = 0), which is there once it is
//!   whole and verified.
//! * [`Drops::read`] reads a file at an offset: one that was accepted, or one that has arrived complete. [`Drops::size`]
//!   says how long it is then. Compressed ones are unpacked as they are read (unpack.rs).
//! * [`Store::take_back`] forgets a file of which no packet has left; [`Store::delete_record`] has a stored one deleted from the
//!   network, in a drop that allows it (delete.rs).

mod assemble;
mod contents;
mod delete;
mod fill;
mod report;
mod sweep;
mod unpack;

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::sleep;
use tracing::error;

pub(super) use self::fill::Ahead;
use super::network::View;
use super::shared::Shared;
use crate::drop::{Header, HeaderError, UnpackError};
use crate::model::NetworkId;
use crate::store::{ChannelId, Commit, NewRecord, PROVISIONAL_MAX_PLAINTEXT, PrivateDir, RecordId, Store, StoreError};

/// What failed for a reason of its own is tried again after so long.
const AGAIN: Duration = Duration::from_secs(5);
/// How long what streams do is not looked at: each look takes processor time that a person's writes wait for.
const A_WHILE: Duration = Duration::from_millis(500);

/// Why a file was not accepted, or cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DropError {
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file of the state could not be read or written.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The file is not in the directory of drops, or is not as long as its header says.
    #[error("{path} is no staged file of {size} bytes")]
    NotStaged {
        /// The file.
        path: PathBuf,
        /// The length that it should have.
        size: u64,
    },
    /// It cannot be described to a reader.
    #[error("it cannot be sent: {0}")]
    Header(#[from] HeaderError),
    /// It is not all here, or never will be.
    #[error("it is not complete{}", reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default())]
    NotComplete {
        /// Why it never will be.
        reason: Option<String>,
    },
    /// Its compressed body cannot be unpacked.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// Whoever asked does not want it any more.
    #[error("it was interrupted")]
    Stopped,
}

impl DropError {
    fn io(path: &Path, error: io::Error) -> Self {
        Self::Io { path: path.to_owned(), error }
    }
}

/// The files of all drops of one state. Clones are the same.
#[derive(Clone)]
pub struct Drops(Arc<Inner>);

/// What a mount has of a drop that is no record yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unsettled {
    /// Files that are open, or were just closed and will be sent.
    pub settling: u64,
    /// Files that are never sent as they are, each with its directories.
    pub unfinished: Vec<String>,
    /// How many of those a person may say to be whole.
    pub to_finish: u64,
}

/// Who has files of drops that are no records yet: a mount.
pub trait StagedFiles: Send + Sync {
    /// What there is of a drop.
    fn unsettled(&self, drop: ChannelId) -> Unsettled;

    /// A person says that an unfinished file is whole.
    ///
    /// # Errors
    /// Why it cannot be sent, in words.
    fn finish(&self, drop: ChannelId, path: &str) -> Result<(), String>;
}

struct Inner {
    /// Where a mount is: what it has of files that are no records.
    staged: std::sync::OnceLock<Box<dyn StagedFiles>>,
    store: Store,
    directory: PathBuf,
    /// Compressed files that are read.
    unpacking: unpack::Unpacking,
    /// Shared by those who hand a file over, from the look at it until its row is on its way to the disk; held alone by
    /// who deletes what is in no row.
    handing: std::sync::RwLock<()>,
}

impl Drops {
    pub(super) fn new(store: Store) -> Self {
        let directory = store.state_path().join("drops");
        Self(Arc::new(Inner {
            store,
            directory,
            staged: std::sync::OnceLock::new(),
            unpacking: unpack::Unpacking::default(),
            handing: std::sync::RwLock::default(),
        }))
    }

    /// Where files are staged; made (0700) where it is missing.
    pub fn directory(&self) -> Result<&Path, DropError> {
        let path = &self.0.directory;
        // Through the state's descriptor: a state that was removed is not made anew, nor a link followed, and what is
        // made is safe on the disk.
        self.0.store.dir().make_dir("drops").map_err(|error| DropError::io(path, error.into()))?;
        Ok(path)
    }

    /// Where verbs stage files. A file there that is in no drop and that nobody has locked (flock) is a leftover, and is
    /// deleted.
    pub fn incoming(&self) -> Result<PathBuf, DropError> {
        Self::incoming_of(self.0.store.state_path())
    }

    /// The same of a state that another process may own.
    pub fn incoming_of(state: &Path) -> Result<PathBuf, DropError> {
        let path = state.join("drops").join("incoming");
        PrivateDir::open(state)
            .and_then(|state| state.make_dir("drops/incoming"))
            .map_err(|error| DropError::io(&path, error.into()))?;
        Ok(path)
    }

    /// A mount answers for the files of drops that are no records yet, from now on.
    pub fn staged_by(&self, mount: impl StagedFiles + 'static) {
        let _ = self.0.staged.set(Box::new(mount));
    }

    /// A person says that an unfinished file of a drop is whole. `None`: there is no mount that could have it.
    pub fn finish(&self, id: ChannelId, path: &str) -> Option<Result<(), String>> {
        self.0.staged.get().map(|staged| staged.finish(id, path))
    }

    /// What a mount has of a drop that is no record yet; nothing where there is none.
    pub fn unsettled(&self, id: ChannelId) -> Unsettled {
        self.0.staged.get().map(|staged| staged.unsettled(id)).unwrap_or_default()
    }

    /// Accepts a file into a drop that we write. `staged` is below [`Drops::directory`], `header.size` bytes long, and
    /// never changed again; `None`: there are no bytes. It is made safe on the disk here, so this blocks. The file belongs
    /// to the drop once the commit is there, and to the caller where it is refused.
    ///
    /// # Errors
    /// The file is not what it should be. What the store refuses comes of the commit: the channel is no drop
    /// ([`StoreError::IsAStream`]), is fenced, or the spool is full.
    pub fn accept(&self, id: ChannelId, header: Header, staged: Option<&Path>) -> Result<Commit<RecordId>, DropError> {
        self.accept_into(&self.0.store, id, header, staged)
    }

    /// The same through this handle of the store, which may be for one request: see [`Store::for_request`].
    ///
    /// # Errors
    /// Those of [`Drops::accept`].
    pub(super) fn accept_into(
        &self,
        store: &Store,
        id: ChannelId,
        header: Header,
        staged: Option<&Path>,
    ) -> Result<Commit<RecordId>, DropError> {
        let channel = self.0.store.channel(id)?.ok_or(StoreError::NoChannel)?;
        // As long as it will be, and for the smaller of the two networks that it may be cut for.
        let longest = Header { sync: Some([0; 16]), ..header.clone() };
        longest.encode(channel.max_plaintext.min(PROVISIONAL_MAX_PLAINTEXT as usize))?;
        let _handing = self.0.handing.read().unwrap_or_else(PoisonError::into_inner);
        let secured = staged.map(|path| self.secure(path, header.size)).transpose()?;
        if secured.is_none() && header.size > 0 {
            return Err(DropError::NotStaged { path: self.0.directory.clone(), size: header.size });
        }
        let (staging, modified) = secured.unzip();
        Ok(store.accept(id, NewRecord { header, staging, modified }))
    }

    /// Makes a staged file safe on the disk; says how its row names it, and when it was changed last.
    fn secure(&self, path: &Path, size: u64) -> Result<(String, SystemTime), DropError> {
        let not_staged = || DropError::NotStaged { path: path.to_owned(), size };
        let below = path.strip_prefix(&self.0.directory).map_err(|_| not_staged())?;
        let plain = below.components().all(|component| matches!(component, Component::Normal(_)));
        let name = below.to_str().filter(|name| plain && !name.is_empty()).ok_or_else(not_staged)?;
        let failed = |error| DropError::io(path, error);
        let metadata = fs::symlink_metadata(path).map_err(failed)?;
        let sealing = self.0.store.sealing();
        if !metadata.is_file() || sealing.content_len(metadata.len()) != size {
            return Err(not_staged());
        }
        let file = sealing.open(File::open(path).map_err(failed)?).map_err(failed)?;
        let file = file.file();
        file.set_permissions(Permissions::from_mode(0o400)).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        for directory in below.ancestors().skip(1) {
            let directory = self.0.directory.join(directory);
            File::open(&directory)
                .and_then(|held| held.sync_all())
                .map_err(|error| DropError::io(&directory, error))?;
        }
        Ok((name.to_owned(), metadata.modified().map_err(failed)?))
    }

    /// Where a row's file is.
    fn staged(&self, staging: &str) -> PathBuf {
        self.0.directory.join(staging)
    }
}

/// What a worker says of one turn.
pub(super) enum Turn {
    /// There may be more to do at once.
    More,
    /// Nothing more until something changes.
    Done,
    /// Something failed: again a little later.
    Failed,
}

/// Work on the disk that is done in turns, on a thread that may block.
pub(super) trait Worker: Send {
    /// The network and its M are those that are used, while there is one.
    fn turn(&mut self, network: Option<&(NetworkId, usize)>, stop: &AtomicBool) -> Turn;
}

/// Those that need no network to ask: they make boxes of files, files of boxes, and delete files that nobody needs.
pub(super) fn workers(drops: &Drops, shared: &Arc<Shared>, ahead: Ahead) -> [Box<dyn Worker>; 3] {
    [
        Box::new(fill::Filler::new(drops.clone(), Arc::clone(shared), ahead)),
        Box::new(assemble::Reader::new(drops.clone(), Arc::clone(shared))),
        Box::new(sweep::Sweeper::new(drops.clone())),
    ]
}

/// Keeps the drops of one state going, until `stop` changes.
pub(super) async fn keep(drops: Drops, shared: Arc<Shared>, view: watch::Receiver<View>, stop: watch::Receiver<bool>) {
    let [fill, assemble, sweep] = workers(&drops, &shared, Ahead::default());
    tokio::join!(
        run(fill, &drops, view.clone(), stop.clone()),
        run(assemble, &drops, view.clone(), stop.clone()),
        run(sweep, &drops, view.clone(), stop.clone()),
        delete::run(drops.clone(), shared, view, stop),
    );
}

/// When there may be something to do: after a commit that touched a drop; and, since room is made by any channel, a while
/// after any other, which is then for all that came meanwhile.
struct Commits {
    of_drops: watch::Receiver<u64>,
    any: watch::Receiver<u64>,
}

impl Commits {
    fn new(store: &Store) -> Self {
        let changes = store.changes();
        Self { of_drops: changes.watch_drops(), any: changes.watch_all() }
    }

    /// What was committed so far is about to be looked at.
    fn mark_unchanged(&mut self) {
        self.of_drops.mark_unchanged();
        self.any.mark_unchanged();
    }

    /// Waits for the next one. False: the store is closed.
    async fn changed(&mut self) -> bool {
        let any = async {
            let changed = self.any.changed().await;
            if changed.is_ok() {
                sleep(A_WHILE).await;
            }
            changed
        };
        tokio::select! {
            changed = self.of_drops.changed() => changed.is_ok(),
            changed = any => changed.is_ok(),
        }
    }
}

async fn run(
    mut worker: Box<dyn Worker>,
    drops: &Drops,
    mut view: watch::Receiver<View>,
    mut stop: watch::Receiver<bool>,
) {
    let mut commits = Commits::new(&drops.0.store);
    let stopping = Arc::new(AtomicBool::new(false));
    // Told to the worker at once, in the middle of a turn too.
    let ends = async {
        let _ = stop.wait_for(|&stop| stop).await;
        stopping.store(true, Ordering::Relaxed);
    };
    let works = async {
        loop {
            commits.mark_unchanged();
            let network = view.borrow_and_update().network().cloned();
            let told = Arc::clone(&stopping);
            let turned = tokio::task::spawn_blocking(move || {
                let turn = worker.turn(network.as_ref(), &told);
                (worker, turn)
            });
            let turn;
            (worker, turn) = match turned.await {
                Ok(turned) => turned,
                // Whoever watches over the engine's tasks tells of it and starts this again.
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Err(error) => return error!(%error, "work on drops was given up"),
            };
            match turn {
                Turn::More => {}
                _ if stopping.load(Ordering::Relaxed) => return,
                Turn::Done => tokio::select! {
                    open = commits.changed() => if !open { return },
                    changed = view.changed() => if changed.is_err() { return },
                },
                Turn::Failed => sleep(AGAIN).await,
            }
        }
    };
    tokio::select! {
        () = works => {}
        () = ends => {}
    }
}
