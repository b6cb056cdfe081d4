//! Contact vouchers: carries invitations and codes on, from what the store has of them to the next step, and no further than
//! one commit at a time. Each step may be done again: what goes to the network was committed before.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};
use zeroize::Zeroizing;

use super::network::{Network, Pass, Refusal, View};
use super::transfer;
use crate::bacap::{BoxIndex, ReadCap};
use crate::drop::SafeName;
use crate::store::{
    Acceptance, AcceptanceStage, Binding, Capability, Channel, ChannelId, ChannelName, Content, GivenChannel,
    Invitation, InvitationStage, Role, Store, StoreError, Withdrawn,
};
use crate::thin::{self, ErrorKind, ReadOutcome, Voucher, VoucherStream, WriteOutcome};

/// How long a question about a voucher may take the daemon, which answers it alone.
const QUESTION: Duration = Duration::from_secs(60);
/// How often it is looked for what others have asked for.
const LOOK: Duration = Duration::from_secs(5);
/// After a verb has asked, a rendezvous is looked at more often for this time.
const HURRY: Duration = Duration::from_secs(600);
/// The pauses between two looks at a rendezvous, at least and at most.
const PAUSE: (f64, f64) = (0.25, 60.0);
/// The share of the network's pace that looking at a rendezvous takes, of two packets each; and in a hurry.
const SHARE: (f64, f64) = (0.1, 0.4);
/// The version of what is told to the inviter.
const VERSION: u64 = 1;

/// Nothing was found at a rendezvous.
pub(super) const NOTHING: &str = "nothing there: mistyped, not written yet, or older than the network keeps";
pub(super) const USED: &str = "this code was used already: somebody who had it has answered the invitation";
pub(super) const TAKEN_BACK: &str = "this code was taken back by whoever made it, or was used already";

/// Carries the contacts of a store on.
#[derive(Clone)]
pub(super) struct Contacts {
    pub(super) store: Store,
    /// A verb has asked for something.
    pub(super) asked: Arc<Notify>,
}

/// What the acceptor tells the inviter.
#[derive(Serialize, Deserialize)]
struct WhoReply {
    v: u64,
    #[serde(with = "serde_bytes")]
    cap: Vec<u8>,
    kind: Option<String>,
    name: Option<String>,
}

/// Why a step was not taken.
enum Stopped {
    /// It is tried again.
    ForNow(String),
    /// Nothing comes of it.
    ForGood(String),
    Store(StoreError),
}

impl From<StoreError> for Stopped {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// What a step came to.
#[derive(PartialEq, Eq)]
enum Step {
    /// The next one can be taken at once.
    More,
    /// The other side is waited for.
    Waits,
}

#[derive(PartialEq, Eq, Hash)]
enum Key {
    Invitation(ChannelId),
    Acceptance(i64),
    Withdrawn([u8; 32]),
}

impl Contacts {
    /// Carries all on, until `stop` changes.
    pub(super) async fn run(self, view: watch::Receiver<View>, mut stop: watch::Receiver<bool>) {
        tokio::select! {
            () = self.carry(view) => {}
            _ = stop.wait_for(|&stop| stop) => {}
        }
    }

    async fn carry(&self, mut view: watch::Receiver<View>) {
        let mut due: HashMap<Key, Instant> = HashMap::new();
        let mut hurry = Instant::now();
        loop {
            let network = view.borrow_and_update().any();
            if let Some(network) = network {
                match self.all(&network, &mut due, hurry).await {
                    Ok(()) => {}
                    Err(StoreError::Closed) => return,
                    Err(error) => warn!(%error, "invitations could not be carried on; trying again"),
                }
            }
            let look = due.values().min().copied().unwrap_or_else(|| Instant::now() + LOOK).min(Instant::now() + LOOK);
            tokio::select! {
                () = self.asked.notified() => {
                    hurry = Instant::now() + HURRY;
                    due.clear();
                }
                changed = view.changed() => if changed.is_err() { return },
                () = sleep_until(look) => {}
            }
        }
    }

    async fn all(
        &self,
        network: &Arc<Network>,
        due: &mut HashMap<Key, Instant>,
        hurry: Instant,
    ) -> Result<(), StoreError> {
        let invitations: Vec<_> = self.store.invitations()?.into_iter().filter(Invitation::is_open).collect();
        let acceptances: Vec<_> = self.store.acceptances()?.into_iter().filter(Acceptance::is_open).collect();
        let withdrawn = self.store.withdrawn()?;
        let open = invitations.len() + acceptances.len() + withdrawn.len();
        let keys = invitations.iter().map(|of| Key::Invitation(of.channel));
        let keys = keys.chain(acceptances.iter().map(|of| Key::Acceptance(of.id)));
        let keys: Vec<_> = keys.chain(withdrawn.iter().map(|of| Key::Withdrawn(*of.voucher))).collect();
        due.retain(|key, _| keys.contains(key));
        for key in keys {
            if due.get(&key).is_some_and(|due| *due > Instant::now()) {
                continue;
            }
            loop {
                let step = match &key {
                    Key::Withdrawn(voucher) => match withdrawn.iter().find(|of| *of.voucher == *voucher) {
                        Some(of) => self.withdrawal(network, of).await,
                        None => break,
                    },
                    Key::Invitation(id) => match self.store.invitation(*id)?.filter(Invitation::is_open) {
                        Some(of) => self.invitation(network, &of).await,
                        None => break,
                    },
                    Key::Acceptance(id) => {
                        match self.store.acceptances()?.into_iter().find(|of| of.id == *id && of.is_open()) {
                            Some(of) => self.acceptance(network, &of).await,
                            None => break,
                        }
                    }
                };
                match step {
                    Ok(Step::More) => continue,
                    Ok(Step::Waits) => {}
                    // It was forgotten meanwhile.
                    Err(Stopped::Store(StoreError::NoChannel)) => {}
                    Err(Stopped::Store(error)) => return Err(error),
                    Err(Stopped::ForNow(text)) => self.tell(&key, text, false).await?,
                    Err(Stopped::ForGood(text)) => self.tell(&key, text, true).await?,
                }
                break;
            }
            due.insert(key, Instant::now() + pause(network, open, Instant::now() < hurry));
        }
        Ok(())
    }

    async fn tell(&self, key: &Key, text: String, for_good: bool) -> Result<(), StoreError> {
        match *key {
            // Its channel is gone, and with it whatever could tell of it.
            Key::Withdrawn(_) => debug!(text, "a code that was taken back could not be deleted from the network yet"),
            Key::Invitation(id) => {
                let known = self.store.invitation(id)?.and_then(|of| of.trouble);
                if for_good || known.as_ref() != Some(&text) {
                    self.store.invitation_trouble(id, text, for_good).await?;
                }
            }
            Key::Acceptance(id) => {
                let known = self.store.acceptances()?.into_iter().find(|of| of.id == id).and_then(|of| of.trouble);
                if for_good || known.as_ref() != Some(&text) {
                    self.store.acceptance_trouble(id, text, for_good).await?;
                }
            }
        }
        Ok(())
    }

    /// One step of an invitation.
    async fn invitation(&self, network: &Arc<Network>, of: &Invitation) -> Result<Step, Stopped> {
        let id = of.channel;
        let Capability::Write(cap) = self.store.cap(id)? else { return Err(StoreError::ReadOnly.into()) };
        let InvitationStage::Minted { voucher, payload, secret, epoch } = &of.stage else {
            // Made for this network; nothing was launched.
            if self.store.bind_network(id, network.id.clone()).await? == Binding::Refused {
                return Err(Stopped::ForNow(Refusal::OtherNetwork.to_string()));
            }
            let pass = admit(network, &self.store, id)?;
            let minted =
                pass.crypto(0).voucher_mint(&cap, &of.display_name, question()).await.map_err(|error| told(&error))?;
            if minted.payload.len() > network.max_plaintext {
                let text = "the name for the other side is too long: with it, the invitation does not fit into a box";
                return Err(Stopped::ForGood(text.to_owned()));
            }
            self.store.minted(id, minted.voucher.0, minted.payload.clone(), minted.secret_key.clone()).await?;
            return Ok(Step::More);
        };
        let pass = admit(network, &self.store, id)?;
        let stream = stream(&pass, voucher).await?;
        let (first, second) = rendezvous(&stream)?;
        // Where nobody came for two weeks, it is put there again.
        let has_expired = epoch.is_some_and(|epoch| network.replica_epoch.is_some_and(|now| now >= epoch + 2));
        if epoch.is_none() || has_expired {
            match put(&pass, &stream, &first, payload).await? {
                Put::IsThere => {}
                Put::Deleted if has_expired => {}
                Put::Deleted | Put::Foreign => {
                    let text = "somebody who has the code has changed the rendezvous; cancel it, and invite anew";
                    return Err(Stopped::ForGood(text.to_owned()));
                }
            }
            self.store.is_at_rendezvous(id, network.replica_epoch).await?;
            info!("an invitation is at its rendezvous");
            return Ok(Step::More);
        }
        let sealed = match transfer::look(&pass, &stream.read_cap, &second).await {
            Ok(ReadOutcome::NotFound) => return Ok(Step::Waits),
            Ok(ReadOutcome::Box(bytes)) => bytes,
            Ok(ReadOutcome::Tombstone) => {
                let text = "somebody who has the code has deleted the reply; cancel it, and invite anew";
                return Err(Stopped::ForGood(text.to_owned()));
            }
            Err(error) => return Err(Stopped::ForNow(error.to_string())),
        };
        let opened = match pass.crypto(0).voucher_open(secret, &sealed, &cap, question()).await {
            Ok(opened) => opened,
            Err(thin::Error { kind: ErrorKind::Voucher(_) | ErrorKind::Daemon(3), .. }) => {
                let text = "what is in the reply's place cannot be opened: somebody who has the code has put it there. \
                            Cancel it, and invite anew";
                return Err(Stopped::ForGood(text.to_owned()));
            }
            Err(error) => return Err(told(&error)),
        };
        if opened.write_cap != cap.mutate(&opened.salt) {
            let text = "the daemon moves a channel's indices in another way than we do; use a current kpclientd";
            return Err(Stopped::ForNow(text.to_owned()));
        }
        let given = given(&opened.who_reply);
        if given.is_none() {
            warn!("the reply to an invitation gives no channel that we know how to read");
        }
        self.store.opened(id, opened.write_cap, given).await?;
        info!("an invitation was answered");
        Ok(Step::Waits)
    }

    /// Deletes the payload of a code that was taken back, so that whoever has the code finds nothing.
    async fn withdrawal(&self, network: &Arc<Network>, of: &Withdrawn) -> Result<Step, Stopped> {
        let pass = network.admit_to(&of.network).map_err(|refusal| Stopped::ForNow(refusal.to_string()))?;
        let stream = stream(&pass, &of.voucher).await?;
        let (first, _) = rendezvous(&stream)?;
        let gone = transfer::tombstone(&pass, &stream.write_cap, &first).await;
        gone.map_err(|error| Stopped::ForNow(error.to_string()))?;
        self.store.withdrawal_done(of.voucher.clone()).await?;
        info!("a code that was taken back is deleted from the network");
        Ok(Step::Waits)
    }

    /// One step of a code.
    async fn acceptance(&self, network: &Arc<Network>, of: &Acceptance) -> Result<Step, Stopped> {
        let ours = self.store.channel(of.ours)?.ok_or(StoreError::NoChannel)?;
        if ours.role == Role::Writer && self.store.bind_network(ours.id, network.id.clone()).await? == Binding::Refused
        {
            return Err(Stopped::ForNow(format!("{:?}: {}", ours.name.as_str(), Refusal::OtherNetwork)));
        }
        let pass = admit(network, &self.store, ours.id)?;
        let stream = stream(&pass, &of.voucher).await?;
        let (first, second) = rendezvous(&stream)?;
        let AcceptanceStage::Inducted { reply, is_there } = &of.stage else {
            let (payload, reply) = tokio::join!(look(&pass, &stream, &first), look(&pass, &stream, &second));
            let payload = match (payload?, reply?) {
                (ReadOutcome::Box(payload), ReadOutcome::NotFound) => payload,
                (ReadOutcome::NotFound, ReadOutcome::NotFound) => return Err(Stopped::ForNow(NOTHING.to_owned())),
                (ReadOutcome::Tombstone, ReadOutcome::NotFound) => {
                    return Err(Stopped::ForGood(TAKEN_BACK.to_owned()));
                }
                _ => return Err(Stopped::ForGood(USED.to_owned())),
            };
            return self.induct(network, &pass, of, &ours, &payload).await;
        };
        if !is_there {
            match put(&pass, &stream, &second, reply).await? {
                Put::IsThere => self.store.reply_is_there(of.id).await?,
                Put::Deleted | Put::Foreign => return Err(Stopped::ForGood(USED.to_owned())),
            }
            info!("the reply to an invitation is at its rendezvous");
            return Ok(Step::More);
        }
        let gone = transfer::tombstone(&pass, &stream.write_cap, &first).await;
        gone.map_err(|error| Stopped::ForNow(error.to_string()))?;
        self.store.acceptance_done(of.id).await?;
        Ok(Step::Waits)
    }

    async fn induct(
        &self,
        network: &Network,
        pass: &Pass,
        of: &Acceptance,
        ours: &Channel,
        payload: &[u8],
    ) -> Result<Step, Stopped> {
        let cap = match self.store.cap(ours.id)? {
            Capability::Write(cap) => cap.read_cap().clone(),
            Capability::Read(cap) => cap,
        };
        let kind = if ours.content.is_drop() { "drop" } else { "stream" };
        let who = WhoReply {
            v: VERSION,
            cap: cap.to_bytes().to_vec(),
            kind: Some(kind.to_owned()),
            name: Some(ours.name.to_string()),
        };
        let mut who_reply = Zeroizing::new(Vec::with_capacity(512));
        ciborium::into_writer(&who, &mut *who_reply).map_err(|error| Stopped::ForGood(error.to_string()))?;
        let voucher = Voucher(*of.voucher);
        let inducted = match pass.crypto(0).voucher_induct(&voucher, payload, &who_reply, question()).await {
            Ok(inducted) => inducted,
            Err(thin::Error { kind: ErrorKind::Voucher(_) | ErrorKind::Daemon(3), .. }) => {
                let text = "what is at the rendezvous is not what the code stands for: somebody who has the code has put \
                            it there. Ask for a new code";
                return Err(Stopped::ForGood(text.to_owned()));
            }
            Err(error) => return Err(told(&error)),
        };
        if inducted.sealed_reply.len() > network.max_plaintext {
            let text = format!("the reply does not fit into a box; give {:?} a shorter name", ours.name.as_str());
            return Err(Stopped::ForNow(text));
        }
        let display_name = inducted.display_name.clone();
        self.store.inducted(of.id, display_name, inducted.read_cap.clone(), inducted.sealed_reply.clone()).await?;
        Ok(Step::More)
    }
}

impl Invitation {
    /// Whether something is left to do.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.stage, InvitationStage::Wanted | InvitationStage::Minted { .. })
    }
}

impl Acceptance {
    /// Whether something is left to do.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.stage, AcceptanceStage::Looking | AcceptanceStage::Inducted { .. })
    }
}

fn pause(network: &Network, open: usize, in_a_hurry: bool) -> Duration {
    let share = if in_a_hurry { SHARE.1 } else { SHARE.0 };
    let open = f64::from(u32::try_from(open).unwrap_or(u32::MAX));
    let mean = (2.0 * open / (share * network.pace.packets_per_second())).clamp(PAUSE.0, PAUSE.1);
    // Nobody sees a beat.
    Duration::from_secs_f64(mean * rand::random_range(0.5..1.5))
}

fn question() -> Instant {
    Instant::now() + QUESTION
}

fn admit(network: &Arc<Network>, store: &Store, id: ChannelId) -> Result<Pass, Stopped> {
    network.admit(store, id).map_err(|refusal| match refusal {
        Refusal::Store(error) => Stopped::Store(error),
        refusal @ Refusal::OtherNetwork => Stopped::ForNow(refusal.to_string()),
    })
}

/// What a daemon's failure to answer about a voucher means.
fn told(error: &thin::Error) -> Stopped {
    Stopped::ForNow(match error.kind {
        ErrorKind::Timeout | ErrorKind::MalformedReply(_) | ErrorKind::Lost(_) => format!(
            "the daemon does not answer about vouchers ({error}): it may be too old to know them, as kpclientd does since \
             June 2026"
        ),
        _ => error.to_string(),
    })
}

async fn stream(pass: &Pass, voucher: &[u8; 32]) -> Result<VoucherStream, Stopped> {
    let derived = pass.crypto(0).voucher_derive_stream(&Voucher(*voucher), question()).await;
    derived.map_err(|error| told(&error))
}

/// Boxes 0 and 1.
fn rendezvous(stream: &VoucherStream) -> Result<(BoxIndex, BoxIndex), Stopped> {
    let first = stream.write_cap.index().clone();
    let second = first.next().map_err(|error| Stopped::ForGood(error.to_string()))?;
    Ok((first, second))
}

async fn look(pass: &Pass, stream: &VoucherStream, index: &BoxIndex) -> Result<ReadOutcome, Stopped> {
    transfer::look(pass, &stream.read_cap, index).await.map_err(|error| Stopped::ForNow(error.to_string()))
}

/// What stands at an index after it was written to.
enum Put {
    IsThere,
    Deleted,
    Foreign,
}

async fn put(pass: &Pass, stream: &VoucherStream, index: &BoxIndex, bytes: &[u8]) -> Result<Put, Stopped> {
    let again = |error: thin::Error| Stopped::ForNow(error.to_string());
    match transfer::put(pass, &stream.write_cap, index, bytes).await.map_err(again)? {
        WriteOutcome::Done => Ok(Put::IsThere),
        WriteOutcome::AlreadyExists => match look(pass, stream, index).await? {
            ReadOutcome::Box(found) if found == bytes => Ok(Put::IsThere),
            ReadOutcome::Box(_) => Ok(Put::Foreign),
            ReadOutcome::Tombstone => Ok(Put::Deleted),
            ReadOutcome::NotFound => Err(Stopped::ForNow("the rendezvous is taken, and cannot be read yet".to_owned())),
        },
    }
}

/// The channel that a reply gives: ours is a CBOR map, another client's may be the 136 bytes of a capability alone.
fn given(who_reply: &[u8]) -> Option<GivenChannel> {
    let unnamed = || ChannelName::parse("contact").ok();
    if let Ok(cap) = ReadCap::from_bytes(who_reply) {
        return Some(GivenChannel { cap, content: None, name: unnamed()? });
    }
    let who: WhoReply = ciborium::from_reader(who_reply).ok()?;
    let content = match who.kind.as_deref() {
        Some("drop") => Some(Content::Drop { allow_delete: false }),
        Some("stream") => Some(Content::Stream),
        _ => None,
    };
    // A stranger chose it, and it becomes a file in the mount: none that is hidden, an option of a command, or cannot be read.
    let name = who.name.filter(|name| SafeName::outside(name, false).as_str() == name);
    let name = name.and_then(|name| ChannelName::parse(&name).ok()).filter(|name| !name.is_temporary());
    Some(GivenChannel { cap: ReadCap::from_bytes(&who.cap).ok()?, content, name: name.or_else(unnamed)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bacap::WriteCap;

    fn reply(who: &WhoReply) -> Vec<u8> {
        let mut bytes = Vec::new();
        ciborium::into_writer(who, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn replies_and_codes_meet_their_vectors() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../../testdata/contact-vouchers.json")).expect("JSON");
        let bytes = |value: &serde_json::Value| hex::decode(value.as_str().expect("hex")).expect("hex");
        for vector in vectors["replies"].as_array().expect("replies") {
            let told = given(&bytes(&vector["who_reply"])).expect("a channel");
            assert_eq!(told.cap.to_bytes()[..], bytes(&vector["cap"]));
            assert_eq!(told.content.is_some_and(Content::is_drop), vector["kind"] == "drop");
            assert_eq!(told.content.is_none(), vector["kind"].is_null());
            if let (Some(kind), Some(name)) = (vector["kind"].as_str(), vector["name"].as_str()) {
                assert_eq!(told.name.as_str(), name);
                let (kind, name) = (Some(kind.to_owned()), Some(name.to_owned()));
                assert_eq!(
                    reply(&WhoReply { v: VERSION, cap: bytes(&vector["cap"]), kind, name }),
                    bytes(&vector["who_reply"])
                );
            }
        }
        for vector in vectors["codes"].as_array().expect("codes") {
            let voucher =
                crate::engine::control::voucher(vector["code"].as_str().expect("text").as_bytes()).expect("a code");
            assert_eq!(voucher[..], bytes(&vector["voucher"]));
        }
    }

    #[test]
    fn a_reply_gives_a_channel_with_its_kind_and_name_and_a_bare_capability_one_of_neither() {
        let cap = WriteCap::from_seed(&[3; 32]).read_cap().clone();
        let who = |kind: &str, name: &str| WhoReply {
            v: VERSION,
            cap: cap.to_bytes().to_vec(),
            kind: Some(kind.to_owned()),
            name: Some(name.to_owned()),
        };
        let told = given(&reply(&who("drop", "photos"))).expect("a channel");
        assert!(told.cap == cap && told.content == Some(Content::Drop { allow_delete: false }));
        assert_eq!(told.name.as_str(), "photos");
        assert_eq!(given(&reply(&who("stream", "notes"))).unwrap().content, Some(Content::Stream));
        // Kinds of later versions, and names that no channel has.
        for bad in ["", "..", "a/b", "a\nb", ".pigeonfs", ".bash_profile", "-rf", "gpj.\u{202e}exe", "a\u{200b}"] {
            let told = given(&reply(&who("ring", bad))).expect("a channel");
            assert!(told.content.is_none());
            assert_eq!(told.name.as_str(), "contact", "{bad:?}");
        }
        let bare = given(&cap.to_bytes()[..]).expect("a channel");
        assert!(bare.cap == cap && bare.content.is_none());
        for nothing in [&b""[..], b"hello", &[0xff; 137]] {
            assert!(given(nothing).is_none());
        }
    }
}
