//! How a verb that failed says so, and with which exit code it ends. The only place that knows the codes.

use std::borrow::Cow;
use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Command;
use clap::error::ErrorKind;
use serde_json::json;

use super::{Stop, log, output, secret_args, usage};
use crate::engine::control::{Failure, FailureKind};
use crate::text::{shown, shown_json};

/// A run of letters and digits of this length may be a capability.
const SECRET_LENGTH: usize = 100;
/// 128 and the number of SIGPIPE.
const BROKEN_PIPE: u8 = 141;

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

/// Prints what was wrong with the command line, or the help or version that it asked for; the exit code.
pub(super) fn usage(error: &clap::Error, command: &Command, words: &[OsString], json: bool) -> ExitCode {
    let text = |terminal: bool| match terminal && colours() {
        true => error.render().ansi().to_string(),
        false => error.render().to_string(),
    };
    if !error.use_stderr() {
        let printed = output::check().map_err(Stop::from);
        return match printed.and_then(|()| output::bytes(text(std::io::stdout().is_terminal()).as_bytes())) {
            Ok(()) | Err(Stop::BrokenPipe) => ExitCode::SUCCESS,
            Err(Stop::Failure(failure)) => tell(&failure, json),
        };
    }
    let only_the_name = error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    if only_the_name && !json {
        log::tell(text(std::io::stderr().is_terminal()).into_bytes());
        return ExitCode::from(exit_code(FailureKind::Usage));
    }
    let mut failure = usage::failure(error, command, words);
    failure.message = secret_args::redacted(&failure.message, words);
    failure.hint = failure.hint.map(|hint| secret_args::redacted(&hint, words));
    tell(&failure, json)
}

/// The exit code of a verb that ended before its work was done, because nobody read its output: what a shell shows of a
/// program that SIGPIPE ended, which is how `tar` and `cp -v` end there.
pub(super) fn broken_pipe() -> ExitCode {
    ExitCode::from(BROKEN_PIPE)
}

/// Whether colours are wanted, on a terminal.
fn colours() -> bool {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    set("NO_COLOR").is_none() && set("TERM").is_none_or(|term| term != "dumb")
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
    let bold = std::io::stderr().is_terminal() && colours();
    let word =
        |word: &str, colour: u8| if bold { format!("\x1b[1;{colour}m{word}:\x1b[0m") } else { format!("{word}:") };
    writeln!(out, "{} {}", word("error", 31), shown(&plain(&failure.message)))?;
    match &failure.hint {
        Some(hint) => writeln!(out, "{} {}", word("hint", 36), shown(&plain(hint))),
        None => Ok(()),
    }
}

fn tell_json(out: &mut impl Write, failure: &Failure) -> std::io::Result<()> {
    let told = json!({ "error": { "kind": failure.kind, "message": plain(&failure.message),
                                  "hint": failure.hint.as_deref().map(plain) } });
    writeln!(out, "{}", shown_json(&told.to_string()))
}

/// Without the number that the standard library puts behind what the system says, and without texts so long that they may
/// be a capability which was put where a name belongs.
fn plain(text: &str) -> Cow<'_, str> {
    let mut plain = Cow::Borrowed(text);
    while let Some(from) = plain.find(" (os error ") {
        let Some(length) = plain[from..].find(')') else { break };
        plain = Cow::Owned(format!("{}{}", &plain[..from], &plain[from + length + 1..]));
    }
    let is_code = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '+' | '=' | '_' | '-');
    let long = plain.split(|letter| !is_code(letter)).find(|part| part.len() >= SECRET_LENGTH).map(str::to_owned);
    match long {
        Some(long) => Cow::Owned(plain.replace(&long, &format!("({} characters)", long.len()))),
        None => plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_errors_are_left_out() {
        assert_eq!(
            plain("a: No such file or directory (os error 2); b (os error 13)"),
            "a: No such file or directory; b"
        );
        assert_eq!(plain("cut off (os error "), "cut off (os error ");
        let secret = "QUJD".repeat(46);
        assert_eq!(plain(&format!("no channel named {secret:?}")), "no channel named \"(184 characters)\"");
    }
}
