//! The network's own directory: one process has it, and clients find the network by what stands in it.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::LocalnetError;
use crate::thin::{Address, Config};

pub(super) fn lock(path: &Path) -> Result<File, LocalnetError> {
    let told = |error| LocalnetError::State { path: path.to_owned(), error };
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(told)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).map_err(told)?;
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path.join("lock"))
        .map_err(told)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(LocalnetError::Busy { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => Err(told(error)),
    }
}

/// Written whole or not at all: a client that looks at any moment finds a configuration.
pub(super) fn write_config(path: &Path, address: &Address) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = path.with_file_name(name);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    file.write_all(Config::new(address.clone()).to_toml().as_bytes())?;
    std::fs::rename(&new, path)
}
