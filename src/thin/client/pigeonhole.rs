//! Key pairs, indices, and boxes: made into envelopes, sent, and cancelled.

use std::fmt;

use tokio::time::Instant;
use zeroize::Zeroizing;

use super::{Client, check, index, malformed, octets, query};
use crate::bacap::{BoxIndex, ReadCap, WriteCap};
use crate::thin::error::started;
use crate::thin::message::{
    EncryptRead, EncryptReply, EncryptWrite, HASH_BYTES, IndexCounter, NewKeypair, NextIndex, Octets, StartResending,
};
use crate::thin::session::CancelKey;
use crate::thin::{Error, ErrorKind, Operation};

/// A key pair that the daemon made.
#[derive(Clone, Debug)]
pub struct KeyPair {
    /// To write.
    pub write_cap: WriteCap,
    /// To read.
    pub read_cap: ReadCap,
    /// The first index of both.
    pub first: BoxIndex,
}

/// What the daemon made of one box to read or write, ready to be sent. Fresh for each call: the box is the same, the
/// envelope around it never is.
#[derive(Clone)]
pub struct Envelope {
    ciphertext: Octets,
    descriptor: Octets,
    hash: [u8; HASH_BYTES],
    next: BoxIndex,
}

impl Envelope {
    /// The key for a cancel.
    pub fn hash(&self) -> &[u8; HASH_BYTES] {
        &self.hash
    }

    /// The index behind the one that it was made for.
    pub fn next(&self) -> &BoxIndex {
        &self.next
    }
}

impl fmt::Debug for Envelope {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Envelope({} bytes)", self.ciphertext.len())
    }
}

/// What a read does where no replica has the box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The daemon asks again, in the same envelope, until the operation is cancelled. A courier asks the replicas five
    /// times more for an envelope, and then answers "not found" from its cache for 5 minutes, and for longer while no other
    /// envelope comes to it. So such a read sees a box that is written within its first seconds, and mostly none that is
    /// written later. To wait for a box use [`Client::read`].
    Retry,
    /// Say so.
    Report,
}

/// What a write waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteMode {
    /// A courier's word: it has the envelope, and may still lose it.
    Default,
    /// A replica's word: it holds these bytes, or others.
    Strict,
}

/// How a read ended.
#[derive(Clone, PartialEq, Eq)]
pub enum ReadOutcome {
    /// The box's message.
    Box(Vec<u8>),
    /// Its writer deleted it.
    Tombstone,
    /// No replica that was asked has it; that is a hint, and never a proof.
    NotFound,
}

impl fmt::Debug for ReadOutcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Box(bytes) => write!(out, "Box({} bytes)", bytes.len()),
            Self::Tombstone => out.write_str("Tombstone"),
            Self::NotFound => out.write_str("NotFound"),
        }
    }
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// What [`WriteMode`] waits for has happened.
    Done,
    /// Strict only: the box holds other contents.
    AlreadyExists,
}

impl Client {
    /// The key pair of a seed.
    pub async fn new_keypair(&self, seed: &[u8; 32], deadline: Instant) -> Result<KeyPair, Error> {
        let operation = Operation::NewKeypair;
        let seed = Zeroizing::new(*seed);
        let frame = move |id| NewKeypair { query_id: query(id), seed: octets(&*seed) }.into();
        let reply = self.call(operation, deadline, None, frame).await?;
        let reply = reply.new_keypair_reply.ok_or_else(|| malformed(operation, "another reply"))?;
        check(operation, reply.error_code)?;
        let write_cap = WriteCap::from_bytes(&reply.write_cap.unwrap_or_default());
        let read_cap = ReadCap::from_bytes(&reply.read_cap.unwrap_or_default());
        Ok(KeyPair {
            write_cap: write_cap.map_err(|_| malformed(operation, "no write capability"))?,
            read_cap: read_cap.map_err(|_| malformed(operation, "no read capability"))?,
            first: index(operation, reply.first_message_index)?,
        })
    }

    /// The envelope that asks for the box at `at`.
    pub async fn encrypt_read(&self, cap: &ReadCap, at: &BoxIndex, deadline: Instant) -> Result<Envelope, Error> {
        let operation = Operation::EncryptRead;
        let (cap, at) = (cap.clone(), at.clone());
        let frame = move |id| {
            let message_box_index = octets(at.as_bytes());
            EncryptRead { query_id: query(id), read_cap: octets(&*cap.to_bytes()), message_box_index }.into()
        };
        let reply = self.call(operation, deadline, None, frame).await?;
        envelope(operation, reply.encrypt_read_reply)
    }

    /// The envelope that writes the box at `at`. An empty plaintext is refused: it would be a tombstone.
    pub async fn encrypt_write(
        &self,
        cap: &WriteCap,
        at: &BoxIndex,
        plaintext: &[u8],
        deadline: Instant,
    ) -> Result<Envelope, Error> {
        if plaintext.is_empty() {
            let text = "an empty box would be a tombstone, which is asked for by name".to_owned();
            return Err(Error { operation: Operation::EncryptWrite, kind: ErrorKind::InvalidArgument(text) });
        }
        let geometry = self.status.borrow().pigeonhole.clone();
        if let Some(max) = geometry.and_then(|geometry| usize::try_from(geometry.max_plaintext_payload_length).ok())
            && plaintext.len() > max
        {
            let text = format!("{} bytes do not fit into this network's boxes of {max}", plaintext.len());
            return Err(Error { operation: Operation::EncryptWrite, kind: ErrorKind::InvalidArgument(text) });
        }
        self.encrypt(cap, at, plaintext, deadline).await
    }

    /// The envelope that deletes the box at `at`.
    pub async fn encrypt_tombstone(&self, cap: &WriteCap, at: &BoxIndex, deadline: Instant) -> Result<Envelope, Error> {
        self.encrypt(cap, at, &[], deadline).await
    }

    async fn encrypt(
        &self,
        cap: &WriteCap,
        at: &BoxIndex,
        plaintext: &[u8],
        deadline: Instant,
    ) -> Result<Envelope, Error> {
        let operation = Operation::EncryptWrite;
        let (cap, at, plaintext) = (cap.clone(), at.clone(), plaintext.to_vec());
        let frame = move |id| {
            EncryptWrite {
                query_id: query(id),
                plaintext: octets(&plaintext),
                write_cap: octets(&*cap.to_bytes()),
                message_box_index: octets(at.as_bytes()),
            }
            .into()
        };
        let reply = self.call(operation, deadline, None, frame).await?;
        envelope(operation, reply.encrypt_write_reply)
    }

    /// Sends a read and waits for its end. Dropping the future cancels it.
    pub async fn start_read(
        &self,
        cap: &ReadCap,
        at: &BoxIndex,
        envelope: &Envelope,
        missing: Missing,
        deadline: Instant,
    ) -> Result<ReadOutcome, Error> {
        let request = StartResending {
            read_cap: octets(&*cap.to_bytes()),
            message_box_index: octets(at.as_bytes()),
            no_retry_on_box_id_not_found: missing == Missing::Report,
            ..parcel(envelope)
        };
        match self.start_resending(Operation::Read, request, envelope, deadline).await {
            Ok(plaintext) => Ok(ReadOutcome::Box(plaintext.map(|bytes| bytes.0).unwrap_or_default())),
            Err(Error { kind: ErrorKind::Replica(1), .. }) => Ok(ReadOutcome::NotFound),
            Err(Error { kind: ErrorKind::Replica(11), .. }) => Ok(ReadOutcome::Tombstone),
            Err(error) => Err(error),
        }
    }

    /// Sends a write and waits for its end. Dropping the future cancels it; what has left may land all the same.
    pub async fn start_write(
        &self,
        cap: &WriteCap,
        envelope: &Envelope,
        mode: WriteMode,
        deadline: Instant,
    ) -> Result<WriteOutcome, Error> {
        let request = StartResending {
            write_cap: octets(&*cap.to_bytes()),
            no_idempotent_box_already_exists: mode == WriteMode::Strict,
            ..parcel(envelope)
        };
        match self.start_resending(Operation::Write, request, envelope, deadline).await {
            Ok(_) => Ok(WriteOutcome::Done),
            Err(Error { kind: ErrorKind::Replica(10), .. }) => Ok(WriteOutcome::AlreadyExists),
            Err(error) => Err(error),
        }
    }

    async fn start_resending(
        &self,
        operation: Operation,
        request: StartResending,
        envelope: &Envelope,
        deadline: Instant,
    ) -> Result<Option<Octets>, Error> {
        let frame = move |id| StartResending { query_id: query(id), ..request.clone() }.into();
        let reply = self.call(operation, deadline, Some(CancelKey::Envelope(envelope.hash)), frame).await?;
        let reply =
            reply.start_resending_encrypted_message_reply.ok_or_else(|| malformed(operation, "another reply"))?;
        match reply.error_code {
            0 => Ok(reply.plaintext),
            code => Err(Error { operation, kind: started(code, reply.courier_identity_hash.is_some()) }),
        }
    }

    /// The index behind `at`, as the daemon derives it.
    pub async fn next_index(&self, at: &BoxIndex, deadline: Instant) -> Result<BoxIndex, Error> {
        let operation = Operation::NextIndex;
        let at = at.clone();
        let frame = move |id| NextIndex { query_id: query(id), message_box_index: octets(at.as_bytes()) }.into();
        let reply = self.call(operation, deadline, None, frame).await?;
        let reply = reply.next_message_box_index_reply.ok_or_else(|| malformed(operation, "another reply"))?;
        check(operation, reply.error_code)?;
        index(operation, reply.next_message_box_index)
    }

    /// The counter of `at`, as the daemon reads it.
    pub async fn index_counter(&self, at: &BoxIndex, deadline: Instant) -> Result<u64, Error> {
        let operation = Operation::IndexCounter;
        let at = at.clone();
        let frame = move |id| IndexCounter { query_id: query(id), message_box_index: octets(at.as_bytes()) }.into();
        let reply = self.call(operation, deadline, None, frame).await?;
        let reply = reply.get_message_box_index_counter_reply.ok_or_else(|| malformed(operation, "another reply"))?;
        check(operation, reply.error_code)?;
        Ok(reply.counter)
    }
}

fn parcel(envelope: &Envelope) -> StartResending {
    StartResending {
        envelope_descriptor: Some(envelope.descriptor.clone()),
        message_ciphertext: Some(envelope.ciphertext.clone()),
        envelope_hash: octets(&envelope.hash),
        ..StartResending::default()
    }
}

fn envelope(operation: Operation, reply: Option<EncryptReply>) -> Result<Envelope, Error> {
    let reply = reply.ok_or_else(|| malformed(operation, "another reply"))?;
    check(operation, reply.error_code)?;
    let hash: Option<[u8; HASH_BYTES]> = reply.envelope_hash.as_deref().and_then(|hash| hash.try_into().ok());
    Ok(Envelope {
        ciphertext: reply.message_ciphertext.ok_or_else(|| malformed(operation, "no ciphertext"))?,
        descriptor: reply.envelope_descriptor.ok_or_else(|| malformed(operation, "no descriptor"))?,
        hash: hash.ok_or_else(|| malformed(operation, "no envelope hash"))?,
        next: index(operation, reply.next_message_box_index)?,
    })
}
