//! From a record's bytes to the payloads of its boxes.
//!
//! A cutter remembers nothing of the boxes that it has cut: where a box ends follows from where it begins, the bytes
//! behind, its index and M. So the boxes are the same however often and wherever the work is taken up again.

use super::{Header, HeaderError, SyncKey};

/// Cuts one record into boxes. Positions count from the first byte of the header.
#[derive(Clone, Debug)]
pub struct Cutter {
    head: Vec<u8>,
    size: u64,
    max_plaintext: usize,
    header_alone: bool,
    key: SyncKey,
}

impl Cutter {
    /// For a record whose first box has the Idx64 `first`; its `sync` is set here. `header_alone`: nothing else is in the
    /// header's box.
    ///
    /// # Errors
    /// The header does not fit, or cannot be sent.
    pub fn new(
        header: &Header,
        first: u64,
        max_plaintext: usize,
        header_alone: bool,
        key: SyncKey,
    ) -> Result<Self, HeaderError> {
        let header = Header { sync: Some(key.at(first)), ..header.clone() };
        Ok(Self { head: header.encode(max_plaintext)?, size: header.size, max_plaintext, header_alone, key })
    }

    /// The header as it travels.
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// Bytes of the record, the header's with the body's.
    pub fn total(&self) -> u64 {
        self.head.len() as u64 + self.size
    }

    /// How many of the record's bytes [`Cutter::cut`] needs to see from `position` on, to be sure of `boxes` boxes.
    pub fn needs(&self, boxes: usize) -> usize {
        self.max_plaintext * (boxes + 1)
    }

    /// The payloads that the record's bytes from `position` on make, the first of them for the box with the Idx64
    /// `counter`. `bytes` are the record's from there on: to its end, or as many as there are at hand. The last box
    /// whose end does not show yet is left for the next call.
    pub fn cut<'a>(&self, position: u64, counter: u64, bytes: &'a [u8]) -> Vec<&'a [u8]> {
        let to_the_end = position + bytes.len() as u64 >= self.total();
        let (mut position, mut counter, mut rest) = (position, counter, bytes);
        let mut payloads = Vec::new();
        while !rest.is_empty() {
            let mut length = self.room(position).min(rest.len());
            let behind = rest.len() - length;
            if !to_the_end && behind < self.max_plaintext {
                break;
            }
            // The header stays whole: where it would be alone, it takes a byte of the body along instead.
            let grows = position == 0 && self.header_alone;
            while length > 1 && self.looks_like_a_record(counter.wrapping_add(1), &rest[length..]) {
                length = if grows { length + 1 } else { length - 1 };
            }
            let (payload, behind) = rest.split_at(length);
            payloads.push(payload);
            position += length as u64;
            counter = counter.wrapping_add(1);
            rest = behind;
        }
        payloads
    }

    fn room(&self, position: u64) -> usize {
        if position == 0 && self.header_alone { self.head.len() } else { self.max_plaintext }
    }

    fn looks_like_a_record(&self, counter: u64, bytes: &[u8]) -> bool {
        self.key.find(counter, &bytes[..bytes.len().min(self.max_plaintext)]).is_some()
    }
}
