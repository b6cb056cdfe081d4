//! R1–R18 and those of the Go and Python clients: the connection and its life.

use std::path::Path;
use std::time::Duration;

use pigeonfs::bacap::WriteCap;
use pigeonfs::thin::message::{
    ConnectionStatusEvent, GetPkiDocumentReply, MessageReplyEvent, MessageSentEvent, NewPkiDocumentEvent, RequestFrame,
    ResponseFrame, ShutdownEvent,
};
use pigeonfs::thin::{Destination, ErrorKind, Event, Link, Part, Payload, ReadOutcome, frame};
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep};

use crate::peer::{Peer, document, ended, index, next_reply, soon, start_read, status};

fn echo() -> Destination {
    Destination { identity_hash: [7; 32], queue_id: b"+echo".to_vec() }
}

#[tokio::test(start_paused = true)]
async fn r1_what_is_asked_at_once_waits_for_the_session() {
    let (mut peer, client) = Peer::new();
    let asking = tokio::spawn(async move { client.next_index(&index(), soon()).await });
    let (mut daemon, _) = peer.greet(1, true).await;
    assert!(daemon.hears_nothing(Duration::from_secs(5)).await, "nothing goes before the reply to the token");
    daemon.welcome(false).await;
    let asked = daemon.hear().await.next_message_box_index.expect("the question");
    daemon.say(next_reply(asked.query_id)).await;
    asking.await.expect("joined").expect("answered");
}

#[tokio::test(start_paused = true)]
async fn r2_a_geometry_that_is_not_known_is_none_and_one_that_is_not_told_is_refused_in_words() {
    let (mut peer, client) = Peer::new();
    assert!(client.status().borrow().pigeonhole.is_none() && client.status().borrow().sphinx.is_none());
    for broken in [
        ConnectionStatusEvent { pigeonhole_geometry: None, ..status(1, true) },
        ConnectionStatusEvent { sphinx_geometry: None, ..status(1, true) },
    ] {
        let mut daemon = peer.accept_raw().await;
        daemon.write_all(&frame::encode(&ResponseFrame::from(broken)).expect("small")).await.expect("written");
        let told = client
            .status()
            .wait_for(|status| matches!(status.link, Link::Refused { .. }))
            .await
            .expect("alive")
            .link
            .clone();
        assert!(matches!(&told, Link::Refused { error } if error.contains("geometry")), "{told:?}");
        drop(daemon);
    }
    peer.accept(1).await;
    let told = client.status().borrow().pigeonhole.clone().expect("told");
    assert_eq!(told.max_plaintext_payload_length, 1549);
}

#[tokio::test(start_paused = true)]
async fn r3_a_first_handshake_that_fails_is_tried_again_and_a_call_ends_by_its_deadline() {
    let (mut peer, client) = Peer::new();
    drop(peer.accept_raw().await);
    let error = client.next_index(&index(), Instant::now() + Duration::from_millis(20)).await.expect_err("no daemon");
    assert!(matches!(&error.kind, ErrorKind::NoDaemon(text) if text.contains("memory")), "{error}");
    let (mut daemon, _) = peer.accept(1).await;
    let asking = tokio::spawn(async move { client.next_index(&index(), soon()).await });
    let asked = daemon.hear().await.next_message_box_index.expect("the question");
    daemon.say(next_reply(asked.query_id)).await;
    asking.await.expect("joined").expect("answered");
}

#[tokio::test(start_paused = true)]
async fn r4_a_future_dropped_in_the_middle_of_its_frame_leaves_a_whole_frame() {
    let (mut peer, client) = Peer::new();
    let (mut daemon, _) = peer.accept(1).await;
    let cap = WriteCap::from_seed(&[1; 32]);
    let payload = Payload { write_cap: cap.clone(), start: cap.index().clone(), bytes: vec![5; 1 << 20] };
    let asking = tokio::spawn({
        let client = client.clone();
        async move { client.envelopes_from_payload(&payload, Part::WHOLE, soon()).await }
    });
    // The pipe holds 64 KiB, and nobody reads: the frame is stuck in its middle when its caller goes.
    sleep(Duration::from_secs(1)).await;
    asking.abort();
    let other = tokio::spawn(async move { client.next_index(&index(), soon()).await });
    sleep(Duration::from_secs(1)).await;
    let whole = daemon.hear().await.create_courier_envelopes_from_payload.expect("a whole frame");
    assert_eq!(whole.payload.expect("its payload").len(), 1 << 20);
    let asked = daemon.hear().await.next_message_box_index.expect("and the next one");
    daemon.say(next_reply(asked.query_id)).await;
    other.await.expect("joined").expect("answered");
}

#[tokio::test(start_paused = true)]
async fn r5_a_call_that_a_lost_connection_took_along_is_answered_by_the_restarted_daemon() {
    let (mut peer, client) = Peer::new();
    let (mut first, _) = peer.accept(1).await;
    let asking = tokio::spawn({
        let client = client.clone();
        async move { client.next_index(&index(), soon()).await }
    });
    first.hear().await.next_message_box_index.expect("the question");
    let mut events = client.events();
    drop(first);
    let (mut second, _) = peer.accept(2).await;
    let asked = second.hear().await.next_message_box_index.expect("the question again");
    second.say(next_reply(asked.query_id)).await;
    asking.await.expect("joined").expect("answered");
    assert_eq!(client.status().borrow().restarts, 1);
    let mut restarted = false;
    while !restarted {
        restarted = matches!(events.next().await.expect("the client lives"), Event::Restarted);
    }
}

#[tokio::test(start_paused = true)]
async fn r6_a_session_that_was_forgotten_by_the_same_daemon_starts_its_operations_again() {
    for resumed in [true, false] {
        let (mut peer, client) = Peer::new();
        let (mut first, token) = peer.accept(1).await;
        let reading = start_read(&client, &mut first, 3).await;
        first.hear_start().await;
        let mut events = client.events();
        drop(first);
        let (mut second, same) = peer.accept_as(1, resumed, true).await;
        assert_eq!(token, same);
        second.hear_cancel().await;
        let again = second.hear_start().await;
        second.say(ended(again.query_id, 0, Some(b"box"))).await;
        assert_eq!(reading.await.expect("joined"), Ok(ReadOutcome::Box(b"box".to_vec())));
        client.close().await;
        let mut lost = false;
        while let Some(event) = events.next().await {
            lost |= matches!(event, Event::SessionLost);
        }
        assert_eq!(lost, !resumed, "a subscriber is told of it");
    }
}

#[tokio::test(start_paused = true)]
async fn r7_callers_do_not_wait_for_a_replay_and_replays_have_new_ids() {
    let (mut peer, client) = Peer::new();
    let (mut first, _) = peer.accept(1).await;
    let mut reads = Vec::new();
    let mut ids = Vec::new();
    for hash in 0..16 {
        reads.push(start_read(&client, &mut first, hash).await);
        ids.push(first.hear_start().await.query_id);
    }
    drop(first);
    let (mut second, _) = peer.accept(1).await;
    // Nothing of the replay is read yet, and a new call is taken all the same.
    let asking = tokio::spawn({
        let client = client.clone();
        async move { client.next_index(&index(), soon()).await }
    });
    for hash in 0..16 {
        assert_eq!(
            second.hear_cancel().await.expect("a hash")[..],
            [hash; 32],
            "in the order in which they were started"
        );
        let id = second.hear_start().await.query_id;
        assert!(!ids.contains(&id), "never under an old id");
    }
    let asked = second.hear().await.next_message_box_index.expect("the question");
    second.say(next_reply(asked.query_id)).await;
    asking.await.expect("joined").expect("answered");
    reads.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(start_paused = true)]
async fn r8_a_lost_connection_is_not_shown_as_connected() {
    let (mut peer, client) = Peer::new();
    let (mut daemon, _) = peer.accept(1).await;
    daemon.say(document()).await;
    client.wait_connected(soon()).await.expect("connected");
    drop(daemon);
    let status = client.status().wait_for(|status| status.link != Link::Connected).await.expect("alive").clone();
    assert!(matches!(status.link, Link::NoDaemon { .. }), "{:?}", status.link);
}

#[tokio::test(start_paused = true)]
async fn r9_any_number_of_events_may_come_in_the_handshake() {
    let (mut peer, client) = Peer::new();
    let (mut daemon, _) = peer.greet(1, true).await;
    for _ in 0..100 {
        daemon.say(NewPkiDocumentEvent { payload: None }).await;
        daemon.say(status(1, true)).await;
    }
    daemon.welcome(false).await;
    daemon.say(document()).await;
    client.wait_connected(soon()).await.expect("connected");
}

#[tokio::test(start_paused = true)]
async fn r10_a_silent_peer_is_given_up_and_attempts_become_rare_with_jitter() {
    let mut pauses = Vec::new();
    for seed in [1, 2] {
        let (mut peer, _client) = Peer::with_seed(seed);
        let silent = peer.accept_raw().await;
        let since = Instant::now();
        // Held open and silent: a handshake ends all the same.
        let mut dialled = peer.accept_raw().await;
        assert!((300..315).contains(&since.elapsed().as_secs()), "{:?}", since.elapsed());
        drop(silent);
        let mut last = Instant::now();
        for _ in 0..16 {
            drop(dialled);
            dialled = peer.accept_raw().await;
            pauses.push(last.elapsed());
            last = Instant::now();
        }
    }
    let (one, other) = pauses.split_at(16);
    assert!(one.iter().all(|pause| *pause <= Duration::from_secs(61)), "never longer than a minute: {one:?}");
    assert!(one[15] >= Duration::from_secs(30) && one[0] < Duration::from_secs(1), "rarer and rarer: {one:?}");
    assert_ne!(one, other, "two clients do not come at once");
}

#[tokio::test(start_paused = true)]
async fn r11_closing_is_bounded_with_a_writer_that_is_stuck_and_dropping_closes() {
    let (mut peer, client) = Peer::new();
    let (stuck, _) = peer.accept(1).await;
    let cap = WriteCap::from_seed(&[1; 32]);
    let payload = Payload { write_cap: cap.clone(), start: cap.index().clone(), bytes: vec![5; 1 << 20] };
    let asking = tokio::spawn({
        let client = client.clone();
        async move { client.envelopes_from_payload(&payload, Part::WHOLE, soon()).await }
    });
    sleep(Duration::from_secs(1)).await;
    let since = Instant::now();
    client.close().await;
    assert!(since.elapsed() < Duration::from_secs(8), "{:?}", since.elapsed());
    assert!(matches!(asking.await.expect("joined"), Err(error) if error.kind == ErrorKind::Closed));
    drop(stuck);

    let (mut peer, client) = Peer::new();
    let (mut daemon, _) = peer.accept(1).await;
    drop(client);
    daemon.hear().await.thin_close.expect("a goodbye");
}

#[tokio::test(start_paused = true)]
async fn r12_a_subscriber_that_sleeps_loses_events_and_stalls_nobody() {
    let (mut peer, client) = Peer::new();
    let mut sleeper = client.events();
    let (mut daemon, _) = peer.accept(1).await;
    for _ in 0..1000 {
        daemon.say(document()).await;
    }
    let asking = tokio::spawn({
        let client = client.clone();
        async move { client.next_index(&index(), soon()).await }
    });
    let asked = daemon.hear().await.next_message_box_index.expect("the question");
    daemon.say(next_reply(asked.query_id)).await;
    asking.await.expect("joined").expect("answered");
    let Some(Event::Missed(missed)) = sleeper.next().await else { panic!("told how many it lost") };
    assert!(missed >= 700, "{missed}");
    assert!(matches!(sleeper.next().await, Some(Event::PkiDocument(_))), "and goes on with those that are left");
}

#[tokio::test(start_paused = true)]
async fn r12_a_daemon_that_talks_without_a_pause_keeps_nobody_out() {
    let (mut peer, client) = Peer::new();
    let (daemon, _) = peer.accept(1).await;
    let (mut hearing, mut talking) = tokio::io::split(daemon.stream);
    let flood = tokio::spawn(async move {
        let event = ResponseFrame::from(NewPkiDocumentEvent { payload: None });
        let event = frame::encode(&event).expect("small");
        while talking.write_all(&event).await.is_ok() {}
    });
    let asking = tokio::spawn(async move { client.next_index(&index(), soon()).await });
    let body = frame::read_body(&mut hearing).await.expect("whole").expect("a frame");
    frame::decode::<RequestFrame>(&body).expect("a request").next_message_box_index.expect("the question");
    flood.abort();
    asking.abort();
}

#[tokio::test(start_paused = true)]
async fn r13_a_subscription_ends_by_itself_and_with_its_client() {
    let (mut peer, client) = Peer::new();
    let (first, mut second) = (client.events(), client.events());
    drop(first);
    peer.accept(1).await;
    client.close().await;
    while second.next().await.is_some() {}
    assert!(client.events().next().await.is_none(), "of a closed client there is nothing to come");
}

#[tokio::test(start_paused = true)]
async fn r14_a_reply_that_comes_with_the_word_that_the_message_left_is_not_missed() {
    let (mut peer, client) = Peer::new();
    let (mut daemon, _) = peer.accept(1).await;
    daemon.say(document()).await;
    let asking = tokio::spawn(async move { client.blocking_send_message(&echo(), b"ping", soon()).await });
    let sent = daemon.hear().await.send_message.expect("the message");
    daemon
        .say(MessageReplyEvent {
            surbid: sent.surbid.clone(),
            payload: Some(b"pong".to_vec().into()),
            ..Default::default()
        })
        .await;
    daemon.say(MessageSentEvent { surbid: sent.surbid, ..Default::default() }).await;
    assert_eq!(asking.await.expect("joined"), Ok(b"pong".to_vec()));
}

#[tokio::test(start_paused = true)]
async fn r15_a_null_in_an_error_reply_does_not_hide_the_code() {
    let (mut peer, client) = Peer::new();
    let (mut daemon, _) = peer.accept(1).await;
    let asking = tokio::spawn(async move { client.pki_document_raw(0, soon()).await });
    let query_id = daemon.hear().await.get_pki_document.expect("the question").query_id;
    daemon.say(GetPkiDocumentReply { query_id, error_code: 10, payload: None, epoch: 0 }).await;
    let error = asking.await.expect("joined").expect_err("not at hand");
    assert!(error.kind == ErrorKind::Daemon(10) && error.is_retryable() && !error.is_expected_outcome(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn r16_a_frame_may_come_in_any_pieces_with_other_things_going_on() {
    let (mut peer, client) = Peer::new();
    let (mut daemon, _) = peer.accept(1).await;
    let asking = tokio::spawn({
        let client = client.clone();
        async move { client.next_index(&index(), soon()).await }
    });
    let asked = daemon.hear().await.next_message_box_index.expect("the question");
    let reply = frame::encode(&ResponseFrame::from(next_reply(asked.query_id))).expect("small");
    for piece in reply.chunks(3) {
        daemon.stream.write_all(piece).await.expect("written");
        // Commands, timers and dropped futures come between the pieces.
        let deadline = Instant::now() + Duration::from_millis(1);
        client.next_index(&index(), deadline).await.expect_err("nobody answers that one");
    }
    asking.await.expect("joined").expect("answered");
}

#[tokio::test(start_paused = true)]
async fn r17_what_does_not_fit_the_geometry_is_refused_before_it_leaves() {
    let (mut peer, client) = Peer::new();
    let (mut daemon, _) = peer.accept(1).await;
    let cap = WriteCap::from_seed(&[1; 32]);
    client.status().wait_for(|status| status.sphinx.is_some()).await.expect("told");
    for error in [
        client.send_message(&echo(), &[0; 2001], soon()).await.expect_err("too long"),
        client.send_message_without_reply(&echo(), &[0; 2001], soon()).await.expect_err("too long"),
        client.blocking_send_message(&echo(), &[0; 2001], soon()).await.expect_err("too long"),
        client.encrypt_write(&cap, cap.index(), &[0; 1550], soon()).await.expect_err("too long"),
    ] {
        assert!(matches!(error.kind, ErrorKind::InvalidArgument(_)) && !error.may_have_happened(), "{error}");
    }
    assert!(daemon.hears_nothing(Duration::from_secs(5)).await);
}

#[test]
fn r18_the_library_prints_nothing() {
    fn look(directory: &Path) {
        for entry in std::fs::read_dir(directory).expect("the source") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                look(&path);
            } else {
                let text = std::fs::read_to_string(&path).expect("text");
                assert!(!text.contains("println!(") && !text.contains("print!("), "{}", path.display());
            }
        }
    }
    look(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/thin"));
}

#[tokio::test(start_paused = true)]
async fn go_a_broken_frame_costs_the_connection_and_not_the_call() {
    let (mut peer, client) = Peer::new();
    let (mut first, _) = peer.accept(1).await;
    let asking = tokio::spawn(async move { client.next_index(&index(), soon()).await });
    first.hear().await.next_message_box_index.expect("the question");
    // Upstream's Go client reads on in the middle of what follows.
    first.stream.write_all(b"\x00\x00\x00\x02\xff\xff").await.expect("written");
    let (mut second, _) = peer.accept(1).await;
    let asked = second.hear().await.next_message_box_index.expect("the question again");
    second.say(next_reply(asked.query_id)).await;
    asking.await.expect("joined").expect("answered");
}

#[tokio::test(start_paused = true)]
async fn python_an_event_that_is_an_empty_map_is_seen() {
    let (mut peer, client) = Peer::new();
    let (mut daemon, _) = peer.accept(1).await;
    daemon.say(ShutdownEvent {}).await;
    client.status().wait_for(|status| status.link == Link::ShuttingDown).await.expect("told");
    drop(daemon);
    peer.accept(2).await;
}

#[tokio::test(start_paused = true)]
async fn a_disconnect_keeps_the_session_and_the_next_request_resumes_it() {
    let (mut peer, client) = Peer::new();
    let (first, token) = peer.accept(1).await;
    client.disconnect().await;
    assert_eq!(client.status().borrow().link, Link::Disconnected);
    drop(first);
    assert!(!peer.is_dialled(Duration::from_secs(300)).await, "not before it is wanted");
    let asking = tokio::spawn({
        let client = client.clone();
        async move { client.next_index(&index(), soon()).await }
    });
    let (mut second, same) = peer.accept_as(1, true, true).await;
    assert_eq!(token, same);
    let asked = second.hear().await.next_message_box_index.expect("the question");
    second.say(next_reply(asked.query_id)).await;
    asking.await.expect("joined").expect("answered");
    // Closing a session that is not connected returns for the goodbye, so that nothing is left behind.
    client.disconnect().await;
    let closing = tokio::spawn(async move { client.close().await });
    let (mut third, same) = peer.accept_as(1, true, true).await;
    assert_eq!(token, same);
    third.hear().await.thin_close.expect("a goodbye");
    drop(third);
    closing.await.expect("joined");
}
