//! `pigeonfs add`

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;

use super::context::{Context, misunderstood};

use super::{Stop, failure, name, output, secret_input};
use crate::bacap::{AnyCap, Capability, INDEX_BYTES, TextKind};
use crate::engine::control::{Failure, FailureKind, Request, Response, Secret};
use crate::store::{ChannelName, Content};
use crate::units::date;

const PROMPT: &str = "Paste the capability";

/// Take a capability in: a channel that others write, or one of ours from elsewhere
#[derive(Args, Debug)]
#[command(after_help = "\
The capability is read from stdin or from a file, never from an argument, where every user of the machine could see it. It is
the line that `pigeonfs share` prints (pigeon-read1…, pigeon-write1…), also in upper case, quoted or wrapped; or upstream's
base64. Base64 does not say whether it is of a stream or of a drop: then the channel's first box decides.

Examples:
  pigeonfs add notes < notes.cap
  ssh friend pigeonfs share notes | pigeonfs add notes
  pigeonfs add --drop inbox < inbox.cap")]
pub(super) struct Typed {
    /// A free name
    #[arg(value_parser = name)]
    name: ChannelName,
    /// The file that holds the capability [default: stdin]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// It is a drop: a channel that carries whole files
    #[arg(long)]
    drop: bool,
    /// Its writer keeps it on the network until then, as 2027-03-01: what is not found before is late, and not the end
    #[arg(long, value_name = "DATE", value_parser = date)]
    kept_until: Option<u64>,
    /// Refuse a capability whose network has other directory authorities than the one here, rather than warn
    #[arg(long)]
    strict_network: bool,
}

pub(super) async fn run(context: &Context, typed: Typed) -> Result<(), Stop> {
    let text = match &typed.file {
        Some(path) => secret_input::from_file(path, PROMPT)?,
        None => secret_input::from_stdin(PROMPT)?,
    };
    let content = if typed.drop { Content::Drop { allow_delete: false } } else { Content::Stream };
    let capability = capability(&text, content)?;
    let request = Request::Add {
        name: typed.name.to_string(),
        capability,
        content,
        strict_network: typed.strict_network,
        kept_until: typed.kept_until,
    };
    let Response::Added { channel, warnings } = context.ask(request).await? else { return Err(misunderstood()) };
    warnings.iter().for_each(|warning| failure::warn(warning));
    if context.json { output::json(&channel) } else { Ok(()) }
}

/// The capability of a drop that a file holds, `-` for stdin, with the index put in that says where to begin in its
/// channel.
pub(super) fn capability_from(path: &Path, index: Option<&str>) -> Result<Secret, Failure> {
    let text = secret_input::from_file(path, PROMPT)?;
    let secret = capability(&text, Content::Drop { allow_delete: false })?;
    let Some(index) = index else { return Ok(secret) };
    let bad = |why: String| {
        Failure::new(FailureKind::Usage, format!("this is not an index: {why}")).hint(
            "an index is what `pigeonfs send --show-index` and `pigeonhole-cp genkey` print: 140 characters of base64",
        )
    };
    let index = STANDARD.decode(index.trim()).map_err(|_| bad("it is not base64".to_owned()))?;
    if index.len() != INDEX_BYTES {
        return Err(bad(format!("it has {} bytes, and {INDEX_BYTES} are expected", index.len())));
    }
    let index = crate::bacap::BoxIndex::from_bytes(&index).map_err(|error| bad(error.to_string()))?;
    let found = Capability::parse(secret.expose()).map_err(|error| not_a_capability(&error))?;
    let cap = match found.cap() {
        AnyCap::Read(cap) => AnyCap::Read(cap.with_index(index)),
        AnyCap::Write(cap) => AnyCap::Write(cap.with_index(index)),
    };
    Ok(match found {
        Capability::Text(text) => Secret::new(crate::bacap::CapText { cap, ..text }.encode().as_bytes().to_vec()),
        Capability::Raw(_) => Secret::new(cap.to_bytes().to_vec()),
    })
}

/// The text, after a look at it: what is wrong with it is told before a state is opened. Nothing of it comes back in an
/// error.
fn capability(text: &[u8], wanted: Content) -> Result<Secret, Failure> {
    let found = Capability::parse(text).map_err(|error| not_a_capability(&error))?;
    let refused = |text: &str, hint: &str| Err(Failure::new(FailureKind::Usage, text).hint(hint));
    match found {
        Capability::Text(text) if text.kind == TextKind::Drop && !wanted.is_drop() => refused(
            "this is the capability of a drop, which carries whole files, and a stream is wanted here",
            "`pigeonfs add --drop NAME` takes it in",
        ),
        Capability::Text(text) if text.kind == TextKind::Stream && wanted.is_drop() => refused(
            "this is the capability of a stream, which carries bytes, and a drop is wanted here",
            "`pigeonfs add NAME` takes it in, without --drop",
        ),
        Capability::Text(_) | Capability::Raw(_) => Ok(Secret::new(text.to_vec())),
    }
}

fn not_a_capability(error: &crate::bacap::TextError) -> Failure {
    Failure::new(FailureKind::Usage, format!("this is not a capability: {error}"))
        .hint("a capability is the one line that `pigeonfs share NAME` prints, or upstream's base64")
}
