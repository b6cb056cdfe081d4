//! Contact vouchers, as they are asked for (`pigeonhole-internals.md` §6.2).

use rand::rngs::StdRng;

use super::{INVALID_REQUEST, octets};
use crate::bacap::WriteCap;
use crate::localnet::voucher::{self, Refused};
use crate::thin::message::{
    Octets, VoucherDeriveStream, VoucherDeriveStreamReply, VoucherInduct, VoucherInductReply, VoucherMint,
    VoucherMintReply, VoucherOpen, VoucherOpenReply,
};

pub(super) fn mint(rng: &mut StdRng, request: VoucherMint) -> VoucherMintReply {
    let query_id = request.query_id;
    let Some(cap) = write_cap(&request.message_write_cap) else {
        return VoucherMintReply { query_id, error_code: INVALID_REQUEST, ..VoucherMintReply::default() };
    };
    let minted = voucher::mint(&cap, &request.display_name.unwrap_or_default(), rng);
    let stream = voucher::stream(&minted.voucher);
    VoucherMintReply {
        query_id,
        error_code: 0,
        voucher: octets(&minted.voucher),
        voucher_payload: Some(minted.payload.into()),
        voucher_write_cap: octets(&*stream.to_bytes()),
        voucher_read_cap: octets(&*stream.read_cap().to_bytes()),
        voucher_secret_key: octets(&minted.secret_key),
        voucher_public_key: Some(minted.public_key.into()),
    }
}

pub(super) fn induct(rng: &mut StdRng, request: VoucherInduct) -> VoucherInductReply {
    let query_id = request.query_id;
    let who_reply = request.who_reply.as_deref().unwrap_or_default();
    let inducted = secret(&request.voucher).and_then(|voucher| {
        let payload = request.voucher_payload.as_deref().unwrap_or_default();
        Ok((voucher::induct(&voucher, payload, who_reply, rng)?, voucher::stream(&voucher)))
    });
    match inducted {
        Err(refused) => VoucherInductReply { query_id, error_code: refused as u8, ..VoucherInductReply::default() },
        Ok((inducted, stream)) => VoucherInductReply {
            query_id,
            error_code: 0,
            display_name: inducted.display_name,
            mutated_message_read_cap: octets(&*inducted.read_cap.to_bytes()),
            sealed_reply: Some(inducted.sealed_reply.into()),
            voucher_write_cap: octets(&*stream.to_bytes()),
            voucher_read_cap: octets(&*stream.read_cap().to_bytes()),
            salt: octets(&inducted.salt),
        },
    }
}

pub(super) fn open(request: VoucherOpen) -> VoucherOpenReply {
    let query_id = request.query_id;
    let opened = write_cap(&request.message_write_cap).ok_or(Refused::Invalid).and_then(|cap| {
        let secret_key = request.voucher_secret_key.as_deref().unwrap_or_default();
        voucher::open(secret_key, request.sealed_reply.as_deref().unwrap_or_default(), &cap)
    });
    match opened {
        Err(refused) => VoucherOpenReply { query_id, error_code: refused as u8, ..VoucherOpenReply::default() },
        Ok(opened) => VoucherOpenReply {
            query_id,
            error_code: 0,
            who_reply: Some(opened.who_reply.into()),
            salt: octets(&opened.salt),
            mutated_message_write_cap: octets(&*opened.write_cap.to_bytes()),
        },
    }
}

pub(super) fn derive_stream(request: VoucherDeriveStream) -> VoucherDeriveStreamReply {
    let query_id = request.query_id;
    match secret(&request.voucher).map(|voucher| voucher::stream(&voucher)) {
        Err(refused) => {
            VoucherDeriveStreamReply { query_id, error_code: refused as u8, ..VoucherDeriveStreamReply::default() }
        }
        Ok(stream) => VoucherDeriveStreamReply {
            query_id,
            error_code: 0,
            voucher_write_cap: octets(&*stream.to_bytes()),
            voucher_read_cap: octets(&*stream.read_cap().to_bytes()),
        },
    }
}

fn write_cap(bytes: &Option<Octets>) -> Option<WriteCap> {
    WriteCap::from_bytes(bytes.as_deref()?).ok()
}

fn secret(bytes: &Option<Octets>) -> Result<[u8; 32], Refused> {
    bytes.as_deref().and_then(|bytes| bytes.try_into().ok()).ok_or(Refused::Invalid)
}
