//! A real mount with ordinary tools, over a localnet: what each tool says, its exit code, and the bytes.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::mounted::Mounted;
use pigeonfs::fs::{self, Fs};
use pigeonfs::mount::{MountError, MountOptions, Session};
use pigeonfs::store::{Arrival, BoxSeq, ChannelName};

#[test]
fn ordinary_tools_write_and_read_back() {
    let Some(mounted) = Mounted::new(false) else { return };
    let source = mounted.root.path().join("notes.txt");
    std::fs::write(&source, "one\ntwo\n").expect("written");
    let source = source.display();
    mounted.ok(&format!("cp {source} notes && cmp {source} notes"));
    mounted.ok("echo hi > log; echo there >> log; printf x | tee -a log > /dev/null");
    assert_eq!(mounted.ok("cat log"), "hi\nthere\nx");
    assert_eq!(mounted.ok("stat -c '%s %a %F' log"), "10 600 regular file\n");
    assert_eq!(mounted.ok("ls"), "log\nnotes\n", "the control directory is found and never listed");
    mounted.ok("dd if=/dev/zero of=zeros bs=1000 count=5 2>/dev/null && test $(wc -c < zeros) = 5000");
    mounted.ok("tar c -C / etc/hostname 2>/dev/null | cat >> backup && tar t -f backup");
    mounted.ok("python3 -c \"f=open('log','a'); f.write('py'); f.close(); print(open('log').read())\"");
    assert_eq!(mounted.ok("tail -n1 log; head -c 2 log; sha256sum < log | wc -c"), "xpyhi68\n");
    assert_eq!(mounted.ok("grep -c name .pigeonfs/log/status"), "1\n");
    mounted.ok("python3 -c \"import json; print(json.load(open('.pigeonfs/status.json'))['version'])\"");
    mounted
        .ok("touch -d 2020-01-01 log && chmod 600 log && df . > /dev/null && du -a > /dev/null && find . > /dev/null");
}

#[test]
fn a_private_map_shows_the_bytes_and_a_shared_one_is_refused() {
    let Some(mounted) = Mounted::new(false) else { return };
    mounted.ok("printf abc > f");
    let map = |kind: &str| {
        let map = format!("mmap.mmap(f.fileno(), 0, flags=mmap.{kind}, prot=mmap.PROT_READ)");
        format!("python3 -c \"import mmap; f = open('f', 'rb'); print({map}[:])\"")
    };
    assert_eq!(mounted.ok(&map("MAP_PRIVATE")), "b'abc'\n");
    mounted.fails(&map("MAP_SHARED"), "No such device");
}

#[test]
fn what_has_not_left_can_be_taken_back_and_what_can_only_grow_says_so() {
    let Some(mounted) = Mounted::new(false) else { return };
    mounted.ok("echo first > f && echo second > f");
    assert_eq!(mounted.ok("cat f"), "second\n");
    mounted.ok("truncate -s 0 f && test ! -s f && rm f && test ! -e f");
    mounted.ok("echo a > a; echo b > b; mv a b");
    assert_eq!(mounted.ok("cat b; ls"), "a\nb\n");
    mounted.fails("ln -s b l", "Operation not permitted");
    mounted.fails("touch .DS_Store", "Operation not permitted");
    mounted.fails("touch 'x~'", "Operation not permitted");
    mounted.fails("printf xx | dd of=b bs=1 seek=7 conv=notrunc", "Illegal seek");
    mounted.fails("truncate -s 100 b", "Operation not permitted");
    mounted.fails("cat nothing", "No such file");
}

#[test]
fn a_launched_stream_only_grows() {
    let Some(mounted) = Mounted::new(true) else { return };
    mounted.ok("echo kept > f");
    let id =
        mounted.owner.store().by_name(&ChannelName::parse("f").expect("a name")).expect("looked up").expect("there").id;
    wait_for("the first box to be stored", || {
        mounted.owner.store().channel(id).expect("looked up").is_some_and(|channel| channel.stored_boxes == 1)
    });
    mounted.fails("echo new > f", "Operation not permitted");
    mounted.fails("rm f", "Operation not permitted");
    mounted.fails("truncate -s 0 f", "Operation not permitted");
    mounted.ok("echo more >> f && mv f g");
    assert_eq!(mounted.ok("cat g"), "kept\nmore\n");
    mounted.ok("echo other > h");
    mounted.fails("mv h g", "Operation not permitted");
}

#[test]
fn four_processes_append_two_hundred_lines_and_each_arrives_whole() {
    let Some(mounted) = Mounted::new(false) else { return };
    mounted.ok("for p in 1 2 3 4; do (for n in $(seq 50); do echo \"line $n of $p\" >> log; done) & done; wait");
    let text = mounted.ok("cat log");
    for process in 1..=4 {
        let own = format!("of {process}");
        let lines: Vec<_> = text.lines().filter(|line| line.ends_with(&own)).collect();
        let expected: Vec<_> = (1..=50).map(|n| format!("line {n} of {process}")).collect();
        assert_eq!(lines, expected, "in the order of their acceptance");
    }
    assert_eq!(text.lines().count(), 200);
}

#[test]
fn a_frontier_with_a_verdict_is_the_end_and_one_without_makes_a_read_wait() {
    let Some(mounted) = Mounted::new(false) else { return };
    let id = mounted.reader("news");
    let store = mounted.owner.store();
    store.received(id, vec![(BoxSeq(0), Arrival::Message(b"one\n".to_vec()))]).wait().expect("kept");
    mounted.fails("echo x >> news", if rustix::process::geteuid().is_root() { "ermission denied" } else { "denied" });
    let waiting = Command::new("cat").arg(mounted.path.join("news")).output_in_background();
    store.received(id, vec![(BoxSeq(1), Arrival::Message(b"two\n".to_vec()))]).wait().expect("kept");
    store.received(id, vec![(BoxSeq(2), Arrival::NotYet)]).wait().expect("kept");
    let output = waiting.join().expect("joined");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "one\ntwo\n");
    assert!(output.status.success());
    assert_eq!(mounted.ok("stat -c %a news"), "400\n");
}

#[test]
fn a_mount_point_must_be_there_empty_and_free() {
    let Some(mounted) = Mounted::new(false) else { return };
    let fs = Arc::new(Fs::new(Arc::clone(&mounted.owner), fs::Options::default()));
    let again = |path: &Path| {
        let options = MountOptions::default();
        Session::start(path, Arc::clone(&fs), mounted.runtime.handle().clone(), &options).err().expect("refused")
    };
    assert!(matches!(again(&mounted.path), MountError::AlreadyMounted(_)));
    assert!(matches!(again(&mounted.root.path().join("missing")), MountError::Missing(_)));
    assert!(matches!(again(mounted.root.path()), MountError::NotEmpty(_)));
    let file = mounted.root.path().join("file");
    std::fs::write(&file, "").expect("written");
    assert!(matches!(again(&file), MountError::NotADirectory(_)));
}

#[test]
fn an_umount_from_outside_ends_the_session_and_one_with_open_files_ends_too() {
    let Some(mounted) = Mounted::new(false) else { return };
    let open = std::fs::File::create(mounted.path.join("f")).expect("made");
    let busy = pigeonfs::mount::unmount(&mounted.path, false).expect_err("a file is open");
    assert!(matches!(busy, MountError::InUse { .. }), "{busy}");
    pigeonfs::mount::unmount(&mounted.path, true).expect("out of the tree");
    drop(open);
    mounted
        .runtime
        .block_on(async { tokio::time::timeout(Duration::from_secs(20), mounted.session.ended()).await })
        .expect("the session ends by itself");
    assert!(matches!(pigeonfs::mount::unmount(&mounted.path, false), Err(MountError::NotMounted(_))));
}

trait InBackground {
    fn output_in_background(&mut self) -> std::thread::JoinHandle<Output>;
}

impl InBackground for Command {
    fn output_in_background(&mut self) -> std::thread::JoinHandle<Output> {
        self.stdout(std::process::Stdio::piped());
        let child = self.spawn().expect("it runs");
        std::thread::spawn(move || child.wait_with_output().expect("waited"))
    }
}

fn wait_for(what: &str, mut happened: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !happened() {
        assert!(Instant::now() < until, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
