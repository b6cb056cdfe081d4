//! What others did to a channel, or another life of its own state: nothing of ours counts as stored that is not there, and
//! nothing that was taken back is published.

use std::path::Path;
use std::time::Duration;

use pigeonfs::bacap::{AnyCap, BoxIndex, Capability, WriteCap};
use pigeonfs::engine::control::{FailureKind, Request, Response};
use pigeonfs::store::{Limits, StateDir, Store};
use pigeonfs::thin::{Client, ClientOptions, Config, Missing, ReadOutcome, WriteMode};
use tokio::time::Instant;

use crate::engine_delivery::{World, append, new, pattern, read_all, share, wait};

/// A client of the network that goes by its own will, with the write capability of a channel.
struct Stranger {
    client: Client,
    cap: WriteCap,
}

impl Stranger {
    fn new(network: &Path, capability: &[u8]) -> Self {
        let config = Config::load(&network.join("thinclient.toml")).expect("its configuration");
        let text = Capability::parse(capability).expect("a capability");
        let AnyCap::Write(cap) = text.cap().clone() else { panic!("a write capability is expected") };
        Self { client: Client::start(config, ClientOptions::default()), cap }
    }

    fn index(&self, seq: u64) -> BoxIndex {
        self.cap.index().advance_to(self.cap.index().counter() + seq).expect("an index")
    }

    async fn delete(&self, seq: u64) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let made = self.client.encrypt_tombstone(&self.cap, &self.index(seq), deadline).await.expect("an envelope");
        self.client.start_write(&self.cap, &made, WriteMode::Strict, deadline).await.expect("written");
    }

    async fn read(&self, seq: u64) -> ReadOutcome {
        let deadline = Instant::now() + Duration::from_secs(60);
        let (cap, index) = (self.cap.read_cap(), self.index(seq));
        let made = self.client.encrypt_read(cap, &index, deadline).await.expect("an envelope");
        self.client.start_read(cap, &index, &made, Missing::Report, deadline).await.expect("an answer")
    }
}

/// `append` and `wait` said "stored", and the reader had 18 of 46 bytes.
#[tokio::test(flavor = "multi_thread")]
async fn somebody_elses_tombstones_ahead_of_us_are_not_our_boxes() {
    let world = World::new().await;
    let (alice, bob) = (world.link("alice").await, world.link("bob").await);
    new(&alice, "log").await;
    append(&alice, "log", b"the first message\n").await.expect("accepted");
    wait(&alice, "log", None).await.expect("stored");
    let stranger = Stranger::new(&world.path("net"), share(&alice, "log", true).await.expose());
    for seq in 1..3 {
        stranger.delete(seq).await;
    }
    append(&alice, "log", b"the second message, which nobody must lose").await.expect("nobody can know yet");
    let refused = wait(&alice, "log", None).await.expect_err("it is not there");
    assert_eq!(refused.kind, FailureKind::Refused, "{refused}");
    assert!(refused.message.contains("deleted by another writer"), "{refused}");

    // Adopted, it goes behind them, and arrives.
    let adopted = alice.request(Request::Adopt { name: "log".into(), timeout_ms: Some(90_000) }).await;
    assert!(adopted.is_ok(), "{adopted:?}");
    wait(&alice, "log", None).await.expect("stored behind the tombstones");
    crate::engine_delivery::add(&bob, "log", share(&alice, "log", false).await).await;
    let all = b"the first message\nthe second message, which nobody must lose";
    wait(&bob, "log", Some(all.len() as u64)).await.expect("arrived");
    assert_eq!(read_all(&bob, "log").await, all);
    alice.close().await;
    bob.close().await;
}

/// Empties the stream of a state, as an editor does before it writes anew.
async fn take_all_back(state: &Path) {
    let state = StateDir::lock(state).expect("nobody owns it");
    let store = Store::open(&state, Limits::default()).expect("a store");
    let id = store.channels(None, 1).expect("a channel")[0].id;
    store.truncate(id).await.expect("nothing of it has left");
    store.close();
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("a new directory");
    for entry in std::fs::read_dir(from).expect("a state") {
        let entry = entry.expect("an entry");
        if entry.file_type().expect("a type").is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
        }
    }
    std::fs::set_permissions(to, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("ours");
}

/// The boxes that were sealed before the backup was made went out together, before the first had been confirmed: the
/// network then had what its owner had taken back.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_backup_publishes_nothing_of_what_was_taken_back() {
    let mut world = World::new().await;
    world.stop_network().await;
    let alice = world.link("alice").await;
    new(&alice, "log").await;
    append(&alice, "log", &pattern(5 * 1549, 1)).await.expect("accepted with no network at hand");
    alice.close().await;
    copy(&world.path("alice"), &world.path("backup"));
    take_all_back(&world.path("alice")).await;
    world.start_network().await;

    let alice = world.link("alice").await;
    append(&alice, "log", &pattern(2 * 1549, 2)).await.expect("accepted");
    wait(&alice, "log", None).await.expect("stored");
    let stranger = Stranger::new(&world.path("net"), share(&alice, "log", true).await.expose());
    alice.close().await;

    let backup = world.link("backup").await;
    let refused = wait(&backup, "log", None).await.expect_err("its first box meets what the other life wrote");
    assert_eq!(refused.kind, FailureKind::Refused, "{refused}");
    for seq in 2..5 {
        let found = stranger.read(seq).await;
        assert!(matches!(found, ReadOutcome::NotFound), "box {seq} was published: {found:?}");
    }
    backup.close().await;
    let alice = world.link("alice").await;
    append(&alice, "log", b"more").await.expect("accepted");
    wait(&alice, "log", None).await.expect("the first life goes on");
    alice.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_says_that_all_of_the_engine_runs() {
    let world = World::new().await;
    let alice = world.link("alice").await;
    match alice.request(Request::Status { name: None }).await.expect("told") {
        Response::Status(status) => assert_eq!(status.engine_error, None),
        other => panic!("a status: {other:?}"),
    }
    alice.close().await;
}
