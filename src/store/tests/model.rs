//! A model in memory of what the store must say, and requests that are put to both.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::*;
use super::{name, network};
use crate::bacap::{BoxIndex, WriteCap};

/// Channels that a run knows at most.
const CHANNELS: u8 = 3;

/// One request, as drawn. Numbers are taken modulo what there is.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Create(u8),
    Append(u8, usize),
    Seal(u8),
    Bind(u8),
    Launch(u8, Vec<u8>),
    Confirm(u8, Vec<u8>, bool),
    Truncate(u8),
    Unlink(u8),
    Forget(u8),
    Reveal(u8),
    Rename(u8, u8),
    SetMax(u8, usize),
    Fence(u8),
    Trim(u8, u64),
    Reopen,
}

pub(super) fn op() -> impl Strategy<Value = Op> {
    let ch = || 0..CHANNELS;
    let some = || proptest::collection::vec(any::<u8>(), 1..4);
    let len = prop_oneof![4 => 0..200_usize, 3 => 1500..1600_usize, 2 => 0..8000_usize];
    prop_oneof![
        3 => ch().prop_map(Op::Create),
        12 => (ch(), len).prop_map(|(ch, len)| Op::Append(ch, len)),
        4 => ch().prop_map(Op::Seal),
        3 => ch().prop_map(Op::Bind),
        6 => (ch(), some()).prop_map(|(ch, some)| Op::Launch(ch, some)),
        6 => (ch(), some(), any::<bool>()).prop_map(|(ch, some, stored)| Op::Confirm(ch, some, stored)),
        2 => ch().prop_map(Op::Truncate),
        1 => ch().prop_map(Op::Unlink),
        1 => ch().prop_map(Op::Forget),
        1 => ch().prop_map(Op::Reveal),
        1 => (ch(), ch()).prop_map(|(old, new)| Op::Rename(old, new)),
        2 => (ch(), prop_oneof![Just(1549), Just(1000), Just(100), Just(4000)]).prop_map(|(ch, m)| Op::SetMax(ch, m)),
        1 => ch().prop_map(Op::Fence),
        3 => (ch(), 0..6000_u64).prop_map(|(ch, keep)| Op::Trim(ch, keep)),
        2 => Just(Op::Reopen),
    ]
}

#[derive(Clone, Debug)]
struct Stream {
    cap: WriteCap,
    boxes: Vec<(Vec<u8>, BoxState)>,
    max: usize,
    bound: bool,
    launched: bool,
    shown: bool,
    fenced: bool,
    /// It is fenced because a box does not fit, until it does.
    unfit: bool,
    rewrites: u64,
    /// Boxes whose bytes were dropped.
    dropped: usize,
}

/// What must be there.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    streams: BTreeMap<u8, Stream>,
    /// Each new stream gets another capability.
    made: u8,
}

impl Stream {
    fn size(&self) -> usize {
        self.boxes.iter().map(|(bytes, _)| bytes.len()).sum()
    }

    fn bytes(&self) -> Vec<u8> {
        self.boxes.iter().flat_map(|(bytes, _)| bytes.clone()).collect()
    }

    fn pack(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let fresh = self.boxes.last().is_none_or(|(_, state)| *state != BoxState::Open);
            if fresh {
                self.boxes.push((Vec::new(), BoxState::Open));
            }
            let (tail, state) = self.boxes.last_mut().unwrap();
            let (now, later) = bytes.split_at((self.max - tail.len()).min(bytes.len()));
            tail.extend_from_slice(now);
            if tail.len() == self.max {
                *state = BoxState::Sealed;
            }
            bytes = later;
        }
    }

    fn stored_prefix(&self) -> usize {
        self.boxes.iter().take_while(|(_, state)| *state == BoxState::Stored).count()
    }

    fn offset(&self, at: usize) -> usize {
        self.boxes[..at].iter().map(|(bytes, _)| bytes.len()).sum()
    }

    fn trim(&mut self, keep: u64) {
        let stored = self.stored_prefix();
        let last = stored.min(self.boxes.len().saturating_sub(1));
        let fits = |at: &usize| (self.offset(stored) - self.offset(*at)) as u64 <= keep;
        self.dropped = self.dropped.max((0..last).find(fits).unwrap_or(last));
    }

    fn seal(&mut self) -> bool {
        match self.boxes.last_mut() {
            Some((_, state @ BoxState::Open)) => {
                *state = BoxState::Sealed;
                true
            }
            _ => false,
        }
    }

    fn launched_end(&self) -> usize {
        self.boxes.iter().rposition(|(_, state)| *state >= BoxState::Launched).map_or(0, |at| at + 1)
    }

    fn set_max(&mut self, max: usize) {
        if max == self.max && !self.unfit {
            return;
        }
        let end = self.launched_end();
        if self.boxes[..end].iter().any(|(bytes, state)| *state < BoxState::Stored && bytes.len() > max) {
            // A fence for another reason stays.
            self.unfit |= !self.fenced;
            self.fenced = true;
            return;
        }
        if std::mem::take(&mut self.unfit) {
            self.fenced = false;
        }
        self.max = max;
        let rest = self.boxes.split_off(end);
        if let [(bytes, BoxState::Open)] = &rest[..]
            && bytes.len() < max
        {
            self.boxes.extend(rest);
            return;
        }
        if let Some((_, last)) = rest.last() {
            let sealed = *last == BoxState::Sealed;
            self.pack(&rest.concat_bytes());
            if sealed {
                self.seal();
            }
            self.rewrites += 1;
        }
    }

    fn takes_back(&self) -> bool {
        !self.launched && !self.shown
    }
}

trait ConcatBytes {
    fn concat_bytes(&self) -> Vec<u8>;
}

impl ConcatBytes for Vec<(Vec<u8>, BoxState)> {
    fn concat_bytes(&self) -> Vec<u8> {
        self.iter().flat_map(|(bytes, _)| bytes.clone()).collect()
    }
}

fn cap(made: u8) -> WriteCap {
    WriteCap::from_seed(&[made; 32])
}

fn channel_name(ch: u8) -> ChannelName {
    name(&format!("channel-{ch}"))
}

/// What an append of this length at this place carries, so that no two places look alike.
fn payload(at: usize, len: usize) -> Vec<u8> {
    super::bytes(len, at * 7 + 1)
}

impl Model {
    /// Does the request to the model. True where the store is to say yes.
    pub(super) fn apply(&mut self, op: &Op) -> bool {
        match op {
            Op::Create(ch) => {
                if self.streams.contains_key(ch) {
                    return false;
                }
                self.made += 1;
                let stream = Stream {
                    cap: cap(self.made),
                    boxes: Vec::new(),
                    max: PROVISIONAL_MAX_PLAINTEXT as usize,
                    bound: false,
                    launched: false,
                    shown: false,
                    fenced: false,
                    unfit: false,
                    rewrites: 0,
                    dropped: 0,
                };
                self.streams.insert(*ch, stream);
                true
            }
            Op::Rename(old, new) => {
                if !self.streams.contains_key(old) || (old != new && self.streams.contains_key(new)) {
                    return false;
                }
                let stream = self.streams.remove(old).unwrap();
                self.streams.insert(*new, stream);
                true
            }
            Op::Forget(ch) => self.streams.remove(ch).is_some(),
            Op::Unlink(ch) => {
                let yes = self.streams.get(ch).is_some_and(Stream::takes_back);
                if yes {
                    self.streams.remove(ch);
                }
                yes
            }
            Op::Reopen => true,
            Op::Append(ch, _)
            | Op::Seal(ch)
            | Op::Bind(ch)
            | Op::Launch(ch, _)
            | Op::Confirm(ch, _, _)
            | Op::Truncate(ch)
            | Op::Reveal(ch)
            | Op::SetMax(ch, _)
            | Op::Trim(ch, _)
            | Op::Fence(ch) => self.streams.get_mut(ch).is_some_and(|stream| apply_to(stream, op)),
        }
    }

    /// Puts the request to the store; `Reopen` is the caller's. Says what the store said.
    pub(super) fn request(&self, store: &Store, op: &Op) -> Result<(), StoreError> {
        let id = |ch: &u8| -> Result<ChannelId, StoreError> {
            Ok(store.by_name(&channel_name(*ch))?.ok_or(StoreError::NoChannel)?.id)
        };
        let seqs = |ch: &u8, picks: &[u8]| -> Vec<BoxSeq> {
            let boxes = self.streams.get(ch).map_or(0, |stream| stream.boxes.len());
            pick(picks, boxes).into_iter().map(|at| BoxSeq(at as u64)).collect()
        };
        match op {
            Op::Create(ch) => store.create_stream(channel_name(*ch), cap(self.made + 1)).wait().map(drop),
            Op::Append(ch, len) => {
                let size = self.streams.get(ch).map_or(0, Stream::size);
                let appended = store.append(id(ch)?, payload(size, *len), None).wait()?;
                assert_eq!(appended, Appended { offset: size as u64, size: (size + len) as u64 });
                Ok(())
            }
            Op::Seal(ch) => store.seal_tail(id(ch)?).wait().map(drop),
            Op::Bind(ch) => store.bind_network(id(ch)?, network()).wait().map(drop),
            Op::Launch(ch, picks) => {
                let rewrites = self.streams.get(ch).map_or(0, |stream| stream.rewrites);
                store.launch(id(ch)?, rewrites, seqs(ch, picks), network()).wait().map(drop)
            }
            Op::Confirm(ch, picks, stored) => {
                let to = if *stored { BoxState::Stored } else { BoxState::Couriered };
                store.confirm(id(ch)?, seqs(ch, picks), to).wait()
            }
            Op::Truncate(ch) => store.truncate(id(ch)?).wait(),
            Op::Unlink(ch) => store.unlink(id(ch)?).wait(),
            Op::Forget(ch) => store.forget(channel_name(*ch)).wait(),
            Op::Reveal(ch) => store.reveal(id(ch)?, true).wait().map(drop),
            Op::Rename(old, new) => store.rename(channel_name(*old), channel_name(*new)).wait(),
            Op::SetMax(ch, max) => store.set_max_plaintext(id(ch)?, *max).wait(),
            Op::Trim(ch, keep) => store.trim(id(ch)?, *keep).wait().map(drop),
            Op::Fence(ch) => store.fence(id(ch)?, "a test".to_owned()).wait(),
            Op::Reopen => Ok(()),
        }
    }

    /// Compares all that the store says with the model. The first difference, in words.
    pub(super) fn compare(&self, store: &Store) -> Result<(), String> {
        let channels = store.channels(None, 100).map_err(|error| error.to_string())?;
        let names: Vec<_> = channels.iter().map(|channel| channel.name.clone()).collect();
        let expected: Vec<_> = self.streams.keys().map(|ch| channel_name(*ch)).collect();
        same("the channels", &names, &expected)?;
        let (mut spool, mut sent) = (0, 0);
        for (channel, stream) in channels.iter().zip(self.streams.values()) {
            compare_stream(store, channel, stream).map_err(|error| format!("{}: {error}", channel.name))?;
            spool += channel.size - channel.stored_bytes;
            sent += channel.stored_bytes - channel.dropped_bytes;
        }
        let usage = store.usage().map_err(|error| error.to_string())?;
        same("the spool and what was sent", &(usage.spool_bytes, usage.sent_bytes), &(spool, sent))
    }
}

fn apply_to(stream: &mut Stream, op: &Op) -> bool {
    match op {
        Op::Append(_, len) => {
            if !stream.fenced {
                stream.pack(&payload(stream.size(), *len));
            }
            !stream.fenced
        }
        Op::Seal(_) => {
            stream.seal();
            true
        }
        Op::Bind(_) => {
            stream.bound = true;
            true
        }
        Op::Launch(_, picks) => {
            let picked = pick(picks, stream.boxes.len());
            if stream.fenced || picked.iter().any(|at| stream.boxes[*at].1 == BoxState::Open) {
                return false;
            }
            for at in picked {
                let state = &mut stream.boxes[at].1;
                *state = BoxState::Launched.max(*state);
                stream.launched = true;
            }
            stream.bound = true;
            true
        }
        Op::Confirm(_, picks, stored) => {
            let to = if *stored { BoxState::Stored } else { BoxState::Couriered };
            let picked = pick(picks, stream.boxes.len());
            if picked.iter().any(|at| stream.boxes[*at].1 < BoxState::Launched) {
                return false;
            }
            for at in picked {
                stream.boxes[at].1 = to.max(stream.boxes[at].1);
            }
            true
        }
        Op::Truncate(_) => {
            if stream.boxes.is_empty() {
                return true;
            }
            if stream.takes_back() {
                stream.boxes.clear();
                stream.rewrites += 1;
            }
            stream.takes_back()
        }
        Op::Reveal(_) => {
            stream.shown = true;
            true
        }
        Op::SetMax(_, max) => {
            stream.set_max(*max);
            true
        }
        Op::Trim(_, keep) => {
            stream.trim(*keep);
            true
        }
        Op::Fence(_) => {
            (stream.fenced, stream.unfit) = (true, false);
            true
        }
        _ => unreachable!("not about one stream"),
    }
}

/// Which boxes the drawn numbers mean: each once.
fn pick(picks: &[u8], boxes: usize) -> Vec<usize> {
    let mut picked: Vec<_> = picks.iter().filter(|_| boxes > 0).map(|pick| usize::from(*pick) % boxes.max(1)).collect();
    picked.sort_unstable();
    picked.dedup();
    picked
}

fn compare_stream(store: &Store, channel: &Channel, stream: &Stream) -> Result<(), String> {
    let told = |error: StoreError| error.to_string();
    let stored_prefix = stream.stored_prefix();
    let stored = stream.boxes.iter().filter(|(_, state)| *state == BoxState::Stored).count();
    let stored_bytes = stream.offset(stored_prefix);
    let dropped_bytes = stream.offset(stream.dropped);
    let tail = stream.boxes.last().filter(|(_, state)| *state == BoxState::Open).map_or(0, |(bytes, _)| bytes.len());
    same("size", &channel.size, &(stream.size() as u64))?;
    same("boxes", &channel.boxes, &(stream.boxes.len() as u64))?;
    same("tail", &channel.tail_bytes, &(tail as u64))?;
    same("stored", &channel.stored_boxes, &(stored as u64))?;
    same("first unstored", &channel.first_unstored, &BoxSeq(stored_prefix as u64))?;
    same("stored bytes", &channel.stored_bytes, &(stored_bytes as u64))?;
    same("launched", &channel.launched, &stream.launched)?;
    same("shown", &channel.shown, &stream.shown)?;
    same("fenced", &channel.fence.is_some(), &stream.fenced)?;
    same("bound", &channel.network.is_some(), &stream.bound)?;
    same("rewrites", &channel.rewrites, &stream.rewrites)?;
    same("M", &channel.max_plaintext, &stream.max)?;
    same("capability", &store.cap(channel.id).map_err(told)?, &Capability::Write(stream.cap.clone()))?;
    same("dropped bytes", &channel.dropped_bytes, &(dropped_bytes as u64))?;
    if dropped_bytes > 0 {
        let dropped = Err(StoreError::Dropped { end: dropped_bytes as u64 });
        same("a dropped byte", &store.read(channel.id, dropped_bytes as u64 - 1, 9), &dropped)?;
    }
    let bytes = stream.bytes()[dropped_bytes..].to_vec();
    same("bytes", &store.read(channel.id, dropped_bytes as u64, MAX_READ_BYTES).map_err(told)?, &bytes)?;
    let middle = bytes.len() / 2;
    same(
        "half of the bytes",
        &store.read(channel.id, (dropped_bytes + middle) as u64, 77).map_err(told)?,
        &bytes[middle..].chunks(77).next().unwrap_or_default().to_vec(),
    )?;
    let mut index: BoxIndex = stream.cap.index().clone();
    let mut outgoing = Vec::new();
    for (seq, (payload, state)) in stream.boxes.iter().enumerate() {
        let seq = BoxSeq(seq as u64);
        // The row of one that was dropped may be deleted already.
        if seq.0 >= stream.dropped as u64 {
            same("an index", &store.index_of(channel.id, seq).map_err(told)?, &index)?;
        }
        if (BoxState::Sealed..=BoxState::Couriered).contains(state) {
            outgoing.push(OutBox { seq, index: index.clone(), payload: payload.clone(), state: *state });
        }
        index = index.next().map_err(|error| error.to_string())?;
    }
    same("what is to be sent", &store.outgoing(channel.id, BoxSeq(0), 1000).map_err(told)?, &outgoing)
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, expected: &T) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{what}: the store says {found:?}, the model {expected:?}")) }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_store_does_what_the_model_does(ops in proptest::collection::vec(op(), 1..60)) {
        let mut home = super::Home::new();
        let mut model = Model::default();
        for op in &ops {
            let said = model.request(&home.store, op);
            let expected = model.apply(op);
            prop_assert_eq!(said.is_ok(), expected, "{:?}: {:?}", op, said);
            let mistaken = matches!(said, Err(StoreError::Law { .. } | StoreError::Corrupt { .. }));
            prop_assert!(!mistaken, "{:?}: {:?}", op, said);
            if let Op::Reopen = op {
                home = home.reopened();
            }
            if let Err(difference) = model.compare(&home.store) {
                prop_assert!(false, "after {:?}: {}", op, difference);
            }
        }
    }
}
