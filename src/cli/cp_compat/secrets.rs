//! Capabilities that upstream's interface wants in arguments: taken out of them at once.

use std::ffi::OsString;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::io::{FdFlags, fcntl_setfd};
use zeroize::Zeroize;

use super::{failed, usage};
use crate::bacap::BoxIndex;
use crate::engine::control::Failure;

/// Longer than both texts together can be.
const LONGEST: u64 = 4096;

/// A capability and an index, in base64.
pub(super) struct Given {
    pub(super) cap: String,
    pub(super) index: String,
}

impl Drop for Given {
    fn drop(&mut self) {
        self.cap.zeroize();
        self.index.zeroize();
    }
}

impl Given {
    pub(super) fn index(&self) -> Result<BoxIndex, Failure> {
        let bytes = STANDARD.decode(self.index.trim()).map_err(|_| usage("box index", "it is not base64"))?;
        BoxIndex::from_bytes(&bytes).map_err(|error| usage("box index", &error.to_string()))
    }
}

/// Replaces this process by one that reads both from a pipe, so that its arguments hold neither. Returns only where that
/// fails.
pub(super) fn start_anew(given: &Given, arguments: Vec<OsString>) -> Failure {
    eprint_warning();
    match replaced(given, arguments) {
        Ok(error) | Err(error) => {
            failed(format!("the program could not be started again without the capability in its arguments: {error}"))
        }
    }
}

fn replaced(given: &Given, arguments: Vec<OsString>) -> std::io::Result<std::io::Error> {
    let (reader, mut writer) = std::io::pipe()?;
    // Both fit into the pipe, which nobody reads yet.
    writer.write_all(format!("{}\n{}\n", given.cap.trim(), given.index.trim()).as_bytes())?;
    drop(writer);
    fcntl_setfd(&reader, FdFlags::empty())?;
    let secrets = format!("/proc/self/fd/{}", reader.as_raw_fd());
    let mut command = Command::new(std::env::current_exe()?);
    Ok(command.arg("cp-compat").args(arguments).arg("--secrets").arg(secrets).exec())
}

fn eprint_warning() {
    let text = "warning: every user of this machine can read a capability in an argument while the program starts; \
                `pigeonfs send --write-cap-file` and `pigeonfs receive --read-cap-file` take it from a file\n";
    // Where nobody can be warned, the work goes on.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// What [`start_anew`] left.
pub(super) fn given(path: Option<&Path>) -> Result<Given, Failure> {
    let path = path.ok_or_else(|| failed("the capability is missing".to_owned()))?;
    let mut text = String::new();
    let read = std::fs::File::open(path)
        .and_then(|file| std::io::Read::read_to_string(&mut std::io::Read::take(file, LONGEST), &mut text));
    read.map_err(|error| failed(format!("the capability cannot be read: {error}")))?;
    let mut lines = text.lines();
    let given =
        Given { cap: lines.next().unwrap_or_default().to_owned(), index: lines.next().unwrap_or_default().to_owned() };
    text.zeroize();
    Ok(given)
}
