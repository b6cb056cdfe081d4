//! H-D1–H-D10, and what the daemon does with sessions: what a client must survive, and what it must never do to it.

use std::time::Duration;

use pigeonfs::bacap::WriteCap;
use pigeonfs::thin::message::{MessageReplyEvent, MessageSentEvent, Octets, RequestFrame};
use pigeonfs::thin::{
    Absence, CancelOutcome, Destination, ErrorKind, Event, Link, MAX_TOMBSTONES, Part, ReadOutcome, frame,
};
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep};

use crate::peer::{Peer, document, ended, index, next_reply, soon, start_read, start_read_until, status};

fn echo() -> Destination {
    Destination { identity_hash: [7; 32], queue_id: b"+echo".to_vec() }
}

#[tokio::test(start_paused = true)]
async fn hd1_each_frame_is_a_map_with_one_variant_and_never_null() {
    let (mut peer, client) = Peer::new();
    let (mut daemon, _) = peer.accept(1).await;
    daemon.say(document()).await;
    client.wait_connected(soon()).await.expect("connected");
    let calls = [
        tokio::spawn({
            let client = client.clone();
            async move { drop(client.next_index(&index(), soon()).await) }
        }),
        tokio::spawn({
            let client = client.clone();
            async move { drop(client.send_message(&echo(), b"x", soon()).await) }
        }),
    ];
    drop(client);
    for _ in 0..calls.len() {
        let body = frame::read_body(&mut daemon.stream).await.expect("whole").expect("a frame");
        let ciborium::Value::Map(variants) = frame::decode(&body).expect("cbor") else { panic!("a map") };
        assert!(variants.len() == 1 && variants[0].1.is_map(), "{variants:?}");
    }
    calls.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(start_paused = true)]
async fn hd2_a_message_with_a_surb_has_its_id_and_is_sent_once_at_most() {
    let (mut peer, client) = Peer::new();
    let (mut first, _) = peer.accept(1).await;
    first.say(document()).await;
    let mut messages = Vec::new();
    for reply in [true, false] {
        let client = client.clone();
        messages.push(tokio::spawn(async move {
            match reply {
                true => client.blocking_send_message(&echo(), b"x", soon()).await.map(drop),
                false => client.send_message(&echo(), b"x", soon()).await.map(drop),
            }
        }));
        let sent = first.hear().await.send_message.expect("the message");
        assert!(sent.with_surb && sent.surbid.is_some_and(|id| id.len() == 16));
    }
    drop(first);
    // The session is another one: nothing is repeated, and nobody waits for a reply that cannot come.
    let (mut second, _) = peer.accept(2).await;
    second.say(document()).await;
    assert!(second.hears_nothing(Duration::from_secs(20)).await);
    for message in messages {
        let error = message.await.expect("joined").expect_err("lost");
        assert!(matches!(error.kind, ErrorKind::Lost(_)) && error.may_have_happened(), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn hd2_a_message_that_could_not_be_sent_is_a_typed_error_and_one_without_a_reply_holds_its_place_for_a_while() {
    let (mut peer, client) = Peer::new();
    let (mut daemon, _) = peer.accept(1).await;
    daemon.say(document()).await;
    client.wait_connected(soon()).await.expect("connected");
    let sending = tokio::spawn({
        let client = client.clone();
        async move { client.send_message(&echo(), b"x", soon()).await }
    });
    let surbid = daemon.hear().await.send_message.expect("the message").surbid;
    daemon.say(MessageSentEvent { surbid, err: Some("no path".to_owned()), ..Default::default() }).await;
    let error = sending.await.expect("joined").expect_err("not sent");
    assert!(error.kind == ErrorKind::NotSent("no path".to_owned()) && !error.may_have_happened(), "{error}");
    // The daemon's queue has sixteen places, and nothing ever tells that one of these has left it.
    for _ in 0..16 {
        client.send_message_without_reply(&echo(), b"x", soon()).await.expect("handed over");
        daemon.hear().await.send_message.expect("the message");
    }
    let error = client.send_message_without_reply(&echo(), b"x", Instant::now() + Duration::from_secs(1)).await;
    assert_eq!(error.expect_err("no room").kind, ErrorKind::Busy);
    // At the network's pace of one packet a second each of them has had its turn by then.
    let later = Instant::now() + Duration::from_secs(60);
    client.send_message_without_reply(&echo(), b"x", later).await.expect("handed over");
}

#[tokio::test(start_paused = true)]
async fn hd3_an_operation_whose_reply_was_lost_in_a_gap_is_started_again_in_a_resumed_session() {
    let (mut peer, client) = Peer::new();
    let (mut first, _) = peer.accept(1).await;
    let reading = start_read(&client, &mut first, 3).await;
    first.hear_start().await;
    drop(first);
    let (mut second, _) = peer.accept_as(1, true, true).await;
    second.hear_cancel().await;
    let again = second.hear_start().await;
    second.say(ended(again.query_id, 0, Some(b"box"))).await;
    assert_eq!(reading.await.expect("joined"), Ok(ReadOutcome::Box(b"box".to_vec())));
}

#[tokio::test(start_paused = true)]
async fn hd4_an_operation_that_the_daemon_drops_ends_by_its_deadline_and_gives_its_place_back() {
    let (mut peer, client) = Peer::new();
    let (mut daemon, _) = peer.accept(1).await;
    let mut reads = Vec::new();
    for hash in 0..16 {
        let deadline = Instant::now() + Duration::from_secs(10);
        reads.push(start_read_until(&client, &mut daemon, hash, deadline).await);
        daemon.hear_start().await;
    }
    // They may still lie in the daemon's queue, so the seventeenth waits until all were cancelled often enough.
    let late = start_read_until(&client, &mut daemon, 16, Instant::now() + Duration::from_secs(900)).await;
    for read in reads {
        assert_eq!(read.await.expect("joined").expect_err("nobody answers").kind, ErrorKind::Timeout);
    }
    let mut cancels = 0;
    loop {
        let request = daemon.next().await.expect("the client lives");
        if let Some(started) = request.start_resending_encrypted_message {
            daemon.say(ended(started.query_id, 0, Some(b"box"))).await;
            break;
        }
        let cancel = request.cancel_resending_encrypted_message.expect("a cancel");
        let reply = pigeonfs::thin::message::CancelReply { query_id: cancel.query_id, error_code: 0 };
        daemon
            .say(pigeonfs::thin::message::ResponseFrame {
                cancel_resending_encrypted_message_reply: Some(reply),
                ..Default::default()
            })
            .await;
        cancels += 1;
    }
    assert!((32..=16 * 9).contains(&cancels), "again and again, and not for ever: {cancels}");
    late.await.expect("joined").expect("read");
}

#[tokio::test(start_paused = true)]
async fn hd5_what_was_queued_while_we_were_away_is_taken_on_either_side_of_the_token_s_reply() {
    for before in [true, false] {
        let (mut peer, client) = Peer::new();
        let (mut first, _) = peer.accept(1).await;
        first.say(document()).await;
        let asking = tokio::spawn({
            let client = client.clone();
            async move { client.blocking_send_message(&echo(), b"x", soon()).await }
        });
        let surbid = first.hear().await.send_message.expect("the message").surbid;
        let reading = start_read(&client, &mut first, 3).await;
        let started = first.hear_start().await;
        drop(first);
        let (mut second, _) = peer.greet(1, true).await;
        let reply = MessageReplyEvent { surbid, payload: Some(Octets::from(*b"pong")), ..Default::default() };
        if before {
            second.say(reply.clone()).await;
            second.say(ended(started.query_id.clone(), 0, Some(b"box"))).await;
        }
        second.welcome(true).await;
        if !before {
            second.say(reply).await;
            second.say(ended(started.query_id, 0, Some(b"box"))).await;
        }
        assert_eq!(asking.await.expect("joined"), Ok(b"pong".to_vec()));
        assert_eq!(reading.await.expect("joined"), Ok(ReadOutcome::Box(b"box".to_vec())));
    }
}

#[tokio::test(start_paused = true)]
async fn hd5_hd6_a_session_that_answers_nothing_is_left_for_one_with_a_fresh_token() {
    let (mut peer, client) = Peer::new();
    let (mut first, token) = peer.accept(1).await;
    let reading = start_read_until(&client, &mut first, 3, Instant::now() + Duration::from_secs(600)).await;
    first.hear_start().await;
    drop(first);
    // The last connection's end takes the registration of this one along: requests are read, replies go nowhere.
    let (mut deaf, same) = peer.accept_as(1, true, true).await;
    assert_eq!(token, same);
    deaf.answers_probes = false;
    deaf.hear().await.get_message_box_index_counter.expect("a question that costs nothing");
    let since = Instant::now();
    let (mut second, fresh) = peer.accept(1).await;
    assert_ne!(token, fresh);
    assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
    second.hear_cancel().await;
    let again = second.hear_start().await;
    second.say(ended(again.query_id, 0, Some(b"box"))).await;
    assert_eq!(reading.await.expect("joined"), Ok(ReadOutcome::Box(b"box".to_vec())));
}

#[tokio::test(start_paused = true)]
async fn hd6_a_daemon_that_is_busy_with_something_long_is_not_taken_for_dead() {
    let (mut peer, client) = Peer::new();
    let (mut daemon, _) = peer.accept(1).await;
    daemon.answers_probes = false;
    let cap = WriteCap::from_seed(&[1; 32]);
    let deadline = Instant::now() + Duration::from_secs(300);
    let asking = tokio::spawn(async move { client.encrypt_read(cap.read_cap(), cap.index(), deadline).await });
    let asked = daemon.hear().await.encrypt_read.expect("an encrypt");
    // Five attempts to fetch a document, each of half a minute; the probe waits behind.
    sleep(Duration::from_secs(150)).await;
    let reply = pigeonfs::thin::message::EncryptReply { query_id: asked.query_id, error_code: 4, ..Default::default() };
    let reply = pigeonfs::thin::message::ResponseFrame { encrypt_read_reply: Some(reply), ..Default::default() };
    daemon.say(reply).await;
    assert_eq!(asking.await.expect("joined").expect_err("no document").kind, ErrorKind::Daemon(4));
}

#[tokio::test(start_paused = true)]
async fn hd7_what_still_waits_in_the_daemon_s_queue_is_cancelled_again_when_it_surfaces() {
    let (mut peer, client) = Peer::new();
    let (mut daemon, _) = peer.accept(1).await;
    let dropped = start_read(&client, &mut daemon, 3).await;
    let buried = daemon.hear_start().await;
    let later = start_read(&client, &mut daemon, 4).await;
    let second = daemon.hear_start().await;
    dropped.abort();
    assert_eq!(daemon.hear_cancel().await, buried.envelope_hash, "found nothing: it waits in the queue");
    // A later request of the connection is answered, so this one has started meanwhile.
    daemon.say(ended(second.query_id, 0, Some(b"box"))).await;
    later.await.expect("joined").expect("read");
    let since = Instant::now();
    let cancel = daemon.hear().await.cancel_resending_encrypted_message.expect("at once");
    assert_eq!((cancel.envelope_hash, since.elapsed()), (buried.envelope_hash, Duration::ZERO));
    daemon.say(ended(buried.query_id, 24, None)).await;
    assert!(daemon.hears_nothing(Duration::from_secs(600)).await, "its end was heard");
}

#[tokio::test(start_paused = true)]
async fn hd7_an_explicit_cancel_that_found_nothing_says_so_and_goes_on() {
    let (mut peer, client) = Peer::new();
    let (mut daemon, _) = peer.accept(1).await;
    let reading = start_read(&client, &mut daemon, 3).await;
    daemon.hear_start().await;
    let cancelling = tokio::spawn({
        let client = client.clone();
        async move { client.cancel(&[3; 32], soon()).await }
    });
    daemon.hear_cancel().await;
    assert_eq!(cancelling.await.expect("joined"), Ok(CancelOutcome::NothingFound));
    assert_eq!(reading.await.expect("joined").expect_err("ended").kind, ErrorKind::Cancelled);
    assert_eq!(daemon.hear_cancel().await.expect("a hash")[..], [3; 32], "it may still start");
    client.close().await;
}

#[tokio::test(start_paused = true)]
async fn hd8_a_long_silence_before_the_greeting_and_a_wrong_first_status_are_survived() {
    let (mut peer, client) = Peer::new();
    // The daemon serves one client after the other, and waits half a minute for a document before each.
    let stream = peer.accept_raw().await;
    sleep(Duration::from_secs(70)).await;
    let mut daemon = crate::peer::Conversation { stream, answers_probes: true };
    daemon.say(status(1, true)).await;
    daemon.hear().await.session_token.expect("not given up");
    daemon.welcome(false).await;
    // Connected, it says, before it has tried; without a document that is not believed.
    client.status().wait_for(|status| status.link == Link::NoConsensus(Absence::NoDocument)).await.expect("told");
    daemon.say(status(1, false)).await;
    daemon.say(document()).await;
    // What would wait in its queue, where it could not be cancelled, waits here.
    let reading = start_read(&client, &mut daemon, 3).await;
    assert!(daemon.hears_nothing(Duration::from_secs(5)).await);
    daemon.say(status(1, true)).await;
    let started = daemon.hear_start().await;
    daemon.say(ended(started.query_id, 1, None)).await;
    assert_eq!(reading.await.expect("joined"), Ok(ReadOutcome::NotFound));
}

#[tokio::test(start_paused = true)]
async fn hd8_a_lost_legacy_reply_ends_by_the_caller_s_deadline_and_a_late_one_is_an_event() {
    let (mut peer, client) = Peer::new();
    let (mut daemon, _) = peer.accept(1).await;
    daemon.say(document()).await;
    client.wait_connected(soon()).await.expect("connected");
    let mut events = client.events();
    let asking = tokio::spawn({
        let client = client.clone();
        async move { client.blocking_send_message(&echo(), b"x", Instant::now() + Duration::from_secs(10)).await }
    });
    let surbid = daemon.hear().await.send_message.expect("the message").surbid;
    daemon.say(MessageSentEvent { surbid: surbid.clone(), ..Default::default() }).await;
    assert_eq!(asking.await.expect("joined").expect_err("silence").kind, ErrorKind::Timeout);
    daemon.say(MessageReplyEvent { surbid, payload: Some(Octets::from(*b"late")), ..Default::default() }).await;
    assert!(matches!(events.next().await, Some(Event::MessageSent { error: None, .. })));
    assert!(matches!(events.next().await, Some(Event::MessageReply { payload, .. }) if &payload[..] == b"late"));
}

#[tokio::test(start_paused = true)]
async fn hd9_a_reply_over_the_limit_costs_a_connection_and_the_call_keeps_its_deadline() {
    let (mut peer, client) = Peer::new();
    let asking = tokio::spawn(async move { client.next_index(&index(), soon()).await });
    for _ in 0..3 {
        let (mut daemon, _) = peer.accept_as(1, true, true).await;
        daemon.hear().await.next_message_box_index.expect("the question");
        daemon.stream.write_all(&41_943_041_u32.to_be_bytes()).await.expect("written");
    }
    let (mut daemon, _) = peer.accept_as(1, true, true).await;
    let asked: RequestFrame = daemon.hear().await;
    daemon.say(next_reply(asked.next_message_box_index.expect("the question").query_id)).await;
    asking.await.expect("joined").expect("answered");
}

#[tokio::test(start_paused = true)]
async fn hd10_a_range_of_tombstones_without_a_bound_is_not_asked_for() {
    let (mut peer, client) = Peer::new();
    let (mut daemon, _) = peer.accept(1).await;
    let cap = WriteCap::from_seed(&[1; 32]);
    let asked = client
        .envelopes_from_tombstone_range(&cap, cap.index(), MAX_TOMBSTONES + 1, Part::WHOLE, &[], soon())
        .await
        .expect_err("refused");
    assert!(matches!(asked.kind, ErrorKind::InvalidArgument(_)), "{asked}");
    assert!(daemon.hears_nothing(Duration::from_secs(1)).await);
}

/// A connection that was there is not one that is awaited: the status and the error of a call say which it is.
#[tokio::test(start_paused = true)]
async fn a_lost_connection_to_the_mixnet_is_told_from_one_that_was_never_there() {
    let (mut peer, client) = Peer::new();
    let (mut daemon, _) = peer.accept_as(1, false, false).await;
    let mut seen = client.status();
    let mut absent = async |absence| {
        seen.wait_for(|status| status.link == Link::NoConsensus(absence)).await.expect("told");
        let error = client.wait_connected(Instant::now() + Duration::from_secs(1)).await.expect_err("not connected");
        assert_eq!(error, ErrorKind::NoConsensus(absence));
        error.to_string()
    };
    assert!(absent(Absence::NotYet).await.contains("no connection to the mixnet yet"));
    daemon.say(status(1, true)).await;
    assert!(absent(Absence::NoDocument).await.contains("no PKI document"));
    daemon.say(document()).await;
    client.wait_connected(soon()).await.expect("connected");
    daemon.say(status(1, false)).await;
    let lost = absent(Absence::Lost).await;
    assert!(lost.contains("lost") && !lost.contains("yet"), "{lost}");
    // Another process has lost nothing.
    drop(daemon);
    let (_daemon, _) = peer.accept_as(2, false, false).await;
    absent(Absence::NotYet).await;
}
