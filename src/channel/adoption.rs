//! Adopting: what the network is asked about the boxes of a fenced channel, and what its answers mean.
//!
//! Some indices are asked for at a time, from the first that is not stored on. One counts as free once two reads, each in a
//! fresh envelope, have said so. What was learned is kept as it comes, in order; where nothing of ours was ever launched
//! and nothing is, the other writer has ended, and the channel is rewritten.

use std::collections::BTreeMap;

use super::{Time, pause_before_retry};
use crate::model::{BoxSeq, Finding};

/// Indices that are asked for at a time.
pub const ADOPTION_READS: usize = 4;
/// Reads that must have said that nothing is there.
const NOT_FOUNDS: u32 = 2;

/// What one read found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Looked {
    /// A box.
    Box(Vec<u8>),
    /// A deleted one.
    Tombstone,
    /// No replica that was asked has it.
    NotFound,
    /// No answer this time.
    Unknown,
}

/// What the shell tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdoptionEvent {
    /// Answers [`AdoptionAction::Load`].
    Loaded {
        /// How many boxes the channel has.
        boxes: u64,
        /// The open tail, whose bytes are compared with nothing.
        tail: Option<BoxSeq>,
        /// Our boxes that are sealed and not stored, from where the load said.
        outgoing: Vec<(BoxSeq, Vec<u8>)>,
    },
    /// A read is over.
    Read {
        /// Of which box.
        seq: BoxSeq,
        /// What it found.
        found: Looked,
    },
    /// What was to be kept is.
    Kept,
    /// Nothing but time.
    Tick,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdoptionAction {
    /// Look up our boxes from here on.
    Load {
        /// The first.
        from: BoxSeq,
        /// How many.
        limit: usize,
    },
    /// Read a box once, in a fresh envelope.
    Read {
        /// Which.
        seq: BoxSeq,
    },
    /// Commit what stands at the next indices.
    Keep {
        /// The first.
        from: BoxSeq,
        /// In order.
        findings: Vec<Finding>,
    },
    /// Rewrite the channel: all is known.
    Finish,
}

#[derive(Debug)]
enum Index {
    /// It is being read.
    Asked,
    /// It is read again.
    Later(Time),
    Known(Finding),
}

#[derive(Debug)]
struct Asking {
    index: Index,
    ours: Option<Vec<u8>>,
    not_founds: u32,
    tries: u32,
}

/// The adoption of one channel. See the module's head.
#[derive(Debug)]
pub struct Adoption {
    next: BoxSeq,
    launched_end: BoxSeq,
    window: BTreeMap<BoxSeq, Asking>,
    over: bool,
}

impl Adoption {
    /// One that knows all before `next`; ours were launched up to `launched_end`. Its first action is a load.
    pub fn new(next: BoxSeq, launched_end: BoxSeq) -> Self {
        Self { next, launched_end, window: BTreeMap::new(), over: false }
    }

    /// The first box that nothing is known of.
    pub fn next(&self) -> BoxSeq {
        self.next
    }

    /// What is looked up next.
    pub fn load(&self) -> AdoptionAction {
        AdoptionAction::Load { from: self.next, limit: ADOPTION_READS }
    }

    /// When [`AdoptionEvent::Tick`] is due.
    pub fn next_timeout(&self) -> Option<Time> {
        let later = self.window.values().filter_map(|asking| match asking.index {
            Index::Later(at) => Some(at),
            _ => None,
        });
        later.min()
    }

    /// Takes an event in and says what is to be done.
    pub fn handle(&mut self, now: Time, event: AdoptionEvent) -> Vec<AdoptionAction> {
        match event {
            AdoptionEvent::Loaded { boxes, tail, outgoing } => {
                let mut outgoing: BTreeMap<_, _> = outgoing.into_iter().collect();
                for seq in (self.next.0..self.next.0 + ADOPTION_READS as u64).map(BoxSeq) {
                    let ours = outgoing.remove(&seq);
                    // A replica has confirmed it, so nobody has to ask.
                    let stored = seq.0 < boxes && tail != Some(seq) && ours.is_none();
                    let index = if stored { Index::Known(Finding::Ours) } else { Index::Later(now) };
                    self.window.insert(seq, Asking { index, ours, not_founds: 0, tries: 0 });
                }
            }
            AdoptionEvent::Read { seq, found } => self.read(now, seq, found),
            AdoptionEvent::Kept if self.over => return vec![AdoptionAction::Finish],
            AdoptionEvent::Kept => {
                self.next = BoxSeq(self.next.0 + ADOPTION_READS as u64);
                return vec![self.load()];
            }
            AdoptionEvent::Tick => {}
        }
        self.advance(now)
    }

    fn read(&mut self, now: Time, seq: BoxSeq, found: Looked) {
        let Some(asking) = self.window.get_mut(&seq) else { return };
        asking.index = match found {
            Looked::Box(bytes) if asking.ours.as_ref() == Some(&bytes) => Index::Known(Finding::Ours),
            Looked::Box(bytes) if !bytes.is_empty() => Index::Known(Finding::Foreign(bytes)),
            Looked::Box(_) | Looked::Tombstone => Index::Known(Finding::Tombstone),
            Looked::NotFound => {
                asking.not_founds += 1;
                if asking.not_founds < NOT_FOUNDS { Index::Later(now) } else { Index::Known(Finding::Nothing) }
            }
            Looked::Unknown => {
                let pause = pause_before_retry(asking.tries);
                asking.tries = asking.tries.saturating_add(1);
                Index::Later(now + pause)
            }
        };
    }

    fn advance(&mut self, now: Time) -> Vec<AdoptionAction> {
        let mut actions = Vec::new();
        for (&seq, asking) in &mut self.window {
            if matches!(asking.index, Index::Later(at) if at <= now) {
                asking.index = Index::Asked;
                actions.push(AdoptionAction::Read { seq });
            }
        }
        let known = self.window.values().all(|asking| matches!(asking.index, Index::Known(_)));
        if self.window.is_empty() || !known {
            return actions;
        }
        let mut findings = Vec::new();
        for (seq, asking) in std::mem::take(&mut self.window) {
            let Index::Known(finding) = asking.index else { continue };
            let ends = seq >= self.launched_end && finding == Finding::Nothing;
            findings.push(finding);
            if ends {
                self.over = true;
                break;
            }
        }
        actions.push(AdoptionAction::Keep { from: self.next, findings });
        actions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: Time = Time::from_secs(100);

    fn loaded(boxes: u64, outgoing: &[(u64, &[u8])]) -> AdoptionEvent {
        let outgoing = outgoing.iter().map(|(seq, bytes)| (BoxSeq(*seq), bytes.to_vec())).collect();
        AdoptionEvent::Loaded { boxes, tail: None, outgoing }
    }

    fn read(seq: u64, found: Looked) -> AdoptionEvent {
        AdoptionEvent::Read { seq: BoxSeq(seq), found }
    }

    fn asked(actions: &[AdoptionAction]) -> Vec<u64> {
        let seq = |action: &AdoptionAction| match action {
            AdoptionAction::Read { seq } => Some(seq.0),
            _ => None,
        };
        actions.iter().filter_map(seq).collect()
    }

    #[test]
    fn what_stands_at_each_index_is_learned_and_only_our_bytes_are_ours() {
        let mut adoption = Adoption::new(BoxSeq(2), BoxSeq(5));
        assert_eq!(adoption.load(), AdoptionAction::Load { from: BoxSeq(2), limit: 4 });
        let actions = adoption.handle(T0, loaded(6, &[(2, b"a"), (3, b"b"), (5, b"d")]));
        assert_eq!(asked(&actions), [2, 3, 5], "4 is stored");
        assert_eq!(adoption.handle(T0, read(2, Looked::Box(b"x".to_vec()))), []);
        assert_eq!(adoption.handle(T0, read(3, Looked::Box(b"b".to_vec()))), []);
        let last = adoption.handle(T0, read(5, Looked::Tombstone));
        let found = vec![Finding::Foreign(b"x".to_vec()), Finding::Ours, Finding::Ours, Finding::Tombstone];
        assert_eq!(last, [AdoptionAction::Keep { from: BoxSeq(2), findings: found }]);
        assert_eq!(adoption.handle(T0, AdoptionEvent::Kept), [AdoptionAction::Load { from: BoxSeq(6), limit: 4 }]);
    }

    #[test]
    fn nothing_is_believed_after_two_reads_and_ends_it_past_what_was_launched() {
        let mut adoption = Adoption::new(BoxSeq(0), BoxSeq(2));
        assert_eq!(asked(&adoption.handle(T0, loaded(2, &[(0, b"a"), (1, b"b")]))), [0, 1, 2, 3]);
        for seq in 0..4 {
            assert_eq!(asked(&adoption.handle(T0, read(seq, Looked::NotFound))), [seq], "once more");
        }
        for seq in 0..3 {
            assert_eq!(adoption.handle(T0, read(seq, Looked::NotFound)), []);
        }
        let kept = adoption.handle(T0, read(3, Looked::Box(b"z".to_vec())));
        let findings = vec![Finding::Nothing; 3];
        assert_eq!(
            kept,
            [AdoptionAction::Keep { from: BoxSeq(0), findings }],
            "to the first free one that is not ours"
        );
        assert_eq!(adoption.handle(T0, AdoptionEvent::Kept), [AdoptionAction::Finish]);
    }

    #[test]
    fn what_cannot_be_read_is_read_again_with_growing_pauses() {
        let mut adoption = Adoption::new(BoxSeq(0), BoxSeq(0));
        assert_eq!(asked(&adoption.handle(T0, loaded(0, &[]))), [0, 1, 2, 3]);
        let mut now = T0;
        for pause in [200, 400, 800] {
            adoption.handle(now, read(0, Looked::Unknown));
            assert_eq!(adoption.next_timeout(), Some(now + Time::from_millis(pause)));
            now += Time::from_millis(pause);
            assert_eq!(asked(&adoption.handle(now, AdoptionEvent::Tick)), [0]);
        }
    }
}
