//! What a network is like, as it is typed: a named profile, and numbers that differ from it.

use std::time::Duration;

use clap::Args;

use crate::engine::control::{Failure, FailureKind};
use crate::localnet::{Faults, MAX_DAEMONS, Profile, Settings};
use crate::units::{count, size, span, span_ms};

/// The pace that any verb with `--localnet` can choose.
#[derive(Args, Clone, Debug, Default)]
pub(in crate::cli) struct PaceArgs {
    /// The embedded network's pace: instant, docker or namenlos [default: instant]
    #[arg(long, value_name = "NAME", value_parser = Profile::NAMES)]
    profile: Option<String>,
    /// The embedded network is X times as fast; its epochs are as long as ever
    #[arg(long, value_name = "X", value_parser = positive)]
    time_scale: Option<f64>,
}

impl PaceArgs {
    pub(in crate::cli) fn is_given(&self) -> bool {
        self.profile.is_some() || self.time_scale.is_some()
    }

    fn named(&self) -> Profile {
        self.profile.as_deref().and_then(Profile::named).unwrap_or_else(Profile::instant)
    }

    pub(in crate::cli) fn settings(&self) -> Settings {
        Settings { profile: self.named().scaled(self.time_scale.unwrap_or(1.0)), ..Settings::default() }
    }
}

/// Everything that sets the pace of a network.
#[derive(Args, Debug)]
#[command(next_help_heading = "Pace, in the network's own time")]
pub(super) struct NetworkArgs {
    #[command(flatten)]
    pace: PaceArgs,
    /// Packets of the daemon per millisecond, as the PKI document states it: 0.001 is one a second
    #[arg(long, value_name = "RATE", value_parser = positive)]
    lambda_p: Option<f64>,
    /// 1/μ is the mean delay of a hop in milliseconds: 0.005 are 200 ms
    #[arg(long, value_name = "RATE", value_parser = positive)]
    mu: Option<f64>,
    /// Mix layers
    #[arg(long, value_name = "N", value_parser = count::<u8>(1..=16))]
    layers: Option<u8>,
    /// What a round trip takes besides the hops' delays
    #[arg(long, value_name = "TIME", value_parser = span_ms)]
    network_ms: Option<Duration>,
    /// Until a replica's answer is at the courier, mean
    #[arg(long, value_name = "TIME", value_parser = span_ms)]
    replica_delay_ms: Option<Duration>,
    /// Until a box is at the other of its two holders, mean
    #[arg(long, value_name = "TIME", value_parser = span_ms)]
    replication_delay_ms: Option<Duration>,
    /// What an encrypt costs the connection that asks for it
    #[arg(long, value_name = "TIME", value_parser = span_ms)]
    encrypt_ms: Option<Duration>,
    /// A read that waits for a box sees its write at once, instead of the courier's cached answer
    #[arg(long)]
    kind_reads: bool,
    /// Length of a mixnet epoch, as 120, 20m or 1h
    #[arg(long, value_name = "TIME", value_parser = epoch)]
    epoch_duration: Option<Duration>,
    /// Daemons of the one network, each with its own sockets and its own pace: thinclient.toml, thinclient-2.toml, ...
    #[arg(long, value_name = "N", default_value = "1", value_parser = count::<usize>(1..=MAX_DAEMONS as u64))]
    daemons: usize,
    /// Storage replicas
    #[arg(long, value_name = "N", value_parser = count::<u8>(2..=64))]
    replicas: Option<u8>,
    /// Service nodes with a courier
    #[arg(long, value_name = "N", value_parser = count::<u8>(1..=64))]
    couriers: Option<u8>,
    /// Longest plaintext of a box in bytes, for a network that is made now [default: 1549]
    #[arg(long, value_name = "BYTES", value_parser = count::<usize>(0..=1 << 20))]
    max_plaintext: Option<usize>,
    /// How long a session outlives its connection, in real time [default: 10m]
    #[arg(long, value_name = "TIME", value_parser = span)]
    session_grace: Option<Duration>,
    /// Decides all that is random but the network's keys
    #[arg(long, value_name = "N", value_parser = count::<u64>(0..=u64::MAX))]
    seed: Option<u64>,
}

/// What goes wrong from the start.
#[derive(Args, Debug)]
#[command(next_help_heading = "Faults: rates from 0 to 1, and switches; `localnet ctl faults` changes them")]
pub(super) struct FaultArgs {
    /// Packets that are lost on their way to a courier
    #[arg(long, value_name = "RATE", value_parser = rate)]
    loss: Option<f64>,
    /// Replies that are lost
    #[arg(long, value_name = "RATE", value_parser = rate)]
    reply_loss: Option<f64>,
    /// Packets and replies that come twice
    #[arg(long, value_name = "RATE", value_parser = rate)]
    duplication: Option<f64>,
    /// Packets and replies that are held up, by --delay-ms
    #[arg(long, value_name = "RATE", value_parser = rate)]
    delay: Option<f64>,
    /// How long
    #[arg(long, value_name = "TIME", value_parser = span_ms)]
    delay_ms: Option<Duration>,
    /// Reads that are told that a box is not there although it is
    #[arg(long, value_name = "RATE", value_parser = rate)]
    false_not_found: Option<f64>,
    /// Envelopes that a courier acknowledges and forgets
    #[arg(long, value_name = "RATE", value_parser = rate)]
    ack_then_lost: Option<f64>,
    /// Envelopes that a courier refuses as of another epoch
    #[arg(long, value_name = "RATE", value_parser = rate)]
    stale_epoch: Option<f64>,
    /// Boxes whose place another writer takes first
    #[arg(long, value_name = "RATE", value_parser = rate)]
    conflicting_writer: Option<f64>,
    /// Replicas store nothing new
    #[arg(long)]
    storage_full: bool,
    /// Cut every connection after SIZE bytes to its client
    #[arg(long, value_name = "SIZE", value_parser = size)]
    disconnect_after_bytes: Option<u64>,
    /// Cut every connection after SIZE bytes from its client
    #[arg(long, value_name = "SIZE", value_parser = size)]
    disconnect_after_bytes_in: Option<u64>,
}

impl NetworkArgs {
    pub(super) fn settings(&self, faults: &FaultArgs) -> Result<Settings, Failure> {
        let mut profile = self.pace.named();
        let rate = |name: &str, rate: f64| {
            Duration::try_from_secs_f64(1.0 / (rate * 1000.0)).map_err(|_| {
                Failure::new(FailureKind::Usage, format!("{name} {rate} is too slow: one event would take for ever"))
            })
        };
        if let Some(lambda_p) = self.lambda_p {
            profile.tick = rate("--lambda-p", lambda_p)?;
        }
        if let Some(mu) = self.mu {
            profile.hop = rate("--mu", mu)?;
        }
        profile.layers = self.layers.map_or(profile.layers, usize::from);
        profile.network = self.network_ms.unwrap_or(profile.network);
        profile.replica_delay = self.replica_delay_ms.unwrap_or(profile.replica_delay);
        profile.replication_delay = self.replication_delay_ms.unwrap_or(profile.replication_delay);
        profile.encrypt = self.encrypt_ms.unwrap_or(profile.encrypt);
        profile.kind_reads = self.kind_reads;
        profile.epoch = self.epoch_duration.unwrap_or(profile.epoch);
        profile.replicas = self.replicas.map_or(profile.replicas, usize::from);
        profile.couriers = self.couriers.map_or(profile.couriers, usize::from);
        let standard = Settings::default();
        Ok(Settings {
            profile: profile.scaled(self.pace.time_scale.unwrap_or(1.0)),
            faults: faults.meant(),
            daemons: self.daemons,
            session_grace: self.session_grace.unwrap_or(standard.session_grace),
            max_plaintext: self.max_plaintext,
            seed: self.seed,
        })
    }
}

impl FaultArgs {
    fn meant(&self) -> Faults {
        Faults {
            loss: self.loss.unwrap_or(0.0),
            reply_loss: self.reply_loss.unwrap_or(0.0),
            duplication: self.duplication.unwrap_or(0.0),
            delay: self.delay.unwrap_or(0.0),
            delay_ms: self.delay_ms.map_or(0, super::super::milliseconds),
            false_not_found: self.false_not_found.unwrap_or(0.0),
            ack_then_lost: self.ack_then_lost.unwrap_or(0.0),
            stale_epoch: self.stale_epoch.unwrap_or(0.0),
            conflicting_writer: self.conflicting_writer.unwrap_or(0.0),
            storage_full: self.storage_full,
            disconnect_after_bytes: self.disconnect_after_bytes.unwrap_or(0),
            disconnect_after_bytes_in: self.disconnect_after_bytes_in.unwrap_or(0),
        }
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.0..=1.0).contains(&rate) => Ok(rate),
        _ => Err(format!("{text:?} is not a rate from 0 to 1, such as 0.05")),
    }
}

/// Within what a duration of nanoseconds can be divided by.
fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (1e-9..=1e6).contains(&number) => Ok(number),
        _ => Err(format!("{text:?} is not a number above 0 and up to 1000000, such as 0.5")),
    }
}

fn epoch(text: &str) -> Result<Duration, String> {
    match span(text)? {
        length if length >= Duration::from_secs(1) => Ok(length),
        _ => Err(format!("{text:?} is too short for an epoch, which takes at least a second, such as 20m")),
    }
}
