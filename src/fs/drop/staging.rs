//! Files on this machine's disk that are in a drop and no record yet.
//!
//! ```text
//! STATE/drops/mount/boot             which start of the machine the marks below are of
//! STATE/drops/mount/CHANNEL/tree/…   files and directories under the names that they have in the mount
//! STATE/drops/mount/CHANNEL/sent/N   the bytes of records, until replicas have them
//! ```
//!
//! A name on the disk is a name in the mount (in a sealed state, the same encrypted), so a rename is one, and a crash loses no name. When a file is handed over it
//! gets a second link in `sent`, which the record's row names, and then loses the first; a crash in between leaves both,
//! and the row decides.
//!
//! The sticky bit marks a file that its last writer closed in order. It says nothing of what has come to the disk, so it
//! counts only as long as the machine has not been started anew.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::store::{ChannelId, Sealing, StagedFile};

const FINISHED: u32 = 0o1000;
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Where the files of all drops are, relative to the engine's directory of drops.
pub(super) const MOUNT: &str = "mount";

/// The files of one drop.
#[derive(Clone, Debug)]
pub(super) struct Staging {
    root: PathBuf,
    sealing: Sealing,
}

/// Something that lay there when the mount began.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Directory,
    File {
        bytes: u64,
        /// Bytes that it takes of the disk, where those are fewer.
        held: u64,
        /// Marked as closed in order.
        finished: bool,
        /// Its second link, where it has one.
        sent: Option<PathBuf>,
    },
}

/// Whether marks that are found are of this start of the machine; from now on they are.
pub(super) fn is_same_boot(mount: &Path) -> io::Result<bool> {
    let now = fs::read(BOOT_ID).unwrap_or_default();
    let kept = mount.join("boot");
    let same = !now.is_empty() && fs::read(&kept).is_ok_and(|then| then == now);
    if !same {
        make(mount)?;
        fs::write(&kept, &now)?;
        fs::set_permissions(&kept, Permissions::from_mode(0o600))?;
    }
    Ok(same)
}

impl Staging {
    /// Of this drop, below the directory `mount`.
    pub(super) fn of(mount: &Path, drop: ChannelId, sealing: &Sealing) -> Self {
        Self { root: mount.join(drop.0.to_string()), sealing: sealing.clone() }
    }

    fn tree(&self) -> PathBuf {
        self.root.join("tree")
    }

    fn sent(&self) -> PathBuf {
        self.root.join("sent")
    }

    /// Where a file or directory with these names is.
    ///
    /// # Errors
    /// A name is too long to be sealed.
    pub(super) fn path(&self, names: &[impl AsRef<str>]) -> io::Result<PathBuf> {
        names.iter().try_fold(self.tree(), |path, name| Ok(path.join(self.sealing.name(name.as_ref())?)))
    }

    /// Makes a file that is not there yet; says it is open for reading and writing.
    pub(super) fn create(&self, names: &[impl AsRef<str>], mode: u32) -> io::Result<StagedFile> {
        let path = self.path(names)?;
        self.with_parent(&path, |path| {
            OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
        })
        .and_then(|file| {
            let file = self.sealing.create(file)?;
            file.file().set_permissions(Permissions::from_mode(mode & 0o777))?;
            Ok(file)
        })
    }

    /// Opens a file. Whoever opens it for writing takes its mark.
    pub(super) fn open(&self, names: &[impl AsRef<str>], writes: bool) -> io::Result<StagedFile> {
        let path = self.path(names)?;
        if !writes {
            return self.sealing.open(File::open(path)?);
        }
        let mode = fs::metadata(&path)?.mode() & 0o777;
        fs::set_permissions(&path, Permissions::from_mode(mode | 0o200))?;
        let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(&path)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        self.sealing.open(file)
    }

    /// Marks a file as closed in order, or as not.
    pub(super) fn mark(&self, names: &[impl AsRef<str>], finished: bool) -> io::Result<()> {
        let path = self.path(names)?;
        let mode = fs::metadata(&path)?.mode() & 0o777;
        fs::set_permissions(&path, Permissions::from_mode(if finished { mode | FINISHED } else { mode }))
    }

    /// Changes permission bits, and leaves the mark.
    pub(super) fn set_mode(&self, names: &[impl AsRef<str>], mode: u32) -> io::Result<()> {
        let path = self.path(names)?;
        let mark = fs::metadata(&path)?.mode() & FINISHED;
        fs::set_permissions(&path, Permissions::from_mode((mode & 0o777) | mark))
    }

    pub(super) fn make_directory(&self, names: &[impl AsRef<str>]) -> io::Result<()> {
        self.with_parent(&self.path(names)?, |path| DirBuilder::new().mode(0o700).create(path))
    }

    /// Moves within the drop. What is at the new name goes, or changes places.
    pub(super) fn rename(&self, old: &[impl AsRef<str>], new: &[impl AsRef<str>], exchange: bool) -> io::Result<()> {
        let old = self.path(old)?;
        self.with_parent(&self.path(new)?, |new| {
            if exchange {
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(rustix::fs::CWD, &old, rustix::fs::CWD, new, flags)?;
                return Ok(());
            }
            fs::rename(&old, new)
        })
    }

    pub(super) fn remove_file(&self, names: &[impl AsRef<str>]) -> io::Result<()> {
        allow_missing(fs::remove_file(self.path(names)?))
    }

    pub(super) fn remove_directory(&self, names: &[impl AsRef<str>]) -> io::Result<()> {
        allow_missing(fs::remove_dir(self.path(names)?))
    }

    /// Makes a file's bytes and its name last through a power cut.
    pub(super) fn sync(&self, file: &StagedFile, names: &[impl AsRef<str>]) -> io::Result<()> {
        file.sync_all()?;
        let path = self.path(names)?;
        for directory in path.ancestors().skip(1).take_while(|directory| directory.starts_with(&self.root)) {
            File::open(directory)?.sync_all()?;
        }
        self.root.parent().map_or(Ok(()), |mount| File::open(mount)?.sync_all())
    }

    /// Gives a file its second link, under which it is handed over.
    pub(super) fn link(&self, names: &[impl AsRef<str>]) -> io::Result<PathBuf> {
        make(&self.sent())?;
        let mut number = [0; 8];
        getrandom::fill(&mut number).map_err(|error| io::Error::other(error.to_string()))?;
        let sent = self.sent().join(format!("{:016x}", u64::from_le_bytes(number)));
        fs::hard_link(self.path(names)?, &sent)?;
        Ok(sent)
    }

    /// The names that lie there, each directory before what is in it. A file whose mark is of another start of the
    /// machine (`same_boot`) loses it.
    pub(super) fn found(&self, same_boot: bool) -> io::Result<Vec<(Vec<String>, Found)>> {
        let mut links = HashMap::new();
        for entry in list(&self.sent())? {
            links.insert(entry.metadata()?.ino(), entry.path());
        }
        let mut found = Vec::new();
        let mut open = vec![Vec::new()];
        while let Some(directory) = open.pop() {
            for entry in list(&self.path(&directory)?)? {
                // What was made under a name of the mount is text.
                let Some(name) = self.sealing.plain_name(&entry.file_name()) else { continue };
                let mut names: Vec<String> = directory.clone();
                names.push(name);
                let metadata = entry.metadata()?;
                if metadata.is_dir() {
                    open.push(names.clone());
                    found.push((names, Found::Directory));
                    continue;
                }
                let sent = links.get(&metadata.ino()).cloned();
                // One that was being handed over had been closed in order; its bits and its mark went then.
                if sent.is_some() {
                    self.set_mode(&names, 0o600)?;
                }
                let finished = (metadata.mode() & FINISHED != 0 || sent.is_some()) && same_boot;
                self.mark(&names, finished)?;
                let bytes = self.sealing.content_len(metadata.len());
                let held = super::open::held(bytes, &metadata);
                found.push((names, Found::File { bytes, held, finished, sent }));
            }
        }
        Ok(found)
    }

    /// The files that are handed over, or were to be.
    pub(super) fn links(&self) -> io::Result<Vec<PathBuf>> {
        Ok(list(&self.sent())?.into_iter().map(|entry| entry.path()).collect())
    }

    /// Forgets a drop that is no more.
    pub(super) fn remove(&self) -> io::Result<()> {
        allow_missing(fs::remove_dir_all(&self.root))
    }

    /// A directory may be in the mount because of what was sent, and not be on the disk.
    fn with_parent<T>(&self, path: &Path, make_it: impl Fn(&Path) -> io::Result<T>) -> io::Result<T> {
        match make_it(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                make(path.parent().unwrap_or(&self.root))?;
                make_it(path)
            }
            result => result,
        }
    }
}

/// A second open file of one that may have no name any more.
pub(in crate::fs) fn reopen(file: &StagedFile, writes: bool) -> io::Result<StagedFile> {
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file.file()));
    let mode = file.metadata()?.mode() & 0o777;
    if writes {
        file.file().set_permissions(Permissions::from_mode(mode | 0o200))?;
    }
    let opened = OpenOptions::new().read(true).write(writes).open(path)?;
    if writes {
        opened.set_permissions(Permissions::from_mode(mode))?;
    }
    Ok(file.again(opened))
}

/// The drops that have files below `mount`.
pub(super) fn drops(mount: &Path) -> io::Result<Vec<ChannelId>> {
    let entries = list(mount)?;
    Ok(entries.iter().filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(ChannelId)).collect())
}

fn make(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// What is in a directory; nothing where there is none.
fn list(path: &Path) -> io::Result<Vec<fs::DirEntry>> {
    match fs::read_dir(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries?.collect(),
    }
}

pub(super) fn allow_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drop_in(root: &Path) -> Staging {
        Staging::of(root, ChannelId(3), &Sealing::default())
    }

    #[test]
    fn what_was_closed_in_order_is_known_until_the_machine_starts_anew() {
        let root = tempfile::tempdir().unwrap();
        assert!(!is_same_boot(root.path()).unwrap(), "nothing is known at first");
        assert!(is_same_boot(root.path()).unwrap());
        let staging = drop_in(root.path());
        staging.create(&["a", "closed"], 0o640).unwrap().write_all_at(b"abc", 0).unwrap();
        staging.create(&["open"], 0o400).unwrap();
        staging.mark(&["a", "closed"], true).unwrap();
        staging.set_mode(&["a", "closed"], 0o600).unwrap();

        let mut found = staging.found(true).unwrap();
        found.sort_by(|one, other| one.0.cmp(&other.0));
        let file = |bytes, finished| Found::File { bytes, held: bytes, finished, sent: None };
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            found,
            [
                (names(&["a"]), Found::Directory),
                (names(&["a", "closed"]), file(3, true)),
                (names(&["open"]), file(0, false))
            ]
        );
        assert_eq!(drops(root.path()).unwrap(), [ChannelId(3)]);

        fs::write(root.path().join("boot"), "another").unwrap();
        assert!(!is_same_boot(root.path()).unwrap());
        let found = staging.found(false).unwrap();
        assert!(found.contains(&(names(&["a", "closed"]), file(3, false))));
        let found = staging.found(true).unwrap();
        assert!(found.contains(&(names(&["a", "closed"]), file(3, false))), "the mark is gone for good");
    }

    #[test]
    fn a_file_that_is_handed_over_has_two_names_until_it_has_one() {
        let root = tempfile::tempdir().unwrap();
        let staging = drop_in(root.path());
        let file = staging.create(&["x"], 0o600).unwrap();
        staging.sync(&file, &["x"]).unwrap();
        let sent = staging.link(&["x"]).unwrap();
        assert_eq!(staging.links().unwrap(), std::slice::from_ref(&sent));
        let found = staging.found(true).unwrap();
        assert!(matches!(&found[..], [(_, Found::File { sent: Some(path), .. })] if *path == sent), "{found:?}");
        staging.remove_file(&["x"]).unwrap();
        staging.remove_file(&["x"]).unwrap();
        assert_eq!(staging.found(true).unwrap(), []);
        assert!(sent.exists());
        staging.remove().unwrap();
        assert_eq!(drops(root.path()).unwrap(), []);
    }

    #[test]
    fn who_opens_a_file_for_writing_takes_its_mark() {
        let root = tempfile::tempdir().unwrap();
        let staging = drop_in(root.path());
        staging.create(&["x"], 0o400).unwrap();
        staging.mark(&["x"], true).unwrap();
        staging.open(&["x"], false).unwrap();
        assert!(matches!(staging.found(true).unwrap()[..], [(_, Found::File { finished: true, .. })]));
        staging.open(&["x"], true).unwrap();
        assert!(matches!(staging.found(true).unwrap()[..], [(_, Found::File { finished: false, .. })]));
    }

    #[test]
    fn names_change_places() {
        let root = tempfile::tempdir().unwrap();
        let staging = drop_in(root.path());
        staging.create(&["a"], 0o600).unwrap().write_all_at(b"a", 0).unwrap();
        staging.create(&["b"], 0o600).unwrap().write_all_at(b"b", 0).unwrap();
        staging.rename(&["a"], &["b"], true).unwrap();
        assert_eq!(fs::read(staging.path(&["a"]).unwrap()).unwrap(), b"b");
        staging.rename(&["a"], &["new", "b"], false).unwrap();
        assert_eq!(fs::read(staging.path(&["new", "b"]).unwrap()).unwrap(), b"b");
        staging.remove_directory(&["new"]).unwrap_err();
    }
}
