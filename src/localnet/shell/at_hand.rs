//! What connections have at hand: frames that have come and are being understood. The loop keeps a transaction open for
//! them, as they will be with it in no time.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// How many connections have something at hand.
#[derive(Default)]
pub(super) struct AtHand {
    connections: AtomicUsize,
    none: Notify,
}

/// A connection that has something at hand, until this is dropped.
pub(super) struct Holding<'a>(&'a AtHand);

impl AtHand {
    pub(super) fn hold(&self) -> Holding<'_> {
        self.connections.fetch_add(1, Ordering::AcqRel);
        Holding(self)
    }

    pub(super) fn any(&self) -> bool {
        self.connections.load(Ordering::Acquire) > 0
    }

    /// Resolves when nothing is at hand. One at a time may wait.
    pub(super) async fn none(&self) {
        // A notice that nobody waited for makes one round more.
        while self.any() {
            self.none.notified().await;
        }
    }
}

impl Drop for Holding<'_> {
    fn drop(&mut self) {
        if self.0.connections.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.none.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use super::*;

    #[tokio::test]
    async fn whoever_waits_hears_when_the_last_one_lets_go() {
        let at_hand = AtHand::default();
        at_hand.none().await;
        let (first, second) = (at_hand.hold(), at_hand.hold());
        drop(first);
        let mut none = std::pin::pin!(at_hand.none());
        assert!(waits(none.as_mut()).await, "one still has something");
        drop(second);
        none.await;
        assert!(!at_hand.any());
    }

    /// Whether a future waits.
    async fn waits(future: Pin<&mut impl Future<Output = ()>>) -> bool {
        tokio::select! {
            biased;
            () = future => false,
            () = tokio::task::yield_now() => true,
        }
    }
}
