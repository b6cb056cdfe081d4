//! pigeonfs: Pigeonhole channels of the Katzenpost mixnet, mounted as files.

pub mod thin;
