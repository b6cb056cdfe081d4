//! `pigeonfs cp-compat`, also called as `pigeonhole-cp`: upstream's copy tool with its options, its output and its exit
//! codes, and with this engine below. A transfer that was cut off goes on when the same command is given again.

mod copy;
mod secrets;
mod transfer;

use std::ffi::OsString;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};

use self::secrets::Given;
use super::context::Context;
use super::daemon::DaemonChoice;
use super::key::Keys;
use super::{Stop, output};
use crate::bacap::{ReadCap, WriteCap};
use crate::drop::Header;
use crate::engine::control::{Failure, FailureKind};
use crate::store::PrivateDir;
use crate::thin::{Config, Discovery, Environment};

/// The name of the program that this verb stands in for.
const PROGRAM: &str = "pigeonhole-cp";

/// Copy files as upstream's pigeonhole-cp does, with its options and its output
#[derive(Args, Debug)]
#[command(after_help = "\
The program answers to the name pigeonhole-cp too: make a link of that name to pigeonfs. Differences from upstream's tool: a \
transfer that was interrupted goes on when the same command is given again; several boxes are on their way at a time; a bar \
shows the progress on a terminal.

A leading dot or dash of a name that is received becomes `_`, so that no sender plants a hidden file or an option.

What is under way is kept in $XDG_STATE_HOME/pigeonhole-cp, with the capability in it, and is deleted when it is done.

A capability in an argument can be read by every user of this machine while the program starts. `pigeonfs send` and \
`pigeonfs receive` take it from a file.

Exit codes: 0 done, 1 failed, 2 usage, 130 interrupted, 141 nobody read the output.

Examples:
  pigeonfs cp-compat genkey -c thinclient.toml
  pigeonfs cp-compat send -c thinclient.toml -w WRITE_CAP -i INDEX -f report.pdf")]
pub(super) struct Typed {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a new pair of keys, and print both capabilities and the first index
    Genkey {
        /// The daemon's thinclient.toml
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Send a file to a channel
    Send {
        /// The daemon's thinclient.toml
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
        /// The write capability, in base64
        #[arg(short, long, value_name = "CAP", required_unless_present = "secrets")]
        write_cap: Option<String>,
        /// The index to begin at, in base64, as `genkey` prints it
        #[arg(short, long, value_name = "INDEX", required_unless_present = "secrets")]
        index: Option<String>,
        /// The file
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
        /// Write the file box by box, of any size, and not by one copy command of a courier (at most 9 MiB)
        #[arg(long)]
        no_copy: bool,
        /// Where this program left the capability and the index for itself
        #[arg(long, hide = true, value_name = "FILE")]
        secrets: Option<PathBuf>,
    },
    /// Receive a file from a channel
    Receive {
        /// The daemon's thinclient.toml
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
        /// The read capability, in base64
        #[arg(short, long, value_name = "CAP", required_unless_present = "secrets")]
        read_cap: Option<String>,
        /// The index to begin at, in base64, as `genkey` prints it
        #[arg(short, long, value_name = "INDEX", required_unless_present = "secrets")]
        index: Option<String>,
        /// The directory for the file; its name is the one that its sender gave
        #[arg(short, long, value_name = "DIR")]
        dest_dir: PathBuf,
        /// Where this program left the capability and the index for itself
        #[arg(long, hide = true, value_name = "FILE")]
        secrets: Option<PathBuf>,
    },
}

/// Whether the program was called by upstream's name.
pub(super) fn is_called(program: &std::ffi::OsStr) -> bool {
    Path::new(program).file_name().is_some_and(|name| name == PROGRAM)
}

impl Typed {
    /// Whether capabilities are among the arguments.
    pub(super) fn has_secrets(&self) -> bool {
        match &self.command {
            Command::Genkey { .. } => false,
            Command::Send { secrets, .. } | Command::Receive { secrets, .. } => secrets.is_none(),
        }
    }

    /// Takes capabilities out of the arguments: this process is replaced by one that has none there. Returns only where
    /// that fails. `common`: the options of every verb, which go along.
    pub(super) fn hide_secrets(&self, common: Vec<OsString>) -> Failure {
        let given = |cap: &Option<String>, index: &Option<String>| Given {
            cap: cap.clone().unwrap_or_default(),
            index: index.clone().unwrap_or_default(),
        };
        match &self.command {
            Command::Genkey { .. } => failed("there is no capability among the arguments".to_owned()),
            Command::Send { config, write_cap, index, file, no_copy, .. } => {
                let mut rest = vec!["send".into(), "-c".into(), config.into(), "-f".into(), file.into()];
                rest.extend(no_copy.then(|| "--no-copy".into()));
                rest.extend(common);
                secrets::start_anew(&given(write_cap, index), rest)
            }
            Command::Receive { config, read_cap, index, dest_dir, .. } => {
                let mut rest = vec!["receive".into(), "-c".into(), config.into(), "-d".into(), dest_dir.into()];
                rest.extend(common);
                secrets::start_anew(&given(read_cap, index), rest)
            }
        }
    }
}

pub(super) async fn run(context: &Context, typed: Typed) -> Result<(), Stop> {
    let result = match typed.command {
        Command::Genkey { config } => load(&config).map_err(Stop::from).and_then(|_| genkey()),
        Command::Send { config, file, no_copy, secrets, .. } => send(context, config, &file, no_copy, secrets).await,
        Command::Receive { config, dest_dir, secrets, .. } => receive(context, config, &dest_dir, secrets).await,
    };
    result.map_err(|stop| match stop {
        // Upstream's tool has no more exit codes than these.
        Stop::Failure(failure) if !matches!(failure.kind, FailureKind::Usage | FailureKind::Interrupted) => {
            Failure { kind: FailureKind::Failed, ..failure }.into()
        }
        stop => stop,
    })
}

fn genkey() -> Result<(), Stop> {
    let mut seed = zeroize::Zeroizing::new([0_u8; 32]);
    getrandom::fill(&mut *seed).map_err(|error| failed(format!("this machine gives no randomness: {error}")))?;
    let cap = WriteCap::from_seed(&seed);
    let text = zeroize::Zeroizing::new(format!(
        "Read Capability (share with recipient):\n{}\n\nWrite Capability (keep secret):\n{}\n\nFirst Index:\n{}\n",
        STANDARD.encode(cap.read_cap().to_bytes()),
        STANDARD.encode(cap.to_bytes()),
        STANDARD.encode(cap.index().as_bytes()),
    ));
    output::bytes(text.as_bytes())
}

async fn send(
    context: &Context,
    config: PathBuf,
    file: &Path,
    no_copy: bool,
    secrets: Option<PathBuf>,
) -> Result<(), Stop> {
    let given = secrets::given(secrets.as_deref())?;
    let cap = WriteCap::from_base64(&given.cap).map_err(|error| usage("write capability", &error.to_string()))?;
    let cap = cap.with_index(given.index()?);
    let (header, mut opened) = described(file)?;
    let daemon = load(&config)?;
    let place = place(context, &[&cap.to_bytes()[..], header.name.as_bytes(), &header.digest.unwrap_or_default()])?;
    let sent = if no_copy {
        transfer::send(&place, found(config), &cap, header, opened).await?
    } else {
        copy::send(&place.state, daemon, &cap, &header, &mut opened).await?
    };
    clear(&place.state);
    let seconds = sent.took.as_secs_f64().max(f64::EPSILON);
    output::line(&format!(
        "sent {} bytes in {} box(es) ({}) in {seconds:.3}s: {:.2} boxes/s, {:.1} KiB/s",
        sent.bytes,
        sent.boxes,
        if no_copy { "direct" } else { "copy" },
        sent.boxes as f64 / seconds,
        sent.bytes as f64 / seconds / 1024.0,
    ))
}

async fn receive(context: &Context, config: PathBuf, into: &Path, secrets: Option<PathBuf>) -> Result<(), Stop> {
    let given = secrets::given(secrets.as_deref())?;
    let cap = ReadCap::from_base64(&given.cap).map_err(|error| usage("read capability", &error.to_string()))?;
    let cap = cap.with_index(given.index()?);
    if !into.is_dir() {
        return Err(failed(format!("{} is not a directory", into.display())).into());
    }
    load(&config)?;
    let place = place(context, &[&cap.to_bytes()[..]])?;
    let received = transfer::receive(&place, found(config), &cap, into).await?;
    clear(&place.state);
    output::line(&format!(
        "received {} bytes in {} box(es) -> {}",
        received.bytes,
        received.boxes,
        crate::text::shown_path(&received.path)
    ))
}

/// What was sent.
struct Sent {
    bytes: u64,
    boxes: u64,
    took: Duration,
}

/// What is said of a regular file, and the file, open at its beginning.
fn described(path: &Path) -> Result<(Header, std::fs::File), Failure> {
    let cannot = |error: io::Error| failed(format!("{} cannot be read: {error}", path.display()));
    let name = path.file_name().ok_or_else(|| failed(format!("{} has no file name", path.display())))?;
    let name = name.to_str().ok_or_else(|| failed(format!("the name of {} is not UTF-8", path.display())))?;
    let mut file = std::fs::File::open(path).map_err(cannot)?;
    if !file.metadata().map_err(cannot)?.is_file() {
        return Err(failed(format!("the input must be a regular file: {}", path.display())));
    }
    let mut hash = blake3::Hasher::new();
    let mut size = 0;
    let mut piece = vec![0; 1 << 16];
    loop {
        let count = file.read(&mut piece).map_err(cannot)?;
        if count == 0 {
            break;
        }
        hash.update(&piece[..count]);
        size += count as u64;
    }
    io::Seek::rewind(&mut file).map_err(cannot)?;
    let header = Header { name: name.to_owned(), size, digest: Some(*hash.finalize().as_bytes()), ..Header::default() };
    Ok((header, file))
}

/// Where a transfer keeps what it needs to go on: a directory of its own for the same capability, index and file.
fn place(context: &Context, identity: &[&[u8]]) -> Result<Context, Failure> {
    let base = if context.state_is_default { context.state.with_file_name(PROGRAM) } else { context.state.clone() };
    let mut hash = blake3::Hasher::new_derive_key("pigeonfs cp-compat transfer v1");
    for part in identity {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    // In a directory of another user, what is kept could be exchanged for something else.
    PrivateDir::open_or_make(&base).map_err(|error| failed(error.to_string()))?;
    Context::new(Some(base.join(&hash.finalize().to_hex()[..16])), true, false, Keys::default())
}

/// The transfer is done: what it kept goes.
fn clear(state: &Path) {
    if let Err(error) = std::fs::remove_dir_all(state)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "what the transfer kept could not be deleted: {}", state.display());
    }
}

fn load(config: &Path) -> Result<Config, Failure> {
    Config::load(config).map_err(|error| failed(error.to_string()))
}

fn found(config: PathBuf) -> DaemonChoice {
    DaemonChoice::Found(Discovery {
        config: Some(config),
        environment: Environment::of_process(),
        ..Discovery::default()
    })
}

fn failed(text: String) -> Failure {
    Failure::new(FailureKind::Failed, text)
}

/// Nothing of what was given comes back in the error.
fn usage(what: &str, why: &str) -> Failure {
    failed(format!("this is not a {what}: {why}"))
}
