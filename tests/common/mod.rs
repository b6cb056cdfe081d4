//! What the tests of the real binary share: a directory, a localnet, mounts and verbs, all bounded in time and gone when
//! the test is, a panic included.

// Each test file takes what it needs of this.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::print_stderr)]

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Nothing that a test waits for may take longer, on a slow machine with other tests beside it.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// Whether the test cannot run here, for `reason`. Where all tests must run, that is a failure.
pub fn skip(reason: &str) -> bool {
    assert!(std::env::var_os("PIGEONFS_TEST_ALL").is_none(), "cannot run: {reason}");
    eprintln!("skipped: {reason}");
    true
}

/// Whether there is no FUSE here.
pub fn no_fuse() -> bool {
    let device = std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse");
    device.is_err_and(|error| skip(&format!("/dev/fuse: {error}")))
}

/// Looks until there is something.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether whoever serves this directory answers. What the kernel has of a mount that died in the last tick of its clock says
/// nothing.
pub fn is_served(path: &Path) -> bool {
    use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
    statx(CWD, path, AtFlags::STATX_FORCE_SYNC, StatxFlags::TYPE).is_ok()
}

/// Bytes that look random and are the same in every run.
pub fn bytes(count: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(&mut next).flatten().take(count).collect()
}

/// What came of a command.
#[derive(Debug)]
pub struct Run {
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Run {
    pub fn text(&self) -> String {
        String::from_utf8(self.stdout.clone()).expect("text")
    }

    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self
    }

    /// It failed with this code, and said all of this.
    #[track_caller]
    pub fn failed(self, code: i32, told: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        for words in told {
            assert!(self.stderr.contains(words), "{words:?} is not in {:?}", self.stderr);
        }
        self
    }
}

/// Runs a command with this standard input, for at most [`PATIENCE`].
pub fn run(command: &mut Command, stdin: &[u8]) -> Run {
    let mut child = Kill(
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}")),
    );
    let mut input = child.0.stdin.take().expect("piped");
    let mut output = child.0.stdout.take().expect("piped");
    let mut errors = child.0.stderr.take().expect("piped");
    std::thread::scope(|scope| {
        // A command that does not read its input closes it; that is its right.
        scope.spawn(move || drop(input.write_all(stdin)));
        let stdout = scope.spawn(move || {
            let mut bytes = Vec::new();
            output.read_to_end(&mut bytes).expect("a pipe");
            bytes
        });
        let stderr = scope.spawn(move || {
            let mut bytes = Vec::new();
            errors.read_to_end(&mut bytes).expect("a pipe");
            String::from_utf8_lossy(&bytes).into_owned()
        });
        let until = Instant::now() + PATIENCE;
        let code = loop {
            if let Some(status) = child.0.try_wait().expect("our child") {
                assert_eq!(status.signal(), None, "{command:?} was killed");
                break status.code();
            }
            if Instant::now() > until {
                let _ = child.0.kill();
                panic!("{command:?} did not end");
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        Run { code, stdout: stdout.join().expect("no panic"), stderr: stderr.join().expect("no panic") }
    })
}

/// A child that is killed when the test is over.
pub struct Kill(pub Child);

impl Drop for Kill {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A directory for one test, with what it starts in it.
pub struct Work {
    dir: tempfile::TempDir,
    /// What everything is to log.
    pub log: &'static str,
}

impl Work {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a directory"), log: "info" }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The binary, with nothing of the environment that would find a daemon or a state of the person who runs the tests.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pigeonfs"));
        for name in [
            "XDG_STATE_HOME",
            "XDG_CONFIG_HOME",
            "XDG_RUNTIME_DIR",
            "PIGEONFS_THINCLIENT",
            "NO_COLOR",
            "COLUMNS",
            "PIGEONFS_STATE",
        ] {
            command.env_remove(name);
        }
        command.env("HOME", self.dir.path()).env("PIGEONFS_LOG", self.log);
        command
    }

    /// Runs a verb on the state `state` with this standard input.
    pub fn verb_with(&self, state: &str, arguments: &[&str], stdin: &[u8]) -> Run {
        run(self.command().args(arguments).arg("--state").arg(self.path(state)), stdin)
    }

    /// Runs a verb on the state `state`.
    pub fn verb(&self, state: &str, arguments: &[&str]) -> Run {
        self.verb_with(state, arguments, b"")
    }

    /// Starts a localnet in the directory `name`.
    pub fn localnet(&self, name: &str) -> Localnet {
        self.localnet_at(name, &[])
    }

    /// Starts a localnet in the directory `name` that listens at these addresses too.
    pub fn localnet_at(&self, name: &str, further: &[&str]) -> Localnet {
        self.localnet_with(name, further, &[])
    }

    /// The same with these further arguments.
    pub fn localnet_with(&self, name: &str, further: &[&str], arguments: &[&str]) -> Localnet {
        let config = self.path(&format!("{name}.toml"));
        let log = std::fs::File::create(self.path(&format!("{name}.log"))).expect("a log");
        let mut child = self
            .command()
            .args(["localnet", "--listen", "127.0.0.1:0", "--state"])
            .arg(self.path(name))
            .arg("--config-out")
            .arg(&config)
            .args(further.iter().flat_map(|address| ["--listen", address]))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the binary");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let child = Kill(child);
        let mut ready = String::new();
        for _ in 0..=further.len() {
            stdout.read_line(&mut ready).expect("a pipe");
        }
        assert!(ready.starts_with("listening tcp://127.0.0.1:"), "{ready:?}");
        let addresses = ready.lines().filter_map(|line| line.strip_prefix("listening ")).map(str::to_owned).collect();
        Localnet { child, tcp_config: config, unix_config: self.path(name).join("thinclient.toml"), addresses }
    }

    /// Mounts `state` at MNT named `name`, with these further arguments.
    pub fn mount(&self, name: &str, state: &str, arguments: &[&str]) -> Mount {
        self.mount_with(name, state, arguments, &[])
    }

    /// The same with these variables in its environment.
    pub fn mount_with(&self, name: &str, state: &str, arguments: &[&str], variables: &[(&str, &OsStr)]) -> Mount {
        let path = self.path(name);
        if let Err(error) = std::fs::create_dir(&path) {
            assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists, "a mount point");
        }
        let log_path = self.path(&format!("{name}.log"));
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&log_path).expect("a log");
        let child = self
            .command()
            .arg("mount")
            .args(arguments)
            .envs(variables.iter().copied())
            .arg("--state")
            .arg(self.path(state))
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the binary");
        let mut mount = Mount { child: Kill(child), path, log: log_path };
        eventually("the mount", || {
            if let Some(status) = mount.child.0.try_wait().expect("our child") {
                panic!("the mount ended with {status}:\n{}", mount.log());
            }
            // A dead mount is in the table too, until the new one has cleared it.
            (is_mounted(&mount.path) && is_served(&mount.path)).then_some(())
        });
        mount
    }

    /// What the processes said last, for whoever reads why a test failed.
    fn show_logs(&self) {
        let entries = std::fs::read_dir(self.dir.path()).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "log")) {
            let log = std::fs::read_to_string(&path).unwrap_or_default();
            let lines: Vec<_> = log.lines().rev().take(20).collect();
            eprintln!("--- {}", path.display());
            lines.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }

    /// Gives the channel `name` of `from` to `to` under the same name.
    pub fn share(&self, from: &str, to: &str, name: &str) {
        let capability = self.verb(from, &["share", name]).ok().stdout;
        self.verb_with(to, &["add", name], &capability).ok();
    }
}

/// A localnet in a process of its own.
pub struct Localnet {
    child: Kill,
    tcp_config: PathBuf,
    unix_config: PathBuf,
    /// Where it listens besides the socket in its directory, in the order in which it was asked to.
    pub addresses: Vec<String>,
}

impl Localnet {
    /// A configuration that stays right when the localnet is started anew.
    pub fn config(&self) -> &str {
        self.unix_config.to_str().expect("text")
    }

    pub fn tcp_config(&self) -> &str {
        self.tcp_config.to_str().expect("text")
    }

    pub fn pid(&self) -> u32 {
        self.child.0.id()
    }

    pub fn kill(self) {
        drop(self.child);
    }
}

/// A mount in a process of its own.
pub struct Mount {
    child: Kill,
    pub path: PathBuf,
    log: PathBuf,
}

impl Mount {
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub fn pid(&self) -> u32 {
        self.child.0.id()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// SIGKILL; the dead mount stays for the next one to clear.
    pub fn kill(mut self) {
        self.child.0.kill().expect("our child");
        self.child.0.wait().expect("our child");
        // What is dead must stay mounted here, so that the next mount meets it.
        self.path = PathBuf::new();
    }

    /// Ends it by a signal, and expects an end in order.
    pub fn signal(mut self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child.0);
        rustix::process::kill_process(pid, signal).expect("our child");
        self.wait();
    }

    /// Waits until it has ended, and says how.
    pub fn ended_with(mut self) -> Option<i32> {
        eventually("the end of the mount", || self.child.0.try_wait().expect("our child")).code()
    }

    /// Waits until it has ended by itself, and in order.
    pub fn wait(&mut self) {
        let status = eventually("the end of the mount", || self.child.0.try_wait().expect("our child"));
        assert!(status.success(), "{status}: {}", self.log());
        assert!(!is_mounted(&self.path), "{} is left behind", self.path.display());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = self.child.0.kill();
        let _ = self.child.0.wait();
        if is_mounted(&self.path) {
            let _ = Command::new(env!("CARGO_BIN_EXE_pigeonfs")).args(["umount", "--lazy"]).arg(&self.path).status();
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_logs();
        }
        // Whatever is still mounted below: a mount that was killed and never followed by another.
        for point in mounted_below(self.dir.path()) {
            let _ = Command::new(env!("CARGO_BIN_EXE_pigeonfs")).args(["umount", "--lazy"]).arg(point).status();
        }
    }
}

fn mount_points() -> Vec<PathBuf> {
    let table = std::fs::read("/proc/self/mountinfo").expect("a mount table");
    // Somebody's path may be no text.
    String::from_utf8_lossy(&table).lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from).collect()
}

pub fn is_mounted(path: &Path) -> bool {
    mount_points().iter().any(|point| point == path)
}

fn mounted_below(directory: &Path) -> Vec<PathBuf> {
    mount_points().into_iter().filter(|point| point.starts_with(directory)).collect()
}
