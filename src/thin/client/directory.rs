//! What the daemon knows of its network: signed PKI documents and the authorities behind them.

use tokio::time::Instant;

use super::{Client, check, malformed, query};
use crate::thin::message::{DirectoryAuthority, GetDirectoryAuthorities, GetPkiDocument};
use crate::thin::{Error, Operation};

impl Client {
    /// The signed PKI document of an epoch (0: the current one) and the epoch that it is of.
    pub async fn pki_document_raw(&self, epoch: u64, deadline: Instant) -> Result<(Vec<u8>, u64), Error> {
        let operation = Operation::PkiDocument;
        let frame = move |id| GetPkiDocument { query_id: query(id), epoch }.into();
        let reply = self.call(operation, deadline, None, frame).await?;
        let reply = reply.get_pki_document_reply.ok_or_else(|| malformed(operation, "another reply"))?;
        check(operation, reply.error_code)?;
        Ok((reply.payload.unwrap_or_default().0, reply.epoch))
    }

    /// The directory authorities that the daemon trusts: they tell one network from another.
    pub async fn directory_authorities(&self, deadline: Instant) -> Result<Vec<DirectoryAuthority>, Error> {
        let operation = Operation::DirectoryAuthorities;
        let frame = move |id| GetDirectoryAuthorities { query_id: query(id) }.into();
        let reply = self.call(operation, deadline, None, frame).await?;
        let reply = reply.get_directory_authorities_reply.ok_or_else(|| malformed(operation, "another reply"))?;
        check(operation, reply.error_code)?;
        Ok(reply.authorities.unwrap_or_default())
    }
}
