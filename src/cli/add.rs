//! `pigeonfs add`

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use zeroize::Zeroizing;

use super::context::{Context, channel_of};
use super::{Stop, name, output};
use crate::bacap::{INDEX_BYTES, READ_CAP_BYTES, WRITE_CAP_BYTES};
use crate::engine::control::{Failure, FailureKind, Request, Secret};
use crate::store::{ChannelName, Content};

/// Most that is read of a file or of stdin: a capability with room for the blanks around it.
const LONGEST_TEXT: u64 = 4096;

/// Take a capability in: a channel that others write, or one of ours from elsewhere
#[derive(Args, Debug)]
#[command(after_help = "\
The capability is read from stdin or from a file, never from an argument, where every user of the machine could see it.

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
}

pub(super) async fn run(context: &Context, typed: Typed) -> Result<(), Stop> {
    let text = match &typed.file {
        Some(path) => from_file(path)?,
        None => from_stdin()?,
    };
    let capability = capability(&text)?;
    let content = if typed.drop { Content::Drop { allow_delete: false } } else { Content::Stream };
    let request = Request::Add { name: typed.name.to_string(), capability, content };
    let added = channel_of(context.ask(request).await?)?;
    if context.json { output::json(&added) } else { Ok(()) }
}

/// The capability that a file holds, `-` for stdin, with the index put in that says where to begin in its channel.
pub(super) fn capability_from(path: &Path, index: Option<&str>) -> Result<Secret, Failure> {
    let text = if path.as_os_str() == "-" { from_stdin()? } else { from_file(path)? };
    let secret = capability(&text)?;
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
    let head = secret.expose().len() - INDEX_BYTES;
    Ok(Secret::new([&secret.expose()[..head], &index].concat()))
}

fn from_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    std::fs::File::open(path).and_then(bounded).map_err(|error| {
        Failure::new(FailureKind::Failed, format!("the capability's file {} cannot be read: {error}", path.display()))
    })
}

fn from_stdin() -> Result<Zeroizing<Vec<u8>>, Failure> {
    let failed = |error| Failure::new(FailureKind::Failed, format!("standard input cannot be read: {error}"));
    let stdin = std::io::stdin().lock();
    if !stdin.is_terminal() {
        return bounded(stdin).map_err(failed);
    }
    use std::io::{BufRead, Write};
    let _ = write!(std::io::stderr(), "Paste the capability, then Enter: ");
    let mut line = Zeroizing::new(Vec::new());
    stdin.take(LONGEST_TEXT).read_until(b'\n', &mut line).map_err(failed)?;
    Ok(line)
}

fn bounded(from: impl Read) -> std::io::Result<Zeroizing<Vec<u8>>> {
    // Room for all of it at once: a vector that grows leaves copies behind.
    let mut text = Zeroizing::new(Vec::with_capacity(usize::try_from(LONGEST_TEXT).unwrap_or_default() + 1));
    from.take(LONGEST_TEXT + 1).read_to_end(&mut text)?;
    Ok(text)
}

/// What the text holds, known by its length. Nothing of the text comes back in an error.
fn capability(text: &[u8]) -> Result<Secret, Failure> {
    let bad = |why: String| {
        Failure::new(FailureKind::Usage, format!("this is not a capability: {why}"))
            .hint("a capability is the one line that `pigeonfs share NAME` prints, or upstream's base64")
    };
    let text = text.trim_ascii();
    if text.is_empty() {
        return Err(bad("there was no text".to_owned()));
    }
    let bytes = STANDARD.decode(text).map_err(|_| bad(format!("its {} characters are not base64", text.len())))?;
    let bytes = Zeroizing::new(bytes);
    match bytes.len() {
        READ_CAP_BYTES | WRITE_CAP_BYTES => Ok(Secret::new(bytes.to_vec())),
        INDEX_BYTES => Err(bad("it is as long as a box index. The capability that belongs to it is needed".to_owned())),
        other => Err(bad(format!(
            "it has {other} bytes, and a read capability has {READ_CAP_BYTES}, a write capability {WRITE_CAP_BYTES}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_known_by_their_length() {
        for length in [READ_CAP_BYTES, WRITE_CAP_BYTES] {
            let text = format!(" \n{}\r\n", STANDARD.encode(vec![7; length]));
            assert_eq!(capability(text.as_bytes()).expect("a capability").expose(), vec![7; length]);
        }
        for (text, told) in [
            (String::new(), "no text"),
            ("hello world".to_owned(), "11 characters are not base64"),
            (STANDARD.encode([7; INDEX_BYTES]), "box index"),
            (STANDARD.encode([7; 3]), "it has 3 bytes"),
        ] {
            let failure = capability(text.as_bytes()).expect_err(told);
            assert_eq!(failure.kind, FailureKind::Usage);
            assert!(failure.message.contains(told), "{}", failure.message);
            assert!(text.is_empty() || !failure.message.contains(&text), "the text is not repeated");
        }
    }
}
