//! Envelopes for one box, to be read or to be written (`thin-client-protocol.md` §4.2).

use rand::RngExt as _;
use rand::rngs::StdRng;

use super::{Answer, INTERNAL_ERROR, INVALID_REQUEST, Network, Present, index, octets};
use crate::bacap::{BoxIndex, ReadCap, SealedBox, WriteCap};
use crate::localnet::envelope::{self, Inner, Made};
use crate::localnet::replica::replica_epoch;
use crate::localnet::shard;
use crate::thin::message::{EncryptRead, EncryptReply, EncryptWrite, Octets, ResponseFrame};

/// What another writer of the same channel says.
const FOREIGN: &[u8] = b"localnet: another writer was here first";

pub(super) fn read(network: &Network, present: &Present, rng: &mut StdRng, request: EncryptRead) -> Answer {
    let cap = request.read_cap.as_deref().and_then(|cap| ReadCap::from_bytes(cap).ok());
    let made =
        encrypted(network, present, rng, &request.message_box_index, |index| Some(Inner::Read(cap?.box_id(index))));
    let frame = |reply| ResponseFrame { encrypt_read_reply: Some(reply), ..ResponseFrame::default() };
    answer(network, present, request.query_id, made, frame)
}

pub(super) fn write(network: &Network, present: &Present, rng: &mut StdRng, request: EncryptWrite) -> Answer {
    let cap = request.write_cap.as_deref().and_then(|cap| WriteCap::from_bytes(cap).ok());
    let made = encrypted(network, present, rng, &request.message_box_index, |index| {
        let (cap, plaintext) = (cap.as_ref()?, request.plaintext.as_deref()?);
        if plaintext.is_empty() {
            return Some(Inner::Write(cap.tombstone(index)));
        }
        cap.seal(index, plaintext, network.max_plaintext).ok().map(Inner::Write)
    });
    let foreign = match (&made, &cap, index(&request.message_box_index)) {
        (Ok(_), Some(cap), Some(index)) if rng.random_bool(present.conflicting_writer) => {
            foreign(network, cap, &index, request.plaintext.as_deref().unwrap_or_default())
        }
        _ => None,
    };
    let frame = |reply| ResponseFrame { encrypt_write_reply: Some(reply), ..ResponseFrame::default() };
    Answer { foreign, ..answer(network, present, request.query_id, made, frame) }
}

/// The envelope and the index behind it, or the code of the refusal.
fn encrypted(
    network: &Network,
    present: &Present,
    rng: &mut StdRng,
    at: &Option<Octets>,
    inner: impl FnOnce(&BoxIndex) -> Option<Inner>,
) -> Result<(Made, BoxIndex), u8> {
    let index = index(at).ok_or(INVALID_REQUEST)?;
    let inner = inner(&index).ok_or(INVALID_REQUEST)?;
    let next = index.next().map_err(|_| INTERNAL_ERROR)?;
    if !present.consensus {
        return Err(INTERNAL_ERROR);
    }
    Ok((envelope(network, present, rng, &inner), next))
}

/// An envelope of now, to two intermediaries that are drawn for it.
pub(super) fn envelope(network: &Network, present: &Present, rng: &mut StdRng, inner: &Inner) -> Made {
    let box_id = match inner {
        Inner::Read(box_id) => box_id,
        Inner::Write(sealed) => &sealed.box_id,
    };
    let number = |replica| u8::try_from(replica).expect("a network has fewer than 256 replicas");
    let replicas = shard::intermediaries(&network.replicas, box_id, rng).map(number);
    let key = &network.identity.envelope_key;
    envelope::make(key, replica_epoch(present.wall), replicas, inner, network.max_plaintext, rng)
}

fn answer(
    network: &Network,
    present: &Present,
    query_id: Option<Octets>,
    made: Result<(Made, BoxIndex), u8>,
    frame: impl FnOnce(EncryptReply) -> ResponseFrame,
) -> Answer {
    let (cost, reply) = match made {
        Err(error_code) => {
            (network.refusal(present, error_code), EncryptReply { query_id, error_code, ..EncryptReply::default() })
        }
        Ok((made, next)) => {
            let reply = EncryptReply {
                query_id,
                error_code: 0,
                message_ciphertext: Some(made.ciphertext.into()),
                envelope_descriptor: Some(made.descriptor.into()),
                envelope_hash: octets(&made.hash),
                next_message_box_index: octets(next.as_bytes()),
            };
            (network.profile.encrypt, reply)
        }
    };
    Answer { cost, ..Answer::of(frame(reply)) }
}

/// The box that another writer of the channel puts in the place of `plaintext`.
fn foreign(network: &Network, cap: &WriteCap, index: &BoxIndex, plaintext: &[u8]) -> Option<Box<SealedBox>> {
    let mut text = FOREIGN[..FOREIGN.len().min(network.max_plaintext)].to_vec();
    if text == plaintext {
        text[0] ^= 1;
    }
    cap.seal(index, &text, network.max_plaintext).ok().map(Box::new)
}
