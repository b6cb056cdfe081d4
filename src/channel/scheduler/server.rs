//! One daemon as the scheduler sees it: its pace, what it has under way, and what waits to be sent by it.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Class, Line, OperationId};
use crate::channel::{Pace, Time};

/// Operations whose first packet has probably not left; with more, the daemon would cease to read us (A.6).
pub(super) const UNSENT: f64 = 12.0;
/// Unanswered operations of the second connection.
pub(super) const SECOND: usize = 4;
/// An encrypt that takes longer has its connection for itself.
const SLOW_ENCRYPT: Duration = Duration::from_millis(20);
/// Encrypts that are under way at once on a connection, where they are quick.
pub(super) const QUICK_ENCRYPTS: usize = 8;

/// Of all that a daemon has under way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) preparing: [usize; 16],
    pub(super) shorts: usize,
    pub(super) bulks: usize,
    pub(super) reads: usize,
    pub(super) main: usize,
    pub(super) second: usize,
}

impl Counts {
    pub(super) fn class(&mut self, class: Class) -> &mut usize {
        match class {
            Class::Short => &mut self.shorts,
            Class::Bulk => &mut self.bulks,
            Class::Read => &mut self.reads,
        }
    }

    pub(super) fn line(&mut self, line: Line) -> &mut usize {
        match line {
            Line::Main => &mut self.main,
            Line::Second => &mut self.second,
        }
    }

    pub(super) fn all(&self) -> usize {
        self.shorts + self.bulks + self.reads
    }

    pub(super) fn unanswered(&self) -> usize {
        self.main + self.second
    }
}

/// A crypto connection that has room, and the encrypts that are under way on it.
pub(super) struct Crypto {
    pub(super) connection: usize,
    pub(super) load: usize,
}

/// One daemon.
pub(super) struct Server {
    pub(super) pace: Pace,
    pub(super) online: bool,
    /// Since when it is away.
    pub(super) away_since: Time,
    /// Operations whose envelopes are made, in their order.
    pub(super) ready: VecDeque<OperationId>,
    pub(super) ready_shorts: VecDeque<OperationId>,
    pub(super) counts: Counts,
    /// How many are probably unsent, and when that was so.
    unsent: (f64, Time),
    pub(super) second_open: bool,
    pub(super) credit: Credit,
}

impl Server {
    pub(super) fn new(pace: Pace) -> Self {
        Self {
            pace,
            online: false,
            away_since: Time::ZERO,
            ready: VecDeque::new(),
            ready_shorts: VecDeque::new(),
            counts: Counts::default(),
            unsent: (0.0, Time::ZERO),
            second_open: false,
            credit: Credit::default(),
        }
    }

    /// The network became reachable by it, or ceased to be.
    pub(super) fn set_online(&mut self, now: Time, online: bool) {
        if self.online != online {
            (self.online, self.away_since) = (online, now);
            self.credit = Credit::default();
        }
    }

    /// Operations that it has under way at most: those that are unanswered, and those whose envelopes are made ahead.
    pub(super) fn slots(&self) -> usize {
        self.pace.window_boxes() + self.pace.reserve_boxes()
    }

    /// How much of that is taken.
    #[allow(clippy::cast_precision_loss)] // Both are small.
    pub(super) fn load(&self) -> f64 {
        self.counts.all() as f64 / self.slots() as f64
    }

    /// The crypto connection with the fewest encrypts, where it has room for one more.
    pub(super) fn crypto(&self) -> Option<Crypto> {
        let connections = 0..self.pace.crypto_connections();
        let (load, connection) = connections.map(|at| (self.counts.preparing[at], at)).min()?;
        let most = if self.pace.encrypt() < SLOW_ENCRYPT { QUICK_ENCRYPTS } else { 1 };
        (load < most).then_some(Crypto { connection, load })
    }

    /// The operation that is to be sent now, and over which connection; it is taken for sent from then on.
    pub(super) fn transmit(&mut self, now: Time) -> Option<(OperationId, Line)> {
        if self.unsent_until(now).is_some() {
            return None;
        }
        let window = self.pace.window_boxes();
        let room = self.counts.main < window;
        let (operation, line) = if self.ready_shorts.is_empty() {
            room.then(|| self.ready.pop_front()).flatten().map(|operation| (operation, Line::Main))
        } else if self.counts.main + 3 < window {
            // The queue before it is short.
            self.ready_shorts.pop_front().map(|operation| (operation, Line::Main))
        } else if self.counts.second < SECOND {
            self.ready_shorts.pop_front().map(|operation| (operation, Line::Second))
        } else {
            room.then(|| self.ready.pop_front()).flatten().map(|operation| (operation, Line::Main))
        }?;
        self.second_open |= line == Line::Second;
        *self.counts.line(line) += 1;
        self.unsent = (self.unsent_at(now) + 1.0, now);
        Some((operation, line))
    }

    /// Whether the second connection is open and was needed long enough.
    pub(super) fn close_second(&mut self) -> bool {
        let Counts { second, shorts, bulks, .. } = self.counts;
        let close = self.second_open && (second, shorts, bulks) == (0, 0, 0);
        self.second_open &= !close;
        close
    }

    /// How many operations' first packets wait in the daemon, as its ticks go; never more than are unanswered.
    pub(super) fn unsent_at(&self, now: Time) -> f64 {
        let (unsent, at) = self.unsent;
        let sent = now.saturating_sub(at).as_secs_f64() * self.pace.packets_per_second();
        let unanswered = u32::try_from(self.counts.unanswered()).unwrap_or(u32::MAX);
        (unsent - sent).clamp(0.0, f64::from(unanswered))
    }

    /// When there will be room for one more; `None`: there is.
    pub(super) fn unsent_until(&self, now: Time) -> Option<Time> {
        let excess = self.unsent_at(now) - (UNSENT - 1.0);
        // A hundredth of an operation is no reason to wait; it keeps rounding from waiting for ever.
        (excess > 0.01).then(|| now + Duration::from_secs_f64(excess / self.pace.packets_per_second()))
    }

    /// The same where something waits for it.
    pub(super) fn next_room(&self, now: Time) -> Option<Time> {
        let waits = !self.ready.is_empty() || !self.ready_shorts.is_empty();
        waits.then(|| self.unsent_until(now)).flatten()
    }
}

/// How much a daemon is trusted with while others could do it as well. One that answers has all its slots. One that let an
/// operation wait for too long is tried with one at a time, after pauses that grow, until it answers again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Credit {
    /// Operations that it may have under way; `None`: as many as it has slots.
    allowed: Option<usize>,
    /// When one that lags is tried again.
    again_at: Time,
    pause: Duration,
}

/// The first pause before a daemon that lags is tried again, in round trips, and the longest.
const PAUSE_ROUND_TRIPS: u32 = 4;
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

impl Default for Credit {
    fn default() -> Self {
        Self { allowed: None, again_at: Time::ZERO, pause: Duration::ZERO }
    }
}

impl Credit {
    /// Whether it has not answered since it let an operation wait for too long.
    pub(super) fn lags(&self) -> bool {
        self.allowed == Some(1)
    }

    /// Whether it may begin another operation beside as many.
    pub(super) fn allows(&self, now: Time, under_way: usize) -> bool {
        self.allowed.is_none_or(|allowed| under_way < allowed) && (!self.lags() || self.again_at <= now)
    }

    /// When it may begin one that it may not now, by time alone.
    pub(super) fn next_try(&self, now: Time) -> Option<Time> {
        (self.lags() && self.again_at > now).then_some(self.again_at)
    }

    /// An operation waited for too long.
    pub(super) fn lose(&mut self, now: Time, pace: &Pace) {
        let first = (PAUSE_ROUND_TRIPS * pace.round_trip()).max(Duration::from_secs(1));
        self.pause = (2 * self.pause).clamp(first, LONGEST_PAUSE.max(first));
        self.allowed = Some(1);
        self.again_at = now + self.pause;
    }

    /// An operation was answered.
    pub(super) fn gain(&mut self, slots: usize) {
        let Some(allowed) = self.allowed else { return };
        if 2 * allowed >= slots {
            *self = Self::default();
        } else {
            self.allowed = Some(2 * allowed);
        }
    }
}
