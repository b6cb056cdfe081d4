//! `pigeonfs list`

use clap::Args;
use serde_json::json;

use super::context::{Context, misunderstood};
use super::status::{contacts, table_of};
use super::{Stop, output};
use crate::engine::control::{Failure, Request, Response};
use crate::store::StoreError;

/// List the channels
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pigeonfs list
  pigeonfs list --json | jq -r '.channels[].name'")]
pub(super) struct Typed {}

pub(super) async fn run(context: &Context, Typed {}: Typed) -> Result<(), Stop> {
    let Response::Status(status) = context.ask(Request::Status { name: None }).await? else {
        return Err(misunderstood());
    };
    if context.json {
        output::json(&json!({ "version": status.version, "channels": status.channels, "contacts": status.contacts }))?;
    } else {
        table_of(&status.channels)?;
        contacts(&status.contacts)?;
    }
    if status.channels.is_empty() && status.contacts.is_empty() {
        how_to_begin();
    }
    status.state_error.map_or(Ok(()), |reason| Err(Failure::from(StoreError::Unavailable { reason }).into()))
}

/// Said where there is no channel yet. To stderr: the list itself is empty.
pub(super) fn how_to_begin() {
    let text = "there are no channels yet: `pigeonfs new NAME` makes one, `pigeonfs add NAME < FILE` takes one in that \
                somebody shared, and in a mount `echo hello >> MNT/NAME` makes one too";
    output::aside(text);
}
