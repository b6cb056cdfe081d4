//! The README's tour, run as it stands: a line that does not work there is a bug here.

#![allow(clippy::print_stderr)] // A skipped test says why.

use std::process::Command;

const README: &str = include_str!("../../README.md");
const FIRST_CONTACT: &str = include_str!("../../src/cli/FIRST-CONTACT.md");

#[test]
fn every_line_of_the_tour_works_as_it_stands() {
    if std::fs::File::options().read(true).write(true).open("/dev/fuse").is_err() {
        assert!(std::env::var_os("PIGEONFS_TEST_ALL").is_none(), "/dev/fuse cannot be opened here");
        eprintln!("skipped: /dev/fuse cannot be opened here");
        return;
    }
    let out = walk(README);
    for expected in ["hello, reader\nand another line\n", "a line from a script", "no anonymity"] {
        assert!(out.contains(expected), "{expected:?} is missing in\n{out}");
    }
}

#[test]
fn every_line_of_the_first_contact_works_as_it_stands() {
    let out = walk(FIRST_CONTACT);
    for expected in ["hello, Bob\n", "hello, Alice\n"] {
        assert!(out.contains(expected), "{expected:?} is missing in\n{out}");
    }
}

/// Runs the lines between the marks of a page; what they print.
fn walk(page: &str) -> String {
    let tour = page.split("<!-- tour").nth(1).and_then(|rest| rest.split("<!-- /tour -->").next()).expect("a tour");
    let lines: String =
        tour.split("```sh\n").skip(1).map(|block| block.split("```").next().expect("a block")).collect();
    let home = tempfile::tempdir().expect("a directory");
    let binary = std::path::Path::new(env!("CARGO_BIN_EXE_pigeonfs")).parent().expect("a directory");
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap_or_default());
    // Whatever happens, no mount stays behind.
    let script = format!(
        "set -e\ntrap 'for m in alice bob; do pigeonfs umount --lazy $m 2>/dev/null || true; done
         kill $(jobs -p) 2>/dev/null || true; wait' EXIT\n{lines}"
    );
    let output = Command::new("timeout")
        .args(["-k", "10", "180", "bash", "-c", &script])
        .env("PATH", path)
        .env("HOME", home.path())
        .env("TMPDIR", home.path())
        .output()
        .expect("bash runs");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{:?}\n{out}\n{err}", output.status);
    out.into_owned()
}
