//! One client: its frames understood, what needs no network answered, its replies written.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tracing::debug;

use super::Shared;
use super::clock::wall_clock;
use crate::localnet::core::{Conn, Event, Reply};
use crate::localnet::document::{self, COURIER_QUEUE};
use crate::localnet::envelope::OVERHEAD;
use crate::localnet::replica::{mixnet_epoch, replica_epoch};
use crate::localnet::wire::{self, Meaning};
use crate::thin::frame;
use crate::thin::message::{
    CancelReply, ConnectionStatusEvent, ID_BYTES, MessageReplyEvent, MessageSentEvent, NewPkiDocumentEvent, Octets,
    ResponseFrame, SessionTokenReply, ShutdownEvent, StartCopyReply, StartResendingReply,
};

/// Replies that wait for one client; a client that lets more wait is cut off.
const REPLIES: usize = 2048;
/// How long a client may take to take one frame.
const WRITE_DEADLINE: Duration = Duration::from_secs(60);

/// One client, from its handshake to its end.
pub(super) async fn serve<S: AsyncRead + AsyncWrite>(shared: Arc<Shared>, conn: Conn, stream: S) {
    let (mut read, write) = tokio::io::split(stream);
    let (from_core, mut replies) = mpsc::channel::<Reply>(REPLIES);
    let (answers, mut local) = mpsc::channel::<ResponseFrame>(64);
    if shared.events.send((Event::Connected(conn), Some(from_core))).await.is_err() {
        return;
    }
    for greeting in greetings(&shared) {
        let _ = answers.send(greeting).await;
    }
    let reading = async {
        loop {
            let body = match frame::read_body(&mut read).await {
                Ok(Some(body)) => body,
                Ok(None) => return Event::Disconnected(conn),
                Err(error) => {
                    debug!(conn, %error, "a client is hung up on");
                    return Event::Disconnected(conn);
                }
            };
            // A null is no request; the daemon must not be brought down by one.
            let request = match wire::decode(&body) {
                Ok(request) => request,
                Err(error) => {
                    debug!(conn, %error, "a client is hung up on");
                    return Event::Disconnected(conn);
                }
            };
            match wire::understand(&shared.network, wall_clock(), request) {
                Meaning::Answer(answer) => {
                    if answers.send(*answer).await.is_err() {
                        return Event::Disconnected(conn);
                    }
                }
                Meaning::Ask(ask) => {
                    if shared.events.send((Event::Request(conn, ask), None)).await.is_err() {
                        return Event::Disconnected(conn);
                    }
                }
                Meaning::Close => return Event::Closed(conn),
                Meaning::Nothing => {}
                Meaning::Hangup(what) => {
                    debug!(conn, what, "a client is hung up on: wrong length");
                    return Event::Disconnected(conn);
                }
            }
        }
    };
    let writing = async {
        let mut write = write;
        let mut stop = shared.stop.clone();
        loop {
            let frame = tokio::select! {
                biased;
                Some(answer) = local.recv() => answer,
                reply = replies.recv() => match reply {
                    Some(reply) => response(&shared, reply),
                    // The core has cut this client off.
                    None => return,
                },
                () = stopped(&mut stop) => {
                    if let Ok(bytes) = frame::encode(&ResponseFrame::from(ShutdownEvent {})) {
                        let _ = timeout(Duration::from_secs(1), write.write_all(&bytes)).await;
                    }
                    return;
                }
            };
            let Ok(bytes) = frame::encode(&frame) else { return };
            match timeout(WRITE_DEADLINE, write.write_all(&bytes)).await {
                Ok(Ok(())) => {}
                _ => return,
            }
        }
    };
    let end = tokio::select! {
        end = reading => end,
        () = writing => Event::Disconnected(conn),
    };
    let _ = shared.events.send((end, None)).await;
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that whoever could stop the network is gone, which is the same.
    let _ = stop.wait_for(|&stop| stop).await;
}

fn greetings(shared: &Shared) -> [ResponseFrame; 2] {
    [status(shared, true).into(), document_event(shared).into()]
}

fn status(shared: &Shared, is_connected: bool) -> ConnectionStatusEvent {
    let max_plaintext = shared.network.max_plaintext;
    ConnectionStatusEvent {
        is_connected,
        err: None,
        instance_token: Some(Octets::from(shared.instance_token)),
        sphinx_geometry: Some(document::sphinx_geometry(max_plaintext)),
        pigeonhole_geometry: Some(document::pigeonhole_geometry(max_plaintext)),
    }
}

fn document_event(shared: &Shared) -> NewPkiDocumentEvent {
    let wall = wall_clock();
    let document = document::pki_document(&shared.network.identity, mixnet_epoch(wall), replica_epoch(wall));
    NewPkiDocumentEvent { payload: Some(document.into()) }
}

fn response(shared: &Shared, reply: Reply) -> ResponseFrame {
    let network = &shared.network;
    let ended =
        |query_id: [u8; ID_BYTES], error_code, plaintext: Option<Vec<u8>>, couriered: bool| StartResendingReply {
            query_id: Some(Octets::from(query_id)),
            plaintext: plaintext.map(Octets),
            error_code,
            courier_identity_hash: couriered.then(|| Octets::from(network.identity.courier_hash())),
            courier_queue_id: couriered.then(|| Octets::from(COURIER_QUEUE)),
        };
    let query_of = |id: [u8; ID_BYTES]| Some(Octets::from(id));
    match reply {
        Reply::Token { app_id, resumed } => SessionTokenReply { app_id: Some(Octets::from(app_id)), resumed }.into(),
        Reply::Local(answer) => *answer,
        Reply::Ended { query_id, code, courier } => ended(query_id, code, None, courier.is_some()).into(),
        Reply::Box { query_id, read, sealed, .. } => {
            let (code, plaintext) = read.open(&sealed);
            ended(query_id, code, plaintext, true).into()
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
            payload.resize(payload.len().max(network.max_plaintext + OVERHEAD), 0);
            MessageReplyEvent {
                message_id: message_id.and_then(query_of),
                surbid: query_of(surb_id),
                payload: Some(payload.into()),
                ..MessageReplyEvent::default()
            }
            .into()
        }
        Reply::Status { connected } => status(shared, connected).into(),
        Reply::Document => document_event(shared).into(),
    }
}
