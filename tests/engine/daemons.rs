//! One state and several daemons of a network: they share the work, one that dies costs its share and no byte, and one of
//! another network is not used.

use std::path::Path;
use std::time::{Duration, Instant};

use pigeonfs::channel::Linger;
use pigeonfs::engine::Daemon;
use pigeonfs::engine::control::{Link, Opening, Request, Response};
use pigeonfs::engine::status::{DaemonStatus, LinkStatus, Status};
use pigeonfs::localnet::{Command, Localnet, Options, Profile};
use pigeonfs::store::Choices;

use crate::engine_delivery::{add, append, new, pattern, read_all, share, wait};

const BOX: usize = 1549;

/// A network like upstream's docker, forty times as fast.
async fn network(state: &Path, daemons: usize) -> Localnet {
    let mut options = Options::new(state);
    options.settings.daemons = daemons;
    options.settings.profile = Profile::docker().scaled(40.0);
    Localnet::start(options).await.expect("a network of our own")
}

async fn link(state: &Path, daemon: Daemon) -> Link {
    let linger = Linger { after_last: Duration::ZERO, after_creation: Duration::ZERO, ..Linger::default() };
    let choices = Some(Choices { linger, ..Choices::default() });
    Link::open(Opening { choices, ..Opening::new(state.to_owned(), daemon) }).await.expect("a state that nobody owns")
}

async fn status(link: &Link) -> Status {
    match link.request(Request::Status { name: None }).await.expect("a status") {
        Response::Status(status) => status,
        other => panic!("a status: {other:?}"),
    }
}

/// Looks until the daemons stand so.
async fn daemons(link: &Link, expected: &[LinkStatus]) -> Vec<DaemonStatus> {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let daemons = status(link).await.daemons;
        if daemons.iter().map(|daemon| daemon.link).eq(expected.iter().copied()) {
            return daemons;
        }
        assert!(Instant::now() < until, "{expected:?} is not {daemons:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Looks until so many boxes of the only channel are stored.
async fn stored(link: &Link, boxes: u64) {
    while status(link).await.channels[0].stored_boxes < boxes {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// How long it takes to send so many boxes, once the first one of the life has gone.
async fn took(link: &Link, name: &str, boxes: usize) -> Duration {
    new(link, name).await;
    append(link, name, &pattern(BOX, 1)).await.expect("accepted");
    wait(link, name, None).await.expect("stored");
    let began = Instant::now();
    append(link, name, &pattern(boxes * BOX, 2)).await.expect("accepted");
    wait(link, name, None).await.expect("stored");
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_daemons_send_faster_than_one_and_both_are_told_of() {
    let root = tempfile::tempdir().expect("a directory");
    let network = network(&root.path().join("net"), 2).await;
    let one = link(&root.path().join("one"), Daemon::Fixed(network.config())).await;
    let alone = took(&one, "log", 120).await;
    let told = status(&one).await;
    assert!(told.daemons.is_empty() && told.daemon.link == LinkStatus::Connected, "{told:?}");
    one.close().await;

    let both = link(&root.path().join("both"), Daemon::Several(network.configs())).await;
    let connected = daemons(&both, &[LinkStatus::Connected; 2]).await;
    let addresses: Vec<_> = connected.iter().map(|daemon| daemon.address.clone().expect("an address")).collect();
    assert_eq!(addresses, network.configs().iter().map(|config| config.dial.to_string()).collect::<Vec<_>>());
    let together = took(&both, "log", 120).await;
    assert!(together < alone.mul_f64(0.75), "{together:?} by two, {alone:?} by one");
    let told = status(&both).await;
    assert_eq!(told.daemon.address, told.daemons[0].address);
    let windows: u64 = told.daemons.iter().filter_map(|daemon| daemon.window_boxes).sum();
    assert_eq!(told.daemon.window_boxes, Some(windows), "together as many as each");
    both.close().await;
    network.shutdown().await;
}

/// A machine has two daemons, and one of them crashes in the middle of a file, for good; then it is started again.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_daemon_had_under_way_that_dies_goes_by_the_other() {
    let root = tempfile::tempdir().expect("a directory");
    let network = network(&root.path().join("net"), 2).await;
    let alice = link(&root.path().join("alice"), Daemon::Several(network.configs())).await;
    let bob = link(&root.path().join("bob"), Daemon::Several(network.configs())).await;
    daemons(&alice, &[LinkStatus::Connected; 2]).await;
    let sent = pattern(150 * BOX, 3);
    new(&alice, "log").await;
    add(&bob, "log", share(&alice, "log", false).await).await;
    append(&alice, "log", &sent).await.expect("accepted");
    stored(&alice, 40).await;
    network.console().tell(Command::Stop { daemon: 2 }).await.expect("told");
    daemons(&alice, &[LinkStatus::Connected, LinkStatus::NoDaemon]).await;
    let told = status(&alice).await;
    assert_eq!((told.daemon.link, told.daemon.error), (LinkStatus::Connected, None), "the network can be used");
    // Less than what an operation may take before it is given up by itself.
    let all = tokio::time::timeout(Duration::from_secs(100), wait(&alice, "log", None)).await;
    assert_eq!(all.expect("in time").expect("stored").stored_bytes, sent.len() as u64);
    wait(&bob, "log", Some(sent.len() as u64)).await.expect("arrived");
    assert!(read_all(&bob, "log").await == sent, "other bytes");

    network.console().tell(Command::Start { daemon: 2 }).await.expect("told");
    daemons(&alice, &[LinkStatus::Connected; 2]).await;
    network.console().tell(Command::Stop { daemon: 1 }).await.expect("told");
    daemons(&alice, &[LinkStatus::NoDaemon, LinkStatus::Connected]).await;
    let told = status(&alice).await;
    assert_eq!(told.daemon.address, told.daemons[1].address, "the first that is connected");
    append(&alice, "log", b"by the second one alone").await.expect("accepted");
    wait(&alice, "log", None).await.expect("stored");
    alice.close().await;
    bob.close().await;
    network.shutdown().await;
}

/// One daemon stays connected, and none of its packets leaves any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_hangs_holds_nothing_up_for_long() {
    let root = tempfile::tempdir().expect("a directory");
    let network = network(&root.path().join("net"), 2).await;
    let alice = link(&root.path().join("alice"), Daemon::Several(network.configs())).await;
    daemons(&alice, &[LinkStatus::Connected; 2]).await;
    new(&alice, "log").await;
    append(&alice, "log", &pattern(100 * BOX, 3)).await.expect("accepted");
    stored(&alice, 20).await;
    network.console().tell(Command::Slow { daemon: 1, times: 1e9 }).await.expect("told");
    let all = tokio::time::timeout(Duration::from_secs(60), wait(&alice, "log", None)).await;
    all.expect("an operation lives for longer").expect("stored");
    daemons(&alice, &[LinkStatus::Connected; 2]).await;
    alice.close().await;
    network.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_of_another_network_is_not_used_beside_the_first() {
    let root = tempfile::tempdir().expect("a directory");
    let (ours, other) = (network(&root.path().join("ours"), 1).await, network(&root.path().join("other"), 1).await);
    let alice = link(&root.path().join("alice"), Daemon::Fixed(ours.config())).await;
    new(&alice, "log").await;
    append(&alice, "log", &pattern(BOX, 1)).await.expect("accepted");
    wait(&alice, "log", None).await.expect("stored, and bound to its network");
    alice.close().await;

    let several = Daemon::Several(vec![ours.config(), other.config()]);
    let alice = link(&root.path().join("alice"), several).await;
    let told = daemons(&alice, &[LinkStatus::Connected, LinkStatus::Refused]).await;
    let why = told[1].error.as_deref().expect("it says why");
    assert!(why.contains("of another network than the first"), "{why}");
    append(&alice, "log", &pattern(20 * BOX, 2)).await.expect("accepted");
    wait(&alice, "log", None).await.expect("stored by the one");
    let reached = other.console().stats().await.expect("it runs").packets;
    assert_eq!((reached.write, reached.strict_write, reached.read), (0, 0, 0), "nothing went there");

    // While the first one is away, what is written waits: nothing goes to the other network, of a new channel neither.
    ours.console().tell(Command::Stop { daemon: 1 }).await.expect("told");
    daemons(&alice, &[LinkStatus::NoDaemon, LinkStatus::Refused]).await;
    append(&alice, "log", b"kept").await.expect("accepted");
    new(&alice, "another").await;
    append(&alice, "another", b"kept too").await.expect("accepted");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let reached = other.console().stats().await.expect("it runs").packets;
    assert_eq!((reached.write, reached.strict_write, reached.read), (0, 0, 0), "nothing went there");
    ours.console().tell(Command::Start { daemon: 1 }).await.expect("told");
    daemons(&alice, &[LinkStatus::Connected, LinkStatus::Refused]).await;
    wait(&alice, "another", None).await.expect("stored by the first");
    append(&alice, "log", b"here").await.expect("accepted");
    wait(&alice, "log", None).await.expect("stored by its own network");
    alice.close().await;
    ours.shutdown().await;
    other.shutdown().await;
}
