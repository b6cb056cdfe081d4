//! Key pairs and indices: arithmetic that needs no network (`thin-client-protocol.md` §4.2).

use super::{INTERNAL_ERROR, INVALID_REQUEST, index, octets};
use crate::bacap::WriteCap;
use crate::thin::message::{IndexCounter, IndexCounterReply, NewKeypair, NewKeypairReply, NextIndex, NextIndexReply};

pub(super) fn new_keypair(request: NewKeypair) -> NewKeypairReply {
    let query_id = request.query_id;
    let seed = request.seed.as_deref().and_then(|seed| <[u8; 32]>::try_from(seed).ok());
    match seed.map(|seed| WriteCap::from_seed(&seed)) {
        Some(cap) => NewKeypairReply {
            query_id,
            error_code: 0,
            write_cap: octets(&*cap.to_bytes()),
            read_cap: octets(&*cap.read_cap().to_bytes()),
            first_message_index: octets(cap.index().as_bytes()),
        },
        None => NewKeypairReply { query_id, error_code: INVALID_REQUEST, ..NewKeypairReply::default() },
    }
}

pub(super) fn next_index(request: NextIndex) -> NextIndexReply {
    let (error_code, next_message_box_index) = match index(&request.message_box_index).map(|index| index.next()) {
        None => (INVALID_REQUEST, None),
        Some(Err(_)) => (INTERNAL_ERROR, None),
        Some(Ok(next)) => (0, octets(next.as_bytes())),
    };
    NextIndexReply { query_id: request.query_id, error_code, next_message_box_index }
}

pub(super) fn counter(request: IndexCounter) -> IndexCounterReply {
    let counter = index(&request.message_box_index).map(|index| index.counter());
    let error_code = if counter.is_some() { 0 } else { INVALID_REQUEST };
    IndexCounterReply { query_id: request.query_id, error_code, counter: counter.unwrap_or(0) }
}
