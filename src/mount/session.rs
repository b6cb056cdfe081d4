//! The life of a mount: a thread that serves, and an end that leaves nothing behind.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::interrupt::Interrupts;
use super::relay::{Heard, OfHandle, Relay};
use super::serve::{Refusals, Server};
use super::{MountError, attach, departure, memory, mounts, point};
use crate::fs::{Fs, drop as drops};

/// Threads that take requests from the kernel. They wait for nothing but the disk, where it has to be read.
const THREADS: usize = 4;

/// How a mount is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountOptions {
    /// What stands for it in the mount table, in `df` and in `mount`.
    pub source: OsString,
    /// Other users may use it, as far as the permission bits of its files let them.
    pub allow_other: bool,
    /// The kernel refuses every change with EROFS.
    pub read_only: bool,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self { source: "pigeonfs".into(), allow_other: false, read_only: false }
    }
}

/// A running mount. It ends with [`Session::unmount`], or from outside.
pub struct Session {
    path: PathBuf,
    /// The number of the device behind it, by which it is known whatever else is mounted at the path.
    device: String,
    serve: Mutex<Option<JoinHandle<()>>>,
    ended: watch::Receiver<bool>,
    /// What is in drops is looked after until this is said.
    leave: watch::Sender<bool>,
    settled: watch::Receiver<bool>,
    fs: Arc<Fs>,
}

impl Session {
    /// Mounts `fs` at an empty directory and serves it. A dead mount of ours that is in the way is cleared first. Its
    /// requests are answered on `runtime`. Blocks shortly.
    pub fn start(path: &Path, fs: Arc<Fs>, runtime: Handle, options: &MountOptions) -> Result<Self, MountError> {
        memory::give_large_pieces_back();
        let point = point::prepare(path)?;
        let attached = attach::attach(&point, options)?;
        // It may have been moved since it was looked at.
        let path = attached.mounted.as_ref().map_or_else(|| point.path.clone(), |mounted| mounted.point.clone());
        let told = |error: io::Error| {
            // Mounted and not served: everything that looks there would wait.
            if let Err(error) = attach::detach(&path, true) {
                warn!(%error, "the mount is left behind");
            }
            MountError::System { path: path.clone(), what: "served", error }
        };
        let device = attached.mounted.filter(mounts::Mounted::is_ours).map(|mounted| mounted.device);
        let device = device.ok_or_else(|| told(io::Error::other("it is not in the mount table")))?;
        let looked_after = Arc::clone(&fs);
        let refusals = Arc::new(Refusals::new(Arc::clone(&fs), runtime.clone()));
        let served = serve(attached.device, fs, Arc::clone(&refusals), runtime.clone()).map_err(told)?;
        let (end, ended) = watch::channel(false);
        let end = Arc::new(end);
        let departed = departure::departed(device.clone(), {
            let fs = Arc::clone(&looked_after);
            move || fs.has_open_files()
        });
        let gone = Arc::clone(&end);
        let mut over = ended.clone();
        runtime.spawn(async move {
            tokio::select! {
                () = departed => {
                    // Those who serve may not have heard of the end yet.
                    refusals.tell_counts();
                    gone.send_replace(true);
                }
                _ = over.wait_for(|&over| over) => {}
            }
        });
        let serve = std::thread::Builder::new().name("mount".to_owned()).spawn(move || {
            if let Err(error) = served.run() {
                warn!(%error, "the mount ended with an error");
            }
            end.send_replace(true);
        });
        let serve = serve.map_err(told)?;
        let (leave, mut left) = watch::channel(false);
        let (settle, settled) = watch::channel(false);
        let fs = Arc::clone(&looked_after);
        let mut over = ended.clone();
        runtime.spawn(async move {
            let until = async move {
                tokio::select! {
                    _ = left.wait_for(|&left| left) => {}
                    _ = over.wait_for(|&over| over) => {}
                }
            };
            drops::keep(looked_after, until).await;
            settle.send_replace(true);
        });
        debug!(path = %path.display(), "mounted");
        Ok(Self { path, device, serve: Mutex::new(Some(serve)), ended, leave, settled, fs })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Resolves when the mount has ended, from outside or by [`Self::unmount`]: it is out of the tree, and all of its
    /// files are closed, or what is open is so through a copy in another mount namespace.
    pub async fn ended(&self) {
        let mut ended = self.ended.clone();
        let _ = ended.wait_for(|&ended| ended).await;
    }

    /// Resolves when all files in drops that were closed are handed over: after the mount was taken out of the tree.
    pub async fn settled(&self) {
        let mut settled = self.settled.clone();
        let _ = settled.wait_for(|&settled| settled).await;
    }

    /// Leaves the files that are not handed over yet to the next mount.
    pub fn stop_settling(&self) {
        self.fs.stop_settling();
    }

    /// Takes the mount out of the tree, wherever it was moved or bound to. Files that are open stay usable until they
    /// are closed, or this process ends. Nothing else that is mounted there is touched. Blocks shortly.
    pub fn unmount(&self) -> Result<(), MountError> {
        self.leave.send_replace(true);
        for point in mounts::of_device(&self.device) {
            match attach::detach(&point, false) {
                Err(MountError::InUse { .. }) => {
                    info!("files are open; the mount goes, and they stay usable until they are closed");
                    attach::detach(&point, true)?;
                }
                result => result?,
            }
        }
        if mounts::is_mounted(&self.device) {
            return Err(MountError::Covered(self.path.clone()));
        }
        // A program that keeps a file open keeps the thread; it ends with the process then.
        let serve = self.serve.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(serve) = serve
            && serve.is_finished()
        {
            let _ = serve.join();
        }
        Ok(())
    }
}

/// Greets the kernel; what comes back serves when it is run.
fn serve(device: OwnedFd, fs: Arc<Fs>, refusals: Arc<Refusals>, runtime: Handle) -> io::Result<fuser::Session<Server>> {
    let interrupts = Interrupts::default();
    let heard = interrupts.clone();
    let told = Arc::clone(&fs);
    let (relay, end) = Relay::start(device, THREADS, move |it| match it {
        Heard::Interrupted(unique) => heard.interrupt(unique),
        Heard::Lost(OfHandle::Change { handle }) => told.call_lost(handle),
        Heard::Lost(OfHandle::Flush { handle }) => told.closed_unseen(handle),
        Heard::Lost(OfHandle::Release { handle }) => told.release(handle),
    })?;
    let server = Server::new(fs, refusals, runtime, Arc::clone(&relay), interrupts);
    let mut config = fuser::Config::default();
    config.n_threads = Some(THREADS);
    // The end of the pair is no device that could be cloned. Who may come in is the kernel's to say, by the options of
    // the mount.
    config.clone_fd = false;
    let session = fuser::Session::from_fd(server, end, fuser::SessionACL::All, config);
    // The answer to the kernel's greeting.
    relay.drain();
    session
}
