//! The engine over an embedded network, in the process of the test.

mod daemons;
mod drop_engine;
mod engine_delivery;
mod library;
mod strangers;
