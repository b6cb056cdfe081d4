//! One error: the errno that the program sees, and the words that the log has for the person.

/// Why a file operation failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct FsError {
    /// As in `errno(3)`.
    pub errno: i32,
    /// What happened, to what, and what to do.
    pub message: String,
    /// Whether a person should find it in the log: an errno alone does not explain it.
    pub worth_telling: bool,
}

impl From<std::io::Error> for FsError {
    fn from(error: std::io::Error) -> Self {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        match errno {
            libc::ENOENT | libc::EEXIST | libc::ENOTEMPTY => Self::quiet(errno, error.to_string()),
            _ => Self::new(errno, format!("a file of the state directory: {error}")),
        }
    }
}

impl FsError {
    /// A failure that the log explains.
    pub fn new(errno: i32, message: impl Into<String>) -> Self {
        Self { errno, message: message.into(), worth_telling: true }
    }

    /// A failure that explains itself, and may happen all the time.
    pub fn quiet(errno: i32, message: impl Into<String>) -> Self {
        Self { errno, message: message.into(), worth_telling: false }
    }
}
