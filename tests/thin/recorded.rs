//! Recorded conversations with a real daemon in front of a real mixnet, held again with localnet: the same requests, with
//! localnet's own capabilities, envelopes and courier in the place of the recorded ones. Each reply must be of the same
//! shape: the same keys in the same order, the same types, null where null was, the same codes, the same lengths. Where it
//! may differ stands in [`TOLERATED`], with the reason.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use ciborium::Value;
use pigeonfs::localnet::{Localnet, Options};
use pigeonfs::thin::{Address, Document, frame};
use serde_json::Value as Json;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(60);

/// How a field may differ from the recorded one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum May {
    /// Of another length, or of another value if it is a number or text with a meaning.
    Differ,
    /// Bytes where there was null, beside an error's code.
    BeEmpty,
    /// An array with so many elements more.
    HaveMore(usize),
}

/// What may differ, field by field, and why.
const TOLERATED: &[(&str, May, &str)] = &[
    ("sphinx_geometry.PacketLength", May::Differ, PACKETS),
    (".ForwardPayloadLength", May::Differ, PACKETS),
    (".UserForwardPayloadLength", May::Differ, PACKETS),
    ("CourierQueryReadLength", May::Differ, ENVELOPES),
    ("CourierQueryWriteLength", May::Differ, ENVELOPES),
    ("pigeonhole_geometry.NIKEName", May::Differ, ENVELOPES),
    ("message_ciphertext", May::Differ, ENVELOPES),
    ("envelope_descriptor", May::Differ, "it holds a key for the longer envelopes"),
    ("message_reply_event.payload", May::Differ, PACKETS),
    ("envelopes", May::HaveMore(1), "longer envelopes make a longer copy stream"),
    ("envelopes[]", May::Differ, "the last element holds what is left of a longer copy stream"),
    ("buffer", May::Differ, "what is left of a longer copy stream"),
    ("new_pki_document_event.payload", May::Differ, "another network, whose document is cut in the recording"),
    ("get_pki_document_reply.payload", May::Differ, "another network, whose document is cut in the recording"),
    ("get_pki_document_reply.payload", May::BeEmpty, "one of upstream's clients cannot read a null here"),
];
const PACKETS: &str = "recorded with packets of 1,872 bytes for the user, where production has 2,000";
const ENVELOPES: &str = "recorded with X25519 in the envelopes, where production has CTIDH beside it";

fn may(path: &str, what: May) -> bool {
    TOLERATED.iter().any(|(suffix, may, _)| *may == what && path.ends_with(suffix))
}

/// Numbers that say how something ended, or how long something is; others are of their time and place.
const COMPARED: [&str; 4] = ["error_code", "replica_error_code", "failed_envelope_index", "geometry."];

#[tokio::test]
async fn one_box_is_written_read_and_deleted_in_every_way() {
    let held = replay(include_str!("../../testdata/recorded/basic.jsonl")).await;
    assert_eq!(held.compared, 43);
}

#[tokio::test]
async fn a_copy_an_echo_a_resumed_session_and_a_capability_of_a_wrong_length() {
    let held = replay(include_str!("../../testdata/recorded/copy-legacy-resume.jsonl")).await;
    assert_eq!(held.compared, 43);
}

#[tokio::test]
async fn upstream_s_tool_sends_receives_and_copies() {
    let held = replay(include_str!("../../testdata/recorded/pigeonhole-cp.jsonl")).await;
    assert_eq!(held.compared, 124);
}

/// Holds a conversation, line by line.
async fn replay(recording: &str) -> Replay {
    let root = tempfile::tempdir().expect("a directory");
    let network = Localnet::start(Options::new(root.path())).await.expect("started");
    let mut replay = Replay {
        address: network.addresses()[0].clone(),
        at: String::new(),
        clients: HashMap::new(),
        ours: HashMap::new(),
        beyond: Vec::new(),
        next: None,
        compared: 0,
    };
    for line in recording.lines() {
        let line: Json = serde_json::from_str(line).expect("JSON");
        let conn = line["conn"].as_u64().expect("a number");
        replay.at = format!("{} {} of connection {conn} at {} s", line["dir"], line["name"], line["t"]);
        let frame = line["hex"].as_str().map(|body| cbor(&hex::decode(body).expect("hexadecimal")));
        match (line["dir"].as_str().expect("a direction"), frame) {
            ("c>d", Some(request)) => replay.send(conn, request).await,
            ("d>c", Some(reply)) => replay.expect(conn, line["name"].as_str().expect("a name"), &reply).await,
            ("c>d", None) => replay.leave(conn).await,
            _ => replay.left(conn).await,
        }
    }
    network.shutdown().await;
    replay
}

struct Replay {
    address: Address,
    /// The line of the recording, for whoever reads of a failure.
    at: String,
    clients: HashMap<u64, Client>,
    /// What was recorded, and what stands for it here.
    ours: HashMap<Vec<u8>, Vec<u8>>,
    /// Elements that our copy streams have beyond the recorded ones, to be written before they are copied.
    beyond: Vec<Value>,
    /// Where the next box of the channel goes that was last written to.
    next: Option<(Value, Value)>,
    compared: usize,
}

struct Client {
    stream: UnixStream,
    /// Frames that came before it was their turn.
    early: VecDeque<Value>,
    documents: usize,
}

impl Replay {
    async fn client(&mut self, conn: u64) -> &mut Client {
        if !self.clients.contains_key(&conn) {
            let Address::Unix(path) = &self.address else { panic!("the socket comes first") };
            let stream = UnixStream::connect(path).await.expect("connected");
            self.clients.insert(conn, Client { stream, early: VecDeque::new(), documents: 0 });
        }
        self.clients.get_mut(&conn).expect("just seen")
    }

    async fn send(&mut self, conn: u64, mut request: Value) {
        self.put_ours(&mut request);
        let (name, body) = variant(&request);
        if name == "start_resending_copy_command" {
            self.write_what_is_beyond(conn).await;
        }
        if name == "encrypt_write" {
            self.next = Some((field(body, "write_cap").clone(), Value::Null));
        }
        self.client(conn).await.send(&request).await;
    }

    /// Puts our bytes into the place of recorded ones.
    fn put_ours(&self, value: &mut Value) {
        match value {
            Value::Bytes(bytes) => {
                if let Some(ours) = self.ours.get(bytes) {
                    bytes.clone_from(ours);
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.put_ours(item)),
            Value::Map(entries) => entries.iter_mut().for_each(|(_, value)| self.put_ours(value)),
            _ => {}
        }
    }

    async fn expect(&mut self, conn: u64, name: &str, recorded: &Value) {
        let (_, body) = variant(recorded);
        let at = self.at.clone();
        let client = self.client(conn).await;
        if name == "new_pki_document_event" {
            client.documents += 1;
            // Epochs begin when they do: of the documents only the one that greets a client is to be expected.
            if client.documents > 1 {
                return;
            }
        }
        let code = entry(body, "error_code").and_then(Value::as_integer).map(i128::from);
        // An operation's end comes before the answer to the cancel that ended it.
        let cancelled = code == Some(24);
        let query_id = entry(body, "query_id").cloned();
        let reply = client.frame(name, query_id.as_ref(), !cancelled, &at).await;
        let outer: Vec<_> = keys(&reply);
        assert_eq!((outer.len(), outer), (25, keys(recorded)), "{at}: every variant is named, in order");
        let ours = field(&reply, name);
        if name == "new_pki_document_event" {
            self.find_the_echo(field(ours, "payload").as_bytes().expect("a document"));
        }
        self.compare(name, body, ours, code.is_some_and(|code| code != 0));
        if name == "encrypt_write_reply"
            && let Some((_, at)) = &mut self.next
        {
            *at = field(ours, "next_message_box_index").clone();
        }
        self.compared += 1;
    }

    /// Where a client finds the echo: in the document, and not in a reply.
    fn find_the_echo(&mut self, document: &[u8]) {
        let echo = |document: &[u8]| {
            let document = Document::parse(document).expect("a document");
            document.service("echo").expect("an echo").identity_hash.to_vec()
        };
        self.ours.insert(echo(include_bytes!("../../testdata/recorded/pki-connect.cbor")), echo(document));
    }

    fn compare(&mut self, path: &str, recorded: &Value, ours: &Value, failed: bool) {
        let at = self.at.clone();
        match (recorded, ours) {
            (Value::Map(_), Value::Map(entries)) => {
                assert_eq!(keys(recorded), keys(ours), "{at}: {path}");
                for (key, ours) in entries {
                    let key = key.as_text().expect("text");
                    self.compare(&format!("{path}.{key}"), field(recorded, key), ours, failed);
                }
            }
            (Value::Array(recorded), Value::Array(ours)) => {
                let more = ours.len().checked_sub(recorded.len());
                assert!(more.is_some_and(|more| more == 0 || may(path, May::HaveMore(more))), "{at}: {path}");
                for (recorded, ours) in recorded.iter().zip(ours) {
                    self.compare(&format!("{path}[]"), recorded, ours, failed);
                }
                self.beyond.extend(ours[recorded.len()..].iter().cloned());
            }
            (Value::Bytes(recorded), Value::Bytes(ours)) => {
                assert!(recorded.len() == ours.len() || may(path, May::Differ), "{at}: {path}: {}", ours.len());
                // What was written is read, and what was said is echoed, behind which there is padding.
                if path.ends_with(".plaintext") || path == "message_reply_event.payload" {
                    assert!(ours.starts_with(recorded), "{at}: {path} is something else");
                }
                self.ours.insert(recorded.clone(), ours.clone());
            }
            (Value::Null, Value::Bytes(ours)) => {
                assert!(failed && ours.is_empty() && may(path, May::BeEmpty), "{at}: {path} is no null");
            }
            (Value::Integer(_), Value::Integer(_)) | (Value::Text(_), Value::Text(_)) => {
                let compared = COMPARED.iter().any(|part| path.contains(part)) && !may(path, May::Differ);
                assert!(!compared || recorded == ours, "{at}: {path}: {ours:?} and not {recorded:?}");
            }
            (Value::Bool(_), Value::Bool(_)) | (Value::Null, Value::Null) => {
                assert_eq!(recorded, ours, "{at}: {path}");
            }
            _ => panic!("{at}: {path} is {ours:?} and not {recorded:?}"),
        }
    }

    /// Writes the elements that the recorded client had no need of, behind those that it wrote.
    async fn write_what_is_beyond(&mut self, conn: u64) {
        for (number, element) in (1_u8..).zip(std::mem::take(&mut self.beyond)) {
            let (write_cap, index) = self.next.clone().expect("the stream's other elements were written");
            let client = self.client(conn).await;
            let query_id = Value::Bytes(vec![number; 16]);
            let encrypt = [("write_cap", write_cap.clone()), ("message_box_index", index), ("plaintext", element)];
            client.send(&request("encrypt_write", &query_id, &encrypt)).await;
            let made = client.frame("encrypt_write_reply", Some(&query_id), true, "an element beyond").await;
            let made = field(&made, "encrypt_write_reply");
            let part = |key: &'static str| (key, field(made, key).clone());
            let start = [
                ("write_cap", write_cap),
                part("message_ciphertext"),
                part("envelope_descriptor"),
                part("envelope_hash"),
            ];
            let name = "start_resending_encrypted_message";
            client.send(&request(name, &query_id, &start)).await;
            let name = "start_resending_encrypted_message_reply";
            client.frame(name, Some(&query_id), true, "an element beyond").await;
            self.next.as_mut().expect("seen").1 = field(made, "next_message_box_index").clone();
        }
    }

    /// The client's end of a connection; what had come and was not recorded is gone with it.
    async fn leave(&mut self, conn: u64) {
        let mut client = self.clients.remove(&conn).expect("connected");
        // A daemon that has hung up is gone for both directions.
        let _ = client.stream.shutdown().await;
    }

    /// The daemon's end of it: where it comes before the client's, the daemon has hung up.
    async fn left(&mut self, conn: u64) {
        let Some(client) = self.clients.get_mut(&conn) else { return };
        assert!(client.early.is_empty(), "{}: it had more to say", self.at);
        let end = timeout(SOON, frame::read_body(&mut client.stream)).await.expect("it hangs up");
        assert!(matches!(end, Ok(None) | Err(_)), "{}: it answered", self.at);
    }
}

impl Client {
    async fn send(&mut self, request: &Value) {
        self.stream.write_all(&frame::encode(request).expect("small")).await.expect("written");
    }

    /// The next frame of a variant, with a query id if it has one. Replies over the network may come in any order, and where
    /// nothing waits they come before their turn; with `late` left out this one must be the next of all.
    async fn frame(&mut self, name: &str, query_id: Option<&Value>, late: bool, at: &str) -> Value {
        let meant = |frame: &Value| {
            let (variant, body) = variant(frame);
            variant == name && entry(body, "query_id") == query_id
        };
        if let Some(place) = self.early.iter().position(meant) {
            assert!(late || place == 0, "{at}: something else came first");
            return self.early.remove(place).expect("just seen");
        }
        assert!(late || self.early.is_empty(), "{at}: something else came first");
        loop {
            let body = timeout(SOON, frame::read_body(&mut self.stream)).await;
            let body = body.unwrap_or_else(|_| panic!("{at}: nothing comes")).expect("a frame");
            let frame = cbor(&body.unwrap_or_else(|| panic!("{at}: the daemon hung up")));
            if meant(&frame) {
                return frame;
            }
            assert!(late, "{at}: something else came first");
            self.early.push_back(frame);
        }
    }
}

fn request(name: &str, query_id: &Value, fields: &[(&str, Value)]) -> Value {
    let mut body = vec![(Value::Text("query_id".to_owned()), query_id.clone())];
    body.extend(fields.iter().map(|(key, value)| (Value::Text((*key).to_owned()), value.clone())));
    Value::Map(vec![(Value::Text(name.to_owned()), Value::Map(body))])
}

fn cbor(bytes: &[u8]) -> Value {
    frame::decode(bytes).expect("CBOR")
}

fn keys(map: &Value) -> Vec<&str> {
    map.as_map().expect("a map").iter().map(|(key, _)| key.as_text().expect("text")).collect()
}

fn entry<'a>(map: &'a Value, key: &str) -> Option<&'a Value> {
    map.as_map()?.iter().find(|(at, _)| at.as_text() == Some(key)).map(|(_, value)| value)
}

fn field<'a>(map: &'a Value, key: &str) -> &'a Value {
    entry(map, key).unwrap_or_else(|| panic!("{key} is missing"))
}

/// The one variant of a frame that is not null.
fn variant(frame: &Value) -> (&str, &Value) {
    let mut there = frame.as_map().expect("a map").iter().filter(|(_, body)| !body.is_null());
    let (name, body) = there.next().expect("a variant");
    assert!(there.next().is_none(), "one variant a frame");
    (name.as_text().expect("text"), body)
}
