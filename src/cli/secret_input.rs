//! Secrets that a person types or pastes: nothing of them is shown, and the terminal is left as it was.

use std::io::{IsTerminal, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::engine::control::{Failure, FailureKind};

/// Most that is read of a file or of stdin: a capability with room for the blanks around it.
const LONGEST_TEXT: usize = 4096;
/// Lines that come within so long of each other belong to one paste.
const PASTE: Timespec = Timespec { tv_sec: 0, tv_nsec: 150_000_000 };
const INTERRUPT: u8 = 3;
const END: u8 = 4;
const BACKSPACE: [u8; 2] = [8, 127];

/// What a file holds; of `-`, what stdin does.
pub(super) fn from_file(path: &Path, prompt: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    if path.as_os_str() == "-" {
        return from_stdin(prompt);
    }
    std::fs::File::open(path).and_then(bounded).map_err(|error| {
        Failure::new(FailureKind::Failed, format!("the file {} cannot be read: {error}", path.display()))
    })
}

/// What comes on stdin: from a pipe all of it, from a terminal what is pasted, without its being shown.
pub(super) fn from_stdin(prompt: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let failed = |error| Failure::new(FailureKind::Failed, format!("standard input cannot be read: {error}"));
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return bounded(stdin.lock()).map_err(failed);
    }
    let mut stderr = std::io::stderr();
    let typed = {
        // Before the prompt: what is pasted as soon as that appears would be shown, or lost.
        let _quiet = stdin.as_fd().try_clone_to_owned().and_then(Quiet::on).map_err(failed)?;
        let _ = write!(stderr, "{prompt}, then Enter (it is not shown): ");
        typed().map_err(failed)
    };
    let _ = writeln!(stderr);
    typed?.ok_or_else(|| Failure::new(FailureKind::Interrupted, "interrupted"))
}

fn bounded(from: impl Read) -> std::io::Result<Zeroizing<Vec<u8>>> {
    // Room for all of it at once: a vector that grows leaves copies behind.
    let mut text = Zeroizing::new(Vec::with_capacity(LONGEST_TEXT + 1));
    from.take(LONGEST_TEXT as u64 + 1).read_to_end(&mut text)?;
    Ok(text)
}

/// What a file holds, as far as one byte more than a key may have.
pub(super) fn bounded_file(path: &Path) -> std::io::Result<Zeroizing<Vec<u8>>> {
    std::fs::File::open(path).and_then(bounded)
}

/// A line that is typed on the terminal, without its being shown. `None`: nobody is at a terminal.
///
/// # Errors
/// The terminal cannot be read; it was interrupted.
pub(super) fn passphrase(prompt: &str) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
    let failed =
        |error: std::io::Error| Failure::new(FailureKind::Failed, format!("the terminal cannot be read: {error}"));
    let Some(terminal) = terminal() else { return Ok(None) };
    let mut stderr = std::io::stderr();
    let line = {
        let _quiet = Quiet::on(terminal.try_clone().map_err(failed)?).map_err(failed)?;
        let _ = write!(stderr, "{prompt}");
        line(&terminal).map_err(failed)
    };
    let _ = writeln!(stderr);
    line?.map(Some).ok_or_else(|| Failure::new(FailureKind::Interrupted, "interrupted"))
}

/// The terminal of whoever started this, where it is one: standard input may be data.
fn terminal() -> Option<OwnedFd> {
    let (stdin, stderr) = (std::io::stdin(), std::io::stderr());
    let shown = [stdin.as_fd(), stderr.as_fd()].into_iter().find(IsTerminal::is_terminal)?;
    let own = std::fs::File::options().read(true).write(true).open("/dev/tty").map(OwnedFd::from).ok();
    own.or_else(|| shown.try_clone_to_owned().ok())
}

/// Bytes up to a line end; `None`: interrupted.
fn line(terminal: &OwnedFd) -> std::io::Result<Option<Zeroizing<Vec<u8>>>> {
    let mut text = Zeroizing::new(Vec::with_capacity(LONGEST_TEXT + 1));
    let mut byte = [0];
    while text.len() <= LONGEST_TEXT {
        if rustix::io::read(terminal, &mut byte)? == 0 {
            break;
        }
        match byte[0] {
            INTERRUPT => return Ok(None),
            END | b'\r' | b'\n' => break,
            back if BACKSPACE.contains(&back) => drop(text.pop()),
            byte => text.push(byte),
        }
    }
    Ok(Some(text))
}

/// Bytes up to a line end that nothing follows at once; `None`: interrupted.
fn typed() -> std::io::Result<Option<Zeroizing<Vec<u8>>>> {
    let stdin = std::io::stdin();
    let mut text = Zeroizing::new(Vec::with_capacity(LONGEST_TEXT + 1));
    let mut byte = [0];
    while text.len() <= LONGEST_TEXT {
        // Unbuffered: what is waiting is asked of the terminal itself.
        if rustix::io::read(&stdin, &mut byte)? == 0 {
            break;
        }
        match byte[0] {
            INTERRUPT => return Ok(None),
            END => break,
            back if BACKSPACE.contains(&back) => drop(text.pop()),
            b'\r' | b'\n' => {
                let mut waiting = [PollFd::new(&stdin, PollFlags::IN)];
                if !text.is_empty() && poll(&mut waiting, Some(&PASTE))? == 0 {
                    break;
                }
                text.push(b'\n');
            }
            byte => text.push(byte),
        }
    }
    Ok(Some(text))
}

/// A terminal that shows nothing of what is typed, and gives each byte at once; as it was when this is dropped.
struct Quiet(OwnedFd, Termios);

impl Quiet {
    fn on(terminal: OwnedFd) -> std::io::Result<Self> {
        let before = tcgetattr(&terminal)?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON | LocalModes::ISIG);
        tcsetattr(&terminal, OptionalActions::Flush, &quiet)?;
        Ok(Self(terminal, before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.0, OptionalActions::Now, &self.1);
    }
}
