//! What `src/fs/SEMANTICS.md` says is tried on a real mount, cell by cell: the tables are read out of that very file.
//!
//! `table` reads them, `world` is a mount in which each file is put into the state that a cell is about, and `calls` makes
//! the calls with the kernel's own interface, so that no tool stands between.

#![allow(clippy::print_stderr)] // A skipped test says why.

mod calls;
mod table;
mod world;

use std::path::Path;

use self::table::{Case, File};
use self::world::World;

const DOCUMENT: &str = include_str!("../../../src/fs/SEMANTICS.md");

#[test]
fn every_cell_of_the_document_is_what_a_mount_does() {
    if let Err(error) = std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        assert!(std::env::var_os("PIGEONFS_TEST_ALL").is_none(), "cannot run: /dev/fuse: {error}");
        return eprintln!("skipped: /dev/fuse: {error}");
    }
    let tables = table::read(DOCUMENT);
    let cases: usize = tables.values().map(Vec::len).sum();
    assert!(cases >= 500, "only {cases} cells were found");
    let mut wrong = Vec::new();
    for (options, cases) in &tables {
        let world = World::mounted(options);
        for case in cases {
            let found = outcome(&world, case);
            if found != case.expected {
                wrong.push(format!("{case}: the mount gives {found}, with {options:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {cases} cells are not what the mount does:\n{}", wrong.len(), wrong.join("\n"));
}

fn outcome(world: &World, case: &Case) -> String {
    let (path, channel) = match &case.file {
        File::State(state) => {
            let (path, channel) = world.make(state);
            (world.path.join(path), channel)
        }
        File::Named { path, of } => {
            let name = of.as_ref().map(|state| world.make(state).1).unwrap_or_default();
            let path = path.iter().map(|part| if part == "NAME" { Path::new(&name) } else { Path::new(part) });
            (path.fold(world.path.clone(), |path, part| path.join(part)), name)
        }
    };
    calls::run(world, &path, &channel, &case.call)
}
