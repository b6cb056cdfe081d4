//! How a mount comes and goes: foreground and background, every way to its end, what a killed one leaves behind, and
//! what stands in the way of a new one. What needs a machine of its own (another user, another /sbin, a small disk) runs
//! in mount and process namespaces that go with the test, and takes all that it started with it.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::common::{Kill, Run, Work, eventually, is_mounted, no_fuse, run, skip};
use rustix::process::{Pid, Signal, kill_process};

/// Nobody's number.
const USER: &str = "65534";

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("our child");
}

fn status_of(work: &Work, state: &str) -> serde_json::Value {
    serde_json::from_str(&work.verb(state, &["status", "--json"]).ok().text()).expect("JSON")
}

#[test]
fn the_background_is_entered_when_the_mount_is_there() {
    if no_fuse() {
        return;
    }
    let work = Work::new();
    let path = work.path("m");
    fs::create_dir(&path).expect("a mount point");
    let point = path.to_str().expect("text");
    let ready = work.verb("s", &["mount", "--localnet", "--daemonize", "--json", point]).ok();
    assert!(is_mounted(&path), "it was there when the command returned");
    let told: serde_json::Value = serde_json::from_str(&ready.text()).expect("one line of JSON");
    assert_eq!(told["mounted"], point);
    fs::write(path.join("f"), "kept").expect("written");

    let other = work.path("other");
    fs::create_dir(&other).expect("a mount point");
    let taken = work.verb("s", &["mount", "--localnet", other.to_str().expect("text")]);
    taken.failed(6, &["mounted at", point, "already, by process", "hint: unmount it first"]);
    let both = work.verb("s2", &["mount", "--localnet", "--daemonize", point]);
    both.failed(6, &["is a mount of pigeonfs already", "pigeonfs umount"]);

    let process = work.verb("s", &["umount", point]).ok();
    assert_eq!(process.stderr, "");
    eventually("the process to have ended", || fs::remove_file(work.path("s/control.sock")).err());
    let log = fs::read_to_string(work.path("s/mount.log")).expect("a log of its own");
    assert!(log.contains("unmounted from outside"), "{log}");
    assert!(!log.contains('\x1b'), "no colours in a file");
}

#[test]
fn what_stands_in_the_way_is_said_with_an_exit_code_also_from_the_background() {
    if no_fuse() {
        return;
    }
    let work = Work::new();
    fs::write(work.path("file"), "").expect("written");
    fs::create_dir_all(work.path("full/of")).expect("made");
    let cases = [
        ("missing", "does not exist: make it with `mkdir`"),
        ("missing/too", "does not exist"),
        ("file", "is not a directory"),
        ("file/below", "is not a directory"),
        ("full", "is not empty"),
    ];
    for (name, told) in cases {
        let path = work.path(name);
        let point = path.to_str().expect("text");
        for arguments in [&["mount", point][..], &["mount", "--daemonize", point]] {
            work.verb("s", arguments).failed(2, &[told, name]);
        }
    }
    let log = work.path("no/such/log");
    let arguments = ["mount", "--log-file", log.to_str().expect("text"), "full"];
    work.verb("s", &arguments).failed(2, &["the log file", "cannot be written to"]);
    let nowhere = work.verb("s", &["umount", "full"]).failed(2, &["does not exist", "nothing is mounted there"]);
    assert!(!nowhere.stderr.contains("mkdir"), "{}", nowhere.stderr);
    work.verb("s", &["umount", "/"]).failed(1, &["is not a mount of pigeonfs"]);
    work.verb("s", &["mount", "--spool-limit", "much", "m"]).failed(2, &["--spool-limit", "is not a size"]);
    work.verb("s", &["mount", "--fsync", "never", "m"]).failed(2, &["neither `spool` nor `stored`"]);
}

#[test]
fn every_way_to_the_end_is_in_order_and_the_next_mount_finds_all() {
    if no_fuse() {
        return;
    }
    let work = Work::new();
    for (n, end) in [Signal::TERM, Signal::INT, Signal::HUP].into_iter().enumerate() {
        let mount = work.mount("m", "s", &[]);
        let mut file = File::options().append(true).create(true).open(mount.file("log")).expect("opened");
        writeln!(file, "{n}").expect("written");
        // It stays open: the mount goes all the same.
        mount.signal(end);
    }
    for arguments in [&["umount"][..], &["fusermount3", "-u"]] {
        let mut mount = work.mount("m", "s", &[]);
        assert_eq!(fs::read_to_string(mount.file("log")).expect("read"), "0\n1\n2\n");
        run(Command::new(arguments[0]).args(&arguments[1..]).arg(&mount.path), b"").ok();
        mount.wait();
    }
    let mut mount = work.mount("m", "s", &[]);
    let open = File::open(mount.file("log")).expect("opened");
    let point = mount.path.to_str().expect("text").to_owned();
    work.verb("s", &["umount", &point]).failed(6, &["is in use by process", "--lazy"]);
    work.verb("s", &["umount", "--lazy", &point]).ok();
    assert!(!is_mounted(&mount.path));
    assert_eq!(std::io::read_to_string(&open).expect("still usable"), "0\n1\n2\n");
    drop(open);
    mount.wait();
}

#[test]
fn a_service_manager_is_told() {
    if no_fuse() {
        return;
    }
    let work = Work::new();
    let path = work.path("notify");
    let socket = UnixDatagram::bind(&path).expect("bound");
    socket.set_read_timeout(Some(crate::common::PATIENCE)).expect("set");
    let heard = || {
        let mut words = [0; 512];
        let count = socket.recv(&mut words).expect("a word in time");
        String::from_utf8_lossy(&words[..count]).into_owned()
    };
    let point = work.path("m");
    fs::create_dir(&point).expect("a mount point");
    let mut command = work.command();
    command.args(["mount", "--state"]).arg(work.path("s")).arg(&point).env("NOTIFY_SOCKET", &path);
    let log = File::create(work.path("m.log")).expect("a log");
    let mut mount = Kill(command.stderr(log).spawn().expect("the binary"));
    let ready = heard();
    assert!(ready.starts_with("READY=1\n"), "{ready}");
    assert!(is_mounted(&point), "it is said when it is so");
    signal(&mount.0, Signal::TERM);
    assert!(heard().starts_with("STOPPING=1"));
    assert!(mount.0.wait().expect("our child").success());
}

#[test]
fn what_is_left_is_sent_at_the_end_and_a_second_signal_or_another_mount_ends_that() {
    if no_fuse() {
        return;
    }
    let work = Work::new();
    let net = work.localnet("net");
    let mount = work.mount("m", "s", &["--config", net.config(), "--drain-timeout", "200", "--linger-ms", "100000"]);
    fs::write(mount.file("f"), "a tail that no linger will send").expect("written");
    eventually("the network", || (status_of(&work, "s")["daemon"]["link"] == "connected").then_some(()));
    mount.signal(Signal::TERM);
    assert_eq!(status_of(&work, "s")["spool_bytes"], 0, "all of it was stored before the end");

    // A network that has stopped: nothing more is stored, and nobody says that it has gone.
    let options = ["--config", net.config(), "--drain-timeout", "3600"];
    let stalled = |name: &str| {
        let mount = work.mount(name, "s", &options);
        eventually("the network", || (status_of(&work, "s")["daemon"]["link"] == "connected").then_some(()));
        let network = Pid::from_raw(i32::try_from(net.pid()).expect("a process")).expect("a process");
        kill_process(network, Signal::STOP).expect("our child");
        let mut file = File::options().append(true).create(true).open(mount.file("g")).expect("opened");
        writeln!(file, "more").expect("written");
        drop(file);
        let go_on = move || kill_process(network, Signal::CONT).expect("our child");
        (mount, go_on)
    };
    let (mount, go_on) = stalled("m");
    let pid = Pid::from_raw(i32::try_from(mount.pid()).expect("a process")).expect("a process");
    kill_process(pid, Signal::TERM).expect("our child");
    eventually("the unmount", || (!is_mounted(&mount.path)).then_some(()));
    eventually("the drain", || mount.log().contains("sending what is left").then_some(()));
    // Within a second it would be the same signal.
    eventually("the end", || {
        let _ = kill_process(pid, Signal::TERM);
        std::thread::sleep(std::time::Duration::from_millis(200));
        is_zombie(mount.pid())
    });
    assert_eq!(mount.ended_with(), Some(130));
    go_on();

    let (mut first, go_on) = stalled("m");
    let pid = Pid::from_raw(i32::try_from(first.pid()).expect("a process")).expect("a process");
    kill_process(pid, Signal::TERM).expect("our child");
    eventually("the unmount", || (!is_mounted(&first.path)).then_some(()));
    let second = work.mount("m2", "s", &options);
    first.wait();
    assert!(first.log().contains("another process takes the state"), "{}", first.log());
    go_on();
    assert_eq!(fs::read_to_string(second.file("g")).expect("read"), "more\nmore\n");
    // One that ends before it has found its network leaves what there is to the next.
    eventually("the network", || (status_of(&work, "s")["daemon"]["link"] == "connected").then_some(()));
    second.signal(Signal::TERM);
    assert_eq!(status_of(&work, "s")["spool_bytes"], 0);
}

#[test]
fn a_killed_mount_leaves_errors_and_the_next_one_clears_it() {
    if no_fuse() {
        return;
    }
    let work = Work::new();
    let mount = work.mount("m", "s", &[]);
    fs::write(mount.file("f"), "kept").expect("written");
    // A reader of a channel of which nothing is known waits; the kill ends it.
    let capability = work.verb("other", &["new", "news"]).ok();
    drop(capability);
    let capability = work.verb("other", &["share", "news"]).ok().stdout;
    work.verb_with("s", &["add", "news"], &capability).ok();
    let mut waiting = Command::new("cat")
        .arg(mount.file("news"))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map(Kill)
        .expect("cat");
    eventually("cat to wait in its read", || in_read(waiting.0.id()));
    let open = File::open(mount.file("f")).expect("opened");
    let path = mount.path.clone();
    mount.kill();
    // What the living one said of its root is kept for a tick of the kernel's clock.
    let dead = eventually("the kernel to say that it is dead", || fs::metadata(&path).err());
    assert_eq!(dead.raw_os_error(), Some(libc::ENOTCONN));
    assert_eq!(std::io::read_to_string(open).expect_err("dead").raw_os_error(), Some(libc::ENOTCONN));
    assert!(!waiting.0.wait().expect("our child").success());
    let words = std::io::read_to_string(waiting.0.stderr.take().expect("piped")).expect("a pipe");
    assert!(words.contains("not connected") || words.contains("connection abort"), "{words}");

    let mount = work.mount("m", "s", &[]);
    assert_eq!(fs::read_to_string(mount.file("f")).expect("read"), "kept");
    let path = mount.path.clone();
    mount.kill();
    work.verb("s", &["umount", path.to_str().expect("text")]).ok();
    assert!(!is_mounted(&path), "umount clears a dead one too");
}

/// Whether a process has ended, and nobody has asked how.
fn is_zombie(pid: u32) -> Option<()> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, fields)| fields.starts_with('Z')).then_some(())
}

/// Whether a process waits in a system call that reads.
fn in_read(pid: u32) -> Option<()> {
    let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    let is_read = call.split(' ').next().is_some_and(|number| number == libc::SYS_read.to_string());
    is_read.then_some(())
}

#[test]
fn a_state_directory_can_be_moved_and_a_copy_of_it_mounted() {
    if no_fuse() {
        return;
    }
    let work = Work::new();
    let mount = work.mount("m", "s", &[]);
    fs::write(mount.file("f"), "kept").expect("written");
    mount.signal(Signal::TERM);
    fs::rename(work.path("s"), work.path("moved")).expect("moved");
    run(Command::new("cp").arg("-a").arg(work.path("moved")).arg(work.path("copied")), b"").ok();
    let (moved, copied) = (work.mount("m1", "moved", &[]), work.mount("m2", "copied", &[]));
    for mount in [&moved, &copied] {
        assert_eq!(fs::read_to_string(mount.file("f")).expect("read"), "kept");
    }
}

#[test]
fn mounts_that_come_and_go_leave_nothing() {
    if no_fuse() {
        return;
    }
    let work = Work::new();
    // SQLite keeps its log or writes it back, as the last reader leaves before or after the writer.
    let is_log = |name: &str| name.ends_with("-wal") || name.ends_with("-shm");
    let listing = |work: &Work| {
        let entries = fs::read_dir(work.path("s")).expect("there").flatten();
        let names = entries.map(|entry| entry.file_name().into_string().expect("text"));
        let mut names: Vec<_> = names.filter(|name| !is_log(name)).collect();
        names.sort();
        names
    };
    let path = work.path("m");
    fs::create_dir(&path).expect("a mount point");
    let point = path.to_str().expect("text");
    let mut first = None;
    let cycles = std::env::var("PIGEONFS_CYCLES").ok().and_then(|text| text.parse().ok()).unwrap_or(20);
    for n in 0..cycles {
        work.verb("s", &["mount", "--daemonize", point]).ok();
        let mut file = File::options().append(true).create(true).open(path.join("f")).expect("opened");
        file.write_all(b"x").expect("written");
        drop(file);
        assert_eq!(fs::metadata(path.join("f")).expect("there").len(), n + 1);
        work.verb("s", &["umount", point]).ok();
        assert!(!is_mounted(&path));
        // What its process lets go of last. Its number may stay where nobody asks how it ended.
        let lock = File::open(work.path("s/lock")).expect("it stays");
        eventually("the end of the process", || lock.try_lock().ok());
        drop(lock);
        let now = listing(&work);
        assert_eq!(first.get_or_insert_with(|| now.clone()), &now, "after {n}");
    }
    let table = fs::read_to_string("/proc/self/mountinfo").expect("a mount table");
    assert!(!table.contains(point), "{table}");
}

/// Says on the real stderr, which a test that passes cannot reach, what was not looked at.
fn passed_over(reason: &str) {
    let _ = std::io::stderr().write_all(format!("skipped: {reason}\n").as_bytes());
}

/// Runs a script as root in namespaces of its own, with `pigeonfs` on its path and itself as the only one who cares.
/// There /dev/fuse is a device of the test's own, which everybody may open.
pub(crate) fn apart(work: &Work, script: &str) -> Option<Run> {
    if !rustix::process::geteuid().is_root() {
        // The tests that this is for run once as root, in the place where all of them run.
        passed_over("only root can take another user's place");
        return None;
    }
    let dir = work.path("apart");
    fs::create_dir_all(&dir).expect("a directory");
    let prepare = format!(
        r#"set -eu
        mount --make-rprivate /
        mount -t tmpfs -o mode=755,dev tmpfs {dir}
        cd {dir}
        mknod -m 666 fuse c 10 229
        mkdir bin home mnt; touch bin/pigeonfs
        mount --bind {binary} bin/pigeonfs
        mount --bind fuse /dev/fuse
        chown {USER}:{USER} home mnt
        export HOME={dir}/home PATH={dir}/bin:$PATH
        unset XDG_STATE_HOME XDG_CONFIG_HOME XDG_RUNTIME_DIR PIGEONFS_THINCLIENT NOTIFY_SOCKET
        as_user() {{ setpriv --reuid {USER} --regid {USER} --clear-groups "$@"; }}
        # fails CODE WORDS COMMAND...: it must fail just so.
        fails() {{
            local code=0 want=$1 words=$2
            shift 2
            "$@" >said 2>&1 || code=$?
            [ $code = "$want" ] || {{ echo "exit $code, not $want: $*"; cat said; exit 99; }}
            grep -qF -- "$words" said || {{ echo "not said by $*: $words"; cat said; exit 99; }}
        }}
        # The mounts of this script. The namespace began as a copy, with whatever other tests had mounted at that moment.
        ours() {{ grep " $PWD/.* - fuse.pigeonfs " /proc/self/mountinfo; }}
        # A process that is told to end needs its time.
        gone() {{ for n in $(seq 2000); do [ -e "$1" ] || return 0; sleep 0.02; done; echo "$1 is still there"; exit 99; }}
        "#,
        dir = dir.display(),
        binary = env!("CARGO_BIN_EXE_pigeonfs"),
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "bash", "-c"]);
    let run = run(command.arg(prepare + script).env("PIGEONFS_LOG", "warn"), b"");
    if run.stderr.contains("unshare failed") {
        skip(&run.stderr);
        return None;
    }
    assert_eq!(run.code, Some(0), "{}{}", run.text(), run.stderr);
    Some(run)
}

#[test]
fn a_user_mounts_through_fusermount3() {
    if no_fuse() {
        return;
    }
    let work = Work::new();
    let _ = apart(
        &work,
        r#"
        umask 077
        as_user pigeonfs mount --daemonize mnt
        grep "mnt .* - fuse.pigeonfs pigeonfs .*user_id=65534" /proc/self/mountinfo >/dev/null
        as_user sh -c 'echo hello >> mnt/log; cat mnt/log'
        [ "$(as_user stat -c '%u %a' mnt/log)" = "65534 600" ]
        fails 1 "Permission denied" cat mnt/log
        # In use, then not.
        as_user sh -c 'exec 3>>mnt/log; ! pigeonfs umount mnt 2>home/said && grep -q "is in use" home/said'
        as_user pigeonfs umount mnt
        gone home/.local/state/pigeonfs/control.sock
        # From outside.
        as_user pigeonfs mount --daemonize mnt
        as_user fusermount3 -u mnt
        gone home/.local/state/pigeonfs/control.sock
        # A signal.
        as_user pigeonfs mount --daemonize mnt
        as_user kill "$(cat home/.local/state/pigeonfs/lock)"
        gone home/.local/state/pigeonfs/control.sock
        [ -z "$(ours)" ]
        # Killed: cleared by the next.
        as_user pigeonfs mount --daemonize mnt
        pid=$(cat home/.local/state/pigeonfs/lock)
        kill -9 $pid; gone /proc/$pid
        fails 2 "not connected" as_user ls mnt
        as_user pigeonfs mount --daemonize mnt 2>warned
        grep -q "clearing a dead mount" warned
        [ "$(as_user cat mnt/log)" = hello ]
        as_user pigeonfs umount mnt
        gone home/.local/state/pigeonfs/control.sock
        "#,
    );
}

#[test]
fn a_user_is_told_what_is_missing() {
    if no_fuse() {
        return;
    }
    let work = Work::new();
    let _ = apart(
        &work,
        r#"
        mkdir roots; mkdir -m 1777 sticky; mkdir -m 700 closed; mkdir closed/m
        fails 2 "is not yours" as_user pigeonfs mount roots
        fails 2 "is not yours" as_user pigeonfs mount sticky
        fails 1 "cannot be looked at: Permission denied" as_user pigeonfs mount closed/m
        fails 1 "user_allow_other" as_user pigeonfs mount --allow-other mnt
        nowhere=$(command -v setpriv)
        fails 1 "install the package fuse3" $nowhere --reuid 65534 --regid 65534 --clear-groups env PATH=/nowhere "$PWD/bin/pigeonfs" mount mnt
        chmod 600 fuse
        fails 1 "/dev/fuse may not be opened" as_user pigeonfs mount mnt
        "#,
    );
}

#[test]
fn nobody_elses_mount_is_touched() {
    if no_fuse() {
        return;
    }
    let work = Work::new();
    let _ = apart(
        &work,
        r#"
        mkdir theirs
        # A user's dead mount is not root's to clear.
        as_user pigeonfs mount --daemonize mnt
        pid=$(cat home/.local/state/pigeonfs/lock)
        kill -9 $pid; gone /proc/$pid
        fails 6 "a mount of user 65534 (fuse.pigeonfs)" pigeonfs mount --state s mnt
        [ -n "$(ours)" ]
        as_user pigeonfs umount mnt
        # Something else came to the place of a mount that was ended from outside.
        pigeonfs mount --daemonize --state s mnt
        exec 3>>mnt/open
        umount -l mnt
        mount -t tmpfs tmpfs mnt; echo theirs >mnt/file
        kill "$(cat s/lock)"; gone s/control.sock
        exec 3>&-
        [ "$(cat mnt/file)" = theirs ]
        umount mnt
        # And one that stands on top of ours.
        pigeonfs mount --daemonize --state s mnt
        mount -t tmpfs tmpfs mnt; echo theirs >mnt/file
        fails 1 "is not a mount of pigeonfs" pigeonfs umount mnt
        kill "$(cat s/lock)"; gone s/control.sock
        grep -q "covered by another mount" s/mount.log
        [ "$(cat mnt/file)" = theirs ]
        umount mnt
        # What is below is dead now, and ours.
        pigeonfs mount --daemonize --state s mnt
        # Moved, and bound to another place: both go.
        mount --move mnt theirs; mount --bind theirs mnt
        kill "$(cat s/lock)"; gone s/control.sock
        [ -z "$(ours)" ]
        "#,
    );
}

#[test]
fn others_are_let_in_where_they_were_asked_in() {
    if no_fuse() {
        return;
    }
    let work = Work::new();
    let _ = apart(
        &work,
        r#"
        echo user_allow_other >fuse.conf; mount --bind fuse.conf /etc/fuse.conf
        as_user pigeonfs mount --daemonize --allow-other --umask 022 mnt
        as_user sh -c 'echo hello >> mnt/log'
        other="setpriv --reuid 1234 --regid 1234 --clear-groups"
        [ "$($other cat mnt/log)" = hello ]
        fails 2 "Permission denied" $other sh -c 'echo more >> mnt/log'
        as_user pigeonfs umount mnt
        gone home/.local/state/pigeonfs/control.sock
        # Somebody else's files, read only.
        pigeonfs mount --daemonize --state s --allow-other --uid 1234 --gid 5 mnt
        $other sh -c 'echo mine > mnt/f'
        [ "$(stat -c '%u %g' mnt/f)" = "1234 1234" ]
        pigeonfs umount mnt; gone s/control.sock
        pigeonfs mount --daemonize --state s --read-only mnt
        [ "$(cat mnt/f)" = mine ]
        fails 2 "Read-only file system" sh -c 'echo more >> mnt/f'
        fails 1 "Read-only file system" rm mnt/f
        pigeonfs umount mnt
        "#,
    );
}

#[test]
fn mount_8_and_fstab_know_it() {
    if no_fuse() {
        return;
    }
    let work = Work::new();
    let _ = apart(
        &work,
        r#"
        # A /usr/sbin of our own, over the machine's.
        mkdir upper scratch
        sbin=$(readlink -f /sbin)
        mount -t overlay -o lowerdir=$sbin,upperdir=upper,workdir=scratch overlay $sbin
        ln -s $PWD/bin/pigeonfs $sbin/mount.pigeonfs
        ln -s $PWD/bin/pigeonfs $sbin/mount.fuse.pigeonfs
        mkdir -m 700 s
        mount -t pigeonfs $PWD/s mnt -o spool_limit=1MiB,noauto,x-systemd.automount,sync,dirsync
        echo hello >> mnt/log
        [ "$(df --output=source mnt | tail -n1)" = "$PWD/s" ]
        umount mnt; gone s/control.sock
        mount -t fuse.pigeonfs $PWD/s mnt -o ro
        fails 1 "Read-only file system" rm mnt/log
        umount mnt; gone s/control.sock
        fails 2 "there is no option \"spool\"" mount -t pigeonfs $PWD/s mnt -o spool=1
        fails 2 "-o iversion cannot be had here" mount.pigeonfs $PWD/s mnt -o iversion
        fails 2 "is not empty" mount -t pigeonfs $PWD/s upper
        echo "$PWD/s $PWD/mnt pigeonfs noauto,user,umask=027 0 0" >fstab
        mount --bind fstab /etc/fstab
        mount mnt
        [ "$(stat -c %a mnt/log)" = 640 ]
        umount mnt; gone s/control.sock
        echo "$PWD/s $PWD/mnt pigeonfs defaults 0 0" >fstab
        mount -a
        mount -a
        [ "$(ours | wc -l)" = 1 ]
        umount mnt; gone s/control.sock
        # Pretended.
        mount -f -t pigeonfs $PWD/s mnt
        [ -z "$(ours)" ]
        "#,
    );
}

#[test]
fn a_full_disk_is_no_space_left_and_nothing_that_was_taken_is_lost() {
    if no_fuse() {
        return;
    }
    let work = Work::new();
    let _ = apart(
        &work,
        r#"
        mkdir small; mount -t tmpfs -o size=40M,mode=700 tmpfs small
        pigeonfs mount --daemonize --state small/s mnt
        fails 1 "No space left on device" dd if=/dev/zero of=mnt/zeros bs=64k count=1000
        size=$(stat -c %s mnt/zeros)
        [ "$size" -gt 1000000 ]
        cmp -n "$size" mnt/zeros /dev/zero
        fails 1 "No space left on device" sh -c 'head -c 2000000 /dev/zero >> mnt/zeros'
        pigeonfs umount mnt; gone small/s/control.sock
        pigeonfs mount --daemonize --state small/s mnt
        [ "$(stat -c %s mnt/zeros)" -ge "$size" ]
        cmp -n "$size" mnt/zeros /dev/zero
        # Nothing has left: it can be taken back, and then there is room before long.
        rm mnt/zeros
        for n in $(seq 300); do echo room 2>/dev/null >mnt/again && break; sleep 0.1; done 2>/dev/null
        [ "$(cat mnt/again)" = room ]
        pigeonfs umount mnt
        "#,
    );
}

#[test]
fn a_mount_in_a_user_namespace_of_ones_own_is_possible() {
    if no_fuse() {
        return;
    }
    let work = Work::new();
    let script = format!(
        "mkdir m && {binary} mount --daemonize --state s m && echo hello >> m/f && cat m/f && {binary} umount m",
        binary = env!("CARGO_BIN_EXE_pigeonfs")
    );
    let mut command = Command::new("unshare");
    command.args([
        "--map-root-user",
        "--mount",
        "--pid",
        "--fork",
        "--mount-proc",
        "--kill-child",
        "sh",
        "-ec",
        &script,
    ]);
    let run = run(command.current_dir(work.path("")).env("HOME", work.path("")), b"");
    if run.stderr.contains("unshare") || Path::new("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").exists() {
        return passed_over(&format!("no user namespaces: {}", run.stderr.trim()));
    }
    assert_eq!(run.ok().text(), "hello\n");
}
