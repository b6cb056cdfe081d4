//! Channels from hand to hand: what a capability's text says of its channel, and what its first box says.

use std::time::SystemTime;

use rusqlite::params;
use tracing::warn;

use super::channels::capability;
use super::ledger::{Ledger, Record};
use super::nanos::to_nanos;
use super::{Arrival, BoxSeq, Capability, ChannelId, ChannelName, Commit, Content, Store, StoreError};
use crate::bacap::{AnyCap, TextNetwork};
use crate::drop::Header;

/// A capability that is taken in, and what is known of its channel.
#[derive(Clone, Debug)]
pub struct Taken {
    /// The capability.
    pub cap: AnyCap,
    /// What the channel carries.
    pub content: Content,
    /// A person said so, and the capability does not: its first box is to tell.
    pub kind_is_told: bool,
    /// The network that its text names.
    pub network: TextNetwork,
    /// Another hash of the network is refused.
    pub strict_network: bool,
    /// Until when its writer keeps it on the network.
    pub kept_until: Option<SystemTime>,
}

impl Store {
    /// Takes a capability in.
    pub fn take_in(&self, name: ChannelName, taken: Taken) -> Commit<ChannelId> {
        self.submit(move |ledger| ledger.take_in(&name, &taken))
    }

    /// Until when the boxes of a channel are kept on the network: by us (writer), or by its writer (reader).
    pub fn keep_until(&self, id: ChannelId, until: Option<SystemTime>) -> Commit<()> {
        self.submit(move |ledger| {
            let nanos = until.map(to_nanos);
            ledger.run("UPDATE channel SET kept_until = ?2 WHERE id = ?1", params![id.0, nanos])?;
            if ledger.is_kept(id, ledger.replica_epoch()?)? {
                // What was not found is late: neither the end of the channel nor lost.
                ledger.run(
                    "UPDATE channel SET verdict_at = NULL, verdict_epoch = NULL, stale_since = NULL,
                            stale_epoch = NULL, lost_end = 0
                     WHERE id = ?1 AND role = 1",
                    [id.0],
                )?;
            }
            ledger.touch(id);
            Ok(())
        })
    }
}

impl Ledger<'_> {
    fn take_in(&mut self, name: &ChannelName, taken: &Taken) -> Result<ChannelId, StoreError> {
        let id = match &taken.cap {
            AnyCap::Write(cap) => self.create(name, cap, taken.content, true)?,
            AnyCap::Read(cap) => self.add(name, cap, taken.content)?,
        };
        let network = (taken.network != TextNetwork::Unbound).then(|| taken.network.to_bytes());
        let told = taken.kind_is_told && matches!(taken.cap, AnyCap::Read(_));
        self.run(
            "UPDATE channel SET kind_is_told = ?2, text_network = ?3, strict_network = ?4, kept_until = ?5 WHERE id = ?1",
            params![id.0, told, network, taken.strict_network, taken.kept_until.map(to_nanos)],
        )?;
        Ok(id)
    }

    /// Where a person has said what a channel carries, and not its capability, its first box decides. Where it says
    /// otherwise, the channel is taken in anew under its name, as what it is, and its boxes are fetched again: true.
    pub(super) fn settle_kind(
        &mut self,
        id: ChannelId,
        record: &Record,
        arrivals: &[(BoxSeq, Arrival)],
    ) -> Result<bool, StoreError> {
        let Some((_, Arrival::Message(first))) = arrivals.iter().find(|(seq, _)| seq.0 == 0) else { return Ok(false) };
        let told = self.one("SELECT kind_is_told FROM channel WHERE id = ?1", [id.0], |row| row.get(0))?;
        if told != Some(true) || record.frontier > 0 {
            return Ok(false);
        }
        let is_drop = Header::decode(first).is_ok();
        if record.content.is_drop() == is_drop {
            self.run("UPDATE channel SET kind_is_told = 0 WHERE id = ?1", [id.0])?;
            return Ok(false);
        }
        let sql = "SELECT cap, text_network, strict_network, kept_until, network FROM channel WHERE id = ?1";
        let found = self.one(sql, [id.0], |row| {
            let cap: Vec<u8> = row.get(0)?;
            let rest: (Option<Vec<u8>>, bool, Option<i64>, Option<i64>) =
                (row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?);
            Ok((zeroize::Zeroizing::new(cap), rest))
        })?;
        let (bytes, (text_network, strict, kept_until, network)) = found.ok_or(StoreError::NoChannel)?;
        let name =
            ChannelName::parse(&record.name).map_err(|error| StoreError::Corrupt { reason: error.to_string() })?;
        let Capability::Read(cap) = capability(record.role, &bytes)? else { return Err(StoreError::NotAReader) };
        self.forget(&name)?;
        let content = if is_drop { Content::Drop { allow_delete: false } } else { Content::Stream };
        let new = self.add(&name, &cap, content)?;
        self.run(
            "UPDATE channel SET text_network = ?2, strict_network = ?3, kept_until = ?4, network = ?5 WHERE id = ?1",
            params![new.0, text_network, strict, kept_until, network],
        )?;
        let (told, is) = if is_drop { ("stream", "drop") } else { ("drop", "stream") };
        let text =
            format!("it was added as a {told}, and its first box shows that it is a {is}: it is one from now on");
        warn!(channel = %name, "{text}");
        self.run("INSERT INTO note (channel, at, text) VALUES (?1, ?2, ?3)", params![new.0, self.now, text])?;
        Ok(true)
    }
}
