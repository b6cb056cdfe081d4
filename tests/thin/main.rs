//! The thin client and the daemon of localnet: calls, sessions, hazards, recorded conversations, hostile bytes.

#[path = "../common/peer.rs"]
#[allow(dead_code, unreachable_pub)] // Each test uses a part of it.
mod peer;

mod exchange;
mod fuzz;
mod hazards;
mod localnet_ctl;
mod localnet_wire;
mod recorded;
mod thin_api;
mod thin_session;
