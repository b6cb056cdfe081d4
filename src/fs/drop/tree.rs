//! The names in drops: directories and files, each with a number of its own. Pure; the same for drops that are written
//! and for those that are read.

use std::collections::{BTreeMap, HashMap};

use crate::store::ChannelId;

/// Names that are kept, over all drops. A sender of millions of empty files must not fill the memory.
pub(super) const MAX_ENTRIES: usize = 1 << 18;

/// The number of a file or directory in a drop: never used twice while a mount lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryId(pub(in crate::fs) u64);

/// All drops' names. `F` is what is known of a file, `D` of a directory.
#[derive(Debug)]
pub(super) struct Forest<F, D> {
    entries: HashMap<EntryId, Entry<F, D>>,
    roots: HashMap<ChannelId, EntryId>,
    last: u64,
    limit: usize,
}

/// A file or directory.
#[derive(Debug)]
pub(super) struct Entry<F, D> {
    pub(super) drop: ChannelId,
    /// Of a root, itself.
    pub(super) parent: EntryId,
    pub(super) name: String,
    pub(super) what: What<F, D>,
}

#[derive(Debug)]
pub(super) enum What<F, D> {
    File(F),
    Directory(D, BTreeMap<String, EntryId>),
}

impl<F, D: Default> Forest<F, D> {
    pub(super) fn new(limit: usize) -> Self {
        Self { entries: HashMap::new(), roots: HashMap::new(), last: 0, limit }
    }

    /// The root of a drop, if its names are known.
    pub(super) fn root(&self, drop: ChannelId) -> Option<EntryId> {
        self.roots.get(&drop).copied()
    }

    /// Begins with the names of a drop. Roots are not counted.
    pub(super) fn plant(&mut self, drop: ChannelId) -> EntryId {
        let id = self.next();
        let what = What::Directory(D::default(), BTreeMap::new());
        self.entries.insert(id, Entry { drop, parent: id, name: String::new(), what });
        self.roots.insert(drop, id);
        id
    }

    /// Forgets all names of a drop.
    pub(super) fn fell(&mut self, drop: ChannelId) {
        if let Some(root) = self.roots.remove(&drop) {
            for id in self.below(root) {
                self.entries.remove(&id);
            }
            self.entries.remove(&root);
        }
    }

    pub(super) fn drops(&self) -> impl Iterator<Item = ChannelId> {
        self.roots.keys().copied()
    }

    pub(super) fn entry(&self, id: EntryId) -> Option<&Entry<F, D>> {
        self.entries.get(&id)
    }

    pub(super) fn entry_mut(&mut self, id: EntryId) -> Option<&mut Entry<F, D>> {
        self.entries.get_mut(&id)
    }

    pub(super) fn file(&self, id: EntryId) -> Option<&F> {
        match &self.entries.get(&id)?.what {
            What::File(file) => Some(file),
            What::Directory(..) => None,
        }
    }

    pub(super) fn file_mut(&mut self, id: EntryId) -> Option<&mut F> {
        match &mut self.entries.get_mut(&id)?.what {
            What::File(file) => Some(file),
            What::Directory(..) => None,
        }
    }

    pub(super) fn directory(&self, id: EntryId) -> Option<(&D, &BTreeMap<String, EntryId>)> {
        match &self.entries.get(&id)?.what {
            What::Directory(directory, children) => Some((directory, children)),
            What::File(_) => None,
        }
    }

    pub(super) fn directory_mut(&mut self, id: EntryId) -> Option<&mut D> {
        match &mut self.entries.get_mut(&id)?.what {
            What::Directory(directory, _) => Some(directory),
            What::File(_) => None,
        }
    }

    pub(super) fn child(&self, directory: EntryId, name: &str) -> Option<EntryId> {
        self.directory(directory)?.1.get(name).copied()
    }

    pub(super) fn has_room(&self) -> bool {
        self.entries.len() - self.roots.len() < self.limit
    }

    /// Adds a file or directory under a name that is free. None: there are too many, or there is no such directory.
    pub(super) fn add_file(&mut self, directory: EntryId, name: &str, file: F) -> Option<EntryId> {
        self.add(directory, name, What::File(file))
    }

    pub(super) fn add_directory(&mut self, directory: EntryId, name: &str, it: D) -> Option<EntryId> {
        self.add(directory, name, What::Directory(it, BTreeMap::new()))
    }

    fn add(&mut self, directory: EntryId, name: &str, what: What<F, D>) -> Option<EntryId> {
        if !self.has_room() || self.child(directory, name).is_some() {
            return None;
        }
        let drop = self.entries.get(&directory)?.drop;
        let id = self.next();
        self.children_mut(directory)?.insert(name.to_owned(), id);
        self.entries.insert(id, Entry { drop, parent: directory, name: name.to_owned(), what });
        Some(id)
    }

    /// Removes a file, or a directory with all that is in it.
    pub(super) fn remove(&mut self, id: EntryId) {
        for below in self.below(id) {
            self.entries.remove(&below);
        }
        if let Some(entry) = self.entries.remove(&id)
            && let Some(children) = self.children_mut(entry.parent)
        {
            children.remove(&entry.name);
        }
    }

    /// Moves an entry to a name of the same drop that is free.
    pub(super) fn move_to(&mut self, id: EntryId, directory: EntryId, name: &str) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let old = (entry.parent, std::mem::replace(&mut entry.name, name.to_owned()));
        entry.parent = directory;
        if let Some(children) = self.children_mut(old.0) {
            children.remove(&old.1);
        }
        if let Some(children) = self.children_mut(directory) {
            children.insert(name.to_owned(), id);
        }
    }

    /// The names that lead to it from the root of its drop, its own at the end.
    pub(super) fn names(&self, id: EntryId) -> Vec<&str> {
        let mut names = Vec::new();
        let mut at = id;
        while let Some(entry) = self.entries.get(&at).filter(|entry| entry.parent != at) {
            names.push(entry.name.as_str());
            at = entry.parent;
        }
        names.reverse();
        names
    }

    /// All that is in a directory, however deep; nothing for a file.
    pub(super) fn below(&self, id: EntryId) -> Vec<EntryId> {
        let mut found = Vec::new();
        let mut open = vec![id];
        while let Some(next) = open.pop() {
            if let Some((_, children)) = self.directory(next) {
                found.extend(children.values());
                open.extend(children.values());
            }
        }
        found
    }

    fn children_mut(&mut self, id: EntryId) -> Option<&mut BTreeMap<String, EntryId>> {
        match &mut self.entries.get_mut(&id)?.what {
            What::Directory(_, children) => Some(children),
            What::File(_) => None,
        }
    }

    fn next(&mut self) -> EntryId {
        self.last += 1;
        EntryId(self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Names = Forest<u32, ()>;

    #[test]
    fn an_entry_keeps_its_number_wherever_it_goes() {
        let mut forest = Names::new(10);
        let root = forest.plant(ChannelId(1));
        let a = forest.add_directory(root, "a", ()).expect("room");
        let b = forest.add_directory(a, "b", ()).expect("room");
        let file = forest.add_file(b, "x", 7).expect("room");
        assert_eq!(forest.names(file), ["a", "b", "x"]);
        forest.move_to(b, root, "c");
        assert_eq!(forest.names(file), ["c", "x"]);
        assert_eq!(forest.child(a, "b"), None);
        assert_eq!(forest.child(root, "c"), Some(b));
        assert_eq!(forest.file(file), Some(&7));
        assert_eq!(forest.names(root), Vec::<&str>::new());
    }

    #[test]
    fn what_is_removed_goes_with_all_that_is_in_it() {
        let mut forest = Names::new(3);
        let root = forest.plant(ChannelId(1));
        let other = forest.plant(ChannelId(2));
        let a = forest.add_directory(root, "a", ()).expect("room");
        let b = forest.add_directory(a, "b", ()).expect("room");
        let x = forest.add_file(b, "x", 1).expect("room");
        assert_eq!(forest.add_file(other, "y", 2), None, "there is no more room");
        forest.remove(a);
        assert!(forest.entry(x).is_none() && forest.entry(b).is_none());
        let y = forest.add_file(other, "y", 2).expect("room");
        assert_eq!(forest.add_file(other, "y", 3), None, "the name is taken");
        assert!(y > x, "no number is used twice");
        forest.fell(ChannelId(2));
        assert!(forest.entry(y).is_none() && forest.root(ChannelId(2)).is_none());
        assert_eq!(forest.drops().collect::<Vec<_>>(), [ChannelId(1)]);
    }
}
