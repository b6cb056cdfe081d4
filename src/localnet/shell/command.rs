//! What a running network can be told, by its own process and over the control socket.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot};

use super::run::Input;
use crate::localnet::{Faults, Stats};

/// A command to a network. As JSON it is an object with its name, in kebab-case, under `command`, and its fields beside
/// it: `{"command": "link", "up": false}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// What the daemon has done since its start, and how much is under way. Answered with [`Answer::Stats`].
    Stats,
    /// How much of everything is held; when every client has gone, the daemon's part is nothing. Answered with
    /// [`Answer::Census`].
    Census,
    /// Which faults there are. Answered with [`Answer::Faults`].
    Faults,
    /// Changes the faults that are named and leaves the others. Answered with [`Answer::Faults`].
    SetFaults {
        /// Fields of [`Faults`] by their names: `{"loss": 0.1, "storage-full": true}`.
        set: Map<String, Value>,
    },
    /// Ends all faults. Answered with [`Answer::Faults`].
    ClearFaults,
    /// Takes the daemon's link to its gateway down, or up again; clients are told.
    Link {
        /// Whether it is up.
        up: bool,
    },
    /// Takes the daemon's PKI document away, or gives it back.
    Consensus {
        /// Whether there is one.
        there: bool,
    },
    /// What the network's clock shows. Answered with [`Answer::Clock`].
    Clock,
    /// Moves the network's clock at once. Answered with [`Answer::Clock`].
    Jump {
        /// By so many milliseconds, back if they are negative.
        by_ms: i64,
    },
    /// Takes back what [`Self::Jump`] did. Answered with [`Answer::Clock`].
    ResetClock,
    /// Restarts the daemon: sessions and operations are forgotten, connections end, the instance token is a new one. What
    /// couriers and replicas hold stays.
    Restart {
        /// As by `kill -9`: clients are not told.
        #[serde(default)]
        killed: bool,
    },
    /// Ends one of the daemons as by `kill -9`. Whoever dials it is hung up on until [`Self::Start`].
    Stop {
        /// Which one, counted from 1.
        daemon: usize,
    },
    /// Starts a daemon that was stopped.
    Start {
        /// Which one, counted from 1.
        daemon: usize,
    },
    /// Has a daemon's packets leave more rarely than the profile says, or as often again.
    Slow {
        /// Which one, counted from 1.
        daemon: usize,
        /// How many times as rarely; 1 is what the profile says. Where a packet leaves at once there is nothing to slow down.
        times: f64,
    },
    /// Cuts every connection at once; sessions stay.
    Disconnect,
    /// Tells every client the PKI document anew, as at the start of an epoch.
    Epoch,
}

/// What a network answers to a [`Command`]. As JSON it is an object with one key, in kebab-case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// Done, and there is nothing to say.
    Done {},
    /// What the daemon has counted.
    Stats(Stats),
    /// Counts by what is counted.
    Census(BTreeMap<String, u64>),
    /// The faults that there are now.
    Faults(Faults),
    /// What the network's clock shows.
    Clock(ClockShown),
    /// What was wrong with the command.
    Error(String),
}

/// What a network's clock shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ClockShown {
    /// Milliseconds since the Unix epoch.
    pub unix_ms: u64,
    /// How much of it was added by [`Command::Jump`].
    pub moved_ms: i64,
    /// The mixnet epoch.
    pub epoch: u64,
    /// The replica epoch: weeks, from a Thursday.
    pub replica_epoch: u64,
}

/// Why a command had no effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// It makes no sense.
    #[error("{0}")]
    Refused(String),
    /// The network has ended.
    #[error("the network has ended")]
    Ended,
}

/// Where a network takes its commands. Clones command the same network.
#[derive(Clone)]
pub struct Console {
    inputs: mpsc::WeakSender<Input>,
}

impl Console {
    pub(super) fn new(inputs: &mpsc::Sender<Input>) -> Self {
        Self { inputs: inputs.downgrade() }
    }

    /// Gives a command, and waits until it has taken effect: what happens later happens under it.
    pub async fn tell(&self, command: Command) -> Result<Answer, CommandError> {
        let (answer, answered) = oneshot::channel();
        let inputs = self.inputs.upgrade().ok_or(CommandError::Ended)?;
        inputs.send(Input::Command(command, answer)).await.map_err(|_| CommandError::Ended)?;
        drop(inputs);
        match answered.await {
            Ok(Answer::Error(error)) => Err(CommandError::Refused(error)),
            Ok(answer) => Ok(answer),
            Err(_) => Err(CommandError::Ended),
        }
    }

    /// What the daemon has done since its start.
    pub async fn stats(&self) -> Result<Stats, CommandError> {
        match self.tell(Command::Stats).await? {
            Answer::Stats(stats) => Ok(stats),
            other => unreachable!("stats answered with {other:?}"),
        }
    }

    /// How much of everything is held, by what it is.
    pub async fn census(&self) -> Result<BTreeMap<String, u64>, CommandError> {
        match self.tell(Command::Census).await? {
            Answer::Census(census) => Ok(census),
            other => unreachable!("a census answered with {other:?}"),
        }
    }

    /// Puts these faults in the place of all that there are.
    pub async fn set_faults(&self, faults: &Faults) -> Result<(), CommandError> {
        let Ok(Value::Object(set)) = serde_json::to_value(faults) else { unreachable!("faults are an object") };
        self.tell(Command::SetFaults { set }).await.map(drop)
    }

    /// Moves the network's clock forward at once.
    pub async fn jump(&self, by: Duration) -> Result<(), CommandError> {
        let by_ms = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.tell(Command::Jump { by_ms }).await.map(drop)
    }
}

/// The faults that `faults` become where `set` says so.
pub(super) fn changed(faults: &Faults, set: &Map<String, Value>) -> Result<Faults, String> {
    let Ok(Value::Object(mut fields)) = serde_json::to_value(faults) else { unreachable!("faults are an object") };
    for (name, value) in set {
        if !fields.contains_key(name) {
            let known: Vec<_> = fields.keys().map(String::as_str).collect();
            return Err(format!("there is no fault {name:?}: use {}", known.join(", ")));
        }
        let one = Value::Object(std::iter::once((name.clone(), value.clone())).collect());
        serde_json::from_value::<Faults>(one).map_err(|error| format!("{name}: {error}"))?;
        fields.insert(name.clone(), value.clone());
    }
    let changed: Faults = serde_json::from_value(Value::Object(fields)).map_err(|error| error.to_string())?;
    changed.check()?;
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn commands_are_flat_objects_and_what_is_unknown_is_refused() {
        let parse = |text: &str| serde_json::from_str::<Command>(text);
        assert_eq!(parse(r#"{"command": "link", "up": false}"#).expect("known"), Command::Link { up: false });
        assert_eq!(parse(r#"{"command": "restart"}"#).expect("known"), Command::Restart { killed: false });
        assert_eq!(parse(r#"{"command": "jump", "by-ms": -5}"#).expect("known"), Command::Jump { by_ms: -5 });
        for text in [r#"{"command": "explode"}"#, r#"{"command": "link"}"#, r#"{"up": true}"#, "17", ""] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse(r#"{"command": "link", "up": true, "down": true}"#).is_err());
        assert_eq!(serde_json::to_value(Answer::Done {}).expect("an answer"), json!({"done": {}}));
    }

    #[test]
    fn faults_change_one_by_one_and_nonsense_changes_none() {
        let before = Faults { loss: 0.5, ..Faults::default() };
        let set = |value: Value| match value {
            Value::Object(set) => changed(&before, &set),
            _ => unreachable!(),
        };
        let after = set(json!({"storage-full": true, "delay-ms": 30})).expect("known");
        assert_eq!(after, Faults { storage_full: true, delay_ms: 30, ..before.clone() });
        assert!(set(json!({"los": 0.1})).expect_err("misspelt").contains("reply-loss"));
        assert!(set(json!({"loss": 2})).expect_err("no probability").starts_with("loss"));
        assert!(set(json!({"loss": "much"})).expect_err("no number").starts_with("loss"));
    }
}
