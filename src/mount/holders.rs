//! Who uses a mount: the processes that have files of it open, and those in whose mount namespace a copy of it is.
//!
//! Only what this process may see of others in /proc is told: a user sees the user's own.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use super::mounts;

/// Processes that an error names at most.
const NAMED: usize = 5;

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its number.
    pub process: u32,
    /// What it is called.
    pub name: String,
}

/// The processes that use a mount, as far as they can be seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holders(pub Vec<Holder>);

impl fmt::Display for Holders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, Holder { process, name }) in self.0.iter().take(NAMED).enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            // A program names itself as it likes.
            write!(f, "{comma}process {process} ({})", name.escape_debug())?;
        }
        match self.0.len().saturating_sub(NAMED) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// Those with a file, or their current directory, below a mount point of this namespace.
pub(super) fn with_files_below(point: &Path) -> Holders {
    let is_below = |link: PathBuf| fs::read_link(link).is_ok_and(|target| target.starts_with(point));
    let uses = |process: &Path| {
        let open = fs::read_dir(process.join("fd")).into_iter().flatten().flatten().map(|entry| entry.path());
        ["cwd", "root", "exe"].map(|name| process.join(name)).into_iter().chain(open).any(is_below)
    };
    Holders(processes().filter(|(_, path)| uses(path)).map(|(process, path)| holder(process, &path)).collect())
}

/// Whether a process of this mount namespace has a file of the device open, or mapped. The device is not asked: it need
/// not be mounted any more, and may be served by this process.
pub(super) fn has_files_here(device: &str) -> bool {
    let is_of_device = |link: PathBuf| {
        let found = statx(CWD, link, AtFlags::STATX_DONT_SYNC, StatxFlags::TYPE);
        found.is_ok_and(|found| format!("{}:{}", found.stx_dev_major, found.stx_dev_minor) == device)
    };
    let has_file = |process: &Path| {
        let open = ["fd", "map_files"].map(|name| fs::read_dir(process.join(name)).into_iter().flatten().flatten());
        open.into_iter().flatten().any(|entry| is_of_device(entry.path()))
    };
    let Some(ours) = namespace(Path::new("/proc/self")) else { return false };
    processes().any(|(_, path)| namespace(&path).is_some_and(|theirs| theirs == ours) && has_file(&path))
}

/// One process of each other mount namespace that has a mount of this device.
pub(super) fn in_other_namespaces(device: &str) -> Holders {
    let Some(ours) = namespace(Path::new("/proc/self")) else { return Holders::default() };
    let mut seen = vec![ours];
    let mut holders = Vec::new();
    for (process, path) in processes() {
        let Some(theirs) = namespace(&path).filter(|theirs| !seen.contains(theirs)) else { continue };
        let table = fs::read(path.join("mountinfo")).unwrap_or_default();
        if mounts::has_device(&table, device) {
            holders.push(holder(process, &path));
        }
        seen.push(theirs);
    }
    Holders(holders)
}

fn namespace(process: &Path) -> Option<PathBuf> {
    fs::read_link(process.join("ns/mnt")).ok()
}

fn processes() -> impl Iterator<Item = (u32, PathBuf)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
}

fn holder(process: u32, path: &Path) -> Holder {
    let name = fs::read(path.join("comm")).unwrap_or_default();
    Holder { process, name: OsStr::from_bytes(name.trim_ascii_end()).to_string_lossy().into_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_a_file_open_below_is_found_and_nobody_else() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(with_files_below(dir.path()), Holders::default());
        let _open = fs::File::create(dir.path().join("f")).expect("made");
        let found = with_files_below(dir.path());
        assert!(found.0.iter().any(|holder| holder.process == std::process::id()), "{found}");
    }

    #[test]
    fn what_is_open_or_mapped_is_found_by_its_device() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = fs::File::create(dir.path().join("f")).expect("made");
        let found = statx(&file, "", AtFlags::EMPTY_PATH, StatxFlags::TYPE).expect("a file");
        assert!(has_files_here(&format!("{}:{}", found.stx_dev_major, found.stx_dev_minor)));
        assert!(!has_files_here("4095:1048575"));
    }

    #[test]
    fn only_some_are_named() {
        let many = (1..=9).map(|process| Holder { process, name: "a\tb".to_owned() }).collect();
        let text = Holders(many).to_string();
        assert!(text.starts_with("process 1 (a\\tb), process 2") && text.ends_with("and 4 more"), "{text}");
    }
}
