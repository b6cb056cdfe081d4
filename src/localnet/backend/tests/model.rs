//! The replica's rules against a model that is nothing but a table: random writes, tombstones, epochs and shards.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::bacap::BOX_OVERHEAD_BYTES;
use crate::localnet::replica::{INVALID_PAYLOAD, INVALID_SIGNATURE, STORAGE_FULL};

/// The boxes that there are, and the contents that each may have; content 0 is the tombstone.
const BOXES: u8 = 3;
const CONTENTS: u8 = 4;

#[derive(Clone, Debug)]
enum Deed {
    Write { number: u8, content: u8, holders: u8, authentic: bool, short: bool, full: bool },
    Read { number: u8, rank: usize },
    NextEpoch,
    Expire { limit: usize },
}

fn deed() -> impl Strategy<Value = Deed> {
    let rarely = || proptest::bool::weighted(0.1);
    let write = (0..BOXES, 0..CONTENTS, 1_u8..=3, proptest::bool::weighted(0.9), rarely(), rarely()).prop_map(
        |(number, content, holders, authentic, short, full)| Deed::Write {
            number,
            content,
            holders,
            authentic,
            short,
            full,
        },
    );
    prop_oneof![
        6 => write,
        4 => (0..BOXES, 0_usize..2).prop_map(|(number, rank)| Deed::Read { number, rank }),
        1 => Just(Deed::NextEpoch),
        1 => (1_usize..4).prop_map(|limit| Deed::Expire { limit }),
    ]
}

/// What each holder has of each box: content and epoch of its newest record.
#[derive(Default)]
struct Model(BTreeMap<(u8, usize), (u8, u64)>);

impl Model {
    fn held(&self, number: u8, rank: usize, now: u64) -> Option<u8> {
        self.0.get(&(number, rank)).filter(|(_, epoch)| now - epoch <= 1).map(|(content, _)| *content)
    }

    fn write(&mut self, deed: &Deed, rank: usize, now: u64) -> u8 {
        let Deed::Write { number, content, authentic, short, full, .. } = *deed else { unreachable!("a write") };
        match self.held(number, rank, now) {
            _ if short && content != 0 => return INVALID_PAYLOAD,
            _ if !authentic => return INVALID_SIGNATURE,
            _ if content == 0 => {}
            _ if full => return STORAGE_FULL,
            Some(held) if held == content => return SUCCESS,
            Some(_) => return BOX_ALREADY_EXISTS,
            None => {}
        }
        self.0.insert((number, rank), (content, now));
        SUCCESS
    }
}

fn sealed(number: u8, content: u8, short: bool) -> SealedBox {
    let length = match content {
        0 => 0,
        _ if short => M + BOX_OVERHEAD_BYTES - 1,
        _ => M + BOX_OVERHEAD_BYTES,
    };
    // Two contents have the same payload and other signatures: that is a conflict too.
    SealedBox { box_id: BoxId([number; 32]), payload: vec![content.min(2); length], signature: [content; 64] }
}

fn follow(mut store: impl BoxStore, deeds: &[Deed]) -> Result<(), TestCaseError> {
    let mut model = Model::default();
    let mut now = 500;
    for deed in deeds {
        match deed {
            Deed::Write { number, content, holders, authentic, short, full } => {
                let sealed = sealed(*number, *content, *short);
                let write = Write { sealed: &sealed, authentic: *authentic, max_plaintext: M, full: *full };
                let holders = Holders::from_bits(*holders);
                let codes = super::super::replica::write(&mut store, &write, holders, now);
                for rank in (0..2).filter(|rank| holders.has(*rank)) {
                    prop_assert_eq!(codes[rank], model.write(deed, rank, now), "{:?} at {}", deed, rank);
                }
            }
            Deed::Read { number, rank } => {
                let reply = super::super::replica::read(&mut store, &BoxId([*number; 32]), *rank, now);
                let expected = match model.held(*number, *rank, now) {
                    None => (BOX_ID_NOT_FOUND, None),
                    Some(0) => (TOMBSTONE, Some(sealed(*number, 0, false))),
                    Some(content) => (SUCCESS, Some(sealed(*number, content, false))),
                };
                prop_assert!(reply == expected, "{:?} in epoch {}", deed, now);
            }
            Deed::NextEpoch => now += 1,
            Deed::Expire { limit } => prop_assert!(store.expire(now - 1, *limit) <= *limit),
        }
        let mut halves = 0;
        for number in 0..BOXES {
            let rows = store.find(&BoxId([number; 32]), now - 1).expect("readable");
            for rank in 0..2 {
                prop_assert!(rows.iter().filter(|row| row.holders.has(rank)).count() <= 1, "one record a holder");
            }
            let shared = rows.windows(2).any(|pair| pair[0].sealed == pair[1].sealed && pair[0].epoch == pair[1].epoch);
            prop_assert!(!shared, "what both hold since the same epoch is one row");
            halves += rows.iter().filter(|row| row.holders != Holders::BOTH).count();
        }
        prop_assert!(store.unreplicated(100).len() >= halves);
    }
    while store.expire(now + 2, 2) > 0 {}
    prop_assert!(store.unreplicated(100).is_empty());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn holders_in_memory_follow_the_rules(deeds in proptest::collection::vec(deed(), 1..60)) {
        follow(Memory::default(), &deeds)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn holders_on_disk_follow_the_rules(deeds in proptest::collection::vec(deed(), 1..60)) {
        let directory = tempfile::tempdir().expect("a directory");
        follow(Disk::open(&directory.path().join("localnet.db")).expect("a database"), &deeds)?;
    }
}
