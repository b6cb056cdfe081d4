//! What a person may choose about a mount's files. How much they may take of the disk is the store's
//! [`Limits`](crate::store::Limits); when a tail leaves is the channel's [`Linger`](crate::channel::Linger).

use std::str::FromStr;
use std::time::Duration;

/// The choices; the default is what `pigeonfs mount` does when nothing is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// What `fsync(2)` waits for.
    pub fsync: Fsync,
    /// How long `--fsync=stored`, and a read of `.pigeonfs/NAME/wait`, waits for the network.
    pub sync_timeout: Duration,
    /// What opening with `O_TRUNC` comes to where bytes can no longer be taken back.
    pub truncate: Truncate,
    /// Every change is refused with EROFS.
    pub read_only: bool,
    /// Whose the files are shown to be.
    pub uid: u32,
    /// Whose group the files are shown to be of.
    pub gid: u32,
    /// Permission bits that no file has.
    pub umask: u32,
    /// How long a read waits for a word about a frontier that has none.
    pub read_timeout: Duration,
    /// A file in a drop is complete when it is closed, also where nobody can see whether its writer was killed.
    pub trust_close: bool,
    /// How long a file in a drop rests after its last close or rename before it is sent.
    pub rest: Duration,
}

/// What `fsync(2)` waits for. Both put the tail on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fsync {
    /// The bytes are on this machine's disk.
    #[default]
    Spool,
    /// Replicas have confirmed all of them, within [`Options::sync_timeout`].
    Stored,
}

/// What opening with `O_TRUNC` comes to once something was sent or shared. Before that, the stream is emptied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Truncate {
    /// EPERM.
    #[default]
    Refuse,
    /// The open succeeds, nothing is truncated, and what is written goes to the end: a second `cp` to a stream sends the
    /// whole file once more, behind the first.
    Append,
}

impl Fsync {
    /// What may be chosen, as it is typed.
    pub const WORDS: [&str; 2] = ["spool", "stored"];
}

impl Truncate {
    /// What may be chosen, as it is typed.
    pub const WORDS: [&str; 2] = ["refuse", "append"];
}

/// The word is none that may be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is neither `{}` nor `{}`", .0[0], .0[1])]
pub struct UnknownChoice([&'static str; 2]);

impl FromStr for Fsync {
    type Err = UnknownChoice;

    fn from_str(word: &str) -> Result<Self, UnknownChoice> {
        match word {
            "spool" => Ok(Self::Spool),
            "stored" => Ok(Self::Stored),
            _ => Err(UnknownChoice(Self::WORDS)),
        }
    }
}

impl FromStr for Truncate {
    type Err = UnknownChoice;

    fn from_str(word: &str) -> Result<Self, UnknownChoice> {
        match word {
            "refuse" => Ok(Self::Refuse),
            "append" => Ok(Self::Append),
            _ => Err(UnknownChoice(Self::WORDS)),
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            fsync: Fsync::default(),
            sync_timeout: Duration::from_secs(100),
            truncate: Truncate::default(),
            read_only: false,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            umask: 0o077,
            read_timeout: Duration::from_secs(60),
            trust_close: false,
            rest: super::drop::REST,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_is_read() {
        assert_eq!(Fsync::WORDS.map(str::parse), [Ok(Fsync::Spool), Ok(Fsync::Stored)]);
        assert_eq!(Truncate::WORDS.map(str::parse), [Ok(Truncate::Refuse), Ok(Truncate::Append)]);
        let error = "Append".parse::<Truncate>().expect_err("no such word");
        assert_eq!(error.to_string(), "it is neither `refuse` nor `append`");
    }
}
