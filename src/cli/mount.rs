//! `pigeonfs mount`
