//! The help texts, as they were when somebody last read them. `PIGEONFS_UPDATE_HELP=1 cargo test --test cli cli_help` writes
//! them anew; read the difference before it is committed.

use std::path::Path;

use crate::common::{Work, run};

const VERBS: [&str; 20] = [
    "mount", "umount", "localnet", "list", "status", "new", "add", "share", "forget", "rename", "trim", "follow",
    "skip", "adopt", "move", "wait", "append", "read", "send", "receive",
];

#[test]
fn the_help_texts_are_those_that_were_read() {
    let work = Work::new();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/help");
    let update = std::env::var_os("PIGEONFS_UPDATE_HELP").is_some();
    let mut changed = Vec::new();
    for verb in std::iter::once("pigeonfs").chain(VERBS) {
        let mut command = work.command();
        if verb != "pigeonfs" {
            command.arg(verb);
        }
        let help = run(command.arg("--help"), b"").ok().text();
        let path = directory.join(format!("{verb}.txt"));
        if update {
            std::fs::write(&path, &help).expect("written");
        }
        if std::fs::read_to_string(&path).unwrap_or_default() != help {
            changed.push(format!("{}:\n{help}", path.display()));
        }
    }
    assert!(changed.is_empty(), "changed, see the head of this file:\n{}", changed.join("\n"));
}
