//! Callers that wait for the network, and are interrupted: what ends a wait and what does not, whoever else waits or was
//! interrupted before. Nothing here takes as long as it may: a wait that nothing ends lasts 60 s.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use crate::mounted::Mounted;
use pigeonfs::fs::{Fsync, Options};
use pigeonfs::store::{Arrival, BoxSeq, ChannelId};
use rustix::process::{Pid, Signal, kill_process};

/// Says what a call through a file comes to, each time that it is interrupted, and at last: as the C library sees it,
/// not as Python, which tries again by itself.
const CALLER: &str = r#"
import ctypes, os, signal, sys, threading
path, call, prepare = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1):
    signal.signal(number, signal.SIG_DFL)
fd = os.open(path, os.O_RDONLY)
def say(text):
    os.write(1, (text.strip() + "\n").encode())
def wait():
    buffer = ctypes.create_string_buffer(99)
    say("waits")
    while True:
        count = libc.read(fd, buffer, 99) if call == "read" else libc.fsync(fd)
        say(buffer.raw[:count].decode() if count >= 0 else os.strerror(ctypes.get_errno()))
        if count >= 0:
            return
exec(prepare)
wait()
"#;

/// A program that waits; it is killed when the test is over.
struct Caller {
    child: Child,
    /// The number of the call that it waits in.
    call: String,
    said: BufReader<ChildStdout>,
}

impl Caller {
    /// Starts it, and comes back when it waits.
    fn start(path: &Path, call: &str, prepare: &str) -> Self {
        let mut child = Command::new("python3")
            .args(["-c", CALLER])
            .arg(path)
            .args([call, prepare])
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let said = BufReader::new(child.stdout.take().expect("piped"));
        let call = if call == "read" { libc::SYS_read } else { libc::SYS_fsync }.to_string();
        let mut caller = Self { child, call, said };
        assert_eq!(caller.says(), "waits");
        caller.waits();
        caller
    }

    fn waits(&self) {
        self.eventually("a thread that waits in its call", |task| {
            let call = std::fs::read_to_string(task.join("syscall")).unwrap_or_default();
            call.split(' ').next() == Some(&self.call) && state(task) == Some('S')
        });
    }

    fn eventually(&self, what: &str, is: impl Fn(&Path) -> bool) {
        let until = Instant::now() + Duration::from_secs(240);
        let tasks = format!("/proc/{}/task", self.child.id());
        while !std::fs::read_dir(&tasks).expect("it runs").flatten().any(|task| is(&task.path())) {
            assert_ne!(state(Path::new(&format!("/proc/{}", self.child.id()))), Some('Z'), "it ended before {what}");
            assert!(Instant::now() < until, "in vain: {what}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("our child");
    }

    fn says(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).expect("a pipe");
        line.trim_end().to_owned()
    }

    /// The signal that ended it.
    fn ended_by(&mut self) -> Option<i32> {
        self.child.wait().expect("our child").signal()
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The letter for what a thread does.
fn state(task: &Path) -> Option<char> {
    let stat = std::fs::read_to_string(task.join("stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

fn arrives(mounted: &Mounted, id: ChannelId) {
    let arrivals = vec![(BoxSeq(0), Arrival::Message(b"one\n".to_vec())), (BoxSeq(1), Arrival::NotYet)];
    mounted.owner.store().received(id, arrivals).wait().expect("kept");
}

#[test]
fn every_waiter_is_heard_however_many_were_interrupted_before() {
    let Some(mounted) = Mounted::new(false) else { return };
    mounted.reader("news");
    let news = mounted.path.join("news");
    // The test of each is in its start: its wait is one in state S, so that nobody takes it for a disk that hangs.
    for signal in [Signal::INT, Signal::TERM, Signal::KILL, Signal::HUP, Signal::QUIT, Signal::INT] {
        let mut caller = Caller::start(&news, "read", "signal.signal(signal.SIGQUIT, signal.SIG_DFL)");
        caller.signal(signal);
        assert_eq!(caller.ended_by(), Some(signal.as_raw()));
    }
    // One that waits is not ended by what comes to another.
    let mut patient = Caller::start(&news, "read", "");
    let mut caller = Caller::start(&news, "read", "");
    caller.signal(Signal::INT);
    assert_eq!(caller.ended_by(), Some(libc::SIGINT));
    arrives(&mounted, mounted.owner.store().channels(None, 1).expect("asked")[0].id);
    assert_eq!(patient.says(), "one");
}

#[test]
fn all_threads_of_a_program_end_with_it() {
    let Some(mounted) = Mounted::new(false) else { return };
    mounted.reader("news");
    let news = mounted.path.join("news");
    let threads = "[threading.Thread(target=wait).start() for _ in range(4)]";
    for signal in [Signal::TERM, Signal::KILL, Signal::INT] {
        let mut caller = Caller::start(&news, "read", threads);
        caller.signal(signal);
        assert_eq!(caller.ended_by(), Some(signal.as_raw()));
        // The main thread waits for a lock meanwhile, and the worker in the mount.
        let mut caller =
            Caller::start(&news, "read", "threading.Thread(target=wait).start(); threading.Event().wait()");
        caller.signal(signal);
        assert_eq!(caller.ended_by(), Some(signal.as_raw()));
    }
}

#[test]
fn what_a_program_blocks_or_ignores_ends_no_wait_and_what_it_handles_does() {
    let Some(mounted) = Mounted::new(false) else { return };
    let id = mounted.reader("news");
    let news = mounted.path.join("news");
    let mut deaf = Caller::start(
        &news,
        "read",
        "signal.signal(signal.SIGUSR1, signal.SIG_IGN); signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])",
    );
    deaf.signal(Signal::USR1);
    deaf.signal(Signal::INT);
    deaf.eventually("a signal that is blocked", |task| {
        let status = std::fs::read_to_string(task.join("status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with("ShdPnd:") && line.ends_with('2'))
    });
    // The kernel's FUSE starts no call anew, whatever was asked for: the handler's turn comes, and the call says so.
    for restart in ["True", "False"] {
        let prepare = format!(
            "signal.signal(signal.SIGUSR1, lambda *_: None); signal.siginterrupt(signal.SIGUSR1, not {restart})"
        );
        let mut handler = Caller::start(&news, "read", &prepare);
        for _ in 0..2 {
            handler.waits();
            handler.signal(Signal::USR1);
            assert_eq!(handler.says(), "Interrupted system call");
        }
    }
    let mut handler = Caller::start(&news, "read", "signal.signal(signal.SIGUSR1, lambda *_: None)");
    handler.signal(Signal::USR1);
    assert_eq!(handler.says(), "Interrupted system call");
    // Ctrl-Z, and fg.
    let mut stopped = Caller::start(&news, "read", "");
    stopped.signal(Signal::STOP);
    stopped.eventually("the stop", |task| state(task) == Some('T'));
    stopped.signal(Signal::CONT);
    arrives(&mounted, id);
    assert_eq!(deaf.says(), "one");
    assert_eq!(handler.says(), "one");
    let said = stopped.says();
    assert_eq!(if said == "Interrupted system call" { stopped.says() } else { said }, "one");
}

#[test]
fn an_fsync_that_waits_for_replicas_is_interrupted_and_loses_nothing() {
    let options = Options { fsync: Fsync::Stored, ..Options::default() };
    let Some(mounted) = Mounted::with(false, options) else { return };
    mounted.ok("printf abc > f");
    let file = mounted.path.join("f");
    for signal in [Signal::INT, Signal::TERM, Signal::KILL] {
        let mut caller = Caller::start(&file, "fsync", "");
        caller.signal(signal);
        assert_eq!(caller.ended_by(), Some(signal.as_raw()));
    }
    let mut handler = Caller::start(&file, "fsync", "signal.signal(signal.SIGUSR1, lambda *_: None)");
    handler.signal(Signal::USR1);
    assert_eq!(handler.says(), "Interrupted system call");
    assert_eq!(mounted.ok("cat f"), "abc");
}

#[test]
fn a_read_of_wait_is_interrupted() {
    let Some(mounted) = Mounted::new(false) else { return };
    mounted.ok("printf abc > f");
    mounted.reader("news");
    for name in ["f", "news"] {
        let wait = mounted.path.join(".pigeonfs").join(name).join("wait");
        for signal in [Signal::INT, Signal::KILL] {
            let mut caller = Caller::start(&wait, "read", "");
            caller.signal(signal);
            assert_eq!(caller.ended_by(), Some(signal.as_raw()));
        }
        let mut handler = Caller::start(&wait, "read", "signal.signal(signal.SIGUSR1, lambda *_: None)");
        handler.signal(Signal::USR1);
        assert_eq!(handler.says(), "Interrupted system call");
    }
}
