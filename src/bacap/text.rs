//! Capability texts: `pigeon-read1…` and `pigeon-write1…`. The format is in `TEXT.md`; its vectors are in
//! `testdata/capability-texts.json`.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bech32::primitives::checksum::{Checksum as _, Engine};
use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Bech32m, Fe32, Hrp};
use zeroize::Zeroizing;

use super::{INDEX_BYTES, ParseError, READ_CAP_BYTES, ReadCap, WRITE_CAP_BYTES, WriteCap};

const READ: &str = "pigeon-read";
const WRITE: &str = "pigeon-write";
/// What separates the two parts of a text.
const SEPARATOR: char = '1';
/// The letters of bech32. Each is worth five bits.
const LETTERS: &str = "qpzry9x8gf2tvdw0s3jn54khce6mua7l";
/// Letters of the checksum.
const CHECKSUM_LETTERS: usize = 6;
/// The version that is written, and the newest that is read.
const VERSION: u8 = 1;
/// Version, kind and network, hash of the network.
const HEAD_BYTES: usize = 6;
const KEPT_BYTES: usize = 4;
const HAS_KEPT: u8 = 0x80;
const MINUTE: u64 = 60;

/// A capability of either sort.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnyCap {
    /// To read a channel.
    Read(ReadCap),
    /// To write a channel, and to read it.
    Write(WriteCap),
}

impl AnyCap {
    /// Reads 136 or 168 bytes.
    ///
    /// # Errors
    /// Another length, or bytes that are no capability.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ParseError> {
        match bytes.len() {
            WRITE_CAP_BYTES => WriteCap::from_bytes(bytes).map(Self::Write),
            _ => ReadCap::from_bytes(bytes).map(Self::Read),
        }
    }

    /// The 136 or 168 bytes, as they travel.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(match self {
            Self::Read(cap) => cap.to_bytes().to_vec(),
            Self::Write(cap) => cap.to_bytes().to_vec(),
        })
    }
}

/// What a channel carries, as a text says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TextKind {
    /// Bytes, one after another.
    Stream,
    /// Whole files.
    Drop,
}

/// Which network a capability belongs to, as a text says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TextNetwork {
    /// The channel is not bound to a network yet.
    #[default]
    Unbound,
    /// A real network, with the first four bytes of BLAKE3 over its authorities' sorted identity keys.
    Real([u8; 4]),
    /// An embedded network, with the same hash.
    Localnet([u8; 4]),
}

impl TextNetwork {
    /// The five bytes of a text: the sort of network, and its hash.
    pub fn to_bytes(self) -> [u8; 5] {
        let (sort, [a, b, c, d]) = match self {
            Self::Unbound => (0, [0; 4]),
            Self::Real(hash) => (1, hash),
            Self::Localnet(hash) => (2, hash),
        };
        [sort, a, b, c, d]
    }

    /// Reads what [`Self::to_bytes`] makes; `None` for any other sort.
    pub fn from_bytes([sort, a, b, c, d]: [u8; 5]) -> Option<Self> {
        match sort {
            0 => Some(Self::Unbound),
            1 => Some(Self::Real([a, b, c, d])),
            2 => Some(Self::Localnet([a, b, c, d])),
            _ => None,
        }
    }
}

/// A capability and what its text says of the channel.
#[derive(Clone, PartialEq, Eq)]
pub struct CapText {
    /// The capability.
    pub cap: AnyCap,
    /// What the channel carries.
    pub kind: TextKind,
    /// Which network it belongs to.
    pub network: TextNetwork,
    /// Until when its writer keeps its boxes on the network, in whole minutes.
    pub kept_until: Option<SystemTime>,
}

impl fmt::Debug for CapText {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "CapText({:?}, {:?}, kept until {:?})", self.kind, self.network, self.kept_until)
    }
}

/// A capability as it goes from hand to hand: with what its text says of the channel; or alone, as upstream's base64 and the
/// thin client have it. Shows nothing of itself; [`Capability::to_text`] does.
#[derive(Clone, PartialEq, Eq)]
pub enum Capability {
    /// `pigeon-read1…` or `pigeon-write1…`.
    Text(CapText),
    /// Base64.
    Raw(AnyCap),
}

impl fmt::Debug for Capability {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => text.fmt(out),
            Self::Raw(_) => out.write_str("Raw(..)"),
        }
    }
}

/// Why a text is no capability. Says nothing of what it holds but places and lengths.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// Nothing but white space.
    #[error("there was no text")]
    Empty,
    /// A letter that is wrong, with its place where it is known: counted from 1, white space and quotes left out.
    #[error("its letter {place} of {letters} is wrong: compare it with the original there")]
    WrongLetter {
        /// Which letter.
        place: usize,
        /// How many there are.
        letters: usize,
    },
    /// More than one letter is wrong, and nothing says which.
    #[error("more than one of its {letters} letters are wrong: copy it anew")]
    WrongLetters {
        /// How many there are.
        letters: usize,
    },
    /// Letters are missing, or there are too many.
    #[error(
        "it has {found} letters, and a text of this sort has {expected}: a part of it is missing, or is there twice"
    )]
    Length {
        /// How many there are.
        found: usize,
        /// The number that is nearest.
        expected: usize,
    },
    /// Both cases. A QR code gives upper case only, everything else lower case only.
    #[error("its letter {place} is of another case than the others: one text is all lower or all upper case")]
    MixedCase {
        /// The first letter of the case that is rarer.
        place: usize,
    },
    /// Made by a later version.
    #[error("it is of version {version}, and this program reads version {VERSION}: use a newer one")]
    Version {
        /// Which.
        version: u8,
    },
    /// A kind or a network that this version does not know.
    #[error("it says something of the channel that this version does not know: use a newer one")]
    Unknown,
    /// What it carries is no capability.
    #[error("what it carries is no capability: {0}")]
    Capability(ParseError),
    /// Not base64 either.
    #[error("its {letters} characters are neither a text that begins with pigeon-read1 or pigeon-write1, nor base64")]
    Neither {
        /// How many there are.
        letters: usize,
    },
    /// Base64 of an index.
    #[error("it is as long as a box index. The capability that belongs to it is needed")]
    Index,
    /// Base64 of another length.
    #[error("it has {found} bytes, and a read capability has {READ_CAP_BYTES}, a write capability {WRITE_CAP_BYTES}")]
    Bytes {
        /// How many.
        found: usize,
    },
}

impl CapText {
    /// The text, in lower case.
    pub fn encode(&self) -> Zeroizing<String> {
        let cap = self.cap.to_bytes();
        let mut payload = Zeroizing::new(Vec::with_capacity(HEAD_BYTES + KEPT_BYTES + cap.len()));
        let [sort, hash @ ..] = self.network.to_bytes();
        let kind = match self.kind {
            TextKind::Stream => 0,
            TextKind::Drop => 1,
        };
        let minutes = self.kept_until.map(minutes);
        payload.extend([VERSION, kind << 4 | sort | if minutes.is_some() { HAS_KEPT } else { 0 }]);
        payload.extend(hash);
        payload.extend(minutes.into_iter().flat_map(u32::to_be_bytes));
        payload.extend_from_slice(&cap);
        let hrp = Hrp::parse_unchecked(match self.cap {
            AnyCap::Read(_) => READ,
            AnyCap::Write(_) => WRITE,
        });
        let text = bech32::encode::<Bech32m>(hrp, &payload).expect("far below the 1,023 letters of the code");
        Zeroizing::new(text)
    }

    /// The text in upper case, which takes less room in a QR code.
    pub fn encode_upper(&self) -> Zeroizing<String> {
        Zeroizing::new(self.encode().to_ascii_uppercase())
    }

    /// Reads a text that [`clean`] has left.
    fn decode(text: &str) -> Result<Self, TextError> {
        let letters = text.len();
        let lower = lower(text)?;
        let writes = lower.starts_with(WRITE);
        let (head, cap_bytes) = if writes { (WRITE, WRITE_CAP_BYTES) } else { (READ, READ_CAP_BYTES) };
        let data = &lower[head.len() + 1..];
        if let Some(at) = data.bytes().position(|byte| !LETTERS.as_bytes().contains(&byte)) {
            return Err(TextError::WrongLetter { place: head.len() + 2 + at, letters });
        }
        let whole = |bytes: usize| head.len() + 1 + (bytes * 8).div_ceil(5) + CHECKSUM_LETTERS;
        let lengths = [whole(HEAD_BYTES + cap_bytes), whole(HEAD_BYTES + KEPT_BYTES + cap_bytes)];
        if !lengths.contains(&letters) {
            let expected =
                if letters.abs_diff(lengths[0]) <= letters.abs_diff(lengths[1]) { lengths[0] } else { lengths[1] };
            return Err(TextError::Length { found: letters, expected });
        }
        let checked = CheckedHrpstring::new::<Bech32m>(&lower).map_err(|_| match wrong_letter(head, data) {
            Some(from_end) => TextError::WrongLetter { place: letters - from_end, letters },
            None => TextError::WrongLetters { letters },
        })?;
        let payload = Zeroizing::new(checked.byte_iter().collect::<Vec<u8>>());
        Self::from_payload(&payload, writes)
    }

    fn from_payload(payload: &[u8], writes: bool) -> Result<Self, TextError> {
        let (head, rest) = payload.split_first_chunk::<HEAD_BYTES>().ok_or(TextError::Unknown)?;
        let [version, said, a, b, c, d] = *head;
        if version != VERSION {
            return Err(TextError::Version { version });
        }
        let kind = match said >> 4 & 0x7 {
            0 => TextKind::Stream,
            1 => TextKind::Drop,
            _ => return Err(TextError::Unknown),
        };
        let network = TextNetwork::from_bytes([said & 0xf, a, b, c, d]).ok_or(TextError::Unknown)?;
        let (kept_until, cap) = match rest.split_first_chunk::<KEPT_BYTES>() {
            Some((minutes, cap)) if said & HAS_KEPT != 0 => (Some(from_minutes(u32::from_be_bytes(*minutes))), cap),
            _ => (None, rest),
        };
        let cap = if writes {
            WriteCap::from_bytes(cap).map(AnyCap::Write)
        } else {
            ReadCap::from_bytes(cap).map(AnyCap::Read)
        };
        Ok(Self { cap: cap.map_err(TextError::Capability)?, kind, network, kept_until })
    }
}

/// Where the one letter is that is wrong, counted from the end; `None`: it is not one. The corrector of `bech32` panics at
/// some texts with many. The checksum is linear, so each wrong letter changes the residue by a term of its own.
fn wrong_letter(head: &str, data: &str) -> Option<usize> {
    let mut engine = Engine::<Bech32m>::new();
    engine.input_hrp(Hrp::parse(head).ok()?);
    for letter in data.chars() {
        engine.input_fe(Fe32::from_char(letter).ok()?);
    }
    let found = engine.residue() ^ Bech32m::TARGET_RESIDUE;
    // What a letter that is off by each of the 31 differences does to the residue, the farther from the end the later.
    let mut terms: Vec<u32> = (1..32).collect();
    for from_end in 0..data.len() {
        if terms.contains(&found) {
            return Some(from_end);
        }
        for term in &mut terms {
            let top = *term >> 25;
            *term = (*term & 0x01ff_ffff) << 5;
            for (bit, generator) in Bech32m::GENERATOR_SH.iter().enumerate() {
                if top >> bit & 1 == 1 {
                    *term ^= generator;
                }
            }
        }
    }
    None
}

impl Capability {
    /// Reads a capability in any of its text forms. Quotes, mail's `>`, line breaks and other white space are passed over.
    ///
    /// # Errors
    /// Says what is wrong with it, and nothing of what it holds.
    pub fn parse(text: &[u8]) -> Result<Self, TextError> {
        let text = Zeroizing::new(clean(&String::from_utf8_lossy(text)));
        if text.is_empty() {
            return Err(TextError::Empty);
        }
        if let Some(wrong) = beginning(&text) {
            return match wrong {
                None => CapText::decode(&text).map(Self::Text),
                Some(place) => Err(TextError::WrongLetter { place, letters: text.len() }),
            };
        }
        let bytes = STANDARD.decode(text.as_bytes()).map(Zeroizing::new);
        let bytes = bytes.map_err(|_| TextError::Neither { letters: text.chars().count() })?;
        match bytes.len() {
            READ_CAP_BYTES | WRITE_CAP_BYTES => {
                AnyCap::from_bytes(&bytes).map(Self::Raw).map_err(TextError::Capability)
            }
            INDEX_BYTES => Err(TextError::Index),
            found => Err(TextError::Bytes { found }),
        }
    }

    /// The capability.
    pub fn cap(&self) -> &AnyCap {
        match self {
            Self::Text(text) => &text.cap,
            Self::Raw(cap) => cap,
        }
    }

    /// Its text, which [`Capability::parse`] reads: one of ours, or base64 where no more is known than the capability.
    pub fn to_text(&self) -> Zeroizing<String> {
        match self {
            Self::Text(text) => text.encode(),
            Self::Raw(AnyCap::Read(cap)) => cap.to_base64(),
            Self::Raw(AnyCap::Write(cap)) => cap.to_base64(),
        }
    }
}

impl std::str::FromStr for Capability {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        Self::parse(text.as_bytes())
    }
}

impl From<CapText> for Capability {
    fn from(text: CapText) -> Self {
        Self::Text(text)
    }
}

impl From<ReadCap> for Capability {
    fn from(cap: ReadCap) -> Self {
        Self::Raw(AnyCap::Read(cap))
    }
}

impl From<WriteCap> for Capability {
    fn from(cap: WriteCap) -> Self {
        Self::Raw(AnyCap::Write(cap))
    }
}

/// Whether an argument is, or holds, a capability, an index, or most of one: such a thing is not to be printed.
pub fn looks_secret(argument: &str) -> bool {
    let text = Zeroizing::new(clean(argument));
    let lower = Zeroizing::new(text.to_ascii_lowercase());
    if lower.contains("pigeon-read1") || lower.contains("pigeon-write1") {
        return true;
    }
    // Behind `--option=`, and base64 alike.
    let value = match text.split_once('=') {
        Some((option, value)) if option.starts_with('-') && !value.is_empty() => value,
        _ => &text,
    };
    let lengths = [INDEX_BYTES, READ_CAP_BYTES, WRITE_CAP_BYTES];
    let is_base64 = value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=-_".contains(&byte));
    let digits = value.trim_end_matches('=').len();
    let is_hex = value.bytes().all(|byte| byte.is_ascii_hexdigit());
    lengths
        .iter()
        .any(|&bytes| (is_base64 && digits == (bytes * 4).div_ceil(3)) || (is_hex && value.len() == bytes * 2))
        || beginning(&text).is_some_and(|_| text.len() > 100)
}

/// The text without what mail, shells and word processors put around it and into it.
fn clean(text: &str) -> String {
    let is_around = |c: char| {
        c.is_whitespace()
            || matches!(c, '"' | '\'' | '`' | '<' | '>' | '\u{feff}' | '\u{200b}'..='\u{200d}' | '\u{2060}')
            || matches!(c, '“' | '”' | '„' | '‘' | '’' | '‚' | '«' | '»' | '‹' | '›')
    };
    text.chars().filter(|&c| !is_around(c)).collect()
}

/// Whether the text begins as one of ours, or with one wrong letter in that beginning, whose place it says.
fn beginning(text: &str) -> Option<Option<usize>> {
    [READ, WRITE].into_iter().find_map(|hrp| {
        let (head, _) = text.as_bytes().split_at_checked(hrp.len() + 1)?;
        let expected = hrp.bytes().chain([SEPARATOR as u8]);
        let mut wrong =
            head.iter().zip(expected).enumerate().filter(|(_, (byte, letter))| byte.to_ascii_lowercase() != *letter);
        match (wrong.next(), wrong.next()) {
            (None, _) => Some(None),
            (Some((at, _)), None) => Some(Some(at + 1)),
            _ => None,
        }
    })
}

fn lower(text: &str) -> Result<Zeroizing<String>, TextError> {
    let uppers = text.bytes().filter(u8::is_ascii_uppercase).count();
    let lowers = text.bytes().filter(u8::is_ascii_lowercase).count();
    if uppers > 0 && lowers > 0 {
        let is_rarer = |byte: u8| if uppers < lowers { byte.is_ascii_uppercase() } else { byte.is_ascii_lowercase() };
        let place = text.bytes().position(is_rarer).map_or(1, |at| at + 1);
        return Err(TextError::MixedCase { place });
    }
    Ok(Zeroizing::new(text.to_ascii_lowercase()))
}

/// Whole minutes since 1970, rounded down: a text never says more than is kept.
fn minutes(time: SystemTime) -> u32 {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    u32::try_from(seconds / MINUTE).unwrap_or(u32::MAX)
}

fn from_minutes(minutes: u32) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::from(minutes) * MINUTE)
}

#[cfg(test)]
mod tests;
