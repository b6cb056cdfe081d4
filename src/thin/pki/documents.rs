//! The documents of the last epochs, as a client keeps them.

use std::sync::Arc;

use super::Document;

/// Epochs behind the newest that are kept.
const KEPT: u64 = 5;

/// The documents that a daemon sent of late: the newest epoch's and those of the four before it. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Documents {
    /// In the order of their epochs, one each.
    kept: Vec<Arc<Document>>,
}

impl Documents {
    /// Takes a document in, in place of an older one of its epoch; those that are 5 epochs or more behind the newest
    /// go. A document far
    /// *behind* those that are kept is of a network that began anew, and takes the place of all.
    pub(in crate::thin) fn insert(&mut self, document: Arc<Document>) {
        let epoch = document.epoch;
        if self.current().is_some_and(|newest| newest.epoch.saturating_sub(epoch) >= KEPT) {
            self.kept.clear();
        }
        self.kept.retain(|kept| kept.epoch != epoch && kept.epoch.saturating_add(KEPT) > epoch);
        let at = self.kept.partition_point(|kept| kept.epoch < epoch);
        self.kept.insert(at, document);
    }

    /// That of the newest epoch.
    pub fn current(&self) -> Option<&Arc<Document>> {
        self.kept.last()
    }

    /// That of one epoch.
    pub fn epoch(&self, epoch: u64) -> Option<&Arc<Document>> {
        self.kept.iter().find(|document| document.epoch == epoch)
    }

    /// All of them, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Document>> {
        self.kept.iter()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// Whatever comes in whatever order: what came last is there, one document an epoch, five at most.
        #[test]
        fn the_last_five_epochs_are_kept(epochs in proptest::collection::vec(0_u64..20, 1..40)) {
            let mut documents = Documents::default();
            for epoch in epochs {
                documents.insert(Arc::new(Document { epoch, ..Document::default() }));
                prop_assert!(documents.epoch(epoch).is_some());
                let kept: Vec<_> = documents.iter().map(|document| document.epoch).collect();
                prop_assert!(kept.is_sorted_by(|a, b| a < b) && kept.len() <= 5, "{kept:?}");
                prop_assert!(kept.last().expect("one") - kept[0] < KEPT, "{kept:?}");
            }
        }
    }
}
