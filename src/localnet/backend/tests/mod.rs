//! Scenarios in virtual time: what couriers, replicas and copy commands do, rule by rule.

mod copying;
mod couriers;
mod model;
mod restarts;
mod shards;

use super::*;
use crate::localnet::replica;

const M: usize = 60;
/// Some Friday.
const T0: Duration = Duration::from_secs(1_795_800_000);
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
const MINUTE: Duration = Duration::from_secs(60);

fn identity() -> Identity {
    Identity { envelope_key: [5; 32], authority_key: [6; 32], courier_key: [7; 32] }
}

/// A network behind a mixnet, and a channel's writer.
struct World<S = Memory> {
    backend: Backend<S>,
    now: Duration,
    cap: WriteCap,
    serial: u64,
}

impl World {
    fn new(profile: &Profile) -> Self {
        Self::over(Memory::default(), profile, 1)
    }
}

impl<S: BoxStore> World<S> {
    fn over(store: S, profile: &Profile, seed: u64) -> Self {
        let backend = Backend::new(store, M, profile, &identity(), seed);
        Self { backend, now: T0, cap: WriteCap::from_seed(&[1; 32]), serial: 0 }
    }

    /// The box of a number, with a text in it.
    fn sealed(&self, number: u64, text: &str) -> SealedBox {
        let index = self.cap.index().advance_to(self.cap.index().counter() + number).expect("ahead");
        self.cap.seal(&index, text.as_bytes(), M).expect("it fits")
    }

    fn tombstone(&self, number: u64) -> SealedBox {
        self.cap.tombstone(&self.cap.index().advance_to(self.cap.index().counter() + number).expect("ahead"))
    }

    /// A fresh envelope to the two replicas of these numbers.
    fn query(&mut self, inner: Inner, replicas: [u8; 2]) -> Query {
        self.serial += 1;
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&self.serial.to_be_bytes());
        Query { epoch: replica_epoch(self.now), hash, replicas, reply_index: 0, inner }
    }

    fn read_query(&mut self, box_id: BoxId) -> Query {
        self.query(Inner::Read(box_id), [0, 1])
    }

    fn holders(&self, box_id: &BoxId) -> [u8; 2] {
        shard::holders(&self.backend.keys, box_id).map(|number| u8::try_from(number).expect("few"))
    }

    /// The envelope reaches courier 0.
    fn send(&mut self, query: &Query) -> CourierAnswer {
        self.backend.envelope(self.now, 0, query, true)
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.backend.advance(self.now);
    }

    /// What the replicas make of an envelope, as a client that polls once learns it.
    fn verdict(&mut self, query: &Query) -> CourierAnswer {
        self.send(query);
        self.pass(MINUTE / 2);
        self.send(query)
    }

    fn write(&mut self, sealed: &SealedBox) -> CourierAnswer {
        let query = self.query(Inner::Write(sealed.clone()), [0, 1]);
        self.verdict(&query)
    }

    fn read(&mut self, box_id: BoxId) -> CourierAnswer {
        let query = self.read_query(box_id);
        self.verdict(&query)
    }
}

fn coded(code: u8) -> CourierAnswer {
    CourierAnswer::Payload { code, sealed: None }
}

fn found(sealed: &SealedBox) -> CourierAnswer {
    let code = if sealed.payload.is_empty() { replica::TOMBSTONE } else { replica::SUCCESS };
    CourierAnswer::Payload { code, sealed: Some(sealed.clone()) }
}
