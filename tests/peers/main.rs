//! Upstream's own clients against localnet.

#[path = "../common/mod.rs"]
mod common;

mod peers_upstream;
