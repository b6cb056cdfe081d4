//! Many at once: the order of appends, interrupts, wake-ups and the end.

use std::collections::BTreeSet;
use std::thread;

use proptest::prelude::*;

use super::super::*;
use super::{Home, bytes, name, network};

#[test]
fn appends_from_four_threads_keep_each_threads_order_and_arrive_whole() {
    const LEN: usize = 15;
    let home = Home::new();
    let id = home.writer("log", 1);
    thread::scope(|scope| {
        for writer in 0..4 {
            let store = home.store.clone();
            scope.spawn(move || {
                let line = |at| format!("w{writer} line {at:05}.\n").into_bytes();
                // Half of them one by one, half of them submitted together.
                let mut end = 0;
                for at in 0..100 {
                    let appended = store.append(id, line(at), None).wait().unwrap();
                    assert!(appended.offset >= end, "appended before an earlier one");
                    end = appended.size;
                }
                let commits: Vec<_> = (100..200).map(|at| store.append(id, line(at), None)).collect();
                for commit in commits {
                    let appended = commit.wait().unwrap();
                    assert!(appended.offset >= end, "appended before an earlier one");
                    end = appended.size;
                }
            });
        }
    });
    let all = home.store.read(id, 0, MAX_READ_BYTES).unwrap();
    assert_eq!(all.len(), 4 * 200 * LEN);
    let mut next = [0; 4];
    for line in all.chunks(LEN) {
        let line = std::str::from_utf8(line).unwrap();
        let writer: usize = line[1..2].parse().unwrap();
        assert_eq!(line, format!("w{writer} line {:05}.\n", next[writer]));
        next[writer] += 1;
    }
    assert_eq!(next, [200; 4]);
}

#[test]
fn a_refused_request_takes_nothing_else_of_its_group_with_it() {
    let home = Home::new();
    let id = home.writer("log", 1);
    let store = &home.store;
    let mut good = Vec::new();
    let mut bad = Vec::new();
    for at in 0..200 {
        good.push(store.append(id, vec![b'a' + at % 26], None));
        bad.push(store.rename(name("absent"), name("log")));
        bad.push(store.confirm(id, vec![BoxSeq(0)], BoxState::Stored));
    }
    assert!(good.into_iter().all(|commit| commit.wait().is_ok()));
    assert!(bad.into_iter().all(|commit| commit.wait().is_err()));
    let expected: Vec<u8> = (0..200).map(|at| b'a' + at % 26).collect();
    assert_eq!(store.read(id, 0, 1000).unwrap(), expected);
}

#[test]
fn the_spool_is_full_before_anything_is_accepted() {
    let home = Home::with(Limits { spool_bytes: 10_000, ..super::LIMITS });
    let store = &home.store;
    let (one, two) = (home.writer("one", 1), home.writer("two", 2));
    store.append(one, bytes(6000, 1), None).wait().unwrap();
    let refused = store.append(two, bytes(4001, 2), None).wait();
    assert_eq!(refused, Err(StoreError::SpoolFull { spooled: 6000, limit: 10_000 }));
    store.append(two, bytes(4000, 2), None).wait().unwrap();
    store.bind_network(one, network()).wait().unwrap();
    store.launch(one, 0, vec![BoxSeq(0)], network()).wait().unwrap();
    store.confirm(one, vec![BoxSeq(0)], BoxState::Couriered).wait().unwrap();
    assert!(store.append(two, vec![1], None).wait().is_err(), "a courier may still lose it");
    store.confirm(one, vec![BoxSeq(0)], BoxState::Stored).wait().unwrap();
    store.append(two, bytes(1549, 3), None).wait().unwrap();
    assert!(store.append(two, vec![1], None).wait().is_err());
    store.truncate(two).wait().unwrap();
    assert_eq!(store.spool_bytes().unwrap(), 6000 - 1549);
}

#[tokio::test]
async fn watchers_wake_after_the_commit_and_when_the_channel_goes() {
    let home = Home::new();
    let (log, other) = (home.writer("log", 1), home.writer("other", 2));
    let changes = home.store.changes();
    touched(&changes, &[log, other]).await;
    let mut watch = changes.watch(log);
    home.store.append(other, vec![1], None).await.unwrap();
    assert!(!watch.has_changed().unwrap());
    home.store.append(log, vec![1], None).await.unwrap();
    watch.changed().await.unwrap();
    assert_eq!(home.store.channel(log).unwrap().unwrap().size, 1);
    assert!(home.store.truncate(ChannelId(77)).await.is_err());
    home.store.forget(name("log")).await.unwrap();
    watch.changed().await.unwrap();
    assert_eq!(home.store.channel(log).unwrap(), None);
    touched(&changes, &[log, other]).await;
}

/// Waits until all of these were said to be touched, and nothing else.
async fn touched(changes: &Changes, expected: &[ChannelId]) {
    let mut seen = BTreeSet::new();
    while seen.len() < expected.len() {
        seen.extend(changes.touched().await);
    }
    assert!(seen.iter().eq(expected), "{seen:?}");
}

#[test]
fn closing_carries_out_what_was_submitted_and_refuses_what_comes_later() {
    let home = Home::new();
    let id = home.writer("log", 1);
    let commits: Vec<_> = (0..50).map(|_| home.store.append(id, vec![7; 100], None)).collect();
    home.store.close();
    assert!(commits.into_iter().all(|commit| commit.wait().is_ok()));
    assert_eq!(home.store.append(id, vec![1], None).wait(), Err(StoreError::Closed));
    assert_eq!(home.store.channel(id), Err(StoreError::Closed));
    let left: Vec<_> = std::fs::read_dir(home.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().ends_with("-wal")), "the log is written back: {left:?}");
    assert_eq!(home.reopened().store.channel(id).unwrap().unwrap().size, 5000);
}

#[test]
fn what_is_forgotten_is_deleted_in_slices_and_given_back() {
    let home = Home::new();
    let store = &home.store;
    let id = home.writer("big", 1);
    for at in 0..24 {
        store.append(id, bytes(1 << 20, at), None).wait().unwrap();
    }
    store.truncate(id).wait().unwrap();
    store.append(id, bytes(5000, 1), None).wait().unwrap();
    store.forget(name("big")).wait().unwrap();
    assert_eq!(store.spool_bytes().unwrap(), 0);
    // The same capability may come again, whatever is still being deleted.
    let again = home.writer("big", 1);
    assert_ne!(id, again);
    let database = home.state.database();
    let before = std::fs::metadata(&database).unwrap().len();
    // The writer deletes while nothing waits. Requests are answered meanwhile.
    let rows =
        || store.readers().ask(|db| Ok(db.query_row("SELECT count(*) FROM chain", [], |row| row.get::<_, i64>(0))?));
    while rows().unwrap() > 1 || std::fs::metadata(&database).unwrap().len() > before / 2 {
        store.seal_tail(again).wait().unwrap();
        thread::yield_now();
    }
    assert_eq!(
        store.readers().ask(|db| Ok(db.query_row("SELECT count(*) FROM box", [], |row| row.get::<_, i64>(0))?)),
        Ok(0)
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// A person interrupts a write and writes it again, as a shell does: the bytes are there once.
    #[test]
    fn an_interrupt_never_doubles_bytes(spins in proptest::collection::vec(0..3000_u32, 8)) {
        let home = Home::new();
        let id = home.writer("log", 1);
        let mut expected = Vec::new();
        for (at, spins) in spins.into_iter().enumerate() {
            let line = bytes(40, at);
            let claim = Claim::new();
            let commit = home.store.append(id, line.clone(), Some(claim.clone()));
            for _ in 0..spins {
                std::hint::spin_loop();
            }
            let interrupted = claim.interrupt();
            let answer = commit.wait();
            if interrupted {
                prop_assert_eq!(answer, Err(StoreError::Interrupted));
                home.store.append(id, line.clone(), None).wait().unwrap();
            } else {
                prop_assert!(answer.is_ok());
            }
            expected.extend(line);
        }
        prop_assert_eq!(home.store.read(id, 0, MAX_READ_BYTES).unwrap(), expected);
    }
}
