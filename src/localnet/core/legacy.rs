//! Legacy messages: one packet, sent once, and perhaps an echo (`thin-client-protocol.md` §4.8). What is lost is silent.

use std::time::Duration;

use super::event::{Action, Conn, Legacy, Reply};
use super::session::SessionId;
use super::stats::Kind;
use super::{Core, Step};
use crate::localnet::backend::BoxStore;
use crate::localnet::document::COURIER_QUEUE;

/// How long a SURB outlives the time that its reply should take, for each hop of the round trip.
const SURB_GRACE: Duration = Duration::from_millis(500);

impl<S: BoxStore> Core<S> {
    /// Sends a message. Says whether a packet left.
    pub(super) fn send_legacy(&mut self, session: SessionId, conn: Conn, legacy: Legacy) -> bool {
        let Legacy { message_id, surb_id, destination, queue, payload } = legacy;
        let echo = self.echoes.iter().any(|echo| Some(echo.node) == destination && echo.queue == queue);
        let courier = destination.is_some_and(|node| self.couriers.contains(&node)) && queue == COURIER_QUEUE;
        let known = echo || courier;
        let trip = self.mixnet.round_trip();
        if let Some(surb_id) = surb_id {
            let error = (!known).then(|| "no service of that name is in the PKI document".to_owned());
            let (sent_at, reply_eta) = (self.timeline.wall(), if known { trip.expected } else { Duration::ZERO });
            let sent = Reply::Sent { message_id, surb_id, sent_at, reply_eta, error };
            self.actions.push(Action::Tell(conn, sent));
        }
        if !known {
            return false;
        }
        self.counted.packets.add(Kind::Legacy);
        let Some(surb_id) = surb_id else {
            self.counted.ended.add(Kind::Legacy);
            return true;
        };
        let arrived = self.mixnet.packet(trip.forward).into_iter().flatten().min();
        // Nothing answers at a courier's queue: what is there is no envelope.
        let Some(arrived) = arrived.filter(|_| echo) else { return true };
        let Some(back) = self.mixnet.reply(trip.back).into_iter().flatten().min() else { return true };
        let hops = u32::try_from(2 * self.profile.layers + 3).unwrap_or(u32::MAX);
        if arrived + back <= trip.expected + (SURB_GRACE * hops).div_f64(self.profile.scale) {
            let (link, reply) = (self.egress.link, Reply::Replied { message_id, surb_id, payload });
            self.timeline.after(arrived + back, Step::Echoed { session, link, reply });
        }
        true
    }

    /// The reply to a legacy message is at the daemon.
    pub(super) fn echoed(&mut self, session: SessionId, link: u64, reply: Reply) {
        if link != self.egress.link {
            self.counted.replies_lost += 1;
            return;
        }
        self.counted.ended.add(Kind::Legacy);
        self.tell(session, reply);
    }
}
