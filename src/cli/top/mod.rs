//! `pigeonfs top`: the state of everything on the whole terminal, again and again, with a few keys.

mod screen;
mod view;

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::context::{Context, misunderstood};
use super::progress::is_utf8;
use super::signals::Signals;
use super::{Stop, milliseconds, output};
use crate::engine::control::{Failure, FailureKind, Request, Response};
use view::{Act, HOUR_MINUTES, View};

/// Show all channels, what has gone over the network lately, and what goes next
#[derive(Args, Debug)]
#[command(after_help = "\
Keys:
  up, down    choose a channel
  f           follow it for 10 minutes: look often for what is new (needs a mount)
  s, s        give up the boxes that are missing in it, and go on behind them
  t, t        drop what is kept of it here; on the network it stays
  q           quit

Examples:
  pigeonfs top
  pigeonfs status --watch     the same without keys, in plain text")]
pub(super) struct Typed {}

/// How long the screen shows the same.
const AGAIN: Duration = Duration::from_secs(1);
/// How long a key is waited for at a time, so that the thread that waits sees its end.
const KEY: Duration = Duration::from_millis(100);
/// Keys that wait; more than a person types.
const KEYS: usize = 16;
/// How long `f` follows a channel.
const FOLLOW: Duration = Duration::from_secs(600);

pub(super) async fn run(context: &Context, Typed {}: Typed) -> Result<(), Stop> {
    if context.json {
        let text = "top draws on a terminal, and prints no JSON";
        return Err(Failure::new(FailureKind::Usage, text).hint("`pigeonfs status --watch --json` does").into());
    }
    output::check()?;
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(Failure::new(FailureKind::Failed, "top needs a terminal for its screen and its keys")
            .hint("`pigeonfs status --watch` shows the same without one")
            .into());
    }
    // Asked first: an error belongs on the terminal as it was.
    let mut view = View::new(context.state.display().to_string());
    look(context, &mut view).await?;
    let signals = Signals::take()?;
    let mut screen = Screen::open()?;
    let mut due = Instant::now() + AGAIN;
    loop {
        let utf8 = is_utf8();
        screen.terminal.draw(|frame| screen::draw(frame, &view, utf8))?;
        tokio::select! {
            key = screen.keys.recv() => match key {
                Some(Event::Key(key)) if key.kind != KeyEventKind::Release => match view.key(key) {
                    Act::Quit => return Ok(()),
                    Act::Nothing => {}
                    act => {
                        view.message = Some(act_on(context, act).await);
                        due = Instant::now();
                    }
                },
                Some(_) => {}
                None => return Err(Failure::new(FailureKind::Failed, "the terminal is gone").into()),
            },
            () = signals.came() => return Err(context.interrupted()),
            () = sleep_until(due) => {
                // What cannot be asked now is told in the place of the daemon; the rest stays as it was.
                if let Err(Stop::Failure(failure)) = look(context, &mut view).await {
                    view.trouble = Some(failure.message);
                }
                due = Instant::now() + AGAIN;
            }
        }
    }
}

async fn look(context: &Context, view: &mut View) -> Result<(), Stop> {
    let Response::Status(status) = context.ask(Request::Status { name: None }).await? else {
        return Err(misunderstood());
    };
    let Response::History(history) = context.ask(Request::History { minutes: HOUR_MINUTES }).await? else {
        return Err(misunderstood());
    };
    view.see(status, history);
    Ok(())
}

/// Does what a key asks for; says what came of it.
async fn act_on(context: &Context, act: Act) -> String {
    let (request, done) = match act {
        Act::Follow(name) => {
            let done = format!("{name} is followed for 10 minutes");
            (Request::Follow { name, for_ms: milliseconds(FOLLOW) }, done)
        }
        Act::Skip(name) => {
            let done = format!("what was missing in {name} is given up");
            (Request::Skip { name }, done)
        }
        Act::Trim(name) => {
            let done = format!("what was kept of {name} here is dropped");
            (Request::Trim { name, keep_bytes: 0 }, done)
        }
        Act::Quit | Act::Nothing => return String::new(),
    };
    match context.ask(request).await {
        Ok(_) => done,
        Err(Stop::Failure(failure)) => failure.message,
        Err(Stop::BrokenPipe) => String::new(),
    }
}

/// The terminal while it is ours: in raw mode, on its alternate screen, with its keys read on a thread.
struct Screen {
    terminal: DefaultTerminal,
    keys: mpsc::Receiver<Event>,
    ended: Arc<AtomicBool>,
}

impl Screen {
    fn open() -> Result<Self, Stop> {
        let terminal = ratatui::try_init()
            .map_err(|error| Failure::new(FailureKind::Failed, format!("the terminal cannot be drawn on: {error}")))?;
        let (sender, keys) = mpsc::channel(KEYS);
        let ended = Arc::new(AtomicBool::new(false));
        let screen = Self { terminal, keys, ended: Arc::clone(&ended) };
        std::thread::Builder::new()
            .name("keys".to_owned())
            .spawn(move || {
                while !ended.load(Ordering::Relaxed) {
                    let event = match event::poll(KEY) {
                        Ok(true) => event::read(),
                        Ok(false) => continue,
                        Err(_) => return,
                    };
                    let Ok(event) = event else { return };
                    if sender.blocking_send(event).is_err() {
                        return;
                    }
                }
            })
            .map_err(|error| Failure::new(FailureKind::Failed, format!("no thread for the keys: {error}")))?;
        Ok(screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        ratatui::restore();
    }
}
