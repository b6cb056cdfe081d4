//! `pigeonfs help`: the help of each verb, the glossary, and the manual pages.

use std::ffi::OsString;

use clap::{Args, Command};
use serde_json::json;

use super::{Stop, output};
use crate::engine::control::{Failure, FailureKind};

/// Words that help texts, errors and the README use, and what each means. The README has the same text; a test compares
/// them.
pub(super) const GLOSSARY: &[(&str, &str)] = &[
    (
        "channel",
        "An encrypted, append-only sequence of boxes with one writer and any number of readers. A stream or a drop.",
    ),
    ("stream", "A channel that carries bytes; a file in the mount."),
    ("drop", "A channel that carries whole files; a directory in the mount."),
    ("box", "The unit that the network stores: about 1.5 kB, padded, so that all look alike."),
    ("mixnet", "The network of servers that delay and mix packets, so that nobody sees who talks to whom."),
    ("daemon", "Katzenpost's kpclientd, a program on this machine that sends and receives packets for its clients."),
    ("courier", "A server that takes a box from the mixnet and passes it to the replicas."),
    ("replica", "A server that stores boxes, for one to two weeks."),
    (
        "capability",
        "The secret that opens a channel. The read capability lets its holder read it, the write capability append to it.",
    ),
    (
        "state",
        "The directory that holds the channels, their capabilities and bytes: ~/.local/state/pigeonfs, or --state DIR.",
    ),
    ("owner", "The process that holds a state open: a mount, or a verb for its own run. Other verbs ask the owner."),
    ("spool", "Bytes that were accepted and are not stored by replicas yet. They are safe on this machine's disk."),
    ("accepted", "Written to this machine's disk. It is sent, whatever happens to the process or the machine."),
    ("couriered", "A courier has the box. It may still be lost, and is sent again then."),
    ("stored", "A replica has confirmed the box: readers can fetch it."),
    ("late", "A box that is missing although a later one is here. It is asked for again."),
    ("lost", "A late box that no replica can have any more. `pigeonfs skip` goes on behind it."),
    (
        "fenced",
        "Closed, because the network holds bytes of another writer where ours should be. `pigeonfs adopt` or `move` goes on.",
    ),
    ("expiry", "The time at which replicas forget a box: 7 to 14 days after it was stored."),
    ("localnet", "A network inside the process or on this machine, for trying and testing. It gives no anonymity."),
];

/// Show the help of a verb, or the glossary
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pigeonfs help mount
  pigeonfs help glossary
  pigeonfs help --man mount | man -l -")]
pub(super) struct Typed {
    /// A verb, such as `mount` or `localnet ctl`; or `glossary`
    #[arg(value_name = "VERB")]
    topic: Vec<String>,
    /// Print the manual page (roff) instead
    #[arg(long)]
    man: bool,
}

impl Typed {
    /// The command line whose help is asked for, where it is that of a verb.
    pub(super) fn words(&self) -> Option<Vec<OsString>> {
        if self.man || self.topic.iter().any(|word| word == "glossary") {
            return None;
        }
        let words = std::iter::once("pigeonfs").chain(self.topic.iter().map(String::as_str)).chain(["--help"]);
        Some(words.map(OsString::from).collect())
    }
}

/// Prints the glossary or a manual page; `command` is the whole command.
pub(super) fn run(typed: &Typed, command: Command, json: bool) -> Result<(), Stop> {
    if typed.man {
        return man(typed, command);
    }
    if json {
        let words = GLOSSARY.iter().map(|(word, meaning)| json!({ "word": word, "meaning": meaning }));
        return output::json(&json!({ "version": 1, "glossary": words.collect::<Vec<_>>() }));
    }
    output::bytes(glossary(width()).as_bytes())
}

/// The columns that text may take here.
pub(super) fn width() -> usize {
    let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse::<usize>().ok());
    let terminal = || {
        let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
        Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
    };
    columns.or_else(terminal).unwrap_or(100).clamp(30, 100)
}

fn glossary(width: usize) -> String {
    let indent = 12;
    let mut text = String::new();
    for (word, meaning) in GLOSSARY {
        let mut line = format!("{word:<indent$}");
        for part in meaning.split(' ') {
            if line.chars().count() + part.chars().count() > width && line.trim_start().chars().count() > 0 {
                text.push_str(line.trim_end());
                text.push('\n');
                line = " ".repeat(indent);
            }
            line.push_str(part);
            line.push(' ');
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn man(typed: &Typed, mut command: Command) -> Result<(), Stop> {
    command.build();
    let mut page = command.clone();
    let mut title = "pigeonfs".to_owned();
    for word in &typed.topic {
        page = page.find_subcommand(word).cloned().ok_or_else(|| {
            Failure::new(FailureKind::Usage, format!("there is no verb {word:?}"))
                .hint("`pigeonfs help` lists the verbs")
        })?;
        title = format!("{title}-{word}");
    }
    let version = page.get_version().unwrap_or(env!("CARGO_PKG_VERSION")).to_owned();
    let page = clap_mangen::Man::new(page)
        .title(title.to_uppercase())
        .section("1")
        .source(format!("pigeonfs {version}"))
        .manual("pigeonfs");
    let mut text = Vec::new();
    page.render(&mut text)?;
    output::bytes(&text)
}

/// Joins the lines of each paragraph in the texts behind the options, so that they wrap at the width of the terminal and
/// not where the source ends a line. Indented lines, as in examples, stay as they are.
pub(super) fn reflow(mut command: Command) -> Command {
    if let Some(text) = command.get_after_help() {
        let text = joined(&text.to_string());
        command = command.after_help(text);
    }
    let names: Vec<String> = command.get_subcommands().map(|below| below.get_name().to_owned()).collect();
    for name in names {
        command = command.mut_subcommand(name, reflow);
    }
    command
}

fn joined(text: &str) -> String {
    let mut result = String::new();
    let mut before = "";
    for line in text.lines() {
        let goes_on = !before.is_empty() && !before.starts_with(' ') && !before.ends_with(':') && !line.is_empty();
        if goes_on && !line.starts_with(' ') {
            result.push(' ');
        } else if !result.is_empty() {
            result.push('\n');
        }
        result.push_str(line);
        before = line;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_are_joined_and_examples_are_not() {
        let text = "One sentence\nof two lines.\n\nExamples:\n  first\n  second\n\nAnd\nmore.";
        assert_eq!(joined(text), "One sentence of two lines.\n\nExamples:\n  first\n  second\n\nAnd more.");
    }

    #[test]
    fn the_glossary_of_the_readme_is_the_same() {
        let readme = include_str!("../../README.md");
        for (word, meaning) in GLOSSARY {
            assert!(readme.contains(&format!("* **{word}**: {meaning}\n")), "{word}");
        }
    }

    #[test]
    fn the_glossary_fits_into_narrow_terminals() {
        for width in [40, 100] {
            assert!(glossary(width).lines().all(|line| line.chars().count() <= width));
        }
    }
}
