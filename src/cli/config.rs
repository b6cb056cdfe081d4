//! `pigeonfs config`, and the configuration file: options of `mount`, written once instead of at each call.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, parser::ValueSource};
use serde_json::json;
use toml::Value;

use super::{Stop, output};
use crate::engine::control::{Failure, FailureKind};

/// Options of which only one makes sense at a time: those of the file are left out where one of them was typed.
const NETWORK: &[&str] = &["config", "daemon", "localnet", "profile", "time-scale"];
/// Options of single calls, which make no sense in a file.
const NOT_IN_FILE: &[&str] = &["help", "version", "json"];

/// Show the options that the configuration file can hold, with their defaults
#[derive(Args, Debug)]
#[command(after_help = "\
The file is $XDG_CONFIG_HOME/pigeonfs/config.toml, else ~/.config/pigeonfs/config.toml. It is in TOML: a line for each option
of `pigeonfs mount`, with the same name and the same values as on the command line, or a list of them where the option may
repeat: config = [\"one.toml\", \"other.toml\"]. What is typed goes before what the file says. `state` holds for all verbs, the others for `mount`.

Examples:
  pigeonfs config > ~/.config/pigeonfs/config.toml
  pigeonfs config --path")]
pub(super) struct Typed {
    /// Print only where the file is, or would be
    #[arg(long)]
    path: bool,
}

/// The file's options, by name.
#[derive(Debug, Default)]
pub(super) struct File {
    path: PathBuf,
    options: toml::Table,
}

impl File {
    /// Reads the file; one that is not there has no options.
    ///
    /// # Errors
    /// It cannot be read, is no TOML, or holds what `mount` does not know.
    pub(super) fn load(command: &Command) -> Result<Self, Failure> {
        let Some(path) = path() else { return Ok(Self::default()) };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(wrong(&path, &format!("it cannot be read: {error}"))),
        };
        Self::parse(path, &text, command)
    }

    fn parse(path: PathBuf, text: &str, command: &Command) -> Result<Self, Failure> {
        let options: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            let before = error.span().and_then(|span| text.as_bytes().get(..span.start));
            let line = before.map(|before| before.iter().filter(|byte| **byte == b'\n').count() + 1);
            let line = line.map(|line| format!("line {line}: ")).unwrap_or_default();
            wrong(&path, &format!("{line}{}", error.message()))
        })?;
        let file = Self { path, options };
        for (name, value) in &file.options {
            let known = mount_options(command).into_iter().find(|arg| arg.get_long() == Some(&name.replace('_', "-")));
            let Some(known) = known else {
                return Err(wrong(&file.path, &format!("there is no option {name:?}")));
            };
            file.words_of(name, value, &known)?;
        }
        Ok(file)
    }

    /// What the file adds to the arguments of a `mount` that were typed.
    pub(super) fn words(&self, command: &Command, mount: &ArgMatches) -> Result<Vec<OsString>, Failure> {
        let typed = |arg: &Arg| {
            let id = arg.get_id().as_str();
            mount.try_contains_id(id).is_ok() && mount.value_source(id) == Some(ValueSource::CommandLine)
        };
        let options = mount_options(command);
        let network =
            options.iter().any(|arg| arg.get_long().is_some_and(|name| NETWORK.contains(&name)) && typed(arg));
        let mut words = Vec::new();
        for (name, value) in &self.options {
            let name = name.replace('_', "-");
            let Some(arg) = options.iter().find(|arg| arg.get_long() == Some(&name)) else { continue };
            let left_out = name == "state" || typed(arg) || (network && NETWORK.contains(&name.as_str()));
            if !left_out {
                words.extend(self.words_of(&name, value, arg)?);
            }
        }
        Ok(words)
    }

    /// One word, or as many as a list has, where the option may repeat.
    fn words_of(&self, name: &str, value: &Value, arg: &Arg) -> Result<Vec<OsString>, Failure> {
        let one = |value| self.word(name, value, arg);
        match value {
            Value::Array(values) if matches!(arg.get_action(), ArgAction::Append) => {
                values.iter().filter_map(|value| one(value).transpose()).collect()
            }
            value => Ok(one(value)?.into_iter().collect()),
        }
    }

    fn word(&self, name: &str, value: &Value, arg: &Arg) -> Result<Option<OsString>, Failure> {
        let option = name.replace('_', "-");
        let takes_value = arg.get_action().takes_values();
        match value {
            Value::Boolean(on) if !takes_value => Ok(on.then(|| format!("--{option}").into())),
            Value::String(text) if takes_value => Ok(Some(format!("--{option}={text}").into())),
            Value::Integer(number) if takes_value => Ok(Some(format!("--{option}={number}").into())),
            Value::Float(number) if takes_value => Ok(Some(format!("--{option}={number}").into())),
            _ if takes_value => {
                Err(wrong(&self.path, &format!("{name} takes a text or a number, as in {name} = \"...\"")))
            }
            _ => Err(wrong(&self.path, &format!("{name} is on or off: {name} = true"))),
        }
    }

    /// A failure of the parser may be the file's, where words of it were added.
    pub(super) fn blame(&self, failure: Failure) -> Failure {
        wrong(&self.path, &failure.message)
    }
}

/// Whether this text is a configuration file that `mount` takes.
///
/// # Errors
/// What `mount` would say of it.
pub fn check_config(text: &str) -> Result<(), String> {
    static COMMAND: OnceLock<Command> = OnceLock::new();
    let command = COMMAND.get_or_init(super::command);
    let told = |failure: Failure| failure.to_string();
    let file = File::parse(PathBuf::from("config.toml"), text, command).map_err(told)?;
    let Ok(matches) = command.clone().try_get_matches_from(["pigeonfs", "mount", "mnt"]) else { return Ok(()) };
    let Some(("mount", mount)) = matches.subcommand() else { return Ok(()) };
    let words = file.words(command, mount).map_err(told)?;
    let line = ["pigeonfs", "mount"].map(OsString::from).into_iter().chain(words).chain(["mnt".into()]);
    command.clone().try_get_matches_from(line).map(drop).map_err(|error| error.kind().to_string())
}

/// The state directory that the file names, where there is such a file and it can be read.
pub(super) fn state() -> Option<PathBuf> {
    state_of(&std::fs::read_to_string(path()?).ok()?.parse().ok()?)
}

fn state_of(options: &toml::Table) -> Option<PathBuf> {
    let path = options.get("state")?.as_str()?;
    Some(match (path.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => Path::new(&home).join(rest),
        _ => PathBuf::from(path),
    })
}

fn wrong(path: &Path, what: &str) -> Failure {
    Failure::new(FailureKind::Usage, format!("{}: {what}", path.display()))
        .hint("`pigeonfs config` prints a file with all options and their defaults")
}

/// Where the file is, or would be.
fn path() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let config = absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")))?;
    Some(config.join("pigeonfs/config.toml"))
}

/// The options of `mount` that a file can hold.
fn mount_options(command: &Command) -> Vec<Arg> {
    let of_all = command.get_arguments().filter(|arg| arg.is_global_set());
    let mount = command.find_subcommand("mount").into_iter().flat_map(Command::get_arguments);
    let all = mount.chain(of_all).filter(|arg| !arg.is_hide_set());
    let mut options: Vec<Arg> =
        all.filter(|arg| arg.get_long().is_some_and(|name| !NOT_IN_FILE.contains(&name))).cloned().collect();
    let mut seen = std::collections::HashSet::new();
    options.retain(|arg| seen.insert(arg.get_long().map(str::to_owned)));
    options
}

/// Prints the options as a file, all of them commented out.
pub(super) fn run(typed: &Typed, command: &Command, json: bool) -> Result<(), Stop> {
    let path = path();
    let exists = path.as_deref().is_some_and(Path::exists);
    let shown = path.as_deref().map_or("(there is no $HOME)".to_owned(), |path| path.display().to_string());
    if json {
        let options: Vec<_> = mount_options(command)
            .iter()
            .map(|arg| json!({ "name": arg.get_long(), "default": default_of(arg), "help": help_of(arg) }))
            .collect();
        return output::json(&json!({ "version": 1, "path": shown, "exists": exists, "options": options }));
    }
    if typed.path {
        return output::line(&shown);
    }
    let mut text = format!(
        "# Options of `pigeonfs mount`, in TOML. This file belongs at\n#   {shown}\n# A line that begins with # says what holds \
         without it. What is typed at a call goes before what stands here.\n"
    );
    for arg in mount_options(command) {
        text.push('\n');
        for line in wrapped(&help_of(&arg), 98) {
            text.push_str(&format!("# {line}\n"));
        }
        text.push_str(&format!("#{}\n", example_of(&arg)));
    }
    output::bytes(text.as_bytes())
}

fn help_of(arg: &Arg) -> String {
    arg.get_help().map(ToString::to_string).unwrap_or_default()
}

fn default_of(arg: &Arg) -> Option<String> {
    arg.get_default_values().first().map(|value| value.to_string_lossy().into_owned())
}

/// The line for an option: its default, or a value that it could have.
fn example_of(arg: &Arg) -> String {
    let name = arg.get_long().unwrap_or_default();
    if !arg.get_action().takes_values() {
        return match arg.get_action() {
            ArgAction::Count => format!("{name} = true"),
            _ => format!("{name} = false"),
        };
    }
    let value_name = arg.get_value_names().and_then(|names| names.first()).map(ToString::to_string);
    let value = default_of(arg).unwrap_or_else(|| value_name.unwrap_or_default());
    format!("{name} = {}", Value::String(value))
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last().map_or(0, |line| line.chars().count());
        if line > 0 && line + word.chars().count() >= width {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}
