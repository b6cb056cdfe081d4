//! The network's own directory: one process has it, and clients find the network by what stands in it.

use std::fs::{DirBuilder, File, TryLockError};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, Mode, OFlags};

use super::LocalnetError;
use crate::thin::{Address, Config};

/// Takes the network's directory, which is made where it is missing.
pub(super) fn lock(path: &Path) -> Result<File, LocalnetError> {
    let failed = |error| LocalnetError::State { path: path.to_owned(), error };
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    let directory = own_directory(path).map_err(failed)?;
    close_to_others(&directory).map_err(failed)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let lock = rustix::fs::openat(&directory, "lock", flags, Mode::from_raw_mode(0o600));
    let lock = File::from(lock.map_err(|error| failed(error.into()))?);
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(LocalnetError::Busy { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Opens a directory that belongs to this user: in another's, files could be exchanged for links at any time.
fn own_directory(path: &Path) -> io::Result<File> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let directory = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let me = rustix::process::geteuid().as_raw();
    match directory.metadata()?.uid() {
        owner if owner == me => Ok(directory),
        owner => {
            let text =
                format!("it belongs to user {owner}, and this process runs as user {me}; name a directory of your own");
            Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
        }
    }
}

/// Takes the directory from all others where it holds a network or nothing. The mode of a directory that is used for
/// something else too is its owner's business, but nobody else may write to it.
fn close_to_others(directory: &File) -> io::Result<()> {
    let mode = directory.metadata()?.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let holds_a_network = rustix::fs::statat(directory, "localnet.db", AtFlags::SYMLINK_NOFOLLOW).is_ok();
    let is_empty =
        || Dir::read_from(directory).map(|entries| entries.flatten().all(|entry| is_no_name(entry.file_name())));
    if holds_a_network || is_empty()? {
        return directory.set_permissions(std::fs::Permissions::from_mode(0o700));
    }
    if mode & 0o022 == 0 {
        return Ok(());
    }
    let text = format!("others may write to it (its mode is {mode:o}); take that away, or name another directory");
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}

fn is_no_name(name: &std::ffi::CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

/// Written whole or not at all: a client that looks at any moment finds a configuration. Into a directory of this user
/// only, under a name that nobody can foretell, and through no link.
pub(super) fn write_config(path: &Path, address: &Address) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it has no file name"))?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let directory = OwnedFd::from(own_directory(parent)?);
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let new = format!(".pigeonfs-{:016x}.toml", u64::from_le_bytes(random));
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(&directory, &new, flags, Mode::from_raw_mode(0o600))?);
    let written = file
        .write_all(Config::new(address.clone()).to_toml().as_bytes())
        .and_then(|()| Ok(rustix::fs::renameat(&directory, &new, &directory, name)?));
    if written.is_err() {
        let _ = rustix::fs::unlinkat(&directory, &new, AtFlags::empty());
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{chown, symlink};

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).expect("there").permissions().mode() & 0o777
    }

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("ours");
    }

    #[test]
    fn a_configuration_replaces_a_link_and_nothing_that_it_points_to() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, victim) = (dir.path().join("tc.toml"), dir.path().join("victim"));
        std::fs::write(&victim, "precious").expect("written");
        symlink(&victim, &path).expect("made");
        // The names that an earlier version used.
        symlink(&victim, dir.path().join(format!("tc.toml.{}.new", std::process::id()))).expect("made");
        write_config(&path, &Address::Abstract("x".to_owned())).expect("written");
        assert_eq!(std::fs::read_to_string(&victim).expect("there"), "precious");
        assert_eq!(
            (Config::load(&path).expect("a configuration").dial.to_string().as_str(), mode(&path)),
            ("@x", 0o600)
        );
        assert_eq!(std::fs::read_dir(dir.path()).expect("there").count(), 3, "nothing else is left");
        std::fs::create_dir(dir.path().join("taken")).expect("made");
        assert!(write_config(&dir.path().join("taken"), &Address::Abstract("x".to_owned())).is_err());
        assert_eq!(std::fs::read_dir(dir.path()).expect("there").count(), 4, "nothing else is left");
    }

    #[test]
    fn the_directories_of_others_are_neither_used_nor_changed() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| {
            std::fs::create_dir(dir.path().join(name)).expect("made");
            set_mode(&dir.path().join(name), 0o755);
            dir.path().join(name)
        };
        let (empty, project, open) = (at("empty"), at("project"), at("open"));
        lock(&empty).expect("locked");
        assert_eq!(mode(&empty), 0o700);
        std::fs::write(project.join("file"), "").expect("written");
        lock(&project).expect("locked");
        assert_eq!(mode(&project), 0o755, "it is used for something else");
        std::fs::write(open.join("file"), "").expect("written");
        set_mode(&open, 0o777);
        assert!(lock(&open).expect_err("refused").to_string().contains("others may write to it"));
        if rustix::process::geteuid().is_root() {
            let foreign = at("foreign");
            chown(&foreign, Some(4242), None).expect("root");
            assert!(lock(&foreign).expect_err("refused").to_string().contains("belongs to user 4242"));
            let error =
                write_config(&foreign.join("tc.toml"), &Address::Abstract("x".to_owned())).expect_err("refused");
            assert!(error.to_string().contains("belongs to user 4242"), "{error}");
            assert_eq!((mode(&foreign), std::fs::read_dir(&foreign).expect("there").count()), (0o755, 0));
        }
        symlink(dir.path().join("elsewhere"), empty.join("link")).expect("made");
        std::fs::remove_file(empty.join("lock")).expect("there");
        std::fs::rename(empty.join("link"), empty.join("lock")).expect("renamed");
        assert!(lock(&empty).is_err(), "the lock is no link");
        assert!(!dir.path().join("elsewhere").exists());
    }
}
