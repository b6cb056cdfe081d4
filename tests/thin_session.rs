//! The thin client against a scripted peer: lost connections, lost replies, deadlines, dropped futures, and peers that
//! are no daemon. The peer's script is the test; what the client sends is asserted frame by frame.

use std::time::Duration;

use pigeonfs::bacap::{BoxIndex, WriteCap};
use pigeonfs::thin::frame;
use pigeonfs::thin::message::{
    ConnectionStatusEvent, EncryptReply, NewPkiDocumentEvent, NextIndexReply, Octets, PigeonholeGeometry, RequestFrame,
    ResponseFrame, SessionTokenReply, SphinxGeometry, StartResendingReply,
};
use pigeonfs::thin::{Address, Client, ClientOptions, Config, Dial, ErrorKind, Missing, ReadOutcome};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Instant, timeout};

const SOON: Duration = Duration::from_secs(30);

/// A daemon whose every word the test says.
struct Peer {
    listener: UnixListener,
    _root: TempDir,
}

struct Conversation(UnixStream);

impl Peer {
    fn new() -> (Self, Client) {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("daemon.sock");
        let listener = UnixListener::bind(&path).expect("bound");
        let client = Client::start(Config::new(Address::Unix(path)), ClientOptions::default());
        (Self { listener, _root: root }, client)
    }

    async fn accept_raw(&self) -> UnixStream {
        timeout(SOON, self.listener.accept()).await.expect("the client dials").expect("accepted").0
    }

    /// Accepts the client and shakes hands, as the daemon process that `instance` names. Gives the session token.
    async fn accept(&self, instance: u8) -> (Conversation, Octets) {
        let mut conversation = Conversation(self.accept_raw().await);
        let status = ConnectionStatusEvent {
            is_connected: true,
            instance_token: Some(Octets::from([instance; 16])),
            sphinx_geometry: Some(SphinxGeometry::default()),
            pigeonhole_geometry: Some(PigeonholeGeometry { max_plaintext_payload_length: 1549, ..Default::default() }),
            ..Default::default()
        };
        conversation.say(status).await;
        conversation.say(NewPkiDocumentEvent { payload: None }).await;
        let token = conversation.hear().await.session_token.expect("the token comes first");
        // An event may come between the token and its reply.
        conversation.say(NewPkiDocumentEvent { payload: None }).await;
        conversation.say(SessionTokenReply { app_id: Some(Octets::from([1; 16])), resumed: false }).await;
        (conversation, token.client_instance_token.expect("16 bytes"))
    }
}

impl Conversation {
    async fn say(&mut self, frame: impl Into<ResponseFrame>) {
        self.0.write_all(&frame::encode(&frame.into()).expect("small")).await.expect("written");
    }

    async fn hear(&mut self) -> RequestFrame {
        let body = timeout(SOON, frame::read_body(&mut self.0)).await.expect("the client speaks");
        frame::decode(&body.expect("a frame").expect("a frame")).expect("a request")
    }
}

fn index() -> BoxIndex {
    WriteCap::from_seed(&[1; 32]).index().clone()
}

fn next_reply(query_id: Option<Octets>) -> NextIndexReply {
    let next = index().next().expect("a next one");
    NextIndexReply { query_id, error_code: 0, next_message_box_index: Some(Octets::from(&next.as_bytes()[..])) }
}

/// A read that was put to the peer, and the envelope's hash under which it can be cancelled.
async fn start_read(
    client: &Client,
    peer: &mut Conversation,
) -> tokio::task::JoinHandle<Result<ReadOutcome, ErrorKind>> {
    let client = client.clone();
    let reading = tokio::spawn(async move {
        let cap = WriteCap::from_seed(&[1; 32]);
        let deadline = Instant::now() + SOON;
        let envelope = client.encrypt_read(cap.read_cap(), cap.index(), deadline).await.map_err(|error| error.kind)?;
        let read = client.start_read(cap.read_cap(), cap.index(), &envelope, Missing::Report, deadline).await;
        read.map_err(|error| error.kind)
    });
    let asked = peer.hear().await.encrypt_read.expect("an encrypt");
    let reply = EncryptReply {
        query_id: asked.query_id,
        error_code: 0,
        message_ciphertext: Some(Octets::from([1; 10])),
        envelope_descriptor: Some(Octets::from([2; 10])),
        envelope_hash: Some(Octets::from([3; 32])),
        next_message_box_index: asked.message_box_index,
    };
    peer.say(ResponseFrame { encrypt_read_reply: Some(reply), ..Default::default() }).await;
    reading
}

#[tokio::test]
async fn an_unanswered_question_is_put_again_on_the_next_connection_under_a_new_id() {
    let (peer, client) = Peer::new();
    let (mut first, token) = peer.accept(1).await;
    let asking = tokio::spawn(async move { client.next_index(&index(), Instant::now() + SOON).await });
    let lost = first.hear().await.next_message_box_index.expect("the question");
    drop(first);
    let (mut second, same_token) = peer.accept(1).await;
    assert_eq!(token, same_token, "the session is resumed");
    let again = second.hear().await.next_message_box_index.expect("the question again");
    assert_ne!(lost.query_id, again.query_id);
    second.say(next_reply(lost.query_id)).await;
    second.say(next_reply(again.query_id)).await;
    let answer = asking.await.expect("joined").expect("answered");
    assert_eq!(answer, index().next().expect("a next one"), "the old id's answer was passed over");
}

#[tokio::test]
async fn a_started_read_is_cancelled_before_it_is_put_again_and_the_cancel_s_echo_is_no_answer() {
    let (peer, client) = Peer::new();
    let (mut first, _) = peer.accept(1).await;
    let reading = start_read(&client, &mut first).await;
    let lost = first.hear().await.start_resending_encrypted_message.expect("the read");
    drop(first);
    let (mut second, _) = peer.accept(2).await;
    let cancel = second.hear().await.cancel_resending_encrypted_message.expect("a cancel first");
    assert_eq!(cancel.envelope_hash, lost.envelope_hash);
    let again = second.hear().await.start_resending_encrypted_message.expect("then the read");
    assert_ne!(again.query_id, lost.query_id);
    let ended = |query_id, error_code, plaintext| StartResendingReply {
        query_id,
        error_code,
        plaintext,
        courier_identity_hash: Some(Octets::from([9; 32])),
        ..Default::default()
    };
    second.say(ended(lost.query_id, 24, None)).await;
    second.say(ended(again.query_id, 0, Some(Octets::from(*b"hello")))).await;
    assert_eq!(reading.await.expect("joined"), Ok(ReadOutcome::Box(b"hello".to_vec())));
}

#[tokio::test]
async fn a_read_whose_future_is_dropped_is_cancelled_at_the_daemon() {
    let (peer, client) = Peer::new();
    let (mut daemon, _) = peer.accept(1).await;
    let reading = start_read(&client, &mut daemon).await;
    let started = daemon.hear().await.start_resending_encrypted_message.expect("the read");
    reading.abort();
    let cancel = daemon.hear().await.cancel_resending_encrypted_message.expect("a cancel");
    assert_eq!(cancel.envelope_hash, started.envelope_hash);
}

#[tokio::test]
async fn a_reply_that_never_comes_is_a_timeout_and_a_close_says_goodbye() {
    let (peer, client) = Peer::new();
    let (mut daemon, _) = peer.accept(1).await;
    let deadline = Instant::now() + Duration::from_millis(300);
    let error = client.next_index(&index(), deadline).await.expect_err("nobody answers");
    assert_eq!(error.kind, ErrorKind::Timeout);
    daemon.hear().await.next_message_box_index.expect("the question");
    client.close().await;
    daemon.hear().await.thin_close.expect("a goodbye");
    let closed = client.next_index(&index(), Instant::now() + SOON).await.expect_err("closed");
    assert_eq!(closed.kind, ErrorKind::Closed);
}

#[tokio::test]
async fn no_more_than_sixteen_started_operations_are_unanswered_at_once() {
    let (peer, client) = Peer::new();
    let (mut daemon, _) = peer.accept(1).await;
    let mut reads = Vec::new();
    let mut started = 0;
    for n in 0..17 {
        reads.push(start_read(&client, &mut daemon).await);
        if n < 16 {
            daemon.hear().await.start_resending_encrypted_message.expect("a read");
            started += 1;
        }
    }
    assert_eq!(started, 16);
    // The seventeenth waits: the next thing that is heard is a question asked after it.
    let asking = tokio::spawn(async move { client.next_index(&index(), Instant::now() + SOON).await });
    let asked = daemon.hear().await.next_message_box_index.expect("a question overtakes the read that waits");
    daemon.say(next_reply(asked.query_id)).await;
    asking.await.expect("joined").expect("answered");
    reads.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn what_is_no_daemon_is_named_as_such() {
    for (what, bytes) in [
        ("random bytes", &b"\xd3\x91\x02\x11 and more of them"[..]),
        ("HTTP", b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        ("a frame that is no CBOR map", b"\x00\x00\x00\x02\xff\xff"),
        ("a reply before the status", b"\x00\x00\x00\x17\xa1\x73session_token_reply\xa0\x00"),
    ] {
        let (peer, client) = Peer::new();
        let talking = tokio::spawn(async move {
            loop {
                let mut stream = peer.accept_raw().await;
                let _ = stream.write_all(bytes).await;
            }
        });
        let error = client.wait_connected(Instant::now() + Duration::from_secs(2)).await.expect_err(what);
        assert!(matches!(&error, ErrorKind::NoDaemon(text) if text.contains("daemon.sock")), "{what}: {error}");
        talking.abort();
    }
}

#[tokio::test]
async fn silence_is_told_long_before_the_handshake_s_end_and_a_slow_daemon_is_still_taken() {
    let (peer, client) = Peer::new();
    let mut silent = peer.accept_raw().await;
    let error = client.wait_connected(Instant::now() + Duration::from_secs(8)).await.expect_err("silence");
    assert!(matches!(&error, ErrorKind::NoDaemon(text) if text.contains("is silent")), "{error}");
    // Not hung up: a daemon that waits for its first document is silent just so.
    let still_open = timeout(Duration::from_millis(100), silent.read_u8()).await;
    assert!(still_open.is_err(), "the client waits on");
}

#[tokio::test]
async fn frames_may_come_one_byte_at_a_time() {
    let (peer, client) = Peer::new();
    let (mut daemon, _) = peer.accept(1).await;
    let asking = tokio::spawn(async move { client.next_index(&index(), Instant::now() + SOON).await });
    let asked = daemon.hear().await.next_message_box_index.expect("the question");
    for byte in frame::encode(&ResponseFrame::from(next_reply(asked.query_id))).expect("small") {
        daemon.0.write_all(&[byte]).await.expect("written");
        daemon.0.flush().await.expect("flushed");
        tokio::task::yield_now().await;
    }
    asking.await.expect("joined").expect("answered");
}

/// A daemon in memory: each stream's other end goes to the test.
struct Pipes(tokio::sync::mpsc::Sender<DuplexStream>);

impl Dial for Pipes {
    type Stream = DuplexStream;

    async fn dial(&self) -> std::io::Result<DuplexStream> {
        let (ours, theirs) = tokio::io::duplex(1024);
        self.0.send(theirs).await.map_err(std::io::Error::other)?;
        Ok(ours)
    }

    fn name(&self) -> String {
        "memory".to_owned()
    }
}

#[tokio::test(start_paused = true)]
async fn a_seed_says_the_same_again_over_any_stream() {
    let mut tokens = Vec::new();
    for seed in [7, 7, 8] {
        let (dialled, mut accepted) = tokio::sync::mpsc::channel(1);
        let client = Client::over(Pipes(dialled), ClientOptions { seed: Some(seed), ..ClientOptions::default() });
        let mut daemon = accepted.recv().await.expect("the client dials");
        let status = frame::encode(&ResponseFrame::from(ConnectionStatusEvent::default())).expect("small");
        daemon.write_all(&status).await.expect("written");
        let body = frame::read_body(&mut daemon).await.expect("a frame").expect("a frame");
        tokens.push(frame::decode::<RequestFrame>(&body).expect("a request").session_token.expect("a token"));
        drop(client);
    }
    assert_eq!(tokens[0], tokens[1]);
    assert_ne!(tokens[0], tokens[2]);
}
