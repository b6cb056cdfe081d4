use std::time::SystemTime;

use super::*;
use crate::channel::{DaemonId, ReceiverAction};
use crate::model::{ChannelName, Content, Durability};

const T0: Time = Duration::from_secs(100_000);
const A: ChannelId = ChannelId(1);

fn config() -> DeliveryConfig {
    DeliveryConfig { linger: Linger::default(), prompt: false, probe_share: 0.1, seed: 1 }
}

fn network(authority: u8, max_plaintext: usize) -> NetworkView {
    let (id, pace) = (NetworkId::new([[authority; 32]]), Pace::from_document(0.001, 0.005, 3));
    NetworkView { id, max_plaintext, pace, replica_epoch: Some(494) }
}

/// A channel with so many sealed boxes of ten bytes that wait.
fn channel(role: Role, boxes: u64) -> Channel {
    let time = SystemTime::UNIX_EPOCH;
    let writes = role == Role::Writer;
    Channel {
        id: A,
        name: ChannelName::parse("notes").expect("a name"),
        role,
        content: Content::Stream,
        assembled: BoxSeq(0),
        astray: false,
        size: 10 * boxes,
        stored_bytes: 0,
        boxes,
        stored_boxes: 0,
        first_unstored: BoxSeq(0),
        couriered_boxes: 0,
        couriered_bytes: 0,
        durability: Durability::Stored,
        tail_bytes: 0,
        rewrites: 0,
        created: time,
        modified: time,
        accessed: time,
        changed: time,
        dropped_mode: 0,
        owner: None,
        launched: false,
        launched_end: BoxSeq(0),
        shown: false,
        cap_elsewhere: false,
        fence: None,
        unfit: None,
        frontier: if writes { BoxSeq(0) } else { BoxSeq(boxes) },
        verdict: None,
        later_known: false,
        lost_end: BoxSeq(0),
        skipped_boxes: 0,
        stale_since: None,
        stale_epoch: None,
        searched: None,
        search_probes: 0,
        dropped_bytes: 0,
        held_bytes: 0,
        paused: false,
        max_plaintext: 10,
        network: None,
        kind_is_told: false,
        text_network: crate::bacap::TextNetwork::Unbound,
        strict_network: false,
        kept_until: None,
        invited: false,
    }
}

fn found(channel: &Channel) -> Event {
    Event::Found { channel: Box::new(channel.clone()), age: Duration::from_secs(3600) }
}

fn commits(actions: &[Action]) -> Vec<(CommitId, Request)> {
    let commit = |action: &Action| match action {
        Action::Commit { commit, request, .. } => Some((*commit, request.clone())),
        _ => None,
    };
    actions.iter().filter_map(commit).collect()
}

/// The only commit that is asked for.
fn commit(actions: &[Action]) -> (CommitId, Request) {
    let all = commits(actions);
    assert_eq!(all.len(), 1, "{actions:?}");
    all[0].clone()
}

fn made(commit: CommitId) -> Event {
    Event::Committed { commit, result: Ok(Done::Made) }
}

fn failed(commit: CommitId) -> Event {
    Event::Committed { commit, result: Err(CommitFailure::Failed("the disk".to_owned())) }
}

/// A machine on a network, which was told of the channel.
fn with(channel: &Channel) -> (Delivery, Vec<Action>) {
    let mut delivery = Delivery::new(config());
    let told = delivery.handle(T0, Event::Network(DaemonId(0), Some(network(1, 10))));
    let (epoch, request) = commit(&told);
    assert_eq!(request, Request::Epoch(Some(494)));
    assert!(told.contains(&Action::List), "{told:?}");
    delivery.handle(T0, made(epoch));
    let actions = delivery.handle(T0, found(channel));
    (delivery, actions)
}

/// Plays until the launch of the first boxes is asked for.
fn launch(delivery: &mut Delivery, actions: &[Action], boxes: u64) -> (CommitId, Request) {
    let (fit, request) = commit(actions);
    assert_eq!(request, Request::Fit { max_plaintext: 10 });
    let fetch = delivery.handle(T0, made(fit));
    assert!(fetch.iter().any(|action| matches!(action, Action::Fetch { channel: A, .. })), "{fetch:?}");
    let boxes = (0..boxes).map(|seq| (BoxSeq(seq), Fetched::Sealed)).collect();
    commit(&delivery.handle(T0, Event::Fetched { channel: A, boxes }))
}

#[test]
fn the_first_box_that_is_launched_goes_alone_and_on_this_network() {
    let (mut delivery, actions) = with(&channel(Role::Writer, 3));
    let (commit, request) = launch(&mut delivery, &actions, 3);
    let network = NetworkId::new([[1; 32]]);
    assert_eq!(request, Request::Launch { rewrites: 0, boxes: vec![BoxSeq(0)], network }, "sealed before, and alone");
    let refused =
        delivery.handle(T0, Event::Committed { commit, result: Ok(Done::Binding(crate::model::Binding::Refused)) });
    assert!(
        matches!(&refused[0], Action::Show(A, Shown::Trouble(Some(text))) if text.contains("another network")),
        "{refused:?}"
    );
    assert!(!refused.iter().any(|action| matches!(action, Action::Prepare { .. })));
}

/// Boxes that could not be looked up were taken for none, and the channel stood still until something touched it.
#[test]
fn what_the_store_cannot_tell_is_asked_again() {
    let (mut delivery, actions) = with(&channel(Role::Writer, 3));
    let (fit, _) = commit(&actions);
    delivery.handle(T0, made(fit));
    let none = delivery.handle(T0, Event::FetchFailed(A));
    assert!(!none.iter().any(|action| matches!(action, Action::Fetch { .. })), "not at once");
    let at = delivery.next_timeout(T0).expect("planned");
    let again = delivery.handle(at, Event::Tick);
    assert!(again.iter().any(|action| matches!(action, Action::Fetch { channel: A, .. })), "{again:?}");

    delivery.handle(at, Event::LookFailed(A));
    delivery.handle(at, Event::Listed(false));
    let (mut now, mut looked, mut listed) = (at, false, false);
    while !(looked && listed) {
        now = delivery.next_timeout(now).expect("planned").max(now);
        assert!(now < at + Duration::from_secs(1), "soon");
        let actions = delivery.handle(now, Event::Tick);
        looked |= actions.contains(&Action::Look(A));
        listed |= actions.contains(&Action::List);
    }
}

#[test]
fn a_commit_that_failed_is_tried_again_with_growing_pauses_until_nobody_needs_it() {
    let mut tail = channel(Role::Writer, 1);
    tail.tail_bytes = 10;
    let (mut delivery, _) = with(&tail);
    let due = T0 + Duration::from_secs(1);
    let (mut last, request) = commit(&delivery.handle(due, Event::Tick));
    assert_eq!(request, Request::Seal);
    let mut now = due;
    for pause in [200, 400, 800] {
        delivery.handle(now, failed(last));
        let early = delivery.handle(now + Duration::from_millis(pause - 1), Event::Tick);
        assert_eq!(commits(&early), []);
        now += Duration::from_millis(pause);
        let (again, request) = commit(&delivery.handle(now, Event::Tick));
        assert_eq!(request, Request::Seal);
        last = again;
    }
    delivery.handle(now, Event::Committed { commit: last, result: Err(CommitFailure::Needless) });
    assert_eq!(commits(&delivery.handle(now + Duration::from_secs(60), Event::Tick)), []);
}

#[test]
fn a_new_document_sets_the_pace_and_disturbs_nothing() {
    let (mut delivery, actions) = with(&channel(Role::Writer, 1));
    launch(&mut delivery, &actions, 1);
    let faster = NetworkView { pace: Pace::from_document(0.01, 0.005, 3), replica_epoch: Some(495), ..network(1, 10) };
    let told = delivery.handle(T0, Event::Network(DaemonId(0), Some(faster)));
    assert_eq!(commit(&told).1, Request::Epoch(Some(495)));
    assert!(!told.contains(&Action::List), "{told:?}");
    assert!((delivery.pace().packets_per_second() - 10.0).abs() < 1e-9);
}

#[test]
fn a_channel_that_does_not_fit_is_fitted_where_it_does_and_one_of_another_network_is_left_alone() {
    let mut unfit = channel(Role::Writer, 1);
    (unfit.fence, unfit.unfit) = (Some("it does not fit".to_owned()), Some(10));
    let (mut delivery, actions) = with(&unfit);
    assert_eq!(commit(&actions).1, Request::Fit { max_plaintext: 10 });
    unfit.unfit = Some(11);
    assert_eq!(commits(&delivery.handle(T0, found(&unfit))), []);
    let mut elsewhere = channel(Role::Writer, 1);
    elsewhere.network = Some(NetworkId::new([[2; 32]]));
    assert_eq!(commits(&delivery.handle(T0, found(&elsewhere))), []);
}

#[test]
fn what_arrives_binds_its_channel_with_the_first_box() {
    let (mut delivery, _) = with(&channel(Role::Reader, 0));
    delivery.held.insert((A, BoxSeq(0)), Arrival::Message(vec![1]));
    delivery.receiver_wants(A, ReceiverAction::Record { seq: BoxSeq(0) });
    let (first, request) = commit(&std::mem::take(&mut delivery.actions));
    assert!(matches!(request, Request::Record { bind: Some(_), .. }), "{request:?}");
    delivery.handle(T0, Event::Committed { commit: first, result: Ok(Done::Binding(crate::model::Binding::Bound)) });
    delivery.held.insert((A, BoxSeq(1)), Arrival::Message(vec![2]));
    delivery.receiver_wants(A, ReceiverAction::Record { seq: BoxSeq(1) });
    let (_, request) = commit(&std::mem::take(&mut delivery.actions));
    assert!(matches!(request, Request::Record { bind: None, .. }), "{request:?}");
}
