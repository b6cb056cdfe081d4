//! Boxes that are sent again once they have expired.

use std::time::{Duration, SystemTime};

use super::super::*;
use super::drops::M;
use super::{Home, LIMITS, bytes, name};
use crate::bacap::WriteCap;

fn in_epoch(home: &Home, epoch: u64) {
    home.store.set_replica_epoch(Some(epoch)).wait().unwrap();
}

fn expired(home: &Home, id: ChannelId, epoch: u64) -> Vec<u64> {
    let mut passed = Vec::new();
    while let Some(found) = home.store.expired_box(id, epoch, &passed).unwrap() {
        passed.push(found.seq);
    }
    passed.into_iter().map(|seq| seq.0).collect()
}

fn keep(home: &Home, id: ChannelId) {
    home.store.keep(id, SystemTime::now() + Duration::from_secs(1 << 24), Some(0.5)).wait().unwrap();
}

#[test]
fn boxes_expire_two_epochs_after_they_were_put_there_oldest_first() {
    let home = Home::new();
    let id = home.writer("notes", 1);
    home.store.set_max_plaintext(id, 10).wait().unwrap();
    home.store.append(id, bytes(60, 1), None).wait().unwrap();
    // Where no network has told its epoch, nothing is known of when a box expires: it is asked for.
    home.launch(id, 0..1, true);
    in_epoch(&home, 500);
    home.launch(id, 1..3, true);
    in_epoch(&home, 501);
    home.launch(id, 3..4, true);
    // Launched, and not stored: the sender goes on with it.
    home.launch(id, 4..5, false);
    assert_eq!(expired(&home, id, 501), [0]);
    assert_eq!(expired(&home, id, 502), [0, 1, 2]);
    assert_eq!(expired(&home, id, 510), [0, 1, 2, 3]);
    home.store.put_in_epoch(id, BoxSeq(0), 502).wait().unwrap();
    home.store.put_in_epoch(id, BoxSeq(1), 502).wait().unwrap();
    assert_eq!(expired(&home, id, 503), [2, 3]);
    let kept = home.store.expired_box(id, 503, &[]).unwrap().unwrap();
    assert_eq!((kept.epoch, kept.payload), (500, bytes(60, 1)[20..30].to_vec()));
    in_epoch(&home, 503);
    let counts = home.store.kept_counts(id).unwrap();
    assert_eq!(
        counts,
        KeptCounts { boxes: 4, dropped_boxes: 0, expired_boxes: 2, oldest_epoch: Some(500), most_in_an_epoch: 2 }
    );
    let home = home.reopened();
    assert_eq!(expired(&home, id, 503), [2, 3], "as the disk has it");
    assert_eq!(home.store.box_at(id, 25).unwrap(), BoxSeq(2));
}

#[test]
fn a_channel_is_kept_until_its_time_is_over_or_it_is_fenced() {
    let home = Home::new();
    let (id, other) = (home.writer("notes", 1), home.writer("other", 2));
    let now = SystemTime::now();
    assert_eq!(home.store.kept_channels(now).unwrap(), []);
    keep(&home, id);
    keep(&home, other);
    home.store.rename(name("notes"), name("minutes")).wait().unwrap();
    assert_eq!(home.store.kept_channels(now).unwrap(), [(id, 0.5), (other, 0.5)]);
    home.store.fence(other, "another writer".to_owned()).wait().unwrap();
    assert_eq!(home.store.kept_channels(now).unwrap(), [(id, 0.5)]);
    assert_eq!(home.store.kept_channels(now + Duration::from_secs(1 << 25)).unwrap(), []);
    home.store.keep(id, now, None).wait().unwrap();
    assert_eq!(home.store.kept_channels(now).unwrap(), [], "until now: no longer");
    let news = home.store.add_reader(name("news"), WriteCap::from_seed(&[9; 32]).read_cap().clone()).wait().unwrap();
    assert!(home.store.keep(news, now, None).wait().is_err(), "its writer's bytes are not ours to send");
}

/// What a person had deleted was on the network again two weeks later, and its tombstones fenced the drop.
#[test]
fn a_deleted_file_is_not_sent_again() {
    let home = Home::new();
    let id = home.drop("box", 1, true);
    let body = |_: &str| bytes(M * 2, 1);
    in_epoch(&home, 500);
    let (a, b) = (home.accept(id, "a", &body("")), home.accept(id, "b", &body("")));
    while home.fill(id, 1, 9, body) {}
    let boxes = home.store.channel(id).unwrap().unwrap().boxes;
    home.launch(id, 0..boxes, true);
    assert_eq!(expired(&home, id, 502).len() as u64, boxes);
    home.store.delete_record(id, a, false).wait().unwrap();
    let first = home.get(id, b).first.unwrap().0;
    assert_eq!(expired(&home, id, 502), (first..boxes).collect::<Vec<_>>(), "what is about to be deleted");
    home.store.delete_record(id, a, true).wait().unwrap();
    assert_eq!(expired(&home, id, 502), (first..boxes).collect::<Vec<_>>());
    assert!(home.store.stored_box(id, BoxSeq(0)).unwrap().is_none());
    assert_eq!(home.store.deleted_boxes(id).unwrap().first(), Some(&(0..first)));
}

/// What was promised for months was dropped here to make room before it had expired once.
#[test]
fn what_is_kept_is_not_dropped_to_make_room() {
    let home = Home::with(Limits { sent_bytes: 50, ..LIMITS });
    let (id, other) = (home.writer("notes", 1), home.writer("other", 2));
    for id in [id, other] {
        home.store.set_max_plaintext(id, 10).wait().unwrap();
        home.store.append(id, bytes(100, 1), None).wait().unwrap();
    }
    keep(&home, id);
    home.launch(id, 0..10, true);
    home.launch(other, 0..10, true);
    let dropped = |id| home.store.channel(id).unwrap().unwrap().dropped_bytes;
    let began = std::time::Instant::now();
    while dropped(other) < 90 {
        assert!(began.elapsed() < Duration::from_secs(60), "{} bytes were dropped", dropped(other));
        std::thread::yield_now();
    }
    assert_eq!(dropped(id), 0);
    home.store.keep(id, SystemTime::now(), None).wait().unwrap();
    home.store.trim(other, 0).wait().unwrap();
    while dropped(id) == 0 {
        assert!(began.elapsed() < Duration::from_secs(60), "the promise is over");
        home.store.trim(other, 0).wait().unwrap();
        std::thread::yield_now();
    }
}

#[test]
fn what_is_not_found_of_a_kept_channel_is_late() {
    let home = Home::new();
    let cap = WriteCap::from_seed(&[5; 32]);
    let id = home.store.add_reader(name("news"), cap.read_cap().clone()).wait().unwrap();
    in_epoch(&home, 500);
    let not_yet = |home: &Home| home.store.received(id, vec![(BoxSeq(0), Arrival::NotYet)]).wait().unwrap();
    not_yet(&home);
    let told = |home: &Home| home.store.channel(id).unwrap().unwrap();
    assert!(told(&home).end_is_known());
    // A person says so afterwards: what was taken for the end is none.
    let until = replica_epoch_begins(504);
    home.store.keep_until(id, Some(until)).wait().unwrap();
    assert!(!told(&home).end_is_known());
    not_yet(&home);
    assert!(!told(&home).end_is_known());
    // By the network's time.
    in_epoch(&home, 504);
    not_yet(&home);
    assert!(told(&home).end_is_known(), "the promise is over");
}
