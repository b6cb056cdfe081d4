//! Where a daemon is looked for when none is named, and which socket is trusted unasked.
//!
//! In this order: an address, a configuration file, `$PIGEONFS_THINCLIENT`, `$XDG_CONFIG_HOME/pigeonfs/thinclient.toml`,
//! `/etc/katzenpost/thinclient.toml`, `$XDG_RUNTIME_DIR/katzenpost/kpclientd.sock`. A file that nobody named on the command
//! line is used only if no other user but root can have written it: the environment may be another user's (`su`, `sudo -E`).
//! Whoever listens at a socket is asked for at each connection ([`super::Trust`]). Abstract and TCP addresses anybody can
//! take, so they are used only when they are named.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::{Address, Config, ConfigError, Trust};

/// Where upstream's samples listen.
const USUAL_ABSTRACT: &str = "katzenpost";
const USUAL_PORT: u16 = 64331;
/// How the kernel's tables say that a socket is a stream, that it takes connections, and that it listens.
const STREAM: &str = "0001";
const ACCEPTS_CONNECTIONS: &str = "00010000";
const LISTEN: &str = "0A";

/// What was said about the daemon, and where to look if nothing was.
#[derive(Clone, Debug, Default)]
pub struct Discovery {
    /// `--daemon`.
    pub daemon: Option<String>,
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--daemon-user`, `--allow-remote-daemon`.
    pub trust: Trust,
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
        let found = Self::find(discovery)?.trusting(discovery.trust);
        match found.dial.is_remote() && !discovery.trust.remote {
            true => Err(ConfigError::Remote { address: found.dial }),
            false => Ok(found),
        }
    }

    fn find(discovery: &Discovery) -> Result<Self, ConfigError> {
        if let Some(address) = &discovery.daemon {
            return Ok(Self::new(address.parse()?));
        }
        if let Some(path) = &discovery.config {
            return Self::load(path);
        }
        let environment = &discovery.environment;
        if let Some(path) = &environment.thinclient {
            return Self::load_unasked(path);
        }
        let mut looked = Vec::new();
        let files = [
            environment.config_home.as_ref().map(|home| home.join("pigeonfs/thinclient.toml")),
            environment.etc.as_ref().map(|etc| etc.join("katzenpost/thinclient.toml")),
        ];
        for path in files.into_iter().flatten() {
            if path.exists() {
                return Self::load_unasked(&path);
            }
            looked.push(path.display().to_string());
        }
        if let Some(runtime) = &environment.runtime_dir {
            let socket = runtime.join("katzenpost/kpclientd.sock");
            match is_trusted(&socket) {
                Ok(true) => return Ok(Self::new(Address::Unix(socket))),
                Ok(false) => looked.push(format!("{} (another user's process listens there)", socket.display())),
                Err(_) => looked.push(socket.display().to_string()),
            }
        }
        Err(ConfigError::NotFound { looked: format!("looked at {}", looked.join(", ")) })
    }
}

impl Config {
    /// Reads a file that the command line did not name.
    fn load_unasked(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |error| ConfigError::Unreadable { path: path.to_owned(), error };
        let file = std::fs::File::open(path).map_err(unreadable)?;
        let found = file.metadata().map_err(unreadable)?;
        let foreign = |reason| ConfigError::Foreign { path: path.to_owned(), reason };
        if found.uid() != 0 && found.uid() != rustix::process::geteuid().as_raw() {
            return Err(foreign(format!("it belongs to user {}", found.uid())));
        }
        if found.mode() & 0o002 != 0 {
            return Err(foreign("every user may write to it".to_owned()));
        }
        Self::read(path, file)
    }
}

/// Whether one's own process made a socket, or root's. Nobody connects for that: a daemon would log a connection that says
/// nothing. The connection that is used later is asked whose it is.
fn is_trusted(socket: &Path) -> std::io::Result<bool> {
    let found = std::fs::metadata(socket)?;
    if !found.file_type().is_socket() {
        return Err(std::io::ErrorKind::NotFound.into());
    }
    Ok(found.uid() == rustix::process::geteuid().as_raw() || found.uid() == 0)
}

/// What to say of something that listens where upstream's samples do. It is looked up in the kernel's tables: a connection
/// that says nothing would be an error in the daemon's log, and one that has no document would wait for it.
pub(super) fn hint() -> String {
    match listening(USUAL_ABSTRACT, USUAL_PORT) {
        Some(address) => format!(
            ". Something listens at {address}, which any local user may do: name it with --daemon {address} if it is yours"
        ),
        None => String::new(),
    }
}

/// The abstract socket of a name, or else 127.0.0.1 with a port, if a process of this network namespace listens there.
fn listening(name: &str, port: u16) -> Option<String> {
    let table = |path: &str| std::fs::read(path).map(|table| String::from_utf8_lossy(&table).into_owned());
    let listens = |path: &str, by: &dyn Fn(&str) -> bool| table(path).is_ok_and(|table| table.lines().any(by));
    if listens("/proc/net/unix", &|line| listens_by_name(line, name)) {
        return Some(format!("@{name}"));
    }
    let tcp = ["/proc/net/tcp", "/proc/net/tcp6"].into_iter().any(|path| listens(path, &|line| listens_at(line, port)));
    tcp.then(|| format!("127.0.0.1:{port}"))
}

/// Whether a line of /proc/net/unix is of a stream socket with an abstract name that takes connections.
fn listens_by_name(line: &str, name: &str) -> bool {
    let mut fields = line.split_ascii_whitespace().skip(3);
    let (flags, kind) = (fields.next(), fields.next());
    let path = fields.nth(2).and_then(|path| path.strip_prefix('@'));
    (flags, kind, path) == (Some(ACCEPTS_CONNECTIONS), Some(STREAM), Some(name))
}

/// Whether a line of /proc/net/tcp or tcp6 is of a socket that takes connections to 127.0.0.1 and a port.
fn listens_at(line: &str, port: u16) -> bool {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (Some(local), Some(LISTEN)) = (fields.next(), fields.nth(1)) else { return false };
    let Some((address, local_port)) = local.split_once(':') else { return false };
    let any = address.bytes().all(|digit| digit == b'0');
    // The kernel writes each 32 bits in the machine's own order.
    let loopback = format!("{:08X}", u32::from_ne_bytes([127, 0, 0, 1]));
    let mapped = format!("{:024X}{loopback}", u128::from(u32::from_ne_bytes([0, 0, 0xff, 0xff])));
    u16::from_str_radix(local_port, 16) == Ok(port) && (any || address == loopback || address == mapped)
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::TcpListener;
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixListener};

    use super::*;

    /// A verb without a daemon used to connect to the usual port and to hang up: over 800 error lines in a daemon's log.
    #[test]
    fn what_listens_at_a_usual_address_is_seen_without_a_connection() {
        let nobody = "pigeonfs-nobody-listens-here";
        for address in ["127.0.0.1:0", "0.0.0.0:0", "[::]:0", "[::ffff:127.0.0.1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let port = listener.local_addr().expect("bound").port();
            assert_eq!(listening(nobody, port), Some(format!("127.0.0.1:{port}")), "{address}");
            listener.set_nonblocking(true).expect("set");
            assert_eq!(listener.accept().expect_err("nobody has connected").kind(), ErrorKind::WouldBlock);
        }
        let name = format!("pigeonfs-hint-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let listener = UnixListener::bind_addr(&address).expect("bound");
        let free = TcpListener::bind("127.0.0.1:0").and_then(|bound| bound.local_addr()).expect("a port").port();
        assert_eq!(listening(&name, free), Some(format!("@{name}")));
        listener.set_nonblocking(true).expect("set");
        assert_eq!(listener.accept().expect_err("nobody has connected").kind(), ErrorKind::WouldBlock);
        drop(listener);
        assert_eq!(listening(&name, 1), None);
    }

    #[test]
    fn only_a_socket_that_takes_local_connections_is_hinted_at() {
        let line =
            |local: &str, state: &str| format!("   0: {local} 00000000:0000 {state} 00000000:00000000 00:00000000 0 0");
        for (local, state, listens) in [
            ("00000000:FB4B", "0A", true),
            ("00000000000000000000000000000000:FB4B", "0A", true),
            ("00000000:FB4C", "0A", false),
            ("00000000:FB4B", "01", false),
            ("0101A8C0:FB4B", "0A", false),
        ] {
            assert_eq!(listens_at(&line(local, state), 64331), listens, "{local} {state}");
        }
        let line =
            |flags: &str, path: &str| format!("000000002d0e1981: 00000002 00000000 {flags} 0001 01 47784 {path}");
        assert!(listens_by_name(&line("00010000", "@katzenpost"), "katzenpost"));
        for (flags, path) in
            [("00000000", "@katzenpost"), ("00010000", "/run/katzenpost"), ("00010000", "@katzenpost2")]
        {
            assert!(!listens_by_name(&line(flags, path), "katzenpost"), "{flags} {path}");
        }
        assert!(!listens_by_name("Num RefCount Protocol Flags Type St Inode Path", "katzenpost"));
    }

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
        let socket = root.path().join("run/katzenpost/kpclientd.sock");
        let listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
        assert!(found(&discovery).expect("our own socket").ends_with("kpclientd.sock"));
        listener.set_nonblocking(true).expect("a socket");
        assert!(listener.accept().is_err(), "nobody connects to see whose it is");
        write(&root.path().join("etc/katzenpost/thinclient.toml"), "etc");
        assert_eq!(found(&discovery).expect("a file"), "@etc");
        write(&root.path().join("config/pigeonfs/thinclient.toml"), "user");
        assert_eq!(found(&discovery).expect("a file"), "@user");
        write(&root.path().join("named.toml"), "named");
        discovery.environment.thinclient = Some(root.path().join("named.toml"));
        assert_eq!(found(&discovery).expect("a file"), "@named");
        discovery.daemon = Some("localhost:1".to_owned());
        assert_eq!(found(&discovery).expect("an address"), "tcp://localhost:1");
        for address in ["10.0.0.1:1", "ws://daemon.example"] {
            discovery.daemon = Some(address.to_owned());
            discovery.trust.remote = false;
            assert!(found(&discovery).expect_err("refused").to_string().contains("on another machine"));
            discovery.trust.remote = true;
            assert!(found(&discovery).is_ok());
        }
    }

    #[test]
    fn a_file_that_another_user_can_write_is_used_only_when_it_is_named() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("tc.toml");
        std::fs::write(&path, "[Dial.Unix]\nAddress = \"@x\"\n").expect("written");
        let environment = Environment { thinclient: Some(path.clone()), ..Environment::default() };
        let discovery = Discovery { environment, ..Discovery::default() };
        let named = Discovery { config: Some(path.clone()), ..Discovery::default() };
        assert!(Config::discover(&discovery).is_ok());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).expect("ours");
        let error = Config::discover(&discovery).expect_err("refused").to_string();
        assert!(error.contains("every user may write to it"), "{error}");
        assert!(Config::discover(&named).is_ok());
        if rustix::process::geteuid().is_root() {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("ours");
            std::os::unix::fs::chown(&path, Some(4242), None).expect("root");
            let error = Config::discover(&discovery).expect_err("refused").to_string();
            assert!(error.contains("belongs to user 4242"), "{error}");
        }
    }
}
