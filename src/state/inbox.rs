//! A drop that is read here.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::task::spawn_blocking;

use super::disk::{Directory, Policy, Written};
use super::stream::{Pending, Piece};
use super::{Error, ErrorKind, Named, RecordStatus, Result, State, Watch, misunderstood};
use crate::engine::control::{Request, Response};

/// Records that are looked up at once.
pub(super) const PAGE: u32 = 200;

/// A drop that is read here: whole files come out of it, each once. See [`Named`] for what it has in common with streams.
#[derive(Clone, Debug)]
pub struct Inbox {
    pub(super) named: Named,
    watch: Watch,
    /// Records up to this one are done with.
    cursor: i64,
}

/// What has come out of an [`Inbox`].
#[derive(Debug)]
pub enum Arrival {
    /// A file that is complete and fits its digest.
    File(Box<Incoming>),
    /// One that was broken on its way, or is not what it was said to be: why, and what was told of it.
    Broken {
        /// Why.
        reason: String,
        /// What is known of it.
        record: Box<RecordStatus>,
    },
}

pub(super) async fn page(named: &Named, after: i64, limit: u32) -> Result<Vec<RecordStatus>> {
    match named.ask(|name| Request::Records { name, after, limit }).await? {
        Response::Records(records) => Ok(records),
        _ => Err(misunderstood()),
    }
}

impl Inbox {
    pub(super) fn new(state: State, name: String) -> Self {
        let named = Named { state, name };
        Self { watch: named.watch(), named, cursor: 0 }
    }

    /// The next file that is complete and was not [taken](Incoming::taken) before; it is waited for. `None`: the network has
    /// said that nothing more is there yet, and all that had begun to arrive is done with.
    ///
    /// # Errors
    /// Boxes are lost ([`Named::skip`] gives them up), the cache is full, or the drop was forgotten.
    pub async fn next(&mut self) -> Result<Option<Arrival>> {
        self.wait(false).await
    }

    /// The same, and waits for what is not there yet too.
    ///
    /// # Errors
    /// Those of [`Inbox::next`].
    pub async fn next_ever(&mut self) -> Result<Arrival> {
        self.wait(true).await?.ok_or_else(misunderstood)
    }

    /// The file that is arriving: how much of it is here.
    ///
    /// # Errors
    /// The drop was forgotten, or its owner does not answer.
    pub async fn arriving(&self) -> Result<Option<RecordStatus>> {
        Ok(self.named.status().await?.files.and_then(|files| files.current))
    }

    async fn wait(&mut self, ever: bool) -> Result<Option<Arrival>> {
        loop {
            // Looked at before what there is: what is settled stays so.
            let channel = self.named.status().await?;
            if let Some(arrival) = self.look().await? {
                return Ok(Some(arrival));
            }
            let name = &channel.name;
            if channel.lost {
                return Err(Error::new(ErrorKind::Failed, format!("the network has lost boxes of {name:?}")));
            }
            if channel.paused {
                let text = format!("the cache is full, so nothing of {name:?} is fetched");
                return Err(Error::new(ErrorKind::Failed, text));
            }
            let refused = channel.error.filter(|_| channel.fenced.is_some());
            if let Some(reason) = refused {
                return Err(Error::new(ErrorKind::Refused, reason));
            }
            if !ever && channel.files.is_some_and(|files| files.settled) {
                return Ok(None);
            }
            self.watch.next().await?;
        }
    }

    async fn look(&mut self) -> Result<Option<Arrival>> {
        // Asked anew each time: what stood otherwise a while ago may be whole by now, or taken by another program.
        let mut limit = 1;
        loop {
            let found = page(&self.named, self.cursor, limit).await?;
            if found.is_empty() {
                return Ok(None);
            }
            limit = PAGE;
            for record in found {
                let number = record.record;
                let is_part = record.part.is_some_and(|part| part > 0);
                match record.state.as_str() {
                    // It is looked at again; nothing is behind it.
                    "incomplete" => return Ok(None),
                    "complete" if !record.delivered && !is_part => {
                        self.cursor = number;
                        return Ok(Some(Arrival::File(Box::new(Incoming { named: self.named.clone(), record }))));
                    }
                    "broken" if !record.delivered => {
                        self.named.ask(|name| Request::Deliver { name, record: number }).await?;
                        self.cursor = number;
                        let reason = record.reason.clone().unwrap_or_default();
                        return Ok(Some(Arrival::Broken { reason, record: Box::new(record) }));
                    }
                    _ => self.cursor = number,
                }
            }
        }
    }
}

/// A file that has arrived, complete and verified.
#[derive(Clone, Debug)]
pub struct Incoming {
    named: Named,
    record: RecordStatus,
}

/// How a file is put on the disk. The default is the most careful: no name begins with a dot, and the file is private.
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct Saving(Policy);

impl Saving {
    /// Names may begin with a dot.
    pub fn dotfiles(mut self) -> Self {
        self.0.dotfiles = true;
        self
    }

    /// The permission bits that the sender told hold as they are.
    pub fn keep_mode(mut self) -> Self {
        self.0.keep_mode = true;
        self
    }
}

impl Incoming {
    /// Its name, as its sender says: not to be used as a path as it is; [`Incoming::save_in`] makes it harmless.
    pub fn name(&self) -> &str {
        &self.record.name
    }

    /// Its bytes, so many.
    pub fn size(&self) -> u64 {
        self.record.size
    }

    /// All that is known of it.
    pub fn status(&self) -> &RecordStatus {
        &self.record
    }

    /// Its bytes.
    pub fn reader(&self) -> FileReader {
        let (named, record) = (self.named.clone(), self.record.record);
        FileReader { named, record, offset: 0, piece: Piece::default(), reading: None }
    }

    /// Puts it into a directory of this user, whole or not at all, under a name that is harmless and free there, in the
    /// directories that its sender says; then it is [taken](Incoming::taken). Where it is now; `None`: it was an empty directory.
    ///
    /// # Errors
    /// It cannot be written there, or its bytes cannot be read.
    pub async fn save_in(&self, directory: impl AsRef<Path>, saving: Saving) -> Result<Option<PathBuf>> {
        let (path, record) = (directory.as_ref().to_owned(), self.record.clone());
        let begun = blocking(move || {
            let directory: Arc<Directory> = Directory::chosen(&path, saving.0)?;
            directory.begin(&record)
        });
        let mut writing = begun.await?;
        let mut offset = 0;
        loop {
            // A directory has no bytes to ask for.
            let bytes = match self.record.directory {
                true => Vec::new(),
                false => fetch(&self.named, self.record.record, offset).await?,
            };
            if bytes.is_empty() {
                break;
            }
            offset += bytes.len() as u64;
            writing = blocking(move || writing.take(&bytes).map(|()| writing)).await?;
        }
        let record = self.record.clone();
        let written = blocking(move || writing.end(&record)).await?;
        self.taken().await?;
        Ok(match written {
            Written::Directory => None,
            Written::At(path) | Written::WasThere(path) => Some(path),
        })
    }

    /// It is where it was wanted: no [`Inbox`] gives it out again.
    ///
    /// # Errors
    /// The drop was forgotten, or its owner does not answer.
    pub async fn taken(&self) -> Result<()> {
        let record = self.record.record;
        self.named.ask(|name| Request::Deliver { name, record }).await.map(drop)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    spawn_blocking(work).await.map_err(|error| Error::new(ErrorKind::Failed, error.to_string()))?
}

/// Bytes of a file from an offset on; none at its end.
async fn fetch(named: &Named, record: i64, offset: u64) -> Result<Vec<u8>> {
    match named.ask(|name| Request::Fetch { name, record, offset }).await? {
        Response::Bytes { bytes, .. } => Ok(bytes),
        Response::Broken { reason } => Err(Error::new(ErrorKind::Failed, reason)),
        _ => Err(misunderstood()),
    }
}

/// The bytes of an [`Incoming`] file.
pub struct FileReader {
    named: Named,
    record: i64,
    offset: u64,
    piece: Piece,
    reading: Option<Pending<Vec<u8>>>,
}

impl std::fmt::Debug for FileReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileReader").field("record", &self.record).field("offset", &self.offset).finish_non_exhaustive()
    }
}

impl AsyncRead for FileReader {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.piece.is_empty() && into.remaining() > 0 {
            if self.reading.is_none() {
                let (named, record, offset) = (self.named.clone(), self.record, self.offset);
                self.reading = Some(Box::pin(async move { fetch(&named, record, offset).await }));
            }
            if let Some(reading) = &mut self.reading {
                let read = ready!(reading.as_mut().poll(cx));
                self.reading = None;
                self.piece = Piece::new(read?);
            }
        }
        self.offset += self.piece.give(into);
        Poll::Ready(Ok(()))
    }
}
