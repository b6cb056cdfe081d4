//! Requests of the caller's own making, frame by frame, for programs that speak the protocol themselves: bindings to other
//! languages, above all. They have the session's deadlines, reconnects and cancellation like any other.

use tokio::time::Instant;

use super::{Client, hash256, octets};
use crate::bacap::{INDEX_BYTES, READ_CAP_BYTES, WRITE_CAP_BYTES};
use crate::thin::message::{HASH_BYTES, ID_BYTES, Octets, RequestFrame, ResponseFrame};
use crate::thin::session::{Body, CancelKey};
use crate::thin::{Error, ErrorKind, Operation};

/// What the session has to know of a request.
#[derive(Default)]
struct Outline {
    cancel: Option<CancelKey>,
    cancels: Option<CancelKey>,
    /// Whether a capability or an index in it has another length than the network's.
    malformed: bool,
}

impl Client {
    /// Puts a request and gives its reply as the daemon said it, whatever its error code. The query id is the client's own
    /// affair: the one in `request` is replaced. After a reconnect the request is put again, except one with a capability
    /// or an index of a wrong length, at which a daemon hangs up: it is lost with its connection. Dropping the future
    /// cancels what was started.
    ///
    /// The session's own frames and legacy messages, which have no reply, are refused.
    pub async fn exchange(&self, request: RequestFrame, deadline: Instant) -> Result<ResponseFrame, Error> {
        let (operation, outline) = outline(&request)?;
        let frame = move |id: [u8; ID_BYTES]| {
            let mut frame = request.clone();
            if let Some(query_id) = query_id(&mut frame) {
                *query_id = octets(&id);
            }
            frame
        };
        let Outline { cancel, cancels, malformed } = outline;
        let body = Body { frame: Box::new(frame), cancel, cancels, fragile: malformed };
        Ok(self.ask(operation, deadline, body).await?.frame)
    }
}

/// Where the query id of a request stands.
fn query_id(frame: &mut RequestFrame) -> Option<&mut Option<Octets>> {
    macro_rules! first {
        ($($variant:ident),+ $(,)?) => {
            $(if let Some(body) = &mut frame.$variant {
                return Some(&mut body.query_id);
            })+
        };
    }
    first!(
        encrypt_read,
        encrypt_write,
        start_resending_encrypted_message,
        cancel_resending_encrypted_message,
        new_keypair,
        next_message_box_index,
        get_message_box_index_counter,
        start_resending_copy_command,
        cancel_resending_copy_command,
        get_pki_document,
        get_directory_authorities,
        create_courier_envelopes_from_payload,
        create_courier_envelopes_from_multi_payload,
        create_courier_envelopes_from_tombstone_range,
        voucher_mint,
        voucher_induct,
        voucher_open,
        voucher_derive_stream,
    );
    None
}

fn outline(frame: &RequestFrame) -> Result<(Operation, Outline), Error> {
    let is = |found: &Option<Octets>, bytes: usize| found.as_ref().is_some_and(|found| found.len() == bytes);
    let unlike = |found: &Option<Octets>, bytes: usize| found.as_ref().is_some_and(|found| found.len() != bytes);
    let refused = |operation, text: &str| Error { operation, kind: ErrorKind::InvalidArgument(text.to_owned()) };
    let key = |operation, hash: &Option<Octets>| {
        let hash: Option<[u8; HASH_BYTES]> = hash.as_deref().and_then(|hash| hash.try_into().ok());
        hash.ok_or_else(|| refused(operation, "the hash that tells the operation has 32 bytes"))
    };
    let mut outline = Outline::default();
    let operation = if let Some(body) = &frame.start_resending_encrypted_message {
        let is_read = body.write_cap.is_none();
        let operation = if is_read { Operation::Read } else { Operation::Write };
        outline.cancel = Some(CancelKey::Envelope(key(operation, &body.envelope_hash)?));
        outline.malformed = unlike(&body.read_cap, READ_CAP_BYTES)
            || unlike(&body.write_cap, WRITE_CAP_BYTES)
            || unlike(&body.message_box_index, INDEX_BYTES);
        operation
    } else if let Some(body) = &frame.start_resending_copy_command {
        let Some(cap) = &body.write_cap else {
            return Err(refused(Operation::Copy, "a copy command needs the write capability of its stream"));
        };
        outline.cancel = Some(CancelKey::Copy(hash256(cap)));
        outline.malformed = cap.len() != WRITE_CAP_BYTES;
        Operation::Copy
    } else if let Some(body) = &frame.cancel_resending_encrypted_message {
        outline.cancels = Some(CancelKey::Envelope(key(Operation::Cancel, &body.envelope_hash)?));
        Operation::Cancel
    } else if let Some(body) = &frame.cancel_resending_copy_command {
        outline.cancels = Some(CancelKey::Copy(key(Operation::CancelCopy, &body.write_cap_hash)?));
        Operation::CancelCopy
    } else if let Some(body) = &frame.encrypt_read {
        outline.malformed = !is(&body.read_cap, READ_CAP_BYTES) || !is(&body.message_box_index, INDEX_BYTES);
        Operation::EncryptRead
    } else if let Some(body) = &frame.encrypt_write {
        outline.malformed = !is(&body.write_cap, WRITE_CAP_BYTES) || !is(&body.message_box_index, INDEX_BYTES);
        Operation::EncryptWrite
    } else if let Some(body) = &frame.next_message_box_index {
        outline.malformed = !is(&body.message_box_index, INDEX_BYTES);
        Operation::NextIndex
    } else if let Some(body) = &frame.get_message_box_index_counter {
        outline.malformed = !is(&body.message_box_index, INDEX_BYTES);
        Operation::IndexCounter
    } else if let Some(body) = &frame.create_courier_envelopes_from_payload {
        outline.malformed = !is(&body.dest_write_cap, WRITE_CAP_BYTES) || !is(&body.dest_start_index, INDEX_BYTES);
        Operation::CourierEnvelopes
    } else if let Some(body) = &frame.create_courier_envelopes_from_tombstone_range {
        outline.malformed = !is(&body.dest_write_cap, WRITE_CAP_BYTES) || !is(&body.dest_start_index, INDEX_BYTES);
        Operation::CourierEnvelopes
    } else if let Some(body) = &frame.create_courier_envelopes_from_multi_payload {
        outline.malformed = body.destinations.iter().flatten().any(|destination| {
            !is(&destination.write_cap, WRITE_CAP_BYTES) || !is(&destination.start_index, INDEX_BYTES)
        });
        Operation::CourierEnvelopes
    } else if let Some(body) = &frame.voucher_mint {
        outline.malformed = !is(&body.message_write_cap, WRITE_CAP_BYTES);
        Operation::Voucher
    } else if let Some(body) = &frame.voucher_open {
        outline.malformed = !is(&body.message_write_cap, WRITE_CAP_BYTES);
        Operation::Voucher
    } else if let Some(body) = &frame.voucher_induct {
        outline.malformed = !is(&body.voucher, HASH_BYTES);
        Operation::Voucher
    } else if let Some(body) = &frame.voucher_derive_stream {
        outline.malformed = !is(&body.voucher, HASH_BYTES);
        Operation::Voucher
    } else if frame.new_keypair.is_some() {
        Operation::NewKeypair
    } else if frame.get_pki_document.is_some() {
        Operation::PkiDocument
    } else if frame.get_directory_authorities.is_some() {
        Operation::DirectoryAuthorities
    } else {
        return Err(refused(Operation::SendMessage, "the frame holds no request that has a reply"));
    };
    Ok((operation, outline))
}
