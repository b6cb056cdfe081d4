//! The end of a session.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::connection::Wire;
use super::{Closing, Command, Phase, Session, small};
use crate::thin::message::ThinClose;
use crate::thin::{Dial, ErrorKind};

/// What closing may take: to say goodbye, and before that to connect for it.
const GOODBYE: Duration = Duration::from_secs(2);
const RETURN: Duration = Duration::from_secs(5);

impl<D: Dial> Session<D> {
    /// Fails what is unanswered. A daemon that knows the session is told; where it is not connected, one attempt is made.
    pub(super) fn close(&mut self, done: Option<oneshot::Sender<()>>) {
        self.inbox.close();
        while let Ok(command) = self.inbox.try_recv() {
            match command {
                Command::Call(call) => drop(call.answer.send(Err(ErrorKind::Closed))),
                Command::Send(send) => drop(send.answer.send(Err(ErrorKind::Closed))),
                Command::Close(other) | Command::Disconnect(other) | Command::Leave(other) => drop(other.send(())),
                Command::Reconnect | Command::Release(_) => {}
            }
        }
        for call in self.calls.drain() {
            let _ = call.answer.send(Err(ErrorKind::Closed));
        }
        self.sends.close();
        self.tombstones.clear();
        self.closing = Some(Closing { until: Instant::now() + RETURN, done: done.into_iter().collect() });
        if self.registered && matches!(self.phase, Phase::Waiting { .. } | Phase::Idle) {
            self.dial();
        } else if !self.registered && !matches!(self.phase, Phase::Shaking { greeted: true, .. }) {
            // Nobody knows of us.
            self.connection = None;
            self.phase = Phase::Idle;
        }
    }

    /// Ends the session at the daemon, so that nothing of it runs on there. The daemon hangs up once it has done so.
    pub(super) async fn say_goodbye(mut self) {
        let until = Instant::now() + GOODBYE;
        let ready = matches!(self.phase, Phase::Ready { .. });
        if let Some(mut connection) = self.connection.take().filter(|_| ready) {
            let sent = match connection.writer() {
                Some(writer) => timeout_at(until, writer.send(small(&ThinClose {}.into()))).await,
                None => return,
            };
            connection.finish();
            if !matches!(sent, Ok(Ok(()))) {
                return;
            }
            loop {
                match timeout_at(until, self.wire.recv()).await {
                    Ok(Some((attempt, Wire::Ended { .. }))) if attempt == self.attempt => break,
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => break,
                }
            }
        }
        for done in self.closing.into_iter().flat_map(|closing| closing.done) {
            let _ = done.send(());
        }
    }
}
