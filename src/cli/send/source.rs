//! What is to be sent: files, directories with what is in them, and stdin in parts.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use tokio::sync::mpsc;

use super::super::append::stdin_chunks;
use super::Typed;
use crate::bacap::INDEX_BYTES;
use crate::drop::chain::PART_BYTES;
use crate::drop::{Header, Kind};
use crate::engine::control::{Failure, FailureKind, Secret};
use crate::state::disk::beneath;
use crate::state::staging::Compress;
use crate::store::ChannelName;
use crate::text::shown_path;

/// One file or empty directory to be sent.
pub(super) struct Source {
    place: Place,
    /// What is said of it, without what its descriptor tells and without its size and digest.
    header: Header,
    compress: Compress,
    with_mode: bool,
    with_mtime: bool,
}

/// Where it is.
#[derive(Clone)]
enum Place {
    /// The person typed its path. `is_link`: a link was typed, and is followed.
    Typed { path: PathBuf, is_link: bool },
    /// Below a directory that the person typed: no link is followed there, whoever may put one in.
    Below { top: Arc<OwnedFd>, path: PathBuf, shown: PathBuf },
}

impl Source {
    /// What it is called here, and how many bytes it will take, where that is known before it is read.
    pub(super) fn planned(&self) -> Option<(&Path, u64)> {
        let is_plain = self.compress == Compress::Never && self.header.kind == Kind::File;
        let size = rustix::fs::fstat(self.place.open().ok().filter(|_| is_plain)?).ok()?.st_size;
        Some((self.place.shown(), u64::try_from(size).ok()?))
    }
}

impl Source {
    /// Bytes of its header and of its contents, as they would travel; at most, where it is compressed.
    pub(super) fn lengths(&self) -> Option<(u64, u64)> {
        let stat = rustix::fs::fstat(self.place.open().ok()?).ok()?;
        let size = if self.header.kind == Kind::File { u64::try_from(stat.st_size).ok()? } else { 0 };
        Some((head_length(&Header { size, ..self.header.clone() })?, size))
    }
}

/// How long a header is, with its digest and with what a reader finds it by.
fn head_length(header: &Header) -> Option<u64> {
    let header = Header { digest: Some([0; 32]), sync: Some([0; 16]), ..header.clone() };
    Some(header.encode(usize::MAX).ok()?.len() as u64)
}

/// Those of the parts in which so many bytes of stdin travel.
pub(super) fn part_lengths(bytes: u64) -> Vec<(u64, u64)> {
    let part = PART_BYTES as u64;
    let head =
        |size| head_length(&Header { name: "part-00001".to_owned(), size, ..Header::default() }).unwrap_or_default();
    let count = bytes.div_ceil(part).max(1);
    (0..count).map(|at| part.min(bytes - at * part)).map(|size| (head(size), size)).collect()
}

impl Place {
    fn open(&self) -> Result<OwnedFd, Errno> {
        // Without waiting for the other end of a pipe that was put in the file's place.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        match self {
            Self::Typed { path, is_link: true } => rustix::fs::open(path, flags, Mode::empty()),
            Self::Typed { path, is_link: false } => rustix::fs::open(path, flags | OFlags::NOFOLLOW, Mode::empty()),
            Self::Below { top, path, .. } => beneath::open(top, path, flags),
        }
    }

    fn shown(&self) -> &Path {
        match self {
            Self::Typed { path, .. } | Self::Below { shown: path, .. } => path,
        }
    }
}

impl Source {
    pub(super) fn compress(&self) -> Compress {
        self.compress
    }

    /// The bytes to be sent and what is said of them, decided on what is open now. An empty directory has no bytes.
    pub(super) fn open(&self) -> Result<(Header, Option<File>), Failure> {
        let unreadable = |error: Errno| cannot_be_read(self.place.shown(), error);
        let held = self.place.open().map_err(unreadable)?;
        let stat = rustix::fs::fstat(&held).map_err(unreadable)?;
        let mut header = self.header.clone();
        header.mode = self.with_mode.then_some(stat.st_mode & 0o777);
        header.mtime = self.with_mtime.then_some(stat.st_mtime);
        let found = FileType::from_raw_mode(stat.st_mode);
        match (header.kind, found) {
            (Kind::EmptyDirectory, FileType::Directory) => Ok((header, None)),
            (Kind::File, FileType::RegularFile) => Ok((header, Some(File::from(held)))),
            _ => {
                let text = format!("{} was replaced by something else meanwhile", shown_path(self.place.shown()));
                Err(Failure::new(FailureKind::Failed, text))
            }
        }
    }
}

/// All that was typed, directories walked, in an order that is the same every time.
pub(super) fn all(typed: &Typed) -> Result<Vec<Source>, Failure> {
    if typed.name.is_some() && typed.files.len() > 1 {
        return Err(Failure::new(FailureKind::Usage, "--name is for one file"));
    }
    let mut sources = Vec::new();
    for path in &typed.files {
        let name = match &typed.name {
            Some(name) => name.clone(),
            None => base_name(path)?,
        };
        add(path, name, typed, &mut sources)?;
    }
    Ok(sources)
}

/// A name for a drop that has none here: the same for the same capability.
pub(super) fn name_of(capability: &Secret) -> Result<ChannelName, Failure> {
    let bytes = capability.expose();
    let root = bytes.len().checked_sub(INDEX_BYTES + 32).map_or(bytes, |from| &bytes[from..from + 32]);
    ChannelName::parse(&format!("drop-{}", &blake3::hash(root).to_hex()[..8]))
        .map_err(|error| Failure::new(FailureKind::Failed, error.to_string()))
}

/// What a person typed: a link is followed here, and nowhere below.
fn add(path: &Path, name: String, typed: &Typed, sources: &mut Vec<Source>) -> Result<(), Failure> {
    let failed = |error: Errno| cannot_be_read(path, error);
    let is_link = fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
    // Looked at without opening it, which a device or a pipe would notice.
    let look = OFlags::PATH | OFlags::CLOEXEC;
    let look = if is_link { look } else { look | OFlags::NOFOLLOW };
    let found = rustix::fs::open(path, look, Mode::empty()).and_then(rustix::fs::fstat).map_err(failed)?;
    let place = Place::Typed { path: path.to_owned(), is_link };
    match FileType::from_raw_mode(found.st_mode) {
        FileType::RegularFile => {
            sources.push(source(place, Header { name, ..Header::default() }, typed));
            Ok(())
        }
        FileType::Directory if typed.recursive => {
            let top = Arc::new(place.open().map_err(failed)?);
            let walk = Walk { top, typed, shown: path };
            walk.directory(Path::new("."), "", &name, sources)
        }
        FileType::Directory => Err(Failure::new(FailureKind::Usage, format!("{} is a directory", shown_path(path)))
            .hint("-r sends it with all that is in it")),
        _ => {
            let text = format!("{} is neither a file nor a directory", shown_path(path));
            Err(Failure::new(FailureKind::Usage, text).hint("what a pipe holds is sent with `-`, as stdin"))
        }
    }
}

fn source(place: Place, header: Header, typed: &Typed) -> Source {
    Source { place, header, compress: typed.compress(), with_mode: typed.with_mode, with_mtime: typed.with_mtime }
}

/// A walk below a directory that is held.
struct Walk<'a> {
    top: Arc<OwnedFd>,
    typed: &'a Typed,
    shown: &'a Path,
}

impl Walk<'_> {
    fn place(&self, path: &Path) -> Place {
        Place::Below { top: Arc::clone(&self.top), path: path.to_owned(), shown: self.shown_as(path) }
    }

    fn shown_as(&self, path: &Path) -> PathBuf {
        self.shown.join(path.strip_prefix(".").unwrap_or(path))
    }

    /// A directory that has the name `name` in the directory `above` at the reader's.
    fn directory(&self, path: &Path, above: &str, name: &str, sources: &mut Vec<Source>) -> Result<(), Failure> {
        let failed = |error: Errno| cannot_be_read(&self.shown_as(path), error);
        let held = beneath::open(&self.top, path, OFlags::DIRECTORY | OFlags::RDONLY).map_err(failed)?;
        let mut entries: Vec<OsString> = Vec::new();
        for entry in Dir::read_from(&held).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_bytes().to_vec();
            if !matches!(&name[..], b"." | b"..") {
                entries.push(OsString::from_vec(name));
            }
        }
        entries.sort();
        if entries.is_empty() {
            let kind = Kind::EmptyDirectory;
            let header = Header { name: name.to_owned(), path: above.to_owned(), kind, ..Header::default() };
            sources.push(source(self.place(path), header, self.typed));
        }
        let inside = if above.is_empty() { name.to_owned() } else { format!("{above}/{name}") };
        for entry in entries {
            let path = path.join(&entry);
            let found = match look(&held, &entry) {
                Ok(found) => found,
                // Deleted meanwhile.
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(cannot_be_read(&self.shown_as(&path), error)),
            };
            let name = || text_of(&entry, &self.shown_as(&path));
            match FileType::from_raw_mode(found.st_mode) {
                FileType::RegularFile => {
                    let header = Header { name: name()?, path: inside.clone(), ..Header::default() };
                    sources.push(source(self.place(&path), header, self.typed));
                }
                FileType::Directory => self.directory(&path, &inside, &name()?, sources)?,
                // As `cp -r` would make a link into something else at the reader's: it is left out, and said so.
                _ => {
                    let path = shown_path(&self.shown_as(&path));
                    tracing::warn!(%path, "neither a file nor a directory: left out");
                }
            }
        }
        Ok(())
    }
}

/// What an entry of a directory is, and no link followed.
fn look(directory: &OwnedFd, name: &OsStr) -> Result<Stat, Errno> {
    rustix::fs::statat(directory, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
}

fn cannot_be_read(path: &Path, error: Errno) -> Failure {
    Failure::new(FailureKind::Failed, format!("{} cannot be read: {error}", shown_path(path)))
}

/// The last part of a path, as `.` and `dir/..` have it too.
fn base_name(path: &Path) -> Result<String, Failure> {
    let resolved;
    let path = if path.file_name().is_some() {
        path
    } else {
        resolved = fs::canonicalize(path)
            .map_err(|error| Failure::new(FailureKind::Failed, format!("{}: {error}", shown_path(path))))?;
        &resolved
    };
    text_of(path.file_name().unwrap_or(path.as_os_str()), path)
}

fn text_of(name: &OsStr, path: &Path) -> Result<String, Failure> {
    name.to_str().map(str::to_owned).ok_or_else(|| {
        Failure::new(FailureKind::Usage, format!("the name of {} is not UTF-8", shown_path(path)))
            .hint("rename it, or give it a name with --name")
    })
}

/// Stdin, part by part.
pub(super) struct Parts {
    chunks: mpsc::Receiver<std::io::Result<Vec<u8>>>,
    rest: Vec<u8>,
}

impl Parts {
    pub(super) fn new() -> Self {
        Self { chunks: stdin_chunks(), rest: Vec::new() }
    }

    /// The next part, as long as parts are but at the end, and whether it is the last.
    pub(super) async fn next(&mut self) -> Result<(Vec<u8>, bool), Failure> {
        // One byte more shows that it is not the last.
        let mut ended = false;
        while self.rest.len() <= PART_BYTES && !ended {
            match self.chunks.recv().await {
                Some(Ok(chunk)) => self.rest.extend(chunk),
                Some(Err(error)) => {
                    return Err(Failure::new(FailureKind::Failed, format!("standard input cannot be read: {error}"))
                        .hint("what was read before stays incomplete at the reader's"));
                }
                None => ended = true,
            }
        }
        let behind = self.rest.split_off(self.rest.len().min(PART_BYTES));
        let part = std::mem::replace(&mut self.rest, behind);
        Ok((part, ended && self.rest.is_empty()))
    }
}
