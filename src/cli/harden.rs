//! What the process does to itself before anything else: no core dumps, no other process of ours may look inside, and
//! nothing that it makes can be read by others, whatever umask it was given.

use std::sync::OnceLock;

use rustix::fs::Mode;
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit, umask};

use crate::engine::control::{Failure, FailureKind};

/// What the process was started with.
static UMASK: OnceLock<u32> = OnceLock::new();

/// The permission bits that the person's umask clears, which [`process`] has replaced by a stricter one.
pub(super) fn umask_at_start() -> u32 {
    UMASK.get().copied().unwrap_or(0o077)
}

pub(super) fn process() -> Result<(), Failure> {
    let before = umask(Mode::from_raw_mode(0o077));
    let _ = UMASK.set(before.as_raw_mode() & 0o777);
    keep_from_swap();
    keep_from_cores();
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .and_then(|()| set_dumpable_behavior(DumpableBehavior::NotDumpable))
        .map_err(|error| {
            Failure::new(
                FailureKind::Failed,
                format!("this process could not be kept from leaving its memory in core dumps: {error}"),
            )
        })
}

/// Leaves all memory out of a core that is taken in spite of what follows, as a debugger of root's does: its own memory and
/// that which it maps hold the keys. Programs that are started keep that. Before the process is closed to others: then only
/// root may write there.
fn keep_from_cores() {
    // Where /proc is not mounted, what follows is what there is.
    let _ = std::fs::write("/proc/self/coredump_filter", "0");
}

/// Keeps the memory of this process, and so the keys, out of swap where that is allowed without a limit. With one, an
/// allocation above it would fail later. What is not touched takes no memory.
fn keep_from_swap() {
    if getrlimit(Resource::Memlock).current.is_none() {
        let _ = mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT);
    }
}
