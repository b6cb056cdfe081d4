//! What a sealed box is in the simulation: a stand-in of the right length, or a real one.

use crate::bacap::{BoxId, BoxIndex, Opened, SealedBox, WriteCap};

/// What a box is longer than its plaintext may be.
const OVERHEAD: usize = 20;

/// How boxes are made and opened.
pub(super) enum Boxes {
    /// Plaintext in a frame: cheap, so that there can be many runs. The law of index and bytes is the same.
    StandIn,
    /// BACAP, with the indices that were derived so far of each stream.
    Real(Vec<(WriteCap, Vec<BoxIndex>)>),
}

impl Boxes {
    pub(super) fn real(streams: usize) -> Self {
        let cap = |stream| WriteCap::from_seed(&[u8::try_from(stream).expect("few streams"); 32]);
        Self::Real((0..streams).map(|stream| (cap(stream), vec![cap(stream).index().clone()])).collect())
    }

    pub(super) fn id(&mut self, stream: usize, seq: u64) -> BoxId {
        match self {
            Self::StandIn => {
                let mut id = [7; 32];
                id[..8].copy_from_slice(&(stream as u64).to_be_bytes());
                id[8..16].copy_from_slice(&seq.to_be_bytes());
                BoxId(id)
            }
            Self::Real(streams) => {
                let (cap, index) = place(streams, stream, seq);
                cap.read_cap().box_id(&index)
            }
        }
    }

    /// # Panics
    /// If the plaintext is empty or does not fit: the caller has seen to that.
    pub(super) fn seal(&mut self, stream: usize, seq: u64, plaintext: &[u8], max: usize) -> SealedBox {
        assert!((1..=max).contains(&plaintext.len()), "{} bytes for a box of {max}", plaintext.len());
        match self {
            Self::StandIn => {
                let mut payload = vec![0; max + OVERHEAD];
                payload[0] = u8::try_from(plaintext.len()).expect("boxes are small here");
                payload[1..=plaintext.len()].copy_from_slice(plaintext);
                SealedBox { box_id: self.id(stream, seq), payload, signature: [1; 64] }
            }
            Self::Real(streams) => {
                let (cap, index) = place(streams, stream, seq);
                cap.seal(&index, plaintext, max).expect("it fits")
            }
        }
    }

    /// The plaintext of a box; `None` where it is none of its place.
    pub(super) fn open(&mut self, stream: usize, seq: u64, sealed: &SealedBox) -> Option<Vec<u8>> {
        match self {
            Self::StandIn => {
                let bytes = usize::from(*sealed.payload.first()?);
                (sealed.box_id == self.id(stream, seq)).then(|| sealed.payload[1..=bytes].to_vec())
            }
            Self::Real(streams) => {
                let (cap, index) = place(streams, stream, seq);
                match cap.read_cap().open(&index, sealed) {
                    Ok(Opened::Message(bytes)) => Some(bytes),
                    _ => None,
                }
            }
        }
    }
}

fn place(streams: &mut [(WriteCap, Vec<BoxIndex>)], stream: usize, seq: u64) -> (&WriteCap, BoxIndex) {
    let (cap, indices) = &mut streams[stream];
    let at = usize::try_from(seq).expect("short streams");
    while indices.len() <= at {
        let next = indices.last().expect("the first").next().expect("far from the end");
        indices.push(next);
    }
    (cap, indices[at].clone())
}
