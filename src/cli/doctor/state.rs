//! The state directory, and what lies around of its capabilities.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

use super::{Check, machine};
use crate::text::shown_path;
use crate::units::show_size;

/// A sealed state has it.
const SEAL: &str = "seal.json";
/// Less space than this on the state's disk is told.
const LITTLE_BYTES: u64 = 256 << 20;
/// Files of the state whose modes are looked at.
const FILES: usize = 100_000;
/// Files of one directory that may be capabilities.
const CANDIDATES: usize = 1000;
/// A file that holds a capability is no longer.
const LONGEST_CAPABILITY: u64 = 1024;

pub(super) fn checks(path: &Path) -> Vec<Check> {
    let mut checks = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => vec![owner(path, &found), modes(path), disk(path, found.dev())],
        Ok(_) => vec![Check::todo(
            "state",
            format!("{} is no directory", shown_path(path)),
            "name another with --state; a link is not followed",
        )],
        Err(error) => vec![Check::todo(
            "state",
            format!("{} is not there ({error})", shown_path(path)),
            "the first `pigeonfs mount`, `new`, `add` or `send` makes it; check the path if it should be there",
        )],
    };
    checks.push(space(path));
    checks.push(capabilities());
    checks
}

fn owner(path: &Path, found: &fs::Metadata) -> Check {
    let (shown, me) = (shown_path(path), geteuid().as_raw());
    let mode = found.permissions().mode() & 0o7777;
    if found.uid() != me {
        return Check::todo(
            "state",
            format!("{shown} belongs to user {}, and this is user {me}", found.uid()),
            "run as its owner, or name a state of your own with --state",
        );
    }
    if mode & 0o077 != 0 {
        return Check::todo(
            "state",
            format!("others may enter {shown}: its mode is {mode:o}"),
            format!("chmod 700 {shown}"),
        );
    }
    Check::ok("state", shown)
}

/// Nothing in the state is a link, another user's or open to others.
fn modes(path: &Path) -> Check {
    let me = geteuid().as_raw();
    let (mut directories, mut wrong, mut seen) = (vec![path.to_owned()], Vec::new(), 0);
    while let Some(directory) = directories.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            let Ok(found) = entry.metadata() else { continue };
            seen += 1;
            let open = found.permissions().mode() & 0o077 != 0;
            if found.is_symlink() || found.uid() != me || (open && !found.is_dir()) {
                wrong.push(shown_path(&entry.path()));
            } else if found.is_dir() && seen < FILES {
                directories.push(entry.path());
            }
        }
    }
    match wrong.first() {
        None => Check::ok("files", "all in the state are this user's, and closed to others"),
        Some(first) => Check::todo(
            "files",
            format!("{} in the state are links, another user's, or open to others, as {first}", wrong.len()),
            "chmod or remove them; a link in a state is refused",
        ),
    }
}

fn disk(path: &Path, device: u64) -> Check {
    if path.join(SEAL).exists() {
        return Check::ok("at rest", "the state is sealed");
    }
    match machine::is_encrypted(device) {
        true => Check::ok("at rest", "the state is on an encrypted disk"),
        false => Check::todo(
            "at rest",
            format!("{} is not sealed, and its disk is not seen to be encrypted", shown_path(path)),
            "seal it with `pigeonfs seal`, or keep it on an encrypted disk: whoever has this one reads capabilities and contents",
        ),
    }
}

fn space(path: &Path) -> Check {
    let there = path.ancestors().find(|path| path.exists()).unwrap_or(path);
    match rustix::fs::statvfs(there) {
        Ok(found) => {
            let free = found.f_bavail.saturating_mul(found.f_frsize);
            match free >= LITTLE_BYTES {
                true => Check::ok("space", format!("{} free", show_size(free))),
                false => Check::todo(
                    "space",
                    format!("{} free where the state is", show_size(free)),
                    "make room: 16 MiB are kept for confirmations, and nothing is accepted once they are needed",
                ),
            }
        }
        Err(error) => Check::note("space", format!("cannot be asked for: {error}")),
    }
}

/// Files with a capability that others can read, where `share NAME > FILE` is likely to have put them.
fn capabilities() -> Check {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let downloads = home.as_ref().map(|home| home.join("Downloads"));
    let places = [std::env::current_dir().ok(), home, downloads, Some(std::env::temp_dir())];
    let mut found = Vec::new();
    for place in places.into_iter().flatten() {
        let Ok(entries) = fs::read_dir(&place) else { continue };
        for entry in entries.flatten().take(CANDIDATES) {
            let lies_open = entry.metadata().is_ok_and(|found| {
                found.is_file() && found.len() <= LONGEST_CAPABILITY && found.permissions().mode() & 0o044 != 0
            });
            let path = entry.path();
            if lies_open && holds_a_capability(&path) && !found.contains(&path) {
                found.push(path);
            }
        }
    }
    match found.first() {
        None => Check::ok("capabilities", "none was seen in files that others can read"),
        Some(first) => Check::todo(
            "capabilities",
            format!("{} files that others can read hold one, as {}", found.len(), shown_path(first)),
            "chmod 600 them, or remove them; take what others could read for known",
        ),
    }
}

fn holds_a_capability(path: &Path) -> bool {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(LONGEST_CAPABILITY).read_to_string(&mut text));
    read.is_ok() && text.split_whitespace().any(is_capability)
}

/// By its shape: the text form, or base64 as long as either kind.
fn is_capability(word: &str) -> bool {
    let lower = word.to_ascii_lowercase();
    let is_base64 = word.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='));
    lower.starts_with("pigeon-read1")
        || lower.starts_with("pigeon-write1")
        || (is_base64 && matches!(word.trim_end_matches('=').len(), 182 | 224))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_known_by_their_shape() {
        for word in ["pigeon-read1qqq", "PIGEON-WRITE1QQ", &"A".repeat(224), &format!("{}==", "A".repeat(182))] {
            assert!(is_capability(word), "{word}");
        }
        for word in ["", "hello", &"A".repeat(100), &"-".repeat(224)] {
            assert!(!is_capability(word), "{word}");
        }
    }

    #[test]
    fn what_is_wrong_in_a_state_is_told_and_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = dir.path().join("state");
        let standing =
            |state: &Path| checks(state).into_iter().map(|check| (check.name, check.status)).collect::<Vec<_>>();
        assert!(standing(&state).contains(&("state", super::super::Standing::Do)));
        assert!(!state.exists(), "nothing is made");
        fs::create_dir(&state).expect("made");
        fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).expect("ours");
        fs::write(state.join("open"), "").expect("written");
        fs::set_permissions(state.join("open"), fs::Permissions::from_mode(0o644)).expect("ours");
        let found = standing(&state);
        assert!(found.contains(&("state", super::super::Standing::Ok)), "{found:?}");
        assert!(found.contains(&("files", super::super::Standing::Do)), "{found:?}");
        fs::remove_file(state.join("open")).expect("there");
        std::os::unix::fs::symlink("/etc/passwd", state.join("link")).expect("made");
        assert!(standing(&state).contains(&("files", super::super::Standing::Do)));
        fs::remove_file(state.join("link")).expect("there");
        assert!(standing(&state).contains(&("files", super::super::Standing::Ok)));
    }
}
