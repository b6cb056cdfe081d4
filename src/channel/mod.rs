//! The channel machines: events and a time go in, actions come out. No I/O, no clock, no async.
