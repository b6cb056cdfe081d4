//! The command `pigeonfs`: parse, run, exit code.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

static STDOUT_WAS_CLOSED: AtomicBool = AtomicBool::new(false);

/// Runs before the runtime, which opens /dev/null in place of a standard output that is closed.
extern "C" fn look_at_stdout() {
    let closed = rustix::io::fcntl_getfd(rustix::stdio::stdout()) == Err(rustix::io::Errno::BADF);
    STDOUT_WAS_CLOSED.store(closed, Ordering::Relaxed);
}

#[used]
#[expect(unsafe_code, reason = "there is no other place before the runtime; the function touches one atomic")]
#[unsafe(link_section = ".init_array")]
static AT_START: extern "C" fn() = look_at_stdout;

fn main() -> ExitCode {
    pigeonfs::cli::main(std::env::args_os(), STDOUT_WAS_CLOSED.load(Ordering::Relaxed))
}
