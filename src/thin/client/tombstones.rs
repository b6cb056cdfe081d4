//! Tombstones over a range of boxes, each its own envelope.

use tokio::time::Instant;

use super::{Client, Envelope};
use crate::bacap::{BoxIndex, WriteCap};
use crate::thin::{Error, ErrorKind, Operation};

/// The most envelopes that are made at once; some 2 kB each.
const MAX_ENVELOPES: u32 = 16_384;

/// What became of a range: the envelopes that were made, in order, and what ended it early. Part of a range is no
/// success, so look at `failed`, or take [`Self::complete`].
#[derive(Debug)]
#[must_use]
pub struct TombstoneRange {
    /// An envelope a box, with the box's index. Send each with [`Client::start_write`].
    pub envelopes: Vec<(BoxIndex, Envelope)>,
    /// Where to go on: behind the last box that has an envelope.
    pub next: BoxIndex,
    /// Why it ended before `count`.
    pub failed: Option<Error>,
}

impl TombstoneRange {
    /// All of the range, or why it is not all.
    pub fn complete(self) -> Result<Vec<(BoxIndex, Envelope)>, Error> {
        self.failed.map_or(Ok(self.envelopes), Err)
    }
}

impl Client {
    /// The envelopes that delete `count` boxes of a channel from `from` on, at most 16,384. Nothing is sent. For one
    /// operation over the whole range see [`CopyStream::add_tombstones`](super::CopyStream::add_tombstones).
    pub async fn tombstone_range(
        &self,
        cap: &WriteCap,
        from: &BoxIndex,
        count: u32,
        deadline: Instant,
    ) -> TombstoneRange {
        let mut range = TombstoneRange { envelopes: Vec::new(), next: from.clone(), failed: None };
        if count > MAX_ENVELOPES {
            let text = format!("{count} tombstones; one call makes at most {MAX_ENVELOPES}");
            range.failed = Some(Error { operation: Operation::EncryptWrite, kind: ErrorKind::InvalidArgument(text) });
            return range;
        }
        for _ in 0..count {
            match self.encrypt_tombstone(cap, &range.next, deadline).await {
                Ok(envelope) => {
                    let at = std::mem::replace(&mut range.next, envelope.next().clone());
                    range.envelopes.push((at, envelope));
                }
                Err(error) => {
                    range.failed = Some(error);
                    break;
                }
            }
        }
        range
    }
}
