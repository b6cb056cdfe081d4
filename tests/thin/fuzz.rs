//! The fuzz targets of `fuzz/`, over a bounded number of inputs: each seed as it is, and changed by chance that is the same
//! in every run. `scripts/fuzz` runs the same functions for as long as one likes, guided by coverage.

#[path = "../../fuzz/src/lib.rs"]
#[allow(unreachable_pub, clippy::unwrap_used)]
mod targets;

use std::path::Path;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// Of each target. `PIGEONFS_TEST_SEEDS` multiplies them.
const INPUTS: usize = 6_000;

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let entries = std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    // Directories list in any order; a run is the same in each.
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("a seed")).collect()
}

/// A few changes of the kinds that decoders stumble over.
fn mutate(bytes: &mut Vec<u8>, other: &[u8], dice: &mut StdRng) {
    for _ in 0..dice.random_range(1..=4) {
        let at = dice.random_range(0..=bytes.len());
        match dice.random_range(0..7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << dice.random_range(0..8),
            1 if at < bytes.len() => bytes[at] = dice.random(),
            2 => bytes.truncate(at),
            3 => bytes.insert(at, [0xff, 0x7f, 0x9f, 0xbf, 0x5f, 0xf6, 0xa0, 0x80][dice.random_range(0..8)]),
            4 if at < bytes.len() => drop(bytes.remove(at)),
            // A length that lies.
            5 if at + 9 <= bytes.len() => {
                bytes[at] = [0x1b, 0x5b, 0x7b, 0x9b, 0xbb][dice.random_range(0..5)];
                bytes[at + 1..at + 9].copy_from_slice(&dice.random::<u64>().to_be_bytes());
            }
            6 if !other.is_empty() => {
                let from = dice.random_range(0..other.len());
                let to = dice.random_range(from..=other.len().min(from + 64));
                bytes.splice(at..at, other[from..to].iter().copied());
            }
            _ => {}
        }
    }
}

#[test]
fn each_target_withstands_its_seeds_and_what_chance_makes_of_them() {
    let times = std::env::var("PIGEONFS_TEST_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(1_usize);
    for (name, target) in targets::TARGETS {
        let seeds = seeds(name);
        assert!(!seeds.is_empty(), "{name} has no seeds");
        seeds.iter().for_each(|seed| target(seed));
        let mut dice = StdRng::seed_from_u64(7);
        for _ in 0..INPUTS * times {
            let mut bytes = seeds[dice.random_range(0..seeds.len())].clone();
            let other = &seeds[dice.random_range(0..seeds.len())];
            mutate(&mut bytes, other, &mut dice);
            target(&bytes);
        }
    }
}
