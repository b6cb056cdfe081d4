//! `thinclient.toml`: exactly one way to dial the daemon (`thin-client-protocol.md` §1.2).

use std::fmt;
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Most that is read of a configuration.
const LONGEST_FILE: u64 = 64 << 10;

/// Where a daemon listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// TCP, `host:port`.
    Tcp {
        /// IPv6 hosts in brackets.
        host_port: String,
        /// Which family.
        network: TcpNetwork,
    },
    /// A Unix socket in the file system.
    Unix(PathBuf),
    /// A Linux abstract socket, without the leading `@`.
    Abstract(String),
    /// A WebSocket without TLS, `ws://host[:port][/path]`; the port is 80 if none is named.
    WebSocket(String),
}

/// The address family that a TCP address is limited to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TcpNetwork {
    /// Either.
    #[default]
    Any,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
}

/// Why text is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no address: use tcp://HOST:PORT, HOST:PORT, a path, unix:///PATH, @NAME or ws://HOST:PORT")]
pub struct AddressError {
    text: String,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let error = || AddressError { text: text.to_owned() };
        if let Some(path) = text.strip_prefix("unix://") {
            return Self::unix(path).ok_or_else(error);
        }
        if text.starts_with('@') || text.starts_with('/') || text.starts_with("./") {
            return Self::unix(text).ok_or_else(error);
        }
        if text.starts_with("ws://") {
            return web_host_port(text).map(|_| Self::WebSocket(text.to_owned())).ok_or_else(error);
        }
        let host_port = text.strip_prefix("tcp://").unwrap_or(text);
        match host_port.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                Ok(Self::Tcp { host_port: host_port.to_owned(), network: TcpNetwork::Any })
            }
            _ => Err(error()),
        }
    }
}

/// The `host:port` of a `ws://host[:port][/path]` URL, with port 80 where none is named; nothing if it is no such URL.
pub(crate) fn web_host_port(url: &str) -> Option<String> {
    let rest = url.strip_prefix("ws://")?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    if authority.contains('@') || authority.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return None;
    }
    let bare = authority.starts_with('[') && authority.ends_with(']');
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !bare => (host, port.parse::<u16>().ok()?),
        _ => (authority, 80),
    };
    let well_formed = if let Some(address) = host.strip_prefix('[') {
        address.strip_suffix(']').is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok())
    } else {
        !host.is_empty() && !host.contains(':')
    };
    well_formed.then(|| format!("{host}:{port}"))
}

impl Address {
    /// Whether it names another machine, as far as that can be told without asking for a name: all names but `localhost`
    /// may be of another.
    pub fn is_remote(&self) -> bool {
        let host_port = match self {
            Self::Tcp { host_port, .. } => host_port.clone(),
            Self::WebSocket(url) => web_host_port(url).unwrap_or_default(),
            Self::Unix(_) | Self::Abstract(_) => return false,
        };
        let host = host_port.rsplit_once(':').map_or(host_port.as_str(), |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        match host.parse::<IpAddr>() {
            Ok(ip) => !is_here(ip),
            Err(_) => !host.eq_ignore_ascii_case("localhost"),
        }
    }

    /// A path, or `@name`.
    fn unix(text: &str) -> Option<Self> {
        match text.strip_prefix('@') {
            Some("") => None,
            Some(name) => Some(Self::Abstract(name.to_owned())),
            None => (!text.is_empty()).then(|| Self::Unix(PathBuf::from(text))),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host_port, .. } => write!(out, "tcp://{host_port}"),
            Self::Unix(path) => write!(out, "unix://{}", path.display()),
            Self::Abstract(name) => write!(out, "@{name}"),
            Self::WebSocket(url) => out.write_str(url),
        }
    }
}

/// Whether an IP address is this machine's alone. The unspecified one connects to it.
pub(super) fn is_here(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    ip.is_loopback() || ip.is_unspecified()
}

/// How to reach the daemon. Everything else about the network comes from the daemon itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where it listens.
    pub dial: Address,
    /// Who may listen there.
    pub trust: Trust,
}

/// Whom a connection may be made to: a daemon is given everything that goes through it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// The user of the daemon's process, besides oneself and root. Asked of each Unix and abstract socket when it is
    /// connected, before the first byte.
    pub user: Option<u32>,
    /// Whether the daemon may be on another machine. Nothing encrypts the way to it.
    pub remote: bool,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It could not be read.
    #[error("the configuration {} cannot be read: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It is no `thinclient.toml`.
    #[error("{} is no thinclient.toml: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// An address on the command line or in the environment.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// A file that nobody named on the command line, and that another user can write.
    #[error("{} is not used: {reason}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        reason: String,
    },
    /// The daemon is not on this machine.
    #[error("{address} is on another machine, and nothing encrypts the way to it")]
    Remote {
        /// Its address.
        address: Address,
    },
    /// Nothing was named and nothing was found.
    /// Its text tells of a daemon that may listen at a usual address which is used only when it is named.
    #[error("no daemon was found: {looked}{}", super::discovery::hint())]
    NotFound {
        /// Where it was looked for.
        looked: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct File {
    dial: Dial,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "PascalCase")]
struct Dial {
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp: Option<Tcp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unix: Option<Plain>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ws: Option<Plain>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct Tcp {
    address: String,
    #[serde(default)]
    network: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct Plain {
    address: String,
}

impl Config {
    /// The configuration that dials `dial`.
    pub fn new(dial: Address) -> Self {
        Self { dial, trust: Trust::default() }
    }

    /// The same with other trust.
    #[must_use]
    pub fn trusting(mut self, trust: Trust) -> Self {
        self.trust = trust;
        self
    }

    /// Reads a `thinclient.toml`.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let file = std::fs::File::open(path);
        Self::read(path, file.map_err(|error| ConfigError::Unreadable { path: path.to_owned(), error })?)
    }

    pub(super) fn read(path: &Path, file: std::fs::File) -> Result<Self, ConfigError> {
        let mut text = String::new();
        // A device or a huge file is no configuration either.
        file.take(LONGEST_FILE)
            .read_to_string(&mut text)
            .map_err(|error| ConfigError::Unreadable { path: path.to_owned(), error })?;
        Self::parse(&text).map_err(|reason| ConfigError::Malformed { path: path.to_owned(), reason })
    }

    /// Reads the text of a `thinclient.toml`; on failure, what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let file: File = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        let dial = match file.dial {
            Dial { tcp: Some(tcp), unix: None, ws: None } => Self::tcp(tcp)?,
            Dial { tcp: None, unix: Some(unix), ws: None } => {
                Address::unix(&unix.address).ok_or_else(|| format!("{:?} is no path and no @name", unix.address))?
            }
            Dial { tcp: None, unix: None, ws: Some(ws) } => match ws.address.parse() {
                Ok(address @ Address::WebSocket(_)) => address,
                _ => return Err(format!("{:?} is no ws://HOST:PORT (and TLS is not spoken)", ws.address)),
            },
            _ => return Err("[Dial] must have exactly one of [Dial.Tcp], [Dial.Unix] and [Dial.Ws]".to_owned()),
        };
        Ok(Self::new(dial))
    }

    fn tcp(tcp: Tcp) -> Result<Address, String> {
        let network = match tcp.network.as_str() {
            "" | "tcp" => TcpNetwork::Any,
            "tcp4" => TcpNetwork::V4,
            "tcp6" => TcpNetwork::V6,
            other => return Err(format!("the network {other:?} is none of tcp, tcp4, tcp6")),
        };
        match format!("tcp://{}", tcp.address).parse() {
            Ok(Address::Tcp { host_port, .. }) => Ok(Address::Tcp { host_port, network }),
            _ => Err(format!("{:?} is no HOST:PORT", tcp.address)),
        }
    }

    /// The text of a `thinclient.toml`. Every client of upstream's reads it, but that only Go's knows `[Dial.Ws]`.
    pub fn to_toml(&self) -> String {
        let mut dial = Dial::default();
        match &self.dial {
            Address::Tcp { host_port, network } => {
                let network = match network {
                    TcpNetwork::Any => "tcp",
                    TcpNetwork::V4 => "tcp4",
                    TcpNetwork::V6 => "tcp6",
                };
                dial.tcp = Some(Tcp { address: host_port.clone(), network: network.to_owned() });
            }
            Address::Unix(path) => dial.unix = Some(Plain { address: path.display().to_string() }),
            Address::Abstract(name) => dial.unix = Some(Plain { address: format!("@{name}") }),
            Address::WebSocket(url) => dial.ws = Some(Plain { address: url.clone() }),
        }
        toml::to_string(&File { dial }).expect("strings in two tables")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_transport_is_read_and_written() {
        for (text, address) in [
            ("[Dial]\n[Dial.Tcp]\nAddress = \"localhost:64331\"\nNetwork = \"tcp4\"", "tcp://localhost:64331"),
            ("[Dial.Tcp]\nAddress = \"[::1]:64331\"", "tcp://[::1]:64331"),
            ("[Dial.Unix]\nAddress = \"@katzenpost\"", "@katzenpost"),
            ("[Dial.Unix]\nAddress = \"/run/x/kpclientd.sock\"", "unix:///run/x/kpclientd.sock"),
            ("[Dial.Ws]\nAddress = \"ws://localhost:12345\"", "ws://localhost:12345"),
            ("[Dial.Ws]\nAddress = \"ws://[::1]:12345/daemon\"", "ws://[::1]:12345/daemon"),
        ] {
            let config = Config::parse(text).expect(text);
            assert_eq!(config.dial.to_string(), address);
            assert_eq!(Config::parse(&config.to_toml()), Ok(config), "written and read again");
        }
    }

    #[test]
    fn what_may_be_another_machine_is_remote() {
        for (text, remote) in [
            ("127.0.0.1:1", false),
            ("tcp://[::1]:1", false),
            ("localhost:1", false),
            ("0.0.0.0:1", false),
            ("tcp://[::ffff:127.0.0.1]:1", false),
            ("ws://127.9.9.9:1/daemon", false),
            ("@katzenpost", false),
            ("/run/kpclientd.sock", false),
            ("10.0.0.1:1", true),
            ("tcp://[2001:db8::1]:1", true),
            ("daemon.example:1", true),
            ("ws://localhost.example:1", true),
        ] {
            assert_eq!(text.parse::<Address>().expect(text).is_remote(), remote, "{text}");
        }
    }

    #[test]
    fn what_upstream_refuses_is_refused_in_words() {
        for (text, told) in [
            ("", "missing field `Dial`"),
            ("[Dial]", "exactly one"),
            ("[Dial.Tcp]\nAddress=\"a:1\"\n[Dial.Unix]\nAddress=\"/x\"", "exactly one"),
            ("[Dial.Unix]\nAddress=\"/x\"\n[SphinxGeometry]\nNrHops=5", "unknown field `SphinxGeometry`"),
            ("[Dial.Unix]\naddress=\"/x\"", "unknown field `address`"),
            ("[Dial.Tcp]\nAddress=\"a:1\"\nNetwork=\"udp\"", "none of tcp, tcp4, tcp6"),
            ("[Dial.Tcp]\nAddress=\"nowhere\"", "no HOST:PORT"),
            ("[Dial.Ws]\nAddress=\"wss://x:1\"", "TLS is not spoken"),
            ("[Dial.Ws]\nAddress=\"localhost:1\"", "no ws://HOST:PORT"),
            ("[Dial.Ws]\nAddress=\"ws://x:1\"\n[Dial.Unix]\nAddress=\"/x\"", "exactly one"),
        ] {
            let error = Config::parse(text).expect_err(text);
            assert!(error.contains(told), "{text:?}: {error}");
        }
    }
}
