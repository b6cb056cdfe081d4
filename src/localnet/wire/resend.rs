//! Envelopes to be sent until they are answered, and what ends that before (`thin-client-protocol.md` §4.3, §4.4).

use super::{
    BACAP_DECRYPTION_FAILED, INTERNAL_ERROR, INVALID_REQUEST, INVALID_TOMBSTONE_SIGNATURE, Meaning, Network, hash, id,
};
use crate::bacap::{BoxIndex, OpenError, Opened, ReadCap, SealedBox, verify_box};
use crate::localnet::core::{Request, Started};
use crate::localnet::envelope::{self, Inner};
use crate::localnet::replica::TOMBSTONE;
use crate::thin::message::{CancelReply, CancelResending, Octets, ResponseFrame, StartResending, StartResendingReply};

pub(super) fn start(network: &Network, request: StartResending) -> Meaning {
    let empty = |bytes: &Option<Octets>| bytes.as_deref().is_none_or(<[u8]>::is_empty);
    let refused = |query_id: Option<Octets>| {
        Meaning::answer(StartResendingReply { query_id, error_code: INVALID_REQUEST, ..StartResendingReply::default() })
    };
    let (Some(query_id), Some(hash)) = (id(&request.query_id), hash(&request.envelope_hash)) else {
        return refused(request.query_id);
    };
    if empty(&request.message_ciphertext)
        || empty(&request.envelope_descriptor)
        || request.read_cap.is_some() == request.write_cap.is_some()
    {
        return refused(request.query_id);
    }
    let opened =
        request.message_ciphertext.as_deref().and_then(|query| envelope::open(&network.identity.envelope_key, query));
    let authentic = opened.as_ref().is_some_and(|query| match &query.inner {
        Inner::Read(_) => true,
        Inner::Write(sealed) => verify_box(sealed),
    });
    let read = request.read_cap.as_deref().map(|cap| {
        Box::new(ReadWith {
            cap: ReadCap::from_bytes(cap).ok(),
            index: request.message_box_index.as_deref().map(|index| BoxIndex::from_bytes(index).ok()),
        })
    });
    Meaning::Ask(Request::Start(Box::new(Started {
        query_id,
        hash,
        query: opened,
        authentic,
        read,
        no_retry: request.no_retry_on_box_id_not_found,
        strict: request.no_idempotent_box_already_exists,
    })))
}

pub(super) fn cancel(request: CancelResending) -> Meaning {
    match (id(&request.query_id), hash(&request.envelope_hash)) {
        (Some(query_id), Some(hash)) => Meaning::Ask(Request::Cancel { query_id, hash }),
        _ => Meaning::answer(ResponseFrame {
            cancel_resending_encrypted_message_reply: Some(CancelReply {
                query_id: request.query_id,
                error_code: INVALID_REQUEST,
            }),
            ..ResponseFrame::default()
        }),
    }
}

/// What a read is decrypted with: the request's own capability and index.
#[derive(Clone)]
pub(in crate::localnet) struct ReadWith {
    cap: Option<ReadCap>,
    index: Option<Option<BoxIndex>>,
}

impl ReadWith {
    #[cfg(test)]
    pub(in crate::localnet) fn new(cap: ReadCap, index: BoxIndex) -> Self {
        Self { cap: Some(cap), index: Some(Some(index)) }
    }

    /// The code and the plaintext that a box comes to.
    pub(in crate::localnet) fn open(&self, sealed: &SealedBox) -> (u8, Option<Vec<u8>>) {
        let tombstone = sealed.payload.is_empty();
        let failed = if tombstone { INVALID_TOMBSTONE_SIGNATURE } else { BACAP_DECRYPTION_FAILED };
        match (&self.cap, &self.index) {
            (_, None) => (INTERNAL_ERROR, None),
            (Some(cap), Some(Some(index))) => match cap.open(index, sealed) {
                Ok(Opened::Message(bytes)) => (0, Some(bytes)),
                Ok(Opened::Tombstone) => (TOMBSTONE, None),
                Err(OpenError::Framing) => (INTERNAL_ERROR, None),
                Err(_) => (failed, None),
            },
            _ => (failed, None),
        }
    }
}
