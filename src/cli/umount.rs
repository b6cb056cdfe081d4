//! `pigeonfs umount`

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use tokio::task::block_in_place;

use super::context::Context;
use super::mount::mount_failure;
use super::{Stop, output};
use crate::mount::unmount;

/// End a mount
#[derive(Args, Debug)]
#[command(after_help = "\
Nothing is lost: what was accepted and not sent yet goes out with the next mount of the same state.

Example:
  pigeonfs umount ~/pigeons")]
pub(super) struct Typed {
    /// Where it is mounted
    #[arg(value_name = "MNT")]
    mount_point: PathBuf,
    /// Take it out of the tree now, though files are open
    #[arg(long)]
    lazy: bool,
}

pub(super) async fn run(context: &Context, typed: Typed) -> Result<(), Stop> {
    block_in_place(|| unmount(&typed.mount_point, typed.lazy)).map_err(|error| mount_failure(&error))?;
    let path = typed.mount_point.to_string_lossy();
    if context.json { output::json(&json!({ "unmounted": path })) } else { Ok(()) }
}
