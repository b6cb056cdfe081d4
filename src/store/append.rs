//! A writer's side: what is accepted, packed into boxes, launched and confirmed.

use rusqlite::{OptionalExtension, params};
use zeroize::Zeroizing;

use super::query::{CHANNEL_COLUMNS, channel_from_row, now_ns};
use super::writer::{Commit, Store, Tx};
use super::{
    Appended, Binding, BoxSeq, BoxState, Capability, Channel, ChannelId, ChannelName, Claim, NetworkId, Role,
    StoreError,
};
use crate::bacap::{BoxIndex, ReadCap, WriteCap};

/// M of a channel that no network has told its own yet.
const PROVISIONAL_MAX_PLAINTEXT: i64 = 1549;

impl Store {
    /// Makes a stream that can be appended to.
    pub fn create_stream(&self, name: ChannelName, cap: WriteCap) -> Commit<ChannelId> {
        self.submit(false, move |tx| {
            let root = &cap.read_cap().to_bytes()[..32];
            insert_channel(tx, &name, Role::Writer, &*cap.to_bytes(), root, cap.index())
        })
    }

    /// Makes a stream that can be read.
    pub fn add_reader(&self, name: ChannelName, cap: ReadCap) -> Commit<ChannelId> {
        self.submit(false, move |tx| {
            let bytes = cap.to_bytes();
            insert_channel(tx, &name, Role::Reader, &*bytes, &bytes[..32], cap.index())
        })
    }

    /// Gives a channel a free name.
    pub fn rename(&self, old: ChannelName, new: ChannelName) -> Commit<()> {
        self.submit(false, move |tx| rename(tx, &old, &new))
    }

    /// Gives a channel a name that a stream may have which can still be taken back; that one goes with it.
    pub fn rename_over(&self, old: ChannelName, new: ChannelName) -> Commit<()> {
        self.submit(false, move |tx| {
            if old != new
                && let Some(there) = by_name(tx, &new)?
            {
                require_revocable(&there)?;
                delete(tx, there.id)?;
            }
            rename(tx, &old, &new)
        })
    }

    /// Drops a channel with its capability and its bytes, in one transaction.
    pub fn forget(&self, name: ChannelName) -> Commit<()> {
        self.submit(true, move |tx| {
            let channel = by_name(tx, &name)?.ok_or(StoreError::NoChannel)?;
            delete(tx, channel.id)
        })
    }

    /// Drops a stream that never left this machine and whose capability nobody was shown.
    pub fn unlink(&self, id: ChannelId) -> Commit<()> {
        self.submit(true, move |tx| {
            require_revocable(&channel(tx, id)?)?;
            delete(tx, id)
        })
    }

    /// Empties a stream that never left this machine and whose capability nobody was shown.
    pub fn truncate(&self, id: ChannelId) -> Commit<()> {
        self.submit(true, move |tx| {
            let channel = channel(tx, id)?;
            if channel.size == 0 {
                return Ok(());
            }
            require_revocable(&channel)?;
            tx.sql.prepare_cached("DELETE FROM box WHERE channel = ?")?.execute([id.0])?;
            let start = first_index(tx, id)?;
            tx.sql
                .prepare_cached(
                    "UPDATE channel SET size = 0, boxes = 0, tail_bytes = 0, next_index = ?2, rewrites = rewrites + 1,
                     modified = ?3 WHERE id = ?1",
                )?
                .execute(params![id.0, start.as_bytes(), now_ns()])?;
            tx.spool_bytes = tx.spool_bytes.saturating_sub(channel.size);
            tx.touched.insert(id);
            Ok(())
        })
    }

    /// Appends bytes: into the open tail, and into new boxes behind it. All of them or none.
    pub fn append(&self, id: ChannelId, bytes: Vec<u8>, claim: Option<Claim>) -> Commit<Appended> {
        self.submit(false, move |tx| {
            let channel = channel(tx, id)?;
            if channel.role == Role::Reader {
                return Err(StoreError::ReadOnly);
            }
            if let Some(reason) = channel.fence {
                return Err(StoreError::Fenced { name: channel.name.to_string(), reason });
            }
            let more = bytes.len() as u64;
            if tx.spool_bytes.saturating_add(more) > tx.spool_limit {
                return Err(StoreError::SpoolFull { limit: tx.spool_limit });
            }
            if !tx.has_reserve() {
                return Err(StoreError::DiskFull);
            }
            if claim.as_ref().is_some_and(|claim| !claim.take_for_commit()) {
                return Err(StoreError::Interrupted);
            }
            let offset = channel.size;
            let mut packer = Packer::of(tx, channel)?;
            packer.pack(tx, &bytes)?;
            packer.finish(tx)?;
            tx.spool_bytes += more;
            Ok(Appended { offset, size: offset + more })
        })
    }

    /// Seals the open tail; whether there was one.
    pub fn seal_tail(&self, id: ChannelId) -> Commit<bool> {
        self.submit(true, move |tx| seal_tail(tx, id))
    }

    /// Commits that packets of these boxes may leave. `rewrites` is the channel's, as it was when they were looked up:
    /// boxes that were packed anew since are not launched with bytes that somebody remembers.
    pub fn launch(&self, id: ChannelId, rewrites: u64, boxes: Vec<BoxSeq>) -> Commit<()> {
        self.submit(true, move |tx| {
            if channel(tx, id)?.rewrites != rewrites {
                return Err(StoreError::Rewritten);
            }
            let mut launch =
                tx.sql.prepare_cached("UPDATE box SET state = 2 WHERE channel = ? AND seq = ? AND state = 1")?;
            for seq in &boxes {
                if launch.execute(params![id.0, row_number(*seq)?])? != 1 {
                    return Err(StoreError::Rewritten);
                }
            }
            tx.sql.prepare_cached("UPDATE channel SET launched = 1 WHERE id = ?")?.execute([id.0])?;
            tx.touched.insert(id);
            Ok(())
        })
    }

    /// Commits that boxes were launched before now have come to `state`: `Couriered` or `Stored`.
    pub fn confirm(&self, id: ChannelId, boxes: Vec<BoxSeq>, state: BoxState) -> Commit<()> {
        assert!(
            matches!(state, BoxState::Couriered | BoxState::Stored),
            "a confirmation is a courier's or a replica's"
        );
        self.submit(true, move |tx| {
            let channel = channel(tx, id)?;
            let mut confirmed = 0_i64;
            {
                let mut confirm = tx.sql.prepare_cached(
                    "UPDATE box SET state = ?3 WHERE channel = ?1 AND seq = ?2 AND state BETWEEN 2 AND ?3 - 1",
                )?;
                for seq in &boxes {
                    let changed = confirm.execute(params![id.0, row_number(*seq)?, state as u8])?;
                    confirmed += i64::from(changed > 0 && state == BoxState::Stored);
                }
            }
            let (prefix, bytes) = stored_prefix(tx, &channel)?;
            tx.sql
                .prepare_cached(
                    "UPDATE channel SET stored_boxes = stored_boxes + ?2, first_unstored = ?3,
                     stored_bytes = stored_bytes + ?4 WHERE id = ?1",
                )?
                .execute(params![id.0, confirmed, prefix, bytes])?;
            tx.spool_bytes = tx.spool_bytes.saturating_sub(u64::try_from(bytes).unwrap_or(0));
            tx.touched.insert(id);
            Ok(())
        })
    }

    /// Stops a channel; its first reason stays.
    pub fn fence(&self, id: ChannelId, reason: String) -> Commit<()> {
        self.submit(true, move |tx| fence(tx, id, &reason))
    }

    /// Binds a channel that has no network yet; says whether it belongs to this one.
    pub fn bind_network(&self, id: ChannelId, network: NetworkId) -> Commit<Binding> {
        self.submit(true, move |tx| match channel(tx, id)?.network {
            Some(bound) if bound.is_same_network_as(&network) => Ok(Binding::Matches),
            Some(_) => Ok(Binding::Refused),
            None => {
                tx.sql
                    .prepare_cached("UPDATE channel SET network = ?2 WHERE id = ?1")?
                    .execute(params![id.0, network.to_blob()])?;
                tx.touched.insert(id);
                Ok(Binding::Bound)
            }
        })
    }

    /// Fits a channel to a network's M. Boxes that are too long are packed anew where they were not launched; one
    /// that was, and is not confirmed, fences the channel.
    pub fn set_max_plaintext(&self, id: ChannelId, max_plaintext: usize) -> Commit<()> {
        self.submit(true, move |tx| {
            let before = channel(tx, id)?;
            if before.max_plaintext == max_plaintext {
                return Ok(());
            }
            tx.sql
                .prepare_cached("UPDATE channel SET max_plaintext = ?2 WHERE id = ?1")?
                .execute(params![id.0, int(max_plaintext)])?;
            tx.touched.insert(id);
            let too_long = |states: &str| {
                let text = format!(
                    "SELECT EXISTS (SELECT 1 FROM box WHERE channel = ? AND seq >= ? AND state IN ({states})
                     AND length(payload) > ?)"
                );
                tx.sql
                    .prepare_cached(&text)?
                    .query_row(params![id.0, row_number(before.first_unstored)?, int(max_plaintext)], |row| row.get(0))
                    .map_err(StoreError::from)
            };
            if too_long("2, 3")? {
                let reason = format!("a box that was sent does not fit this network's boxes of {max_plaintext} bytes");
                return fence(tx, id, &reason);
            }
            if too_long("0, 1")? { repack(tx, id) } else { Ok(()) }
        })
    }

    /// Gives a capability out as base64; from then on the stream cannot be taken back.
    pub fn reveal(&self, id: ChannelId, write: bool) -> Commit<Zeroizing<String>> {
        self.submit(true, move |tx| {
            let text = match (capability(tx, id)?, write) {
                (Capability::Write(cap), true) => cap.to_base64(),
                (Capability::Write(cap), false) => cap.read_cap().to_base64(),
                (Capability::Read(cap), false) => cap.to_base64(),
                (Capability::Read(_), true) => return Err(StoreError::ReadOnly),
            };
            tx.sql.prepare_cached("UPDATE channel SET shown = 1 WHERE id = ?")?.execute([id.0])?;
            tx.touched.insert(id);
            Ok(text)
        })
    }

    /// Keeps times and dropped permission bits; what is `None` stays.
    pub fn set_attributes(
        &self,
        id: ChannelId,
        accessed: Option<std::time::SystemTime>,
        modified: Option<std::time::SystemTime>,
        dropped_mode: Option<u32>,
    ) -> Commit<()> {
        self.submit(false, move |tx| {
            let ns = |time: Option<std::time::SystemTime>| time.map(super::query::to_ns);
            let changed = tx
                .sql
                .prepare_cached(
                    "UPDATE channel SET accessed = coalesce(?2, accessed), modified = coalesce(?3, modified),
                     dropped_mode = coalesce(?4, dropped_mode) WHERE id = ?1",
                )?
                .execute(params![id.0, ns(accessed), ns(modified), dropped_mode])?;
            if changed == 0 { Err(StoreError::NoChannel) } else { Ok(()) }
        })
    }
}

/// Puts bytes into boxes at the end of one channel.
struct Packer {
    channel: Channel,
    next_index: BoxIndex,
}

impl Packer {
    fn of(tx: &Tx<'_>, channel: Channel) -> Result<Self, StoreError> {
        let next_index = next_index(tx, channel.id)?;
        Ok(Self { channel, next_index })
    }

    fn pack(&mut self, tx: &Tx<'_>, mut bytes: &[u8]) -> Result<(), StoreError> {
        let max = self.channel.max_plaintext;
        while !bytes.is_empty() {
            let tail = usize::try_from(self.channel.tail_bytes).unwrap_or(max);
            let (now, later) = bytes.split_at(bytes.len().min(max.saturating_sub(tail)));
            if now.is_empty() {
                // A tail that another M left too full takes no more.
                self.seal(tx)?;
                continue;
            }
            if tail == 0 {
                self.open_box(tx, now)?
            } else {
                self.extend_tail(tx, now)?
            }
            self.channel.size += now.len() as u64;
            bytes = later;
        }
        Ok(())
    }

    fn open_box(&mut self, tx: &Tx<'_>, bytes: &[u8]) -> Result<(), StoreError> {
        let full = bytes.len() == self.channel.max_plaintext;
        tx.sql
            .prepare_cached(
                "INSERT INTO box (channel, seq, box_index, offset, payload, state) VALUES (?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![
                self.channel.id.0,
                row_number(BoxSeq(self.channel.boxes))?,
                self.next_index.as_bytes(),
                i64::try_from(self.channel.size).map_err(|_| StoreError::Exhausted)?,
                bytes,
                if full { BoxState::Sealed } else { BoxState::Open } as u8,
            ])?;
        self.next_index = self.next_index.next().map_err(|_| StoreError::Exhausted)?;
        self.channel.boxes += 1;
        self.channel.tail_bytes = if full { 0 } else { bytes.len() as u64 };
        Ok(())
    }

    fn extend_tail(&mut self, tx: &Tx<'_>, bytes: &[u8]) -> Result<(), StoreError> {
        let tail = params![self.channel.id.0, row_number(BoxSeq(self.channel.boxes - 1))?];
        let mut payload: Vec<u8> = tx
            .sql
            .prepare_cached("SELECT payload FROM box WHERE channel = ? AND seq = ?")?
            .query_row(tail, |row| row.get(0))?;
        payload.extend_from_slice(bytes);
        let full = payload.len() == self.channel.max_plaintext;
        tx.sql.prepare_cached("UPDATE box SET payload = ?3, state = ?4 WHERE channel = ?1 AND seq = ?2")?.execute(
            params![
                self.channel.id.0,
                row_number(BoxSeq(self.channel.boxes - 1))?,
                payload,
                if full { BoxState::Sealed } else { BoxState::Open } as u8
            ],
        )?;
        self.channel.tail_bytes = if full { 0 } else { payload.len() as u64 };
        Ok(())
    }

    fn seal(&mut self, tx: &Tx<'_>) -> Result<(), StoreError> {
        tx.sql
            .prepare_cached("UPDATE box SET state = 1 WHERE channel = ? AND seq = ? AND state = 0")?
            .execute(params![self.channel.id.0, row_number(BoxSeq(self.channel.boxes - 1))?])?;
        self.channel.tail_bytes = 0;
        Ok(())
    }

    fn finish(self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let int = |value: u64| i64::try_from(value).map_err(|_| StoreError::Exhausted);
        tx.sql
            .prepare_cached(
                "UPDATE channel SET size = ?2, boxes = ?3, tail_bytes = ?4, next_index = ?5, modified = ?6
                 WHERE id = ?1",
            )?
            .execute(params![
                self.channel.id.0,
                int(self.channel.size)?,
                int(self.channel.boxes)?,
                int(self.channel.tail_bytes)?,
                self.next_index.as_bytes(),
                now_ns(),
            ])?;
        tx.touched.insert(self.channel.id);
        Ok(())
    }
}

/// Packs what is not launched into boxes of the channel's M. The rows go through a temporary table, so that the
/// memory it takes does not grow with the backlog.
fn repack(tx: &mut Tx<'_>, id: ChannelId) -> Result<(), StoreError> {
    let mut channel = channel(tx, id)?;
    let sealed = channel.tail_bytes == 0;
    let first: i64 = tx
        .sql
        .prepare_cached("SELECT min(seq) FROM box WHERE channel = ? AND seq >= ? AND state IN (0, 1)")?
        .query_row(params![id.0, row_number(channel.first_unstored)?], |row| row.get(0))?;
    tx.sql.execute_batch("CREATE TEMP TABLE repack (seq INTEGER PRIMARY KEY, payload BLOB)")?;
    tx.sql.execute(
        "INSERT INTO repack SELECT seq, payload FROM box WHERE channel = ? AND seq >= ?",
        params![id.0, first],
    )?;
    let (index, bytes): (Vec<u8>, i64) = tx.sql.query_row(
        "SELECT (SELECT box_index FROM box WHERE channel = ?1 AND seq = ?2), sum(length(payload)) FROM repack",
        params![id.0, first],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    tx.sql.execute("DELETE FROM box WHERE channel = ? AND seq >= ?", params![id.0, first])?;
    channel.boxes = u64::try_from(first).unwrap_or(0);
    channel.size -= u64::try_from(bytes).unwrap_or(0);
    channel.tail_bytes = 0;
    let next_index = BoxIndex::from_bytes(&index).map_err(|error| StoreError::Database(error.to_string()))?;
    let mut packer = Packer { channel, next_index };
    {
        let mut rows = tx.sql.prepare("SELECT payload FROM repack ORDER BY seq")?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            packer.pack(tx, row.get_ref(0)?.as_blob().map_err(|error| StoreError::Database(error.to_string()))?)?;
        }
    }
    if sealed && packer.channel.tail_bytes > 0 {
        packer.seal(tx)?;
    }
    packer.finish(tx)?;
    tx.sql.execute_batch("DROP TABLE repack")?;
    tx.sql.execute("UPDATE channel SET rewrites = rewrites + 1 WHERE id = ?", [id.0])?;
    Ok(())
}

fn insert_channel(
    tx: &mut Tx<'_>,
    name: &ChannelName,
    role: Role,
    capability: &[u8],
    root: &[u8],
    index: &BoxIndex,
) -> Result<ChannelId, StoreError> {
    if by_name(tx, name)?.is_some() {
        return Err(StoreError::NameTaken { name: name.to_string() });
    }
    let role = i64::from(role == Role::Reader);
    let known: Option<String> = tx
        .sql
        .prepare_cached("SELECT name FROM channel WHERE role = ? AND root = ?")?
        .query_row(params![role, root], |row| row.get(0))
        .optional()?;
    if let Some(name) = known {
        return Err(StoreError::CapKnown { name });
    }
    tx.sql
        .prepare_cached(
            "INSERT INTO channel (name, role, capability, root, max_plaintext, next_index, created, modified, accessed)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?7)",
        )?
        .execute(params![
            name.as_str(),
            role,
            capability,
            root,
            PROVISIONAL_MAX_PLAINTEXT,
            index.as_bytes(),
            now_ns()
        ])?;
    let id = ChannelId(tx.sql.last_insert_rowid());
    tx.touched.insert(id);
    Ok(id)
}

fn rename(tx: &mut Tx<'_>, old: &ChannelName, new: &ChannelName) -> Result<(), StoreError> {
    let channel = by_name(tx, old)?.ok_or(StoreError::NoChannel)?;
    if old != new && by_name(tx, new)?.is_some() {
        return Err(StoreError::NameTaken { name: new.to_string() });
    }
    tx.sql.prepare_cached("UPDATE channel SET name = ? WHERE id = ?")?.execute(params![new.as_str(), channel.id.0])?;
    tx.touched.insert(channel.id);
    Ok(())
}

fn delete(tx: &mut Tx<'_>, id: ChannelId) -> Result<(), StoreError> {
    let gone = channel(tx, id)?;
    tx.sql.prepare_cached("UPDATE channel SET forgotten = 1 WHERE id = ?")?.execute([id.0])?;
    tx.sql.prepare_cached("DELETE FROM box WHERE channel = ?")?.execute([id.0])?;
    tx.sql.prepare_cached("DELETE FROM channel WHERE id = ?")?.execute([id.0])?;
    if gone.role == Role::Writer {
        tx.spool_bytes = tx.spool_bytes.saturating_sub(gone.size - gone.stored_bytes);
    }
    tx.touched.insert(id);
    Ok(())
}

fn seal_tail(tx: &mut Tx<'_>, id: ChannelId) -> Result<bool, StoreError> {
    let channel = channel(tx, id)?;
    if channel.tail_bytes == 0 {
        return Ok(false);
    }
    let mut packer = Packer::of(tx, channel)?;
    packer.seal(tx)?;
    tx.sql.prepare_cached("UPDATE channel SET tail_bytes = 0 WHERE id = ?")?.execute([id.0])?;
    tx.touched.insert(id);
    Ok(true)
}

fn fence(tx: &mut Tx<'_>, id: ChannelId, reason: &str) -> Result<(), StoreError> {
    tx.sql
        .prepare_cached("UPDATE channel SET fence = coalesce(fence, ?2) WHERE id = ?1")?
        .execute(params![id.0, reason])?;
    tx.touched.insert(id);
    Ok(())
}

/// The first box that is not stored now, and the bytes that were stored in a row since.
fn stored_prefix(tx: &Tx<'_>, channel: &Channel) -> Result<(i64, i64), StoreError> {
    let mut next = row_number(channel.first_unstored)?;
    let mut bytes = 0;
    let mut rows = tx
        .sql
        .prepare_cached("SELECT seq, length(payload), state FROM box WHERE channel = ? AND seq >= ? ORDER BY seq")?;
    let mut rows = rows.query(params![channel.id.0, next])?;
    while let Some(row) = rows.next()? {
        if row.get::<_, u8>(2)? != BoxState::Stored as u8 {
            break;
        }
        bytes += row.get::<_, i64>(1)?;
        next = row.get::<_, i64>(0)? + 1;
    }
    Ok((next, bytes))
}

fn require_revocable(channel: &Channel) -> Result<(), StoreError> {
    if channel.launched || channel.shown || channel.role == Role::Reader {
        return Err(StoreError::AlreadyLaunched { name: channel.name.to_string() });
    }
    Ok(())
}

pub(super) fn channel(tx: &Tx<'_>, id: ChannelId) -> Result<Channel, StoreError> {
    let text = format!("SELECT {CHANNEL_COLUMNS} FROM channel WHERE id = ?");
    tx.sql.prepare_cached(&text)?.query_row([id.0], channel_from_row).optional()?.ok_or(StoreError::NoChannel)
}

fn by_name(tx: &Tx<'_>, name: &ChannelName) -> Result<Option<Channel>, StoreError> {
    let text = format!("SELECT {CHANNEL_COLUMNS} FROM channel WHERE name = ?");
    Ok(tx.sql.prepare_cached(&text)?.query_row([name.as_str()], channel_from_row).optional()?)
}

pub(super) fn next_index(tx: &Tx<'_>, id: ChannelId) -> Result<BoxIndex, StoreError> {
    let bytes: Vec<u8> =
        tx.sql.prepare_cached("SELECT next_index FROM channel WHERE id = ?")?.query_row([id.0], |row| row.get(0))?;
    BoxIndex::from_bytes(&bytes).map_err(|error| StoreError::Database(error.to_string()))
}

fn first_index(tx: &Tx<'_>, id: ChannelId) -> Result<BoxIndex, StoreError> {
    Ok(match capability(tx, id)? {
        Capability::Write(cap) => cap.index().clone(),
        Capability::Read(cap) => cap.index().clone(),
    })
}

fn capability(tx: &Tx<'_>, id: ChannelId) -> Result<Capability, StoreError> {
    super::query::capability(tx.sql, id)
}

pub(super) fn row_number(seq: BoxSeq) -> Result<i64, StoreError> {
    i64::try_from(seq.0).map_err(|_| StoreError::Exhausted)
}

fn int(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
