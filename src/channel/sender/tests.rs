use super::*;

const T0: Time = Duration::from_secs(100);
const WRITE: Operation = Operation::Write { strict: true };

fn seqs(range: std::ops::Range<u64>) -> Vec<BoxSeq> {
    range.map(BoxSeq).collect()
}

fn fetched(range: std::ops::Range<u64>, how: Fetched) -> SenderEvent {
    SenderEvent::Fetched { boxes: range.map(|seq| (BoxSeq(seq), how)).collect() }
}

fn fresh(durability: Durability) -> Sender {
    let mut sender = Sender::new(BoxSeq(0), T0, Some(BoxSeq(0)), durability);
    sender.set_window(4);
    sender
}

/// A sender with a window of four whose first box is confirmed.
fn trusted(durability: Durability) -> Sender {
    let mut sender = fresh(durability);
    sender.handle(T0, SenderEvent::Online(true));
    sender.handle(T0, fetched(0..1, Fetched::Sealed));
    sender.handle(T0, SenderEvent::Launched { boxes: seqs(0..1) });
    assert_eq!(sender.take_write(T0), Some((BoxSeq(0), WRITE)), "strict, whatever the channel chose");
    sender.handle(T0, SenderEvent::Ended { seq: BoxSeq(0), outcome: Outcome::Stored });
    sender
}

/// The same with some more boxes queued and launched.
fn launched(durability: Durability, boxes: std::ops::Range<u64>) -> Sender {
    let mut sender = trusted(durability);
    sender.handle(T0, SenderEvent::Queued);
    sender.handle(T0, fetched(boxes.clone(), Fetched::Sealed));
    sender.handle(T0, SenderEvent::Launched { boxes: seqs(boxes) });
    sender
}

/// The same with so many boxes at couriers since `T0`, and so many launched behind them.
fn with_couriered(couriered: u64, launched: u64) -> Sender {
    let mut sender = trusted(Durability::Couriered);
    sender.handle(T0, SenderEvent::Queued);
    let how = |seq| if seq <= couriered { Fetched::Couriered { since: T0 } } else { Fetched::Launched };
    let boxes = (1..=couriered + launched).map(|seq| (BoxSeq(seq), how(seq))).collect();
    sender.handle(T0, SenderEvent::Fetched { boxes });
    sender
}

fn all_writes(sender: &mut Sender, now: Time) -> Vec<(BoxSeq, Operation)> {
    std::iter::from_fn(|| sender.take_write(now)).collect()
}

/// The index of a box that was taken to be written turns out to be occupied, and by what.
fn meet(sender: &mut Sender, now: Time, seq: BoxSeq, found: ReadBack) -> Vec<SenderAction> {
    sender.handle(now, SenderEvent::Ended { seq, outcome: Outcome::Occupied });
    assert_eq!(sender.take_write(now), Some((seq, Operation::ReadBack)));
    sender.handle(now, SenderEvent::WasRead { seq, found })
}

#[test]
fn the_first_box_of_a_life_goes_alone_and_only_after_its_launch_is_committed() {
    let mut sender = fresh(Durability::Stored);
    assert_eq!(sender.handle(T0, SenderEvent::Online(true)), [SenderAction::Fetch { from: BoxSeq(0), limit: 4 }]);
    let launched = sender.handle(T0, fetched(0..3, Fetched::Sealed));
    assert_eq!(launched, [SenderAction::Launch { boxes: seqs(0..1) }], "one of three");
    assert_eq!((sender.take_write(T0), sender.wants(T0).write), (None, false), "its launch is not committed");
    sender.handle(T0, SenderEvent::Launched { boxes: seqs(0..1) });
    assert_eq!(all_writes(&mut sender, T0), [(BoxSeq(0), WRITE)]);
    let then = sender.handle(T0, SenderEvent::Ended { seq: BoxSeq(0), outcome: Outcome::Stored });
    assert_eq!(then[..2], [SenderAction::Trust, SenderAction::Confirm { seq: BoxSeq(0) }]);
    assert_eq!(then[2], SenderAction::Launch { boxes: seqs(1..3) }, "confirmed: the window opens");
}

#[test]
fn what_this_life_launched_before_the_sender_was_made_anew_goes_alone_too() {
    let mut sender = fresh(Durability::Stored);
    sender.handle(T0, SenderEvent::Online(true));
    sender.handle(T0, fetched(0..3, Fetched::Launched));
    assert_eq!(all_writes(&mut sender, T0), [(BoxSeq(0), WRITE)]);
    sender.handle(T0, SenderEvent::Ended { seq: BoxSeq(0), outcome: Outcome::Stored });
    assert_eq!(all_writes(&mut sender, T0), [(BoxSeq(1), WRITE), (BoxSeq(2), WRITE)]);
}

#[test]
fn what_was_launched_before_the_store_was_opened_goes_as_a_window_and_the_next_alone() {
    let mut sender = Sender::new(BoxSeq(5), T0, Some(BoxSeq(8)), Durability::Couriered);
    sender.set_window(8);
    sender.handle(T0, SenderEvent::Online(true));
    let mut boxes: Vec<_> = seqs(5..8).into_iter().map(|seq| (seq, Fetched::Launched)).collect();
    boxes.extend(seqs(8..11).into_iter().map(|seq| (seq, Fetched::Sealed)));
    assert_eq!(sender.handle(T0, SenderEvent::Fetched { boxes }), [], "nothing new beside those");
    let couriered = Operation::Write { strict: false };
    assert_eq!(all_writes(&mut sender, T0), seqs(5..8).into_iter().map(|seq| (seq, couriered)).collect::<Vec<_>>());
    for seq in seqs(5..7) {
        let told = sender.handle(T0, SenderEvent::Ended { seq, outcome: Outcome::Couriered });
        assert_eq!(told, [SenderAction::Courier { seq }]);
    }
    let alone = sender.handle(T0, SenderEvent::Ended { seq: BoxSeq(7), outcome: Outcome::Couriered });
    assert_eq!(alone[1], SenderAction::Launch { boxes: seqs(8..9) });
    sender.handle(T0, SenderEvent::Launched { boxes: seqs(8..9) });
    assert_eq!(all_writes(&mut sender, T0), [(BoxSeq(8), WRITE)], "strict, for its conflict to be seen");
}

/// A read error while boxes were looked up was taken for an empty backlog, and the channel stood still until something
/// else touched it.
#[test]
fn boxes_that_could_not_be_looked_up_are_looked_up_again() {
    let mut sender = fresh(Durability::Stored);
    sender.handle(T0, SenderEvent::Online(true));
    let mut now = T0;
    for _ in 0..3 {
        assert_eq!(sender.handle(now, SenderEvent::FetchFailed), [], "not at once");
        assert!(!sender.is_idle());
        let at = sender.next_timeout(now).expect("another look is planned");
        assert_eq!(sender.handle(at, SenderEvent::Tick), [SenderAction::Fetch { from: BoxSeq(0), limit: 4 }]);
        now = at;
    }
    let launched = sender.handle(now, fetched(0..1, Fetched::Sealed));
    assert_eq!(launched, [SenderAction::Launch { boxes: seqs(0..1) }]);
    assert_eq!(sender.next_timeout(now), None, "nothing else is planned");
}

#[test]
fn nothing_is_launched_while_the_network_is_away_or_the_stream_is_too_young() {
    let mut sender = Sender::new(BoxSeq(0), T0 + Duration::from_secs(2), Some(BoxSeq(0)), Durability::Stored);
    assert_eq!(sender.handle(T0, SenderEvent::Queued), [], "offline");
    sender.handle(T0, SenderEvent::Online(true));
    assert_eq!(sender.handle(T0, fetched(0..1, Fetched::Sealed)), [], "two seconds to take a slip back");
    assert_eq!(sender.next_timeout(T0), Some(T0 + Duration::from_secs(2)));
    let later = sender.handle(T0 + Duration::from_secs(2), SenderEvent::Tick);
    assert_eq!(later, [SenderAction::Launch { boxes: seqs(0..1) }]);
}

#[test]
fn a_lost_answer_is_tried_again_later_and_a_stale_envelope_at_once() {
    let mut sender = launched(Durability::Stored, 1..2);
    assert_eq!(all_writes(&mut sender, T0), [(BoxSeq(1), WRITE)]);
    sender.handle(T0, SenderEvent::Ended { seq: BoxSeq(1), outcome: Outcome::Stale });
    assert_eq!(all_writes(&mut sender, T0), [(BoxSeq(1), WRITE)], "the same box at the same index");
    sender.handle(T0, SenderEvent::Ended { seq: BoxSeq(1), outcome: Outcome::Again });
    assert_eq!(all_writes(&mut sender, T0), [], "not at once");
    let at = sender.next_timeout(T0).expect("a retry is planned");
    assert_eq!(all_writes(&mut sender, at), [(BoxSeq(1), WRITE)]);
}

#[test]
fn an_occupied_index_is_read_back_and_all_but_our_own_bytes_fences() {
    for (found, expected) in [
        (ReadBack::Ours, SenderAction::Confirm { seq: BoxSeq(1) }),
        (ReadBack::Foreign(Foreign::Bytes), SenderAction::Fence { seq: BoxSeq(1), foreign: Foreign::Bytes }),
        (ReadBack::Foreign(Foreign::Tombstone), SenderAction::Fence { seq: BoxSeq(1), foreign: Foreign::Tombstone }),
    ] {
        let mut sender = launched(Durability::Stored, 1..2);
        sender.take_write(T0);
        let judged = meet(&mut sender, T0, BoxSeq(1), found);
        assert!(judged.contains(&expected), "{found:?}: {judged:?}");
    }
}

#[test]
fn a_fenced_sender_does_nothing_more() {
    let mut sender = launched(Durability::Stored, 1..4);
    sender.take_write(T0);
    meet(&mut sender, T0, BoxSeq(1), ReadBack::Foreign(Foreign::Bytes));
    assert_eq!(sender.handle(T0, SenderEvent::Queued), []);
    assert_eq!((sender.take_write(T0), sender.next_timeout(T0)), (None, None));
}

#[test]
fn a_backlog_is_no_short_message() {
    assert!(launched(Durability::Stored, 1..3).wants(T0).short);
    assert!(!launched(Durability::Stored, 1..4).wants(T0).short);
    assert_eq!(trusted(Durability::Stored).wants(T0), Wants::default(), "nothing to send is nothing");
    let mut narrow = Sender::new(BoxSeq(0), T0, None, Durability::Stored);
    let looked_up = narrow.handle(T0, SenderEvent::Online(true));
    assert_eq!(looked_up, [SenderAction::Fetch { from: BoxSeq(0), limit: 3 }], "enough to tell, whatever the window");
}

#[test]
fn what_a_courier_has_is_confirmed_in_an_idle_slot_and_sent_again_where_it_was_lost() {
    let mut sender = launched(Durability::Couriered, 1..2);
    assert_eq!(sender.take_write(T0), Some((BoxSeq(1), Operation::Write { strict: false })));
    let told = sender.handle(T0, SenderEvent::Ended { seq: BoxSeq(1), outcome: Outcome::Couriered });
    assert_eq!(told[0], SenderAction::Courier { seq: BoxSeq(1) });
    assert_eq!((sender.wants(T0).write, sender.wants(T0).confirm, sender.take_write(T0)), (false, true, None));
    assert_eq!(sender.take_confirmation(T0), Some((BoxSeq(1), WRITE)));
    assert!(!sender.wants(T0).confirm, "one at a time");
    let told = sender.handle(T0, SenderEvent::Ended { seq: BoxSeq(1), outcome: Outcome::Stored });
    assert_eq!(told, [SenderAction::Confirm { seq: BoxSeq(1) }]);
    assert!(sender.is_idle(), "{sender:?}");
}

#[test]
fn a_confirmation_that_has_waited_a_day_goes_first() {
    let mut sender = with_couriered(1, 1);
    let due = sender.next_timeout(T0).expect("planned");
    assert_eq!(due, T0 + Duration::from_secs(86_400));
    assert_eq!(sender.take_write(due), Some((BoxSeq(1), WRITE)));
    assert_eq!(sender.take_write(due), Some((BoxSeq(2), Operation::Write { strict: false })));
}

#[test]
fn no_more_boxes_than_the_limit_are_left_unconfirmed() {
    let mut sender = with_couriered(MAX_UNCONFIRMED as u64, 1);
    let next = BoxSeq(MAX_UNCONFIRMED as u64 + 1);
    assert_eq!(sender.take_write(T0), Some((BoxSeq(1), WRITE)), "a confirmation, and no new box");
    sender.handle(T0, SenderEvent::Ended { seq: BoxSeq(1), outcome: Outcome::Stored });
    assert_eq!(sender.take_write(T0), Some((next, Operation::Write { strict: false })));
}

#[test]
fn a_box_that_fails_is_tried_after_half_a_second_and_then_twice_as_long_up_to_a_minute() {
    let mut sender = launched(Durability::Stored, 1..2);
    let mut now = T0;
    for pause in [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000] {
        assert_eq!(sender.take_write(now), Some((BoxSeq(1), WRITE)));
        assert_eq!(sender.next_timeout(now), None, "it is under way");
        sender.handle(now, SenderEvent::Ended { seq: BoxSeq(1), outcome: Outcome::Again });
        let due = now + Duration::from_millis(pause);
        assert_eq!((sender.wants(now).write, sender.next_timeout(now)), (false, Some(due)));
        now = due;
    }
    assert_eq!(sender.take_write(now), Some((BoxSeq(1), WRITE)));
    sender.handle(now, SenderEvent::Ended { seq: BoxSeq(1), outcome: Outcome::Stale });
    assert_eq!(sender.take_write(now), None, "stale for the first time is at once; after other failures it waits too");
}

#[test]
fn an_index_that_could_not_be_read_back_is_read_again_later() {
    let mut sender = launched(Durability::Stored, 1..2);
    sender.take_write(T0);
    sender.handle(T0, SenderEvent::Ended { seq: BoxSeq(1), outcome: Outcome::Occupied });
    let mut now = T0;
    for pause in [500, 1000] {
        assert_eq!(sender.take_write(now), Some((BoxSeq(1), Operation::ReadBack)));
        sender.handle(now, SenderEvent::WasRead { seq: BoxSeq(1), found: ReadBack::Unknown });
        assert_eq!(sender.take_write(now), None);
        now += Duration::from_millis(pause);
        assert_eq!(sender.next_timeout(T0), Some(now));
    }
    assert_eq!(sender.take_write(now), Some((BoxSeq(1), Operation::ReadBack)));
}

#[test]
fn a_launch_that_could_not_be_committed_is_tried_again_later_in_order() {
    let mut sender = trusted(Durability::Stored);
    sender.handle(T0, SenderEvent::Queued);
    let launch = [SenderAction::Launch { boxes: seqs(1..4) }];
    assert_eq!(sender.handle(T0, fetched(1..4, Fetched::Sealed)), launch);
    let mut now = T0;
    for pause in [500, 1000, 2000] {
        assert_eq!(sender.handle(now, SenderEvent::LaunchFailed { boxes: seqs(1..4) }), []);
        let due = now + Duration::from_millis(pause);
        assert_eq!(sender.next_timeout(now), Some(due));
        assert_eq!(sender.handle(due - Duration::from_millis(1), SenderEvent::Tick), []);
        assert_eq!(sender.handle(due, SenderEvent::Tick), launch);
        now = due;
    }
    sender.handle(now, SenderEvent::Launched { boxes: seqs(1..4) });
    sender.handle(now, SenderEvent::Queued);
    sender.handle(now, fetched(4..5, Fetched::Sealed));
    sender.handle(now, SenderEvent::LaunchFailed { boxes: seqs(4..5) });
    assert_eq!(
        sender.next_timeout(now),
        Some(now + Duration::from_millis(500)),
        "one that was committed ended the row"
    );
}

#[test]
fn what_it_looks_up_and_launches_is_bounded_by_two_windows() {
    let mut sender = trusted(Durability::Stored);
    let fetch = |from| SenderAction::Fetch { from: BoxSeq(from), limit: 4 };
    assert_eq!(sender.handle(T0, SenderEvent::Queued), [fetch(1)]);
    assert_eq!(sender.handle(T0, SenderEvent::Queued), [], "one look-up at a time");
    let told = sender.handle(T0, fetched(1..5, Fetched::Sealed));
    assert_eq!(
        told,
        [SenderAction::Launch { boxes: seqs(1..5) }, fetch(5)],
        "a full answer means that there may be more"
    );
    let told = sender.handle(T0, fetched(5..9, Fetched::Sealed));
    assert_eq!(told, [SenderAction::Launch { boxes: seqs(5..9) }], "two windows");
    sender.handle(T0, SenderEvent::Launched { boxes: seqs(1..9) });
    assert_eq!(all_writes(&mut sender, T0).len(), 8);
    for seq in seqs(1..4) {
        assert_eq!(
            sender.handle(T0, SenderEvent::Ended { seq, outcome: Outcome::Stored }),
            [SenderAction::Confirm { seq }]
        );
    }
    let told = sender.handle(T0, SenderEvent::Ended { seq: BoxSeq(4), outcome: Outcome::Stored });
    assert_eq!(told, [SenderAction::Confirm { seq: BoxSeq(4) }, fetch(9)], "a window is left");
    assert_eq!(sender.handle(T0, fetched(9..11, Fetched::Sealed)), [SenderAction::Launch { boxes: seqs(9..11) }]);
    assert!(!sender.more && !sender.is_idle(), "fewer than the limit is the end, for now");
}

#[test]
fn a_slot_is_idle_when_nothing_new_comes_into_it() {
    let mut sender = launched(Durability::Couriered, 1..2);
    sender.take_write(T0);
    sender.handle(T0, SenderEvent::Ended { seq: BoxSeq(1), outcome: Outcome::Couriered });
    assert_eq!(sender.wants(T0), Wants { write: false, short: false, confirm: true });
    sender.handle(T0, SenderEvent::Queued);
    assert!(!sender.wants(T0).confirm, "it is being looked up what comes");
    sender.handle(T0, fetched(2..3, Fetched::Sealed));
    assert!(!sender.wants(T0).confirm, "a launch is being committed");
    sender.handle(T0, SenderEvent::LaunchFailed { boxes: seqs(2..3) });
    assert!(!sender.wants(T0).confirm, "a launch waits");
    let now = T0 + RETRY_FIRST;
    sender.handle(now, SenderEvent::Tick);
    sender.handle(now, SenderEvent::Launched { boxes: seqs(2..3) });
    assert_eq!(sender.wants(now), Wants { write: true, short: true, confirm: true });
    sender.handle(now, SenderEvent::Online(false));
    assert_eq!(
        (sender.wants(now), sender.take_write(now), sender.take_confirmation(now)),
        (Wants::default(), None, None)
    );
    assert_eq!(sender.next_timeout(now), None, "nothing is due while the network is away");
    sender.handle(now, SenderEvent::Online(true));
    assert_eq!(sender.take_write(now).map(|(seq, _)| seq), Some(BoxSeq(2)));
    meet(&mut sender, now, BoxSeq(2), ReadBack::Foreign(Foreign::Bytes));
    assert_eq!((sender.wants(now), sender.take_confirmation(now)), (Wants::default(), None), "fenced");
}

#[test]
fn an_overdue_confirmation_is_no_short_message() {
    let sender = with_couriered(1, 1);
    assert_eq!(sender.wants(T0), Wants { write: true, short: true, confirm: true });
    let late = T0 + UNCONFIRMED_FOR;
    assert_eq!(sender.wants(late), Wants { write: true, short: false, confirm: true });
    assert_eq!(sender.next_timeout(late), None, "what is due waits for the scheduler");
}

#[test]
fn what_is_under_way_counts_among_the_unconfirmed() {
    let most = MAX_UNCONFIRMED as u64;
    let mut sender = with_couriered(most - 1, 3);
    let couriered = Operation::Write { strict: false };
    assert_eq!(all_writes(&mut sender, T0), [(BoxSeq(most), couriered)], "one more makes it full");
}

proptest::proptest! {
    /// Whatever fails in whatever order: a box is sent only after its launch, never more than two windows are in
    /// hand, every box is confirmed exactly once, and the sender comes to rest.
    #[test]
    fn every_box_is_confirmed_once(boxes in 1_u64..60, window in 1_usize..8, couriered: bool, seed: u64) {
        use rand::{RngExt as _, SeedableRng as _};
        let mut dice = rand::rngs::StdRng::seed_from_u64(seed);
        let durability = if couriered { Durability::Couriered } else { Durability::Stored };
        let mut sender = Sender::new(BoxSeq(0), T0, Some(BoxSeq(0)), durability);
        sender.set_window(window);
        let mut now = T0;
        let mut inbox: Vec<SenderEvent> = vec![SenderEvent::Online(true)];
        let (mut launched, mut confirmed) = (vec![false; boxes as usize], vec![0; boxes as usize]);
        for step in 0..100_000 {
            proptest::prop_assert!(step < 99_999, "the sender never came to rest");
            let event = if inbox.is_empty() {
                if sender.is_idle() { break; }
                match sender.next_timeout(now) { Some(at) => now = at, None => break }
                SenderEvent::Tick
            } else {
                let pick = dice.random_range(0..inbox.len());
                inbox.swap_remove(pick)
            };
            for action in sender.handle(now, event) {
                match action {
                    SenderAction::Fetch { .. } if dice.random_bool(0.1) => inbox.push(SenderEvent::FetchFailed),
                    SenderAction::Fetch { from, limit } => {
                        let end = boxes.min(from.0 + limit as u64);
                        let how = |seq: u64| if launched[seq as usize] { Fetched::Launched } else { Fetched::Sealed };
                        inbox.push(SenderEvent::Fetched {
                            boxes: (from.0..end).map(|seq| (BoxSeq(seq), how(seq))).collect(),
                        });
                    }
                    SenderAction::Launch { boxes } if dice.random_bool(0.1) =>
                        inbox.push(SenderEvent::LaunchFailed { boxes }),
                    SenderAction::Launch { boxes } => {
                        for seq in &boxes { launched[seq.0 as usize] = true; }
                        inbox.push(SenderEvent::Launched { boxes });
                    }
                    SenderAction::Confirm { seq } => confirmed[seq.0 as usize] += 1,
                    SenderAction::Courier { .. } | SenderAction::Trust => {}
                    SenderAction::Fence { .. } => proptest::prop_assert!(false, "nothing was foreign"),
                }
            }
            let wanted = sender.wants(now);
            let taken = sender.take_write(now);
            proptest::prop_assert_eq!(wanted.write, taken.is_some());
            let Some((seq, operation)) = taken.or_else(|| sender.take_confirmation(now)) else { continue };
            proptest::prop_assert!(launched[seq.0 as usize], "{seq:?} was sent before its launch");
            inbox.push(match operation {
                Operation::Write { strict } => SenderEvent::Ended { seq, outcome: match dice.random_range(0..10) {
                    0 => Outcome::Again,
                    1 if strict => Outcome::Occupied,
                    2 => Outcome::Stale,
                    _ if strict => Outcome::Stored,
                    _ => Outcome::Couriered,
                } },
                _ => SenderEvent::WasRead {
                    seq, found: if dice.random_bool(0.3) { ReadBack::Unknown } else { ReadBack::Ours },
                },
            });
            proptest::prop_assert!(sender.in_hand.len() <= 2 * window);
        }
        proptest::prop_assert_eq!(confirmed, vec![1; boxes as usize]);
    }
}

/// What one daemon had may be done already: only a replica's word counts for it then, and nothing waits before it is asked.
#[test]
fn what_another_daemon_is_to_do_goes_at_once_and_strict() {
    let couriered = Operation::Write { strict: false };
    let mut sender = launched(Durability::Couriered, 1..4);
    assert_eq!(all_writes(&mut sender, T0).len(), 3);
    sender.handle(T0, SenderEvent::Moved { seq: BoxSeq(2) });
    assert_eq!(all_writes(&mut sender, T0), [(BoxSeq(2), WRITE)]);
    sender.handle(T0, SenderEvent::Ended { seq: BoxSeq(2), outcome: Outcome::Again });
    let later = sender.next_timeout(T0).expect("it is tried again");
    assert_eq!(all_writes(&mut sender, later), [(BoxSeq(2), WRITE)], "strict still");
    let told = sender.handle(later, SenderEvent::Ended { seq: BoxSeq(2), outcome: Outcome::Stored });
    assert_eq!(told[0], SenderAction::Confirm { seq: BoxSeq(2) });
    // One of those beside it is as the channel wants it.
    sender.handle(later, SenderEvent::Ended { seq: BoxSeq(1), outcome: Outcome::Again });
    let later = sender.next_timeout(later).expect("it is tried again");
    assert_eq!(all_writes(&mut sender, later), [(BoxSeq(1), couriered)]);
    // A read of an occupied index, and a confirmation, are asked for again; what is over stays over.
    sender.handle(later, SenderEvent::Ended { seq: BoxSeq(1), outcome: Outcome::Occupied });
    assert_eq!(all_writes(&mut sender, later), [(BoxSeq(1), Operation::ReadBack)]);
    sender.handle(later, SenderEvent::Moved { seq: BoxSeq(1) });
    assert_eq!(all_writes(&mut sender, later), [(BoxSeq(1), Operation::ReadBack)]);
    assert!(!sender.handle(later, SenderEvent::Moved { seq: BoxSeq(2) }).contains(&SenderAction::Trust));
    assert_eq!(all_writes(&mut sender, later), []);
}
