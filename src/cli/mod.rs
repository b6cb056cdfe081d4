//! The command line: one file a verb. What was typed is turned into what is meant before anything runs; what the verbs
//! do is done by the rooms below. Only here does anything go to standard output, and only here is an exit code chosen.

mod accept;
mod add;
mod adopt;
mod append;
#[cfg(test)]
mod bounds;
mod completions;
mod config;
mod context;
mod cp_compat;
mod daemon;
mod doctor;
mod estimate;
mod failure;
mod follow;
mod forget;
mod harden;
mod help;
mod history;
mod invite;
mod keep;
mod key;
mod list;
mod localnet;
mod log;
mod log_format;
mod log_verb;
mod mount;
#[path = "move.rs"]
mod move_spool;
mod new;
mod output;
mod progress;
mod qr;
mod read;
mod receive;
mod rename;
mod resend;
mod seal;
mod secret_args;
mod secret_input;
mod send;
mod share;
mod signals;
mod skip;
mod status;
mod top;
mod trim;
mod umount;
mod usage;
mod verify;
mod version;
mod wait;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgMatches, Args, Command, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum as _};
use clap_complete::{ArgValueCompleter, CompleteEnv};

pub use config::check_config;

use crate::engine::control::Failure;
use crate::store::ChannelName;
use crate::units::{size as byte_count, span as seconds};
use context::Context;
use key::Keys;

const AFTER_HELP: &str = "\
Try it with no mixnet at hand:
  mkdir -p ~/pigeons
  pigeonfs mount --localnet ~/pigeons     in one terminal, and in another
  echo hello >> ~/pigeons/log
  pigeonfs status
  pigeonfs share log                      what a reader gives to `pigeonfs add`

`pigeonfs help VERB` has examples of each verb, and `pigeonfs help glossary` explains the words.

Exit codes: 0 done, 1 failed, 2 usage, 3 timed out, 4 no daemon, 5 fenced or refused, 6 busy, 130 interrupted,
141 nobody read the output.

Katzenpost is pre-alpha: do not depend on it for strong security or anonymity.";

/// Pigeonhole channels of the Katzenpost mixnet, mounted as files
#[derive(Debug, Parser)]
#[command(name = "pigeonfs", bin_name = "pigeonfs", version, after_help = AFTER_HELP, max_term_width = 100, disable_help_subcommand = true)]
struct CommandLine {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    common: Common,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Options of every verb")]
struct Common {
    /// The state directory [default: $PIGEONFS_STATE, else `state` of `pigeonfs config`, else
    /// $XDG_STATE_HOME/pigeonfs, else ~/.local/state/pigeonfs]
    #[arg(long, global = true, value_name = "DIR")]
    state: Option<PathBuf>,
    /// The key of a sealed state: what FILE holds, without one newline at its end [default: the credential `pigeonfs.key`
    /// of the service, else it is asked for on the terminal]
    #[arg(long, global = true, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Print JSON: results on stdout, failures on stderr
    #[arg(long, global = true)]
    json: bool,
    /// Log more to stderr; twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Log errors only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// What to log, as `warn` or `pigeonfs::engine=debug,info`
    #[arg(long, global = true, value_name = "FILTER", env = "PIGEONFS_LOG", hide_env_values = true)]
    log: Option<String>,
    /// How the lines of the log look: `text`, `json` or `journald`
    #[arg(long, global = true, value_name = "FORMAT", value_enum, default_value = "auto", hide_default_value = true)]
    #[arg(hide_possible_values = true)]
    log_format: log_format::LogFormat,
}

impl Common {
    /// The arguments that say the same, for a process that takes this one's place.
    fn again(&self) -> Vec<OsString> {
        let mut arguments = Vec::new();
        for (option, value) in [
            ("--state", self.state.as_ref().map(OsString::from)),
            ("--key-file", self.key_file.as_ref().map(OsString::from)),
            ("--log", self.log.as_ref().map(OsString::from)),
        ] {
            arguments.extend(value.into_iter().flat_map(|value| [option.into(), value]));
        }
        let format = self.log_format.to_possible_value().map(|value| value.get_name().into());
        arguments.extend(format.into_iter().flat_map(|format| ["--log-format".into(), format]));
        arguments.extend(self.json.then(|| "--json".into()));
        arguments.extend(self.quiet.then(|| "--quiet".into()));
        arguments.extend((0..self.verbose).map(|_| "--verbose".into()));
        arguments
    }
}

#[derive(Debug, Subcommand)]
enum Verb {
    Mount(mount::Typed),
    Umount(umount::Typed),
    Localnet(localnet::Typed),
    List(list::Typed),
    Status(status::Typed),
    Top(top::Typed),
    New(new::Typed),
    Add(add::Typed),
    Share(share::Typed),
    Invite(invite::Typed),
    Accept(accept::Typed),
    Forget(forget::Typed),
    Rename(rename::Typed),
    Trim(trim::Typed),
    Follow(follow::Typed),
    Skip(skip::Typed),
    Adopt(adopt::Typed),
    Move(move_spool::Typed),
    Keep(keep::Typed),
    Verify(verify::Typed),
    Resend(resend::Typed),
    Wait(wait::Typed),
    Append(append::Typed),
    Read(read::Typed),
    Send(send::Typed),
    Receive(receive::Typed),
    Log(log_verb::Typed),
    Init(seal::Init),
    Seal(seal::Typed),
    Unseal(seal::Unseal),
    Doctor(doctor::Typed),
    CpCompat(cp_compat::Typed),
    Config(config::Typed),
    Completions(completions::Typed),
    Help(help::Typed),
}

impl Verb {
    /// Whether the verb has something to say on standard output when all is well.
    fn prints(&self, json: bool) -> bool {
        match self {
            Self::Mount(_) | Self::Umount(_) | Self::New(_) | Self::Add(_) | Self::Forget(_) => json,
            Self::Init(_) | Self::Seal(_) | Self::Unseal(_) => json,
            Self::Accept(_) | Self::Rename(_) | Self::Follow(_) | Self::Wait(_) | Self::Append(_) => json,
            _ => true,
        }
    }

    /// Whether the verb has no other work than to print, and no verdict in its exit code.
    fn only_prints(&self) -> bool {
        matches!(
            self,
            Self::List(_)
                | Self::Status(_)
                | Self::Share(_)
                | Self::Log(_)
                | Self::Read(_)
                | Self::Config(_)
                | Self::Completions(_)
                | Self::Help(_)
        )
    }

    /// What an interruption leaves behind, and what goes on with it.
    fn kept(&self) -> &'static str {
        match self {
            Self::Send(_) => {
                "what was accepted is kept: a mount, `pigeonfs wait NAME` or the same command goes on with it"
            }
            Self::Append(_) => "what was read from stdin is kept: a mount, or `pigeonfs wait NAME`, sends it",
            Self::Receive(_) => "what has arrived is kept: the same command goes on",
            Self::Read(_) => "what has arrived is kept: `--offset` goes on behind what was printed",
            Self::Wait(_) => "nothing is lost: a mount goes on sending and fetching, or `pigeonfs wait` again",
            Self::Invite(_) => "the invitation stays: a mount, or `pigeonfs invite --again NAME`, waits for its answer",
            Self::Accept(_) => "the code is kept: a mount, or the same command, goes on with it",
            Self::Adopt(_) | Self::Skip(_) => "what was learned is kept: the same command goes on",
            _ => "nothing is lost: the same command can be typed again",
        }
    }
}

/// Why a verb ended before its work was done.
#[derive(Debug)]
enum Stop {
    /// It failed.
    Failure(Failure),
    /// Nobody reads our output any more. That is the reader's decision, and nothing is said of it.
    BrokenPipe,
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

/// Runs the command with these arguments, the program's name first. Called as `mount.pigeonfs` it speaks mount(8)'s
/// language. `stdout_was_closed` says that the process began without a standard output.
pub fn main(arguments: impl IntoIterator<Item = OsString>, stdout_was_closed: bool) -> ExitCode {
    if stdout_was_closed {
        output::is_closed();
    }
    let hardened = harden::process();
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    // Where pigeonhole-cp is spoken, capabilities are arguments; that verb hides them itself.
    let is_compatible = arguments.first().is_some_and(|program| cp_compat::is_called(program))
        || arguments.get(1).is_some_and(|argument| argument == "cp-compat");
    if !is_compatible && let Err(failure) = secret_args::refuse(&arguments) {
        return failure::tell(&failure, arguments.iter().any(|argument| argument == "--json"));
    }
    if arguments.first().is_some_and(|program| mount::helper::is_called(program)) {
        match mount::helper::translate(&arguments, takes_value) {
            Ok(Some(meant)) => arguments = meant,
            Ok(None) => return ExitCode::SUCCESS,
            Err(failure) => return failure::tell(&failure, false),
        }
    }
    if arguments.first().is_some_and(|program| cp_compat::is_called(program)) {
        arguments.insert(1, "cp-compat".into());
    }
    let here = std::env::current_dir().ok();
    match CompleteEnv::with_factory(command).var(completions::VARIABLE).try_complete(&arguments, here.as_deref()) {
        Ok(false) => {}
        Ok(true) => return ExitCode::SUCCESS,
        Err(error) => return failure::usage(&error, &command(), &arguments, false),
    }
    let typed = match parse(&arguments) {
        Ok(typed) => typed,
        Err(code) => return code,
    };
    let (json, only_prints) = (typed.common.json, typed.verb.only_prints());
    let sound = hardened.and_then(|()| if typed.verb.prints(json) { output::check() } else { Ok(()) });
    let entered = sound.and_then(|()| match &typed.verb {
        Verb::Mount(_) => mount::as_owner::enter(
            &Context::new(typed.common.state.clone(), true, json, Keys::default())?.state,
            &arguments,
        ),
        _ => Ok(()),
    });
    let result = entered.map_err(Stop::from).and_then(|()| match &typed.verb {
        Verb::Mount(mount) if mount.goes_to_background() && !mount::background::is_child() => {
            mount::background::run(&arguments)
        }
        Verb::CpCompat(copy) if copy.has_secrets() => Err(copy.hide_secrets(typed.common.again()).into()),
        Verb::Help(typed) => match typed.words() {
            Some(words) => Ok(help_of(&words, json)),
            None => help::run(typed, command(), json).map(|()| ExitCode::SUCCESS),
        },
        Verb::Config(typed) => config::run(typed, &command(), json).map(|()| ExitCode::SUCCESS),
        Verb::Completions(typed) => completions::run(typed).map(|()| ExitCode::SUCCESS),
        _ => meant(&typed.common, &typed.verb)?.run(typed.verb).map(|()| ExitCode::SUCCESS),
    });
    log::finish();
    match result {
        Ok(code) => code,
        // Who reads what is only printed has read enough. Work that was cut short must not look like work that was done.
        Err(Stop::BrokenPipe) if only_prints => ExitCode::SUCCESS,
        Err(Stop::BrokenPipe) => failure::broken_pipe(),
        Err(Stop::Failure(failure)) => failure::tell(&failure, json),
    }
}

/// The whole command: as its verbs declare it, with the help texts laid out for the terminal and the names of channels
/// completed.
fn command() -> Command {
    let mut command = help::reflow(CommandLine::command()).long_version(version::text());
    let verbs: Vec<String> = command.get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
    for verb in verbs.into_iter().filter(|verb| !matches!(verb.as_str(), "new" | "add" | "accept")) {
        command = command.mut_subcommand(verb, |verb| {
            verb.mut_args(|arg| match arg.get_id().as_str() {
                "name" | "old" | "to" => arg.add(ArgValueCompleter::new(completions::channels)),
                _ => arg,
            })
        });
    }
    command
}

/// What was typed, with what the configuration file adds to it; or the exit code, where it was told why there is nothing
/// to run.
fn parse(arguments: &[OsString]) -> Result<CommandLine, ExitCode> {
    let json = arguments.iter().any(|word| word == "--json");
    let command = command();
    let understand = |words: &[OsString]| command.clone().try_get_matches_from(words);
    let matches = understand(arguments).map_err(|error| failure::usage(&error, &command, arguments, json))?;
    let typed = |matches: &ArgMatches| {
        CommandLine::from_arg_matches(matches).map_err(|error| failure::usage(&error, &command, arguments, json))
    };
    let needs_none = ["config", "completions", "help", "umount"];
    if matches.subcommand_name().is_some_and(|verb| needs_none.contains(&verb)) {
        return typed(&matches);
    }
    let told = |failure| failure::tell(&failure, json);
    let config = config::File::load(&command).map_err(told)?;
    let Some(("mount", mount)) = matches.subcommand() else { return typed(&matches) };
    let further = config.words(&command, mount).map_err(told)?;
    if further.is_empty() {
        return typed(&matches);
    }
    // Directly behind the verb. A directory may have its name too.
    let mut refused = None;
    for at in (1..arguments.len()).filter(|at| arguments[*at] == "mount") {
        let (before, behind) = arguments.split_at(at + 1);
        let words = [before, &further, behind].concat();
        match understand(&words) {
            Ok(matches) => return typed(&matches),
            Err(error) => refused = refused.or_else(|| Some(usage::failure(&error, &command, &words))),
        }
    }
    Err(refused.map_or(ExitCode::FAILURE, |failure| failure::tell(&config.blame(failure), json)))
}

/// Prints the help that these words ask for; its exit code.
fn help_of(words: &[OsString], json: bool) -> ExitCode {
    let command = command();
    match command.clone().try_get_matches_from(words) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => failure::usage(&error, &command, words, json),
    }
}

/// Whether `pigeonfs mount` has this long option, and whether it takes a value.
fn takes_value(option: &str) -> Option<bool> {
    let mut command = CommandLine::command();
    command.build();
    let mount = command.find_subcommand("mount")?;
    let found = mount.get_arguments().find(|argument| argument.get_long() == Some(option))?;
    Some(found.get_action().takes_values())
}

fn meant(common: &Common, verb: &Verb) -> Result<Context, Failure> {
    let foreground = matches!(verb, Verb::Mount(_) | Verb::Localnet(_));
    let (plain, file) = match verb {
        Verb::Mount(mount) => (mount.goes_to_background() || mount.log_file().is_some(), mount.log_file()),
        _ => (false, None),
    };
    log::start(common.log.as_deref(), common.log_format, common.verbose, common.quiet, foreground, plain)?;
    let context =
        Context::new(common.state.clone(), makes_state(verb), common.json, Keys::new(common.key_file.clone()))?;
    if context.is_sealed() {
        log::seal();
    }
    file.map_or(Ok(()), log::to_file)?;
    Ok(Context { kept: verb.kept(), ..context })
}

/// Whether the verb makes a state where there is none. Others only look, or change what is there: a path that is mistyped
/// must not become a state.
fn makes_state(verb: &Verb) -> bool {
    match verb {
        Verb::Mount(_) | Verb::Localnet(_) | Verb::New(_) | Verb::Add(_) | Verb::Append(_) | Verb::Send(_) => true,
        Verb::Init(_) => true,
        Verb::Receive(typed) => typed.takes_capability(),
        Verb::Invite(typed) => typed.begins(),
        Verb::Accept(typed) => typed.begins(),
        _ => false,
    }
}

async fn run(context: &Context, verb: Verb) -> Result<(), Stop> {
    match verb {
        Verb::Mount(typed) => mount::run(context, typed).await,
        Verb::Umount(typed) => umount::run(context, typed).await,
        Verb::Localnet(typed) => localnet::run(context, typed).await,
        Verb::List(typed) => list::run(context, typed).await,
        Verb::Status(typed) => status::run(context, typed).await,
        Verb::Top(typed) => top::run(context, typed).await,
        Verb::New(typed) => new::run(context, typed).await,
        Verb::Add(typed) => add::run(context, typed).await,
        Verb::Share(typed) => share::run(context, typed).await,
        Verb::Forget(typed) => forget::run(context, typed).await,
        Verb::Rename(typed) => rename::run(context, typed).await,
        Verb::Trim(typed) => trim::run(context, typed).await,
        Verb::Follow(typed) => follow::run(context, typed).await,
        Verb::Skip(typed) => Box::pin(skip::run(context, typed)).await,
        Verb::Adopt(typed) => adopt::run(context, typed).await,
        Verb::Move(typed) => move_spool::run(context, typed).await,
        Verb::Invite(typed) => invite::run(context, typed).await,
        Verb::Accept(typed) => accept::run(context, typed).await,
        Verb::Keep(typed) => keep::run(context, typed).await,
        Verb::Verify(typed) => verify::run(context, typed).await,
        Verb::Resend(typed) => resend::run(context, typed).await,
        Verb::Wait(typed) => wait::run(context, typed).await,
        Verb::Append(typed) => Box::pin(append::run(context, typed)).await,
        Verb::Read(typed) => Box::pin(read::run(context, typed)).await,
        Verb::Send(typed) => Box::pin(send::run(context, typed)).await,
        Verb::Receive(typed) => Box::pin(receive::run(context, typed)).await,
        Verb::Log(typed) => log_verb::run(context, typed).await,
        Verb::Init(typed) => seal::init(context, typed).await,
        Verb::Seal(typed) => seal::seal(context, typed).await,
        Verb::Unseal(typed) => seal::unseal(context, typed).await,
        Verb::Doctor(typed) => Box::pin(doctor::run(context, typed)).await,
        Verb::CpCompat(typed) => Box::pin(cp_compat::run(context, typed)).await,
        // These need neither a state nor a runtime: `main` runs them.
        Verb::Config(_) | Verb::Completions(_) | Verb::Help(_) => Ok(()),
    }
}

/// Reads a channel's name from an argument.
fn name(text: &str) -> Result<ChannelName, String> {
    ChannelName::parse(text).map_err(|error| error.to_string())
}

/// A time as the control socket carries it.
fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        CommandLine::command().debug_assert();
    }
}
