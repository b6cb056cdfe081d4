//! What the session does by itself when time passes: deadlines, attempts, probes.

use std::time::Duration;

use rand::RngExt as _;
use tokio::time::Instant;
use tracing::info;

use super::{Link, Phase, Session, small, vigil};
use crate::thin::message::{IndexCounter, Octets};
use crate::thin::{Dial, ErrorKind};

/// Without a document the daemon accepts one client after the other and waits 30 s before it greets each. A connection
/// that is given up keeps its place among them, so giving up soon makes the wait longer for all.
const GREETING: Duration = Duration::from_secs(300);
/// From the greeting to the reply to our token.
const HANDSHAKE: Duration = Duration::from_secs(75);
/// After so long without a word after connecting, the status says so.
const SILENCE: Duration = Duration::from_secs(5);
/// With something unanswered and no reply for so long, a question that costs nothing is put.
const QUIET: Duration = Duration::from_secs(20);
/// What its answer may take, and what it may take behind other questions: an encrypt without a document waits for
/// five attempts to fetch one, each up to 30 s. Giving up on a daemon that is at work is what brings its sessions into
/// disorder (§4.6).
const PROBE: Duration = Duration::from_secs(10);
const PROBE_BEHIND: Duration = Duration::from_secs(180);

impl<D: Dial> Session<D> {
    pub(super) fn next_timer(&self, now: Instant) -> Instant {
        let far = now + Duration::from_secs(3600);
        let phase = match &self.phase {
            Phase::Waiting { until, .. } => *until,
            // Bounded by the task's own patience.
            Phase::Idle | Phase::Dialling => far,
            Phase::Shaking { since, greeted: false, silence_told: false } => *since + SILENCE,
            Phase::Shaking { since, greeted, .. } => *since + patience(*greeted),
            Phase::Ready { probe: None, .. } if self.is_idle() => far,
            Phase::Ready { heard, probe, .. } => {
                probe.map_or(*heard + QUIET, |(_, until)| until).min(now + vigil::BEAT)
            }
        };
        let cancels = self.tombstones.next_deadline().filter(|_| matches!(self.phase, Phase::Ready { .. }));
        // A cancel that is due waits for the writer, not for a timer.
        let cancels = cancels.filter(|next| *next > now);
        let waits = [self.calls.next_deadline(), self.sends.next_deadline()];
        let waits = waits.into_iter().flatten().map(|deadline| deadline.max(self.vigil.patient_until));
        let closing = self.closing.as_ref().map(|closing| closing.until);
        waits.chain(cancels).chain(closing).fold(phase, Instant::min)
    }

    /// Whether time passed without us; then the connection has to show that it works.
    pub(super) fn look(&mut self, now: Instant) {
        if self.vigil.look(now) {
            info!("time passed while this machine or process did not run: asking the daemon whether it is there");
            self.probe(now);
            if let Phase::Waiting { until, .. } = &mut self.phase {
                *until = now;
            }
        }
    }

    pub(super) fn tick(&mut self, now: Instant) {
        self.look(now);
        if self.vigil.patient_until <= now {
            self.expire(now);
        }
        match &mut self.phase {
            Phase::Waiting { until, .. } if *until <= now => self.dial(),
            Phase::Shaking { since, greeted, .. } if *since + patience(*greeted) <= now => {
                let error = format!("{} accepted the connection and then did not greet as a daemon does", self.address);
                self.lost(Link::Refused { error });
            }
            Phase::Shaking { since, greeted: false, silence_told: told @ false } if *since + SILENCE <= now => {
                *told = true;
                let error = format!(
                    "{} takes the connection and is silent. A daemon without the mixnet's PKI document waits 30 s for it \
                     before it greets a client, one client after the other; else it is no daemon",
                    self.address
                );
                self.tell(Link::NoDaemon { error });
            }
            Phase::Ready { probe: Some((_, until)), .. } if *until <= now => {
                // A session whose replies go nowhere: another token makes another session.
                self.token = self.random.random();
                self.registered = false;
                self.lost(Link::NoDaemon { error: format!("{} takes requests and answers none", self.address) });
            }
            Phase::Ready { heard, probe: None, .. } if *heard + QUIET <= now => self.probe(now),
            _ => {}
        }
    }

    pub(super) fn expire(&mut self, now: Instant) {
        for seq in self.calls.over(Some(now)) {
            let sent = self.calls.is_sent(seq);
            let why = self.late(sent);
            self.give_up(seq, Some(why));
        }
        let unsent = self.late(false);
        self.sends.expire(now, || unsent.clone());
    }

    /// Why a deadline passed.
    pub(super) fn late(&self, sent: bool) -> ErrorKind {
        late(&self.status.borrow().link, sent)
    }

    /// Puts a question that costs nothing, to see whether anything is answered.
    pub(super) fn probe(&mut self, now: Instant) {
        let patience = if self.calls.local_under_way() { PROBE_BEHIND } else { PROBE };
        let Phase::Ready { probe: probe @ None, .. } = &mut self.phase else { return };
        let id = self.random.random();
        *probe = Some((id, now + patience));
        let question = IndexCounter {
            query_id: Some(Octets::from(id)),
            message_box_index: Some(Octets::from(vec![0; crate::bacap::INDEX_BYTES])),
        };
        self.outbox.push_back(small(&question.into()));
    }
}

/// How long a handshake may take, from the connection on.
fn patience(greeted: bool) -> Duration {
    if greeted { GREETING + HANDSHAKE } else { GREETING }
}

/// Why a deadline passed, as the link stands; `sent` is whether the daemon may have the request.
pub(in crate::thin) fn late(link: &Link, sent: bool) -> ErrorKind {
    match (link.trouble(), sent) {
        (Some(error), false) => ErrorKind::NoDaemon(error.to_owned()),
        (Some(error), true) => ErrorKind::Lost(error.to_owned()),
        (None, false) => match link {
            Link::NoConsensus(absence) => ErrorKind::NoConsensus(*absence),
            _ => ErrorKind::Busy,
        },
        (None, true) => ErrorKind::Timeout,
    }
}
