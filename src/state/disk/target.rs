//! Where received files go: into a directory, whole and under harmless names.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::place::{self, cannot};
use crate::drop::{SafeName, SafePath};
use crate::engine::control::{Failure, FailureKind};
use crate::engine::status::RecordStatus;
use crate::text::shown_path;

/// Names of this run that are remembered.
const REMEMBERED: usize = 20_000;

/// How what comes from a sender is put on the disk. The default is the most careful.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    /// Names may begin with a dot.
    pub(crate) dotfiles: bool,
    /// The mode that the sender told holds as it is.
    pub(crate) keep_mode: bool,
    /// The permission bits that are never given otherwise.
    pub(crate) umask: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self { dotfiles: false, keep_mode: false, umask: 0o077 }
    }
}

/// A directory that files are put into.
pub(crate) struct Directory {
    path: PathBuf,
    policy: Policy,
    /// Held, so that what is made is made in this one whatever becomes of its name. Empty until the first file needs it.
    held: OnceLock<OwnedFd>,
    /// The names that were given in this run, by the directory and the name that was asked for.
    given: Mutex<HashMap<(u64, u64, String), Given>>,
}

/// The names that were given instead of one.
#[derive(Default)]
struct Given {
    /// The number to try next.
    next: u32,
    /// The digest of what has the newest of them, and that name.
    newest: Option<(blake3::Hash, String)>,
}

/// A file on its way; nothing is left of it unless it comes to its end.
pub(crate) enum Writing {
    Directory,
    File(Box<Temporary>),
}

/// Where a file is now.
pub(crate) enum Written {
    /// An empty directory was made.
    Directory,
    At(PathBuf),
    /// It was there with the same bytes: an earlier run had not come to say so.
    WasThere(PathBuf),
}

/// A file without its final name.
pub(crate) struct Temporary {
    target: Arc<Directory>,
    directory: OwnedFd,
    path: PathBuf,
    name: String,
    file: File,
    hash: blake3::Hasher,
    size: u64,
}

impl Directory {
    /// A directory that the person named.
    pub(crate) fn chosen(path: &Path, policy: Policy) -> Result<Arc<Self>, Failure> {
        let unusable = |why: String| {
            Failure::new(FailureKind::Usage, format!("files cannot be put into {}: {why}", shown_path(path)))
                .hint("files go into a directory of your own that is there")
        };
        let held = rustix::fs::open(path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| unusable(error.to_string()))?;
        if !place::is_ours(&held).map_err(|error| unusable(error.to_string()))? {
            return Err(unusable("it belongs to another user".to_owned()));
        }
        let directory = Self::new(path.to_owned(), policy);
        let _ = directory.held.set(held);
        Ok(Arc::new(directory))
    }

    /// The directory in the working directory that is named as the drop is. It is made for the first file.
    #[cfg(feature = "cli")]
    pub(crate) fn of_the_drop(drop: &str, policy: Policy) -> Result<Arc<Self>, Failure> {
        let name = SafeName::outside(drop, false);
        let directory = Self::new(Path::new(".").join(name.as_str()), policy);
        if rustix::fs::statat(CWD, &directory.path, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
            directory.held()?;
        }
        Ok(Arc::new(directory))
    }

    fn new(path: PathBuf, policy: Policy) -> Self {
        Self { path, policy, held: OnceLock::new(), given: Mutex::default() }
    }

    fn held(&self) -> Result<&OwnedFd, Failure> {
        if let Some(held) = self.held.get() {
            return Ok(held);
        }
        let name = self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let made = place::make_or_enter(CWD, name).map_err(|error| cannot("be made", &self.path, error))?;
        let held = made.ok_or_else(|| {
            let text = format!("{} is there already, and was not made by `pigeonfs receive`", shown_path(&self.path));
            Failure::new(FailureKind::Usage, text)
                .hint("say with -o DIR where the files are to go; a directory that -o names is used as it is")
        })?;
        Ok(self.held.get_or_init(|| held))
    }

    /// Begins to write the file of a record.
    pub(crate) fn begin(self: &Arc<Self>, record: &RecordStatus) -> Result<Writing, Failure> {
        let mut path = self.path.clone();
        let mut directory =
            rustix::io::fcntl_dupfd_cloexec(self.held()?, 0).map_err(|error| cannot("be used", &path, error))?;
        for name in SafePath::outside(&record.path, self.policy.dotfiles).names() {
            (directory, path) = place::enter(&directory, &path, name)?;
        }
        if record.directory {
            place::enter(&directory, &path, &SafeName::outside(&record.name, self.policy.dotfiles))?;
            return Ok(Writing::Directory);
        }
        let name = format!(".pigeonfs-{:016x}.part", random()?);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&directory, &name, flags, Mode::from_raw_mode(0o600))
            .map_err(|error| cannot("be written to", &path, error))?;
        let (file, hash) = (File::from(file), blake3::Hasher::new());
        Ok(Writing::File(Box::new(Temporary { target: Arc::clone(self), directory, path, name, file, hash, size: 0 })))
    }
}

impl Writing {
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Directory => Ok(()),
            Self::File(file) => file.take(bytes),
        }
    }

    /// Gives the file its name, once it is safe on the disk.
    pub(crate) fn end(self, record: &RecordStatus) -> Result<Written, Failure> {
        match self {
            Self::Directory => Ok(Written::Directory),
            Self::File(file) => file.end(record),
        }
    }
}

impl Temporary {
    fn take(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        self.file.write_all(bytes).map_err(|error| cannot("be written", &self.path.join(&self.name), error))
    }

    fn end(self, record: &RecordStatus) -> Result<Written, Failure> {
        let policy = self.target.policy;
        let failed = |error: Errno| cannot("be written", &self.path.join(&self.name), error);
        // Private, unless its sender told its mode.
        if let Some(told) = record.mode {
            let mode = if policy.keep_mode { told & 0o777 } else { (told & 0o666 & !policy.umask) | 0o400 };
            tolerated(rustix::fs::fchmod(&self.file, Mode::from_raw_mode(mode))).map_err(failed)?;
        }
        if let Some(mtime) = record.mtime {
            let time = Timespec { tv_sec: mtime, tv_nsec: 0 };
            let times = Timestamps { last_access: time, last_modification: time };
            tolerated(rustix::fs::futimens(&self.file, &times)).map_err(failed)?;
        }
        tolerated(rustix::fs::fsync(&self.file)).map_err(failed)?;
        let wanted = SafeName::outside(&record.name, policy.dotfiles);
        let stat = rustix::fs::fstat(&self.directory).map_err(failed)?;
        let mut given = self.target.given.lock().unwrap_or_else(PoisonError::into_inner);
        if given.len() >= REMEMBERED {
            given.clear();
        }
        let given = given.entry((stat.st_dev, stat.st_ino, wanted.as_str().to_owned())).or_default();
        let digest = self.hash.finalize();
        if let Some((_, name)) = given.newest.as_ref().filter(|(newest, _)| *newest == digest)
            && self.is(name)
        {
            return Ok(Written::WasThere(self.path.join(name)));
        }
        for count in given.next..=place::NUMBERED {
            let name = match count {
                place::NUMBERED => SafeName::of(&format!("{:016x}-{wanted}", random()?)),
                count => wanted.numbered(count),
            };
            let path = self.path.join(name.as_str());
            let was_there = match place::rename(&self.directory, &self.name, name.as_str()) {
                Ok(()) => false,
                Err(Errno::EXIST) if self.is(name.as_str()) => true,
                Err(Errno::EXIST) => continue,
                Err(error) => return Err(cannot("be made", &path, error)),
            };
            *given = Given { next: (count + 1).min(place::NUMBERED), newest: Some((digest, name.as_str().to_owned())) };
            if was_there {
                return Ok(Written::WasThere(path));
            }
            tolerated(rustix::fs::fsync(&self.directory)).map_err(|error| cannot("be written", &self.path, error))?;
            return Ok(Written::At(path));
        }
        Err(cannot("be made", &self.path.join(wanted.as_str()), Errno::EXIST))
    }

    /// Whether the file of this name has the same bytes.
    fn is(&self, name: &str) -> bool {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(found) = rustix::fs::openat(&self.directory, name, flags, Mode::empty()) else { return false };
        let found = File::from(found);
        if !found.metadata().is_ok_and(|found| found.is_file() && found.len() == self.size) {
            return false;
        }
        let mut hash = blake3::Hasher::new();
        io::copy(&mut found.take(self.size + 1), &mut hash).is_ok() && hash.finalize() == self.hash.finalize()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Gone already where it has its name.
        let _ = rustix::fs::unlinkat(&self.directory, &self.name, AtFlags::empty());
    }
}

/// What a file system does not know is no failure of the file: not all have modes, times and a way to sync.
fn tolerated(result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP | Errno::PERM) => Ok(()),
        result => result,
    }
}

fn random() -> Result<u64, Failure> {
    let mut random = [0; 8];
    getrandom::fill(&mut random)
        .map_err(|error| Failure::new(FailureKind::Failed, format!("this machine gives no randomness: {error}")))?;
    Ok(u64::from_le_bytes(random))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::sync::atomic::{AtomicBool, Ordering};

    use rustix::fs::{RenameFlags, renameat_with};

    use super::*;

    const RECORDS: i64 = 10_000;
    const NAMES: [&str; 12] = [
        ".bash_profile",
        "authorized_keys",
        "-rf",
        "--help",
        "..",
        "a/../../b",
        "x\u{202e}gpj.exe",
        "n\nl",
        "con",
        "",
        "f0",
        "f1",
    ];
    const PATHS: [&str; 10] = ["", ".ssh", "d0", "d1/d2", "../..", "/etc", "-x/.y", "d2", ".config/autostart", "d3/d0"];

    fn record(number: i64) -> RecordStatus {
        let at = usize::try_from(number).expect("a number");
        let mode = [0o777, 0o4755, 0o000, 0o644][at % 4];
        let json = serde_json::json!({
            "record": number, "name": NAMES[at % NAMES.len()], "path": PATHS[at / 3 % PATHS.len()], "state": "complete",
            "directory": number % 97 == 0, "size": 3, "sent_size": 3, "done": 3, "first_box": 0, "index": null,
            "boxes": 1, "digest": null, "part": null, "again": false, "reason": null, "delivered": false,
            "mode": mode, "mtime": null
        });
        serde_json::from_value(json).expect("a record")
    }

    fn look(directory: &Path, files: &mut usize) {
        for entry in std::fs::read_dir(directory).expect("a directory").flatten() {
            let (name, found) = (entry.file_name().into_string().expect("text"), entry.metadata().expect("there"));
            if found.is_symlink() {
                continue;
            }
            assert!(!name.starts_with(['.', '-']) && !name.contains(crate::text::is_unseen), "{name:?}");
            if found.is_dir() {
                look(&entry.path(), files);
            } else {
                assert_eq!(found.permissions().mode() & 0o7111, 0, "{name:?}");
                *files += 1;
            }
        }
    }

    /// Names, paths and modes as a stranger would choose them, while another process exchanges directories for links.
    #[test]
    fn ten_thousand_hostile_records_stay_in_their_directory() {
        // In memory, where syncing costs nothing.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory");
        let at = |name: &str| dir.path().join(name);
        for directory in ["in", "outside", "links"] {
            std::fs::create_dir(at(directory)).expect("made");
        }
        std::fs::write(at("outside/f0"), "precious").expect("written");
        let target = Directory::chosen(&at("in"), Policy::default()).expect("ours");
        for name in ["d0", "d1", "d2", "d3", "f0"] {
            symlink(at("outside"), at("links").join(name)).expect("made");
        }
        let stop = AtomicBool::new(false);
        let mut written = 0;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    for name in ["d0", "d1", "d2", "d3", "f0"] {
                        // Not there yet at the beginning.
                        let _ =
                            renameat_with(CWD, at("links").join(name), CWD, at("in").join(name), RenameFlags::EXCHANGE);
                    }
                    std::thread::yield_now();
                }
            });
            for number in 0..RECORDS {
                let record = record(number);
                // What is exchanged in the middle may fail; it is tried again by the verb.
                let Ok(mut writing) = target.begin(&record) else { continue };
                if writing.take(&number.to_le_bytes()).is_ok() && writing.end(&record).is_ok() {
                    written += 1;
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert!(written > RECORDS / 2, "{written}");
        assert_eq!(std::fs::read_to_string(at("outside/f0")).expect("there"), "precious");
        assert_eq!(std::fs::read_dir(at("outside")).expect("there").count(), 1, "nothing left the directory");
        let mut files = 0;
        look(&at("in"), &mut files);
        assert!(files > 0);
        assert_eq!(std::fs::read_dir(dir.path()).expect("there").count(), 3);
    }
}
