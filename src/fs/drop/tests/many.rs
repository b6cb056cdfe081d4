//! Drops with very many files: what one of them costs does not depend on how many there are. `PIGEONFS_FILES` says how many.

use std::time::SystemTime;

use super::*;
use crate::drop::Header;
use crate::store::NewRecord;

/// Puts empty files into the drop, as records that wait for the network.
fn fill(world: &World, drop: ChannelId, numbers: std::ops::Range<usize>) {
    let commits: Vec<_> = numbers
        .map(|n| {
            let header = Header {
                name: format!("a file with a name of usual length, number {n:06}"),
                digest: Some(*blake3::hash(b"").as_bytes()),
                ..Header::default()
            };
            world.fs().owner().store().accept(drop, NewRecord { header, staging: None, modified: None })
        })
        .collect();
    for commit in commits {
        commit.wait().unwrap();
    }
}

/// The time of one look-up, the shortest of some. Before each the drop has changed, as deliveries change it.
fn look_up(world: &World, outbox: Node, count: usize) -> Duration {
    let one = |n: usize| {
        world.fs().owner().store().set_attributes(world.drop_id(), None, Some(SystemTime::now()), None).wait().unwrap();
        let name = format!("a file with a name of usual length, number {:06}", n * 7919 % count);
        let began = Instant::now();
        world.fs().find(outbox, OsStr::new(&name)).unwrap();
        began.elapsed()
    };
    (0..50).map(one).min().unwrap()
}

/// A look-up asked for all records of the drop: with 20,000 files, `ls -l` took five minutes.
#[test]
fn a_lookup_costs_the_same_with_a_hundred_files_and_with_thousands() {
    let mut world = World::new();
    world.outbox();
    let many = std::env::var("PIGEONFS_FILES").ok().and_then(|text| text.parse().ok()).unwrap_or(4000);
    fill(&world, world.drop_id(), 0..100);
    let few = look_up(&world, world.node("outbox"), 100);
    fill(&world, world.drop_id(), 100..many);
    let lots = look_up(&world, world.node("outbox"), many);
    assert!(lots < few * 8, "{few:?} with 100 files, and {lots:?} with {many}");

    // With a file that is not whole before all others, too: what is not settled is looked at again.
    world.copy("outbox/.first.aB3xYz", b"x");
    world.restart();
    let names = world.fs().list(world.node("outbox")).unwrap();
    assert_eq!(names.len(), many + 3);
    let again = look_up(&world, world.node("outbox"), many);
    assert!(again < few * 8, "{few:?} with 100 files, and {again:?} with {many}");
}
