//! `pigeonfs doctor`

mod daemon;
mod machine;
mod state;

use clap::Args;
use serde::Serialize;

use super::context::Context;
use super::daemon::DaemonArgs;
use super::{Stop, output};
use crate::engine::control::{Failure, FailureKind};

/// Look over this machine, this state and this daemon, and say what to do
#[derive(Args, Debug)]
#[command(after_help = "\
Looks only: nothing is made, changed or repaired. Each line says what was found; `do` marks what needs something done, with what
to do. Exit codes: 0 all is well, 1 there is something to do.

Examples:
  pigeonfs doctor
  pigeonfs doctor --json | jq '.checks[] | select(.status == \"do\")'")]
pub(super) struct Typed {
    #[command(flatten)]
    daemon: DaemonArgs,
}

/// How something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Standing {
    /// All is well.
    Ok,
    /// Worth knowing, and nothing to do.
    Note,
    /// Something is to be done.
    Do,
}

/// One line.
#[derive(Clone, Debug, Serialize)]
struct Check {
    /// What was looked at.
    name: &'static str,
    status: Standing,
    /// What was found.
    found: String,
    /// What to do, where something is.
    advice: Option<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, status: Standing::Ok, found: found.into(), advice: None }
    }

    fn note(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, status: Standing::Note, found: found.into(), advice: None }
    }

    fn todo(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, status: Standing::Do, found: found.into(), advice: Some(advice.into()) }
    }
}

pub(super) async fn run(context: &Context, typed: Typed) -> Result<(), Stop> {
    let mut checks = machine::checks();
    checks.extend(state::checks(&context.state));
    checks.extend(daemon::checks(context, typed.daemon).await);
    let left = checks.iter().filter(|check| check.status == Standing::Do).count();
    if context.json {
        output::json(&serde_json::json!({ "version": 1, "well": left == 0, "checks": checks }))?;
    } else {
        let word = |standing| match standing {
            Standing::Ok => "ok",
            Standing::Note => "note",
            Standing::Do => "do",
        };
        let rows: Vec<_> = checks
            .into_iter()
            .map(|check| {
                let advice = check.advice.map(|advice| format!(". {advice}")).unwrap_or_default();
                [word(check.status).to_owned(), check.name.to_owned(), format!("{}{advice}", check.found)]
            })
            .collect();
        output::table(&rows)?;
    }
    match left {
        0 => Ok(()),
        1 => Err(Failure::new(FailureKind::Failed, "there is one thing to do").into()),
        left => Err(Failure::new(FailureKind::Failed, format!("there are {left} things to do")).into()),
    }
}
