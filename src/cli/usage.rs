//! What was wrong with the command line, in the words of every other failure: what, with which argument, and what to type
//! instead. The words of the parser's own library are not shown.

use std::borrow::Cow;
use std::ffi::OsString;

use clap::Command;
use clap::error::{ContextKind, ContextValue, Error, ErrorKind};

use crate::engine::control::{Failure, FailureKind};

/// An argument that is longer is not repeated: it may be a capability.
const LONGEST_REPEATED: usize = 60;

/// The failure that this error of the parser stands for. `words` are the arguments, the program's name first.
pub(super) fn failure(error: &Error, command: &Command, words: &[OsString]) -> Failure {
    let verb = verb_of(command, words);
    let (message, hint) = told(error, &verb);
    Failure::new(FailureKind::Usage, message).hint(hint.unwrap_or_else(|| see_help(&verb)))
}

/// The verbs among the words, such as `pigeonfs localnet ctl`.
fn verb_of(command: &Command, words: &[OsString]) -> String {
    let mut verb = command.get_name().to_owned();
    let mut current = command;
    for word in words.iter().skip(1).filter_map(|word| word.to_str()) {
        if let Some(below) = current.find_subcommand(word) {
            verb = format!("{verb} {}", below.get_name());
            current = below;
        }
    }
    verb
}

fn see_help(verb: &str) -> String {
    match verb.split_once(' ') {
        Some((_, verb)) => format!("`pigeonfs help {verb}` shows its arguments, options and examples"),
        None => "`pigeonfs help` lists the verbs".to_owned(),
    }
}

/// What to say, and what to type instead where that is known.
fn told(error: &Error, verb: &str) -> (String, Option<String>) {
    let argument = text(error, ContextKind::InvalidArg);
    let value = text(error, ContextKind::InvalidValue).map(shown).unwrap_or_default();
    match error.kind() {
        ErrorKind::ValueValidation => {
            let why = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            let typed = text(error, ContextKind::InvalidValue).unwrap_or_default();
            (format!("{}: {}", name_of(argument), why_of(typed, &why)), None)
        }
        ErrorKind::InvalidValue if value == "\"\"" => {
            let argument = argument.unwrap_or_default();
            let (option, example) = argument.split_once(' ').unwrap_or((argument, ""));
            (format!("{option} needs a value: {option} {}", plain(example)), None)
        }
        ErrorKind::InvalidValue => {
            let valid = list(error, ContextKind::ValidValue);
            let choices =
                if valid.is_empty() { String::new() } else { format!("; it is one of: {}", valid.join(", ")) };
            let typed = text(error, ContextKind::InvalidValue).unwrap_or_default();
            let meant = text(error, ContextKind::SuggestedValue).filter(|meant| is_near(typed, meant));
            let hint = meant.map(|meant| format!("did you mean {meant}?"));
            (format!("{} cannot be {value}{choices}", name_of(argument)), hint)
        }
        ErrorKind::UnknownArgument => unknown(argument.unwrap_or_default(), error, verb),
        ErrorKind::InvalidSubcommand => {
            let typed = text(error, ContextKind::InvalidSubcommand).map(shown).unwrap_or_default();
            let near = text(error, ContextKind::InvalidSubcommand).unwrap_or_default();
            let mut meant = list(error, ContextKind::SuggestedSubcommand);
            meant.retain(|meant| is_near(near, meant));
            let hint = (!meant.is_empty()).then(|| {
                let meant: Vec<_> = meant.iter().take(3).map(|meant| format!("`{verb} {meant}`")).collect();
                format!("did you mean {}?", meant.join(" or "))
            });
            let what =
                if verb.contains(' ') { format!("`{verb}` has no command") } else { "there is no verb".to_owned() };
            (format!("{what} {typed}"), hint)
        }
        ErrorKind::MissingRequiredArgument => {
            let missing: Vec<_> = list(error, ContextKind::InvalidArg).iter().map(|one| plain(one)).collect();
            (format!("`{verb}` needs {}", missing.join(" and ")), usage(error))
        }
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let what = if verb.contains(' ') { "a command" } else { "a verb" };
            (format!("`{verb}` needs {what}"), None)
        }
        ErrorKind::ArgumentConflict => {
            let typed = argument.or_else(|| text(error, ContextKind::InvalidSubcommand));
            let typed = name_of(typed);
            let others: Vec<_> = list(error, ContextKind::PriorArg).iter().map(|other| name_of(Some(other))).collect();
            match others.is_empty() || others == [typed.as_str()] {
                true => (format!("{typed} was given twice"), Some(format!("give {typed} once"))),
                false => (format!("{typed} cannot be combined with {}", others.join(", ")), None),
            }
        }
        ErrorKind::TooManyValues => {
            let name = name_of(argument);
            (format!("{name} takes no value, and {value} was given"), Some(format!("write {name} alone")))
        }
        ErrorKind::NoEquals | ErrorKind::TooFewValues | ErrorKind::WrongNumberOfValues => {
            (format!("{} needs a value", name_of(argument)), usage(error))
        }
        ErrorKind::InvalidUtf8 => ("an argument is not valid UTF-8".to_owned(), None),
        _ => ("the command line cannot be understood".to_owned(), None),
    }
}

fn unknown(typed: &str, error: &Error, verb: &str) -> (String, Option<String>) {
    let suggested = list(error, ContextKind::SuggestedArg);
    if typed.starts_with('-') && typed.len() > 1 {
        let near = suggested.iter().find(|meant| is_near(typed, &name_of(Some(meant))));
        let hint = near.map(|meant| format!("did you mean {}?", name_of(Some(meant))));
        let typed = typed.split('=').next().unwrap_or(typed);
        return (format!("`{verb}` has no option {}", bounded(typed)), hint);
    }
    (format!("`{verb}` takes no further argument, and {} was given", shown(typed)), usage(error))
}

/// Whether somebody who typed this may have meant that: a third of the letters may be wrong.
fn is_near(typed: &str, meant: &str) -> bool {
    strsim::damerau_levenshtein(typed, meant) <= (meant.trim_start_matches('-').chars().count() / 3).max(1)
}

/// The way to call the verb, which the parser put together from what was typed.
fn usage(error: &Error) -> Option<String> {
    let ContextValue::StyledStr(usage) = error.get(ContextKind::Usage)? else { return None };
    let usage = usage.to_string();
    let line = usage.lines().map(str::trim).find(|line| line.contains("pigeonfs"))?;
    // What the environment gives counts as typed for the parser, and is nothing to type.
    Some(format!("type {}", plain(&line.trim_start_matches("Usage: ").replace(" --log <FILTER>", ""))))
}

/// An option or argument as it is named to a person: `--timeout`, `NAME`.
fn name_of(argument: Option<&str>) -> String {
    let argument = argument.unwrap_or("an argument");
    let first =
        if argument.starts_with('-') { argument.split([' ', '=']).next().unwrap_or(argument) } else { argument };
    plain(first).trim_end_matches("...").to_owned()
}

/// Without the angles that the parser puts around what stands for a value.
fn plain(text: &str) -> String {
    text.chars().filter(|letter| !matches!(letter, '<' | '>' | '[' | ']')).collect()
}

/// Why a value is wrong, without a long value itself.
fn why_of(value: &str, why: &str) -> String {
    match value.len() > LONGEST_REPEATED {
        true => why.replace(&format!("{value:?}"), "what was given").replace(value, "what was given"),
        false => why.to_owned(),
    }
}

/// What was typed, in quotes; too long a text only by its length.
fn shown(typed: &str) -> String {
    match typed.chars().count() {
        0..=LONGEST_REPEATED => format!("\"{}\"", typed.replace(|c: char| c.is_control(), "\u{fffd}")),
        count => format!("({count} characters)"),
    }
}

fn bounded(typed: &str) -> Cow<'_, str> {
    if typed.chars().count() > LONGEST_REPEATED { Cow::Borrowed("of that name") } else { Cow::Borrowed(typed) }
}

fn text(error: &Error, kind: ContextKind) -> Option<&str> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text),
        ContextValue::Strings(texts) => texts.first().map(String::as_str),
        _ => None,
    }
}

fn list(error: &Error, kind: ContextKind) -> Vec<&str> {
    match error.get(kind) {
        Some(ContextValue::String(text)) => vec![text],
        Some(ContextValue::Strings(texts)) => texts.iter().map(String::as_str).collect(),
        _ => Vec::new(),
    }
}
