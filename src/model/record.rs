//! A file in a drop: its number and its state.

/// A record's number in this state: those of one drop are in the order in which they were accepted or arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId(pub i64);

/// How far a record is. The first six are a writer's, the others a reader's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordState {
    /// No byte of it is in a box.
    Waiting,
    /// Some of it is.
    Filling,
    /// All of it is.
    Filled,
    /// Its boxes are to be deleted.
    Deleting,
    /// They are.
    Deleted,
    /// Its bytes could not be read to their end after a part of them was sent: it ends there, and readers see that it is
    /// broken.
    BrokenOff,
    /// It began to arrive.
    Incomplete,
    /// All of it has arrived, and its digest is right.
    Complete,
    /// It will never be complete, or is not what it was said to be.
    Broken,
}

impl RecordState {
    pub(crate) const fn code(self) -> i64 {
        match self {
            Self::Waiting => 0,
            Self::Filling => 1,
            Self::Filled => 2,
            Self::Deleting => 3,
            Self::Deleted => 4,
            Self::BrokenOff => 5,
            Self::Incomplete => 10,
            Self::Complete => 11,
            Self::Broken => 12,
        }
    }

    pub(crate) const fn from_code(code: i64) -> Option<Self> {
        Some(match code {
            0 => Self::Waiting,
            1 => Self::Filling,
            2 => Self::Filled,
            3 => Self::Deleting,
            4 => Self::Deleted,
            5 => Self::BrokenOff,
            10 => Self::Incomplete,
            11 => Self::Complete,
            12 => Self::Broken,
            _ => return None,
        })
    }
}
