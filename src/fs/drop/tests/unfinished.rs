//! Everything by which a mount knows that a writer did not finish.

use super::*;

const LIMIT: u64 = 100_000;

fn small() -> World {
    let world = World::with(Limits { spool_bytes: LIMIT, ..Limits::default() });
    world.outbox();
    world
}

/// A file of `a`, half of which was refused.
fn refused(world: &World, path: &str) {
    let handle = world.create(path).unwrap();
    world.fs().write_dropped(handle, 7, 0, b"half").unwrap();
    let full = vec![1; LIMIT as usize];
    assert_eq!(errno(world.fs().write_dropped(handle, 7, 4, &full)), libc::ENOSPC);
    world.fs().flush(handle).unwrap();
    world.fs().release(handle);
}

fn is_unfinished(world: &World, path: &str) {
    world.rest(60);
    assert_eq!(world.state(path), "unfinished");
    assert_eq!(world.records(), []);
    let channel = world.fs().channel(world.drop_id()).unwrap();
    assert_eq!(errno(world.fs().reached_in_drop(channel)), libc::EIO);
}

#[test]
fn a_file_of_which_a_write_was_refused_is_not_sent_whatever_its_writer_does_next() {
    type Then = fn(&World, u64);
    let then: [(&str, Then); 6] = [
        ("nothing", |_, _| {}),
        ("writes on", |world, handle| assert!(world.fs().write_dropped(handle, 7, 4, b"more").is_ok())),
        ("writes its beginning", |world, handle| assert!(world.fs().write_dropped(handle, 7, 0, b"HALF").is_ok())),
        ("cuts it off", |world, handle| {
            let cut = Change { size: Some(0), ..Change::default() };
            world.fs().change(world.node("outbox/a"), Some(handle), cut).unwrap();
        }),
        ("makes it safe", |world, handle| assert!(world.fs().sync(handle, us()).is_ok())),
        ("renames it", |world, _| {
            world.rename("outbox/a", "outbox/b").unwrap();
            world.rename("outbox/b", "outbox/a").unwrap();
        }),
    ];
    for (what, then) in then {
        let world = small();
        let handle = world.create("outbox/a").unwrap();
        world.fs().write_dropped(handle, 7, 0, b"half").unwrap();
        let full = vec![1; LIMIT as usize];
        let error = world.fs().write_dropped(handle, 7, 4, &full).expect_err("it is full");
        assert_eq!(error.errno, libc::ENOSPC, "{what}");
        assert!(error.message.contains("--spool-limit"), "{error}");
        then(&world, handle);
        world.fs().release(handle);
        is_unfinished(&world, "outbox/a");
    }
}

#[test]
fn every_refusal_counts() {
    let world = small();
    let handle = world.create("outbox/a").unwrap();
    assert_eq!(errno(world.fs().write_dropped(handle, 7, 1 << 62, b"x")), libc::EFBIG);
    world.fs().release(handle);
    is_unfinished(&world, "outbox/a");

    let world = small();
    let handle = world.create("outbox/a").unwrap();
    let long = Change { size: Some(u64::MAX), ..Change::default() };
    assert_eq!(errno(world.fs().change(world.node("outbox/a"), Some(handle), long)), libc::EFBIG);
    world.fs().release(handle);
    is_unfinished(&world, "outbox/a");
}

#[test]
fn an_unfinished_file_stays_so_over_mounts_and_is_sent_once_it_is_written_anew() {
    let mut world = small();
    refused(&world, "outbox/a");
    world.restart();
    is_unfinished(&world, "outbox/a");
    let appending = world.open("outbox/a", libc::O_WRONLY | libc::O_APPEND).unwrap();
    world.fs().write_dropped(appending, 8, 4, b"more").unwrap();
    world.fs().release(appending);
    is_unfinished(&world, "outbox/a");
    world.copy_over("outbox/a", b"whole");
    world.rest(3);
    assert_eq!(world.records(), [record("", "a", 5)]);
}

#[test]
fn an_unfinished_file_is_sent_as_it_is_where_a_person_says_so() {
    let world = small();
    world.mkdir("outbox/d").unwrap();
    refused(&world, "outbox/d/a");
    world.copy("outbox/film.part", b"x");
    assert_eq!(world.fs().unsettled(world.drop_id()).unwrap().to_finish, 1);
    let finish = |path: &str| world.fs().finish(world.drop_id(), path);
    for (path, words) in [("d/b", "no file"), ("d", "a directory"), ("film.part", "rename it")] {
        let error = finish(path).expect_err("nothing to finish");
        assert!(error.message.contains(words), "{error}");
    }
    let open = world.open("outbox/d/a", libc::O_WRONLY).unwrap();
    assert!(finish("d/a").expect_err("somebody writes it").message.contains("open"));
    world.fs().release(open);
    finish("d/a").unwrap();
    world.rest(3);
    assert_eq!(world.records(), [record("d", "a", 4)]);
    assert!(finish("d/a").expect_err("it is on its way").message.contains("on its way"));
}

#[test]
fn a_writer_that_cannot_be_seen_is_believed_only_after_fsync_or_where_that_was_chosen() {
    let world = small();
    let close = |world: &World, path: &str, synced: bool| {
        let handle = world.create(path).unwrap();
        world.fs().write_dropped(handle, 0, 0, b"abc").unwrap();
        if synced {
            world.fs().sync(handle, us()).unwrap();
        }
        world.fs().closed_unseen(handle);
        world.fs().release(handle);
    };
    close(&world, "outbox/safe", true);
    close(&world, "outbox/unsafe", false);
    world.rest(3);
    assert_eq!(world.records(), [record("", "safe", 3)]);
    assert_eq!(world.state("outbox/unsafe"), "unfinished");
    let told = world.told();
    assert!(told[0].contains("cannot be seen") && told[0].contains("send --finish outbox/unsafe"), "{told:?}");

    let mut world = small();
    world.stop();
    world.options.trust_close = true;
    world.start();
    close(&world, "outbox/unsafe", false);
    world.rest(3);
    assert_eq!(world.records(), [record("", "unsafe", 3)]);
}

#[test]
fn the_spool_bounds_what_files_take_of_the_disk_and_says_what_fills_it() {
    let world = small();
    let handle = world.create("outbox/a").unwrap();
    world.fs().write_dropped(handle, 7, 0, &vec![1; 60_000]).unwrap();
    world.fs().write_dropped(handle, 7, 0, &vec![2; 60_000]).unwrap();
    let other = world.create("outbox/b").unwrap();
    let error = world.fs().write_dropped(other, 7, 0, &vec![1; 60_000]).expect_err("there is no room");
    assert!(error.message.contains("60000 are in files that are not sent yet"), "{error}");
    world.fs().release(other);
    world.rest(3);
    let error = world.fs().write_dropped(handle, 7, 60_000, &vec![1; 60_000]).expect_err("there is no room");
    assert!(error.message.contains("larger than the spool's limit of 100000 bytes"), "{error}");
    world.fs().release(handle);
    let third = world.create("outbox/c").unwrap();
    let error = world.fs().write_dropped(third, 7, 0, &vec![1; 60_000]).expect_err("there is no room");
    assert!(error.message.contains("60000 of them in unfinished ones"), "{error}");
    world.fs().release(third);
    assert_eq!(world.fs().capacity().unwrap().free_bytes, 40_000);
    for name in ["a", "b", "c"] {
        world.unlink(&format!("outbox/{name}")).unwrap();
    }
    assert_eq!(world.fs().capacity().unwrap().free_bytes, LIMIT);

    // A hole takes no room; but the file cannot be sent.
    let handle = world.create("outbox/holes").unwrap();
    let long = Change { size: Some(10 * LIMIT), ..Change::default() };
    world.fs().change(world.node("outbox/holes"), Some(handle), long).unwrap();
    world.fs().release(handle);
    world.rest(3);
    let told = world.fs().unsettled(world.drop_id()).unwrap();
    assert_eq!(told.unfinished, [("holes".to_owned(), "it is larger than the spool's limit")]);
}
