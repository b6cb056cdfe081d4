//! Every option that takes a number refuses one that is beyond all sense, as a usage error.

use clap::{Arg, Command, CommandFactory};

use super::CommandLine;

/// Beyond the range of one kind of number or another.
const BEYOND: [&str; 8] = [
    "1e19",
    "1e400",
    "-1",
    "nan",
    "inf",
    "18446744073709551616",
    "99999999999999999999999999",
    "340282366920938463463374607431768211457",
];

/// Whether the option takes this value, with nothing else on the command line.
fn takes(command: &Command, option: &Arg, value: &str) -> bool {
    let Some(long) = option.get_long() else { return false };
    // What else would be required is not: only the value counts.
    let alone = command.clone().mut_args(|argument| argument.required(false));
    let line = [command.get_name().to_owned(), format!("--{long}={value}")];
    alone.try_get_matches_from(line).is_ok()
}

fn check(path: &str, command: &Command, checked: &mut Vec<String>) {
    for option in command.get_arguments().filter(|option| option.get_action().takes_values()) {
        let is_number = takes(command, option, "1") && !takes(command, option, "x y z");
        if !is_number {
            continue;
        }
        for value in BEYOND {
            assert!(!takes(command, option, value), "{path} {option} takes {value}");
        }
        checked.push(format!("{path} {option}"));
    }
    for below in command.get_subcommands() {
        check(&format!("{path} {}", below.get_name()), below, checked);
    }
}

#[test]
fn a_number_beyond_all_sense_is_a_usage_error_at_every_option() {
    let mut command = CommandLine::command();
    command.build();
    let mut checked = Vec::new();
    check("pigeonfs", &command, &mut checked);
    for option in
        ["wait --timeout", "mount --spool-limit", "localnet --time-scale", "receive --timeout", "follow --for"]
    {
        let (verb, long) = option.split_once(' ').expect("two words");
        assert!(
            checked.iter().any(|found| found.starts_with(&format!("pigeonfs {verb} {long}"))),
            "{option}: {checked:?}"
        );
    }
}
