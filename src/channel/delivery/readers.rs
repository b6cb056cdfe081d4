//! Channels that we read.

use super::commits::Request;
use super::{Delivery, Shown};
use crate::channel::scheduler;
use crate::channel::{ReceiverAction, Time};
use crate::model::{Arrival, BoxSeq, Channel, ChannelId};

impl Delivery {
    /// Without a verdict a person may be waiting, so that the channel is probed at once; with one there is no hurry, and
    /// mounting is no burst.
    pub(super) fn reader_found(&mut self, now: Time, channel: &Channel) {
        let id = channel.id;
        let resumed = if channel.paused {
            self.paused.insert(id);
            false
        } else {
            self.paused.remove(&id)
        };
        if self.scheduler.frontier(id).is_some_and(|frontier| frontier < channel.frontier) {
            // What was missing there was given up.
            self.stop(id);
            self.scheduler.add_receiver(now, id, true);
            self.tell(now, scheduler::Event::Tick);
        }
        if !self.scheduler.contains(id) {
            self.scheduler.add_receiver(now, id, channel.verdict.is_none() || self.prompt);
            self.show_plan(now, id);
        } else if resumed {
            // There is room again, and nothing to wait for.
            self.scheduler.prompt(id);
            self.tell(now, scheduler::Event::Tick);
        }
    }

    pub(super) fn loaded(&mut self, now: Time, found: &Channel, arrived: Vec<BoxSeq>) {
        let channel = found.id;
        if found.paused || found.fence.is_some() || self.refuses(found) {
            return self.tell(now, scheduler::Event::NotLoaded { channel });
        }
        let (frontier, lost_end) = (found.frontier, found.lost_end);
        self.tell(now, scheduler::Event::Loaded { channel, frontier, lost_end, arrived });
    }

    pub(super) fn receiver_wants(&mut self, id: ChannelId, action: ReceiverAction) {
        let (seq, arrival) = match action {
            ReceiverAction::Record { seq } => match self.held.remove(&(id, seq)) {
                Some(arrival) => (seq, arrival),
                None => return,
            },
            ReceiverAction::Verdict { seq } => (seq, Arrival::NotYet),
        };
        // An answer may come when its network has just gone: it is recorded all the same, as the machine counts on it.
        let bind = (arrival != Arrival::NotYet && !self.bound.contains(&id))
            .then(|| self.known.as_ref().map(|(network, _)| network.clone()))
            .flatten();
        self.commit(id, Request::Record { seq, arrival, bind });
    }

    /// The machine believes what the store does not have: start from the store, at its time.
    pub(super) fn not_recorded(&mut self, now: Time, id: ChannelId, trouble: String) {
        self.show(id, Shown::Trouble(Some(trouble)));
        if !self.scheduler.contains(id) {
            return;
        }
        self.stop(id);
        self.scheduler.add_receiver(now, id, false);
        self.show_plan(now, id);
    }
}
