//! What the core tells a client, as the frame that says it.

use super::Shared;
use crate::localnet::core::Reply;
use crate::localnet::document::{self, COURIER_QUEUE, Style};
use crate::thin::message::{
    CancelReply, ConnectionStatusEvent, ID_BYTES, MessageReplyEvent, MessageSentEvent, NewPkiDocumentEvent, Octets,
    ResponseFrame, SessionTokenReply, StartCopyReply, StartResendingReply,
};

/// Where the daemon stands, as the events about it tell.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) instance_token: [u8; ID_BYTES],
    /// Whether the link to the gateway is up.
    pub(super) link: bool,
    /// Whether there is a PKI document.
    pub(super) consensus: bool,
}

/// `connection_status_event`.
pub(super) fn status(shared: &Shared, standing: Standing) -> ResponseFrame {
    let max_plaintext = shared.network.max_plaintext;
    ConnectionStatusEvent {
        is_connected: standing.link,
        err: None,
        instance_token: Some(Octets::from(standing.instance_token)),
        sphinx_geometry: Some(document::sphinx_geometry(max_plaintext)),
        pigeonhole_geometry: Some(document::pigeonhole_geometry(max_plaintext)),
    }
    .into()
}

/// `new_pki_document_event`, with nothing in it where there is no document.
pub(super) fn document(shared: &Shared, standing: Standing, style: Style) -> ResponseFrame {
    let payload = standing.consensus.then(|| shared.network.document(shared.clock.now(), style).into());
    NewPkiDocumentEvent { payload }.into()
}

/// Anything but those two, which are the same for every client.
pub(super) fn frame(shared: &Shared, reply: Reply) -> Option<ResponseFrame> {
    let network = &shared.network;
    let ended = |query_id: [u8; ID_BYTES], error_code, plaintext: Option<Vec<u8>>, courier: Option<usize>| {
        StartResendingReply {
            query_id: Some(Octets::from(query_id)),
            plaintext: plaintext.map(Octets),
            error_code,
            courier_identity_hash: courier.map(|number| Octets::from(network.couriers[number])),
            courier_queue_id: courier.map(|_| Octets::from(COURIER_QUEUE)),
        }
    };
    let query_of = |id: [u8; ID_BYTES]| Some(Octets::from(id));
    Some(match reply {
        Reply::Token { app_id, resumed } => SessionTokenReply { app_id: Some(Octets::from(app_id)), resumed }.into(),
        Reply::Local(answer) => *answer,
        Reply::Ended { query_id, code, courier } => ended(query_id, code, None, courier).into(),
        Reply::Box { query_id, read, sealed, courier } => {
            let (code, plaintext) = read.open(&sealed);
            ended(query_id, code, plaintext, Some(courier)).into()
        }
        Reply::Cancelled { query_id } => ResponseFrame {
            cancel_resending_encrypted_message_reply: Some(CancelReply { query_id: query_of(query_id), error_code: 0 }),
            ..ResponseFrame::default()
        },
        Reply::CopyEnded { query_id, code, replica, envelope } => ResponseFrame {
            start_resending_copy_command_reply: Some(StartCopyReply {
                query_id: query_of(query_id),
                error_code: code,
                replica_error_code: (replica != 0).then_some(replica),
                failed_envelope_index: (envelope != 0).then_some(envelope),
            }),
            ..ResponseFrame::default()
        },
        Reply::CopyCancelled { query_id } => ResponseFrame {
            cancel_resending_copy_command_reply: Some(CancelReply { query_id: query_of(query_id), error_code: 0 }),
            ..ResponseFrame::default()
        },
        Reply::Sent { message_id, surb_id, sent_at, reply_eta, error } => MessageSentEvent {
            message_id: message_id.and_then(query_of),
            surbid: query_of(surb_id),
            sent_at: Some(sent_at.as_secs()),
            reply_eta: i64::try_from(reply_eta.as_nanos()).unwrap_or(i64::MAX),
            err: error,
        }
        .into(),
        Reply::Replied { message_id, surb_id, mut payload } => {
            // All of the packet's payload, as it comes out of the SURB.
            let forward = document::sphinx_geometry(network.max_plaintext).forward_payload_length;
            payload.resize(usize::try_from(forward).expect("a length"), 0);
            MessageReplyEvent {
                message_id: message_id.and_then(query_of),
                surbid: query_of(surb_id),
                payload: Some(payload.into()),
                ..MessageReplyEvent::default()
            }
            .into()
        }
        Reply::Status { .. } | Reply::Document => return None,
    })
}
