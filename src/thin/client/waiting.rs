//! Waiting for a box, and how long an exchange may take: both by the network's own numbers.

use std::sync::PoisonError;
use std::time::Duration;

use rand::RngExt as _;
use tokio::time::{Instant, sleep_until};

use super::{Client, Missing, ReadOutcome};
use crate::bacap::{BoxIndex, ReadCap};
use crate::thin::Error;

/// What an exchange may take besides its packets: a daemon that waits for a document, an operation that is repeated.
const BESIDE: Duration = Duration::from_secs(120);
/// Packets of one box that is written or read, lost ones included: two without loss.
const PACKETS: u32 = 6;
/// Round trip and time between packets that are assumed while no document tells: those of a slow network.
const UNKNOWN: (Duration, Duration) = (Duration::from_secs(8), Duration::from_secs(1));
/// From one look to the next: 2R after the first one, half as much again after each, and 40R at most, within bounds.
const FIRST_PAUSE: u32 = 2;
const LONGEST_PAUSE: u32 = 40;
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

impl Client {
    /// Reads the box at `at` and waits until it is written: [`ReadOutcome::NotFound`] says that the network answered,
    /// and that no replica that was asked had the box until there was no time left for another look.
    ///
    /// Each look has a fresh envelope, as couriers answer an old one from their caches for 5 minutes and more. Looks
    /// come at random intervals that grow from about two round trips to forty, so that they tell little about this
    /// reader; a box is found as long after it was written. A look that fails is repeated like one that found nothing;
    /// the last failure is told if no look had an answer. Dropping the future cancels the look that is under way.
    pub async fn read(&self, cap: &ReadCap, at: &BoxIndex, deadline: Instant) -> Result<ReadOutcome, Error> {
        let mut looks = 0_u32;
        let mut missing = false;
        loop {
            let looked = async {
                let envelope = self.encrypt_read(cap, at, deadline).await?;
                self.start_read(cap, at, &envelope, Missing::Report, deadline).await
            };
            let failed = match looked.await {
                Ok(ReadOutcome::NotFound) => {
                    missing = true;
                    None
                }
                Ok(found) => return Ok(found),
                Err(error) if error.is_retryable() => Some(error),
                Err(error) => return Err(error),
            };
            let now = Instant::now();
            // The last look is early enough to be answered.
            let last = deadline - self.one_look().min(deadline.saturating_duration_since(now));
            let next = last.min(now + self.pause_after(looks));
            if next <= now {
                return failed.filter(|_| !missing).map_or(Ok(ReadOutcome::NotFound), Err);
            }
            sleep_until(next).await;
            looks += 1;
        }
    }

    /// A deadline for `boxes` boxes that are written or read one after the other: two minutes, and what the network's
    /// round trips and the daemon's pace make of their packets, some of them lost. While no document is known, those of
    /// a slow network are assumed.
    pub fn deadline_for(&self, boxes: u32) -> Instant {
        let (round_trip, interval) = self.pace();
        let packets = boxes.saturating_mul(PACKETS).saturating_add(10);
        Instant::now() + BESIDE + (round_trip + interval).saturating_mul(packets)
    }

    /// What a look takes, with some to spare.
    fn one_look(&self) -> Duration {
        let (round_trip, interval) = self.pace();
        (round_trip + interval) * PACKETS
    }

    fn pause_after(&self, looks: u32) -> Duration {
        let (round_trip, _) = self.pace();
        let longest = (round_trip * LONGEST_PAUSE).clamp(PAUSES.0, PAUSES.1);
        let pause = (round_trip * FIRST_PAUSE).mul_f64(1.5_f64.powi(i32::try_from(looks.min(20)).unwrap_or(20)));
        let jitter = self.dice.lock().unwrap_or_else(PoisonError::into_inner).random_range(0.5..1.5);
        pause.min(longest).mul_f64(jitter)
    }

    /// The mixnet's round trip, and the mean time between two packets of the daemon's.
    fn pace(&self) -> (Duration, Duration) {
        let document = self.status.borrow().pki.clone();
        document.map_or(UNKNOWN, |document| {
            (document.round_trip().unwrap_or(UNKNOWN.0), document.packet_interval().unwrap_or(UNKNOWN.1))
        })
    }
}
