//! Bytes in at one owner and out at another, over the real protocol and with no mount: what must hold across
//! restarts of either side and of the network, and where two writers or two networks meet.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pigeonfs::engine::control::{Failure, FailureKind, Link, Opening, Request, Response, Secret};
use pigeonfs::engine::status::{ChannelStatus, DurabilityStatus};
use pigeonfs::engine::{Daemon, Owner, OwnerKind};
use pigeonfs::localnet::{Faults, Localnet, Options};
use pigeonfs::store::{Choices, Content, Limits};
use pigeonfs::thin::Config;
use tempfile::TempDir;

const PATIENCE_MS: u64 = 90_000;

/// A network and the states on it; all of it goes with the value.
pub(crate) struct World {
    root: TempDir,
    network: Option<Localnet>,
}

impl World {
    pub(crate) async fn new() -> Self {
        let root = tempfile::tempdir().expect("a temporary directory");
        let mut world = Self { root, network: None };
        world.start_network().await;
        world
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.root.path().join(name)
    }

    pub(crate) async fn start_network(&mut self) {
        self.network = Some(network(&self.path("net")).await);
    }

    pub(crate) async fn stop_network(&mut self) {
        if let Some(network) = self.network.take() {
            network.shutdown().await;
        }
    }

    pub(crate) fn daemon(&self) -> Daemon {
        daemon(&self.path("net"))
    }

    pub(crate) async fn link(&self, state: &str) -> Link {
        let opening = Opening::new(self.path(state), self.daemon());
        Link::open(opening).await.expect("a state that nobody owns")
    }
}

async fn network(state: &Path) -> Localnet {
    Localnet::start(Options::new(state)).await.expect("a network of our own")
}

fn daemon(state: &Path) -> Daemon {
    Daemon::Fixed(Config::load(&state.join("thinclient.toml")).expect("localnet writes its configuration"))
}

pub(crate) fn pattern(bytes: usize, salt: u64) -> Vec<u8> {
    (0..bytes as u64).map(|at| (at.wrapping_mul(2_654_435_761).wrapping_add(salt) >> 7) as u8).collect()
}

pub(crate) async fn append(link: &Link, name: &str, bytes: &[u8]) -> Result<(), Failure> {
    for chunk in bytes.chunks(100_000) {
        link.request(Request::Append { name: name.into(), bytes: chunk.to_vec(), making: false }).await?;
    }
    Ok(())
}

pub(crate) async fn wait(link: &Link, name: &str, bytes: Option<u64>) -> Result<ChannelStatus, Failure> {
    let request =
        Request::Wait { name: name.into(), bytes, timeout_ms: Some(PATIENCE_MS), level: DurabilityStatus::Stored };
    match link.request(request).await? {
        Response::Channel(status) => Ok(status),
        other => panic!("a wait is answered with the channel: {other:?}"),
    }
}

pub(crate) async fn share(link: &Link, name: &str, write: bool) -> Secret {
    match link.request(Request::Share { name: name.into(), write, from_here: false }).await.expect("shared") {
        Response::Capability(text) => text,
        other => panic!("a capability: {other:?}"),
    }
}

pub(crate) async fn read_all(link: &Link, name: &str) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let offset = all.len() as u64;
        let request = Request::Read { name: name.into(), offset, follow_ms: 0, timeout_ms: PATIENCE_MS };
        match link.request(request).await.expect("readable") {
            Response::Bytes { bytes, end: false } => all.extend(bytes),
            Response::Bytes { end: true, .. } => return all,
            other => panic!("bytes: {other:?}"),
        }
    }
}

pub(crate) async fn new(link: &Link, name: &str) {
    let request = Request::New { name: name.into(), durability: DurabilityStatus::Stored, content: Content::Stream };
    link.request(request).await.expect("a free name");
}

pub(crate) async fn add(link: &Link, name: &str, capability: Secret) {
    link.request(Request::Add {
        name: name.into(),
        capability,
        content: Content::Stream,
        strict_network: false,
        kept_until: None,
    })
    .await
    .expect("a capability that was shared");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_state_appends_another_reads() {
    let world = World::new().await;
    let (alice, bob) = (world.link("alice").await, world.link("bob").await);
    for (name, bytes) in [("none", 0), ("one", 1), ("under", 1548), ("even", 1549), ("over", 1550), ("many", 300_000)] {
        new(&alice, name).await;
        let sent = pattern(bytes, 7);
        append(&alice, name, &sent).await.expect("accepted");
        let stored = wait(&alice, name, None).await.expect("stored");
        assert_eq!((stored.size, stored.stored_bytes), (bytes as u64, bytes as u64), "{name}");
        add(&bob, name, share(&alice, name, false).await).await;
        wait(&bob, name, Some(bytes as u64)).await.expect("arrived");
        assert!(read_all(&bob, name).await == sent, "{name}: other bytes");
    }
    alice.close().await;
    bob.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verb_that_reads_alone_trusts_no_end_that_an_earlier_run_found() {
    let world = World::new().await;
    let (alice, bob) = (world.link("alice").await, world.link("bob").await);
    new(&alice, "log").await;
    add(&bob, "log", share(&alice, "log", false).await).await;
    assert!(read_all(&bob, "log").await.is_empty(), "the end of a stream that has nothing yet");
    bob.close().await;
    append(&alice, "log", b"since then").await.expect("accepted");
    wait(&alice, "log", None).await.expect("stored");
    let bob = world.link("bob").await;
    assert_eq!(read_all(&bob, "log").await, b"since then");
    alice.close().await;
    bob.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_writer_and_of_the_network_loses_and_doubles_nothing() {
    let mut world = World::new().await;
    let sent = pattern(400_000, 3);
    let alice = world.link("alice").await;
    new(&alice, "log").await;
    append(&alice, "log", &sent[..150_000]).await.expect("accepted");
    alice.close().await;
    let alice = world.link("alice").await;
    append(&alice, "log", &sent[150_000..300_000]).await.expect("accepted");
    world.stop_network().await;
    append(&alice, "log", &sent[300_000..]).await.expect("accepted with no network at hand");
    world.start_network().await;
    wait(&alice, "log", None).await.expect("stored by the network that came back");
    let bob = world.link("bob").await;
    add(&bob, "log", share(&alice, "log", false).await).await;
    wait(&bob, "log", Some(400_000)).await.expect("arrived");
    assert!(read_all(&bob, "log").await == sent);
    alice.close().await;
    bob.close().await;
}

/// Found by the simulation of the engine: such a channel's boxes were launched with the length that is assumed before a
/// network is known, and one that was too long fenced it for good.
#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_was_made_while_the_daemon_was_away_fits_the_network_that_comes_back() {
    let mut world = World { root: tempfile::tempdir().expect("a temporary directory"), network: None };
    let mut options = Options::new(world.path("net"));
    options.settings.max_plaintext = Some(500);
    world.network = Some(Localnet::start(options).await.expect("a network of small boxes"));
    let alice = world.link("alice").await;
    new(&alice, "before").await;
    append(&alice, "before", b"the network was seen").await.expect("accepted");
    wait(&alice, "before", None).await.expect("stored");
    world.stop_network().await;
    new(&alice, "log").await;
    append(&alice, "log", &pattern(3000, 5)).await.expect("accepted with no network at hand");
    world.start_network().await;
    let stored = wait(&alice, "log", None).await.expect("stored in boxes of the network's length");
    assert_eq!((stored.boxes, stored.fenced), (6, None));
    alice.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_writer_is_met_with_a_fence_and_keeps_its_bytes() {
    let world = World::new().await;
    let (alice, mallory) = (world.link("alice").await, world.link("mallory").await);
    new(&alice, "log").await;
    let capability = share(&alice, "log", true).await;
    add(&mallory, "log", capability).await;
    append(&alice, "log", b"the first word").await.expect("accepted");
    wait(&alice, "log", None).await.expect("stored");
    append(&mallory, "log", b"another word").await.expect("accepted: nobody can know yet");
    let fenced = wait(&mallory, "log", None).await.expect_err("the index holds other bytes");
    assert_eq!(fenced.kind, FailureKind::Refused, "{fenced}");
    assert!(fenced.message.contains("another writer"), "{fenced}");
    let refused = append(&mallory, "log", b"more").await.expect_err("fenced");
    assert_eq!(refused.kind, FailureKind::Refused, "{refused}");
    assert_eq!(read_all(&mallory, "log").await, b"another word", "the bytes stay");
    alice.close().await;
    mallory.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_bytes_by_a_copied_state_are_no_conflict() {
    let world = World::new().await;
    let (alice, twin) = (world.link("alice").await, world.link("twin").await);
    new(&alice, "log").await;
    add(&twin, "log", share(&alice, "log", true).await).await;
    for link in [&alice, &twin] {
        append(link, "log", b"the same word").await.expect("accepted");
        wait(link, "log", None).await.expect("stored, or found to be stored");
    }
    alice.close().await;
    twin.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_of_another_network_is_refused_in_words() {
    let world = World::new().await;
    let alice = world.link("alice").await;
    new(&alice, "log").await;
    append(&alice, "log", b"here").await.expect("accepted");
    wait(&alice, "log", None).await.expect("stored");
    alice.close().await;
    let elsewhere = network(&world.path("elsewhere")).await;
    let opening = Opening::new(world.path("alice"), daemon(&world.path("elsewhere")));
    let alice = Link::open(opening).await.expect("the state is free");
    // Whether the daemon was met before the append decides who refuses first; the wait always does.
    let _ = append(&alice, "log", b"there").await;
    let refused = wait(&alice, "log", Some(1)).await.err();
    assert!(refused.is_some(), "--bytes is for readers");
    let refused = loop {
        match wait(&alice, "log", None).await {
            // All of it was stored in the other life and nothing was appended: ask again with something to send.
            Ok(_) => drop(append(&alice, "log", b"there").await),
            Err(failure) => break failure,
        }
    };
    assert_eq!(refused.kind, FailureKind::Refused, "{refused}");
    assert!(refused.message.contains("another network"), "{refused}");
    alice.close().await;
    elsewhere.shutdown().await;
}

/// The session put again what was unanswered as soon as a daemon answered at its address, whichever that was.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_under_way_does_not_go_to_a_daemon_of_another_network() {
    let mut world = World::new().await;
    let alice = world.link("alice").await;
    new(&alice, "log").await;
    append(&alice, "log", b"here").await.expect("accepted");
    wait(&alice, "log", None).await.expect("stored");
    let console = |world: &World| world.network.as_ref().expect("it runs").console().clone();
    let loss = Faults { loss: 1.0, ..Faults::default() };
    console(&world).set_faults(&loss).await.expect("set");
    let before = console(&world).stats().await.expect("counted").lost;
    let rest = pattern(20_000, 6);
    append(&alice, "log", &rest).await.expect("accepted");
    while console(&world).stats().await.expect("counted").lost == before {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The daemon ends, and one of another network starts at the same address.
    world.stop_network().await;
    std::fs::rename(world.path("net"), world.path("net-before")).expect("moved");
    world.start_network().await;
    let refused = loop {
        if let Err(failure) = wait(&alice, "log", None).await {
            break failure;
        }
    };
    assert!(refused.message.contains("another network"), "{refused}");
    let packets = console(&world).stats().await.expect("counted").packets;
    assert_eq!((packets.strict_write, packets.write, packets.read), (0, 0, 0));
    // And back: nothing was lost.
    world.stop_network().await;
    std::fs::rename(world.path("net"), world.path("net-other")).expect("moved");
    std::fs::rename(world.path("net-before"), world.path("net")).expect("moved back");
    world.start_network().await;
    // Until the daemon is met, what was said of the other one stands.
    while let Err(failure) = wait(&alice, "log", None).await {
        assert!(failure.message.contains("another network"), "{failure}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let bob = world.link("bob").await;
    add(&bob, "log", share(&alice, "log", false).await).await;
    assert!(read_all(&bob, "log").await == [b"here", &rest[..]].concat());
    alice.close().await;
    bob.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_that_comes_takes_the_state_over_from_a_verb_in_the_middle_of_its_wait() {
    let world = World::new().await;
    let alice = world.link("alice").await;
    new(&alice, "log").await;
    let bob = world.link("bob").await;
    add(&bob, "log", share(&alice, "log", false).await).await;
    assert!(bob.is_owner());
    let waiting = tokio::spawn(async move {
        let arrived = wait(&bob, "log", Some(5)).await;
        (arrived, bob)
    });
    let opening = Opening::new(world.path("bob"), world.daemon());
    let mount: Arc<Owner> =
        tokio::time::timeout(Duration::from_secs(30), pigeonfs::engine::control::take_for_mount(&opening))
            .await
            .expect("the verb yields")
            .expect("the state is free then");
    append(&alice, "log", b"hello").await.expect("accepted");
    let (arrived, bob) = waiting.await.expect("the verb goes on");
    assert_eq!(arrived.expect("served by the mount").size, 5);
    assert!(!bob.is_owner(), "it became a client");
    let second = pigeonfs::engine::control::take_for_mount(&opening).await.err().expect("one mount at a time");
    assert_eq!(second.kind, FailureKind::Busy, "{second}");
    bob.close().await;
    mount.close().await;
    alice.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_daemon_bytes_are_accepted_and_a_wait_says_what_is_missing() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let config = root.path().join("thinclient.toml");
    let nowhere = root.path().join("nobody.sock");
    std::fs::write(&config, format!("[Dial]\n[Dial.Unix]\nAddress = {nowhere:?}\n")).expect("written");
    let daemon = Daemon::Fixed(Config::load(&config).expect("a sound configuration"));
    let owner = Owner::open(&root.path().join("state"), daemon.clone(), OwnerKind::Verb).expect("a fresh state");
    owner.close().await;
    let link = Link::open(Opening::new(root.path().join("state"), daemon)).await.expect("free again");
    new(&link, "log").await;
    append(&link, "log", b"store and forward").await.expect("accepted");
    let request =
        Request::Wait { name: "log".into(), bytes: None, timeout_ms: Some(300), level: DurabilityStatus::Stored };
    let failure = link.request(request).await.expect_err("nobody is there");
    assert_eq!(failure.kind, FailureKind::NoDaemon, "{failure}");
    assert!(failure.message.contains("nobody.sock") && failure.message.contains("0 of 17 bytes"), "{failure}");
    link.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_whose_cache_is_full_pauses_and_goes_on_when_it_is_trimmed() {
    let world = World::new().await;
    let alice = world.link("alice").await;
    new(&alice, "flood").await;
    let sent = pattern(600_000, 3);
    append(&alice, "flood", &sent).await.expect("accepted");
    let cap = share(&alice, "flood", false).await;
    wait(&alice, "flood", None).await.expect("stored");

    let mut opening = Opening::new(world.path("bob"), world.daemon());
    // What may still be under way when the limit is reached: less than this.
    let window_bytes = 60 * 1549;
    let limits = Limits { cache_channel_bytes: 2 * window_bytes, ..Limits::default() };
    opening.choices = Some(Choices { limits, ..Choices::default() });
    let bob = Link::open(opening).await.expect("a fresh state");
    add(&bob, "flood", cap).await;
    let mut got = Vec::new();
    let mut pauses = 0;
    while got.len() < sent.len() {
        let request = Request::Wait {
            name: "flood".into(),
            bytes: Some(got.len() as u64 + 1),
            timeout_ms: Some(PATIENCE_MS),
            level: DurabilityStatus::Stored,
        };
        bob.request(request).await.expect("it goes on");
        let request =
            Request::Read { name: "flood".into(), offset: got.len() as u64, follow_ms: 0, timeout_ms: PATIENCE_MS };
        let Response::Bytes { bytes, .. } = bob.request(request).await.expect("readable") else { panic!("bytes") };
        got.extend(bytes);
        let Response::Channel(status) =
            bob.request(Request::Status { name: Some("flood".into()) }).await.expect("told")
        else {
            panic!("one channel")
        };
        assert!(status.size - status.dropped_bytes < 3 * window_bytes, "{status:?}");
        if status.paused {
            pauses += 1;
            bob.request(Request::Trim { name: "flood".into(), keep_bytes: window_bytes }).await.expect("room");
        }
    }
    assert!(got == sent, "the same bytes");
    assert!(pauses > 0);
    bob.close().await;
    alice.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_courier_has_is_confirmed_afterwards_and_arrives() {
    let world = World::new().await;
    let (alice, bob) = (world.link("alice").await, world.link("bob").await);
    let new = Request::New { name: "log".into(), durability: DurabilityStatus::Couriered, content: Content::Stream };
    alice.request(new).await.expect("a free name");
    let sent = pattern(40_000, 3);
    append(&alice, "log", &sent).await.expect("accepted");
    let (name, timeout_ms) = ("log".to_owned(), Some(PATIENCE_MS));
    let wait_for = Request::Wait { name, bytes: None, timeout_ms, level: DurabilityStatus::Couriered };
    let Response::Channel(told) = alice.request(wait_for).await.expect("couriers have it") else { panic!("a channel") };
    assert_eq!((told.durability, told.queued_boxes), (Some(DurabilityStatus::Couriered), 0));
    let told = wait(&alice, "log", None).await.expect("replicas have it");
    assert_eq!((told.stored_bytes, told.couriered_boxes, told.couriered_bytes), (40_000, 0, 0));
    add(&bob, "log", share(&alice, "log", false).await).await;
    wait(&bob, "log", Some(40_000)).await.expect("arrived");
    assert!(read_all(&bob, "log").await == sent);
    alice.close().await;
    bob.close().await;
}
