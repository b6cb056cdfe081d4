//! The daemon: whether one is found, whose it is, and which network is behind it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::Check;
use crate::cli::context::Context;
use crate::cli::daemon::{DaemonArgs, DaemonChoice};
use crate::thin::{Client, ClientOptions, Config, Dial, Link, Socket, Status};

/// What a daemon is given to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// With fewer replicas, those that a box passes and those that keep it are partly the same.
const REPLICAS: usize = 4;

pub(super) async fn checks(context: &Context, typed: DaemonArgs) -> Vec<Check> {
    let configs = match typed.meant() {
        Ok(DaemonChoice::Found(discovery)) => vec![Config::discover(&discovery)],
        Ok(DaemonChoice::Several(named)) => named.iter().map(Config::discover).collect(),
        Ok(_) => vec![Config::load(&context.localnet_dir().join("thinclient.toml"))],
        Err(failure) => return of_one(Err(failure.message)).await,
    };
    let mut checks = Vec::new();
    for config in configs {
        checks.extend(of_one(config.map_err(|error| error.to_string())).await);
    }
    checks
}

async fn of_one(config: Result<Config, String>) -> Vec<Check> {
    let config = match config {
        Ok(config) => config,
        Err(error) => {
            let advice = "start kpclientd (`systemctl --user start kpclientd`), or name it with --config or --daemon; \
                          --localnet tries everything without one";
            return vec![Check::todo("daemon", error, advice)];
        }
    };
    let (address, is_remote) = (config.dial.to_string(), config.dial.is_remote());
    let user = Arc::new(AtomicI64::new(UNKNOWN));
    let status = status_of(Asked { config, user: Arc::clone(&user) }).await;
    let link = status.as_ref().map(|status| &status.link);
    let whose = match (user.load(Ordering::Relaxed), link) {
        (user @ 0.., _) => Check::ok("daemon", format!("{address}, a process of user {user}")),
        _ if is_remote => Check::todo(
            "daemon",
            format!("{address} is on another machine, and nothing encrypts the way there"),
            "run kpclientd on this machine, or reach it through a tunnel",
        ),
        (_, Some(Link::NoDaemon { error })) => {
            Check::todo("daemon", format!("none at {address}: {error}"), "start the daemon, or name another one")
        }
        _ => Check::note("daemon", format!("{address}: any user of this machine may listen there or use it")),
    };
    [vec![whose], network(status)].concat()
}

/// No user.
const UNKNOWN: i64 = -1;

/// The way to the daemon, which remembers whose process listened. The one connection is the client's own: a daemon would
/// log another one that says nothing, and with no document of the network would wait for it.
struct Asked {
    config: Config,
    user: Arc<AtomicI64>,
}

impl Dial for Asked {
    type Stream = Socket;

    async fn dial(&self) -> io::Result<Socket> {
        let socket = self.config.dial().await?;
        self.user.store(socket.peer_user().map_or(UNKNOWN, i64::from), Ordering::Relaxed);
        Ok(socket)
    }

    fn name(&self) -> String {
        self.config.name()
    }
}

/// How the link to the daemon stands once it has told of the network, or has failed to. `None`: it said nothing in time.
async fn status_of(dialer: Asked) -> Option<Status> {
    let client = Client::over(dialer, ClientOptions::default());
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
    status
}

fn network(status: Option<Status>) -> Vec<Check> {
    let Some(status) = status else {
        let advice = "wait until kpclientd has a gateway and the network's document; its log says what it waits for";
        return vec![Check::todo("network", "the daemon has no document of the network", advice)];
    };
    match (&status.link, &status.pki) {
        // It was told already that there is none.
        (Link::NoDaemon { .. }, _) => Vec::new(),
        (Link::Refused { error }, _) => {
            vec![Check::todo("network", error.clone(), "end what listens there, or name another daemon")]
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
            checks
        }
        (_, None) => Vec::new(),
    }
}
