//! The engine as a library: programs that share a state with each other and with a mount, and the handles they use it by.

use std::time::Duration;

use pigeonfs::engine::Daemon;
use pigeonfs::engine::control::{Opening, take_for_mount};
use pigeonfs::state::{Arrival, Compress, ErrorKind, Kind, Level, Options, Outgoing, Role, Saving, State};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::engine_delivery::{World, pattern};

const PATIENCE: Option<Duration> = Some(Duration::from_secs(90));

async fn open(world: &World, name: &str) -> State {
    let Daemon::Fixed(daemon) = world.daemon() else { panic!("a network of our own") };
    State::open(Options::new(world.path(name)).daemon(daemon)).await.expect("a state")
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_go_in_by_a_writer_and_come_out_by_a_reader_that_goes_on_where_it_was() {
    let world = World::new().await;
    let (alice, bob) = (open(&world, "alice").await, open(&world, "bob").await);
    let log = alice.create("log", Kind::Stream).await.expect("made").stream().expect("a stream");
    let sent = pattern(200_000, 3);
    let mut writer = log.writer();
    writer.write_all(&sent).await.expect("taken");
    writer.flush().await.expect("on the disk");
    assert_eq!(log.status().await.expect("told").size, 200_000, "what was flushed is there");
    assert_eq!(log.wait_stored(PATIENCE).await.expect("stored").stored_bytes, 200_000);

    let capability = log.share().await.expect("shared");
    let read = bob.add("log", &capability).await.expect("added").stream().expect("a stream");
    assert_eq!(read.status().await.expect("told").role, Role::Reader);
    read.wait_bytes(200_000, PATIENCE).await.expect("arrived");
    let mut reader = read.reader();
    let mut half = vec![0; 100_000];
    reader.read_exact(&mut half).await.expect("read");
    assert_eq!((reader.position(), &half[..]), (100_000, &sent[..100_000]));
    let mut rest = Vec::new();
    read.reader().at(reader.position()).read_to_end(&mut rest).await.expect("read");
    assert!(rest == sent[100_000..], "the other half");

    // One that follows gives what comes; a read that was given up takes nothing with it.
    let mut follower = read.reader().at(200_000).follow();
    let mut piece = [0; 5];
    let vain = tokio::time::timeout(Duration::from_millis(300), follower.read_exact(&mut piece)).await;
    assert!(vain.is_err(), "nothing has come yet");
    read.follow(Duration::from_secs(60)).await.expect("followed");
    log.append("later").await.expect("accepted");
    follower.read_exact(&mut piece).await.expect("read");
    assert_eq!(&piece, b"later");
    let patient = read.reader().at(200_005).follow().timeout(Some(Duration::from_millis(200))).read(&mut piece).await;
    assert_eq!(patient.expect_err("nothing has come").kind(), std::io::ErrorKind::TimedOut);
    alice.close().await.expect("closed");
    bob.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_programs_share_a_state_and_the_second_takes_over_when_the_first_ends() {
    let world = World::new().await;
    let first = open(&world, "shared").await;
    let second = open(&world, "shared").await;
    assert_eq!((first.is_owner(), second.is_owner()), (true, false));
    let (one, other) = (
        first.create("log", Kind::Stream).await.expect("made").stream().expect("a stream"),
        second.create("log", Kind::Stream).await.expect("there, of this kind").stream().expect("a stream"),
    );
    one.append("first ").await.expect("accepted");
    other.append("second ").await.expect("accepted");
    let waiting = tokio::spawn({
        let other = other.clone();
        async move { other.reader().at(13).follow().read_u8().await }
    });
    first.close().await.expect("closed");
    assert_eq!(one.append("x").await.expect_err("it was closed").kind, ErrorKind::Interrupted);
    assert_eq!(other.append("third").await.expect("accepted"), 18);
    assert_eq!(waiting.await.expect("no panic").expect("its read went on"), b't');
    other.wait_stored(PATIENCE).await.expect("stored by the one that took over");
    assert!(second.is_owner());
    second.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_takes_the_state_from_a_program_and_gives_it_back() {
    let world = World::new().await;
    let program = open(&world, "state").await;
    let log = program.create("log", Kind::Stream).await.expect("made").stream().expect("a stream");
    let mut watch = log.watch();
    watch.next().await.expect("told");
    let follower = tokio::spawn({
        let log = log.clone();
        async move {
            let mut all = [0; 15];
            log.reader().follow().read_exact(&mut all).await.map(|_| all)
        }
    });
    log.append("alone ").await.expect("accepted");
    let mount = take_for_mount(&Opening::new(world.path("state"), world.daemon())).await.expect("taken");
    assert!(!program.is_owner());
    log.append("asked ").await.expect("accepted by the mount");
    let seen = watch.next().await.expect("told by the mount");
    assert!(seen.size >= 6, "{seen:?}");
    mount.close().await;
    drop(mount);
    log.append("own").await.expect("accepted by whoever owns it now");
    assert_eq!(&follower.await.expect("no panic").expect("read"), b"alone asked own");
    log.wait_stored(PATIENCE).await.expect("stored");
    assert!(program.is_owner());
    program.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_long_waits_hold_up_nothing_else() {
    let world = World::new().await;
    let (owner, client) = (open(&world, "shared").await, open(&world, "shared").await);
    for state in [&owner, &client] {
        let log = state.create("log", Kind::Stream).await.expect("made").stream().expect("a stream");
        let waits: Vec<_> = (0..200)
            .map(|_| {
                let mut reader = log.reader().at(1 << 40).follow();
                tokio::spawn(async move { reader.read_u8().await })
            })
            .collect();
        // Far below the 10 s after which a wait asks anew.
        let short = tokio::time::timeout(Duration::from_secs(5), async {
            for _ in 0..20 {
                log.append("x").await.expect("accepted");
                state.status().await.expect("told");
            }
        });
        short.await.expect("short requests go by the long ones");
        waits.into_iter().for_each(|wait| wait.abort());
    }
    owner.close().await.expect("closed");
    client.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_go_out_with_their_progress_and_come_in_once() {
    let world = World::new().await;
    let (alice, bob) = (open(&world, "alice").await, open(&world, "bob").await);
    let outbox = alice.create("files", Kind::Drop).await.expect("made").outbox().expect("written here");
    let (small, large) = (pattern(700, 1), pattern(60_000, 2));
    std::fs::write(world.path("report.bin"), &large).expect("written");
    let sent = Outgoing::file(world.path("report.bin")).expect("a name").directory("a/b").compress(Compress::Auto);
    let mut sent = outbox.send(sent).await.expect("accepted");
    let notes = outbox.send(Outgoing::bytes(".notes", small.clone())).await.expect("accepted");
    let mut seen = Vec::new();
    while let Some(now) = sent.progress().await.expect("on its way") {
        seen.push(now.done);
    }
    assert!(seen.is_sorted() && seen.last() == Some(&sent.status().sent_size), "{seen:?}");
    assert!(notes.stored(PATIENCE).await.expect("stored").state == "stored");
    let known: Vec<_> = outbox.files(0).await.expect("told").into_iter().map(|file| file.name).collect();
    assert_eq!(known, ["report.bin", ".notes"]);

    let inbox = bob.add("files", &outbox.share().await.expect("shared")).await.expect("added");
    let mut inbox = inbox.inbox().expect("read here");
    std::fs::create_dir(world.path("in")).expect("made");
    let Arrival::File(file) = inbox.next_ever().await.expect("arrived") else { panic!("a whole file") };
    assert_eq!((file.name(), file.size()), ("report.bin", 60_000));
    let mut bytes = Vec::new();
    file.reader().read_to_end(&mut bytes).await.expect("read");
    assert!(bytes == large);
    let path = file.save_in(world.path("in"), Saving::default()).await.expect("saved").expect("a file");
    assert_eq!(path, world.path("in/a/b/report.bin"));
    assert!(std::fs::read(&path).expect("there") == large);

    // The second is not taken: a program that begins anew has it again, and only it.
    let Arrival::File(file) = inbox.next_ever().await.expect("arrived") else { panic!("a whole file") };
    assert_eq!(file.name(), ".notes");
    drop(file);
    bob.close().await.expect("closed");
    let bob = open(&world, "bob").await;
    let mut inbox = bob.inbox("files").await.expect("there");
    let Arrival::File(file) = inbox.next_ever().await.expect("arrived") else { panic!("a whole file") };
    assert_eq!(file.name(), ".notes");
    let path = file.save_in(world.path("in"), Saving::default()).await.expect("saved").expect("a file");
    assert!(!path.file_name().expect("a name").as_encoded_bytes().starts_with(b"."), "{path:?}");
    assert!(inbox.next().await.expect("the end").is_none());
    assert!(bob.inbox("files").await.expect("there").next().await.expect("the end").is_none());
    alice.close().await.expect("closed");
    bob.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_in_words() {
    let world = World::new().await;
    let state = open(&world, "state").await;
    let refused = |error: pigeonfs::state::Error| (error.kind, error.message);
    let stream = state.create("log", Kind::Stream).await.expect("made");
    assert!(refused(stream.clone().outbox().expect_err("a stream")).1.contains("\"log\" is a stream"));
    assert!(refused(stream.clone().inbox().expect_err("a stream")).1.contains("\"log\" is a stream"));
    let taken = refused(state.create("log", Kind::Drop).await.expect_err("another kind"));
    assert_eq!(taken.0, ErrorKind::Busy, "{}", taken.1);
    let drop = state.create("files", Kind::DeletableDrop).await.expect("made");
    assert!(refused(drop.clone().stream().expect_err("a drop")).1.contains("\"files\" is a drop"));
    assert_eq!(refused(drop.inbox().expect_err("written here")).0, ErrorKind::Refused);
    for name in ["", "a/b", ".pigeonfs"] {
        let error = state.create(name, Kind::Stream).await.expect_err("no name");
        assert!(error.message.contains("name"), "{name:?}: {error}");
    }
    let missing = state.stream("missing").await.expect_err("there is none");
    assert!(missing.message.contains("missing"), "{missing}");
    let late = stream.stream().expect("a stream").read_at(1 << 40, Some(Duration::from_millis(50))).await;
    assert!(late.expect("past its end there is nothing").is_empty());
    assert!(Outgoing::file("/").is_err());
    let offline = State::open(Options::new(world.path("offline")).offline()).await.expect("a state");
    let outbox = offline.create("files", Kind::Drop).await.expect("made").outbox().expect("written here");
    let first = outbox.send(Outgoing::bytes("notes", "kept too")).await.expect("accepted");
    let again = outbox.send(Outgoing::bytes("notes", "kept too")).await.expect("accepted");
    assert_eq!((again.status().record, again.status().again), (first.status().record, true), "it is not sent twice");
    let log = offline.create("log", Kind::Stream).await.expect("made").stream().expect("a stream");
    log.append("kept").await.expect("accepted");
    let waited = log.wait_level(Level::Couriered, Some(Duration::from_millis(200))).await.expect_err("no daemon");
    assert!(matches!(waited.kind, ErrorKind::NoDaemon | ErrorKind::TimedOut), "{waited:?}");
    let closed = State::open(Options::new(world.path("nowhere")).existing()).await.expect_err("none is there");
    assert!(closed.message.contains("nowhere"), "{closed}");
    offline.close().await.expect("closed");
    state.close().await.expect("closed");
}

/// A future that was begun and is not polled holds up nobody: neither who closes, nor a mount, nor other waits.
#[tokio::test(flavor = "multi_thread")]
async fn readers_that_nobody_polls_hold_up_nothing() {
    let world = World::new().await;
    let state = open(&world, "state").await;
    let log = state.create("log", Kind::Stream).await.expect("made").stream().expect("a stream");
    let mut readers = Vec::new();
    for _ in 0..30 {
        let mut reader = log.reader().follow();
        let vain = tokio::time::timeout(Duration::from_millis(20), reader.read_u8()).await;
        assert!(vain.is_err(), "nothing has come yet");
        readers.push(reader);
    }
    log.append("x").await.expect("accepted");
    let soon = Duration::from_secs(30);
    tokio::time::timeout(soon, log.wait_stored(None)).await.expect("it has its turn").expect("stored");
    let opening = Opening::new(world.path("state"), world.daemon());
    let mount = tokio::time::timeout(soon, take_for_mount(&opening)).await.expect("no wait").expect("taken");
    log.append("y").await.expect("accepted by the mount");
    assert_eq!(readers[7].read_u8().await.expect("read"), b'x');
    mount.close().await;
    drop(mount);
    tokio::time::timeout(soon, state.close()).await.expect("no wait").expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_begins_at_the_first_byte_that_is_kept() {
    let world = World::new().await;
    let state = open(&world, "state").await;
    let log = state.create("log", Kind::Stream).await.expect("made").stream().expect("a stream");
    let sent = pattern(20_000, 5);
    log.append(&sent).await.expect("accepted");
    log.wait_stored(PATIENCE).await.expect("stored");
    let gone = usize::try_from(log.trim(5_000).await.expect("trimmed")).expect("a number");
    let (mut reader, mut kept) = (log.reader(), Vec::new());
    reader.read_to_end(&mut kept).await.expect("read");
    assert!(gone > 10_000 && kept == sent[gone..], "{gone} bytes went");
    assert_eq!(reader.position(), 20_000);
    let error = log.reader().at(0).read_u8().await.expect_err("it went");
    assert!(error.to_string().contains("no longer here"), "{error}");
    state.close().await.expect("closed");
}

/// An append by a name made a new stream of that name, which nobody has the capability of.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_appended_to_a_stream_that_was_forgotten() {
    let world = World::new().await;
    let state = open(&world, "state").await;
    let log = state.create("log", Kind::Stream).await.expect("made").stream().expect("a stream");
    (*log).clone().forget().await.expect("forgotten");
    let error = log.append("two").await.expect_err("it is gone");
    assert!(error.message.contains("no channel named \"log\""), "{error}");
    assert_eq!(state.status().await.expect("told").channels, []);
    state.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_another_program_has_taken_is_not_given_out() {
    let world = World::new().await;
    let (alice, bob) = (open(&world, "alice").await, open(&world, "bob").await);
    let outbox = alice.create("files", Kind::Drop).await.expect("made").outbox().expect("written here");
    let mut inbox =
        bob.add("files", &outbox.share().await.expect("shared")).await.expect("added").inbox().expect("ours");
    for number in 0..3 {
        outbox.send(Outgoing::bytes(format!("f{number}"), vec![number; 3000])).await.expect("accepted");
    }
    outbox.wait_stored(PATIENCE).await.expect("stored");
    let mut watch = inbox.watch();
    while watch.next().await.expect("told").files.is_none_or(|files| files.complete < 3) {}
    let Arrival::File(first) = inbox.next_ever().await.expect("arrived") else { panic!("a whole file") };
    assert_eq!(first.name(), "f0");
    let mut other = bob.inbox("files").await.expect("there");
    for expected in ["f0", "f1"] {
        let Arrival::File(file) = other.next_ever().await.expect("arrived") else { panic!("a whole file") };
        assert_eq!(file.name(), expected);
        file.taken().await.expect("taken");
    }
    let Arrival::File(third) = inbox.next_ever().await.expect("arrived") else { panic!("a whole file") };
    assert_eq!(third.name(), "f2");
    alice.close().await.expect("closed");
    bob.close().await.expect("closed");
}
