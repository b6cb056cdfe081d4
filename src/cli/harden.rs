//! What the process does to itself before anything else: no core dumps, no other process of ours may look inside, and
//! nothing that it makes can be read by others, whatever umask it was given.

use rustix::fs::Mode;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit, umask};

use crate::engine::control::{Failure, FailureKind};

pub(super) fn process() -> Result<(), Failure> {
    umask(Mode::from_raw_mode(0o077));
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .and_then(|()| set_dumpable_behavior(DumpableBehavior::NotDumpable))
        .map_err(|error| {
            Failure::new(
                FailureKind::Failed,
                format!("this process could not be kept from leaving its memory in core dumps: {error}"),
            )
        })
}
