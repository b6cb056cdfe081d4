//! A mount with no network, in which a file can be put into any state.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pigeonfs::bacap::WriteCap;
use pigeonfs::channel::Linger;
use pigeonfs::drop::{Header, SyncKey};
use pigeonfs::engine::{Daemon, Owner, OwnerKind};
use pigeonfs::fs::{Fs, Options};
use pigeonfs::mount::{MountOptions, Session};
use pigeonfs::store::{
    Arrival, BoxSeq, BoxState, ChannelId, ChannelName, Content, DropSlice, Limits, NetworkId, Store,
};
use tempfile::TempDir;

/// What waits in these tests waits in vain.
const IN_VAIN: Duration = Duration::from_millis(150);

/// It is unmounted when it goes, also when a test fails.
pub(crate) struct World {
    pub(crate) path: PathBuf,
    session: Session,
    owner: Arc<Owner>,
    fs: Arc<Fs>,
    runtime: tokio::runtime::Runtime,
    made: AtomicU64,
    _root: TempDir,
}

impl World {
    /// A mount with these options, as they are typed.
    pub(crate) fn mounted(typed: &str) -> Self {
        let rest = Duration::from_secs(3600);
        let mut options = Options { read_timeout: IN_VAIN, sync_timeout: IN_VAIN, rest, ..Options::default() };
        let mut limits = Limits::default();
        for option in typed.split_whitespace() {
            match option.split_once('=').unwrap_or((option, "")) {
                ("--read-only", _) => options.read_only = true,
                ("--truncate", word) => options.truncate = word.parse().expect("a choice"),
                ("--fsync", word) => options.fsync = word.parse().expect("a choice"),
                ("--spool-limit", bytes) => limits.spool_bytes = bytes.parse().expect("bytes"),
                ("--cache-limit", bytes) => limits.cache_bytes = bytes.parse().expect("bytes"),
                (other, _) => panic!("the option {other}"),
            }
        }
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("mnt");
        std::fs::create_dir(&path).expect("a mount point");
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let guard = runtime.enter();
        let daemon = Daemon::Discover(pigeonfs::thin::Discovery::default());
        let state = root.path().join("state");
        // Nothing is sealed by itself, so that each state stays what it is.
        let linger = Linger::with_pause(Duration::from_secs(3600));
        let owner = Owner::open_with(&state, daemon, OwnerKind::Mount, linger, limits).expect("a fresh state");
        let fs = Arc::new(Fs::new(Arc::clone(&owner), options));
        let session = Session::start(&path, Arc::clone(&fs), runtime.handle().clone(), &MountOptions::default())
            .expect("mounted");
        drop(guard);
        Self { path, session, owner, fs, runtime, made: AtomicU64::new(0), _root: root }
    }

    fn store(&self) -> &Store {
        self.owner.store()
    }

    /// A name that nothing has.
    pub(crate) fn free(&self) -> String {
        format!("f{}", self.made.fetch_add(1, Ordering::Relaxed))
    }

    /// Makes a file in this state; says its name, and that of its channel.
    pub(crate) fn make(&self, state: &str) -> (String, String) {
        let name = self.free();
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.made.load(Ordering::Relaxed).to_le_bytes());
        let cap = WriteCap::from_seed(&seed);
        let channel = ChannelName::parse(&name).expect("a name");
        match state {
            "absent" | "free" => {}
            "empty" | "queued" | "shared" | "sent" | "stored" | "fenced" | "trimmed" => {
                let id = self.store().create_stream(channel, cap).wait().expect("made");
                self.write(id, state);
            }
            "new" | "part" | "end" | "late" | "skipped" | "trimmed reader" => {
                let id = self.store().add_reader(channel, cap.read_cap().clone()).wait().expect("added");
                self.arrive(id, state);
            }
            "outbox" => std::fs::create_dir(self.path.join(&name)).expect("a drop"),
            "staged" | "unfinished" | "sealed" | "launched" => {
                std::fs::create_dir(self.path.join(&name)).expect("a drop");
                self.put(&name, state);
                return (format!("{name}/f"), name);
            }
            "inbox" => drop(self.add_drop(channel, &cap)),
            "arrived" => {
                self.arrive_whole(self.add_drop(channel, &cap), &cap, &name);
                return (format!("{name}/f"), name);
            }
            other => panic!("a file that is {other}"),
        }
        (name.clone(), name)
    }

    fn add_drop(&self, name: ChannelName, cap: &WriteCap) -> ChannelId {
        let content = Content::Drop { allow_delete: false };
        self.store().add(name, cap.read_cap().clone(), content).wait().expect("added")
    }

    /// Writes a file into a drop of ours.
    fn put(&self, name: &str, state: &str) {
        let path = self.path.join(name).join("f");
        if state == "unfinished" {
            let killed = "exec 3>\"$0\"; printf abc >&3; kill -9 $$";
            let ended = std::process::Command::new("sh").args(["-c", killed]).arg(&path).status().expect("a shell");
            assert_eq!(ended.code(), None, "killed");
            return self.until_state(&path, "unfinished");
        }
        std::fs::write(&path, "abc").expect("written");
        self.until_state(&path, "settling");
        if state == "staged" {
            return;
        }
        let rested = std::time::Instant::now() + Duration::from_secs(7200);
        self.fs.settle(rested, Duration::from_secs(3600)).expect("settled");
        self.until_state(&path, "waiting");
        if state == "launched" {
            let store = self.store();
            let channel = store.by_name(&ChannelName::parse(name).expect("a name")).expect("asked").expect("there");
            let record = store.records(channel.id, None, 1).expect("asked").remove(0);
            let mut payload = record.header.expect("a header").encode(channel.max_plaintext).expect("short");
            let head_bytes = payload.len() as u64;
            payload.extend_from_slice(b"abc");
            let slice = DropSlice {
                record: record.id,
                rewrites: channel.rewrites,
                max_plaintext: channel.max_plaintext,
                head_bytes,
                position: 0,
                boxes: vec![payload],
            };
            store.fill(channel.id, slice).wait().expect("filled");
            store.bind_network(channel.id, NetworkId::new([[7; 32]])).wait().expect("bound");
            store
                .launch(channel.id, channel.rewrites, vec![BoxSeq(0)], NetworkId::new([[7; 32]]))
                .wait()
                .expect("launched");
        }
    }

    /// A close is over for its program before the mount hears of it.
    fn until_state(&self, path: &std::path::Path, state: &str) {
        let mut found = [0; 32];
        let until = std::time::Instant::now() + Duration::from_secs(60);
        loop {
            let count = rustix::fs::getxattr(path, "user.pigeonhole.state", &mut found[..]).expect("a state");
            if &found[..count] == state.as_bytes() {
                return;
            }
            assert!(std::time::Instant::now() < until, "{}: not {state}", path.display());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Has a file arrive in a drop that is read.
    fn arrive_whole(&self, id: ChannelId, cap: &WriteCap, name: &str) {
        let sync = SyncKey::of(cap.read_cap()).at(cap.read_cap().index().counter());
        let header = Header { name: "f".to_owned(), size: 3, sync: Some(sync), ..Header::default() };
        let mut payload = header.encode(1500).expect("short");
        payload.extend_from_slice(b"abc");
        self.store().received(id, vec![(BoxSeq(0), Arrival::Message(payload))]).wait().expect("kept");
        self.until_state_is_there(&self.path.join(name).join("f"));
    }

    /// The engine makes boxes into files in its own time.
    fn until_state_is_there(&self, path: &std::path::Path) {
        let until = std::time::Instant::now() + Duration::from_secs(60);
        while !path.exists() {
            assert!(std::time::Instant::now() < until, "{}: not there", path.display());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn write(&self, id: ChannelId, state: &str) {
        let store = self.store();
        if state == "empty" {
            return;
        }
        let append = |text: &str| {
            store.append(id, text.into(), None).wait().expect("accepted");
            assert!(state == "queued" || state == "shared" || store.seal_tail(id).wait().expect("sealed"));
        };
        append("abc");
        let mut boxes = vec![BoxSeq(0)];
        if state == "trimmed" {
            append("def");
            boxes.push(BoxSeq(1));
        }
        match state {
            "queued" => return,
            "shared" => return drop(store.reveal(id, false).wait().expect("shown")),
            _ => {}
        }
        store.bind_network(id, NetworkId::new([[7; 32]])).wait().expect("bound");
        store.launch(id, 0, boxes.clone(), NetworkId::new([[7; 32]])).wait().expect("launched");
        match state {
            "sent" => {}
            "fenced" => store.fence(id, "a test says so".to_owned()).wait().expect("fenced"),
            _ => store.confirm(id, boxes, BoxState::Stored).wait().expect("confirmed"),
        }
        if state == "trimmed" {
            assert_eq!(store.trim(id, 0).wait(), Ok(3));
        }
    }

    fn arrive(&self, id: ChannelId, state: &str) {
        let message = |seq, text: &str| (BoxSeq(seq), Arrival::Message(text.into()));
        let arrivals = match state {
            "new" => return,
            "part" => vec![message(0, "abc")],
            "end" => vec![message(0, "abc"), (BoxSeq(1), Arrival::NotYet)],
            "late" | "skipped" => vec![message(0, "abc"), message(2, "x")],
            _ => vec![message(0, "abc"), message(1, "def"), (BoxSeq(2), Arrival::NotYet)],
        };
        self.store().received(id, arrivals).wait().expect("kept");
        if state == "skipped" {
            assert_eq!(self.store().skip(id).wait().map(|skipped| skipped.boxes), Ok(1));
        }
        if state == "trimmed reader" {
            assert_eq!(self.store().trim(id, 0).wait(), Ok(3));
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.session.unmount();
        self.runtime.block_on(self.owner.close());
    }
}
