//! `pigeonfs trim`

use clap::Args;
use serde_json::json;

use super::context::{Context, misunderstood};
use super::{Stop, byte_count, name, output};
use crate::engine::control::{Request, Response};
use crate::store::ChannelName;

/// Make room: drop the oldest bytes of a channel that are stored, or have arrived
#[derive(Args, Debug)]
#[command(after_help = "\
What is dropped cannot be read here any more: it gives `Input/output error`, and the file keeps its length. Nothing that
is not stored yet is dropped, nor is the last box. A channel that paused because the cache was full goes on.

Examples:
  pigeonfs trim news              all but the last box
  pigeonfs trim --keep 10M news   all but the newest 10 MiB")]
pub(super) struct Typed {
    /// The channel
    #[arg(value_parser = name)]
    name: ChannelName,
    /// How much stays, such as 1000, 10k or 1.5GiB
    #[arg(long, value_name = "SIZE", default_value = "0", value_parser = byte_count)]
    keep: u64,
}

pub(super) async fn run(context: &Context, typed: Typed) -> Result<(), Stop> {
    let request = Request::Trim { name: typed.name.to_string(), keep_bytes: typed.keep };
    let Response::Trimmed { bytes } = context.ask(request).await? else {
        return Err(misunderstood());
    };
    if context.json {
        return output::json(&json!({ "name": typed.name.as_str(), "dropped_bytes": bytes }));
    }
    output::line(&format!("{} dropped", output::size(bytes)))
}
