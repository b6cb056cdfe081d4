//! `pigeonfs localnet ctl`, and what it makes a localnet of its own process do to a client.

use crate::common::{Localnet, PATIENCE, Work};
use pigeonfs::bacap::{BoxIndex, WriteCap};
use pigeonfs::thin::{Client, ClientOptions, Config, Error, Missing, ReadOutcome, WriteMode, WriteOutcome};
use serde_json::Value;
use tokio::time::Instant;

fn client(network: &Localnet) -> Client {
    Client::start(Config::load(network.config().as_ref()).expect("a configuration"), ClientOptions::default())
}

fn deadline() -> Instant {
    Instant::now() + PATIENCE
}

async fn write(client: &Client, cap: &WriteCap, at: &BoxIndex, text: &[u8]) -> Result<WriteOutcome, Error> {
    let envelope = client.encrypt_write(cap, at, text, deadline()).await?;
    client.start_write(cap, &envelope, WriteMode::Strict, deadline()).await
}

async fn read(client: &Client, cap: &WriteCap, at: &BoxIndex, missing: Missing) -> Result<ReadOutcome, Error> {
    let envelope = client.encrypt_read(cap.read_cap(), at, deadline()).await?;
    client.start_read(cap.read_cap(), at, &envelope, missing, deadline()).await
}

/// What the verb answers in JSON, under its one key.
#[track_caller]
fn told(work: &Work, words: &[&str], key: &str) -> Value {
    let said = work.verb("net", &[&["localnet", "ctl", "--json"], words].concat()).ok().text();
    serde_json::from_str::<Value>(&said).expect("JSON")[key].take()
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_are_full_until_they_are_told_otherwise() {
    let work = Work::new();
    let network = work.localnet("net");
    let (client, cap) = (client(&network), WriteCap::from_seed(&[1; 32]));
    let (first, second) = (cap.index().clone(), cap.index().next().expect("an index"));
    assert_eq!(write(&client, &cap, &first, b"one").await.expect("written"), WriteOutcome::Done);

    assert_eq!(told(&work, &["faults", "set", "storage-full=on", "loss=0.0"], "faults")["storage-full"], true);
    let refused = write(&client, &cap, &second, b"two").await.expect_err("no room");
    assert!(refused.to_string().contains("storage"), "{refused}");
    let found = read(&client, &cap, &first, Missing::Report).await.expect("what was there before is read");
    assert_eq!(found, ReadOutcome::Box(b"one".to_vec()));
    assert_eq!(told(&work, &["storage-full", "off"], "faults")["storage-full"], false);
    assert_eq!(write(&client, &cap, &second, b"two").await.expect("written"), WriteOutcome::Done);

    let stats = told(&work, &["stats"], "stats");
    // Each takes a packet that is acknowledged and one that is answered.
    assert_eq!((&stats["ended"]["strict-write"], &stats["packets"]["strict-write"]), (&3.into(), &6.into()), "{stats}");
    assert_eq!(stats["ended"]["read"], 1, "{stats}");
    assert_eq!(told(&work, &["census"], "census")["operations"], 0);
    let shown = work.verb("net", &["localnet", "ctl", "stats"]).ok().text();
    assert!(shown.lines().any(|line| line.starts_with("ended strict-write") && line.ends_with('3')), "{shown}");
    client.close().await;

    work.verb("net", &["localnet", "ctl", "faults", "set", "los=0.1"]).failed(5, &["there is no fault \"los\""]);
    work.verb("net", &["localnet", "ctl", "faults", "set", "loss=2"]).failed(5, &["loss"]);
    work.verb("net", &["localnet", "ctl", "clock", "8d"]).failed(2, &["+8d"]);
    network.kill();
    work.verb("net", &["localnet", "ctl", "stats"]).failed(4, &["no localnet answers in"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_box_is_kept_over_one_week_s_jump_of_the_clock_and_gone_after_two() {
    let work = Work::new();
    let network = work.localnet("net");
    let (client, cap) = (client(&network), WriteCap::from_seed(&[2; 32]));
    let at = cap.index().clone();
    let before = told(&work, &["clock"], "clock");
    assert_eq!(write(&client, &cap, &at, b"a week and the next").await.expect("written"), WriteOutcome::Done);
    let old = client.encrypt_read(cap.read_cap(), &at, deadline()).await.expect("an envelope");

    let after = told(&work, &["clock", "+7d"], "clock");
    let epoch = |clock: &Value| clock["replica-epoch"].as_u64().expect("a number");
    assert_eq!((epoch(&after), &after["moved-ms"]), (epoch(&before) + 1, &604_800_000.into()));
    let kept = read(&client, &cap, &at, Missing::Report).await.expect("read");
    assert_eq!(kept, ReadOutcome::Box(b"a week and the next".to_vec()));

    told(&work, &["clock", "+7d"], "clock");
    assert_eq!(read(&client, &cap, &at, Missing::Report).await.expect("an answer"), ReadOutcome::NotFound);
    let stale = client.start_read(cap.read_cap(), &at, &old, Missing::Report, deadline()).await;
    let stale = stale.expect_err("an envelope of two weeks ago");
    assert!(stale.to_string().contains("epoch"), "{stale}");
    assert_eq!(write(&client, &cap, &at, b"anew").await.expect("its place is free"), WriteOutcome::Done);

    assert_eq!(told(&work, &["clock", "reset"], "clock")["moved-ms"], 0);
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_sockets_that_lose_and_delay_packets_everything_arrives() {
    let work = Work::new();
    let pace = ["--profile", "docker", "--time-scale", "200", "--seed", "7"];
    let faults = ["--loss", "0.3", "--reply-loss", "0.2", "--duplication", "0.2"];
    let network = work.localnet_with("net", &[], &[&pace[..], &faults].concat());
    told(&work, &["faults", "set", "delay=0.3", "delay-ms=20"], "faults");
    let (client, cap) = (client(&network), WriteCap::from_seed(&[3; 32]));
    let mut exchanges = tokio::task::JoinSet::new();
    let mut at = cap.index().clone();
    for number in 0..12_u8 {
        let (client, cap, index) = (client.clone(), cap.clone(), at.clone());
        at = at.next().expect("an index");
        exchanges.spawn(async move {
            let text = [number; 100];
            let (written, found) =
                tokio::join!(write(&client, &cap, &index, &text), client.read(cap.read_cap(), &index, deadline()));
            assert_eq!(written.expect("written"), WriteOutcome::Done);
            assert_eq!(found.expect("read"), ReadOutcome::Box(text.to_vec()));
        });
    }
    while let Some(exchanged) = exchanges.join_next().await {
        exchanged.expect("no panic");
    }
    let stats = told(&work, &["stats"], "stats");
    for mishap in ["lost", "replies-lost", "duplicated", "delayed", "resent"] {
        assert!(stats[mishap].as_u64().is_some_and(|count| count > 0), "{mishap}: {stats}");
    }
    client.close().await;
    // The daemon hears of it when it has done what was before.
    crate::common::eventually("the client's end", || {
        let census = told(&work, &["census"], "census");
        (census["connections"] == 0 && census["sessions"] == 0).then_some(())
    });
}
