//! Which network a channel belongs to.

use crate::bacap::TextNetwork;

/// A network: the set of its directory authorities' identity key hashes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NetworkId {
    keys: Vec<[u8; 32]>,
    localnet: bool,
}

impl NetworkId {
    /// The network of these authorities, in whatever order they were listed.
    pub fn new(keys: impl IntoIterator<Item = [u8; 32]>) -> Self {
        let mut keys: Vec<_> = keys.into_iter().collect();
        keys.sort_unstable();
        keys.dedup();
        Self { keys, localnet: false }
    }

    /// The same authorities; whether they are those of an embedded network.
    #[must_use]
    pub fn embedded(self, localnet: bool) -> Self {
        Self { localnet, ..self }
    }

    /// Whether it is an embedded network.
    pub fn is_localnet(&self) -> bool {
        self.localnet
    }

    /// How a capability's text names it.
    pub fn in_text(&self) -> TextNetwork {
        let digest = blake3::hash(self.keys.as_flattened());
        let hash = *digest.as_bytes().first_chunk().expect("32 bytes");
        if self.localnet { TextNetwork::Localnet(hash) } else { TextNetwork::Real(hash) }
    }

    /// The hashes, sorted, each once.
    pub fn keys(&self) -> &[[u8; 32]] {
        &self.keys
    }

    /// Whether `present` is this network still: more than half of the authorities known here are in it.
    pub fn is_same_network_as(&self, present: &Self) -> bool {
        let known = self.keys.iter().filter(|key| present.keys.binary_search(key).is_ok()).count();
        known * 2 > self.keys.len()
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        self.keys.concat()
    }

    /// `None` unless these are whole keys.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (keys, rest) = bytes.as_chunks::<32>();
        rest.is_empty().then(|| Self::new(keys.iter().copied()))
    }
}

/// How a network is another one than a capability's text names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// The text is of an embedded network, and this is a real one.
    #[error("this capability is of an embedded network (localnet), and the daemon here is on a real network")]
    LocalnetOnReal,
    /// The text is of a real network, and this is an embedded one.
    #[error("this capability is of a real network, and the daemon here is an embedded one (localnet)")]
    RealOnLocalnet,
    /// Both are real, or both are embedded, and their authorities are not the same.
    #[error("this capability was made on a network with other directory authorities than those of the network here")]
    OtherHash,
}

impl Misfit {
    /// How `present` differs from the network of a text; `None`: it does not, as far as the text says.
    pub fn of(text: TextNetwork, present: &NetworkId) -> Option<Self> {
        match (text, present.in_text()) {
            (TextNetwork::Localnet(_), TextNetwork::Real(_)) => Some(Self::LocalnetOnReal),
            (TextNetwork::Real(_), TextNetwork::Localnet(_)) => Some(Self::RealOnLocalnet),
            (TextNetwork::Unbound, _) => None,
            (text, present) => (text != present).then_some(Self::OtherHash),
        }
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

    #[test]
    fn a_text_of_a_localnet_fits_no_real_network_and_the_other_way_round() {
        let real = NetworkId::new([[9; 32], [3; 32], [7; 32]]);
        let localnet = real.clone().embedded(true);
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../../testdata/capability-texts.json")).expect("JSON");
        let hash = hex::decode(vectors["networks"][0]["hash"].as_str().expect("hex")).expect("hex");
        assert_eq!(real.in_text(), TextNetwork::Real(hash.try_into().expect("4 bytes")));
        assert_eq!(Misfit::of(real.in_text(), &real), None);
        assert_eq!(Misfit::of(TextNetwork::Unbound, &localnet), None);
        assert_eq!(Misfit::of(localnet.in_text(), &real), Some(Misfit::LocalnetOnReal));
        assert_eq!(Misfit::of(real.in_text(), &localnet), Some(Misfit::RealOnLocalnet));
        assert_eq!(Misfit::of(TextNetwork::Real([0; 4]), &real), Some(Misfit::OtherHash));
    }
}
