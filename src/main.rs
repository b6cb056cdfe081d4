//! The command `pigeonfs`.

fn main() {}
