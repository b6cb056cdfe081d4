//! `--daemonize`: the process that was started runs the real one as its child, in a session of its own, and returns when
//! that one says that the mount is there, or with its error and its exit code.
//!
//! The child is the same program with the same arguments, not a fork: a fork of a process that may have threads is no
//! place to stand. It knows itself by its parent's number in its environment; what it has to say goes over its standard
//! output, and what went wrong to the standard error that both share.

use std::env;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::process::{Command, ExitCode, Stdio};

use super::super::{Stop, log, output};
use crate::engine::control::{Failure, FailureKind};

const PARENT: &str = "PIGEONFS_BACKGROUND_OF";
/// The last line of the child's output, once it serves.
const READY: &[u8] = b"\x06\n";

/// Whether this process is the one that was put into the background.
pub(crate) fn is_child() -> bool {
    let parent = rustix::process::getppid().map(|parent| parent.as_raw_nonzero().to_string());
    parent.is_some_and(|parent| env::var_os(PARENT).is_some_and(|named| named == *parent))
}

/// Runs this program again in the background with the same arguments, and waits until it serves or has failed.
pub(crate) fn run(arguments: &[OsString]) -> Result<ExitCode, Stop> {
    let failed = |error: io::Error| {
        Failure::new(FailureKind::Failed, format!("this program could not be started in the background: {error}"))
    };
    let mut child = Command::new("/proc/self/exe")
        .args(arguments.iter().skip(1))
        .env(PARENT, std::process::id().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut said = Vec::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_end(&mut said).map_err(failed)?;
    }
    if let Some(words) = said.strip_suffix(READY) {
        output::bytes(words)?;
        return Ok(ExitCode::SUCCESS);
    }
    let status = child.wait().map_err(failed)?;
    match status.code().map(u8::try_from) {
        // It has said why.
        Some(Ok(code @ 1..)) => Ok(ExitCode::from(code)),
        _ => Err(Failure::new(FailureKind::Failed, format!("the mount ended before it was there ({status})")).into()),
    }
}

/// The background, entered but still heard by whoever started us.
pub(super) struct Background(());

impl Background {
    /// Leaves the session of the terminal, so that its signals no longer come here.
    pub(super) fn enter() -> Result<Self, Failure> {
        // A leader of its group has a session of its own, or was started for one.
        match rustix::process::setsid() {
            Ok(_) | Err(rustix::io::Errno::PERM) => Ok(Self(())),
            Err(error) => Err(cannot(&error.into())),
        }
    }

    /// Says that the mount is there, and lets go of the terminal and of the directory. An error says that nobody is
    /// there to hear it: the mount is not wanted any more.
    pub(super) fn detach(self) -> Result<(), Failure> {
        env::set_current_dir("/").map_err(|error| cannot(&error))?;
        let null = OpenOptions::new().read(true).write(true).open("/dev/null").map_err(|error| cannot(&error))?;
        let mut stdout = io::stdout().lock();
        stdout.write_all(READY).and_then(|()| stdout.flush()).map_err(|error| cannot(&error))?;
        close_inherited().map_err(|error| cannot(&error))?;
        // What anything below prints goes where the log goes.
        let errors: File = log::file().map_or_else(|| null.try_clone(), Ok).map_err(|error| cannot(&error))?;
        rustix::stdio::dup2_stderr(&errors)
            .and_then(|()| rustix::stdio::dup2_stdin(&null))
            .and_then(|()| rustix::stdio::dup2_stdout(&null))
            .map_err(|error| cannot(&error.into()))
    }
}

/// Closes what whoever started us left open in us: a pipe whose reader waits for its end, a lock that its owner believes
/// to be free. What this process opened itself is closed on exec, and so told apart. It is done now, not at the start,
/// since an option may have named one of them.
fn close_inherited() -> io::Result<()> {
    const FIRST_BEYOND_STANDARD: i32 = 3;
    let numbers: Vec<i32> = std::fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&number| number >= FIRST_BEYOND_STANDARD)
        .collect();
    for number in numbers {
        // One that was closed meanwhile has no line.
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap_or_default();
        if is_inherited(&info) {
            nix::unistd::close(number)?;
        }
    }
    Ok(())
}

/// Whether a descriptor with these lines in fdinfo goes on to programs that are started.
fn is_inherited(info: &str) -> bool {
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & libc::O_CLOEXEC == 0)
}

fn cannot(error: &io::Error) -> Failure {
    Failure::new(FailureKind::Failed, format!("the mount could not go to the background: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_closed_on_exec_is_ours() {
        assert!(is_inherited("pos:\t0\nflags:\t0100002\nmnt_id:\t9\n"));
        assert!(!is_inherited("pos:\t0\nflags:\t02100002\nmnt_id:\t9\n"));
        assert!(!is_inherited(""), "it is closed already");
    }
}
