//! Standard output: text for people, one line of JSON for programs. A reader that went away is no failure.

use std::borrow::Cow;
use std::io::{self, Write};

use serde::Serialize;

use super::Stop;
use crate::engine::control::{Failure, FailureKind};
pub(super) use crate::units::show_size as size;

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::BrokenPipe;
        }
        Failure::new(FailureKind::Failed, format!("standard output cannot be written to: {error}")).into()
    }
}

/// Writes bytes as they are, at once.
pub(super) fn bytes(bytes: &[u8]) -> Result<(), Stop> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    Ok(stdout.flush()?)
}

/// Writes a line, at once.
pub(super) fn line(text: &str) -> Result<(), Stop> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}")?;
    Ok(stdout.flush()?)
}

/// Writes a value as one line of JSON, at once.
pub(super) fn json(value: &impl Serialize) -> Result<(), Stop> {
    let text = serde_json::to_string(value).map_err(|error| {
        Failure::new(FailureKind::Failed, format!("the result could not be put into JSON: {error}"))
    })?;
    line(&text)
}

/// Writes rows with their columns aligned, the last one as long as it is.
pub(super) fn table<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> Result<(), Stop> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..COLUMNS).map(width).collect();
    let mut stdout = io::stdout().lock();
    for row in rows {
        let mut text = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            text.push_str(&format!("{cell:<width$}  "));
        }
        writeln!(stdout, "{}", text.trim_end())?;
    }
    Ok(stdout.flush()?)
}

/// Text from elsewhere, with nothing in it that a terminal would obey.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().any(|c| c.is_control() && c != '\n') {
        let shown = |c: char| if c.is_control() && c != '\n' { char::REPLACEMENT_CHARACTER } else { c };
        return Cow::Owned(text.chars().map(shown).collect());
    }
    Cow::Borrowed(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_not_printed() {
        assert_eq!(printable("two\nlines"), "two\nlines");
        assert_eq!(printable("\x1b[2Jgone"), "\u{fffd}[2Jgone");
    }
}
