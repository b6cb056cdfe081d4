//! Where the log goes: to stderr or to a file, and as much of it as was asked for.
//!
//! Lines are written by a thread of their own. Whoever logs never waits for it: stderr may be a pipe that nobody reads, or
//! a terminal that was stopped with Ctrl-S, and a call through the mount must not wait for either. What does not fit
//! into the queue is dropped and counted.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{EnvFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::log_format::{Lines, LogFormat};
use crate::engine::control::{Failure, FailureKind};
use crate::store::{ChannelName, PrivateDir, Store};
use crate::text::shown_line;

/// A file is begun anew at this size, and the one before is kept as FILE.old.
const LARGEST: u64 = 4 << 20;
/// Lines that may wait to be written.
const QUEUE_LINES: usize = 1024;
/// The log of a mount in the background.
const STATE_LOG: &str = "mount.log";
/// What the log is given to be written before it goes elsewhere, or before a panic goes on.
const PATIENCE: Duration = Duration::from_millis(500);
/// What a mount that ends gives its last lines.
const LAST_LINES: Duration = Duration::from_secs(2);
/// Libraries that log what they send and receive.
const TELLS_PAYLOADS: &[&str] = &["tungstenite", "tokio_tungstenite"];

/// Set once the log goes to a file.
static FILE: OnceLock<Mutex<LogFile>> = OnceLock::new();
/// Set once the state is known to be sealed.
static SEALED: AtomicBool = AtomicBool::new(false);
/// The store of a sealed state that is mounted.
static STORE: Mutex<Option<Store>> = Mutex::new(None);
static QUEUE: Queue = Queue { state: Mutex::new(State::new()), changed: Condvar::new() };

/// Starts the log. `foreground` is for verbs that run until they are stopped: those say more unasked. `plain` leaves out
/// the colours that a terminal would get, where the log is to go elsewhere later.
pub(super) fn start(
    filter: Option<&str>,
    format: LogFormat,
    verbose: u8,
    quiet: bool,
    foreground: bool,
    plain: bool,
) -> Result<(), Failure> {
    let failed = |what: &dyn std::fmt::Display| Failure::new(FailureKind::Failed, format!("no log: {what}"));
    let level = match (quiet, verbose) {
        (true, _) => "error",
        (_, 0) if foreground => "info",
        (_, 0) => "warn",
        (_, 1) => "debug",
        (_, _) => "trace",
    };
    let text = filter.unwrap_or(level);
    let filter = EnvFilter::try_new(directives(text)).map_err(|error| {
        Failure::new(FailureKind::Usage, format!("{text:?} is not a log filter: {error}"))
            .hint("such as `info`, or `pigeonfs::engine=debug,warn`, in --log or $PIGEONFS_LOG")
    })?;
    {
        let mut queue = QUEUE.lock();
        queue.is_served = true;
        queue.patience_at_end = foreground.then_some(LAST_LINES);
    }
    std::thread::Builder::new().name("log".to_owned()).spawn(|| QUEUE.serve()).map_err(|error| failed(&error))?;
    std::panic::set_hook(Box::new(|panic| {
        // What a panic says may name what it is about.
        let line = match panic.location().filter(|_| is_sealed()) {
            Some(place) => format!("panic: {place}\n"),
            None => format!("panic: {panic}\n"),
        };
        QUEUE.push(Entry::Line(line.into_bytes()));
        flush(Some(PATIENCE));
    }));
    let terminal = io::stderr().is_terminal() && !plain;
    let colours = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(colours)
        .event_format(Lines::new(format, colours, !terminal || foreground))
        .with_writer(|| Destination);
    let no_payloads =
        filter_fn(|metadata| *metadata.level() <= LevelFilter::WARN || !tells_payloads(metadata.target()));
    tracing_subscriber::registry().with(filter).with(no_payloads).with(lines).try_init().map_err(|error| failed(&error))
}

/// A level without a name is that of this program. Of a library below nothing beyond warnings is told, unless a
/// directive names it.
fn directives(text: &str) -> String {
    let meant = |directive: &str| match directive.trim().parse::<LevelFilter>() {
        Ok(level) if !directive.trim().is_empty() => {
            format!("{},{}={level}", level.min(LevelFilter::WARN), env!("CARGO_CRATE_NAME"))
        }
        _ => directive.to_owned(),
    };
    text.split(',').map(meant).collect::<Vec<_>>().join(",")
}

fn tells_payloads(target: &str) -> bool {
    TELLS_PAYLOADS
        .iter()
        .any(|name| target.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(':')))
}

/// From here on what is logged outside of the state names nothing that is in it.
pub(super) fn seal() {
    SEALED.store(true, Ordering::Relaxed);
}

/// Whether the state is sealed.
pub(super) fn is_sealed() -> bool {
    SEALED.load(Ordering::Relaxed)
}

/// From here on the lines are kept in this store too, whole.
pub(super) fn to_store(store: Store) {
    *STORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(store);
}

/// Whether the lines are kept in the state.
pub(super) fn is_kept() -> bool {
    STORE.lock().unwrap_or_else(PoisonError::into_inner).is_some()
}

/// Logs a line of a sealed state.
pub(super) fn push_sealed(line: SealedLine) {
    QUEUE.push(Entry::Sealed(line));
}

/// A line of the log of a sealed state.
pub(super) struct SealedLine {
    /// What may be seen.
    pub(super) shown: String,
    /// The channel that it is about, whose number may be seen.
    pub(super) channel: Option<String>,
    /// The whole line; `None`: it is not kept.
    pub(super) kept: Option<String>,
}

impl SealedLine {
    /// Where the names of channels are known, by their numbers.
    fn line(&self, store: Option<&Store>) -> String {
        let known = |name: &String| store?.by_name(&ChannelName::parse(name).ok()?).ok()?;
        match self.channel.as_ref().and_then(known) {
            Some(channel) => format!("{} (channel {})\n", self.shown, channel.id),
            None => format!("{}\n", self.shown),
        }
    }
}

/// From here on the log goes to this file, behind what is in it.
pub(super) fn to_file(path: &Path) -> Result<(), Failure> {
    let place = std::path::absolute(path).map(Place::Path);
    to(place.and_then(LogFile::open).map_err(|error| (path.to_owned(), error)))
}

/// From here on the log goes to `mount.log` in this state, behind what is in it. No link is followed there.
pub(super) fn to_state(state: &Path) -> Result<(), Failure> {
    let place = PrivateDir::open(state).map(Place::State).map_err(io::Error::from);
    to(place.and_then(LogFile::open).map_err(|error| (state.join(STATE_LOG), error)))
}

fn to(file: Result<LogFile, (PathBuf, io::Error)>) -> Result<(), Failure> {
    let file = file.map_err(|(path, error)| {
        Failure::new(FailureKind::Usage, format!("the log file {} cannot be written to: {error}", path.display()))
    })?;
    flush(Some(PATIENCE));
    FILE.set(Mutex::new(file)).map_err(|_| Failure::new(FailureKind::Failed, "the log goes to a file already"))
}

/// The file that the log goes to, for what is no line of it.
pub(super) fn file() -> Option<File> {
    FILE.get()?.lock().unwrap_or_else(PoisonError::into_inner).file.try_clone().ok()
}

/// Waits until all that was logged is written, at most for `patience`. Whether it is.
pub(super) fn flush(patience: Option<Duration>) -> bool {
    QUEUE.flush(patience)
}

/// Waits for the last lines: for a person who stopped the terminal, but not with a mount that is to end.
pub(super) fn finish() {
    let patience = QUEUE.lock().patience_at_end;
    flush(patience);
}

/// Writes something else than a line of the log to stderr, in its turn.
pub(super) fn tell(text: Vec<u8>) {
    if QUEUE.lock().is_served {
        QUEUE.push(Entry::ToStderr(text));
        finish();
    } else {
        // Where nobody can be told, the exit code is what is left.
        let _ = io::stderr().write_all(&text);
    }
}

/// Lines that wait to be written.
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    lines: VecDeque<Entry>,
    dropped: u64,
    /// Lines were taken, and are not written yet.
    is_writing: bool,
    /// There is a thread that writes.
    is_served: bool,
    /// What the process gives its last lines to be written; none: any time.
    patience_at_end: Option<Duration>,
}

enum Entry {
    Line(Vec<u8>),
    Sealed(SealedLine),
    ToStderr(Vec<u8>),
}

impl State {
    const fn new() -> Self {
        Self { lines: VecDeque::new(), dropped: 0, is_writing: false, is_served: false, patience_at_end: None }
    }

    fn is_done(&self) -> bool {
        self.lines.is_empty() && !self.is_writing
    }
}

impl Queue {
    fn push(&self, line: Entry) {
        let mut state = self.lock();
        if state.lines.len() < QUEUE_LINES {
            state.lines.push_back(line);
            drop(state);
            self.changed.notify_all();
        } else {
            state.dropped += 1;
        }
    }

    /// Writes what comes, for ever.
    fn serve(&self) {
        loop {
            let idle = |state: &mut State| state.lines.is_empty();
            let mut state = self.changed.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner);
            let (lines, dropped) = (std::mem::take(&mut state.lines), std::mem::take(&mut state.dropped));
            state.is_writing = true;
            drop(state);
            let store = STORE.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let mut kept = Vec::new();
            for entry in &lines {
                match entry {
                    Entry::Line(line) => write(line),
                    Entry::Sealed(line) => {
                        write(line.line(store.as_ref()).as_bytes());
                        kept.extend(line.kept.clone());
                    }
                    Entry::ToStderr(text) => drop(io::stderr().write_all(text)),
                }
            }
            if let Some(store) = store.filter(|_| !kept.is_empty()) {
                // Nobody waits for it, and where the store is closed there is nothing to say.
                drop(store.log(kept));
            }
            if dropped > 0 {
                write(format!("{dropped} lines of the log were dropped here: nobody read it\n").as_bytes());
            }
            self.lock().is_writing = false;
            self.changed.notify_all();
        }
    }

    fn flush(&self, patience: Option<Duration>) -> bool {
        let until = patience.map(|patience| Instant::now() + patience);
        let mut state = self.lock();
        while state.is_served && !state.is_done() {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            state = match left {
                Some(Duration::ZERO) => return false,
                Some(left) => self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A log that cannot be written to, as on a full disk, is no reason to stop: an error from here would be printed to a
/// stderr that may be the same file, and nobody survives that.
fn write(line: &[u8]) {
    let _ = match FILE.get() {
        Some(file) => file.lock().unwrap_or_else(PoisonError::into_inner).append(line).map(drop),
        None => io::stderr().write_all(line),
    };
}

struct Destination;

impl Write for Destination {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // One event comes at a time: what is a line within it was put there by whoever chose a name.
        QUEUE.push(Entry::Line(shown_line(&String::from_utf8_lossy(line)).into_bytes()));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct LogFile {
    place: Place,
    file: File,
    size: u64,
}

/// Where a log is kept.
enum Place {
    /// Where a person said.
    Path(PathBuf),
    /// In a state, whose directory may have been moved since.
    State(PrivateDir),
}

impl Place {
    fn open(&self) -> io::Result<File> {
        match self {
            Self::Path(path) => OpenOptions::new().create(true).append(true).mode(0o600).open(path),
            Self::State(state) => Ok(state.file(STATE_LOG, OFlags::CREATE | OFlags::WRONLY | OFlags::APPEND)?),
        }
    }

    fn keep_as_old(&self) -> io::Result<()> {
        match self {
            Self::Path(path) => {
                let mut old = path.clone().into_os_string();
                old.push(".old");
                fs::rename(path, old)
            }
            Self::State(state) => Ok(state.rename(STATE_LOG, format!("{STATE_LOG}.old"))?),
        }
    }
}

impl LogFile {
    fn open(place: Place) -> io::Result<Self> {
        let file = place.open()?;
        let size = file.metadata()?.len();
        Ok(Self { place, file, size })
    }

    fn append(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.size + line.len() as u64 > LARGEST && self.file.metadata()?.is_file() {
            self.place.keep_as_old()?;
            self.file = self.place.open()?;
            self.size = self.file.metadata()?.len();
        }
        // A line that is cut short by a full disk is not worth a second try.
        let written = self.file.write(line)?;
        self.size += written as u64;
        Ok(written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_file_is_begun_anew_and_the_one_before_is_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        let line = vec![b'x'; 1 << 20];
        for name in ["log", STATE_LOG] {
            let place = || match name {
                STATE_LOG => Place::State(PrivateDir::open(dir.path()).expect("ours")),
                _ => Place::Path(dir.path().join(name)),
            };
            let mut file = LogFile::open(place()).expect("opened");
            for _ in 0..5 {
                file.append(&line).expect("written");
            }
            let size = |name: &str| fs::metadata(dir.path().join(name)).expect("there").len();
            assert_eq!((size(name), size(&format!("{name}.old"))), (1 << 20, 4 << 20));
            assert_eq!(LogFile::open(place()).expect("opened again").size, 1 << 20);
        }
    }

    #[test]
    fn a_link_that_was_planted_in_a_state_is_not_followed() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("target"), "untouched").expect("written");
        std::os::unix::fs::symlink("target", dir.path().join(STATE_LOG)).expect("a link");
        assert!(to_state(dir.path()).is_err());
        assert_eq!(fs::read(dir.path().join("target")).expect("there"), b"untouched");
    }

    #[test]
    fn a_level_is_that_of_this_program_and_libraries_are_told_of_where_they_are_named() {
        assert_eq!(directives("trace"), "warn,pigeonfs=trace");
        assert_eq!(directives("error"), "error,pigeonfs=error");
        assert_eq!(directives("off"), "off,pigeonfs=off");
        assert_eq!(directives("pigeonfs::engine=debug, Info"), "pigeonfs::engine=debug,warn,pigeonfs=info");
        assert_eq!(directives("debug,fuser=debug"), "warn,pigeonfs=debug,fuser=debug");
        assert!(tells_payloads("tungstenite::protocol") && tells_payloads("tokio_tungstenite"));
        assert!(!tells_payloads("tungstenites") && !tells_payloads("pigeonfs::thin"));
    }

    #[test]
    fn what_nobody_writes_is_dropped_and_counted_and_nobody_waits_for_ever() {
        let queue = Queue { state: Mutex::new(State::new()), changed: Condvar::new() };
        (0..QUEUE_LINES + 7).for_each(|_| queue.push(Entry::Line(b"line\n".to_vec())));
        let mut state = queue.lock();
        assert_eq!((state.lines.len(), state.dropped), (QUEUE_LINES, 7));
        state.is_served = true;
        drop(state);
        assert!(!queue.flush(Some(Duration::from_millis(10))), "nothing was written");
        queue.lock().lines.clear();
        assert!(queue.flush(None));
    }
}
