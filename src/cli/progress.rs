//! Progress of files: a bar on a terminal, JSON lines elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use super::{Stop, output};
use crate::text::{shown, shown_json};

/// JSON tells of progress at most so often.
const BEAT: Duration = Duration::from_secs(1);

/// Where a verb tells how its files are doing.
pub(super) enum Progress {
    /// On a terminal.
    Bar(ProgressBar),
    /// For programs: one JSON object a line, on stdout, or on stderr where stdout carries files.
    Lines {
        /// Whether stdout carries files.
        to_stderr: bool,
        /// When progress was told last.
        told: Option<Instant>,
    },
}

impl Progress {
    /// A bar where stderr is a terminal and no JSON was asked for.
    pub(super) fn new(json: bool, stdout_is_taken: bool) -> Self {
        if json || !std::io::stderr().is_terminal() {
            return Self::Lines { to_stderr: stdout_is_taken, told: None };
        }
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} ETA {eta}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self::Bar(bar)
    }

    /// How far the file `what` is, or all of them.
    pub(super) fn at(&mut self, what: &str, done: u64, total: u64) -> Result<(), Stop> {
        match self {
            Self::Bar(bar) => {
                bar.set_message(shown(what).into_owned());
                bar.set_length(total);
                bar.set_position(done);
                Ok(())
            }
            Self::Lines { to_stderr, told } => {
                if told.is_some_and(|told| told.elapsed() < BEAT) {
                    return Ok(());
                }
                *told = Some(Instant::now());
                line(*to_stderr, &json!({ "event": "progress", "file": what, "done": done, "size": total }))
            }
        }
    }

    /// Something came to its end: `text` for a person, `event` for programs.
    pub(super) fn tell(&mut self, text: &str, event: &Value) -> Result<(), Stop> {
        match self {
            // Above the bar, on stderr like it: stdout may carry files.
            Self::Bar(bar) => {
                bar.suspend(|| writeln!(std::io::stderr(), "{}", shown(text)))?;
                Ok(())
            }
            Self::Lines { to_stderr, .. } => line(*to_stderr, event),
        }
    }

    /// Takes the bar away.
    pub(super) fn end(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

fn line(to_stderr: bool, value: &Value) -> Result<(), Stop> {
    if to_stderr {
        writeln!(std::io::stderr(), "{}", shown_json(&value.to_string()))?;
        return Ok(());
    }
    output::json(value)
}
