//! What became of a writer's boxes: launched, confirmed, fenced; and the network that they belong to.

use rusqlite::params;

use super::ledger::{Ledger, int, state, uint};
use super::{Binding, BoxSeq, BoxState, ChannelId, Durability, NetworkId, Role, StoreError};

impl Ledger<'_> {
    /// From here on a packet of these boxes may have left. Those that were launched before stay as they are.
    pub(super) fn launch(
        &mut self,
        id: ChannelId,
        rewrites: u64,
        boxes: &[BoxSeq],
        network: &NetworkId,
    ) -> Result<Binding, StoreError> {
        let record = self.writer(id)?;
        if let Some(reason) = record.fence {
            return Err(StoreError::Fenced { name: record.name, reason });
        }
        self.check_not_invited(id, &record.name)?;
        if record.rewrites != rewrites {
            return Err(StoreError::Rewritten);
        }
        let binding = self.bind_network(id, network)?;
        if binding == Binding::Refused {
            return Ok(binding);
        }
        let mut end = record.launched_end;
        let epoch = self.replica_epoch()?;
        for &seq in boxes {
            match self.box_state(record.chain, seq)? {
                BoxState::Sealed => {
                    self.set_state(record.chain, seq, BoxState::Launched)?;
                    let sql = "UPDATE box SET epoch = ?3 WHERE chain = ?1 AND seq = ?2";
                    self.run(sql, params![record.chain, int(seq.0), epoch])?;
                    end = end.max(seq.0 + 1);
                }
                BoxState::Launched | BoxState::Couriered | BoxState::Stored => {}
                state => return Err(StoreError::WrongState { seq, state, wanted: BoxState::Launched }),
            }
        }
        if end > 0 {
            self.run("UPDATE channel SET launched = 1, launched_end = ?2 WHERE id = ?1", params![id.0, int(end)])?;
            self.touch(id);
        }
        Ok(binding)
    }

    /// A courier or a replica has these boxes. Out of order is well; what is known already is no news.
    pub(super) fn confirm(&mut self, id: ChannelId, boxes: &[BoxSeq], to: BoxState) -> Result<(), StoreError> {
        let record = self.writer(id)?;
        let (mut changed, mut stored) = (false, 0_i64);
        // Those that a courier has, as they change: boxes and bytes.
        let mut couriered = (0_i64, 0_i64);
        for &seq in boxes {
            let (state, bytes) = self.box_state_and_size(record.chain, seq)?;
            match (state, to) {
                (BoxState::Launched, BoxState::Couriered) => couriered = (couriered.0 + 1, couriered.1 + bytes),
                (BoxState::Launched, BoxState::Stored) => stored += 1,
                (BoxState::Couriered, BoxState::Stored) => {
                    stored += 1;
                    couriered = (couriered.0 - 1, couriered.1 - bytes);
                }
                (BoxState::Couriered | BoxState::Stored, BoxState::Couriered)
                | (BoxState::Stored, BoxState::Stored) => continue,
                _ => return Err(StoreError::WrongState { seq, state, wanted: to }),
            }
            self.set_state(record.chain, seq, to)?;
            changed = true;
        }
        if !changed {
            return Ok(());
        }
        let (mut first_unstored, mut stored_bytes) = (record.first_unstored, record.stored_bytes);
        self.each(
            "SELECT seq, state, offset + length(payload) FROM box WHERE chain = ?1 AND seq >= ?2 ORDER BY seq",
            params![record.chain, int(record.first_unstored)],
            |row| {
                // Another writer's tombstone, which was adopted, is passed.
                let stored = matches!(state(row, 1)?, BoxState::Stored | BoxState::Tombstone);
                if stored {
                    (first_unstored, stored_bytes) = (uint(row, 0)? + 1, uint(row, 2)?);
                }
                Ok(stored)
            },
        )?;
        self.run(
            "UPDATE channel SET stored_boxes = stored_boxes + ?2, first_unstored = ?3, stored_bytes = ?4,
                    couriered_boxes = couriered_boxes + ?5, couriered_bytes = couriered_bytes + ?6
             WHERE id = ?1",
            params![id.0, stored, int(first_unstored), int(stored_bytes), couriered.0, couriered.1],
        )?;
        if self.sent_bytes()? > self.limits.sent_bytes {
            self.litter();
        }
        self.touch(id);
        Ok(())
    }

    /// The channel has failed for good. The first reason stays.
    pub(super) fn fence(&mut self, id: ChannelId, reason: &str) -> Result<(), StoreError> {
        // A box that does not fit is a reason that may go; this one stays.
        let changed = self.run(
            "UPDATE channel SET fence = iif(fence IS NULL OR unfit IS NOT NULL, ?2, fence), unfit = NULL WHERE id = ?1",
            params![id.0, reason],
        )?;
        if changed == 0 {
            return Err(StoreError::NoChannel);
        }
        self.touch(id);
        Ok(())
    }

    /// Binds the channel to the network, or compares. A writer that has launched nothing is free to change.
    pub(super) fn bind_network(&mut self, id: ChannelId, network: &NetworkId) -> Result<Binding, StoreError> {
        let record = self.record(id)?;
        if network.keys().is_empty() {
            return Ok(Binding::Refused);
        }
        if let Some(bound) = record.network {
            let keys = self.one("SELECT keys FROM network WHERE id = ?1", [bound], |row| row.get::<_, Vec<u8>>(0))?;
            let bound = keys.and_then(|keys| NetworkId::from_bytes(&keys));
            if bound.is_some_and(|bound| bound.is_same_network_as(network)) {
                return Ok(Binding::Matches);
            }
            if record.launched || record.role == Role::Reader {
                return Ok(Binding::Refused);
            }
        }
        let keys = network.to_bytes();
        let sql = "INSERT INTO network (keys, localnet) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
        self.run(sql, params![keys, network.is_localnet()])?;
        self.run(
            "UPDATE channel SET network = (SELECT id FROM network WHERE keys = ?2) WHERE id = ?1",
            params![id.0, keys],
        )?;
        self.touch(id);
        Ok(Binding::Bound)
    }

    /// Counts anew what a courier has, after boxes were rewritten.
    pub(super) fn count_couriered(&mut self, id: ChannelId) -> Result<(), StoreError> {
        let sql = "UPDATE channel SET
                       couriered_boxes = (SELECT count(*) FROM box b WHERE b.chain = channel.chain AND b.state = 3),
                       couriered_bytes = (SELECT coalesce(sum(length(b.payload)), 0) FROM box b
                                          WHERE b.chain = channel.chain AND b.state = 3)
                   WHERE id = ?1";
        self.run(sql, [id.0]).map(drop)
    }

    /// Whose word lets the next box go, from now on.
    pub(super) fn set_durability(&mut self, id: ChannelId, durability: Durability) -> Result<(), StoreError> {
        self.writer(id)?;
        let couriered = durability == Durability::Couriered;
        self.run("UPDATE channel SET durability = ?2 WHERE id = ?1", params![id.0, couriered])?;
        self.touch(id);
        Ok(())
    }

    fn box_state(&self, chain: i64, seq: BoxSeq) -> Result<BoxState, StoreError> {
        Ok(self.box_state_and_size(chain, seq)?.0)
    }

    fn box_state_and_size(&self, chain: i64, seq: BoxSeq) -> Result<(BoxState, i64), StoreError> {
        let sql = "SELECT state, length(payload) FROM box WHERE chain = ?1 AND seq = ?2";
        self.one(sql, params![chain, int(seq.0)], |row| Ok((state(row, 0)?, row.get(1)?)))?
            .ok_or(StoreError::NoBox { seq })
    }

    fn set_state(&self, chain: i64, seq: BoxSeq, to: BoxState) -> Result<(), StoreError> {
        // A launched box is as old as its seal.
        let sql = "UPDATE box SET state = ?3, since = CASE ?3 WHEN 2 THEN since ELSE ?4 END
                   WHERE chain = ?1 AND seq = ?2";
        self.run(sql, params![chain, int(seq.0), to.code(), self.now]).map(drop)
    }
}
