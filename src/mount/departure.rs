//! The end of a mount that leaves the tree, and lives on elsewhere: a container took a copy of it into a mount namespace
//! of its own, so that the kernel keeps the mount, and would keep its process and its state with it.

use std::fs::File;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::{info, warn};

use super::holders::{self, Holders};
use super::mounts;

/// How often it is looked whether files are still open, after the mount has left the tree.
const LOOK: Duration = Duration::from_secs(1);

/// Resolves when the mount is in no place of this namespace any more and it is time to end: no file of it is open, or
/// what keeps it is a copy in another namespace. Files that are open here where it was taken out lazily stay usable until
/// they are closed, whether there is such a copy or not.
pub(super) async fn departed(device: String, is_in_use: impl Fn() -> bool) {
    let table = match Changes::watch() {
        Ok(table) => table,
        Err(error) => {
            warn!(%error, "the mount table cannot be watched: a copy of the mount elsewhere would keep it alive");
            return std::future::pending().await;
        }
    };
    loop {
        while !is_mounted(&device).await {
            if !is_in_use() {
                return;
            }
            let asked = device.clone();
            let copies = spawn_blocking(move || {
                let copies = holders::in_other_namespaces(&asked);
                if copies.0.is_empty() || holders::has_files_here(&asked) { Holders::default() } else { copies }
            });
            let copies = copies.await.unwrap_or_default();
            if !copies.0.is_empty() {
                info!("a copy of the mount is in the mount namespace of {copies}: it ends with this process");
                return;
            }
            sleep(LOOK).await;
        }
        table.changed.notified().await;
    }
}

/// Changes of the mount table, which a thread waits for until this goes.
struct Changes {
    changed: Arc<Notify>,
    /// The thread ends when this is closed.
    _stop: UnixStream,
}

impl Changes {
    fn watch() -> io::Result<Self> {
        let table = File::open("/proc/self/mountinfo")?;
        let (stop, stopped) = UnixStream::pair()?;
        let changed = Arc::new(Notify::new());
        let notify = Arc::clone(&changed);
        std::thread::Builder::new().name("mount-table".to_owned()).spawn(move || {
            loop {
                let mut watched = [PollFd::new(&table, PollFlags::PRI), PollFd::new(&stopped, PollFlags::IN)];
                match poll(&mut watched, None) {
                    Ok(_) | Err(rustix::io::Errno::INTR) if watched[1].revents().is_empty() => notify.notify_one(),
                    Ok(_) => return,
                    Err(error) => return warn!(%error, "the mount table can no longer be watched"),
                }
            }
        })?;
        Ok(Self { changed, _stop: stop })
    }
}

async fn is_mounted(device: &str) -> bool {
    let device = device.to_owned();
    // What cannot be looked at has not left.
    spawn_blocking(move || mounts::is_mounted(&device)).await.unwrap_or(true)
}
