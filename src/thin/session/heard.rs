//! What a reply is, as far as the session cares: whose, and what it tells about the daemon's queue.

use super::Id;
use crate::thin::message::{HASH_BYTES, ResponseFrame};

/// The code of a started operation that was cancelled.
const CANCELLED: u8 = 24;
/// The codes of a copy command that a courier has dealt with.
const COPIED: [u8; 2] = [0, 26];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) id: Id,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The end of a started operation.
    Ended {
        copy: bool,
        cancelled: bool,
        /// Whether it was taken from the daemon's queue: what is refused up front may not have lain there.
        taken: bool,
    },
    /// The end of a cancel.
    Cancel {
        copy: bool,
    },
    Local,
}

impl Heard {
    /// `None` where the frame is no reply, or one that cannot be told from others.
    pub(super) fn of(frame: &ResponseFrame) -> Option<Self> {
        let kind = if let Some(reply) = &frame.start_resending_encrypted_message_reply {
            let cancelled = reply.error_code == CANCELLED;
            let courier = reply.courier_identity_hash.as_ref().is_some_and(|hash| hash.len() == HASH_BYTES);
            Kind::Ended { copy: false, cancelled, taken: courier }
        } else if let Some(reply) = &frame.start_resending_copy_command_reply {
            let (cancelled, taken) = (reply.error_code == CANCELLED, COPIED.contains(&reply.error_code));
            Kind::Ended { copy: true, cancelled, taken }
        } else if frame.cancel_resending_encrypted_message_reply.is_some() {
            Kind::Cancel { copy: false }
        } else if frame.cancel_resending_copy_command_reply.is_some() {
            Kind::Cancel { copy: true }
        } else {
            Kind::Local
        };
        Some(Self { id: query_id(frame)?, kind })
    }
}

/// The query id of whatever reply a frame holds.
fn query_id(frame: &ResponseFrame) -> Option<Id> {
    macro_rules! first {
        ($($variant:ident),+) => { None$(.or_else(|| frame.$variant.as_ref()?.query_id.as_deref()))+ };
    }
    let id: Option<&[u8]> = first!(
        start_resending_encrypted_message_reply,
        encrypt_read_reply,
        encrypt_write_reply,
        new_keypair_reply,
        cancel_resending_encrypted_message_reply,
        start_resending_copy_command_reply,
        cancel_resending_copy_command_reply,
        next_message_box_index_reply,
        get_message_box_index_counter_reply,
        get_pki_document_reply,
        get_directory_authorities_reply,
        create_courier_envelopes_from_payload_reply,
        create_courier_envelopes_from_multi_payload_reply,
        create_courier_envelopes_from_tombstone_range_reply,
        voucher_mint_reply,
        voucher_induct_reply,
        voucher_open_reply,
        voucher_derive_stream_reply
    );
    id?.try_into().ok()
}
