//! The command: what was typed, turned into what is meant. One file a verb.
