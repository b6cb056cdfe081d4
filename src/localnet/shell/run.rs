//! The thread that owns the core and its disk.
//!
//! Events that wait are handled together and committed in one transaction; only then do their replies leave, so that
//! what a client was told is on the disk.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{debug, error};

use super::clock::wall_clock;
use crate::localnet::backend::Disk;
use crate::localnet::core::{Action, Conn, Core, Event, Reply};

/// Most events of one transaction.
const GROUP: usize = 256;

/// The core's thread: groups of events, one transaction each, then their replies.
pub(super) async fn run_core(mut core: Core<Disk>, mut inbox: mpsc::Receiver<(Event, Option<mpsc::Sender<Reply>>)>) {
    let mut clients: HashMap<Conn, mpsc::Sender<Reply>> = HashMap::new();
    loop {
        let mut group = Vec::new();
        let now = wall_clock();
        let until = core.next_deadline().map_or(Duration::from_secs(3600), |at| at.saturating_sub(now));
        match timeout(until, inbox.recv_many(&mut group, GROUP)).await {
            Ok(0) => break,
            Ok(_) => {}
            Err(_) => group.push((Event::Tick, None)),
        }
        let wall = wall_clock();
        if let Err(error) = core.store().begin() {
            // Whoever asked waits for an answer that cannot be given; a client asks again on its next connection.
            error!(%error, "the network's database cannot be written; clients are cut off");
            clients.clear();
            continue;
        }
        let mut told = Vec::new();
        let mut ended = Vec::new();
        for (event, client) in group {
            match (&event, client) {
                (Event::Connected(conn), Some(client)) => drop(clients.insert(*conn, client)),
                (Event::Disconnected(conn) | Event::Closed(conn), _) => ended.push(*conn),
                _ => {}
            }
            told.extend(core.handle(wall, event));
        }
        if let Err(error) = core.store().commit() {
            error!(%error, "boxes could not be kept; clients are cut off and nothing was confirmed to them");
            core.rolled_back();
            clients.clear();
            continue;
        }
        for action in told {
            match action {
                Action::Tell(conn, reply) => {
                    if let Some(client) = clients.get(&conn)
                        && client.try_send(reply).is_err()
                    {
                        debug!(conn, "a client does not take its replies and is cut off");
                        clients.remove(&conn);
                    }
                }
                // The connection reads on by itself: nothing keeps it from being served.
                Action::Read(_) => {}
                Action::Hangup(conn) => drop(clients.remove(&conn)),
            }
        }
        for conn in ended {
            clients.remove(&conn);
        }
    }
}
