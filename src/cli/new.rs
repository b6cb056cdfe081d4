//! `pigeonfs new`

use std::time::Duration;

use clap::Args;

use super::context::{Context, channel_of};
use super::{Stop, keep, name, output, seconds};
use crate::engine::control::Request;
use crate::engine::status::DurabilityStatus;
use crate::store::{ChannelName, Content};

/// Make a stream, which is appended to here and read elsewhere; or a drop, which carries whole files
#[derive(Args, Debug)]
#[command(after_help = "\
Needs no daemon. In a mount, `touch MNT/NAME` makes a stream, and `mkdir MNT/NAME` a drop.

Examples:
  pigeonfs new log && pigeonfs share log
  pigeonfs new --drop outbox && pigeonfs send report.pdf --to outbox")]
pub(super) struct Typed {
    /// A free name
    #[arg(value_parser = name)]
    name: ChannelName,
    /// Whose word lets its next box go: `stored`, a replica's, or `couriered`, a courier's, which may still lose it: about
    /// twice as fast, and confirmed later, when nothing else is to be sent
    #[arg(long, value_name = "WHOSE", default_value = "stored")]
    durability: Level,
    /// Make a drop
    #[arg(long)]
    drop: bool,
    /// Make a drop whose files can be deleted from the network again; each header then takes a box of its own
    #[arg(long, requires = "drop")]
    allow_delete: bool,
    /// Keep it readable for this time from now on, as 90d: see `pigeonfs keep`
    #[arg(long, value_name = "SPAN", value_parser = seconds)]
    keep: Option<Duration>,
}

/// Whose word is enough.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum Level {
    Stored,
    Couriered,
}

impl From<Level> for DurabilityStatus {
    fn from(level: Level) -> Self {
        match level {
            Level::Stored => Self::Stored,
            Level::Couriered => Self::Couriered,
        }
    }
}

pub(super) async fn run(context: &Context, typed: Typed) -> Result<(), Stop> {
    let content = if typed.drop { Content::Drop { allow_delete: typed.allow_delete } } else { Content::Stream };
    let request = Request::New { name: typed.name.to_string(), durability: typed.durability.into(), content };
    let until = typed.keep.map(keep::end_of).transpose()?;
    let mut made = channel_of(context.ask(request).await?)?;
    if let Some(until) = until {
        keep::promise(context, &typed.name, until, None).await?;
        made.kept_until = Some(until);
    }
    if context.json { output::json(&made) } else { Ok(()) }
}
