//! Channels as such: made, added, named, shown, forgotten.

use rusqlite::params;
use zeroize::Zeroizing;

use super::PROVISIONAL_MAX_PLAINTEXT;
use super::ledger::{Ledger, Record, role_code};
use super::{Capability, ChannelId, ChannelName, Content, Role, StoreError};
use crate::bacap::{ReadCap, WriteCap};

impl Ledger<'_> {
    pub(super) fn create(
        &mut self,
        name: &ChannelName,
        cap: &WriteCap,
        content: Content,
        from_elsewhere: bool,
    ) -> Result<ChannelId, StoreError> {
        let bytes = cap.to_bytes();
        let id = self.insert(name, (Role::Writer, content), &bytes[..], &bytes[32..64], cap.index().as_bytes())?;
        if from_elsewhere {
            self.run("UPDATE channel SET cap_elsewhere = 1 WHERE id = ?1", [id.0])?;
        }
        Ok(id)
    }

    pub(super) fn add(&mut self, name: &ChannelName, cap: &ReadCap, content: Content) -> Result<ChannelId, StoreError> {
        let bytes = cap.to_bytes();
        self.insert(name, (Role::Reader, content), &bytes[..], &bytes[..32], cap.index().as_bytes())
    }

    pub(super) fn rename(&mut self, old: &ChannelName, new: &ChannelName) -> Result<(), StoreError> {
        let id = self.id_of(old)?.ok_or(StoreError::NoChannel)?;
        if old == new {
            return Ok(());
        }
        self.check_free(new)?;
        self.set_name(id, new.as_str())?;
        self.list_anew()
    }

    /// Two channels take each other's name.
    pub(super) fn exchange(&mut self, one: &ChannelName, other: &ChannelName) -> Result<(), StoreError> {
        let (first, second) =
            (self.id_of(one)?.ok_or(StoreError::NoChannel)?, self.id_of(other)?.ok_or(StoreError::NoChannel)?);
        if first == second {
            return Ok(());
        }
        // No channel has a control character in its name.
        self.set_name(first, "\n")?;
        self.set_name(second, one.as_str())?;
        self.set_name(first, other.as_str())?;
        self.list_anew()
    }

    fn set_name(&mut self, id: ChannelId, name: &str) -> Result<(), StoreError> {
        self.run("UPDATE channel SET name = ?2, changed = ?3 WHERE id = ?1", params![id.0, name, self.now])?;
        self.touch(id);
        Ok(())
    }

    /// A rename onto a name whose channel, if there is one, goes as a file that is replaced goes.
    pub(super) fn rename_over(&mut self, old: &ChannelName, new: &ChannelName) -> Result<(), StoreError> {
        if old != new
            && let Some(replaced) = self.id_of(new)?
        {
            let _there = self.id_of(old)?.ok_or(StoreError::NoChannel)?;
            self.unlink(replaced)?;
        }
        self.rename(old, new)
    }

    /// Gives the channel up, whatever was sent of it.
    pub(super) fn forget(&mut self, name: &ChannelName) -> Result<(), StoreError> {
        let id = self.id_of(name)?.ok_or(StoreError::NoChannel)?;
        let record = self.record(id)?;
        self.remove(id, &record, true)
    }

    /// Removes the channel as a file is removed: only while nothing of it can be known elsewhere.
    pub(super) fn unlink(&mut self, id: ChannelId) -> Result<(), StoreError> {
        let record = self.record(id)?;
        record.check_takes_back()?;
        self.check_not_invited(id, &record.name)?;
        self.remove(id, &record, false)
    }

    /// The capability as text, for somebody else to have; that it was shown is known for ever.
    pub(super) fn reveal(&mut self, id: ChannelId, write: bool) -> Result<Zeroizing<String>, StoreError> {
        let Record { role, name, .. } = self.record(id)?;
        self.check_not_invited(id, &name)?;
        let bytes = self
            .one("SELECT cap FROM channel WHERE id = ?1", [id.0], |row| row.get(0).map(Zeroizing::<Vec<u8>>::new))?
            .ok_or(StoreError::NoChannel)?;
        let text = match (capability(role, &bytes)?, write) {
            (Capability::Write(cap), true) => cap.to_base64(),
            (Capability::Write(cap), false) => cap.read_cap().to_base64(),
            (Capability::Read(cap), false) => cap.to_base64(),
            (Capability::Read(_), true) => return Err(StoreError::ReadOnly),
        };
        let sql = "UPDATE channel SET shown = 1, cap_elsewhere = max(cap_elsewhere, ?2) WHERE id = ?1";
        self.run(sql, params![id.0, write])?;
        self.touch(id);
        Ok(text)
    }

    /// Keeps times (nanoseconds since 1970) and dropped permission bits; what is `None` stays.
    pub(super) fn set_attributes(
        &mut self,
        id: ChannelId,
        accessed: Option<i64>,
        modified: Option<i64>,
        dropped_mode: Option<u32>,
    ) -> Result<(), StoreError> {
        let changed = self.run(
            "UPDATE channel SET accessed = coalesce(?2, accessed), modified = coalesce(?3, modified),
                    dropped_mode = coalesce(?4, dropped_mode), changed = ?5
             WHERE id = ?1",
            params![id.0, accessed, modified, dropped_mode, self.now],
        )?;
        if changed == 0 {
            return Err(StoreError::NoChannel);
        }
        self.touch(id);
        Ok(())
    }

    pub(super) fn set_owner(&mut self, id: ChannelId, uid: u32, gid: u32) -> Result<(), StoreError> {
        if self.run("UPDATE channel SET uid = ?2, gid = ?3 WHERE id = ?1", params![id.0, uid, gid])? == 0 {
            return Err(StoreError::NoChannel);
        }
        self.touch(id);
        Ok(())
    }

    fn insert(
        &mut self,
        name: &ChannelName,
        (role, content): (Role, Content),
        cap: &[u8],
        root: &[u8],
        first_index: &[u8],
    ) -> Result<ChannelId, StoreError> {
        self.check_free(name)?;
        let known = self.one(
            "SELECT name FROM channel
             WHERE role = ?1 AND substr(cap, CASE role WHEN 0 THEN 33 ELSE 1 END, 32) = ?2",
            params![role_code(role), root],
            |row| row.get(0),
        )?;
        if let Some(name) = known {
            return Err(StoreError::CapKnown { name });
        }
        let chain = self.new_chain()?;
        self.run(
            "INSERT INTO channel (name, role, cap, chain, next_index, max_plaintext, created, modified, accessed,
                                  changed, kind, allow_delete)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?7, ?7, ?8, ?9)",
            params![
                name.as_str(),
                role_code(role),
                cap,
                chain,
                first_index,
                PROVISIONAL_MAX_PLAINTEXT,
                self.now,
                content.is_drop(),
                role == Role::Writer && content == Content::Drop { allow_delete: true },
            ],
        )?;
        let id = ChannelId(self.last_insert());
        self.list_anew()?;
        self.touch(id);
        Ok(id)
    }

    fn remove(&mut self, id: ChannelId, record: &Record, forgotten: bool) -> Result<(), StoreError> {
        self.abandon(record.chain, forgotten)?;
        self.withdraw(id)?;
        self.run("DELETE FROM channel WHERE id = ?1", [id.0])?;
        self.list_anew()?;
        self.touch(id);
        Ok(())
    }

    fn check_free(&self, name: &ChannelName) -> Result<(), StoreError> {
        match self.id_of(name)? {
            Some(_) => Err(StoreError::NameTaken { name: name.to_string() }),
            None => Ok(()),
        }
    }

    pub(super) fn id_of(&self, name: &ChannelName) -> Result<Option<ChannelId>, StoreError> {
        self.one("SELECT id FROM channel WHERE name = ?1", [name.as_str()], |row| row.get(0).map(ChannelId))
    }
}

/// Reads what the `cap` column holds.
pub(super) fn capability(role: Role, bytes: &[u8]) -> Result<Capability, StoreError> {
    let corrupt = |error| StoreError::Corrupt { reason: format!("a capability is damaged: {error}") };
    Ok(match role {
        Role::Writer => Capability::Write(WriteCap::from_bytes(bytes).map_err(corrupt)?),
        Role::Reader => Capability::Read(ReadCap::from_bytes(bytes).map_err(corrupt)?),
    })
}
