//! The hazards of `thin-client-protocol.md` §6, one test each, named after it: what other clients suffer, and what a
//! daemon does that a client has to survive. Each test shows that ours does not have it. The daemon is a script, the
//! clock is paused.

mod connection;
mod daemon;
mod operations;
