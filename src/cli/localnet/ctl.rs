//! `pigeonfs localnet ctl`

use std::io;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value};

use super::super::context::Context;
use super::super::{Stop, output};
use crate::engine::control::{Failure, FailureKind};
use crate::localnet::{Answer, Command, ask};
use crate::units::span;

/// Command a running localnet: its faults, its clock, its daemon
#[derive(Args, Debug)]
#[command(after_help = "\
Without --state it is the network of `mount --localnet`; with it, the network in DIR or in
DIR/localnet. Other programs can say the same in JSON, a line each, to the socket ctl.sock in the
network's directory.

Examples:
  pigeonfs localnet ctl --state /tmp/net faults set loss=0.1 storage-full=on
  pigeonfs localnet ctl --state /tmp/net clock +8d
  pigeonfs localnet ctl --state /tmp/net stop 2             of `localnet --daemons 2`, the second one
  echo '{\"command\": \"link\", \"up\": false}' | socat - UNIX:/tmp/net/ctl.sock")]
pub(super) struct Typed {
    #[command(subcommand)]
    command: Word,
}

#[derive(Debug, Subcommand)]
enum Word {
    /// Ticks, packets by kind of operation, clients
    Stats,
    /// How much of everything is held
    Census,
    /// Show the faults, or change them
    Faults {
        #[command(subcommand)]
        change: Option<FaultsWord>,
    },
    /// Take the daemon's link to its gateway down, or up
    Link { to: UpDown },
    /// Take the daemon's PKI document away, or give it back
    Consensus { to: GoneBack },
    /// Show the network's clock, or move it: +8d, -90m, reset
    Clock {
        #[arg(allow_hyphen_values = true, value_parser = clock)]
        by: Option<Move>,
    },
    /// Restart the daemon: its sessions and operations are gone, the boxes stay
    Restart {
        /// As by kill -9: clients are not told
        #[arg(long)]
        killed: bool,
    },
    /// End one daemon as by kill -9; its clients find nobody until `start`
    Stop {
        #[arg(value_name = "NUMBER")]
        daemon: usize,
    },
    /// Start a daemon that was stopped
    Start {
        #[arg(value_name = "NUMBER")]
        daemon: usize,
    },
    /// Have a daemon's packets leave so many TIMES as rarely; 1 is as the profile says
    Slow {
        #[arg(value_name = "NUMBER")]
        daemon: usize,
        times: f64,
    },
    /// Cut all connections now; sessions stay
    Disconnect,
    /// Whether replicas refuse what is new
    StorageFull { to: OnOff },
    /// Tell every client the PKI document anew
    Epoch,
}

#[derive(Debug, Subcommand)]
enum FaultsWord {
    /// Change those that are named, as loss=0.1 or storage-full=on
    Set {
        #[arg(required = true, value_name = "NAME=VALUE", value_parser = fault)]
        faults: Vec<(String, Value)>,
    },
    /// End them all
    Clear,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum UpDown {
    Up,
    Down,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum GoneBack {
    Gone,
    Back,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum OnOff {
    On,
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Move {
    By(i64),
    Reset,
}

impl Word {
    fn meant(self) -> Command {
        match self {
            Self::Stats => Command::Stats,
            Self::Census => Command::Census,
            Self::Faults { change: None } => Command::Faults,
            Self::Faults { change: Some(FaultsWord::Set { faults }) } => {
                Command::SetFaults { set: faults.into_iter().collect() }
            }
            Self::Faults { change: Some(FaultsWord::Clear) } => Command::ClearFaults,
            Self::Link { to } => Command::Link { up: to == UpDown::Up },
            Self::Consensus { to } => Command::Consensus { there: to == GoneBack::Back },
            Self::Clock { by: None } => Command::Clock,
            Self::Clock { by: Some(Move::By(by_ms)) } => Command::Jump { by_ms },
            Self::Clock { by: Some(Move::Reset) } => Command::ResetClock,
            Self::Restart { killed } => Command::Restart { killed },
            Self::Stop { daemon } => Command::Stop { daemon },
            Self::Start { daemon } => Command::Start { daemon },
            Self::Slow { daemon, times } => Command::Slow { daemon, times },
            Self::Disconnect => Command::Disconnect,
            Self::StorageFull { to } => {
                Command::SetFaults { set: Map::from_iter([("storage-full".to_owned(), Value::Bool(to == OnOff::On))]) }
            }
            Self::Epoch => Command::Epoch,
        }
    }
}

pub(super) async fn run(context: &Context, typed: Typed) -> Result<(), Stop> {
    let command = typed.command.meant();
    let mut answer = Err(io::Error::from(io::ErrorKind::NotFound));
    for directory in directories(context) {
        answer = ask(&directory, &command).await;
        if answer.as_ref().map_or_else(io::Error::kind, |_| io::ErrorKind::Other) != io::ErrorKind::NotFound {
            break;
        }
    }
    match answer {
        Ok(Answer::Error(error)) => Err(Failure::new(FailureKind::Refused, error).into()),
        Ok(answer) if context.json => output::json(&answer),
        Ok(answer) => show(&answer),
        Err(error) => Err(Failure::new(
            FailureKind::NoDaemon,
            format!("no localnet answers in {}: {error}", context.state.display()),
        )
        .hint("name its directory with --state; `pigeonfs localnet` and `mount --localnet` run one")
        .into()),
    }
}

fn directories(context: &Context) -> Vec<PathBuf> {
    match context.state_is_default {
        true => vec![context.localnet_dir()],
        false => vec![context.state.clone(), context.localnet_dir()],
    }
}

fn show(answer: &Answer) -> Result<(), Stop> {
    let value = serde_json::to_value(answer).unwrap_or_default();
    // One key, which names what it is.
    let Some(inner) = value.as_object().and_then(|answer| answer.values().next()) else { return Ok(()) };
    let mut rows = Vec::new();
    flatten("", inner, &mut rows);
    output::table(&rows)
}

fn flatten(name: &str, value: &Value, rows: &mut Vec<[String; 2]>) {
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                let name = if name.is_empty() { field.clone() } else { format!("{name} {field}") };
                flatten(&name, value, rows);
            }
        }
        value => rows.push([name.to_owned(), value.to_string()]),
    }
}

fn clock(text: &str) -> Result<Move, String> {
    if text == "reset" {
        return Ok(Move::Reset);
    }
    let (sign, rest) = match (text.strip_prefix('+'), text.strip_prefix('-')) {
        (Some(rest), _) => (1, rest),
        (_, Some(rest)) => (-1, rest),
        _ => return Err(format!("{text:?} is not a jump of the clock, such as +8d, -90m or reset")),
    };
    let by_ms = i64::try_from(span(rest)?.as_millis()).map_err(|_| "too far".to_owned())?;
    Ok(Move::By(sign * by_ms))
}

fn fault(text: &str) -> Result<(String, Value), String> {
    let (name, value) =
        text.split_once('=').ok_or_else(|| format!("{text:?} is not a fault: write NAME=VALUE, such as loss=0.1"))?;
    let value = match value {
        "on" | "true" => Value::Bool(true),
        "off" | "false" => Value::Bool(false),
        number => serde_json::from_str::<serde_json::Number>(number)
            .map(Value::Number)
            .map_err(|_| format!("{number:?} is neither a number nor on or off, as in loss=0.1 or storage-full=on"))?,
    };
    Ok((name.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_and_faults_are_read_as_they_are_written() {
        assert_eq!(clock("+8d"), Ok(Move::By(8 * 24 * 3_600_000)));
        assert_eq!(clock("-1.5s"), Ok(Move::By(-1500)));
        assert_eq!(clock("reset"), Ok(Move::Reset));
        assert!(clock("8d").is_err() && clock("+8 parsecs").is_err());
        assert_eq!(fault("storage-full=on"), Ok(("storage-full".to_owned(), Value::Bool(true))));
        assert_eq!(fault("loss=0.1").map(|(_, value)| value), Ok(serde_json::json!(0.1)));
        assert!(fault("loss").is_err() && fault("loss=much").is_err());
    }
}
