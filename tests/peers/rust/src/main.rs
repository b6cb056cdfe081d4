//! Every public function of upstream's Rust thin client and of its persistent layer against a localnet:
//! `whole-api CONFIG PIGEONFS DIRECTORY DATABASE`.
//!
//! PIGEONFS is the program and DIRECTORY the localnet's, which is restarted and broken as it runs. One line a check.

mod channels;

use std::collections::BTreeMap;
use std::error::Error;
use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use katzenpost_thin_client::error::error_code_to_error;
use katzenpost_thin_client::pigeonhole::{EncryptReadResult, EncryptWriteResult, KeypairResult};
use katzenpost_thin_client::{
    Config, ConfigFile, EventSinkReceiver, PigeonholeGeometry, StartResendingResult, ThinClient, ThinClientError,
    find_services, pretty_print_pki_doc, thin_client_error_to_string,
};
use serde_cbor::Value;
use tokio::time::{sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(60);
const INDEX: usize = 104;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;
type Started = Result<StartResendingResult, ThinClientError>;

fn done(what: &str) {
    println!("ok {what}");
}

macro_rules! refused {
    ($called:expr, $error:pat) => {
        match $called {
            Err($error) => {}
            Err(other) => panic!("another error: {other:?}"),
            Ok(_) => panic!("no error, where {} was due", stringify!($error)),
        }
    };
}
pub(crate) use refused;

/// Waits in small steps for what only a callback or a flag of the client tells.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{what}: never"));
}

fn text(key: &str) -> Value {
    Value::Text(key.to_owned())
}

/// What the callbacks were told.
#[derive(Default)]
struct Told {
    statuses: AtomicUsize,
    documents: AtomicUsize,
    sent: AtomicUsize,
    replies: AtomicUsize,
    /// Whether each lost connection was ended in order.
    lost: Mutex<Vec<bool>>,
}

pub(crate) struct Peer {
    client: Arc<ThinClient>,
    told: Arc<Told>,
    program: String,
    directory: String,
}

pub(crate) fn seed() -> [u8; 32] {
    let mut seed = [0; 32];
    seed[..16].copy_from_slice(&ThinClient::new_query_id());
    seed[16..].copy_from_slice(&ThinClient::new_query_id());
    seed
}

/// Bytes that no two calls have in common.
pub(crate) fn bytes(count: usize) -> Vec<u8> {
    std::iter::repeat_with(seed).flatten().take(count).collect()
}

async fn connect(config: Config) -> Outcome<(Arc<ThinClient>, bool)> {
    let client = ThinClient::new(config).await?;
    // `new` returns before the handshake: what is asked now would be sent before the session's token. Of its end the
    // sink tells, unless it was registered too late: users sleep, and so does this then.
    let mut events = client.event_sink();
    let token = timeout(Duration::from_secs(2), next(&mut events, "session_token_reply", |_| true)).await;
    until("the document", || client.is_connected()).await;
    Ok((client, token.is_ok()))
}

/// The next frame of this kind that will do.
async fn next(
    events: &mut EventSinkReceiver,
    kind: &str,
    wanted: impl Fn(&BTreeMap<Value, Value>) -> bool,
) -> BTreeMap<Value, Value> {
    loop {
        let frame = events.recv().await.expect("the client lives");
        if matches!(frame.get(&text(kind)), Some(Value::Map(_))) && wanted(&frame) {
            return frame;
        }
    }
}

impl Peer {
    async fn start(path: &str, program: String, directory: String) -> Outcome<Self> {
        ConfigFile::load_from_file(path)?;
        let told = Arc::new(Told::default());
        let mut config = Config::new(path)?;
        let counted = |count: fn(&Told) -> &AtomicUsize| -> Option<katzenpost_thin_client::EventCallback> {
            let told = told.clone();
            Some(Arc::new(move |_: &BTreeMap<Value, Value>| {
                count(&told).fetch_add(1, Ordering::Relaxed);
            }))
        };
        config.on_connection_status = counted(|told| &told.statuses);
        config.on_new_pki_document = counted(|told| &told.documents);
        config.on_message_sent = counted(|told| &told.sent);
        config.on_message_reply = counted(|told| &told.replies);
        let lost = told.clone();
        config.on_daemon_disconnected = Some(Arc::new(move |graceful, _| {
            lost.lost.lock().expect("no panic").push(graceful);
        }));
        let (client, _) = connect(config).await?;
        assert!(told.statuses.load(Ordering::Relaxed) > 0 && told.documents.load(Ordering::Relaxed) > 0);
        done("config, connect, callbacks, event sink");
        Ok(Self { client, told, program, directory })
    }

    async fn ctl(&self, words: &[&str]) -> Outcome {
        let mut command = tokio::process::Command::new(&self.program);
        command.args(["localnet", "ctl", "--state", &self.directory]).args(words);
        let status = command.stdout(std::process::Stdio::null()).status().await?;
        assert!(status.success(), "{words:?}: {status}");
        Ok(())
    }

    pub(crate) async fn pair(&self) -> Outcome<KeypairResult> {
        Ok(self.client.new_keypair(&seed()).await?)
    }

    async fn write(&self, plaintext: &[u8], cap: &[u8], index: &[u8]) -> Outcome<(Started, Vec<u8>)> {
        let sealed = self.client.encrypt_write(plaintext, cap, index).await?;
        Ok((self.send(&sealed, cap).await, sealed.next_message_box_index))
    }

    async fn send(&self, sealed: &EncryptWriteResult, cap: &[u8]) -> Started {
        let EncryptWriteResult { message_ciphertext, envelope_descriptor, envelope_hash, .. } = sealed;
        self.client
            .start_resending_encrypted_message(
                None,
                Some(cap),
                None,
                None,
                envelope_descriptor,
                message_ciphertext,
                envelope_hash,
            )
            .await
    }

    async fn write_strictly(&self, plaintext: &[u8], cap: &[u8], index: &[u8]) -> Outcome<Started> {
        let sealed = self.client.encrypt_write(plaintext, cap, index).await?;
        let EncryptWriteResult { message_ciphertext, envelope_descriptor, envelope_hash, .. } = &sealed;
        Ok(self
            .client
            .start_resending_encrypted_message_return_box_exists(
                None,
                Some(cap),
                None,
                Some(0),
                envelope_descriptor,
                message_ciphertext,
                envelope_hash,
            )
            .await)
    }

    async fn ask(&self, asked: &EncryptReadResult, cap: &[u8], index: &[u8]) -> Started {
        let EncryptReadResult { message_ciphertext, envelope_descriptor, envelope_hash, .. } = asked;
        self.client
            .start_resending_encrypted_message(
                Some(cap),
                None,
                Some(index),
                Some(0),
                envelope_descriptor,
                message_ciphertext,
                envelope_hash,
            )
            .await
    }

    async fn read(&self, cap: &[u8], index: &[u8]) -> Outcome<Started> {
        let asked = self.client.encrypt_read(cap, index).await?;
        Ok(self.ask(&asked, cap, index).await)
    }

    async fn read_once(&self, cap: &[u8], index: &[u8]) -> Outcome<Started> {
        let EncryptReadResult { message_ciphertext, envelope_descriptor, envelope_hash, .. } =
            self.client.encrypt_read(cap, index).await?;
        Ok(self
            .client
            .start_resending_encrypted_message_no_retry(
                Some(cap),
                None,
                Some(index),
                Some(0),
                &envelope_descriptor,
                &message_ciphertext,
                &envelope_hash,
            )
            .await)
    }

    pub(crate) async fn content(&self, pair: &KeypairResult, length: usize) -> Outcome<Vec<u8>> {
        let (mut content, mut index) = (Vec::new(), pair.first_message_index.clone());
        while content.len() < length {
            content.extend(self.read(&pair.read_cap, &index).await??.plaintext);
            index = self.client.next_message_box_index(&index).await?;
        }
        Ok(content)
    }

    /// Writes the elements of a copy stream; what the last write was told.
    async fn stream(&self, elements: &[Vec<u8>], temporary: &KeypairResult) -> Outcome<StartResendingResult> {
        let mut index = temporary.first_message_index.clone();
        let mut last = None;
        for element in elements {
            let (wrote, next) = self.write(element, &temporary.write_cap, &index).await?;
            (last, index) = (Some(wrote?), next);
        }
        Ok(last.expect("a stream has an element"))
    }

    async fn directory(&self) -> Outcome {
        let client = &self.client;
        let geometry = client.pigeonhole_geometry();
        geometry.validate()?;
        assert!(PigeonholeGeometry::new(0, "").validate().is_err());
        assert!(geometry.max_plaintext_payload_length < client.sphinx_geometry().user_forward_payload_length);
        done("geometries");
        let document = client.pki_document().await?;
        let Some(Value::Integer(epoch)) = document.get(&text("Epoch")) else { panic!("no epoch") };
        let epoch = u64::try_from(*epoch)?;
        assert_eq!(client.pki_document_for_epoch(epoch).await?, document);
        assert_eq!(client.pki_document_for_epoch(epoch + 1000).await?, document);
        let (raw, at) = client.get_pki_document_raw(0).await?;
        assert!(at == epoch && raw == client.get_pki_document_raw(epoch).await?.0);
        // A null payload beside the code becomes an error of CBOR.
        refused!(
            client.get_pki_document_raw(epoch + 1000).await,
            ThinClientError::Other(_) | ThinClientError::CborError(_)
        );
        done("PKI document: current, by epoch, raw");
        let authorities = client.get_directory_authorities().await?;
        assert!(authorities.iter().all(|authority| authority.identity_key_hash.len() == 32));
        assert!(!authorities.is_empty() && !authorities[0].addresses.is_empty());
        done("directory authorities");
        assert_eq!(client.get_services("courier").await?.len(), find_services("courier", &document).len());
        assert_eq!(client.get_service("echo").await?.recipient_queue_id, b"+echo");
        refused!(client.get_service("nowhere").await, ThinClientError::ServiceNotFound);
        pretty_print_pki_doc(&document);
        done("services, printed document");
        Ok(())
    }

    async fn legacy(&self) -> Outcome {
        let client = &self.client;
        let (node, queue) = client.get_service("echo").await?.to_destination();
        assert!([ThinClient::new_message_id(), ThinClient::new_surb_id()].iter().all(|id| id.len() == 16));
        // Its sink is registered beside the sending, so that it may miss the reply: then it is asked again.
        let mut answer = Err(ThinClientError::ConnectError);
        for _ in 0..20 {
            let (node, queue) = (node.clone(), queue.clone());
            answer = client.blocking_send_message(b"blocking", node, queue, Duration::from_secs(3)).await;
            if !matches!(answer, Err(ThinClientError::Timeout(_))) {
                break;
            }
        }
        assert!(answer?.starts_with(b"blocking"));
        let before = self.told.replies.load(Ordering::Relaxed);
        client.send_message(ThinClient::new_surb_id(), b"with a reply", node.clone(), queue.clone()).await?;
        until("the reply", || self.told.replies.load(Ordering::Relaxed) > before).await;
        assert!(self.told.sent.load(Ordering::Relaxed) >= 2);
        client.send_message_without_reply(b"without", node, queue).await?;
        let nobody = client.blocking_send_message(b"", vec![0; 32], b"nowhere".to_vec(), Duration::from_millis(100));
        refused!(nobody.await, ThinClientError::Timeout(_));
        done("messages: with reply, without, blocking");
        Ok(())
    }

    async fn boxes(&self) -> Outcome {
        let client = &self.client;
        let pair = self.pair().await?;
        let first = &pair.first_message_index;
        assert_eq!(first.len(), INDEX);
        let second = client.next_message_box_index(first).await?;
        let counter = client.get_message_box_index_counter(first).await?;
        assert_eq!(client.get_message_box_index_counter(&second).await?, counter + 1);
        done("key pair, next index, counter");

        let largest = client.pigeonhole_geometry().max_plaintext_payload_length;
        assert!(client.encrypt_write(&vec![0; largest + 1], &pair.write_cap, first).await.is_err());
        refused!(self.read_once(&pair.read_cap, first).await?, ThinClientError::BoxNotFound);
        let whole = bytes(largest);
        let (read, wrote) = tokio::join!(self.read(&pair.read_cap, first), async {
            client.next_message_box_index(first).await?;
            self.write_strictly(&whole, &pair.write_cap, first).await
        });
        assert_eq!(read??.plaintext, whole);
        let wrote = wrote??;
        assert_eq!(wrote.courier_identity_hash.map(|hash| hash.len()), Some(32));
        assert_eq!(wrote.courier_queue_id.as_deref(), Some(&b"courier"[..]));
        assert_eq!(self.read_once(&pair.read_cap, first).await??.plaintext, whole);
        done("a read that waits for its write, a read without retry");

        self.write_strictly(&whole, &pair.write_cap, first).await??;
        let (silent, after) = self.write(b"other", &pair.write_cap, first).await?;
        assert!(silent.is_ok() && after == second);
        refused!(self.write_strictly(b"other", &pair.write_cap, first).await?, ThinClientError::BoxAlreadyExists);
        assert_eq!(self.read(&pair.read_cap, first).await??.plaintext, whole);
        done("a rewrite, a conflict kept silent, a strict conflict");

        self.ctl(&["storage-full", "on"]).await?;
        refused!(self.write_strictly(b"no room", &pair.write_cap, &second).await?, ThinClientError::StorageFull);
        self.ctl(&["storage-full", "off"]).await?;
        done("a full storage");
        Ok(())
    }

    /// Cancels until it has an effect: a cancel reaches only what has been dispatched.
    async fn cancelled<T, C: Future<Output = Result<(), ThinClientError>>>(
        started: impl Future<Output = Result<T, ThinClientError>>,
        cancel: impl Fn() -> C,
    ) -> Result<T, ThinClientError> {
        tokio::pin!(started);
        loop {
            tokio::select! {
                ended = &mut started => return ended,
                () = sleep(Duration::from_millis(20)) => {}
            }
            // The operation's own reply comes before the cancel's: nobody may wait for the one without the other.
            tokio::select! {
                ended = &mut started => return ended,
                cancelled = cancel() => cancelled?,
            }
        }
    }

    async fn cancels(&self) -> Outcome {
        let pair = self.pair().await?;
        let first = &pair.first_message_index;
        let asked = self.client.encrypt_read(&pair.read_cap, first).await?;
        let cancel = || self.client.cancel_resending_encrypted_message(&asked.envelope_hash);
        let ended = Self::cancelled(self.ask(&asked, &pair.read_cap, first), cancel).await;
        refused!(ended, ThinClientError::StartResendingCancelled);
        done("cancel");

        self.ctl(&["faults", "set", "loss=1.0"]).await?;
        let hash = self.hash(&pair.write_cap).await?;
        let cancel = || self.client.cancel_resending_copy_command(&hash);
        let ended = Self::cancelled(self.client.start_resending_copy_command(&pair.write_cap, None, None), cancel);
        refused!(ended.await, ThinClientError::StartResendingCancelled);
        self.ctl(&["faults", "clear"]).await?;
        done("cancel of a copy");
        Ok(())
    }

    /// BLAKE2b-256, by the only function of the client that shows it: a service's destination.
    pub(crate) async fn hash(&self, of: &[u8]) -> Outcome<[u8; 32]> {
        let mut service = self.client.get_service("echo").await?;
        service.mix_descriptor.insert(text("IdentityKey"), Value::Bytes(of.to_vec()));
        Ok(service.to_destination().0.try_into().expect("32 bytes"))
    }

    async fn tombstones(&self) -> Outcome {
        let pair = self.pair().await?;
        let first = &pair.first_message_index;
        self.write_strictly(b"to be deleted", &pair.write_cap, first).await??;
        let nothing = self.client.tombstone_range(&pair.write_cap, first, 0).await;
        assert!(nothing.envelopes.is_empty() && nothing.error.is_none());
        let made = self.client.tombstone_range(&pair.write_cap, first, 2).await;
        assert!(made.error.is_none() && made.envelopes.len() == 2 && made.envelopes[0].box_index == *first);
        for envelope in made.envelopes {
            let sealed = EncryptWriteResult {
                message_ciphertext: envelope.message_ciphertext,
                envelope_descriptor: envelope.envelope_descriptor,
                envelope_hash: envelope.envelope_hash.try_into().expect("32 bytes"),
                next_message_box_index: Vec::new(),
            };
            self.send(&sealed, &pair.write_cap).await?;
            // A courier's word is not yet a replica's.
            let written = async {
                loop {
                    match self.read(&pair.read_cap, &envelope.box_index).await? {
                        Err(ThinClientError::Tombstone) => return Ok::<_, Box<dyn Error>>(()),
                        Err(error) => return Err(error.into()),
                        Ok(_) => sleep(Duration::from_millis(20)).await,
                    }
                }
            };
            timeout(PATIENCE, written).await??;
        }
        refused!(self.write_strictly(b"too late", &pair.write_cap, first).await?, ThinClientError::BoxAlreadyExists);
        done("tombstones");
        Ok(())
    }

    async fn envelopes(&self) -> Outcome {
        let client = &self.client;
        let chunk = client.pigeonhole_geometry().max_plaintext_payload_length - 4;
        let whole = bytes(2 * chunk + 100);
        let (one, temporary) = (self.pair().await?, self.pair().await?);
        let (head, tail) = whole.split_at(chunk);
        let first = &one.first_message_index;
        let start = client.create_courier_envelopes_from_payload(head, &one.write_cap, first, true, false).await?;
        let from = start.next_dest_index.expect("where it goes on");
        let end = client.create_courier_envelopes_from_payload(tail, &one.write_cap, &from, false, true).await?;
        self.stream(&[start.envelopes, end.envelopes].concat(), &temporary).await?;
        client.start_resending_copy_command(&temporary.write_cap, None, None).await?;
        assert_eq!(self.content(&one, whole.len()).await?, whole);
        done("envelopes of a payload in two calls, copied by a random courier");

        let (one, other, temporary) = (self.pair().await?, self.pair().await?, self.pair().await?);
        let destinations = vec![
            (&whole[..], &one.write_cap[..], &one.first_message_index[..]),
            (&b"short"[..], &other.write_cap[..], &other.first_message_index[..]),
        ];
        let made = client.create_courier_envelopes_from_multi_payload(destinations, true, false, None).await?;
        let after = made.next_dest_indices.expect("where they go on")[1].clone();
        let deleted = client
            .create_courier_envelopes_from_tombstone_range(&other.write_cap, &after, 2, false, false, Some(made.buffer))
            .await?;
        let last = deleted.next_dest_index.expect("where it goes on");
        let destinations = vec![(&b"after"[..], &other.write_cap[..], &last[..])];
        let ended =
            client.create_courier_envelopes_from_multi_payload(destinations, false, true, Some(deleted.buffer)).await?;
        assert!(ended.buffer.is_empty());
        let wrote = self.stream(&[made.envelopes, deleted.envelopes, ended.envelopes].concat(), &temporary).await?;
        let (courier, queue) = (wrote.courier_identity_hash.as_deref(), wrote.courier_queue_id.as_deref());
        assert!(courier.is_some() && queue.is_some());
        client.start_resending_copy_command(&temporary.write_cap, courier, queue).await?;
        assert_eq!(self.content(&one, whole.len()).await?, whole);
        assert_eq!(self.content(&other, 5).await?, b"short");
        refused!(self.read(&other.read_cap, &after).await?, ThinClientError::Tombstone);
        assert_eq!(self.read(&other.read_cap, &last).await??.plaintext, b"after");
        done("envelopes of payloads and tombstones over three calls, copied by one courier");

        let (one, temporary) = (self.pair().await?, self.pair().await?);
        let first = &one.first_message_index;
        self.write_strictly(b"was first", &one.write_cap, first).await??;
        let made = client.create_courier_envelopes_from_payload(b"second", &one.write_cap, first, true, true).await?;
        self.stream(&made.envelopes, &temporary).await?;
        refused!(
            client.start_resending_copy_command(&temporary.write_cap, None, None).await,
            ThinClientError::CopyCommandFailed { replica_error_code: 10, failed_envelope_index: 1 }
        );
        done("a copy that fails");
        Ok(())
    }

    async fn vouchers(&self) -> Outcome {
        let client = &self.client;
        let joiner = self.pair().await?;
        let minted = client.voucher_mint(&joiner.write_cap, "Ada").await?;
        let stream = client.voucher_derive_stream(&minted.voucher).await?;
        assert_eq!(stream.voucher_read_cap, minted.voucher_read_cap);
        let first = &stream.voucher_read_cap[stream.voucher_read_cap.len() - INDEX..];
        let (wrote, second) = self.write(&minted.voucher_payload, &minted.voucher_write_cap, first).await?;
        wrote?;
        let payload = self.read(&stream.voucher_read_cap, first).await??.plaintext;
        refused!(client.voucher_induct(&seed(), &payload, b"the others").await, ThinClientError::VoucherHashMismatch);
        let inducted = client.voucher_induct(&minted.voucher, &payload, b"the others").await?;
        assert_eq!(inducted.display_name, "Ada");
        self.write(&inducted.sealed_reply, &stream.voucher_write_cap, &second).await?.0?;
        let sealed = self.read(&minted.voucher_read_cap, &second).await??.plaintext;
        let wrong = bytes(minted.voucher_secret_key.len());
        assert!(client.voucher_open(&wrong, &sealed, &joiner.write_cap).await.is_err());
        let opened = client.voucher_open(&minted.voucher_secret_key, &sealed, &joiner.write_cap).await?;
        assert!(opened.who_reply == b"the others" && opened.salt == inducted.salt);
        let (write, read) = (&opened.mutated_message_write_cap, &inducted.mutated_message_read_cap);
        self.write(b"hello", write, &write[write.len() - INDEX..]).await?.0?;
        assert_eq!(self.read(read, &read[read.len() - INDEX..]).await??.plaintext, b"hello");
        done("vouchers: mint, derive, induct, open");
        Ok(())
    }

    async fn breaks(&self) -> Outcome {
        let client = &self.client;
        self.ctl(&["link", "down"]).await?;
        until("offline", || !client.is_connected()).await;
        let (node, queue) = client.get_service("echo").await?.to_destination();
        refused!(
            client.send_message_without_reply(b"", node.clone(), queue.clone()).await,
            ThinClientError::OfflineMode(_)
        );
        refused!(
            client.send_message(ThinClient::new_surb_id(), b"", node, queue).await,
            ThinClientError::OfflineMode(_)
        );
        self.pair().await?;
        self.ctl(&["link", "up"]).await?;
        until("online", || client.is_connected()).await;
        done("offline and back");

        for (words, graceful) in [(&["restart"][..], true), (&["restart", "--killed"][..], false)] {
            let pair = self.pair().await?;
            let first = &pair.first_message_index;
            let statuses = self.told.statuses.load(Ordering::Relaxed);
            let (read, wrote) = tokio::join!(self.read(&pair.read_cap, first), async {
                // The next answer comes after the read was sent.
                self.pair().await?;
                self.ctl(words).await?;
                // It does not say that it is disconnected; a new status says that it is back.
                until("back", || self.told.statuses.load(Ordering::Relaxed) > statuses).await;
                self.wrote_after_reconnect(&pair).await
            });
            wrote?;
            assert_eq!(read??.plaintext, b"after the break");
            assert_eq!(self.told.lost.lock().expect("no panic").last(), Some(&graceful));
            done(&format!("a read over: {}", words.join(" ")));
        }

        // The same daemon: this client replays nothing then, and what was asked before hangs; what comes later does not.
        let lost = self.told.lost.lock().expect("no panic").len();
        let statuses = self.told.statuses.load(Ordering::Relaxed);
        self.ctl(&["disconnect"]).await?;
        until("lost", || self.told.lost.lock().expect("no panic").len() > lost).await;
        until("back", || self.told.statuses.load(Ordering::Relaxed) > statuses).await;
        self.wrote_after_reconnect(&self.pair_after_reconnect().await?).await?;
        done("a connection that is cut, and the session goes on");
        Ok(())
    }

    /// A request that meets the handshake's end is lost with the old connection or sent before the token; no client of
    /// upstream's asks again by itself.
    async fn pair_after_reconnect(&self) -> Outcome<KeypairResult> {
        for _ in 0..20 {
            if let Ok(Ok(pair)) = timeout(Duration::from_secs(3), self.client.new_keypair(&seed())).await {
                return Ok(pair);
            }
        }
        Err("no answer after the reconnect".into())
    }

    async fn wrote_after_reconnect(&self, pair: &KeypairResult) -> Outcome {
        self.pair_after_reconnect().await?;
        self.write(b"after the break", &pair.write_cap, &pair.first_message_index).await?.0?;
        Ok(())
    }
}

fn texts() {
    for code in 0..=32 {
        assert!(!thin_client_error_to_string(code).is_empty());
        assert!(!error_code_to_error(code).to_string().is_empty());
    }
    let expected: Vec<u8> = (1..=32).filter(|code| error_code_to_error(*code).is_expected_outcome()).collect();
    assert_eq!(expected, [1, 10, 11]);
    done("error texts");
}

async fn run() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [config, program, directory, database] = &arguments[..] else {
        return Err("whole-api CONFIG PIGEONFS DIRECTORY DATABASE".into());
    };
    let peer = Peer::start(config, program.clone(), directory.clone()).await?;
    peer.directory().await?;
    peer.legacy().await?;
    peer.boxes().await?;
    peer.cancels().await?;
    peer.tombstones().await?;
    peer.envelopes().await?;
    peer.vouchers().await?;
    channels::run(&peer, &PathBuf::from(database)).await?;
    peer.breaks().await?;
    texts();
    peer.client.stop().await;
    let (client, _) = connect(Config::new(config)?).await?;
    client.disconnect().await;
    done("stop, disconnect");
    println!("whole API exercised");
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome {
    timeout(Duration::from_secs(200), run()).await?
}
