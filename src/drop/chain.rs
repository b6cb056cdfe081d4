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
    /// This part, the first of those, is not there; of how many parts, where that is known.
    Missing {
        /// The part.
        part: u32,
        /// The last part's number.
        of: Option<u32>,
    },
    /// The parts do not add up to what the last of them says.
    Wrong {
        /// Bytes that there are.
        bytes: u64,
        /// Bytes that were promised.
        promised: u64,
    },
}

/// How a chain stands of which these parts are complete, in the order of their numbers, with the sizes of their bodies. Of
/// several with one number the first counts. Parts behind the last one are ignored.
pub fn standing(parts: impl IntoIterator<Item = (Part, u64)>) -> Standing {
    let (mut next, mut bytes) = (1_u32, 0_u64);
    let mut gap = None;
    for (part, size) in parts {
        if gap.is_none() && part.number == next {
            bytes = bytes.saturating_add(size);
            match part.last {
                Some(total) if total.size == bytes => return Standing::Whole(total),
                Some(total) => return Standing::Wrong { bytes, promised: total.size },
                None => next = next.saturating_add(1),
            }
        } else if part.number > next {
            gap = gap.or(Some(next));
            if part.last.is_some() {
                return Standing::Missing { part: next, of: Some(part.number) };
            }
        }
    }
    Standing::Missing { part: next, of: None }
}
