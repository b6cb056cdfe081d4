//! What `pigeonfs --version` tells beside the number: enough to know what a report is about.

/// A line each for the commit, SQLite, the protocols and the features.
pub(super) fn text() -> String {
    format!(
        "{}\ncommit    {}\nSQLite    {}\nprotocol  kpclientd thin client, status schema {}\nfeatures  {}",
        env!("CARGO_PKG_VERSION"),
        env!("PIGEONFS_COMMIT"),
        crate::store::sqlite_version(),
        crate::engine::status::STATUS_VERSION,
        features().join(" "),
    )
}

fn features() -> Vec<&'static str> {
    let all = [
        ("thin", cfg!(feature = "thin")),
        ("localnet", cfg!(feature = "localnet")),
        ("engine", cfg!(feature = "engine")),
        ("mount", cfg!(feature = "mount")),
        ("cli", cfg!(feature = "cli")),
        ("websocket", cfg!(feature = "websocket")),
    ];
    all.into_iter().filter_map(|(name, is_on)| is_on.then_some(name)).collect()
}
