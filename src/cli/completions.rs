//! `pigeonfs completions`: what a shell needs to complete verbs, options and the names of channels.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use clap::{Args, ValueEnum};
use clap_complete::engine::CompletionCandidate;
use clap_complete::env::EnvCompleter;
use clap_complete::env::{Bash, Fish, Zsh};

use super::config;
use super::context::state_directory;
use super::{Stop, output};
use crate::engine::Daemon;
use crate::engine::control::{Link, Opening, Request, Response, is_owned};
use crate::store::Making;

/// The variable by which a shell's script asks for completions.
pub(super) const VARIABLE: &str = "PIGEONFS_COMPLETE";
/// Nobody waits longer for a name after a key was pressed.
const PATIENCE: Duration = Duration::from_secs(1);

/// Print a script that completes verbs, options and channel names in a shell
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  source <(pigeonfs completions bash)
  pigeonfs completions zsh > ~/.zfunc/_pigeonfs
  pigeonfs completions fish > ~/.config/fish/completions/pigeonfs.fish")]
pub(super) struct Typed {
    /// The shell
    shell: Shell,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Prints the script.
pub(super) fn run(typed: &Typed) -> Result<(), Stop> {
    let completer: &dyn EnvCompleter = match typed.shell {
        Shell::Bash => &Bash,
        Shell::Zsh => &Zsh,
        Shell::Fish => &Fish,
    };
    let mut script = Vec::new();
    completer.write_registration(VARIABLE, "pigeonfs", "pigeonfs", "pigeonfs", &mut script)?;
    output::bytes(&script)
}

/// The names of channels that begin so. Nothing is made, nothing is asked: where there is no state, where it is sealed, or
/// where its owner does not answer at once, there are none.
pub(super) fn channels(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(prefix) = current.to_str() else { return Vec::new() };
    let names = names(&std::env::args_os().collect::<Vec<_>>()).unwrap_or_default();
    names.into_iter().filter(|name| name.starts_with(prefix)).map(CompletionCandidate::new).collect()
}

fn names(words: &[OsString]) -> Option<Vec<String>> {
    let state = state_directory(typed_state(words), config::state()).ok()?;
    if !is_open(&state) && !is_owned(&state) {
        return None;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    runtime.block_on(async {
        let look = async {
            let opening = Opening { making: Making::Never, ..Opening::new(state, Daemon::Unneeded) };
            let link = Link::open(opening).await.ok()?;
            let answer = link.request(Request::Status { name: None }).await;
            link.close().await;
            match answer {
                Ok(Response::Status(status)) => Some(status.channels.into_iter().map(|channel| channel.name).collect()),
                _ => None,
            }
        };
        tokio::time::timeout(PATIENCE, look).await.ok().flatten()
    })
}

/// The state that the line names which is being completed.
fn typed_state(words: &[OsString]) -> Option<std::path::PathBuf> {
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("--state") => return words.next().map(Into::into),
            Some(word) => {
                if let Some(path) = word.strip_prefix("--state=") {
                    return Some(path.into());
                }
            }
            None => {}
        }
    }
    None
}

/// Whether there is a state whose database anybody who may read it can read, without a passphrase.
fn is_open(state: &Path) -> bool {
    let mut head = [0; 16];
    let database = File::open(state.join("pigeonfs.db"));
    database.and_then(|mut file| file.read_exact(&mut head)).is_ok_and(|()| head == *b"SQLite format 3\0")
}
