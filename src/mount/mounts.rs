//! What is mounted where, as the kernel says it.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The name under which our mounts stand in the mount table.
pub(super) const SOURCE: &str = "pigeonfs";

/// The topmost mount at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mounted {
    pub(super) source: String,
    pub(super) kind: String,
}

impl Mounted {
    pub(super) fn is_ours(&self) -> bool {
        self.source == SOURCE && self.kind.starts_with("fuse")
    }
}

/// The mount at exactly this path, which must be absolute and without links.
pub(super) fn at(path: &Path) -> Option<Mounted> {
    find(&std::fs::read_to_string("/proc/self/mountinfo").ok()?, path)
}

fn find(table: &str, path: &Path) -> Option<Mounted> {
    table.lines().rev().find_map(|line| {
        let (fields, rest) = line.split_once(" - ")?;
        let point = unescape(fields.split(' ').nth(4)?);
        let mut rest = rest.split(' ');
        let (kind, source) = (rest.next()?, rest.next()?);
        (point == path).then(|| Mounted { source: source.to_owned(), kind: kind.to_owned() })
    })
}

/// The table writes blanks and backslashes as three octal digits.
fn unescape(text: &str) -> PathBuf {
    let bytes = text.as_bytes();
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

/// The path with its directory's links resolved. Its last part is left alone: a dead mount cannot be looked at.
pub(super) fn absolute(path: &Path) -> std::io::Result<PathBuf> {
    if let Ok(path) = path.canonicalize() {
        return Ok(path);
    }
    let path = std::path::absolute(path)?;
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok(parent.canonicalize()?.join(name)),
        _ => Ok(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topmost_mount_of_a_path_with_blanks_is_found() {
        let table = "30 1 8:1 / / rw - ext4 /dev/vda rw\n\
                     41 30 0:40 / /home/a\\040b rw - tmpfs tmpfs rw\n\
                     42 30 0:41 / /home/a\\040b rw,nosuid - fuse pigeonfs rw,user_id=0\n";
        let found = find(table, Path::new("/home/a b")).expect("mounted");
        assert!(found.is_ours());
        assert_eq!(find(table, Path::new("/home/a")), None);
    }
}
