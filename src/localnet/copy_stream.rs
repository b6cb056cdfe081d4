//! The copy stream: how envelopes are packed into the boxes of a temporary stream, and how a courier gets them out again.
//!
//! Each envelope goes behind its length; the bytes are cut into elements of one box each, whatever an envelope's borders
//! are. Pure: bytes in, bytes out. Source: `pigeonhole-internals.md` §2.5, §3.1, §5.1, §5.2.

use super::envelope::OVERHEAD;

/// Flag of a stream's first element.
const START: u8 = 1;
/// Flag of a stream's last element.
const FINAL: u8 = 2;
/// Flags and length before an element's bytes.
const ELEMENT_HEAD: usize = 5;
/// A courier reads so many boxes of a stream, and takes so many envelopes out of it.
const MOST: usize = 65_536;

/// Envelopes in, elements out.
pub(super) struct Encoder {
    /// Bytes of one full element.
    capacity: usize,
    /// What no element has yet.
    buffer: Vec<u8>,
    /// Whether the next element is the stream's first.
    start: bool,
}

impl Encoder {
    /// An encoder for boxes of `max_plaintext`, which goes on where `buffer` was left.
    pub(super) fn new(max_plaintext: usize, start: bool, buffer: &[u8]) -> Self {
        Self { capacity: max_plaintext - ELEMENT_HEAD, buffer: buffer.to_vec(), start }
    }

    /// Takes one envelope, and gives the elements that are full with it.
    pub(super) fn push(&mut self, envelope: &[u8]) -> Vec<Vec<u8>> {
        let length = u32::try_from(envelope.len()).expect("an envelope is little longer than a box");
        self.buffer.extend(length.to_be_bytes());
        self.buffer.extend(envelope);
        self.full()
    }

    /// Ends a call: the elements that are left, of which the last one is marked where the stream `ends` too. A stream
    /// that never had an envelope has no element, and so no end.
    pub(super) fn flush(mut self, ends: bool) -> Vec<Vec<u8>> {
        let mut elements = self.full();
        if !self.buffer.is_empty() {
            let rest = std::mem::take(&mut self.buffer);
            elements.push(self.element(&rest, if ends { FINAL } else { 0 }));
        }
        elements
    }

    /// Ends a call whose stream goes on: the full elements that a long buffer still held, and the bytes to pass on.
    pub(super) fn suspend(mut self) -> (Vec<Vec<u8>>, Vec<u8>) {
        (self.full(), self.buffer)
    }

    /// Cuts off what is full, so that at least one byte stays for the flush.
    fn full(&mut self) -> Vec<Vec<u8>> {
        let mut elements = Vec::new();
        let mut at = 0;
        while self.buffer.len() - at > self.capacity {
            let bytes = self.buffer[at..at + self.capacity].to_vec();
            elements.push(self.element(&bytes, 0));
            at += self.capacity;
        }
        self.buffer.drain(..at);
        elements
    }

    fn element(&mut self, bytes: &[u8], flags: u8) -> Vec<u8> {
        let start = if std::mem::take(&mut self.start) { START } else { 0 };
        let length = u32::try_from(bytes.len()).expect("an element fits a box").to_be_bytes();
        [&[flags | start][..], &length, bytes].concat()
    }
}

/// What is wrong with a copy stream. A courier reports any of it as a failure with no replica's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum StreamError {
    #[error("an element is longer than a box")]
    Element,
    #[error("an envelope is longer than a query")]
    Envelope,
    #[error("there are more than {MOST} boxes or envelopes")]
    TooMany,
}

/// The plaintexts of boxes in, in their order; envelopes out.
pub(super) struct Decoder {
    max_plaintext: usize,
    /// Bytes of boxes that are no whole element yet.
    elements: Vec<u8>,
    /// Bytes of elements that are no whole envelope yet.
    envelopes: Vec<u8>,
    boxes: usize,
    taken: usize,
    finished: bool,
}

impl Decoder {
    /// A decoder for boxes of `max_plaintext`.
    pub(super) fn new(max_plaintext: usize) -> Self {
        Self { max_plaintext, elements: Vec::new(), envelopes: Vec::new(), boxes: 0, taken: 0, finished: false }
    }

    /// Takes the plaintext of the next box, and gives the envelopes that are whole with it: each what follows the type in
    /// a courier query. What comes after the end of the stream is passed over.
    ///
    /// The envelopes before an error in the same box are lost with it, as at a courier.
    pub(super) fn feed(&mut self, plaintext: &[u8]) -> Result<Vec<Vec<u8>>, StreamError> {
        if self.finished {
            return Ok(Vec::new());
        }
        self.boxes += 1;
        self.elements.extend(plaintext);
        let mut rest = &self.elements[..];
        while let Some((&flags, behind)) = rest.split_first()
            && let Some((data, behind)) = prefixed(behind, self.max_plaintext - ELEMENT_HEAD, StreamError::Element)?
        {
            self.envelopes.extend(data);
            rest = behind;
            // Whether a stream begins with the flag for it, nobody checks.
            if flags & FINAL != 0 {
                self.finished = true;
                break;
            }
        }
        self.elements.drain(..self.elements.len() - rest.len());

        let mut envelopes = Vec::new();
        let mut rest = &self.envelopes[..];
        while let Some((envelope, behind)) = prefixed(rest, self.max_plaintext + OVERHEAD, StreamError::Envelope)? {
            envelopes.push(envelope.to_vec());
            rest = behind;
        }
        self.envelopes.drain(..self.envelopes.len() - rest.len());
        self.taken += envelopes.len();
        if self.boxes > MOST || self.taken > MOST {
            return Err(StreamError::TooMany);
        }
        Ok(envelopes)
    }

    /// Whether the stream's last element was seen.
    pub(super) fn finished(&self) -> bool {
        self.finished
    }

    /// Bytes that no whole envelope came of: at the end of a stream, a fault of whoever made it.
    pub(super) fn left_over(&self) -> usize {
        self.elements.len() + self.envelopes.len()
    }
}

type Parted<'a> = (&'a [u8], &'a [u8]);

/// The bytes behind a length, and what follows them; `None` while they are not all there.
fn prefixed(bytes: &[u8], most: usize, beyond: StreamError) -> Result<Option<Parted<'_>>, StreamError> {
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
    match usize::try_from(u32::from_be_bytes(*length)) {
        Ok(length) if length <= most => Ok(rest.split_at_checked(length)),
        _ => Err(beyond),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const M: usize = 1549;

    /// The elements of a payload, its envelopes filled with the number of their chunk.
    fn stream(payload: usize) -> (usize, Vec<Vec<u8>>) {
        let mut encoder = Encoder::new(M, true, &[]);
        let envelopes = payload.div_ceil(M - 4);
        let mut elements = Vec::new();
        for number in 0..envelopes {
            elements.extend(encoder.push(&vec![u8::try_from(number % 251).expect("small"); M + 450]));
        }
        elements.extend(encoder.flush(true));
        (envelopes, elements)
    }

    #[test]
    fn a_payload_makes_as_many_envelopes_and_elements_as_upstream_counted() {
        for (payload, envelopes, elements) in
            [(0, 0, 0), (1, 1, 2), (1545, 1, 2), (1546, 2, 3), (65_540, 43, 56), (10 << 20, 6787, 8805)]
        {
            let (made, stream) = stream(payload);
            assert_eq!((made, stream.len()), (envelopes, elements), "{payload} bytes");
            assert!(stream.iter().all(|element| element.len() <= M));
        }
    }

    #[test]
    fn the_first_and_the_last_element_are_marked() {
        let flags = |elements: &[Vec<u8>]| elements.iter().map(|element| element[0]).collect::<Vec<_>>();
        assert_eq!(flags(&stream(1546).1), [START, 0, FINAL]);
        let one = |start, ends| {
            let mut encoder = Encoder::new(M, start, &[]);
            assert!(encoder.push(&[7; 100]).is_empty());
            flags(&encoder.flush(ends))
        };
        assert_eq!((one(true, true), one(false, true)), (vec![START | FINAL], vec![FINAL]));
        assert_eq!((one(true, false), one(false, false)), (vec![START], vec![0]));
    }

    #[test]
    fn an_element_is_cut_off_only_where_a_byte_stays_for_the_last_one() {
        let mut encoder = Encoder::new(M, true, &[]);
        assert!(encoder.push(&vec![1; M - 9]).is_empty(), "exactly one element, kept for the flush");
        let mut over = Encoder::new(M, true, &[]);
        assert_eq!(over.push(&vec![1; M - 8]).len(), 1);
        assert_eq!((encoder.flush(true).len(), over.flush(true).len()), (1, 1));
    }

    #[test]
    fn what_is_no_copy_stream_is_refused_and_what_is_cut_short_waits() {
        let element = |flags: u8, length: u32, bytes: &[u8]| [&[flags][..], &length.to_be_bytes(), bytes].concat();
        assert_eq!(Decoder::new(M).feed(&element(1, 1545, &[0; 1544])), Err(StreamError::Element));
        assert_eq!(Decoder::new(M).feed(&element(1, u32::MAX, &[])), Err(StreamError::Element));
        assert_eq!(Decoder::new(M).feed(&element(1, 4, &2001_u32.to_be_bytes())), Err(StreamError::Envelope));
        let mut decoder = Decoder::new(M);
        assert_eq!(decoder.feed(&element(3, 6, &[0, 0, 0, 9, 1, 2])), Ok(Vec::new()));
        assert!(decoder.finished() && decoder.left_over() == 6);
        let mut endless = Decoder::new(M);
        let empty = element(0, 0, &[]);
        assert!((0..MOST).all(|_| endless.feed(&empty) == Ok(Vec::new())));
        assert_eq!(endless.feed(&empty), Err(StreamError::TooMany));
    }

    proptest! {
        #[test]
        fn envelopes_come_out_as_they_went_in_however_the_calls_were_cut(
            calls in prop::collection::vec(prop::collection::vec(prop::collection::vec(any::<u8>(), 0..120), 0..6), 1..6),
            max_plaintext in 10_usize..60,
        ) {
            let (mut elements, mut buffer) = (Vec::new(), Vec::new());
            for (number, call) in calls.iter().enumerate() {
                let mut encoder = Encoder::new(max_plaintext, number == 0 && elements.is_empty(), &buffer);
                call.iter().for_each(|envelope| elements.extend(encoder.push(envelope)));
                if number + 1 == calls.len() {
                    elements.extend(encoder.flush(true));
                } else {
                    let (full, rest) = encoder.suspend();
                    elements.extend(full);
                    buffer = rest;
                }
            }
            let sent: Vec<_> = calls.concat();
            let mut decoder = Decoder::new(max_plaintext);
            let mut got = Vec::new();
            for element in &elements {
                prop_assert!(element.len() <= max_plaintext && !decoder.finished());
                got.extend(decoder.feed(element).expect("our own"));
            }
            prop_assert_eq!(decoder.finished(), !sent.is_empty());
            prop_assert_eq!((&got, decoder.left_over()), (&sent, 0));
        }
    }
}
