//! `pigeonfs receive`

mod target;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::add::capability_from;
use super::context::{Context, channel_of, misunderstood};
use super::daemon::DaemonArgs;
use super::progress::{Progress, bound_of, without_daemon};
use super::send::{index_from, refuse_argv};
use super::status::display;
use super::{Stop, failure, name, output, seconds};
use crate::engine::control::{Failure, FailureKind, Link, Request, Response, Secret};
use crate::engine::status::{ChannelStatus, LinkStatus, RecordStatus};
use crate::store::{ChannelName, Content};
use crate::text::shown_path;
use target::{Target, Written};

/// How often a wait looks.
const LOOK: Duration = Duration::from_millis(250);
/// Without a daemon it waits so long.
const DAEMON_PATIENCE: Duration = Duration::from_secs(10);
/// What could not be written here is tried again after so long.
const AGAIN: Duration = Duration::from_secs(10);
/// Files that an error names.
const NAMED: usize = 10;
/// Records that are looked up at once.
const PAGE: u32 = 200;

/// Bring the files of a drop out, as they are complete and verified
#[derive(Args, Debug)]
#[command(after_help = "\
Each file is brought out once: run again, receive goes on where it was, after Ctrl-C, a crash or a reboot too. It ends when \
the network has said that nothing more is there, and waits for what has begun to arrive, and for a first file where the drop \
has had none. With --follow it never ends by itself.

A file comes into DIR whole, or not at all. Without -o, DIR is ./NAME, which is made, private to you. Names are made harmless: \
nothing is overwritten (a second `a.txt` becomes `a~1.txt`), no name begins with a dash, none with a dot unless --dotfiles \
allows it, and no file is executable unless --keep-mode is given. Below DIR only directories are entered that an earlier receive \
has made; where you have one of the same name, another is made beside it.

A broken file is reported, and the next is read: broken is what the network lost or what does not fit its digest. What this \
machine could not write (a full disk, a directory that cannot be entered) is reported, kept, and tried again; exit code 1 says \
that some of it is left. With `-o -` the bytes go to stdout, one file after another.

What pigeonhole-cp sends is received: give its index with --index-file. A capability and an index go into a file, never into an \
argument.

Progress is a line on a terminal, a line a minute on stderr elsewhere, and JSON lines on stdout with --json (on stderr with \
`-o -`). Exit codes: 0 done, 1 a file is \
broken or something failed, 2 usage, 3 the time of --timeout was up, 4 no daemon, 5 refused, 130 interrupted, 141 nobody read the output.

Examples:
  pigeonfs receive inbox                         into ./inbox
  pigeonfs receive inbox -o ~/Downloads
  pigeonfs receive inbox -o - | tar x
  pigeonfs receive friend --read-cap-file friend.cap -o .")]
pub(super) struct Typed {
    /// The drop
    #[arg(value_parser = name)]
    name: ChannelName,
    /// The directory to put the files into, one of your own; `-` is stdout [default: ./NAME, made if missing]
    #[arg(short, long, value_name = "DIR", alias = "dest-dir", short_alias = 'd')]
    output: Option<PathBuf>,
    /// Let names begin with a dot, as the sender chose
    #[arg(long)]
    dotfiles: bool,
    /// Give files the permission bits that the sender told, instead of those that your umask allows and no execute bit
    #[arg(long)]
    keep_mode: bool,
    /// Go on as more arrives, until interrupted
    #[arg(long)]
    follow: bool,
    /// Give up after TIME, with exit code 3; nothing is lost [default: never]
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    timeout: Option<Duration>,
    /// Take the read capability of the drop from a file, and keep it under NAME; `-` is stdin
    #[arg(long, value_name = "FILE")]
    read_cap_file: Option<PathBuf>,
    /// With --read-cap-file: take the index to begin at, in base64, from a file; `-` is stdin
    #[arg(long, value_name = "FILE", requires = "read_cap_file")]
    index_file: Option<PathBuf>,
    /// As pigeonhole-cp takes an index; refused
    #[arg(short, long, hide = true, value_name = "INDEX")]
    index: Option<OsString>,
    /// As pigeonhole-cp takes a capability; refused
    #[arg(short, long, hide = true, value_name = "CAP")]
    read_cap: Option<OsString>,
    #[command(flatten)]
    daemon: DaemonArgs,
}

impl Typed {
    /// Whether it comes with a capability of its own.
    pub(super) fn takes_capability(&self) -> bool {
        self.read_cap_file.is_some()
    }
}

pub(super) async fn run(context: &Context, typed: Typed) -> Result<(), Stop> {
    refuse_argv("a capability", typed.read_cap.as_ref(), "--read-cap-file")?;
    refuse_argv("an index", typed.index.as_ref(), "--index-file")?;
    if typed.index_file == typed.read_cap_file
        && typed.index_file.as_deref().is_some_and(|path| path.as_os_str() == "-")
    {
        return Err(Failure::new(FailureKind::Usage, "stdin cannot be both the capability and the index").into());
    }
    let index = typed.index_file.as_deref().map(index_from).transpose()?;
    let index = index.as_deref().map(String::as_str);
    let capability = typed.read_cap_file.as_deref().map(|path| capability_from(path, index));
    let capability = capability.transpose()?;
    let to_stdout = typed.output.as_deref().is_some_and(|path| path.as_os_str() == "-");
    let policy = target::policy(typed.dotfiles, typed.keep_mode);
    let target = match &typed.output {
        Some(_) if to_stdout => Target::Stdout,
        Some(path) => Target::chosen(path, policy)?,
        None => Target::of_the_drop(typed.name.as_str(), policy)?,
    };
    context
        .with_state(typed.daemon.meant()?, async |link: &Link| {
            let mut receiving = Receiving {
                link,
                drop: typed.name.to_string(),
                target: &target,
                progress: Progress::new(context.json, to_stdout),
                cursor: 0,
                written: 0,
                broken: Trouble::default(),
                kept: BTreeSet::new(),
                unwritten: Trouble::default(),
                try_again: Instant::now() + AGAIN,
            };
            let deadline = typed.timeout.map(|timeout| Instant::now() + timeout);
            let result = receiving.run(capability.clone(), typed.follow, deadline).await;
            receiving.progress.end();
            result
        })
        .await
}

struct Receiving<'a> {
    link: &'a Link,
    drop: String,
    target: &'a Target,
    progress: Progress,
    /// Records up to this one are done with.
    cursor: i64,
    written: u64,
    broken: Trouble,
    /// Records that could not be written here, and are tried again.
    kept: BTreeSet<i64>,
    unwritten: Trouble,
    /// When.
    try_again: Instant,
}

/// Files that something is wrong with: how many, and what is wrong with the first of them.
#[derive(Default)]
struct Trouble {
    count: usize,
    first: Vec<String>,
}

impl Trouble {
    fn add(&mut self, file: &str, reason: &str) {
        self.count += 1;
        // The list in the error stays short.
        if self.first.len() < NAMED {
            self.first.push(format!("{file} ({reason})"));
        }
    }

    fn list(&self) -> String {
        let more = if self.count > self.first.len() { "; ..." } else { "" };
        format!("{}{more}", self.first.join("; "))
    }
}

/// Why a file did not come out.
enum Fault {
    /// Its bytes are wrong, on every machine.
    Broken(String),
    /// This machine could not read or write it now.
    Here(String),
    /// The verb ends.
    Stop(Stop),
}

impl From<Stop> for Fault {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

impl Receiving<'_> {
    async fn run(&mut self, capability: Option<Secret>, follow: bool, deadline: Option<Instant>) -> Result<(), Stop> {
        if let Some(capability) = capability {
            let content = Content::Drop { allow_delete: false };
            let name = self.drop.clone();
            let add = Request::Add { name, capability, content, strict_network: false, kept_until: None };
            if let Response::Added { warnings, .. } = self.link.request(add).await? {
                warnings.iter().for_each(|warning| failure::warn(warning));
            }
        }
        let mut no_daemon_since = None;
        loop {
            // Looked at before what there is: what is settled stays so.
            let channel = channel_of(self.link.request(Request::Status { name: Some(self.drop.clone()) }).await?)?;
            let Some(files) = &channel.files else {
                // Its first box is to tell.
                if channel.kind_is_told {
                    self.progress.show(&self.drop, 0, None)?;
                    self.check(&channel, deadline, &mut no_daemon_since).await?;
                    sleep(deadline.map_or(LOOK, |deadline| LOOK.min(deadline - Instant::now()))).await;
                    continue;
                }
                return Err(Failure::new(
                    FailureKind::Failed,
                    format!("{:?} is a stream, and has no files", self.drop),
                )
                .hint("`pigeonfs read` writes its bytes to stdout; a drop is taken in with `pigeonfs add --drop`")
                .into());
            };
            self.bring_out().await?;
            let ends = !follow && files.settled;
            if !self.kept.is_empty() && (ends || Instant::now() >= self.try_again) {
                self.bring_out_again().await?;
            }
            // Boxes without a file are of files that were deleted.
            let ever = files.complete + files.broken > 0 || channel.boxes > 0;
            if ends && ever {
                return self.end();
            }
            match &files.current {
                Some(file) => self.progress.at(&display(file), file.done, file.sent_size)?,
                None => self.progress.show(&self.drop, 0, None)?,
            }
            self.check(&channel, deadline, &mut no_daemon_since).await?;
            sleep(deadline.map_or(LOOK, |deadline| LOOK.min(deadline - Instant::now()))).await;
        }
    }

    fn end(&mut self) -> Result<(), Stop> {
        let count = self.written;
        let text = if count == 0 { "nothing new".to_owned() } else { format!("{count} files received") };
        let event = json!({ "event": "done", "files": count, "broken": self.broken.count, "kept": self.kept.len() });
        self.progress.tell(&text, &event)?;
        if !self.kept.is_empty() {
            let (count, list) = (self.kept.len(), self.unwritten.list());
            return Err(Failure::new(FailureKind::Failed, format!("{count} files could not be written here: {list}"))
                .hint("nothing of them is lost: mend that, and run the same command again")
                .into());
        }
        if self.broken.count == 0 {
            return Ok(());
        }
        let text = format!("{} of the files are broken: {}", self.broken.count, self.broken.list());
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
                    "broken" => self.fail(record, record.reason.as_deref().unwrap_or_default()).await?,
                    "complete" => self.receive(record).await?,
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

    /// Tries again what could not be written here.
    async fn bring_out_again(&mut self) -> Result<(), Stop> {
        for id in self.kept.clone() {
            let request = Request::Record { name: self.drop.clone(), record: id };
            let Response::Record(record) = self.link.request(request).await? else { return Err(misunderstood()) };
            if record.delivered {
                self.kept.remove(&id);
            } else {
                self.receive(&record).await?;
            }
        }
        self.try_again = Instant::now() + AGAIN;
        Ok(())
    }

    /// Brings one file out, and says what came of it.
    async fn receive(&mut self, record: &RecordStatus) -> Result<(), Stop> {
        match self.write(record).await {
            Ok(()) => {
                self.kept.remove(&record.record);
                Ok(())
            }
            Err(Fault::Broken(reason)) => {
                self.kept.remove(&record.record);
                self.fail(record, &reason).await
            }
            Err(Fault::Here(reason)) => {
                if !self.kept.insert(record.record) {
                    return Ok(());
                }
                let file = display(record);
                self.unwritten.add(&file, &reason);
                let event = json!({ "event": "kept", "file": file, "record": record.record, "reason": reason });
                self.progress.tell(&format!("{file} could not be written, and is tried again: {reason}"), &event)
            }
            Err(Fault::Stop(stop)) => Err(stop),
        }
    }

    async fn fail(&mut self, record: &RecordStatus, reason: &str) -> Result<(), Stop> {
        let file = display(record);
        let event = json!({ "event": "broken", "file": file, "record": record.record, "reason": reason });
        self.progress.tell(&format!("{file} is broken: {reason}"), &event)?;
        self.broken.add(&file, reason);
        self.deliver(record).await
    }

    async fn deliver(&mut self, record: &RecordStatus) -> Result<(), Stop> {
        self.link.request(Request::Deliver { name: self.drop.clone(), record: record.record }).await?;
        Ok(())
    }

    async fn write(&mut self, record: &RecordStatus) -> Result<(), Fault> {
        let target = self.target;
        // What went to stdout cannot be taken back, so nothing may follow half of a file there.
        let here = |failure: Failure| match target.is_stdout() {
            true => Fault::Stop(failure.into()),
            false => Fault::Here(failure.message),
        };
        let mut writing = target.begin(record).map_err(here)?;
        let mut offset = 0;
        loop {
            if record.directory {
                break;
            }
            let request = Request::Fetch { name: self.drop.clone(), record: record.record, offset };
            let bytes = match self.link.request(request).await {
                Ok(Response::Bytes { bytes, .. }) => bytes,
                Ok(Response::Broken { reason }) if offset == 0 || !target.is_stdout() => {
                    return Err(Fault::Broken(reason));
                }
                Ok(_) => return Err(misunderstood().into()),
                Err(failure) if failure.kind == FailureKind::Failed => return Err(here(failure)),
                Err(failure) => return Err(Fault::Stop(failure.into())),
            };
            if bytes.is_empty() {
                break;
            }
            offset += bytes.len() as u64;
            writing.take(&bytes).map_err(|stop| stop_or(stop, here))?;
            self.progress.at(&display(record), offset, record.size)?;
        }
        let written = writing.end(record).map_err(|stop| stop_or(stop, here))?;
        self.deliver(record).await?;
        self.written += 1;
        let (path, again) = match written {
            Written::Stdout => (None, false),
            Written::At(path) => (Some(path), false),
            Written::WasThere(path) => (Some(path), true),
        };
        let to = path.as_deref().map(shown_path);
        let event = json!({ "event": "received", "file": display(record), "record": record.record,
                            "size": record.size, "path": to, "again": again });
        let arrow = to.as_deref().map(|path| format!(" -> {path}")).unwrap_or_default();
        let text = format!("{}: {}{arrow}", display(record), output::size(record.size));
        Ok(self.progress.tell(&text, &event)?)
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
        let waits = without_daemon(&status.daemon, no_daemon_since);
        self.progress.waits_for(waits.or_else(|| Some(bound_of(channel).to_owned())));
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

/// A failure as `here` takes it; all else ends the verb.
fn stop_or(stop: Stop, here: impl FnOnce(Failure) -> Fault) -> Fault {
    match stop {
        Stop::Failure(failure) => here(failure),
        Stop::BrokenPipe => Fault::Stop(stop),
    }
}
