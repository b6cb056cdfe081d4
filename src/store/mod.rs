//! The state on disk: SQLite, one writer with group commit. The only room of the mount's side that writes SQL.
