//! One operation after the other, each drawn by a seed, and what is wrong with how it ended.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pigeonfs::bacap::WriteCap;
use pigeonfs::thin::{
    Client, CopyStream, Courier, Destination, Envelope, Error, ErrorKind, Missing, Payload, ReadOutcome, WriteMode,
    WriteOutcome,
};
use rand::RngExt as _;
use rand::rngs::StdRng;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::boxes::{BOXES, Boxes, Content, Place};
use crate::plan::logarithmic;
use crate::tap::Transcript;

/// How long after its deadline an operation may end: timers have a granularity.
const SLACK: Duration = Duration::from_millis(500);
const OPERATIONS: usize = 9;

/// What operations of a client share.
#[derive(Clone)]
pub(crate) struct Lane {
    pub(crate) client: Client,
    pub(crate) name: String,
    pub(crate) boxes: Arc<Boxes>,
    pub(crate) transcript: Arc<Transcript>,
    /// The longest time that an operation is given.
    pub(crate) patience: Duration,
    /// Whether the client is being closed.
    pub(crate) closing: Arc<AtomicBool>,
}

/// What is wrong, or else what an operation gave, if it was not given up and did not fail as it may.
type Outcome<T> = Result<Option<T>, String>;

/// Goes on with what an operation gave.
macro_rules! given {
    ($outcome:expr) => {
        match $outcome? {
            Some(given) => given,
            None => return Ok(()),
        }
    };
}

impl Lane {
    /// Runs a script. Says what is wrong.
    pub(crate) async fn run(self, mut dice: StdRng) -> Result<(), String> {
        for _ in 0..OPERATIONS {
            sleep(logarithmic(&mut dice, 0.001, 5.0)).await;
            let deadline = Instant::now() + logarithmic(&mut dice, 0.005, self.patience.as_secs_f64());
            let place = self.boxes.place(&mut dice);
            match dice.random_range(0..20) {
                0 => self.key_pair(&mut dice, deadline).await?,
                1 => self.index(&mut dice, place, deadline).await?,
                2..=7 => self.write(&mut dice, place, deadline).await?,
                8..=11 => self.read(&mut dice, place, deadline).await?,
                12 | 13 => self.cancel(&mut dice, place, deadline).await?,
                14 | 15 => self.copy(&mut dice, deadline).await?,
                16 => self.tombstones(&mut dice, place, deadline).await?,
                17 => self.message(&mut dice, deadline).await?,
                18 => self.directory(&mut dice, deadline).await?,
                _ => self.leave_and_return(&mut dice).await,
            }
        }
        Ok(())
    }

    async fn key_pair(&self, dice: &mut StdRng, deadline: Instant) -> Result<(), String> {
        let seed = dice.random();
        let pair = given!(self.bounded(dice, "key pair", deadline, self.client.new_keypair(&seed, deadline)).await);
        let ours = WriteCap::from_seed(&seed);
        let same = pair.write_cap.to_bytes() == ours.to_bytes()
            && pair.read_cap.to_bytes() == ours.read_cap().to_bytes()
            && pair.first == *ours.index();
        if same { Ok(()) } else { Err("another key pair than the seed's".to_owned()) }
    }

    async fn index(&self, dice: &mut StdRng, place: Place, deadline: Instant) -> Result<(), String> {
        let at = self.boxes.index(place);
        let next = given!(self.bounded(dice, "next index", deadline, self.client.next_index(at, deadline)).await);
        let counter = self.bounded(dice, "counter", deadline, self.client.index_counter(&next, deadline)).await;
        let counter = given!(counter);
        let ours = self.boxes.next(place);
        if next == *ours && counter == ours.counter() { Ok(()) } else { Err("another index".to_owned()) }
    }

    async fn write(&self, dice: &mut StdRng, place: Place, deadline: Instant) -> Result<(), String> {
        let content = match dice.random_range(0..10) {
            0 => Content::Tombstone,
            1 => Content::Bytes(format!("something else, by {}", self.name).into_bytes()),
            _ => Content::Bytes(self.boxes.own(place)),
        };
        let envelope = given!(self.envelope(dice, place, &content, deadline).await);
        let mode = if dice.random_bool(0.7) { WriteMode::Strict } else { WriteMode::Default };
        let writing = self.client.start_write(self.boxes.cap(place), &envelope, mode, deadline);
        match given!(self.bounded(dice, &format!("write {mode:?} {place:?}"), deadline, writing).await) {
            WriteOutcome::Done if mode == WriteMode::Strict => self.boxes.confirm(place, content),
            WriteOutcome::Done => {}
            WriteOutcome::AlreadyExists => self.boxes.judge_conflict(place, &content)?,
        }
        Ok(())
    }

    /// The envelope of a write, which is known to be attempted from now on.
    async fn envelope(
        &self,
        dice: &mut StdRng,
        place: Place,
        content: &Content,
        deadline: Instant,
    ) -> Outcome<Envelope> {
        let (cap, at) = (self.boxes.cap(place), self.boxes.index(place));
        self.boxes.attempt(place, content.clone());
        match content {
            Content::Bytes(bytes) => {
                let encrypting = self.client.encrypt_write(cap, at, bytes, deadline);
                self.bounded(dice, "encrypt a write", deadline, encrypting).await
            }
            Content::Tombstone => {
                let encrypting = self.client.encrypt_tombstone(cap, at, deadline);
                self.bounded(dice, "encrypt a tombstone", deadline, encrypting).await
            }
        }
    }

    async fn read(&self, dice: &mut StdRng, place: Place, deadline: Instant) -> Result<(), String> {
        let missing = if dice.random() { Missing::Retry } else { Missing::Report };
        let (cap, at) = (self.boxes.cap(place).read_cap(), self.boxes.index(place));
        let encrypting = self.client.encrypt_read(cap, at, deadline);
        let envelope = given!(self.bounded(dice, "encrypt a read", deadline, encrypting).await);
        let reading = self.client.start_read(cap, at, &envelope, missing, deadline);
        let read = given!(self.bounded(dice, &format!("read {missing:?} {place:?}"), deadline, reading).await);
        if missing == Missing::Retry && read == ReadOutcome::NotFound {
            return Err("a read that goes on for ever found nothing".to_owned());
        }
        self.boxes.judge(place, &read)
    }

    /// A read that somebody cancels.
    async fn cancel(&self, dice: &mut StdRng, place: Place, deadline: Instant) -> Result<(), String> {
        let (cap, at) = (self.boxes.cap(place).read_cap(), self.boxes.index(place));
        let encrypting = self.client.encrypt_read(cap, at, deadline);
        let envelope = given!(self.bounded(dice, "encrypt a read", deadline, encrypting).await);
        let reading = self.client.start_read(cap, at, &envelope, Missing::Retry, deadline);
        let after = logarithmic(dice, 0.001, self.patience.as_secs_f64());
        let patience = logarithmic(dice, 0.001, self.patience.as_secs_f64());
        let cancelling = async {
            sleep(after).await;
            let until = Instant::now() + patience;
            self.ended("cancel", until, self.client.cancel(envelope.hash(), until), false).await
        };
        let reading = self.ended("read to be cancelled", deadline, reading, true);
        let (cancelled, read) = tokio::join!(biased; cancelling, reading);
        cancelled?;
        read?.map_or(Ok(()), |read| self.boxes.judge(place, &read))
    }

    async fn copy(&self, dice: &mut StdRng, deadline: Instant) -> Result<(), String> {
        let (first, bytes) = self.boxes.copied();
        let places = (0..BOXES).map(|number| Place { number, ..first });
        let cap = WriteCap::from_seed(&dice.random());
        let mut stream = CopyStream::new(cap);
        let payload =
            Payload { write_cap: self.boxes.cap(first).clone(), start: self.boxes.index(first).clone(), bytes };
        let payloads = [payload];
        given!(self.bounded(dice, "fill a copy", deadline, stream.add(&self.client, &payloads, deadline)).await);
        given!(self.bounded(dice, "finish a copy", deadline, stream.finish(&self.client, deadline)).await);
        given!(self.bounded(dice, "write a copy", deadline, stream.write(&self.client, deadline)).await);
        for place in places.clone() {
            self.boxes.attempt(place, Content::Bytes(self.boxes.own(place)));
        }
        let copying = stream.copy(&self.client, Courier::Random, deadline);
        given!(self.bounded(dice, "copy", deadline, copying).await);
        for place in places {
            self.boxes.confirm(place, Content::Bytes(self.boxes.own(place)));
        }
        Ok(())
    }

    /// Envelopes for a range of tombstones, none of which is sent.
    async fn tombstones(&self, dice: &mut StdRng, place: Place, deadline: Instant) -> Result<(), String> {
        let count = dice.random_range(0..4);
        let (cap, from) = (self.boxes.cap(place), self.boxes.index(place));
        let making = async { self.client.tombstone_range(cap, from, count, deadline).await.complete() };
        let made = given!(self.bounded(dice, "tombstones", deadline, making).await);
        if made.len() == count as usize { Ok(()) } else { Err(format!("{} tombstones of {count}", made.len())) }
    }

    async fn message(&self, dice: &mut StdRng, deadline: Instant) -> Result<(), String> {
        let Some(document) = self.client.pki_document() else { return Ok(()) };
        let Some(echo) = document.services("echo").next() else { return Ok(()) };
        let (to, payload) = (Destination::from(&echo), self.name.as_bytes());
        match dice.random_range(0..3) {
            0 => {
                let sending = self.client.send_message(&to, payload, deadline);
                self.bounded(dice, "message", deadline, sending).await?;
            }
            1 => {
                let sending = self.client.send_message_without_reply(&to, payload, deadline);
                self.bounded(dice, "message without reply", deadline, sending).await?;
            }
            _ => {
                let sending = self.client.blocking_send_message(&to, payload, deadline);
                let reply = given!(self.bounded(dice, "message and reply", deadline, sending).await);
                if !reply.starts_with(payload) || reply[payload.len()..].iter().any(|byte| *byte != 0) {
                    return Err("another echo than what was sent".to_owned());
                }
            }
        }
        Ok(())
    }

    async fn directory(&self, dice: &mut StdRng, deadline: Instant) -> Result<(), String> {
        let epoch = match self.client.pki_document() {
            Some(document) if dice.random() => document.epoch - dice.random_range(0..3),
            _ => 0,
        };
        let asking = self.client.pki_document_for_epoch(epoch, deadline);
        let document = given!(self.bounded(dice, "document", deadline, asking).await);
        if epoch != 0 && document.epoch != epoch {
            return Err("the document of another epoch".to_owned());
        }
        let asking = self.client.directory_authorities(deadline);
        let authorities = given!(self.bounded(dice, "authorities", deadline, asking).await);
        if authorities.is_empty() { Err("no directory authority".to_owned()) } else { Ok(()) }
    }

    async fn leave_and_return(&self, dice: &mut StdRng) {
        self.client.disconnect().await;
        self.transcript.tell(&format!("{} is disconnected", self.name));
        sleep(logarithmic(dice, 0.001, 60.0)).await;
        self.client.reconnect().await;
    }

    /// Waits for an operation, or gives it up before its deadline.
    async fn bounded<T>(
        &self,
        dice: &mut StdRng,
        what: &str,
        deadline: Instant,
        operation: impl Future<Output = Result<T, Error>>,
    ) -> Outcome<T> {
        if dice.random_bool(0.1) {
            let patience = logarithmic(dice, 0.0005, self.patience.as_secs_f64());
            let Ok(ended) = timeout(patience, self.ended(what, deadline, operation, false)).await else {
                self.transcript.tell(&format!("{}: {what}: given up", self.name));
                return Ok(None);
            };
            return ended;
        }
        self.ended(what, deadline, operation, false).await
    }

    /// Waits for an operation, which must end by its deadline, and in a way that it may.
    async fn ended<T>(
        &self,
        what: &str,
        deadline: Instant,
        operation: impl Future<Output = Result<T, Error>>,
        may_be_cancelled: bool,
    ) -> Outcome<T> {
        let name = &self.name;
        let Ok(ended) = timeout_at(deadline + SLACK, operation).await else {
            return Err(format!("{name}: {what}: its deadline has passed and it goes on"));
        };
        match ended {
            Ok(given) => {
                self.transcript.tell(&format!("{name}: {what}: done"));
                Ok(Some(given))
            }
            Err(error) => {
                self.transcript.tell(&format!("{name}: {what}: {error}"));
                let too_early = Instant::now() + Duration::from_millis(1) < deadline;
                let allowed = match &error.kind {
                    ErrorKind::NoDaemon(_) | ErrorKind::NoConsensus(_) | ErrorKind::Busy | ErrorKind::Timeout => {
                        !too_early
                    }
                    ErrorKind::Lost(_) | ErrorKind::NotSent(_) | ErrorKind::CopyFailed { .. } => true,
                    ErrorKind::Closed => self.closing.load(Ordering::Relaxed),
                    ErrorKind::Cancelled => may_be_cancelled,
                    ErrorKind::Daemon(code) => matches!(code, 4 | 10),
                    ErrorKind::Replica(code) => matches!(code, 6 | 8 | 10),
                    ErrorKind::Courier(code) => matches!(code, 13 | 32),
                    _ => false,
                };
                if allowed {
                    return Ok(None);
                }
                let early = if too_early { ", before its deadline" } else { "" };
                Err(format!("{name}: {what}: ended as it may not{early}: {error}"))
            }
        }
    }
}
