//! Contact vouchers, as far as they have come: invitations with channels of ours, and codes of others that are accepted.
//!
//! What is to be written to a rendezvous is committed before it is, and never changes. While a channel is invited with,
//! nothing of it is launched; with the other side's reply its capability, and the indices of all its boxes, move to the chain
//! that only the two sides know. That happens in one transaction, together with the other side's channel.
//! Source: `pigeonhole-internals.md` §6.

use rusqlite::{Row, params};
use zeroize::Zeroizing;

use super::channels::capability;
use super::ledger::{GivenUp, Ledger, int, role_code};
use super::queries::one;
use super::queue::Kind;
use super::{Capability, ChannelId, ChannelName, Commit, Content, NetworkId, Outcome, Role, Store, StoreError};
use crate::bacap::{ReadCap, WriteCap};

/// An invitation with a channel of ours.
#[derive(Clone)]
pub struct Invitation {
    /// The channel.
    pub channel: ChannelId,
    /// What whoever holds the code sees before it is used.
    pub display_name: String,
    /// How far it has come.
    pub stage: InvitationStage,
    /// What went wrong last.
    pub trouble: Option<String>,
}

/// How far an invitation has come.
#[derive(Clone)]
pub enum InvitationStage {
    /// The daemon is to make the voucher.
    Wanted,
    /// The voucher is made.
    Minted {
        /// BLAKE2b-256 of the payload: the code.
        voucher: Zeroizing<[u8; 32]>,
        /// For box 0 of the rendezvous.
        payload: Vec<u8>,
        /// Opens the reply.
        secret: Zeroizing<Vec<u8>>,
        /// The replica epoch in which the payload was put there; `None`: it is to be put there.
        epoch: Option<u64>,
    },
    /// The reply was opened.
    Done {
        /// The other side's channel, as it was named; `None`: the reply gave none.
        theirs: Option<String>,
    },
    /// It came to nothing.
    Failed,
}

/// A code of ours that was taken back: whoever has it must find nothing any more.
#[derive(Clone)]
pub struct Withdrawn {
    /// The code.
    pub voucher: Zeroizing<[u8; 32]>,
    /// Where its payload is.
    pub network: NetworkId,
}

/// A code of somebody else that is accepted.
#[derive(Clone)]
pub struct Acceptance {
    /// Its number.
    pub id: i64,
    /// The name that the inviter's channel gets.
    pub name: ChannelName,
    /// The channel whose read capability goes back.
    pub ours: ChannelId,
    /// The code.
    pub voucher: Zeroizing<[u8; 32]>,
    /// What the inviter calls itself, once that is known.
    pub display_name: Option<String>,
    /// How far it has come.
    pub stage: AcceptanceStage,
    /// What went wrong last.
    pub trouble: Option<String>,
}

/// How far an acceptance has come.
#[derive(Clone)]
pub enum AcceptanceStage {
    /// The payload is looked for.
    Looking,
    /// The reply is made.
    Inducted {
        /// For box 1 of the rendezvous.
        reply: Vec<u8>,
        /// It is there, and the inviter's channel was added; box 0 is to be deleted.
        is_there: bool,
    },
    /// Nothing is left to do.
    Done,
    /// It came to nothing.
    Failed,
}

/// A channel that a reply gives.
#[derive(Clone)]
pub struct GivenChannel {
    /// Its capability.
    pub cap: ReadCap,
    /// What it carries; `None`: its first box is to tell.
    pub content: Option<Content>,
    /// The name that it is to get here, as far as that is free.
    pub name: ChannelName,
}

/// Nanoseconds, three weeks: longer than any replica keeps a box.
const FORGOTTEN_AFTER: i64 = 21 * 86_400 * 1_000_000_000;

const INVITATION: &str =
    "SELECT channel, display_name, stage, voucher, payload, secret, epoch, theirs, trouble FROM invitation";
const ACCEPTANCE: &str = "SELECT id, name, ours, voucher, display_name, stage, reply, trouble FROM acceptance";

fn secret_bytes(row: &Row<'_>, column: usize) -> rusqlite::Result<Zeroizing<[u8; 32]>> {
    row.get(column).map(Zeroizing::new)
}

fn corrupt(column: usize, what: &str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Null, what.into())
}

fn invitation(row: &Row<'_>) -> rusqlite::Result<Invitation> {
    let stage = match row.get(2)? {
        0 => InvitationStage::Wanted,
        1..=3 => InvitationStage::Minted {
            voucher: secret_bytes(row, 3)?,
            payload: row.get(4)?,
            secret: Zeroizing::new(row.get(5)?),
            epoch: row.get::<_, Option<i64>>(6)?.and_then(|epoch| u64::try_from(epoch).ok()),
        },
        4 => InvitationStage::Done { theirs: row.get(7)? },
        _ => InvitationStage::Failed,
    };
    Ok(Invitation { channel: ChannelId(row.get(0)?), display_name: row.get(1)?, stage, trouble: row.get(8)? })
}

fn acceptance(row: &Row<'_>) -> rusqlite::Result<Acceptance> {
    let stage = match row.get(5)? {
        0 => AcceptanceStage::Looking,
        at @ 1..=2 => AcceptanceStage::Inducted { reply: row.get(6)?, is_there: at == 2 },
        3 => AcceptanceStage::Done,
        _ => AcceptanceStage::Failed,
    };
    Ok(Acceptance {
        id: row.get(0)?,
        name: ChannelName::parse(row.get_ref(1)?.as_str()?).map_err(|error| corrupt(1, &error.to_string()))?,
        ours: ChannelId(row.get(2)?),
        voucher: secret_bytes(row, 3)?,
        display_name: row.get(4)?,
        stage,
        trouble: row.get(7)?,
    })
}

impl Store {
    /// All invitations.
    pub fn invitations(&self) -> Result<Vec<Invitation>, StoreError> {
        self.readers().ask(|db| {
            let mut statement = db.prepare_cached(&format!("{INVITATION} ORDER BY channel"))?;
            let found = statement.query_map([], invitation)?;
            Ok(found.collect::<Result<_, _>>()?)
        })
    }

    /// The invitation with a channel.
    pub fn invitation(&self, id: ChannelId) -> Result<Option<Invitation>, StoreError> {
        self.readers().ask(|db| one(db, &format!("{INVITATION} WHERE channel = ?1"), [id.0], invitation))
    }

    /// All codes of ours that are to be deleted from their network.
    pub fn withdrawn(&self) -> Result<Vec<Withdrawn>, StoreError> {
        self.readers().ask(|db| {
            let sql = "SELECT w.voucher, n.keys FROM withdrawn w JOIN network n ON n.id = w.network ORDER BY w.at";
            let mut statement = db.prepare_cached(sql)?;
            let found = statement.query_map([], |row| {
                let network = NetworkId::from_bytes(&row.get::<_, Vec<u8>>(1)?);
                let network = network.ok_or_else(|| corrupt(1, "not whole keys"))?;
                Ok(Withdrawn { voucher: secret_bytes(row, 0)?, network })
            })?;
            Ok(found.collect::<Result<_, _>>()?)
        })
    }

    /// A code that was taken back is deleted from its network.
    pub fn withdrawal_done(&self, voucher: Zeroizing<[u8; 32]>) -> Commit<()> {
        self.submit(move |ledger| {
            ledger.run("DELETE FROM withdrawn WHERE voucher = ?1", [&voucher[..]])?;
            ledger.give_up(GivenUp::Later);
            Ok(())
        })
    }

    /// All codes that are accepted.
    pub fn acceptances(&self) -> Result<Vec<Acceptance>, StoreError> {
        self.readers().ask(|db| {
            let mut statement = db.prepare_cached(&format!("{ACCEPTANCE} ORDER BY id"))?;
            let found = statement.query_map([], acceptance)?;
            Ok(found.collect::<Result<_, _>>()?)
        })
    }

    /// The code that is accepted for a channel of this name.
    pub fn acceptance(&self, name: &ChannelName) -> Result<Option<Acceptance>, StoreError> {
        self.readers().ask(|db| one(db, &format!("{ACCEPTANCE} WHERE name = ?1"), [name.as_str()], acceptance))
    }

    /// Invites with a channel that we write, made where it is missing. `wanted`: the name that the other side's channel gets.
    pub fn invite(
        &self,
        name: ChannelName,
        fresh: WriteCap,
        content: Content,
        display_name: String,
        wanted: Option<ChannelName>,
    ) -> Commit<ChannelId> {
        let kind = Kind { grows: true, wide: false, bytes: 0 };
        self.send_once(
            kind,
            |_| Outcome::Done,
            move |ledger| ledger.invite(&name, &fresh, content, &display_name, wanted.as_ref()),
        )
    }

    /// The daemon has made the voucher of an invitation.
    pub fn minted(&self, id: ChannelId, voucher: [u8; 32], payload: Vec<u8>, secret: Zeroizing<Vec<u8>>) -> Commit<()> {
        self.submit(move |ledger| {
            ledger.run(
                "UPDATE invitation SET stage = 1, voucher = ?2, payload = ?3, secret = ?4, trouble = NULL
                 WHERE channel = ?1 AND stage = 0",
                params![id.0, voucher, payload, &secret[..]],
            )?;
            ledger.touch(id);
            Ok(())
        })
    }

    /// The payload of an invitation is at the rendezvous.
    pub fn is_at_rendezvous(&self, id: ChannelId, epoch: Option<u64>) -> Commit<()> {
        self.submit(move |ledger| {
            ledger.run(
                "UPDATE invitation SET stage = 2, epoch = ?2, trouble = NULL WHERE channel = ?1 AND stage IN (1, 2)",
                params![id.0, int(epoch.unwrap_or_default())],
            )?;
            ledger.touch(id);
            Ok(())
        })
    }

    /// The reply to an invitation was opened: the channel goes on with this capability, and the channel that was given is
    /// added.
    pub fn opened(&self, id: ChannelId, cap: WriteCap, given: Option<GivenChannel>) -> Commit<()> {
        self.send(Kind { wide: true, ..Kind::default() }, move |ledger| ledger.opened(id, &cap, given.as_ref()))
    }

    /// What went wrong with an invitation; `for_good`: nothing comes of it.
    pub fn invitation_trouble(&self, id: ChannelId, trouble: String, for_good: bool) -> Commit<()> {
        self.submit(move |ledger| {
            let sql = "UPDATE invitation SET trouble = ?2, stage = CASE WHEN ?3 THEN 5 ELSE stage END,
                              secret = CASE WHEN ?3 THEN NULL ELSE secret END
                       WHERE channel = ?1 AND stage < 4";
            ledger.run(sql, params![id.0, trouble, for_good])?;
            ledger.touch(id);
            Ok(())
        })
    }

    /// Ends an invitation, and removes its channel, which must be empty.
    pub fn cancel_invitation(&self, id: ChannelId) -> Commit<()> {
        self.submit(move |ledger| ledger.cancel_invitation(id))
    }

    /// Accepts a code for a channel that gets this name, and gives a channel of ours for it.
    pub fn accept_code(&self, name: ChannelName, ours: ChannelId, voucher: Zeroizing<[u8; 32]>) -> Commit<()> {
        self.submit(move |ledger| ledger.accept_code(&name, ours, &voucher))
    }

    /// The daemon has made the reply to an inviter, whose channel this is.
    pub fn inducted(&self, id: i64, display_name: String, cap: ReadCap, reply: Vec<u8>) -> Commit<()> {
        self.submit(move |ledger| {
            let bytes = cap.to_bytes();
            ledger.run(
                "UPDATE acceptance SET stage = 1, display_name = ?2, cap = ?3, reply = ?4, trouble = NULL
                 WHERE id = ?1 AND stage = 0",
                params![id, display_name, &bytes[..], reply],
            )?;
            let ours =
                ledger.one("SELECT ours FROM acceptance WHERE id = ?1", [id], |row| row.get(0).map(ChannelId))?;
            if let Some(ours) = ours {
                ledger.run("UPDATE channel SET shown = 1 WHERE id = ?1", [ours.0])?;
                ledger.touch(ours);
            }
            Ok(())
        })
    }

    /// The reply is at the rendezvous: the inviter's channel is added.
    pub fn reply_is_there(&self, id: i64) -> Commit<()> {
        self.submit(move |ledger| ledger.reply_is_there(id))
    }

    /// Nothing is left to do for a code.
    pub fn acceptance_done(&self, id: i64) -> Commit<()> {
        self.submit(move |ledger| {
            let sql =
                "UPDATE acceptance SET stage = 3, reply = NULL, cap = NULL, trouble = NULL WHERE id = ?1 AND stage = 2";
            ledger.run(sql, [id]).map(drop)
        })
    }

    /// What went wrong with a code; `for_good`: nothing comes of it.
    pub fn acceptance_trouble(&self, id: i64, trouble: String, for_good: bool) -> Commit<()> {
        self.submit(move |ledger| {
            let sql = "UPDATE acceptance SET trouble = ?2, stage = CASE WHEN ?3 THEN 4 ELSE stage END
                       WHERE id = ?1 AND stage < 3";
            ledger.run(sql, params![id, trouble, for_good]).map(drop)
        })
    }

    /// Accepts a code no longer.
    pub fn cancel_acceptance(&self, id: i64) -> Commit<()> {
        self.submit(move |ledger| {
            ledger.run("DELETE FROM acceptance WHERE id = ?1 AND stage IN (0, 4)", [id]).map(drop)
        })
    }
}

impl Ledger<'_> {
    /// Whether nothing of the channel may leave, as its indices are to move.
    pub(super) fn is_invited(&self, id: ChannelId) -> Result<bool, StoreError> {
        let sql = "SELECT 1 FROM invitation WHERE channel = ?1 AND stage <> 4";
        Ok(self.one(sql, [id.0], |_| Ok(()))?.is_some())
    }

    pub(super) fn check_not_invited(&self, id: ChannelId, name: &str) -> Result<(), StoreError> {
        if self.is_invited(id)? { Err(StoreError::Invited { name: name.to_owned() }) } else { Ok(()) }
    }

    fn invite(
        &mut self,
        name: &ChannelName,
        fresh: &WriteCap,
        content: Content,
        display_name: &str,
        wanted: Option<&ChannelName>,
    ) -> Result<ChannelId, StoreError> {
        let id = match self.id_of(name)? {
            None => self.create(name, fresh, content, false)?,
            Some(id) => {
                let record = self.writer(id)?;
                record.check_takes_back()?;
                let elsewhere =
                    self.one("SELECT cap_elsewhere FROM channel WHERE id = ?1", [id.0], |row| row.get(0))?;
                if elsewhere == Some(true) {
                    return Err(StoreError::AlreadyLaunched { name: record.name });
                }
                // One whose voucher was never made may be asked for anew.
                let stage = self.one("SELECT stage FROM invitation WHERE channel = ?1", [id.0], |row| row.get(0))?;
                if stage.is_some_and(|stage: i64| stage != 0) {
                    return Err(StoreError::Invited { name: record.name });
                }
                id
            }
        };
        self.run(
            "INSERT INTO invitation (channel, display_name, wanted, stage) VALUES (?1, ?2, ?3, 0)
             ON CONFLICT (channel) DO UPDATE SET display_name = excluded.display_name, wanted = excluded.wanted",
            params![id.0, display_name, wanted.map(ChannelName::as_str)],
        )?;
        // What somebody has looked up to launch is not launched.
        self.run("UPDATE channel SET rewrites = rewrites + 1 WHERE id = ?1", [id.0])?;
        self.touch(id);
        Ok(id)
    }

    fn opened(&mut self, id: ChannelId, cap: &WriteCap, given: Option<&GivenChannel>) -> Result<(), StoreError> {
        let record = self.writer(id)?;
        if !self.is_invited(id)? {
            return Ok(());
        }
        self.run("UPDATE invitation SET stage = 3 WHERE channel = ?1", [id.0])?;
        let mut boxes = Vec::new();
        self.each("SELECT id FROM box WHERE chain = ?1 ORDER BY seq", [record.chain], |row| {
            boxes.push(row.get::<_, i64>(0)?);
            Ok(true)
        })?;
        let mut index = cap.index().clone();
        for row in boxes {
            self.run("UPDATE box SET index104 = ?2 WHERE id = ?1", params![row, index.as_bytes()])?;
            index = index.next()?;
        }
        let bytes = cap.to_bytes();
        self.run(
            "UPDATE channel SET cap = ?2, next_index = ?3, rewrites = rewrites + 1 WHERE id = ?1",
            params![id.0, &bytes[..], index.as_bytes()],
        )?;
        let theirs = match given {
            None => None,
            Some(given) => {
                let wanted = self.one("SELECT wanted FROM invitation WHERE channel = ?1", [id.0], |row| {
                    row.get::<_, Option<String>>(0)
                })?;
                let wanted = wanted.flatten().and_then(|name| ChannelName::parse(&name).ok());
                let name = wanted.as_ref().unwrap_or(&given.name);
                Some(self.add_given(name, &given.cap, given.content)?)
            }
        };
        self.run(
            "UPDATE invitation SET stage = 4, secret = NULL, payload = NULL, theirs = ?2, trouble = NULL WHERE channel = ?1",
            params![id.0, theirs],
        )?;
        self.touch(id);
        Ok(())
    }

    /// Adds a channel of somebody else under the name, or one like it that is free; says which. One that is held already
    /// stays as it is.
    fn add_given(&mut self, name: &ChannelName, cap: &ReadCap, content: Option<Content>) -> Result<String, StoreError> {
        let root = cap.to_bytes();
        let known = self.one(
            "SELECT name FROM channel WHERE role = ?1 AND substr(cap, 1, 32) = ?2",
            params![role_code(Role::Reader), &root[..32]],
            |row| row.get::<_, String>(0),
        )?;
        if let Some(known) = known {
            return Ok(known);
        }
        let name = self.free_name(name)?;
        let id = self.add(&name, cap, content.unwrap_or(Content::Stream))?;
        self.run("UPDATE channel SET kind_is_told = ?2 WHERE id = ?1", params![id.0, content.is_none()])?;
        Ok(name.to_string())
    }

    fn free_name(&self, name: &ChannelName) -> Result<ChannelName, StoreError> {
        if self.id_of(name)?.is_none() {
            return Ok(name.clone());
        }
        let base: String = name.as_str().chars().take(40).collect();
        for number in 2..10_000 {
            if let Ok(other) = ChannelName::parse(&format!("{base}-{number}"))
                && self.id_of(&other)?.is_none()
            {
                return Ok(other);
            }
        }
        Err(StoreError::NameTaken { name: name.to_string() })
    }

    /// Keeps the code of an invitation that goes for its deletion from the network.
    pub(super) fn withdraw(&mut self, id: ChannelId) -> Result<(), StoreError> {
        // Those that are older than replicas keep anything go without that.
        self.run("DELETE FROM withdrawn WHERE at < ?1", [self.now.saturating_sub(FORGOTTEN_AFTER)])?;
        let sql = "INSERT OR IGNORE INTO withdrawn (voucher, network, at)
                   SELECT i.voucher, c.network, ?2 FROM invitation i JOIN channel c ON c.id = i.channel
                   WHERE c.id = ?1 AND i.stage IN (1, 2, 5) AND i.voucher IS NOT NULL AND c.network IS NOT NULL";
        self.run(sql, params![id.0, self.now]).map(drop)
    }

    fn cancel_invitation(&mut self, id: ChannelId) -> Result<(), StoreError> {
        let record = self.writer(id)?;
        let files = "SELECT 1 FROM drop_record WHERE chain = ?1 LIMIT 1";
        let is_empty = record.size == 0 && self.one(files, [record.chain], |_| Ok(()))?.is_none();
        if !self.is_invited(id)? {
            return Err(StoreError::NotInvited { name: record.name });
        }
        if !is_empty {
            return Err(StoreError::Invited { name: record.name });
        }
        self.withdraw(id)?;
        self.run("DELETE FROM invitation WHERE channel = ?1", [id.0])?;
        self.unlink(id)
    }

    fn accept_code(&mut self, name: &ChannelName, ours: ChannelId, voucher: &[u8; 32]) -> Result<(), StoreError> {
        let record = self.record(ours)?;
        self.check_not_invited(ours, &record.name)?;
        let found = self.one(
            "SELECT stage, voucher = ?2, ours = ?3 FROM acceptance WHERE name = ?1",
            params![name.as_str(), voucher, ours.0],
            |row| Ok((row.get::<_, i64>(0)?, row.get::<_, bool>(1)? && row.get::<_, bool>(2)?)),
        )?;
        let name_is_free = self.id_of(name)?.is_none();
        match found {
            // It goes on, or is done.
            Some((0..=2, true)) => return Ok(()),
            Some((3, true)) if !name_is_free => return Ok(()),
            // A reply has left.
            Some((1..=2, false)) => return Err(StoreError::NameTaken { name: name.to_string() }),
            Some(_) => drop(self.run("DELETE FROM acceptance WHERE name = ?1", [name.as_str()])?),
            None => {}
        }
        if !name_is_free {
            return Err(StoreError::NameTaken { name: name.to_string() });
        }
        let other =
            self.one("SELECT name FROM acceptance WHERE voucher = ?1", [voucher], |row| row.get::<_, String>(0))?;
        if let Some(other) = other {
            return Err(StoreError::CapKnown { name: other });
        }
        self.run(
            "INSERT INTO acceptance (name, ours, voucher, stage) VALUES (?1, ?2, ?3, 0)",
            params![name.as_str(), ours.0, voucher],
        )?;
        self.touch(ours);
        Ok(())
    }

    fn reply_is_there(&mut self, id: i64) -> Result<(), StoreError> {
        let found = self.one("SELECT name, cap FROM acceptance WHERE id = ?1 AND stage = 1", [id], |row| {
            Ok((row.get::<_, String>(0)?, Zeroizing::new(row.get::<_, Vec<u8>>(1)?)))
        })?;
        let Some((name, cap)) = found else { return Ok(()) };
        let name = ChannelName::parse(&name).map_err(|error| StoreError::Corrupt { reason: error.to_string() })?;
        let Capability::Read(cap) = capability(Role::Reader, &cap)? else { return Err(StoreError::NotAReader) };
        self.add_given(&name, &cap, None)?;
        self.run("UPDATE acceptance SET stage = 2, trouble = NULL WHERE id = ?1", [id]).map(drop)
    }
}
