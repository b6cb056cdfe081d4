//! Sealing a state that is there, and unsealing one: in place, and killed at any point it is the one or the other.
//!
//! What the state is to become is made beside what it is. `seal.json` decides which of the two counts: it is put there, or
//! removed, in one step, and from then on the other files only have to take their places. Whoever takes the state next
//! finishes that, or removes what was made for nothing; neither needs the key.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rustix::fs::OFlags;

use super::header::{FILE, NEW, Passphrase, SealError, SealHeader};
use super::{Sealing, StateKey};
use crate::store::place::Place;
use crate::store::private_dir::{PrivateDir, PrivateDirError};
use crate::store::state_dir::{DATABASE, StateDir};

/// What a state is to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Sealed,
    Plain,
}

impl Target {
    const fn database(self) -> &'static str {
        match self {
            Self::Sealed => "pigeonfs.db.sealed",
            Self::Plain => "pigeonfs.db.plain",
        }
    }

    const fn drops(self) -> &'static str {
        match self {
            Self::Sealed => "drops.sealed",
            Self::Plain => "drops.plain",
        }
    }
}

const DROPS: &str = "drops";
const OLD_DROPS: &str = "drops.old";
/// What a sealed state does not have.
const LOGS: &[&str] = &["mount.log", "mount.log.old"];
const CHUNK_BYTES: usize = 1 << 20;
/// In the directory of staged files of a mount: not one of them.
const BOOT: &str = "boot";

/// Every name that this leaves in a state directory between two steps.
pub(in crate::store) const BETWEEN: &[&str] = &[
    FILE,
    NEW,
    Target::Sealed.database(),
    Target::Plain.database(),
    Target::Sealed.drops(),
    Target::Plain.drops(),
    OLD_DROPS,
];

/// Seals a state, or gives a sealed one that is unlocked another passphrase.
///
/// # Errors
/// What failed. The state is as it was, or sealed.
pub fn seal(state: &StateDir, passphrase: &Passphrase) -> Result<(), SealError> {
    let dir = state.dir();
    if SealHeader::read(dir)?.is_some() {
        let key = state.key().ok_or_else(|| SealError::NoKey { path: state.path().to_owned() })?;
        return SealHeader::new(dir, key, passphrase)?.write(dir);
    }
    let key = StateKey::random()?;
    let header = SealHeader::new(dir, &key, passphrase)?;
    prepare(dir, Target::Sealed, &Sealing::default(), &Sealing::with(&key)).inspect_err(|_| drop(settle(dir)))?;
    header.write(dir)?;
    Ok(settle(dir)?)
}

/// Unseals a state that is unlocked.
///
/// # Errors
/// What failed. The state is as it was, or unsealed.
pub fn unseal(state: &StateDir) -> Result<(), SealError> {
    let dir = state.dir();
    let path = || state.path().to_owned();
    if SealHeader::read(dir)?.is_none() {
        return Err(SealError::NotSealed { path: path() });
    }
    let key = state.key().ok_or_else(|| SealError::NoKey { path: path() })?;
    prepare(dir, Target::Plain, &Sealing::with(key), &Sealing::default()).inspect_err(|_| drop(settle(dir)))?;
    dir.remove_file(FILE)?;
    dir.sync()?;
    Ok(settle(dir)?)
}

/// Has the files of a state take their places after it was sealed or unsealed, and removes what is left of a try. Called
/// by whoever has just taken the state.
pub(in crate::store) fn settle(dir: &PrivateDir) -> Result<(), PrivateDirError> {
    let (target, other) =
        if dir.stat(FILE)?.is_some() { (Target::Sealed, Target::Plain) } else { (Target::Plain, Target::Sealed) };
    take_places(dir, target)?;
    for name in [other.database().to_owned(), format!("{}-journal", other.database()), NEW.to_owned()] {
        remove(dir, &name, target)?;
    }
    remove_tree(dir, other.drops(), target)?;
    if target == Target::Sealed {
        for name in LOGS {
            remove(dir, name, target)?;
        }
    }
    Ok(())
}

fn take_places(dir: &PrivateDir, target: Target) -> Result<(), PrivateDirError> {
    if dir.stat(target.database())?.is_some() {
        // The log was emptied into the database before that was copied. One that stayed would be taken for the new one's.
        for name in ["pigeonfs.db-wal", "pigeonfs.db-shm"] {
            remove(dir, name, target)?;
        }
        if target == Target::Sealed && dir.stat(DATABASE)?.is_some() {
            wipe(dir, DATABASE)?;
        }
        dir.rename(target.database(), DATABASE)?;
        dir.sync()?;
    }
    if dir.stat(target.drops())?.is_some() {
        if dir.stat(DROPS)?.is_some() {
            dir.rename(DROPS, OLD_DROPS)?;
        }
        dir.rename(target.drops(), DROPS)?;
        dir.sync()?;
    }
    remove_tree(dir, OLD_DROPS, target)
}

/// Makes what the state is to become, beside what it is, and safe on the disk.
fn prepare(dir: &PrivateDir, target: Target, from: &Sealing, to: &Sealing) -> Result<(), SealError> {
    copy_database(dir, target, from, to)?;
    if dir.stat(DROPS)?.is_some() {
        let mut copy = Copy { from, to, links: HashMap::new() };
        let (old, new) = (dir.dir(DROPS)?, dir.make_dir(target.drops())?);
        copy.directory(&old, &new, Path::new(""))?;
    }
    Ok(dir.sync()?)
}

fn copy_database(dir: &PrivateDir, target: Target, from: &Sealing, to: &Sealing) -> Result<(), SealError> {
    let place = Place::new(dir.clone(), None, from.clone());
    // Brings it to the newest schema, too.
    let db = place.open().map_err(|error| SealError::Machine { reason: error.to_string() })?;
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    let new = dir.file(target.database(), OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC)?;
    let path = dir.through_descriptor().join(target.database());
    let path = path.to_str().ok_or_else(|| SealError::Machine { reason: "its path is no text".to_owned() })?;
    let key = to.database_key().unwrap_or_default();
    db.pragma_update(None, "foreign_keys", false)?;
    db.execute("ATTACH DATABASE ?1 AS other KEY ?2", (path, key.as_str()))?;
    db.pragma_update(Some("other"), "auto_vacuum", "INCREMENTAL")?;
    db.query_row("SELECT sqlcipher_export('other')", [], |_| Ok(()))?;
    for pragma in ["user_version", "application_id"] {
        let value: i64 = db.pragma_query_value(None, pragma, |row| row.get(0))?;
        db.pragma_update(Some("other"), pragma, value)?;
    }
    let tables = |schema: &str| -> rusqlite::Result<i64> {
        db.query_row(&format!("SELECT count(*) FROM {schema}.sqlite_schema"), [], |row| row.get(0))
    };
    let sound: String = db.query_row("PRAGMA other.quick_check(1)", [], |row| row.get(0))?;
    if tables("main")? != tables("other")? || sound != "ok" {
        return Err(SealError::Machine { reason: format!("the copy of the database is not sound: {sound}") });
    }
    db.execute("DETACH DATABASE other", [])?;
    close(db)?;
    Ok(new.sync_all()?)
}

fn close(db: Connection) -> Result<(), SealError> {
    db.close().map_err(|(_, error)| error.into())
}

/// Copies staged files, each once, with the names that they have.
struct Copy<'a> {
    from: &'a Sealing,
    to: &'a Sealing,
    /// Files with several names: where the first copy is.
    links: HashMap<u64, (PrivateDir, PathBuf)>,
}

impl Copy<'_> {
    fn directory(&mut self, old: &PrivateDir, new: &PrivateDir, path: &Path) -> Result<(), SealError> {
        for name in old.names()? {
            let Some(found) = old.stat(&name)? else { continue };
            let renamed = self.renamed(path, &name)?;
            let path = path.join(&name);
            if rustix::fs::FileType::from_raw_mode(found.st_mode).is_dir() {
                self.directory(&old.dir(&name)?, &new.make_dir(&renamed)?, &path)?;
                continue;
            }
            if let Some((dir, first)) = self.links.get(&found.st_ino) {
                rustix::fs::linkat(dir, first, new, &renamed, rustix::fs::AtFlags::empty())
                    .map_err(|error| SealError::from(io::Error::from(error)))?;
                continue;
            }
            let copied = new.file(&renamed, OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC)?;
            self.file(&readable(old, &name)?, copied, &path)?;
            if found.st_nlink > 1 {
                self.links.insert(found.st_ino, (new.clone(), renamed));
            }
        }
        Ok(new.sync()?)
    }

    /// Names of the mount are below `mount/CHANNEL/tree`; all others say nothing.
    fn renamed(&self, path: &Path, name: &std::ffi::OsStr) -> Result<PathBuf, SealError> {
        let parts: Vec<_> = path.iter().collect();
        let in_mount = parts.len() >= 3 && parts[0] == "mount" && parts[2] == "tree";
        if !in_mount {
            return Ok(name.into());
        }
        // A name that is none of ours is one of nobody's.
        let Some(plain) = self.from.plain_name(name) else { return Ok(name.into()) };
        let sealed = self.to.name(&plain).map_err(|error| SealError::Machine {
            reason: format!(
                "the file {plain:?} that is not sent yet cannot be kept sealed ({error}): rename or remove it"
            ),
        })?;
        Ok(sealed.into())
    }

    fn file(&self, old: &File, new: File, path: &Path) -> Result<(), SealError> {
        let found = old.metadata()?;
        let is_staged = path.file_name() != Some(BOOT.as_ref());
        let keep = new.try_clone()?;
        if is_staged {
            let copied = match self.from.open(old.try_clone()?) {
                Ok(old) => copy_content(&old, &self.to.create(new)?),
                // What was begun and is not readable was nobody's yet.
                Err(error) if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) => {
                    self.to.create(new).map(drop)
                }
                Err(error) => Err(error),
            };
            copied?;
        } else {
            let mut bytes = vec![0; usize::try_from(found.len()).unwrap_or(0).min(CHUNK_BYTES)];
            old.read_exact_at(&mut bytes, 0)?;
            (&new).write_all(&bytes)?;
        }
        if found.uid() != rustix::process::geteuid().as_raw() || found.gid() != rustix::process::getegid().as_raw() {
            std::os::unix::fs::fchown(&keep, Some(found.uid()), Some(found.gid()))?;
        }
        keep.set_permissions(std::fs::Permissions::from_mode(found.mode() & 0o7777))?;
        keep.set_times(std::fs::FileTimes::new().set_modified(found.modified()?).set_accessed(found.accessed()?))?;
        Ok(keep.sync_all()?)
    }
}

/// Opens a file of ours whose bits may not let even us read it.
fn readable(dir: &PrivateDir, name: &std::ffi::OsStr) -> Result<File, SealError> {
    match dir.file(name, OFlags::RDONLY) {
        Err(PrivateDirError::Io { error, .. }) if error.kind() == io::ErrorKind::PermissionDenied => {}
        opened => return Ok(opened?),
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let held = rustix::fs::openat(dir, name, flags, rustix::fs::Mode::empty()).map_err(io::Error::from)?;
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&held));
    let mode = std::fs::metadata(&path)?.permissions().mode() & 0o7777;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode | 0o400))?;
    let opened = dir.file(name, OFlags::RDONLY);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
    Ok(opened?)
}

fn copy_content(old: &super::StagedFile, new: &super::StagedFile) -> io::Result<()> {
    let mut bytes = vec![0; CHUNK_BYTES];
    let mut at = 0;
    loop {
        let count = old.read_at(&mut bytes, at)?;
        if count == 0 {
            return new.set_len(at);
        }
        // Holes stay holes.
        if bytes[..count].iter().any(|&byte| byte != 0) {
            new.write_all_at(&bytes[..count], at)?;
        }
        at += count as u64;
    }
}

/// Removes a file, and what it holds where it held it as it is.
fn remove(dir: &PrivateDir, name: &str, target: Target) -> Result<(), PrivateDirError> {
    if dir.stat(name)?.is_none() {
        return Ok(());
    }
    if target == Target::Sealed {
        wipe(dir, name)?;
    }
    dir.remove_file(name)
}

fn remove_tree(dir: &PrivateDir, name: &str, target: Target) -> Result<(), PrivateDirError> {
    let tree = match dir.dir(name) {
        Err(PrivateDirError::Missing { .. }) => return Ok(()),
        tree => tree?,
    };
    for entry in tree.names()? {
        let Some(found) = tree.stat(&entry)? else { continue };
        let Some(text) = entry.to_str() else {
            tree.remove_file(&entry)?;
            continue;
        };
        if rustix::fs::FileType::from_raw_mode(found.st_mode).is_dir() {
            remove_tree(&tree, text, target)?;
        } else {
            remove(&tree, text, target)?;
        }
    }
    dir.remove_dir(name)
}

/// Overwrites a file. On most disks this leaves nothing of it; flash and file systems that copy on write may keep the
/// old blocks for a while.
fn wipe(dir: &PrivateDir, name: &str) -> Result<(), PrivateDirError> {
    let path = dir.path().join(name);
    let failed = |error| PrivateDirError::Io { path: path.clone(), error };
    // One that may not be written is removed as it is.
    let Ok(file) = dir.file(name, OFlags::WRONLY) else { return Ok(()) };
    let zeros = vec![0; CHUNK_BYTES];
    let length = file.metadata().map_err(failed)?.len();
    let mut at = 0;
    while at < length {
        let count = usize::try_from(length - at).unwrap_or(usize::MAX).min(zeros.len());
        file.write_all_at(&zeros[..count], at).map_err(failed)?;
        at += count as u64;
    }
    file.sync_data().map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use zeroize::Zeroizing;

    use super::*;
    use crate::bacap::WriteCap;
    use crate::store::{ChannelName, Limits, Store};

    const NAME: &str = "very-secret-name";
    const CONTENT: &[u8] = b"very secret content";

    fn passphrase(text: &str) -> Passphrase {
        Passphrase::new(Zeroizing::new(text.as_bytes().to_vec())).unwrap()
    }

    /// A state with a stream, and two staged files of a drop, one of which has two names.
    fn filled(path: &Path) -> StateDir {
        let state = StateDir::lock(path).unwrap();
        let store = Store::open(&state, Limits::default()).unwrap();
        let id = store.create_stream(ChannelName::parse(NAME).unwrap(), WriteCap::from_seed(&[3; 32])).wait().unwrap();
        store.append(id, CONTENT.to_vec(), None).wait().unwrap();
        store.close();
        let tree = state.dir().make_dir("drops/mount/7/tree").unwrap();
        let sent = state.dir().make_dir("drops/mount/7/sent").unwrap();
        tree.make_dir(NAME).unwrap();
        for name in ["first-secret", "second-secret"] {
            tree.file(name, OFlags::WRONLY | OFlags::CREATE).unwrap().write_all(CONTENT).unwrap();
        }
        rustix::fs::linkat(&tree, "first-secret", &sent, "00ff", rustix::fs::AtFlags::empty()).unwrap();
        let boot = state.dir().dir("drops/mount").unwrap().file(BOOT, OFlags::WRONLY | OFlags::CREATE);
        boot.unwrap().write_all(b"boot id").unwrap();
        state.dir().file("mount.log", OFlags::WRONLY | OFlags::CREATE).unwrap().write_all(NAME.as_bytes()).unwrap();
        state
    }

    /// It holds what was filled in, sealed or not; what is on the disk says so, and nothing of a try is left.
    fn check(path: &Path, sealed: Option<&Passphrase>) {
        let state = StateDir::lock(path).unwrap();
        let header = state.seal_header().unwrap();
        assert_eq!(header.is_some(), sealed.is_some());
        if let (Some(header), Some(passphrase)) = (header, sealed) {
            state.unlock(header.open(passphrase).unwrap());
        }
        let store = Store::open(&state, Limits::default()).unwrap();
        let channel = store.by_name(&ChannelName::parse(NAME).unwrap()).unwrap().unwrap();
        assert_eq!(store.read(channel.id, 0, 100).unwrap(), CONTENT);
        let tree = path.join("drops/mount/7/tree");
        let sealing = store.sealing();
        for name in ["first-secret", "second-secret"] {
            let file = File::open(tree.join(sealing.name(name).unwrap())).unwrap();
            let mut bytes = vec![0; 100];
            let count = sealing.open(file).unwrap().read_at(&mut bytes, 0).unwrap();
            assert_eq!(&bytes[..count], CONTENT);
        }
        let linked = std::fs::metadata(path.join("drops/mount/7/sent/00ff")).unwrap();
        let first = std::fs::metadata(tree.join(sealing.name("first-secret").unwrap())).unwrap();
        assert_eq!((linked.ino(), linked.nlink()), (first.ino(), 2));
        assert!(tree.join(sealing.name(NAME).unwrap()).is_dir());
        assert_eq!(std::fs::read(path.join("drops/mount/boot")).unwrap(), b"boot id");
        store.close();
        for name in BETWEEN.iter().filter(|name| **name != FILE) {
            assert!(!path.join(name).exists(), "{name} is left");
        }
        assert_eq!(is_plain(path), sealed.is_none());
    }

    /// Whether something of the state is there to be read, or to be listed.
    fn is_plain(path: &Path) -> bool {
        let secret = |bytes: &[u8]| {
            let has = |piece: &[u8]| bytes.windows(piece.len()).any(|window| window == piece);
            has(b"secret")
        };
        std::fs::read_dir(path).unwrap().flatten().any(|entry| {
            let name = entry.file_name();
            secret(std::os::unix::ffi::OsStrExt::as_bytes(name.as_os_str()))
                || if entry.path().is_dir() {
                    is_plain(&entry.path())
                } else {
                    secret(&std::fs::read(entry.path()).unwrap())
                }
        })
    }

    #[test]
    fn a_state_is_sealed_gets_another_key_and_is_unsealed() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("state");
        let (one, two) = (passphrase("one"), passphrase("two"));
        seal(&filled(&path), &one).unwrap();
        check(&path, Some(&one));
        let state = StateDir::lock(&path).unwrap();
        assert_eq!(seal(&state, &two), Err(SealError::NoKey { path: path.clone() }));
        state.unlock(state.seal_header().unwrap().unwrap().open(&one).unwrap());
        seal(&state, &two).unwrap();
        drop(state);
        check(&path, Some(&two));
        let state = StateDir::lock(&path).unwrap();
        state.unlock(state.seal_header().unwrap().unwrap().open(&two).unwrap());
        unseal(&state).unwrap();
        assert_eq!(unseal(&state), Err(SealError::NotSealed { path: path.clone() }));
        drop(state);
        check(&path, None);
    }

    /// Each place in which the process may die.
    #[test]
    fn whoever_dies_while_it_seals_leaves_a_state_that_is_sealed_or_not() {
        let one = passphrase("one");
        for dies_after in 0..6 {
            let place = tempfile::tempdir().unwrap();
            let path = place.path().join("state");
            let state = filled(&path);
            let (dir, key) = (state.dir(), StateKey::random().unwrap());
            let steps: [&dyn Fn(); 6] = [
                &|| copy_database(dir, Target::Sealed, &Sealing::default(), &Sealing::with(&key)).unwrap(),
                &|| prepare(dir, Target::Sealed, &Sealing::default(), &Sealing::with(&key)).unwrap(),
                &|| SealHeader::new(dir, &key, &one).unwrap().write(dir).unwrap(),
                &|| wipe(dir, DATABASE).unwrap(),
                &|| dir.rename(Target::Sealed.database(), DATABASE).unwrap(),
                &|| dir.rename(DROPS, OLD_DROPS).unwrap(),
            ];
            steps[..=dies_after].iter().for_each(|step| step());
            drop(state);
            check(&path, (dies_after >= 2).then_some(&one));
        }
    }

    #[test]
    fn whoever_dies_while_it_unseals_leaves_a_state_that_is_sealed_or_not() {
        let one = passphrase("one");
        for dies_after in 0..4 {
            let place = tempfile::tempdir().unwrap();
            let path = place.path().join("state");
            let state = filled(&path);
            seal(&state, &one).unwrap();
            let dir = state.dir();
            let key = state.seal_header().unwrap().unwrap().open(&one).unwrap();
            let steps: [&dyn Fn(); 4] = [
                &|| prepare(dir, Target::Plain, &Sealing::with(&key), &Sealing::default()).unwrap(),
                &|| dir.remove_file(FILE).unwrap(),
                &|| dir.rename(Target::Plain.database(), DATABASE).unwrap(),
                &|| dir.rename(DROPS, OLD_DROPS).unwrap(),
            ];
            steps[..=dies_after].iter().for_each(|step| step());
            drop(state);
            check(&path, (dies_after < 1).then_some(&one));
        }
    }
}
