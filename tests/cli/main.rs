//! The program as a person runs it: verbs, exit codes, what is printed, and what is on the disk after it was killed.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/tree.rs"]
mod tree;

mod cli_help;
mod cli_verbs;
mod configuration;
mod contacts;
mod daemons;
mod drop_expired;
mod drop_interop;
mod drop_kills;
mod drop_verbs;
mod e2e_adopt;
mod e2e_crash;
mod e2e_disk;
mod e2e_errors;
mod e2e_holes;
mod e2e_round_trip;
mod e2e_secrets;
mod e2e_state;
mod handover;
mod keeping;
mod kills;
mod localnet_verb;
mod readme_tour;
mod schemas;
mod sealed;
mod security;
mod terminal;
mod traffic;
mod wrong_use;
