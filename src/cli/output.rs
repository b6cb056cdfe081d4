//! Standard output: text for people, one line of JSON for programs. A reader that went away is told apart from a failure.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;
use serde::Serialize;

use super::Stop;
use crate::engine::control::{Failure, FailureKind};
use crate::text::{shown, shown_json};
pub(super) use crate::units::show_size as size;

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::BrokenPipe;
        }
        Failure::new(FailureKind::Failed, format!("standard output cannot be written to: {error}")).into()
    }
}

/// Whether the process was started with its standard output closed. The runtime has put /dev/null in its place, where
/// everything would vanish and count as printed.
static CLOSED: AtomicBool = AtomicBool::new(false);

/// Says that the standard output was closed when the process began.
pub(super) fn is_closed() {
    CLOSED.store(true, Ordering::Relaxed);
}

/// Fails where nothing can be printed. A verb that prints asks before it does anything.
pub(super) fn check() -> Result<(), Failure> {
    if !CLOSED.load(Ordering::Relaxed) {
        return Ok(());
    }
    Err(Failure::new(FailureKind::Failed, "standard output is closed, and this verb prints to it")
        .hint("give it a file, a pipe, or /dev/null; nothing was done"))
}

/// Makes sure that what was printed is where it is to go: a file says only now that its disk is full, on some file systems.
pub(super) fn settle() -> Result<(), Stop> {
    let stdout = io::stdout();
    stdout.lock().flush()?;
    match rustix::fs::fdatasync(&stdout) {
        // A pipe, a terminal, or a file system that cannot.
        Ok(()) | Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP | Errno::ROFS) => Ok(()),
        Err(error) => Err(io::Error::from(error).into()),
    }
}

/// Writes bytes as they are, at once.
pub(super) fn bytes(bytes: &[u8]) -> Result<(), Stop> {
    check()?;
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    Ok(stdout.flush()?)
}

/// Writes a line, at once. What is in it that cannot be seen, or would begin another line, is escaped.
pub(super) fn line(text: &str) -> Result<(), Stop> {
    check()?;
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{}", shown(text))?;
    Ok(stdout.flush()?)
}

/// Writes a line to stderr, which whoever reads the output is not to get. Whoever cannot be told is told by the result.
pub(super) fn aside(text: &str) {
    let _ = writeln!(io::stderr(), "{}", shown(text));
}

/// Writes a value as one line of JSON, at once.
pub(super) fn json(value: &impl Serialize) -> Result<(), Stop> {
    let text = serde_json::to_string(value).map_err(|error| {
        Failure::new(FailureKind::Failed, format!("the result could not be put into JSON: {error}"))
    })?;
    line(&shown_json(&text))
}

/// Writes rows with their columns aligned, the last one as long as it is.
pub(super) fn table<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> Result<(), Stop> {
    check()?;
    let width = |column: usize| rows.iter().map(|row| shown(&row[column]).chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..COLUMNS).map(width).collect();
    let mut stdout = io::stdout().lock();
    for row in rows {
        let mut text = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            text.push_str(&format!("{cell:<width$}  ", cell = shown(cell)));
        }
        writeln!(stdout, "{}", text.trim_end())?;
    }
    Ok(stdout.flush()?)
}
