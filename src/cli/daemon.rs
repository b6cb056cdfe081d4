//! Which daemon a verb is to use, as far as it was told.

use std::path::PathBuf;

use clap::Args;

use super::context::Context;
use super::localnet::PaceArgs;
use crate::channel::MAX_DAEMONS;
use crate::engine::Daemon;
use crate::engine::control::{Failure, FailureKind};
use crate::localnet::{Localnet, LocalnetError, Options, Settings};
use crate::thin::{Config, ConfigError, Discovery, Environment, Trust};

/// What was typed.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Which network")]
pub(super) struct DaemonArgs {
    /// The daemon's thinclient.toml. May repeat: several daemons of one network share the work, each at its own pace
    #[arg(long, value_name = "FILE", conflicts_with_all = ["daemon", "localnet"])]
    config: Vec<PathBuf>,
    /// The daemon's address: tcp://HOST:PORT, unix:///PATH, @NAME or ws://HOST:PORT
    #[arg(long, value_name = "ADDR", conflicts_with = "localnet")]
    daemon: Option<String>,
    /// The user that the daemon runs as, by name or number, where it is neither you nor root
    #[arg(long, value_name = "USER", value_parser = user, conflicts_with = "localnet")]
    daemon_user: Option<u32>,
    /// Let the daemon be on another machine. Nothing encrypts the way there: whoever is on it can read everything
    #[arg(long, conflicts_with = "localnet")]
    allow_remote_daemon: bool,
    /// Run an embedded network, kept in the state directory. It gives no anonymity
    #[arg(long)]
    localnet: bool,
    #[command(flatten)]
    pace: PaceArgs,
}

/// What is meant.
#[derive(Clone, Debug)]
pub(super) enum DaemonChoice {
    /// The verb needs no network.
    Unneeded,
    /// The network in this process, or whichever process serves the state's own already.
    Localnet(Box<Settings>),
    /// What was named, or what is found.
    Found(Discovery),
    /// Several daemons of one network, all of them named.
    Several(Vec<Discovery>),
}

impl DaemonArgs {
    /// # Errors
    /// The pace of an embedded network was chosen, and no such network.
    pub(super) fn meant(self) -> Result<DaemonChoice, Failure> {
        if self.localnet {
            return Ok(DaemonChoice::Localnet(Box::new(self.pace.settings())));
        }
        if self.pace.is_given() {
            return Err(Failure::new(
                FailureKind::Usage,
                "--profile and --time-scale are for the network of --localnet",
            ));
        }
        let environment = Environment::of_process();
        let trust = Trust { user: self.daemon_user, remote: self.allow_remote_daemon };
        let found = Discovery { daemon: self.daemon, config: None, trust, environment };
        let mut named: Vec<_> =
            self.config.into_iter().map(|config| Discovery { config: Some(config), ..found.clone() }).collect();
        Ok(match named.len() {
            0 => DaemonChoice::Found(found),
            1 => DaemonChoice::Found(named.remove(0)),
            count if count > MAX_DAEMONS => {
                return Err(Failure::new(
                    FailureKind::Usage,
                    format!("--config names {count} daemons, and no more than {MAX_DAEMONS} can be used at once"),
                ));
            }
            _ => DaemonChoice::Several(named),
        })
    }
}

/// The daemon that a choice came to, with the network in this process where that is it.
pub(super) struct Chosen {
    pub(super) engine: Daemon,
    localnet: Option<Localnet>,
}

impl DaemonChoice {
    /// Finds the daemon, or starts the embedded network. A configuration that is there and wrong fails now; none at
    /// all may still come.
    pub(super) async fn choose(self, context: &Context) -> Result<Chosen, Failure> {
        let engine = match self {
            Self::Unneeded => Daemon::Unneeded,
            Self::Localnet(settings) => return localnet(context, *settings).await,
            Self::Found(discovery) => match Config::discover(&discovery) {
                Ok(config) => Daemon::Fixed(config),
                Err(ConfigError::NotFound { .. }) => Daemon::Discover(discovery),
                Err(error) => return Err(wrong(&error)),
            },
            Self::Several(named) => {
                let mut configs: Vec<Config> = Vec::new();
                for discovery in named {
                    let config = Config::discover(&discovery).map_err(|error| wrong(&error))?;
                    if configs.iter().any(|other| other.dial == config.dial) {
                        let text = format!("--config names the daemon at {} twice", config.dial);
                        return Err(Failure::new(FailureKind::Usage, text)
                            .hint("one daemon sends at one pace, however often it is named"));
                    }
                    configs.push(config);
                }
                Daemon::Several(configs)
            }
        };
        Ok(Chosen { engine, localnet: None })
    }
}

/// Why a daemon that was named, or a file that was found, cannot be used.
fn wrong(error: &ConfigError) -> Failure {
    match error {
        ConfigError::Remote { .. } => Failure::new(FailureKind::Usage, error.to_string())
            .hint("--allow-remote-daemon allows it; a tunnel (ssh -L) to the daemon is safer"),
        ConfigError::Foreign { .. } => Failure::new(FailureKind::Refused, error.to_string())
            .hint("name the file with --config if it is to be used; the environment may be another user's"),
        _ => Failure::new(FailureKind::Usage, error.to_string())
            .hint("a thinclient.toml says how to dial the daemon; upstream's kpclientd comes with one"),
    }
}

impl Chosen {
    /// Ends the network in this process, where there is one.
    pub(super) async fn close(self) {
        if let Some(localnet) = self.localnet {
            localnet.shutdown().await;
        }
    }
}

/// The state's own network: in this process, unless another one serves it already.
async fn localnet(context: &Context, settings: Settings) -> Result<Chosen, Failure> {
    let directory = context.localnet_dir();
    match Localnet::start(Options { settings, ..Options::new(&directory) }).await {
        Ok(localnet) => Ok(Chosen { engine: Daemon::Fixed(localnet.config()), localnet: Some(localnet) }),
        Err(LocalnetError::Busy { .. }) => {
            let config = Config::load(&directory.join("thinclient.toml"))
                .map_err(|error| Failure::new(FailureKind::Failed, error.to_string()))?;
            Ok(Chosen { engine: Daemon::Fixed(config), localnet: None })
        }
        Err(error) => Err(localnet_failure(&error)),
    }
}

/// Reads a user: a number, or a name of /etc/passwd.
fn user(text: &str) -> Result<u32, String> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
    let found = users.lines().map(fields).find(|fields| fields.first().is_some_and(|name| name == text));
    found
        .and_then(|fields| fields.get(2)?.parse().ok())
        .ok_or_else(|| format!("{text:?} is no user of /etc/passwd; `id -u {text}` may tell the number, such as 1000"))
}

/// What is told of a network that did not start.
pub(super) fn localnet_failure(error: &LocalnetError) -> Failure {
    let kind = match error {
        LocalnetError::Busy { .. } => FailureKind::Busy,
        LocalnetError::NotLoopback { .. }
        | LocalnetError::PathTooLong { .. }
        | LocalnetError::MaxPlaintext { .. }
        | LocalnetError::Setting(_) => FailureKind::Usage,
        _ => FailureKind::Failed,
    };
    Failure::new(kind, error.to_string())
}
