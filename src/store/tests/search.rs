//! Readers that were away for longer than the network keeps anything, and what their searches may spend.

use std::time::{Duration, SystemTime};

use rusqlite::Connection;

use super::super::*;
use super::{Home, name};
use crate::bacap::WriteCap;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn reader(home: &Home) -> (ChannelId, WriteCap) {
    let cap = WriteCap::from_seed(&[5; 32]);
    (home.store.add_reader(name("news"), cap.read_cap().clone()).wait().unwrap(), cap)
}

/// As if so much time had passed since the last search.
fn later(home: Home, by: Duration) -> Home {
    home.store.close();
    let db = Connection::open(home.state.database()).unwrap();
    let by = i64::try_from(by.as_nanos()).unwrap();
    db.execute("UPDATE channel SET searched = searched - ?1", [by]).unwrap();
    drop(db);
    home.reopened()
}

fn in_epoch(home: &Home, epoch: u64) {
    home.store.set_replica_epoch(Some(epoch)).wait().unwrap();
}

/// A search that looks 1,000 boxes far.
fn begin(home: &Home, id: ChannelId) -> Option<Searching> {
    home.store.begin_search(id, 256, 64, 1000).wait().unwrap()
}

/// So many reads of it have found nothing.
fn searched(home: &Home, id: ChannelId, mut so_far: Searching, reads: usize) {
    so_far.answers.extend(std::iter::repeat_n(1, reads));
    home.store.searched_so_far(id, so_far).wait().unwrap();
}

fn told(home: &Home, id: ChannelId) -> Channel {
    home.store.channel(id).unwrap().unwrap()
}

fn not_yet(home: &Home, id: ChannelId, seq: u64) {
    home.store.received(id, vec![(BoxSeq(seq), Arrival::NotYet)]).wait().unwrap();
}

/// By the network's epochs: the clock of this machine may be wrong, and was taken for them.
#[test]
fn a_verdict_that_comes_too_late_is_not_the_end() {
    let home = Home::new();
    let (id, _) = reader(&home);
    in_epoch(&home, 494);
    not_yet(&home, id, 0);
    in_epoch(&home, 495);
    not_yet(&home, id, 0);
    assert!(told(&home, id).end_is_known(), "what was written in the epoch before lives");
    assert_eq!(home.store.stale().unwrap(), []);

    in_epoch(&home, 497);
    let before = told(&home, id).verdict;
    assert!(told(&home, id).end_is_known(), "nobody has asked again");
    not_yet(&home, id, 0);
    not_yet(&home, id, 0);
    let home = home.reopened();
    let stale = told(&home, id);
    assert!(!stale.end_is_known() && stale.verdict.is_some() && stale.stale_since == before);
    assert_eq!(stale.stale_epoch, Some(495), "of the last verdict that could be believed");
    assert_eq!(home.store.stale().unwrap(), [id]);

    // The next box comes after all: nothing has expired.
    home.store.received(id, vec![(BoxSeq(0), Arrival::Message(vec![1]))]).wait().unwrap();
    assert_eq!((told(&home, id).stale_since, home.store.stale().unwrap()), (None, Vec::new()));
    not_yet(&home, id, 1);
    assert!(told(&home, id).end_is_known());
}

#[test]
fn a_days_searches_share_a_budget_that_is_given_out_before_it_is_spent() {
    let home = Home::new();
    let (id, _) = reader(&home);
    home.store.search(id).wait().unwrap();
    let left = |home: &Home| told(home, id).search_budget(SystemTime::now(), 256);
    assert_eq!(left(&home), 256);
    let so_far = begin(&home, id).expect("the whole day's");
    assert_eq!((so_far.budget, so_far.span, left(&home)), (256, 1000, 0));
    searched(&home, id, so_far, 56);
    home.store.end_search(id, Searched::Nothing).wait().unwrap();
    let so_far = begin(&home, id).expect("what is left");
    assert_eq!((so_far.budget, left(&home)), (200, 0));
    searched(&home, id, so_far, 137);
    home.store.end_search(id, Searched::Nothing).wait().unwrap();
    assert_eq!((left(&home), begin(&home, id)), (63, None), "too little for a search");
    let home = later(home, DAY - Duration::from_secs(60));
    assert_eq!(begin(&home, id), None);
    let home = later(home, Duration::from_secs(61));
    assert_eq!((left(&home), begin(&home, id).map(|so_far| so_far.budget)), (256, Some(256)));
}

/// Each PKI document, each reconnect and each restart threw a search away, until the day's reads were spent: then the
/// reader never saw an end again.
#[test]
fn a_search_goes_on_where_it_was() {
    let home = Home::new();
    let (id, cap) = reader(&home);
    home.store.search(id).wait().unwrap();
    let mut so_far = begin(&home, id).expect("the whole day's");
    so_far.answers = vec![1, 1, 2];
    so_far.found = Some((7, cap.index().advance_to(cap.index().counter() + 7).unwrap(), Arrival::Message(vec![9])));
    home.store.searched_so_far(id, so_far.clone()).wait().unwrap();
    let home = home.reopened();
    let again = home.store.begin_search(id, 256, 64, 5).wait().unwrap();
    // A read that was asked for when the process ended has been spent.
    so_far.answers.push(0);
    assert_eq!(again, Some(so_far), "over the span that it began with");

    // Where the reader has gone on by itself, it begins anew, with what is left of the day.
    home.store.received(id, vec![(BoxSeq(0), Arrival::Message(vec![1]))]).wait().unwrap();
    home.store.search(id).wait().unwrap();
    let anew = begin(&home, id).expect("enough is left");
    assert_eq!((anew.budget, anew.answers, anew.found), (252, vec![], None));
}

#[test]
fn what_a_search_finds_is_here_and_what_is_between_is_lost() {
    let home = Home::new();
    let (id, cap) = reader(&home);
    home.store.received(id, vec![(BoxSeq(0), Arrival::Message(b"abc".to_vec()))]).wait().unwrap();
    home.store.search(id).wait().unwrap();
    let since = told(&home, id).stale_since.expect("a person's word");
    assert!(since <= SystemTime::now() - RETENTION, "as long as anything may have been kept");
    let so_far = begin(&home, id).expect("the whole day's");
    searched(&home, id, so_far, 56);
    let far = BoxSeq(20_000);
    let index = cap.index().advance_to(cap.index().counter() + far.0).unwrap();
    let found = Searched::Found { seq: far, index, arrival: Arrival::Message(b"xyz".to_vec()) };
    home.store.end_search(id, found.clone()).wait().unwrap();
    let home = home.reopened();
    let after = told(&home, id);
    assert!(after.is_lost() && after.stale_since.is_none() && after.held_bytes == 6 && after.search_probes == 56);
    assert_eq!(home.store.hole(id).unwrap().unwrap().boxes(), 19_999);
    assert_eq!(home.store.arrived_past(id, after.frontier).unwrap(), [far]);
    assert_eq!(home.store.search(id).wait(), Err(StoreError::LaterKnown { name: "news".to_owned() }));

    // It goes on behind it, also before anybody has given up what is lost.
    let next = cap.index().advance_to(cap.index().counter() + far.0 + 3).unwrap();
    assert_eq!(home.store.index_of(id, BoxSeq(far.0 + 3)).unwrap(), next);
    let more = (1..=3).map(|at| (BoxSeq(far.0 + at), Arrival::Message(vec![b'0' + u8::try_from(at).unwrap()])));
    home.store.received(id, more.collect()).wait().unwrap();
    assert_eq!(home.store.read(id, 0, 99).unwrap(), b"abc");
    assert_eq!(home.store.skip(id).wait().unwrap().boxes, 19_999);
    assert_eq!(home.store.read(id, 0, 99).unwrap(), b"abcxyz123");
    assert_eq!(home.store.index_of(id, BoxSeq(far.0 + 4)).unwrap(), next.next().unwrap());

    // What was found when the reader had gone on by itself changes nothing.
    home.store.end_search(id, found).wait().unwrap();
    assert_eq!((told(&home, id).frontier, told(&home, id).size), (BoxSeq(far.0 + 4), 9));
}
