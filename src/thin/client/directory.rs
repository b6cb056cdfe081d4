//! What the daemon knows of its network: signed PKI documents and the authorities behind them.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Client, check, malformed, query};
use crate::thin::message::{DirectoryAuthority, GetDirectoryAuthorities, GetPkiDocument};
use crate::thin::pki::SignedDocument;
use crate::thin::{Document, Error, Operation};

impl Client {
    /// The newest PKI document, where the daemon has one. It was pushed by the daemon; nothing is sent.
    pub fn pki_document(&self) -> Option<Arc<Document>> {
        self.status.borrow().documents.current().cloned()
    }

    /// The PKI document of one epoch: of the last five from memory, of another one from the daemon, as far as it has it
    /// ([`ErrorKind::Daemon`](crate::thin::ErrorKind) with code 10 where not). Never that of another epoch in its
    /// place.
    pub async fn pki_document_for_epoch(&self, epoch: u64, deadline: Instant) -> Result<Arc<Document>, Error> {
        if let Some(document) = self.status.borrow().documents.epoch(epoch) {
            return Ok(Arc::clone(document));
        }
        let operation = Operation::PkiDocument;
        let (signed, _) = self.pki_document_raw(epoch, deadline).await?;
        // An embedded network may give its document as it is, unsigned.
        let inner = SignedDocument::parse(&signed).map(|signed| signed.certified);
        let document = Document::parse(inner.as_deref().unwrap_or(&signed));
        let document = document.ok_or_else(|| malformed(operation, "no PKI document"))?;
        if epoch != 0 && document.epoch != epoch {
            return Err(malformed(operation, "the PKI document of another epoch"));
        }
        Ok(Arc::new(document))
    }

    /// The signed PKI document of an epoch (0: the current one) and the epoch that it is of, for
    /// [`SignedDocument::parse`](crate::thin::pki::SignedDocument::parse).
    /// [`ErrorKind::Daemon`](crate::thin::ErrorKind) with code 10 where the daemon does not have it.
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
