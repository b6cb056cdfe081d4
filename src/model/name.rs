//! The name of a channel: what a person types and what a directory entry can be.

use std::ffi::OsStr;
use std::fmt;

/// The longest name, in bytes: that of a directory entry.
pub const MAX_NAME_BYTES: usize = 255;

/// A name that can stand in the root of a mount: 1 to 255 bytes of UTF-8 without `/`, NUL or control characters, and
/// none of `.`, `..` and `.pigeonfs`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelName(String);

/// Why a text cannot name a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No bytes at all.
    #[error("a channel's name cannot be empty")]
    Empty,
    /// More than [`MAX_NAME_BYTES`].
    #[error("a channel's name has at most {MAX_NAME_BYTES} bytes; choose a shorter one")]
    TooLong,
    /// Bytes that are no text.
    #[error("a channel's name must be UTF-8")]
    NotUtf8,
    /// A slash, NUL or another control character.
    #[error("a channel's name cannot contain a slash or a control character; leave it out")]
    Character,
    /// A name that already means something else.
    #[error("`.`, `..` and `.pigeonfs` have their meaning in a mount already; choose another name")]
    Reserved,
}

impl ChannelName {
    /// Reads a name as it was typed.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > MAX_NAME_BYTES {
            return Err(NameError::TooLong);
        }
        if text.chars().any(|c| c == '/' || c.is_control()) {
            return Err(NameError::Character);
        }
        if matches!(text, "." | ".." | ".pigeonfs") {
            return Err(NameError::Reserved);
        }
        Ok(Self(text.to_owned()))
    }

    /// Reads a name as a file system gives it.
    pub fn from_os(text: &OsStr) -> Result<Self, NameError> {
        Self::parse(text.to_str().ok_or(NameError::NotUtf8)?)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether rsync gave it, to a file that it renames once it is whole: `.NAME.XXXXXX`.
    pub fn is_temporary(&self) -> bool {
        is_rsync_temporary(&self.0)
    }
}

/// Letters and digits that mkstemp(3) makes up.
const RANDOM: usize = 6;

/// Whether a name has the form of rsync's temporary ones, `.NAME.XXXXXX`. A person's `.config.backup` is not taken for one: what
/// is random has letters or digits of two kinds.
pub fn is_rsync_temporary(name: &str) -> bool {
    let Some((before, random)) = name.rsplit_once('.') else { return false };
    let kinds: [fn(&u8) -> bool; 3] = [u8::is_ascii_lowercase, u8::is_ascii_uppercase, u8::is_ascii_digit];
    let found = kinds.iter().filter(|kind| random.as_bytes().iter().any(kind)).count();
    before.len() > 1
        && before.starts_with('.')
        && random.len() == RANDOM
        && random.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && found > 1
}

impl fmt::Display for ChannelName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::str::FromStr for ChannelName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn names_of_directory_entries_are_taken() {
        for text in ["a", "notes.txt", "Grüße", "...", ".hidden", "a b", "\u{1F54A}", &"x".repeat(255)] {
            assert_eq!(ChannelName::parse(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn others_are_refused_with_the_reason() {
        assert_eq!(ChannelName::parse(""), Err(NameError::Empty));
        assert_eq!(ChannelName::parse(&"é".repeat(128)), Err(NameError::TooLong));
        for text in ["a/b", "/", "a\0", "\n", "\u{7f}", "a\u{85}"] {
            assert_eq!(ChannelName::parse(text), Err(NameError::Character));
        }
        assert_eq!(ChannelName::from_os(OsStr::from_bytes(b"a\xff")), Err(NameError::NotUtf8));
        for name in [".", "..", ".pigeonfs"] {
            assert_eq!(ChannelName::parse(name), Err(NameError::Reserved));
        }
    }
}
