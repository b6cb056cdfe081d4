//! What a name from elsewhere may become on a disk: always one plain file in the directory that the receiver chose.
//!
//! A hostile sender chooses the name. Made safe it leads nowhere, commands no terminal, is no device on any system, and
//! is short enough. Nothing is refused for its name: a file with an odd one arrives under a plain one.

use std::fmt;

use crate::text::is_unseen;

/// Longest name of a file on the systems that there are.
pub const MAX_FILE_NAME_BYTES: usize = 255;
/// Directories within one another at most.
const MAX_DEPTH: usize = 64;
/// Longest ending that is kept when a name is shortened, its dot included.
const MAX_ENDING_BYTES: usize = 16;

/// A name that is safe to make a file by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SafeName(String);

impl SafeName {
    /// What this name becomes. A harmless one stays as it is.
    pub fn of(name: &str) -> Self {
        let plain: String = name.chars().map(|c| if is_harmful(c) { '_' } else { c }).collect();
        let mut plain = match plain.as_str() {
            "" | "." | ".." => "_".repeat(plain.len().max(1)),
            _ => plain,
        };
        if is_device(&plain) {
            plain.insert(0, '_');
        }
        if plain.len() > MAX_FILE_NAME_BYTES {
            // Those that differ only behind the cut still differ.
            let hash = blake3::hash(name.as_bytes()).to_hex();
            plain = marked(&plain, &format!("~{}", &hash[..8]));
        }
        Self(plain)
    }

    /// What this name becomes in a directory that other programs look into: never an option of a command, and a hidden
    /// file only where `dotfiles` allows it. A `_` stands for what is taken away.
    pub fn outside(name: &str, dotfiles: bool) -> Self {
        let safe = Self::of(name);
        if safe.0.starts_with('-') || (safe.0.starts_with('.') && !dotfiles) {
            return Self(format!("_{}", &safe.0[1..]));
        }
        safe
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name to try when it is taken `count` times: `a~1.txt`.
    #[must_use]
    pub fn numbered(&self, count: u32) -> Self {
        if count == 0 {
            return self.clone();
        }
        Self(marked(&self.0, &format!("~{count}")))
    }
}

impl fmt::Display for SafeName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// Directories that are safe to make, each in the one before it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SafePath(Vec<SafeName>);

impl SafePath {
    /// What this path becomes: relative, with no way up. Directories deeper than 64 are left out.
    pub fn of(path: &str) -> Self {
        Self(
            path.split('/').filter(|name| !name.is_empty() && *name != ".").take(MAX_DEPTH).map(SafeName::of).collect(),
        )
    }

    /// The same for a directory that other programs look into, as [`SafeName::outside`].
    pub fn outside(path: &str, dotfiles: bool) -> Self {
        Self(Self::of(path).0.iter().map(|name| SafeName::outside(name.as_str(), dotfiles)).collect())
    }

    /// The directories, outermost first.
    pub fn names(&self) -> &[SafeName] {
        &self.0
    }
}

impl fmt::Display for SafePath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, name) in self.0.iter().enumerate() {
            let slash = if at == 0 { "" } else { "/" };
            write!(out, "{slash}{name}")?;
        }
        Ok(())
    }
}

/// Separators, what a terminal or another system obeys, and what cannot be seen, less what joins and styles the characters
/// of scripts and emoji.
fn is_harmful(c: char) -> bool {
    let joins = matches!(c, '\u{200c}' | '\u{200d}' | '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}');
    matches!(c, '/' | '\\') || (is_unseen(c) && !joins)
}

/// Names that are devices on Windows, whatever their ending.
fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end();
    let numbered = |head: &str| {
        stem.get(..3).is_some_and(|begin| begin.eq_ignore_ascii_case(head))
            && matches!(
                stem.get(3..),
                Some("0" | "1" | "2" | "3" | "4" | "5" | "6" | "7" | "8" | "9" | "¹" | "²" | "³")
            )
    };
    ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"].iter().any(|device| stem.eq_ignore_ascii_case(device))
        || numbered("COM")
        || numbered("LPT")
}

/// Before the ending and the ending, as `archive` and `.tar.gz`; a name that begins with its only dot has none.
fn parted(name: &str) -> (&str, &str) {
    let last = name.rfind('.').unwrap_or(0);
    let begin = match name[..last].rfind('.') {
        Some(before) if before > 0 && &name[before..last] == ".tar" => before,
        _ => last,
    };
    if begin == 0 || name.len() - begin > MAX_ENDING_BYTES { (name, "") } else { name.split_at(begin) }
}

/// The name with a mark before its ending, short enough.
fn marked(name: &str, mark: &str) -> String {
    let (stem, ending) = parted(name);
    let mut end = (MAX_FILE_NAME_BYTES - mark.len() - ending.len()).min(stem.len());
    while !stem.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{mark}{ending}", &stem[..end])
}
