//! What surrounds a mount: who reads its stderr, which signals its starter ignores, what other mounts there are, which
//! descriptors it was given. None of it may stop a mount, or be kept from ending by it.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{Kill, Work, eventually, is_mounted, no_fuse, run};
use crate::lifecycle::apart;
use rustix::process::{Pid, Signal, kill_process};

/// A mount that this test started in its own way; taken down with the test.
struct Started {
    child: Kill,
    path: std::path::PathBuf,
}

impl Started {
    fn new(work: &Work, mut command: Command) -> Self {
        let path = work.path("m");
        fs::create_dir_all(&path).expect("a mount point");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("the binary");
        let started = Self { child: Kill(child), path };
        eventually("the mount", || is_mounted(&started.path).then_some(()));
        started
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child.0), signal).expect("our child");
    }

    fn is_there(&mut self) -> bool {
        self.child.0.try_wait().expect("our child").is_none() && is_mounted(&self.path)
    }

    fn ends(&mut self) -> Option<i32> {
        let status = eventually("the end of the mount", || self.child.0.try_wait().expect("our child"));
        assert!(!is_mounted(&self.path), "it is left behind");
        status.code()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.0.kill();
        let _ = self.child.0.wait();
    }
}

/// `pigeonfs mount` on this work's state and mount point, begun by a shell that prepares it.
fn mount_by_shell(work: &Work, prepare: &str) -> Command {
    let mut command = work.command();
    let program = command.get_program().to_owned();
    let mut shell = Command::new("bash");
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell.arg("-c").arg(format!("{prepare}; exec \"$0\" mount --state \"$1\" \"$2\"")).arg(program);
    shell.arg(work.path("s")).arg(work.path("m"));
    command.stdin(Stdio::null());
    shell
}

#[test]
fn a_stderr_that_nobody_reads_holds_nobody_up() {
    if no_fuse() {
        return;
    }
    let mut work = Work::new();
    work.log = "trace";
    let mut command = mount_by_shell(&work, ":");
    command.stderr(Stdio::piped());
    let mut mount = Started::new(&work, command);
    // A pipe holds 64 KiB. Each of these is a line of the log.
    for n in 0..4000 {
        assert!(fs::metadata(mount.path.join(format!("no such file, of which the log tells {n}"))).is_err());
    }
    fs::write(mount.path.join("f"), "taken").expect("written");
    fs::File::open(mount.path.join("f")).and_then(|file| file.sync_all()).expect("synced");
    mount.signal(Signal::TERM);
    let began = Instant::now();
    assert_eq!(mount.ends(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(60), "it ended in its time");
    let mut said = String::new();
    mount.child.0.stderr.take().expect("piped").read_to_string(&mut said).expect("a pipe");
    assert!(said.contains("mounted"), "{said}");
}

#[test]
fn a_reader_of_the_log_that_comes_back_is_told_what_it_missed() {
    if no_fuse() {
        return;
    }
    let mut work = Work::new();
    work.log = "trace";
    let mut command = mount_by_shell(&work, ":");
    command.stderr(Stdio::piped());
    let mut mount = Started::new(&work, command);
    for n in 0..4000 {
        assert!(fs::metadata(mount.path.join(format!("no such file, of which the log tells {n}"))).is_err());
    }
    let mut stderr = mount.child.0.stderr.take().expect("piped");
    let reader = std::thread::spawn(move || {
        let mut said = Vec::new();
        stderr.read_to_end(&mut said).expect("a pipe");
        String::from_utf8_lossy(&said).into_owned()
    });
    mount.signal(Signal::TERM);
    assert_eq!(mount.ends(), Some(0));
    let said = reader.join().expect("no panic");
    assert!(said.contains("lines of the log were dropped here"), "{}", &said[said.len().saturating_sub(500)..]);
}

#[test]
fn a_hangup_that_was_ignored_from_the_start_ends_nothing() {
    if no_fuse() {
        return;
    }
    let work = Work::new();
    let mut mount = Started::new(&work, mount_by_shell(&work, "trap '' HUP"));
    // A verb that waits, started by the same shell, is not ended either.
    work.verb("other", &["new", "news"]).ok();
    let capability = work.verb("other", &["share", "news"]).ok().stdout;
    work.verb_with("s", &["add", "news"], &capability).ok();
    let mut wait = mount_by_shell(&work, "trap '' HUP; exec \"$0\" wait news --timeout 600 --state \"$1\"");
    let mut wait = Kill(wait.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("bash"));
    eventually("the verb", || takes_signals(&wait.0).then_some(()));
    for child in [&mount.child.0, &wait.0] {
        kill_process(Pid::from_child(child), Signal::HUP).expect("our child");
    }
    // A signal that comes later was heard when this one had been.
    kill_process(Pid::from_child(&wait.0), Signal::TERM).expect("our child");
    let code = eventually("the end of the verb", || wait.0.try_wait().expect("our child")).code();
    assert_eq!(code, Some(130), "it was SIGTERM that ended it");
    assert!(mount.is_there());
    mount.signal(Signal::TERM);
    assert_eq!(mount.ends(), Some(0));
}

/// Whether a process has taken its signals over: it has handlers for all of them, and listens to those that came before.
fn takes_signals(child: &Child) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    // The last one. While a handler is being installed, a signal may come before anybody listens.
    caught & (1 << (libc::SIGXFSZ - 1)) != 0
}

#[test]
fn signals_that_tell_something_else_end_nothing() {
    if no_fuse() {
        return;
    }
    let work = Work::new();
    let mut mount = Started::new(&work, mount_by_shell(&work, ":"));
    for signal in [Signal::USR1, Signal::USR2, Signal::XFSZ, Signal::WINCH, Signal::CHILD, Signal::URG, Signal::CONT] {
        mount.signal(signal);
    }
    fs::write(mount.path.join("f"), "taken").expect("written");
    assert!(mount.is_there());
    mount.signal(Signal::INT);
    assert_eq!(mount.ends(), Some(0));
}

#[test]
fn a_limit_of_file_sizes_is_told_to_whoever_writes() {
    if no_fuse() {
        return;
    }
    let work = Work::new();
    // In KiB; the state's own files stay below it.
    let mut mount = Started::new(&work, mount_by_shell(&work, "ulimit -f 20480"));
    fs::create_dir(mount.path.join("drop")).expect("a drop");
    let file = fs::File::create(mount.path.join("drop/file")).expect("made");
    let error = std::os::unix::fs::FileExt::write_all_at(&file, &[1; 100], 21 << 20).expect_err("too large");
    assert_eq!(error.raw_os_error(), Some(libc::EFBIG), "{error}");
    drop(file);
    // A stream's bytes are in the database, which is a file too. What was taken before stays, and the state is well.
    let mut stream = fs::File::create(mount.path.join("stream")).expect("made");
    let error = (0..400).find_map(|_| stream.write_all(&[1; 64 << 10]).err()).expect("too large");
    assert_eq!(error.raw_os_error(), Some(libc::EFBIG), "{error}");
    stream.sync_all().expect("what was taken is safe");
    fs::read(mount.path.join("stream")).expect("read");
    assert!(mount.is_there());
    mount.signal(Signal::TERM);
    assert_eq!(mount.ends(), Some(0));
}

#[test]
fn two_signals_within_a_second_are_one() {
    if no_fuse() {
        return;
    }
    let work = Work::new();
    let mut mount = Started::new(&work, mount_by_shell(&work, ":"));
    fs::write(mount.path.join("f"), "kept").expect("written");
    for signal in [Signal::HUP, Signal::TERM, Signal::INT] {
        // It may have ended by then.
        let _ = kill_process(Pid::from_child(&mount.child.0), signal);
    }
    assert_eq!(mount.ends(), Some(0), "an end in order");
}

#[test]
fn the_background_keeps_nothing_open_that_it_was_given() {
    if no_fuse() {
        return;
    }
    let work = Work::new();
    let path = work.path("m");
    fs::create_dir(&path).expect("a mount point");
    // `cat` ends when nobody holds the pipe any more.
    let script = "\"$0\" mount --daemonize --state \"$1\" \"$2\" 7>&1 >/dev/null 2>&1 | timeout 60 cat";
    let mut shell = Command::new("bash");
    shell.args(["-o", "pipefail", "-c", script]).arg(work.command().get_program());
    shell.arg(work.path("s")).arg(&path).env("HOME", work.path(""));
    let ran = run(&mut shell, b"");
    let mounted = is_mounted(&path);
    work.verb("s", &["umount", path.to_str().expect("text")]).ok();
    ran.ok();
    assert!(mounted);
    eventually("the end of the process", || fs::File::open(work.path("s/lock")).ok()?.try_lock().ok());
}

#[test]
fn a_mount_point_and_a_state_may_have_names_that_are_no_text() {
    if no_fuse() {
        return;
    }
    let work = Work::new();
    let _ = apart(
        &work,
        r#"
        odd=$(printf 'caf\351 \\ \n, two'); mkdir "$odd"; state=$(printf 's\351')
        for user in root as_user; do
            [ $user = root ] && user= state="$PWD/$state" || state=$PWD/home/s
            chown 65534 "$odd"; [ "$user" ] || chown 0 "$odd"
            for json in "" --json; do
                $user pigeonfs mount --daemonize $json --state "$state" "$odd" >/dev/null
                echo taken | $user tee "$odd/f" >/dev/null
                fails 6 "already" $user pigeonfs mount --state "$state" "$odd"
                fails 6 "mounted at" $user pigeonfs mount --state "$state" mnt
                $user pigeonfs umount $json "$odd" >/dev/null
                gone "$state/control.sock"
            done
            # Killed, and cleared.
            $user pigeonfs mount --daemonize --state "$state" "$odd"
            pid=$(cat "$state/lock"); kill -9 $pid; gone /proc/$pid
            $user pigeonfs mount --daemonize --state "$state" "$odd"
            $user pigeonfs umount "$odd"
            gone "$state/control.sock"
        done
        # As mount(8) calls it.
        ln -s $PWD/bin/pigeonfs bin/mount.pigeonfs
        mount.pigeonfs "$(printf '/%s' "${PWD#/}")/$(printf 's\351')" "$odd" -o noauto
        [ "$(cat "$odd/f")" = taken ]
        umount "$odd"; gone "$(printf 's\351')/control.sock"
        [ -z "$(ours)" ]
        "#,
    );
}

#[test]
fn mounts_of_others_at_paths_that_are_no_text_hide_nothing() {
    if no_fuse() {
        return;
    }
    let work = Work::new();
    let _ = apart(
        &work,
        r#"
        stick=$(printf 'caf\351'); mkdir a "$stick"
        pigeonfs mount --daemonize --state sa a
        mount -t tmpfs none "$stick"
        as_user pigeonfs mount --daemonize mnt
        as_user sh -c 'echo hello >mnt/f'
        # A dead one is found and cleared, by root and by a user.
        for lock in sa/lock home/.local/state/pigeonfs/lock; do
            pid=$(cat $lock); kill -9 $pid; gone /proc/$pid
        done
        pigeonfs mount --daemonize --state sa a
        as_user pigeonfs mount --daemonize mnt
        [ "$(as_user cat mnt/f)" = hello ]
        pigeonfs umount a; gone sa/control.sock
        as_user pigeonfs umount mnt; gone home/.local/state/pigeonfs/control.sock
        [ -z "$(ours)" ]
        "#,
    );
}

#[test]
fn a_terminal_that_is_stopped_holds_no_mount_up() {
    if no_fuse() {
        return;
    }
    // A FIFO with a reader that reads nothing stands for it: a write to it waits in the same way.
    let work = Work::new();
    let fifo = work.path("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).expect("made");
    let mut held = fs::OpenOptions::new().read(true).write(true).open(&fifo).expect("opened");
    rustix::pipe::fcntl_setpipe_size(&held, 4096).expect("set");
    held.write_all(&[b'x'; 4096]).expect("it is full now");
    let mut command = mount_by_shell(&work, "exec 2>>\"$3\"");
    command.arg(&fifo).process_group(0);
    let mut mount = Started::new(&work, command);
    fs::write(mount.path.join("f"), "taken").expect("written");
    mount.signal(Signal::TERM);
    assert_eq!(mount.ends(), Some(0));
}

#[test]
fn a_copy_of_the_mount_elsewhere_keeps_neither_process_nor_state() {
    if no_fuse() {
        return;
    }
    let work = Work::new();
    let _ = apart(
        &work,
        r#"
        for user in "" as_user; do
            if [ "$user" ]; then state=$PWD/home/state; chown 65534 mnt; else state=$PWD/state; chown 0 mnt; fi
            for open in "" "exec 3<mnt/f;"; do
                $user pigeonfs mount --daemonize --state $state mnt
                echo kept | $user tee mnt/f >/dev/null
                # Another namespace takes a copy, as a container does.
                mkfifo there$user; chmod 666 there$user
                $user unshare --map-root-user --mount --propagation private bash -c "$open echo >there$user; exec sleep 1000" &
                copy=$!
                read _ <there$user; rm there$user
                $user pigeonfs umount mnt 2>said
                grep -q "a copy of the mount is in another mount namespace.* process [0-9]* (sleep)" said || { cat said; exit 98; }
                gone $state/control.sock
                flock -w 20 $state/lock true || { echo "the state is held"; exit 97; }
                pkill -P $copy || kill $copy; wait $copy || true
            done
            # Taken out lazily, with a file that is open: it stays usable until it is closed.
            $user pigeonfs mount --daemonize --state $state mnt
            $user bash -c 'exec 4<mnt/f; pigeonfs umount --lazy mnt; sleep 3; [ "$(cat <&4)" = kept ]'
            gone $state/control.sock
            # And so it does while another namespace has a copy, which keeps nothing once the file is closed.
            $user pigeonfs mount --daemonize --state $state mnt
            mkfifo there$user; chmod 666 there$user
            $user unshare --map-root-user --mount --propagation private bash -c "echo >there$user; exec sleep 1000" &
            copy=$!
            read _ <there$user; rm there$user
            $user bash -c 'exec 4<mnt/f; pigeonfs umount --lazy mnt; sleep 3; [ "$(cat <&4)" = kept ]' 2>said || { cat said; exit 95; }
            gone $state/control.sock
            pkill -P $copy || kill $copy; wait $copy || true
        done
        [ -z "$(ours)" ] || { ours; exit 96; }
        "#,
    );
}

#[test]
fn the_end_of_a_mount_does_not_wait_for_all_that_is_staged_and_loses_none() {
    const FILES: usize = 1000;
    if no_fuse() {
        return;
    }
    let work = Work::new();
    let slow = ["--settle-ms", "3600000", "--drain-timeout", "0"];
    let mount = work.mount("m", "s", &slow);
    fs::create_dir(mount.file("drop")).expect("a drop");
    for n in 0..FILES {
        fs::write(mount.file(&format!("drop/{n}")), n.to_string()).expect("written");
    }
    mount.signal(Signal::TERM);
    let mount = work.mount("m", "s", &slow);
    for n in 0..FILES {
        assert_eq!(fs::read(mount.file(&format!("drop/{n}"))).expect("kept"), n.to_string().as_bytes());
    }
    assert_eq!(fs::read_dir(mount.file("drop")).expect("listed").count(), FILES);
    let status = fs::read_to_string(mount.file(".pigeonfs/drop/status")).expect("a status");
    assert!(!status.contains("unfinished"), "{status}");
    assert!(mount.log().contains("the next mount prepares the files that are left"), "{}", mount.log());
    mount.signal(Signal::TERM);
}

#[test]
fn a_mount_point_that_is_swapped_is_the_one_that_was_looked_at() {
    if no_fuse() || !rustix::process::geteuid().is_root() {
        return;
    }
    let work = Work::new();
    let (point, full) = (work.path("m"), work.path("full"));
    fs::create_dir(&point).expect("a mount point");
    fs::create_dir(&full).expect("a directory");
    fs::write(full.join("file"), "in the way").expect("written");
    // Both belong to another user, who swaps them all the time.
    for path in [&point, &full] {
        std::os::unix::fs::chown(path, Some(65534), Some(65534)).expect("root may");
    }
    let mut mounts = 0;
    let until = Instant::now() + crate::common::PATIENCE;
    while mounts < 8 {
        assert!(Instant::now() < until, "too few mounts could be made: {mounts}");
        let stop = std::sync::atomic::AtomicBool::new(false);
        let ran = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let (cwd, flags) = (rustix::fs::CWD, rustix::fs::RenameFlags::EXCHANGE);
                    // A mount point stays where it is.
                    let _ = rustix::fs::renameat_with(cwd, &point, cwd, &full, flags);
                }
            });
            let ran = work.verb("s", &["mount", "--daemonize", point.to_str().expect("text")]);
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            ran
        });
        if ran.code == Some(0) {
            mounts += 1;
            let hidden = ![&point, &full].iter().any(|path| path.join("file").exists());
            for path in [&point, &full] {
                if is_mounted(path) {
                    work.verb("s", &["umount", "--lazy", path.to_str().expect("text")]).ok();
                }
            }
            assert!(!hidden, "it was mounted over the file");
            eventually("the end of the process", || fs::File::open(work.path("s/lock")).ok()?.try_lock().ok());
        } else {
            // It was looked at while the other had its name.
            ran.failed(2, &["is not empty"]);
        }
    }
}

#[test]
fn root_mounts_the_state_of_a_user_as_that_user() {
    if no_fuse() {
        return;
    }
    let work = Work::new();
    let _ = apart(
        &work,
        r#"
        # What a user could plant for root to write to.
        echo untouched >target
        as_user mkdir -m 700 home/state
        as_user ln -s $PWD/target home/state/mount.log
        fails 2 "mount.log" pigeonfs mount --daemonize --state $PWD/home/state mnt
        [ "$(cat target)" = untouched ]
        as_user rm home/state/mount.log
        as_user ln -s $PWD home/state/drops
        # As that user it may be mounted or not; nothing is written where root alone may write.
        if pigeonfs mount --daemonize --state $PWD/home/state mnt 2>/dev/null; then
            mkdir mnt/drop 2>/dev/null || as_user mkdir mnt/drop; as_user sh -c 'echo text >mnt/drop/file' || true
            pigeonfs umount mnt; gone home/state/control.sock
        fi
        [ "$(ls | sort | tr '\n' ' ')" = "bin fuse home mnt said target " ] || { ls; exit 97; }
        rm -rf home/state
        # A state that is to be made, and one that is there.
        for n in 1 2; do
            pigeonfs mount --daemonize --state $PWD/home/state mnt
            pid=$(cat home/state/lock)
            [ "$(stat -c %u /proc/$pid/task)" = 65534 ] || grep -q '^Uid:.65534.65534.65534.65534$' /proc/$pid/status
            grep -q '^Groups:.*[^0-9]0 ' /proc/$pid/status && exit 96
            as_user sh -c 'echo hello >>mnt/log'
            [ "$(find home/state ! -user 65534 | wc -l)" = 0 ]
            # Root may end it.
            pigeonfs umount mnt
            gone home/state/control.sock
        done
        as_user pigeonfs mount --daemonize --state $PWD/home/state mnt
        [ "$(as_user cat mnt/log | wc -l)" = 2 ]
        as_user pigeonfs umount mnt
        gone home/state/control.sock
        "#,
    );
}

#[test]
fn refusals_of_one_kind_are_told_once_and_counted() {
    if no_fuse() {
        return;
    }
    let work = Work::new();
    let mut mount = work.mount("m", "s", &[]);
    for n in 0..300 {
        let link = std::os::unix::fs::symlink("nowhere", mount.file(&format!("link-{n}")));
        assert_eq!(link.expect_err("there are no links").raw_os_error(), Some(libc::EPERM));
    }
    work.verb("s", &["umount", mount.path.to_str().expect("text")]).ok();
    mount.wait();
    let log = mount.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("symlink")).collect();
    assert_eq!(lines.len(), 2, "{log}");
    assert!(lines[0].contains("link-0"), "{log}");
    assert!(lines[1].contains("refused 299 more times") && lines[1].contains("link-299"), "{log}");
}
