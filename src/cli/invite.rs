//! `pigeonfs invite`

use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::context::{Context, misunderstood};
use super::daemon::DaemonArgs;
use super::{Stop, failure, milliseconds, name, output, seconds};
use crate::engine::control::{Link, Request, Response, Secret};
use crate::engine::status::{ContactStatus, DurabilityStatus};
use crate::store::{ChannelName, Content};

/// Invite somebody: print a code, for which the two of you get a channel of each other's
#[derive(Args, Debug)]
#[command(after_help = "\
The code is 44 characters. Give it to the other side, who types `pigeonfs accept --as YOURS --give THEIRS` and pastes it. Then
NAME can be read there, and the channel that the other side gives can be read here. Whoever has the code before it is used can
take the other side's place, and sees the display name; afterwards it is worth nothing.

NAME is a new channel, or one of which nothing was sent or shared: what is written to it leaves once the invitation is
answered. With a mount running, the mount waits for the answer. Without one, invite stays until it has come, and what was
written to NAME is stored.

Examples:
  pigeonfs invite for-bob
  pigeonfs invite --again for-bob     show the code again, and wait
  pigeonfs invite --cancel for-bob    the name is free again")]
pub(super) struct Typed {
    /// A new name, or a channel of which nothing was sent or shared
    #[arg(value_parser = name)]
    name: ChannelName,
    /// It is a drop: a channel that carries whole files
    #[arg(long)]
    drop: bool,
    /// What whoever has the code sees of you before it is used [default: NAME]
    #[arg(long = "name", value_name = "DISPLAY", id = "display")]
    display: Option<String>,
    /// The name that the other side's channel gets here [default: the one that the other side suggests]
    #[arg(long = "as", value_name = "THEIRS", value_parser = name)]
    theirs: Option<ChannelName>,
    /// Go on with an invitation: show its code, and wait
    #[arg(long, conflicts_with_all = ["drop", "display", "theirs"])]
    again: bool,
    /// End an invitation, and remove its channel, which must be empty; its code is deleted from the network as soon as this state has a daemon
    #[arg(long, conflicts_with_all = ["drop", "display", "theirs", "again", "no_wait", "timeout"])]
    cancel: bool,
    /// Do not wait for the answer, even where no mount would
    #[arg(long)]
    no_wait: bool,
    /// Give up after TIME if no answer has come, with exit code 3 [default: never]
    #[arg(long, value_name = "TIME", value_parser = seconds, conflicts_with = "no_wait")]
    timeout: Option<Duration>,
    #[command(flatten)]
    daemon: DaemonArgs,
}

impl Typed {
    /// Whether it may make a state.
    pub(super) fn begins(&self) -> bool {
        !self.again && !self.cancel
    }
}

pub(super) async fn run(context: &Context, typed: Typed) -> Result<(), Stop> {
    let name = typed.name.to_string();
    if typed.cancel {
        context.ask(Request::CancelContact { name: name.clone(), accepting: false }).await?;
        return if context.json { output::json(&json!({ "name": name, "cancelled": true })) } else { Ok(()) };
    }
    let timeout_ms = typed.timeout.map(milliseconds);
    context
        .with_state(typed.daemon.meant()?, async |link: &Link| {
            if !typed.again {
                let content = if typed.drop { Content::Drop { allow_delete: false } } else { Content::Stream };
                link.request(Request::Invite {
                    name: name.clone(),
                    content,
                    display_name: typed.display.clone(),
                    theirs: typed.theirs.as_ref().map(ToString::to_string),
                })
                .await?;
            }
            let wait = |for_code| Request::WaitContact { name: name.clone(), accepting: false, for_code, timeout_ms };
            let (mut contact, code) = contact_of(link.request(wait(true)).await?)?;
            if let Some(code) = code {
                print(context, &name, &code)?;
            }
            if link.is_owner() && typed.no_wait {
                tracing::warn!(%name, "nobody waits for the answer: mount this state, or run `pigeonfs invite --again`");
            } else if link.is_owner() || typed.timeout.is_some() {
                (contact, _) = contact_of(link.request(wait(false)).await?)?;
            }
            done(context, &contact)?;
            // What was written meanwhile leaves now, and nobody else would send it.
            if link.is_owner() && contact.stage.is_done() {
                let (name, level) = (name.clone(), DurabilityStatus::Stored);
                link.request(Request::Wait { name, bytes: None, timeout_ms, level }).await?;
            }
            Ok(())
        })
        .await
}

/// How a contact stands, and its code.
pub(super) fn contact_of(response: Response) -> Result<(ContactStatus, Option<Secret>), Stop> {
    match response {
        Response::Contact { contact, code } => Ok((contact, code)),
        _ => Err(misunderstood()),
    }
}

fn print(context: &Context, name: &str, code: &Secret) -> Result<(), Stop> {
    if std::io::stdout().is_terminal() {
        failure::warn(
            "until this code is used, whoever sees it can take the other side's place: give it to nobody else",
        );
    }
    if context.json {
        return output::json(&json!({ "name": name, "code": String::from_utf8_lossy(code.expose()) }));
    }
    output::bytes(code.expose())?;
    output::line("")
}

/// Says which channels there are now, once both are. Not to stdout, which has the code.
pub(super) fn done(context: &Context, contact: &ContactStatus) -> Result<(), Stop> {
    if !contact.stage.is_done() {
        return Ok(());
    }
    if context.json {
        return output::json(contact);
    }
    let theirs = contact.theirs.as_ref();
    output::aside(&theirs.map_or_else(
        || format!("{:?} can be read by the other side, which gave no channel for it", contact.ours),
        |theirs| format!("{:?} can be read by the other side, and {theirs:?} is the other side's", contact.ours),
    ));
    Ok(())
}
