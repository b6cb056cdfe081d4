//! localnet as its clients meet it: every transport, frames that no client should send, restarts, and what it says when
//! it cannot start.

use std::time::Duration;

use ciborium::cbor;
use pigeonfs::bacap::WriteCap;
use pigeonfs::localnet::{Listen, Localnet, LocalnetError, Options};
use pigeonfs::thin::frame;
use pigeonfs::thin::message::ResponseFrame;
use pigeonfs::thin::{Address, Client, ClientOptions, Config, Missing, ReadOutcome, WriteMode, WriteOutcome};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout};

const SOON: Duration = Duration::from_secs(30);

fn client(address: &Address) -> Client {
    Client::start(Config::new(address.clone()), ClientOptions::default())
}

fn soon() -> Instant {
    Instant::now() + SOON
}

/// Writes a box of its own, strict, and reads it back; then a conflict, a missing box and a tombstone.
async fn use_it(client: &Client, seed: u8) {
    let cap = WriteCap::from_seed(&[seed; 32]);
    let pair = client.new_keypair(&[seed; 32], soon()).await.expect("a pair");
    assert_eq!((&pair.write_cap, &pair.read_cap), (&cap, cap.read_cap()));
    let at = cap.index();
    assert_eq!(client.next_index(at, soon()).await.expect("stepped"), at.next().expect("a next one"));
    assert_eq!(client.index_counter(at, soon()).await.expect("read"), at.counter());
    let read = async |at| {
        let envelope = client.encrypt_read(cap.read_cap(), at, soon()).await.expect("encrypted");
        client.start_read(cap.read_cap(), at, &envelope, Missing::Report, soon()).await.expect("read")
    };
    let write = async |text: &[u8]| {
        let envelope = client.encrypt_write(&cap, at, text, soon()).await.expect("encrypted");
        client.start_write(&cap, &envelope, WriteMode::Strict, soon()).await.expect("written")
    };
    assert_eq!(write(b"hello").await, WriteOutcome::Done);
    assert_eq!(write(b"hello").await, WriteOutcome::Done, "the same bytes");
    assert_eq!(write(b"other").await, WriteOutcome::AlreadyExists);
    assert_eq!(read(at).await, ReadOutcome::Box(b"hello".to_vec()));
    let next = at.next().expect("a next one");
    assert_eq!(read(&next).await, ReadOutcome::NotFound);
    let envelope = client.encrypt_tombstone(&cap, &next, soon()).await.expect("encrypted");
    client.start_write(&cap, &envelope, WriteMode::Strict, soon()).await.expect("deleted");
    assert_eq!(read(&next).await, ReadOutcome::Tombstone);
    let authorities = client.directory_authorities(soon()).await.expect("told");
    assert!(!authorities.is_empty());
    let (document, epoch) = client.pki_document_raw(0, soon()).await.expect("told");
    assert!(!document.is_empty() && epoch > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_transport_carries_the_whole_protocol() {
    let root = tempfile::tempdir().expect("a directory");
    let name = format!("pigeonfs-test-{}", std::process::id());
    let listen = ["127.0.0.1:0", &format!("@{name}"), "ws://127.0.0.1:0"].map(|text| text.parse().expect("an address"));
    let config_out = root.path().join("out.toml");
    let options = Options {
        listen: listen.into_iter().map(Listen).collect(),
        config_out: Some(config_out.clone()),
        ..Options::new(root.path().join("net"))
    };
    let network = Localnet::start(options).await.expect("started");
    assert_eq!(network.addresses().len(), 4);
    assert_eq!(
        Config::load(&config_out).expect("written").dial,
        network.addresses()[1],
        "the first that was asked for"
    );
    for (seed, address) in (1..).zip(network.addresses()) {
        let client = client(address);
        use_it(&client, seed).await;
        client.close().await;
    }
    network.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_frames_cost_their_sender_the_connection_and_nobody_else_anything() {
    let root = tempfile::tempdir().expect("a directory");
    let network = Localnet::start(Options::new(root.path())).await.expect("started");
    let good = client(&network.addresses()[0]);
    good.wait_connected(soon()).await.expect("connected");
    let Address::Unix(socket) = &network.addresses()[0] else { panic!("the socket comes first") };
    let framed = |body: &[u8]| [&u32::try_from(body.len()).expect("short").to_be_bytes()[..], body].concat();
    let mut wrong_cap = Vec::new();
    let odd = cbor!({ "encrypt_read" => { "query_id" => [1], "read_cap" => "x" } }).expect("cbor");
    ciborium::into_writer(&odd, &mut wrong_cap).expect("into memory");
    let mut short_cap = Vec::new();
    let bytes = ciborium::Value::Bytes(vec![1; 135]);
    let odd = cbor!({ "encrypt_read" => { "read_cap" => bytes } }).expect("cbor");
    ciborium::into_writer(&odd, &mut short_cap).expect("into memory");
    for (what, bytes) in [
        ("a null, which brings the daemon down", framed(&[0xf6])),
        ("an empty frame", framed(&[])),
        ("an array", framed(&[0x80])),
        ("bytes after the item", framed(&[0xa0, 0x00])),
        ("a capability that is text", framed(&wrong_cap)),
        ("a capability that is a byte short", framed(&short_cap)),
        ("a prefix beyond the limit", vec![0xff; 64]),
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("half a frame", vec![0, 0, 0, 9, 1]),
    ] {
        let mut stream = UnixStream::connect(socket).await.expect("connected");
        for _ in 0..2 {
            let greeting = frame::read_body(&mut stream).await.expect("a frame").expect("a frame");
            frame::decode::<ResponseFrame>(&greeting).expect("a greeting");
        }
        stream.write_all(&bytes).await.expect("written");
        stream.shutdown().await.expect("our half is closed");
        let end = timeout(SOON, frame::read_body(&mut stream)).await.expect("it hangs up");
        assert!(!matches!(end, Ok(Some(_))), "{what} was answered");
    }
    // An empty map is no request: nothing is said, and the connection lives.
    let mut stream = UnixStream::connect(socket).await.expect("connected");
    stream.write_all(&framed(&[0xa0])).await.expect("written");
    use_it(&good, 9).await;
    good.close().await;
    network.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn boxes_and_the_network_s_identity_survive_a_restart() {
    let root = tempfile::tempdir().expect("a directory");
    let cap = WriteCap::from_seed(&[1; 32]);
    let mut seen = Vec::new();
    let mut envelope = None;
    for life in 0..2 {
        let network = Localnet::start(Options::new(root.path())).await.expect("started");
        let client = client(&network.addresses()[0]);
        if life == 0 {
            let made = client.encrypt_write(&cap, cap.index(), b"kept", soon()).await.expect("encrypted");
            client.start_write(&cap, &made, WriteMode::Strict, soon()).await.expect("written");
            envelope = Some(made);
        }
        let again = client.start_write(&cap, envelope.as_ref().expect("made"), WriteMode::Strict, soon()).await;
        assert_eq!(again.expect("an envelope of an earlier life is good"), WriteOutcome::Done);
        let read = client.encrypt_read(cap.read_cap(), cap.index(), soon()).await.expect("encrypted");
        let read = client.start_read(cap.read_cap(), cap.index(), &read, Missing::Report, soon()).await;
        assert_eq!(read.expect("read"), ReadOutcome::Box(b"kept".to_vec()));
        seen.push(client.directory_authorities(soon()).await.expect("told")[0].identity_key_hash.clone());
        client.close().await;
        network.shutdown().await;
    }
    assert_eq!(seen[0], seen[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_it_from_starting_is_said_in_words() {
    let root = tempfile::tempdir().expect("a directory");
    let state = root.path().join("net");
    let network = Localnet::start(Options::new(&state)).await.expect("started");
    let error = |options| async { Localnet::start(options).await.err().expect("refused") };
    let busy = error(Options::new(&state)).await;
    assert!(matches!(busy, LocalnetError::Busy { .. }) && busy.to_string().contains("thinclient.toml"), "{busy}");
    let outside = Listen("0.0.0.0:0".parse().expect("an address"));
    let refused = error(Options { listen: vec![outside], ..Options::new(root.path().join("b")) }).await;
    assert!(matches!(refused, LocalnetError::NotLoopback { .. }), "{refused}");
    let taken = Listen(network.addresses()[0].clone());
    let refused = error(Options { listen: vec![taken], ..Options::new(root.path().join("c")) }).await;
    assert!(matches!(refused, LocalnetError::Listen { .. }), "{refused}");
    let long = error(Options::new(root.path().join("d".repeat(120)))).await;
    assert!(matches!(long, LocalnetError::PathTooLong { .. }), "{long}");
    network.shutdown().await;
    let database = rusqlite::Connection::open(state.join("localnet.db")).expect("opened");
    database.pragma_update(None, "user_version", 99).expect("marked");
    let newer = error(Options::new(&state)).await;
    assert!(matches!(newer, LocalnetError::NewerSchema { found: 99, .. }), "{newer}");
}
