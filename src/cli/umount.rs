//! `pigeonfs umount`

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::task::block_in_place;

use super::context::Context;
use super::mount::mount_failure;
use super::{Stop, log, output};
use crate::engine::control::Failure;
use crate::engine::status::Status;
use crate::mount::unmount;
use crate::store::StoreError;

/// End a mount
#[derive(Args, Debug)]
#[command(after_help = "\
Nothing is lost: what was accepted and not sent yet goes out with the next mount of the same state.

Examples:
  pigeonfs umount ~/pigeons
  pigeonfs umount --lazy ~/pigeons    though files are open")]
pub(super) struct Typed {
    /// Where it is mounted
    #[arg(value_name = "MNT")]
    mount_point: PathBuf,
    /// Take it out of the tree now, though files are open
    #[arg(long)]
    lazy: bool,
}

/// How long the mount is asked how it stands. One that hangs is unmounted all the same.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) async fn run(context: &Context, typed: Typed) -> Result<(), Stop> {
    let trouble = trouble(typed.mount_point.clone()).await;
    let copies = block_in_place(|| unmount(&typed.mount_point, typed.lazy)).map_err(|error| mount_failure(&error))?;
    if context.json {
        let copies: Vec<_> =
            copies.0.iter().map(|copy| json!({ "process": copy.process, "name": copy.name })).collect();
        output::json(&json!({ "unmounted": typed.mount_point.to_string_lossy(), "copies": copies }))?;
    } else if !copies.0.is_empty() {
        let text = "a copy of the mount is in another mount namespace, and ends with the mount's process: that of";
        log::tell(format!("note: {text} {copies}\n").into_bytes());
    }
    trouble.map_or(Ok(()), |reason| Err(Failure::from(StoreError::Unavailable { reason }).into()))
}

/// Why what was written last may not be on the disk, as the mount itself says.
async fn trouble(mount_point: PathBuf) -> Option<String> {
    let read = tokio::task::spawn_blocking(move || std::fs::read(mount_point.join(".pigeonfs/status.json")));
    let status = tokio::time::timeout(PATIENCE, read).await.ok()?.ok()?.ok()?;
    serde_json::from_slice::<Status>(&status).ok()?.state_error
}
