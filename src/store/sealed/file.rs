//! Staged files: as they are, or encrypted so that they can be read and written anywhere.
//!
//! ```text
//! 0        16        48        512                                512 + length
//! | MAGIC  | salt    | zeros   | content in units of 512 bytes …  | 16 bytes more than the content has
//! ```
//!
//! A unit is encrypted with XTS-AES-256 (IEEE 1619), its number as the tweak, under a key of the file's own, made of the
//! salt and the state's key. Blocks of 16 bytes are encrypted each for itself, and lie within one sector of a disk: a write that
//! a power cut tears changes nothing but the blocks that it was of. A last block that is not full is filled with zeros; the
//! length of the file on the disk says where the content ends. A block of zeros on the disk is one of zeros: it is in a
//! hole, and no other comes out as that but once in 2^128.
//!
//! XTS keeps contents secret and does not prove them: whoever can write to the disk can make them something else, which the
//! digest of a record shows.

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::{Arc, PoisonError, RwLock};

use aes::Aes256;
use aes::cipher::KeyInit;
use xts_mode::{Xts128, get_tweak_default};
use zeroize::Zeroizing;

const MAGIC: &[u8; 16] = b"pigeonfs sealed\0";
const SALT_BYTES: usize = 32;
const HEAD_BYTES: usize = 512;
const HEAD: u64 = HEAD_BYTES as u64;
const UNIT_BYTES: usize = 512;
const UNIT: u64 = UNIT_BYTES as u64;
const BLOCK_BYTES: usize = 16;
const BLOCK: u64 = BLOCK_BYTES as u64;
/// How many bytes are encrypted at once.
const CHUNK_BYTES: u64 = 256 << 10;

/// What a file of that length on the disk holds.
pub(super) fn content_len(on_disk: u64) -> u64 {
    on_disk.saturating_sub(HEAD + BLOCK)
}

/// The key of one file, and the salt that it was made of.
pub(super) struct FileKey {
    salt: [u8; SALT_BYTES],
    key: Zeroizing<[u8; 64]>,
}

impl FileKey {
    /// For a new file.
    pub(super) fn random(files: &[u8; 32]) -> io::Result<Self> {
        let mut salt = [0; SALT_BYTES];
        getrandom::fill(&mut salt).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self::of(files, salt))
    }

    fn of(files: &[u8; 32], salt: [u8; SALT_BYTES]) -> Self {
        let mut key = Zeroizing::new([0; 64]);
        blake3::Hasher::new_keyed(files).update(&salt).finalize_xof().fill(&mut *key);
        Self { salt, key }
    }

    pub(super) fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(SALT_BYTES + self.key.len()));
        bytes.extend_from_slice(&self.salt);
        bytes.extend_from_slice(&*self.key);
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (salt, rest) = bytes.split_first_chunk()?;
        let key: &[u8; 64] = rest.try_into().ok()?;
        Some(Self { salt: *salt, key: Zeroizing::new(*key) })
    }

    fn cipher(&self) -> Xts128<Aes256> {
        let (data, tweak) = self.key.split_at(32);
        let aes = |key: &[u8]| Aes256::new_from_slice(key).expect("32 bytes are a key");
        Xts128::new(aes(data), aes(tweak))
    }
}

/// A staged file, open.
pub struct StagedFile {
    file: File,
    cipher: Option<Cipher>,
}

struct Cipher {
    xts: Arc<Xts128<Aes256>>,
    /// Shared by all that have the file open here: what a write changes of a unit is read, changed and written.
    lock: Arc<RwLock<()>>,
}

impl std::fmt::Debug for StagedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StagedFile").field("file", &self.file).field("sealed", &self.cipher.is_some()).finish()
    }
}

impl StagedFile {
    pub(super) fn plain(file: File) -> Self {
        Self { file, cipher: None }
    }

    /// Begins an empty file.
    pub(super) fn begun(file: File, key: &FileKey) -> io::Result<Self> {
        let mut head = [0; HEAD_BYTES];
        head[..MAGIC.len()].copy_from_slice(MAGIC);
        head[MAGIC.len()..MAGIC.len() + SALT_BYTES].copy_from_slice(&key.salt);
        file.write_all_at(&head, 0)?;
        file.set_len(HEAD + BLOCK)?;
        Self::with(file, key)
    }

    pub(super) fn opened(file: File, files: &[u8; 32]) -> io::Result<Self> {
        let mut head = [0; MAGIC.len() + SALT_BYTES];
        let read = file.read_exact_at(&mut head, 0);
        let not_ours = || io::Error::new(ErrorKind::InvalidData, "it is no staged file of this sealed state");
        match (read, head.split_first_chunk()) {
            (Ok(()), Some((MAGIC, salt))) => {
                let salt = salt.try_into().map_err(|_| not_ours())?;
                Self::with(file, &FileKey::of(files, salt))
            }
            (Err(error), _) => Err(error),
            _ => Err(not_ours()),
        }
    }

    /// An empty file that this process was given a key for; without one, it is written as it is.
    ///
    /// # Errors
    /// It cannot be written; it is no key.
    pub fn create(file: File, key: Option<&[u8]>) -> io::Result<Self> {
        let Some(key) = key else { return Ok(Self::plain(file)) };
        let key = FileKey::from_bytes(key);
        let key = key.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "this is no key of a staged file"))?;
        Self::begun(file, &key)
    }

    fn with(file: File, key: &FileKey) -> io::Result<Self> {
        let lock = locks::of(&file.metadata()?);
        Ok(Self { file, cipher: Some(Cipher { xts: Arc::new(key.cipher()), lock }) })
    }

    /// The same file, opened once more.
    #[must_use]
    pub fn again(&self, file: File) -> Self {
        let cipher = self.cipher.as_ref();
        let cipher = cipher.map(|of| Cipher { xts: Arc::clone(&of.xts), lock: Arc::clone(&of.lock) });
        Self { file, cipher }
    }

    /// What is on the disk: for locks, permission bits and times. Its length is not that of the content.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// What the disk says of it. The length is not that of the content.
    ///
    /// # Errors
    /// The system refused.
    pub fn metadata(&self) -> io::Result<Metadata> {
        self.file.metadata()
    }

    /// Bytes of content.
    ///
    /// # Errors
    /// The system refused.
    pub fn content_len(&self) -> io::Result<u64> {
        let on_disk = self.file.metadata()?.len();
        Ok(if self.cipher.is_some() { content_len(on_disk) } else { on_disk })
    }

    /// Makes content and length last through a power cut.
    ///
    /// # Errors
    /// The system refused.
    pub fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// Reads at a place, as much as there is room for; fewer bytes only at the end.
    ///
    /// # Errors
    /// The system refused.
    pub fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let Some(cipher) = &self.cipher else { return read_fully(&self.file, bytes, offset) };
        let _shared = cipher.lock.read().unwrap_or_else(PoisonError::into_inner);
        let left = self.content_len()?.saturating_sub(offset);
        let len = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let mut done = 0;
        while done < len {
            let at = offset + done as u64;
            let begin = at / UNIT * UNIT;
            let end = (offset + len as u64).min(begin + CHUNK_BYTES);
            let units = self.units(cipher, begin, end)?;
            let from = usize::try_from(at - begin).unwrap_or(0);
            let count = usize::try_from(end - at).unwrap_or(0);
            bytes[done..done + count].copy_from_slice(&units[from..from + count]);
            done += count;
        }
        Ok(len)
    }

    /// Fills all of `bytes`.
    ///
    /// # Errors
    /// The content ends before; the system refused.
    pub fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        if self.read_at(bytes, offset)? == bytes.len() { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) }
    }

    /// Writes at a place; what is between it and the end of the content becomes a hole.
    ///
    /// # Errors
    /// The system refused. A part may be written.
    pub fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let Some(cipher) = &self.cipher else { return self.file.write_all_at(bytes, offset) };
        let _alone = cipher.lock.write().unwrap_or_else(PoisonError::into_inner);
        let length = self.content_len()?;
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let begin = at / UNIT * UNIT;
            let end = (offset + bytes.len() as u64).min(begin + CHUNK_BYTES);
            let count = usize::try_from(end - at).unwrap_or(0);
            self.patch(cipher, begin, at, &bytes[done..done + count], length)?;
            done += count;
            // After the bytes: a length that is there without them would show what is no content.
            if end > self.content_len()? {
                self.file.set_len(HEAD + end + BLOCK)?;
            }
        }
        Ok(())
    }

    /// Cuts the content off, or has it grow by a hole.
    ///
    /// # Errors
    /// The system refused.
    pub fn set_len(&self, length: u64) -> io::Result<()> {
        let Some(cipher) = &self.cipher else { return self.file.set_len(length) };
        let _alone = cipher.lock.write().unwrap_or_else(PoisonError::into_inner);
        if length < self.content_len()? {
            // What is behind the end is zeros, at any time: a file that grows must not show what it was.
            let full = length / BLOCK * BLOCK;
            if full < length {
                let mut block = self.units(cipher, length / UNIT * UNIT, length)?;
                let keep = usize::try_from(length % UNIT).unwrap_or(0);
                block.truncate(keep);
                block.resize(keep.next_multiple_of(BLOCK_BYTES), 0);
                cipher.xts.encrypt_sector(&mut block, get_tweak_default(u128::from(length / UNIT)));
                let last = block.len() - BLOCK_BYTES;
                self.file.write_all_at(&block[last..], HEAD + full)?;
            }
            let slack = length.next_multiple_of(BLOCK);
            let zeros = [0; BLOCK_BYTES];
            let count = usize::try_from(length + BLOCK - slack).unwrap_or(0);
            self.file.write_all_at(&zeros[..count], HEAD + slack)?;
        }
        self.file.set_len(HEAD + length + BLOCK)
    }

    /// From here to there, for readers and writers that go one after the other.
    pub fn sequential(&self) -> Sequential<'_> {
        Sequential { file: self, at: 0 }
    }

    /// The content of whole units from `begin` on up to the one that `end` is in. Behind the end of the content there
    /// are zeros.
    fn units(&self, cipher: &Cipher, begin: u64, end: u64) -> io::Result<Vec<u8>> {
        let count = usize::try_from(end.next_multiple_of(UNIT) - begin).unwrap_or(0);
        let mut units = vec![0; count];
        let mut there = read_fully(&self.file, &mut units, HEAD + begin)?;
        // Behind the content there may be the beginning of a block: zeros.
        let content = self.content_len()?.next_multiple_of(BLOCK).saturating_sub(begin);
        there = there.min(usize::try_from(content).unwrap_or(usize::MAX)) / BLOCK_BYTES * BLOCK_BYTES;
        units[there..].fill(0);
        let first = begin / UNIT;
        for (unit, number) in units[..there].chunks_mut(UNIT_BYTES).zip(first..) {
            open_unit(&cipher.xts, unit, number);
        }
        Ok(units)
    }

    /// Writes into the units from `begin` on; `at` is in the first of them.
    fn patch(&self, cipher: &Cipher, begin: u64, at: u64, bytes: &[u8], length: u64) -> io::Result<()> {
        let end = at + bytes.len() as u64;
        let mut units = vec![0; usize::try_from(end.next_multiple_of(UNIT) - begin).unwrap_or(0)];
        // Only the first and the last may keep something of what they were.
        let last = end / UNIT * UNIT;
        let mut kept = Vec::with_capacity(2);
        if at > begin {
            kept.push(begin);
        }
        if end > last && length > last && !kept.contains(&last) {
            kept.push(last);
        }
        for unit in kept {
            let place = usize::try_from(unit - begin).unwrap_or(0);
            units[place..place + UNIT_BYTES].copy_from_slice(&self.units(cipher, unit, unit + 1)?);
        }
        let from = usize::try_from(at - begin).unwrap_or(0);
        units[from..from + bytes.len()].copy_from_slice(bytes);
        let whole = length.max(end).next_multiple_of(BLOCK) - begin;
        units.truncate(usize::try_from(whole).unwrap_or(usize::MAX).min(units.len()));
        for (unit, number) in units.chunks_mut(UNIT_BYTES).zip(begin / UNIT..) {
            cipher.xts.encrypt_sector(unit, get_tweak_default(u128::from(number)));
        }
        // From the block that `at` is in on: what was before it is as it was.
        let skip = from / BLOCK_BYTES * BLOCK_BYTES;
        self.file.write_all_at(&units[skip..], HEAD + begin + skip as u64)
    }
}

/// Decrypts a unit, or the part of one that is there. Holes stay zeros.
fn open_unit(xts: &Xts128<Aes256>, unit: &mut [u8], number: u64) {
    if unit.iter().all(|&byte| byte == 0) {
        return;
    }
    let holes: Vec<bool> = unit.chunks(BLOCK_BYTES).map(|block| block.iter().all(|&byte| byte == 0)).collect();
    xts.decrypt_sector(unit, get_tweak_default(u128::from(number)));
    for (block, _) in unit.chunks_mut(BLOCK_BYTES).zip(holes).filter(|(_, is_hole)| *is_hole) {
        block.fill(0);
    }
}

fn read_fully(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// A staged file from its beginning on.
#[derive(Debug)]
pub struct Sequential<'a> {
    file: &'a StagedFile,
    at: u64,
}

impl Read for Sequential<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(bytes, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Write for Sequential<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all_at(bytes, self.at)?;
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One lock for each file that is open here, by what it is on the disk.
mod locks {
    use std::collections::HashMap;
    use std::sync::{Mutex, Weak};

    use super::{Arc, Metadata, MetadataExt, PoisonError, RwLock};

    type Open = HashMap<(u64, u64), Weak<RwLock<()>>>;

    static OPEN: Mutex<Option<Open>> = Mutex::new(None);

    pub(super) fn of(found: &Metadata) -> Arc<RwLock<()>> {
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        let open = open.get_or_insert_default();
        if let Some(lock) = open.get(&(found.dev(), found.ino())).and_then(Weak::upgrade) {
            return lock;
        }
        open.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::new(RwLock::new(()));
        open.insert((found.dev(), found.ino()), Arc::downgrade(&lock));
        lock
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FILES: [u8; 32] = [5; 32];

    fn begun() -> StagedFile {
        StagedFile::begun(tempfile::tempfile().unwrap(), &FileKey::random(&FILES).unwrap()).unwrap()
    }

    fn content(file: &StagedFile) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(file.content_len().unwrap()).unwrap() + 9];
        let count = file.read_at(&mut bytes, 0).unwrap();
        bytes.truncate(count);
        bytes
    }

    #[test]
    fn the_first_unit_is_xts_as_the_standard_has_it() {
        // IEEE 1619-2007, annex B, vector 10 (XTS-AES-256, data unit ff): its first block.
        let key = FileKey {
            salt: [0; SALT_BYTES],
            key: Zeroizing::new(
                hex::decode(
                    "27182818284590452353602874713526624977572470936999595749669676273141592653589793238462643383279502884197169399375105820974944592",
                )
                .unwrap()
                .try_into()
                .unwrap(),
            ),
        };
        let mut unit: Vec<u8> = (0..512_u32).map(|at| u8::try_from(at % 256).unwrap()).collect();
        key.cipher().encrypt_sector(&mut unit, get_tweak_default(0xff));
        assert_eq!(hex::encode(&unit[..16]), "1c3b3a102f770386e4836c99e370cf9b");
    }

    #[derive(Clone, Debug)]
    enum Op {
        Write(usize, usize),
        Cut(usize),
        Reopen,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (0..3000_usize, 1..1600_usize).prop_map(|(at, len)| Op::Write(at, len)),
            2 => (0..4000_usize).prop_map(Op::Cut),
            1 => Just(Op::Reopen),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever is done to it, it holds what a plain file would, and the disk has nothing of that.
        #[test]
        fn it_is_a_file_like_any_other(ops in proptest::collection::vec(op(), 1..20)) {
            let mut file = begun();
            let mut model: Vec<u8> = Vec::new();
            for (salt, op) in ops.into_iter().enumerate() {
                match op {
                    Op::Write(at, len) => {
                        let bytes: Vec<u8> = (0..len).map(|at| u8::try_from((at * 7 + salt) % 251 + 1).unwrap()).collect();
                        file.write_all_at(&bytes, at as u64).unwrap();
                        model.resize(model.len().max(at + len), 0);
                        model[at..at + len].copy_from_slice(&bytes);
                    }
                    Op::Cut(len) => {
                        file.set_len(len as u64).unwrap();
                        model.resize(len, 0);
                    }
                    Op::Reopen => file = StagedFile::opened(file.file.try_clone().unwrap(), &FILES).unwrap(),
                }
                prop_assert_eq!(content(&file), model.clone());
                let mut part = vec![0; 700];
                let count = file.read_at(&mut part, 333).unwrap();
                prop_assert_eq!(&part[..count], model.get(333..).map_or(&[][..], |rest| &rest[..rest.len().min(700)]));
            }
            let mut on_disk = vec![0; usize::try_from(file.file.metadata().unwrap().len()).unwrap()];
            file.file.read_exact_at(&mut on_disk, 0).unwrap();
            for piece in model.chunks_exact(8).filter(|piece| !piece.contains(&0)) {
                prop_assert!(!on_disk.windows(8).any(|window| window == piece));
            }
        }
    }

    /// A power cut tears a later write: of what it was not of, nothing is lost, whatever sector came to the disk.
    #[test]
    fn a_torn_write_takes_nothing_but_what_it_writes() {
        let file = begun();
        let kept: Vec<u8> = (0..2000_u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
        file.write_all_at(&kept, 0).unwrap();
        let mut before = vec![0; usize::try_from(file.file.metadata().unwrap().len()).unwrap()];
        file.file.read_exact_at(&mut before, 0).unwrap();
        file.write_all_at(&[0xff; 900], 700).unwrap();
        let mut after = before.clone();
        file.file.read_exact_at(&mut after, 0).unwrap();
        for torn in 0_u32..32 {
            let mut disk = before.clone();
            for (number, sector) in disk.chunks_mut(512).enumerate().filter(|(number, _)| torn >> number & 1 == 1) {
                sector.copy_from_slice(&after[number * 512..number * 512 + sector.len()]);
            }
            file.file.write_all_at(&disk, 0).unwrap();
            let found = content(&file);
            assert_eq!((&found[..700], &found[1600..]), (&kept[..700], &kept[1600..]), "sectors {torn:b}");
        }
    }

    #[test]
    fn holes_stay_holes_and_what_was_cut_off_does_not_come_back() {
        let file = begun();
        file.write_all_at(b"end", 10 << 20).unwrap();
        assert!(file.metadata().unwrap().blocks() * 512 < 1 << 20, "it takes little of the disk");
        let mut bytes = [1; 100];
        file.read_exact_at(&mut bytes, 5 << 20).unwrap();
        assert_eq!(bytes, [0; 100]);
        file.set_len(1).unwrap();
        file.set_len(11 << 20).unwrap();
        file.read_exact_at(&mut bytes, (10 << 20) - 50).unwrap();
        assert_eq!(bytes, [0; 100]);
    }

    #[test]
    fn a_file_of_another_state_or_of_none_is_refused() {
        let file = begun();
        file.write_all_at(b"hello", 0).unwrap();
        let other = StagedFile::opened(file.file.try_clone().unwrap(), &[6; 32]).unwrap();
        assert_ne!(content(&other), b"hello");
        let plain = tempfile::tempfile().unwrap();
        plain.write_all_at(&[b'x'; 600], 0).unwrap();
        assert_eq!(StagedFile::opened(plain, &FILES).unwrap_err().kind(), ErrorKind::InvalidData);
        assert!(StagedFile::create(tempfile::tempfile().unwrap(), Some(b"short")).is_err());
    }
}
