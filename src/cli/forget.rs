//! `pigeonfs forget`

use std::io::{self, IsTerminal, Write};

use clap::Args;
use serde_json::json;

use super::context::{Context, channel_of};
use super::daemon::DaemonChoice;
use super::output::{self, size};
use super::{Stop, name};
use crate::engine::control::{Failure, FailureKind, Link, Request};
use crate::engine::status::{ChannelStatus, RoleStatus};
use crate::store::ChannelName;
use crate::text::shown;

/// Drop a channel: its capability and its bytes here
#[derive(Args, Debug)]
#[command(after_help = "\
What was sent stays with the replicas until it is one to two weeks old, for those who can read it. A capability that
was not kept elsewhere is gone for good, and so is what was accepted and not sent yet: then forget says so, and asks on a
terminal; elsewhere it needs --force.

Examples:
  pigeonfs forget old-news
  pigeonfs share --write log > log.cap && pigeonfs forget log")]
pub(super) struct Typed {
    /// The channel
    #[arg(value_parser = name)]
    name: ChannelName,
    /// Forget it whatever is lost with it, and do not ask
    #[arg(long)]
    force: bool,
}

pub(super) async fn run(context: &Context, typed: Typed) -> Result<(), Stop> {
    context
        .with_state(DaemonChoice::Unneeded, async |link: &Link| {
            let name = typed.name.to_string();
            if !typed.force {
                let channel = channel_of(link.request(Request::Status { name: Some(name.clone()) }).await?)?;
                let lost = lost(&channel);
                if !lost.is_empty() {
                    let asked = tokio::task::spawn_blocking(move || confirmed(&channel.name, &lost));
                    asked.await.map_err(|error| {
                        Failure::new(FailureKind::Failed, format!("nothing was forgotten: {error}"))
                    })??;
                }
            }
            Ok(link.request(Request::Forget { name }).await?)
        })
        .await?;
    if context.json { output::json(&json!({ "forgotten": typed.name.as_str() })) } else { Ok(()) }
}

/// What goes for good with the channel.
fn lost(channel: &ChannelStatus) -> Vec<String> {
    let mut lost = Vec::new();
    let files = channel.files.as_ref().map_or(0, |files| files.pending);
    if files > 0 {
        lost.push(format!("{files} files that are not stored by the network yet"));
    }
    if channel.role == RoleStatus::Writer && channel.unstored_bytes() > 0 {
        lost.push(format!("{} that are not stored by the network yet", size(channel.unstored_bytes())));
    }
    let in_use = channel.size > 0 || channel.launched || channel.shared || files > 0;
    if channel.only_copy && in_use {
        lost.push("the only copy of its write capability: nobody can append to it any more".to_owned());
    }
    lost
}

/// Asks the person at the terminal; where there is none, it is refused.
fn confirmed(name: &str, lost: &[String]) -> Result<(), Failure> {
    let name = shown(name);
    let text = format!("with {name:?} go for good: {}", lost.join("; "));
    let refused = |text: String| {
        Failure::new(FailureKind::Refused, text).hint(
            "`pigeonfs share --write NAME > FILE` keeps the capability; `pigeonfs forget --force NAME` forgets it all",
        )
    };
    if !io::stdin().is_terminal() {
        return Err(refused(format!("not forgotten, because {text}")));
    }
    let failed = |error: io::Error| Failure::new(FailureKind::Failed, format!("nothing was forgotten: {error}"));
    let mut terminal = io::stderr();
    write!(terminal, "{text}\nForget it? [y/N] ").and_then(|()| terminal.flush()).map_err(failed)?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(failed)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { Err(refused("not forgotten".to_owned())) }
}
