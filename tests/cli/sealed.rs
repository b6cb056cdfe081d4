//! A state that is sealed at rest: who has its key, and what its files say to whoever has not.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::common::{Kill, Run, Work, bytes, no_fuse, run};

const KEY: &str = "correct horse battery staple";

/// A verb with the key that is in the file `key`.
fn verb(work: &Work, key: &str, arguments: &[&str], stdin: &[u8]) -> Run {
    let path = work.path(key);
    let key = ["--key-file", path.to_str().expect("text")];
    work.verb_with("s", &[arguments, &key].concat(), stdin)
}

fn with_keys() -> Work {
    let work = Work::new();
    fs::write(work.path("key"), format!("{KEY}\n")).expect("written");
    fs::write(work.path("other"), "another key").expect("written");
    work
}

/// Without `seal.json` nothing has the key of the database; and one of another state has another key.
#[test]
fn a_state_without_its_own_seal_says_what_is_missing() {
    let work = with_keys();
    let seal = work.path("s/seal.json");
    verb(&work, "key", &["init", "--seal"], b"").ok();
    verb(&work, "key", &["new", "notes"], b"").ok();
    fs::rename(&seal, work.path("kept.json")).expect("moved");
    for arguments in [&["list"][..], &["status"], &["new", "more"]] {
        work.verb("s", arguments).failed(1, &["seal.json", "is missing", "restore"]);
        verb(&work, "key", arguments, b"").failed(1, &["seal.json", "is missing"]);
    }
    work.verb("plain", &["new", "notes"]).ok();
    let path = work.path("key");
    let key = ["--key-file", path.to_str().expect("text")];
    work.verb("second", &[&["init", "--seal"][..], &key].concat()).ok();
    fs::copy(work.path("second/seal.json"), &seal).expect("copied");
    verb(&work, "key", &["list"], b"").failed(1, &["seal.json", "another key"]);
    fs::copy(work.path("second/seal.json"), work.path("plain/seal.json")).expect("copied");
    work.verb("plain", &[&["list"][..], &key].concat()).failed(1, &["is not sealed, but seal.json says that it is"]);
    fs::rename(work.path("kept.json"), &seal).expect("moved back");
    assert!(verb(&work, "key", &["list"], b"").ok().text().contains("notes"));
}

#[test]
fn a_program_opens_a_sealed_state_with_its_key_only() {
    use pigeonfs::state::{Kind, Options, State};
    let work = with_keys();
    verb(&work, "key", &["init", "--seal"], b"").ok();
    let options = || Options::new(work.path("s")).offline();
    tokio::runtime::Runtime::new().expect("a runtime").block_on(async {
        let error = State::open(options()).await.expect_err("no key");
        assert!(error.message.contains("is sealed"), "{error}");
        let error = State::open(options().passphrase("another key".to_owned())).await.expect_err("not the key");
        assert!(error.message.contains("not the key"), "{error}");
        let state = State::open(options().passphrase(KEY.to_owned())).await.expect("its key");
        let notes = state.create("notes", Kind::Stream).await.expect("made").stream().expect("a stream");
        notes.append("by a program\n").await.expect("accepted");
        state.close().await.expect("closed");
    });
    assert_eq!(verb(&work, "key", &["read", "notes"], b"").ok().stdout, b"by a program\n");
}

#[test]
fn only_its_key_opens_a_sealed_state_and_the_key_can_be_changed() {
    let work = with_keys();
    work.verb("s", &["init", "--seal"]).failed(1, &["no key was given", "--key-file"]);
    assert!(!work.path("s").exists(), "nothing is made without a key");
    verb(&work, "key", &["init"], b"").failed(2, &["--seal"]);
    verb(&work, "key", &["init", "--seal"], b"").ok();
    verb(&work, "key", &["init", "--seal"], b"").failed(1, &["there is a state"]);
    verb(&work, "key", &["new", "notes"], b"").ok();

    work.verb("s", &["list"]).failed(1, &["is sealed", "--key-file", "pigeonfs.key"]);
    verb(&work, "other", &["list"], b"").failed(1, &["not the key"]);
    for (bad, content) in [("empty", Vec::new()), ("long", vec![b'x'; 4097])] {
        fs::write(work.path(bad), content).expect("written");
        verb(&work, bad, &["list"], b"").failed(1, &["between 1 and 4096 bytes"]);
    }
    verb(&work, "missing", &["list"], b"").failed(1, &["key file"]);
    fs::create_dir(work.path("credentials")).expect("made");
    fs::copy(work.path("key"), work.path("credentials/pigeonfs.key")).expect("copied");
    verb(&work, "key", &["list"], b"").ok();
    fs::set_permissions(work.path("key"), fs::Permissions::from_mode(0o644)).expect("ours");
    verb(&work, "key", &["list"], b"").failed(0, &["chmod 600"]);
    // A pipe is read once.
    let pipe = work.verb_with("s", &["list", "--key-file", "/dev/stdin"], KEY.as_bytes()).ok();
    assert!(pipe.stderr.is_empty(), "{}", pipe.stderr);
    let mut command = work.command();
    command.args(["list", "--state"]).arg(work.path("s")).env("CREDENTIALS_DIRECTORY", work.path("credentials"));
    assert!(run(&mut command, b"").ok().text().contains("notes"));

    let doctor =
        |state: &str| run(work.command().args(["doctor", "--json", "--state"]).arg(work.path(state)), b"").text();
    assert!(doctor("s").contains("the state is sealed"));

    // Completion is no place to be asked, or to wait.
    let mut completion = work.command();
    completion.env("PIGEONFS_COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", "2");
    completion.args(["--", "pigeonfs", "read", ""]).env("PIGEONFS_STATE", work.path("s"));
    assert!(!run(&mut completion, b"").text().contains("notes"));

    let other = work.path("other").to_str().expect("text").to_owned();
    verb(&work, "key", &["seal"], b"").failed(1, &["--new-key-file"]);
    verb(&work, "other", &["seal", "--new-key-file", &other], b"").failed(1, &["not the key"]);
    verb(&work, "key", &["seal", "--new-key-file", &other], b"").ok();
    verb(&work, "key", &["list"], b"").failed(1, &["not the key"]);
    assert!(verb(&work, "other", &["list"], b"").ok().text().contains("notes"));

    verb(&work, "key", &["unseal"], b"").failed(1, &["not the key"]);
    verb(&work, "other", &["unseal"], b"").ok();
    assert!(work.verb("s", &["list"]).ok().text().contains("notes"), "it needs no key any more");
    work.verb("s", &["unseal"]).failed(1, &["is not sealed"]);
    verb(&work, "key", &["seal"], b"").ok();
    work.verb("s", &["list"]).failed(1, &["is sealed"]);
}

/// Runs a command on a terminal, types each answer when its prompt is there; what was shown, and the exit code.
fn typed(mut command: Command, answers: &[(&str, &str)]) -> (String, Option<i32>) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
    grantpt(&master).and_then(|()| unlockpt(&master)).expect("a terminal");
    let name = ptsname(&master, Vec::new()).expect("a name").into_string().expect("text");
    let slave: OwnedFd = File::options().read(true).write(true).open(name).expect("a terminal").into();
    let stdin = slave.try_clone().expect("a descriptor");
    let mut child = Kill(command.stdin(stdin).stdout(Stdio::null()).stderr(slave).spawn().expect("the binary"));
    drop(command);
    let (mut shown, mut terminal) = (String::new(), File::from(master));
    let (mut answers, mut seen, mut bytes) = (answers.iter(), 0, [0; 4096]);
    let mut next = answers.next();
    while let Ok(count @ 1..) = terminal.read(&mut bytes) {
        shown.push_str(&String::from_utf8_lossy(&bytes[..count]));
        while let Some((prompt, answer)) = next
            && let Some(at) = shown[seen..].find(prompt)
        {
            seen += at + prompt.len();
            terminal.write_all(format!("{answer}\n").as_bytes()).expect("a terminal");
            next = answers.next();
        }
    }
    (shown, child.0.wait().expect("our child").code())
}

#[test]
fn a_passphrase_is_typed_unseen_and_twice_where_it_is_set() {
    let work = Work::new();
    let command = |arguments: &[&str]| {
        let mut command = work.command();
        // In a session of its own: whoever runs the tests is not asked.
        command.args(arguments).arg("--state").arg(work.path("s"));
        let mut alone = Command::new("setsid");
        alone.arg("--wait").arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => alone.env(name, value),
                None => alone.env_remove(name),
            };
        }
        alone
    };
    let differ = [("new passphrase: ", KEY), ("the same again: ", "something else")];
    let (shown, code) = typed(command(&["init", "--seal"]), &differ);
    assert!(code == Some(1) && shown.contains("not the same"), "{code:?} {shown:?}");
    let (shown, code) = typed(command(&["init", "--seal"]), &[("new passphrase: ", KEY), ("the same again: ", KEY)]);
    assert_eq!(code, Some(0), "{shown:?}");
    assert!(!shown.contains("horse"), "it is not shown: {shown:?}");
    let (shown, code) = typed(command(&["new", "log"]), &[("passphrase of", "a typing error"), ("passphrase of", KEY)]);
    assert!(code == Some(0) && shown.contains("not the key"), "{code:?} {shown:?}");
    let (shown, code) = typed(command(&["list"]), &[("passphrase of", "\u{3}")]);
    assert_eq!(code, Some(130), "{shown:?}");
    let wrong = [("passphrase of", "1"), ("passphrase of", "2"), ("passphrase of", "3")];
    assert_eq!(typed(command(&["list"]), &wrong).1, Some(1));
}

/// Every file below, with its name.
fn each_file(directory: &Path, look: &mut impl FnMut(&Path, &[u8])) {
    for entry in fs::read_dir(directory).expect("a directory").flatten() {
        let (path, kind) = (entry.path(), entry.file_type().expect("a type"));
        if kind.is_dir() {
            look(&path, b"");
            each_file(&path, look);
        } else if kind.is_file() {
            look(&path, &fs::read(&path).expect("readable by root, and by its owner"));
        }
    }
}

/// What must not be seen, each with what it is.
struct Secrets {
    secrets: Vec<(&'static str, Vec<u8>)>,
    /// By their first two bytes: whether one begins so.
    begins: Vec<bool>,
}

impl Secrets {
    fn new(secrets: Vec<(&'static str, Vec<u8>)>) -> Self {
        let mut begins = vec![false; 1 << 16];
        for (_, secret) in &secrets {
            begins[usize::from(secret[0]) << 8 | usize::from(secret[1])] = true;
        }
        Self { secrets, begins }
    }

    /// Which of them is in the text.
    fn found_in(&self, text: &[u8]) -> Option<&'static str> {
        let mut here = text;
        while let [first, second, ..] = here {
            if self.begins[usize::from(*first) << 8 | usize::from(*second)]
                && let Some((what, _)) = self.secrets.iter().find(|(_, secret)| here.starts_with(secret))
            {
                return Some(what);
            }
            here = &here[1..];
        }
        None
    }

    /// None of them is in the state, in any name or content.
    #[track_caller]
    fn are_not_in(&self, state: &Path) {
        let mut files = 0;
        each_file(state, &mut |path, content| {
            files += 1;
            let name = path.strip_prefix(state).expect("below").as_os_str().as_bytes();
            for text in [name, content] {
                assert_eq!(self.found_in(text), None, "{}", path.display());
            }
        });
        assert!(files > 3, "{files} files");
    }
}

/// As CBOR has bytes that are encoded number by number; a byte string has them raw.
fn cbor_array(bytes: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::new();
    ciborium::into_writer(&bytes.to_vec(), &mut encoded).expect("to memory");
    // Without the head: the array that it stands in is longer.
    encoded.split_off(2)
}

/// A capability raw, in hex, as CBOR, in base64 at each of its shifts, and as our texts have it.
fn forms(work: &Work, name: &str) -> Vec<(&'static str, Vec<u8>)> {
    let engine = base64::engine::general_purpose::STANDARD;
    let mut forms = Vec::new();
    for write in [&["--write"][..], &[]] {
        let share = |more: &[&str]| work.verb("s", &[&["share", name], write, more].concat()).ok().text();
        let raw = engine.decode(share(&["--raw"]).trim()).expect("base64");
        for part in [&raw[..24], &raw[32..56], &raw[raw.len() - 24..]] {
            forms.push(("a capability", part.to_vec()));
            forms.push(("a capability in hex", hex::encode(part).into_bytes()));
            forms.push(("a capability as an array of CBOR", cbor_array(part)));
            forms.extend((0..3).map(|at| ("a capability in base64", engine.encode(&part[at..at + 21]).into_bytes())));
        }
        forms.push(("the text of a capability", share(&[]).trim().as_bytes()[24..].to_vec()));
    }
    forms
}

/// A mount of a sealed state does all that any does, and verbs that talk to it need no key. After it was killed, the files of
/// the state say nothing of what was done.
#[test]
fn the_files_of_a_sealed_state_say_nothing_after_use_and_kill() {
    if no_fuse() {
        return;
    }
    let work = with_keys();
    let network = work.localnet("net");
    verb(&work, "key", &["init", "--seal"], b"").ok();
    let key_file = work.path("key");
    let options = ["--key-file", key_file.to_str().expect("text"), "--config", network.config(), "--log", "trace"];
    let mount = work.mount("m", "s", &options);
    let (text, large) = (b"what nobody is to read: Zugspitze", bytes(300_000, 7));
    fs::write(mount.file("geheimnis"), text).expect("written");
    fs::create_dir(mount.file("postfach")).expect("a drop");
    fs::create_dir(mount.file("postfach/unterlagen")).expect("a directory");
    fs::write(mount.file("postfach/unterlagen/vertrag.pdf"), &large).expect("dropped");
    // Names that look temporary are kept, and not sent.
    let kept = mount.file("postfach/halbfertig.part");
    let mut open = File::create(&kept).expect("made");
    open.write_all(text).and_then(|()| open.sync_all()).expect("on the disk");
    fs::rename(&kept, mount.file("postfach/entwurf.part")).expect("renamed");
    let long = mount.file(&format!("postfach/{}", "x".repeat(176)));
    assert_eq!(File::create(long).expect_err("too long").raw_os_error(), Some(36));
    fs::write(work.path("ausgang.bin"), &large).expect("written");
    let send = ["send", work.path("ausgang.bin").to_str().expect("text"), "--to", "postfach"].map(str::to_owned);
    work.verb("s", &send.each_ref().map(String::as_str)).ok();
    work.verb("s", &["wait", "geheimnis", "--timeout", "200"]).ok();
    work.verb("s", &["status"]).ok();
    let secrets: Vec<(&'static str, Vec<u8>)> = [
        ("a name", &b"geheimnis"[..]),
        ("a drop's name", b"postfach"),
        ("a directory's name", b"unterlagen"),
        ("a file's name", b"vertrag"),
        ("a sent file's name", b"ausgang"),
        ("a temporary name", b"halbfertig"),
        ("a draft's name", b"entwurf"),
        ("content", b"Zugspitze"),
        ("a file's content", &large[1000..1016]),
        ("a file's end", &large[299_980..299_996]),
        ("the passphrase", b"horse battery"),
    ]
    .map(|(what, secret)| (what, secret.to_vec()))
    .into();
    let secrets = Secrets::new([secrets, forms(&work, "geheimnis"), forms(&work, "postfach")].concat());
    secrets.are_not_in(&work.path("s"));
    let log = mount.log();
    mount.kill();
    secrets.are_not_in(&work.path("s"));
    assert_eq!(secrets.found_in(log.as_bytes()), None, "{log}");
    assert!(log.contains("see `pigeonfs log`"), "{log}");

    // All of it is there for whoever has the key.
    let mount = work.mount("m", "s", &options);
    assert_eq!(fs::read(mount.file("geheimnis")).expect("read"), text);
    assert_eq!(fs::read(mount.file("postfach/entwurf.part")).expect("read"), text);
    assert_eq!(fs::read(mount.file("postfach/unterlagen/vertrag.pdf")).expect("read"), large);
    assert_eq!(fs::read(mount.file("postfach/ausgang.bin")).expect("read"), large);
    assert!(work.verb("s", &["log"]).ok().text().contains("mounted at"));
    mount.signal(rustix::process::Signal::TERM);
    secrets.are_not_in(&work.path("s"));
}

/// What a reader gets is as secret as what a writer has.
#[test]
fn what_arrives_in_a_sealed_state_says_nothing_either() {
    let work = with_keys();
    let network = work.localnet("net");
    let config = ["--config", network.config()];
    let content = bytes(50_000, 11);
    fs::write(work.path("sendung.bin"), &content).expect("written");
    work.verb("a", &["new", "--drop", "fernpost"]).ok();
    let file = work.path("sendung.bin");
    let send = [&["send", file.to_str().expect("text"), "--to", "fernpost"][..], &config].concat();
    work.verb("a", &send).ok();
    let capability = work.verb("a", &["share", "fernpost"]).ok().stdout;
    verb(&work, "key", &["init", "--seal"], b"").ok();
    verb(&work, "key", &["add", "--drop", "fernpost"], &capability).ok();
    let into = work.path("into");
    fs::create_dir(&into).expect("made");
    let receive = ["receive", "fernpost", "-o", into.to_str().expect("text"), "--timeout", "200"];
    let receive = [&receive[..], &config].concat();
    verb(&work, "key", &receive, b"").ok();
    assert_eq!(fs::read(into.join("sendung.bin")).expect("received"), content);
    let secrets = [
        ("the name", b"fernpost".to_vec()),
        ("the file's name", b"sendung".to_vec()),
        ("its content", content[3000..3016].to_vec()),
        ("the capability", capability[24..60].to_vec()),
    ];
    Secrets::new(secrets.into()).are_not_in(&work.path("s"));
}

/// Killed at any moment, `seal` leaves a state that is sealed or is not, whole, and nothing else; and so does `unseal`.
#[test]
fn whoever_kills_seal_leaves_a_whole_state() {
    let work = with_keys();
    let content = bytes(2_000_000, 3);
    work.verb_with("s", &["append", "geheimnis", "--no-wait"], &content).ok();
    let plain = work.verb("s", &["list"]).ok().text();
    assert!(plain.contains("geheimnis"), "{plain}");
    let key_file = work.path("key");
    let name = Secrets::new(vec![("the name", b"geheimnis".to_vec()), ("content", content[..16].to_vec())]);
    for delay_ms in [30, 120, 160, 200, 260, 340, 420] {
        for way in ["seal", "unseal"] {
            let mut command = work.command();
            command.arg(way).arg("--key-file").arg(&key_file).arg("--state").arg(work.path("s"));
            let mut child = Kill(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary"));
            std::thread::sleep(Duration::from_millis(delay_ms));
            let _ = child.0.kill();
            child.0.wait().expect("our child");
            // The next who has the state finishes what was begun, or puts it away.
            assert_eq!(verb(&work, "key", &["list"], b"").ok().text(), plain, "{way} killed after {delay_ms} ms");
            let sealed = work.path("s/seal.json").exists();
            let mut names = Vec::new();
            each_file(&work.path("s"), &mut |path, bytes| {
                let told = if sealed { name.found_in(bytes) } else { None };
                assert_eq!(told, None, "{way} killed after {delay_ms} ms: {}", path.display());
                names.push(path.file_name().expect("a name").to_owned());
            });
            names.retain(|name| {
                !["lock", "pigeonfs.db", "reserve", "seal.json"].contains(&name.to_str().unwrap_or("?"))
            });
            assert!(names.is_empty(), "{way} killed after {delay_ms} ms left {names:?}");
        }
    }
    if !work.path("s/seal.json").exists() {
        verb(&work, "key", &["seal"], b"").ok();
    }
    assert_eq!(verb(&work, "key", &["read", "geheimnis"], b"").ok().stdout, content);
}
