//! What the session does with what the daemon says.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::info;

use super::connection::Wire;
use super::heard::{Heard, Kind};
use super::{Answered, Event, Id, Link, Phase, Session, small};
use crate::thin::message::{
    ConnectionStatusEvent, MessageReplyEvent, MessageSentEvent, Octets, ResponseFrame, SessionToken,
};
use crate::thin::{Dial, Document, ErrorKind};

impl<D: Dial> Session<D> {
    pub(super) fn hear(&mut self, wire: Wire) {
        match wire {
            Wire::Dialled => {
                self.phase = Phase::Shaking { since: Instant::now(), greeted: false, silence_told: false };
            }
            Wire::Frame(frame) => self.receive(*frame),
            Wire::Ended { error, malformed: true } => self.lost(Link::Refused { error }),
            Wire::Ended { error, malformed: false } => self.lost(Link::NoDaemon { error }),
        }
    }

    pub(super) fn receive(&mut self, mut frame: ResponseFrame) {
        if let Some(event) = frame.connection_status_event.take() {
            self.greeted(event);
        } else if let Some(event) = frame.new_pki_document_event.take() {
            if let Some(document) = event.payload.as_deref().and_then(Document::parse).map(Arc::new) {
                self.document = true;
                self.status.send_modify(|status| {
                    status.documents.insert(Arc::clone(&document));
                    status.pki = Some(Arc::clone(&document));
                });
                let _ = self.events.send(Event::PkiDocument(document));
                self.show();
            }
        } else if let Some(reply) = frame.session_token_reply.take() {
            match self.phase {
                Phase::Shaking { greeted: true, .. } => self.ready(reply.resumed),
                Phase::Shaking { greeted: false, .. } => self.refuse("it did not say its status first"),
                _ => {}
            }
        } else if frame.shutdown_event.take().is_some() {
            info!("the daemon says that it shuts down");
            self.tell(Link::ShuttingDown);
        } else if let Some(event) = frame.message_sent_event.take() {
            self.message_sent(event);
        } else if let Some(event) = frame.message_reply_event.take() {
            self.message_reply(event);
        } else if let Some(heard) = Heard::of(&frame) {
            if let Phase::Shaking { greeted: false, .. } = self.phase {
                return self.refuse("it did not say its status first");
            }
            self.reply(heard, frame);
        }
    }

    /// The daemon's status: the first frame of each connection, and one at each change.
    pub(super) fn greeted(&mut self, event: ConnectionStatusEvent) {
        let shaking = matches!(self.phase, Phase::Shaking { .. });
        let max_plaintext = event.pigeonhole_geometry.as_ref().map_or(0, |found| found.max_plaintext_payload_length);
        if shaking && (event.sphinx_geometry.is_none() || event.pigeonhole_geometry.is_none()) {
            return self.refuse(
                "it does not tell the geometry of its packets and boxes, which an older or misconfigured daemon does not: \
                 use a current kpclientd",
            );
        }
        if shaking && max_plaintext <= 0 {
            return self.refuse("it tells a geometry of boxes without room for a message");
        }
        let token: Option<Id> = event.instance_token.as_deref().and_then(|token| token.try_into().ok());
        let old = self.status.borrow().instance_token;
        let restarted = old.is_some() && token.is_some() && old != token;
        if restarted {
            info!("the daemon was restarted");
            self.restarted = true;
            self.held = self.hold_after_restart && token != self.released;
            self.was_connected = false;
            self.registered = false;
            let _ = self.events.send(Event::Restarted);
        }
        self.status.send_modify(|status| {
            status.restarts += u64::from(restarted);
            status.instance_token = token.or(status.instance_token);
            status.pigeonhole = event.pigeonhole_geometry.or(status.pigeonhole.take());
            status.sphinx = event.sphinx_geometry.or(status.sphinx.take());
        });
        self.consensus = event.is_connected;
        if let Phase::Shaking { greeted, .. } = &mut self.phase
            && !std::mem::replace(greeted, true)
        {
            let token = SessionToken { client_instance_token: Some(Octets::from(self.token)) };
            self.outbox.push_back(small(&token.into()));
        }
        self.show();
    }

    /// The session works: all that is unanswered goes out, again or for the first time.
    pub(super) fn ready(&mut self, resumed: bool) {
        let now = Instant::now();
        let first = self.status.borrow().generation == 0;
        let known_before = std::mem::replace(&mut self.registered, true);
        self.phase = Phase::Ready { since: now, heard: now, probe: None };
        self.status.send_modify(|status| status.generation += 1);
        self.sweep();
        self.calls.again();
        if std::mem::take(&mut self.restarted) {
            self.tombstones.clear();
        }
        self.tombstones.reconnected(now);
        if !resumed && !first {
            self.sends.forgotten();
            if known_before {
                info!("the daemon does not know the session any more");
                let _ = self.events.send(Event::SessionLost);
            }
        }
        if !first {
            // A session may be deaf from its start: the last connection's end at the daemon can take it along (§4.6).
            self.probe(now);
        }
        self.show();
    }

    pub(super) fn message_sent(&mut self, event: MessageSentEvent) {
        let Some(surb_id) = event.surbid.as_deref().and_then(|id| Id::try_from(id).ok()) else { return };
        let reply_eta = Duration::from_nanos(event.reply_eta.try_into().unwrap_or(0));
        if let Some(order) = self.sends.sent(surb_id, reply_eta, event.err.as_deref()) {
            self.taken(order + 1);
        }
        let _ = self.events.send(Event::MessageSent { surb_id, reply_eta, error: event.err });
    }

    pub(super) fn message_reply(&mut self, event: MessageReplyEvent) {
        let Some(surb_id) = event.surbid.as_deref().and_then(|id| Id::try_from(id).ok()) else { return };
        let payload: Arc<[u8]> = event.payload.unwrap_or_default().0.into();
        self.sends.replied(surb_id, &payload);
        let _ = self.events.send(Event::MessageReply { surb_id, payload });
    }

    /// The daemon has taken from its queue what came before the `order`-th request of this connection.
    pub(super) fn taken(&mut self, order: u64) {
        self.tombstones.taken(order, Instant::now());
        self.sends.taken(order);
    }

    pub(super) fn reply(&mut self, heard: Heard, frame: ResponseFrame) {
        let now = Instant::now();
        if let Phase::Ready { heard, probe, .. } = &mut self.phase {
            *heard = now;
            *probe = None;
        }
        let mut found = false;
        match heard.kind {
            Kind::Ended { copy, cancelled: true, .. } => self.ended[usize::from(copy)] = true,
            Kind::Cancel { copy } => found = std::mem::take(&mut self.ended[usize::from(copy)]),
            _ => {}
        }
        let Some((seq, entry)) = self.calls.find(&heard.id) else {
            // A reply to what was cancelled, or to one of the session's own cancels.
            if !self.tombstones.ended(&heard.id) {
                self.tombstones.answered(&heard.id, now);
            }
            return;
        };
        let current = entry.id == Some(heard.id);
        let order = entry.order;
        if let Kind::Ended { cancelled: true, .. } = heard.kind
            && !current
        {
            return self.calls.forget_old(&heard.id);
        }
        let entry = self.calls.remove(seq).expect("just found");
        if !current && let (Some(key), Some(id)) = (entry.call.body.cancel, entry.id) {
            // The start before this one has answered; this one is not needed any more.
            self.tombstones.bury(key, id, order, None, now);
        }
        if let Kind::Ended { taken: true, .. } = heard.kind
            && current
        {
            self.taken(order);
        }
        if let (Kind::Cancel { .. }, Some(key), false) = (heard.kind, entry.call.body.cancels, found)
            && let Some((seq, _)) = self.calls.find_key(key)
        {
            // Ours, and the daemon has not found it: it may still lie in its queue.
            self.give_up(seq, Some(ErrorKind::Cancelled));
        }
        let _ = entry.call.answer.send(Ok(Answered { frame, found }));
    }
}
