//! A mount in the process of the test, whose store the test can fill as if boxes had arrived.

// Each test file takes what it needs of this.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::print_stderr)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use pigeonfs::engine::{Daemon, Owner, OwnerKind};
use pigeonfs::fs::{self, Fs};
use pigeonfs::localnet::{Localnet, Options};
use pigeonfs::mount::{MountOptions, Session};
use pigeonfs::store::{ChannelId, ChannelName};
use tempfile::TempDir;

/// A mounted state. It is unmounted when it goes, also when a test fails.
pub struct Mounted {
    pub session: Session,
    pub owner: Arc<Owner>,
    pub path: PathBuf,
    pub runtime: tokio::runtime::Runtime,
    _network: Option<Localnet>,
    pub root: TempDir,
}

impl Mounted {
    /// With a network, or with none: then nothing is ever launched.
    pub fn new(with_network: bool) -> Option<Self> {
        Self::with(with_network, fs::Options::default())
    }

    pub fn with(with_network: bool, options: fs::Options) -> Option<Self> {
        if std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").is_err() {
            eprintln!("skipped: /dev/fuse cannot be opened here");
            return None;
        }
        let root = tempfile::tempdir().expect("a directory");
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let network = with_network.then(|| {
            let options = Options::new(root.path().join("net"));
            runtime.block_on(Localnet::start(options)).expect("a network of our own")
        });
        let daemon = match &network {
            Some(network) => Daemon::Fixed(network.config()),
            None => Daemon::Discover(pigeonfs::thin::Discovery::default()),
        };
        let path = root.path().join("mnt");
        std::fs::create_dir(&path).expect("a mount point");
        let _guard = runtime.enter();
        let owner = Owner::open(&root.path().join("state"), daemon, OwnerKind::Mount).expect("a fresh state");
        let fs = Arc::new(Fs::new(Arc::clone(&owner), options));
        let session = Session::start(&path, fs, runtime.handle().clone(), &MountOptions::default()).expect("mounted");
        drop(_guard);
        Some(Self { session, owner, path, runtime, _network: network, root })
    }

    /// Runs a shell command in the mount.
    pub fn sh(&self, script: &str) -> Output {
        run(&self.path, script)
    }

    pub fn ok(&self, script: &str) -> String {
        let output = self.sh(script);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{script:?} said {err:?} and ended with {:?}", output.status.code());
        out.into_owned()
    }

    pub fn fails(&self, script: &str, told: &str) {
        let output = self.sh(script);
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{script:?} succeeded");
        assert!(err.contains(told), "{script:?} said {err:?}, and {told:?} was expected");
    }

    /// A reader's file, filled as if boxes had arrived.
    pub fn reader(&self, name: &str) -> ChannelId {
        let cap = pigeonfs::bacap::WriteCap::from_seed(&[name.len() as u8; 32]);
        let name = ChannelName::parse(name).expect("a name");
        self.owner.store().add_reader(name, cap.read_cap().clone()).wait().expect("added")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = self.session.unmount();
        self.runtime.block_on(self.owner.close());
        let _ = self.root.path();
    }
}

fn run(at: &Path, script: &str) -> Output {
    Command::new("bash").args(["-c", script]).current_dir(at).output().expect("bash runs")
}
