//! What a person sees on a terminal while a verb works: a line that fits, in characters that the terminal has, that says
//! what is waited for; and what is seen where there is no terminal.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::common::{Kill, Work, run};

/// A network that stores nothing, and a channel that waits for it.
fn stuck() -> (Work, crate::common::Localnet) {
    let work = Work::new();
    let network = work.localnet("net");
    work.verb("net", &["localnet", "ctl", "faults", "set", "loss=1"]).ok();
    let name = "日本語の長いチャンネルの名前";
    work.verb_with("s", &["append", name, "--no-wait", "--config", network.config()], &[7; 100_000]).ok();
    (work, network)
}

fn wait(work: &Work, network: &crate::common::Localnet) -> Command {
    let mut command = work.command();
    command.args(["wait", "日本語の長いチャンネルの名前", "--config", network.config(), "--state"]).arg(work.path("s"));
    command.env("PIGEONFS_LOG", "error").stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// What the command shows on a terminal of so many columns until it has shown `enough`, and is interrupted then.
fn on_a_terminal(mut command: Command, columns: u16, enough: &str) -> String {
    let (mut terminal, slave) = terminal(columns);
    let mut child = Kill(command.stderr(slave).spawn().expect("the binary"));
    drop(command);
    let mut shown = String::new();
    let until = Instant::now() + Duration::from_secs(120);
    let mut interrupted = false;
    let mut bytes = [0; 4096];
    // The terminal gives an error once nobody has its other end.
    while let Ok(count @ 1..) = terminal.read(&mut bytes) {
        shown.push_str(&String::from_utf8_lossy(&bytes[..count]));
        assert!(Instant::now() < until, "{shown:?}");
        if shown.contains(enough) && !std::mem::replace(&mut interrupted, true) {
            let pid = rustix::process::Pid::from_child(&child.0);
            rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("our child");
        }
    }
    assert_eq!(child.0.wait().expect("our child").code(), Some(130), "{shown:?}");
    shown
}

#[test]
fn the_line_fits_and_says_what_is_waited_for() {
    let (work, network) = stuck();
    for columns in [40, 80, 120] {
        let mut command = wait(&work, &network);
        command.env("LANG", "C.UTF-8").env("TERM", "xterm").env_remove("LC_ALL");
        let enough = if columns == 40 { "0 B of" } else { "waits for replicas" };
        let shown = on_a_terminal(command, columns, enough);
        let line = shown.split('\r').find(|line| line.contains("0 B of")).expect("a line");
        let line = line.split("\x1b[K").next().expect("text");
        let width: usize =
            line.chars()
                .map(|letter| {
                    if letter as u32 >= 0x1100 && letter != '█' && letter != '░' && letter != '…' { 2 } else { 1 }
                })
                .sum();
        assert!(width < usize::from(columns), "{columns}: {line:?} takes {width}");
        assert!(shown.ends_with('\n') && shown.contains("\r\x1b[K"), "the line is taken away: {shown:?}");
        // What an interruption leaves, and what to type.
        assert!(shown.contains("interrupted") && shown.contains("nothing is lost"), "{shown:?}");
    }
}

#[test]
fn a_terminal_without_utf_8_gets_none_and_a_dumb_one_no_redrawing() {
    let (work, network) = stuck();
    let mut plain = wait(&work, &network);
    plain.env("LC_ALL", "C").env("TERM", "xterm").env("NO_COLOR", "1");
    let shown = on_a_terminal(plain, 120, "waits for replicas");
    assert!(shown.contains("[-----") && !shown.contains(['█', '░', '…']), "{shown:?}");
    let mut dumb = wait(&work, &network);
    dumb.env("TERM", "dumb").env("LANG", "C.UTF-8");
    let shown = on_a_terminal(dumb, 80, "waits for replicas");
    assert!(!shown.contains('\x1b'), "{shown:?}");
}

#[test]
fn without_a_terminal_a_line_comes_within_some_seconds() {
    let (work, network) = stuck();
    let mut command = wait(&work, &network);
    let run = run(command.args(["--timeout", "8"]), b"").failed(3, &["waits for replicas", "time left: estimating"]);
    assert_eq!(run.stderr.matches("waits for replicas").count(), 1, "one line a minute: {}", run.stderr);
}

/// Both ends of a terminal of so many columns.
fn terminal(columns: u16) -> (File, OwnedFd) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
    grantpt(&master).and_then(|()| unlockpt(&master)).expect("a terminal");
    let name = ptsname(&master, Vec::new()).expect("a name").into_string().expect("text");
    let slave: OwnedFd = File::options().read(true).write(true).open(name).expect("a terminal").into();
    tcsetwinsize(&slave, Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).expect("a size");
    (File::from(master), slave)
}

/// `top` draws the whole screen, answers to its keys, and leaves the terminal as it found it: by a key and by a signal.
#[test]
fn top_shows_the_channels_and_leaves_the_terminal_as_it_was() {
    let work = Work::new();
    work.verb("s", &["new", "log"]).ok();
    for by_a_key in [true, false] {
        let (mut master, slave) = terminal(100);
        let modes = rustix::termios::tcgetattr(&slave).expect("a terminal");
        let mut command = work.command();
        command.args(["top", "--state"]).arg(work.path("s"));
        command.env("LANG", "C").env("TERM", "xterm").env_remove("LC_ALL");
        let end = || slave.try_clone().expect("a terminal");
        let mut child = Kill(command.stdin(end()).stdout(end()).stderr(end()).spawn().expect("the binary"));
        drop(command);
        let (mut shown, mut bytes, mut ended) = (String::new(), [0; 4096], false);
        while !shown.contains("\x1b[?1049l") {
            let count = master.read(&mut bytes).expect("a terminal");
            shown.push_str(&String::from_utf8_lossy(&bytes[..count]));
            if shown.contains("quit") && shown.contains("log") && !std::mem::replace(&mut ended, true) {
                if by_a_key {
                    std::io::Write::write_all(&mut master, b"q").expect("a terminal");
                } else {
                    let pid = rustix::process::Pid::from_child(&child.0);
                    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("our child");
                }
            }
        }
        assert!(shown.contains("\x1b[?1049h"), "it draws on the screen beside: {shown:?}");
        let code = child.0.wait().expect("our child").code();
        assert_eq!(code, Some(if by_a_key { 0 } else { 130 }), "{shown:?}");
        let left = rustix::termios::tcgetattr(&slave).expect("a terminal");
        assert_eq!(left.local_modes, modes.local_modes, "echo and lines are as they were");
    }
    // Without a terminal it says what to do.
    work.verb("s", &["top"]).failed(1, &["needs a terminal", "status --watch"]);
    work.verb("s", &["top", "--json"]).failed(2, &["no JSON"]);
}

/// `status --watch` goes on until it is told to end, also between two looks.
#[test]
fn a_watched_status_ends_with_a_signal() {
    let work = Work::new();
    work.verb("s", &["new", "log"]).ok();
    let mut command = work.command();
    command.args(["status", "--watch", "--json", "--state"]).arg(work.path("s"));
    let mut child = Kill(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the binary"));
    let lines = std::io::BufReader::new(child.0.stdout.take().expect("piped"));
    let mut lines = std::io::BufRead::lines(lines).map(|line| line.expect("text"));
    for _ in 0..2 {
        let status: serde_json::Value = serde_json::from_str(&lines.next().expect("a line")).expect("JSON");
        assert_eq!(status["channels"][0]["name"], "log");
    }
    let pid = rustix::process::Pid::from_child(&child.0);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("our child");
    assert_eq!(child.0.wait().expect("our child").code(), Some(130));
}
