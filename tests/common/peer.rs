//! A daemon whose every word a test says, over streams in memory, so that a test can pause the clock.

use std::time::Duration;

use ciborium::cbor;
use pigeonfs::bacap::{BoxIndex, WriteCap};
use pigeonfs::thin::frame;
use pigeonfs::thin::message::{
    ConnectionStatusEvent, EncryptReply, IndexCounterReply, NewPkiDocumentEvent, NextIndexReply, Octets,
    PigeonholeGeometry, RequestFrame, ResponseFrame, SessionTokenReply, SphinxGeometry, StartResending,
    StartResendingReply,
};
use pigeonfs::thin::{Client, ClientOptions, Dial, Error, Missing, ReadOutcome};
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

pub const SOON: Duration = Duration::from_secs(30);

pub fn soon() -> Instant {
    Instant::now() + SOON
}

/// A daemon in memory: each stream's other end goes to the test. While there is none, nothing answers.
pub struct Pipes(mpsc::Sender<DuplexStream>);

impl Dial for Pipes {
    type Stream = DuplexStream;

    async fn dial(&self) -> std::io::Result<DuplexStream> {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        self.0.send(theirs).await.map_err(|_| std::io::Error::from(std::io::ErrorKind::ConnectionRefused))?;
        Ok(ours)
    }

    fn name(&self) -> String {
        "memory".to_owned()
    }
}

pub struct Peer(mpsc::Receiver<DuplexStream>);

pub struct Conversation {
    pub stream: DuplexStream,
    /// Whether the client's probes are answered unseen.
    pub answers_probes: bool,
}

impl Peer {
    pub fn new() -> (Self, Client) {
        Self::with_seed(1)
    }

    pub fn with_seed(seed: u64) -> (Self, Client) {
        Self::with(ClientOptions { seed: Some(seed), ..ClientOptions::default() })
    }

    pub fn with(options: ClientOptions) -> (Self, Client) {
        let (dialled, accepted) = mpsc::channel(1);
        (Self(accepted), Client::over(Pipes(dialled), options))
    }

    pub async fn accept_raw(&mut self) -> DuplexStream {
        timeout(Duration::from_secs(600), self.0.recv()).await.expect("the client dials").expect("a client")
    }

    /// Whether the client dials within `patience`.
    pub async fn is_dialled(&mut self, patience: Duration) -> bool {
        timeout(patience, self.0.recv()).await.is_ok()
    }

    /// Accepts the client and shakes hands, as the daemon process that `instance` names. Gives the session token.
    pub async fn accept(&mut self, instance: u8) -> (Conversation, Octets) {
        self.accept_as(instance, false, true).await
    }

    pub async fn accept_as(&mut self, instance: u8, resumed: bool, is_connected: bool) -> (Conversation, Octets) {
        let (mut conversation, token) = self.greet(instance, is_connected).await;
        // An event may come between the token and its reply.
        conversation.say(NewPkiDocumentEvent { payload: None }).await;
        conversation.welcome(resumed).await;
        (conversation, token)
    }

    /// The handshake up to the client's token.
    pub async fn greet(&mut self, instance: u8, is_connected: bool) -> (Conversation, Octets) {
        let mut conversation = Conversation { stream: self.accept_raw().await, answers_probes: true };
        conversation.say(status(instance, is_connected)).await;
        conversation.say(NewPkiDocumentEvent { payload: None }).await;
        let token = conversation.hear().await.session_token.expect("the token comes first");
        (conversation, token.client_instance_token.expect("16 bytes"))
    }
}

pub fn status(instance: u8, is_connected: bool) -> ConnectionStatusEvent {
    ConnectionStatusEvent {
        is_connected,
        instance_token: Some(Octets::from([instance; 16])),
        sphinx_geometry: Some(SphinxGeometry { user_forward_payload_length: 2000, ..Default::default() }),
        pigeonhole_geometry: Some(PigeonholeGeometry { max_plaintext_payload_length: 1549, ..Default::default() }),
        ..Default::default()
    }
}

/// A document, so that legacy messages may leave.
pub fn document() -> NewPkiDocumentEvent {
    let value = cbor!({ "Epoch" => 7, "LambdaP" => 0.001, "Mu" => 0.005, "Topology" => [[], [], []] });
    let mut bytes = Vec::new();
    ciborium::into_writer(&value.expect("cbor"), &mut bytes).expect("into memory");
    NewPkiDocumentEvent { payload: Some(Octets::from(bytes)) }
}

impl Conversation {
    pub async fn say(&mut self, frame: impl Into<ResponseFrame>) {
        self.stream.write_all(&frame::encode(&frame.into()).expect("small")).await.expect("written");
    }

    pub async fn welcome(&mut self, resumed: bool) {
        self.say(SessionTokenReply { app_id: Some(Octets::from([1; 16])), resumed }).await;
    }

    pub async fn hear(&mut self) -> RequestFrame {
        timeout(SOON, self.next()).await.expect("the client speaks").expect("a frame")
    }

    /// The next request that is no probe; `None` where the client hung up.
    pub async fn next(&mut self) -> Option<RequestFrame> {
        loop {
            let body = frame::read_body(&mut self.stream).await.expect("a whole frame")?;
            let request: RequestFrame = frame::decode(&body).expect("a request");
            match &request.get_message_box_index_counter {
                Some(probe) if self.answers_probes => {
                    self.say(IndexCounterReply { query_id: probe.query_id.clone(), error_code: 0, counter: 0 }).await;
                }
                _ => return Some(request),
            }
        }
    }

    /// Whether nothing but probes comes for so long.
    pub async fn hears_nothing(&mut self, patience: Duration) -> bool {
        timeout(patience, self.next()).await.is_err()
    }

    /// Hears the start of an operation.
    pub async fn hear_start(&mut self) -> StartResending {
        self.hear().await.start_resending_encrypted_message.expect("a start")
    }

    /// Hears a cancel, answers it with nothing before it, and gives its hash.
    pub async fn hear_cancel(&mut self) -> Option<Octets> {
        let cancel = self.hear().await.cancel_resending_encrypted_message.expect("a cancel");
        let reply = pigeonfs::thin::message::CancelReply { query_id: cancel.query_id, error_code: 0 };
        self.say(ResponseFrame { cancel_resending_encrypted_message_reply: Some(reply), ..Default::default() }).await;
        cancel.envelope_hash
    }

    /// Answers the encrypt that is asked next, with an envelope of hash `hash`.
    pub async fn encrypt(&mut self, hash: u8) {
        let asked = self.hear().await.encrypt_read.expect("an encrypt");
        let reply = EncryptReply {
            query_id: asked.query_id,
            error_code: 0,
            message_ciphertext: Some(Octets::from([1; 10])),
            envelope_descriptor: Some(Octets::from([2; 10])),
            envelope_hash: Some(Octets::from([hash; 32])),
            next_message_box_index: asked.message_box_index,
        };
        self.say(ResponseFrame { encrypt_read_reply: Some(reply), ..Default::default() }).await;
    }
}

pub fn index() -> BoxIndex {
    WriteCap::from_seed(&[1; 32]).index().clone()
}

pub fn next_reply(query_id: Option<Octets>) -> NextIndexReply {
    let next = index().next().expect("a next one");
    NextIndexReply { query_id, error_code: 0, next_message_box_index: Some(Octets::from(&next.as_bytes()[..])) }
}

/// The end of a started read that a courier dealt with.
pub fn ended(query_id: Option<Octets>, error_code: u8, plaintext: Option<&[u8]>) -> StartResendingReply {
    StartResendingReply {
        query_id,
        error_code,
        plaintext: plaintext.map(Octets::from),
        courier_identity_hash: Some(Octets::from([9; 32])),
        ..Default::default()
    }
}

/// A read in an envelope of hash `hash` that is put to the peer; its start is yet to be heard.
pub async fn start_read(client: &Client, peer: &mut Conversation, hash: u8) -> JoinHandle<Result<ReadOutcome, Error>> {
    start_read_until(client, peer, hash, soon()).await
}

pub async fn start_read_until(
    client: &Client,
    peer: &mut Conversation,
    hash: u8,
    deadline: Instant,
) -> JoinHandle<Result<ReadOutcome, Error>> {
    let client = client.clone();
    let reading = tokio::spawn(async move {
        let cap = WriteCap::from_seed(&[1; 32]);
        let envelope = client.encrypt_read(cap.read_cap(), cap.index(), soon()).await?;
        client.start_read(cap.read_cap(), cap.index(), &envelope, Missing::Report, deadline).await
    });
    peer.encrypt(hash).await;
    reading
}
