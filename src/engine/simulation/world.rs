//! The world of a run: its clock, what is planned, its processes, and the network between them.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use rand::RngExt as _;
use rand::rngs::StdRng;
use tempfile::TempDir;

use super::adopting::Keeping;
use super::boxes::Boxes;
use super::daemons::{Daemon, wire_of};
use super::drops::Hands;
use super::line::{Parcel, Wire};
use super::oracle::Oracle;
use super::plan::{Deed, Mishap, Plan};
use super::process::{BEFORE, Life, Message, Process, Queued};
use crate::channel::{CommitFailure, Line, NetworkView, OperationId, Request, Time};
use crate::localnet::simulated::{Conn, Simulated};
use crate::store::NetworkId;

/// Some Friday, by the wall clock.
const T0: Time = Time::from_secs(1_795_800_000);
const DISK_FAILED: &str = "the disk failed";
/// Boxes of a stream that may wait to be stored.
/// What is told of a run that ended badly, in lines.
const HISTORY: usize = 300;
const SPOOL: u64 = 12;
/// When replica epochs began to be counted, in seconds of Unix time.
const EPOCH_ZERO: u64 = 1_496_275_200;
/// A process that crashed starts again within so many milliseconds.
const DOWN_MS: Range<u64> = 1..5000;

/// What happens at its time.
pub(super) enum Happening {
    /// The writer thread commits.
    Commit { p: usize },
    /// The driver gets a message.
    Message { p: usize, message: Message },
    /// An envelope is made.
    Encrypted { p: usize, id: OperationId, parcel: Parcel },
    /// An operation has taken too long.
    Deadline { p: usize, n: usize, id: OperationId },
    /// The daemon gave a request back.
    Room { p: usize, n: usize, conn: Conn },
    /// A client dials.
    Dial { p: usize, n: usize },
    /// A worker on drops has its turn.
    Work { p: usize },
    /// The daemon was asked what it is.
    Checked { p: usize, conn: Conn },
    /// A process starts.
    Start { p: usize },
    /// A person does something.
    Deed,
    /// Something goes wrong.
    Mishap,
}

/// Everything there is in a run.
pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) dice: StdRng,
    /// Time that never jumps.
    pub(super) now: Time,
    /// What the wall clock is ahead of it.
    ahead_s: i64,
    pub(super) net: Simulated,
    pub(super) boxes: Boxes,
    /// M of the network.
    pub(super) max: usize,
    pub(super) daemons: Vec<Daemon>,
    pub(super) processes: Vec<Process>,
    /// What the processes have on their disks; it goes with the run.
    root: TempDir,
    /// Of which process another is a copy.
    twin: Option<(usize, usize)>,
    /// How many documents the network has had.
    documents: u64,
    pub(super) conns: BTreeMap<Conn, (usize, usize)>,
    pub(super) oracle: Oracle,
    agenda: BTreeMap<(Time, u64), (Option<u64>, Happening)>,
    serial: u64,
    /// While things go wrong.
    pub(super) troubled: bool,
    /// What has happened how often, of what a run is there for.
    pub(super) seen: BTreeMap<&'static str, u64>,
    /// Steps so far.
    pub(super) steps: u64,
    /// Tells what happens, for a person who looks into one run.
    aloud: bool,
    /// The newest of what happened, for a person who looks into a run that ended badly.
    pub(super) history: Option<VecDeque<String>>,
    /// Sums up all that was told, whether aloud or not.
    pub(super) digest: u64,
}

impl World {
    pub(super) fn new(mut plan: Plan, aloud: bool) -> Self {
        let dice = plan.dice();
        let streams = plan.streams.len();
        let root = root();
        let processes =
            (0..plan.processes).map(|p| Process::new(root.path().join(p.to_string()), plan.daemons)).collect();
        let mut world = Self {
            net: Simulated::new(plan.profile.clone(), plan.max, plan.daemons, plan.seed),
            boxes: if plan.real { Boxes::real(streams) } else { Boxes::StandIn },
            dice,
            now: BEFORE,
            ahead_s: 0,
            max: plan.max,
            daemons: vec![Daemon::default(); plan.daemons],
            processes,
            root,
            twin: None,
            documents: 0,
            history: None,
            conns: BTreeMap::new(),
            oracle: Oracle::new(streams),
            agenda: BTreeMap::new(),
            serial: 0,
            troubled: true,
            seen: BTreeMap::new(),
            steps: 0,
            aloud,
            digest: 0,
            plan,
        };
        world.trace(|| String::from("a run begins"));
        world.show_time();
        for (stream, of) in world.plan.streams.clone().into_iter().enumerate() {
            for reader in of.readers {
                world.processes[reader].add_reader(stream, world.plan.content());
            }
        }
        let wall = world.wall();
        let faults = world.plan.faults(&mut world.dice);
        let heard = world.net.set_faults(wall, faults);
        world.hear(heard);
        for p in 0..world.processes.len() {
            let after = world.millis(0..5000);
            world.plan_at(after, None, Happening::Start { p });
        }
        world.plan_at(Time::ZERO, None, Happening::Deed);
        world.plan_at(Time::ZERO, None, Happening::Mishap);
        world
    }

    pub(super) fn wall(&self) -> Time {
        let wall = T0 + self.now;
        let ahead = Time::from_secs(self.ahead_s.unsigned_abs());
        if self.ahead_s < 0 { wall - ahead } else { wall + ahead }
    }

    /// Shows all stores the time.
    fn show_time(&self) {
        for process in &self.processes {
            process.set_wall(self.wall());
        }
    }

    /// The network of the streams, or the other one, as it is when it can be used.
    pub(super) fn network_view(&self, elsewhere: bool) -> NetworkView {
        let epoch = (self.wall().as_secs() - EPOCH_ZERO) / (7 * 86_400);
        NetworkView {
            id: NetworkId::new([[if elsewhere { 8 } else { 9 }; 32]]),
            max_plaintext: if elsewhere { self.max + 3 } else { self.max },
            // Each document says it a little differently.
            pace: if self.documents.is_multiple_of(2) { self.plan.pace.clone() } else { self.plan.other_pace.clone() },
            replica_epoch: Some(epoch),
        }
    }

    pub(super) fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    pub(super) fn millis(&mut self, range: Range<u64>) -> Time {
        Time::from_micros(self.dice.random_range(range.start * 1000..range.end * 1000))
    }

    pub(super) fn see(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    /// Tells what happens. The words are made only for who reads them.
    pub(super) fn trace(&mut self, words: impl FnOnce() -> String) {
        if let Some(history) = &mut self.history {
            if history.len() >= HISTORY {
                history.pop_front();
            }
            history.push_back(format!("{:>12.3} {}", self.now.as_secs_f64(), words()));
        } else if self.aloud {
            #[allow(clippy::print_stderr)] // For the person who asked for this one run.
            {
                eprintln!("{:>12.3} {}", self.now.as_secs_f64(), words());
            }
        }
    }

    fn plan_at(&mut self, after: Time, life: Option<u64>, happening: Happening) {
        let serial = self.next_serial();
        self.agenda.insert((self.now + after, serial), (life, happening));
    }

    /// Plans something that ends with the process's present life.
    pub(super) fn plan_of(&mut self, p: usize, after: Time, happening: Happening) {
        let life = self.processes[p].lives;
        self.plan_at(after, Some(life), happening);
    }

    /// A message to the driver, which takes a moment: others may overtake it.
    pub(super) fn tell(&mut self, p: usize, message: Message) {
        let after = self.millis(0..3);
        self.plan_of(p, after, Happening::Message { p, message });
    }

    /// How much is planned.
    pub(super) fn planned(&self) -> usize {
        self.agenda.len()
    }

    /// The next thing happens. False: nothing ever will.
    pub(super) fn step(&mut self) -> bool {
        self.steps += 1;
        let planned = self.agenda.first_key_value().map(|(&(at, _), _)| at);
        let lives = self.processes.iter().enumerate();
        let rings = lives.filter_map(|(p, process)| Some((process.life.as_ref()?.next_timer(self.now)?, p)));
        let ring = rings.min();
        let wall = self.wall();
        let net = self.net.next_deadline().map(|at| self.now + at.saturating_sub(wall));
        let Some(at) = planned.into_iter().chain(net).chain(ring.map(|(at, _)| at)).min() else { return false };
        self.now = self.now.max(at);
        self.show_time();
        let micros = u64::try_from(self.now.as_micros()).unwrap_or(u64::MAX);
        self.digest = (self.digest.rotate_left(5) ^ micros).wrapping_mul(0x517c_c1b7_2722_0a95);
        if net.is_some_and(|net| net <= at) {
            let heard = self.net.tick(self.wall());
            self.hear(heard);
        } else if planned.is_some_and(|planned| planned <= at) {
            if let Some((_, (life, happening))) = self.agenda.pop_first() {
                self.happen(life, happening);
            }
        } else if let Some((_, p)) = ring {
            self.ring(p);
            self.may_crash(p);
        }
        true
    }

    fn happen(&mut self, life: Option<u64>, happening: Happening) {
        let p = match &happening {
            Happening::Commit { p }
            | Happening::Message { p, .. }
            | Happening::Encrypted { p, .. }
            | Happening::Deadline { p, .. }
            | Happening::Room { p, .. }
            | Happening::Dial { p, .. }
            | Happening::Checked { p, .. }
            | Happening::Work { p }
            | Happening::Start { p } => *p,
            Happening::Deed => return self.deed(),
            Happening::Mishap => return self.mishap(),
        };
        if life.is_some_and(|life| life != self.processes[p].lives) {
            return;
        }
        match happening {
            Happening::Commit { .. } => self.commit(p),
            Happening::Message { message, .. } => self.take(p, message),
            Happening::Encrypted { id, parcel, .. } => self.encrypted(p, id, parcel),
            Happening::Deadline { n, id, .. } => self.overdue(p, n, id),
            Happening::Room { n, conn, .. } => self.room(p, n, conn),
            Happening::Dial { n, .. } => self.dialled(p, n),
            Happening::Checked { conn, .. } => self.checked(p, conn),
            Happening::Start { .. } => self.start(p),
            Happening::Work { .. } => self.work(p),
            _ => {}
        }
        self.may_crash(p);
    }

    /// A crash may come after anything that a process did.
    fn may_crash(&mut self, p: usize) {
        if self.troubled && self.dice.random_bool(self.plan.crash_at_step) {
            self.crash(p);
        }
    }

    fn start(&mut self, p: usize) {
        if self.processes[p].life.is_some() {
            return;
        }
        self.trace(|| format!("{p}: starts"));
        let tokens = (0..2 * self.daemons.len()).map(|_| self.next_serial()).collect();
        let hands = Hands::new(self.processes[p].store(), self.processes[p].drops());
        self.processes[p].life = Some(Life::new(tokens, self.dice.random(), self.plan.prompt, hands));
        self.begin(p);
        for daemon in 0..self.daemons.len() {
            self.dial(p, wire_of(daemon, Line::Main));
        }
    }

    /// SIGKILL. What waits for its commit is lost, or was committed a moment before with nobody told.
    pub(super) fn crash(&mut self, p: usize) {
        let Some(life) = self.processes[p].life.take() else { return };
        self.trace(|| format!("{p}: crashes"));
        self.see("crashes");
        self.processes[p].lives += 1;
        self.processes[p].committing = false;
        let synced = self.dice.random_range(0..=self.processes[p].queue.len());
        for _ in 0..synced {
            if let Some((queued, Ok(_))) = self.processes[p].commit_one() {
                self.oracle_committed(p, &queued);
            }
        }
        self.processes[p].queue.clear();
        self.processes[p].killed();
        for conn in life.wires.iter().filter_map(Wire::conn) {
            self.conns.remove(&conn);
            let heard = self.net.disconnect(self.wall(), conn);
            self.hear(heard);
        }
        let after = self.millis(DOWN_MS);
        self.plan_of(p, after, Happening::Start { p });
    }

    /// A request to the store, which is committed in a moment.
    pub(super) fn submit(&mut self, p: usize, queued: Queued) {
        self.processes[p].queue.push_back(queued);
        if !std::mem::replace(&mut self.processes[p].committing, true) {
            let slow = self.troubled && self.dice.random_bool(0.02);
            let after = if slow { self.millis(100..3000) } else { self.millis(0..8) };
            self.plan_of(p, after, Happening::Commit { p });
        }
    }

    /// What is on the disk counts, whether or not the process lives to hear of it.
    fn oracle_committed(&mut self, p: usize, queued: &Queued) {
        match queued {
            Queued::Person { stream, deed } => self.oracle_done(p, *stream, deed),
            Queued::Adoption { id, keeping: Keeping::Finish } => {
                let stream = self.processes[p].stream_of(*id);
                self.oracle_adopted(stream);
            }
            Queued::Machine { channel: Some(id), request: Request::Record { seq, arrival, .. }, .. } => {
                if let Some(stream) = self.processes[p].stream_of(*id) {
                    self.oracle_recorded(p, stream, *seq, arrival);
                }
            }
            Queued::Adoption { .. } | Queued::Machine { .. } => {}
        }
    }

    /// A group is committed; its requests are answered, and the channels that it touched are told of.
    fn commit(&mut self, p: usize) {
        self.processes[p].committing = false;
        let group = self.dice.random_range(1..=self.processes[p].queue.len().max(1));
        let mut touched = Vec::new();
        for _ in 0..group {
            let fails = self.troubled && self.dice.random_bool(self.plan.disk_errors);
            // A person's writes fail before they are taken: that is no matter of the engine.
            let fails = fails && !matches!(self.processes[p].queue.front(), None | Some(Queued::Person { .. }));
            let before = match self.processes[p].queue.front() {
                Some(Queued::Person { stream, .. }) => self.processes[p].channel(*stream).map(|channel| channel.id),
                _ => None,
            };
            let made = if fails {
                self.see("failures of the disk");
                let failed = Err(CommitFailure::Failed(DISK_FAILED.to_owned()));
                self.processes[p].queue.pop_front().map(|queued| (queued, failed))
            } else {
                self.processes[p].commit_one()
            };
            let Some((queued, result)) = made else { break };
            self.trace(|| format!("{p}: committed {queued:?} {result:?}"));
            let id = match &queued {
                Queued::Machine { channel, .. } => *channel,
                Queued::Adoption { id, .. } => Some(*id),
                Queued::Person { stream, .. } => self.processes[p].channel(*stream).map(|channel| channel.id),
            };
            if result.is_ok() {
                touched.extend(id);
                touched.extend(before);
                self.oracle_committed(p, &queued);
            }
            match queued {
                Queued::Person { deed: Deed::Adopt, .. } if result.is_ok() => self.adopt(p),
                Queued::Person { .. } => {}
                Queued::Adoption { id, keeping } => self.tell(p, Message::AdoptionKept(id, keeping, result)),
                Queued::Machine { commit, request, .. } => {
                    if result.is_err() && matches!(request, Request::Record { .. }) {
                        self.see("records that failed");
                    }
                    self.tell(p, Message::Committed(commit, result));
                }
            }
        }
        touched.dedup();
        if !touched.is_empty() {
            self.wake_hands(p);
        }
        for channel in touched {
            self.tell(p, Message::Touched(channel));
        }
        if !self.processes[p].queue.is_empty() {
            self.processes[p].committing = true;
            let after = self.millis(0..8);
            self.plan_of(p, after, Happening::Commit { p });
        }
    }

    /// A person does something, and will do something else later.
    fn deed(&mut self) {
        if !self.troubled {
            return;
        }
        let after = self.plan.until_deed(&mut self.dice);
        self.plan_at(after, None, Happening::Deed);
        let stream = self.dice.random_range(0..self.plan.streams.len());
        self.deed_of_reader(stream);
        let mut p = self.plan.streams[stream].writer;
        if let Some((of, twin)) = self.twin
            && of == p
            && self.dice.random()
        {
            p = twin;
        }
        if self.processes[p].life.is_none() {
            return;
        }
        let deed = match self.processes[p].channel(stream) {
            None => Deed::Create {
                durability: self.plan.streams[stream].durability,
                max: self.plan.provisional,
                content: self.plan.content(),
            },
            // The spool is full: that is for the person to bear, and no run has to wait for a long backlog.
            Some(written) if written.boxes - written.stored_boxes > SPOOL => return,
            Some(written) if written.fence.is_some() && self.dice.random() => Deed::Adopt,
            Some(_) => self.plan.deed(stream, &mut self.dice),
        };
        self.submit(p, Queued::Person { stream, deed });
    }

    fn deed_of_reader(&mut self, stream: usize) {
        let readers = &self.plan.streams[stream].readers;
        let p = readers[self.dice.random_range(0..readers.len())];
        if self.processes[p].life.is_none() {
            return;
        }
        let deed = match self.processes[p].channel(stream) {
            None => Some(Deed::Add(self.plan.content())),
            Some(_) => self.plan.deed_of_reader(&mut self.dice),
        };
        if let Some(deed) = deed {
            self.submit(p, Queued::Person { stream, deed });
        }
    }

    fn mishap(&mut self) {
        if !self.troubled {
            return;
        }
        let after = self.plan.until_mishap(&mut self.dice);
        self.plan_at(after, None, Happening::Mishap);
        let mut p = self.dice.random_range(0..self.processes.len());
        let wall = self.wall();
        let mishap = self.plan.mishap(&mut self.dice);
        if matches!(mishap, Mishap::Backup | Mishap::Restore) {
            p = self.plan.streams[0].writer;
        }
        self.trace(|| format!("{mishap:?}"));
        let heard = match mishap {
            Mishap::Crash => return self.crash(p),
            Mishap::Disconnect => {
                let n = self.dice.random_range(0..2 * self.daemons.len());
                let conn = self.processes[p].life.as_ref().and_then(|life| life.wires[n].conn());
                let Some(conn) = conn else { return };
                let heard = self.net.disconnect(wall, conn);
                self.lost(p, n);
                heard
            }
            Mishap::Restart => self.net.restart(wall),
            Mishap::Kill(daemon) => return self.kill(daemon),
            Mishap::Revive(daemon) => {
                self.daemons[daemon].dead = false;
                return;
            }
            Mishap::Slow(daemon, times) => return self.slow(daemon, times),
            Mishap::Link(up) => {
                self.plan.link_up = up;
                self.net.link(wall, up)
            }
            Mishap::Faults(faults) => self.net.set_faults(wall, *faults),
            Mishap::Jump(seconds) => self.jumped(seconds),
            Mishap::Foreign { tombstone } => return self.foreign(tombstone),
            Mishap::Twin => return self.twin(),
            Mishap::Elsewhere => return self.elsewhere(p),
            Mishap::Home => return self.home(p),
            Mishap::WrongClock(seconds) => {
                self.see("wrong clocks");
                self.processes[p].wrong_s = seconds;
                return;
            }
            Mishap::Document => {
                self.see("documents");
                self.documents += 1;
                for p in 0..self.processes.len() {
                    self.tell(p, Message::View);
                }
                return;
            }
            Mishap::Backup => {
                self.processes[p].back_up();
                return;
            }
            Mishap::Restore => return self.restore(p),
        };
        self.hear(heard);
    }

    /// The wall clock jumps, as after a suspend or by a correction.
    fn jumped(&mut self, seconds: i64) -> Vec<crate::localnet::simulated::Heard> {
        let from = self.wall();
        let days = self.plan.days_off;
        self.ahead_s = (self.ahead_s + seconds).clamp(-days * 86_400, days * 86_400);
        let to = self.wall();
        self.net.jump(from, to)
    }

    /// A process is started with the state of its backup.
    fn restore(&mut self, p: usize) {
        if !self.processes[p].has_backup() {
            return;
        }
        self.see("restored states");
        // What the restored state writes goes where readers of the other life are.
        self.crash(p);
        for stream in 0..self.plan.streams.len() {
            self.oracle.restored(p, stream, self.plan.streams[stream].writer == p);
        }
        self.processes[p].restore();
    }

    /// A copy of a writer's state goes on beside it.
    fn twin(&mut self) {
        let of = self.plan.streams[0].writer;
        if self.twin.is_some() {
            return;
        }
        self.see("states that were copied");
        let p = self.processes.len();
        let twin = Process::twin_of(&self.processes[of], self.root.path().join(p.to_string()));
        self.processes.push(twin);
        self.twin = Some((of, p));
        for stream in 0..self.plan.streams.len() {
            self.oracle.forked[stream] |= self.plan.streams[stream].writer == of;
        }
        let after = self.millis(DOWN_MS);
        self.plan_at(after, None, Happening::Start { p });
    }

    /// Another writer takes the next place of a stream that ours has not launched, or deletes it.
    fn foreign(&mut self, tombstone: bool) {
        let stream = self.dice.random_range(0..self.plan.streams.len());
        let Some(written) = self.processes[self.plan.streams[stream].writer].channel(stream) else { return };
        let seq = written.launched_end.0 + self.dice.random_range(0..3);
        if self.oracle.foreign[stream].is_some() {
            return;
        }
        self.oracle.foreign[stream] = Some(seq);
        let mut sealed = self.boxes.seal(stream, seq, &[0xff; 3], self.max);
        if tombstone {
            sealed.payload.clear();
        }
        self.see(if tombstone { "foreign tombstones" } else { "foreign boxes" });
        let heard = self.net.plant(self.wall(), sealed);
        self.hear(heard);
    }

    /// Nothing goes wrong any more.
    pub(super) fn mend(&mut self) {
        self.troubled = false;
        self.see("runs that were mended");
        self.mend_daemons();
        self.plan.link_up = true;
        for p in 0..self.processes.len() {
            self.home(p);
            self.processes[p].wrong_s = 0;
        }
        let wall = self.wall();
        self.trace(|| String::from("all is mended"));
        let mut heard = self.net.set_faults(wall, crate::localnet::Faults::default());
        heard.extend(self.net.link(wall, true));
        self.hear(heard);
    }
}

/// A directory in memory, where the system has such.
fn root() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a temporary directory")
}
