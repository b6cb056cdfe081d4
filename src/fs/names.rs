//! Which names a new stream may have. A name that a desktop makes for itself would be sent to readers for ever.

use std::ffi::OsStr;

use super::{FsError, Node};
use crate::store::{ChannelName, NameError};

/// Checks the name of a stream that is to be made, or renamed to.
pub(super) fn for_new_stream(parent: Node, name: &OsStr) -> Result<ChannelName, FsError> {
    if parent != Node::Root {
        return Err(FsError::quiet(libc::EPERM, "the control directory can only be read"));
    }
    let name = ChannelName::from_os(name).map_err(|error| {
        let errno = match error {
            NameError::TooLong => libc::ENAMETOOLONG,
            NameError::Reserved => libc::EPERM,
            _ => libc::EINVAL,
        };
        FsError::new(errno, error.to_string())
    })?;
    if is_desktop_junk(name.as_str()) {
        let text = format!("{name} looks like a desktop's or an editor's own file, and a stream cannot be unsent");
        return Err(FsError::new(libc::EPERM, text));
    }
    Ok(name)
}

fn is_desktop_junk(name: &str) -> bool {
    const NAMES: &[&str] = &[".DS_Store", ".directory", "Thumbs.db", "desktop.ini", ".hidden"];
    const STARTS: &[&str] = &["._", ".Trash", ".goutputstream-", ".~lock.", ".nfs", ".fuse_hidden", ".#"];
    const ENDS: &[&str] = &["~", ".swp", ".swo", ".swx"];
    NAMES.contains(&name)
        || STARTS.iter().any(|start| name.starts_with(start))
        || ENDS.iter().any(|end| name.ends_with(end))
}
