//! The mount: the only room that names `fuser` types.
