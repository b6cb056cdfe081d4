//! The configuration file, the variable for the state, the help and the completions.

use std::process::Command;

use crate::common::{Work, run};

fn configure(work: &Work, text: &str) {
    std::fs::create_dir_all(work.path(".config/pigeonfs")).expect("a directory");
    std::fs::write(work.path(".config/pigeonfs/config.toml"), text).expect("written");
}

/// A person keeps the state elsewhere. Every verb finds it there, what is typed goes before it, and the environment too.
#[test]
fn the_state_is_that_of_the_file_of_the_environment_or_of_the_line() {
    let work = Work::new();
    configure(&work, "state = \"~/mine\"\n");
    run(work.command().args(["new", "in-file"]), b"").ok();
    assert!(work.path("mine").is_dir());
    run(work.command().args(["new", "in-env"]).env("PIGEONFS_STATE", work.path("env")), b"").ok();
    assert!(work.path("env").is_dir());
    let mut typed = work.command();
    typed.args(["new", "typed", "--state"]).arg(work.path("typed")).env("PIGEONFS_STATE", work.path("env"));
    run(&mut typed, b"").ok();
    assert!(run(work.command().arg("list"), b"").ok().text().contains("in-file"));
    assert!(work.verb("typed", &["list"]).ok().text().contains("typed"));
}

/// What `pigeonfs config` prints is a file that can be used: as it stands, and with every line taken in.
#[test]
fn the_printed_file_is_one_that_is_understood() {
    let work = Work::new();
    let text = run(work.command().arg("config"), b"").ok().text();
    run(work.command().args(["new", "notes"]), b"").ok();
    configure(&work, &text);
    run(work.command().args(["list"]), b"").ok();
    let known = ["spool-limit", "linger-ms", "read-only", "daemonize", "localnet", "state", "umask"];
    for option in known {
        assert!(text.contains(&format!("\n#{option} = ")), "{option} is missing");
    }
    // Each line alone: `mount` gets as far as its missing mount point.
    for line in text.lines().filter(|line| line.starts_with('#') && line.contains(" = ") && !line.starts_with("# ")) {
        let line = line.trim_start_matches('#');
        let stands_for_itself = ["FILE", "ADDR", "\"NAME\"", "\"X\"", "DIR", "NUMBER", "FILTER", "USER"];
        if stands_for_itself.iter().any(|word| line.contains(word)) {
            continue;
        }
        configure(&work, line);
        let localnet = if line.starts_with("localnet") { &[][..] } else { &["--localnet"] };
        let run = run(work.command().args(["mount", "/nosuch/place"]).args(localnet), b"");
        assert_eq!(run.code, Some(2), "{line}: {}", run.stderr);
        assert!(run.stderr.contains("/nosuch/place"), "{line}: {}", run.stderr);
    }
}

#[test]
fn a_wrong_file_is_named_with_what_is_wrong() {
    let work = Work::new();
    for (text, told) in [
        ("spool = 3", "there is no option \"spool\""),
        ("read-only = \"yes\"", "read-only is on or off: read-only = true"),
        ("spool-limit = true", "spool-limit takes a text or a number"),
        ("spool-limit = \"lots\"", "--spool-limit: \"lots\" is not a size"),
        ("a = [", "line 1"),
    ] {
        configure(&work, text);
        let run = run(work.command().args(["mount", "/nosuch/place"]), b"").failed(2, &["config.toml: ", told]);
        assert!(run.stderr.contains("hint: `pigeonfs config` prints"), "{}", run.stderr);
    }
    // What prints a right one works all the same.
    run(work.command().args(["config"]), b"").ok();
    run(work.command().args(["help", "mount"]), b"").ok();
}

/// The file says which daemon; the line says an embedded network.
#[test]
fn what_is_typed_goes_before_the_file() {
    let work = Work::new();
    configure(&work, "daemon = \"@nobody\"\nspool-limit = \"lots\"\n");
    let line = ["mount", "--localnet", "--spool-limit=1GiB", "/nosuch/place"];
    run(work.command().args(line), b"").failed(2, &["/nosuch/place does not exist"]);
}

fn complete(work: &Work, words: &[&str]) -> String {
    let mut command = work.command();
    command.env("PIGEONFS_COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", (words.len() - 1).to_string());
    command.env("_CLAP_IFS", "\n").env("_CLAP_COMPLETE_COMP_TYPE", "9").env("_CLAP_COMPLETE_SPACE", "true");
    run(command.args(["pigeonfs", "--"]).args(words), b"").ok().text()
}

/// Verbs, options and the names of channels complete; where there is no state, none is made.
#[test]
fn names_of_channels_complete_from_the_state() {
    let work = Work::new();
    assert_eq!(complete(&work, &["pigeonfs", "wait", "n"]), "");
    assert!(!work.path(".local").exists(), "no state was made");
    for name in ["news", "notes", "other"] {
        run(work.command().args(["new", name]), b"").ok();
    }
    let found = complete(&work, &["pigeonfs", "wait", "n"]);
    assert_eq!(found.split_whitespace().collect::<Vec<_>>(), ["news", "notes"]);
    assert!(complete(&work, &["pigeonfs", "statu"]).contains("status"));
    assert!(complete(&work, &["pigeonfs", "wait", "--tim"]).contains("--timeout"));
    assert!(!complete(&work, &["pigeonfs", "new", "n"]).contains("news"), "a new name is a free one");
    // A sealed database begins with no text that is known.
    std::fs::write(work.path(".local/state/pigeonfs/pigeonfs.db"), [7; 4096]).expect("written");
    assert_eq!(complete(&work, &["pigeonfs", "wait", "n"]), "");
}

#[test]
fn the_scripts_are_ones_that_their_shells_read() {
    let work = Work::new();
    for (shell, reader) in [("bash", "bash"), ("zsh", "zsh")] {
        let script = run(work.command().args(["completions", shell]), b"").ok().text();
        let path = work.path(shell);
        std::fs::write(&path, script).expect("written");
        match Command::new(reader).arg("-n").arg(&path).status() {
            Ok(status) => assert!(status.success(), "{shell}"),
            Err(_) => assert_ne!(reader, "bash"),
        }
    }
    assert!(run(work.command().args(["completions", "fish"]), b"").ok().text().contains("complete"));
}

#[test]
fn the_version_tells_what_a_report_needs() {
    let work = Work::new();
    let long = run(work.command().arg("--version"), b"").ok().text();
    for line in ["pigeonfs ", "commit ", "SQLite ", "protocol ", "features "] {
        assert!(long.lines().any(|it| it.starts_with(line)), "{line} is missing in {long}");
    }
    assert_eq!(run(work.command().arg("-V"), b"").ok().text().lines().count(), 1);
}

/// Each verb has a page of the manual and two examples.
#[test]
fn each_verb_has_a_manual_page_and_two_examples() {
    let work = Work::new();
    for verb in super::cli_help::verbs(&work) {
        let help = run(work.command().args(["help", &verb]), b"").ok().text();
        let examples = help.split("Examples:\n").nth(1).unwrap_or_default();
        let count = examples.lines().filter(|line| line.trim_start().contains("pigeonfs")).count();
        assert!(count >= 2, "{verb} has {count} examples");
        let page = run(work.command().args(["help", "--man", &verb]), b"").ok().text();
        assert!(page.contains(&format!(".TH PIGEONFS-{} 1", verb.to_uppercase())), "{verb}");
    }
}

/// At 40 columns nothing is wider but what cannot be cut: examples, and words of one piece.
#[test]
fn help_wraps_at_the_width_of_the_terminal() {
    let work = Work::new();
    for verb in super::cli_help::verbs(&work) {
        let help = run(work.command().args(["help", &verb]).env("COLUMNS", "60"), b"").ok().text();
        for line in help.split("Examples:\n").next().unwrap_or_default().lines().filter(|line| !line.starts_with("  "))
        {
            assert!(line.chars().count() <= 60 || line.starts_with("Usage") || line.ends_with(':'), "{verb}: {line}");
        }
    }
}
