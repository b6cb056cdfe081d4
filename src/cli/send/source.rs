//! What is to be sent: files, directories with what is in them, and stdin in parts.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::sync::mpsc;

use super::super::append::stdin_chunks;
use super::Typed;
use crate::bacap::INDEX_BYTES;
use crate::drop::chain::PART_BYTES;
use crate::drop::{Header, Kind};
use crate::engine::control::{Failure, FailureKind, Secret};
use crate::store::ChannelName;

/// One file or empty directory to be sent.
pub(super) struct Source {
    pub(super) file: PathBuf,
    /// What is said of it, without its size and digest.
    pub(super) header: Header,
    pub(super) zstd: bool,
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
        add(path, "", name, typed, &mut sources)?;
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

fn add(path: &Path, above: &str, name: String, typed: &Typed, sources: &mut Vec<Source>) -> Result<(), Failure> {
    let failed = |error| Failure::new(FailureKind::Failed, format!("{} cannot be read: {error}", path.display()));
    let metadata = fs::metadata(path).map_err(failed)?;
    let mut header = Header { name, path: above.to_owned(), ..Header::default() };
    header.mode = typed.with_mode.then(|| metadata.permissions().mode() & 0o777);
    header.mtime = typed.with_mtime.then(|| metadata.mtime());
    if metadata.is_file() {
        sources.push(Source { file: path.to_owned(), header, zstd: typed.zstd });
        return Ok(());
    }
    if !metadata.is_dir() {
        let text = format!("{} is neither a file nor a directory", path.display());
        return Err(Failure::new(FailureKind::Usage, text).hint("what a pipe holds is sent with `-`, as stdin"));
    }
    if !typed.recursive {
        return Err(Failure::new(FailureKind::Usage, format!("{} is a directory", path.display()))
            .hint("-r sends it with all that is in it"));
    }
    let entries = fs::read_dir(path).map_err(failed)?;
    let mut entries =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>().map_err(failed)?;
    entries.sort();
    if entries.is_empty() {
        sources.push(Source {
            file: path.to_owned(),
            header: Header { kind: Kind::EmptyDirectory, ..header },
            zstd: false,
        });
    }
    let below = if above.is_empty() { header_name(path, typed)? } else { format!("{above}/{}", base_name(path)?) };
    for entry in entries {
        let found = fs::symlink_metadata(&entry).map_err(failed)?;
        if !found.is_file() && !found.is_dir() {
            // As `cp -r` would make a link into something else at the reader's: it is left out, and said so.
            tracing::warn!(path = %entry.display(), "neither a file nor a directory: left out");
            continue;
        }
        add(&entry, &below, base_name(&entry)?, typed, sources)?;
    }
    Ok(())
}

fn header_name(path: &Path, typed: &Typed) -> Result<String, Failure> {
    typed.name.clone().map_or_else(|| base_name(path), Ok)
}

/// The last part of a path, as `.` and `dir/..` have it too.
fn base_name(path: &Path) -> Result<String, Failure> {
    let resolved;
    let path = if path.file_name().is_some() {
        path
    } else {
        resolved = fs::canonicalize(path)
            .map_err(|error| Failure::new(FailureKind::Failed, format!("{}: {error}", path.display())))?;
        &resolved
    };
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_str().map(str::to_owned).ok_or_else(|| {
        Failure::new(FailureKind::Usage, format!("the name of {} is not UTF-8", path.display()))
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
