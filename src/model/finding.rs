//! What the network holds at an index of a channel that is adopted.

/// What the network holds at an index of ours.
#[derive(Clone, PartialEq, Eq)]
pub enum Finding {
    /// No replica has anything.
    Nothing,
    /// What we wrote.
    Ours,
    /// No bytes, for ever: another writer's, as this store orders one only where a replica has confirmed ours.
    Tombstone,
    /// What another writer wrote: a payload, never empty.
    Foreign(Vec<u8>),
}

impl std::fmt::Debug for Finding {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nothing => out.write_str("Nothing"),
            Self::Ours => out.write_str("Ours"),
            Self::Tombstone => out.write_str("Tombstone"),
            Self::Foreign(bytes) => write!(out, "Foreign({} bytes)", bytes.len()),
        }
    }
}
