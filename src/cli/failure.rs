//! How a verb that failed says so, and with which exit code it ends. The only place that knows the codes.

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use serde_json::json;

use super::output;
use super::{Stop, log, secret_args};
use crate::engine::control::{Failure, FailureKind};
use crate::text::{shown, shown_json};

/// Prints a failure to stderr; its exit code.
pub(super) fn tell(failure: &Failure, json: bool) -> ExitCode {
    let mut text = Vec::new();
    // Nothing fails that is written to memory.
    let _ = if json { tell_json(&mut text, failure) } else { tell_text(&mut text, failure) };
    log::tell(text);
    ExitCode::from(exit_code(failure.kind))
}

/// Prints what a person is to know although the verb goes on.
pub(super) fn warn(text: &str) {
    // Where nobody can be told, it goes on all the same.
    let _ = writeln!(std::io::stderr().lock(), "warning: {}", shown(text));
}

/// Prints what was wrong with the command line, or the help that it asked for.
pub(super) fn usage(error: &clap::Error, arguments: &[OsString]) -> ExitCode {
    if error.use_stderr() {
        let text = error.render();
        let is_coloured = std::io::stderr().is_terminal();
        let text = if is_coloured { text.ansi().to_string() } else { text.to_string() };
        // Where nobody can be told, the exit code is what is left.
        let _ = std::io::stderr().lock().write_all(secret_args::redacted(&text, arguments).as_bytes());
        return ExitCode::from(exit_code(FailureKind::Usage));
    }
    let printed = output::check().map_err(Stop::from).and_then(|()| Ok(error.print()?));
    match printed {
        Ok(()) | Err(Stop::BrokenPipe) => ExitCode::SUCCESS,
        Err(Stop::Failure(failure)) => tell(&failure, false),
    }
}

fn exit_code(kind: FailureKind) -> u8 {
    match kind {
        FailureKind::Failed => 1,
        FailureKind::Usage => 2,
        FailureKind::TimedOut => 3,
        FailureKind::NoDaemon => 4,
        FailureKind::Refused => 5,
        FailureKind::Busy => 6,
        FailureKind::Interrupted => 130,
    }
}

fn tell_text(out: &mut impl Write, failure: &Failure) -> std::io::Result<()> {
    let bold = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let word =
        |word: &str, colour: u8| if bold { format!("\x1b[1;{colour}m{word}:\x1b[0m") } else { format!("{word}:") };
    writeln!(out, "{} {}", word("error", 31), shown(&failure.message))?;
    match &failure.hint {
        Some(hint) => writeln!(out, "{} {}", word("hint", 36), shown(hint)),
        None => Ok(()),
    }
}

fn tell_json(out: &mut impl Write, failure: &Failure) -> std::io::Result<()> {
    let told = json!({ "error": { "kind": failure.kind, "message": failure.message, "hint": failure.hint } });
    writeln!(out, "{}", shown_json(&told.to_string()))
}
