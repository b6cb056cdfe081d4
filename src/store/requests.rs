//! The requests that change the store, as others submit them. Each becomes a job of the writer thread.

use std::time::SystemTime;

use zeroize::Zeroizing;

use super::ledger::{GivenUp, Ledger};
use super::nanos::to_nanos;
use super::queue::{Kind, Task};
use super::{
    Adopted, Appended, Arrival, Binding, BoxSeq, BoxState, ChannelId, ChannelName, Claim, Commit, Content, Durability,
    Finding, Frontier, Moved, NetworkId, Outcome, Searched, Searching, Skipped, Store, StoreError,
};
use crate::bacap::{ReadCap, WriteCap};

/// What brings new bytes or channels from a person.
const GROWS: Kind = Kind { grows: true, wide: false, bytes: 0 };

impl Store {
    /// Makes a channel that we write.
    pub fn create_stream(&self, name: ChannelName, cap: WriteCap) -> Commit<ChannelId> {
        self.create(name, cap, Content::Stream)
    }

    /// Makes a channel that we write, and that carries this.
    pub fn create(&self, name: ChannelName, cap: WriteCap, content: Content) -> Commit<ChannelId> {
        self.send_once(GROWS, |_| Outcome::Done, move |ledger| ledger.create(&name, &cap, content, false))
    }

    /// Adds a channel that we read.
    pub fn add_reader(&self, name: ChannelName, cap: ReadCap) -> Commit<ChannelId> {
        self.add(name, cap, Content::Stream)
    }

    /// Adds a channel that we read, and that carries this.
    pub fn add(&self, name: ChannelName, cap: ReadCap, content: Content) -> Commit<ChannelId> {
        self.send_once(GROWS, |_| Outcome::Done, move |ledger| ledger.add(&name, &cap, content))
    }

    /// Gives a channel another name, which must be free.
    pub fn rename(&self, old: ChannelName, new: ChannelName) -> Commit<()> {
        self.send_once(Kind::default(), |()| Outcome::Done, move |ledger| ledger.rename(&old, &new))
    }

    /// Gives a channel a name that may be another's which could be unlinked; that one is.
    pub fn rename_over(&self, old: ChannelName, new: ChannelName) -> Commit<()> {
        self.submit(move |ledger| ledger.rename_over(&old, &new))
    }

    /// Two channels take each other's name, at once.
    pub fn exchange(&self, one: ChannelName, other: ChannelName) -> Commit<()> {
        self.submit(move |ledger| ledger.exchange(&one, &other))
    }

    /// Drops the oldest bytes of a channel that are stored (writer) or have arrived (reader), until at most
    /// `keep_bytes` of them are left; the last box stays. They cannot be read any more. Says how many bytes went.
    pub fn trim(&self, id: ChannelId, keep_bytes: u64) -> Commit<u64> {
        self.send_once(
            Kind::default(),
            |&bytes| Outcome::Trimmed { bytes },
            move |ledger| {
                ledger.give_up(GivenUp::Later);
                ledger.trim(id, keep_bytes)
            },
        )
    }

    /// Gives a channel up, its capability and its bytes, whatever was sent of it. Its boxes are deleted afterwards.
    pub fn forget(&self, name: ChannelName) -> Commit<()> {
        self.send_once(Kind::default(), |()| Outcome::Done, move |ledger| ledger.forget(&name))
    }

    /// Removes a channel of which nothing was launched or shown.
    pub fn unlink(&self, id: ChannelId) -> Commit<()> {
        self.submit(move |ledger| ledger.unlink(id))
    }

    /// Empties a channel of which nothing was launched or shown. An empty one stays as it is.
    pub fn truncate(&self, id: ChannelId) -> Commit<()> {
        self.submit(move |ledger| ledger.truncate(id))
    }

    /// Appends the bytes, all of them or none. Appends to one channel apply in the order in which they are submitted.
    /// With a claim, they are appended only if the writer takes it first.
    pub fn append(&self, id: ChannelId, bytes: Vec<u8>, claim: Option<Claim>) -> Commit<Appended> {
        let mut claim = claim;
        let appended = |appended: &Appended| Outcome::Appended { size: appended.size };
        self.send_once(Kind { bytes: bytes.len(), ..GROWS }, appended, move |ledger| {
            // Taken once: a second attempt at the same request is still ours.
            if let Some(claim) = claim.take()
                && !claim.take_for_commit()
            {
                return Err(StoreError::Interrupted);
            }
            ledger.append(id, &bytes)
        })
    }

    /// Fixes the bytes of the open tail box. False: there is none.
    pub fn seal_tail(&self, id: ChannelId) -> Commit<bool> {
        self.submit(move |ledger| ledger.seal_tail(id))
    }

    /// After this commit, and never before, packets of these sealed boxes may leave. `rewrites` is the channel's from
    /// when they were looked up: boxes that were packed anew since are not launched with bytes that somebody remembers.
    /// The channel is bound to the network in the same transaction; where that is [`Binding::Refused`], nothing is launched.
    pub fn launch(&self, id: ChannelId, rewrites: u64, boxes: Vec<BoxSeq>, network: NetworkId) -> Commit<Binding> {
        self.submit(move |ledger| ledger.launch(id, rewrites, &boxes, &network))
    }

    /// Launched boxes are [`BoxState::Couriered`] or [`BoxState::Stored`] from now on; in any order, and again.
    pub fn confirm(&self, id: ChannelId, boxes: Vec<BoxSeq>, to: BoxState) -> Commit<()> {
        self.submit(move |ledger| ledger.confirm(id, &boxes, to))
    }

    /// The channel has failed for good: appends and launches are refused with this reason. The first one stays.
    pub fn fence(&self, id: ChannelId, reason: String) -> Commit<()> {
        self.submit(move |ledger| ledger.fence(id, &reason))
    }

    /// Binds a channel to a network, or compares: see [`Binding`]. A writer that has launched nothing is bound anew.
    pub fn bind_network(&self, id: ChannelId, network: NetworkId) -> Commit<Binding> {
        self.submit(move |ledger| ledger.bind_network(id, &network))
    }

    /// Sets M. What was not launched is packed anew; a launched, unconfirmed box that no longer fits fences the
    /// channel. Others wait while a large backlog is packed: some 20 MiB a second.
    pub fn set_max_plaintext(&self, id: ChannelId, bytes: usize) -> Commit<()> {
        self.send(Kind { wide: true, ..Kind::default() }, move |ledger| ledger.set_max_plaintext(id, bytes))
    }

    /// Whose word lets the next box of a writer go, from now on.
    pub fn set_durability(&self, id: ChannelId, durability: Durability) -> Commit<()> {
        self.submit(move |ledger| ledger.set_durability(id, durability))
    }

    /// Keeps what the network said about boxes of a channel that we read, in one transaction.
    pub fn received(&self, id: ChannelId, arrivals: Vec<(BoxSeq, Arrival)>) -> Commit<Frontier> {
        let bytes =
            arrivals.iter().map(|(_, arrival)| if let Arrival::Message(bytes) = arrival { bytes.len() } else { 0 });
        let bytes = bytes.sum();
        // What arrives comes again: it must not use up the room that is set aside for what does not, confirmations.
        self.send(Kind { grows: bytes > 0, bytes, ..Kind::default() }, move |ledger| ledger.received(id, &arrivals))
    }

    /// Gives up the boxes that are missing at the frontier of a channel that we read, and goes on behind them.
    pub fn skip(&self, id: ChannelId) -> Commit<Skipped> {
        let skipped = |it: &Skipped| Outcome::Skipped { first: it.first.0, boxes: it.boxes, bytes: it.bytes };
        self.send_once(Kind::default(), skipped, move |ledger| ledger.skip(id))
    }

    /// A channel that we read is to be searched for boxes that still live, however new its verdict is.
    pub fn search(&self, id: ChannelId) -> Commit<()> {
        self.submit(move |ledger| ledger.search(id))
    }

    /// Goes on with the search of a channel that looks `span` boxes far, or begins one, with what is left of `per_day`
    /// reads; `None`, where less than `least` are left.
    pub fn begin_search(&self, id: ChannelId, per_day: u32, least: u32, span: u64) -> Commit<Option<Searching>> {
        self.submit(move |ledger| ledger.begin_search(id, per_day, least, span))
    }

    /// Keeps how far a search has come.
    pub fn searched_so_far(&self, id: ChannelId, so_far: Searching) -> Commit<()> {
        self.submit(move |ledger| ledger.searched_so_far(id, &so_far))
    }

    /// Ends a search.
    pub fn end_search(&self, id: ChannelId, came: Searched) -> Commit<()> {
        self.submit(move |ledger| ledger.end_search(id, &came))
    }

    /// What the newest document of the network says of the network's own time: its replica epoch, in weeks. What expires
    /// is judged by it, and while it is not known nothing does.
    pub fn set_replica_epoch(&self, epoch: Option<u64>) -> Commit<()> {
        self.submit(move |ledger| ledger.set_replica_epoch(epoch))
    }

    /// The network is to be asked what another writer wrote into a fenced channel: see [`Store::adoptions`].
    pub fn adopt(&self, id: ChannelId) -> Commit<()> {
        self.send_once(Kind::default(), |()| Outcome::Done, move |ledger| ledger.adopt(id))
    }

    /// Keeps what stands at the indices of a channel that is being adopted, from `from` on and in order.
    pub fn found(&self, id: ChannelId, from: BoxSeq, findings: Vec<Finding>) -> Commit<()> {
        let bytes =
            findings.iter().map(|found| if let Finding::Foreign(bytes) = found { bytes.len() } else { 0 }).sum();
        self.send(Kind { grows: bytes > 0, bytes, ..Kind::default() }, move |ledger| ledger.found(id, from, &findings))
    }

    /// Rewrites a channel once it is known what stands at each of its indices, and lifts its fence. Others wait
    /// meanwhile, as with [`Store::set_max_plaintext`].
    pub fn finish_adoption(&self, id: ChannelId) -> Commit<Adopted> {
        self.send(Kind { wide: true, ..Kind::default() }, move |ledger| ledger.finish_adoption(id))
    }

    /// Moves what is not stored of a fenced channel to a new one. Others wait meanwhile.
    pub fn move_unsent(&self, id: ChannelId, name: ChannelName, cap: WriteCap) -> Commit<Moved> {
        let kind = Kind { grows: true, wide: true, ..Kind::default() };
        let moved = |moved: &Moved| {
            let Moved { boxes, bytes, launched_boxes, .. } = *moved;
            Outcome::Moved { boxes, bytes, launched_boxes }
        };
        self.send_once(kind, moved, move |ledger| ledger.move_unsent(id, &name, &cap))
    }

    /// The capability in base64, to be shown to somebody else: the write capability, or the read capability that goes
    /// with it. From then on the channel cannot be taken back.
    pub fn reveal(&self, id: ChannelId, write: bool) -> Commit<Zeroizing<String>> {
        self.submit(move |ledger| ledger.reveal(id, write))
    }

    /// Keeps times and dropped permission bits; what is `None` stays.
    pub fn set_attributes(
        &self,
        id: ChannelId,
        accessed: Option<SystemTime>,
        modified: Option<SystemTime>,
        dropped_mode: Option<u32>,
    ) -> Commit<()> {
        let (accessed, modified) = (accessed.map(to_nanos), modified.map(to_nanos));
        self.submit(move |ledger| ledger.set_attributes(id, accessed, modified, dropped_mode))
    }

    /// The channel belongs to this user and this group, as files do.
    pub fn set_owner(&self, id: ChannelId, uid: u32, gid: u32) -> Commit<()> {
        self.submit(move |ledger| ledger.set_owner(id, uid, gid))
    }

    /// Does something while the writer thread writes nothing, not even what nobody waits for: the files of the database
    /// can be copied then as SIGKILL would leave them.
    #[cfg(test)]
    pub(crate) fn while_it_rests<T>(&self, work: impl FnOnce() -> T) -> T {
        let (rests, at_rest) = std::sync::mpsc::channel();
        let (done, is_done) = std::sync::mpsc::channel::<()>();
        let held = self.submit(move |_| {
            let _ = rests.send(());
            // Also where `work` panicked: `done` is dropped then.
            let _ = is_done.recv();
            Ok(())
        });
        at_rest.recv().expect("an open store");
        let worked = work();
        drop(done);
        held.wait().expect("an open store");
        worked
    }

    pub(super) fn submit<T: Send + 'static>(
        &self,
        request: impl FnMut(&mut Ledger<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Commit<T> {
        self.send(Kind::default(), request)
    }

    pub(super) fn grow<T: Send + 'static>(
        &self,
        bytes: usize,
        request: impl FnMut(&mut Ledger<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Commit<T> {
        self.send(Kind { grows: true, bytes, ..Kind::default() }, request)
    }

    pub(super) fn send<T: Send + 'static>(
        &self,
        kind: Kind,
        request: impl FnMut(&mut Ledger<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Commit<T> {
        let (reply, commit) = Commit::pending();
        self.queue().push(Task::boxed(kind, reply, request));
        commit
    }
}
