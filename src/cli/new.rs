//! `pigeonfs new`

use clap::Args;

use super::context::{Context, channel_of};
use super::{Stop, name, output};
use crate::engine::control::Request;
use crate::engine::status::DurabilityStatus;
use crate::store::ChannelName;

/// Make a stream: a file that is appended to here and read elsewhere
#[derive(Args, Debug)]
#[command(after_help = "\
Needs no daemon. In a mount, `touch MNT/NAME` does the same.

Example:
  pigeonfs new log && pigeonfs share log")]
pub(super) struct Typed {
    /// A free name
    #[arg(value_parser = name)]
    name: ChannelName,
    /// Whose word lets its next box go: `stored`, a replica's, or `couriered`, a courier's, which may still lose it: about
    /// twice as fast, and confirmed later, when nothing else is to be sent
    #[arg(long, value_name = "WHOSE", default_value = "stored")]
    durability: Level,
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
    let request = Request::New { name: typed.name.to_string(), durability: typed.durability.into() };
    let made = channel_of(context.ask(request).await?)?;
    if context.json { output::json(&made) } else { Ok(()) }
}
