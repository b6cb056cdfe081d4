//! Every call of the thin client against a scripted peer: its arguments on the wire, its typed answer, and what each error
//! code means in its reply.

use std::time::Duration;

use ciborium::Value;
use pigeonfs::bacap::{BoxIndex, ReadCap, WriteCap};
use pigeonfs::localnet::{Localnet, Options};
use pigeonfs::thin::frame;
use pigeonfs::thin::message::{
    ConnectionStatusEvent, NewPkiDocumentEvent, Octets, PigeonholeGeometry, ResponseFrame, SessionTokenReply,
    SphinxGeometry,
};
use pigeonfs::thin::{
    Address, Client, ClientOptions, Config, CopyStream, Courier, Error, ErrorKind, MAX_PAYLOAD_BYTES, MAX_TOMBSTONES,
    Missing, Part, Payload, ReadOutcome, Voucher, WriteMode, WriteOutcome,
};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Instant, timeout};

const SOON: Duration = Duration::from_secs(30);

/// A daemon that answers what the test tells it to.
struct Peer {
    socket: UnixStream,
    client: Client,
    _root: TempDir,
}

impl Peer {
    async fn new() -> Self {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("daemon.sock");
        let listener = UnixListener::bind(&path).expect("bound");
        let client = Client::start(Config::new(Address::Unix(path)), ClientOptions::default());
        let socket = timeout(SOON, listener.accept()).await.expect("dialled").expect("accepted").0;
        let mut peer = Self { socket, client, _root: root };
        let status = ConnectionStatusEvent {
            is_connected: true,
            instance_token: Some(Octets::from([1; 16])),
            sphinx_geometry: Some(SphinxGeometry::default()),
            pigeonhole_geometry: Some(PigeonholeGeometry { max_plaintext_payload_length: 1549, ..Default::default() }),
            ..Default::default()
        };
        peer.say(&ResponseFrame::from(status)).await;
        peer.say(&ResponseFrame::from(NewPkiDocumentEvent { payload: None })).await;
        peer.hear("session_token").await;
        peer.say(&ResponseFrame::from(SessionTokenReply { app_id: Some(Octets::from([1; 16])), resumed: false })).await;
        peer
    }

    async fn say(&mut self, frame: &impl serde::Serialize) {
        self.socket.write_all(&frame::encode(frame).expect("small")).await.expect("written");
    }

    /// The next request, which must be this one and nothing else: its fields in the wire's own names.
    async fn hear(&mut self, variant: &str) -> Vec<(String, Value)> {
        let body = timeout(SOON, frame::read_body(&mut self.socket)).await.expect("the client speaks");
        let frame: Value = frame::decode(&body.expect("a frame").expect("a frame")).expect("CBOR");
        let mut frame = frame.into_map().expect("a map");
        assert_eq!(frame.len(), 1, "one variant a frame");
        let (name, fields) = frame.remove(0);
        assert_eq!(name.as_text(), Some(variant));
        let fields = fields.into_map().expect("a map");
        fields.into_iter().map(|(name, value)| (name.into_text().expect("text"), value)).collect()
    }

    /// Puts a call, checks its fields but for the query id, and answers it with `reply`.
    async fn exchange<T: Send + 'static>(
        &mut self,
        call: impl Future<Output = T> + Send + 'static,
        variant: &str,
        expected: &[(&str, Value)],
        reply: &[(&str, Value)],
    ) -> T {
        let call = tokio::spawn(call);
        let mut fields = self.hear(variant).await;
        let at = fields.iter().position(|(name, _)| name == "query_id").expect("every call has one");
        let (_, query_id) = fields.remove(at);
        assert_eq!(query_id.as_bytes().map(Vec::len), Some(16));
        fields.sort_by(|a, b| a.0.cmp(&b.0));
        let mut expected: Vec<_> = expected.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        expected.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(fields, expected, "{variant}");
        let mut answer = vec![(Value::from("query_id"), query_id)];
        answer.extend(reply.iter().map(|(name, value)| (Value::from(*name), value.clone())));
        self.say(&Value::Map(vec![(Value::from(format!("{variant}_reply")), Value::Map(answer))])).await;
        timeout(SOON, call).await.expect("answered").expect("no panic")
    }
}

fn soon() -> Instant {
    Instant::now() + SOON
}

fn cap() -> WriteCap {
    WriteCap::from_seed(&[1; 32])
}

fn next() -> BoxIndex {
    cap().index().next().expect("a next one")
}

fn bytes(bytes: impl AsRef<[u8]>) -> Value {
    Value::Bytes(bytes.as_ref().to_vec())
}

fn write_cap() -> Value {
    bytes(&cap().to_bytes()[..])
}

fn read_cap() -> Value {
    bytes(&cap().read_cap().to_bytes()[..])
}

fn at(index: &BoxIndex) -> Value {
    bytes(index.as_bytes())
}

fn envelope_reply() -> [(&'static str, Value); 5] {
    [
        ("error_code", 0.into()),
        ("message_ciphertext", bytes([1; 8])),
        ("envelope_descriptor", bytes([2; 8])),
        ("envelope_hash", bytes([3; 32])),
        ("next_message_box_index", at(&next())),
    ]
}

fn code(code: u8) -> [(&'static str, Value); 1] {
    [("error_code", code.into())]
}

/// A call of ours, ready to be spawned.
macro_rules! call {
    ($peer:ident, |$client:ident| $body:expr) => {{
        let $client = $peer.client.clone();
        async move { $body.await }
    }};
}

#[tokio::test]
async fn key_pairs_and_indices() {
    let mut peer = Peer::new().await;
    let reply = [
        ("error_code", 0.into()),
        ("write_cap", write_cap()),
        ("read_cap", read_cap()),
        ("first_message_index", at(cap().index())),
    ];
    let call = call!(peer, |client| client.new_keypair(&[7; 32], soon()));
    let pair = peer.exchange(call, "new_keypair", &[("seed", bytes([7; 32]))], &reply).await.expect("a pair");
    assert_eq!((pair.write_cap, &pair.read_cap, &pair.first), (cap(), cap().read_cap(), cap().index()));
    let index = [("message_box_index", at(cap().index()))];
    let reply = [("error_code", 0.into()), ("next_message_box_index", at(&next()))];
    let call = call!(peer, |client| client.next_index(cap().index(), soon()));
    assert_eq!(peer.exchange(call, "next_message_box_index", &index, &reply).await, Ok(next()));
    let reply = [("error_code", 0.into()), ("counter", u64::MAX.into())];
    let call = call!(peer, |client| client.index_counter(cap().index(), soon()));
    assert_eq!(peer.exchange(call, "get_message_box_index_counter", &index, &reply).await, Ok(u64::MAX));
    // Null and absent are the same; a capability of a wrong length is the daemon's fault.
    let call = call!(peer, |client| client.next_index(cap().index(), soon()));
    let error = peer.exchange(call, "next_message_box_index", &index, &code(0)).await.expect_err("no index");
    assert!(matches!(error.kind, ErrorKind::MalformedReply(_)), "{error}");
}

#[tokio::test]
async fn boxes_are_encrypted_and_sent_in_every_variant() {
    let mut peer = Peer::new().await;
    let asked = [("read_cap", read_cap()), ("message_box_index", at(cap().index()))];
    let call = call!(peer, |client| client.encrypt_read(cap().read_cap(), cap().index(), soon()));
    let read = peer.exchange(call, "encrypt_read", &asked, &envelope_reply()).await.expect("encrypted");
    assert_eq!((read.hash(), read.next()), (&[3; 32], &next()));
    let asked = [("plaintext", bytes(b"hi")), ("write_cap", write_cap()), ("message_box_index", at(cap().index()))];
    let call = call!(peer, |client| client.encrypt_write(&cap(), cap().index(), b"hi", soon()));
    let write = peer.exchange(call, "encrypt_write", &asked, &envelope_reply()).await.expect("encrypted");
    let asked = [("plaintext", bytes(b"")), ("write_cap", write_cap()), ("message_box_index", at(cap().index()))];
    let call = call!(peer, |client| client.encrypt_tombstone(&cap(), cap().index(), soon()));
    peer.exchange(call, "encrypt_write", &asked, &envelope_reply()).await.expect("encrypted");

    let parcel = || {
        vec![
            ("message_ciphertext", bytes([1; 8])),
            ("envelope_descriptor", bytes([2; 8])),
            ("envelope_hash", bytes([3; 32])),
        ]
    };
    let known = ("courier_identity_hash", bytes([5; 32]));
    for (missing, flag) in [(Missing::Retry, false), (Missing::Report, true)] {
        let mut asked = parcel();
        asked.extend([
            ("read_cap", read_cap()),
            ("write_cap", Value::Null),
            ("message_box_index", at(cap().index())),
            ("no_retry_on_box_id_not_found", flag.into()),
            ("no_idempotent_box_already_exists", false.into()),
        ]);
        for (reply, outcome) in [
            (
                vec![("error_code", 0.into()), ("plaintext", bytes(b"hi")), known.clone()],
                ReadOutcome::Box(b"hi".to_vec()),
            ),
            (vec![("error_code", 1.into()), known.clone()], ReadOutcome::NotFound),
            (vec![("error_code", 11.into()), ("plaintext", Value::Null), known.clone()], ReadOutcome::Tombstone),
        ] {
            let envelope = read.clone();
            let call =
                call!(peer, |client| client.start_read(cap().read_cap(), cap().index(), &envelope, missing, soon()));
            assert_eq!(peer.exchange(call, "start_resending_encrypted_message", &asked, &reply).await, Ok(outcome));
        }
    }
    for (mode, flag) in [(WriteMode::Default, false), (WriteMode::Strict, true)] {
        let mut asked = parcel();
        asked.extend([
            ("read_cap", Value::Null),
            ("write_cap", write_cap()),
            ("message_box_index", Value::Null),
            ("no_retry_on_box_id_not_found", false.into()),
            ("no_idempotent_box_already_exists", flag.into()),
        ]);
        for (error_code, outcome) in [(0, WriteOutcome::Done), (10, WriteOutcome::AlreadyExists)] {
            let envelope = write.clone();
            let reply = [("error_code", error_code.into()), known.clone()];
            let call = call!(peer, |client| client.start_write(&cap(), &envelope, mode, soon()));
            assert_eq!(peer.exchange(call, "start_resending_encrypted_message", &asked, &reply).await, Ok(outcome));
        }
    }
    let asked = [("envelope_hash", bytes([3; 32]))];
    let call = call!(peer, |client| client.cancel(&[3; 32], soon()));
    peer.exchange(call, "cancel_resending_encrypted_message", &asked, &code(0)).await.expect("cancelled");
}

#[tokio::test]
async fn copy_commands_are_pinned_or_not_and_fail_with_both_codes() {
    let mut peer = Peer::new().await;
    let random = [("write_cap", write_cap())];
    let call = call!(peer, |client| client.start_copy(&cap(), Courier::Random, soon()));
    // This daemon gave no document to draw a courier from, so it draws one itself.
    assert_eq!(peer.exchange(call, "start_resending_copy_command", &random, &code(0)).await, Ok(()));
    let pinned = Courier::Pinned { identity_hash: [4; 32], queue_id: b"courier".to_vec() };
    let asked = [
        ("write_cap", write_cap()),
        ("courier_identity_hash", bytes([4; 32])),
        ("courier_queue_id", bytes(b"courier")),
    ];
    let failed = [("error_code", 26.into()), ("replica_error_code", 6.into()), ("failed_envelope_index", 9.into())];
    let call = call!(peer, |client| client.start_copy(&cap(), pinned, soon()));
    let error = peer.exchange(call, "start_resending_copy_command", &asked, &failed).await.expect_err("failed");
    assert_eq!(error.kind, ErrorKind::CopyFailed { replica_code: 6, envelope: 9 });
    assert!(error.is_retryable() && error.may_have_happened(), "what came before envelope 9 is written");
    // Both are left out where they are 0.
    let call = call!(peer, |client| client.start_copy(&cap(), Courier::Random, soon()));
    let error = peer.exchange(call, "start_resending_copy_command", &random, &code(26)).await.expect_err("failed");
    assert_eq!(error.kind, ErrorKind::CopyFailed { replica_code: 0, envelope: 0 });
    let hash = {
        use blake2::Digest as _;
        blake2::Blake2b::<blake2::digest::consts::U32>::digest(&cap().to_bytes()[..])
    };
    let asked = [("write_cap_hash", bytes(hash))];
    let call = call!(peer, |client| client.cancel_copy(&cap(), soon()));
    peer.exchange(call, "cancel_resending_copy_command", &asked, &code(0)).await.expect("cancelled");
}

#[tokio::test]
async fn a_dropped_copy_is_cancelled_by_its_capabilitys_hash() {
    let mut peer = Peer::new().await;
    let client = peer.client.clone();
    let copy = tokio::spawn(async move { client.start_copy(&cap(), Courier::Random, soon()).await });
    peer.hear("start_resending_copy_command").await;
    copy.abort();
    let cancel = peer.hear("cancel_resending_copy_command").await;
    let hash = cancel.iter().find(|(name, _)| name == "write_cap_hash").expect("the key");
    assert_eq!(hash.1.as_bytes().map(Vec::len), Some(32));
}

#[tokio::test]
async fn copy_elements_carry_their_buffer_and_their_part() {
    let mut peer = Peer::new().await;
    let payload = |text: &[u8]| Payload { write_cap: cap(), start: cap().index().clone(), bytes: text.to_vec() };
    let flags = |part: Part| [("is_start", part.is_start.into()), ("is_last", part.is_last.into())];

    let one = payload(b"abc");
    let asked = [
        &[("payload", bytes(b"abc")), ("dest_write_cap", write_cap()), ("dest_start_index", at(cap().index()))][..],
        &flags(Part::WHOLE),
    ]
    .concat();
    let reply = [
        ("error_code", 0.into()),
        ("envelopes", Value::Array(vec![bytes(b"e1"), bytes(b"e2")])),
        ("next_dest_index", at(&next())),
    ];
    let call = call!(peer, |client| client.envelopes_from_payload(&one, Part::WHOLE, soon()));
    let made = peer.exchange(call, "create_courier_envelopes_from_payload", &asked, &reply).await.expect("made");
    assert_eq!((made.elements, made.buffer, made.next), (vec![b"e1".to_vec(), b"e2".to_vec()], vec![], vec![next()]));

    let destination = |text: &[u8]| {
        let fields = [("payload", bytes(text)), ("write_cap", write_cap()), ("start_index", at(cap().index()))];
        Value::Map(fields.into_iter().map(|(name, value)| (Value::from(name), value)).collect())
    };
    let two = [payload(b"abc"), payload(b"")];
    let destinations = Value::Array(vec![destination(b"abc"), destination(b"")]);
    let asked = [&[("destinations", destinations), ("buffer", bytes(b"tail"))][..], &flags(Part::MIDDLE)].concat();
    let reply = [
        ("error_code", 0.into()),
        ("envelopes", Value::Null),
        ("buffer", bytes(b"longer tail")),
        ("next_dest_indices", Value::Array(vec![at(&next()), at(cap().index())])),
    ];
    let call = call!(peer, |client| client.envelopes_from_multi_payload(&two, Part::MIDDLE, b"tail", soon()));
    let made = peer.exchange(call, "create_courier_envelopes_from_multi_payload", &asked, &reply).await.expect("made");
    assert_eq!((made.elements.len(), &made.buffer[..], made.next.len()), (0, &b"longer tail"[..], 2));

    let asked = [
        &[
            ("dest_write_cap", write_cap()),
            ("dest_start_index", at(cap().index())),
            ("max_count", 3.into()),
            ("buffer", Value::Null),
        ][..],
        &flags(Part::LAST),
    ]
    .concat();
    let reply = [("error_code", 0.into()), ("envelopes", Value::Null), ("next_dest_index", at(&next()))];
    let call =
        call!(peer, |client| client.envelopes_from_tombstone_range(&cap(), cap().index(), 3, Part::LAST, b"", soon()));
    let made = peer.exchange(call, "create_courier_envelopes_from_tombstone_range", &asked, &reply).await;
    assert!(matches!(made.expect_err("no end").kind, ErrorKind::MalformedReply(_)), "a last part must have an end");
}

#[tokio::test]
async fn arguments_are_checked_here() {
    let mut peer = Peer::new().await;
    // A first exchange, so that the geometry is known.
    let reply = [("error_code", 0.into()), ("counter", 1.into())];
    let call = call!(peer, |client| client.index_counter(cap().index(), soon()));
    let index = [("message_box_index", at(cap().index()))];
    peer.exchange(call, "get_message_box_index_counter", &index, &reply).await.expect("answered");
    let client = &peer.client;
    let payload = |bytes: Vec<u8>| Payload { write_cap: cap(), start: cap().index().clone(), bytes };
    let refused = |error: Error, told: &str| {
        let ErrorKind::InvalidArgument(text) = &error.kind else { panic!("{error}") };
        assert!(text.contains(told), "{text}");
        assert!(!error.is_retryable() && !error.may_have_happened());
    };
    let encrypt = async |bytes: &[u8]| client.encrypt_write(&cap(), cap().index(), bytes, soon()).await;
    refused(encrypt(b"").await.expect_err("empty"), "tombstone");
    refused(encrypt(&[0; 1550]).await.expect_err("too long"), "boxes of 1549");
    let long = Courier::Pinned { identity_hash: [0; 32], queue_id: vec![b'q'; 33] };
    refused(client.start_copy(&cap(), long, soon()).await.expect_err("a long queue"), "1 to 32 bytes");
    let one = async |bytes| client.envelopes_from_payload(&payload(bytes), Part::LAST, soon()).await;
    refused(one(Vec::new()).await.expect_err("empty"), "no end");
    refused(one(vec![0; MAX_PAYLOAD_BYTES + 1]).await.expect_err("too long"), "make more calls");
    let many =
        async |payloads: &[Payload], part| client.envelopes_from_multi_payload(payloads, part, b"", soon()).await;
    refused(many(&[], Part::FIRST).await.expect_err("nowhere"), "one destination");
    refused(many(&[payload(Vec::new())], Part::LAST).await.expect_err("no end"), "no end");
    let big = vec![payload(vec![0; MAX_PAYLOAD_BYTES]); 3];
    refused(many(&big, Part::WHOLE).await.expect_err("a reply over the limit"), "make more calls");
    for count in [0, MAX_TOMBSTONES + 1] {
        let cap = cap();
        let range = client.envelopes_from_tombstone_range(&cap, cap.index(), count, Part::WHOLE, b"", soon());
        refused(range.await.expect_err("a count"), "one call makes 1 to");
    }
    let mut stream = CopyStream::new(cap());
    refused(stream.finish(client, soon()).await.expect_err("nothing in it"), "nothing was added");
    refused(stream.copy(client, Courier::Random, soon()).await.expect_err("unfinished"), "not finished");
    let range = client.tombstone_range(&cap(), cap().index(), u32::MAX, soon()).await;
    refused(range.complete().expect_err("too many"), "at most");
}

#[tokio::test]
async fn a_tombstone_range_that_is_cut_short_says_so() {
    let mut peer = Peer::new().await;
    let client = peer.client.clone();
    let ranging = tokio::spawn(async move { client.tombstone_range(&cap(), cap().index(), 3, soon()).await });
    for reply in [envelope_reply().to_vec(), code(4).to_vec()] {
        let asked = peer.hear("encrypt_write").await;
        let (_, query_id) = asked.into_iter().find(|(name, _)| name == "query_id").expect("an id");
        let mut answer = vec![(Value::from("query_id"), query_id)];
        answer.extend(reply.into_iter().map(|(name, value)| (Value::from(name), value)));
        peer.say(&Value::Map(vec![(Value::from("encrypt_write_reply"), Value::Map(answer))])).await;
    }
    let range = ranging.await.expect("joined");
    assert_eq!((range.envelopes.len(), &range.envelopes[0].0, &range.next), (1, cap().index(), &next()));
    assert_eq!(range.complete().expect_err("one of three").kind, ErrorKind::Daemon(4));
}

#[tokio::test]
async fn vouchers_are_minted_inducted_opened_and_derived() {
    let mut peer = Peer::new().await;
    let stream = [("voucher_write_cap", write_cap()), ("voucher_read_cap", read_cap())];
    let ok = ("error_code", Value::from(0));
    let reply = [
        &stream[..],
        &[
            ok.clone(),
            ("voucher", bytes([6; 32])),
            ("voucher_payload", bytes(b"payload")),
            ("voucher_secret_key", bytes(b"secret")),
            ("voucher_public_key", bytes(b"public")),
        ],
    ]
    .concat();
    let asked = [("message_write_cap", write_cap()), ("display_name", "alice".into())];
    let call = call!(peer, |client| client.voucher_mint(&cap(), "alice", soon()));
    let minted = peer.exchange(call, "voucher_mint", &asked, &reply).await.expect("minted");
    assert_eq!(
        (&minted.voucher, &minted.payload[..], &minted.secret_key[..]),
        (&Voucher([6; 32]), &b"payload"[..], &b"secret"[..])
    );
    assert!(!format!("{minted:?} {:?}", minted.voucher).contains('6'), "no secret is shown");

    let asked = [("voucher", bytes([6; 32])), ("voucher_payload", bytes(b"payload")), ("who_reply", bytes(b"me"))];
    let reply = [
        &stream[..],
        &[
            ok.clone(),
            ("display_name", "alice".into()),
            ("mutated_message_read_cap", read_cap()),
            ("sealed_reply", bytes(b"sealed")),
            ("salt", bytes([8; 32])),
        ],
    ]
    .concat();
    let call = call!(peer, |client| client.voucher_induct(&Voucher([6; 32]), b"payload", b"me", soon()));
    let inducted = peer.exchange(call, "voucher_induct", &asked, &reply).await.expect("inducted");
    assert_eq!((&inducted.display_name[..], &inducted.read_cap, *inducted.salt), ("alice", cap().read_cap(), [8; 32]));

    let asked = [
        ("voucher_secret_key", bytes(b"secret")),
        ("sealed_reply", bytes(b"sealed")),
        ("message_write_cap", write_cap()),
    ];
    let reply =
        [ok.clone(), ("who_reply", bytes(b"me")), ("salt", bytes([8; 32])), ("mutated_message_write_cap", write_cap())];
    let call = call!(peer, |client| client.voucher_open(b"secret", b"sealed", &cap(), soon()));
    let opened = peer.exchange(call, "voucher_open", &asked, &reply).await.expect("opened");
    assert_eq!((&opened.who_reply[..], &opened.write_cap), (&b"me"[..], &cap()));

    let asked = [("voucher", bytes([6; 32]))];
    let reply = [&stream[..], &[ok]].concat();
    let call = call!(peer, |client| client.voucher_derive_stream(&Voucher([6; 32]), soon()));
    let derived = peer.exchange(call, "voucher_derive_stream", &asked, &reply).await.expect("derived");
    assert_eq!(derived, minted.stream);
    for error_code in [28, 29, 30] {
        let call = call!(peer, |client| client.voucher_derive_stream(&Voucher([6; 32]), soon()));
        let error = peer.exchange(call, "voucher_derive_stream", &asked, &code(error_code)).await.expect_err("refused");
        assert_eq!(error.kind, ErrorKind::Voucher(error_code));
    }
}

#[tokio::test]
async fn each_error_code_means_what_its_reply_makes_of_it() {
    let mut peer = Peer::new().await;
    let call = call!(peer, |client| client.encrypt_read(cap().read_cap(), cap().index(), soon()));
    let asked = [("read_cap", read_cap()), ("message_box_index", at(cap().index()))];
    let envelope = peer.exchange(call, "encrypt_read", &asked, &envelope_reply()).await.expect("encrypted");
    let index = [("message_box_index", at(cap().index()))];
    let copied = [("write_cap", write_cap())];
    let read = [
        ("message_ciphertext", bytes([1; 8])),
        ("envelope_descriptor", bytes([2; 8])),
        ("envelope_hash", bytes([3; 32])),
        ("read_cap", read_cap()),
        ("write_cap", Value::Null),
        ("message_box_index", at(cap().index())),
        ("no_retry_on_box_id_not_found", true.into()),
        ("no_idempotent_box_already_exists", false.into()),
    ];
    for error_code in 1..=32 {
        // A local question: one name space.
        let call = call!(peer, |client| client.next_index(cap().index(), soon()));
        let error = peer.exchange(call, "next_message_box_index", &index, &code(error_code)).await.expect_err("a code");
        assert_eq!(error.kind, ErrorKind::Daemon(error_code));

        // A copy command: its own codes, and the replica's in a field of their own.
        let call = call!(peer, |client| client.start_copy(&cap(), Courier::Random, soon()));
        let error = peer.exchange(call, "start_resending_copy_command", &copied, &code(error_code)).await;
        let expected = match error_code {
            24 => ErrorKind::Cancelled,
            26 => ErrorKind::CopyFailed { replica_code: 0, envelope: 0 },
            other => ErrorKind::Daemon(other),
        };
        assert_eq!(error.expect_err("a code").kind, expected);

        // A started read: whether the courier is named tells which of two name spaces a low code is of.
        for courier in [true, false] {
            let mut reply = code(error_code).to_vec();
            reply.push(("courier_identity_hash", if courier { bytes([5; 32]) } else { Value::Null }));
            let envelope = envelope.clone();
            let call = call!(peer, |client| client.start_read(
                cap().read_cap(),
                cap().index(),
                &envelope,
                Missing::Report,
                soon()
            ));
            let outcome = peer.exchange(call, "start_resending_encrypted_message", &read, &reply).await;
            let expected = match (error_code, courier) {
                (1, true) => Ok(ReadOutcome::NotFound),
                (11, true) => Ok(ReadOutcome::Tombstone),
                (1..=11, true) => Err(ErrorKind::Replica(error_code)),
                (12 | 13 | 31 | 32, _) => Err(ErrorKind::Courier(error_code)),
                (22 | 23 | 25, _) => Err(ErrorKind::Unauthentic(error_code)),
                (24, _) => Err(ErrorKind::Cancelled),
                _ => Err(ErrorKind::Daemon(error_code)),
            };
            assert_eq!(outcome.map_err(|error| error.kind), expected, "code {error_code}, courier: {courier}");
        }
    }
}

#[tokio::test]
async fn what_the_daemon_knows_of_its_network() {
    let mut peer = Peer::new().await;
    let asked = [("epoch", 7.into())];
    let reply = [("error_code", 0.into()), ("payload", bytes(b"signed")), ("epoch", 7.into())];
    let call = call!(peer, |client| client.pki_document_raw(7, soon()));
    assert_eq!(peer.exchange(call, "get_pki_document", &asked, &reply).await, Ok((b"signed".to_vec(), 7)));
    // Not at hand: null in some daemons and empty in others; and never another epoch's document in its place.
    let reply = [("error_code", 10.into()), ("payload", Value::Null), ("epoch", 7.into())];
    let call = call!(peer, |client| client.pki_document_for_epoch(7, soon()));
    let error = peer.exchange(call, "get_pki_document", &asked, &reply).await.expect_err("not there");
    assert!(error.kind == ErrorKind::Daemon(10) && error.is_retryable(), "{error}");
    let signed = include_bytes!("../../testdata/recorded/pki-signed.cbor");
    let reply = [("error_code", 0.into()), ("payload", bytes(signed)), ("epoch", 2_493_310.into())];
    let call = call!(peer, |client| client.pki_document_for_epoch(7, soon()));
    let error = peer.exchange(call, "get_pki_document", &asked, &reply).await.expect_err("another epoch's");
    assert!(matches!(error.kind, ErrorKind::MalformedReply(_)), "{error}");
    assert_eq!(peer.client.pki_document(), None);

    // A pushed document is kept, and asked for no more.
    let payload = Some(Octets::from(&include_bytes!("../../testdata/recorded/pki-connect.cbor")[..]));
    peer.say(&ResponseFrame::from(NewPkiDocumentEvent { payload })).await;
    peer.client.wait_connected(soon()).await.expect("connected, now that there is a document");
    let kept = peer.client.pki_document_for_epoch(2_493_311, soon()).await.expect("kept");
    assert_eq!((Some(&kept), kept.couriers().count()), (peer.client.pki_document().as_ref(), 1));
    // From it a random courier is drawn, so that a command that is put again finds the same one.
    let courier = kept.couriers().next().expect("one");
    let asked = [
        ("write_cap", write_cap()),
        ("courier_identity_hash", bytes(courier.identity_hash)),
        ("courier_queue_id", bytes(&courier.queue_id)),
    ];
    let call = call!(peer, |client| client.start_copy(&cap(), Courier::Random, soon()));
    assert_eq!(peer.exchange(call, "start_resending_copy_command", &asked, &code(0)).await, Ok(()));

    let reply = [("error_code", 0.into()), ("authorities", Value::Null)];
    let call = call!(peer, |client| client.directory_authorities(soon()));
    assert_eq!(peer.exchange(call, "get_directory_authorities", &[], &reply).await, Ok(Vec::new()));
}

/// The whole story over an embedded network: a joiner and an inductor who share 32 bytes.
#[tokio::test(flavor = "multi_thread")]
async fn two_who_share_a_voucher_come_to_share_a_channel() {
    let root = tempfile::tempdir().expect("a directory");
    let localnet = Localnet::start(Options::new(root.path())).await.expect("started");
    let joiner = Client::start(localnet.config(), ClientOptions::default());
    let inductor = Client::start(localnet.config(), ClientOptions::default());
    let write = async |client: &Client, cap: &WriteCap, at: &BoxIndex, message: &[u8]| {
        let envelope = client.encrypt_write(cap, at, message, soon()).await.expect("encrypted");
        let written = client.start_write(cap, &envelope, WriteMode::Strict, soon()).await;
        assert_eq!(written, Ok(WriteOutcome::Done));
    };
    let read = async |client: &Client, cap: &ReadCap, at: &BoxIndex| {
        let envelope = client.encrypt_read(cap, at, soon()).await.expect("encrypted");
        client.start_read(cap, at, &envelope, Missing::Retry, soon()).await.expect("read")
    };

    let message = WriteCap::from_seed(&[21; 32]);
    let minted = joiner.voucher_mint(&message, "alice", soon()).await.expect("minted");
    let first = minted.stream.write_cap.index().clone();
    write(&joiner, &minted.stream.write_cap, &first, &minted.payload).await;

    let stream = inductor.voucher_derive_stream(&minted.voucher, soon()).await.expect("derived");
    assert_eq!(stream, minted.stream);
    let ReadOutcome::Box(payload) = read(&inductor, &stream.read_cap, &first).await else { panic!("the payload") };
    let inducted = inductor.voucher_induct(&minted.voucher, &payload, b"I am Bob", soon()).await.expect("inducted");
    assert_eq!((&inducted.display_name[..], &inducted.stream), ("alice", &stream));
    let second = first.next().expect("a next one");
    write(&inductor, &stream.write_cap, &second, &inducted.sealed_reply).await;

    let ReadOutcome::Box(sealed) = read(&joiner, &stream.read_cap, &second).await else { panic!("the reply") };
    let opened = joiner.voucher_open(&minted.secret_key, &sealed, &message, soon()).await.expect("opened");
    assert_eq!((&opened.who_reply[..], &opened.salt), (&b"I am Bob"[..], &inducted.salt));
    assert_eq!(opened.write_cap.read_cap(), &inducted.read_cap, "one writes what the other reads");
    write(&joiner, &opened.write_cap, opened.write_cap.index(), b"hello, Bob").await;
    let heard = read(&inductor, &inducted.read_cap, inducted.read_cap.index()).await;
    assert_eq!(heard, ReadOutcome::Box(b"hello, Bob".to_vec()));

    // Another's voucher, a payload that was altered, and a reply that was sealed for somebody else.
    let other = joiner.voucher_mint(&message, "eve", soon()).await.expect("minted");
    let error = inductor.voucher_induct(&other.voucher, &payload, b"", soon()).await.expect_err("another's");
    assert_eq!(error.kind, ErrorKind::Voucher(28));
    let error = joiner.voucher_open(&other.secret_key, &sealed, &message, soon()).await.expect_err("not for it");
    assert_eq!(error.kind, ErrorKind::Voucher(30));
    tokio::join!(joiner.close(), inductor.close());
    localnet.shutdown().await;
}

/// A program that crashes behind each step, and one that gives up a write in the middle: what was saved before goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_stream_goes_on_from_what_was_saved() {
    let root = tempfile::tempdir().expect("a directory");
    let localnet = Localnet::start(Options::new(root.path())).await.expect("started");
    let client = Client::start(localnet.config(), ClientOptions::default());
    let dest = WriteCap::from_seed(&[31; 32]);
    let crash = |stream: CopyStream| CopyStream::from_bytes(&stream.to_bytes()).expect("saved");

    let mut stream = CopyStream::new(WriteCap::from_seed(&[30; 32]));
    let (mut start, mut expected) = (dest.index().clone(), Vec::new());
    for (part, bytes) in [20_000, 1, 0, 5000].into_iter().enumerate() {
        let bytes = vec![u8::try_from(part).expect("few"); bytes];
        expected.extend_from_slice(&bytes);
        let payload = Payload { write_cap: dest.clone(), start: start.clone(), bytes };
        start = stream.add(&client, &[payload], soon()).await.expect("added").remove(0);
        let saved = stream.to_bytes();
        // Given up in the middle: it stands where it stood.
        let before = stream.unwritten();
        tokio::select! {
            biased;
            () = tokio::task::yield_now() => {}
            written = stream.write(&client, soon()) => written.expect("written"),
        }
        assert!(stream.unwritten() == before || before == 0);
        // Written, and then lost: the same boxes are written again.
        stream.write(&client, soon()).await.expect("written");
        assert_eq!(stream.unwritten(), 0);
        stream = CopyStream::from_bytes(&saved).expect("saved");
        assert_eq!(stream.unwritten(), before);
    }
    stream = crash(stream);
    stream.finish(&client, soon()).await.expect("finished");
    stream = crash(stream);
    stream.finish(&client, soon()).await.expect("finished already");
    stream.write(&client, soon()).await.expect("written");
    stream = crash(stream);
    for _ in 0..2 {
        // A command that is repeated is no conflict.
        stream.copy(&client, Courier::Random, soon()).await.expect("copied");
    }

    let (mut at, mut read) = (dest.index().clone(), Vec::new());
    while at != start {
        let envelope = client.encrypt_read(dest.read_cap(), &at, soon()).await.expect("encrypted");
        match client.start_read(dest.read_cap(), &at, &envelope, Missing::Report, soon()).await.expect("read") {
            ReadOutcome::Box(bytes) => read.extend(bytes),
            other => panic!("box {}: {other:?}", at.counter()),
        }
        at = envelope.next().clone();
    }
    assert!(read == expected, "{} of {} bytes", read.len(), expected.len());
    assert!(CopyStream::from_bytes(b"something else").is_none());
    client.close().await;
    localnet.shutdown().await;
}
