//! Mounts that are killed while trees are copied into a drop, on either side, round after round. Then: what was copied whole
//! arrives whole, what was cut off is told and never sent, and nothing arrives that nobody sent.
//!
//! Two rounds; `PIGEONFS_ROUNDS`, `PIGEONFS_FILES` and `PIGEONFS_BYTES` make it longer, as `scripts/torture drops` does.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::common::{Kill, Work, eventually, no_fuse};

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// All files below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(entry.path()),
                Ok(_) => found.push(entry.path()),
                Err(_) => {}
            }
        }
    }
    found
}

fn is_unfinished(path: &Path) -> bool {
    let mut value = [0; 32];
    let count = rustix::fs::getxattr(path, "user.pigeonhole.state", &mut value[..]).expect("a state");
    &value[..count] == b"unfinished"
}

/// A copy of a tree; what is there already stays.
fn copy(source: &Path, target: &Path) -> Kill {
    let copy = Command::new("cp")
        .arg("-rn")
        .arg(source.join("."))
        .arg(target)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("cp");
    Kill(copy)
}

#[test]
fn what_is_copied_into_a_drop_arrives_whole_whichever_side_is_killed() {
    if no_fuse() {
        return;
    }
    let rounds = number("PIGEONFS_ROUNDS", 2);
    let (count, bytes) = (number("PIGEONFS_FILES", 40) / rounds, number("PIGEONFS_BYTES", 400_000) / rounds);
    let work = Work::new();
    let net = work.localnet("net");
    let arguments = ["--config", net.config(), "--settle-ms", "200"];
    work.verb("w", &["new", "--drop", "outbox"]).ok();
    let capability = work.verb("w", &["share", "outbox"]).ok().stdout;
    work.verb_with("r", &["add", "--drop", "inbox"], &capability).ok();
    let mut writer = work.mount("writer", "w", &arguments);
    let mut reader = work.mount("reader", "r", &arguments);
    for round in 0..rounds {
        let source = work.path(&format!("source-{round}"));
        crate::tree::make(&source, count, bytes, round as u64);
        let target = writer.file("outbox").join(format!("{round}"));
        let mut running = copy(&source, &target);
        // Another instant in each round, told by what the copy has done.
        let instant = (round * 7 + 5) % count;
        eventually("the copy comes so far", || {
            let ended = running.0.try_wait().expect("our child").is_some();
            (ended || files(&target).len() >= instant).then_some(())
        });
        if round % 2 == 0 {
            writer.kill();
            running.0.wait().expect("our child");
            writer = work.mount("writer", "w", &arguments);
            // The mount may not have heard of the last close of an earlier round.
            let left: Vec<_> = files(&writer.file("outbox")).into_iter().filter(|path| is_unfinished(path)).collect();
            if !left.is_empty() {
                work.verb("w", &["wait", "outbox", "--timeout", "60"]).failed(1, &["unfinished"]);
            }
            for path in left {
                std::fs::remove_file(path).expect("removed");
            }
            for earlier in 0..=round {
                let target = writer.file("outbox").join(format!("{earlier}"));
                copy(&work.path(&format!("source-{earlier}")), &target).0.wait().expect("our child");
            }
        } else {
            reader.kill();
            reader = work.mount("reader", "r", &arguments);
            running.0.wait().expect("our child");
        }
        assert_eq!(crate::tree::difference(&source, &target), None, "round {round} reads back");
    }
    work.verb("w", &["wait", "outbox"]).ok();
    for round in 0..rounds {
        let source = work.path(&format!("source-{round}"));
        let arrived = reader.file("inbox").join(format!("{round}"));
        let mut last = None;
        eventually("all of a round arrives", || {
            last = crate::tree::difference(&source, &arrived);
            last.is_none().then_some(())
        });
    }
    let names: Vec<_> = std::fs::read_dir(reader.file("inbox")).expect("listed").collect();
    assert_eq!(names.len(), rounds, "{names:?}");
}
