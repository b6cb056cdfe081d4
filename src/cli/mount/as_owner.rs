//! Root mounting another user's state, as a line of fstab has it: the process becomes that user before anything of the
//! state is opened. As root it would follow what that user planted there: links to anything, names of anybody's files.

use std::ffi::{CString, OsString};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::unistd::{Gid, Uid, User, initgroups, setgid, setgroups, setuid};

use crate::engine::control::{Failure, FailureKind};

/// Where root is to mount the state of another user, runs this program again as that user, with the same arguments, in
/// this process: it returns only where there is nothing to do, or with an error. The groups are that user's, and so are
/// `$HOME` and what is found by it.
pub(crate) fn enter(state: &Path, arguments: &[OsString]) -> Result<(), Failure> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let Some((owner, group)) = owner_of(state).filter(|(owner, _)| *owner != 0) else { return Ok(()) };
    let cannot = |what: &str, error: &dyn std::fmt::Display| {
        let text = format!("{} belongs to user {owner}, and root cannot {what}: {error}", state.display());
        Failure::new(FailureKind::Failed, text).hint("mount it as that user")
    };
    let user = User::from_uid(Uid::from_raw(owner)).map_err(|error| cannot("look that user up", &error))?;
    let group = user.as_ref().map_or(Gid::from_raw(group), |user| user.gid);
    let become_user = || -> Result<(), nix::Error> {
        match user.as_ref().and_then(|user| CString::new(user.name.as_str()).ok()) {
            Some(name) => initgroups(&name, group)?,
            None => setgroups(&[group])?,
        }
        setgid(group)?;
        setuid(Uid::from_raw(owner))
    };
    become_user().map_err(|error| cannot("become that user", &error))?;
    let mut command = Command::new("/proc/self/exe");
    command.args(arguments.iter().skip(1));
    for name in ["XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "XDG_DATA_HOME", "XDG_CACHE_HOME", "HOME"] {
        command.env_remove(name);
    }
    if let Some(user) = user {
        command.env("HOME", user.dir).env("USER", &user.name).env("LOGNAME", &user.name);
    }
    Err(cannot("start this program as that user", &command.exec()))
}

/// The user and the group of a state, or of the directory that it is to be made in.
fn owner_of(state: &Path) -> Option<(u32, u32)> {
    let there = state.ancestors().find_map(|path| std::fs::symlink_metadata(path).ok())?;
    Some((there.uid(), there.gid()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_that_is_missing_will_belong_to_whoever_has_the_directory_above() {
        let dir = tempfile::tempdir().expect("a directory");
        let owner = owner_of(dir.path()).expect("there");
        assert_eq!(owner_of(&dir.path().join("not/there")), Some(owner));
        assert_eq!(owner.0, rustix::process::geteuid().as_raw());
    }
}
