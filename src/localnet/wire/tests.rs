//! Requests as clients put them, and what comes of them without a network.

use rand::SeedableRng as _;

use super::*;
use crate::bacap::{ReadCap, WriteCap};
use crate::localnet::copy_stream::Decoder;
use crate::localnet::envelope::{self, Inner, Query};
use crate::localnet::replica::replica_epoch;
use crate::thin::frame;
use crate::thin::message::*;

const M: usize = 1549;
/// Some Friday.
const NOW: Duration = Duration::from_secs(1_795_800_000);
const QUERY: [u8; 16] = [9; 16];

/// A daemon that has a document, and a client of it.
struct Desk {
    network: Network,
    present: Present,
    rng: StdRng,
    cap: WriteCap,
}

impl Desk {
    fn new() -> Self {
        let identity = Identity { envelope_key: [1; 32], authority_key: [2; 32], courier_key: [3; 32] };
        Self {
            network: Network::new(identity, M, Profile::docker()),
            present: Present { wall: NOW, consensus: true, conflicting_writer: 0.0 },
            rng: StdRng::seed_from_u64(1),
            cap: WriteCap::from_seed(&[1; 32]),
        }
    }

    fn ask(&mut self, request: impl Into<RequestFrame>) -> Meaning {
        understand(&self.network, &self.present, &mut self.rng, request.into())
    }

    /// The answer to a request that needs no network.
    fn answer(&mut self, request: impl Into<RequestFrame>) -> Answer {
        match self.ask(request) {
            Meaning::Answer(answer) => answer,
            Meaning::Make(mut making) => loop {
                match making.step(&self.network, &mut self.rng) {
                    Made::Answer(answer) => break answer,
                    Made::More(more) => making = more,
                }
            },
            _ => panic!("no answer"),
        }
    }

    fn open(&self, query: &[u8]) -> Query {
        envelope::open(&self.network.identity.envelope_key, query).expect("an envelope of this network")
    }

    fn cap(&self) -> Option<Octets> {
        octets(&*self.cap.to_bytes())
    }

    fn at(&self) -> Option<Octets> {
        octets(self.cap.index().as_bytes())
    }

    fn after(&self, steps: u64) -> Option<Octets> {
        let index = self.cap.index().advance_to(self.cap.index().counter() + steps).expect("far from the end");
        octets(index.as_bytes())
    }

    fn payload(&self, bytes: usize, is_last: bool) -> EnvelopesFromPayload {
        EnvelopesFromPayload {
            query_id: octets(&QUERY),
            payload: Some(vec![7; bytes].into()),
            dest_write_cap: self.cap(),
            dest_start_index: self.at(),
            is_start: true,
            is_last,
        }
    }

    fn tombstones(&self, max_count: u32) -> EnvelopesFromTombstoneRange {
        EnvelopesFromTombstoneRange {
            query_id: octets(&QUERY),
            dest_write_cap: self.cap(),
            dest_start_index: self.at(),
            max_count,
            is_start: true,
            is_last: true,
            buffer: None,
        }
    }

    fn destination(&self, payload: &[u8]) -> CopyDestination {
        CopyDestination { payload: octets(payload), write_cap: self.cap(), start_index: self.at() }
    }

    fn multi(&self, destinations: Vec<CopyDestination>, is_last: bool) -> EnvelopesFromMultiPayload {
        EnvelopesFromMultiPayload {
            query_id: octets(&QUERY),
            destinations: Some(destinations),
            is_start: true,
            is_last,
            buffer: None,
        }
    }

    /// What a courier would write for these elements.
    fn executed(&self, elements: &[Octets]) -> Vec<Inner> {
        let mut decoder = Decoder::new(M);
        let mut inners = Vec::new();
        for element in elements {
            for envelope in decoder.feed(element).expect("our own") {
                inners.push(self.open(&[&[0][..], &envelope].concat()).inner);
            }
        }
        assert_eq!(decoder.left_over(), 0);
        inners
    }
}

fn payload_reply(answer: Answer) -> EnvelopesFromPayloadReply {
    answer.frame.create_courier_envelopes_from_payload_reply.expect("a reply to it")
}

fn multi_reply(answer: Answer) -> EnvelopesFromMultiPayloadReply {
    answer.frame.create_courier_envelopes_from_multi_payload_reply.expect("a reply to it")
}

fn tombstone_reply(answer: Answer) -> EnvelopesFromTombstoneRangeReply {
    answer.frame.create_courier_envelopes_from_tombstone_range_reply.expect("a reply to it")
}

#[test]
fn a_payload_becomes_the_stream_that_writes_it_box_by_box() {
    let mut desk = Desk::new();
    let answer = desk.answer(desk.payload(65_540, true));
    assert_eq!(answer.cost, desk.network.profile.encrypt * 43);
    let reply = payload_reply(answer);
    assert_eq!((reply.error_code, &reply.query_id, &reply.next_dest_index), (0, &octets(&QUERY), &desk.after(43)));
    let elements = reply.envelopes.expect("elements");
    assert_eq!(elements.len(), 56, "upstream's own count");
    let mut index = desk.cap.index().clone();
    let mut bytes = Vec::new();
    for inner in desk.executed(&elements) {
        let Inner::Write(sealed) = inner else { panic!("a write") };
        match desk.cap.read_cap().open(&index, &sealed) {
            Ok(crate::bacap::Opened::Message(chunk)) => bytes.extend(chunk),
            other => panic!("a message, not {other:?}"),
        }
        index = index.next().expect("far from the end");
    }
    assert_eq!(bytes, vec![7; 65_540]);

    let unfinished = payload_reply(desk.answer(desk.payload(10, false))).envelopes.expect("elements");
    assert_eq!(unfinished.iter().map(|element| element[0]).collect::<Vec<_>>(), [1, 0], "flushed, and no end");
    let empty = payload_reply(desk.answer(desk.payload(0, true)));
    assert_eq!((empty.error_code, empty.envelopes, empty.next_dest_index), (0, None, desk.at()));
}

#[test]
fn several_payloads_share_a_stream_whose_tail_is_passed_on() {
    let mut desk = Desk::new();
    let other = WriteCap::from_seed(&[2; 32]);
    let second = CopyDestination { write_cap: octets(&*other.to_bytes()), ..desk.destination(b"two") };
    let first = multi_reply(desk.answer(desk.multi(vec![desk.destination(b"one"), second], false)));
    assert_eq!(first.next_dest_indices, Some(vec![desk.after(1).expect("one"), desk.after(1).expect("one")]));
    let mut elements = first.envelopes.expect("elements");
    let buffer = first.buffer.expect("a tail");
    assert_eq!((elements.len(), buffer.len()), (2, 2 * 2003 - 2 * 1544));
    let last = EnvelopesFromMultiPayload {
        buffer: Some(buffer),
        is_start: false,
        ..desk.multi(vec![desk.destination(b"three")], true)
    };
    let last = multi_reply(desk.answer(last));
    assert_eq!(last.buffer, None);
    elements.extend(last.envelopes.expect("elements"));
    assert_eq!(elements.iter().map(|element| element[0]).collect::<Vec<_>>(), [1, 0, 0, 2]);
    let seal = |cap: &WriteCap, text: &[u8]| Inner::Write(cap.seal(desk.cap.index(), text, M).expect("it fits"));
    let expected = [seal(&desk.cap, b"one"), seal(&other, b"two"), seal(&desk.cap, b"three")];
    assert_eq!(desk.executed(&elements), expected);
}

#[test]
fn a_range_of_tombstones_deletes_one_box_after_the_other() {
    let mut desk = Desk::new();
    let reply = tombstone_reply(desk.answer(desk.tombstones(3)));
    assert_eq!((reply.error_code, &reply.buffer, &reply.next_dest_index), (0, &None, &desk.after(3)));
    let mut index = desk.cap.index().clone();
    for inner in desk.executed(&reply.envelopes.expect("elements")) {
        assert_eq!(inner, Inner::Write(desk.cap.tombstone(&index)));
        index = index.next().expect("far from the end");
    }
    assert_eq!(octets(index.as_bytes()), desk.after(3));
    let none = tombstone_reply(desk.answer(desk.tombstones(0)));
    assert_eq!((none.error_code, none.envelopes, none.buffer, none.next_dest_index), (0, None, None, desk.at()));
}

#[test]
fn what_is_wrong_or_too_much_for_a_stream_is_refused_before_anything_is_made() {
    let mut desk = Desk::new();
    let refused = |answer: Answer| {
        let frame = *answer.frame;
        frame
            .create_courier_envelopes_from_payload_reply
            .map(|reply| reply.error_code)
            .or(frame.create_courier_envelopes_from_multi_payload_reply.map(|reply| reply.error_code))
            .or(frame.create_courier_envelopes_from_tombstone_range_reply.map(|reply| reply.error_code))
    };
    let no_cap = EnvelopesFromPayload { dest_write_cap: None, ..desk.payload(1, true) };
    let no_index = EnvelopesFromTombstoneRange { dest_start_index: None, ..desk.tombstones(1) };
    let much = desk.destination(&vec![0; 10 << 20]);
    for wrong in [
        RequestFrame::from(no_cap),
        no_index.into(),
        desk.payload((10 << 20) + 1, true).into(),
        desk.multi(Vec::new(), true).into(),
        desk.multi(vec![desk.destination(b"x"), CopyDestination::default()], true).into(),
        // Each within its limit, and together beyond a frame.
        desk.multi(vec![much.clone(), much.clone(), much.clone(), much], true).into(),
        // As long as a thread could be held for; and the first that would not fit.
        desk.tombstones(u32::MAX).into(),
        desk.tombstones(20_900).into(),
    ] {
        let Meaning::Answer(answer) = desk.ask(wrong) else { panic!("refused at once") };
        assert_eq!(refused(answer), Some(INVALID_REQUEST));
    }
    assert!(matches!(desk.ask(desk.tombstones(20_700)), Meaning::Make(_)), "it fits into a frame");
    desk.present.consensus = false;
    let answer = desk.answer(desk.tombstones(1));
    assert_eq!((answer.cost, refused(answer)), (Duration::from_secs(4), Some(INTERNAL_ERROR)));
}

/// What decides whether a reply fits into a frame is a little more than the reply, and never less.
#[test]
fn a_reply_is_no_longer_than_was_expected() {
    let mut desk = Desk::new();
    for bytes in [0, 1, 1545, 1546, 50_000] {
        let reply = *desk.answer(desk.payload(bytes, true)).frame;
        let (longest, length) =
            (copy::longest_reply(M, bytes.div_ceil(M - 4), 0, 1), frame::encode(&reply).expect("small").len());
        assert!(length <= longest && longest - length < 4200, "{bytes} bytes: {length} of {longest}");
    }
}

#[test]
fn an_envelope_goes_to_two_intermediaries_and_another_writer_may_come_first() {
    let mut desk = Desk::new();
    let write = |desk: &Desk, plaintext: Option<&[u8]>| EncryptWrite {
        query_id: octets(&QUERY),
        plaintext: plaintext.map(Octets::from),
        write_cap: desk.cap(),
        message_box_index: desk.at(),
    };
    let answer = desk.answer(write(&desk, Some(b"mine")));
    assert!(answer.foreign.is_none() && answer.cost == desk.network.profile.encrypt);
    let reply = answer.frame.encrypt_write_reply.expect("a reply to it");
    let query = desk.open(reply.message_ciphertext.as_deref().expect("a query"));
    assert!(query.replicas[0] != query.replicas[1] && query.replicas.iter().all(|&number| number < 5));
    assert_eq!((octets(&query.hash), query.epoch), (reply.envelope_hash, replica_epoch(NOW)));
    let holders =
        crate::localnet::shard::holders(&desk.network.replicas, &desk.cap.read_cap().box_id(desk.cap.index()));
    assert!(query.replicas.iter().all(|&number| !holders.contains(&usize::from(number))), "holders have no need of it");

    desk.present.conflicting_writer = 1.0;
    for plaintext in [&b"mine"[..], b"localnet: another writer was here first", b""] {
        let foreign = desk.answer(write(&desk, Some(plaintext))).foreign.expect("another writer");
        match desk.cap.read_cap().open(desk.cap.index(), &foreign) {
            Ok(crate::bacap::Opened::Message(text)) => assert!(text != plaintext && !text.is_empty()),
            other => panic!("a message, not {other:?}"),
        }
    }
    let refused = desk.answer(write(&desk, None));
    assert_eq!(refused.frame.encrypt_write_reply.expect("a reply to it").error_code, INVALID_REQUEST);
    assert!(refused.foreign.is_none());

    desk.present.consensus = false;
    let answer = desk.answer(write(&desk, Some(b"mine")));
    assert_eq!(answer.cost, Duration::from_secs(4));
    assert_eq!(answer.frame.encrypt_write_reply.expect("a reply to it").error_code, INTERNAL_ERROR);
}

#[test]
fn the_same_seed_gives_the_same_answers() {
    let run = || {
        let mut desk = Desk::new();
        let frames = [
            *desk.answer(desk.payload(4000, true)).frame,
            *desk
                .answer(EncryptRead {
                    query_id: octets(&QUERY),
                    read_cap: octets(&*desk.cap.read_cap().to_bytes()),
                    message_box_index: desk.at(),
                })
                .frame,
            *desk
                .answer(VoucherMint {
                    query_id: octets(&QUERY),
                    message_write_cap: desk.cap(),
                    display_name: Some("alice".to_owned()),
                })
                .frame,
        ];
        frames.map(|reply| frame::encode(&reply).expect("small"))
    };
    assert_eq!(run(), run());
}

#[test]
fn a_voucher_goes_from_hand_to_hand() {
    let mut desk = Desk::new();
    let mint =
        VoucherMint { query_id: octets(&QUERY), message_write_cap: desk.cap(), display_name: Some("a".to_owned()) };
    let minted = desk.answer(mint).frame.voucher_mint_reply.expect("a reply to it");
    let derive = VoucherDeriveStream { query_id: octets(&QUERY), voucher: minted.voucher.clone() };
    let derived = desk.answer(derive).frame.voucher_derive_stream_reply.expect("a reply to it");
    assert_eq!((&derived.voucher_write_cap, derived.error_code), (&minted.voucher_write_cap, 0));
    let induct = VoucherInduct {
        query_id: octets(&QUERY),
        voucher: minted.voucher.clone(),
        voucher_payload: minted.voucher_payload.clone(),
        who_reply: octets(b"who"),
    };
    let inducted = desk.answer(induct.clone()).frame.voucher_induct_reply.expect("a reply to it");
    assert_eq!((&inducted.display_name[..], &inducted.voucher_read_cap), ("a", &minted.voucher_read_cap));
    let open = VoucherOpen {
        query_id: octets(&QUERY),
        voucher_secret_key: minted.voucher_secret_key,
        sealed_reply: inducted.sealed_reply.clone(),
        message_write_cap: desk.cap(),
    };
    let opened = desk.answer(open.clone()).frame.voucher_open_reply.expect("a reply to it");
    assert_eq!((&opened.who_reply, &opened.salt), (&octets(b"who"), &inducted.salt));
    let mutated =
        WriteCap::from_bytes(opened.mutated_message_write_cap.as_deref().expect("a capability")).expect("good");
    let read = ReadCap::from_bytes(inducted.mutated_message_read_cap.as_deref().expect("a capability")).expect("good");
    assert_eq!(mutated.read_cap(), &read);

    // Each refusal has its code, and every other field is null.
    let refused = |code| VoucherInductReply { query_id: octets(&QUERY), error_code: code, ..Default::default() };
    for (request, code) in [
        (VoucherInduct { voucher: octets(&[0; 32]), ..induct.clone() }, 28),
        (VoucherInduct { voucher: octets(&[0; 31]), ..induct.clone() }, 3),
        (VoucherInduct { voucher: None, ..induct.clone() }, 3),
        (VoucherInduct { voucher_payload: None, ..induct }, 28),
    ] {
        assert_eq!(desk.answer(request).frame.voucher_induct_reply, Some(refused(code)));
    }
    let refused = |code| VoucherOpenReply { query_id: octets(&QUERY), error_code: code, ..Default::default() };
    for (request, code) in [
        (VoucherOpen { sealed_reply: octets(b"no"), ..open.clone() }, 30),
        (VoucherOpen { message_write_cap: octets(b"short"), ..open.clone() }, 3),
        (VoucherOpen { voucher_secret_key: None, ..open }, 3),
    ] {
        assert_eq!(desk.answer(request).frame.voucher_open_reply, Some(refused(code)));
    }
    let mint = VoucherMint { query_id: octets(&QUERY), ..VoucherMint::default() };
    assert_eq!(desk.answer(mint).frame.voucher_mint_reply.map(|reply| reply.error_code), Some(3));
    let derive = VoucherDeriveStream { query_id: octets(&QUERY), voucher: None };
    assert_eq!(desk.answer(derive).frame.voucher_derive_stream_reply.map(|reply| reply.error_code), Some(3));
}

#[test]
fn copy_commands_are_pinned_by_hash_and_queue_and_cancelled_by_hash() {
    let mut desk = Desk::new();
    let copy = StartCopy { query_id: octets(&QUERY), write_cap: desk.cap(), ..StartCopy::default() };
    let hash = envelope::hash256(&[&*desk.cap.to_bytes()]);
    for (courier, queue, pinned) in [
        (None, None, None),
        (octets(&[5; 32]), octets(b"courier"), Some([5; 32])),
        (octets(&[5; 32]), None, None),
        (None, octets(b"courier"), None),
    ] {
        let request = StartCopy { courier_identity_hash: courier, courier_queue_id: queue, ..copy.clone() };
        let Meaning::Ask(Request::Copy(started)) = desk.ask(request) else { panic!("a copy command") };
        assert_eq!((started.query_id, started.hash, started.courier), (QUERY, hash, pinned));
    }
    for (request, code) in [
        (StartCopy { write_cap: None, ..copy.clone() }, 3),
        (StartCopy { query_id: None, ..copy.clone() }, 3),
        (StartCopy { write_cap: octets(&[1; 168]), ..copy }, 26),
    ] {
        let reply = desk.answer(request).frame.start_resending_copy_command_reply.expect("a reply to it");
        assert_eq!((reply.error_code, reply.replica_error_code, reply.failed_envelope_index), (code, None, None));
    }
    let cancel = |write_cap_hash| CancelCopy { query_id: octets(&QUERY), write_cap_hash };
    let Meaning::Ask(Request::CancelCopy { hash: cancelled, .. }) = desk.ask(cancel(octets(&hash))) else {
        panic!("a cancel")
    };
    assert_eq!(cancelled, hash);
    let refused = desk.answer(cancel(None)).frame.cancel_resending_copy_command_reply;
    assert_eq!(refused.map(|reply| reply.error_code), Some(3));
}

#[test]
fn a_legacy_message_is_sent_and_one_that_would_bring_the_daemon_down_is_not() {
    let mut desk = Desk::new();
    let send = SendMessage {
        id: None,
        with_surb: true,
        surbid: octets(&QUERY),
        destination_id_hash: octets(&desk.network.couriers[0]),
        recipient_queue_id: octets(b"+echo"),
        payload: octets(b"ping me"),
    };
    let Meaning::Ask(Request::Send(legacy)) = desk.ask(send.clone()) else { panic!("a message") };
    assert_eq!(
        (legacy.message_id, legacy.surb_id, legacy.destination),
        (None, Some(QUERY), Some(desk.network.couriers[0]))
    );
    assert_eq!((&legacy.queue[..], &legacy.payload[..]), (&b"+echo"[..], &b"ping me"[..]));
    let no_surb = SendMessage { surbid: None, ..send.clone() };
    assert!(matches!(desk.ask(no_surb), Meaning::Ask(Request::Empty)));
    let long = SendMessage { payload: Some(vec![0; 2001].into()), ..send.clone() };
    let event = desk.answer(long.clone()).frame.message_sent_event.expect("an event");
    assert!(event.err.is_some() && event.surbid == octets(&QUERY));
    assert!(matches!(desk.ask(SendMessage { with_surb: false, ..long }), Meaning::Ask(Request::Empty)));
    let nowhere = SendMessage { destination_id_hash: None, ..send };
    assert!(matches!(desk.ask(nowhere), Meaning::Ask(Request::Send(_))), "the core says that there is no such service");
}

#[test]
fn the_document_of_this_epoch_and_of_the_last_one_can_be_had() {
    let mut desk = Desk::new();
    let now = document::mixnet_epoch(&desk.network.profile, NOW);
    let ask = |desk: &mut Desk, epoch| {
        let request = GetPkiDocument { query_id: octets(&QUERY), epoch };
        let reply = desk.answer(request).frame.get_pki_document_reply.expect("a reply to it");
        (reply.error_code, reply.epoch, reply.payload.is_some_and(|payload| !payload.is_empty()))
    };
    assert_eq!(ask(&mut desk, 0), (0, now, true));
    assert_eq!(ask(&mut desk, now), (0, now, true));
    assert_eq!(ask(&mut desk, now - 1), (0, now - 1, true));
    for unknown in [1, now - 2, now + 1, u64::MAX] {
        assert_eq!(ask(&mut desk, unknown), (SERVICE_UNAVAILABLE, unknown, false));
    }
    desk.present.consensus = false;
    assert_eq!(ask(&mut desk, 0), (SERVICE_UNAVAILABLE, 0, false));
}

/// Ids and hashes of another length are cut or padded, as they are in the daemon; capabilities and indices are not.
#[test]
fn ids_are_fitted_and_a_capability_of_another_length_ends_the_connection() {
    let mut desk = Desk::new();
    let counter = |query_id| IndexCounter { query_id, message_box_index: desk.at() };
    let fitted = [octets(&[1; 17]), octets(&[1]), octets(&[]), None].map(counter);
    let expected = [octets(&[1; 16]), octets(&[&[1][..], &[0; 15]].concat()), octets(&[0; 16]), None];
    for (request, expected) in fitted.into_iter().zip(expected) {
        let reply = desk.answer(request).frame.get_message_box_index_counter_reply.expect("a reply to it");
        assert_eq!((reply.query_id, reply.error_code), (expected, 0));
    }
    let token = SessionToken { client_instance_token: octets(&[7]) };
    assert!(matches!(desk.ask(token), Meaning::Ask(Request::Token(token)) if token[..2] == [7, 0]));
    assert!(matches!(desk.ask(SessionToken::default()), Meaning::Hangup(_)));

    let short = || octets(b"short");
    let wrong: [RequestFrame; 14] = [
        EncryptRead { read_cap: short(), ..EncryptRead::default() }.into(),
        EncryptRead { message_box_index: short(), ..EncryptRead::default() }.into(),
        EncryptWrite { write_cap: short(), ..EncryptWrite::default() }.into(),
        EncryptWrite { message_box_index: octets(&[]), ..EncryptWrite::default() }.into(),
        StartResending { read_cap: short(), ..StartResending::default() }.into(),
        StartResending { write_cap: short(), ..StartResending::default() }.into(),
        StartCopy { write_cap: short(), ..StartCopy::default() }.into(),
        NextIndex { message_box_index: short(), ..NextIndex::default() }.into(),
        IndexCounter { message_box_index: short(), ..IndexCounter::default() }.into(),
        EnvelopesFromPayload { dest_write_cap: short(), ..EnvelopesFromPayload::default() }.into(),
        EnvelopesFromPayload { dest_start_index: short(), ..EnvelopesFromPayload::default() }.into(),
        EnvelopesFromTombstoneRange { dest_write_cap: short(), ..EnvelopesFromTombstoneRange::default() }.into(),
        EnvelopesFromTombstoneRange { dest_start_index: short(), ..EnvelopesFromTombstoneRange::default() }.into(),
        desk.multi(
            vec![desk.destination(b"x"), CopyDestination { write_cap: short(), ..desk.destination(b"x") }],
            true,
        )
        .into(),
    ];
    for frame in wrong {
        assert!(matches!(desk.ask(frame.clone()), Meaning::Hangup(_)), "{frame:?}");
    }
    // The index of a started operation, and what vouchers have, are plain bytes: a code, and the connection lives.
    let start = StartResending { message_box_index: short(), ..StartResending::default() };
    let reply = desk.answer(start).frame.start_resending_encrypted_message_reply.expect("a reply to it");
    assert_eq!((reply.error_code, reply.courier_identity_hash), (3, None));
}

#[test]
fn of_several_requests_in_a_frame_the_daemon_takes_one() {
    let mut desk = Desk::new();
    let mut frame = RequestFrame::from(StartResending::default());
    frame.get_directory_authorities = Some(GetDirectoryAuthorities::default());
    frame.new_keypair = Some(NewKeypair { seed: octets(&[1; 32]), ..NewKeypair::default() });
    assert!(desk.answer(frame.clone()).frame.new_keypair_reply.is_some(), "the first that it answers by itself");
    frame.session_token = Some(SessionToken { client_instance_token: octets(&QUERY) });
    assert!(matches!(desk.ask(frame.clone()), Meaning::Ask(Request::Token(_))));
    frame.thin_close = Some(ThinClose {});
    assert!(matches!(desk.ask(frame), Meaning::Close));
    assert!(matches!(desk.ask(RequestFrame::default()), Meaning::Ask(Request::Empty)));
}
