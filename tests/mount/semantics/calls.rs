//! The calls of the document, made one after another on one file.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{
    Access, AtFlags, CWD, FallocateFlags, FileType, FlockOperation, Gid, Mode, OFlags, RenameFlags, SeekFrom, Timespec,
    Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::world::World;

/// What a call gives, as the document writes it.
type Outcome = Result<String, Errno>;

struct File<'a> {
    world: &'a World,
    path: PathBuf,
    /// The channel that the path is about.
    channel: &'a str,
    open: Option<OwnedFd>,
    /// Opened beside it, and kept open.
    others: Vec<OwnedFd>,
}

/// Makes the calls; what the last of them gives, or the first that fails.
pub(crate) fn run(world: &World, path: &Path, channel: &str, calls: &str) -> String {
    let mut file = File { world, path: path.to_owned(), channel, open: None, others: Vec::new() };
    let mut last = String::new();
    for call in calls.split("; ") {
        let (name, rest) = call.split_once('(').unwrap_or_else(|| panic!("the call {call}"));
        let arguments = rest.strip_suffix(')').unwrap_or_else(|| panic!("the call {call}"));
        let arguments: Vec<_> = arguments.split(", ").filter(|argument| !argument.is_empty()).collect();
        match file.call(name, &arguments) {
            Ok(outcome) => last = outcome,
            Err(errno) => return errno_name(errno),
        }
    }
    last
}

impl File<'_> {
    fn call(&mut self, name: &str, arguments: &[&str]) -> Outcome {
        if let Some(outcome) = self.call_open(name, arguments) {
            return outcome;
        }
        if let Some(outcome) = self.call_attributes(name, arguments) {
            return outcome;
        }
        let path = &self.path;
        let mode = Mode::from_raw_mode(0o777);
        match name {
            "truncate" => nix::unistd::truncate(path, number(arguments[0]) as i64)
                .map_err(|error| Errno::from_raw_os_error(error as i32))
                .and(ok()),
            "unlink" if arguments == ["NAME"] => nothing(rustix::fs::unlink(self.world.path.join(self.channel))),
            "unlink" => nothing(rustix::fs::unlink(path)),
            "rmdir" => nothing(rustix::fs::rmdir(path)),
            "mkdir" => nothing(rustix::fs::mkdir(path, mode)),
            "symlink" => nothing(rustix::fs::symlink("elsewhere", path)),
            "mknod" => {
                let kind = if arguments[0] == "S_IFIFO" { FileType::Fifo } else { FileType::RegularFile };
                nothing(rustix::fs::mknodat(CWD, path, kind, mode, 0))
            }
            "link" => nothing(rustix::fs::link(path, self.target(arguments[0]))),
            "rename" => {
                let flags = match arguments.get(1) {
                    None => RenameFlags::empty(),
                    Some(&"RENAME_NOREPLACE") => RenameFlags::NOREPLACE,
                    Some(&"RENAME_EXCHANGE") => RenameFlags::EXCHANGE,
                    Some(other) => panic!("the flag {other}"),
                };
                nothing(rustix::fs::renameat_with(CWD, path, CWD, self.target(arguments[0]), flags))
            }
            other => panic!("the call {other}"),
        }
    }

    /// The calls that open the file or go through its descriptor.
    fn call_open(&mut self, name: &str, arguments: &[&str]) -> Option<Outcome> {
        let open = |file: &Self| {
            let (flags, mode): (Vec<&str>, Vec<&str>) = arguments.iter().partition(|word| word.starts_with('O'));
            let flags = flags.into_iter().fold(OFlags::empty(), |flags, word| flags | open_flag(word));
            let mode = mode.first().map_or(0o666, |mode| octal(mode));
            rustix::fs::open(&file.path, flags, Mode::from_raw_mode(mode))
        };
        match name {
            "open" => return Some(open(self).map(|opened| self.open = Some(opened)).and(ok())),
            "again" => return Some(open(self).map(|opened| self.others.push(opened)).and(ok())),
            _ => {}
        }
        let file = self.open.as_ref()?.as_fd();
        let mut buffer = vec![0; 999];
        Some(match name {
            "read" | "count" => rustix::io::read(file, &mut buffer[..number(arguments[0]) as usize])
                .map(|count| if name == "count" { count.to_string() } else { quoted(&buffer[..count]) }),
            "pread" => {
                let wanted = &mut buffer[..number(arguments[0]) as usize];
                rustix::io::pread(file, wanted, number(arguments[1])).map(|count| quoted(&buffer[..count]))
            }
            "write" => rustix::io::write(file, unquoted(arguments[0]).as_bytes()).map(|count| count.to_string()),
            "pwrite" => {
                let bytes = unquoted(arguments[0]);
                rustix::io::pwrite(file, bytes.as_bytes(), number(arguments[1])).map(|count| count.to_string())
            }
            "ftruncate" => nothing(rustix::fs::ftruncate(file, number(arguments[0]))),
            "fallocate" => {
                let (from, length) = (number(arguments[0]), number(arguments[1]));
                nothing(rustix::fs::fallocate(file, FallocateFlags::empty(), from, length))
            }
            "fstat" => rustix::fs::fstat(file).map(|found| attribute(&found, arguments[0])),
            "fchmod" => nothing(rustix::fs::fchmod(file, Mode::from_raw_mode(octal(arguments[0])))),
            "futimens" => {
                let time = Timespec { tv_sec: arguments[0].parse().expect("seconds"), tv_nsec: 0 };
                let times = Timestamps { last_access: time, last_modification: time };
                nothing(rustix::fs::futimens(file, &times))
            }
            "reopen" => {
                let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
                let flags = arguments.iter().fold(OFlags::empty(), |flags, word| flags | open_flag(word));
                let opened = rustix::fs::open(path, flags, Mode::empty());
                opened.map(|opened| self.open = Some(opened)).and(ok())
            }
            "fsync" => nothing(rustix::fs::fsync(file)),
            "fdatasync" => nothing(rustix::fs::fdatasync(file)),
            "flock" => nothing(rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive)),
            "lseek" => {
                let offset = number(arguments[0]);
                let from = match arguments[1] {
                    "SEEK_SET" => SeekFrom::Start(offset),
                    "SEEK_END" => SeekFrom::End(offset as i64),
                    "SEEK_DATA" => SeekFrom::Data(offset),
                    "SEEK_HOLE" => SeekFrom::Hole(offset),
                    other => panic!("the whence {other}"),
                };
                rustix::fs::seek(file, from).map(|offset| offset.to_string())
            }
            "poll" => {
                let names = [("POLLIN", PollFlags::IN), ("POLLOUT", PollFlags::OUT)];
                let wanted = names.iter().filter(|(name, _)| arguments.contains(name));
                let flags = wanted.fold(PollFlags::empty(), |flags, (_, flag)| flags | *flag);
                let mut polled = [PollFd::new(&file, flags)];
                rustix::event::poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).map(|_| {
                    let found = polled[0].revents();
                    let found: Vec<_> = names.iter().filter(|(_, flag)| found.contains(*flag)).collect();
                    if found.is_empty() {
                        "0".to_owned()
                    } else {
                        found.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
                    }
                })
            }
            _ => return None,
        })
    }

    /// The calls that ask for attributes, or set them.
    fn call_attributes(&self, name: &str, arguments: &[&str]) -> Option<Outcome> {
        let path = &self.path;
        let text = || unquoted(arguments[0]);
        let mut buffer = vec![0_u8; arguments.last().and_then(|size| size.parse().ok()).unwrap_or(999)];
        Some(match name {
            "stat" => rustix::fs::stat(path).map(|found| attribute(&found, arguments[0])),
            "statvfs" => rustix::fs::statvfs(path).map(|found| found.f_namemax.to_string()),
            "chmod" => nothing(rustix::fs::chmod(path, Mode::from_raw_mode(octal(arguments[0])))),
            "chown" => {
                let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
                let uid = if arguments[0] == "same" { uid } else { Uid::from_raw(uid.as_raw() + 4711) };
                nothing(rustix::fs::chown(path, Some(uid), Some(Gid::from_raw(gid.as_raw()))))
            }
            "utimens" => {
                let seconds = arguments[0].parse().unwrap_or_else(|_| {
                    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
                    now.as_secs() as i64
                });
                let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
                let times = Timestamps { last_access: time, last_modification: time };
                nothing(rustix::fs::utimensat(CWD, path, &times, AtFlags::empty()))
            }
            "access" => {
                let access = if arguments[0] == "X_OK" { Access::EXEC_OK } else { Access::READ_OK };
                nothing(rustix::fs::access(path, access))
            }
            "getxattr" if buffer.is_empty() => rustix::fs::getxattr_query(path, text()).map(|size| size.to_string()),
            "getxattr" => rustix::fs::getxattr(path, text(), &mut buffer[..]).map(|count| quoted(&buffer[..count])),
            "listxattr" => rustix::fs::listxattr(path, &mut buffer[..]).map(|count| count.to_string()),
            "setxattr" => nothing(rustix::fs::setxattr(path, text(), b"x", XattrFlags::empty())),
            "removexattr" => nothing(rustix::fs::removexattr(path, text())),
            _ => return None,
        })
    }

    /// Where a rename or a link leads: a name in quotes, or a file in a state.
    fn target(&self, argument: &str) -> PathBuf {
        if argument == "beside" {
            return self.path.parent().expect("in a directory").join("beside");
        }
        let name = if argument.starts_with('"') { unquoted(argument).to_owned() } else { self.world.make(argument).0 };
        self.world.path.join(name)
    }
}

fn attribute(found: &rustix::fs::Stat, name: &str) -> String {
    match name {
        "size" => found.st_size.to_string(),
        "mode" => format!("{:04o}", found.st_mode & 0o7777),
        "blksize" => found.st_blksize.to_string(),
        "blocks" => found.st_blocks.to_string(),
        "nlink" => found.st_nlink.to_string(),
        "mtime" => found.st_mtime.to_string(),
        other => panic!("the attribute {other}"),
    }
}

fn ok() -> Outcome {
    Ok("0".to_owned())
}

fn nothing(result: Result<(), Errno>) -> Outcome {
    result.and(ok())
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("the number {text}"))
}

fn octal(text: &str) -> u32 {
    u32::from_str_radix(text, 8).unwrap_or_else(|_| panic!("the mode {text}"))
}

fn unquoted(text: &str) -> &str {
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or_else(|| panic!("the text {text}"))
}

fn quoted(bytes: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(bytes))
}

fn open_flag(word: &str) -> OFlags {
    match word {
        "O_RDONLY" => OFlags::RDONLY,
        "O_WRONLY" => OFlags::WRONLY,
        "O_RDWR" => OFlags::RDWR,
        "O_APPEND" => OFlags::APPEND,
        "O_CREAT" => OFlags::CREATE,
        "O_EXCL" => OFlags::EXCL,
        "O_TRUNC" => OFlags::TRUNC,
        "O_NONBLOCK" => OFlags::NONBLOCK,
        "O_SYNC" => OFlags::SYNC,
        "O_DIRECTORY" => OFlags::DIRECTORY,
        "O_TMPFILE" => OFlags::TMPFILE,
        other => panic!("the flag {other}"),
    }
}

fn errno_name(errno: Errno) -> String {
    let names = [
        (libc::EPERM, "EPERM"),
        (libc::ENOENT, "ENOENT"),
        (libc::EIO, "EIO"),
        (libc::ENXIO, "ENXIO"),
        (libc::EXDEV, "EXDEV"),
        (libc::ENOTEMPTY, "ENOTEMPTY"),
        (libc::EBADF, "EBADF"),
        (libc::EAGAIN, "EAGAIN"),
        (libc::EACCES, "EACCES"),
        (libc::EBUSY, "EBUSY"),
        (libc::EEXIST, "EEXIST"),
        (libc::ENOTDIR, "ENOTDIR"),
        (libc::EISDIR, "EISDIR"),
        (libc::EINVAL, "EINVAL"),
        (libc::ENOSPC, "ENOSPC"),
        (libc::ESPIPE, "ESPIPE"),
        (libc::EROFS, "EROFS"),
        (libc::ERANGE, "ERANGE"),
        (libc::ENAMETOOLONG, "ENAMETOOLONG"),
        (libc::ENODATA, "ENODATA"),
        (libc::EILSEQ, "EILSEQ"),
        (libc::EOPNOTSUPP, "EOPNOTSUPP"),
        (libc::ETIMEDOUT, "ETIMEDOUT"),
        (libc::ESTALE, "ESTALE"),
    ];
    let raw = errno.raw_os_error();
    names.iter().find(|(code, _)| *code == raw).map_or_else(|| format!("errno {raw}"), |(_, name)| (*name).to_owned())
}
