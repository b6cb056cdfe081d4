//! The scheduler against the model of `network-performance.md` A.7: one exponential server, taking turns between
//! connections and preferring what it sends again, and a delay behind it; one such server for each daemon.

mod daemons;

use std::collections::VecDeque;
use std::time::Duration;

use rand::RngExt as _;

use super::server::{QUICK_ENCRYPTS, UNSENT};
use super::*;
use crate::channel::{Answer, Durability, Fetched, Outcome, ReadBack, ReceiverAction, SenderAction};

const A: ChannelId = ChannelId(1);
const B: ChannelId = ChannelId(2);
const C: ChannelId = ChannelId(3);
const FIRST: DaemonId = DaemonId(0);

impl Scheduler {
    /// The only daemon, where there is one.
    fn first(&self) -> &Server {
        self.server(FIRST)
    }
}

struct World {
    scheduler: Scheduler,
    dice: StdRng,
    now: Time,
    tick: Duration,
    hop: Duration,
    encrypt: Duration,
    /// Boxes that each writer has queued, and how many are launched; boxes that each reader finds.
    written: BTreeMap<ChannelId, (u64, u64)>,
    found: BTreeMap<ChannelId, (u64, u64)>,
    later: BTreeMap<(Time, u64), Later>,
    serial: u64,
    daemons: Vec<Daemon>,
    operations: BTreeMap<OperationId, Sent>,
    ticks: u64,
    ticks_sent: u64,
    ended: Vec<(Time, ChannelId, BoxSeq, Operation)>,
    /// Those that the scheduler gave up.
    given_up: Vec<Sent>,
    closed_second: usize,
}

#[derive(Default)]
struct Daemon {
    second_used: bool,
    /// Of each line, and of what it sends again.
    queues: [VecDeque<OperationId>; 2],
    resends: [VecDeque<OperationId>; 2],
    turn: usize,
    crypto: [Time; 16],
    /// How many of its ticks carry nothing, whatever waits, for each that may.
    skips: u32,
    skipped: u32,
    /// It does nothing any more.
    stopped: bool,
    packets: u64,
}

#[derive(Clone, Debug)]
enum Later {
    Event(Event),
    Back(OperationId),
    Tick(usize),
}

#[derive(Clone, Copy)]
struct Sent {
    daemon: usize,
    channel: ChannelId,
    seq: BoxSeq,
    what: Operation,
    packets_left: u32,
    line: usize,
}

impl World {
    fn new(tick_ms: u64, hop_ms: u64, encrypt_ms: u64, seed: u64) -> Self {
        Self::with(1, tick_ms, hop_ms, encrypt_ms, seed)
    }

    fn with(daemons: u8, tick_ms: u64, hop_ms: u64, encrypt_ms: u64, seed: u64) -> Self {
        let pace = Pace::from_document(1.0 / tick_ms as f64, 1.0 / hop_ms as f64, 3);
        let mut world = Self {
            scheduler: Scheduler::new(pace.clone(), crate::channel::PROBE_SHARE, seed),
            dice: StdRng::seed_from_u64(seed),
            now: Duration::from_secs(100),
            tick: Duration::from_millis(tick_ms),
            hop: Duration::from_millis(hop_ms),
            encrypt: Duration::from_millis(encrypt_ms),
            written: BTreeMap::new(),
            found: BTreeMap::new(),
            later: BTreeMap::new(),
            serial: 0,
            daemons: (0..daemons).map(|_| Daemon::default()).collect(),
            operations: BTreeMap::new(),
            ticks: 0,
            ticks_sent: 0,
            ended: Vec::new(),
            given_up: Vec::new(),
            closed_second: 0,
        };
        for daemon in 0..daemons {
            world.plan(Duration::from_secs(100), Later::Tick(usize::from(daemon)));
            world.scheduler.set_document(DaemonId(daemon), pace.clone());
            world.tell(Event::Online(DaemonId(daemon), true));
        }
        world
    }

    fn docker() -> Self {
        Self::new(1000, 200, 1, 7)
    }

    fn plan(&mut self, at: Time, what: Later) {
        self.serial += 1;
        self.later.insert((at, self.serial), what);
    }

    fn writer(&mut self, channel: ChannelId, boxes: u64, durability: Durability) {
        self.written.insert(channel, (boxes, 0));
        let sender = Sender::new(BoxSeq(0), self.now, None, durability);
        self.scheduler.add_sender(channel, sender);
        self.tell(Event::Sender { channel, event: SenderEvent::Online(true) });
    }

    fn reader(&mut self, channel: ChannelId, boxes: u64) {
        self.resting_reader(channel, boxes, true);
        self.tell(Event::Tick);
    }

    fn resting_reader(&mut self, channel: ChannelId, boxes: u64, prompt: bool) {
        self.found.insert(channel, (boxes, 0));
        self.scheduler.add_receiver(self.now, channel, prompt);
    }

    fn draw(&mut self, mean: Duration) -> Duration {
        mean.mul_f64(-(1.0 - self.dice.random::<f64>()).ln())
    }

    fn tell(&mut self, event: Event) {
        for action in self.scheduler.handle(self.now, event) {
            match action {
                Action::Sender { channel, action } => self.sender_wants(channel, action),
                Action::Receiver { channel, action } => {
                    if let ReceiverAction::Record { seq } = action {
                        let found = self.found.get_mut(&channel).expect("a reader");
                        found.1 = found.1.max(seq.0 + 1);
                    }
                }
                Action::Load { channel } => {
                    let frontier = BoxSeq(self.found[&channel].1);
                    self.plan(
                        self.now,
                        Later::Event(Event::Loaded { channel, frontier, lost_end: BoxSeq(0), arrived: Vec::new() }),
                    );
                }
                Action::Prepare { operation, channel, seq, what, daemon, crypto } => {
                    let daemon = usize::from(daemon.0);
                    let sent = Sent { daemon, channel, seq, what, packets_left: what.packets(), line: 0 };
                    self.operations.insert(operation, sent);
                    let crypto = &mut self.daemons[daemon].crypto[crypto];
                    *crypto = (*crypto).max(self.now) + self.encrypt;
                    let done = *crypto;
                    self.plan(done, Later::Event(Event::Prepared { operation }));
                }
                Action::Transmit { operation, daemon, line } => {
                    let second = line == Line::Second;
                    self.daemons[usize::from(daemon.0)].second_used |= second;
                    let line = usize::from(second);
                    let sent = self.operations.get_mut(&operation).expect("prepared");
                    sent.line = line;
                    assert_eq!(sent.daemon, usize::from(daemon.0), "the daemon that made it");
                    let queue = &mut self.daemons[sent.daemon].queues[line];
                    queue.push_back(operation);
                    assert!(queue.len() <= 16, "the daemon would cease to read us");
                }
                Action::GiveUp { operation } => {
                    let sent = self.operations.remove(&operation).expect("under way");
                    self.given_up.push(sent);
                    let Daemon { queues, resends, .. } = &mut self.daemons[sent.daemon];
                    queues.iter_mut().chain(resends).for_each(|queue| queue.retain(|other| *other != operation));
                }
                Action::Rested { .. } => {}
                Action::CloseSecond { daemon } => {
                    let Counts { second, shorts, bulks, .. } = self.scheduler.server(daemon).counts;
                    assert_eq!((second, shorts, bulks), (0, 0, 0), "closed while it was needed");
                    assert!(
                        std::mem::take(&mut self.daemons[usize::from(daemon.0)].second_used),
                        "closed without need of it"
                    );
                    self.closed_second += 1;
                }
            }
        }
    }

    fn sender_wants(&mut self, channel: ChannelId, action: SenderAction) {
        let written = self.written.get_mut(&channel).expect("a writer");
        let event = match action {
            SenderAction::Fetch { from, limit } => {
                let end = written.0.min(from.0 + limit as u64);
                let how = |seq| if seq < written.1 { Fetched::Launched } else { Fetched::Sealed };
                SenderEvent::Fetched { boxes: (from.0..end).map(|seq| (BoxSeq(seq), how(seq))).collect() }
            }
            SenderAction::Launch { boxes } => {
                written.1 = written.1.max(boxes.last().expect("some").0 + 1);
                SenderEvent::Launched { boxes }
            }
            _ => return,
        };
        self.plan(self.now, Later::Event(Event::Sender { channel, event }));
    }

    /// Lets time pass until `done`, or panics after a long while.
    fn run(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        for _ in 0..1_000_000 {
            if done(self) {
                return;
            }
            let timeout = self.scheduler.next_timeout(self.now);
            let next = *self.later.keys().next().expect("there is always a tick");
            if let Some(at) = timeout.filter(|at| *at < next.0) {
                self.now = at.max(self.now);
                self.tell(Event::Tick);
                continue;
            }
            self.now = next.0.max(self.now);
            match self.later.remove(&next).expect("just seen") {
                Later::Event(event) => self.tell(event),
                Later::Tick(daemon) => self.daemon_tick(daemon),
                Later::Back(operation) => self.back(operation),
            }
        }
        panic!("never: {what}");
    }

    fn daemon_tick(&mut self, number: usize) {
        let next = self.now + self.draw(self.tick);
        self.plan(next, Later::Tick(number));
        self.ticks += 1;
        let daemon = &mut self.daemons[number];
        daemon.skipped += 1;
        if daemon.stopped || daemon.skipped <= daemon.skips {
            return;
        }
        daemon.skipped = 0;
        for turn in [daemon.turn, 1 - daemon.turn] {
            let sent = daemon.resends[turn].pop_front().or_else(|| daemon.queues[turn].pop_front());
            if let Some(operation) = sent {
                daemon.turn = 1 - turn;
                daemon.packets += 1;
                self.ticks_sent += 1;
                let back = (0..7).fold(self.now, |at, _| at + self.draw(self.hop));
                self.plan(back, Later::Back(operation));
                return;
            }
        }
    }

    fn back(&mut self, operation: OperationId) {
        // What was given up was cancelled.
        let Some(op) = self.operations.get_mut(&operation) else { return };
        op.packets_left -= 1;
        let Sent { daemon, channel, seq, what, packets_left, line } = *op;
        if packets_left > 0 {
            return self.daemons[daemon].resends[line].push_back(operation);
        }
        self.operations.remove(&operation);
        self.ended.push((self.now, channel, seq, what));
        let end = match what {
            Operation::Write { strict: true } => End::Written(Outcome::Stored),
            Operation::Write { strict: false } => End::Written(Outcome::Couriered),
            Operation::ReadBack => End::WasRead(ReadBack::Ours),
            Operation::Read if seq.0 < self.found[&channel].0 => End::Answered(Answer::Arrived),
            Operation::Read => End::Answered(Answer::NotYet),
        };
        self.tell(Event::Ended { operation, end });
    }

    fn ended(&self, channel: ChannelId) -> usize {
        self.ended.iter().filter(|(_, of, ..)| *of == channel).count()
    }

    /// Of the ticks that pass while `done` is not, the share that carries a packet.
    fn share(&mut self, what: &str, done: impl Fn(&Self) -> bool) -> f64 {
        let before = (self.ticks, self.ticks_sent);
        self.run(what, done);
        (self.ticks_sent - before.1) as f64 / (self.ticks - before.0) as f64
    }
}

#[test]
fn a_backlog_takes_the_ticks_of_every_network() {
    for (hop, encrypt) in [(200, 1), (200, 1500), (1000, 1), (1000, 1500)] {
        for durability in [Durability::Stored, Durability::Couriered] {
            let mut world = World::new(1000, hop, encrypt, 3);
            world.writer(A, 3000, durability);
            world.run("the beginning", |world| world.ended(A) >= 50);
            let share = world.share("the middle", |world| world.ended(A) >= 2500);
            assert!(
                share > 0.95,
                "{durability:?}, hops of {hop} ms, encrypts of {encrypt} ms: {share:.3} of the ticks"
            );
        }
        let mut world = World::new(1000, hop, encrypt, 4);
        world.reader(A, 3000);
        world.run("the beginning", |world| world.ended(A) >= 50);
        let share = world.share("the middle", |world| world.ended(A) >= 2500);
        assert!(share > 0.95, "reads, hops of {hop} ms, encrypts of {encrypt} ms: {share:.3} of the ticks");
    }
}

/// Found by the simulation of the engine, as seed 60,691: a channel was fenced, its operations left, and a read of another one
/// that was ready and had waited for their room waited on, for ever where nothing else happened.
#[test]
fn what_waited_for_room_goes_when_the_channel_that_took_it_leaves() {
    let mut world = World::docker();
    world.writer(A, 1000, Durability::Couriered);
    world.run("a beginning", |world| world.ended(A) >= 20);
    world.reader(B, 1);
    world.run("a read that waits", |world| {
        world.scheduler.first().ready.iter().any(|operation| world.scheduler.under_way[operation].channel == B)
    });
    world.scheduler.remove(A);
    assert_eq!(world.scheduler.next_timeout(world.now), Some(world.now), "there is room, and somebody waits for it");
    world.tell(Event::Tick);
    assert!(
        world.daemons[0].queues[0].iter().any(|operation| world.operations[operation].channel == B),
        "it is on its way"
    );
}

/// What is ready waits for the daemon to send what it has, and is woken for it.
#[test]
fn twelve_operations_at_most_are_unsent_and_the_next_one_is_woken_when_one_has_left() {
    let mut world = World::new(500, 1000, 1, 5);
    world.writer(A, 1000, Durability::Couriered);
    let waited = std::cell::Cell::new((0, 0));
    let check = |world: &World| {
        let (scheduler, server) = (&world.scheduler, world.scheduler.first());
        assert!(server.unsent_at(world.now) <= UNSENT + 0.01, "{} are unsent", server.unsent_at(world.now));
        let ready = (!server.ready.is_empty(), !server.ready_shorts.is_empty());
        if let Some(until) = server.unsent_until(world.now).filter(|_| ready.0 || ready.1) {
            assert!(until > world.now && scheduler.next_timeout(world.now).is_some_and(|at| at <= until), "{ready:?}");
            assert_eq!(server.unsent_until(until + world.tick / 50), None, "then there is room");
            assert!(server.unsent_until(until - world.tick / 50).is_some(), "and not before");
            let (bulks, shorts) = waited.get();
            waited.set((bulks + u32::from(ready.0), shorts + u32::from(ready == (false, true))));
        }
    };
    world.run("a backlog", |world| {
        check(world);
        world.ended(A) >= 200
    });
    world.scheduler.remove(A);
    world.tell(Event::Tick);
    assert_eq!(world.scheduler.next_timeout(world.now), None, "nothing is ready, and nothing to be woken for");

    let mut world = World::new(500, 1000, 1, 6);
    for id in 10..50 {
        world.writer(ChannelId(id), 1, Durability::Stored);
    }
    world.run("forty short messages", |world| {
        check(world);
        (10..50).all(|id| world.ended(ChannelId(id)) >= 1)
    });
    assert!(waited.get().0 > 0 && waited.get().1 > 0, "none had to wait: {:?}", waited.get());
}

#[test]
fn the_window_grows_where_the_document_promises_a_quicker_network() {
    let mut world = World::docker();
    world.hop = Duration::from_millis(900);
    world.writer(A, 4000, Durability::Couriered);
    world.run("learning", |world| world.ended(A) >= 1000);
    let share = world.share("the middle", |world| world.ended(A) >= 3500);
    assert!(share > 0.85, "{share:.3} of the ticks, where six boxes would take 0.8");
}

#[test]
fn backlogs_share_the_network_and_a_strict_box_counts_twice() {
    let mut world = World::docker();
    world.writer(A, 2000, Durability::Stored);
    world.writer(B, 2000, Durability::Stored);
    world.writer(C, 2000, Durability::Couriered);
    world.run("three channels", |world| world.ended(A) >= 300);
    let (a, b, c) = (world.ended(A), world.ended(B), world.ended(C));
    assert!(b.abs_diff(a) <= 10 && 2 * c >= 3 * a && c <= 2 * a, "{a} {b} {c}");
}

#[test]
fn each_class_gets_half_of_the_ten_slots_beside_others_and_all_of_them_alone() {
    let (short, bulk, read) = ((Class::Short, A, false), (Class::Bulk, B, false), (Class::Read, C, false));
    let confirmation = (Class::Bulk, A, true);
    // Shorts, bulks and reads that are under way; who waits: a short message, a backlog, a read, a confirmation.
    for (under_way, waiting, expected) in [
        ((4, 0, 0), "short bulk", Some(short)),
        ((5, 0, 0), "short bulk", Some(bulk)),
        ((5, 0, 0), "short read", Some(read)),
        ((9, 0, 0), "short", Some(short)),
        ((10, 0, 0), "short", None),
        ((0, 10, 0), "short bulk", Some(short)),
        ((0, 4, 4), "bulk read", Some(bulk)),
        ((0, 5, 4), "bulk read", Some(read)),
        ((0, 4, 5), "bulk read", Some(bulk)),
        ((0, 5, 5), "bulk read", None),
        ((0, 9, 0), "bulk", Some(bulk)),
        ((0, 0, 9), "read", Some(read)),
        ((0, 0, 10), "read", None),
        ((0, 9, 0), "confirmation", Some(confirmation)),
        ((0, 5, 5), "confirmation", None),
        ((0, 0, 0), "bulk confirmation", Some(bulk)),
        ((0, 0, 0), "", None),
    ] {
        let mut scheduler = Scheduler::new(Pace::from_document(0.001, 0.005, 3), 0.1, 1);
        let counts = &mut scheduler.servers[0].counts;
        (counts.shorts, counts.bulks, counts.reads) = under_way;
        let Scheduler { shorts, bulks, reads, confirmations, .. } = &mut scheduler;
        for (what, list, channel) in
            [("short", shorts, A), ("bulk", bulks, B), ("read", reads, C), ("confirmation", confirmations, A)]
        {
            list.extend(waiting.split(' ').any(|waits| waits == what).then_some((0, channel)));
        }
        assert_eq!(scheduler.choose(FIRST), expected, "{under_way:?} under way, waiting: {waiting}");
    }
}

#[test]
fn reads_and_writes_share_the_network() {
    let mut world = World::docker();
    world.writer(A, 2000, Durability::Stored);
    world.reader(B, 2000);
    world.run("both ways", |world| world.ended(A) + world.ended(B) >= 600);
    let (writes, reads) = (world.ended(A), world.ended(B));
    assert!(writes.abs_diff(reads) < 60, "{writes} writes and {reads} reads");
}

#[test]
fn a_short_message_beside_a_backlog_is_nearly_as_quick_as_alone() {
    let mean = |backlog: u64| {
        let mut world = World::docker();
        if backlog > 0 {
            world.writer(A, backlog, Durability::Stored);
            world.run("the backlog", |world| world.ended(A) >= 20);
        }
        let mut total = Duration::ZERO;
        for id in 10..110 {
            let (began, channel) = (world.now, ChannelId(id));
            world.writer(channel, 1, Durability::Stored);
            world.run("a short message", |world| world.ended(channel) == 1);
            total += world.now - began;
            let pause = world.now + Duration::from_secs(5);
            world.run("a pause", |world| world.now >= pause);
        }
        (total / 100, world.closed_second)
    };
    let (alone, _) = mean(0);
    let (beside, _) = mean(100_000);
    assert!(beside < alone.mul_f64(1.5), "{alone:?} alone, {beside:?} beside a backlog");
}

#[test]
fn the_second_connection_is_closed_when_both_classes_are_through() {
    let mut world = World::docker();
    world.writer(A, 60, Durability::Stored);
    world.run("the backlog", |world| world.ended(A) >= 20);
    for id in 10..30 {
        world.writer(ChannelId(id), 1, Durability::Stored);
    }
    world.run("twenty short messages", |world| {
        let second = world.scheduler.first().counts.second;
        assert!(second <= SECOND, "{second} go over it");
        (10..30).all(|id| world.ended(ChannelId(id)) == 1)
    });
    assert!(world.daemons[0].second_used && world.closed_second == 0, "the backlog is not through");
    world.run("the rest of the backlog", |world| world.ended(A) == 60);
    assert_eq!((world.daemons[0].second_used, world.closed_second), (false, 1));
}

#[test]
fn short_messages_go_over_the_first_connection_where_its_queue_is_short() {
    let mut world = World::docker();
    for id in 10..20 {
        world.writer(ChannelId(id), 1, Durability::Stored);
    }
    world.run("ten envelopes", |world| {
        world.operations.len() == 10 && world.scheduler.first().counts.preparing == [0; 16]
    });
    let Counts { main, second, .. } = world.scheduler.first().counts;
    assert_eq!((main, second), (3, 4), "half a window of six, and all of the second connection");
}

#[test]
fn slow_encrypts_have_a_connection_each_and_quick_ones_share_it() {
    let most = |encrypt| {
        let mut world = World::new(1000, 200, encrypt, 8);
        world.writer(A, 200, Durability::Couriered);
        world.run("a first measurement", |world| world.ended(A) >= 20);
        let most = std::cell::Cell::new(0);
        world.run("a backlog", |world| {
            let here = world.scheduler.first().counts.preparing.into_iter().max();
            most.set(most.get().max(here.unwrap_or_default()));
            world.ended(A) >= 200
        });
        most.get()
    };
    assert_eq!(most(1500), 1);
    assert!((2..=QUICK_ENCRYPTS).contains(&most(10)));
}

#[test]
fn a_short_message_that_is_taken_back_takes_no_other_with_it() {
    let mut world = World::docker();
    for id in 10..40 {
        world.writer(ChannelId(id), 1, Durability::Stored);
    }
    world.run("some are ready and wait for room", |world| world.scheduler.first().ready_shorts.len() >= 3);
    let gone = world.scheduler.under_way[&world.scheduler.first().ready_shorts[1]].channel;
    world.scheduler.remove(gone);
    world.run("the others", |world| world.written.keys().all(|&id| id == gone || world.ended(id) == 1));
}

#[test]
fn who_comes_late_is_served_from_then_on_and_not_for_the_time_before() {
    for read in [false, true] {
        let mut world = World::docker();
        let join = if read {
            World::reader
        } else {
            |world: &mut World, channel, boxes| world.writer(channel, boxes, Durability::Stored)
        };
        join(&mut world, A, 2000);
        world.run("one channel", |world| world.ended(A) >= 500);
        join(&mut world, B, 2000);
        let before = world.ended(A);
        world.run("both", |world| world.ended(B) >= 100);
        let meanwhile = world.ended(A) - before;
        assert!((90..125).contains(&meanwhile), "{meanwhile} boxes, read {read}");
    }
}

#[test]
fn many_backlogs_launch_less_each() {
    let ahead = |channels: i64| {
        let mut world = World::docker();
        for id in 0..channels {
            world.writer(ChannelId(id), 1000, Durability::Stored);
        }
        let most = std::cell::Cell::new(0);
        world.run("a while", |world| {
            // Each was alone when it came.
            for (&id, &(_, launched)) in world.written.iter().filter(|(id, _)| world.ended(**id) >= 15) {
                most.set(most.get().max(launched - world.ended(id) as u64));
            }
            world.ended(ChannelId(0)) >= 40
        });
        most.get()
    };
    assert_eq!((ahead(1), ahead(20)), (12, 8), "two windows of six, and two of the least");
}

#[test]
fn channels_that_are_prompted_together_are_woken_as_there_are_slots() {
    let mut world = World::docker();
    for id in 0..100 {
        world.resting_reader(ChannelId(id), 0, true);
    }
    world.tell(Event::Tick);
    world.run("all of them", |world| {
        let woken = world.scheduler.loading.len() + world.scheduler.reads.len();
        assert!(woken <= world.scheduler.pace().window_boxes(), "{woken} at once");
        (0..100).all(|id| world.ended(ChannelId(id)) >= 1)
    });
}

#[test]
fn while_the_network_is_away_nothing_waits_for_it_and_a_sender_needs_its_own_word_then() {
    let mut world = World::docker();
    world.writer(A, 100, Durability::Stored);
    world.run("some", |world| world.ended(A) >= 10 && world.scheduler.bulks.len() == 1);
    world.tell(Event::Online(FIRST, false));
    assert_eq!((world.scheduler.bulks.len(), world.scheduler.next_timeout(world.now)), (0, None));
    world.tell(Event::Online(FIRST, true));
    assert!(world.scheduler.bulks.is_empty(), "whether its boxes fit this network is not known yet");
    world.tell(Event::Sender { channel: A, event: SenderEvent::Online(true) });
    world.run("the rest", |world| world.ended(A) == 100);
}

#[test]
fn an_encrypt_that_waited_for_others_is_known_for_what_it_took_itself() {
    let mut world = World::new(10, 1, 10, 6);
    world.writer(A, 500, Durability::Couriered);
    world.run("a backlog", |world| world.ended(A) >= 300);
    let encrypt = world.scheduler.pace_of(FIRST).encrypt();
    assert!((Duration::from_millis(8)..Duration::from_millis(12)).contains(&encrypt), "{encrypt:?}");
}

#[test]
fn confirmations_take_idle_slots_only() {
    let mut world = World::docker();
    world.writer(A, 200, Durability::Couriered);
    world.run("the writes", |world| world.ended(A) >= 180);
    assert!(world.ended.iter().all(|(.., what)| *what == Operation::Write { strict: false }), "nothing else yet");
    world.run("the confirmations", |world| world.ended(A) == 400);
    let timeout = world.scheduler.next_timeout(world.now);
    assert_eq!(timeout, None, "all is confirmed, and nothing is left to do");
}

#[test]
fn idle_readers_exist_only_while_they_are_probed() {
    let mut world = World::docker();
    for id in 0..500 {
        world.resting_reader(ChannelId(id), 0, false);
    }
    let end = world.now + Duration::from_secs(20_000);
    let share = world.share("five hours", |world| {
        assert!(world.scheduler.receivers.len() <= 8, "{} at work", world.scheduler.receivers.len());
        world.now >= end
    });
    assert!((0.05..0.13).contains(&share), "{share:.3} of the ticks");
}

#[test]
fn the_ends_of_a_channel_that_left_are_passed_over() {
    let mut world = World::docker();
    world.writer(A, 100, Durability::Stored);
    world.run("some", |world| world.ended(A) >= 10);
    world.scheduler.remove(A);
    let end = world.now + Duration::from_secs(100);
    world.run("the rest", |world| world.now >= end);
    assert_eq!((world.scheduler.unanswered(), world.scheduler.next_timeout(world.now)), (0, None));
    assert!(world.scheduler.under_way.is_empty() && world.scheduler.bulks.is_empty());
}

#[test]
fn it_says_where_a_reader_stands_and_when_it_is_probed_next() {
    let mut world = World::docker();
    world.resting_reader(A, 3, false);
    assert_eq!(world.scheduler.frontier(A), None, "it is at rest");
    let first = world.scheduler.next_probe(world.now, A).expect("planned");
    assert!(first > world.now, "without a prompt it waits for its turn");

    world.scheduler.prompt(A);
    assert!(world.scheduler.next_probe(world.now, A).expect("planned") <= world.now, "prompted, at once");
    world.tell(Event::Tick);
    world.run("it is at work", |world| world.scheduler.frontier(A).is_some());
    assert_eq!(world.scheduler.next_probe(world.now, A), None, "while it is at work");
    let (&operation, _) = world.operations.first_key_value().expect("it asks");
    assert!(world.scheduler.is_under_way(operation));
    world.run("the first box has arrived", |world| world.ended(A) >= 1);
    assert!(!world.scheduler.is_under_way(operation));
    world.run("it has caught up", |world| world.scheduler.frontier(A).is_none());
    assert_eq!(world.found[&A], (3, 3));

    let until = world.now + Duration::from_secs(600);
    world.scheduler.follow(A, until);
    assert!(world.scheduler.next_probe(world.now, A).expect("planned") <= world.now, "at once");
}

#[test]
fn another_document_sets_another_pace() {
    let mut world = World::docker();
    assert_eq!(world.scheduler.pace().window_boxes(), 6);
    world.scheduler.set_document(FIRST, Pace::from_document(0.001, 0.001, 3));
    assert_eq!(world.scheduler.pace().window_boxes(), 16);
    world.writer(A, 100, Durability::Couriered);
    world.run("the window is full", |world| world.scheduler.unanswered() > 6);
}
