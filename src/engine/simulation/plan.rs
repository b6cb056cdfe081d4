//! What a seed decides: the network's pace, who writes and reads what, and what goes wrong how often.

use std::collections::{BTreeMap, VecDeque};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::channel::{Durability, Pace, Time};
use crate::drop::chain::part_name;
use crate::drop::{Part, Total};
use crate::localnet::{Faults, Profile};
use crate::model::Content;

/// Who has which capability of a stream, by the processes' numbers.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    pub(super) writer: usize,
    pub(super) readers: Vec<usize>,
    pub(super) durability: Durability,
}

/// What a person has sent through a drop: a file, or a part of one.
#[derive(Clone, Debug)]
pub(super) struct File {
    pub(super) name: String,
    pub(super) body: Vec<u8>,
    pub(super) part: Option<Part>,
    /// All of it, where this is its end.
    pub(super) whole: Option<Vec<u8>>,
}

/// What a person has the store of a writer do with a stream.
#[derive(Clone, Debug)]
pub(super) enum Deed {
    Create { durability: Durability, max: usize, content: Content },
    Append(Vec<u8>),
    Seal,
    Truncate,
    Unlink,
    Rename,
    Durability(Durability),
    Trim { keep: u64 },
    Adopt,
    // What is done with drops.
    Send(File),
    Leave(Vec<u8>),
    TakeBack,
    // What a reader does.
    Deliver,
    Skip,
    Forget,
    Add(Content),
}

/// What goes wrong at an instant.
#[derive(Debug)]
pub(super) enum Mishap {
    Crash,
    Disconnect,
    Restart,
    /// One daemon dies, or one that has died is started again.
    Kill(usize),
    Revive(usize),
    /// A daemon's packets leave so many times as rarely.
    Slow(usize, u32),
    Link(bool),
    Faults(Box<Faults>),
    Jump(i64),
    Foreign {
        tombstone: bool,
    },
    Backup,
    Restore,
    /// A copy of a state goes on beside it.
    Twin,
    /// The daemon is another network's.
    Elsewhere,
    /// And it is the right one's again.
    Home,
    /// The wall clock of one machine is wrong by so much.
    WrongClock(i64),
    /// The network has another document.
    Document,
}

/// A run, before it begins.
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) profile: Profile,
    pub(super) pace: Pace,
    /// What every other document says.
    pub(super) other_pace: Pace,
    /// M of the network, and what channels assume before they know it.
    pub(super) max: usize,
    pub(super) provisional: usize,
    pub(super) processes: usize,
    /// Which all processes use.
    pub(super) daemons: usize,
    pub(super) streams: Vec<Stream>,
    /// What an encrypt takes.
    pub(super) encrypt: Time,
    /// Readers are probed at once when a process starts.
    pub(super) prompt: bool,
    /// Boxes are real ones.
    pub(super) real: bool,
    /// What is left behind is looked at, long after.
    pub(super) rests: bool,
    /// How long things go wrong.
    pub(super) trouble: Time,
    /// Of the steps of a process, those behind which it crashes.
    pub(super) crash_at_step: f64,
    /// Of the commits, those that fail.
    pub(super) disk_errors: f64,
    deeds_every: Time,
    mishaps_every: Time,
    /// How far off the wall clock may be.
    pub(super) days_off: i64,
    /// Whether another writer comes at all.
    foreign: bool,
    /// Whether states are restored from backups.
    restores: bool,
    backed_up: bool,
    /// Which faults this network has at all.
    gentle: bool,
    /// Whether a process meets another network.
    elsewhere: bool,
    /// Whether a state is copied.
    twins: bool,
    /// Whether clocks are wrong.
    wrong_clocks: bool,
    /// Whether the streams are drops.
    pub(super) drops: bool,
    /// Which have files that can be deleted again.
    deletes: bool,
    /// The parts of files that are still to be sent, by stream.
    parts: BTreeMap<usize, VecDeque<File>>,
    /// Whether there are other verbs than those that write.
    verbs: bool,
    pub(super) link_up: bool,
    appended: u64,
    sent: u64,
}

impl Plan {
    /// The plan of a seed: some minutes of trouble.
    pub(super) fn of(seed: u64) -> Self {
        let mut dice = StdRng::seed_from_u64(seed ^ 0x5eed);
        let mut profile = match dice.random_range(0..10) {
            0 => Profile::instant(),
            1..=2 => Profile::namenlos(),
            3..=6 => Profile::docker().scaled(10.0),
            _ => Profile::docker(),
        };
        profile.replicas = dice.random_range(2..=4);
        let processes = dice.random_range(2..=3);
        let streams = (0..dice.random_range(1..=2))
            .map(|_| {
                let writer = dice.random_range(0..processes);
                let mut readers: Vec<_> = (0..processes).filter(|p| *p != writer).collect();
                readers.truncate(dice.random_range(1..=2));
                let durability = if dice.random() { Durability::Stored } else { Durability::Couriered };
                Stream { writer, readers, durability }
            })
            .collect();
        // A file's header is in one box.
        let drops = dice.random_bool(0.25);
        let range = if drops { 180..=250 } else { 4..=12 };
        let max = dice.random_range(range.clone());
        // What goes wrong goes on for longer than an operation lives.
        let patient = dice.random_bool(0.08);
        Self {
            seed,
            pace: Pace::from_document(profile.lambda_p(), profile.mu(), profile.layers),
            other_pace: Pace::from_document(profile.lambda_p() * 0.9, profile.mu(), profile.layers),
            max,
            provisional: if dice.random_bool(0.5) { max } else { dice.random_range(range) },
            processes,
            streams,
            encrypt: Time::from_millis(if dice.random_bool(0.2) { 1500 } else { 4 }),
            prompt: dice.random(),
            real: false,
            rests: dice.random_bool(0.05),
            trouble: Time::from_secs(if patient { dice.random_range(150..300) } else { dice.random_range(6..24) }),
            crash_at_step: if dice.random_bool(0.5) { 0.0 } else { 1.0 / dice.random_range(20.0..200.0) },
            disk_errors: if dice.random_bool(0.6) { 0.0 } else { dice.random_range(0.0..0.2) },
            deeds_every: Time::from_millis(if patient { 8000 } else { dice.random_range(300..3000) }),
            mishaps_every: Time::from_secs(if patient { dice.random_range(60..150) } else { dice.random_range(2..15) }),
            days_off: 2,
            foreign: dice.random_bool(0.15),
            restores: dice.random_bool(0.15),
            backed_up: false,
            gentle: dice.random_bool(0.2),
            elsewhere: dice.random_bool(0.15),
            twins: dice.random_bool(0.1),
            wrong_clocks: dice.random_bool(0.2),
            drops,
            deletes: dice.random(),
            parts: BTreeMap::new(),
            verbs: dice.random_bool(0.5),
            link_up: true,
            appended: 0,
            sent: 0,
            daemons: dice.random_range(1..=3),
            profile,
        }
    }

    /// What the channels carry.
    pub(super) fn content(&self) -> Content {
        if self.drops { Content::Drop { allow_delete: self.deletes } } else { Content::Stream }
    }

    /// The run's own dice.
    pub(super) fn dice(&mut self) -> StdRng {
        StdRng::seed_from_u64(self.seed)
    }

    /// The same with real boxes.
    pub(super) fn with_real_boxes(self) -> Self {
        Self { real: true, ..self }
    }

    /// A whole day, with a deed now and then.
    pub(super) fn day(seed: u64) -> Self {
        Self {
            profile: Profile::docker(),
            pace: Pace::from_document(Profile::docker().lambda_p(), Profile::docker().mu(), Profile::docker().layers),
            trouble: Time::from_secs(24 * 3600),
            crash_at_step: 0.0,
            disk_errors: 0.001,
            rests: true,
            deeds_every: Time::from_secs(600),
            mishaps_every: Time::from_secs(1200),
            foreign: false,
            restores: false,
            elsewhere: false,
            twins: false,
            verbs: false,
            ..Self::of(seed)
        }
    }

    pub(super) fn until_deed(&self, dice: &mut StdRng) -> Time {
        exponential(dice, self.deeds_every)
    }

    pub(super) fn until_mishap(&self, dice: &mut StdRng) -> Time {
        exponential(dice, self.mishaps_every)
    }

    /// The same with less of what goes wrong; `None`: there is no such part.
    pub(super) fn without(self, part: usize) -> Option<Self> {
        Some(match part {
            0 => Self { twins: false, ..self },
            1 => Self { restores: false, ..self },
            2 => Self { elsewhere: false, ..self },
            3 => Self { foreign: false, ..self },
            4 => Self { verbs: false, ..self },
            5 => Self { wrong_clocks: false, ..self },
            6 => Self { disk_errors: 0.0, ..self },
            7 => Self { crash_at_step: 0.0, ..self },
            8 => Self { gentle: true, ..self },
            9 => Self { daemons: 1, ..self },
            10..=14 => Self { trouble: self.trouble / 2, ..self },
            _ => return None,
        })
    }

    /// What is done next to a stream that we write.
    pub(super) fn deed(&mut self, stream: usize, dice: &mut StdRng) -> Deed {
        if self.drops {
            return self.deed_of_drop(stream, dice);
        }
        if self.verbs && dice.random_bool(0.2) {
            return match dice.random_range(0..4) {
                0 => Deed::Unlink,
                1 => Deed::Rename,
                2 => Deed::Durability(if dice.random() { Durability::Stored } else { Durability::Couriered }),
                _ => Deed::Trim { keep: dice.random_range(0..3 * self.max as u64) },
            };
        }
        match dice.random_range(0..20) {
            0..=2 => Deed::Seal,
            3..=4 => Deed::Truncate,
            _ => {
                let most = if dice.random_bool(0.2) { 6 * self.max } else { 2 * self.max };
                let bytes = (0..dice.random_range(1..=most)).map(|_| {
                    self.appended += 1;
                    // No two places look alike for long.
                    u8::try_from(self.appended % 251).unwrap_or_default()
                });
                Deed::Append(bytes.collect())
            }
        }
    }

    fn deed_of_drop(&mut self, stream: usize, dice: &mut StdRng) -> Deed {
        if self.verbs && dice.random_bool(0.2) {
            return match dice.random_range(0..2) {
                0 => Deed::Rename,
                _ => Deed::Durability(if dice.random() { Durability::Stored } else { Durability::Couriered }),
            };
        }
        if let Some(part) = self.parts.entry(stream).or_default().pop_front() {
            return Deed::Send(part);
        }
        match dice.random_range(0..10) {
            0 => return Deed::Leave(self.bytes(dice, 1)),
            1..=2 => return Deed::TakeBack,
            _ => {}
        }
        self.sent += 1;
        let name = format!("f{}", self.sent);
        let boxes = if dice.random_bool(0.3) { 12 } else { 3 };
        let whole = if dice.random_bool(0.1) { Vec::new() } else { self.bytes(dice, boxes) };
        if dice.random_bool(0.8) {
            return Deed::Send(File { name, body: whole.clone(), part: None, whole: Some(whole) });
        }
        let chain: [u8; 16] = dice.random();
        let total = Total { size: whole.len() as u64, digest: *blake3::hash(&whole).as_bytes() };
        let count = dice.random_range(1..=3);
        let step = (whole.len() / count).max(1);
        let mut parts = VecDeque::new();
        for at in 0..count {
            let from = whole.len().min(at * step);
            let is_last = at + 1 == count;
            let to = if is_last { whole.len() } else { whole.len().min(from + step) };
            let number = u32::try_from(at + 1).unwrap_or_default();
            parts.push_back(File {
                name: part_name(&name, number),
                body: whole[from..to].to_vec(),
                part: Some(Part { chain, number, last: is_last.then_some(total) }),
                whole: is_last.then(|| whole.clone()),
            });
        }
        let first = parts.pop_front();
        self.parts.insert(stream, parts);
        first.map_or(Deed::TakeBack, Deed::Send)
    }

    /// Bytes for up to so many boxes. No two places look alike for long.
    fn bytes(&mut self, dice: &mut StdRng, boxes: usize) -> Vec<u8> {
        let count = dice.random_range(1..=boxes * self.max);
        (0..count)
            .map(|_| {
                self.appended += 1;
                u8::try_from(self.appended % 251).unwrap_or_default()
            })
            .collect()
    }

    /// What is done next to a stream that we read; mostly nothing.
    pub(super) fn deed_of_reader(&self, dice: &mut StdRng) -> Option<Deed> {
        if self.drops {
            return dice.random_bool(0.3).then_some(Deed::Deliver);
        }
        (self.verbs && dice.random_bool(0.3)).then(|| match dice.random_range(0..5) {
            0..=1 => Deed::Skip,
            2..=3 => Deed::Trim { keep: dice.random_range(0..3 * self.max as u64) },
            _ => Deed::Forget,
        })
    }

    pub(super) fn mishap(&mut self, dice: &mut StdRng) -> Mishap {
        if self.foreign && dice.random_bool(0.6) {
            return Mishap::Foreign { tombstone: dice.random() };
        }
        if self.restores && dice.random_bool(0.6) {
            self.backed_up = !self.backed_up;
            return if self.backed_up { Mishap::Backup } else { Mishap::Restore };
        }
        if self.twins && dice.random_bool(0.4) {
            self.twins = false;
            return Mishap::Twin;
        }
        if self.elsewhere && dice.random_bool(0.4) {
            return if dice.random() { Mishap::Elsewhere } else { Mishap::Home };
        }
        if self.wrong_clocks && dice.random_bool(0.3) {
            let years = 3600 * 24 * 365 * 10;
            return Mishap::WrongClock(if dice.random_bool(0.4) { 0 } else { dice.random_range(-years..years) });
        }
        if dice.random_bool(0.15) {
            return Mishap::Document;
        }
        if self.daemons > 1 && dice.random_bool(0.4) {
            let daemon = dice.random_range(0..self.daemons);
            return match dice.random_range(0..6) {
                0..=2 => Mishap::Kill(daemon),
                3 => Mishap::Revive(daemon),
                _ => Mishap::Slow(daemon, [1, 8, 100_000][dice.random_range(0..3)]),
            };
        }
        match dice.random_range(0..20) {
            0..=4 => Mishap::Crash,
            5..=8 => Mishap::Disconnect,
            9..=10 => Mishap::Restart,
            11..=12 => Mishap::Link(!self.link_up),
            13 => Mishap::Link(true),
            14..=15 => Mishap::Jump(dice.random_range(-100_000..100_000)),
            _ => Mishap::Faults(Box::new(self.faults(dice))),
        }
    }

    pub(super) fn faults(&self, dice: &mut StdRng) -> Faults {
        if self.gentle || dice.random_bool(0.3) {
            return Faults::default();
        }
        let all = dice.random_bool(0.2);
        let mut rate = |most: f64| if dice.random_bool(0.5) { 0.0 } else { dice.random_range(0.0..most) };
        Faults {
            loss: if all { 1.0 } else { rate(0.6) },
            reply_loss: rate(0.6),
            duplication: rate(0.5),
            delay: rate(0.5),
            delay_ms: 20_000,
            false_not_found: rate(1.0),
            ack_then_lost: rate(1.0),
            stale_epoch: rate(1.0),
            storage_full: rate(1.0) > 0.8,
            ..Faults::default()
        }
    }
}

fn exponential(dice: &mut StdRng, mean: Time) -> Time {
    mean.mul_f64(-(1.0 - dice.random::<f64>()).ln())
}
