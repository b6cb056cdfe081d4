//! Files in at one owner and out at another, over the real protocol and with no mount or verb between: what must hold
//! across restarts of either side, for parts and for compressed bodies.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pigeonfs::bacap::WriteCap;
use pigeonfs::drop::{Header, Part, Raw, Total, chain, pack};
use pigeonfs::engine::drops::{DropError, Drops};
use pigeonfs::engine::{Daemon, Owner, OwnerKind};
use pigeonfs::localnet::{Faults, Localnet, Options};
use pigeonfs::store::{ChannelId, ChannelName, Content, DropRecord, RecordId, RecordState, StoreError};
use pigeonfs::thin::Config;
use tempfile::TempDir;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(120);

struct World {
    root: TempDir,
    network: Localnet,
    cap: WriteCap,
}

impl World {
    async fn new(seed: u8) -> Self {
        let root = tempfile::tempdir().expect("a temporary directory");
        let network = Localnet::start(Options::new(root.path().join("net"))).await.expect("a network of our own");
        Self { root, network, cap: WriteCap::from_seed(&[seed; 32]) }
    }

    fn owner(&self, state: &str) -> Arc<Owner> {
        let config = Config::load(&self.root.path().join("net/thinclient.toml")).expect("its configuration");
        Owner::open(&self.root.path().join(state), Daemon::Fixed(config), OwnerKind::Mount).expect("a state")
    }

    async fn writer(&self, allow_delete: bool) -> (Arc<Owner>, ChannelId) {
        let owner = self.owner("writer");
        let content = Content::Drop { allow_delete };
        let id = owner.store().create(name("box"), self.cap.clone(), content).await.expect("made");
        (owner, id)
    }

    async fn reader(&self) -> (Arc<Owner>, ChannelId) {
        let owner = self.owner("reader");
        let content = Content::Drop { allow_delete: false };
        let id = owner.store().add(name("box"), self.cap.read_cap().clone(), content).await.expect("added");
        (owner, id)
    }

    async fn end(self, owners: impl IntoIterator<Item = Arc<Owner>>) {
        for owner in owners {
            owner.close().await;
        }
        self.network.shutdown().await;
    }
}

fn name(text: &str) -> ChannelName {
    ChannelName::parse(text).expect("a name")
}

fn pattern(bytes: usize, salt: u64) -> Vec<u8> {
    (0..bytes as u64).map(|at| (at.wrapping_mul(2_654_435_761).wrapping_add(salt) >> 7) as u8).collect()
}

fn header(name: &str, body: &[u8]) -> Header {
    let digest = Some(*blake3::hash(body).as_bytes());
    Header { name: name.to_owned(), size: body.len() as u64, digest, ..Header::default() }
}

/// Stages bytes and hands them over.
async fn send(owner: &Owner, id: ChannelId, header: Header, body: &[u8]) -> RecordId {
    let drops = owner.engine().drops();
    let staged = stage(drops, &header.name, body);
    drops.accept(id, header, Some(&staged)).expect("staged").await.expect("accepted")
}

fn stage(drops: &Drops, name: &str, body: &[u8]) -> PathBuf {
    let path = drops.incoming().expect("a directory").join(name);
    // Locked, as whoever stages there does it: what is not is swept.
    let file = std::fs::File::create(&path).expect("a file");
    file.lock().expect("locked");
    std::fs::write(&path, body).expect("written");
    std::mem::forget(file);
    path
}

/// Waits until the channel is as it should be.
async fn until<T>(owner: &Owner, id: ChannelId, mut look: impl FnMut() -> Option<T>) -> T {
    let mut changes = owner.store().changes().watch(id);
    let looking = async {
        loop {
            changes.mark_unchanged();
            if let Some(found) = look() {
                return found;
            }
            changes.changed().await.expect("an open store");
        }
    };
    match timeout(PATIENCE, looking).await {
        Ok(found) => found,
        Err(_) => {
            let (records, notes) = (owner.store().records(id, None, 100), owner.engine().notes(id));
            panic!("not within {PATIENCE:?}: {records:?} {notes:?}")
        }
    }
}

fn files(owner: &Owner, id: ChannelId) -> Vec<DropRecord> {
    let records = owner.store().records(id, None, 1000).expect("records");
    records.into_iter().filter(|record| record.part.is_none_or(|(_, part)| part == 0)).collect()
}

async fn complete(owner: &Owner, id: ChannelId, count: usize) -> Vec<DropRecord> {
    until(owner, id, || {
        let files = files(owner, id);
        let done = files.iter().filter(|record| record.state == RecordState::Complete).count();
        (done == count).then_some(files)
    })
    .await
}

fn contents(owner: &Owner, record: &DropRecord) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let more = owner.engine().drops().read(record, bytes.len() as u64, 100_000).expect("readable");
        if more.is_empty() {
            return bytes;
        }
        bytes.extend(more);
    }
}

fn staged_files(owner: &Owner) -> Vec<PathBuf> {
    let list = |path: &Path| std::fs::read_dir(path).expect("a directory").map(|entry| entry.expect("one").path());
    list(&owner.engine().drops().incoming().expect("a directory")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_all_sizes_arrive_whole_and_their_staged_bytes_go() {
    let world = World::new(1).await;
    let (writer, outbox) = world.writer(false).await;
    let head = header("under", &[]).encode(1549).expect("a header").len() + 16 + 6;
    let sizes = [0, 1, 1549 - head - 4, 1549, 4 * 1549 - head, 300_000];
    let mut sent = Vec::new();
    for (at, size) in sizes.into_iter().enumerate() {
        let body = pattern(size, at as u64);
        let header = Header { path: "a dir/ü".to_owned(), ..header(&format!("file {at}"), &body) };
        let record = send(&writer, outbox, header, &body).await;
        let told = writer.store().drop_record(outbox, record).expect("asked").expect("there");
        assert!(contents(&writer, &told) == body, "it can be read back at once");
        sent.push(body);
    }
    let (reader, inbox) = world.reader().await;
    let arrived = complete(&reader, inbox, sizes.len()).await;
    for (at, (record, body)) in arrived.iter().zip(&sent).enumerate() {
        assert_eq!((record.name.as_str(), record.size), (format!("file {at}").as_str(), body.len() as u64));
        assert_eq!(record.header.as_ref().expect("a header").path, "a dir/ü");
        assert!(contents(&reader, record) == *body, "file {at}");
        assert_eq!(reader.engine().drops().read(record, 100, 7).expect("readable"), body.get(100..107).unwrap_or(&[]));
    }
    until(&writer, outbox, || {
        let files = files(&writer, outbox);
        files.iter().all(|record| record.stored && record.staging.is_none()).then_some(())
    })
    .await;
    assert_eq!(staged_files(&writer), Vec::<PathBuf>::new());
    for (record, body) in files(&writer, outbox).iter().zip(&sent) {
        assert!(contents(&writer, record) == *body, "it can be read back from its boxes");
    }
    world.end([writer, reader]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn either_side_may_stop_anywhere_and_go_on() {
    let world = World::new(2).await;
    let body = pattern(400_000, 9);
    let (mut writer, outbox) = world.writer(true).await;
    send(&writer, outbox, header("big", &body), &body).await;
    send(&writer, outbox, header("small", b"yes"), b"yes").await;
    let (mut reader, inbox) = world.reader().await;
    for share in [1, 2, 3] {
        // A quarter of the way on, both are closed and opened again.
        until(&reader, inbox, || {
            let arriving = reader.store().arriving(inbox).expect("asked");
            let enough = |record: &DropRecord| record.taken >= share * 100_000;
            let over = !files(&reader, inbox).is_empty() && arriving.is_none();
            (over || arriving.as_ref().is_some_and(enough)).then_some(())
        })
        .await;
        reader.close().await;
        writer.close().await;
        (writer, reader) = (world.owner("writer"), world.owner("reader"));
    }
    let arrived = complete(&reader, inbox, 2).await;
    assert!(contents(&reader, &arrived[0]) == body);
    assert_eq!(contents(&reader, &arrived[1]), b"yes");
    world.end([writer, reader]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_become_a_file_when_all_are_there_and_a_compressed_body_is_unpacked() {
    let world = World::new(3).await;
    let (writer, outbox) = world.writer(false).await;
    let whole = pattern(250_000, 5);
    let total = Total { size: whole.len() as u64, digest: *blake3::hash(&whole).as_bytes() };
    let parts: Vec<(Header, &[u8])> = (1..)
        .zip(whole.chunks(100_000))
        .map(|(number, body)| {
            let last = (number == 3).then_some(total);
            let part = Some(Part { chain: [7; 16], number, last });
            (Header { part, ..header(&chain::part_name("all.bin", number), body) }, body)
        })
        .collect();
    // The second part is lost on its way at first: it comes at the end, as a repair.
    for at in [0, 2] {
        send(&writer, outbox, parts[at].0.clone(), parts[at].1).await;
    }
    let text = b"the same again and again, ".repeat(10_000);
    let mut frame = Vec::new();
    let packed = pack(&mut &text[..], &mut frame).expect("packed");
    let raw = Some(Raw { name: None, size: packed.raw_size });
    send(&writer, outbox, Header { raw, ..header("text.txt.zst", &frame) }, &frame).await;
    // A bomb, and a frame that is none.
    let lie = Some(Raw { name: None, size: 1000 });
    send(&writer, outbox, Header { raw: lie.clone(), ..header("bomb.zst", &frame) }, &frame).await;
    let short = Some(Raw { name: None, size: text.len() as u64 + 1 });
    send(&writer, outbox, Header { raw: short, ..header("short.zst", &frame) }, &frame).await;

    let (reader, inbox) = world.reader().await;
    let arrived = complete(&reader, inbox, 3).await;
    assert_eq!((arrived[0].name.as_str(), Drops::size(&arrived[0])), ("text.txt", text.len() as u64));
    assert!(contents(&reader, &arrived[0]) == text);
    // Wherever it is read, in any order and by many at once.
    let drops = reader.engine().drops().clone();
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let (drops, arrived, text) = (&drops, &arrived[0], &text);
            scope.spawn(move || {
                for n in 0..20 {
                    let at = (thread * 77_777 + n * 31_337) % text.len();
                    let read = drops.read(arrived, at as u64, 5000).expect("read");
                    assert!(read == text[at..text.len().min(at + 5000)], "at {at}");
                }
            });
        }
    });
    assert_eq!(drops.read(&arrived[0], text.len() as u64, 10).expect("read"), b"");
    let cached = reader.store().usage().expect("asked").cache_bytes;
    assert!(cached < text.len() as u64, "what is unpacked takes no room: {cached}");
    for (bad, at) in arrived[1..].iter().zip([0, text.len() as u64 - 10]) {
        let error = drops.read(bad, at, 11).expect_err("a lie");
        assert!(matches!(error, DropError::Unpack(_)) && error.broken().is_some(), "{error}");
    }
    let open = reader.store().open_chains(inbox, 9).expect("asked");
    assert_eq!(open.iter().map(|record| record.name.as_str()).collect::<Vec<_>>(), ["all.bin"]);

    send(&writer, outbox, parts[1].0.clone(), parts[1].1).await;
    let arrived = complete(&reader, inbox, 4).await;
    assert_eq!((arrived[3].name.as_str(), arrived[3].size), ("all.bin", whole.len() as u64));
    assert!(contents(&reader, &arrived[3]) == whole);
    assert!(reader.store().open_chains(inbox, 9).expect("asked").is_empty());
    world.end([writer, reader]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_whole_files_of_the_directory_of_drops_are_accepted() {
    let world = World::new(4).await;
    let (writer, outbox) = world.writer(false).await;
    let drops = writer.engine().drops();
    let outside = world.root.path().join("outside");
    std::fs::write(&outside, b"hello").expect("written");
    let staged = stage(drops, "a", b"hello");
    // Not where verbs stage: there, what nobody has locked is swept away, and the file that it names is nobody's.
    let link = drops.directory().expect("a directory").join("link");
    std::os::unix::fs::symlink(&outside, &link).expect("made");
    let climbing = drops.incoming().expect("a directory").join("../../../outside");
    for (path, body) in [(&outside, &b"hello"[..]), (&staged, b"hell"), (&link, b"hello"), (&climbing, b"hello")] {
        let refused = drops.accept(outbox, header("a", body), Some(path));
        assert!(matches!(refused, Err(DropError::NotStaged { .. })), "{}", path.display());
    }
    let long = Header { path: "p".repeat(1024), ..header(&"n".repeat(600), b"hello") };
    assert!(matches!(drops.accept(outbox, long, Some(&staged)), Err(DropError::Header(_))));
    assert_eq!(
        writer.store().append(outbox, b"x".to_vec(), None).await.map(drop),
        Err(StoreError::IsADrop { name: "box".to_owned() })
    );
    world.end([writer]).await;
}

/// A stream's writer may put anything into boxes; here it does, and what is read as a drop is told apart, record by record.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_records_are_told_apart_and_honest_ones_behind_them_read() {
    use pigeonfs::drop::{SafeName, SafePath, SyncKey};
    let world = World::new(5).await;
    let writer = world.owner("writer");
    let evil = writer.store().create_stream(name("evil"), world.cap.clone()).await.expect("made");
    let base = world.cap.index().counter();
    let key = SyncKey::of(world.cap.read_cap());
    let mut count = 0_u64;
    let mut put = async |of: Box<dyn Fn(u64) -> Vec<u8>>| {
        let payload = of(base + count);
        assert!(payload.len() < 1549);
        writer.store().append(evil, payload, None).await.expect("accepted");
        writer.store().seal_tail(evil).await.expect("sealed");
        count += 1;
    };
    let record = |header: Header, body: &'static [u8]| -> Box<dyn Fn(u64) -> Vec<u8>> {
        let key = key.clone();
        Box::new(move |counter| {
            let header = Header { sync: Some(key.at(counter)), ..header.clone() };
            [&header.encode(1549).expect("encoded")[..], body].concat()
        })
    };
    let names = ["../x", "/etc/x", "nul\0", "CON", "..", "a/b\\c", "\u{202e}gpj.exe"];
    for name in names {
        put(record(Header { path: "../../up".to_owned(), ..header(name, b"evil") }, b"evil")).await;
    }
    put(record(header(&"n".repeat(1200), b"long"), b"long")).await;
    // Lies: more bytes than come, other bytes, a place that is not its own, none at all.
    put(record(Header { size: 1 << 61, ..header("size", b"") }, b"few")).await;
    put(record(Header { digest: Some([1; 32]), ..header("digest", b"abc") }, b"abc")).await;
    let elsewhere = Header { sync: Some([9; 16]), ..header("sync", b"") }.encode(1549).expect("encoded");
    put(Box::new(move |_| elsewhere.clone())).await;
    put(Box::new(|_| vec![0xbf; 1000])).await;
    put(record(header("honest", b"yes"), b"yes")).await;

    let (reader, inbox) = world.reader().await;
    let found = complete(&reader, inbox, names.len() + 2).await;
    for (record, name) in found.iter().zip(names) {
        assert_eq!(record.name, name, "as it came");
        assert_eq!(SafePath::of(&record.header.as_ref().expect("a header").path).to_string(), "__/__/up");
        assert!(!SafeName::of(&record.name).as_str().contains('/'));
    }
    let reasons: Vec<_> = found.iter().filter_map(|record| record.reason.as_deref()).collect();
    let told = ["broke it off", "the digests differ", "another place", "it begins with no header"];
    assert!(reasons.len() >= 3, "{reasons:?}");
    for (reason, told) in reasons.iter().zip(told) {
        assert!(reason.contains(told), "{reason:?} is not {told:?}");
    }
    let honest = found.last().expect("files");
    assert_eq!((honest.name.as_str(), contents(&reader, honest)), ("honest", b"yes".to_vec()));
    world.end([writer, reader]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sent_file_is_deleted_from_the_network_where_its_drop_allows_it() {
    let world = World::new(6).await;
    let (writer, outbox) = world.writer(true).await;
    let body = pattern(10_000, 1);
    let regretted = send(&writer, outbox, header("regretted", &body), &body).await;
    send(&writer, outbox, header("kept", &body), &body).await;
    until(&writer, outbox, || files(&writer, outbox).iter().all(|record| record.stored).then_some(())).await;
    writer.store().delete_record(outbox, regretted, false).await.expect("it may be deleted");
    until(&writer, outbox, || (files(&writer, outbox)[0].state == RecordState::Deleted).then_some(())).await;
    // Who comes later sees nothing of it, its name included, and reads what is behind it.
    let (reader, inbox) = world.reader().await;
    let found = complete(&reader, inbox, 1).await;
    assert_eq!(found.iter().map(|record| record.name.as_str()).collect::<Vec<_>>(), ["kept"]);
    assert!(contents(&reader, &found[0]) == body);
    world.end([writer, reader]).await;
}

/// Its tombstones went to whatever network was connected, and the file was marked as deleted for good; and each restart
/// began to delete anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_deleted_on_its_own_network_alone_and_a_restart_goes_on_where_it_was() {
    const BOXES: u64 = 60;
    let world = World::new(8).await;
    let (writer, outbox) = world.writer(true).await;
    let body = pattern(usize::try_from(BOXES).expect("few") * 1549 - 200, 1);
    let file = send(&writer, outbox, header("regretted", &body), &body).await;
    until(&writer, outbox, || writer.store().drop_record(outbox, file).expect("asked")?.stored.then_some(())).await;
    writer.close().await;

    let options = Options::new(world.root.path().join("elsewhere"));
    let elsewhere = Localnet::start(options).await.expect("another network");
    let config = Config::load(&world.root.path().join("elsewhere/thinclient.toml")).expect("its configuration");
    let state = world.root.path().join("writer");
    let writer = Owner::open(&state, Daemon::Fixed(config), OwnerKind::Mount).expect("a state");
    writer.store().delete_record(outbox, file, false).await.expect("it may be deleted");
    let noted = || writer.engine().notes(outbox).iter().any(|(_, note)| note.contains("another network")).then_some(());
    timeout(PATIENCE, async {
        while noted().is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("it says why it waits");
    assert_eq!(elsewhere.console().stats().await.expect("counted").packets.strict_write, 0);
    writer.close().await;
    elsewhere.shutdown().await;

    // Each box takes a while, so that there is a middle.
    let slow = Faults { delay: 1.0, delay_ms: 30, ..Faults::default() };
    world.network.console().set_faults(&slow).await.expect("set");
    let ended = async |world: &World| world.network.console().stats().await.expect("counted").ended.strict_write;
    let before = ended(&world).await;
    let mut restarts = 0;
    loop {
        let writer = world.owner("writer");
        let target = ended(&world).await + 15;
        let state = timeout(PATIENCE, async {
            loop {
                let record = writer.store().drop_record(outbox, file).expect("asked").expect("it stays");
                if record.state == RecordState::Deleted || ended(&world).await >= target {
                    return record.state;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        let state = state.await.expect("it goes on");
        writer.close().await;
        if state == RecordState::Deleted {
            break;
        }
        restarts += 1;
    }
    let tombstones = ended(&world).await - before;
    assert!(restarts >= 2 && tombstones <= BOXES + 2 * restarts, "{tombstones} tombstones, {restarts} restarts");
    world.end([]).await;
}

/// A staged file that could not be read kept all that were sent after it from going.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_read_does_not_block_those_behind_it() {
    let world = World::new(9).await;
    let (writer, outbox) = world.writer(false).await;
    writer.close().await;
    let offline = Owner::open(&world.root.path().join("writer"), Daemon::Unneeded, OwnerKind::Mount).expect("a state");
    let bodies = [pattern(5000, 1), pattern(6000, 2)];
    let broken = send(&offline, outbox, header("broken", &bodies[0]), &bodies[0]).await;
    let good = send(&offline, outbox, header("good", &bodies[1]), &bodies[1]).await;
    let staging = offline.store().drop_record(outbox, broken).expect("asked").expect("there").staging.expect("staged");
    let staged = offline.engine().drops().directory().expect("a directory").join(staging);
    std::fs::rename(&staged, staged.with_extension("away")).expect("moved");
    offline.close().await;

    let writer = world.owner("writer");
    until(&writer, outbox, || writer.store().drop_record(outbox, good).expect("asked")?.stored.then_some(())).await;
    assert!(writer.engine().notes(outbox).iter().any(|(_, note)| note.contains("\"broken\"")), "it is told of");
    // Once it can be read again it goes too.
    std::fs::rename(staged.with_extension("away"), &staged).expect("moved back");
    until(&writer, outbox, || writer.store().drop_record(outbox, broken).expect("asked")?.stored.then_some(())).await;
    world.end([writer]).await;
}

/// A file that was sent in part and is gone then kept all behind it from going. It ends where its boxes end, the reader is
/// told that it is broken, and the next one arrives.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_gone_after_a_part_was_sent_is_broken_off() {
    let world = World::new(19).await;
    let (writer, outbox) = world.writer(false).await;
    // More than is made into boxes ahead of what replicas have.
    let bodies = [pattern(12 << 20, 1), pattern(6000, 2)];
    let broken = send(&writer, outbox, header("broken", &bodies[0]), &bodies[0]).await;
    let record = |id| writer.store().drop_record(outbox, id).expect("asked").expect("there");
    let staged = writer.engine().drops().directory().expect("a directory");
    let staged = staged.join(record(broken).staging.expect("staged"));
    // Of what no packet of has left nothing is broken off: it waits, and others go before it.
    let launched = || writer.store().channel(outbox).expect("asked").expect("there").launched_end.0;
    until(&writer, outbox, || (record(broken).taken > 0 && launched() > 0).then_some(())).await;
    std::fs::remove_file(staged).expect("removed");
    let good = send(&writer, outbox, header("good", &bodies[1]), &bodies[1]).await;
    until(&writer, outbox, || record(good).stored.then_some(())).await;
    let told = record(broken);
    assert_eq!(told.state, RecordState::BrokenOff);
    assert!(told.reason.is_some_and(|reason| reason.contains("\"broken\"")), "the reason names the file");
    let counts = writer.store().drop_counts(outbox).expect("asked");
    assert_eq!((counts.pending, counts.complete, counts.broken), (0, 1, 1));
    assert_eq!(writer.store().usage().expect("asked").spool_bytes, 0, "what is given up takes no room in the spool");

    let (reader, inbox) = world.reader().await;
    let arrived = complete(&reader, inbox, 1).await;
    assert_eq!(contents(&reader, arrived.last().expect("one")), bodies[1]);
    let states: Vec<_> = files(&reader, inbox).into_iter().map(|record| (record.name, record.state)).collect();
    let expected = [("broken", RecordState::Broken), ("good", RecordState::Complete)];
    assert_eq!(states, expected.map(|(name, state)| (name.to_owned(), state)));
    world.end([writer, reader]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_whose_beginning_was_dropped_before_its_end_came_is_broken_and_the_next_is_read() {
    let world = World::new(7).await;
    let (writer, outbox) = world.writer(false).await;
    let body = pattern(300_000, 1);
    send(&writer, outbox, header("big", &body), &body).await;
    let (reader, inbox) = world.reader().await;
    until(&reader, inbox, || {
        let arriving = reader.store().arriving(inbox).expect("asked");
        arriving.is_some_and(|record| record.taken > 20_000).then_some(())
    })
    .await;
    // The writer stops, so that the file stays where it is.
    writer.close().await;
    assert!(reader.store().trim(inbox, 0).await.expect("trimmed") > 0);
    reader.close().await;
    let (writer, reader) = (world.owner("writer"), world.owner("reader"));
    send(&writer, outbox, header("next", b"yes"), b"yes").await;
    let found = until(&reader, inbox, || {
        let found = files(&reader, inbox);
        found.iter().any(|record| record.name == "next" && record.state == RecordState::Complete).then_some(found)
    })
    .await;
    // Had all of it come before the trim, it would be complete, and its bytes gone.
    assert_ne!(found[0].state, RecordState::Incomplete);
    assert!(reader.engine().drops().read(&found[0], 0, 10).is_err());
    world.end([writer, reader]).await;
}

/// A verb may die at any moment of handing its file over, and its lock goes with it. The file is then either refused, or
/// accepted with its bytes: never swept away under the row that names it.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_handed_over_while_what_is_abandoned_is_swept_keeps_its_bytes() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let nowhere = Config::parse("[Dial.Tcp]\nNetwork = \"tcp\"\nAddress = \"127.0.0.1:1\"\n").expect("a configuration");
    let owner = Owner::open(&root.path().join("writer"), Daemon::Fixed(nowhere), OwnerKind::Mount).expect("a state");
    let content = Content::Drop { allow_delete: false };
    let outbox = owner.store().create(name("box"), WriteCap::from_seed(&[9; 32]), content).await.expect("made");
    let drops = owner.engine().drops();
    let mut accepted = Vec::new();
    for number in 0..200_u32 {
        let file = format!("file-{number}");
        let path = drops.incoming().expect("a directory").join(&file);
        std::fs::write(&path, b"hello").expect("written");
        // Another channel in the listing makes the sweeper look, while the file, which nobody has locked, is handed over.
        let cap = WriteCap::from_seed(blake3::hash(file.as_bytes()).as_bytes());
        let looked = owner.store().create(name(&format!("other-{number}")), cap, Content::Stream);
        match drops.accept(outbox, header(&file, b"hello"), Some(&path)) {
            Ok(commit) => {
                commit.await.expect("accepted");
                accepted.push(path);
            }
            Err(DropError::Io { .. }) => assert!(!path.exists(), "{} was refused and is there", path.display()),
            Err(other) => panic!("{}: {other}", path.display()),
        }
        looked.await.expect("made");
    }
    assert!(!accepted.is_empty(), "none was handed over in time");
    let missing: Vec<_> = accepted.iter().filter(|path| !path.exists()).collect();
    assert!(missing.is_empty(), "{} of {} accepted files lost their bytes", missing.len(), accepted.len());
    owner.close().await;
}
