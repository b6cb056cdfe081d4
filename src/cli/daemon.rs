//! Which daemon a verb is to use, as far as it was told.

use std::path::PathBuf;

use clap::Args;

use super::context::Context;
use crate::engine::Daemon;
use crate::engine::control::{Failure, FailureKind};
use crate::thin::{Config, ConfigError, Discovery, Environment};

/// What was typed.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Which network")]
pub(super) struct DaemonArgs {
    /// The daemon's thinclient.toml
    #[arg(long, value_name = "FILE", conflicts_with_all = ["daemon", "localnet"])]
    config: Option<PathBuf>,
    /// The daemon's address: tcp://HOST:PORT, unix:///PATH or @NAME
    #[arg(long, value_name = "ADDR", conflicts_with = "localnet")]
    daemon: Option<String>,
    /// Run an embedded network, kept in the state directory. It gives no anonymity
    #[arg(long)]
    localnet: bool,
}

/// What is meant.
#[derive(Clone, Debug)]
pub(super) enum DaemonChoice {
    /// The verb needs no network.
    Unneeded,
    /// The network in this process, or whichever process serves the state's own already.
    Localnet,
    /// What was named, or what is found.
    Found(Discovery),
}

impl DaemonArgs {
    pub(super) fn meant(self) -> DaemonChoice {
        if self.localnet {
            return DaemonChoice::Localnet;
        }
        let environment = Environment::of_process();
        DaemonChoice::Found(Discovery { daemon: self.daemon, config: self.config, environment })
    }
}

impl DaemonChoice {
    /// What the engine is to use. A configuration that is there and wrong fails now; none at all may still come.
    pub(super) fn engine_daemon(&self, context: &Context) -> Result<Daemon, Failure> {
        match self {
            Self::Unneeded => Ok(Daemon::Unneeded),
            Self::Localnet => Ok(Daemon::Fixed(crate::localnet::config_in(&context.localnet_dir()))),
            Self::Found(discovery) => match Config::discover(discovery) {
                Ok(config) => Ok(Daemon::Fixed(config)),
                Err(ConfigError::NotFound { .. }) => Ok(Daemon::Discover(discovery.clone())),
                Err(error) => Err(Failure::new(FailureKind::Usage, error.to_string())
                    .hint("a thinclient.toml says how to dial the daemon; upstream's kpclientd comes with one")),
            },
        }
    }
}
