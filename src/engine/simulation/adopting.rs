//! Adopting in the simulated world: a second shell around [`Adoption`].

use std::collections::VecDeque;

use rand::RngExt as _;

use super::super::carry;
use super::line::Parcel;
use super::process::{Message, Queued};
use super::world::World;
use crate::channel::{
    Adoption, AdoptionAction, AdoptionEvent, Answer, CommitFailure, Done, End, Ending, Line, Looked, Operation,
    OperationId,
};
use crate::store::{Arrival, BoxSeq, ChannelId, Finding};

/// Operations from here on are those of adoptions, and none of the scheduler's.
const LOOKS: u64 = 1 << 60;

/// What an adoption has the store do.
#[derive(Clone, Debug)]
pub(super) enum Keeping {
    Findings(BoxSeq, Vec<Finding>),
    Finish,
}

impl World {
    /// Takes up what is to be adopted and is not under way.
    pub(super) fn adopt(&mut self, p: usize) {
        let process = &mut self.processes[p];
        let wanted = process.adoptions();
        let Some(life) = &mut process.life else { return };
        life.adoptions.retain(|id, _| wanted.iter().any(|(wanted, _)| wanted == id));
        let mut begun = Vec::new();
        for (id, kept) in wanted {
            life.adoptions.entry(id).or_insert_with(|| {
                let adoption = Adoption::new(kept.next, kept.launched_end);
                begun.push((id, adoption.load()));
                adoption
            });
        }
        for (id, load) in begun {
            self.see("adoptions");
            self.adopts(p, id, vec![load]);
        }
    }

    pub(super) fn tell_adoption(&mut self, p: usize, id: ChannelId, event: AdoptionEvent) {
        let now = self.now;
        let Some(adoption) = self.processes[p].life.as_mut().and_then(|life| life.adoptions.get_mut(&id)) else {
            return;
        };
        let actions = adoption.handle(now, event);
        self.adopts(p, id, actions);
    }

    fn adopts(&mut self, p: usize, id: ChannelId, actions: Vec<AdoptionAction>) {
        self.trace(|| format!("{p}: adopting {id}: {actions:?}"));
        for action in VecDeque::from(actions) {
            match action {
                AdoptionAction::Load { from, limit } => {
                    if let Ok(event) = carry::adoption_loaded(self.processes[p].store(), id, from, limit) {
                        self.tell_adoption(p, id, event);
                    }
                }
                AdoptionAction::Read { seq } => self.look(p, id, seq),
                AdoptionAction::Keep { from, findings } => {
                    self.submit(p, Queued::Adoption { id, keeping: Keeping::Findings(from, findings) });
                }
                AdoptionAction::Finish => self.submit(p, Queued::Adoption { id, keeping: Keeping::Finish }),
            }
        }
    }

    fn look(&mut self, p: usize, id: ChannelId, seq: BoxSeq) {
        let operation = OperationId(LOOKS + self.next_serial());
        let unknown = Ending::vain(Operation::Read, "the network is away".to_owned());
        let Some(stream) = self.processes[p].stream_of(id) else { return };
        let Some(life) = &mut self.processes[p].life else { return };
        life.looks.insert(operation, (id, seq));
        let used = life.known.used();
        let by = (!used.is_empty()).then(|| used[self.dice.random_range(0..used.len())]);
        let by = by.filter(|&by| self.admits(p, by, stream) && !self.processes[p].elsewhere[by]);
        let Some(by) = by else { return self.tell(p, Message::Ended(operation, unknown)) };
        let parcel = Parcel { channel: stream, seq, what: Operation::Read, payload: Vec::new() };
        match self.envelope(p, &parcel) {
            Ok(envelope) => self.start_operation(p, operation, (by, Line::Main), parcel, envelope),
            Err(ending) => self.tell(p, Message::Ended(operation, ending)),
        }
    }

    /// Whether the operation was an adoption's, which then hears of its end.
    pub(super) fn looked(&mut self, p: usize, operation: OperationId, ending: &Ending) -> bool {
        if operation.0 < LOOKS {
            return false;
        }
        let looks = self.processes[p].life.as_mut().map(|life| &mut life.looks);
        if let Some((id, seq)) = looks.and_then(|looks| looks.remove(&operation)) {
            let found = match (&ending.arrival, ending.end) {
                (Some(Arrival::Message(bytes)), _) => Looked::Box(bytes.clone()),
                (Some(Arrival::Tombstone), _) => Looked::Tombstone,
                (_, End::Answered(Answer::NotYet)) => Looked::NotFound,
                _ => Looked::Unknown,
            };
            self.tell_adoption(p, id, AdoptionEvent::Read { seq, found });
        }
        true
    }

    /// What the store was to keep of an adoption is committed, or is not.
    pub(super) fn adoption_kept(
        &mut self,
        p: usize,
        id: ChannelId,
        keeping: &Keeping,
        result: &Result<Done, CommitFailure>,
    ) {
        match (keeping, result) {
            (Keeping::Findings(..), Ok(_)) => self.tell_adoption(p, id, AdoptionEvent::Kept),
            (Keeping::Finish, Ok(_)) => self.adopt(p),
            (_, Err(_)) => {
                // It is taken up again from what the store has.
                if let Some(life) = &mut self.processes[p].life {
                    life.adoptions.remove(&id);
                }
                self.adopt(p);
            }
        }
    }
}
