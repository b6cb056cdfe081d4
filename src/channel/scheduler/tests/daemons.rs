//! Several daemons of one network: what they do together, and what becomes of the others when one dies or lags.

use super::*;

impl World {
    fn docker_by(daemons: u8) -> Self {
        Self::with(daemons, 1000, 200, 1, 11)
    }

    /// A daemon dies, with all that it has, and whoever uses it sees that.
    fn kill(&mut self, daemon: u8) {
        self.daemons[usize::from(daemon)].stopped = true;
        self.tell(Event::Online(DaemonId(daemon), false));
    }

    /// Boxes a second of a channel, between two counts of them.
    fn rate(&mut self, channel: ChannelId, from: usize, to: usize) -> f64 {
        self.run("the beginning", |world| world.ended(channel) >= from);
        let (began, before) = (self.now, self.ended(channel));
        self.run("the middle", |world| world.ended(channel) >= to);
        (self.ended(channel) - before) as f64 / (self.now - began).as_secs_f64()
    }

    /// Runs until each box of a writer is there by some operation that ended.
    fn run_until_all_are_there(&mut self, channel: ChannelId, boxes: usize) {
        self.run("all of them", |world| {
            let of_channel = world.ended.iter().filter(|(_, of, ..)| *of == channel);
            world.ended(channel) >= boxes
                && of_channel.map(|(_, _, seq, _)| seq).collect::<BTreeSet<_>>().len() == boxes
        });
    }
}

#[test]
fn several_daemons_send_a_backlog_as_many_times_as_fast() {
    for (hop, encrypt) in [(200, 1), (200, 1500), (1000, 1)] {
        for daemons in [2, 4, 8] {
            for durability in [Durability::Stored, Durability::Couriered] {
                let mut world = World::with(daemons, 1000, hop, encrypt, 3);
                world.writer(A, 3000, durability);
                world.run("the beginning", |world| world.ended(A) >= 100);
                let share = world.share("the middle", |world| world.ended(A) >= 2500);
                assert!(share > 0.95, "{daemons}, {durability:?}, hops of {hop} ms: {share:.3} of all their ticks");
                assert!(world.given_up.is_empty(), "{} of a daemon that works", world.given_up.len());
            }
            let mut world = World::with(daemons, 1000, hop, encrypt, 4);
            world.reader(A, 3000);
            world.run("the beginning", |world| world.ended(A) >= 100);
            let share = world.share("the middle", |world| world.ended(A) >= 2500);
            assert!(share > 0.95, "{daemons}, reads, hops of {hop} ms: {share:.3} of all their ticks");
        }
    }
}

/// What a dead daemon had goes out by the others, strict, and the rate is what the others make of it.
#[test]
fn a_daemon_that_dies_costs_its_share_and_no_box() {
    for durability in [Durability::Stored, Durability::Couriered] {
        let mut world = World::docker_by(4);
        world.writer(A, 4000, durability);
        let before = world.rate(A, 200, 1000);
        let slots = world.scheduler.server(DaemonId(2)).slots();
        world.kill(2);
        let died = world.now;
        let after = world.rate(A, 1050, 2500);
        assert!((0.68..0.80).contains(&(after / before)), "{durability:?}: {after:.3} of {before:.3} boxes a second");
        assert!((1..=slots).contains(&world.given_up.len()), "{} were under way by it", world.given_up.len());
        for lost in &world.given_up {
            let again = world.ended.iter().find(|(_, _, seq, _)| *seq == lost.seq).expect("by another daemon");
            assert!(again.0 < died + Duration::from_secs(60), "{durability:?}: soon");
            assert_eq!(again.3, Operation::Write { strict: true }, "{durability:?}: it may have been done before");
        }
        world.run_until_all_are_there(A, 4000);

        let mut world = World::docker_by(4);
        world.reader(A, 4000);
        let before = world.rate(A, 200, 1000);
        world.kill(0);
        let after = world.rate(A, 1050, 2500);
        assert!((0.68..0.80).contains(&(after / before)), "reads: {after:.3} of {before:.3} boxes a second");
    }
}

#[test]
fn a_daemon_that_is_back_soon_keeps_what_it_has_and_takes_its_share_again() {
    let mut world = World::docker_by(2);
    world.writer(A, 4000, Durability::Stored);
    let before = world.rate(A, 100, 600);
    world.tell(Event::Online(DaemonId(1), false));
    let back = world.now + Duration::from_millis(1500);
    world.run("a moment", |world| world.now >= back);
    world.tell(Event::Online(DaemonId(1), true));
    assert!(world.given_up.is_empty(), "its session lives on");
    world.kill(1);
    world.run("its part goes by the other", |world| !world.given_up.is_empty());
    let back = world.now + Duration::from_secs(100);
    world.run("a while", |world| world.now >= back);
    world.daemons[1].stopped = false;
    world.tell(Event::Online(DaemonId(1), true));
    let done = world.ended(A);
    let after = world.rate(A, done + 50, 3000);
    assert!(after > 0.95 * before, "{after:.3} of {before:.3} boxes a second");
}

/// All of them went at once, as where this machine has lost its own network: nothing is moved, as there is nowhere to go.
#[test]
fn where_no_daemon_is_there_all_waits_and_goes_by_the_first_that_comes() {
    let mut world = World::docker_by(2);
    world.writer(A, 200, Durability::Stored);
    world.run("some", |world| world.ended(A) >= 20);
    world.kill(0);
    world.kill(1);
    assert_eq!(world.scheduler.next_timeout(world.now), None);
    let later = world.now + Duration::from_secs(1000);
    world.run("a while", |world| world.now >= later);
    assert!(world.given_up.is_empty());
    world.daemons[1].stopped = false;
    world.tell(Event::Online(DaemonId(1), true));
    world.tell(Event::Sender { channel: A, event: SenderEvent::Online(true) });
    assert!(world.given_up.iter().all(|sent| sent.daemon == 0), "what the second one has it goes on with");
    world.run_until_all_are_there(A, 200);
}

/// One that is connected and sends nothing is as bad as a dead one, and nothing says so but the time.
#[test]
fn a_daemon_that_sends_nothing_is_found_out_and_tried_again_now_and_then() {
    let mut world = World::docker_by(4);
    world.writer(A, 6000, Durability::Stored);
    let before = world.rate(A, 200, 1000);
    world.daemons[3].stopped = true;
    let after = world.rate(A, 1200, 3000);
    assert!(after / before > 0.70, "{after:.3} of {before:.3} boxes a second");
    let lost = world.given_up.len();
    assert!((4..40).contains(&lost), "{lost} were given to it");
    world.daemons[3].stopped = false;
    world.run("it is tried again", |world| !world.scheduler.server(DaemonId(3)).credit.lags());
    let done = world.ended(A);
    let again = world.rate(A, done + 100, 5500);
    assert!(again / before > 0.93, "{again:.3} of {before:.3} boxes a second");
    world.run_until_all_are_there(A, 6000);

    let mut world = World::docker_by(2);
    world.reader(A, 6000);
    let before = world.rate(A, 200, 1000);
    world.daemons[0].stopped = true;
    let after = world.rate(A, 1200, 3000);
    assert!(after / before > 0.42, "reads: {after:.3} of {before:.3} boxes a second");
}

/// A tenth of the pace: it does what it can, and the others are not held up.
#[test]
fn a_slow_daemon_does_what_it_can() {
    let mut world = World::docker_by(2);
    world.writer(A, 4000, Durability::Stored);
    let before = world.rate(A, 200, 1000);
    world.daemons[1].skips = 9;
    let sent = world.daemons[1].packets;
    let after = world.rate(A, 1100, 2500);
    assert!(after / before > 0.48, "{after:.3} of {before:.3} boxes a second");
    assert!(world.daemons[1].packets > sent + 100, "it still works: {}", world.daemons[1].packets - sent);
}

/// Operations of the only daemon that is left are never taken from it, however slow it is.
#[test]
fn nothing_is_taken_from_a_daemon_where_no_other_could_do_it() {
    let mut world = World::docker_by(2);
    world.writer(A, 1000, Durability::Stored);
    world.run("some", |world| world.ended(A) >= 50);
    world.kill(1);
    world.daemons[0].skips = 60;
    world.run("what the other one had", |world| !world.given_up.is_empty());
    let lost = world.given_up.len();
    let later = world.now + Duration::from_secs(20_000);
    world.run("a long time", |world| world.now >= later);
    assert_eq!(world.given_up.len(), lost);
    assert!(world.ended(A) > 100, "{} boxes", world.ended(A));
}

/// What goes by one daemon does not tell what goes by another: its probes are its own share of λ, beside a backlog that the
/// others have, and alone.
#[test]
fn each_daemon_has_its_own_share_of_the_probes() {
    let mut world = World::docker_by(4);
    for id in 0..500 {
        world.resting_reader(ChannelId(id), 0, false);
    }
    let end = world.now + Duration::from_secs(40_000);
    world.run("eleven hours", |world| world.now >= end);
    for daemon in &world.daemons {
        let share = daemon.packets as f64 / 40_000.0;
        assert!((0.07..0.12).contains(&share), "{share:.3} of its ticks");
    }
}

/// A channel whose probe was to go by a daemon that dies meanwhile is probed by another one.
#[test]
fn a_probe_does_not_wait_for_its_daemon() {
    let mut world = World::docker_by(2);
    for id in 0..100 {
        world.resting_reader(ChannelId(id), 0, true);
    }
    world.tell(Event::Tick);
    world.run("some", |world| world.ended.len() >= 10);
    world.daemons[0].stopped = true;
    world.run("all of them", |world| (0..100).all(|id| world.ended(ChannelId(id)) >= 1));
}

#[test]
fn a_second_connection_is_opened_and_closed_by_each_daemon_for_itself() {
    let mut world = World::docker_by(2);
    world.writer(A, 100, Durability::Stored);
    world.run("the backlog", |world| world.ended(A) >= 20);
    for id in 10..60 {
        world.writer(ChannelId(id), 1, Durability::Stored);
    }
    world.run("fifty short messages", |world| {
        for server in &world.scheduler.servers {
            assert!(server.counts.second <= SECOND, "{} go over it", server.counts.second);
        }
        (10..60).all(|id| world.ended(ChannelId(id)) == 1)
    });
    world.run("the rest of the backlog", |world| world.ended(A) == 100);
    assert!(world.scheduler.servers.iter().all(|server| !server.second_open), "both are closed");
}

/// While one daemon lags, the others have their own tenth of the probes and not its part too.
#[test]
fn the_probes_of_a_daemon_that_lags_are_not_done_by_the_others() {
    let mut world = World::docker_by(4);
    for id in 0..500 {
        world.resting_reader(ChannelId(id), 0, false);
    }
    for daemon in [0, 1, 2] {
        world.daemons[daemon].stopped = true;
    }
    let begun = world.now + Duration::from_secs(2_000);
    world.run("they are found out", |world| world.now >= begun);
    let before = world.daemons[3].packets;
    let end = world.now + Duration::from_secs(40_000);
    world.run("eleven hours", |world| world.now >= end);
    let share = (world.daemons[3].packets - before) as f64 / 40_000.0;
    assert!((0.07..0.12).contains(&share), "{share:.3} of its ticks");
}
