//! What is on a disk: files as they are seen, files as they are safe, and what is between the two.

use std::collections::BTreeMap;

/// What a disk writes as a whole, in bytes. A write of more may be torn.
const SECTOR: usize = 512;

/// What a power cut takes of what was written and not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Nothing: all of it had come to the disk by chance.
    None,
    /// All of it.
    All,
    /// Each sector of each write with even chance, as this seed decides.
    Random(u64),
}

/// One thing that was done to a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Bytes were written into a file, which is made where it is missing.
    Write {
        /// The file.
        file: String,
        /// Where.
        offset: u64,
        /// What.
        bytes: Vec<u8>,
    },
    /// A file was cut or grew to this length.
    Truncate {
        /// The file.
        file: String,
        /// Its length now.
        length: u64,
    },
    /// All that was done to a file before is safe.
    Sync {
        /// The file.
        file: String,
    },
    /// A sync failed: what it was for is still seen, and will never be safe, as the kernel takes it for written.
    FailedSync {
        /// The file.
        file: String,
    },
    /// A file was deleted.
    Delete {
        /// The file.
        file: String,
        /// Whether that is safe.
        synced: bool,
    },
}

impl Event {
    /// The file that it is about.
    pub fn file(&self) -> &str {
        match self {
            Self::Write { file, .. }
            | Self::Truncate { file, .. }
            | Self::Sync { file }
            | Self::FailedSync { file }
            | Self::Delete { file, .. } => file,
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Stored {
    /// What a reader sees; `None`: the file was deleted.
    seen: Option<Vec<u8>>,
    /// What is safe.
    safe: Option<Vec<u8>>,
    /// What was done since the last sync.
    pending: Vec<Event>,
}

impl Stored {
    /// Whether it was made since its last sync.
    fn is_new(&self) -> bool {
        self.safe.is_none() || self.pending.iter().any(is_deletion)
    }

    /// The directory was synced: what was deleted before does not come back.
    fn settle_deletions(&mut self) {
        if let Some(last) = self.pending.iter().rposition(is_deletion) {
            self.pending.drain(..=last);
            self.safe = None;
        }
    }
}

fn is_deletion(event: &Event) -> bool {
    matches!(event, Event::Delete { .. })
}

/// The files of a disk.
#[derive(Clone, Debug, Default)]
pub struct Image {
    files: BTreeMap<String, Stored>,
}

impl Image {
    /// The bytes of a file as they are seen.
    pub fn file(&self, name: &str) -> Option<&Vec<u8>> {
        self.files.get(name)?.seen.as_ref()
    }

    /// Bytes that all files take together.
    pub fn bytes(&self) -> u64 {
        self.files.values().filter_map(|file| file.seen.as_ref()).map(|seen| seen.len() as u64).sum()
    }

    /// Does it.
    pub fn apply(&mut self, event: Event) {
        if let Event::Sync { file } = &event
            && self.files.get(file).is_some_and(Stored::is_new)
        {
            // As SQLite does for a log or a journal that it has made: the directory is synced with it.
            self.files.values_mut().for_each(Stored::settle_deletions);
        }
        let file = self.files.entry(event.file().to_owned()).or_default();
        match &event {
            Event::Sync { .. } => {
                for event in std::mem::take(&mut file.pending) {
                    change(&mut file.safe, &event, |_| true);
                }
                if file.seen.is_some() && file.safe.is_none() {
                    file.safe = Some(Vec::new());
                }
            }
            Event::FailedSync { .. } => file.pending.clear(),
            Event::Delete { synced: true, .. } => *file = Stored::default(),
            event => {
                change(&mut file.seen, event, |_| true);
                file.pending.push(event.clone());
            }
        }
    }

    /// The disk after a power cut.
    #[must_use]
    pub fn after_cut(&self, loss: Loss) -> Self {
        let mut dice = Dice(match loss {
            Loss::Random(seed) => seed,
            Loss::None | Loss::All => 0,
        });
        let mut files = BTreeMap::new();
        for (name, file) in &self.files {
            let mut safe = file.safe.clone();
            for event in &file.pending {
                match loss {
                    Loss::All => {}
                    Loss::None => change(&mut safe, event, |_| true),
                    Loss::Random(_) => {
                        let whole = matches!(event, Event::Write { .. }) || dice.heads();
                        if whole {
                            change(&mut safe, event, |_| dice.heads());
                        }
                    }
                }
            }
            if safe.is_some() {
                files.insert(name.clone(), Stored { seen: safe.clone(), safe, pending: Vec::new() });
            }
        }
        Self { files }
    }
}

/// Does it to the bytes of a file, each sector of a write as `survives` says.
fn change(bytes: &mut Option<Vec<u8>>, event: &Event, mut survives: impl FnMut(usize) -> bool) {
    match event {
        Event::Write { offset, bytes: written, .. } => {
            let mut at = usize::try_from(*offset).expect("a file in memory");
            let mut left = &written[..];
            while !left.is_empty() {
                let (now, later) = left.split_at(left.len().min(SECTOR - at % SECTOR));
                if survives(at) {
                    let bytes = bytes.get_or_insert_default();
                    if bytes.len() < at + now.len() {
                        bytes.resize(at + now.len(), 0);
                    }
                    bytes[at..at + now.len()].copy_from_slice(now);
                }
                (at, left) = (at + now.len(), later);
            }
        }
        Event::Truncate { length, .. } => {
            bytes.get_or_insert_default().resize(usize::try_from(*length).expect("a file in memory"), 0);
        }
        Event::Delete { .. } => *bytes = None,
        Event::Sync { .. } | Event::FailedSync { .. } => {}
    }
}

/// SplitMix64: enough to draw sectors.
struct Dice(u64);

impl Dice {
    fn heads(&mut self) -> bool {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut drawn = self.0;
        drawn = (drawn ^ (drawn >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        drawn = (drawn ^ (drawn >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (drawn ^ (drawn >> 31)) & 1 == 1
    }
}
