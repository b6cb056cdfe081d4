//! How a mount is made and taken out of the tree: by system calls where they are permitted, else by fusermount3. The
//! system calls name the mount point by its descriptor.
//!
//! What is unmounted is looked up by its device number, so that nothing else goes that stands at the same path by then.

use std::ffi::{CString, OsStr, OsString};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tracing::debug;

use super::mounts::Mounted;
use super::point::Point;
use super::{MountError, MountOptions, holders, mounts};

const DEVICE: &str = "/dev/fuse";
const HELPER: &str = "fusermount3";

/// Whether the device can be had at all, with the words for where it cannot.
pub(super) fn device() -> Result<OwnedFd, MountError> {
    match std::fs::OpenOptions::new().read(true).write(true).open(DEVICE) {
        Ok(device) => Ok(device.into()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(MountError::NoFuse("may not be opened")),
        Err(_) => Err(MountError::NoFuse("is missing")),
    }
}

/// A mount that was made.
pub(super) struct Attached {
    /// What serves it.
    pub(super) device: OwnedFd,
    /// As the mount table has it, where the system told of it.
    pub(super) mounted: Option<Mounted>,
}

/// Mounts at a directory that was checked.
pub(super) fn attach(point: &Point, options: &MountOptions) -> Result<Attached, MountError> {
    let device = device()?;
    let at_path = |device| Attached { device, mounted: mounts::at(&point.path) };
    match at_descriptor(point, options, &device) {
        Ok(mounted) => return Ok(Attached { device, mounted }),
        // Not for us to do.
        Err(Errno::PERM) => return by_helper(&point.path, options).map(at_path),
        // A kernel or a sandbox without these calls.
        Err(error) => debug!(%error, "the mount is made with the older call"),
    }
    match by_older_call(point, options, &device) {
        Ok(()) => Ok(at_path(device)),
        Err(Errno::PERM) => by_helper(&point.path, options).map(at_path),
        Err(error) => Err(MountError::System { path: point.path.clone(), what: "mounted", error: error.into() }),
    }
}

/// Makes the mount apart from the tree, and moves it to the directory.
fn at_descriptor(point: &Point, options: &MountOptions, device: &OwnedFd) -> Result<Option<Mounted>, Errno> {
    let (kind, subtype) = mounts::KIND.split_once('.').unwrap_or((mounts::KIND, ""));
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    let (user, group) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    fsconfig_set_string(&context, "source", options.source.as_os_str())?;
    fsconfig_set_string(&context, "subtype", subtype)?;
    fsconfig_set_string(&context, "fd", device.as_raw_fd().to_string())?;
    fsconfig_set_string(&context, "rootmode", "40000")?;
    fsconfig_set_string(&context, "user_id", user.to_string())?;
    fsconfig_set_string(&context, "group_id", group.to_string())?;
    fsconfig_set_flag(&context, "default_permissions")?;
    if options.allow_other {
        fsconfig_set_flag(&context, "allow_other")?;
    }
    if options.read_only {
        fsconfig_set_flag(&context, "ro")?;
    }
    fsconfig_create(&context)?;
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC
        | MountAttrFlags::MOUNT_ATTR_NOATIME;
    attributes.set(MountAttrFlags::MOUNT_ATTR_RDONLY, options.read_only);
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&mount, "", &point.directory, "", flags)?;
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", mount.as_raw_fd())).unwrap_or_default();
    let number = info.lines().find_map(|line| line.strip_prefix("mnt_id:"));
    Ok(number.and_then(|number| mounts::of_number(number.trim())))
}

fn by_older_call(point: &Point, options: &MountOptions, device: &OwnedFd) -> Result<(), Errno> {
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::NOATIME;
    flags.set(MountFlags::RDONLY, options.read_only);
    let (user, group) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let fd = device.as_raw_fd();
    let mut data = format!("fd={fd},rootmode=40000,user_id={user},group_id={group},default_permissions");
    if options.allow_other {
        data.push_str(",allow_other");
    }
    let data = CString::new(data).map_err(|_| Errno::INVAL)?;
    // Through the descriptor: what has the name by now may be another directory.
    let target = format!("/proc/self/fd/{}", point.directory.as_raw_fd());
    rustix::mount::mount(options.source.as_os_str(), target, mounts::KIND, flags, Some(data.as_c_str()))
}

/// fusermount3 mounts for users, and hands the device back over a socket that it is told of: here, its standard input.
fn by_helper(path: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    let told = |error: io::Error| MountError::System { path: path.to_owned(), what: "mounted", error };
    let (theirs, ours) = UnixStream::pair().map_err(told)?;
    let mut asked = "subtype=pigeonfs,default_permissions,nosuid,nodev,noexec,noatime".to_owned();
    asked.push_str(if options.read_only { ",ro" } else { ",rw" });
    if options.allow_other {
        asked.push_str(",allow_other");
    }
    // A comma in the name would begin an option.
    let mut asked = OsString::from(asked + ",fsname=");
    for &byte in options.source.as_bytes() {
        if matches!(byte, b'\\' | b',') {
            asked.push("\\");
        }
        asked.push(OsStr::from_bytes(&[byte]));
    }
    let child = {
        let mut helper = Command::new(HELPER);
        helper.arg("-o").arg(&asked).arg("--").arg(path).env("_FUSE_COMMFD", "0");
        helper.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).stderr(Stdio::piped());
        // Its end of the socket goes with the command here: else a helper that fails would not be heard to close it.
        helper.spawn().map_err(|error| without_helper(error, told))?
    };
    let device = received(&ours);
    let output = child.wait_with_output().map_err(told)?;
    match device {
        Ok(Some(device)) if output.status.success() => Ok(device),
        _ => Err(refused(path, &output)),
    }
}

/// The device that came over the socket; none where the helper closed it.
fn received(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    loop {
        match recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(_) => break,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    }))
}

fn refused(path: &Path, output: &Output) -> MountError {
    let words = words(output);
    if words.contains("user_allow_other") {
        MountError::NotShareable
    } else if words.contains("no write access") || words.contains("not owned by user") {
        MountError::NotYours(path.to_owned())
    } else if words.contains("mount failed: Operation not permitted") {
        MountError::NotPermitted
    } else {
        MountError::System { path: path.to_owned(), what: "mounted", error: io::Error::other(words) }
    }
}

/// Takes the mount at `path` out of the tree. `lazy`: at once, though files are open; they stay usable.
pub(super) fn detach(path: &Path, lazy: bool) -> Result<(), MountError> {
    let told = |error| MountError::System { path: path.to_owned(), what: "unmounted", error };
    let flags = if lazy { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    match rustix::mount::unmount(path, flags | UnmountFlags::NOFOLLOW) {
        Ok(()) => return Ok(()),
        Err(rustix::io::Errno::BUSY) => return Err(in_use(path)),
        // Not for us to do.
        Err(rustix::io::Errno::PERM) => {}
        Err(error) => return Err(told(error.into())),
    }
    let flag = if lazy { "-uz" } else { "-u" };
    let output = Command::new(HELPER).arg(flag).arg("--").arg(path).stdin(Stdio::null()).output();
    let output = output.map_err(|error| without_helper(error, told))?;
    if output.status.success() {
        return Ok(());
    }
    let words = words(&output);
    if words.contains("busy") { Err(in_use(path)) } else { Err(told(io::Error::other(words))) }
}

fn in_use(path: &Path) -> MountError {
    MountError::InUse { path: path.to_owned(), holders: holders::with_files_below(path) }
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

fn without_helper(error: io::Error, else_told: impl FnOnce(io::Error) -> MountError) -> MountError {
    if error.kind() == io::ErrorKind::NotFound { MountError::NoHelper } else { else_told(error) }
}
