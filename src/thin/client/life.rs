//! The life of a session: how it stands, what happens in it, and its end.

use tokio::sync::{broadcast, oneshot, watch};
use tokio::time::{Instant, timeout_at};

use super::Client;
use crate::thin::session::{self, Command};
use crate::thin::{ErrorKind, Events, Link, Status};

impl Client {
    /// How the session stands, now and later.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// What happens in the session from now on. A subscriber that is slow loses the oldest events and is told how many;
    /// the session waits for none.
    pub fn events(&self) -> Events {
        // Of a client that is closed there is nothing to come.
        Events(self.events.upgrade().unwrap_or_else(|| broadcast::Sender::new(1)).subscribe())
    }

    /// Requests that have not left the session yet or that the daemon is not rid of, those that nobody waits for any more
    /// included: 0 once nothing is under way.
    pub fn places_taken(&self) -> usize {
        self.places - self.started.available_permits() - self.local.available_permits()
    }

    /// Waits until the network can be used.
    pub async fn wait_connected(&self, deadline: Instant) -> Result<Status, ErrorKind> {
        let mut status = self.status.clone();
        match timeout_at(deadline, status.wait_for(|status| status.link == Link::Connected)).await {
            Ok(Ok(status)) => Ok(status.clone()),
            Ok(Err(_)) => Err(ErrorKind::Closed),
            Err(_) => Err(match session::late(&self.status.borrow().link, false) {
                ErrorKind::Busy => ErrorKind::Timeout,
                kind => kind,
            }),
        }
    }

    /// Drops the connection and keeps the session, which the daemon remembers for its grace period (10 minutes unless
    /// configured otherwise). The next request connects again and resumes it, and so does [`Self::reconnect`]; what was
    /// unanswered goes on then, and until then its deadlines count on.
    pub async fn disconnect(&self) {
        let (done, disconnected) = oneshot::channel();
        if self.commands.send(Command::Disconnect(done)).await.is_ok() {
            let _ = disconnected.await;
        }
    }

    /// Drops the connection, and ends this client without telling the daemon, which keeps the session and what runs in it
    /// for its grace period: a client with the same [`token`](crate::thin::ClientOptions::token) resumes it. Unanswered
    /// requests fail here, and go on there.
    pub async fn leave(&self) {
        let (done, left) = oneshot::channel();
        if self.commands.send(Command::Leave(done)).await.is_ok() {
            let _ = left.await;
        }
    }

    /// Connects now, without waiting for the next attempt's turn. Does nothing while connected.
    pub async fn reconnect(&self) {
        // A session that is closed has nothing to connect.
        let _ = self.commands.send(Command::Reconnect).await;
    }

    /// Lets what was held back after a restart of the daemon (see [`hold_after_restart`]) go into the mixnet.
    /// `instance` is the daemon's instance token ([`Status::instance_token`]) that the caller has looked at: if yet another
    /// process was met meanwhile, nothing goes.
    ///
    /// [`hold_after_restart`]: crate::thin::ClientOptions::hold_after_restart
    pub async fn release(&self, instance: [u8; 16]) {
        // A session that is closed holds nothing.
        let _ = self.commands.send(Command::Release(instance)).await;
    }

    /// Ends the session: unanswered requests fail, and the daemon forgets all of it. If it is not connected, one attempt
    /// is made to tell the daemon. Takes 7 seconds at most. Dropping the last clone does the same, without waiting.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.commands.send(Command::Close(done)).await.is_ok() {
            let _ = closed.await;
        }
    }
}
