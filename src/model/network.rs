//! Which network a channel belongs to.

/// A network: the set of its directory authorities' identity key hashes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NetworkId(Vec<[u8; 32]>);

impl NetworkId {
    /// The network of these authorities, in whatever order they were listed.
    pub fn new(keys: impl IntoIterator<Item = [u8; 32]>) -> Self {
        let mut keys: Vec<_> = keys.into_iter().collect();
        keys.sort_unstable();
        keys.dedup();
        Self(keys)
    }

    /// The hashes, sorted, each once.
    pub fn keys(&self) -> &[[u8; 32]] {
        &self.0
    }

    /// Whether `present` is this network still: more than half of the authorities known here are in it.
    pub fn is_same_network_as(&self, present: &Self) -> bool {
        let known = self.0.iter().filter(|key| present.0.binary_search(key).is_ok()).count();
        known * 2 > self.0.len()
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        self.0.concat()
    }

    /// `None` unless these are whole keys.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (keys, rest) = bytes.as_chunks::<32>();
        rest.is_empty().then(|| Self::new(keys.iter().copied()))
    }
}

/// What a request to bind a channel to a network came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// It is bound from now on.
    Bound,
    /// It was bound to this network before.
    Matches,
    /// It belongs to another one. Nothing was changed.
    Refused,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_the_same_while_more_than_half_of_its_keys_are_known() {
        let bound = NetworkId::new([[1; 32], [2; 32], [3; 32], [2; 32]]);
        assert_eq!(bound.keys().len(), 3);
        assert!(bound.is_same_network_as(&NetworkId::new([[3; 32], [1; 32]])));
        assert!(bound.is_same_network_as(&NetworkId::new([[3; 32], [1; 32], [7; 32], [8; 32], [9; 32]])));
        assert!(!bound.is_same_network_as(&NetworkId::new([[1; 32]])));
        let two = NetworkId::new([[1; 32], [2; 32]]);
        assert!(!two.is_same_network_as(&NetworkId::new([[1; 32]])), "half is not more than half");
        assert!(!NetworkId::new([]).is_same_network_as(&two));
        assert_eq!(NetworkId::from_bytes(&bound.to_bytes()), Some(bound));
        assert_eq!(NetworkId::from_bytes(&[0; 33]), None);
    }
}
