//! What may be in each box: the model that reads are held against.

use std::collections::BTreeSet;
use std::sync::Mutex;

use pigeonfs::bacap::{BoxIndex, WriteCap};
use pigeonfs::thin::ReadOutcome;
use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _};

/// Channels, the last of which is what copy commands write to.
const CHANNELS: usize = 3;
/// Boxes that are used of each.
pub(crate) const BOXES: usize = 3;
/// How the box of another writer begins, but for its first byte.
const FOREIGN: &[u8] = b"ocalnet: another writer";

/// A box, by its channel and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) channel: usize,
    pub(crate) number: usize,
}

/// What a box can hold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Content {
    Bytes(Vec<u8>),
    Tombstone,
}

struct Channel {
    cap: WriteCap,
    /// One more than there are boxes.
    indices: Vec<BoxIndex>,
    boxes: Mutex<[Slot; BOXES]>,
}

#[derive(Clone, Default)]
struct Slot {
    attempted: BTreeSet<Content>,
    /// What a replica has confirmed.
    confirmed: BTreeSet<Content>,
}

/// All boxes of a run.
pub(crate) struct Boxes {
    channels: Vec<Channel>,
    /// What copies write, a part for each box of the last channel.
    payload: Vec<u8>,
    part: usize,
    foreign: bool,
}

impl Boxes {
    /// Boxes of M = `max_plaintext`; `foreign` says whether others may write.
    pub(crate) fn draw(dice: &mut StdRng, max_plaintext: usize, foreign: bool) -> Self {
        let part = max_plaintext - 4;
        let mut payload = vec![0; part * (BOXES - 1) + dice.random_range(1..=part)];
        dice.fill_bytes(&mut payload);
        let channels = (0..CHANNELS).map(|_| {
            let cap = WriteCap::from_seed(&dice.random());
            let mut indices = vec![cap.index().clone()];
            for n in 0..BOXES {
                indices.push(indices[n].next().expect("far from the last"));
            }
            Channel { cap, indices, boxes: Mutex::default() }
        });
        Self { channels: channels.collect(), payload, part, foreign }
    }

    /// Some box.
    pub(crate) fn place(&self, dice: &mut StdRng) -> Place {
        Place { channel: dice.random_range(0..CHANNELS), number: dice.random_range(0..BOXES) }
    }

    /// Where copies write, and what.
    pub(crate) fn copied(&self) -> (Place, Vec<u8>) {
        (Place { channel: CHANNELS - 1, number: 0 }, self.payload.clone())
    }

    /// Every box.
    pub(crate) fn places(&self) -> impl Iterator<Item = Place> {
        (0..CHANNELS).flat_map(|channel| (0..BOXES).map(move |number| Place { channel, number }))
    }

    pub(crate) fn cap(&self, place: Place) -> &WriteCap {
        &self.channels[place.channel].cap
    }

    pub(crate) fn index(&self, place: Place) -> &BoxIndex {
        &self.channels[place.channel].indices[place.number]
    }

    /// The index behind it.
    pub(crate) fn next(&self, place: Place) -> &BoxIndex {
        &self.channels[place.channel].indices[place.number + 1]
    }

    /// What a well-behaved writer puts there: always the same.
    pub(crate) fn own(&self, place: Place) -> Vec<u8> {
        if place.channel == CHANNELS - 1 {
            let end = self.payload.len().min((place.number + 1) * self.part);
            return self.payload[place.number * self.part..end].to_vec();
        }
        format!("what belongs into box {} of channel {}", place.number, place.channel).into_bytes()
    }

    /// Somebody is about to write it.
    pub(crate) fn attempt(&self, place: Place, content: Content) {
        self.slot(place, |slot| slot.attempted.insert(content));
    }

    /// A replica has it.
    pub(crate) fn confirm(&self, place: Place, content: Content) {
        self.slot(place, |slot| slot.confirmed.insert(content));
    }

    /// Whether a read may have ended so.
    pub(crate) fn judge(&self, place: Place, read: &ReadOutcome) -> Result<(), String> {
        let attempted = self.slot(place, |slot| slot.attempted.clone());
        let known = match read {
            ReadOutcome::Box(bytes) => {
                attempted.contains(&Content::Bytes(bytes.clone()))
                    || self.foreign && bytes.get(1..).is_some_and(|bytes| bytes.starts_with(FOREIGN))
            }
            ReadOutcome::Tombstone => attempted.contains(&Content::Tombstone),
            ReadOutcome::NotFound => true,
        };
        if known { Ok(()) } else { Err(format!("{place:?} reads as {read:?}, which nobody wrote there")) }
    }

    /// Whether a write of `content` may be refused because there is something else.
    pub(crate) fn judge_conflict(&self, place: Place, content: &Content) -> Result<(), String> {
        let others = self.slot(place, |slot| slot.attempted.iter().any(|other| other != content));
        if others || self.foreign { Ok(()) } else { Err(format!("{place:?} holds something else, which nobody wrote")) }
    }

    /// Whether what was confirmed there must be read there for ever: nobody has written other bytes.
    pub(crate) fn must_be_there(&self, place: Place) -> bool {
        self.slot(place, |slot| {
            let contents = slot.attempted.iter().filter(|content| **content != Content::Tombstone).count();
            !self.foreign && contents <= 1 && !slot.confirmed.is_empty()
        })
    }

    fn slot<T>(&self, place: Place, with: impl FnOnce(&mut Slot) -> T) -> T {
        with(&mut self.channels[place.channel].boxes.lock().expect("nobody panics with it")[place.number])
    }
}
