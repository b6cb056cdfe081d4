//! Copies of what is to be sent, in the state directory, where nobody changes them any more.

use std::fs::{self, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::misunderstood;
use crate::drop::{Header, Raw, is_worth_trying, pack};
use crate::engine::control::{Failure, FailureKind, Link, Request, Response, Secret};
use crate::engine::drops::Drops;
use crate::store::StagedFile;

/// What is written at once.
const BUFFER_BYTES: usize = 256 << 10;

/// Which files are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compress {
    /// None.
    #[default]
    Never,
    /// All.
    Always,
    /// Those that get shorter.
    Auto,
}

pub(crate) struct Staging {
    directory: PathBuf,
}

/// A copy. Deleted with this value, unless it may belong to a drop.
pub(crate) struct Staged {
    pub(crate) path: PathBuf,
    /// Locked, so that nobody takes it for a leftover.
    file: StagedFile,
    kept: bool,
}

impl Staged {
    /// From here on it may belong to a drop. Said before the drop is asked: an interruption may come between its commit
    /// and its answer. What is not taken then is swept by the state's owner.
    pub(crate) fn hand_over(&mut self) {
        self.kept = true;
    }

    /// Writes all that is in it.
    fn write<T>(
        &self,
        fill: impl FnOnce(&mut BufWriter<crate::store::Sequential<'_>>) -> io::Result<T>,
    ) -> Result<T, Failure> {
        let mut to = BufWriter::with_capacity(BUFFER_BYTES, self.file.sequential());
        fill(&mut to)
            .and_then(|filled| to.flush().map(|()| filled))
            .map_err(|error| cannot("be written", &self.path, &error))
    }

    /// The drop has these bytes already.
    pub(crate) fn discard(mut self) {
        self.kept = false;
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Staging {
    pub(crate) fn at(state: &Path) -> Result<Self, Failure> {
        Ok(Self { directory: Drops::incoming_of(state)? })
    }

    /// Copies what is to be sent; what is said of it is then complete.
    pub(crate) async fn stage<R: Read + Seek + Send + 'static>(
        &self,
        header: Header,
        compress: Compress,
        mut from: R,
        key: Option<Secret>,
    ) -> Result<(Header, Option<Staged>), Failure> {
        let directory = self.directory.clone();
        let copied = tokio::task::spawn_blocking(move || {
            let make = || create(&directory, key.as_ref().map(Secret::expose));
            let unreadable = |error| cannot("be read", Path::new(&header.name), &error);
            let mut staged = make()?;
            let tried = match compress {
                Compress::Never => false,
                Compress::Always => true,
                Compress::Auto => is_worth_trying(&mut from).map_err(unreadable)?,
            };
            let mut packed = None;
            if tried {
                packed = Some(staged.write(|to| pack(&mut BufReader::new(&mut from), to))?);
                if compress == Compress::Auto && packed.is_some_and(|packed| !packed.is_worth_it()) {
                    // As it is, into another file: what was written may be longer.
                    from.rewind().map_err(unreadable)?;
                    (staged, packed) = (make()?, None);
                }
            }
            let header = match packed {
                Some(packed) => {
                    let raw = Some(Raw { name: None, size: packed.raw_size });
                    let (name, digest) = (format!("{}.zst", header.name), Some(packed.digest));
                    Header { name, size: packed.size, digest, raw, ..header }
                }
                None => {
                    let (size, digest) = staged.write(|to| {
                        let mut hashing = Hashing { to, hash: blake3::Hasher::new() };
                        let size = io::copy(&mut BufReader::new(&mut from), &mut hashing)?;
                        Ok((size, *hashing.hash.finalize().as_bytes()))
                    })?;
                    Header { size, digest: Some(digest), ..header }
                }
            };
            Ok((header, Some(staged)))
        });
        copied.await.map_err(|error| Failure::new(FailureKind::Failed, error.to_string()))?
    }
}

/// How one more file is to be written: the state may be sealed.
pub(crate) async fn key(link: &Link) -> Result<Option<Secret>, Failure> {
    match link.request(Request::StagingKey).await? {
        Response::StagingKey(key) => Ok(key),
        _ => Err(misunderstood()),
    }
}

fn create(directory: &Path, key: Option<&[u8]>) -> Result<Staged, Failure> {
    let mut random = [0; 16];
    getrandom::fill(&mut random)
        .map_err(|error| Failure::new(FailureKind::Failed, format!("this machine gives no randomness: {error}")))?;
    let path = directory.join(format!("{:032x}", u128::from_le_bytes(random)));
    let failed = |error: io::Error| cannot("be made", &path, &error);
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
    file.lock().map_err(failed)?;
    let file = StagedFile::create(file, key).map_err(failed)?;
    Ok(Staged { path: path.clone(), file, kept: false })
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::new(FailureKind::Failed, format!("{} cannot {what}: {error}", path.display()))
}

struct Hashing<'a, W> {
    to: &'a mut W,
    hash: blake3::Hasher,
}

impl<W: Write> Write for Hashing<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.to.write(bytes)?;
        self.hash.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
