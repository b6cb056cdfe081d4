//! The owner's end of the control socket.

use std::io;
use std::sync::{Arc, Weak};

use rustix::fs::{AtFlags, Mode};
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tracing::{debug, warn};
use zeroize::Zeroizing;

use super::{Answer, Asked, Failure, FailureKind, dispatch};
use crate::engine::Owner;
use crate::store::{PrivateDir, PrivateDirError, StateDir};
use crate::thin::frame;

/// Connections of verbs and programs; further ones wait in the socket's backlog. A program keeps a few for as long as it
/// runs, and has two dozen where it waits for much.
const CONNECTIONS: usize = 512;

/// Listens at the socket in the state directory and answers until the owner is gone or the task is aborted.
pub(crate) fn serve(owner: &Arc<Owner>, dir: &PrivateDir) -> io::Result<JoinHandle<()>> {
    let listener = bind(dir)?;
    let owner = Arc::downgrade(owner);
    Ok(tokio::spawn(async move {
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let permit = Arc::clone(&room).acquire_owned().await.expect("the semaphore is never closed");
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = connections.join_next() => continue,
            };
            match accepted {
                Ok((stream, _)) => {
                    let owner = Weak::clone(&owner);
                    connections.spawn(async move {
                        converse(owner, stream).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    warn!(%error, "a verb could not be accepted");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }))
}

/// Only our own user and root get through the 0700 directory; the peer is asked all the same.
async fn converse(owner: Weak<Owner>, mut stream: UnixStream) {
    let us = rustix::process::geteuid().as_raw();
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == us || peer.uid() == 0 => {}
        _ => return warn!("a verb of another user was turned away"),
    }
    loop {
        let body = match frame::read_body(&mut stream).await {
            Ok(Some(body)) => body,
            Ok(None) => return,
            Err(error) => return debug!(%error, "a verb hung up"),
        };
        let asked = frame::decode::<Asked>(&body);
        // It may hold a capability.
        drop(Zeroizing::new(body));
        let answer = match asked {
            Ok(asked) => {
                let Some(owner) = owner.upgrade() else { return };
                // A verb that hangs up while it waits must not leave its question behind.
                tokio::select! {
                    answer = dispatch::dispatch(&owner, asked) => answer,
                    () = hung_up(&stream) => return,
                }
            }
            Err(error) => Err(Failure::new(FailureKind::Usage, format!("the request is not understood: {error}"))
                .hint("the mount and the command may be of different versions")),
        };
        let answer = match answer {
            Ok(response) => Answer::Ok(Box::new(response)),
            Err(failure) => Answer::Err(failure),
        };
        let Ok(bytes) = frame::encode(&answer).map(Zeroizing::new) else { return };
        if stream.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// Resolves when the peer has closed, or sends ahead of its answer, which no verb of ours does.
async fn hung_up(stream: &UnixStream) {
    let mut ahead = [0; 1];
    loop {
        if stream.readable().await.is_err() {
            return;
        }
        match stream.try_read(&mut ahead) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => return,
        }
    }
}

fn bind(dir: &PrivateDir) -> io::Result<UnixListener> {
    // The lock says that nobody else owns this state, so whatever is there is a leftover.
    match dir.remove_file(StateDir::control_socket()) {
        Ok(()) | Err(PrivateDirError::Missing { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    // Through the descriptor: wherever the directory is now, and however long its path is.
    let socket = dir.through_descriptor().join(StateDir::control_socket());
    let listener = std::os::unix::net::UnixListener::bind(&socket)?;
    // Nobody else can reach it before that: the directory is private.
    rustix::fs::chmodat(dir, StateDir::control_socket(), Mode::RUSR | Mode::WUSR, AtFlags::empty())?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}
