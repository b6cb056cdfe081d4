//! One box over the network: an envelope made on the crypto connection, sent on the traffic connection.

use std::time::Duration;

use tokio::time::Instant;

use super::network::Network;
use crate::bacap::{BoxIndex, ReadCap, WriteCap};
#[cfg(test)]
use crate::channel::bugs::{Bug, has};
use crate::channel::{Outcome, ReadBack};
use crate::thin;

/// Round trips that a strict write, or a read, takes at least: the ACK and the payload.
pub(super) const PACKETS: u32 = 2;

/// How one write ended, and what to tell the person where it did not end well.
pub(super) struct Written {
    pub(super) outcome: Outcome,
    pub(super) trouble: Option<String>,
}

/// What one read found.
pub(super) enum Found {
    Message(Vec<u8>),
    Tombstone,
    NotYet,
    Unknown(String),
}

impl Written {
    /// What the end of a write means for its box.
    pub(super) fn of(ended: Result<thin::WriteOutcome, thin::Error>) -> Self {
        match ended {
            Ok(thin::WriteOutcome::Done) => Self { outcome: Outcome::Stored, trouble: None },
            Ok(thin::WriteOutcome::AlreadyExists) => Self { outcome: Outcome::Occupied, trouble: None },
            #[cfg(test)]
            Err(thin::Error { kind: thin::ErrorKind::Timeout, .. }) if has(Bug::TimeoutIsSuccess) => {
                Self { outcome: Outcome::Stored, trouble: None }
            }
            Err(error) => {
                // Only what we asked wrongly ourselves can never succeed. A replica's or a daemon's refusal is shown and
                // tried again: no single one of them may stop a channel for good.
                let outcome = match error.kind {
                    thin::ErrorKind::InvalidArgument(_) => Outcome::Hopeless,
                    _ => Outcome::Again,
                };
                Self { outcome, trouble: Some(error.to_string()) }
            }
        }
    }
}

impl Found {
    /// What the end of a read says of its box.
    pub(super) fn of(ended: Result<thin::ReadOutcome, thin::Error>) -> Self {
        match ended {
            Ok(thin::ReadOutcome::Box(bytes)) => Self::Message(bytes),
            Ok(thin::ReadOutcome::Tombstone) => Self::Tombstone,
            Ok(thin::ReadOutcome::NotFound) => Self::NotYet,
            Err(error) => Self::Unknown(error.to_string()),
        }
    }
}

/// Sends one box strict, in a fresh envelope.
pub(super) async fn write(network: &Network, cap: &WriteCap, index: &BoxIndex, payload: &[u8]) -> Written {
    let _permit = network.write_permit().await;
    let deadline = Instant::now() + network.operation_deadline();
    Written::of(try_write(network, cap, index, payload, deadline).await)
}

async fn try_write(
    network: &Network,
    cap: &WriteCap,
    index: &BoxIndex,
    payload: &[u8],
    deadline: Instant,
) -> Result<thin::WriteOutcome, thin::Error> {
    let envelope = network.crypto().encrypt_write(cap, index, payload, deadline).await?;
    let started = Instant::now();
    let outcome = network.traffic().start_write(cap, &envelope, thin::WriteMode::Strict, deadline).await?;
    network.measure(started.elapsed(), PACKETS);
    Ok(outcome)
}

/// Reads one box once, in a fresh envelope.
pub(super) async fn read(network: &Network, cap: &ReadCap, index: &BoxIndex) -> Found {
    let _permit = network.read_permit().await;
    let deadline = Instant::now() + network.operation_deadline();
    Found::of(try_read(network, cap, index, deadline).await)
}

async fn try_read(
    network: &Network,
    cap: &ReadCap,
    index: &BoxIndex,
    deadline: Instant,
) -> Result<thin::ReadOutcome, thin::Error> {
    let envelope = network.crypto().encrypt_read(cap, index, deadline).await?;
    let started = Instant::now();
    let outcome = network.traffic().start_read(cap, index, &envelope, thin::Missing::Report, deadline).await?;
    network.measure(started.elapsed(), PACKETS);
    Ok(outcome)
}

/// Reads an occupied index and compares it with what we meant to write.
pub(super) async fn read_back(network: &Network, cap: &WriteCap, index: &BoxIndex, payload: &[u8]) -> ReadBack {
    compared(read(network, cap.read_cap(), index).await, payload)
}

/// What an occupied index holds. Only other plaintext is foreign: the same bytes under another padding, or a tombstone, are
/// our own.
pub(super) fn compared(found: Found, payload: &[u8]) -> ReadBack {
    match found {
        Found::Message(bytes) if bytes == payload => ReadBack::Ours,
        Found::Message(_) => ReadBack::Foreign,
        Found::Tombstone => ReadBack::Ours,
        Found::NotYet | Found::Unknown(_) => ReadBack::Unknown,
    }
}

/// Waits that a retry of bookkeeping makes: short at first, never longer than half a minute.
pub(super) fn pause_before_retry(tries: u32) -> Duration {
    (Duration::from_millis(200) * 2_u32.pow(tries.min(8))).min(Duration::from_secs(30))
}
