//! Failures on their way to a caller: each becomes an errno, and those that are worth telling become lines of the log.
//! Of refusals of one kind the first is told, with its file; those that follow are counted, and the number is told when
//! some time has passed. A program that tries ten thousand times makes two lines.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tracing::{debug, warn};

use super::reply::{Answer, Reply};
use crate::fs::{Fs, FsError, Node};

/// For how long refusals of a kind that was told are counted.
const COUNTED_FOR: Duration = Duration::from_secs(60);

/// What an operation is about.
pub(super) enum About {
    Node(Node),
    Name(Node, OsString),
    /// An open file.
    Handle(u64),
}

impl About {
    pub(super) fn node(node: Node) -> Self {
        Self::Node(node)
    }

    pub(super) fn name(parent: Node, name: &OsStr) -> Self {
        Self::Name(parent, name.to_owned())
    }

    /// As a path from the mount's own directory, which a terminal may print.
    fn shown(&self, fs: &Fs) -> String {
        let path = match self {
            Self::Node(node) => fs.path_of(*node),
            Self::Handle(handle) => fs.node_of(*handle).map_or_else(String::new, |node| fs.path_of(node)),
            Self::Name(Node::Root, name) => name.to_string_lossy().into_owned(),
            Self::Name(parent, name) => format!("{}/{}", fs.path_of(*parent), name.to_string_lossy()),
        };
        path.escape_debug().to_string()
    }
}

/// The refusals of a mount.
pub(in crate::mount) struct Refusals {
    fs: Arc<Fs>,
    runtime: Handle,
    /// By operation and errno, those that were not told one by one.
    counted: Mutex<HashMap<(&'static str, i32), Counted>>,
}

#[derive(Default)]
struct Counted {
    count: u64,
    /// The file of the newest.
    last: String,
}

impl Refusals {
    pub(in crate::mount) fn new(fs: Arc<Fs>, runtime: Handle) -> Self {
        Self { fs, runtime, counted: Mutex::default() }
    }

    /// Answers with the errno of a failure, and tells of it.
    pub(super) fn refuse<R: Answer>(
        self: &Arc<Self>,
        operation: &'static str,
        about: &About,
        reply: Reply<R>,
        error: &FsError,
    ) {
        reply.error(error.errno);
        if error.worth_telling {
            let file = about.shown(&self.fs);
            if self.is_first(operation, error.errno, &file) {
                warn!(operation, file, "{error}");
                self.tell_count_later(operation, error.errno);
            }
        } else {
            debug!(operation, "{error}");
        }
    }

    /// Whether a refusal is to be told; else it is counted.
    fn is_first(&self, operation: &'static str, errno: i32, file: &str) -> bool {
        let mut counted = self.lock();
        match counted.get_mut(&(operation, errno)) {
            Some(counted) => {
                counted.count += 1;
                file.clone_into(&mut counted.last);
                false
            }
            None => {
                counted.insert((operation, errno), Counted::default());
                true
            }
        }
    }

    fn tell_count_later(self: &Arc<Self>, operation: &'static str, errno: i32) {
        let refusals = Arc::downgrade(self);
        self.runtime.spawn(async move {
            tokio::time::sleep(COUNTED_FOR).await;
            if let Some(refusals) = refusals.upgrade() {
                let counted = refusals.lock().remove(&(operation, errno));
                if let Some(counted) = counted {
                    counted.tell(operation, errno);
                }
            }
        });
    }

    /// Tells what was counted so far, at the end of a mount.
    pub(in crate::mount) fn tell_counts(&self) {
        for ((operation, errno), counted) in self.lock().drain() {
            counted.tell(operation, errno);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(&'static str, i32), Counted>> {
        // Nothing panics while it is held.
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counted {
    fn tell(&self, operation: &'static str, errno: i32) {
        if self.count > 0 {
            let error = std::io::Error::from_raw_os_error(errno);
            warn!(operation, file = self.last, "refused {} more times, the last for this file: {error}", self.count);
        }
    }
}
