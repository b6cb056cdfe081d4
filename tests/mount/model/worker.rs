//! A process that does to files what it is told on its standard input, a line each, and says what came of it.
//!
//! It is this test program itself, with one test that does nothing else.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::common::{Kill, bytes};

const ROOT: &str = "PIGEONFS_TEST_WORKER";
const READY: &str = "ready";

/// What an operation gives: a number, or an errno.
pub(super) type Outcome = Result<u64, i32>;

/// A worker, from outside.
pub(super) struct Worker {
    child: Kill,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Worker {
    /// Works below this directory.
    pub(super) fn start(root: &std::path::Path) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--exact", "model::worker::work", "--nocapture", "--test-threads=1", "--quiet"]);
        let mut child: Child =
            command.env(ROOT, root).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("this program");
        let (to, from) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let mut worker = Self { child: Kill(child), to, from: BufReader::new(from) };
        while worker.line().trim() != READY {}
        worker
    }

    /// Has it do something.
    pub(super) fn does(&mut self, what: &str) -> Outcome {
        writeln!(self.to, "{what}").expect("it lives");
        let line = self.line();
        match line.trim().split_once(' ') {
            Some(("ok", number)) => Ok(number.parse().expect("a number")),
            Some(("err", errno)) => Err(errno.parse().expect("a number")),
            _ => panic!("the worker said {line:?} of {what:?}"),
        }
    }

    /// SIGKILL. All that it had open is closed when this returns.
    pub(super) fn kill(mut self) {
        self.child.0.kill().expect("our child");
        self.child.0.wait().expect("our child");
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.from.read_line(&mut line).expect("a pipe") > 0, "the worker has ended");
        line
    }
}

/// A number for bytes, by which they are known.
pub(super) fn sum(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(*blake3::hash(bytes).as_bytes().first_chunk().expect("32 bytes")) >> 1
}

/// Names, in order, as one number.
pub(super) fn sum_of_names<'a>(names: impl IntoIterator<Item = &'a str>) -> u64 {
    sum(names.into_iter().flat_map(|name| [name, "\n"]).collect::<String>().as_bytes())
}

/// The worker, from inside.
#[test]
fn work() {
    let Some(root) = std::env::var_os(ROOT) else { return };
    std::env::set_current_dir(root).expect("a directory");
    println!("{READY}");
    let mut open = HashMap::new();
    for line in io::stdin().lines() {
        let words: Vec<String> = line.expect("text").split(' ').map(str::to_owned).collect();
        match obey(&mut open, &words.iter().map(String::as_str).collect::<Vec<_>>()) {
            Ok(number) => println!("ok {number}"),
            Err(error) => println!("err {}", error.raw_os_error().unwrap_or(0)),
        }
    }
}

fn obey(open: &mut HashMap<String, File>, words: &[&str]) -> io::Result<u64> {
    let number = |at: usize| words[at].parse::<u64>().expect("a number");
    let data = |at: usize| bytes(words[at].parse().expect("a number"), number(at + 1));
    let done = |()| 0;
    match words {
        ["create", handle, path] => {
            let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
            open.insert((*handle).to_owned(), file);
            Ok(0)
        }
        ["open", handle, path, how] => {
            let mut options = OpenOptions::new();
            options.read(true).write(*how != "read").truncate(*how == "empty").custom_flags(libc::O_NOFOLLOW);
            open.insert((*handle).to_owned(), options.open(path)?);
            Ok(0)
        }
        // One call: how much of it is taken is the answer.
        ["write", handle, _, _, _] => Ok(open[*handle].write_at(&data(3), number(2))? as u64),
        ["resize", handle, _] => open[*handle].set_len(number(2)).map(done),
        ["fsync", handle] => open[*handle].sync_all().map(done),
        ["size", handle] => Ok(open[*handle].metadata()?.len()),
        ["sum", handle] => {
            let mut bytes = vec![0; usize::try_from(open[*handle].metadata()?.len()).expect("short")];
            open[*handle].read_exact_at(&mut bytes, 0)?;
            Ok(sum(&bytes))
        }
        ["close", handle] => {
            open.remove(*handle);
            Ok(0)
        }
        ["append", path, _, _] => OpenOptions::new().append(true).open(path)?.write(&data(2)).map(|count| count as u64),
        ["cut", path, _] => Ok(nix::unistd::truncate(*path, number(2) as i64).map(done)?),
        ["rename", from, to] => fs::rename(from, to).map(done),
        ["unlink", path] => fs::remove_file(path).map(done),
        ["mkdir", path] => fs::create_dir(path).map(done),
        ["rmdir", path] => fs::remove_dir(path).map(done),
        ["link", from, to] => fs::hard_link(from, to).map(done),
        ["stat", path] => Ok(fs::metadata(path)?.len()),
        ["read", path] => Ok(sum(&fs::read(path)?)),
        ["list", path] => list(path),
        _ => panic!("{words:?}"),
    }
}

/// A listing, and once more from its middle and from its beginning.
fn list(path: &str) -> io::Result<u64> {
    let mut directory = rustix::fs::Dir::new(File::open(path)?)?;
    let name = |entry: &rustix::fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    let read = |directory: &mut rustix::fs::Dir| directory.collect::<Result<Vec<_>, _>>();
    let all = read(&mut directory)?;
    for from in [all.len() / 2, all.len() - 1] {
        directory.seek(all[from].offset())?;
        let rest = read(&mut directory)?;
        assert!(rest.iter().map(name).eq(all[from + 1..].iter().map(name)), "{path} from {from} on");
    }
    directory.rewind();
    assert!(read(&mut directory)?.iter().map(name).eq(all.iter().map(name)), "{path} once more");
    let mut names: Vec<String> = all.iter().map(name).filter(|name| !name.starts_with('.')).collect();
    names.sort_unstable();
    Ok(sum_of_names(names.iter().map(String::as_str)))
}
