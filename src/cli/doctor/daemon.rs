//! The daemon: whether one is found, whose it is, and which network is behind it.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::Check;
use crate::cli::context::Context;
use crate::cli::daemon::{DaemonArgs, DaemonChoice};
use crate::thin::{Address, Client, ClientOptions, Config, Link};

/// What a daemon is given to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// With fewer replicas, those that a box passes and those that keep it are partly the same.
const REPLICAS: usize = 4;

pub(super) async fn checks(context: &Context, typed: DaemonArgs) -> Vec<Check> {
    let config = match typed.meant() {
        Ok(DaemonChoice::Found(discovery)) => Config::discover(&discovery).map_err(|error| error.to_string()),
        Ok(_) => Config::load(&context.localnet_dir().join("thinclient.toml")).map_err(|error| error.to_string()),
        Err(failure) => Err(failure.message),
    };
    let config = match config {
        Ok(config) => config,
        Err(error) => {
            let advice = "start kpclientd (`systemctl --user start kpclientd`), or name it with --config or --daemon; \
                          --localnet tries everything without one";
            return vec![Check::todo("daemon", error, advice)];
        }
    };
    let mut checks = vec![whose(&config)];
    if let Some(more) = network(config).await {
        checks.extend(more);
    }
    checks
}

/// Who listens. Nothing is sent.
fn whose(config: &Config) -> Check {
    let address = config.dial.to_string();
    let stream = match &config.dial {
        Address::Unix(path) => UnixStream::connect(path),
        Address::Abstract(name) => {
            SocketAddr::from_abstract_name(name).and_then(|address| UnixStream::connect_addr(&address))
        }
        Address::Tcp { .. } | Address::WebSocket(_) => {
            return match config.dial.is_remote() {
                true => Check::todo(
                    "daemon",
                    format!("{address} is on another machine, and nothing encrypts the way there"),
                    "run kpclientd on this machine, or reach it through a tunnel",
                ),
                false => {
                    Check::note("daemon", format!("{address}: any user of this machine may listen there or use it"))
                }
            };
        }
    };
    let peer = stream.and_then(|stream| Ok(rustix::net::sockopt::socket_peercred(&stream)?));
    match peer {
        Ok(peer) => Check::ok("daemon", format!("{address}, a process of user {}", peer.uid.as_raw())),
        Err(error) => Check::todo("daemon", format!("nothing answers at {address}: {error}"), "start the daemon"),
    }
}

async fn network(config: Config) -> Option<Vec<Check>> {
    let client = Client::start(config, ClientOptions::default());
    let until = Instant::now() + PATIENCE;
    let mut seen = client.status();
    let status = timeout_at(
        until,
        seen.wait_for(|status| {
            matches!(&status.link, Link::Refused { .. } | Link::NoDaemon { .. }) || status.pki.is_some()
        }),
    );
    let status = status.await.ok().and_then(|found| Some(found.ok()?.clone()));
    client.close().await;
    let Some(status) = status else {
        let advice = "wait until kpclientd has a gateway and the network's document; its log says what it waits for";
        return Some(vec![Check::todo("network", "the daemon has no document of the network", advice)]);
    };
    match (&status.link, &status.pki) {
        (Link::Refused { error } | Link::NoDaemon { error }, _) => {
            Some(vec![Check::todo("network", error.clone(), "end what listens there, or name another daemon")])
        }
        (_, Some(document)) => {
            let replicas = document.replicas.len();
            let found = format!(
                "the daemon has the document of epoch {}: {} layers, {replicas} replicas",
                document.epoch,
                document.layers()
            );
            let mut checks = vec![Check::ok("network", found)];
            if replicas < REPLICAS {
                checks.push(Check::note(
                    "replicas",
                    format!("{replicas} are few: they may see more of what belongs together"),
                ));
            }
            if let Some(geometry) = &status.pigeonhole {
                let bytes = geometry.max_plaintext_payload_length;
                checks.push(Check::ok(
                    "versions",
                    format!("pigeonfs {}, boxes of {bytes} bytes", env!("CARGO_PKG_VERSION")),
                ));
            }
            Some(checks)
        }
        _ => None,
    }
}
