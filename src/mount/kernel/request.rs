//! What the kernel asks.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// In a poll: the file is to be watched until it has something to say.
pub(in crate::mount) const POLL_SCHEDULE_NOTIFY: u32 = 1;
/// In a question for attributes: it is asked through an open file.
const GETATTR_HANDLE: u32 = 1;

/// One request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::mount) struct Request<'a> {
    /// Its number, never used again while the mount is there.
    pub(in crate::mount) unique: u64,
    /// The number of the file that it is about.
    pub(in crate::mount) inode: u64,
    /// The thread that called, 0 where it is in a place that we cannot see.
    pub(in crate::mount) thread: u32,
    pub(in crate::mount) operation: Operation<'a>,
}

/// What is asked. Names are in the directory that the request is about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::mount) enum Operation<'a> {
    Init(Init),
    Destroy,
    /// A waiting call of this number was interrupted. Takes no answer.
    Interrupt {
        unique: u64,
    },
    /// The kernel no longer knows some numbers. Takes no answer.
    Forget,
    Lookup {
        name: &'a OsStr,
    },
    GetAttr {
        handle: Option<u64>,
    },
    SetAttr(SetAttr),
    /// `flags` are those of `open(2)`.
    Open {
        flags: i32,
    },
    Create {
        name: &'a OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
    },
    Read {
        handle: u64,
        offset: u64,
        size: u32,
    },
    Write {
        handle: u64,
        offset: u64,
        data: &'a [u8],
    },
    Seek {
        handle: u64,
        offset: i64,
        whence: i32,
    },
    Flush {
        handle: u64,
    },
    Fsync {
        handle: u64,
    },
    Release {
        handle: u64,
    },
    /// `wake` is what the kernel knows the poll by.
    Poll {
        handle: u64,
        wake: u64,
        flags: u32,
        events: u32,
    },
    OpenDir,
    ReadDir {
        handle: u64,
        offset: u64,
        size: u32,
    },
    FsyncDir,
    ReleaseDir {
        handle: u64,
    },
    MakeDir {
        name: &'a OsStr,
        mode: u32,
        umask: u32,
    },
    RemoveDir {
        name: &'a OsStr,
    },
    MakeNode,
    Symlink,
    Link,
    Unlink {
        name: &'a OsStr,
    },
    Rename {
        name: &'a OsStr,
        to: u64,
        new_name: &'a OsStr,
        flags: u32,
    },
    StatFs,
    GetXattr {
        name: &'a OsStr,
        size: u32,
    },
    ListXattr {
        size: u32,
    },
    /// One is to be set or removed.
    ChangeXattr,
    Allocate,
    /// None of the above, or one that is too short.
    Other {
        code: u32,
    },
}

/// What the kernel speaks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::mount) struct Init {
    pub(super) major: u32,
    pub(super) minor: u32,
    pub(super) max_readahead: u32,
    pub(super) flags: u32,
}

/// A change of attributes; what is `None` stays.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::mount) struct SetAttr {
    pub(in crate::mount) mode: Option<u32>,
    pub(in crate::mount) uid: Option<u32>,
    pub(in crate::mount) gid: Option<u32>,
    pub(in crate::mount) size: Option<u64>,
    pub(in crate::mount) accessed: Option<Time>,
    pub(in crate::mount) modified: Option<Time>,
}

/// A time that is to be set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::mount) enum Time {
    Now,
    At(SystemTime),
}

impl<'a> Request<'a> {
    /// `None`: it is shorter than its head says.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let length = usize::try_from(fields.u32()?).ok()?;
        fields = Fields(bytes.get(4..length)?);
        let (code, unique, inode) = (fields.u32()?, fields.u64()?, fields.u64()?);
        let (_uid, _gid, thread, _padding) = (fields.u32()?, fields.u32()?, fields.u32()?, fields.u32()?);
        let operation = operation(code, fields).unwrap_or(Operation::Other { code });
        Some(Self { unique, inode, thread, operation })
    }
}

fn operation(code: u32, mut fields: Fields<'_>) -> Option<Operation<'_>> {
    let f = &mut fields;
    Some(match code {
        1 => Operation::Lookup { name: f.name()? },
        2 | 42 => Operation::Forget,
        3 => {
            let (flags, _padding, handle) = (f.u32()?, f.u32()?, f.u64()?);
            Operation::GetAttr { handle: (flags & GETATTR_HANDLE != 0).then_some(handle) }
        }
        4 => Operation::SetAttr(f.set_attr()?),
        6 => Operation::Symlink,
        8 => Operation::MakeNode,
        9 => {
            let (mode, umask) = (f.u32()?, f.u32()?);
            Operation::MakeDir { name: f.name()?, mode, umask }
        }
        10 => Operation::Unlink { name: f.name()? },
        11 => Operation::RemoveDir { name: f.name()? },
        12 => {
            let to = f.u64()?;
            Operation::Rename { name: f.name()?, to, new_name: f.name()?, flags: 0 }
        }
        13 => Operation::Link,
        14 => Operation::Open { flags: f.i32()? },
        15 => {
            let (handle, offset, size) = (f.u64()?, f.u64()?, f.u32()?);
            Operation::Read { handle, offset, size }
        }
        16 => {
            let (handle, offset, size) = (f.u64()?, f.u64()?, f.u32()?);
            f.skip(20)?;
            Operation::Write { handle, offset, data: f.0.get(..usize::try_from(size).ok()?)? }
        }
        17 => Operation::StatFs,
        18 => Operation::Release { handle: f.u64()? },
        20 => Operation::Fsync { handle: f.u64()? },
        21 | 24 => Operation::ChangeXattr,
        22 => {
            let (size, _padding) = (f.u32()?, f.u32()?);
            Operation::GetXattr { name: f.name()?, size }
        }
        23 => Operation::ListXattr { size: f.u32()? },
        25 => Operation::Flush { handle: f.u64()? },
        26 => Operation::Init(Init { major: f.u32()?, minor: f.u32()?, max_readahead: f.u32()?, flags: f.u32()? }),
        27 => Operation::OpenDir,
        28 => {
            let (handle, offset, size) = (f.u64()?, f.u64()?, f.u32()?);
            Operation::ReadDir { handle, offset, size }
        }
        29 => Operation::ReleaseDir { handle: f.u64()? },
        30 => Operation::FsyncDir,
        35 => {
            let (flags, mode, umask, _more) = (f.i32()?, f.u32()?, f.u32()?, f.u32()?);
            Operation::Create { name: f.name()?, mode, umask, flags }
        }
        36 => Operation::Interrupt { unique: f.u64()? },
        38 => Operation::Destroy,
        40 => {
            let (handle, wake, flags, events) = (f.u64()?, f.u64()?, f.u32()?, f.u32()?);
            Operation::Poll { handle, wake, flags, events }
        }
        43 => Operation::Allocate,
        45 => {
            let (to, flags, _padding) = (f.u64()?, f.u32()?, f.u32()?);
            Operation::Rename { name: f.name()?, to, new_name: f.name()?, flags }
        }
        46 => {
            let (handle, offset, whence) = (f.u64()?, f.u64()?, f.i32()?);
            Operation::Seek { handle, offset: offset.cast_signed(), whence }
        }
        _ => return None,
    })
}

/// What is left of a request.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn u32(&mut self) -> Option<u32> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_ne_bytes(*bytes))
    }

    fn i32(&mut self) -> Option<i32> {
        self.u32().map(u32::cast_signed)
    }

    fn u64(&mut self) -> Option<u64> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_ne_bytes(*bytes))
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        self.0 = self.0.get(count..)?;
        Some(())
    }

    /// Up to the zero that ends it.
    fn name(&mut self) -> Option<&'a OsStr> {
        let end = self.0.iter().position(|&byte| byte == 0)?;
        let (name, rest) = self.0.split_at(end);
        self.0 = &rest[1..];
        Some(OsStr::from_bytes(name))
    }

    fn set_attr(&mut self) -> Option<SetAttr> {
        let (valid, _padding, _handle) = (self.u32()?, self.u32()?, self.u64()?);
        let (size, _lock_owner) = (self.u64()?, self.u64()?);
        let (accessed, modified, _changed) = (self.u64()?, self.u64()?, self.u64()?);
        let (accessed_nanos, modified_nanos, _changed_nanos) = (self.u32()?, self.u32()?, self.u32()?);
        let (mode, _unused, uid, gid) = (self.u32()?, self.u32()?, self.u32()?, self.u32()?);
        let is = |bit: u32| valid & (1 << bit) != 0;
        let time = |bit, now, seconds: u64, nanos| {
            is(bit).then(|| if is(now) { Time::Now } else { Time::At(time(seconds.cast_signed(), nanos)) })
        };
        Some(SetAttr {
            mode: is(0).then_some(mode),
            uid: is(1).then_some(uid),
            gid: is(2).then_some(gid),
            size: is(3).then_some(size),
            accessed: time(4, 7, accessed, accessed_nanos),
            modified: time(5, 8, modified, modified_nanos),
        })
    }
}

/// A time as the kernel has it; what is beyond the clock's range is its end.
fn time(seconds: i64, nanos: u32) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let whole = if seconds < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
    whole.and_then(|whole| whole.checked_add(Duration::from_nanos(nanos.into()))).unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(code: u32, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(40 + body.len()).unwrap();
        let mut bytes = [length, code].map(u32::to_ne_bytes).concat();
        bytes.extend([7_u64, 9].map(u64::to_ne_bytes).concat());
        bytes.extend([0_u32, 0, 4321, 0].map(u32::to_ne_bytes).concat());
        bytes.extend(body);
        bytes
    }

    #[test]
    fn requests_are_what_the_kernel_means() {
        let bytes = request(1, b"name\0");
        let whole = Request::parse(&bytes).unwrap();
        assert_eq!((whole.unique, whole.inode, whole.thread), (7, 9, 4321));
        assert_eq!(whole.operation, Operation::Lookup { name: OsStr::new("name") });
        let rename = [&5_u64.to_ne_bytes()[..], &1_u32.to_ne_bytes(), &[0; 4], b"old\0new\0"].concat();
        assert_eq!(
            Request::parse(&request(45, &rename)).unwrap().operation,
            Operation::Rename { name: OsStr::new("old"), to: 5, new_name: OsStr::new("new"), flags: 1 }
        );
        let write = [&3_u64.to_ne_bytes()[..], &8_u64.to_ne_bytes(), &2_u32.to_ne_bytes(), &[0; 20], b"hi"].concat();
        assert_eq!(
            Request::parse(&request(16, &write)).unwrap().operation,
            Operation::Write { handle: 3, offset: 8, data: b"hi" }
        );
        let set_attr = [&((1_u32 << 3) | (1 << 5) | (1 << 8)).to_ne_bytes()[..], &[0; 12], &6_u64.to_ne_bytes()];
        let set_attr = [&set_attr.concat()[..], &[0; 64]].concat();
        let change = SetAttr { size: Some(6), modified: Some(Time::Now), ..SetAttr::default() };
        assert_eq!(Request::parse(&request(4, &set_attr)).unwrap().operation, Operation::SetAttr(change));
    }

    proptest::proptest! {
        /// Whatever comes, nothing panics, and what is cut short is not taken for whole.
        #[test]
        fn what_is_cut_short_is_refused(code in 0..64_u32, body: Vec<u8>, keep: proptest::sample::Index) {
            let bytes = request(code, &body);
            proptest::prop_assert!(Request::parse(&bytes).is_some());
            proptest::prop_assert_eq!(Request::parse(&bytes[..keep.index(bytes.len())]), None);
        }
    }
}
