//! The tools that people point at files, on a real mount: for each its exit code, what it says, and the bytes that a
//! reader gets on the other side of the network.
//!
//! All rows share one network and one mount. Nothing leaves on its own while they run (the linger is long), so that what
//! can still be taken back does not depend on how fast this machine is; rows about streams that have left send them first.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::{Run, Work, bytes, no_fuse, run};
use rustix::process::Signal;

/// What a row must come to.
struct Row {
    /// For bash, in the mount. `$S` holds sources, `$O` is for what comes out, `sent NAME` waits until a stream is stored.
    script: &'static str,
    code: i32,
    /// What is on stderr; empty: nothing is.
    told: &'static str,
    /// The streams that it leaves, and what is in them.
    leaves: &'static [(&'static str, Bytes)],
}

/// Bytes that are expected.
#[derive(Clone, Copy)]
enum Bytes {
    Text(&'static str),
    /// Of a file among the sources.
    Source(&'static str),
    /// Of a file that the row wrote outside of the mount.
    Out(&'static str),
    /// A part of the big source.
    Big(usize, usize),
}
use Bytes::{Big, Out, Source, Text};

const fn works(script: &'static str, leaves: &'static [(&'static str, Bytes)]) -> Row {
    Row { script, code: 0, told: "", leaves }
}

const fn says(script: &'static str, told: &'static str, leaves: &'static [(&'static str, Bytes)]) -> Row {
    Row { script, code: 0, told, leaves }
}

const fn fails(script: &'static str, code: i32, told: &'static str, leaves: &'static [(&'static str, Bytes)]) -> Row {
    Row { script, code, told, leaves }
}

const BIG: usize = 100_000;
const DENIED: &str = "Operation not permitted";

const ROWS: &[Row] = &[
    // Copies.
    works("cp $S/text cp; cmp $S/text cp", &[("cp", Source("text"))]),
    works("cp $S/big cp-big; cmp $S/big cp-big", &[("cp-big", Source("big"))]),
    works(
        "cp -p $S/text cp-p; [ $(stat -c %Y cp-p) = $(stat -c %Y $S/text) ]; [ $(stat -c %a cp-p) = 600 ]",
        &[("cp-p", Source("text"))],
    ),
    works("cp $S/text cp-2; cp $S/other cp-2", &[("cp-2", Source("other"))]),
    works("cp -r $S/tree cp-r; diff -r $S/tree cp-r", &[]),
    works("cp --preserve=all --reflink=auto $S/text cp-all", &[("cp-all", Source("text"))]),
    works("cp $S/text $O/in; mv $O/in mv-in; [ ! -e $O/in ]", &[("mv-in", Source("text"))]),
    works("cp $S/text mv-out; mv mv-out $O/out; [ ! -e mv-out ]; cmp $S/text $O/out", &[]),
    works("install -m 600 $S/text install", &[("install", Source("text"))]),
    works("install -D -m 400 $S/text install-400; [ $(stat -c %a install-400) = 400 ]", &[("install-400", Source("text"))]),
    // Redirections.
    works("echo one > to; echo two >> to; cat < to | cmp - <(printf 'one\\ntwo\\n')", &[("to", Text("one\ntwo\n"))]),
    works("echo first > to-2; echo second > to-2", &[("to-2", Text("second\n"))]),
    works("echo a >| clobber; echo b >| clobber", &[("clobber", Text("b\n"))]),
    fails("echo a > noclobber; set -C; echo b > noclobber", 1, "cannot overwrite", &[("noclobber", Text("a\n"))]),
    works("exec 3<>both; echo hi >&3; exec 3>&-; [ $(cat both) = hi ]", &[("both", Text("hi\n"))]),
    works("{ echo 1; echo 2; cat $S/text; } > group; cmp <(printf '1\\n2\\n'; cat $S/text) group", &[]),
    works("for n in 1 2 3 4; do (for m in $(seq 25); do echo \"$n $m\" >> side; done) & done; wait; sort -n side | sort -u | wc -l | grep -qx 100; sort side > $O/side", &[]),
    works("zsh -fc 'echo a > zsh; echo b >> zsh; echo c >> zsh'", &[("zsh", Text("a\nb\nc\n"))]),
    fails("zsh -fc 'setopt noclobber; echo a > zsh-2; echo b > zsh-2'", 1, "file exists", &[("zsh-2", Text("a\n"))]),
    works("sh -c 'exec 3>>held; echo a >&3; echo b >> held; echo c >&3'", &[("held", Text("a\nb\nc\n"))]),
    works("tee -a tee < $S/text > /dev/null; tee -a tee < $S/other | cmp - $S/other", &[("tee", Text("one\ntwo\nthree\nother\n"))]),
    works("cat $S/text - $S/text < $S/other >> cat", &[("cat", Text("one\ntwo\nthree\nother\none\ntwo\nthree\n"))]),
    // dd.
    says("dd if=$S/big of=dd bs=1000", "100000 bytes", &[("dd", Source("big"))]),
    says("echo start > dd-2; dd if=$S/text of=dd-2 oflag=append conv=notrunc", "copied", &[("dd-2", Text("start\none\ntwo\nthree\n"))]),
    says("dd if=$S/big of=dd-3 bs=33333 conv=fsync", "copied", &[("dd-3", Source("big"))]),
    says("dd if=$S/big of=dd-4 bs=50000 oflag=dsync", "copied", &[("dd-4", Source("big"))]),
    works("dd if=$S/big of=dd-5 bs=4096 oflag=direct status=none; dd if=dd-5 iflag=direct bs=4096 status=none | cmp - $S/big", &[("dd-5", Source("big"))]),
    works("dd if=$S/text of=dd-6 bs=1 seek=7 conv=notrunc status=none", &[("dd-6", Text("\0\0\0\0\0\0\0one\ntwo\nthree\n"))]),
    works("cp $S/big dd-7; dd if=dd-7 bs=1 skip=5000 count=10 status=none | cmp - <(tail -c +5001 $S/big | head -c 10)", &[]),
    // Archives.
    works("tar c -C $S tree | tee $O/tar > tar; tar t -f tar | grep -q tree/a", &[("tar", Out("tar"))]),
    works("tar cf tar-f -C $S tree; tar xOf tar-f tree/a | cmp - $S/tree/a", &[]),
    works("tar c -C $S tree | cat >> tar-2; mkdir $O/x; tar x -C $O/x -f tar-2; diff -r $S/tree $O/x/tree", &[]),
    works("tar x --no-same-owner -f $S/flat.tar", &[("flat-a", Text("a\n")), ("flat-b", Text("b\n"))]),
    works("tar x --no-same-owner -C . -f $S/deep.tar; diff -r $S/tree/deep tree/deep", &[]),
    works("(cd $S/tree && ls | cpio --quiet -o) | tee $O/cpio > cpio; cpio --quiet -t < cpio | grep -qx a", &[("cpio", Out("cpio"))]),
    works("(cd $S && ls text other | cpio --quiet -o) > $O/c; cpio --quiet --no-preserve-owner --rename-batch-file=<(printf 'cpio-o\\ncpio-t\\n') -i < $O/c", &[("cpio-t", Source("text")), ("cpio-o", Source("other"))]),
    works("gzip -c $S/big > gz; gzip -t < gz; gzip -dc gz | cmp - $S/big", &[]),
    works("zstd -q -c $S/big > zst; zstd -q -dc zst | cmp - $S/big", &[]),
    works("zstd -q $S/big -o zst-2; zstd -q -t zst-2", &[]),
    works("tar c -C $S tree | zstd -q | cat >> tar-zst; zstd -q -dc tar-zst | tar t | grep -q tree/a", &[]),
    works("split -b 40000 $S/big sp-", &[("sp-aa", Big(0, 40_000)), ("sp-ab", Big(40_000, 80_000)), ("sp-ac", Big(80_000, BIG))]),
    works("split -b 40000 --filter='cat >> split' $S/big", &[("split", Source("big"))]),
    // rsync.
    works("rsync $S/text rsync", &[("rsync", Source("text"))]),
    works("rsync -t $S/big rsync-t; rsync -t $S/big rsync-t; [ $(stat -c %Y rsync-t) = $(stat -c %Y $S/big) ]", &[("rsync-t", Source("big"))]),
    works("head -c 50000 $S/big > rsync-a; rsync --append --inplace $S/big rsync-a", &[("rsync-a", Source("big"))]),
    works("rsync --inplace $S/text rsync-i", &[("rsync-i", Source("text"))]),
    works("rsync --append-verify $S/big rsync-v; rsync --append-verify $S/big rsync-v", &[("rsync-v", Source("big"))]),
    works("rsync -r $S/tree/ rsync-r; diff -r $S/tree rsync-r", &[]),
    // Changes of what is there.
    works("touch touch; touch touch; touch -d 2001-02-03 touch; [ $(stat -c %y touch | cut -d' ' -f1) = 2001-02-03 ]", &[("touch", Text(""))]),
    works("echo text > chmod; chmod 400 chmod; chmod a-w chmod; [ $(stat -c %a chmod) = 400 ]; cat chmod > /dev/null", &[("chmod", Text("text\n"))]),
    fails("echo text > chown; chown 4321 chown", 1, DENIED, &[("chown", Text("text\n"))]),
    works("truncate -s 0 tr; echo text > tr; truncate -s 5 tr; truncate -s 0 tr; [ ! -s tr ]; echo anew >> tr", &[("tr", Text("anew\n"))]),
    works("truncate -s 5 tr-5", &[("tr-5", Text("\0\0\0\0\0"))]),
    fails("echo text > tr-1; truncate -s 1 tr-1", 1, DENIED, &[("tr-1", Text("text\n"))]),
    fails("fallocate -l 100 fallocate", 1, "not supported", &[("fallocate", Text(""))]),
    works("cp $S/text sed; sed -i s/two/2/ sed", &[("sed", Text("one\n2\nthree\n"))]),
    works("cp $S/text over-a; cp $S/other over-b; mv over-a over-b", &[("over-b", Source("text"))]),
    works("cp $S/text no-a; cp $S/other no-b; mv -n no-a no-b; cat no-a no-b > /dev/null", &[("no-b", Source("other"))]),
    works("cp $S/text name; mv name new-name; [ ! -e name ]", &[("new-name", Source("text"))]),
    works("sort -o sort $S/text", &[("sort", Text("one\nthree\ntwo\n"))]),
    works("cp $S/text rm; rm rm; [ ! -e rm ]; cp $S/other rm", &[("rm", Source("other"))]),
    works("cp $S/text u; unlink u; ! cat u 2> /dev/null", &[]),
    // What is none of a stream's.
    fails("mkfifo fifo", 1, DENIED, &[]),
    fails("ln -s cp link", 1, DENIED, &[]),
    fails("ln cp hard", 1, DENIED, &[]),
    fails("cp $S/text .DS_Store", 1, DENIED, &[]),
    fails("touch .f.swp", 1, DENIED, &[]),
    fails("touch 'backup~'", 1, DENIED, &[]),
    fails("cat nothing", 1, "No such file or directory", &[]),
    fails("touch \"$(printf 'x%.0s' $(seq 256))\"", 1, "File name too long", &[]),
    fails("touch $'new\\nline'", 1, "Invalid argument", &[]),
    // Readers.
    works("cp $S/text r; [ \"$(head -n1 r; tail -n1 r; head -c 2 r; wc -l < r; wc -c < r)\" = \"$(head -n1 $S/text; tail -n1 $S/text; head -c 2 $S/text; wc -l < $S/text; wc -c < $S/text)\" ]", &[]),
    works("cp $S/big r-2; [ $(sha256sum < r-2 | cut -c1-64) = $(sha256sum $S/big | cut -c1-64) ]; b2sum r-2 | grep -q $(b2sum < $S/big | cut -c1-20)", &[]),
    works("cp $S/big r-3; tail -c 100 r-3 | cmp - <(tail -c 100 $S/big); tail -c +99901 r-3 | cmp - <(tail -c 100 $S/big)", &[]),
    works("cp $S/text r-4; grep -q two r-4; sort r-4 > /dev/null; cut -c1 r-4 > /dev/null; tac r-4 | head -n1 | grep -qx three; diff r-4 $S/text; od r-4 > /dev/null", &[]),
    works("cp $S/text r-5; file r-5 | grep -q 'ASCII text'; stat r-5 | grep -q 'regular file'; [ -s r-5 ]; test -r r-5 -a -w r-5", &[]),
    works("cp $S/text r-6; find . -name r-6 | grep -qx ./r-6; find . -size +1G -o -name r-6 -newermt 2000-01-01 | grep -q r-6; ls -laR | grep -q r-6; du -a . | grep -q r-6; ls -l r-6 | grep -q '^-rw-------'", &[]),
    works("df . > /dev/null; df -i . > /dev/null; stat -f . | grep -q Namelen; [ $(stat -f -c %l .) = 255 ]", &[]),
    works("cp $S/text sync; sync sync; sync -d sync; sync -f sync", &[("sync", Source("text"))]),
    works("echo 1 > tail-f; tail -n +1 -f tail-f > $O/tail-f & echo 2 >> tail-f; until grep -sqx 2 $O/tail-f; do sleep 0.05; done; echo 3 >> tail-f; until grep -sqx 3 $O/tail-f; do sleep 0.05; done; kill $!", &[("tail-f", Out("tail-f"))]),
    works("tail -n +1 -F tail-F > $O/tail-F 2> /dev/null & echo 1 > tail-F; until grep -sqx 1 $O/tail-F; do sleep 0.05; done; echo 2 >> tail-F; until grep -sqx 2 $O/tail-F; do sleep 0.05; done; kill $!", &[("tail-F", Out("tail-F"))]),
    works("cp $S/text cat-v; cat .pigeonfs/cat-v/status | grep -q cat-v; cat .pigeonfs/status.json | python3 -m json.tool > /dev/null; ! ls -a | grep -q pigeonfs", &[]),
    // Python.
    works("python3 -c 'open(\"py-w\", \"w\").write(\"w\"); open(\"py-w\", \"a\").write(\"a\"); open(\"py-w\", \"ab\", buffering=0).write(b\"u\")'", &[("py-w", Text("wau"))]),
    fails("python3 -c 'open(\"py-x\", \"x\").write(\"x\"); open(\"py-x\", \"x\")'", 1, "FileExistsError", &[("py-x", Text("x"))]),
    works("python3 -c '
f = open(\"py-a+\", \"a+\"); f.write(\"one\"); f.flush(); f.seek(0); assert f.read() == \"one\"; f.write(\"two\"); f.close()
assert open(\"py-a+\").read() == \"onetwo\"'", &[("py-a+", Text("onetwo"))]),
    works("python3 -c '
open(\"py-r+\", \"w\").write(\"one\")
f = open(\"py-r+\", \"r+\"); assert f.read() == \"one\"; f.write(\"two\"); f.close()'", &[("py-r+", Text("onetwo"))]),
    fails("python3 -c '
open(\"py-o\", \"w\").write(\"one\")
f = open(\"py-o\", \"r+b\", buffering=0); f.write(b\"X\")'", 1, "Illegal seek", &[("py-o", Text("one"))]),
    works("python3 -c '
f = open(\"py-b\", \"wb\", buffering=0)
for n in range(100): assert f.write(bytes([n]) * 77) == 77
f.close()
assert open(\"py-b\", \"rb\").read() == b\"\".join(bytes([n]) * 77 for n in range(100))'", &[]),
    works("python3 -c '
import mmap
f = open(\"cp-big\", \"rb\"); m = mmap.mmap(f.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
assert m[:] == open(\"cp-big\", \"rb\").read(); assert m.find(m[-9:]) == len(m) - 9'", &[]),
    works("python3 -c '
import os, select
r = os.open(\"cp\", os.O_RDONLY); e = select.epoll(); e.register(r, select.EPOLLIN)
assert e.poll(10) == [(r, select.EPOLLIN)]; assert len(os.read(r, 100)) == 14; assert os.read(r, 100) == b\"\"
assert os.pread(r, 3, 4) == b\"two\"; assert os.lseek(r, 0, os.SEEK_END) == 14; assert os.fstat(r).st_size == 14
v = os.open(\"py-v\", os.O_WRONLY | os.O_CREAT | os.O_APPEND); assert os.writev(v, [b\"ab\", b\"cd\"]) == 4; os.fsync(v); os.fdatasync(v)'", &[("py-v", Text("abcd"))]),
    works("python3 -c '
import os, shutil
shutil.copy(os.environ[\"S\"] + \"/big\", \"py-s\"); shutil.copy2(os.environ[\"S\"] + \"/text\", \"py-s2\")
fd = os.open(\"py-f\", os.O_WRONLY | os.O_CREAT); s = os.open(\"py-s\", os.O_RDONLY)
assert os.sendfile(fd, s, 0, 1000) == 1000'", &[("py-s", Source("big")), ("py-s2", Source("text")), ("py-f", Big(0, 1000))]),
    works("python3 -c '
import fcntl
a = open(\"py-l\", \"a\"); fcntl.flock(a, fcntl.LOCK_EX | fcntl.LOCK_NB); b = open(\"py-l\", \"a\")
try: fcntl.flock(b, fcntl.LOCK_EX | fcntl.LOCK_NB); raise SystemExit(3)
except BlockingIOError: pass
fcntl.lockf(a, fcntl.LOCK_EX); a.write(\"locked\")'", &[("py-l", Text("locked"))]),
    // A file manager: looks at everything, copies with its own calls, and would like a bin.
    works("python3 -c '
import os
for entry in os.scandir(\".\"):
    entry.stat()
    if entry.is_dir(): os.listdir(entry.name); continue
    fd = os.open(entry.name, os.O_RDONLY | os.O_NOFOLLOW); os.read(fd, 4096); os.close(fd)
    os.access(entry.name, os.W_OK); os.statvfs(entry.name)
    try: os.listxattr(entry.name)
    except OSError as e: assert e.errno == 95, e
for bin in (\".Trash\", \".Trash-1000\"):
    try: os.mkdir(bin); raise SystemExit(3)
    except PermissionError: pass'", &[]),
    works("fio --name=j --filename=fio --rw=write --bs=3000 --size=150000 --file_append=1 --fallocate=none --end_fsync=1 --verify=crc32c --create_on_open=1 --allow_file_create=1 > $O/fio; grep -q 'err= 0' $O/fio; [ $(stat -c %s fio) = 150000 ]", &[]),
    // What makes files in ways of its own.
    works("truncate -s 1M $O/hole; echo end >> $O/hole; cp --sparse=always $O/hole hole; cmp $O/hole hole", &[("hole", Out("hole"))]),
    fails("truncate -s 100M $O/large; echo end >> $O/large; cp --sparse=always $O/large large", 1, "Illegal seek", &[]),
    works("curl -sS -o curl file://$S/big", &[("curl", Source("big"))]),
    // Whole files, in a drop.
    works("mkdir d-sp; cp --sparse=always $O/hole d-sp/hole; cmp $O/hole d-sp/hole", &[]),
    works("mkdir d-tar; tar --xattrs -cf $O/xattrs.tar -C $S tree; tar --xattrs --no-same-owner -xf $O/xattrs.tar -C d-tar; diff -r $S/tree d-tar/tree", &[]),
    works("mkdir d-rs; rsync -aX $S/tree/ d-rs/; diff -r $S/tree d-rs; rsync -aX --out-format=%n $S/tree/ d-rs/ | grep -v '/$' | wc -l | grep -qx 0", &[]),
    works("mkdir d-del; cp $S/text $S/other d-del; rsync -r --delete $S/tree/ d-del/; diff -r $S/tree d-del", &[]),
    works("mkdir d-curl; curl -sS -o d-curl/big file://$S/big; cmp d-curl/big $S/big", &[]),
    works("mkdir d-py; TMPDIR=$PWD/d-py python3 -c '
import tempfile
f = tempfile.TemporaryFile(); f.write(b\"x\" * 9999); f.seek(0); assert len(f.read()) == 9999
n = tempfile.NamedTemporaryFile(); n.write(b\"y\"); n.flush(); assert open(n.name, \"rb\").read() == b\"y\"
s = tempfile.SpooledTemporaryFile(max_size=1); s.write(b\"long\"); s.seek(0); assert s.read() == b\"long\"
with tempfile.TemporaryDirectory() as d: open(d + \"/a\", \"w\").write(\"a\")
f.close(); n.close(); s.close()'; [ -z \"$(ls -A d-py)\" ]", &[]),
    works("TMPDIR=$PWD/d-py bash -c 'cat <<END | sort - <(echo b)
a
END' | tr '\\n' ' ' | grep -qx 'a b '", &[]),
    works("mkdir d-git; G='git -c user.name=a -c user.email=a@b.c -c init.defaultBranch=main -c core.fsync=all'; $G init -q d-git/r; cp $S/text d-git/r/t; (cd d-git/r; $G add t; $G commit -qm one; echo more >> t; $G commit -qam two; $G gc -q; $G fsck --no-progress; $G show HEAD~1:t | cmp - $S/text); $G clone -q d-git/r d-git/c; cmp d-git/r/t d-git/c/t", &[]),
    works("mkdir d-sql; sqlite3 d-sql/db 'create table t(a); insert into t values (1), (2)'; sqlite3 d-sql/db 'pragma journal_mode = wal; insert into t values (3); select sum(a) from t; pragma integrity_check' | tr '\\n' ' ' | grep -qx 'wal 6 ok '", &[]),
    works("mkdir d-fio; fio --name=u --directory=d-fio --ioengine=io_uring --rw=randwrite --bs=4k --size=64k --verify=crc32c --fallocate=none > $O/fio-u; grep -q 'err= 0' $O/fio-u", &[]),
    // A stream that has left only grows.
    works("echo kept > sent-1; sent sent-1; echo more >> sent-1; mv sent-1 sent-2; cat sent-2 | cmp - <(printf 'kept\\nmore\\n')", &[("sent-2", Text("kept\nmore\n"))]),
    fails("echo kept > sent-3; sent sent-3; echo new > sent-3", 1, DENIED, &[("sent-3", Text("kept\n"))]),
    fails("rm sent-3", 1, DENIED, &[]),
    fails("cp $S/text sent-3", 1, DENIED, &[]),
    fails("truncate -s 0 sent-3", 1, DENIED, &[]),
    fails("cp $S/text to-sent; mv to-sent sent-3", 1, DENIED, &[("to-sent", Source("text"))]),
    fails("sed -i s/kept/lost/ sent-3; code=$?; ls | grep '^sed.\\{6\\}$'; exit $code", 4, DENIED, &[]),
    fails("mv sent-3 $O/sent-3", 1, DENIED, &[]),
    fails("rsync $S/text sent-3; code=$?; ls -a | grep '^\\.sent-3'; exit $code", 23, DENIED, &[]),
    fails("sort -o sent-3 $S/text", 2, DENIED, &[]),
    fails("gzip sent-3", 2, DENIED, &[]),
    fails("python3 -c 'open(\"sent-3\", \"w\")'", 1, "PermissionError", &[]),
    works("cat $S/other >> sent-3; dd if=$S/other of=sent-3 oflag=append conv=notrunc status=none; tee -a sent-3 < $S/other > /dev/null; touch sent-3; sync sent-3", &[]),
];

#[test]
fn every_tool_does_the_right_thing_or_says_why_not() {
    if no_fuse() {
        return;
    }
    let work = Work::new();
    let net = work.localnet("net");
    lay_out_sources(&work);
    let drained =
        ["--config", net.config(), "--linger-ms", "100000000", "--settle-ms", "100000", "--drain-timeout", "200"];
    let alice = work.mount("alice", "alice-state", &drained);
    let mut wrong = Vec::new();
    let mut left: Vec<(&str, Vec<u8>)> = Vec::new();
    for row in ROWS {
        let said = row_in(&work, &alice.path, row.script);
        if said.code != Some(row.code)
            || !said.stderr.contains(row.told)
            || (row.told.is_empty() && !said.stderr.is_empty())
        {
            wrong.push(format!(
                "{}\n  exit {:?}, said {:?}\n  expected {}, {:?}",
                row.script, said.code, said.stderr, row.code, row.told
            ));
        }
        for &(name, bytes) in row.leaves {
            left.retain(|(earlier, _)| *earlier != name);
            left.push((name, expected(&work, bytes)));
        }
    }
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), ROWS.len(), wrong.join("\n"));
    alice.signal(Signal::TERM);
    let bob = work.mount("bob", "bob-state", &["--config", net.config()]);
    for (name, _) in &left {
        work.share("alice-state", "bob-state", name);
    }
    for (name, bytes) in &left {
        // The last rows went on with this one.
        let bytes = if *name == "sent-3" { b"kept\nother\nother\nother\n" } else { &bytes[..] };
        let arrived = fs::read(bob.file(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(arrived == bytes, "{name}: {} bytes arrived, {} were expected", arrived.len(), bytes.len());
    }
}

fn lay_out_sources(work: &Work) {
    fs::create_dir_all(work.path("sources/tree/deep")).expect("made");
    fs::create_dir(work.path("out")).expect("made");
    let big = bytes(BIG, 7);
    for (name, contents) in [
        ("text", &b"one\ntwo\nthree\n"[..]),
        ("other", b"other\n"),
        ("big", &big),
        ("tree/a", b"a\n"),
        ("tree/b", &big[..5000]),
        ("tree/deep/c", b"c\n"),
        ("flat-a", b"a\n"),
        ("flat-b", b"b\n"),
    ] {
        fs::write(work.path("sources").join(name), contents).expect("written");
    }
    let script = "tar cf flat.tar flat-a flat-b && tar cf deep.tar tree/deep && touch -d 2020-02-02 text big";
    run(Command::new("sh").args(["-c", script]).current_dir(work.path("sources")), b"").ok();
}

fn row_in(work: &Work, mount: &Path, script: &str) -> Run {
    let prepared = format!(
        "sent() {{ sync \"$1\"; {} wait --state {} --timeout 200 \"$1\"; }}\nset -e\n{script}",
        env!("CARGO_BIN_EXE_pigeonfs"),
        work.path("alice-state").display(),
    );
    // What hangs is told as 124, and the next row goes on.
    let mut command = Command::new("timeout");
    command.args(["-k", "5", "60", "bash", "-c", &prepared]).current_dir(mount);
    command.env("S", work.path("sources")).env("O", work.path("out")).env("LC_ALL", "C").env("PIGEONFS_LOG", "warn");
    run(&mut command, b"")
}

fn expected(work: &Work, bytes: Bytes) -> Vec<u8> {
    match bytes {
        Text(text) => text.as_bytes().to_vec(),
        Source(name) => fs::read(work.path("sources").join(name)).expect("there"),
        Out(name) => fs::read(work.path("out").join(name)).expect("there"),
        Big(from, to) => fs::read(work.path("sources/big")).expect("there")[from..to].to_vec(),
    }
}
