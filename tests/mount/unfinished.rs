//! Files of which something shows that their writer did not finish: they are kept, listed, and never sent as they are.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;

use crate::common::{Mount, Work, bytes, eventually, no_fuse, run};
use crate::drop_mount::World;
use crate::lifecycle::apart;
use rustix::net::SocketType;
use rustix::net::sockopt::{set_socket_send_buffer_size, socket_send_buffer_size, socket_type};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

/// How a file of a drop stands; `None`: it is not there.
fn state(file: &Path) -> Option<String> {
    let mut value = [0; 32];
    let count = rustix::fs::getxattr(file, "user.pigeonhole.state", &mut value[..]).ok()?;
    Some(String::from_utf8_lossy(&value[..count]).into_owned())
}

/// Both ends of the pair between the relay and fuser in a mount's process; `None`: they cannot be had here.
fn relay_of(mount: &Mount) -> Option<Vec<OwnedFd>> {
    let pid = Pid::from_raw(i32::try_from(mount.pid()).expect("a pid")).expect("a pid");
    let process = pidfd_open(pid, PidfdFlags::empty()).expect("it runs");
    let mut ends = Vec::new();
    for entry in fs::read_dir(format!("/proc/{}/fd", mount.pid())).ok()? {
        let name = entry.ok()?.file_name();
        let number = name.to_str().and_then(|name| name.parse().ok()).expect("a number");
        // It may have been closed meanwhile.
        let Ok(descriptor) = pidfd_getfd(&process, number, PidfdGetfdFlags::empty()) else { continue };
        if socket_type(&descriptor).is_ok_and(|it| it == SocketType::SEQPACKET) {
            ends.push(descriptor);
        }
    }
    (ends.len() == 2).then_some(ends)
}

/// A write that found no memory on its way through the relay was answered with EIO, and nothing knew of it: the file was sent
/// without those bytes.
#[test]
fn a_write_that_never_came_to_the_mount_leaves_its_file_unfinished() {
    if no_fuse() {
        return;
    }
    let work = Work::new();
    let mount = work.mount("m", "s", &[]);
    let Some(ends) = relay_of(&mount) else {
        crate::common::skip("the mount's descriptors cannot be looked at");
        return;
    };
    let room = socket_send_buffer_size(&ends[0]).expect("a socket");
    let narrow = |bytes: usize| ends.iter().for_each(|end| set_socket_send_buffer_size(end, bytes).expect("set"));
    fs::create_dir(mount.file("d")).expect("a drop");
    let mut file = File::create(mount.file("d/f")).expect("made");
    let mut stream = File::create(mount.file("stream")).expect("made");
    let page = bytes(32 << 10, 1);
    file.write_all(&page).expect("taken");
    stream.write_all(&page).expect("taken");
    narrow(0);
    for file in [&mut file, &mut stream] {
        let error = file.write_all(&page).expect_err("it does not pass");
        assert_eq!(error.raw_os_error(), Some(libc::EIO), "{error}");
    }
    narrow(room / 2);
    // A program that does not look at errors goes on.
    file.write_all(&page).expect("taken");
    let error = stream.write_all(&page).expect_err("it would hide that bytes are missing");
    assert_eq!(error.raw_os_error(), Some(libc::EIO), "{error}");
    drop((file, stream));
    eventually("it is unfinished", || (state(&mount.file("d/f")).as_deref() == Some("unfinished")).then_some(()));
    assert_eq!(fs::read(mount.file("stream")).expect("read"), page);
    // Written anew, it is whole.
    fs::write(mount.file("d/f"), &page).expect("written");
    eventually("it is whole", || (state(&mount.file("d/f")).as_deref() != Some("unfinished")).then_some(()));
}

#[test]
fn a_copy_that_met_a_full_spool_is_unfinished_whatever_copied() {
    if no_fuse() {
        return;
    }
    let work = Work::new();
    fs::create_dir(work.path("in")).expect("made");
    fs::write(work.path("in/big"), bytes(1 << 20, 7)).expect("written");
    let mount = work.mount("m", "s", &["--spool-limit", "500000"]);
    fs::create_dir(mount.file("d")).expect("a drop");
    let source = work.path("in");
    for (tool, leaves) in [
        ("cp \"$S/big\" f", true),
        ("dd if=\"$S/big\" of=f bs=64k", true),
        ("dd if=\"$S/big\" of=f bs=4M", true),
        ("tar c -C \"$S\" --transform s/big/f/ big | tar x --no-same-owner", true),
        ("zstd -q \"$S/big\" -o f", false),
        ("install \"$S/big\" f", true),
        ("cat \"$S/big\" > f", true),
        ("curl -sS -o f \"file://$S/big\"", true),
        ("python3 -c 'import shutil, sys; shutil.copyfile(sys.argv[1], \"f\")' \"$S/big\"", true),
        ("rsync --inplace \"$S/big\" f", true),
        ("cp \"$S/big\" f; fsync=$?; sync f; exit $fsync", true),
        (
            "python3 -c 'import mmap, os; fd = os.open(\"f\", os.O_CREAT | os.O_RDWR); os.truncate(fd, 1 << 20); m = mmap.mmap(fd, 1 << 20); m[:] = b\"x\" * (1 << 20); m.flush()'",
            true,
        ),
    ] {
        let program = tool.split(' ').next().expect("a word");
        let ran = run(
            std::process::Command::new("bash")
                .args(["-o", "pipefail", "-c", &format!("command -v {program} > /dev/null || exit 127; {tool}")])
                .env("S", &source)
                .current_dir(mount.file("d")),
            b"",
        );
        if ran.code == Some(127) {
            continue;
        }
        assert_ne!(ran.code, Some(0), "{tool}: it must be told of: {}", ran.stderr);
        let file = mount.file("d/f");
        // What a tool removes after its failure is gone, and no harm is done.
        if leaves || file.exists() {
            eventually(tool, || (state(&file).as_deref() == Some("unfinished")).then_some(()));
            let told = fs::read_to_string(mount.file(".pigeonfs/d/status")).expect("read");
            assert!(told.lines().any(|line| line.starts_with("unfinished") && line.contains(" f ")), "{tool}: {told}");
            work.verb("s", &["wait", "d", "--timeout", "60"]).failed(1, &["f"]);
            fs::remove_file(&file).expect("removed");
        }
    }
    fs::write(mount.file("d/f"), bytes(300_000, 8)).expect("there is room for a smaller one");
    assert_ne!(state(&mount.file("d/f")).as_deref(), Some("unfinished"));
}

/// A program can close a file and go on with it in its memory: the kernel then says nothing when the program is killed.
#[test]
fn what_is_written_through_a_map_after_the_last_close_is_not_taken_for_whole() {
    if no_fuse() {
        return;
    }
    let work = Work::new();
    let mount = work.mount("m", "s", &["--settle-ms", "200"]);
    fs::create_dir(mount.file("d")).expect("a drop");
    // libc's own map: Python's keeps a descriptor.
    let script = r#"
import ctypes, os, signal, sys
how, path = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
fd = os.open(path, os.O_RDWR | os.O_CREAT)
os.truncate(fd, 8192)
at = libc.mmap(None, 8192, 3, 1, fd, 0)
assert at not in (None, 2 ** 64 - 1)
if how != "open": os.close(fd)
ctypes.memset(at, 0x78, 4096)
if how == "synced": assert libc.msync(ctypes.c_void_p(at), 8192, 4) == 0
if how == "killed": os.kill(os.getpid(), signal.SIGKILL)
"#;
    for (how, expected) in
        [("killed", "unfinished"), ("closed", "unfinished"), ("synced", "waiting"), ("open", "waiting")]
    {
        let path = mount.file(&format!("d/{how}"));
        let ended = std::process::Command::new("python3").args(["-c", script, how]).arg(&path).status();
        assert_eq!(ended.expect("python").success(), how != "killed", "{how}");
        eventually(how, || (state(&path).as_deref() == Some(expected)).then_some(()));
        assert_eq!(fs::read(&path).expect("read")[4095..4097], [b'x', 0], "{how}");
    }
}

/// The mount is in a container that shares it, or the writer is, or /proc hides it.
#[test]
fn a_writer_that_cannot_be_seen_has_finished_what_fsync_made_safe() {
    if no_fuse() {
        return;
    }
    let work = Work::new();
    let _ = apart(
        &work,
        r#"
        state() { python3 -c 'import os, sys; print(os.getxattr(sys.argv[1], "user.pigeonhole.state").decode())' "$1"; }
        is() { for n in $(seq 500); do case " ${*:2} " in *" $(state $1) "*) return 0;; esac; sleep 0.02; done
               echo "$1: $(state $1), not ${*:2}"; exit 99; }
        # Two seconds after its last close a file is sealed, and waits for a network.
        finished() { is $1 settling waiting; }
        # Leaves what a killed, a finished and a careful writer leave.
        write() {
            # The first program of a namespace is not ended by what it sends itself.
            "$@" bash -c 'bash -c "exec 3>there/d/killed; echo half >&3; kill -9 \$\$"; true'
            "$@" bash -c 'echo all >there/d/closed'
            "$@" dd if=/dev/zero of=there/d/synced bs=1000 count=3 conv=fsync status=none
        }
        mkdir there

        # The mount has process numbers of its own, and /proc is that of outside.
        unshare --pid --fork --kill-child pigeonfs mount --state s1 there 2>log & us=$!
        for n in $(seq 500); do [ -e there/.pigeonfs ] && break; sleep 0.02; done
        mkdir there/d; write
        is there/d/killed unfinished; is there/d/closed unfinished; finished there/d/synced
        umount there; wait $us

        # It has a /proc of its own, too, in a mount namespace that shares the mount with ours.
        mount --bind there there; mount --make-shared there
        unshare --mount --propagation unchanged --pid --fork --kill-child --mount-proc pigeonfs mount --state s2 there 2>log & us=$!
        for n in $(seq 500); do [ -e there/.pigeonfs ] && break; sleep 0.02; done
        mkdir there/d; write
        is there/d/killed unfinished; is there/d/closed unfinished; finished there/d/synced
        umount there; wait $us; umount there

        # The writer is in a namespace within ours: it is seen.
        pigeonfs mount --daemonize --state s3 there
        mkdir there/d; write unshare --pid --fork
        is there/d/killed unfinished; finished there/d/closed; finished there/d/synced
        pigeonfs umount there; gone s3/control.sock

        # Of another user, whose processes /proc hides.
        echo user_allow_other >conf; mount --bind conf /etc/fuse.conf
        chown 65534 there; mount -t proc -o hidepid=2 proc /proc
        as_user pigeonfs mount --daemonize --allow-other there
        as_user mkdir there/d; write
        is there/d/killed unfinished; is there/d/closed unfinished; finished there/d/synced
        as_user pigeonfs send --finish d/closed
        finished there/d/closed
        as_user pigeonfs umount there; gone home/.local/state/pigeonfs/control.sock
        as_user pigeonfs mount --daemonize --allow-other --trust-close there
        echo all >there/d/trusted; finished there/d/trusted
        as_user pigeonfs umount there; gone home/.local/state/pigeonfs/control.sock
        "#,
    );
}

/// rsync writes a file under a name of its own and renames it. When it was interrupted in the root, the first part of the file
/// was at the replicas under that name, and could not be removed any more.
#[test]
fn what_rsync_has_not_renamed_stays_at_home() {
    let Some(world) = World::new() else { return };
    let side = world.side("writer");
    side.ok("head -c 30000 /dev/zero > .notes.txt.Xa92Kq; head -c 30000 /dev/zero > .gone.txt.b7RtQ2");
    side.ok("sync .notes.txt.Xa92Kq; echo later > later");
    side.until_state("later", "stored");
    assert_eq!(side.state(".notes.txt.Xa92Kq").as_deref(), Some("queued"));
    side.ok("grep -q ^held.*rsync .pigeonfs/.notes.txt.Xa92Kq/status");
    side.fails("cat .pigeonfs/.notes.txt.Xa92Kq/wait", "Input/output error");
    side.ok("rm .gone.txt.b7RtQ2; mv .notes.txt.Xa92Kq notes.txt");
    side.until_state("notes.txt", "stored");

    fs::write(world.source("large"), bytes(200_000, 5)).expect("written");
    let rsync = format!(
        "rsync --bwlimit=20 {} large & while ! ls -A | grep -q '^.large'; do sleep 0.1; done; sleep 2.5; kill $!; wait $!",
        world.source("large").display()
    );
    side.fails(&rsync, "");
    assert_eq!(side.ok("ls -A"), "later\nnotes.txt\n");
}
