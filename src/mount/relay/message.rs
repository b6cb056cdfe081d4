//! What the relay has to know of a message: the heads of `linux/fuse.h`, in the machine's own order of bytes.

/// `struct fuse_in_header`: length, opcode, unique, node, uid, gid, pid, two of padding.
const REQUEST_HEAD: usize = 40;
/// `struct fuse_out_header`: length, error, unique.
const ANSWER_HEAD: usize = 16;
const FORGET: u32 = 2;
const SETATTR: u32 = 4;
const WRITE: u32 = 16;
const RELEASE: u32 = 18;
const FSYNC: u32 = 20;
const FLUSH: u32 = 25;
const INTERRUPT: u32 = 36;
const DESTROY: u32 = 38;
const BATCH_FORGET: u32 = 42;
/// Bits of `fuse_setattr_in.valid`: a size is set; the handle is given.
const SETS_SIZE: u32 = 1 << 3;
const HAS_HANDLE: u32 = 1 << 6;
/// The number of a request that the kernel did not make. It counts in twos.
const OURS: u64 = u64::MAX;

/// A request of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequestHead {
    /// Its number, never used again while the mount is there.
    pub(super) unique: u64,
    pub(super) call: Call,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// The caller of the request of this number was interrupted. Takes no answer.
    Interrupt {
        unique: u64,
    },
    /// The kernel no longer knows some numbers of files. Takes no answer.
    Forget,
    /// Something about an open file that must be known where it is lost.
    OfHandle(OfHandle),
    Other,
}

/// A request about an open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mount) enum OfHandle {
    /// A write, a change of the length, or an fsync.
    Change { handle: u64 },
    /// A close of one of its descriptors.
    Flush { handle: u64 },
    /// Its last close.
    Release { handle: u64 },
}

impl RequestHead {
    /// None: it is cut short.
    pub(super) fn of(message: &[u8]) -> Option<Self> {
        let length = usize::try_from(u32_at(message, 0)?).ok()?;
        if length < REQUEST_HEAD || length > message.len() {
            return None;
        }
        let message = &message[..length];
        // Each begins with the handle, but for SETATTR: which attributes, and then the handle.
        let first = u64_at(message, REQUEST_HEAD);
        let call = match (u32_at(message, 4)?, first) {
            (FORGET | BATCH_FORGET, _) => Call::Forget,
            (INTERRUPT, unique) => Call::Interrupt { unique: unique? },
            (WRITE | FSYNC, Some(handle)) => Call::OfHandle(OfHandle::Change { handle }),
            (FLUSH, Some(handle)) => Call::OfHandle(OfHandle::Flush { handle }),
            (RELEASE, Some(handle)) => Call::OfHandle(OfHandle::Release { handle }),
            (SETATTR, Some(_)) => Self::resize(message).map_or(Call::Other, Call::OfHandle),
            _ => Call::Other,
        };
        Some(Self { unique: u64_at(message, 8)?, call })
    }

    fn resize(message: &[u8]) -> Option<OfHandle> {
        let valid = u32_at(message, REQUEST_HEAD)?;
        let handle = u64_at(message, REQUEST_HEAD + 8)?;
        (valid & SETS_SIZE != 0 && valid & HAS_HANDLE != 0).then_some(OfHandle::Change { handle })
    }
}

/// A message of fuser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AnswerHead {
    /// The number of the request that it answers; 0: a notification.
    pub(super) unique: u64,
}

impl AnswerHead {
    /// None: it is cut short.
    pub(super) fn of(message: &[u8]) -> Option<Self> {
        let is_whole = usize::try_from(u32_at(message, 0)?).ok()? == message.len() && message.len() >= ANSWER_HEAD;
        Some(Self { unique: u64_at(message, 8)? }).filter(|_| is_whole)
    }

    pub(super) fn is_notification(self) -> bool {
        self.unique == 0
    }
}

/// The head of an answer with an errno, or with 0 and so much data. None: too much.
pub(super) fn answer_head(unique: u64, errno: i32, data: usize) -> Option<[u8; ANSWER_HEAD]> {
    let length = u32::try_from(ANSWER_HEAD + data).ok()?;
    let mut head = [0; ANSWER_HEAD];
    head[..4].copy_from_slice(&length.to_ne_bytes());
    head[4..8].copy_from_slice(&(-errno).to_ne_bytes());
    head[8..].copy_from_slice(&unique.to_ne_bytes());
    Some(head)
}

/// A request that ends the thread of fuser that reads it.
pub(super) fn destroy() -> [u8; REQUEST_HEAD] {
    let mut head = [0; REQUEST_HEAD];
    head[..4].copy_from_slice(&(REQUEST_HEAD as u32).to_ne_bytes());
    head[4..8].copy_from_slice(&DESTROY.to_ne_bytes());
    head[8..16].copy_from_slice(&OURS.to_ne_bytes());
    head
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        /// Whatever comes, nothing panics, and what is cut short is not taken for whole.
        #[test]
        fn what_is_cut_short_is_refused(opcode in 0..64_u32, body: Vec<u8>, keep: proptest::sample::Index) {
            let length = u32::try_from(REQUEST_HEAD + body.len()).expect("short");
            let mut bytes = [length, opcode].map(u32::to_ne_bytes).concat();
            bytes.extend(7_u64.to_ne_bytes());
            bytes.resize(REQUEST_HEAD, 0);
            bytes.extend(body);
            let whole = RequestHead::of(&bytes);
            proptest::prop_assert!(whole.is_some_and(|head| head.unique == 7) || opcode == INTERRUPT);
            proptest::prop_assert_eq!(RequestHead::of(&bytes[..keep.index(bytes.len())]), None);
        }

        /// Those of open files are known by their handle, those of a name are not.
        #[test]
        fn what_is_about_an_open_file_names_its_handle(handle: u64, tail: [u8; 24]) {
            let call = |opcode: u32, body: &[&[u8]]| {
                let body = body.concat();
                let length = u32::try_from(REQUEST_HEAD + body.len()).expect("short");
                let mut bytes = [length, opcode].map(u32::to_ne_bytes).concat();
                bytes.resize(REQUEST_HEAD, 0);
                bytes.extend(body);
                RequestHead::of(&bytes).expect("whole").call
            };
            let named = handle.to_ne_bytes();
            let change = Call::OfHandle(OfHandle::Change { handle });
            proptest::prop_assert_eq!(call(WRITE, &[&named, &tail]), change);
            proptest::prop_assert_eq!(call(FSYNC, &[&named, &tail]), change);
            proptest::prop_assert_eq!(call(FLUSH, &[&named, &tail]), Call::OfHandle(OfHandle::Flush { handle }));
            proptest::prop_assert_eq!(call(RELEASE, &[&named, &tail]), Call::OfHandle(OfHandle::Release { handle }));
            for valid in 0..128_u32 {
                let expected = if valid & 0x48 == 0x48 { change } else { Call::Other };
                proptest::prop_assert_eq!(call(SETATTR, &[&valid.to_ne_bytes(), &[0; 4], &named, &tail]), expected);
            }
        }

        #[test]
        fn an_answer_is_read_as_it_is_made(unique: u64, errno in 0..200_i32, data: Vec<u8>) {
            let mut bytes = answer_head(unique, errno, data.len()).expect("short").to_vec();
            bytes.extend(data);
            proptest::prop_assert_eq!(AnswerHead::of(&bytes), Some(AnswerHead { unique }));
            proptest::prop_assert_eq!(AnswerHead::of(&bytes[..bytes.len() - 1]), None);
        }
    }
}
