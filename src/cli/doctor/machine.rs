//! What the machine has and does.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::{DumpableBehavior, Resource, dumpable_behavior, geteuid, getrlimit};

use super::Check;
use crate::text::shown_path;
use crate::units::show_date;

/// No clock that is right shows less: the beginning of 2026.
const EARLIEST: u64 = 1_767_225_600;

pub(super) fn checks() -> Vec<Check> {
    let mut checks = vec![device(), helper(), allow_other(), memory(), swap(), indexers()];
    checks.extend(desktop_indexers());
    checks.extend([clock(), sandbox()]);
    checks
}

fn device() -> Check {
    match OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        Ok(_) => Check::ok("fuse", "/dev/fuse can be opened"),
        Err(error) => Check::todo(
            "fuse",
            format!("/dev/fuse cannot be opened: {error}"),
            "load the module `fuse`, or give the container the device; `append`, `read`, `send` and `receive` do without",
        ),
    }
}

fn helper() -> Check {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|directory| directory.join("fusermount3")).find(|path| path.is_file());
    match found {
        Some(path) => Check::ok("fusermount3", shown_path(&path)),
        None if geteuid().is_root() => Check::note("fusermount3", "not installed; root mounts without it"),
        None => Check::todo("fusermount3", "not in $PATH", "install the package fuse3: a user cannot mount without it"),
    }
}

fn allow_other() -> Check {
    let text = fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
    match text.lines().any(|line| line.trim() == "user_allow_other") {
        true => Check::note("user_allow_other", "set in /etc/fuse.conf: a user may mount with --allow-other"),
        false => Check::note("user_allow_other", "not set: a user cannot mount with --allow-other, which few need"),
    }
}

/// This process stands for all of ours.
fn memory() -> Check {
    let core = getrlimit(Resource::Core);
    // Of all kinds of memory, none; where there is no /proc, nobody can take a core there either.
    let filter = fs::read_to_string("/proc/self/coredump_filter").unwrap_or_else(|_| "0".to_owned());
    let is_left_out = u32::from_str_radix(filter.trim(), 16) == Ok(0);
    let kept = dumpable_behavior().is_ok_and(|behavior| matches!(behavior, DumpableBehavior::NotDumpable));
    match kept && is_left_out && core.maximum == Some(0) {
        true => Check::ok(
            "core dumps",
            "none: the memory of this program is in no core file, and closed to other processes",
        ),
        false => {
            Check::todo("core dumps", "this program's memory may get into core files", "report this: it is a fault")
        }
    }
}

fn swap() -> Check {
    let table = fs::read_to_string("/proc/swaps").unwrap_or_default();
    let spaces: Vec<PathBuf> =
        table.lines().skip(1).filter_map(|line| line.split_whitespace().next()).map(PathBuf::from).collect();
    let open: Vec<String> = spaces.iter().filter(|space| !is_safe_swap(space)).map(|space| shown_path(space)).collect();
    match (spaces.is_empty(), open.is_empty()) {
        (true, _) => Check::ok("swap", "none"),
        (_, true) => Check::ok("swap", "in memory, or encrypted"),
        _ => Check::todo(
            "swap",
            format!("{} is not seen to be encrypted: what is in memory may get onto the disk", open.join(", ")),
            "encrypt it (a random key in /etc/crypttab), or use zram",
        ),
    }
}

fn is_safe_swap(space: &Path) -> bool {
    if space.file_name().is_some_and(|name| name.to_string_lossy().starts_with("zram")) {
        return true;
    }
    let number = match fs::metadata(space) {
        Ok(found) if std::os::unix::fs::FileTypeExt::is_block_device(&found.file_type()) => {
            std::os::unix::fs::MetadataExt::rdev(&found)
        }
        Ok(found) => std::os::unix::fs::MetadataExt::dev(&found),
        Err(_) => return false,
    };
    is_encrypted(number)
}

/// Whether a block device is encrypted, or lies on one that is.
pub(super) fn is_encrypted(number: u64) -> bool {
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    is_encrypted_at(&PathBuf::from(format!("/sys/dev/block/{major}:{minor}")), 8)
}

fn is_encrypted_at(device: &Path, depth: u8) -> bool {
    if fs::read_to_string(device.join("dm/uuid")).is_ok_and(|uuid| uuid.starts_with("CRYPT-")) {
        return true;
    }
    let Ok(below) = fs::read_dir(device.join("slaves")) else { return false };
    let below: Vec<_> = below.flatten().map(|entry| entry.path()).collect();
    depth > 0 && !below.is_empty() && below.iter().all(|device| is_encrypted_at(device, depth - 1))
}

fn indexers() -> Check {
    let Ok(text) = fs::read_to_string("/etc/updatedb.conf") else {
        return Check::ok("indexers", "no locate that would crawl a mount");
    };
    let prunes = |line: &str| line.trim_start().starts_with("PRUNEFS") && line.contains("fuse.pigeonfs");
    match text.lines().any(prunes) {
        true => Check::ok("indexers", "locate leaves mounts out"),
        false => Check::todo(
            "indexers",
            "locate would read a mount as root, and keep its names in a database of its own",
            "add fuse.pigeonfs to PRUNEFS in /etc/updatedb.conf",
        ),
    }
}

/// Indexers of desktops read what is below a person's directories for documents, pictures and the like.
fn desktop_indexers() -> Vec<Check> {
    const PLACES: [&str; 4] = ["/usr/libexec", "/usr/lib", "/usr/bin", "/usr/lib/x86_64-linux-gnu/libexec/kf6"];
    const PROGRAMS: [&str; 4] = ["localsearch-3", "tracker-miner-fs-3", "baloo_file", "baloo_file_extractor"];
    let is_there = |program: &&&str| PLACES.iter().any(|place| Path::new(place).join(program).exists());
    let found = PROGRAMS.iter().find(is_there);
    let told = |program| {
        let text = format!(
            "{program} keeps names and contents of what it reads in a database of its own: mount outside of the directories \
             that it indexes, such as Documents. What it reads causes no traffic"
        );
        Check::note("indexers", text)
    };
    found.map(told).into_iter().collect()
}

fn clock() -> Check {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    match now >= EARLIEST {
        true => Check::ok("clock", show_date(now)),
        false => Check::todo(
            "clock",
            format!("it shows {}, which is past", show_date(now)),
            "set it: the daemon finds no network with it",
        ),
    }
}

fn sandbox() -> Check {
    Check::note(
        "sandbox",
        "there is no landlock: with it a mount could not tell a writer that was killed from one that ended",
    )
}
