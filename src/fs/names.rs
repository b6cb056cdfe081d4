//! Which names a new stream may have. A name that a desktop or an editor makes for itself would be sent to readers, for
//! ever: it is refused, here and in the root only.

use std::ffi::OsStr;

use super::{FsError, Node};
use crate::store::{ChannelName, NameError};

/// Whole names.
pub(super) const JUNK_NAMES: &[&str] =
    &[".DS_Store", ".directory", ".hidden", ".localized", "Desktop.ini", "Thumbs.db", "desktop.ini", "4913"];
/// Beginnings of names.
pub(super) const JUNK_STARTS: &[&str] =
    &["._", ".#", ".Spotlight-", ".Trash", ".fuse_hidden", ".goutputstream-", ".nfs", ".unison.", ".xdp-", ".~lock."];
/// Ends of names.
pub(super) const JUNK_ENDS: &[&str] = &["~", ".kate-swp", ".swo", ".swp", ".swpx", ".swx"];

/// Checks the name of a stream that is to be made, or renamed to.
pub(super) fn for_new_stream(parent: Node, name: &OsStr) -> Result<ChannelName, FsError> {
    if parent != Node::Root {
        return Err(FsError::quiet(libc::EACCES, "the control directory can only be read"));
    }
    let name = ChannelName::from_os(name).map_err(|error| {
        let errno = match error {
            NameError::TooLong => libc::ENAMETOOLONG,
            NameError::Reserved => libc::EPERM,
            NameError::NotUtf8 => libc::EILSEQ,
            NameError::Empty | NameError::Character => libc::EINVAL,
        };
        FsError::new(errno, error.to_string())
    })?;
    if is_desktop_junk(name.as_str()) {
        let text = format!("{name} looks like a desktop's or an editor's own file, and a stream cannot be unsent");
        return Err(FsError::new(libc::EPERM, text));
    }
    Ok(name)
}

pub(super) fn is_desktop_junk(name: &str) -> bool {
    JUNK_NAMES.contains(&name)
        || JUNK_STARTS.iter().any(|start| name.starts_with(start))
        || JUNK_ENDS.iter().any(|end| name.ends_with(end))
        || is_autosave(name)
}

/// `#NAME#`: Emacs.
fn is_autosave(name: &str) -> bool {
    name.len() > 2 && name.starts_with('#') && name.ends_with('#')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errno(name: &str) -> Option<i32> {
        for_new_stream(Node::Root, OsStr::new(name)).err().map(|error| error.errno)
    }

    #[test]
    fn what_desktops_and_editors_leave_is_refused_and_what_persons_write_is_not() {
        for name in [
            ".DS_Store",
            "._notes",
            ".Trash-1000",
            ".notes.swp",
            "notes~",
            ".goutputstream-A1B2C3",
            "Thumbs.db",
            "#notes#",
            ".unison.a.1c0d.unison.tmp",
        ] {
            assert_eq!(errno(name), Some(libc::EPERM), "{name}");
        }
        for name in ["notes", ".profile", "swp", "a.swap", "Trash", "sedAbCdEf", ".notes.txt.Xa92Kq", "a~b"] {
            assert_eq!(errno(name), None, "{name}");
        }
    }
}
