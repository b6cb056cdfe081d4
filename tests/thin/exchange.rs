//! Programs that speak the protocol themselves, as bindings to other languages do: their requests, the frames that they see,
//! and sessions that they leave and resume.

use pigeonfs::thin::message::{EncryptReply, NextIndex, NextIndexReply, Octets, RequestFrame, ResponseFrame};
use pigeonfs::thin::{ClientOptions, Destination, ErrorKind, Inbound, frame};
use tokio::sync::mpsc;

use crate::peer::{Peer, index, next_reply, soon};

fn step(index: &[u8]) -> RequestFrame {
    NextIndex { query_id: Some(Octets::from([7; 16])), message_box_index: Some(Octets::from(index)) }.into()
}

#[tokio::test(start_paused = true)]
async fn a_reply_is_given_as_the_daemon_said_it_whatever_its_code() {
    let (mut peer, client) = Peer::new();
    let (mut daemon, _) = peer.accept(1).await;
    let asking = tokio::spawn(async move { client.exchange(step(index().as_bytes()), soon()).await });
    let asked = daemon.hear().await.next_message_box_index.expect("the question");
    assert_ne!(asked.query_id, Some(Octets::from([7; 16])), "the client makes the query id");
    let refusal = NextIndexReply { query_id: asked.query_id, error_code: 3, next_message_box_index: None };
    daemon.say(refusal.clone()).await;
    assert_eq!(asking.await.expect("joined"), Ok(ResponseFrame::from(refusal)));
}

/// A daemon hangs up at an index of a wrong length. Put again, the request would end each connection, and with it all others.
#[tokio::test(start_paused = true)]
async fn a_request_at_which_a_daemon_hangs_up_is_lost_and_the_others_are_put_again() {
    let (mut peer, client) = Peer::new();
    let (mut daemon, _) = peer.accept(1).await;
    let ask = |index: Vec<u8>| {
        let client = client.clone();
        tokio::spawn(async move { client.exchange(step(&index), soon()).await })
    };
    let good = ask(index().as_bytes().to_vec());
    daemon.hear().await.next_message_box_index.expect("the first question");
    let bad = ask(b"no index".to_vec());
    daemon.hear().await.next_message_box_index.expect("the second question");
    drop(daemon);
    let lost = bad.await.expect("joined").expect_err("lost");
    assert!(matches!(lost.kind, ErrorKind::Lost(_)), "{lost}");
    let (mut daemon, _) = peer.accept(1).await;
    let again = daemon.hear().await.next_message_box_index.expect("the first question again");
    daemon.say(next_reply(again.query_id)).await;
    assert!(good.await.expect("joined").is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_has_no_reply_is_refused() {
    let (_peer, client) = Peer::new();
    for request in [
        RequestFrame::default(),
        pigeonfs::thin::message::SessionToken::default().into(),
        pigeonfs::thin::message::ThinClose::default().into(),
        pigeonfs::thin::message::SendMessage::default().into(),
        pigeonfs::thin::message::StartCopy::default().into(),
        pigeonfs::thin::message::CancelResending::default().into(),
    ] {
        let error = client.exchange(request.clone(), soon()).await.expect_err("refused");
        assert!(matches!(error.kind, ErrorKind::InvalidArgument(_)), "{request:?}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_frame_is_seen_in_its_order_and_the_end_of_its_connection() {
    let (sender, mut inbound) = mpsc::channel(64);
    let (mut peer, client) = Peer::with(ClientOptions { inbound: Some(sender), ..ClientOptions::default() });
    let (mut daemon, _) = peer.accept(1).await;
    // A reply to nothing of ours, as a session that was resumed gets them.
    let reply = EncryptReply { query_id: Some(Octets::from([5; 16])), ..Default::default() };
    daemon.say(ResponseFrame { encrypt_read_reply: Some(reply), ..Default::default() }).await;
    drop(daemon);
    let mut seen = Vec::new();
    loop {
        match inbound.recv().await.expect("more to come") {
            Inbound::Frame { body, is_reply } => {
                let value: ciborium::Value = frame::decode(&body).expect("CBOR");
                let entries = value.into_map().expect("a map").into_iter();
                let told =
                    entries.filter(|(_, body)| !body.is_null()).map(|(name, _)| name.into_text().expect("a name"));
                seen.push((told.collect::<Vec<_>>().join(" "), is_reply));
            }
            Inbound::Ended { error } => break assert!(error.contains("hung up"), "{error}"),
        }
    }
    let expected = [
        ("connection_status_event", false),
        ("new_pki_document_event", false),
        ("new_pki_document_event", false),
        ("session_token_reply", false),
        ("encrypt_read_reply", true),
    ];
    assert_eq!(seen, expected.map(|(name, is_reply)| (name.to_owned(), is_reply)));
    client.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_was_left_is_resumed_by_its_token() {
    let token = [9; 16];
    let options = || ClientOptions { token: Some(token), ..ClientOptions::default() };
    let (mut peer, client) = Peer::with(options());
    let (mut daemon, said) = peer.accept(1).await;
    assert_eq!(said, Octets::from(token));
    let asking = tokio::spawn({
        let client = client.clone();
        async move { client.exchange(step(index().as_bytes()), soon()).await }
    });
    daemon.hear().await.next_message_box_index.expect("the question");
    client.leave().await;
    assert!(daemon.next().await.is_none(), "it hangs up, and says no goodbye");
    let error = asking.await.expect("joined").expect_err("closed");
    assert_eq!(error.kind, ErrorKind::Closed);
    let (mut peer, _client) = Peer::with(options());
    let (_daemon, said) = peer.accept_as(1, true, true).await;
    assert_eq!(said, Octets::from(token));
}

#[tokio::test(start_paused = true)]
async fn a_message_goes_out_under_the_id_that_it_was_given() {
    let (mut peer, client) = Peer::new();
    let (mut daemon, _) = peer.accept(1).await;
    daemon.say(crate::peer::document()).await;
    let to = Destination { identity_hash: [1; 32], queue_id: b"+echo".to_vec() };
    let sending = tokio::spawn(async move { client.hand_over_message([3; 16], &to, b"hello", soon()).await });
    let sent = daemon.hear().await.send_message.expect("the message");
    assert!(sent.with_surb && sent.surbid == Some(Octets::from([3; 16])));
    assert_eq!(sending.await.expect("joined"), Ok(()), "it does not wait for the daemon's word");
}
