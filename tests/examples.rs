//! The library's how-to, run: each example against a localnet, with what it prints.
//!
//! `cargo test` builds the examples; with `cargo test --test examples` alone, `cargo build --examples` comes first.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use pigeonfs::bacap::WriteCap;
use pigeonfs::localnet::{Localnet, Options};
use pigeonfs::thin::{Client, ClientOptions, Missing, ReadOutcome, WriteMode};
use tokio::sync::Mutex;
use tokio::time::Instant;

/// Held while a program is started: between its fork and its exec it holds every lock file of this process.
static STARTING: Mutex<()> = Mutex::const_new(());
const PATIENCE: Duration = Duration::from_secs(120);

/// An example that runs, and the lines that it has printed. Dropping it ends it.
struct Example {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    name: &'static str,
}

impl Example {
    /// Starts one with all that it is to read.
    fn start(name: &'static str, args: &[&Path], stdin: &str) -> Self {
        let mut example = Self::open(name, args);
        example.say(stdin);
        example.stdin = None;
        example
    }

    /// Starts one that goes on reading.
    fn open(name: &'static str, args: &[&Path]) -> Self {
        let own = std::env::current_exe().expect("our own path");
        let program = own.ancestors().nth(2).expect("target/PROFILE/deps/examples").join("examples").join(name);
        assert!(program.exists(), "{} is not built: run `cargo build --examples`", program.display());
        let starting = STARTING.blocking_lock();
        let mut child = Command::new(&program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("started");
        drop(starting);
        let stdin = child.stdin.take();
        let (told, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| told.send(line)));
        Self { child, stdin, lines, name }
    }

    fn say(&mut self, text: &str) {
        self.stdin.as_mut().expect("open").write_all(text.as_bytes()).expect("taken");
    }

    /// Waits for a line that holds `text`; what follows in it.
    fn until(&self, text: &str) -> String {
        let line = std::iter::from_fn(|| self.lines.recv_timeout(PATIENCE).ok())
            .find_map(|line| line.split_once(text).map(|(_, behind)| behind.to_owned()));
        line.unwrap_or_else(|| panic!("{}: {text:?} does not come", self.name))
    }

    /// Waits for its end, which must be a success; gives what it has printed.
    fn end(mut self) -> String {
        self.stdin = None;
        let lines: Vec<_> = std::iter::from_fn(|| self.lines.recv_timeout(PATIENCE).ok()).collect();
        // Its stdout is at its end, or it has hung: then it is ended.
        let hung = matches!(self.lines.try_recv(), Err(std::sync::mpsc::TryRecvError::Empty));
        if hung {
            self.child.kill().expect("killed");
        }
        let status = self.child.wait().expect("waited for");
        let mut errors = String::new();
        self.child.stderr.take().expect("piped").read_to_string(&mut errors).expect("text");
        assert!(status.success() && !hung, "{} ({status}):\n{}\n{errors}", self.name, lines.join("\n"));
        lines.join("\n")
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Net {
    localnet: Localnet,
    config: PathBuf,
    root: tempfile::TempDir,
}

impl Net {
    async fn start() -> Self {
        let root = tempfile::tempdir().expect("a directory");
        let localnet = Localnet::start(Options::new(root.path())).await.expect("started");
        Self { localnet, config: root.path().join("thinclient.toml"), root }
    }

    async fn run(&self, name: &'static str, stdin: &str) -> String {
        let (config, stdin) = (self.config.clone(), stdin.to_owned());
        tokio::task::spawn_blocking(move || Example::start(name, &[&config], &stdin).end()).await.expect("ran")
    }

    fn client(&self) -> Client {
        Client::start(self.localnet.config(), ClientOptions::default())
    }
}

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

/// A channel of our own, as the examples want its capability.
fn channel_of(seed: u8) -> (WriteCap, String) {
    let cap = WriteCap::from_seed(&[seed; 32]);
    let text = cap.to_base64().to_string();
    (cap, text)
}

async fn read(client: &Client, cap: &WriteCap, steps: u64) -> ReadOutcome {
    let at = cap.index().advance_to(cap.index().counter() + steps).expect("forward");
    let envelope = client.encrypt_read(cap.read_cap(), &at, soon()).await.expect("encrypted");
    client.start_read(cap.read_cap(), &at, &envelope, Missing::Report, soon()).await.expect("read")
}

/// What a channel's first boxes hold together, up to the first that is not there.
async fn contents(client: &Client, cap: &WriteCap) -> Vec<u8> {
    let mut bytes = Vec::new();
    for steps in 0.. {
        match read(client, cap, steps).await {
            ReadOutcome::Box(message) => bytes.extend(message),
            _ => break,
        }
    }
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_look_around_verify_and_call_out() {
    let net = Net::start().await;
    let connected = net.run("01_connect", "").await;
    assert!(connected.contains("link: Connected") && connected.contains("a box carries 1549 bytes"), "{connected}");
    assert!(connected.contains("the document of epoch "), "{connected}");
    let services = net.run("02_discover_services", "").await;
    assert!(services.contains("courier on ") && services.contains("of an embedded network"), "{services}");
    let verified = net.run("03_verify_the_pki_document", "").await;
    assert!(verified.contains("consensus: true") && !verified.contains("NOT"), "{verified}");
    let echoed = net.run("04_echo", "").await;
    assert!(echoed.ends_with(": is anybody there?"), "{echoed}");
    net.localnet.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_is_made_written_read_and_deleted() {
    let net = Net::start().await;
    let made = net.run("05_create_a_channel", "").await;
    let (write, read) = made.split_once('\n').expect("two lines");
    assert!(net.run("07_read_a_message", read).await.starts_with("nothing more"));
    assert!(net.run("06_write_a_message", write).await.starts_with("stored"));
    assert!(net.run("06_write_a_message", write).await.starts_with("stored"), "the same bytes");
    assert!(net.run("07_read_a_message", read).await.starts_with("message: hello, reader\nnothing more"));
    let deleted = net.run("08_delete_with_tombstones", write).await;
    assert_eq!(deleted.lines().count(), 4, "{deleted}");
    assert!(net.run("06_write_a_message", write).await.starts_with("another writer's"));
    assert!(net.run("07_read_a_message", read).await.starts_with("deleted\ndeleted\ndeleted\ndeleted\nnothing more"));
    net.localnet.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn couriers_copy_to_one_channel_to_several_and_in_parts() {
    let net = Net::start().await;
    let client = net.client();
    let (cap, text) = channel_of(9);
    assert!(net.run("09_copy_to_one_channel", &text).await.starts_with("copied"));
    assert_eq!(contents(&client, &cap).await, vec![b'x'; 4000]);
    assert_eq!(net.run("10_copy_to_several_channels", "").await, "copied to 2 channels");
    let (cap, text) = channel_of(11);
    let told = net.run("11_copy_in_parts", &text).await;
    assert!(told.contains("boxes are written again") && told.contains("copied"), "{told}");
    let expected = [&b"one ".repeat(500)[..], &b"two ".repeat(500), &b"three".repeat(500)].concat();
    assert_eq!(contents(&client, &cap).await, expected);
    assert!(net.run("12_tombstone_a_range_by_copy", &text).await.starts_with("5 boxes are deleted"));
    for steps in 0..5 {
        assert_eq!(read(&client, &cap, steps).await, ReadOutcome::Tombstone, "box {steps}");
    }
    client.close().await;
    net.localnet.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_flight_is_cancelled() {
    let net = Net::start().await;
    assert_eq!(net.run("13_cancel", "").await, "dropped\nCancelled\ncancelled");
    net.localnet.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_outlives_the_daemon() {
    let Net { localnet, config, root } = Net::start().await;
    let (cap, _) = channel_of(14);
    let read_cap = cap.read_cap().to_base64().to_string();
    let example = tokio::task::spawn_blocking(move || {
        let example = Example::start("14_survive_a_restart", &[&config], &read_cap);
        example.until("waiting");
        example
    });
    let example = example.await.expect("waiting");
    let nothing_starts = STARTING.lock().await;
    localnet.shutdown().await;
    let localnet = Localnet::start(Options::new(root.path())).await.expect("started again");
    drop(nothing_starts);
    let example = tokio::task::spawn_blocking(move || {
        example.until("the daemon was restarted");
        example
    });
    let example = example.await.expect("restarted");
    // What the couriers were asked so far, they answer from their caches: only a fresh envelope sees the box.
    while localnet.console().stats().await.expect("told").packets.read < 8 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let client = Client::start(localnet.config(), ClientOptions::default());
    let envelope = client.encrypt_write(&cap, cap.index(), b"at last", soon()).await.expect("encrypted");
    client.start_write(&cap, &envelope, WriteMode::Strict, soon()).await.expect("written");
    let told = tokio::task::spawn_blocking(move || example.end()).await.expect("ended");
    assert!(told.ends_with("read: Box(7 bytes)"), "{told}");
    client.close().await;
    localnet.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_chat_and_one_begins_anew_in_between() {
    let net = Net::start().await;
    let (config, [one, other]) = (net.config.clone(), ["one", "other"].map(|name| net.root.path().join(name)));
    let chat = tokio::task::spawn_blocking(move || {
        let mut alice = Example::open("15_chat", &[&one, &config]);
        let mut bob = Example::open("15_chat", &[&other, &config]);
        let (hers, his) = (alice.until("ours: ") + "\n", bob.until("ours: ") + "\n");
        alice.say(&his);
        bob.say(&hers);
        alice.say("hello Bob\n");
        bob.until("> hello Bob");
        bob.say("hello Alice\n");
        alice.until("> hello Alice");
        // Killed and begun anew, she has the same channel, and reads all of it again.
        drop(alice);
        let mut alice = Example::open("15_chat", &[&one, &config]);
        alice.say(&his);
        alice.until("> hello Alice");
        alice.say("where were we?\n");
        bob.until("> where were we?");
        alice.stdin = None;
        bob.stdin = None;
        alice.end();
        bob.end();
    });
    chat.await.expect("they have talked");
    net.localnet.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_shipped_line_by_line() {
    let net = Net::start().await;
    let (config, state) = (net.config.clone(), net.root.path().join("shipper"));
    let ship = tokio::task::spawn_blocking(move || {
        let mut shipper = Example::open("16_log_shipper", &[&state, &config]);
        let capability = shipper.until("to read it: ");
        shipper.say("first line\n");
        shipper.until("11 of 11 bytes are stored");
        shipper.say("second line\n");
        assert!(shipper.end().ends_with("all is stored"));
        capability
    });
    let capability = ship.await.expect("shipped");
    let reader = pigeonfs::state::Options::new(net.root.path().join("reader")).daemon(net.localnet.config());
    let reader = pigeonfs::state::State::open(reader).await.expect("opened");
    let capability = capability.parse().expect("a capability");
    let log = reader.add("log", &capability).await.expect("added").stream().expect("a stream");
    log.wait_bytes(23, Some(PATIENCE)).await.expect("arrived");
    let mut text = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut log.reader(), &mut text).await.expect("read");
    assert_eq!(text, "first line\nsecond line\n");
    reader.close().await.expect("closed");
    net.localnet.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_backed_up_and_fetched_with_an_interruption_of_each() {
    let net = Net::start().await;
    let (config, at) = (net.config.clone(), |name: &str| net.root.path().join(name));
    let (files, restored) = (at("files"), at("restored"));
    std::fs::create_dir(&files).expect("made");
    std::fs::create_dir(&restored).expect("made");
    let contents: Vec<_> = (0..6_u32)
        .map(|number| (format!("file{number}"), (0..9000 * number).flat_map(u32::to_le_bytes).collect::<Vec<u8>>()))
        .collect();
    for (name, bytes) in &contents {
        std::fs::write(files.join(name), bytes).expect("written");
    }
    let (ours, theirs) = (at("ours"), at("theirs"));
    let done = tokio::task::spawn_blocking({
        let restored = restored.clone();
        move || {
            let backup = || Example::open("17_backup_of_a_directory", &[&ours, &files, &config]);
            let fetch = |cap: &str| Example::start("18_fetcher_that_resumes", &[&theirs, &restored, &config], cap);
            let first = backup();
            let capability = first.until("to restore it: ");
            first.until("file");
            drop(first);
            assert!(backup().end().ends_with("all is stored"));
            // Nothing is new: nothing is sent.
            let told = backup().end();
            assert_eq!(told.lines().skip(1).collect::<Vec<_>>(), ["all is stored"]);
            let first = fetch(&capability);
            first.until("/file");
            drop(first);
            let second = fetch("").end();
            assert!(second.ends_with("nothing more"), "{second}");
            assert_eq!(fetch("").end(), "nothing more", "each has come once, and before came: {second}");
        }
    });
    done.await.expect("sent and fetched");
    let mut there: Vec<_> = std::fs::read_dir(&restored)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
        .collect();
    there.sort();
    assert_eq!(there, contents.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>());
    for (name, bytes) in contents {
        assert!(std::fs::read(restored.join(&name)).expect("read") == bytes, "{name}");
    }
    net.localnet.shutdown().await;
}
