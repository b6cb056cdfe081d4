//! Where the log goes: to stderr or to a file, and as much of it as was asked for.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use tracing_subscriber::EnvFilter;

use crate::engine::control::{Failure, FailureKind};

/// A file is begun anew at this size, and the one before is kept as FILE.old.
const LARGEST: u64 = 4 << 20;

/// Set once the log goes to a file.
static FILE: OnceLock<Mutex<LogFile>> = OnceLock::new();

/// Starts the log. `foreground` is for verbs that run until they are stopped: those say more unasked. `plain` leaves out
/// the colours that a terminal would get, where the log is to go elsewhere later.
pub(super) fn start(
    filter: Option<&str>,
    verbose: u8,
    quiet: bool,
    foreground: bool,
    plain: bool,
) -> Result<(), Failure> {
    let level = match (quiet, verbose) {
        (true, _) => "error",
        (_, 0) if foreground => "info",
        (_, 0) => "warn",
        (_, 1) => "debug",
        (_, _) => "trace",
    };
    let text = filter.unwrap_or(level);
    let filter = EnvFilter::try_new(text).map_err(|error| {
        Failure::new(FailureKind::Usage, format!("{text:?} is no log filter: {error}"))
            .hint("such as `info`, or `pigeonfs::engine=debug,warn`, in --log or $PIGEONFS_LOG")
    })?;
    let terminal = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| Destination).with_ansi(terminal && !plain).init();
    Ok(())
}

/// From here on the log goes to this file, behind what is in it.
pub(super) fn to_file(path: &Path) -> Result<(), Failure> {
    let file = LogFile::open(path).map_err(|error| {
        Failure::new(FailureKind::Usage, format!("the log file {} cannot be written to: {error}", path.display()))
    })?;
    FILE.set(Mutex::new(file)).map_err(|_| Failure::new(FailureKind::Failed, "the log goes to a file already"))
}

/// The file that the log goes to, for what is no line of it.
pub(super) fn file() -> Option<File> {
    FILE.get()?.lock().unwrap_or_else(PoisonError::into_inner).file.try_clone().ok()
}

struct Destination;

impl Write for Destination {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // A log that cannot be written to, as on a full disk, is no reason to stop: an error from here would be printed
        // to a stderr that may be the same file, and nobody survives that.
        let _ = match FILE.get() {
            Some(file) => file.lock().unwrap_or_else(PoisonError::into_inner).append(line),
            None => io::stderr().write(line),
        };
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct LogFile {
    path: PathBuf,
    file: File,
    size: u64,
}

impl LogFile {
    fn open(path: &Path) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
        let size = file.metadata()?.len();
        Ok(Self { path, file, size })
    }

    fn append(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.size + line.len() as u64 > LARGEST && self.file.metadata()?.is_file() {
            let mut old = self.path.clone().into_os_string();
            old.push(".old");
            fs::rename(&self.path, old)?;
            *self = Self::open(&self.path)?;
        }
        // A line that is cut short by a full disk is not worth a second try.
        let written = self.file.write(line)?;
        self.size += written as u64;
        Ok(written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_file_is_begun_anew_and_the_one_before_is_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("log");
        let line = vec![b'x'; 1 << 20];
        let mut file = LogFile::open(&path).expect("opened");
        for _ in 0..5 {
            file.append(&line).expect("written");
        }
        let size = |name: &str| fs::metadata(dir.path().join(name)).expect("there").len();
        assert_eq!((size("log"), size("log.old")), (1 << 20, 4 << 20));
        assert_eq!(LogFile::open(&path).expect("opened again").size, 1 << 20);
    }
}
