//! What benchmarks of the program share: how it is called, and what a process has taken.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// The program on a state, with nothing of the person's own configuration.
pub(crate) fn command(state: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pigeonfs"));
    for name in ["XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "PIGEONFS_THINCLIENT"] {
        command.env_remove(name);
    }
    command.args(["--quiet", "--state"]).arg(state).env("HOME", state);
    command
}

/// Runs it to its good end; what it printed.
pub(crate) fn run_command(command: &mut Command, stdin: &[u8]) -> Vec<u8> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{command:?}");
    output.stdout
}

/// Resident memory of a process now and at most, in KiB.
pub(crate) fn memory(process: u32) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let field = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    (field("VmRSS:"), field("VmHWM:"))
}
