use proptest::prelude::*;

use super::*;
use crate::thin::frame;
use crate::thin::message::{
    CancelResending, CopyDestination, EncryptRead, EncryptWrite, EnvelopesFromMultiPayload,
    EnvelopesFromTombstoneRange, GetPkiDocument, NewKeypair, Octets, RequestFrame, SendMessage, StartResending,
    VoucherMint,
};

/// One item as bytes, written as the specification prints it: hexadecimal, with text in quotes between.
fn item(notation: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (number, part) in notation.split('\'').enumerate() {
        match number % 2 {
            0 => bytes.extend(hex::decode(part.replace(' ', "")).expect("hexadecimal")),
            _ => {
                let length = u8::try_from(part.len()).expect("short");
                bytes.extend(if length < 24 { vec![0x60 + length] } else { vec![0x78, length] });
                bytes.extend(part.as_bytes());
            }
        }
    }
    bytes
}

fn request(notation: &str) -> Result<RequestFrame, Malformed> {
    decode(&item(notation))
}

/// What a row of §2.2's table comes to.
enum Outcome {
    Is(Box<RequestFrame>),
    Closes,
}
use Outcome::Closes;

fn is(request: impl Into<RequestFrame>) -> Outcome {
    Outcome::Is(Box::new(request.into()))
}

#[test]
fn each_row_of_the_specification_s_table_comes_to_what_it_says() {
    let octets = |bytes: &[u8]| Some(Octets::from(bytes));
    let seed = |bytes: &[u8]| is(NewKeypair { seed: octets(bytes), ..NewKeypair::default() });
    let keypair = || is(NewKeypair::default());
    let epoch = |epoch| is(GetPkiDocument { epoch, ..GetPkiDocument::default() });
    let count = |max_count| is(EnvelopesFromTombstoneRange { max_count, ..EnvelopesFromTombstoneRange::default() });
    let nested = |depth: usize| format!("a1 'later' {} 80", "81".repeat(depth));
    let array = |elements: u32| format!("a1 'later' 9a {elements:08x} {}", "00".repeat(elements as usize));
    let map = |pairs: u32| format!("a1 'later' ba {pairs:08x} {}", "0000".repeat(pairs as usize));
    let rows = [
        // Unknown keys, outer and inner, of any kind of value.
        ("a2 'later' a1 'x' 9f 01 ff 'new_keypair' a1 'later' fb 3ff0000000000000".to_owned(), keypair()),
        ("a2 07 01 'new_keypair' a0".to_owned(), keypair()),
        ("a1 41 61 01".to_owned(), Closes),
        // Keys of another case.
        ("a1 'New_Keypair' a1 'SEED' 42 0102".to_owned(), seed(&[1, 2])),
        ("a1 'new_keypair' a2 'SEED' 41 02 'seed' 41 01".to_owned(), seed(&[2])),
        // Absent and null are one; so is undefined.
        ("a1 'new_keypair' a1 'seed' f6".to_owned(), keypair()),
        ("a1 'new_keypair' a1 'seed' f7".to_owned(), keypair()),
        ("a2 'new_keypair' a0 'encrypt_read' f6".to_owned(), keypair()),
        ("a1 'get_pki_document' a1 'epoch' f6".to_owned(), epoch(0)),
        // Of a key that comes twice the first counts.
        ("a1 'new_keypair' a2 'seed' 41 01 'seed' 41 02".to_owned(), seed(&[1])),
        ("a2 'new_keypair' a1 'seed' 41 01 'new_keypair' 01".to_owned(), seed(&[1])),
        // Open lengths.
        ("bf 'new_keypair' bf 'seed' 5f 41 01 41 02 ff ff ff".to_owned(), seed(&[1, 2])),
        // Bytes behind the item, no item, half an item.
        ("a0 00".to_owned(), Closes),
        (String::new(), Closes),
        ("a1 'new_keypair'".to_owned(), Closes),
        ("bf 'new_keypair' ff".to_owned(), Closes),
        // What is no map: an array, and the null that brings the daemon down.
        ("80".to_owned(), Closes),
        ("f6".to_owned(), Closes),
        ("c1 f6".to_owned(), Closes),
        ("01".to_owned(), Closes),
        ("a1 'new_keypair' 80".to_owned(), Closes),
        // An empty map asks nothing, and is no error.
        ("a0".to_owned(), is(RequestFrame::default())),
        ("bf ff".to_owned(), is(RequestFrame::default())),
        ("d9 d9f7 a0".to_owned(), is(RequestFrame::default())),
        // Bytes as an array of small numbers, where no capability or index is meant.
        ("a1 'new_keypair' a1 'seed' 83 01 18ff f6".to_owned(), seed(&[1, 255, 0])),
        ("a1 'new_keypair' a1 'seed' 9f 01 ff".to_owned(), seed(&[1])),
        ("a1 'new_keypair' a1 'seed' 81 190100".to_owned(), Closes),
        ("a1 'new_keypair' a1 'seed' 81 20".to_owned(), Closes),
        ("a1 'encrypt_read' a1 'read_cap' 81 01".to_owned(), Closes),
        ("a1 'encrypt_read' a1 'message_box_index' 81 01".to_owned(), Closes),
        ("a1 'encrypt_read' a1 'read_cap' f6".to_owned(), is(EncryptRead::default())),
        (
            "a1 'start_resending_encrypted_message' a1 'message_box_index' 81 07".to_owned(),
            is(StartResending { message_box_index: octets(&[7]), ..StartResending::default() }),
        ),
        (
            "a1 'cancel_resending_encrypted_message' a1 'envelope_hash' 81 07".to_owned(),
            is(CancelResending { envelope_hash: octets(&[7]), ..CancelResending::default() }),
        ),
        // Text for bytes, bytes for text.
        ("a1 'new_keypair' a1 'seed' 'seed'".to_owned(), Closes),
        ("a1 'encrypt_read' a1 'read_cap' 'cap'".to_owned(), Closes),
        ("a1 'voucher_mint' a1 'display_name' 41 61".to_owned(), Closes),
        (
            "a1 'voucher_mint' a1 'display_name' 'alice'".to_owned(),
            is(VoucherMint { display_name: Some("alice".to_owned()), ..VoucherMint::default() }),
        ),
        // A number for true; a number beyond its field; what is no whole number.
        ("a1 'send_message' a1 'with_surb' 01".to_owned(), Closes),
        (
            "a1 'send_message' a1 'with_surb' f5".to_owned(),
            is(SendMessage { with_surb: true, ..SendMessage::default() }),
        ),
        ("a1 'create_courier_envelopes_from_tombstone_range' a1 'max_count' 1a ffffffff".to_owned(), count(u32::MAX)),
        ("a1 'create_courier_envelopes_from_tombstone_range' a1 'max_count' 1b 0000000100000000".to_owned(), Closes),
        ("a1 'get_pki_document' a1 'epoch' 1b ffffffffffffffff".to_owned(), epoch(u64::MAX)),
        ("a1 'get_pki_document' a1 'epoch' 20".to_owned(), Closes),
        ("a1 'get_pki_document' a1 'epoch' f9 3c00".to_owned(), Closes),
        ("a1 'start_resending_encrypted_message' a1 'reply_index' 190100".to_owned(), Closes),
        // Limits: the last that is within, and the first beyond.
        (nested(30), is(RequestFrame::default())),
        (nested(31), Closes),
        (array(131_072), is(RequestFrame::default())),
        (array(131_073), Closes),
        (format!("a1 'later' 9f {} ff", "00".repeat(131_073)), Closes),
        (map(131_072), is(RequestFrame::default())),
        (map(131_073), Closes),
        (format!("a1 'later' bf {} ff", "0000".repeat(131_073)), Closes),
        // Text that is no UTF-8, also where nobody asks for it.
        ("a1 'later' 61 ff".to_owned(), Closes),
        ("a1 61 ff 01".to_owned(), Closes),
        // What CBOR does not have.
        ("a1 'later' 1c".to_owned(), Closes),
        ("a1 'later' f8 1f".to_owned(), Closes),
        ("a1 'later' 5f 61 61 ff".to_owned(), Closes),
        ("a1 'later' 5f 5f 41 01 ff ff".to_owned(), Closes),
        ("a1 'later' ff".to_owned(), Closes),
        ("ff".to_owned(), Closes),
        // Destinations: a null among them is an empty one.
        (
            "a1 'create_courier_envelopes_from_multi_payload' a1 'destinations' 82 f6 a1 'payload' 41 01".to_owned(),
            is(EnvelopesFromMultiPayload {
                destinations: Some(vec![
                    CopyDestination::default(),
                    CopyDestination { payload: octets(&[1]), ..CopyDestination::default() },
                ]),
                ..EnvelopesFromMultiPayload::default()
            }),
        ),
        ("a1 'create_courier_envelopes_from_multi_payload' a1 'destinations' 81 a1 'write_cap' 80".to_owned(), Closes),
    ];
    for (notation, outcome) in rows {
        let short: String = notation.chars().take(80).collect();
        match outcome {
            Outcome::Is(expected) => assert_eq!(request(&notation).as_ref(), Ok(&*expected), "{short}"),
            Closes => assert!(request(&notation).is_err(), "{short} was taken"),
        }
    }
}

#[test]
fn what_a_client_of_ours_writes_is_read_as_it_was_meant() {
    let write = EncryptWrite {
        query_id: Some(Octets::from([1; 16])),
        plaintext: Some(Octets::from([])),
        write_cap: Some(Octets::from([2; 168])),
        message_box_index: None,
    };
    let frame = RequestFrame::from(write);
    assert_eq!(decode(&frame::encode(&frame).expect("small")[4..]), Ok(frame));
}

/// Bytes that are mostly heads are read once, with an array for a stack, and nothing is kept of them: a mebibyte of empty
/// arrays would be thirty-two of values.
#[test]
fn a_hostile_body_costs_no_more_than_its_bytes() {
    for head in [0x81, 0x9f, 0xbf, 0xc1] {
        assert!(decode::<RequestFrame>(&vec![head; frame::MAX_BODY_BYTES]).is_err());
    }
    let mut wide = item("a1 'later' 9f");
    while wide.len() < 1 << 20 {
        wide.extend([0x9a, 0, 2, 0, 0]);
        wide.extend([0x80; 131_072]);
    }
    wide.push(0xff);
    assert_eq!(decode(&wide), Ok(RequestFrame::default()));
}

proptest! {
    #[test]
    fn no_bytes_bring_it_down(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode::<RequestFrame>(&bytes);
    }

    /// Bytes that look like requests get further than noise does.
    #[test]
    fn no_request_with_some_bytes_changed_brings_it_down(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4), cut in any::<prop::sample::Index>(),
    ) {
        let frame = RequestFrame::from(EnvelopesFromMultiPayload {
            query_id: Some(Octets::from([1; 16])),
            destinations: Some(vec![CopyDestination {
                payload: Some(Octets::from([3; 20])),
                write_cap: Some(Octets::from([4; 8])),
                start_index: None,
            }]),
            is_start: true,
            is_last: false,
            buffer: Some(Octets::from([9; 3])),
        });
        let mut body = frame::encode(&frame).expect("small").split_off(4);
        for (at, byte) in changes {
            *at.get_mut(&mut body) = byte;
        }
        let _ = decode::<RequestFrame>(&body);
        body.truncate(cut.index(body.len()) + 1);
        let _ = decode::<RequestFrame>(&body);
    }
}
