//! A state directory among neighbours: links that somebody planted, files of other users, directories that are moved.
//! What needs another user is tried where the tests run as root.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use rustix::fs::OFlags;

use super::super::*;
use super::{Home, LIMITS, RESERVE_BYTES, bytes, name};

/// Nobody who exists.
const STRANGER: u32 = 47_110;

fn as_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: files cannot be given to another user; run as root to try that");
    }
    root
}

fn refusal(path: &Path) -> StateError {
    StateDir::take(path, Making::Always).expect_err("it was taken")
}

#[test]
fn a_link_in_place_of_a_file_of_the_state_is_refused_and_what_it_leads_to_is_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("target");
    for planted in ["lock", "pigeonfs.db", "pigeonfs.db-wal", "pigeonfs.db-shm", "reserve", "room"] {
        let path = dir.path().join(format!("state-{planted}"));
        fs::create_dir(&path).unwrap();
        fs::write(&target, "precious").unwrap();
        symlink(&target, path.join(planted)).unwrap();
        let opened = StateDir::take(&path, Making::Always).map(|state| Store::open_with(&state, LIMITS, RESERVE_BYTES));
        match opened {
            Err(error) => assert!(matches!(error, StateError::Planted { .. }), "{planted}: {error:?}"),
            Ok(Err(error)) => assert!(error.to_string().contains("symbolic link"), "{planted}: {error}"),
            // The reserve is no reason to refuse all; it is not made through the link.
            Ok(Ok(_)) => assert!(matches!(planted, "reserve" | "room"), "{planted}"),
        }
        assert_eq!(fs::read_to_string(&target).unwrap(), "precious", "{planted}");
    }
}

#[test]
fn names_in_a_directory_lead_through_no_link_and_not_out_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let (inside, outside) = (dir.path().join("inside"), dir.path().join("outside"));
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("theirs"), "precious").unwrap();
    let (ours, made) = PrivateDir::open_or_make(&inside).unwrap();
    assert!(made && !PrivateDir::open_or_make(&inside).unwrap().1);
    symlink(&outside, inside.join("drops")).unwrap();
    symlink(outside.join("theirs"), inside.join("mount.log")).unwrap();
    assert!(matches!(ours.dir("drops"), Err(PrivateDirError::Link { .. })));
    assert!(matches!(ours.make_dir("drops/incoming"), Err(PrivateDirError::Link { .. })));
    assert!(matches!(ours.remove_file("drops/theirs"), Err(PrivateDirError::Link { .. })));
    let append = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::TRUNC;
    for name in ["drops/theirs", "mount.log", "drops"] {
        assert!(matches!(ours.file(name, append), Err(PrivateDirError::Link { .. })), "{name}");
    }
    for name in ["../outside/theirs", "/etc/passwd", ".", ""] {
        assert!(ours.file(name, OFlags::RDONLY).is_err(), "{name}");
    }
    assert_eq!(fs::read_to_string(outside.join("theirs")).unwrap(), "precious");
    ours.remove_file("drops").unwrap();
    assert!(outside.join("theirs").exists(), "a link was deleted with what it led to");

    let deep = ours.make_dir("drops/incoming").unwrap();
    deep.file("one", OFlags::WRONLY | OFlags::CREATE).unwrap();
    assert_eq!(deep.names().unwrap(), ["one"]);
    ours.rename("drops/incoming/one", "drops/two").unwrap();
    assert!(ours.stat("drops/incoming/one").unwrap().is_none() && ours.check_file("drops/two").unwrap());
    assert_eq!(fs::metadata(inside.join("drops/two")).unwrap().permissions().mode() & 0o777, 0o600);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        inside.join("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    assert!(ours.file("pipe", OFlags::RDWR).is_err(), "a pipe is no file of ours");
}

#[test]
fn a_state_of_another_user_or_below_a_directory_of_one_is_refused() {
    if !as_root() {
        return;
    }
    let home = Home::new();
    home.store.close();
    let path = home.dir.path().to_owned();
    drop(home.state);
    for theirs in ["", "lock", "pigeonfs.db"] {
        chown(path.join(theirs), Some(STRANGER), None).unwrap();
        let error = refusal(&path);
        assert!(matches!(error, StateError::Foreign { owner: STRANGER, us: 0, .. }), "{theirs}: {error:?}");
        assert!(error.to_string().contains("belongs to user 47110"), "{error}");
        chown(path.join(theirs), Some(0), None).unwrap();
    }
    let theirs = tempfile::tempdir().unwrap();
    chown(theirs.path(), Some(STRANGER), None).unwrap();
    assert!(matches!(refusal(&theirs.path().join("state")), StateError::Foreign { .. }));
    assert_eq!(fs::read_dir(theirs.path()).unwrap().count(), 0, "something was made below it");

    // Nor through a link that another user put where anybody may.
    let shared = tempfile::tempdir().unwrap();
    fs::set_permissions(shared.path(), Permissions::from_mode(0o1777)).unwrap();
    let link = shared.path().join("link");
    symlink(&path, &link).unwrap();
    drop(StateDir::lock(&link).expect("a link of our own is followed"));
    std::os::unix::fs::lchown(&link, Some(STRANGER), None).unwrap();
    assert!(matches!(refusal(&link), StateError::Foreign { .. }));
}

#[test]
fn a_state_is_made_where_nothing_is_or_in_an_empty_directory_only() {
    let dir = tempfile::tempdir().unwrap();
    let absent = dir.path().join("not/there");
    let error = StateDir::take(&absent, Making::Never).unwrap_err();
    assert!(matches!(error, StateError::Missing { .. }), "{error:?}");
    assert!(error.to_string().contains("not/there"), "{error}");
    assert!(!dir.path().join("not").exists(), "it was made");

    let project = dir.path().join("project");
    fs::create_dir(&project).unwrap();
    assert!(matches!(StateDir::take(&project, Making::Never), Err(StateError::Missing { .. })));
    assert_eq!(fs::read_dir(&project).unwrap().count(), 0);
    fs::write(project.join("main.rs"), "").unwrap();
    fs::set_permissions(&project, Permissions::from_mode(0o755)).unwrap();
    for making in [Making::Never, Making::IfEmpty, Making::Never] {
        let error = StateDir::take(&project, making).unwrap_err();
        assert!(matches!(error, StateError::Missing { .. } | StateError::Occupied { .. }), "{error:?}");
    }
    assert_eq!(fs::read_dir(&project).unwrap().count(), 1);
    assert_eq!(fs::metadata(&project).unwrap().permissions().mode() & 0o777, 0o755);

    // What was begun is gone on with, and what is there is opened by everybody.
    let state = StateDir::take(&absent, Making::IfEmpty).unwrap();
    drop(state);
    assert!(matches!(StateDir::take(&absent, Making::Never), Err(StateError::Missing { .. })), "a lock is no state");
    let state = StateDir::take(&absent, Making::IfEmpty).unwrap();
    Store::open_with(&state, LIMITS, RESERVE_BYTES).unwrap().close();
    drop(state);
    StateDir::take(&absent, Making::Never).unwrap();
}

/// A state was moved while it was in use, and another stood in its place: connections that were opened later belonged to
/// the other one.
#[test]
fn a_state_that_is_moved_while_it_is_in_use_stays_the_same_state() {
    let dir = tempfile::tempdir().unwrap();
    let (here, there) = (dir.path().join("state"), dir.path().join("moved"));
    let open = |path: &Path| {
        let state = StateDir::lock(path).unwrap();
        let store = Store::open_with(&state, LIMITS, RESERVE_BYTES).unwrap();
        (state, store)
    };
    let make = |store: &Store, salt| {
        let id = store.create_stream(name("notes"), crate::bacap::WriteCap::from_seed(&[salt; 32])).wait().unwrap();
        store.append(id, bytes(100_000, salt.into()), None).wait().unwrap();
        id
    };
    let (held, ours) = open(&here);
    let id = make(&ours, 1);
    fs::rename(&here, &there).unwrap();
    let (_theirs_held, theirs) = open(&here);
    assert_eq!(make(&theirs, 2), id);

    // Many at once, so that all connections are in use.
    let read = |store: &Store, salt: usize| {
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        assert_eq!(store.read(id, 0, 100_000).unwrap(), bytes(100_000, salt));
                    }
                });
            }
        });
    };
    read(&ours, 1);
    ours.append(id, bytes(10, 9), None).wait().unwrap();
    ours.close();
    drop(held);
    read(&theirs, 2);
    theirs.close();
    let (_held, ours) = open(&there);
    assert_eq!(ours.channel(id).unwrap().unwrap().size, 100_010);
}
