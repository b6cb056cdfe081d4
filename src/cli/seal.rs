//! `pigeonfs init`, `pigeonfs seal` and `pigeonfs unseal`

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::context::Context;
use super::{Stop, key, output};
use crate::engine::control::{Failure, FailureKind};
use crate::store::{self, Making, SealHeader, StateDir, Store};
use crate::text::shown_path;

/// Make an empty state
#[derive(Args, Debug)]
#[command(after_help = "\
Verbs that need a state make one by themselves; this one makes a sealed one, or one in a place of its own. See
`pigeonfs help seal` for what sealing does.

Examples:
  pigeonfs init --seal                                  asks for a passphrase
  pigeonfs --state /srv/p --key-file /etc/p.key init --seal")]
pub(super) struct Init {
    /// Seal it: nobody who gets the disk reads names, contents or capabilities without the key
    #[arg(long)]
    seal: bool,
}

/// Seal the state: without its key, its files say nothing of names, contents or capabilities. Of a sealed state, change
/// the key
#[derive(Args, Debug)]
#[command(after_help = "\
The key is a passphrase, or the content of a file without one newline at its end (at most 4 KiB). Whoever opens the
state gives it: on the terminal, with --key-file, or as the credential `pigeonfs.key` of a service. A verb that talks
to a mount needs none. Nobody can open a state whose key is lost.

The state must not be mounted, and its disk needs room for it twice. The files that were there before are overwritten;
flash, snapshots and backups may keep copies of them. Of a sealed state, a copy of its old seal.json still opens with
the old key.

Examples:
  pigeonfs seal                                                 asks for a passphrase
  pigeonfs seal --key-file /etc/p.key                           the key is in a file
  pigeonfs seal --key-file old.key --new-key-file new.key       change the key")]
pub(super) struct Typed {
    /// The key that the state is to have, where it is sealed already; else it is asked for
    #[arg(long, value_name = "FILE")]
    new_key_file: Option<PathBuf>,
}

/// Unseal the state: its files can be read without a key again
#[derive(Args, Debug)]
#[command(after_help = "\
The state must not be mounted, and its disk needs room for it twice.

Examples:
  pigeonfs unseal
  pigeonfs unseal --key-file /etc/p.key")]
pub(super) struct Unseal {}

pub(super) async fn init(context: &Context, typed: Init) -> Result<(), Stop> {
    if !typed.seal && context.keys.names_a_file() {
        return Err(Failure::new(FailureKind::Usage, "--key-file was given, and the state would not be sealed")
            .hint("add --seal")
            .into());
    }
    if StateDir::check(&context.state, Making::Never).is_ok() {
        let text = format!("there is a state in {} already", shown_path(&context.state));
        return Err(Failure::new(FailureKind::Failed, text).hint("`pigeonfs seal` seals it").into());
    }
    context.check_state()?;
    let passphrase = typed.seal.then(|| context.keys.fresh()).transpose()?;
    let state = StateDir::take(&context.state, context.making).map_err(Failure::from)?;
    match passphrase {
        Some(passphrase) => store::seal(&state, &passphrase).map_err(Failure::from)?,
        None => {
            context.keys.unlock().open(&state)?;
            Store::open_choosing(&state, None).map_err(Failure::from)?.0.close();
        }
    }
    tell(context, typed.seal)
}

pub(super) async fn seal(context: &Context, typed: Typed) -> Result<(), Stop> {
    let header = header(context)?;
    let passphrase = match (&header, &typed.new_key_file) {
        (_, Some(path)) if header.is_some() || !context.keys.names_a_file() => key::of_file(path)?,
        (None, Some(_)) => {
            let text = "the state is not sealed yet, and two keys were given for it";
            return Err(Failure::new(FailureKind::Usage, text).hint("give the one that it is to have").into());
        }
        (Some(_), None) => {
            // The old one first, so that nobody thinks up a new one for nothing.
            context.ask_for_key()?;
            key::typed_twice("--new-key-file")?
        }
        (None, None) => context.keys.fresh()?,
        (Some(_), Some(_)) => unreachable!("the first arm takes it"),
    };
    let state = take(context)?;
    store::seal(&state, &passphrase).map_err(Failure::from)?;
    tell(context, true)
}

pub(super) async fn unseal(context: &Context, Unseal {}: Unseal) -> Result<(), Stop> {
    if header(context)?.is_none() {
        let text = format!("the state in {} is not sealed", shown_path(&context.state));
        return Err(Failure::new(FailureKind::Failed, text).into());
    }
    let state = take(context)?;
    store::unseal(&state).map_err(Failure::from)?;
    tell(context, false)
}

fn header(context: &Context) -> Result<Option<SealHeader>, Failure> {
    context.check_state()?;
    Ok(SealHeader::read(&StateDir::find(&context.state)?)?)
}

fn take(context: &Context) -> Result<StateDir, Failure> {
    context.ask_for_key()?;
    let state = StateDir::take(&context.state, Making::Never)?;
    context.keys.unlock().open(&state)?;
    Ok(state)
}

fn tell(context: &Context, sealed: bool) -> Result<(), Stop> {
    if context.json {
        return output::json(&json!({ "state": context.state.to_string_lossy(), "sealed": sealed }));
    }
    Ok(())
}
