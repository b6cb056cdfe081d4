//! Opening what lies below a directory that is held, through no link on the way.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Opens `path`, which is relative, below `directory`. A symbolic link anywhere in it, and a way up, is an error.
pub(crate) fn open(directory: impl AsFd, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(&directory, path, flags, Mode::empty(), resolve) {
        // An old kernel, or a sandbox that does not know the call.
        Err(Errno::NOSYS | Errno::PERM) => one_by_one(directory, path, flags),
        opened => opened,
    }
}

/// The same a part at a time.
fn one_by_one(directory: impl AsFd, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let mut held = rustix::io::fcntl_dupfd_cloexec(directory, 0)?;
    let mut parts = path.components().filter(|part| *part != Component::CurDir).peekable();
    while let Some(part) = parts.next() {
        let Component::Normal(name) = part else { return Err(Errno::XDEV) };
        let way = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let flags = if parts.peek().is_some() { way } else { flags };
        held = rustix::fs::openat(&held, name, flags, Mode::empty())?;
    }
    Ok(held)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn no_link_is_followed_and_there_is_no_way_up() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("top/sub")).expect("made");
        std::fs::write(at("secret"), "secret").expect("written");
        std::fs::write(at("top/sub/file"), "file").expect("written");
        symlink(at("secret"), at("top/link")).expect("made");
        symlink("sub", at("top/way")).expect("made");
        let top = rustix::fs::open(at("top"), OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()).expect("opened");
        for way in [open, one_by_one] as [fn(_, &Path, OFlags) -> _; 2] {
            let opens = |path: &str| way(&top, Path::new(path), OFlags::RDONLY | OFlags::NOFOLLOW).is_ok();
            assert!(opens("sub/file") && opens("./sub") && opens("sub"));
            for path in ["link", "way/file", "../secret", "sub/../../secret", "/etc/passwd", "absent"] {
                assert!(!opens(path), "{path}");
            }
        }
    }
}
