//! Directories and names on the receiver's disk: what may be entered, what is made, and how a file gets its name.
//!
//! Nothing is made through a symbolic link, and nothing outside the directory that the person chose. Below it, a directory
//! is entered only if it belongs to this user and was made by an earlier `receive`: a sender who guesses the name of a
//! directory of the person's own gets another beside it.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, XattrFlags};
use rustix::io::Errno;

use super::beneath;
use crate::drop::SafeName;
use crate::engine::control::{Failure, FailureKind};
use crate::text::shown_path;

/// Names with a number that are tried; the next is random.
pub(super) const NUMBERED: u32 = 10_000;
/// Marks a directory that `receive` made, as an extended attribute; where there are none, as a file in it.
const MARK: &str = "user.pigeonfs.received";
const MARK_FILE: &str = ".pigeonfs-received";

/// Whether a directory belongs to this user.
pub(super) fn is_ours(directory: impl AsFd) -> Result<bool, Errno> {
    Ok(rustix::fs::fstat(directory)?.st_uid == rustix::process::geteuid().as_raw())
}

/// Makes a directory, or enters one that was made by an earlier run. `None`: something else has the name.
pub(super) fn make_or_enter(directory: impl AsFd, name: &str) -> Result<Option<OwnedFd>, Errno> {
    let made = match rustix::fs::mkdirat(&directory, name, Mode::from_raw_mode(0o700)) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(error) => return Err(error),
    };
    let below = match beneath::open(&directory, Path::new(name), OFlags::DIRECTORY | OFlags::RDONLY) {
        Err(Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::ACCESS) if !made => return Ok(None),
        opened => opened?,
    };
    if !is_ours(&below)? {
        return Ok(None);
    }
    if made {
        mark(&below)?;
    }
    Ok((made || is_marked(&below)).then_some(below))
}

/// Goes into a directory below, made where it is missing; where something else has the name, into one with a number.
pub(super) fn enter(directory: &OwnedFd, path: &Path, name: &SafeName) -> Result<(OwnedFd, PathBuf), Failure> {
    for count in 0..NUMBERED {
        let name = name.numbered(count);
        let path = || path.join(name.as_str());
        match make_or_enter(directory, name.as_str()) {
            Ok(Some(below)) => return Ok((below, path())),
            Ok(None) => {}
            Err(error) => return Err(cannot("be made", &path(), error)),
        }
    }
    Err(cannot("be made", &path.join(name.as_str()), Errno::EXIST))
}

fn mark(directory: &OwnedFd) -> Result<(), Errno> {
    match rustix::fs::fsetxattr(directory, MARK, b"1", XattrFlags::empty()) {
        Ok(()) => Ok(()),
        Err(_) => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(directory, MARK_FILE, flags, Mode::from_raw_mode(0o600)).map(drop)
        }
    }
}

fn is_marked(directory: &OwnedFd) -> bool {
    rustix::fs::fgetxattr(directory, MARK, &mut [0_u8; 8]).is_ok()
        || rustix::fs::statat(directory, MARK_FILE, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

/// One way to give a file its final name without replacing another file.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// A rename that the kernel refuses where the name is taken.
    NoReplace,
    /// A second link, of which the kernel says the same.
    Link,
    /// Where the file system has neither, as rclone's and s3fs's: an empty file takes the name, and is replaced.
    Claim,
}

impl Way {
    fn go(self, directory: &OwnedFd, from: &str, to: &str) -> Result<(), Errno> {
        match self {
            Self::NoReplace => rustix::fs::renameat_with(directory, from, directory, to, RenameFlags::NOREPLACE),
            Self::Link => {
                rustix::fs::linkat(directory, from, directory, to, AtFlags::empty())?;
                rustix::fs::unlinkat(directory, from, AtFlags::empty())
            }
            Self::Claim => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                drop(rustix::fs::openat(directory, to, flags, Mode::from_raw_mode(0o600))?);
                let renamed = rustix::fs::renameat(directory, from, directory, to);
                if renamed.is_err() {
                    let _ = rustix::fs::unlinkat(directory, to, AtFlags::empty());
                }
                renamed
            }
        }
    }
}

/// Gives a file its final name. Never over what is there: then it is [`Errno::EXIST`].
pub(super) fn rename(directory: &OwnedFd, from: &str, to: &str) -> Result<(), Errno> {
    first_of(&[Way::NoReplace, Way::Link, Way::Claim], directory, from, to)
}

fn first_of(ways: &[Way], directory: &OwnedFd, from: &str, to: &str) -> Result<(), Errno> {
    let mut result = Err(Errno::NOTSUP);
    for way in ways {
        result = way.go(directory, from, to);
        let unsupported = [Errno::INVAL, Errno::NOSYS, Errno::NOTSUP, Errno::PERM, Errno::NOTTY];
        if !result.is_err_and(|error| unsupported.contains(&error)) {
            break;
        }
    }
    result
}

/// What is told of a file or directory of this machine.
pub(super) fn cannot(what: &str, path: &Path, error: impl std::fmt::Display) -> Failure {
    Failure::new(FailureKind::Failed, format!("{} cannot {what}: {error}", shown_path(path)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn held(path: &Path) -> OwnedFd {
        rustix::fs::open(path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).expect("opened")
    }

    /// rclone and s3fs have neither of the first two, and refuse them with different errors.
    #[test]
    fn each_way_gives_the_name_and_replaces_nothing() {
        for way in [Way::NoReplace, Way::Link, Way::Claim] {
            let dir = tempfile::tempdir().expect("a directory");
            std::fs::write(dir.path().join("new"), "new").expect("written");
            std::fs::write(dir.path().join("taken"), "taken").expect("written");
            symlink("/nowhere", dir.path().join("link")).expect("made");
            let directory = held(dir.path());
            for name in ["taken", "link"] {
                assert_eq!(first_of(&[way], &directory, "new", name), Err(Errno::EXIST), "{way:?} {name}");
            }
            assert_eq!(first_of(&[way], &directory, "new", "free"), Ok(()), "{way:?}");
            let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).ok();
            assert_eq!((read("free").as_deref(), read("taken").as_deref()), (Some("new"), Some("taken")), "{way:?}");
            assert_eq!(read("new"), None, "{way:?}");
        }
    }

    #[test]
    fn only_what_receive_made_is_entered_and_never_a_link() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join("mine")).expect("made");
        symlink(dir.path().join("mine"), dir.path().join("link")).expect("made");
        std::fs::write(dir.path().join("file"), "").expect("written");
        let directory = held(dir.path());
        let at = |name: &str| enter(&directory, dir.path(), &SafeName::of(name)).expect("entered").1;
        for name in ["mine", "link", "file"] {
            assert_eq!(at(name), dir.path().join(format!("{name}~1")));
            assert_eq!(at(name), dir.path().join(format!("{name}~1")), "the same again");
        }
        assert_eq!(at("new"), dir.path().join("new"));
        assert_eq!(at("new"), dir.path().join("new"));
        assert_eq!(std::fs::read_dir(dir.path().join("mine")).expect("there").count(), 0);
    }
}
