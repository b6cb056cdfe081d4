//! `pigeonfs log`

use clap::Args;
use serde_json::json;

use super::context::{Context, misunderstood};
use super::{Stop, output};
use crate::engine::control::{Request, Response};

/// Lines that are asked for at a time.
const PAGE: u32 = 500;

/// Show what a mount of a sealed state has logged
#[derive(Args, Debug)]
#[command(after_help = "\
A mount of a sealed state writes to stderr or the journal only which of its parts said something, with numbers in place
of names. The lines themselves are kept in the sealed database, the newest 10,000, and this verb prints them. That of a
state that is not sealed goes to stderr or a file as it is: see `pigeonfs help mount`.

Examples:
  pigeonfs log
  pigeonfs log --json | jq -r .text")]
pub(super) struct Typed {}

pub(super) async fn run(context: &Context, Typed {}: Typed) -> Result<(), Stop> {
    let mut after = 0;
    loop {
        let Response::Log(lines) = context.ask(Request::Log { after, limit: PAGE }).await? else {
            return Err(misunderstood());
        };
        let Some(last) = lines.last() else { return Ok(()) };
        after = last.id;
        for line in &lines {
            if context.json {
                output::json(&json!({ "id": line.id, "at": line.at, "text": line.text }))?;
            } else {
                output::line(&line.text)?;
            }
        }
    }
}
