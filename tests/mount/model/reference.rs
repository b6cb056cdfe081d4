//! What SEMANTICS.md says of files in a drop.
//!
//! When a file is sealed is a matter of time, so the model does not know it until a call says so: then the file's own state must
//! say it too, and it is sealed for good.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::worker::{Outcome, Worker, sum, sum_of_names};
use super::{Random, TOO_LARGE};
use crate::common::{bytes, eventually};

const FILES: u64 = 4;
const DIRECTORIES: [&str; 2] = ["x", "y"];

#[derive(Clone, Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    /// Open descriptions that may write.
    writers: u32,
    /// It is known to be sealed.
    is_sealed: bool,
    is_unfinished: bool,
    /// How often something showed that it is not whole.
    faults: u32,
}

impl Content {
    /// Whether it may have been sealed by now.
    fn may_be_sealed(&self) -> bool {
        self.is_sealed || (self.writers == 0 && !self.is_unfinished)
    }

    fn fails(&mut self) {
        self.is_unfinished = true;
        self.faults += 1;
    }
}

struct Open {
    worker: usize,
    file: usize,
    writes: bool,
    /// The file's faults when it was opened.
    opening: u32,
}

/// How often what matters came up.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) rounds: u64,
    /// Files that a reader got.
    pub(super) delivered: u64,
    /// Calls that were refused because a file was sealed.
    pub(super) sealed: u64,
    /// Writes that met a full spool.
    pub(super) full: u64,
    /// Files that were unfinished at the end of a round.
    pub(super) unfinished: u64,
    /// Files that were removed or replaced while they were open.
    pub(super) unlinked: u64,
}

pub(super) struct Reference {
    pub(super) tally: Tally,
    /// Of the mount.
    root: PathBuf,
    base: String,
    files: Vec<Content>,
    names: BTreeMap<String, usize>,
    directories: BTreeSet<String>,
    open: HashMap<u64, Open>,
    last: u64,
}

impl Reference {
    pub(super) fn new(root: &Path, base: &str) -> Self {
        Self {
            tally: Tally::default(),
            root: root.to_owned(),
            base: base.to_owned(),
            files: Vec::new(),
            names: BTreeMap::new(),
            directories: BTreeSet::from([String::new()]),
            open: HashMap::new(),
            last: 0,
        }
    }

    /// One operation of a worker.
    pub(super) fn step(&mut self, workers: &mut [Worker], worker: usize, random: &mut Random) {
        let name = name(random);
        let path = format!("{}/{name}", self.base);
        let mine: Vec<u64> =
            self.open.iter().filter(|(_, open)| open.worker == worker).map(|(handle, _)| *handle).collect();
        let handle = (!mine.is_empty()).then(|| mine.iter().copied().min().unwrap_or_default());
        let does = &mut |what: String| workers[worker].does(&what);
        match random.below(26) {
            0..=2 | 18 | 19 => self.create(does, worker, &name, &path),
            3 | 4 => self.open(does, worker, &name, &path, random),
            5..=7 => self.write(does, handle, random.below(5000), 1 + random.below(9000), random.below(1 << 20)),
            8 => self.write(does, handle, 0, 1 + random.below(9000), random.below(1 << 20)),
            9 => self.resize(does, handle, random.below(10_000)),
            10 => self.sync_and_read(does, handle),
            11 | 20..=23 => self.close(does, handle),
            // Time to rest.
            24 => std::thread::sleep(Duration::from_millis(random.below(60))),
            12 => self.rename(does, &name, &path, &self::name(random)),
            13 => self.unlink(does, &name, &path),
            14 if random.below(3) == 0 => self.move_directory(does, random),
            14 => self.directory(does, random),
            15 => self.look(does, &name, &path),
            16 => self.list(does, random),
            17 if random.below(4) == 0 => self.write(does, handle, 0, TOO_LARGE, random.below(1 << 20)),
            _ => self.append(does, &name, &path, random),
        }
    }

    fn create(&mut self, does: &mut impl FnMut(String) -> Outcome, worker: usize, name: &str, path: &str) {
        self.last += 1;
        let made = does(format!("create {} {path}", self.last));
        if !self.has_directory_of(name) {
            return assert_eq!(made, Err(libc::ENOENT), "{path}");
        }
        if self.names.contains_key(name) {
            return assert_eq!(made, Err(libc::EEXIST), "{path}");
        }
        assert_eq!(made, Ok(0), "{path}");
        self.names.insert(name.to_owned(), self.files.len());
        self.open.insert(self.last, Open { worker, file: self.files.len(), writes: true, opening: 0 });
        self.files.push(Content { writers: 1, ..Content::default() });
    }

    fn open(
        &mut self,
        does: &mut impl FnMut(String) -> Outcome,
        worker: usize,
        name: &str,
        path: &str,
        random: &mut Random,
    ) {
        self.last += 1;
        let how = ["read", "write", "empty"][random.below(3) as usize];
        let opened = does(format!("open {} {path} {how}", self.last));
        let Some(&file) = self.names.get(name) else { return assert_eq!(opened, Err(libc::ENOENT), "{path}") };
        let writes = how != "read";
        if !self.is_allowed(&opened, writes, &[file], path) {
            return;
        }
        let content = &mut self.files[file];
        content.writers += u32::from(writes);
        if how == "empty" {
            content.bytes.clear();
            content.is_unfinished = false;
        }
        self.open.insert(self.last, Open { worker, file, writes, opening: content.faults });
    }

    /// Whether a call went through that a sealed file refuses. Where it was refused, one of the files is sealed.
    fn is_allowed(&mut self, outcome: &Outcome, refuses: bool, files: &[usize], what: &str) -> bool {
        match outcome {
            Ok(_) if refuses => {
                let sealed = files.iter().find(|&&file| self.files[file].is_sealed);
                assert!(sealed.is_none(), "{what}: it was sealed");
                true
            }
            Ok(_) => true,
            Err(libc::EPERM) if refuses => {
                let may_be: Vec<_> = files.iter().filter(|&&file| self.files[file].may_be_sealed()).collect();
                assert!(!may_be.is_empty(), "{what}: it cannot be sealed");
                let mut is_one = false;
                for &&file in &may_be {
                    let name = self.names.iter().find(|(_, at)| **at == file).map(|(name, _)| name.clone());
                    let state = name.and_then(|name| self.state(&name));
                    let is_sealed = matches!(state.as_deref(), Some("waiting" | "sending" | "stored"));
                    self.files[file].is_sealed |= is_sealed;
                    is_one |= is_sealed;
                }
                assert!(is_one, "{what}: refused, and none is sealed");
                self.tally.sealed += 1;
                false
            }
            Err(errno) => panic!("{what}: errno {errno}"),
        }
    }

    fn write(
        &mut self,
        does: &mut impl FnMut(String) -> Outcome,
        handle: Option<u64>,
        offset: u64,
        length: u64,
        seed: u64,
    ) {
        let Some(handle) = handle else { return };
        let written = does(format!("write {handle} {offset} {length} {seed}"));
        let open = &self.open[&handle];
        if !open.writes {
            return assert_eq!(written, Err(libc::EBADF));
        }
        let content = &mut self.files[open.file];
        let is_named = self.names.values().any(|&file| file == open.file);
        // One that has no name takes no room that is counted.
        let count = match written {
            Ok(count) => count,
            Err(errno) => {
                assert_eq!(errno, libc::ENOSPC, "write {offset} {length}");
                0
            }
        };
        assert!(count == length || (is_named && length == TOO_LARGE), "{count} of {length} at {offset}");
        if count > 0 {
            let (from, to) = (offset as usize, (offset + count) as usize);
            if content.bytes.len() < to {
                content.bytes.resize(to, 0);
            }
            content.bytes[from..to].copy_from_slice(&bytes(length as usize, seed)[..count as usize]);
            if offset == 0 && open.opening == content.faults {
                content.is_unfinished = false;
            }
        }
        if count < length {
            content.fails();
            self.tally.full += 1;
        }
        // Room for what comes next.
        if length == TOO_LARGE {
            self.resize(does, Some(handle), 100);
        }
    }

    fn resize(&mut self, does: &mut impl FnMut(String) -> Outcome, handle: Option<u64>, size: u64) {
        let Some(handle) = handle else { return };
        let resized = does(format!("resize {handle} {size}"));
        let open = &self.open[&handle];
        if !open.writes {
            return assert_eq!(resized, Err(libc::EINVAL));
        }
        assert_eq!(resized, Ok(0));
        let content = &mut self.files[open.file];
        content.bytes.resize(size as usize, 0);
        if size == 0 && open.opening == content.faults {
            content.is_unfinished = false;
        }
    }

    fn sync_and_read(&mut self, does: &mut impl FnMut(String) -> Outcome, handle: Option<u64>) {
        let Some(handle) = handle else { return };
        let content = &self.files[self.open[&handle].file];
        assert_eq!(does(format!("fsync {handle}")), Ok(0));
        assert_eq!(does(format!("size {handle}")), Ok(content.bytes.len() as u64));
        assert_eq!(does(format!("sum {handle}")), Ok(sum(&content.bytes)));
    }

    fn close(&mut self, does: &mut impl FnMut(String) -> Outcome, handle: Option<u64>) {
        let Some(handle) = handle else { return };
        assert_eq!(does(format!("close {handle}")), Ok(0));
        self.closed(handle, false);
    }

    fn closed(&mut self, handle: u64, is_fault: bool) {
        let Some(open) = self.open.remove(&handle) else { return };
        if open.writes {
            let content = &mut self.files[open.file];
            content.writers -= 1;
            if is_fault {
                content.fails();
            }
        }
    }

    fn rename(&mut self, does: &mut impl FnMut(String) -> Outcome, name: &str, path: &str, to: &str) {
        let renamed = does(format!("rename {path} {}/{to}", self.base));
        let what = format!("{path} to {to}");
        let Some(&file) = self.names.get(name) else { return assert_eq!(renamed, Err(libc::ENOENT), "{what}") };
        if !self.has_directory_of(to) {
            return assert_eq!(renamed, Err(libc::ENOENT), "{what}");
        }
        if name == to {
            return assert_eq!(renamed, Ok(0), "{what}");
        }
        let files: Vec<usize> = [Some(file), self.names.get(to).copied()].into_iter().flatten().collect();
        if self.is_allowed(&renamed, true, &files, &what) {
            self.names.remove(name);
            let replaced = self.names.insert(to.to_owned(), file);
            self.tally.unlinked += u64::from(replaced.is_some_and(|file| self.is_open(file)));
        }
    }

    fn unlink(&mut self, does: &mut impl FnMut(String) -> Outcome, name: &str, path: &str) {
        let removed = does(format!("unlink {path}"));
        let Some(&file) = self.names.get(name) else { return assert_eq!(removed, Err(libc::ENOENT), "{path}") };
        match removed {
            // One that is sealed goes, too, as long as nothing of it was launched.
            Ok(_) => {
                self.names.remove(name);
                self.tally.unlinked += u64::from(self.is_open(file));
            }
            refused => drop(self.is_allowed(&refused, true, &[file], path)),
        }
    }

    fn directory(&mut self, does: &mut impl FnMut(String) -> Outcome, random: &mut Random) {
        let name = DIRECTORIES[random.below(2) as usize];
        let path = format!("{}/{name}", self.base);
        let is_there = self.directories.contains(name);
        if random.below(3) > 0 {
            let made = does(format!("mkdir {path}"));
            assert_eq!(made, if is_there { Err(libc::EEXIST) } else { Ok(0) }, "{path}");
            self.directories.insert(name.to_owned());
            return;
        }
        let removed = does(format!("rmdir {path}"));
        let has_files = self.names.keys().any(|file| file.starts_with(&format!("{name}/")));
        match removed {
            _ if !is_there => assert_eq!(removed, Err(libc::ENOENT), "{path}"),
            _ if has_files => assert_eq!(removed, Err(libc::ENOTEMPTY), "{path}"),
            Ok(_) => drop(self.directories.remove(name)),
            // Readers know of it.
            Err(errno) => assert_eq!(errno, libc::EPERM, "{path}"),
        }
    }

    /// Renames a directory, with what is in it, maybe over another.
    fn move_directory(&mut self, does: &mut impl FnMut(String) -> Outcome, random: &mut Random) {
        let at = random.below(2) as usize;
        let (from, to) = (DIRECTORIES[at], DIRECTORIES[1 - at]);
        let moved = does(format!("rename {base}/{from} {base}/{to}", base = self.base));
        if !self.directories.contains(from) {
            return assert_eq!(moved, Err(libc::ENOENT), "{from} to {to}");
        }
        let below = |directory: &str| -> Vec<String> {
            let start = format!("{directory}/");
            self.names.keys().filter(|name| name.starts_with(&start)).cloned().collect()
        };
        let (moves, stays) = (below(from), below(to));
        match moved {
            Ok(_) => {
                assert!(stays.is_empty(), "{to} has {stays:?}");
                for name in moves {
                    let file = self.names.remove(&name).expect("it was listed");
                    assert!(!self.files[file].is_sealed, "{name} was sealed");
                    self.names.insert(name.replacen(from, to, 1), file);
                }
                self.directories.remove(from);
                self.directories.insert(to.to_owned());
            }
            Err(libc::ENOTEMPTY) => assert!(!stays.is_empty(), "{to} is empty"),
            // Readers know of one of them, or of what is in it.
            Err(errno) => assert_eq!(errno, libc::EPERM, "{from} to {to}"),
        }
    }

    fn look(&mut self, does: &mut impl FnMut(String) -> Outcome, name: &str, path: &str) {
        let (size, read) = (does(format!("stat {path}")), does(format!("read {path}")));
        let Some(&file) = self.names.get(name) else {
            assert_eq!((size, read), (Err(libc::ENOENT), Err(libc::ENOENT)), "{path}");
            return;
        };
        let content = &self.files[file];
        assert_eq!((size, read), (Ok(content.bytes.len() as u64), Ok(sum(&content.bytes))), "{path}");
        assert_eq!(does(format!("link {path} {}/linked", self.base)), Err(libc::EPERM));
        let state = self.state(name).expect("it is there");
        let said = match state.as_str() {
            "writing" => !content.is_sealed,
            "unfinished" => content.is_unfinished && !content.is_sealed,
            "settling" => !content.is_unfinished && !content.is_sealed,
            "waiting" | "sending" | "stored" => content.may_be_sealed(),
            _ => false,
        };
        assert!(said, "{path} is {state}: {content:?}");
    }

    fn list(&mut self, does: &mut impl FnMut(String) -> Outcome, random: &mut Random) {
        let directory = ["", "x", "y"][random.below(3) as usize];
        let listed = does(format!("list {}/{directory}", self.base));
        if !self.directories.contains(directory) {
            return assert_eq!(listed, Err(libc::ENOENT));
        }
        let mut names: Vec<&str> = self
            .names
            .keys()
            .filter_map(|name| match name.rsplit_once('/') {
                Some((at, name)) => (at == directory).then_some(name),
                None => directory.is_empty().then_some(name.as_str()),
            })
            .chain(self.directories.iter().map(String::as_str).filter(|name| directory.is_empty() && !name.is_empty()))
            .collect();
        names.sort_unstable();
        assert_eq!(listed, Ok(sum_of_names(names.iter().copied())), "{directory:?} has {names:?}");
    }

    fn append(&mut self, does: &mut impl FnMut(String) -> Outcome, name: &str, path: &str, random: &mut Random) {
        let (length, seed) = (random.below(3000), random.below(1 << 20));
        let appended = does(format!("append {path} {length} {seed}"));
        let Some(&file) = self.names.get(name) else { return assert_eq!(appended, Err(libc::ENOENT), "{path}") };
        if self.is_allowed(&appended, true, &[file], path) {
            let content = &mut self.files[file];
            let is_whole = content.bytes.is_empty();
            content.bytes.extend(bytes(length as usize, seed));
            // It was written from its beginning.
            if is_whole && length > 0 {
                content.is_unfinished = false;
            }
        }
    }

    /// A worker was killed: what it had open for writing is not whole.
    pub(super) fn killed(&mut self, worker: usize) {
        let of_it: Vec<u64> =
            self.open.iter().filter(|(_, open)| open.worker == worker).map(|(handle, _)| *handle).collect();
        of_it.into_iter().for_each(|handle| self.closed(handle, true));
    }

    /// The mount ends.
    pub(super) fn interrupted(&mut self) {
        (0..super::WORKERS as usize).for_each(|worker| self.killed(worker));
    }

    pub(super) fn close_all(&mut self, workers: &mut [Worker]) {
        for (handle, worker) in self.open.iter().map(|(handle, open)| (*handle, open.worker)).collect::<Vec<_>>() {
            self.close(&mut |what| workers[worker].does(&what), Some(handle));
        }
    }

    /// Until the mount has heard of all closes: the last one comes to it some time after close(2).
    pub(super) fn await_closes(&self) {
        for (name, &file) in &self.names {
            if self.files[file].writers == 0 {
                eventually(name, || (self.state(name).as_deref() != Some("writing")).then_some(()));
            }
        }
    }

    /// Removes what is never sent. What is left is what a reader gets: names, and the sums of bytes.
    pub(super) fn settle(&mut self) -> BTreeMap<String, u64> {
        self.await_closes();
        for (name, &file) in &self.names {
            let is_unfinished = self.state(name).as_deref() == Some("unfinished");
            assert_eq!(is_unfinished, self.files[file].is_unfinished, "{name}: {:?}", self.files[file]);
            if is_unfinished {
                self.tally.unfinished += 1;
                std::fs::remove_file(self.root.join(&self.base).join(name)).expect("it was not sent");
            }
        }
        self.tally.delivered = self.names.values().filter(|file| !self.files[**file].is_unfinished).count() as u64;
        let whole = self.names.iter().filter(|(_, file)| !self.files[**file].is_unfinished);
        whole.map(|(name, &file)| (name.clone(), sum(&self.files[file].bytes))).collect()
    }

    /// How a file stands, as the mount says.
    fn state(&self, name: &str) -> Option<String> {
        let mut value = [0; 32];
        let path = self.root.join(&self.base).join(name);
        let count = rustix::fs::getxattr(path, "user.pigeonhole.state", &mut value[..]).ok()?;
        Some(String::from_utf8_lossy(&value[..count]).into_owned())
    }

    fn is_open(&self, file: usize) -> bool {
        self.open.values().any(|open| open.file == file)
    }

    fn has_directory_of(&self, name: &str) -> bool {
        self.directories.contains(name.rsplit_once('/').map_or("", |(directory, _)| directory))
    }
}

/// A name of a file: in the round's directory, or in one of its directories.
fn name(random: &mut Random) -> String {
    let file = format!("f{}", random.below(FILES));
    match random.below(4) {
        0 => format!("x/{file}"),
        1 => format!("y/{file}"),
        _ => file,
    }
}
