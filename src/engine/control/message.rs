//! What a verb may ask the owner of a state, and what it is told.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::engine::status::{ChannelStatus, ContactStatus, DurabilityStatus, HistoryStatus, RecordStatus, Status};
use crate::store::{Content, RequestId};

/// A capability on its way over the control socket. Shows nothing of itself and leaves nothing behind.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(#[serde(with = "serde_bytes")] Vec<u8>);

impl Secret {
    /// Wraps the bytes of a capability.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes themselves.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Secret({} bytes)", self.0.len())
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// What a verb asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// The state of everything, or of one channel.
    Status {
        /// The channel, or all of them.
        name: Option<String>,
    },
    /// What has gone over the network lately.
    History {
        /// The last minutes, so many.
        minutes: u64,
    },
    /// Make a channel that is written here.
    New {
        /// A free name.
        name: String,
        /// Whose word lets its next box go.
        #[serde(default)]
        durability: DurabilityStatus,
        /// What it is to carry.
        #[serde(default)]
        content: Content,
    },
    /// Take a capability in: one to read makes a channel that is read, one to write one that is written.
    Add {
        /// A free name.
        name: String,
        /// A text of a capability, or its bytes alone: 136 to read, 168 to write.
        capability: Secret,
        /// What the channel is to carry. A text of another kind is refused; of bytes alone the first box tells.
        #[serde(default)]
        content: Content,
        /// Refuse a network whose authorities are not those that the text names.
        #[serde(default)]
        strict_network: bool,
        /// Unix seconds until when its writer keeps it on the network; stands above what the text says.
        #[serde(default)]
        kept_until: Option<u64>,
    },
    /// Give a capability out; from then on the stream can no longer be taken back.
    Share {
        /// Which channel.
        name: String,
        /// The write capability rather than the read capability.
        write: bool,
        /// Its reader is to see only what comes from now on.
        #[serde(default)]
        from_here: bool,
    },
    /// Drop a channel, its capability and its bytes.
    Forget {
        /// Which channel.
        name: String,
    },
    /// Give a channel another name, here only.
    Rename {
        /// Its name now.
        old: String,
        /// A free name.
        new: String,
    },
    /// Drop the oldest bytes that are stored (writer) or have arrived (reader).
    Trim {
        /// Which channel.
        name: String,
        /// So many of them stay.
        keep_bytes: u64,
    },
    /// Give up the boxes that are missing at the frontier of a channel that is read, and go on behind them.
    Skip {
        /// Which channel.
        name: String,
    },
    /// Look for boxes that still live past the frontier of a channel that is read; answered when the search has ended.
    Search {
        /// Which channel.
        name: String,
        /// How long; without it, as long as it takes.
        timeout_ms: Option<u64>,
    },
    /// Take what another writer wrote into a fenced channel, put ours behind it, and lift the fence; answered when that
    /// is done.
    Adopt {
        /// Which channel.
        name: String,
        /// How long; without it, as long as it takes.
        timeout_ms: Option<u64>,
    },
    /// Move what is not stored of a fenced channel to a new one.
    Move {
        /// Which channel.
        name: String,
        /// A free name.
        new: String,
    },
    /// Wait until replicas, or couriers, have all that was accepted (writer), or until `bytes` have arrived (reader).
    Wait {
        /// Which channel.
        name: String,
        /// Reader: at least so many bytes, from the start; without it, until the frontier has a verdict.
        bytes: Option<u64>,
        /// How long; without it, as long as it takes.
        timeout_ms: Option<u64>,
        /// Writer: whose word is waited for.
        #[serde(default)]
        level: DurabilityStatus,
    },
    /// Probe a channel that is read often, for a while. Whoever watches the network may see that it is of interest.
    Follow {
        /// Which channel.
        name: String,
        /// For so long from now on.
        for_ms: u64,
    },
    /// Say how a channel stands once that is not as it was told before.
    Watch {
        /// Which channel.
        name: String,
        /// What was told with it before; without it, how it stands now.
        mark: Option<u64>,
        /// How long; then as it stands.
        timeout_ms: u64,
    },
    /// Send an unfinished file of a drop as it is.
    Finish {
        /// Which drop.
        name: String,
        /// The file, with its directories.
        file: String,
    },
    /// Append bytes to a stream; answered once they are safe on this machine's disk.
    Append {
        /// Which channel.
        name: String,
        /// At most [`super::CHUNK_BYTES`].
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
        /// Whether the stream is made where it is missing.
        making: bool,
    },
    /// Read bytes that have arrived.
    Read {
        /// Which channel.
        name: String,
        /// Where from.
        offset: u64,
        /// At a known end: wait so long for more.
        follow_ms: u64,
        /// Where it is not known whether this is the end: wait so long to learn it.
        timeout_ms: u64,
    },
    /// Lines of the log that the state keeps, oldest first.
    Log {
        /// The number of the line before them; 0 for all.
        after: i64,
        /// How many at most.
        limit: u32,
    },
    /// A key to write one more staged file with: the state may be sealed, and the verb then has no key of its own.
    StagingKey,
    /// Take a file into a drop, or find it there where it is under way already.
    Accept {
        /// Which drop.
        name: String,
        /// The record's header, as [`crate::drop::Header::encode`] makes it, without its `sync`.
        #[serde(with = "serde_bytes")]
        header: Vec<u8>,
        /// Where its bytes are: below the state's `drops/incoming`, locked by the verb. `None`: there are none.
        staged: Option<PathBuf>,
    },
    /// Invite somebody with a channel that is written here, made where it is missing.
    Invite {
        /// Which channel.
        name: String,
        /// What it is to carry.
        content: Content,
        /// What whoever has the code sees; without it, the channel's name.
        display_name: Option<String>,
        /// The name that the other side's channel gets; without it, the one that the other side suggests.
        theirs: Option<String>,
    },
    /// Accept the code of somebody's invitation.
    AcceptCode {
        /// The name that the inviter's channel gets.
        theirs: String,
        /// The channel whose read capability goes back, made where it is missing.
        ours: String,
        /// What that is to carry.
        content: Content,
        /// The code.
        code: Secret,
    },
    /// Wait until an invitation or an accepted code has come to its end.
    WaitContact {
        /// The channel that was invited with; or the name that the inviter's channel gets.
        name: String,
        /// It is a code that was accepted.
        accepting: bool,
        /// Only until an invitation has its code.
        for_code: bool,
        /// How long; without it, as long as it takes.
        timeout_ms: Option<u64>,
    },
    /// End an invitation, and remove its channel; or wait for a code no longer.
    CancelContact {
        /// The channel that was invited with; or the name that the inviter's channel was to get.
        name: String,
        /// It is a code that was accepted.
        accepting: bool,
    },
    /// Keep what expires of a channel that is written here on the network; or say only what that would take.
    Keep {
        /// Which channel.
        name: String,
        /// Unix seconds until when. `None`: nothing is changed.
        until: Option<u64>,
        /// The share of the network's pace that sending again may take.
        share: Option<f64>,
    },
    /// Say what sending would take, and change nothing.
    Estimate {
        /// Through which channel; it need not be there yet.
        name: String,
        /// Bytes of each file's header and of its contents; a stream has no header.
        lengths: Vec<(u64, u64)>,
    },
    /// Stay, while what is to be kept is kept.
    KeepRun {
        /// How long; without it, as long as something is to be kept.
        timeout_ms: Option<u64>,
    },
    /// Ask the network for boxes of a channel, each once.
    Verify {
        /// Which channel.
        name: String,
        /// So many of them, chosen at random; without it, all.
        sample: Option<u64>,
        /// Send again what is gone, from the box on that holds this byte.
        repair: Option<u64>,
        /// How long; without it, as long as it takes.
        timeout_ms: Option<u64>,
    },
    /// How one file of a drop stands.
    Record {
        /// Which drop.
        name: String,
        /// Which record.
        record: i64,
    },
    /// The records of a drop in their order.
    Records {
        /// Which drop.
        name: String,
        /// Those after this one.
        after: i64,
        /// At most so many, and at most 1,000.
        limit: u32,
    },
    /// Bytes of a file that was accepted or has arrived.
    Fetch {
        /// Which drop.
        name: String,
        /// Which record.
        record: i64,
        /// Where from.
        offset: u64,
    },
    /// A file is where the person wanted it, or the person was told that it is broken.
    Deliver {
        /// Which drop.
        name: String,
        /// Which record.
        record: i64,
    },
    /// Give the state up in favour of the asker, a mount. Only a verb that owns it for its own run does.
    Yield,
}

/// What goes over the socket: a request and its number, under which the owner remembers what it came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// Drawn at random, and the same when the request is put again.
    pub id: RequestId,
    /// The request.
    pub request: Request,
}

impl Asked {
    /// A request with a number of its own.
    ///
    /// # Errors
    /// The machine gives no randomness.
    pub fn new(request: Request) -> Result<Self, Failure> {
        let mut id = [0; 16];
        getrandom::fill(&mut id)
            .map_err(|error| Failure::new(FailureKind::Failed, format!("this machine gives no randomness: {error}")))?;
        Ok(Self { id: RequestId::new(id), request })
    }
}

/// What the owner answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// Done, and there is nothing to say.
    Done,
    /// Answers [`Request::Status`] without a name.
    Status(Status),
    /// Answers [`Request::History`].
    History(HistoryStatus),
    /// Answers [`Request::Status`] with a name, [`Request::New`], [`Request::Wait`].
    Channel(ChannelStatus),
    /// Answers [`Request::Watch`].
    News {
        /// Stands for how it stands: another mark, another standing.
        mark: u64,
        /// How it stands.
        channel: Box<ChannelStatus>,
    },
    /// Answers [`Request::Add`].
    Added {
        /// The channel.
        channel: Box<ChannelStatus>,
        /// What the person is to know.
        warnings: Vec<String>,
    },
    /// Answers [`Request::Share`]: a text as `src/bacap/TEXT.md` describes it.
    Capability(Secret),
    /// Answers [`Request::Log`].
    Log(Vec<LogEntry>),
    /// Answers [`Request::StagingKey`]: how a staged file is to be written; `None`: as it is.
    StagingKey(Option<Secret>),
    /// Answers [`Request::Accept`] and [`Request::Record`].
    Record(RecordStatus),
    /// Answers [`Request::Records`].
    Records(Vec<RecordStatus>),
    /// Answers [`Request::Trim`].
    Trimmed {
        /// How many bytes went.
        bytes: u64,
    },
    /// Answers [`Request::Skip`].
    Skipped {
        /// The first box that was given up, counted from 0.
        first_box: u64,
        /// How many boxes were.
        boxes: u64,
        /// Bytes behind them that can be read now.
        bytes: u64,
    },
    /// Answers [`Request::Search`].
    Searched {
        /// Boxes between the frontier and the first that lives: they are lost. `None`: nothing was found.
        lost_boxes: Option<u64>,
    },
    /// Answers [`Request::Adopt`].
    Adopted {
        /// Boxes of another writer that are part of the channel now.
        foreign_boxes: u64,
        /// Their bytes.
        foreign_bytes: u64,
        /// Boxes of ours that met them, and go behind them.
        replanned_boxes: u64,
        /// Their bytes.
        replanned_bytes: u64,
    },
    /// Answers [`Request::Move`].
    Moved {
        /// Boxes that are in the new channel.
        boxes: u64,
        /// Their bytes.
        bytes: u64,
        /// How many of the boxes may be in the old channel too: a packet of them may have left.
        launched_boxes: u64,
    },
    /// Answers [`Request::Invite`], [`Request::AcceptCode`] and [`Request::WaitContact`].
    Contact {
        /// How it stands.
        contact: ContactStatus,
        /// The code of an invitation that waits for its answer.
        code: Option<Secret>,
    },
    /// Answers [`Request::Keep`].
    Kept {
        /// Stored boxes whose bytes are held here.
        boxes: u64,
        /// Boxes whose bytes are no longer held here: what expires of them is gone.
        dropped_boxes: u64,
        /// Boxes that have expired and were not sent again yet.
        expired_boxes: u64,
        /// Packets in two weeks, at most.
        packets_per_two_weeks: u64,
        /// Seconds from the end of an epoch until the last of its boxes is there again, at most.
        gap_s: u64,
        /// Unix seconds from which on the oldest box is gone.
        first_expires_at: Option<u64>,
        /// Whether a mount runs, which sends again.
        sending: bool,
    },
    /// Answers [`Request::Estimate`].
    Estimated {
        /// Boxes, about.
        boxes: u64,
        /// Packets that they take, about.
        packets: u64,
        /// Boxes that are waiting already and go first.
        boxes_before: u64,
        /// Seconds until all of it is stored, at the present pace.
        seconds: u64,
        /// Whether that pace is the network's own; otherwise no network is connected, and another is assumed.
        pace_is_known: bool,
        /// Unix seconds from which on the first box may be gone.
        first_expires_at: u64,
        /// Until when the channel is kept, in Unix seconds.
        kept_until: Option<u64>,
    },
    /// Answers [`Request::Verify`].
    Verified {
        /// Boxes that are there.
        there: u64,
        /// Boxes that are gone, and were not sent again.
        gone: u64,
        /// The first of them, counted from 0.
        first_gone: Option<u64>,
        /// Boxes that were gone and are there again.
        sent_again: u64,
        /// Boxes that are gone and whose bytes are no longer held here.
        not_held: u64,
        /// Boxes that were asked for in vain: no answer came.
        #[serde(default)]
        unanswered: u64,
        /// Boxes that were not asked for.
        not_asked: u64,
    },
    /// Answers [`Request::Append`]: the stream's size after it.
    Appended {
        /// Bytes.
        size: u64,
    },
    /// Answers [`Request::Read`] and [`Request::Fetch`].
    Bytes {
        /// What there is from the offset on, at most [`super::CHUNK_BYTES`].
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
        /// Whether this is the end for now: nothing follows, by the frontier's own verdict.
        end: bool,
    },
    /// Answers [`Request::Fetch`]: the file has arrived, and its bytes are at fault wherever they are read.
    Broken {
        /// Why.
        reason: String,
    },
}

/// What goes over the socket in answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It worked.
    Ok(Box<Response>),
    /// It did not.
    Err(Failure),
}

/// What kind of failure; the command maps each to its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// It failed (1).
    Failed,
    /// It cannot be meant (2).
    Usage,
    /// The time was up; nothing is lost (3).
    TimedOut,
    /// No daemon (4).
    NoDaemon,
    /// Fenced or refused (5).
    Refused,
    /// The state has another owner, or the name is taken (6).
    Busy,
    /// A signal (130).
    Interrupted,
}

/// Why a verb failed: what happened, with what, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Its kind.
    pub kind: FailureKind,
    /// What happened, with what.
    pub message: String,
    /// What to do now.
    pub hint: Option<String>,
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Its number.
    pub id: i64,
    /// When it was kept, in seconds since 1970.
    pub at: u64,
    /// What was logged.
    pub text: String,
}

impl Failure {
    /// A failure without a hint.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None }
    }

    /// The same, with what to do now.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
