//! `pigeonfs share`

use std::io::IsTerminal;

use clap::{Args, ValueEnum};
use rustix::fs::{FileType, Mode, fstat};
use serde_json::json;

use super::context::{Context, misunderstood};
use super::{Stop, failure, name, output, qr};
use crate::bacap::{CapText, Capability, ReadCap, WriteCap};
use crate::engine::control::{Request, Response};
use crate::store::ChannelName;

/// Print a channel's capability, for others
#[derive(Args, Debug)]
#[command(after_help = "\
Whoever holds the read capability can read all of the channel, for ever: nothing can be taken back, and from now on
the channel can only grow. Send it over a way that you trust, and into a file or a pipe rather than a terminal.
Two writers of one channel destroy each other's bytes, so give the write capability away only with the channel.

Examples:
  (umask 077; pigeonfs share notes > notes.cap)
  pigeonfs share notes | ssh friend pigeonfs add notes
  pigeonfs share --qr notes              for a camera, on this terminal
  pigeonfs share --raw notes             as upstream's tools print and take it")]
pub(super) struct Typed {
    /// The channel
    #[arg(value_parser = name)]
    name: ChannelName,
    /// The write capability, with which others can append
    #[arg(long)]
    write: bool,
    /// A capability whose reader sees only what comes from now on
    #[arg(long, conflicts_with = "write")]
    from_here: bool,
    /// Upstream's form: base64 of the capability alone, which says nothing of kind and network
    #[arg(long)]
    raw: bool,
    /// A QR code. `colour` sets its own colours; `dark` and `light` are for terminals without, of that background
    #[arg(long, value_name = "BACKGROUND", num_args = 0..=1, require_equals = true, default_missing_value = "colour",
          conflicts_with_all = ["raw", "json"])]
    qr: Option<Background>,
}

/// What a QR code is shown on.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Background {
    Colour,
    Dark,
    Light,
}

pub(super) async fn run(context: &Context, typed: Typed) -> Result<(), Stop> {
    let request = Request::Share { name: typed.name.to_string(), write: typed.write, from_here: typed.from_here };
    let Response::Capability(capability) = context.ask(request).await? else {
        return Err(misunderstood());
    };
    let Ok(Capability::Text(text)) = Capability::parse(capability.expose()) else { return Err(misunderstood()) };
    warn(&typed);
    if let Some(background) = typed.qr {
        return show_qr(&text, background);
    }
    let line = if typed.raw { raw(&text) } else { text.encode() };
    if context.json {
        let kind = if typed.write { "write" } else { "read" };
        return output::json(&json!({ "name": typed.name.as_str(), "kind": kind, "capability": *line }));
    }
    output::bytes(line.as_bytes())?;
    output::line("")
}

fn raw(text: &CapText) -> zeroize::Zeroizing<String> {
    use crate::bacap::AnyCap::{Read, Write};
    match &text.cap {
        Read(cap) => ReadCap::to_base64(cap),
        Write(cap) => WriteCap::to_base64(cap),
    }
}

fn show_qr(text: &CapText, background: Background) -> Result<(), Stop> {
    let ink = match background {
        Background::Colour => qr::Ink::Colours,
        Background::Dark => qr::Ink::Light,
        Background::Light => qr::Ink::Dark,
    };
    for line in qr::lines(&text.encode_upper(), ink)? {
        // With escape sequences of its own, for the colours.
        output::bytes(format!("{line}\n").as_bytes())?;
    }
    Ok(())
}

/// Says where others can see what is printed. What is printed is what was asked for all the same.
fn warn(typed: &Typed) {
    let stdout = std::io::stdout();
    let (sort, may) = if typed.write { ("write", "write and read") } else { ("read", "read") };
    if stdout.is_terminal() {
        failure::warn(&format!(
            "this is the {sort} capability of {:?}: whoever sees it can {may} the channel, for ever",
            typed.name.as_str()
        ));
    } else if let Ok(stat) = fstat(&stdout)
        && FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
        && Mode::from_raw_mode(stat.st_mode).intersects(Mode::RGRP | Mode::ROTH)
    {
        failure::warn(
            "the file that the capability is written to can be read by other users of this machine: `chmod 600` it, or set \
             `umask 077` before",
        );
    }
}
