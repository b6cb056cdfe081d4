//! `pigeonfs send`

mod source;

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};
use serde_json::json;
use tokio::time::{Instant, sleep};
use zeroize::Zeroizing;

use super::add::capability_from;
use super::append::counted;
use super::context::{Context, channel_of, misunderstood};
use super::daemon::DaemonArgs;
use super::estimate::Estimate;
use super::progress::{Progress, without_daemon};
use super::status::display;
use super::{Stop, name, output, seconds};
use crate::drop::chain::part_name;
use crate::drop::{Header, Part, Total};
use crate::engine::control::{Failure, FailureKind, Link, Request, Response, Secret};
use crate::engine::status::{DurabilityStatus, LinkStatus, RecordStatus};
use crate::state::staging::{self, Compress, Staging};
use crate::store::{ChannelName, Content};
use crate::text::shown_path;
use crate::units::show_date;
use source::Source;

/// Records that are looked up at once.
const PAGE: u32 = 200;
/// How often a wait looks.
const LOOK: Duration = Duration::from_millis(250);
/// Without a daemon it waits so long.
const DAEMON_PATIENCE: Duration = Duration::from_secs(10);

/// Most that is read of a file that holds an index.
const LONGEST_INDEX_TEXT: u64 = 1024;

/// Send files through a drop, and wait until replicas have them
#[derive(Args, Debug)]
#[command(after_help = "\
The drop is made where it is missing; `pigeonfs share NAME` prints what a reader needs. Each file is copied to the state \
directory first. From then on it is sent to its end whatever happens: after Ctrl-C, a crash or a reboot, a mount, `pigeonfs \
wait` or the same `send` again goes on with it. A file with the same name, path and bytes that is still under way is not \
sent twice; one that has arrived is.

`-` sends stdin, in parts of 1 MiB under the name that --name gives. Cut off, it never becomes a file at the reader's.

pigeonhole-cp receives each file: it needs the index that --show-index prints. An index is a secret: with one box of the \
network it gives the read capability. Its own options --no-copy and -f are understood here; a capability and an index go \
into a file, never into an argument.

Progress is a line on a terminal, a line a minute on stderr elsewhere, and JSON lines on stdout with --json. Exit codes: 0 stored, 1 failed, 2 usage, 3 the time \
of --timeout was up, 4 no daemon, 5 fenced or refused, 130 interrupted. With 3, 4 and 130 what was accepted is kept.

Examples:
  pigeonfs send report.pdf photos.zip --to outbox
  pigeonfs send -r photos --to outbox
  pigeonfs send -r photos --to outbox --dry-run     boxes, packets and time
  pigeonfs send -r logs --zstd auto --to outbox     compressed where that saves boxes
  tar c dir | zstd | pigeonfs send - --name dir.tar.zst --to outbox
  pigeonfs send report.pdf --write-cap-file friend.cap
  pigeonfs send --finish outbox/half.iso")]
pub(super) struct Typed {
    /// The files; `-` is stdin
    #[arg(value_name = "FILE", required_unless_present_any = ["file", "finish", "zstd"])]
    files: Vec<PathBuf>,
    /// The drop
    #[arg(long, value_name = "NAME", value_parser = name, required_unless_present_any = ["write_cap_file", "finish"])]
    to: Option<ChannelName>,
    /// Send directories with all that is in them
    #[arg(short, long)]
    recursive: bool,
    /// The name that it is to have at the reader's; for one file, or stdin
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Compress: `always`, or with `auto` only files that get shorter by it. pigeonhole-cp will receive NAME.zst
    #[arg(long, value_name = "WHEN", num_args = 0..=1, default_missing_value = "always", value_parser = zstd())]
    zstd: Option<Zstd>,
    /// Tell the reader the permission bits
    #[arg(long)]
    with_mode: bool,
    /// Tell the reader when the file was modified
    #[arg(long)]
    with_mtime: bool,
    /// Say what it would take, and send nothing
    #[arg(long, conflicts_with_all = ["no_wait", "timeout", "finish", "write_cap_file"])]
    dry_run: bool,
    /// Do not wait until they are stored, even where no mount would send them
    #[arg(long)]
    no_wait: bool,
    /// Give up after TIME, with exit code 3; nothing is lost [default: never]
    #[arg(long, value_name = "TIME", value_parser = seconds, conflicts_with = "no_wait")]
    timeout: Option<Duration>,
    /// Take the write capability of the drop from a file; `-` is stdin
    #[arg(long, value_name = "FILE")]
    write_cap_file: Option<PathBuf>,
    /// With --write-cap-file: take the index to begin at, in base64, from a file; `-` is stdin
    #[arg(long, value_name = "FILE", requires = "write_cap_file")]
    index_file: Option<PathBuf>,
    /// Print the index of each file, as pigeonhole-cp needs it. Whoever sees it can read the drop from there on
    #[arg(long)]
    show_index: bool,
    /// Send an unfinished file of a mounted drop as it is: the drop's name, `/`, and the file's place in it
    #[arg(long, value_name = "NAME/FILE", conflicts_with_all = ["files", "to", "write_cap_file"])]
    finish: Vec<String>,
    /// As pigeonhole-cp takes an index; refused
    #[arg(short, long, hide = true, value_name = "INDEX")]
    index: Option<OsString>,
    /// As pigeonhole-cp calls a FILE
    #[arg(short, long, hide = true, value_name = "FILE")]
    file: Option<PathBuf>,
    /// As pigeonhole-cp calls what is always done here
    #[arg(long, hide = true)]
    no_copy: bool,
    /// As pigeonhole-cp takes a capability; refused
    #[arg(short, long, hide = true, value_name = "CAP")]
    write_cap: Option<OsString>,
    #[command(flatten)]
    daemon: DaemonArgs,
}

/// What was typed behind `--zstd`.
#[derive(Clone, Debug)]
enum Zstd {
    When(Compress),
    /// No word for when: `--zstd FILE` is `--zstd` and a file.
    File(PathBuf),
}

fn zstd() -> impl TypedValueParser<Value = Zstd> {
    OsStringValueParser::new().map(|word| match word.to_str() {
        Some("always") => Zstd::When(Compress::Always),
        Some("auto") => Zstd::When(Compress::Auto),
        Some("never") => Zstd::When(Compress::Never),
        _ => Zstd::File(word.into()),
    })
}

impl Typed {
    fn compress(&self) -> Compress {
        match self.zstd {
            None => Compress::Never,
            Some(Zstd::When(compress)) => compress,
            Some(Zstd::File(_)) => Compress::Always,
        }
    }
}

pub(super) async fn run(context: &Context, mut typed: Typed) -> Result<(), Stop> {
    refuse_argv("a capability", typed.write_cap.as_ref(), "--write-cap-file")?;
    refuse_argv("an index", typed.index.as_ref(), "--index-file")?;
    if !typed.finish.is_empty() {
        return finish(context, &typed.finish).await;
    }
    typed.files.extend(typed.file.take());
    if let Some(Zstd::File(file)) = &typed.zstd {
        typed.files.insert(0, file.clone());
    }
    if typed.files.is_empty() {
        return Err(Failure::new(FailureKind::Usage, "say which files are to be sent").hint("`-` is stdin").into());
    }
    let from_stdin = typed.files.iter().filter(|path| path.as_os_str() == "-").count();
    let secrets = [&typed.write_cap_file, &typed.index_file];
    let secrets = secrets.iter().filter(|path| path.as_deref() == Some(Path::new("-"))).count();
    if from_stdin > 0 && (typed.files.len() > 1 || secrets > 0 || typed.compress() != Compress::Never) {
        let text = "stdin can be sent only alone, as it is, and not where it is the capability or the index";
        return Err(Failure::new(FailureKind::Usage, text).into());
    }
    if secrets > 1 {
        return Err(Failure::new(FailureKind::Usage, "stdin cannot be both the capability and the index").into());
    }
    if from_stdin > 0 && typed.name.is_none() {
        return Err(Failure::new(FailureKind::Usage, "what comes from stdin needs a name")
            .hint("give the name that it is to have at the reader's with --name")
            .into());
    }
    let index = typed.index_file.as_deref().map(index_from).transpose()?;
    let index = index.as_deref().map(String::as_str);
    let capability = typed.write_cap_file.as_deref().map(|path| capability_from(path, index));
    let capability = capability.transpose()?;
    // What cannot be sent is told before anything is.
    let sources = if from_stdin > 0 { Vec::new() } else { source::all(&typed)? };
    let drop = match (&typed.to, &capability) {
        (Some(name), _) => name.clone(),
        (None, Some(secret)) => source::name_of(secret)?,
        (None, None) => return Err(Failure::new(FailureKind::Usage, "say with --to which drop").into()),
    };
    let daemon = typed.daemon.clone().meant()?;
    context
        .with_state(daemon, async |link: &Link| {
            if typed.dry_run {
                return estimate(context, link, drop.as_str(), &sources).await;
            }
            let mut sending = Sending {
                link,
                drop: drop.to_string(),
                progress: Progress::new(context.json, false),
                staging: Staging::at(&context.state)?,
                show_index: typed.show_index,
                accepted: Vec::new(),
            };
            let result = sending.run(capability.clone(), &sources, &typed).await;
            sending.progress.end();
            result
        })
        .await
}

/// Says what sending takes.
async fn estimate(context: &Context, link: &Link, drop: &str, sources: &[Source]) -> Result<(), Stop> {
    let lengths = if sources.is_empty() {
        let bytes = counted().await?;
        source::part_lengths(bytes)
    } else {
        sources.iter().filter_map(Source::lengths).collect()
    };
    let bytes = lengths.iter().map(|(_, body)| body).sum();
    Estimate::of(link, drop, lengths.clone()).await?.print(context, drop, Some(lengths.len()), bytes)
}

/// Releases files that a mount holds back as unfinished.
async fn finish(context: &Context, places: &[String]) -> Result<(), Stop> {
    for place in places {
        let (name, file) =
            place.split_once('/').filter(|(name, file)| !name.is_empty() && !file.is_empty()).ok_or_else(|| {
                Failure::new(FailureKind::Usage, format!("{place:?} names no file of a drop"))
                    .hint("give the drop's name, `/`, and the file's place in it, such as outbox/half.iso")
            })?;
        context.ask(Request::Finish { name: name.to_owned(), file: file.to_owned() }).await?;
    }
    if context.json { output::json(&json!({ "finished": places })) } else { Ok(()) }
}

/// A secret that was typed has been seen: it is not used.
pub(super) fn refuse_argv(what: &str, typed: Option<&OsString>, instead: &str) -> Result<(), Failure> {
    if typed.is_none() {
        return Ok(());
    }
    let text = format!("{what} is not taken from an argument, where every user of this machine can read it");
    Err(Failure::new(FailureKind::Usage, text).hint(format!("put it into a file, or a pipe, and give {instead} FILE")))
}

/// The index that a file holds, `-` for stdin.
pub(super) fn index_from(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let mut text = Zeroizing::new(String::with_capacity(LONGEST_INDEX_TEXT as usize + 1));
    let read = if path.as_os_str() == "-" {
        std::io::stdin().lock().take(LONGEST_INDEX_TEXT).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(LONGEST_INDEX_TEXT).read_to_string(&mut text))
    };
    read.map(|_| text).map_err(|error| {
        Failure::new(FailureKind::Failed, format!("the index in {} cannot be read: {error}", shown_path(path)))
    })
}

struct Sending<'a> {
    link: &'a Link,
    drop: String,
    progress: Progress,
    staging: Staging,
    show_index: bool,
    accepted: Vec<RecordStatus>,
}

impl Sending<'_> {
    async fn run(&mut self, capability: Option<Secret>, sources: &[Source], typed: &Typed) -> Result<(), Stop> {
        self.open(capability).await?;
        if let (true, Some(name)) = (sources.is_empty(), &typed.name) {
            self.send_stdin(name).await?;
        }
        self.has_room_for(sources).await?;
        let lengths: Vec<_> = sources.iter().filter_map(Source::lengths).collect();
        if !lengths.is_empty() {
            Estimate::of(self.link, &self.drop, lengths).await?.warn(&self.drop);
        }
        for source in sources {
            let key = staging::key(self.link).await?;
            let (header, file) = source.open()?;
            let (header, staged) = match file {
                Some(file) => self.staging.stage(header, source.compress(), file, key).await?,
                None => (header, None),
            };
            self.accept(header, staged).await?;
        }
        if typed.no_wait {
            if self.link.is_owner() {
                tracing::warn!(drop = %self.drop, "nobody is sending: mount this state, or run `pigeonfs wait`");
            }
            return Ok(());
        }
        self.wait(typed.timeout.map(|timeout| Instant::now() + timeout)).await
    }

    /// What is larger than all that the spool takes is refused before it is copied.
    async fn has_room_for(&mut self, sources: &[Source]) -> Result<(), Stop> {
        let Response::Status(status) = self.link.request(Request::Status { name: None }).await? else {
            return Err(misunderstood());
        };
        let limit = status.spool_limit;
        for source in sources {
            if let Some((path, size)) = source.planned()
                && limit > 0
                && size > limit
            {
                let (file, size, limit) = (shown_path(path), output::size(size), output::size(limit));
                return Err(Failure::new(
                    FailureKind::Failed,
                    format!("{file} has {size}, and the spool takes {limit}"),
                )
                .hint("mount with a larger --spool-limit, or send the file in parts through stdin")
                .into());
            }
        }
        Ok(())
    }

    /// Files of the drop that are not stored and go before the first of ours.
    async fn ahead(&mut self) -> Result<Vec<RecordStatus>, Stop> {
        let Some(first) = self.accepted.iter().map(|record| record.record).min() else { return Ok(Vec::new()) };
        let (mut ahead, mut after) = (Vec::new(), 0);
        loop {
            let request = Request::Records { name: self.drop.clone(), after, limit: PAGE };
            let Response::Records(page) = self.link.request(request).await? else { return Err(misunderstood()) };
            let Some(last) = page.last().map(|record| record.record) else { return Ok(ahead) };
            let is_ahead =
                |record: &RecordStatus| record.record < first && matches!(record.state.as_str(), "waiting" | "sending");
            let ended = page.len() < PAGE as usize || last >= first;
            ahead.extend(page.into_iter().filter(is_ahead));
            if ended {
                return Ok(ahead);
            }
            after = last;
        }
    }

    /// The drop is there and takes files.
    async fn open(&mut self, capability: Option<Secret>) -> Result<(), Stop> {
        let content = Content::Drop { allow_delete: false };
        let name = self.drop.clone();
        if let Some(capability) = capability {
            let add = Request::Add { name, capability, content, strict_network: false, kept_until: None };
            self.link.request(add).await?;
            return Ok(());
        }
        let durability = DurabilityStatus::Stored;
        match self.link.request(Request::New { name: name.clone(), durability, content }).await {
            Ok(_) => return Ok(()),
            Err(failure) if failure.kind == FailureKind::Busy => {}
            Err(failure) => return Err(failure.into()),
        }
        let channel = channel_of(self.link.request(Request::Status { name: Some(name.clone()) }).await?)?;
        if channel.files.is_some() {
            return Ok(());
        }
        Err(Failure::new(FailureKind::Failed, format!("{name:?} is a stream: it carries bytes and not files"))
            .hint(format!("append to it with `pigeonfs append {name}`, or choose another name for a drop"))
            .into())
    }

    async fn accept(&mut self, header: Header, mut staged: Option<staging::Staged>) -> Result<(), Stop> {
        let bytes = header
            .encode(usize::MAX)
            .map_err(|error| Failure::new(FailureKind::Usage, format!("{:?} cannot be sent: {error}", header.name)))?;
        let path = staged.as_mut().map(|staged| {
            staged.hand_over();
            staged.path.clone()
        });
        let request = Request::Accept { name: self.drop.clone(), header: bytes, staged: path };
        let Response::Record(record) = self.link.request(request).await? else { return Err(misunderstood()) };
        if let Some(staged) = staged
            && record.again
        {
            staged.discard();
        }
        let event = json!({ "event": "accepted", "file": display(&record), "record": record.record,
                            "size": record.size, "again": record.again });
        self.progress.tell("", &event)?;
        self.accepted.push(record);
        Ok(())
    }

    /// Stdin in parts, or as one file where it is short.
    async fn send_stdin(&mut self, name: &str) -> Result<(), Stop> {
        let mut chain = [0; 16];
        getrandom::fill(&mut chain)
            .map_err(|error| Failure::new(FailureKind::Failed, format!("this machine gives no randomness: {error}")))?;
        let mut parts = source::Parts::new();
        let mut total = blake3::Hasher::new();
        let (mut size, mut number) = (0_u64, 0_u32);
        loop {
            let (part, is_last) = parts.next().await?;
            total.update(&part);
            size += part.len() as u64;
            number = number.checked_add(1).ok_or_else(|| Failure::new(FailureKind::Failed, "stdin has no end"))?;
            let digest = *total.finalize().as_bytes();
            let last = is_last.then_some(Total { size, digest });
            let (name, of) = if number == 1 && is_last {
                (name.to_owned(), None)
            } else {
                (part_name(name, number), Some(Part { chain, number, last }))
            };
            let header = Header { name, part: of, ..Header::default() };
            let key = staging::key(self.link).await?;
            let part = std::io::Cursor::new(part);
            let (header, staged) = self.staging.stage(header, Compress::Never, part, key).await?;
            self.accept(header, staged).await?;
            if is_last {
                return Ok(());
            }
        }
    }

    /// Until replicas have all that was accepted.
    async fn wait(&mut self, deadline: Option<Instant>) -> Result<(), Stop> {
        // Files go one after the other, so what is ahead takes its time first.
        let ahead = self.ahead().await?;
        let ours = std::mem::take(&mut self.accepted);
        let left = |record: &RecordStatus| record.sent_size.saturating_sub(record.done);
        let total: u64 = ahead.iter().map(left).chain(ours.iter().map(|record| record.sent_size)).sum();
        let mut before = 0;
        let mut no_daemon_since = None;
        for known in &ahead {
            loop {
                let request = Request::Record { name: self.drop.clone(), record: known.record };
                let Response::Record(record) = self.link.request(request).await? else { return Err(misunderstood()) };
                if !matches!(record.state.as_str(), "waiting" | "sending") {
                    break;
                }
                let name = format!("{} goes first", display(&record));
                self.progress.at(&name, before + record.done.saturating_sub(known.done), total)?;
                self.check(&record, deadline, &mut no_daemon_since).await?;
                sleep(deadline.map_or(LOOK, |deadline| LOOK.min(deadline - Instant::now()))).await;
            }
            before += left(known);
        }
        for known in ours {
            loop {
                let request = Request::Record { name: self.drop.clone(), record: known.record };
                let Response::Record(record) = self.link.request(request).await? else { return Err(misunderstood()) };
                if record.state == "broken" {
                    let reason = record.reason.unwrap_or_default();
                    return Err(Failure::new(FailureKind::Failed, format!("it was broken off: {reason}"))
                        .hint("send it again")
                        .into());
                }
                if !matches!(record.state.as_str(), "waiting" | "sending") {
                    self.stored(&record)?;
                    break;
                }
                self.progress.at(&display(&record), before + record.done, total)?;
                self.check(&record, deadline, &mut no_daemon_since).await?;
                sleep(deadline.map_or(LOOK, |deadline| LOOK.min(deadline - Instant::now()))).await;
            }
            before += known.sent_size;
        }
        let status = channel_of(self.link.request(Request::Status { name: Some(self.drop.clone()) }).await?)?;
        let expiry = status.oldest_expires_at.map(|at| format!(", and expires from {} on", show_date(at)));
        self.progress.note(&format!(
            "all of it is stored{}; a reader takes the drop in with `pigeonfs add --drop NAME`, given what `pigeonfs share {}` \
             prints, and types `pigeonfs receive NAME`",
            expiry.unwrap_or_default(),
            self.drop
        ));
        Ok(())
    }

    fn stored(&mut self, record: &RecordStatus) -> Result<(), Stop> {
        let boxes = record.boxes.unwrap_or_default();
        let mut text = format!("{}: {} in {boxes} boxes", display(record), output::size(record.size));
        let mut event = json!({ "event": "stored", "file": display(record), "record": record.record,
                                "size": record.size, "boxes": boxes, "digest": record.digest, "part": record.part });
        if self.show_index {
            let index = record.index.as_ref().map_or("-", |index| index.0.as_str());
            text.push_str(&format!(" at index {index}"));
            event["index"] = json!(record.index);
        }
        self.progress.tell(&text, &event)
    }

    async fn check(
        &mut self,
        record: &RecordStatus,
        deadline: Option<Instant>,
        no_daemon_since: &mut Option<Instant>,
    ) -> Result<(), Stop> {
        let Response::Status(status) = self.link.request(Request::Status { name: None }).await? else {
            return Err(misunderstood());
        };
        let drop = self.drop.as_str();
        if let Some(channel) = status.channels.iter().find(|channel| channel.name == drop)
            && let Some(reason) = &channel.fenced
        {
            return Err(Failure::new(FailureKind::Refused, format!("{drop:?} is fenced: {reason}"))
                .hint("what was accepted stays in the spool; the status says how much")
                .into());
        }
        let waits = without_daemon(&status.daemon, no_daemon_since);
        self.progress.waits_for(waits.or_else(|| Some("replicas".to_owned())));
        let standing = format!("{} of {} bytes of {:?} are stored", record.done, record.sent_size, display(record));
        let now = Instant::now();
        match status.daemon.link {
            LinkStatus::Connected | LinkStatus::NoConsensus => *no_daemon_since = None,
            LinkStatus::NoDaemon | LinkStatus::Refused => {
                let since = *no_daemon_since.get_or_insert(now);
                let patience = deadline.map_or(DAEMON_PATIENCE, |deadline| DAEMON_PATIENCE.max(deadline - since));
                if now >= since + patience {
                    let why = status.daemon.error.unwrap_or_else(|| "no daemon was found".to_owned());
                    return Err(Failure::new(FailureKind::NoDaemon, format!("{why}; {standing}"))
                        .hint("nothing is lost: what was accepted is sent when a daemon is there")
                        .into());
                }
            }
        }
        if deadline.is_some_and(|deadline| now >= deadline) {
            return Err(Failure::new(FailureKind::TimedOut, format!("the time is up: {standing}"))
                .hint("nothing is lost: a mount, `pigeonfs wait` or the same command goes on with it")
                .into());
        }
        Ok(())
    }
}
