//! Capabilities given out and taken in.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, sleep};

use super::dispatch::{channel_response, find, parse};
use super::{Failure, FailureKind, Response, Secret};
use crate::bacap::{self, AnyCap, CapText, TextKind, TextNetwork};
use crate::engine::Owner;
use crate::engine::status::LinkStatus;
use crate::model::Misfit;
use crate::store::{BoxSeq, Capability, Channel, Content, NetworkId, Role, Taken};

/// How long a capability waits for a connection that is being made, to be compared with its network.
const CONNECTING: Duration = Duration::from_secs(5);
/// How long `share --from-here` waits for files that are being put into boxes.
const FILLING: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(50);

/// What a person says of a capability that is added.
pub(super) struct Wanted {
    pub(super) content: Content,
    pub(super) strict_network: bool,
    /// Unix seconds.
    pub(super) kept_until: Option<u64>,
}

/// Takes a capability in. All that is wrong with it is told before anything is stored.
pub(super) async fn add(owner: &Owner, name: &str, capability: &Secret, wanted: Wanted) -> Result<Response, Failure> {
    let name_parsed = parse(name)?;
    let (cap, text) = read(capability)?;
    if let Some(text) = &text {
        check_kind(text.kind, wanted.content)?;
    }
    let network = text.as_ref().map_or(TextNetwork::Unbound, |text| text.network);
    let warnings = check_network(owner, network, wanted.strict_network).await?;
    let told = wanted.kept_until.map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds));
    let kept_until = told.or(text.as_ref().and_then(|text| text.kept_until));
    if let Some(channel) = owner.store.by_name(&name_parsed)?
        && (channel.content.is_drop() == wanted.content.is_drop() || text.is_none())
        && holds(owner, &channel, &cap)?
    {
        // Asked again, as by a verb that was interrupted and started anew; or with a later date.
        if kept_until.is_some() && channel.role == Role::Reader {
            owner.store.keep_until(channel.id, kept_until).await?;
        }
        return added(owner, &find(owner, name)?, warnings);
    }
    let kind_is_told = text.is_none();
    let strict_network = wanted.strict_network;
    let taken = Taken { cap, content: wanted.content, kind_is_told, network, strict_network, kept_until };
    owner.store.take_in(name_parsed, taken).await?;
    added(owner, &find(owner, name)?, warnings)
}

fn added(owner: &Owner, channel: &Channel, warnings: Vec<String>) -> Result<Response, Failure> {
    match channel_response(owner, channel) {
        Response::Channel(channel) => Ok(Response::Added { channel: Box::new(channel), warnings }),
        other => Ok(other),
    }
}

/// The capability, and its text where it is one of ours. Nothing of it comes back in an error.
fn read(capability: &Secret) -> Result<(AnyCap, Option<CapText>), Failure> {
    let bad = |why: String| {
        Failure::new(FailureKind::Usage, format!("this is not a capability: {why}"))
            .hint("a capability is the one line that `pigeonfs share NAME` prints, or upstream's base64")
    };
    let bytes = capability.expose();
    if matches!(bytes.len(), bacap::READ_CAP_BYTES | bacap::WRITE_CAP_BYTES) {
        return Ok((AnyCap::from_bytes(bytes).map_err(|error| bad(error.to_string()))?, None));
    }
    match bacap::Capability::parse(bytes).map_err(|error| bad(error.to_string()))? {
        bacap::Capability::Raw(cap) => Ok((cap, None)),
        bacap::Capability::Text(text) => Ok((text.cap.clone(), Some(text))),
    }
}

fn check_kind(kind: TextKind, content: Content) -> Result<(), Failure> {
    let (text, hint) = match (kind, content.is_drop()) {
        (TextKind::Drop, false) => (
            "this is the capability of a drop, which carries whole files, and a stream is wanted here",
            "`pigeonfs add --drop NAME` takes it in",
        ),
        (TextKind::Stream, true) => (
            "this is the capability of a stream, which carries bytes, and a drop is wanted here",
            "`pigeonfs add NAME` takes it in, without --drop",
        ),
        _ => return Ok(()),
    };
    Err(Failure::new(FailureKind::Usage, text).hint(hint))
}

/// Compares the network that a text names with the one that is connected, where there is one. What to warn of.
async fn check_network(owner: &Owner, text: TextNetwork, strict: bool) -> Result<Vec<String>, Failure> {
    if text == TextNetwork::Unbound {
        return Ok(Vec::new());
    }
    let Some(present) = present(owner).await else { return Ok(Vec::new()) };
    let Some(misfit) = Misfit::of(text, &present) else { return Ok(Vec::new()) };
    if misfit != Misfit::OtherHash || strict {
        return Err(refused(misfit));
    }
    Ok(vec![format!("{misfit}. It is added all the same, as authorities change; --strict-network refuses it")])
}

fn refused(misfit: Misfit) -> Failure {
    let hint = match misfit {
        Misfit::LocalnetOnReal => {
            "use it with the localnet that it was made on: --localnet, or the --config of that localnet"
        }
        Misfit::RealOnLocalnet | Misfit::OtherHash => "use it with a daemon of its network: --config or --daemon",
    };
    Failure::new(FailureKind::Refused, misfit.to_string()).hint(hint)
}

/// The network that is connected, or was last; one that is being connected to is waited for.
async fn present(owner: &Owner) -> Option<NetworkId> {
    let until = Instant::now() + CONNECTING;
    loop {
        let network = owner.engine.network();
        let daemon = owner.engine.daemon();
        let is_connecting = daemon.link == LinkStatus::NoDaemon && daemon.error.is_none();
        let is_learning = daemon.link == LinkStatus::Connected;
        if network.is_some() || !(is_connecting || is_learning) || Instant::now() >= until {
            return network;
        }
        sleep(LOOK).await;
    }
}

fn holds(owner: &Owner, channel: &Channel, cap: &AnyCap) -> Result<bool, Failure> {
    Ok(match (owner.store.cap(channel.id)?, cap) {
        (Capability::Write(ours), AnyCap::Write(theirs)) => ours == *theirs,
        (Capability::Read(ours), AnyCap::Read(theirs)) => ours == *theirs,
        _ => false,
    })
}

/// What is told where a first box has shown that a channel is of another kind than a person said.
pub(super) fn is_of_another_kind(channel: &Channel) -> Failure {
    let name = channel.name.as_str();
    let (told, is, hint) = if channel.content.is_drop() {
        ("stream", "drop", format!("`pigeonfs receive {name}` brings its files out"))
    } else {
        ("drop", "stream", format!("`pigeonfs read {name}` reads it"))
    };
    let text =
        format!("{name:?} was added as a {told}, and its first box shows that it is a {is}: it is one from now on");
    Failure::new(FailureKind::Failed, text).hint(hint)
}

/// Gives a capability out, as a text.
pub(super) async fn share(owner: &Owner, name: &str, write: bool, from_here: bool) -> Result<Response, Failure> {
    let channel = find(owner, name)?;
    if write && channel.role == Role::Reader {
        return Err(Failure::new(FailureKind::Refused, format!("we hold only the read capability of {name:?}"))
            .hint("without --write its read capability can be shared on"));
    }
    let here = if from_here { Some(here(owner, &channel).await?) } else { None };
    let raw = owner.store.reveal(channel.id, write).await?;
    let corrupt = |error: bacap::TextError| Failure::new(FailureKind::Failed, error.to_string());
    let cap = bacap::Capability::parse(raw.as_bytes()).map_err(corrupt)?.cap().clone();
    let cap = match (cap, here) {
        (AnyCap::Read(cap), Some(index)) => AnyCap::Read(cap.with_index(index)),
        (cap, _) => cap,
    };
    let channel = find(owner, name)?;
    let text = CapText {
        cap,
        kind: if channel.content.is_drop() { TextKind::Drop } else { TextKind::Stream },
        network: channel.network.as_ref().map_or(channel.text_network, NetworkId::in_text),
        kept_until: channel.kept_until.filter(|until| *until > SystemTime::now()),
    };
    Ok(Response::Capability(Secret::new(text.encode().as_bytes().to_vec())))
}

/// The index of the first box that holds nothing of what is there now. In a drop it begins a file.
async fn here(owner: &Owner, channel: &Channel) -> Result<bacap::BoxIndex, Failure> {
    let id = channel.id;
    if channel.role == Role::Reader {
        let seq = if channel.content.is_drop() {
            owner.store.arriving(id)?.and_then(|record| record.first).unwrap_or(channel.assembled)
        } else {
            channel.frontier
        };
        return Ok(owner.store.index_of(id, seq)?);
    }
    let until = Instant::now() + FILLING;
    while channel.content.is_drop() && owner.store.unfilled(id, None)?.is_some() {
        if Instant::now() >= until {
            let text = "files of this drop are still being put into boxes, and its end is not known yet";
            return Err(Failure::new(FailureKind::TimedOut, text).hint("try again in a while"));
        }
        sleep(LOOK).await;
    }
    owner.store.seal_tail(id).await?;
    let boxes = owner.store.channel(id)?.map_or(channel.boxes, |channel| channel.boxes);
    Ok(owner.store.index_of(id, BoxSeq(boxes))?)
}
