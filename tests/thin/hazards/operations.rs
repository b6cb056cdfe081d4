//! P1–P6, and of the persistent layer what concerns a thin client: started operations, and what their ends mean.

use std::time::Duration;

use pigeonfs::bacap::WriteCap;
use pigeonfs::thin::message::{EncryptReply, EnvelopesFromPayloadReply, Octets, ResponseFrame, StartCopyReply};
use pigeonfs::thin::{CancelOutcome, Courier, ErrorKind, Missing, Part, Payload, ReadOutcome};
use tokio::time::Instant;

use crate::peer::{Peer, ended, index, soon, start_read, start_read_until, status};

#[tokio::test(start_paused = true)]
async fn p1_what_nobody_waits_for_is_cancelled_and_not_replayed() {
    let (mut peer, client) = Peer::new();
    let (mut first, _) = peer.accept(1).await;
    let reading = start_read(&client, &mut first, 3).await;
    let started = first.hear_start().await;
    reading.abort();
    let cancel = first.hear().await.cancel_resending_encrypted_message.expect("a cancel");
    assert_eq!(cancel.envelope_hash, started.envelope_hash);
    // The connection is lost before the daemon answers: a survivor is cancelled on the next one, and not started.
    drop(first);
    let (mut second, _) = peer.accept_as(1, true, true).await;
    assert_eq!(second.hear_cancel().await, started.envelope_hash);
    second.say(ended(started.query_id, 24, None)).await;
    assert!(second.hears_nothing(Duration::from_secs(600)).await, "its end was heard: nothing more to do");
}

#[tokio::test(start_paused = true)]
async fn p2_a_cancel_reaches_the_daemon_without_a_mixnet_and_wakes_the_caller() {
    let (mut peer, client) = Peer::new();
    let (mut daemon, _) = peer.accept(1).await;
    let reading = start_read(&client, &mut daemon, 3).await;
    let started = daemon.hear_start().await;
    daemon.say(status(1, false)).await;
    let cancelling = tokio::spawn(async move { client.cancel(&[3; 32], soon()).await });
    let cancel = daemon.hear().await.cancel_resending_encrypted_message.expect("a cancel");
    daemon.say(ended(started.query_id, 24, None)).await;
    daemon.say(cancelled(cancel.query_id)).await;
    assert_eq!(cancelling.await.expect("joined"), Ok(CancelOutcome::Cancelled));
    assert_eq!(reading.await.expect("joined").expect_err("woken").kind, ErrorKind::Cancelled);
}

fn cancelled(query_id: Option<Octets>) -> ResponseFrame {
    let reply = pigeonfs::thin::message::CancelReply { query_id, error_code: 0 };
    ResponseFrame { cancel_resending_encrypted_message_reply: Some(reply), ..Default::default() }
}

#[tokio::test(start_paused = true)]
async fn p3_the_same_envelope_is_not_started_twice_at_once() {
    let (mut peer, client) = Peer::new();
    let (mut daemon, _) = peer.accept(1).await;
    let first = start_read(&client, &mut daemon, 3).await;
    let started = daemon.hear_start().await;
    let second = start_read(&client, &mut daemon, 3).await.await.expect("joined").expect_err("refused");
    assert!(matches!(&second.kind, ErrorKind::InvalidArgument(text) if text.contains("under way")), "{second}");
    daemon.say(ended(started.query_id, 11, None)).await;
    assert_eq!(first.await.expect("joined"), Ok(ReadOutcome::Tombstone), "the first is as it was");
}

#[tokio::test(start_paused = true)]
async fn p3_an_envelope_that_is_started_again_after_its_future_was_dropped_outlives_the_cancel() {
    let (mut peer, client) = Peer::new();
    let (mut daemon, _) = peer.accept(1).await;
    let reading = start_read(&client, &mut daemon, 3).await;
    let old = daemon.hear_start().await;
    reading.abort();
    daemon.hear_cancel().await;
    let again = start_read(&client, &mut daemon, 3).await;
    daemon.hear_cancel().await;
    let new = daemon.hear_start().await;
    assert_ne!(old.query_id, new.query_id);
    // The echo of the cancel is for the old one, and the old one may even answer for the new one.
    daemon.say(ended(old.query_id, 24, None)).await;
    assert!(daemon.hears_nothing(Duration::from_secs(20)).await, "no cancel meets the new one");
    daemon.say(ended(new.query_id, 0, Some(b"box"))).await;
    assert_eq!(again.await.expect("joined"), Ok(ReadOutcome::Box(b"box".to_vec())));
}

/// The session had not swept the dropped one away when the new one came, and refused it as a second one.
#[tokio::test(start_paused = true)]
async fn p3_an_envelope_is_started_again_at_once_after_its_future_was_dropped() {
    let (mut peer, client) = Peer::new();
    let (mut daemon, _) = peer.accept(1).await;
    let cap = WriteCap::from_seed(&[1; 32]);
    let asking = tokio::spawn({
        let (client, cap) = (client.clone(), cap.clone());
        async move { client.encrypt_read(cap.read_cap(), cap.index(), soon()).await }
    });
    daemon.encrypt(3).await;
    let envelope = asking.await.expect("joined").expect("an envelope");
    let start = || client.start_read(cap.read_cap(), cap.index(), &envelope, Missing::Report, soon());
    let mut first = Box::pin(start());
    tokio::select! {
        biased;
        _ = &mut first => unreachable!("nothing was answered"),
        _ = daemon.hear_start() => {}
    }
    drop(first);
    let answer = async {
        daemon.hear_cancel().await;
        let query_id = daemon.hear_start().await.query_id;
        daemon.say(ended(query_id, 0, Some(b"box"))).await;
        daemon
    };
    let (again, _daemon) = tokio::join!(start(), answer);
    assert_eq!(again, Ok(ReadOutcome::Box(b"box".to_vec())));
}

#[tokio::test(start_paused = true)]
async fn p4_a_hash_of_a_wrong_length_is_an_error_and_no_panic() {
    for hash in [&[][..], &[1; 31], &[1; 33]] {
        let (mut peer, client) = Peer::new();
        let (mut daemon, _) = peer.accept(1).await;
        let cap = WriteCap::from_seed(&[1; 32]);
        let asking = tokio::spawn(async move { client.encrypt_read(cap.read_cap(), cap.index(), soon()).await });
        let asked = daemon.hear().await.encrypt_read.expect("an encrypt");
        let reply = EncryptReply {
            query_id: asked.query_id,
            message_ciphertext: Some(Octets::from([1; 10])),
            envelope_descriptor: Some(Octets::from([2; 10])),
            envelope_hash: Some(Octets::from(hash)),
            next_message_box_index: asked.message_box_index,
            ..Default::default()
        };
        daemon.say(ResponseFrame { encrypt_read_reply: Some(reply), ..Default::default() }).await;
        let error = asking.await.expect("joined").expect_err("no hash");
        assert!(matches!(error.kind, ErrorKind::MalformedReply(_)), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn p5_a_success_without_envelopes_is_no_empty_list() {
    let (mut peer, client) = Peer::new();
    let (mut daemon, _) = peer.accept(1).await;
    let cap = WriteCap::from_seed(&[1; 32]);
    let payload = Payload { write_cap: cap.clone(), start: cap.index().clone(), bytes: vec![5; 10] };
    let asking = tokio::spawn(async move { client.envelopes_from_payload(&payload, Part::WHOLE, soon()).await });
    let query_id = daemon.hear().await.create_courier_envelopes_from_payload.expect("the question").query_id;
    let next_dest_index = Some(Octets::from(&index().as_bytes()[..]));
    daemon.say(EnvelopesFromPayloadReply { query_id, next_dest_index, ..Default::default() }).await;
    let error = asking.await.expect("joined").expect_err("nothing was made");
    assert!(matches!(error.kind, ErrorKind::MalformedReply(_)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn p6_d4_a_copy_that_was_done_in_part_is_an_error_that_says_how_much() {
    let (mut peer, client) = Peer::new();
    let (mut daemon, _) = peer.accept(1).await;
    let cap = WriteCap::from_seed(&[1; 32]);
    let copying = tokio::spawn(async move { client.start_copy(&cap, Courier::Random, soon()).await });
    let query_id = daemon.hear().await.start_resending_copy_command.expect("a copy").query_id;
    let reply =
        StartCopyReply { query_id, error_code: 26, replica_error_code: Some(6), failed_envelope_index: Some(4) };
    daemon.say(reply).await;
    let error = copying.await.expect("joined").expect_err("failed");
    assert_eq!(error.kind, ErrorKind::CopyFailed { replica_code: 6, envelope: 4 });
    assert!(error.may_have_happened() && error.is_retryable() && error.code() == Some(26));
}

#[tokio::test(start_paused = true)]
async fn d6_an_empty_box_is_a_tombstone_only_by_its_name() {
    let (mut peer, client) = Peer::new();
    let (mut daemon, _) = peer.accept(1).await;
    let cap = WriteCap::from_seed(&[1; 32]);
    let error = client.encrypt_write(&cap, cap.index(), b"", soon()).await.expect_err("refused");
    assert!(matches!(error.kind, ErrorKind::InvalidArgument(_)), "{error}");
    assert!(daemon.hears_nothing(Duration::from_secs(1)).await);
}

#[tokio::test(start_paused = true)]
async fn d10_a_read_ends_by_its_deadline_and_leaves_nothing_at_the_daemon() {
    let (mut peer, client) = Peer::new();
    let (mut daemon, _) = peer.accept(1).await;
    let deadline = Instant::now() + Duration::from_secs(10);
    let reading = start_read_until(&client, &mut daemon, 3, deadline).await;
    let started = daemon.hear_start().await;
    let error = reading.await.expect("joined").expect_err("nobody answers");
    assert_eq!((error.kind, Instant::now()), (ErrorKind::Timeout, deadline));
    assert_eq!(daemon.hear_cancel().await, started.envelope_hash);
}
