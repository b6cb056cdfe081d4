//! A day of clients that come and go, in virtual time: what the process holds after it is what it held in the morning.
//!
//! The memory that it counts is that of the whole process.

use std::alloc::System;
use std::time::Duration;

use pigeonfs::bacap::WriteCap;
use pigeonfs::localnet::{Command, Faults, InMemory, Profile, Settings};
use pigeonfs::thin::{Client, ClientOptions, Error, Missing, WriteMode};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::runtime::{Builder, Handle};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

#[global_allocator]
static MEMORY: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const HOURS: usize = 24;
/// After so many hours all that is kept for a while is there: documents of epochs, results of copies, replicas' epochs.
const MORNING: usize = 3;
const VISITS_AN_HOUR: usize = 8;
/// What may be held more in the evening, in bytes: a table that has doubled its room, and no entry for each of some
/// thousand operations.
const TOLERATED: usize = 64 * 1024;

/// Bytes that are allocated now.
fn held() -> usize {
    let stats = MEMORY.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

/// What a client does on a visit: a box is written and read, and some of it is given up in the middle.
async fn visit(client: &Client, cap: &WriteCap, dice: &mut StdRng) -> Result<(), Error> {
    for _ in 0..6 {
        let deadline = Instant::now() + Duration::from_secs(60);
        let patience = Duration::from_millis(dice.random_range(1..60_000));
        let work = async {
            // Always the same bytes, so that the network's boxes stay as many as they are.
            let write = client.encrypt_write(cap, cap.index(), b"the same each time", deadline).await?;
            client.start_write(cap, &write, WriteMode::Strict, deadline).await?;
            let (cap, at) = (cap.read_cap(), cap.index());
            let read = client.encrypt_read(cap, at, deadline).await?;
            client.start_read(cap, at, &read, Missing::Retry, deadline).await.map(drop)
        };
        if let Ok(ended) = timeout(patience, work).await {
            ended?;
        }
    }
    Ok(())
}

async fn hour(network: &InMemory, dice: &mut StdRng) {
    let console = network.console();
    let began = Instant::now();
    let faults = Faults { loss: 0.1, reply_loss: 0.1, duplication: 0.2, ack_then_lost: 0.1, ..Faults::default() };
    console.set_faults(&faults).await.expect("the network runs");
    let mut visits = JoinSet::new();
    for number in 0..VISITS_AN_HOUR {
        let client = Client::over(network.clone(), ClientOptions { seed: Some(dice.random()), ..Default::default() });
        let cap = WriteCap::from_seed(&[u8::try_from(number).expect("a few"); 32]);
        let mut dice = StdRng::seed_from_u64(dice.random());
        visits.spawn(async move {
            // Whatever becomes of it, it ends; what is told of it is another test's.
            let _ = visit(&client, &cap, &mut dice).await;
            if dice.random() {
                client.close().await;
            }
        });
        sleep(Duration::from_secs(60)).await;
        match number % 4 {
            1 => drop(console.tell(Command::Disconnect).await.expect("the network runs")),
            3 => drop(console.tell(Command::Restart { killed: number == 7 }).await.expect("the network runs")),
            _ => {}
        }
    }
    while visits.join_next().await.is_some() {}
    sleep(Duration::from_secs(3600).saturating_sub(began.elapsed())).await;
}

#[test]
fn after_a_day_of_comings_and_goings_no_more_is_held_than_in_the_morning() {
    let _alone = crate::alone();
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(async {
        let settings = Settings { profile: Profile::docker().scaled(20.0), seed: Some(1), ..Settings::default() };
        let network = InMemory::start(settings).expect("settings that make sense");
        let mut dice = StdRng::seed_from_u64(1);
        let mut morning = (0, 0);
        for number in 1..=HOURS {
            hour(&network, &mut dice).await;
            let now = (held(), Handle::current().metrics().num_alive_tasks());
            let mut census = network.console().census().await.expect("the network runs");
            census.retain(|what, count| *count > 0 && !["cached", "copy-results"].contains(&&**what));
            assert!(census.is_empty(), "every client of hour {number} has gone, and the network holds {census:?}");
            if number == MORNING {
                morning = now;
            }
            if number > MORNING {
                assert!(now.0 <= morning.0 + TOLERATED, "hour {number}: {} bytes, {} in the morning", now.0, morning.0);
                assert_eq!(now.1, morning.1, "tasks in hour {number}");
            }
        }
        network.shutdown().await;
    });
}
