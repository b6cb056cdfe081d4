//! Where the log goes: to stderr, and as much of it as was asked for.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::engine::control::{Failure, FailureKind};

/// Starts the log. `foreground` is for verbs that run until they are stopped: those say more unasked. fuser warns of an
/// unmount from outside, which is an ordinary end.
pub(super) fn start(filter: Option<&str>, verbose: u8, quiet: bool, foreground: bool) -> Result<(), Failure> {
    let level = match (quiet, verbose) {
        (true, _) => "error",
        (_, 0) if foreground => "info,fuser=error",
        (_, 0) => "warn,fuser=error",
        (_, 1) => "debug",
        (_, _) => "trace",
    };
    let text = filter.unwrap_or(level);
    let filter = EnvFilter::try_new(text).map_err(|error| {
        Failure::new(FailureKind::Usage, format!("{text:?} is no log filter: {error}"))
            .hint("such as `info`, or `pigeonfs::engine=debug,warn`, in --log or $PIGEONFS_LOG")
    })?;
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour).init();
    Ok(())
}
