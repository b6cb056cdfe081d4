//! Measurements, not tests: `cargo test --lib store::tests::measure -- --ignored --nocapture --test-threads 1`.

use std::time::Instant;

use super::super::*;
use super::{Home, LIMITS, RESERVE_BYTES, bytes, name};
use crate::bacap::WriteCap;

#[test]
#[ignore = "a measurement"]
fn appends() {
    measure(Home::new());
}

#[test]
#[ignore = "a measurement"]
fn appends_to_a_sealed_state() {
    let home = Home::new();
    home.store.close();
    let Home { state, dir, .. } = home;
    let passphrase = Passphrase::new(zeroize::Zeroizing::new(b"one".to_vec())).unwrap();
    seal(&state, &passphrase).unwrap();
    state.unlock(state.seal_header().unwrap().unwrap().open(&passphrase).unwrap());
    let store = Store::open_with(&state, LIMITS, RESERVE_BYTES).unwrap();
    measure(Home { store, state, dir });
}

fn measure(home: Home) {
    let id = home.writer("log", 1);
    let store = &home.store;
    for (len, rounds) in [(100, 500), (64 << 10, 200), (1 << 20, 40)] {
        let payload = bytes(len, 1);
        let start = Instant::now();
        for _ in 0..rounds {
            store.append(id, payload.clone(), None).wait().unwrap();
        }
        report("one by one", len, rounds, start);
        let start = Instant::now();
        let commits: Vec<_> = (0..rounds).map(|_| store.append(id, payload.clone(), None)).collect();
        assert!(commits.into_iter().all(|commit| commit.wait().is_ok()));
        report("submitted together", len, rounds, start);
    }
    let size = store.channel(id).unwrap().unwrap().size;
    let start = Instant::now();
    let mut offset = 0;
    while offset < size {
        offset += store.read(id, offset, 128 << 10).unwrap().len() as u64;
    }
    eprintln!("read {} MiB in {:?}", size >> 20, start.elapsed());
    let start = Instant::now();
    store.set_max_plaintext(id, 1400).wait().unwrap();
    eprintln!("packed {} MiB anew in {:?}", size >> 20, start.elapsed());
    let start = Instant::now();
    store.forget(name("log")).wait().unwrap();
    eprintln!("forgot them in {:?}", start.elapsed());
    store.close();
}

fn report(how: &str, len: usize, rounds: usize, start: Instant) {
    let elapsed = start.elapsed();
    let mib = (len * rounds) as f64 / f64::from(1 << 20);
    eprintln!(
        "{rounds} appends of {len} bytes {how}: {elapsed:?}, {:.0}/s, {:.1} MiB/s",
        rounds as f64 / elapsed.as_secs_f64(),
        mib / elapsed.as_secs_f64()
    );
}

#[test]
#[ignore = "a measurement"]
fn opening_ten_thousand_channels_with_a_million_boxes() {
    let home = Home::new();
    let store = &home.store;
    let mut commits = Vec::new();
    for at in 0..10_000_u32 {
        let mut seed = [0; 32];
        seed[..4].copy_from_slice(&at.to_le_bytes());
        let id = store.create_stream(name(&format!("channel-{at}")), WriteCap::from_seed(&seed)).wait().unwrap();
        drop(store.set_max_plaintext(id, 16));
        commits.push(store.append(id, bytes(1600, 1), None));
    }
    assert!(commits.into_iter().all(|commit| commit.wait().is_ok()));
    store.close();
    let start = Instant::now();
    let store = Store::open_with(&home.state, LIMITS, RESERVE_BYTES).unwrap();
    eprintln!("opened in {:?}", start.elapsed());
    let start = Instant::now();
    let spool = store.spool_bytes().unwrap();
    let last = store.by_name(&name("channel-9999")).unwrap().unwrap();
    eprintln!("first answers after {:?}: {spool} bytes, {} boxes in the last", start.elapsed(), last.boxes);
    let start = Instant::now();
    let mut after = None;
    let mut count = 0;
    loop {
        let page = store.channels(after.as_ref(), 256).unwrap();
        let Some(channel) = page.last() else { break };
        after = Some(channel.name.clone());
        count += page.len();
    }
    eprintln!("listed {count} channels in {:?}", start.elapsed());
}

#[test]
#[ignore = "a measurement"]
fn packing() {
    for mib in [5, 10, 20, 40] {
        let home = Home::new();
        let id = home.writer("log", 1);
        for at in 0..mib {
            home.store.append(id, bytes(1 << 20, at), None).wait().unwrap();
        }
        let start = Instant::now();
        home.store.set_max_plaintext(id, 1400).wait().unwrap();
        eprintln!("packed {mib} MiB anew in {:?}", start.elapsed());
    }
}
