//! What is mounted where, as the kernel says it. Others may have mounted at paths that are no UTF-8, so the table is read
//! as bytes.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The type under which our mounts stand in the mount table, whoever made them.
pub(super) const KIND: &str = "fuse.pigeonfs";

/// A line of the mount table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mounted {
    pub(super) point: PathBuf,
    pub(super) kind: String,
    /// The number of the device behind it: each FUSE connection has its own.
    pub(super) device: String,
    /// Whose process serves it, where it is a FUSE mount.
    pub(super) user: Option<u32>,
}

impl Mounted {
    pub(super) fn is_ours(&self) -> bool {
        self.kind == KIND
    }
}

/// The topmost mount at exactly this path, which must be absolute and without links.
pub(super) fn at(path: &Path) -> Option<Mounted> {
    topmost(&table()?, path)
}

/// Where a device is mounted and nothing covers it. More than one place where somebody bound it to another.
pub(super) fn of_device(device: &str) -> Vec<PathBuf> {
    let Some(table) = table() else { return Vec::new() };
    let is_on_top = |mounted: &Mounted| topmost(&table, &mounted.point).is_some_and(|top| top.device == device);
    let mounts = lines(&table).filter(|mounted| mounted.device == device);
    mounts.filter(is_on_top).map(|mounted| mounted.point).collect()
}

/// The mount of this number, as a descriptor of it has it in fdinfo.
pub(super) fn of_number(number: &str) -> Option<Mounted> {
    let table = table()?;
    let mut lines = table.split(|&byte| byte == b'\n');
    lines.find(|line| line.split(|&byte| byte == b' ').next() == Some(number.as_bytes())).and_then(line)
}

/// Whether a device is still mounted somewhere in this namespace. After all of [`of_device`] went, something covers it.
/// Where that cannot be known it is.
pub(super) fn is_mounted(device: &str) -> bool {
    table().is_none_or(|table| has_device(&table, device))
}

/// Whether a device is mounted by this table.
pub(super) fn has_device(table: &[u8], device: &str) -> bool {
    lines(table).any(|mounted| mounted.device == device)
}

fn table() -> Option<Vec<u8>> {
    std::fs::read("/proc/self/mountinfo").ok()
}

fn topmost(table: &[u8], path: &Path) -> Option<Mounted> {
    lines(table).filter(|mounted| mounted.point == path).last()
}

fn lines(table: &[u8]) -> impl Iterator<Item = Mounted> {
    table.split(|&byte| byte == b'\n').filter_map(line)
}

fn line(line: &[u8]) -> Option<Mounted> {
    let mut fields = line.split(|&byte| byte == b' ').skip(2);
    let (device, _root, point) = (fields.next()?, fields.next()?, fields.next()?);
    let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
    let (kind, _source, options) = (rest.next()?, rest.next()?, rest.next()?);
    let user = options.split(|&byte| byte == b',').find_map(|option| option.strip_prefix(b"user_id="));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some(Mounted {
        point: unescape(point),
        kind: text(kind),
        device: text(device),
        user: user.and_then(|user| text(user).parse().ok()),
    })
}

/// The table writes blanks and backslashes as three octal digits.
fn unescape(bytes: &[u8]) -> PathBuf {
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let octal = bytes.get(at + 1..at + 4).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(|_| bytes[at] == b'\\') {
            Some(byte) => {
                plain.push(byte);
                at += 4;
            }
            None => {
                plain.push(bytes[at]);
                at += 1;
            }
        }
    }
    PathBuf::from(OsString::from_vec(plain))
}

/// The path as the table has it: without links, but never looked at itself where a mount stands there, for a dead one
/// cannot be looked at, and one that hangs would take us with it.
pub(super) fn absolute(path: &Path) -> std::io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    let beside = match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => parent.canonicalize()?.join(name),
        _ => return path.canonicalize(),
    };
    if at(&beside).is_some() { Ok(beside) } else { beside.canonicalize() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"30 1 8:1 / / rw - ext4 /dev/vda rw\n\
         41 30 0:40 / /home/a\\040b rw - tmpfs tmpfs rw\n\
         42 30 0:41 / /home/a\\040b rw,nosuid shared:3 - fuse.pigeonfs pigeonfs rw,user_id=7,group_id=7\n\
         43 30 0:41 / /bound rw - fuse.pigeonfs pigeonfs rw,user_id=7\n\
         44 30 0:42 / /caf\xe9 rw - tmpfs caf\xe9 rw\n\
         45 30 0:43 / /other rw - fuse.sshfs host: rw,user_id=7\n";

    #[test]
    fn the_topmost_mount_of_a_path_with_blanks_is_found() {
        let found = topmost(TABLE, Path::new("/home/a b")).expect("mounted");
        assert!(found.is_ours());
        assert_eq!((found.device.as_str(), found.user), ("0:41", Some(7)));
        assert_eq!(topmost(TABLE, Path::new("/home/a")), None);
        assert!(!topmost(TABLE, Path::new("/other")).expect("mounted").is_ours(), "somebody else's");
    }

    #[test]
    fn a_path_that_is_no_text_hides_no_other_line() {
        let stick = PathBuf::from(OsString::from_vec(b"/caf\xe9".to_vec()));
        assert_eq!(topmost(TABLE, &stick).expect("mounted").kind, "tmpfs");
        assert_eq!(lines(TABLE).count(), 6);
    }

    #[test]
    fn a_path_is_resolved_to_what_the_table_has() {
        assert_eq!(absolute(Path::new("/proc/self/../")).expect("there"), Path::new("/proc"));
        assert!(absolute(Path::new("/nowhere/at/all")).is_err());
    }
}
