//! Copy commands: a courier reads a temporary stream box by box, and sends each envelope that it takes out of it
//! (`pigeonhole-internals.md` §5.2 to §5.4).
//!
//! What is written is written, whatever comes after it: nothing is all or nothing here. The temporary stream stays as it
//! is. A real courier ends by writing encrypted empty messages over it, which the replicas refuse with
//! `BOX_ALREADY_EXISTS`, so that nothing changes; here that is left out.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tracing::{debug, warn};

use super::{Asker, Backend, BoxStore, CopyAnswer, Errand, Step};
use crate::bacap::{BoxIndex, Opened, ReadCap, WriteCap, verify_box};
use crate::localnet::copy_stream::Decoder;
use crate::localnet::envelope::{self, Inner, hash256};
use crate::localnet::replica::{
    BOX_ALREADY_EXISTS, BOX_ID_NOT_FOUND, DATABASE_FAILURE, INTERNAL_ERROR, REPLICATION_FAILED, STORAGE_FULL, SUCCESS,
};

/// A courier, and the hash of the write capability.
pub(super) type CopyId = (usize, [u8; 32]);

/// How long a courier keeps a result.
const RESULT_AGE: Duration = Duration::from_secs(30 * 60);
/// Results kept, of all couriers; the oldest go.
const RESULTS: usize = 1024;
/// Copies at work at the same time; one more waits until it is asked for again.
pub(super) const RUNNING: usize = 64;
/// Attempts at a box per holder, and at an envelope.
const ATTEMPTS: u32 = 10;
/// The back-off between attempts: doubled from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How long the answers of both intermediaries are waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where nothing takes time: so many steps of a copy in a row, then a pause in which others have their turn.
const SLICE: u32 = 128;
const SLICE_PAUSE: Duration = Duration::from_millis(1);

/// The copy commands of all couriers.
#[derive(Default)]
pub(super) struct Copies {
    running: BTreeMap<CopyId, Copy>,
    ended: BTreeMap<CopyId, CopyAnswer>,
    /// When they ended, the oldest first.
    order: VecDeque<(Duration, CopyId)>,
    rounds: u64,
}

/// A copy command at work.
struct Copy {
    cap: ReadCap,
    /// Of the box that comes next.
    index: BoxIndex,
    /// The holder that it is asked of, and what it has answered so far: 0 or 1, and the number of attempts.
    rank: usize,
    attempts: u32,
    decoder: Decoder,
    /// Taken out of the stream and not completed, the first of them perhaps under way.
    envelopes: VecDeque<Vec<u8>>,
    completed: u64,
    waits: Waits,
    /// Steps since the last pause.
    steps: u32,
}

#[derive(Clone)]
enum Waits {
    /// For its turn, to do what comes next.
    Turn,
    /// For a box on its way from its holder.
    Box,
    /// For the answers to an envelope, of which these have come.
    Answers { round: u64, expected: usize, codes: Vec<u8>, timeout: Option<(Duration, u64)> },
}

impl Copies {
    pub(super) fn running(&self) -> usize {
        self.running.len()
    }

    pub(super) fn ended(&self) -> usize {
        self.ended.len()
    }

    pub(super) fn prune(&mut self, at: Duration, scale: f64) {
        let age = RESULT_AGE.div_f64(scale);
        while self.order.front().is_some_and(|(since, _)| since.saturating_add(age) <= at) || self.order.len() > RESULTS
        {
            let (_, id) = self.order.pop_front().expect("looked at");
            self.ended.remove(&id);
        }
    }

    /// Results that may not be on the disk are forgotten; what is at work begins anew when it is asked for.
    pub(super) fn rolled_back(&mut self) {
        self.running.clear();
        self.ended.clear();
        self.order.clear();
    }

    /// The clock jumped: every time is another one.
    pub(super) fn shift(&mut self, shifted: impl Fn(Duration) -> Duration) {
        for (since, _) in &mut self.order {
            *since = shifted(*since);
        }
        for copy in self.running.values_mut() {
            if let Waits::Answers { timeout: Some((due, _)), .. } = &mut copy.waits {
                *due = shifted(*due);
            }
        }
    }
}

impl<S: BoxStore> Backend<S> {
    pub(super) fn copy_command(&mut self, at: Duration, courier: usize, write_cap: &WriteCap) -> CopyAnswer {
        let id = (courier, hash256(&[&*write_cap.to_bytes()]));
        if let Some(answer) = self.copies.ended.get(&id) {
            return *answer;
        }
        if self.copies.running.contains_key(&id) || self.copies.running.len() >= RUNNING {
            return CopyAnswer::InProgress;
        }
        let copy = Copy {
            cap: write_cap.read_cap().clone(),
            index: write_cap.index().clone(),
            rank: 0,
            attempts: 0,
            decoder: Decoder::new(self.max_plaintext),
            envelopes: VecDeque::new(),
            completed: 0,
            waits: Waits::Turn,
            steps: 0,
        };
        self.copies.running.insert(id, copy);
        self.plan(at, Step::Copy { id });
        CopyAnswer::InProgress
    }

    /// The next thing that a copy has to do: a box that came, an envelope, the next box, or the end.
    pub(super) fn copy_on(&mut self, at: Duration, id: CopyId) {
        let Some(copy) = self.copies.running.get_mut(&id) else { return };
        copy.steps += 1;
        if self.at_once && copy.steps > SLICE {
            copy.steps = 0;
            self.plan(at + SLICE_PAUSE, Step::Copy { id });
            return;
        }
        match copy.waits {
            Waits::Box => self.copy_box(at, id),
            Waits::Answers { .. } => {}
            Waits::Turn if !copy.envelopes.is_empty() => self.copy_envelope(at, id),
            Waits::Turn if copy.decoder.finished() => {
                if copy.decoder.left_over() > 0 {
                    warn!(bytes = copy.decoder.left_over(), "a copy stream goes on behind its end");
                }
                self.copy_ended(at, id, CopyAnswer::Succeeded);
            }
            Waits::Turn => {
                copy.waits = Waits::Box;
                let way = self.link() + self.link();
                self.plan(at + way, Step::Copy { id });
            }
        }
    }

    /// A box of the temporary stream has come, or word of it.
    fn copy_box(&mut self, at: Duration, id: CopyId) {
        let Some(copy) = self.copies.running.get_mut(&id) else { return };
        copy.waits = Waits::Turn;
        let (box_id, rank) = (copy.cap.box_id(&copy.index), copy.rank);
        let (code, sealed) = self.read(at, &box_id, rank);
        let Some(copy) = self.copies.running.get_mut(&id) else { return };
        match (code, sealed) {
            (SUCCESS, Some(sealed)) => {
                let taken = match copy.cap.open(&copy.index, &sealed) {
                    Ok(Opened::Message(bytes)) => copy.decoder.feed(&bytes).map_err(|error| error.to_string()),
                    Ok(Opened::Tombstone) => Err("a box is a tombstone".to_owned()),
                    Err(error) => Err(error.to_string()),
                };
                let next = copy.index.next().map_err(|error| error.to_string());
                match taken.and_then(|envelopes| next.map(|next| (envelopes, next))) {
                    Ok((envelopes, next)) => {
                        copy.envelopes.extend(envelopes);
                        (copy.index, copy.rank, copy.attempts) = (next, 0, 0);
                        self.plan(at, Step::Copy { id });
                    }
                    Err(error) => {
                        debug!(error, "a copy stream cannot be read");
                        self.copy_failed(at, id, SUCCESS);
                    }
                }
            }
            (BOX_ID_NOT_FOUND | DATABASE_FAILURE | STORAGE_FULL | INTERNAL_ERROR | REPLICATION_FAILED, _)
                if copy.attempts + 1 < ATTEMPTS =>
            {
                copy.attempts += 1;
                let pause = self.pause(copy_attempts(&self.copies, id));
                self.plan(at + pause, Step::Copy { id });
            }
            // The other holder, and after that nobody.
            (_, _) if copy.rank == 0 => {
                (copy.rank, copy.attempts) = (1, 0);
                self.plan(at, Step::Copy { id });
            }
            (code, _) => self.copy_failed(at, id, code),
        }
    }

    /// The first of the envelopes goes out to its intermediaries.
    fn copy_envelope(&mut self, at: Duration, id: CopyId) {
        let Some(copy) = self.copies.running.get_mut(&id) else { return };
        // The stream has envelopes without the type of query before them.
        let query = [&[0][..], &copy.envelopes[0]].concat();
        let Some(query) = envelope::open(&self.envelope_key, &query) else {
            debug!("an envelope of a copy stream cannot be opened");
            self.copy_failed(at, id, SUCCESS);
            return;
        };
        let authentic = match &query.inner {
            Inner::Read(_) => true,
            Inner::Write(sealed) => verify_box(sealed),
        };
        self.copies.rounds += 1;
        let round = self.copies.rounds;
        let timeout = (!self.at_once).then(|| {
            let due = at + PATIENCE.div_f64(self.scale);
            self.plan(due, Step::CopyTimeout { id, round });
            (due, self.serial)
        });
        let expected = if self.at_once { 1 } else { 2 };
        if let Some(copy) = self.copies.running.get_mut(&id) {
            copy.waits = Waits::Answers { round, expected, codes: Vec::new(), timeout };
        }
        // The envelope's epoch is the replicas' to judge.
        let errand = Errand { epoch: query.epoch, replicas: query.replicas, inner: query.inner, authentic };
        self.dispatch(at, Asker::Copy { id, round }, errand);
    }

    /// An intermediary's answer to the envelope of a round.
    pub(super) fn copy_answered(&mut self, at: Duration, id: CopyId, round: u64, code: u8) {
        let Some(copy) = self.copies.running.get_mut(&id) else { return };
        let Waits::Answers { round: current, expected, codes, .. } = &mut copy.waits else { return };
        if *current != round {
            return;
        }
        codes.push(code);
        if codes.len() >= *expected {
            self.copy_verdict(at, id);
        }
    }

    pub(super) fn copy_timeout(&mut self, at: Duration, id: CopyId, round: u64) {
        let waits = self.copies.running.get(&id).map(|copy| &copy.waits);
        if matches!(waits, Some(Waits::Answers { round: current, .. }) if *current == round) {
            self.copy_verdict(at, id);
        }
    }

    /// Any success lets a copy go on; else it fails with a code that was answered, and tries again where none was.
    fn copy_verdict(&mut self, at: Duration, id: CopyId) {
        let Some(copy) = self.copies.running.get_mut(&id) else { return };
        let Waits::Answers { codes, timeout, .. } = std::mem::replace(&mut copy.waits, Waits::Turn) else { return };
        if let Some(timeout) = timeout {
            self.steps.remove(&timeout);
        }
        if codes.contains(&SUCCESS) {
            copy.envelopes.pop_front();
            copy.completed += 1;
            copy.attempts = 0;
            self.plan(at, Step::Copy { id });
        } else if let Some(first) = codes.first() {
            let code = if codes.contains(&BOX_ALREADY_EXISTS) { BOX_ALREADY_EXISTS } else { *first };
            self.copy_failed(at, id, code);
        } else if copy.attempts + 1 < ATTEMPTS {
            copy.attempts += 1;
            let pause = self.pause(copy_attempts(&self.copies, id));
            self.plan(at + pause, Step::Copy { id });
        } else {
            self.copy_failed(at, id, SUCCESS);
        }
    }

    /// With a replica's code, or 0 where the courier itself could not go on.
    fn copy_failed(&mut self, at: Duration, id: CopyId, code: u8) {
        let completed = self.copies.running.get(&id).map_or(0, |copy| copy.completed);
        self.copy_ended(at, id, CopyAnswer::Failed { code, envelope: completed + 1 });
    }

    fn copy_ended(&mut self, at: Duration, id: CopyId, answer: CopyAnswer) {
        self.copies.running.remove(&id);
        self.copies.ended.insert(id, answer);
        self.copies.order.push_back((at, id));
    }

    /// The pause after so many attempts.
    fn pause(&self, attempts: u32) -> Duration {
        if self.at_once {
            return Duration::ZERO;
        }
        FIRST_PAUSE.saturating_mul(1 << (attempts - 1).min(16)).min(LONGEST_PAUSE).div_f64(self.scale)
    }
}

fn copy_attempts(copies: &Copies, id: CopyId) -> u32 {
    copies.running.get(&id).map_or(1, |copy| copy.attempts)
}
