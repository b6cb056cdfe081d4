//! The engine: drives the channel machines with the thin client and the store, and answers the verbs.
