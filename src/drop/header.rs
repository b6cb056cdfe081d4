//! The header of a record: pigeonhole-cp's map, with keys of ours.

use ciborium::Value;

use super::compress::may_hold;
use super::{Digest, Sync};

/// Most bytes that a body may claim.
pub const MAX_SIZE: u64 = 1 << 62;
/// Most bytes of [`Header::path`].
pub const MAX_PATH_BYTES: usize = 1024;
/// How deep an unknown key's value may nest.
const MAX_DEPTH: usize = 16;
/// What a courier's copy command puts before the bytes of a box.
const COPY_PREFIX_BYTES: usize = 4;
const EMPTY_DIRECTORY: u64 = 1;

/// What a record says of its file. As another computer says it: see [`super::SafeName`] before it is used as a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The file's base name.
    pub name: String,
    /// Bytes of the body.
    pub size: u64,
    /// BLAKE3 of the body. pigeonhole-cp sends none.
    pub digest: Option<Digest>,
    /// Where the record begins, in a way that only this place has.
    pub sync: Option<Sync>,
    /// The directories that the file is in, joined by `/`; empty: none.
    pub path: String,
    /// What it is.
    pub kind: Kind,
    /// Which part of which chain it is.
    pub part: Option<Part>,
    /// What the body is once it is unpacked.
    pub raw: Option<Raw>,
    /// Permission bits.
    pub mode: Option<u32>,
    /// Modified, in seconds since 1970.
    pub mtime: Option<i64>,
}

/// What a record carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    #[default]
    File,
    /// A directory with nothing in it; the others are in the paths of their files.
    EmptyDirectory,
}

/// A part of a file whose length was not known when its first part was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Random, the same in all parts.
    pub chain: [u8; 16],
    /// From 1 on.
    pub number: u32,
    /// In the last part: the whole.
    pub last: Option<Total>,
}

/// The whole of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Total {
    /// Bytes of all parts.
    pub size: u64,
    /// BLAKE3 of them in order.
    pub digest: Digest,
}

/// What a compressed body was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw {
    /// Its name; `None`: the record's without its `.zst`.
    pub name: Option<String>,
    /// Its bytes.
    pub size: u64,
}

/// Why bytes are no header, or a header cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// No map with text keys, or cut off.
    #[error("it begins with no header")]
    NotAHeader,
    /// A key that must be there is not.
    #[error("its header has no {0:?}")]
    Missing(&'static str),
    /// A key has a value that it cannot have, or is there twice.
    #[error("its header has a bad {0:?}")]
    Bad(&'static str),
    /// It does not fit into a box.
    #[error("its header would have {bytes} bytes, and a box takes one of {limit}: use a shorter name or path")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The most.
        limit: usize,
    },
}

impl Header {
    /// The bytes, for a network whose boxes take `max_plaintext` bytes.
    ///
    /// # Errors
    /// It is too long for a box, or a field has a value that no reader would take.
    pub fn encode(&self, max_plaintext: usize) -> Result<Vec<u8>, HeaderError> {
        let bytes = self.to_bytes();
        let limit = max_plaintext.saturating_sub(COPY_PREFIX_BYTES);
        if bytes.len() > limit {
            return Err(HeaderError::TooLong { bytes: bytes.len(), limit });
        }
        // One definition of what is sound: the reader's.
        Self::decode(&bytes).map(|_| bytes)
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut map = vec![("name", Value::from(self.name.as_str())), ("size", self.size.into())];
        if let Some(digest) = self.digest {
            map.push(("digest", Value::Bytes(digest.to_vec())));
        }
        if let Some(sync) = self.sync {
            map.push(("sync", Value::Bytes(sync.to_vec())));
        }
        if !self.path.is_empty() {
            map.push(("path", self.path.as_str().into()));
        }
        if self.kind == Kind::EmptyDirectory {
            map.push(("kind", EMPTY_DIRECTORY.into()));
        }
        if let Some(part) = &self.part {
            map.push(("chain", Value::Bytes(part.chain.to_vec())));
            map.push(("part", part.number.into()));
            if let Some(last) = &part.last {
                map.push(("last", Value::Array(vec![last.size.into(), Value::Bytes(last.digest.to_vec())])));
            }
        }
        if let Some(raw) = &self.raw {
            map.push(("raw_size", raw.size.into()));
            if let Some(name) = &raw.name {
                map.push(("raw_name", name.as_str().into()));
            }
        }
        if let Some(mode) = self.mode {
            map.push(("mode", mode.into()));
        }
        if let Some(mtime) = self.mtime {
            map.push(("mtime", mtime.into()));
        }
        let map = Value::Map(map.into_iter().map(|(key, value)| (key.into(), value)).collect());
        let mut bytes = Vec::new();
        ciborium::into_writer(&map, &mut bytes).expect("a vector takes all that is written to it");
        bytes
    }

    /// The header that these bytes begin with, and its length. What follows does not matter.
    pub fn decode(bytes: &[u8]) -> Result<(Self, usize), HeaderError> {
        if bytes.first().is_none_or(|first| first >> 5 != 5) {
            return Err(HeaderError::NotAHeader);
        }
        let mut rest = bytes;
        let value: Value = ciborium::de::from_reader_with_recursion_limit(&mut rest, MAX_DEPTH)
            .map_err(|_| HeaderError::NotAHeader)?;
        let Value::Map(map) = value else { return Err(HeaderError::NotAHeader) };
        let mut fields = Fields::default();
        for (key, value) in map {
            let Value::Text(key) = key else { return Err(HeaderError::NotAHeader) };
            fields.take(&key, value)?;
        }
        Ok((fields.header()?, bytes.len() - rest.len()))
    }

    /// What the file is called once it is whole and unpacked. As the sender says.
    pub fn file_name(&self) -> &str {
        let name = self.part.map_or(self.name.as_str(), |_| super::chain::whole_name(&self.name));
        match &self.raw {
            Some(Raw { name: Some(raw), .. }) => raw,
            Some(Raw { name: None, .. }) => name.strip_suffix(".zst").unwrap_or(name),
            None => name,
        }
    }
}

#[derive(Default)]
struct Fields {
    name: Option<String>,
    size: Option<u64>,
    digest: Option<Digest>,
    sync: Option<Sync>,
    path: Option<String>,
    kind: Option<u64>,
    chain: Option<[u8; 16]>,
    part: Option<u32>,
    last: Option<Total>,
    raw_size: Option<u64>,
    raw_name: Option<String>,
    mode: Option<u32>,
    mtime: Option<i64>,
}

impl Fields {
    fn take(&mut self, key: &str, value: Value) -> Result<(), HeaderError> {
        match key {
            "name" => once(&mut self.name, "name", text(value)),
            "size" => once(&mut self.size, "size", size(&value)),
            "digest" => once(&mut self.digest, "digest", bytes(&value)),
            "sync" => once(&mut self.sync, "sync", bytes(&value)),
            "path" => once(&mut self.path, "path", text(value).filter(|path| path.len() <= MAX_PATH_BYTES)),
            "kind" => once(&mut self.kind, "kind", integer(&value)),
            "chain" => once(&mut self.chain, "chain", bytes(&value)),
            "part" => once(&mut self.part, "part", integer(&value).filter(|&number| number > 0)),
            "last" => once(&mut self.last, "last", total(&value)),
            "raw_size" => once(&mut self.raw_size, "raw_size", size(&value)),
            "raw_name" => once(&mut self.raw_name, "raw_name", text(value)),
            "mode" => once(&mut self.mode, "mode", integer(&value).filter(|&mode| mode <= 0o7777)),
            "mtime" => once(&mut self.mtime, "mtime", integer(&value)),
            _ => Ok(()),
        }
    }

    fn header(self) -> Result<Header, HeaderError> {
        let size = self.size.ok_or(HeaderError::Missing("size"))?;
        let kind = match self.kind {
            None => Kind::File,
            Some(EMPTY_DIRECTORY) if size == 0 => Kind::EmptyDirectory,
            Some(_) => return Err(HeaderError::Bad("kind")),
        };
        let part = match (self.chain, self.part, self.last) {
            (None, None, None) => None,
            (Some(chain), Some(number), last) => Some(Part { chain, number, last }),
            _ => return Err(HeaderError::Bad("part")),
        };
        let raw = match (self.raw_size, self.raw_name) {
            (None, None) => None,
            (Some(size), name) => Some(Raw { name, size }),
            (None, Some(_)) => return Err(HeaderError::Missing("raw_size")),
        };
        if raw.as_ref().is_some_and(|raw: &Raw| !may_hold(size, raw.size)) {
            return Err(HeaderError::Bad("raw_size"));
        }
        if (kind == Kind::EmptyDirectory || raw.is_some()) && part.is_some() {
            return Err(HeaderError::Bad("part"));
        }
        if kind == Kind::EmptyDirectory && raw.is_some() {
            return Err(HeaderError::Bad("kind"));
        }
        Ok(Header {
            name: self.name.ok_or(HeaderError::Missing("name"))?,
            size,
            digest: self.digest,
            sync: self.sync,
            path: self.path.unwrap_or_default(),
            kind,
            part,
            raw,
            mode: self.mode,
            mtime: self.mtime,
        })
    }
}

fn once<T>(field: &mut Option<T>, key: &'static str, value: Option<T>) -> Result<(), HeaderError> {
    match (value, &field) {
        (Some(value), None) => {
            *field = Some(value);
            Ok(())
        }
        _ => Err(HeaderError::Bad(key)),
    }
}

fn text(value: Value) -> Option<String> {
    value.into_text().ok()
}

fn integer<T: TryFrom<i128>>(value: &Value) -> Option<T> {
    T::try_from(i128::from(value.as_integer()?)).ok()
}

fn size(value: &Value) -> Option<u64> {
    integer(value).filter(|&size| size <= MAX_SIZE)
}

fn bytes<const N: usize>(value: &Value) -> Option<[u8; N]> {
    value.as_bytes()?.as_slice().try_into().ok()
}

fn total(value: &Value) -> Option<Total> {
    match value.as_array()?.as_slice() {
        [total, digest] => Some(Total { size: size(total)?, digest: bytes(digest)? }),
        _ => None,
    }
}
