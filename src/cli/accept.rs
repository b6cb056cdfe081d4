//! `pigeonfs accept`

use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::context::Context;
use super::daemon::DaemonArgs;
use super::invite::{contact_of, done};
use super::{Stop, milliseconds, name, output, seconds, secret_input};
use crate::engine::control::{Link, Request, Secret, voucher};
use crate::store::{ChannelName, Content};

const PROMPT: &str = "Paste the code";

/// Take a code of `pigeonfs invite`: its channel can be read here, and one of yours by whoever gave it to you
#[derive(Args, Debug)]
#[command(after_help = "\
The code is read from stdin, never from an argument, where every user of the machine could see it. The channel that you give
is made where it is missing. A code can be used once.

Where nothing is found, accept waits: the code may not be written yet. A mistyped one is never found; type the command again,
with the right one.

Examples:
  pigeonfs accept --as from-alice --give for-alice
  pigeonfs accept --as photos --give thanks --timeout 10m < code")]
pub(super) struct Typed {
    /// The name that the inviter's channel gets here
    #[arg(long = "as", value_name = "THEIRS", value_parser = name)]
    theirs: ChannelName,
    /// Your channel that the inviter can read from then on; made where it is missing
    #[arg(long, value_name = "OURS", value_parser = name, required_unless_present = "cancel")]
    give: Option<ChannelName>,
    /// Your channel is a drop: a channel that carries whole files
    #[arg(long)]
    drop: bool,
    /// Wait for this code no longer
    #[arg(long, conflicts_with_all = ["give", "drop", "timeout"])]
    cancel: bool,
    /// Give up after TIME if nothing was found, with exit code 3 [default: never]
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    timeout: Option<Duration>,
    #[command(flatten)]
    daemon: DaemonArgs,
}

impl Typed {
    /// Whether it may make a state.
    pub(super) fn begins(&self) -> bool {
        !self.cancel
    }
}

pub(super) async fn run(context: &Context, typed: Typed) -> Result<(), Stop> {
    let theirs = typed.theirs.to_string();
    let Some(give) = typed.give.filter(|_| !typed.cancel) else {
        context.ask(Request::CancelContact { name: theirs.clone(), accepting: true }).await?;
        return if context.json { output::json(&json!({ "name": theirs, "cancelled": true })) } else { Ok(()) };
    };
    let text = secret_input::from_stdin(PROMPT)?;
    // What is wrong with it is told before anything is stored.
    voucher(&text)?;
    let content = if typed.drop { Content::Drop { allow_delete: false } } else { Content::Stream };
    let timeout_ms = typed.timeout.map(milliseconds);
    context
        .with_state(typed.daemon.meant()?, async |link: &Link| {
            let code = Secret::new(text.to_vec());
            link.request(Request::AcceptCode { theirs: theirs.clone(), ours: give.to_string(), content, code }).await?;
            let wait = Request::WaitContact { name: theirs.clone(), accepting: true, for_code: false, timeout_ms };
            let (contact, _) = contact_of(link.request(wait).await?)?;
            done(context, &contact)
        })
        .await
}
