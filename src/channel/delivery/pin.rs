//! Which of the networks that daemons are connected to is the one that is used.

use crate::model::NetworkId;

/// The network that is used: that of the first daemon that was ever there, in the order in which they were named, and while it
/// is away too. Daemons of other networks, or whose boxes have another length, are not used beside it. So the one that was
/// named first always is, and one that was named by mistake gets nothing that was meant for the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pin(Option<(NetworkId, usize)>);

/// Why a daemon is not used beside the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// Its directory authorities are others.
    #[error("it is of another network than the first daemon, and is not used")]
    OtherNetwork,
    /// M is another one.
    #[error("its boxes have another length than those of the first daemon, so it is not used")]
    OtherLength,
}

impl Pin {
    /// Where these networks were there, each with its M, in the order of the daemons.
    pub fn of<'a>(there: impl IntoIterator<Item = (&'a NetworkId, usize)>) -> Self {
        Self(there.into_iter().next().map(|(id, max_plaintext)| (id.clone(), max_plaintext)))
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
    fn the_network_of_the_first_daemon_that_was_there_is_used() {
        let (one, other) = (NetworkId::new([[1; 32]]), NetworkId::new([[2; 32]]));
        assert_eq!(Pin::of([]).network(), None);
        let pin = Pin::of([(&other, 10)]);
        assert_eq!((pin.misfit(&other, 10), pin.misfit(&one, 10)), (None, Some(Misfit::OtherNetwork)));
        let pin = Pin::of([(&one, 10), (&other, 10), (&one, 11)]);
        assert_eq!(pin.network(), Some(&(one.clone(), 10)));
        assert_eq!((pin.misfit(&one, 10), pin.misfit(&one, 11)), (None, Some(Misfit::OtherLength)));
        assert_eq!(pin.misfit(&other, 10), Some(Misfit::OtherNetwork));
    }

    /// An authority is added, and one of the daemons knows of it already.
    #[test]
    fn daemons_whose_lists_of_authorities_differ_a_little_are_of_one_network() {
        let (old, new) = (NetworkId::new([[1; 32], [2; 32], [3; 32]]), NetworkId::new([[1; 32], [2; 32], [4; 32]]));
        assert_eq!(Pin::of([(&old, 10), (&new, 10)]).misfit(&new, 10), None);
    }
}
