//! Records that are parts of one file, whose length was not known when the first of them was sent.

use super::{Part, Total};

/// What stands between a file's name and the number of a part.
const INFIX: &str = ".part-";
/// Bytes of the body of a part, as we send them; the last has what is left.
pub const PART_BYTES: usize = 1 << 20;

/// The name of a part, for those who fetch parts one by one.
pub fn part_name(name: &str, number: u32) -> String {
    format!("{name}{INFIX}{number:05}")
}

/// The name of the file that a part belongs to.
pub fn whole_name(part: &str) -> &str {
    match part.rsplit_once(INFIX) {
        Some((name, number)) if !name.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => part,
    }
}

/// How a chain stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// All parts are there. Their bytes are still to be held against the digest.
    Whole(Total),
    /// This part, the first of those, is not there.
    Missing {
        /// The part.
        part: u32,
    },
    /// The parts do not add up to what the last of them says.
    Wrong {
        /// Bytes that there are.
        bytes: u64,
        /// Bytes that were promised.
        promised: u64,
    },
}

/// How far the parts of a chain that are complete go without a gap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    parts: u32,
    bytes: u64,
}

impl Progress {
    /// The first part that is not there.
    pub fn next(&self) -> u32 {
        self.parts.saturating_add(1)
    }

    /// Takes complete parts in the order of their numbers, with the sizes of their bodies: all from [`Progress::next`]
    /// on that there are. Of several with one number the first counts.
    pub fn take(&mut self, parts: impl IntoIterator<Item = (Part, u64)>) -> Standing {
        for (part, size) in parts {
            let next = self.next();
            if part.number == next {
                self.bytes = self.bytes.saturating_add(size);
                self.parts = next;
                match part.last {
                    Some(total) if total.size == self.bytes => return Standing::Whole(total),
                    Some(total) => return Standing::Wrong { bytes: self.bytes, promised: total.size },
                    None => {}
                }
            } else if part.number > next {
                break;
            }
        }
        Standing::Missing { part: self.next() }
    }
}
