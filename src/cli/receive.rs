//! `pigeonfs receive`

mod target;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::add::capability_from;
use super::context::{Context, channel_of, misunderstood};
use super::daemon::DaemonArgs;
use super::progress::Progress;
use super::send::refuse_argv;
use super::status::display;
use super::{Stop, name, output, seconds};
use crate::engine::control::{Failure, FailureKind, Link, Request, Response, Secret};
use crate::engine::status::{ChannelStatus, LinkStatus, RecordStatus};
use crate::store::{ChannelName, Content};
use target::{Target, Written};

/// How often a wait looks.
const LOOK: Duration = Duration::from_millis(250);
/// Without a daemon it waits so long.
const DAEMON_PATIENCE: Duration = Duration::from_secs(10);
/// Records that are looked up at once.
const PAGE: u32 = 200;

/// Bring the files of a drop out, as they are complete and verified
#[derive(Args, Debug)]
#[command(after_help = "\
Each file is brought out once: run again, receive goes on where it was, after Ctrl-C, a crash or a reboot too. It ends when \
the network has said that nothing more is there, and waits for what has begun to arrive, and for a first file where the drop \
has had none. With --follow it never ends by itself.

A file comes into DIR whole, or not at all; its name is made harmless, and nothing is overwritten: a second `a.txt` becomes \
`a~1.txt`. A broken one is told of, and the next is read. With `-o -` the bytes go to stdout, one file after another.

What pigeonhole-cp sends is received: give its index with -i. A capability goes into a file, never into an argument.

Progress is a bar on a terminal, and JSON lines on stdout otherwise (on stderr with `-o -`). Exit codes: 0 done, 1 a file is \
broken or something failed, 2 usage, 3 the time of --timeout was up, 4 no daemon, 5 refused, 130 interrupted.

Examples:
  pigeonfs receive inbox -o ~/Downloads
  pigeonfs receive inbox -o - | tar x
  pigeonfs receive friend --read-cap-file friend.cap -o .")]
pub(super) struct Typed {
    /// The drop
    #[arg(value_parser = name)]
    name: ChannelName,
    /// Where to; `-` is stdout [default: the working directory]
    #[arg(short, long, value_name = "DIR", alias = "dest-dir", short_alias = 'd')]
    output: Option<PathBuf>,
    /// Go on as more arrives, until interrupted
    #[arg(long)]
    follow: bool,
    /// Give up after TIME, with exit code 3; nothing is lost [default: never]
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    timeout: Option<Duration>,
    /// Take the read capability of the drop from a file, and keep it under NAME; `-` is stdin
    #[arg(long, value_name = "FILE")]
    read_cap_file: Option<PathBuf>,
    /// With --read-cap-file: the index to begin at, in base64
    #[arg(short, long, value_name = "INDEX", requires = "read_cap_file")]
    index: Option<String>,
    /// As pigeonhole-cp takes a capability; refused
    #[arg(short, long, hide = true, value_name = "CAP")]
    read_cap: Option<OsString>,
    #[command(flatten)]
    daemon: DaemonArgs,
}

pub(super) async fn run(context: &Context, typed: Typed) -> Result<(), Stop> {
    refuse_argv(typed.read_cap.as_ref(), "--read-cap-file")?;
    let capability = typed.read_cap_file.as_deref().map(|path| capability_from(path, typed.index.as_deref()));
    let capability = capability.transpose()?;
    let to_stdout = typed.output.as_deref().is_some_and(|path| path.as_os_str() == "-");
    let directory = typed.output.clone().unwrap_or_else(|| PathBuf::from("."));
    let target = if to_stdout { Target::Stdout } else { Target::directory(&directory)? };
    context
        .with_state(typed.daemon.meant()?, async |link: &mut Link| {
            let mut receiving = Receiving {
                link,
                drop: typed.name.to_string(),
                target: &target,
                progress: Progress::new(context.json, to_stdout),
                cursor: 0,
                written: 0,
                broken: Vec::new(),
            };
            let deadline = typed.timeout.map(|timeout| Instant::now() + timeout);
            let result = receiving.run(capability.clone(), typed.follow, deadline).await;
            receiving.progress.end();
            result
        })
        .await
}

struct Receiving<'a> {
    link: &'a mut Link,
    drop: String,
    target: &'a Target,
    progress: Progress,
    /// Records up to this one are done with.
    cursor: i64,
    written: u64,
    broken: Vec<String>,
}

impl Receiving<'_> {
    async fn run(&mut self, capability: Option<Secret>, follow: bool, deadline: Option<Instant>) -> Result<(), Stop> {
        if let Some(capability) = capability {
            let content = Content::Drop { allow_delete: false };
            self.link.request(Request::Add { name: self.drop.clone(), capability, content }).await?;
        }
        let mut no_daemon_since = None;
        loop {
            // Looked at before what there is: what is settled stays so.
            let channel = channel_of(self.link.request(Request::Status { name: Some(self.drop.clone()) }).await?)?;
            let Some(files) = &channel.files else {
                return Err(Failure::new(
                    FailureKind::Failed,
                    format!("{:?} is a stream, and has no files", self.drop),
                )
                .hint("`pigeonfs read` writes its bytes to stdout; a drop is taken in with `pigeonfs add --drop`")
                .into());
            };
            self.bring_out().await?;
            let ever = files.complete + files.broken > 0;
            if !follow && files.settled && ever {
                return self.end();
            }
            if let Some(file) = &files.current {
                self.progress.at(&display(file), file.done, file.sent_size)?;
            }
            self.check(&channel, deadline, &mut no_daemon_since).await?;
            sleep(deadline.map_or(LOOK, |deadline| LOOK.min(deadline - Instant::now()))).await;
        }
    }

    fn end(&mut self) -> Result<(), Stop> {
        let count = self.written;
        let text = if count == 0 { "nothing new".to_owned() } else { format!("{count} files received") };
        self.progress.tell(&text, &json!({ "event": "done", "files": count, "broken": self.broken.len() }))?;
        if self.broken.is_empty() {
            return Ok(());
        }
        let text = format!("{} of the files are broken: {}", self.broken.len(), self.broken.join("; "));
        Err(Failure::new(FailureKind::Failed, text)
            .hint("the others were received. What is broken has to be sent again; `pigeonfs status NAME` lists it")
            .into())
    }

    /// Brings out what is complete and was not brought out before.
    async fn bring_out(&mut self) -> Result<(), Stop> {
        loop {
            let request = Request::Records { name: self.drop.clone(), after: self.cursor, limit: PAGE };
            let Response::Records(page) = self.link.request(request).await? else { return Err(misunderstood()) };
            for record in &page {
                match record.state.as_str() {
                    // What is arriving is looked at again; nothing is behind it.
                    "incomplete" => return Ok(()),
                    _ if record.delivered || record.part.is_some_and(|part| part > 0 && record.state == "complete") => {
                    }
                    "broken" => self.tell_broken(record).await?,
                    "complete" => self.write(record).await?,
                    _ => return Err(self.is_a_writer()),
                }
                self.cursor = record.record;
            }
            if page.len() < PAGE as usize {
                return Ok(());
            }
        }
    }

    fn is_a_writer(&self) -> Stop {
        Failure::new(
            FailureKind::Refused,
            format!("{:?} is a drop that is written here: nothing arrives in it", self.drop),
        )
        .hint("`pigeonfs share NAME` gives out what its readers need")
        .into()
    }

    async fn tell_broken(&mut self, record: &RecordStatus) -> Result<(), Stop> {
        let reason = record.reason.as_deref().unwrap_or_default();
        self.fail(record, reason).await
    }

    async fn fail(&mut self, record: &RecordStatus, reason: &str) -> Result<(), Stop> {
        let file = display(record);
        let event = json!({ "event": "broken", "file": file, "record": record.record, "reason": reason });
        self.progress.tell(&format!("{file} is broken: {reason}"), &event)?;
        // The list in the error stays short.
        if self.broken.len() < 10 {
            self.broken.push(format!("{file} ({reason})"));
        }
        self.deliver(record).await
    }

    async fn deliver(&mut self, record: &RecordStatus) -> Result<(), Stop> {
        self.link.request(Request::Deliver { name: self.drop.clone(), record: record.record }).await?;
        Ok(())
    }

    async fn write(&mut self, record: &RecordStatus) -> Result<(), Stop> {
        let mut writing = self.target.begin(record)?;
        let mut offset = 0;
        loop {
            if record.directory {
                break;
            }
            let request = Request::Fetch { name: self.drop.clone(), record: record.record, offset };
            let bytes = match self.link.request(request).await {
                Ok(Response::Bytes { bytes, .. }) => bytes,
                Ok(_) => return Err(misunderstood()),
                // What cannot be unpacked, or went to make room, is this file's trouble and not the next one's.
                Err(failure) if failure.kind == FailureKind::Failed => {
                    drop(writing);
                    return self.fail(record, &failure.message).await;
                }
                Err(failure) => return Err(failure.into()),
            };
            if bytes.is_empty() {
                break;
            }
            offset += bytes.len() as u64;
            writing.take(&bytes)?;
            self.progress.at(&display(record), offset, record.size)?;
        }
        let written = writing.end(record)?;
        self.deliver(record).await?;
        self.written += 1;
        let (path, again) = match written {
            Written::Stdout => (None, false),
            Written::At(path) => (Some(path), false),
            Written::WasThere(path) => (Some(path), true),
        };
        let to = path.as_ref().map(|path| path.display().to_string());
        let event = json!({ "event": "received", "file": display(record), "record": record.record,
                            "size": record.size, "path": to, "again": again });
        let arrow = to.as_deref().map(|path| format!(" -> {path}")).unwrap_or_default();
        let text = format!("{}: {}{arrow}", display(record), output::size(record.size));
        self.progress.tell(&text, &event)
    }

    async fn check(
        &mut self,
        channel: &ChannelStatus,
        deadline: Option<Instant>,
        no_daemon_since: &mut Option<Instant>,
    ) -> Result<(), Stop> {
        let waits_for = match channel.files.as_ref().and_then(|files| files.current.as_ref()) {
            Some(file) => format!("{} of {} bytes of {:?} have arrived", file.done, file.sent_size, display(file)),
            None => format!("{} files of {:?} were received", self.written, self.drop),
        };
        if channel.lost {
            return Err(Failure::new(FailureKind::Failed, format!("the network has lost boxes; {waits_for}"))
                .hint("`pigeonfs skip NAME` gives them up; what is behind them is then read")
                .into());
        }
        if channel.paused {
            return Err(Failure::new(
                FailureKind::Failed,
                format!("the cache is full, so nothing is fetched; {waits_for}"),
            )
            .hint("`pigeonfs trim NAME` drops what was received, and makes room")
            .into());
        }
        let Response::Status(status) = self.link.request(Request::Status { name: None }).await? else {
            return Err(misunderstood());
        };
        let now = Instant::now();
        match status.daemon.link {
            LinkStatus::Connected | LinkStatus::NoConsensus => *no_daemon_since = None,
            LinkStatus::NoDaemon | LinkStatus::Refused => {
                let since = *no_daemon_since.get_or_insert(now);
                if now >= since + DAEMON_PATIENCE || deadline.is_some_and(|deadline| now >= deadline) {
                    let why = status.daemon.error.unwrap_or_else(|| "no daemon was found".to_owned());
                    return Err(Failure::new(FailureKind::NoDaemon, format!("{why}; {waits_for}"))
                        .hint("what has arrived is kept; run receive again when a daemon is there")
                        .into());
                }
            }
        }
        if deadline.is_some_and(|deadline| now >= deadline) {
            let hint = channel.beginning();
            return Err(Failure::new(FailureKind::TimedOut, format!("the time is up: {waits_for}"))
                .hint(hint.unwrap_or_else(|| "nothing is lost: run the same command again to go on".to_owned()))
                .into());
        }
        Ok(())
    }
}
