//! A drop that is written here.

use std::fs::File;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{CWD, Mode, OFlags};

use super::staging::{self, Compress, Staging};
use super::{Error, ErrorKind, Named, RecordStatus, Result, State, Watch, deadline, misunderstood};
use crate::drop::Header;
use crate::engine::control::{Request, Response};

/// A drop that is written here: whole files go through it. See [`Named`] for what it has in common with streams.
#[derive(Clone, Debug)]
pub struct Outbox {
    pub(super) named: Named,
}

/// A file that is to be sent.
#[derive(Debug)]
#[must_use]
pub struct Outgoing {
    name: String,
    path: String,
    mode: Option<u32>,
    modified: Option<SystemTime>,
    compress: Compress,
    bytes: Bytes,
}

#[derive(Debug)]
enum Bytes {
    At(PathBuf),
    Here(Vec<u8>),
}

impl Outgoing {
    /// The file at a path, under its own name.
    ///
    /// # Errors
    /// The path has no name, or one that is no UTF-8.
    pub fn file(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let name =
            path.file_name().and_then(|name| name.to_str()).map(str::to_owned).ok_or_else(|| {
                Error::new(ErrorKind::Usage, format!("{} has no name that can be sent", path.display()))
            })?;
        Ok(Self::new(name, Bytes::At(path)))
    }

    /// A file of these bytes.
    pub fn bytes(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self::new(name.into(), Bytes::Here(bytes.into()))
    }

    fn new(name: String, bytes: Bytes) -> Self {
        Self { name, path: String::new(), mode: None, modified: None, compress: Compress::Never, bytes }
    }

    /// The name that it has at the reader's.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The directories that it is in at the reader's, as `a/b`.
    pub fn directory(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// The reader is told these permission bits.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = Some(mode);
        self
    }

    /// The reader is told when it was modified.
    pub fn modified(mut self, at: SystemTime) -> Self {
        self.modified = Some(at);
        self
    }

    /// Whether it is compressed; otherwise it is not.
    pub fn compress(mut self, compress: Compress) -> Self {
        self.compress = compress;
        self
    }

    fn header(&self) -> Header {
        let seconds =
            |at: SystemTime| at.duration_since(UNIX_EPOCH).ok().and_then(|at| i64::try_from(at.as_secs()).ok());
        Header {
            name: self.name.clone(),
            path: self.path.clone(),
            mode: self.mode.map(|mode| mode & 0o777),
            mtime: self.modified.and_then(seconds),
            ..Header::default()
        }
    }
}

impl Outbox {
    pub(super) fn new(state: State, name: String) -> Result<Self> {
        Ok(Self { named: Named { state, name } })
    }

    /// Takes a file in: a copy of it is safe on this disk, and is sent to its end whatever happens. The same file, under the same
    /// name, that is under way already is not sent twice ([`RecordStatus::again`]). While the spool is full, it waits for room.
    ///
    /// # Errors
    /// The file cannot be read, is larger than the spool, or cannot have this name; or the drop is fenced.
    pub async fn send(&self, file: Outgoing) -> Result<Sent> {
        let state = &self.named.state;
        let staging = Staging::at(state.path())?;
        let key = staging::key(&state.link).await?;
        let (header, compress) = (file.header(), file.compress);
        let (header, mut staged) = match file.bytes {
            Bytes::At(path) => staging.stage(header, compress, open(&path)?, key).await?,
            Bytes::Here(bytes) => staging.stage(header, compress, Cursor::new(bytes), key).await?,
        };
        let bytes = header
            .encode(usize::MAX)
            .map_err(|error| Error::new(ErrorKind::Usage, format!("{:?} cannot be sent: {error}", header.name)))?;
        let place = staged.as_mut().map(|staged| {
            staged.hand_over();
            staged.path.clone()
        });
        let accept = self.ask(|name| Request::Accept { name, header: bytes, staged: place });
        let Response::Record(record) = accept.await? else { return Err(misunderstood()) };
        if let Some(staged) = staged.filter(|_| record.again) {
            staged.discard();
        }
        Ok(Sent { watch: self.watch(), outbox: self.clone(), record })
    }

    /// The files that were taken in and are known still, oldest first: a page of those after a number, at most 200.
    ///
    /// # Errors
    /// The drop was forgotten, or its owner does not answer.
    pub async fn files(&self, after: i64) -> Result<Vec<RecordStatus>> {
        super::inbox::page(&self.named, after, super::inbox::PAGE).await
    }
}

/// A regular file; a pipe in its place is not waited for.
fn open(path: &Path) -> Result<File> {
    let failed = |error: String| Error::new(ErrorKind::Failed, format!("{} cannot be read: {error}", path.display()));
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(|error| failed(error.to_string()))?;
    let file = File::from(file);
    match file.metadata() {
        Ok(found) if found.is_file() => Ok(file),
        Ok(_) => Err(failed("it is no file".to_owned())),
        Err(error) => Err(failed(error.to_string())),
    }
}

/// A file that was taken in, on its way to replicas. It goes on without this.
#[derive(Debug)]
pub struct Sent {
    outbox: Outbox,
    record: RecordStatus,
    watch: Watch,
}

impl Sent {
    /// How it stood when it was looked at last: `done` of its `sent_size` bytes are stored.
    pub fn status(&self) -> &RecordStatus {
        &self.record
    }

    /// Whether replicas have all of it.
    pub fn is_stored(&self) -> bool {
        !matches!(self.record.state.as_str(), "waiting" | "sending" | "broken")
    }

    /// Waits until more of it is stored, or all. `None`: it was all stored before.
    ///
    /// # Errors
    /// It was broken off, or the drop is fenced.
    pub async fn progress(&mut self) -> Result<Option<&RecordStatus>> {
        if self.is_stored() {
            return Ok(None);
        }
        let record = self.record.record;
        loop {
            let channel = self.watch.next().await?;
            let Response::Record(now) = self.outbox.ask(|name| Request::Record { name, record }).await? else {
                return Err(misunderstood());
            };
            if now.state == "broken" {
                let reason = now.reason.unwrap_or_default();
                return Err(Error::new(ErrorKind::Failed, format!("it was broken off: {reason}")));
            }
            let moved = (now.done, &now.state) != (self.record.done, &self.record.state);
            self.record = now;
            if moved {
                return Ok(Some(&self.record));
            }
            if let Some(reason) = channel.fenced {
                return Err(Error::new(ErrorKind::Refused, format!("{:?} is fenced: {reason}", channel.name)));
            }
        }
    }

    /// Waits until replicas have all of it.
    ///
    /// # Errors
    /// The time is up, or those of [`Sent::progress`]. It goes on all the same.
    pub async fn stored(mut self, timeout: Option<Duration>) -> Result<RecordStatus> {
        let all = async {
            while self.progress().await?.is_some() {}
            Ok(())
        };
        let ended = match deadline(timeout) {
            Some(deadline) => tokio::time::timeout_at(deadline, all).await,
            None => Ok(all.await),
        };
        match ended {
            Ok(result) => result.map(|()| self.record),
            Err(_) => {
                let (done, of) = (self.record.done, self.record.sent_size);
                Err(Error::new(ErrorKind::TimedOut, format!("the time is up: {done} of {of} bytes are stored")))
            }
        }
    }
}
