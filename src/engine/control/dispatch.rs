//! What each request does. The same code answers a verb over the socket and a verb that owns the state itself.

use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep_until};

use super::{
    Asked, CHUNK_BYTES, Failure, FailureKind, LogEntry, Request, Response, Secret, contacts, files, handover, keep,
};
use crate::channel::{LEAST_PROBES, SEARCH_PROBES};
use crate::engine::status::{DurabilityStatus, HistoryStatus, LinkStatus, STATUS_VERSION, unix_seconds};
use crate::engine::{Owner, OwnerKind, fresh_write_cap};
use crate::model::AT_HOME;
use crate::store::{
    Channel, ChannelId, ChannelName, Content, Durability, HISTORY_MINUTES, LogLine, Outcome, RecordId, Role,
    SEARCH_WINDOW, Store, StoreError,
};

/// A verb waits so long for a daemon before it says that there is none.
const DAEMON_PATIENCE: Duration = Duration::from_secs(10);
/// Files that an error names.
const NAMED: usize = 8;
/// Lines of the log in one answer.
const MOST_LINES: u32 = 1000;
/// How often a wait looks at what no wake-up tells: the daemon's state.
const LOOK: Duration = Duration::from_millis(500);

pub(super) async fn dispatch(owner: &Owner, asked: Asked) -> Result<Response, Failure> {
    let Asked { id, request } = asked;
    if !changes(&request) {
        return act(owner, &owner.store, request).await;
    }
    owner.check()?;
    if let Some(outcome) = owner.store.outcome(id)? {
        return again(owner, &request, outcome).await;
    }
    let answer = act(owner, &owner.store.for_request(Some(id)), request.clone()).await;
    match answer {
        // It may have been under way for another connection, which hung up.
        Err(failure) => match owner.store.outcome(id).ok().flatten() {
            Some(outcome) if !matches!(request, Request::Adopt { .. }) => again(owner, &request, outcome).await,
            _ => Err(failure),
        },
        answer => answer,
    }
}

/// Whether the request is to be done once.
fn changes(request: &Request) -> bool {
    matches!(
        request,
        Request::New { .. }
            | Request::Forget { .. }
            | Request::Rename { .. }
            | Request::Trim { .. }
            | Request::Skip { .. }
            | Request::Adopt { .. }
            | Request::Move { .. }
            | Request::Append { .. }
            | Request::Accept { .. }
            | Request::Invite { .. }
    )
}

/// The answer to a request that was carried out before.
async fn again(owner: &Owner, request: &Request, outcome: Outcome) -> Result<Response, Failure> {
    Ok(match (request, outcome) {
        (Request::New { name, durability, .. }, _) => {
            choose_durability(owner, find(owner, name)?.id, *durability).await?;
            channel_response(owner, &find(owner, name)?)
        }
        (Request::Adopt { name, timeout_ms }, _) => {
            adopted(owner, find(owner, name)?.id, name, deadline(*timeout_ms)).await?
        }
        (Request::Accept { name, .. }, Outcome::Accepted { record }) => files::record(owner, name, record)?,
        (Request::Invite { name, .. }, _) => contacts::invited(owner, find(owner, name)?.id)?,
        (_, Outcome::Trimmed { bytes }) => Response::Trimmed { bytes },
        (_, Outcome::Skipped { first, boxes, bytes }) => Response::Skipped { first_box: first, boxes, bytes },
        (_, Outcome::Moved { boxes, bytes, launched_boxes }) => Response::Moved { boxes, bytes, launched_boxes },
        (_, Outcome::Appended { size }) => Response::Appended { size },
        _ => Response::Done,
    })
}

fn deadline(timeout_ms: Option<u64>) -> Option<Instant> {
    timeout_ms.map(|ms| Instant::now() + Duration::from_millis(ms))
}

/// Does what is asked. `store` is the owner's, for this request.
async fn act(owner: &Owner, store: &Store, request: Request) -> Result<Response, Failure> {
    match request {
        Request::History { minutes } => {
            let now = unix_seconds(SystemTime::now()) / 60;
            let minutes = minutes.min(HISTORY_MINUTES);
            let points = owner.store.history((now + 1).saturating_sub(minutes))?;
            Ok(Response::History(HistoryStatus { version: STATUS_VERSION, now, minutes, points }))
        }
        Request::Status { name: None } => Ok(Response::Status(owner.engine.status()?)),
        Request::Status { name: Some(name) } => Ok(channel_response(owner, &find(owner, &name)?)),
        Request::New { name, durability, content } => new(owner, store, &name, durability, content).await,
        Request::Add { name, capability, content, strict_network, kept_until } => {
            let wanted = handover::Wanted { content, strict_network, kept_until };
            handover::add(owner, &name, &capability, wanted).await
        }
        Request::Share { name, write, from_here } => handover::share(owner, &name, write, from_here).await,
        Request::Forget { name } => {
            find(owner, &name)?;
            store.forget(parse(&name)?).await?;
            Ok(Response::Done)
        }
        Request::Rename { old, new } => {
            find(owner, &old)?;
            store.rename(parse(&old)?, parse(&new)?).await?;
            Ok(Response::Done)
        }
        Request::Trim { name, keep_bytes } => {
            let channel = find(owner, &name)?;
            keep::check_not_needed(owner, &channel)?;
            let bytes = store.trim(channel.id, keep_bytes).await?;
            Ok(Response::Trimmed { bytes })
        }
        Request::Skip { name } => {
            let skipped = store.skip(find(owner, &name)?.id).await?;
            owner.engine.note(find(owner, &name)?.id, &format!("{} missing boxes were skipped", skipped.boxes));
            Ok(Response::Skipped { first_box: skipped.first.0, boxes: skipped.boxes, bytes: skipped.bytes })
        }
        Request::Search { name, timeout_ms } => search(owner, &name, deadline(timeout_ms)).await,
        Request::Adopt { name, timeout_ms } => {
            let id = find(owner, &name)?.id;
            store.adopt(id).await?;
            owner.engine.adopt();
            adopted(owner, id, &name, deadline(timeout_ms)).await
        }
        Request::Move { name, new } => {
            let moved = store.move_unsent(find(owner, &name)?.id, parse(&new)?, fresh_write_cap()?).await?;
            Ok(Response::Moved { boxes: moved.boxes, bytes: moved.bytes, launched_boxes: moved.launched_boxes })
        }
        Request::Invite { name, content, display_name, theirs } => {
            contacts::invite(owner, store, &name, contacts::Wanted { content, display_name, theirs }).await
        }
        Request::AcceptCode { theirs, ours, content, code } => {
            let wanted = contacts::Accepting { theirs: &theirs, ours: &ours, content, code: &code };
            contacts::accept(owner, wanted).await
        }
        Request::WaitContact { name, accepting: true, timeout_ms, .. } => {
            contacts::wait_for_inviter(owner, &name, deadline(timeout_ms)).await
        }
        Request::WaitContact { name, for_code, timeout_ms, .. } => {
            contacts::wait_for_answer(owner, &name, for_code, deadline(timeout_ms)).await
        }
        Request::CancelContact { name, accepting } => contacts::cancel(owner, &name, accepting).await,
        Request::Keep { name, until, share } => keep::keep(owner, &name, until, share).await,
        Request::Estimate { name, lengths } => keep::estimate(owner, &name, &lengths).await,
        Request::KeepRun { timeout_ms } => {
            keep::run(owner, timeout_ms.map(|ms| Instant::now() + Duration::from_millis(ms))).await
        }
        Request::Verify { name, sample, repair, timeout_ms } => {
            let deadline = timeout_ms.map(|ms| Instant::now() + Duration::from_millis(ms));
            keep::verify(owner, &name, sample, repair, deadline).await
        }
        Request::Follow { name, for_ms } => follow(owner, &name, Duration::from_millis(for_ms)).await,
        Request::Wait { name, bytes, timeout_ms, level } => {
            wait(owner, &name, bytes, level, deadline(timeout_ms)).await
        }
        Request::Watch { name, mark, timeout_ms } => {
            watch(owner, &name, mark, Instant::now() + Duration::from_millis(timeout_ms)).await
        }
        Request::Finish { name, file } => finish(owner, &name, &file).await,
        Request::Append { name, bytes, making } => append(owner, store, (&name, making), bytes).await,
        Request::Read { name, offset, follow_ms, timeout_ms } => {
            let (follow, timeout) = (Duration::from_millis(follow_ms), Duration::from_millis(timeout_ms));
            read(owner, &name, offset, follow, timeout).await
        }
        Request::Accept { name, header, staged } => {
            files::accept(owner, store, &name, &header, staged.as_deref()).await
        }
        Request::Log { after, limit } => {
            let lines = owner.store.log_lines(after, u64::from(limit.min(MOST_LINES)))?;
            let entry = |line: LogLine| LogEntry { id: line.id, at: unix_seconds(line.at), text: line.text };
            Ok(Response::Log(lines.into_iter().map(entry).collect()))
        }
        Request::StagingKey => {
            let key = owner
                .store
                .sealing()
                .file_key()
                .map_err(|error| Failure::new(FailureKind::Failed, error.to_string()))?;
            Ok(Response::StagingKey(key.map(|key| Secret::new(key.to_vec()))))
        }
        Request::Record { name, record } => files::record(owner, &name, record),
        Request::Records { name, after, limit } => files::records(owner, &name, after, limit),
        Request::Fetch { name, record, offset } => files::fetch(owner, &name, record, offset).await,
        Request::Deliver { name, record } => {
            owner.store.deliver(find(owner, &name)?.id, RecordId(record)).await?;
            Ok(Response::Done)
        }
        Request::Yield => owner.ask_to_yield().map(|()| Response::Done),
    }
}

pub(super) fn parse(name: &str) -> Result<ChannelName, Failure> {
    ChannelName::parse(name).map_err(|error| Failure::new(FailureKind::Usage, error.to_string()))
}

pub(super) fn find(owner: &Owner, name: &str) -> Result<Channel, Failure> {
    let parsed = parse(name)?;
    owner.store.by_name(&parsed)?.ok_or_else(|| {
        Failure::new(FailureKind::Failed, format!("there is no channel named {name:?}"))
            .hint("`pigeonfs list` shows those that there are")
    })
}

pub(super) fn channel_response(owner: &Owner, channel: &Channel) -> Response {
    let mut status = owner.engine.channel_status(channel);
    if let Some(files) = &mut status.files {
        files.settled = is_settled(owner, channel, files.incomplete);
    }
    Response::Channel(status)
}

/// Whether all that is known to be there of a drop that is read has become files.
fn is_settled(owner: &Owner, channel: &Channel, incomplete: u64) -> bool {
    owner.end_is_known(channel) && channel.assembled == channel.frontier && incomplete == 0
}

async fn new(
    owner: &Owner,
    store: &Store,
    name: &str,
    durability: DurabilityStatus,
    content: Content,
) -> Result<Response, Failure> {
    let cap = fresh_write_cap()?;
    let id = store.create(parse(name)?, cap, content).await?;
    choose_durability(owner, id, durability).await?;
    Ok(channel_response(owner, &find(owner, name)?))
}

async fn choose_durability(owner: &Owner, id: ChannelId, durability: DurabilityStatus) -> Result<(), Failure> {
    if durability == DurabilityStatus::Couriered {
        owner.store.set_durability(id, Durability::Couriered).await?;
    }
    Ok(())
}

async fn append(
    owner: &Owner,
    store: &Store,
    (name, making): (&str, bool),
    bytes: Vec<u8>,
) -> Result<Response, Failure> {
    if bytes.len() > CHUNK_BYTES {
        return Err(Failure::new(FailureKind::Usage, "an append carries at most 1 MiB"));
    }
    // As `>>` does in the mount, the verb makes the stream that it is for.
    if making && owner.store.by_name(&parse(name)?)?.is_none() {
        owner.store.create_stream(parse(name)?, fresh_write_cap()?).await?;
    }
    let channel = find(owner, name)?;
    if let Some(refusal) = owner.engine.refusal(&channel) {
        return Err(Failure::new(FailureKind::Refused, refusal));
    }
    let appended = store.append(channel.id, bytes, None).await?;
    Ok(Response::Appended { size: appended.size })
}

async fn follow(owner: &Owner, name: &str, time: Duration) -> Result<Response, Failure> {
    let channel = find(owner, name)?;
    if channel.role == Role::Writer {
        return Err(Failure::new(FailureKind::Refused, format!("{name:?} is written here, and nothing arrives in it")));
    }
    if owner.kind == OwnerKind::Verb {
        return Err(Failure::new(FailureKind::Failed, "nothing is mounted that could go on following it")
            .hint("`pigeonfs read --follow` reads a channel without a mount"));
    }
    owner.engine.follow(channel.id, time).await;
    Ok(channel_response(owner, &channel))
}

/// Sends an unfinished file of a mount as it is.
async fn finish(owner: &Owner, name: &str, file: &str) -> Result<Response, Failure> {
    let channel = find(owner, name)?;
    if !channel.content.is_drop() || channel.role == Role::Reader {
        let text = format!("{name:?} is no drop that is written here, so it has no unfinished files");
        return Err(Failure::new(FailureKind::Refused, text));
    }
    let (drops, path) = (owner.engine.drops().clone(), file.to_owned());
    let finished = tokio::task::spawn_blocking(move || drops.finish(channel.id, &path)).await;
    match finished.map_err(|error| Failure::new(FailureKind::Failed, error.to_string()))? {
        Some(Ok(())) => Ok(Response::Done),
        Some(Err(reason)) => Err(Failure::new(FailureKind::Refused, reason)
            .hint(format!("`.pigeonfs/{name}/status` in the mount names the files that are not sent yet"))),
        None => {
            Err(Failure::new(FailureKind::Failed, "unfinished files are in a mount, and this state is not mounted")
                .hint("mount it, and ask again"))
        }
    }
}

/// Files in a drop that are never sent as they are: nobody waits for them in vain.
fn check_finished(owner: &Owner, channel: &Channel) -> Result<(), Failure> {
    if !channel.content.is_drop() || channel.role == Role::Reader {
        return Ok(());
    }
    let broken = owner.store.broken_off(channel.id, NAMED)?;
    if !broken.is_empty() {
        let reasons: Vec<_> = broken.into_iter().filter_map(|record| record.reason).collect();
        let text = format!("broken off in {:?}, and not sent whole: {}", channel.name.as_str(), reasons.join("; "));
        return Err(Failure::new(FailureKind::Failed, text).hint("send them again, or remove them from the drop"));
    }
    let unfinished = owner.engine.drops().unsettled(channel.id).unfinished;
    if unfinished.is_empty() {
        return Ok(());
    }
    let text =
        format!("unfinished in {:?}, and never sent as they are: {}", channel.name.as_str(), unfinished.join(", "));
    Err(Failure::new(FailureKind::Failed, text).hint(
        "write them anew, remove them, or send them as they are with `pigeonfs send --finish`; all others are stored",
    ))
}

async fn wait(
    owner: &Owner,
    name: &str,
    bytes: Option<u64>,
    level: DurabilityStatus,
    deadline: Option<Instant>,
) -> Result<Response, Failure> {
    let id = find(owner, name)?.id;
    let mut growth = owner.store.changes().watch(id);
    let mut patience = Patience::new(deadline);
    loop {
        growth.mark_unchanged();
        // What is not known to be on this disk is not known to be stored either.
        owner.check()?;
        let channel = still_there(owner, id, name)?;
        if let Some(reason) = &channel.fence {
            return Err(fenced(name, reason));
        }
        if channel.invited {
            contacts::check_has_not_failed(owner, &channel)?;
        }
        let done = match channel.role {
            Role::Writer if bytes.is_some() => {
                return Err(Failure::new(
                    FailureKind::Usage,
                    format!("--bytes is for readers, and {name:?} is written here"),
                )
                .hint("without --bytes, wait ends when all that was accepted is stored"));
            }
            Role::Writer => {
                if channel.tail_bytes > 0 {
                    owner.store.seal_tail(id).await?;
                }
                let passed = match level {
                    DurabilityStatus::Stored => channel.stored_bytes == channel.size,
                    DurabilityStatus::Couriered => channel.boxes == channel.stored_boxes + channel.couriered_boxes,
                };
                let settling = channel.content.is_drop() && owner.engine.drops().unsettled(id).settling > 0;
                passed && !settling && (!channel.content.is_drop() || owner.store.unfilled(id, None)?.is_none())
            }
            Role::Reader => match bytes {
                Some(bytes) => channel.size >= bytes,
                None if channel.content.is_drop() => is_settled(owner, &channel, incomplete(owner, &channel)?),
                None => owner.end_is_known(&channel),
            },
        };
        if done {
            check_finished(owner, &channel)?;
            return Ok(channel_response(owner, &channel));
        }
        if let Some(refusal) = owner.engine.refusal(&channel) {
            return Err(Failure::new(FailureKind::Refused, refusal));
        }
        if channel.is_at_home() {
            return Err(Failure::new(FailureKind::Failed, format!("{name:?} is not sent: {AT_HOME}")));
        }
        if channel.is_lost() {
            return Err(lost(owner, &channel));
        }
        let progress = match (channel.role, bytes) {
            (Role::Writer, _) if channel.invited => {
                format!("nothing of {name:?} is sent before its invitation is answered")
            }
            (Role::Writer, _) => format!("{} of {} bytes of {name:?} are stored", channel.stored_bytes, channel.size),
            (Role::Reader, Some(bytes)) => format!("{} of {bytes} bytes of {name:?} have arrived", channel.size),
            (Role::Reader, None) => format!("{} bytes of {name:?} have arrived", channel.size),
        };
        patience.check(owner, &progress)?;
        tokio::select! {
            _ = growth.changed() => {}
            () = sleep_until(patience.next_look()) => {}
        }
    }
}

/// How a channel stands, once that is another than a mark stands for.
async fn watch(owner: &Owner, name: &str, mark: Option<u64>, until: Instant) -> Result<Response, Failure> {
    let id = find(owner, name)?.id;
    let mut growth = owner.store.changes().watch(id);
    loop {
        growth.mark_unchanged();
        let response = channel_response(owner, &still_there(owner, id, name)?);
        let Response::Channel(channel) = response else { return Ok(response) };
        let now = channel.mark();
        if mark != Some(now) || Instant::now() >= until {
            return Ok(Response::News { mark: now, channel: Box::new(channel) });
        }
        tokio::select! {
            _ = growth.changed() => {}
            () = sleep_until(until.min(Instant::now() + LOOK)) => {}
        }
    }
}

async fn search(owner: &Owner, name: &str, deadline: Option<Instant>) -> Result<Response, Failure> {
    let channel = find(owner, name)?;
    let id = channel.id;
    let mut growth = owner.store.changes().watch(id);
    let left = channel.search_budget(SystemTime::now(), SEARCH_PROBES);
    if left < LEAST_PROBES && !owner.engine.is_searching(id) {
        let again = channel.searched.and_then(|at| (at + SEARCH_WINDOW).duration_since(SystemTime::now()).ok());
        let hours = again.unwrap_or_default().as_secs().div_ceil(3600);
        let text = format!("{name:?} was searched already, and a day's searches take {SEARCH_PROBES} reads at most");
        return Err(Failure::new(FailureKind::Refused, text).hint(format!("it can be searched again in {hours} h")));
    }
    owner.store.search(id).await?;
    owner.engine.search();
    let mut patience = Patience::new(deadline);
    loop {
        growth.mark_unchanged();
        let channel = still_there(owner, id, name)?;
        if channel.stale_since.is_none() {
            let lost_boxes = channel.is_lost().then(|| channel.lost_end.0 - channel.frontier.0);
            return Ok(Response::Searched { lost_boxes });
        }
        if let Some(refusal) = owner.engine.refusal(&channel) {
            return Err(Failure::new(FailureKind::Refused, refusal));
        }
        let reads = owner.engine.channel_status(&channel).search_probes.unwrap_or_default();
        patience.check(owner, &format!("{reads} boxes of {name:?} were looked for"))?;
        tokio::select! {
            _ = growth.changed() => {}
            () = sleep_until(patience.next_look()) => {}
        }
    }
}

/// Waits for the end of an adoption.
async fn adopted(owner: &Owner, id: ChannelId, name: &str, deadline: Option<Instant>) -> Result<Response, Failure> {
    let mut growth = owner.store.changes().watch(id);
    let mut patience = Patience::new(deadline);
    loop {
        growth.mark_unchanged();
        let channel = still_there(owner, id, name)?;
        let adoption = owner.store.adoption(id)?.ok_or(StoreError::NotAdopting)?;
        if let Some(adopted) = adoption.adopted {
            return Ok(Response::Adopted {
                foreign_boxes: adopted.foreign_boxes,
                foreign_bytes: adopted.foreign_bytes,
                replanned_boxes: adopted.replanned_boxes,
                replanned_bytes: adopted.replanned_bytes,
            });
        }
        if let Some(refusal) = owner.engine.refusal(&channel) {
            return Err(Failure::new(FailureKind::Refused, refusal));
        }
        let looked_at = adoption.next.0 - adoption.first.0;
        patience.check(owner, &format!("{looked_at} boxes of {name:?} were looked at"))?;
        tokio::select! {
            _ = growth.changed() => {}
            () = sleep_until(patience.next_look()) => {}
        }
    }
}

/// Files of a drop that is read here and that began to arrive.
fn incomplete(owner: &Owner, channel: &Channel) -> Result<u64, Failure> {
    let arriving = owner.store.arriving(channel.id)?.is_some();
    Ok(u64::from(arriving) + owner.store.open_chains(channel.id, 1)?.len() as u64)
}

async fn read(
    owner: &Owner,
    name: &str,
    offset: u64,
    follow: Duration,
    timeout: Duration,
) -> Result<Response, Failure> {
    let id = find(owner, name)?.id;
    let mut growth = owner.store.changes().watch(id);
    let follow_until = Instant::now() + follow;
    let mut patience = Patience::new(Some(Instant::now() + timeout));
    loop {
        growth.mark_unchanged();
        let channel = still_there(owner, id, name)?;
        if offset < channel.size {
            let bytes = owner.store.read(id, offset, CHUNK_BYTES)?;
            return Ok(Response::Bytes { bytes, end: false });
        }
        let end = channel.role == Role::Writer || owner.end_is_known(&channel);
        if end && Instant::now() >= follow_until {
            return Ok(Response::Bytes { bytes: Vec::new(), end: true });
        }
        if let Some(reason) = &channel.fence {
            return Err(fenced(name, reason));
        }
        if let Some(refusal) = owner.engine.refusal(&channel) {
            return Err(Failure::new(FailureKind::Refused, refusal));
        }
        if channel.is_lost() {
            return Err(lost(owner, &channel));
        }
        if !end {
            patience.check(owner, &format!("whether {name:?} goes on after {offset} bytes is not known yet"))?;
        }
        let look = if end { follow_until.min(Instant::now() + LOOK) } else { patience.next_look() };
        tokio::select! {
            _ = growth.changed() => {}
            () = sleep_until(look) => {}
        }
    }
}

fn still_there(owner: &Owner, id: ChannelId, name: &str) -> Result<Channel, Failure> {
    if let Some(channel) = owner.store.channel(id)? {
        return Ok(channel);
    }
    // Its first box may have told that it is of another kind, and then it has another number.
    match owner.store.by_name(&parse(name)?)? {
        Some(channel) if channel.role == Role::Reader => Err(handover::is_of_another_kind(&channel)),
        _ => Err(Failure::new(FailureKind::Failed, format!("the channel {name:?} was forgotten meanwhile"))),
    }
}

fn fenced(name: &str, reason: &str) -> Failure {
    Failure::new(FailureKind::Refused, format!("{name:?} is fenced: {reason}")).hint(
        "what was accepted stays in the spool. `pigeonfs adopt NAME` takes in what another writer wrote and goes on \
             behind it; `pigeonfs move NAME NEW` goes on in a new channel",
    )
}

fn lost(owner: &Owner, channel: &Channel) -> Failure {
    let boxes = owner.store.hole(channel.id).ok().flatten().map_or(1, |hole| hole.boxes());
    let text = format!(
        "after {} bytes of {:?} the network has lost {boxes} boxes: they came in none of the weeks that it keeps anything",
        channel.size,
        channel.name.as_str()
    );
    Failure::new(FailureKind::Failed, text).hint("`pigeonfs skip NAME` gives them up and goes on behind them")
}

/// How long a wait goes on: to its deadline, and without a daemon no longer than makes sense.
pub(super) struct Patience {
    deadline: Option<Instant>,
    no_daemon_since: Option<Instant>,
}

impl Patience {
    pub(super) fn new(deadline: Option<Instant>) -> Self {
        Self { deadline, no_daemon_since: None }
    }

    pub(super) fn check(&mut self, owner: &Owner, progress: &str) -> Result<(), Failure> {
        let now = Instant::now();
        if let Some(reason) = owner.store.trouble() {
            return Err(StoreError::Unavailable { reason: format!("{reason}; {progress}") }.into());
        }
        let daemon = owner.engine.daemon();
        let why = daemon.error.unwrap_or_else(|| "no daemon was found".to_owned());
        let no_daemon = || {
            Failure::new(FailureKind::NoDaemon, format!("{why}; {progress}"))
                .hint("nothing is lost: what was accepted is sent when a daemon is there. `--localnet` needs none")
        };
        match daemon.link {
            LinkStatus::Connected | LinkStatus::NoConsensus => self.no_daemon_since = None,
            LinkStatus::NoDaemon | LinkStatus::Refused => {
                let since = *self.no_daemon_since.get_or_insert(now);
                let over = self.deadline.is_some_and(|deadline| now >= deadline);
                if over || (self.deadline.is_none() && now >= since + DAEMON_PATIENCE) {
                    return Err(no_daemon());
                }
            }
        }
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            return Err(Failure::new(FailureKind::TimedOut, format!("the time is up: {progress}"))
                .hint("nothing is lost: it goes on, and can be waited for again"));
        }
        Ok(())
    }

    pub(super) fn next_look(&self) -> Instant {
        let look = Instant::now() + LOOK;
        self.deadline.map_or(look, |deadline| deadline.min(look))
    }
}
