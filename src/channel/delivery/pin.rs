//! Which of the networks that daemons are connected to is the one that is used.

use crate::model::NetworkId;

/// The network that is used: that of the first daemon that could be, for as long as any daemon of it is there. Daemons of
/// other networks, or whose boxes have another length, are not used meanwhile.
#[derive(Clone, Debug, Default)]
pub struct Pin(Option<(NetworkId, usize)>);

/// Why a daemon is not used beside the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// Its directory authorities are others.
    #[error("it is of another network than the first daemon that was there, and is not used")]
    OtherNetwork,
    /// M is another one.
    #[error("its boxes have another length than those of the first daemon that was there, so it is not used")]
    OtherLength,
}

impl Pin {
    /// Takes in which networks there are now, each with its M, in the order of the daemons. Of several that are there when
    /// none is used, it is the first.
    pub fn settle<'a>(&mut self, there: impl IntoIterator<Item = (&'a NetworkId, usize)>) {
        let mut there = there.into_iter().peekable();
        let first = there.peek().map(|&(id, max_plaintext)| (id.clone(), max_plaintext));
        if !there.any(|(id, max_plaintext)| self.misfit(id, max_plaintext).is_none()) || self.0.is_none() {
            self.0 = first;
        }
    }

    /// The network that is used, and its M.
    pub fn network(&self) -> Option<&(NetworkId, usize)> {
        self.0.as_ref()
    }

    /// Why a daemon of this network is not used; `None`: it is.
    pub fn misfit(&self, id: &NetworkId, max_plaintext: usize) -> Option<Misfit> {
        let (used, used_max_plaintext) = self.0.as_ref()?;
        if !used.is_same_network_as(id) {
            Some(Misfit::OtherNetwork)
        } else if *used_max_plaintext != max_plaintext {
            Some(Misfit::OtherLength)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_network_is_used_until_no_daemon_of_it_is_there() {
        let (one, other) = (NetworkId::new([[1; 32]]), NetworkId::new([[2; 32]]));
        let mut pin = Pin::default();
        pin.settle([(&other, 10)]);
        assert_eq!((pin.misfit(&other, 10), pin.misfit(&one, 10)), (None, Some(Misfit::OtherNetwork)));
        // The daemon that was named first comes later.
        pin.settle([(&one, 10), (&other, 10)]);
        assert_eq!(pin.network(), Some(&(other.clone(), 10)));
        assert_eq!(pin.misfit(&other, 11), Some(Misfit::OtherLength));
        pin.settle([(&one, 10)]);
        assert_eq!((pin.misfit(&one, 10), pin.misfit(&other, 10)), (None, Some(Misfit::OtherNetwork)));
        pin.settle([]);
        assert_eq!(pin.network(), None);
        pin.settle([(&one, 10), (&other, 10)]);
        assert_eq!(pin.network(), Some(&(one, 10)), "of several, the first");
    }
}
