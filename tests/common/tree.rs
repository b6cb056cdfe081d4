//! A tree of files for drops: sizes from nothing to many boxes, names as persons give them, directories in directories.

// Each test file takes what it needs of this.
#![allow(dead_code, unreachable_pub, missing_docs)]

use std::path::Path;
use std::process::Command;

use super::common::bytes;

/// Names that copy through shells and headers only if nobody touches them.
const ODD: [&str; 10] = [
    "with space",
    "  two  ",
    "quote'\"s",
    "dollar$HOME",
    "-rf",
    "übermäßig",
    "日本語",
    "a*b?c[d]",
    "semi;colon&and",
    "dots..txt",
];

/// Makes `files` files with `total` bytes in all, in directories of `directory`; one of those stays empty.
pub fn make(directory: &Path, files: usize, total: usize, seed: u64) {
    std::fs::create_dir_all(directory.join("empty/one")).expect("a directory");
    let mut left = total;
    for at in 0..files {
        let odd = ODD[at % ODD.len()];
        let place = match at % 4 {
            0 => directory.to_owned(),
            1 => directory.join("sub"),
            2 => directory.join("sub").join(format!("deeper {}", at % 3)),
            _ => directory.join(odd),
        };
        std::fs::create_dir_all(&place).expect("a directory");
        // Some empty ones, most small, a few that have most of the bytes.
        let size = match at % 10 {
            0 => 0,
            1 => left.min(1),
            9 => left / 3,
            other => (total / files / 4 * other).min(left),
        };
        left -= size;
        std::fs::write(place.join(format!("{at} {odd}")), bytes(size, seed + at as u64)).expect("written");
    }
}

/// What `diff -r` finds: nothing, where the trees are the same.
pub fn difference(one: &Path, other: &Path) -> Option<String> {
    let output = Command::new("diff").arg("-r").arg(one).arg(other).output().expect("diff");
    let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (!output.status.success()).then_some(told)
}
