//! Where a daemon is looked for when none is named, and which socket is trusted unasked.
//!
//! In this order: an address, a configuration file, `$PIGEONFS_THINCLIENT`, `$XDG_CONFIG_HOME/pigeonfs/thinclient.toml`,
//! `/etc/katzenpost/thinclient.toml`, `$XDG_RUNTIME_DIR/katzenpost/kpclientd.sock`. A socket that nobody named is used only
//! if the process behind it belongs to us, to root, or to the owner of the directory that it lies in (the service's
//! user). Abstract and TCP addresses have no such owner, so they are used only when they are named.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Address, Config, ConfigError};

/// Where upstream's samples listen.
const USUAL_ABSTRACT: &str = "katzenpost";
const USUAL_TCP: &str = "127.0.0.1:64331";

/// What was said about the daemon, and where to look if nothing was.
#[derive(Clone, Debug, Default)]
pub struct Discovery {
    /// `--daemon`.
    pub daemon: Option<String>,
    /// `--config`.
    pub config: Option<PathBuf>,
    /// The environment.
    pub environment: Environment,
}

/// What the environment says; a value of its own, so that tests own it.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// `$PIGEONFS_THINCLIENT`: a configuration file.
    pub thinclient: Option<PathBuf>,
    /// `$XDG_CONFIG_HOME`, or `~/.config`.
    pub config_home: Option<PathBuf>,
    /// `$XDG_RUNTIME_DIR`.
    pub runtime_dir: Option<PathBuf>,
    /// `/etc`, but for tests.
    pub etc: Option<PathBuf>,
}

impl Environment {
    /// The process's own.
    pub fn of_process() -> Self {
        let path = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        Self {
            thinclient: path("PIGEONFS_THINCLIENT"),
            config_home: path("XDG_CONFIG_HOME").or_else(|| path("HOME").map(|home| home.join(".config"))),
            runtime_dir: path("XDG_RUNTIME_DIR"),
            etc: Some(PathBuf::from("/etc")),
        }
    }
}

impl Config {
    /// The daemon that was named, or the first that is found.
    pub fn discover(discovery: &Discovery) -> Result<Self, ConfigError> {
        if let Some(address) = &discovery.daemon {
            return Ok(Self::new(address.parse()?));
        }
        let environment = &discovery.environment;
        if let Some(path) = discovery.config.as_ref().or(environment.thinclient.as_ref()) {
            return Self::load(path);
        }
        let mut looked = Vec::new();
        let files = [
            environment.config_home.as_ref().map(|home| home.join("pigeonfs/thinclient.toml")),
            environment.etc.as_ref().map(|etc| etc.join("katzenpost/thinclient.toml")),
        ];
        for path in files.into_iter().flatten() {
            if path.exists() {
                return Self::load(&path);
            }
            looked.push(path.display().to_string());
        }
        if let Some(runtime) = &environment.runtime_dir {
            let socket = runtime.join("katzenpost/kpclientd.sock");
            match trusted(&socket) {
                Ok(true) => return Ok(Self::new(Address::Unix(socket))),
                Ok(false) => looked.push(format!("{} (another user's process listens there)", socket.display())),
                Err(_) => looked.push(socket.display().to_string()),
            }
        }
        Err(ConfigError::NotFound { looked: format!("looked at {}", looked.join(", ")), hint: hint() })
    }
}

/// Whether the process behind a socket may be given what we hold.
fn trusted(socket: &Path) -> std::io::Result<bool> {
    let directory = socket.parent().map(std::fs::metadata).transpose()?.map(|metadata| metadata.uid());
    let stream = UnixStream::connect(socket)?;
    let peer = rustix::net::sockopt::socket_peercred(&stream)?.uid.as_raw();
    Ok(peer == rustix::process::geteuid().as_raw() || peer == 0 || Some(peer) == directory)
}

fn hint() -> String {
    let abstract_socket = SocketAddr::from_abstract_name(USUAL_ABSTRACT)
        .and_then(|address| UnixStream::connect_addr(&address))
        .map(|_| format!("@{USUAL_ABSTRACT}"));
    let tcp = || {
        let address = USUAL_TCP.parse().map_err(std::io::Error::other)?;
        std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)).map(|_| USUAL_TCP.to_owned())
    };
    match abstract_socket.or_else(|_| tcp()) {
        Ok(address) => format!(
            ". Something listens at {address}, which any local user may do: name it with --daemon {address} if it is yours"
        ),
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_wins_and_then_the_first_that_is_there() {
        let root = tempfile::tempdir().expect("a directory");
        let write = |path: &Path, name: &str| {
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(path, format!("[Dial.Unix]\nAddress = \"@{name}\"\n")).expect("written");
        };
        let environment = Environment {
            thinclient: None,
            config_home: Some(root.path().join("config")),
            runtime_dir: Some(root.path().join("run")),
            etc: Some(root.path().join("etc")),
        };
        let mut discovery = Discovery { environment, ..Discovery::default() };
        let found = |discovery: &Discovery| Config::discover(discovery).map(|config| config.dial.to_string());
        let nothing = found(&discovery).expect_err("nothing is there").to_string();
        assert!(nothing.contains("etc/katzenpost/thinclient.toml") && nothing.contains("kpclientd.sock"), "{nothing}");
        std::fs::create_dir_all(root.path().join("run/katzenpost")).expect("made");
        let _listener = std::os::unix::net::UnixListener::bind(root.path().join("run/katzenpost/kpclientd.sock"));
        assert!(found(&discovery).expect("our own socket").ends_with("kpclientd.sock"));
        write(&root.path().join("etc/katzenpost/thinclient.toml"), "etc");
        assert_eq!(found(&discovery).expect("a file"), "@etc");
        write(&root.path().join("config/pigeonfs/thinclient.toml"), "user");
        assert_eq!(found(&discovery).expect("a file"), "@user");
        write(&root.path().join("named.toml"), "named");
        discovery.environment.thinclient = Some(root.path().join("named.toml"));
        assert_eq!(found(&discovery).expect("a file"), "@named");
        discovery.daemon = Some("localhost:1".to_owned());
        assert_eq!(found(&discovery).expect("an address"), "tcp://localhost:1");
    }
}
