//! What a seed decides before a run begins, and the mishaps in it.

use std::time::Duration;

use pigeonfs::localnet::{Command, Console, Faults, Profile, Settings};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::sleep;

use crate::tap::Transcript;

/// What a seed decides.
pub(crate) struct Plan {
    pub(crate) dice: StdRng,
    pub(crate) settings: Settings,
    pub(crate) max_plaintext: usize,
    /// The longest time that an operation is given.
    pub(crate) patience: Duration,
    pub(crate) clients: Vec<ClientPlan>,
    /// Whether other writers take boxes.
    pub(crate) foreign: bool,
    /// Whether the clock jumps so far that boxes expire.
    pub(crate) weeks: bool,
}

/// What becomes of a client.
pub(crate) struct ClientPlan {
    pub(crate) seed: u64,
    /// Started operations at once.
    pub(crate) started: usize,
    /// Operations one after the other, each its seed.
    pub(crate) lanes: Vec<u64>,
    /// It is closed so early, with all that is under way.
    pub(crate) leaves: Option<Duration>,
    /// It says goodbye by being closed, rather than dropped.
    pub(crate) closes: bool,
}

impl Plan {
    pub(crate) fn of(seed: u64) -> Self {
        let mut dice = StdRng::seed_from_u64(seed);
        let scale = [1.0, 20.0, 200.0][dice.random_range(0..3)];
        let (profile, patience) = match dice.random_range(0..4) {
            0 | 1 => (Profile::instant(), 20.0),
            2 => (Profile::docker().scaled(scale), (600.0 / scale).max(5.0)),
            _ => (Profile::namenlos().scaled(scale), (600.0 / scale).max(5.0)),
        };
        let foreign = dice.random_bool(0.2);
        let max_plaintext = dice.random_range(600..1600);
        let faults = if dice.random_bool(0.5) { faults(&mut dice, foreign) } else { Faults::default() };
        let settings = Settings {
            daemons: 1,
            profile,
            faults,
            session_grace: Duration::from_secs(dice.random_range(1..600)),
            max_plaintext: Some(max_plaintext),
            seed: Some(dice.random()),
        };
        let clients = (0..dice.random_range(1..=3)).map(|_| ClientPlan {
            seed: dice.random(),
            started: if dice.random_bool(0.3) { dice.random_range(1..=3) } else { 16 },
            lanes: (0..dice.random_range(1..=4)).map(|_| dice.random()).collect(),
            leaves: dice.random_bool(0.15).then(|| logarithmic(&mut dice, 0.01, patience)),
            closes: dice.random(),
        });
        let clients = clients.collect();
        let weeks = dice.random_bool(0.05);
        let patience = Duration::from_secs_f64(patience);
        Self { settings, max_plaintext, patience, clients, foreign, weeks, dice }
    }
}

/// A time between two, in seconds; as often from one to two as from ten to twenty.
pub(crate) fn logarithmic(dice: &mut StdRng, shortest: f64, longest: f64) -> Duration {
    Duration::from_secs_f64(dice.random_range(shortest.ln()..longest.ln()).exp())
}

/// Some of the faults that there are.
fn faults(dice: &mut StdRng, foreign: bool) -> Faults {
    let mut rate =
        |probable: f64, most: f64| if dice.random_bool(probable) { dice.random_range(0.0..most) } else { 0.0 };
    Faults {
        loss: rate(0.3, 0.5),
        reply_loss: rate(0.3, 0.5),
        duplication: rate(0.3, 0.5),
        delay: rate(0.3, 0.5),
        false_not_found: rate(0.3, 0.9),
        ack_then_lost: rate(0.3, 0.7),
        stale_epoch: rate(0.2, 0.5),
        conflicting_writer: if foreign { rate(0.5, 0.5) } else { 0.0 },
        delay_ms: dice.random_range(0..20_000),
        storage_full: dice.random_bool(0.1),
        disconnect_after_bytes: if dice.random_bool(0.15) { dice.random_range(1..200_000) } else { 0 },
        disconnect_after_bytes_in: if dice.random_bool(0.15) { dice.random_range(1..50_000) } else { 0 },
    }
}

/// Lets things go wrong, one after the other, until it is dropped.
pub(crate) async fn mishaps(console: Console, mut dice: StdRng, foreign: bool, weeks: bool, transcript: &Transcript) {
    let longest = 10.0;
    loop {
        sleep(logarithmic(&mut dice, 0.01, longest)).await;
        let for_a_while = logarithmic(&mut dice, 0.001, longest);
        let mishap = dice.random_range(0..10);
        transcript.tell(&format!("mishap {mishap}"));
        let told = match mishap {
            0..=2 => console.set_faults(&faults(&mut dice, foreign)).await,
            3 => console.tell(Command::ClearFaults).await.map(drop),
            4 => {
                let down = console.tell(Command::Link { up: false }).await;
                sleep(for_a_while).await;
                down.and(console.tell(Command::Link { up: true }).await).map(drop)
            }
            5 => {
                let gone = console.tell(Command::Consensus { there: false }).await;
                sleep(for_a_while).await;
                gone.and(console.tell(Command::Consensus { there: true }).await).map(drop)
            }
            6 => console.tell(Command::Restart { killed: dice.random() }).await.map(drop),
            7 => console.tell(Command::Disconnect).await.map(drop),
            8 => console.tell(Command::Epoch).await.map(drop),
            _ => {
                let most = if weeks { 20 * 24 * 3600 * 1000 } else { 2 * 3600 * 1000 };
                // Back to where it was, or somewhere else: never so far in all that boxes expire unless they are to.
                let reset = console.tell(Command::ResetClock).await;
                let jump = Command::Jump { by_ms: dice.random_range(-most..most) };
                if dice.random() { console.tell(jump).await.map(drop) } else { reset.map(drop) }
            }
        };
        told.expect("the network runs");
    }
}

/// Everything is as it should be again.
pub(crate) async fn mend(console: &Console) {
    for command in [Command::ClearFaults, Command::Link { up: true }, Command::Consensus { there: true }] {
        console.tell(command).await.expect("the network runs");
    }
}
