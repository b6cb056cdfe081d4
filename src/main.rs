//! The command `pigeonfs`: parse, run, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    pigeonfs::cli::main(std::env::args_os())
}
