//! Boxes that do not come, as a person meets them: late, then lost, then given up by `pigeonfs skip`.

use crate::common::{Work, no_fuse};
use pigeonfs::bacap::WriteCap;
use pigeonfs::store::{Arrival, BoxSeq, ChannelName, Limits, StateDir, Store};
use pigeonfs::thin::{Client, ClientOptions, Config, WriteMode};

/// A state with a channel `news` of which "abc" has arrived, and "x" past two boxes that have not.
fn furnish(work: &Work, state: &str) {
    let state = StateDir::lock(&work.path(state)).expect("ours");
    let store = Store::open(&state, Limits::default()).expect("a new store");
    let cap = WriteCap::from_seed(&[3; 32]).read_cap().clone();
    let id = store.add_reader(ChannelName::parse("news").expect("a name"), cap).wait().expect("added");
    let arrivals = [(0, "abc"), (3, "x")].map(|(seq, text)| (BoxSeq(seq), Arrival::Message(text.into())));
    store.set_replica_epoch(Some(494)).wait().expect("kept");
    store.received(id, arrivals.to_vec()).wait().expect("kept");
    store.close();
}

/// As if the network had come so far since the later box was seen, and the first that is missing had been asked for.
fn let_it_be_lost(work: &Work, state: &str) {
    let state = StateDir::lock(&work.path(state)).expect("nobody's");
    let store = Store::open(&state, Limits::default()).expect("a store");
    store.set_replica_epoch(Some(496)).wait().expect("kept");
    let id = store.channels(None, 1).expect("a channel")[0].id;
    store.received(id, vec![(BoxSeq(1), Arrival::NotYet)]).wait().expect("kept");
    store.close();
}

#[test]
fn a_late_box_is_waited_for_a_lost_one_is_an_error_and_skip_goes_on_behind_it() {
    let work = Work::new();
    furnish(&work, "s");
    let status = || work.verb("s", &["status", "news"]).ok().text();
    assert!(status().contains("waits for a late box"), "{}", status());
    assert!(status().contains("2 before one that is here: asked for again"), "{}", status());
    let read = work.verb("s", &["read", "news", "--timeout", "1", "--daemon", "unix:///nowhere/at-all"]);
    assert!(read.stdout == b"abc" && matches!(read.code, Some(3 | 4)), "{read:?}");

    let_it_be_lost(&work, "s");
    assert!(status().contains("2 boxes are lost"), "{}", status());
    let read = work.verb("s", &["read", "news", "--daemon", "unix:///nowhere/at-all"]);
    assert_eq!(read.stdout, b"abc", "what came before it is printed, and the exit code says that it is not all");
    read.failed(1, &["lost 2 boxes", "pigeonfs skip"]);
    work.verb("s", &["wait", "news", "--daemon", "unix:///nowhere/at-all"]).failed(1, &["lost 2 boxes"]);

    assert_eq!(
        work.verb("s", &["skip", "news"]).ok().text(),
        "2 boxes, from 1 on, are given up; 1 B behind them can be read\n"
    );
    work.verb("s", &["skip", "news"]).failed(5, &["no box of \"news\" is missing", "nothing to skip"]);
    let read = work.verb("s", &["read", "news", "--timeout", "1", "--daemon", "unix:///nowhere/at-all"]);
    assert_eq!(read.stdout, b"abcx");
    assert!(status().contains("2 boxes, which read as no bytes"), "{}", status());
    work.verb("s", &["skip", "nobody"]).failed(1, &["no channel named"]);
    work.verb("s", &["new", "mine"]).ok();
    work.verb("s", &["skip", "mine"]).failed(5, &["nothing arrives in it"]);
}

/// Writes these boxes of a channel, and no others.
fn write(network: &crate::common::Localnet, cap: &WriteCap, boxes: impl Iterator<Item = u64>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let config = Config::load(std::path::Path::new(network.config())).expect("a configuration");
        let client = Client::start(config, ClientOptions::default());
        let deadline = tokio::time::Instant::now() + crate::common::PATIENCE;
        client.wait_connected(deadline).await.expect("connected");
        for seq in boxes {
            let index = cap.index().advance_to(cap.index().counter() + seq).expect("an index");
            let text = format!("box {seq}\n");
            let envelope = client.encrypt_write(cap, &index, text.as_bytes(), deadline).await.expect("an envelope");
            client.start_write(cap, &envelope, WriteMode::Strict, deadline).await.expect("stored");
        }
        client.close().await;
    });
}

/// Changes what a state remembers of its channel, as time would.
fn remember(work: &Work, state: &str, change: &str) {
    let path = work.path(state);
    let _nobodys = StateDir::lock(&path).expect("nobody's");
    let db = rusqlite::Connection::open(path.join("pigeonfs.db")).expect("a database");
    assert_eq!(db.execute(&format!("UPDATE channel SET {change}"), []), Ok(1));
}

/// The network's own epochs count, and no clock of this machine.
fn let_epochs_pass(work: &Work, state: &str, epochs: u64) {
    remember(work, state, &format!("verdict_epoch = verdict_epoch - {epochs}"));
}

fn let_the_budget_be_spent(work: &Work, state: &str) {
    remember(work, state, "search_probes = 256");
}

#[test]
fn a_reader_that_was_away_for_too_long_searches_for_what_still_lives() {
    let work = Work::new();
    let network = work.localnet("net");
    let daemon = ["--config", network.config()];
    let cap = WriteCap::from_seed(&[7; 32]);
    let capability = format!("{}\n", *cap.read_cap().to_base64());
    work.verb_with("s", &["add", "news"], capability.as_bytes()).ok();
    write(&network, &cap, 0..3);
    let read = || work.verb("s", &[&["read", "news", "--timeout", "200"][..], &daemon].concat());
    assert_eq!(read().ok().text(), "box 0\nbox 1\nbox 2\n");

    // What was written next has expired; ten boxes live, far behind the last that arrived.
    write(&network, &cap, 1020..1030);
    assert_eq!(read().ok().text(), "box 0\nbox 1\nbox 2\n", "a verdict that is new is the end");
    let_epochs_pass(&work, "s", 2);
    let found = read();
    assert_eq!(found.stdout, b"box 0\nbox 1\nbox 2\n");
    found.failed(1, &["lost 1017 boxes", "pigeonfs skip"]);
    let told = work.verb("s", &["status", "news"]).ok().text();
    assert!(told.contains("1017 boxes are lost"), "{told}");

    assert!(work.verb("s", &["skip", "news"]).ok().text().starts_with("1017 boxes, from 3 on, are given up"));
    let all: String = (0..3).chain(1020..1030).map(|seq| format!("box {seq}\n")).collect();
    assert_eq!(read().ok().text(), all);

    // By the verb, behind the end that is known; and again on the next day.
    write(&network, &cap, 2050..2060);
    let search = || work.verb("s", &[&["skip", "--search", "news"][..], &daemon].concat());
    assert_eq!(
        search().ok().text(),
        "found: 1020 boxes are lost, and what follows them lives; `pigeonfs skip` goes on there\n"
    );
    search().failed(5, &["a later box of \"news\" is here already"]);
    work.verb("s", &["skip", "news"]).ok();
    let_the_budget_be_spent(&work, "s");
    search().failed(5, &["was searched already", "256 reads", "again in"]);
}

#[test]
fn skip_says_what_it_did_to_programs() {
    let work = Work::new();
    furnish(&work, "s");
    let told: serde_json::Value =
        serde_json::from_slice(&work.verb("s", &["skip", "news", "--json"]).ok().stdout).expect("JSON");
    let expected = serde_json::json!({ "name": "news", "first_box": 1, "skipped_boxes": 2, "bytes": 1 });
    assert_eq!(told, expected);
    let status: serde_json::Value =
        serde_json::from_slice(&work.verb("s", &["status", "news", "--json"]).ok().stdout).expect("JSON");
    assert_eq!(
        (&status["skipped_boxes"], &status["missing_boxes"], &status["lost"]),
        (&2.into(), &0.into(), &false.into())
    );
}

#[test]
fn a_mount_gives_eio_at_a_lost_box_until_it_is_skipped() {
    if no_fuse() {
        return;
    }
    let work = Work::new();
    furnish(&work, "s");
    let_it_be_lost(&work, "s");
    let mount = work.mount("mnt", "s", &["--daemon", "unix:///nowhere/at-all"]);
    let file = mount.file("news");
    let error = std::fs::read(&file).expect_err("it goes on after what is lost");
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
    let status = std::fs::read_to_string(mount.file(".pigeonfs/news/status")).expect("a status");
    assert!(status.contains("lost       2 boxes are gone"), "{status}");
    let errors = std::fs::read_to_string(mount.file(".pigeonfs/news/errors")).expect("errors");
    assert!(errors.contains("pigeonfs skip"), "{errors}");

    // A running mount is asked by the verb, and its readers go on.
    let told = work.verb("s", &["skip", "news"]).ok().text();
    assert!(told.starts_with("2 boxes, from 1 on"), "{told}");
    let mut bytes = [0; 9];
    let read = std::os::unix::fs::FileExt::read_at(&std::fs::File::open(&file).expect("open"), &mut bytes, 0);
    assert_eq!((read.ok(), &bytes[..4]), (Some(4), &b"abcx"[..]));
    mount.signal(rustix::process::Signal::INT);
}
