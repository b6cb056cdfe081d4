//! What the daemon knows of the network: its document, and who stands behind it (`thin-client-protocol.md` §4.2).

use super::{Network, Present, SERVICE_UNAVAILABLE};
use crate::localnet::document;
use crate::thin::message::{
    GetDirectoryAuthorities, GetDirectoryAuthoritiesReply, GetPkiDocument, GetPkiDocumentReply,
};

/// The document of this epoch or of the last one. Where there is none the daemon sends null, and localnet no bytes: one of
/// upstream's clients cannot read a null here, and all of them can read the code beside either.
pub(super) fn document(network: &Network, present: &Present, request: GetPkiDocument) -> GetPkiDocumentReply {
    let now = document::mixnet_epoch(&network.profile, present.wall);
    let asked = if request.epoch == 0 { now } else { request.epoch };
    let query_id = request.query_id;
    if !present.consensus || asked > now || now - asked > 1 {
        let payload = Some(Vec::new().into());
        return GetPkiDocumentReply { query_id, error_code: SERVICE_UNAVAILABLE, payload, epoch: request.epoch };
    }
    let payload = document::signed_document(&network.identity, &network.profile, network.max_plaintext, asked);
    GetPkiDocumentReply { query_id, error_code: 0, payload: Some(payload.into()), epoch: asked }
}

pub(super) fn authorities(network: &Network, request: GetDirectoryAuthorities) -> GetDirectoryAuthoritiesReply {
    let authorities = Some(document::authorities(&network.identity));
    GetDirectoryAuthoritiesReply { query_id: request.query_id, error_code: 0, authorities }
}
