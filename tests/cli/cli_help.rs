//! The help texts, as they were when somebody last read them. `PIGEONFS_UPDATE_HELP=1 cargo test --test cli cli_help` writes
//! them anew; read the difference before it is committed.

use std::path::Path;

use crate::common::{Work, run};

/// All verbs, as the help of the program lists them.
pub(crate) fn verbs(work: &Work) -> Vec<String> {
    let help = run(work.command().arg("--help"), b"").ok().text();
    let list = help.split("Commands:\n").nth(1).and_then(|rest| rest.split("\n\n").next()).expect("a list of verbs");
    let named = list.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    named.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn the_help_texts_are_those_that_were_read() {
    let work = Work::new();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/help");
    let update = std::env::var_os("PIGEONFS_UPDATE_HELP").is_some();
    let mut changed = Vec::new();
    let verbs = verbs(&work);
    assert!(verbs.len() >= 23, "{verbs:?}");
    for verb in ["pigeonfs", "glossary"].into_iter().chain(verbs.iter().map(String::as_str)) {
        let mut command = work.command();
        command.arg("help");
        if verb != "pigeonfs" {
            command.arg(verb);
        }
        let help = run(&mut command, b"").ok().text();
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
