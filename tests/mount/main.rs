//! A real mount: its life cycle, its semantics call by call, the tools that people use on it, and its load.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/mounted.rs"]
mod mounted;
#[path = "../common/tree.rs"]
mod tree;

mod drop_mount;
mod interrupts;
mod lifecycle;
mod load;
mod model;
mod mount_basic;
mod packed;
mod semantics;
mod surroundings;
mod tools;
mod unfinished;
