//! The thin client against a scripted peer: lost connections, lost replies, deadlines, dropped futures, and peers that
//! are no daemon. The peer's script is the test; what the client sends is asserted frame by frame.

use std::time::Duration;

use crate::peer::{Peer, ended, index, next_reply, soon, start_read};
use pigeonfs::thin::message::ResponseFrame;
use pigeonfs::thin::{ErrorKind, ReadOutcome, frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

#[tokio::test(start_paused = true)]
async fn an_unanswered_question_is_put_again_on_the_next_connection_under_a_new_id() {
    let (mut peer, client) = Peer::new();
    let (mut first, token) = peer.accept(1).await;
    let asking = tokio::spawn(async move { client.next_index(&index(), soon()).await });
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

#[tokio::test(start_paused = true)]
async fn a_started_read_is_cancelled_before_it_is_put_again_and_the_cancel_s_echo_is_no_answer() {
    let (mut peer, client) = Peer::new();
    let (mut first, _) = peer.accept(1).await;
    let reading = start_read(&client, &mut first, 3).await;
    let lost = first.hear().await.start_resending_encrypted_message.expect("the read");
    drop(first);
    let (mut second, _) = peer.accept(2).await;
    let cancel = second.hear().await.cancel_resending_encrypted_message.expect("a cancel first");
    assert_eq!(cancel.envelope_hash, lost.envelope_hash);
    let again = second.hear().await.start_resending_encrypted_message.expect("then the read");
    assert_ne!(again.query_id, lost.query_id);
    second.say(ended(lost.query_id, 24, None)).await;
    second.say(ended(again.query_id, 0, Some(b"hello"))).await;
    assert_eq!(reading.await.expect("joined"), Ok(ReadOutcome::Box(b"hello".to_vec())));
}

#[tokio::test(start_paused = true)]
async fn a_read_whose_future_is_dropped_is_cancelled_at_the_daemon() {
    let (mut peer, client) = Peer::new();
    let (mut daemon, _) = peer.accept(1).await;
    let reading = start_read(&client, &mut daemon, 3).await;
    let started = daemon.hear().await.start_resending_encrypted_message.expect("the read");
    reading.abort();
    let cancel = daemon.hear().await.cancel_resending_encrypted_message.expect("a cancel");
    assert_eq!(cancel.envelope_hash, started.envelope_hash);
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_never_comes_is_a_timeout_and_a_close_says_goodbye() {
    let (mut peer, client) = Peer::new();
    let (mut daemon, _) = peer.accept(1).await;
    let deadline = Instant::now() + Duration::from_millis(300);
    let error = client.next_index(&index(), deadline).await.expect_err("nobody answers");
    assert_eq!(error.kind, ErrorKind::Timeout);
    daemon.hear().await.next_message_box_index.expect("the question");
    client.close().await;
    daemon.hear().await.thin_close.expect("a goodbye");
    let closed = client.next_index(&index(), soon()).await.expect_err("closed");
    assert_eq!(closed.kind, ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn no_more_than_sixteen_started_operations_are_unanswered_at_once() {
    let (mut peer, client) = Peer::new();
    let (mut daemon, _) = peer.accept(1).await;
    let mut reads = Vec::new();
    let mut started = 0;
    for n in 0..17 {
        reads.push(start_read(&client, &mut daemon, n).await);
        if n < 16 {
            daemon.hear().await.start_resending_encrypted_message.expect("a read");
            started += 1;
        }
    }
    assert_eq!(started, 16);
    // The seventeenth waits: the next thing that is heard is a question asked after it.
    let asking = tokio::spawn(async move { client.next_index(&index(), soon()).await });
    let asked = daemon.hear().await.next_message_box_index.expect("a question overtakes the read that waits");
    daemon.say(next_reply(asked.query_id)).await;
    asking.await.expect("joined").expect("answered");
    reads.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_daemon_is_named_as_such() {
    for (what, bytes) in [
        ("random bytes", &b"\xd3\x91\x02\x11 and more of them"[..]),
        ("HTTP", b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        ("a frame that is no CBOR map", b"\x00\x00\x00\x02\xff\xff"),
        ("a reply before the status", b"\x00\x00\x00\x17\xa1\x73session_token_reply\xa0\x00"),
    ] {
        let (mut peer, client) = Peer::new();
        let talking = tokio::spawn(async move {
            loop {
                let mut stream = peer.accept_raw().await;
                let _ = stream.write_all(bytes).await;
            }
        });
        let error = client.wait_connected(Instant::now() + Duration::from_secs(2)).await.expect_err(what);
        assert!(matches!(&error, ErrorKind::NoDaemon(text) if text.contains("memory")), "{what}: {error}");
        talking.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn silence_is_told_long_before_the_handshake_s_end_and_a_slow_daemon_is_still_taken() {
    let (mut peer, client) = Peer::new();
    let mut silent = peer.accept_raw().await;
    let error = client.wait_connected(Instant::now() + Duration::from_secs(8)).await.expect_err("silence");
    assert!(matches!(&error, ErrorKind::NoDaemon(text) if text.contains("is silent")), "{error}");
    // Not hung up: a daemon that waits for its first document is silent just so.
    let still_open = timeout(Duration::from_millis(100), silent.read_u8()).await;
    assert!(still_open.is_err(), "the client waits on");
}

#[tokio::test(start_paused = true)]
async fn frames_may_come_one_byte_at_a_time() {
    let (mut peer, client) = Peer::new();
    let (mut daemon, _) = peer.accept(1).await;
    let asking = tokio::spawn(async move { client.next_index(&index(), soon()).await });
    let asked = daemon.hear().await.next_message_box_index.expect("the question");
    for byte in frame::encode(&ResponseFrame::from(next_reply(asked.query_id))).expect("small") {
        daemon.stream.write_all(&[byte]).await.expect("written");
        daemon.stream.flush().await.expect("flushed");
        tokio::task::yield_now().await;
    }
    asking.await.expect("joined").expect("answered");
}

#[tokio::test(start_paused = true)]
async fn a_seed_says_the_same_again_over_any_stream() {
    let mut tokens = Vec::new();
    for seed in [7, 7, 8] {
        let (mut peer, _client) = Peer::with_seed(seed);
        tokens.push(peer.accept(1).await.1);
    }
    assert_eq!(tokens[0], tokens[1]);
    assert_ne!(tokens[0], tokens[2]);
}
