//! Why a mount could not be made or removed: what stands in the way, and what to do.

use std::io;
use std::path::PathBuf;

use super::holders::Holders;

/// Why a mount could not be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// Nothing there.
    #[error("the mount point {} does not exist: make it with `mkdir`", .0.display())]
    Missing(PathBuf),
    /// Something else there.
    #[error("the mount point {} is not a directory", .0.display())]
    NotADirectory(PathBuf),
    /// It would hide files.
    #[error("the mount point {} is not empty: give an empty directory, so that no file is hidden", .0.display())]
    NotEmpty(PathBuf),
    /// A user may mount only where that user may write.
    #[error("the mount point {} is not yours: give a directory that you may write to", .0.display())]
    NotYours(PathBuf),
    /// There is one of ours.
    #[error("{} is a mount of pigeonfs already: end it with `pigeonfs umount {}` first", .0.display(), .0.display())]
    AlreadyMounted(PathBuf),
    /// A mount that is not ours to clear: another user's, or a dead one of something else.
    #[error("a mount of {owner} stands at {}: its owner can end it with `fusermount3 -u`, or root with `umount`",
        path.display())]
    Stranger {
        /// Where.
        path: PathBuf,
        /// Whose it is.
        owner: String,
    },
    /// Nothing of ours is mounted there.
    #[error("{} is not a mount of pigeonfs", .0.display())]
    NotMounted(PathBuf),
    /// Another mount stands on top of ours.
    #[error("{} is covered by another mount: end that one first", .0.display())]
    Covered(PathBuf),
    /// No FUSE on this system.
    #[error(
        "/dev/fuse {0}: FUSE is not available here. Load the module `fuse`, or give the container --device /dev/fuse; \
         `pigeonfs append` and `pigeonfs read` need no mount"
    )]
    NoFuse(&'static str),
    /// Not root, and no helper.
    #[error("mounting as a user needs the program fusermount3: install the package fuse3")]
    NoHelper,
    /// Root in name only.
    #[error(
        "mounting is not permitted here: give the container --cap-add SYS_ADMIN (and --security-opt \
         apparmor=unconfined where AppArmor is on); `pigeonfs append` and `pigeonfs read` need no mount"
    )]
    NotPermitted,
    /// The administrator allows no user to share a mount.
    #[error(
        "--allow-other is not allowed to users here: root can allow it with a line `user_allow_other` in /etc/fuse.conf"
    )]
    NotShareable,
    /// Nothing there to unmount.
    #[error("{} does not exist, so nothing is mounted there: `pigeonfs status` names the mount of a state",
        .0.display())]
    NothingThere(PathBuf),
    /// Files are open.
    #[error("{} is in use{}: close the programs that use it, or end it with --lazy", path.display(), by(holders))]
    InUse {
        /// Where.
        path: PathBuf,
        /// By whom, as far as that can be seen.
        holders: Holders,
    },
    /// Anything else that the system said.
    #[error("{} cannot be {what}: {error}", path.display())]
    System {
        /// Where.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What was said.
        error: io::Error,
    },
}

fn by(holders: &Holders) -> String {
    if holders.0.is_empty() { String::new() } else { format!(" by {holders}") }
}
