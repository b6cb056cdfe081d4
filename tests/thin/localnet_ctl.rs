//! Commands to a running localnet: by the console of its process, by the control socket, and over the in-memory network.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pigeonfs::bacap::WriteCap;
use pigeonfs::localnet::{
    Answer, Command, CommandError, Faults, InMemory, Listen, Localnet, Options, Profile, Settings, ask,
};
use pigeonfs::thin::message::{RequestFrame, ResponseFrame, SessionToken};
use pigeonfs::thin::{
    Client, ClientOptions, Config, Dial, ErrorKind, Link, Missing, ReadOutcome, WriteMode, WriteOutcome, frame,
};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout};

const SOON: Duration = Duration::from_secs(30);

async fn next(stream: &mut (impl AsyncRead + Unpin)) -> ResponseFrame {
    let body = timeout(SOON, frame::read_body(stream)).await.expect("in time").expect("read").expect("a frame");
    frame::decode(&body).expect("a response")
}

/// The daemon's two greetings: whether its link is up, its instance token, and whether there is a document.
async fn greeted(stream: &mut (impl AsyncRead + Unpin)) -> (bool, Vec<u8>, bool) {
    let status = next(stream).await.connection_status_event.expect("the status comes first");
    let document = next(stream).await.new_pki_document_event.expect("then the document");
    let token = status.instance_token.expect("a token").to_vec();
    (status.is_connected, token, document.payload.is_some())
}

async fn ended(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut rest = Vec::new();
    let _ = timeout(SOON, stream.read_to_end(&mut rest)).await.expect("it is closed");
    rest
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_socket_takes_a_command_a_line_and_survives_nonsense() {
    let root = tempfile::tempdir().expect("a directory");
    let network = Localnet::start(Options::new(root.path())).await.expect("started");
    let socket = root.path().join("ctl.sock");
    assert_eq!(std::fs::metadata(&socket).expect("there").permissions().mode() & 0o777, 0o600);
    let stream = UnixStream::connect(&socket).await.expect("connected");
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    for (line, answer) in [
        (r#"{"command": "link", "up": true}"#, r#"{"done":{}}"#),
        ("nonsense", "no command"),
        (r#"{"command": "set-faults", "set": {"loss": 7}}"#, "probability"),
        (r#"{"command": "set-faults", "set": {"lost": 0.1}}"#, "there is no fault"),
        (r#"{"command": "set-faults", "set": {"loss": 0.5}}"#, r#""loss":0.5"#),
        (r#"{"command": "clear-faults"}"#, r#""loss":0.0"#),
        (r#"{"command": "stats"}"#, r#""ticks":"#),
        (r#"{"command": "census"}"#, r#""operations":0"#),
        (r#"{"command": "clock"}"#, r#""moved-ms":0"#),
    ] {
        write.write_all(format!("{line}\n").as_bytes()).await.expect("written");
        let said = timeout(SOON, lines.next_line()).await.expect("in time").expect("read").expect("a line");
        assert!(said.contains(answer), "{line} was answered with {said}");
    }
    write.write_all(&vec![b'x'; 70_000]).await.expect("written");
    let said = timeout(SOON, lines.next_line()).await.expect("in time").expect("read").expect("a line");
    assert!(said.contains("a line has at most"), "{said}");
    let answer = ask(root.path(), &Command::ClearFaults).await.expect("another client is answered");
    assert_eq!(answer, Answer::Faults(Faults::default()));
    let console = network.console().clone();
    network.shutdown().await;
    assert_eq!(console.tell(Command::Stats).await, Err(CommandError::Ended));
    assert!(!socket.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_told_of_the_link_the_document_and_the_daemon_s_end() {
    let root = tempfile::tempdir().expect("a directory");
    let network = Localnet::start(Options::new(root.path())).await.expect("started");
    let (socket, console) = (root.path().join("kpclientd.sock"), network.console().clone());
    let connect = async || UnixStream::connect(&socket).await.expect("connected");
    let mut client = connect().await;
    let (link, token, document) = greeted(&mut client).await;
    assert!(link && document);

    console.tell(Command::Link { up: false }).await.expect("told");
    assert!(!next(&mut client).await.connection_status_event.expect("an event").is_connected);
    assert!(!greeted(&mut connect().await).await.0, "a client that comes now is told so too");
    console.tell(Command::Link { up: true }).await.expect("told");
    assert!(next(&mut client).await.connection_status_event.expect("an event").is_connected);
    console.tell(Command::Epoch).await.expect("told");
    assert!(next(&mut client).await.new_pki_document_event.expect("an event").payload.is_some());

    console.tell(Command::Restart { killed: false }).await.expect("told");
    assert!(next(&mut client).await.shutdown_event.is_some());
    assert!(ended(&mut client).await.is_empty());
    let mut client = connect().await;
    let (_, other, _) = greeted(&mut client).await;
    assert_ne!(token, other, "a daemon that was started anew");
    console.tell(Command::Restart { killed: true }).await.expect("told");
    assert!(ended(&mut client).await.is_empty(), "nothing is said");
    let mut client = connect().await;
    greeted(&mut client).await;
    console.tell(Command::Disconnect).await.expect("told");
    assert!(ended(&mut client).await.is_empty());
    network.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_cut_in_the_middle_of_a_frame() {
    let root = tempfile::tempdir().expect("a directory");
    let mut options = Options::new(root.path());
    options.settings.faults = Faults { disconnect_after_bytes: 777, ..Faults::default() };
    let network = Localnet::start(options).await.expect("started");
    let socket = root.path().join("kpclientd.sock");
    let mut client = UnixStream::connect(&socket).await.expect("connected");
    assert_eq!(ended(&mut client).await.len(), 777);
    let faults = Faults { disconnect_after_bytes_in: 11, ..Faults::default() };
    network.console().set_faults(&faults).await.expect("told");
    let mut client = UnixStream::connect(&socket).await.expect("connected");
    greeted(&mut client).await;
    // The other end may be gone in the middle of it.
    let _ = client.write_all(&[0, 0, 0, 200, 1, 2, 3, 4, 5, 6, 7, 8, 9]).await;
    assert!(ended(&mut client).await.is_empty());
    network.shutdown().await;
}

/// Writes and reads boxes over a network in memory, with what it is told going wrong; all that one connection said, and
/// how long it took.
async fn run(seed: u64) -> (Vec<u8>, Duration, u64) {
    let begin = Instant::now();
    let settings = Settings {
        profile: Profile::docker(),
        faults: Faults { loss: 0.2, reply_loss: 0.1, duplication: 0.1, ..Faults::default() },
        seed: Some(seed),
        ..Settings::default()
    };
    let network = InMemory::start(settings).expect("started");
    let mut listener = network.connect().expect("connected");
    let token = SessionToken { client_instance_token: Some([7; 16].to_vec().into()) };
    let hello = frame::encode(&RequestFrame::from(token)).expect("short");
    listener.write_all(&hello).await.expect("written");
    let client = Client::over(network.clone(), ClientOptions { seed: Some(seed), ..ClientOptions::default() });
    let cap = WriteCap::from_seed(&[3; 32]);
    let deadline = || Instant::now() + Duration::from_secs(600);
    let mut at = cap.index().clone();
    for text in [&b"one"[..], b"two", b"three"] {
        let envelope = client.encrypt_write(&cap, &at, text, deadline()).await.expect("encrypted");
        let written = client.start_write(&cap, &envelope, WriteMode::Strict, deadline()).await;
        assert_eq!(written.expect("written"), WriteOutcome::Done);
        let envelope = client.encrypt_read(cap.read_cap(), &at, deadline()).await.expect("encrypted");
        let read = client.start_read(cap.read_cap(), &at, &envelope, Missing::Retry, deadline()).await;
        assert_eq!(read.expect("read"), ReadOutcome::Box(text.to_vec()));
        at = at.next().expect("a next one");
    }
    let packets = network.console().stats().await.expect("told").ticks_sent;
    let took = begin.elapsed();
    client.close().await;
    network.console().tell(Command::Restart { killed: false }).await.expect("told");
    let heard = ended(&mut listener).await;
    let census = network.console().census().await.expect("told");
    for held in ["connections", "sessions", "operations", "steps", "requests"] {
        assert_eq!(census.get(held), Some(&0), "{held} are left: {census:?}");
    }
    network.shutdown().await;
    (heard, took, packets)
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let simulated = |seed| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.expect("a runtime").block_on(run(seed))
    };
    let first = simulated(1);
    assert!(first == simulated(1), "another run of the same seed");
    let other = simulated(2);
    assert!(first.1 != other.1 && first.0 != other.0, "another seed is another run");
}

/// Two clients wait for a box, which is written after a minute. The one that makes a fresh envelope for each look finds it.
/// The other one's envelope is answered from its courier's cache, as on a real network; where reads are kind it is not.
#[test]
fn a_read_in_fresh_envelopes_finds_what_one_envelope_does_not() {
    let found = |kind_reads| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.expect("a runtime").block_on(async {
            let profile = Profile { kind_reads, ..Profile::instant() };
            let settings = Settings { profile, seed: Some(3), ..Settings::default() };
            let network = InMemory::start(settings).expect("started");
            let client = Client::over(network.clone(), ClientOptions::default());
            let cap = WriteCap::from_seed(&[4; 32]);
            let (at, deadline) = (cap.index(), Instant::now() + Duration::from_secs(200));
            let late = async {
                tokio::time::sleep(Duration::from_secs(60)).await;
                let envelope = client.encrypt_write(&cap, at, b"late", deadline).await.expect("encrypted");
                client.start_write(&cap, &envelope, WriteMode::Strict, deadline).await.expect("written");
            };
            let same = async {
                let envelope = client.encrypt_read(cap.read_cap(), at, deadline).await.expect("encrypted");
                client.start_read(cap.read_cap(), at, &envelope, Missing::Retry, deadline).await
            };
            let (fresh, same, ()) = tokio::join!(client.read(cap.read_cap(), at, deadline), same, late);
            assert_eq!(fresh.expect("read"), ReadOutcome::Box(b"late".to_vec()));
            let nothing = client.read(cap.read_cap(), &at.next().expect("a next one"), client.deadline_for(1)).await;
            assert_eq!(nothing.expect("answered"), ReadOutcome::NotFound);
            client.close().await;
            network.shutdown().await;
            same.map_err(|error| error.kind)
        })
    };
    assert_eq!(found(false), Err(ErrorKind::Timeout));
    assert_eq!(found(true), Ok(ReadOutcome::Box(b"late".to_vec())));
}

/// A deadline follows the network's document: what took 118.8 s on a network like upstream's docker, seven boxes and a copy
/// command, has more than twice that, and a network with slower hops gives more.
#[test]
fn a_deadline_follows_the_network_s_own_numbers() {
    let allowed = |profile: Profile, boxes| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.expect("a runtime").block_on(async {
            let network = InMemory::start(Settings { profile, ..Settings::default() }).expect("started");
            let client = Client::over(network.clone(), ClientOptions::default());
            client.wait_connected(client.deadline_for(0)).await.expect("connected");
            let allowed = client.deadline_for(boxes) - Instant::now();
            client.close().await;
            network.shutdown().await;
            allowed
        })
    };
    let docker = allowed(Profile::docker(), 7);
    assert!((Duration::from_secs(240)..Duration::from_secs(360)).contains(&docker), "{docker:?}");
    assert!(allowed(Profile::namenlos(), 7) > docker * 2);
    assert!(allowed(Profile::instant(), 0) < allowed(Profile::instant(), 100));
}

/// Counts the connections of a client.
struct Counted {
    network: InMemory,
    dialled: Arc<AtomicUsize>,
}

impl Dial for Counted {
    type Stream = tokio::io::DuplexStream;

    async fn dial(&self) -> std::io::Result<Self::Stream> {
        self.dialled.fetch_add(1, Ordering::Relaxed);
        self.network.connect()
    }

    fn name(&self) -> String {
        "memory".to_owned()
    }
}

/// A daemon without a PKI document greets one client after the other, 30 s each. Two sessions of one program that dialled
/// side by side and gave up after 75 s used to push each other, and everybody else, further and further back.
#[test]
fn a_daemon_without_a_document_greets_one_client_after_the_other_and_sessions_wait_for_the_first_of_them() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let network = InMemory::start(Settings::default()).expect("started");
        network.console().tell(Command::Consensus { there: false }).await.expect("told");
        let began = Instant::now();
        let mut greeted = Vec::new();
        let mut others: Vec<_> = (0..4).map(|_| network.connect().expect("connected")).collect();
        let dialled = Arc::new(AtomicUsize::new(0));
        let dialer = || Counted { network: network.clone(), dialled: Arc::clone(&dialled) };
        let first = Client::over(dialer(), ClientOptions::default());
        let second = first.beside(dialer(), ClientOptions::default());
        for other in &mut others {
            let body = frame::read_body(other).await.expect("read").expect("a greeting");
            frame::decode::<ResponseFrame>(&body).expect("a response").connection_status_event.expect("its status");
            greeted.push(began.elapsed().as_secs());
        }
        assert_eq!(greeted, [30, 60, 90, 120]);
        assert_eq!(dialled.load(Ordering::Relaxed), 1, "the second session waits for the first");
        let mut status = first.status();
        status.wait_for(|status| matches!(status.link, Link::NoConsensus(_))).await.expect("greeted");
        assert_eq!(began.elapsed().as_secs(), 150);
        let mut status = second.status();
        status.wait_for(|status| matches!(status.link, Link::NoConsensus(_))).await.expect("greeted");
        assert_eq!((began.elapsed().as_secs(), dialled.load(Ordering::Relaxed)), (180, 2));
        network.console().tell(Command::Consensus { there: true }).await.expect("told");
        for client in [&first, &second] {
            client.wait_connected(Instant::now() + SOON).await.expect("connected");
            client.close().await;
        }
        assert_eq!(dialled.load(Ordering::Relaxed), 2, "no connection was given up");
        network.shutdown().await;
    });
}

/// A session is found by its token at the daemon that it began at, and at no other.
#[tokio::test]
async fn a_session_is_known_to_its_own_daemon_only() {
    let network = InMemory::start(Settings { daemons: 2, ..Settings::default() }).expect("started");
    let resumed = async |daemon: usize| {
        let mut client = network.connect_to(daemon).expect("connected");
        greeted(&mut client).await;
        let token = SessionToken { client_instance_token: Some([7; 16].to_vec().into()) };
        client.write_all(&frame::encode(&RequestFrame::from(token)).expect("short")).await.expect("written");
        next(&mut client).await.session_token_reply.expect("an answer").resumed
    };
    assert!(!resumed(0).await, "it is new");
    assert!(!resumed(1).await, "the other daemon has not heard of it");
    assert!(resumed(0).await && resumed(1).await, "each has one of its own by now");
    assert!(network.connect_to(2).is_err(), "there are two");
    network.shutdown().await;
}

/// Two daemons of one network: each client reads what the other has written, and both together send twice as fast as one.
#[test]
fn the_daemons_of_a_network_share_its_boxes_and_each_sends_at_the_whole_pace() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        // One daemon's ticks bound the writes; the second one's come on top.
        let took = async |daemons: usize| {
            let settings = Settings { profile: Profile::docker(), daemons, seed: Some(5), ..Settings::default() };
            let network = InMemory::start(settings).expect("started");
            let start = |at: usize| Client::over(At(network.clone(), at % daemons), ClientOptions::default());
            let clients: Vec<_> = (0..2).map(|at| Arc::new(start(at))).collect();
            let deadline = || Instant::now() + Duration::from_secs(36_000);
            let begin = Instant::now();
            let mut writes = tokio::task::JoinSet::new();
            for (client, seed) in clients.iter().zip([3, 4]) {
                let cap = WriteCap::from_seed(&[seed; 32]);
                let mut at = cap.index().clone();
                for n in 0..60_u8 {
                    let (client, cap, index) = (Arc::clone(client), cap.clone(), at.clone());
                    writes.spawn(async move {
                        let envelope =
                            client.encrypt_write(&cap, &index, &[n + 1], deadline()).await.expect("encrypted");
                        let written = client.start_write(&cap, &envelope, WriteMode::Strict, deadline()).await;
                        assert_eq!(written.expect("written"), WriteOutcome::Done);
                    });
                    at = at.next().expect("a next one");
                }
            }
            writes.join_all().await;
            let took = begin.elapsed();
            for (client, seed) in clients.iter().zip([4, 3]) {
                let cap = WriteCap::from_seed(&[seed; 32]);
                let found = client.read(cap.read_cap(), cap.index(), deadline()).await;
                assert_eq!(found.expect("read"), ReadOutcome::Box(vec![1]), "what the other one wrote");
            }
            for client in clients {
                Arc::into_inner(client).expect("nobody else has it").close().await;
            }
            network.shutdown().await;
            took
        };
        let (one, two) = (took(1).await, took(2).await);
        let ratio = one.as_secs_f64() / two.as_secs_f64();
        assert!((1.6..2.4).contains(&ratio), "one daemon took {one:?}, two {two:?}");
    });
}

/// One daemon of two is stopped: its clients are cut off and find nobody, those of the other notice nothing, and when it is
/// started again it is another instance that knows no session.
#[tokio::test]
async fn one_daemon_of_a_network_is_stopped_and_started() {
    let network = InMemory::start(Settings { daemons: 2, ..Settings::default() }).expect("started");
    let console = network.console();
    let (mut first, mut second) =
        (network.connect_to(0).expect("connected"), network.connect_to(1).expect("connected"));
    let (_, other, _) = greeted(&mut first).await;
    let (_, token, _) = greeted(&mut second).await;
    assert_ne!(token, other, "each is a process of its own");
    console.tell(Command::Stop { daemon: 2 }).await.expect("told");
    assert!(ended(&mut second).await.is_empty(), "nothing is said");
    assert!(ended(&mut network.connect_to(1).expect("a pipe")).await.is_empty(), "nobody answers");
    console.tell(Command::Epoch).await.expect("told");
    assert!(next(&mut first).await.new_pki_document_event.is_some(), "the other one goes on");
    console.tell(Command::Start { daemon: 2 }).await.expect("told");
    let mut second = network.connect_to(1).expect("connected");
    assert_ne!(greeted(&mut second).await.1, token);
    for (command, told) in [
        (Command::Stop { daemon: 3 }, "there are 2 daemons"),
        (Command::Start { daemon: 0 }, "none is number 0"),
        (Command::Slow { daemon: 1, times: f64::NAN }, "a number above 0"),
    ] {
        let refused = console.tell(command.clone()).await.expect_err("refused").to_string();
        assert!(refused.contains(told), "{command:?}: {refused}");
    }
    network.shutdown().await;
}

#[test]
fn a_slow_daemon_sends_more_rarely_and_the_other_as_before() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let settings = Settings { profile: Profile::docker(), daemons: 2, seed: Some(7), ..Settings::default() };
        let network = InMemory::start(settings).expect("started");
        network.console().tell(Command::Slow { daemon: 2, times: 20.0 }).await.expect("told");
        let mut took = Vec::new();
        for daemon in 0..2 {
            let client = Client::over(At(network.clone(), daemon), ClientOptions::default());
            let cap = WriteCap::from_seed(&[8 + daemon as u8; 32]);
            let begin = Instant::now();
            let mut at = cap.index().clone();
            for _ in 0..20 {
                let deadline = Instant::now() + Duration::from_secs(36_000);
                let envelope = client.encrypt_write(&cap, &at, b"slowly", deadline).await.expect("encrypted");
                client.start_write(&cap, &envelope, WriteMode::Strict, deadline).await.expect("written");
                at = at.next().expect("a next one");
            }
            took.push(begin.elapsed().as_secs_f64());
            client.close().await;
        }
        assert!((4.0..20.0).contains(&(took[1] / took[0])), "{took:?} s");
        network.shutdown().await;
    });
}

/// The way to one daemon of a network.
#[derive(Clone)]
struct At(InMemory, usize);

impl Dial for At {
    type Stream = tokio::io::DuplexStream;

    async fn dial(&self) -> std::io::Result<Self::Stream> {
        self.0.connect_to(self.1)
    }

    fn name(&self) -> String {
        format!("daemon {}", self.1)
    }
}

/// Each has its own files: a client finds each of them by its configuration.
#[tokio::test(flavor = "multi_thread")]
async fn each_daemon_of_a_network_has_its_own_files() {
    let root = tempfile::tempdir().expect("a directory");
    let config = root.path().join("out/client.toml");
    std::fs::create_dir(root.path().join("out")).expect("made");
    let start = async |daemons: usize| {
        let mut options = Options::new(root.path().join("net"));
        options.settings.daemons = daemons;
        options.listen = ["127.0.0.1:0", "127.0.0.1:0"].map(|at| Listen(at.parse().expect("an address"))).into();
        options.config_out = Some(config.clone());
        Localnet::start(options).await
    };
    let network = start(3).await.expect("started");
    assert_eq!(network.configs().len(), 3);
    let cap = WriteCap::from_seed(&[9; 32]);
    let files = [
        "net/thinclient.toml",
        "net/thinclient-2.toml",
        "net/thinclient-3.toml",
        "out/client.toml",
        "out/client-2.toml",
        "out/client-3.toml",
    ];
    let mut dials = std::collections::BTreeSet::new();
    for (n, file) in files.iter().enumerate() {
        let config = Config::load(&root.path().join(file)).expect(file);
        assert!(dials.insert(config.dial.to_string()) || n == 5, "{file}: the third daemon has no address of its own");
        let client = Client::start(config, ClientOptions::default());
        client.wait_connected(client.deadline_for(0)).await.expect("connected");
        if n == 0 {
            let envelope = client
                .encrypt_write(&cap, cap.index(), b"one network", client.deadline_for(2))
                .await
                .expect("encrypted");
            client.start_write(&cap, &envelope, WriteMode::Strict, client.deadline_for(2)).await.expect("written");
        }
        let found = client.read(cap.read_cap(), cap.index(), client.deadline_for(2)).await.expect("read");
        assert_eq!(found, ReadOutcome::Box(b"one network".to_vec()), "{file}");
        client.close().await;
    }
    network.shutdown().await;
    let network = start(1).await.expect("started again");
    assert!(!root.path().join("net/thinclient-2.toml").exists(), "it would lead nowhere");
    network.shutdown().await;
    for bad in [0, 17] {
        let refused = start(bad).await.err().expect("refused").to_string();
        assert!(refused.contains("from 1 to 16 daemons"), "{refused}");
    }
}
