//! What the screen shows, and what the keys do. Nothing is asked or drawn here.

use std::collections::VecDeque;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::engine::status::{ChannelStatus, HistoryStatus, LinkStatus, RoleStatus, Status};
use crate::units::show_size;

/// The minutes that the sparklines show.
pub(super) const HOUR_MINUTES: u64 = 60;
/// Events that are kept.
const EVENTS: usize = 100;

/// What a key asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Act {
    Nothing,
    Quit,
    Follow(String),
    Skip(String),
    Trim(String),
}

/// What is known, and what is chosen.
pub(super) struct View {
    pub(super) state: String,
    pub(super) status: Status,
    pub(super) history: Option<HistoryStatus>,
    /// Why the newest look failed.
    pub(super) trouble: Option<String>,
    /// What the last key came to.
    pub(super) message: Option<String>,
    /// What has changed between two looks, the newest last.
    pub(super) events: VecDeque<String>,
    pub(super) selected: usize,
    /// The key that is to be typed twice, and was typed once.
    asked: Option<char>,
}

impl View {
    pub(super) fn new(state: String) -> Self {
        Self {
            state,
            status: Status::default(),
            history: None,
            trouble: None,
            message: None,
            events: VecDeque::new(),
            selected: 0,
            asked: None,
        }
    }

    /// Takes in a newer look.
    pub(super) fn see(&mut self, status: Status, history: HistoryStatus) {
        if self.history.is_some() {
            self.tell_of(&status);
        }
        // The choice stays with its channel, wherever that is listed now.
        let chosen = self.chosen().map(|channel| channel.name.clone());
        let at = chosen.and_then(|name| status.channels.iter().position(|channel| channel.name == name));
        self.selected = at.unwrap_or(self.selected).min(status.channels.len().saturating_sub(1));
        (self.status, self.history, self.trouble) = (status, Some(history), None);
    }

    pub(super) fn chosen(&self) -> Option<&ChannelStatus> {
        self.status.channels.get(self.selected)
    }

    fn tell_of(&mut self, new: &Status) {
        let mut events = Vec::new();
        if new.daemon.link != self.status.daemon.link {
            events.push(match new.daemon.link {
                LinkStatus::Connected => "the network can be used".to_owned(),
                LinkStatus::NoConsensus => "the daemon waits for its network".to_owned(),
                LinkStatus::NoDaemon => "there is no daemon".to_owned(),
                LinkStatus::Refused => "the daemon is refused".to_owned(),
            });
        }
        for (before, new) in self.status.daemons.iter().zip(&new.daemons) {
            let by = new.address.as_deref().unwrap_or_default();
            match (before.link == LinkStatus::Connected, new.link == LinkStatus::Connected) {
                (true, false) => events.push(format!("the network cannot be used by {by} any more")),
                (false, true) => events.push(format!("the network can be used by {by}")),
                _ => {}
            }
        }
        for channel in &new.channels {
            let before = self.status.channels.iter().find(|before| before.name == channel.name);
            let Some(before) = before else {
                events.push(format!("{}: new here", channel.name));
                continue;
            };
            let grown = channel.size.saturating_sub(before.size);
            match channel.role {
                RoleStatus::Writer => {
                    if grown > 0 {
                        events.push(format!("{}: {} accepted", channel.name, show_size(grown)));
                    }
                    if before.unstored_bytes() > 0 && channel.unstored_bytes() == 0 {
                        events.push(format!("{}: all of it is stored", channel.name));
                    }
                }
                RoleStatus::Reader if grown > 0 => {
                    events.push(format!("{}: {} arrived", channel.name, show_size(grown)));
                }
                RoleStatus::Reader => {}
            }
            for (was, is) in [(&before.fenced, &channel.fenced), (&before.error, &channel.error)] {
                if let Some(text) = is.as_ref().filter(|_| was != is) {
                    events.push(format!("{}: {text}", channel.name));
                }
            }
        }
        for before in &self.status.channels {
            if !new.channels.iter().any(|channel| channel.name == before.name) {
                events.push(format!("{}: no longer here", before.name));
            }
        }
        self.events.extend(events);
        while self.events.len() > EVENTS {
            self.events.pop_front();
        }
    }

    /// What a key does. Those that give something up are to be typed twice.
    pub(super) fn key(&mut self, key: KeyEvent) -> Act {
        let asked = self.asked.take();
        self.message = None;
        let last = self.status.channels.len().saturating_sub(1);
        match key.code {
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Act::Quit,
            KeyCode::Char('q') | KeyCode::Esc => return Act::Quit,
            KeyCode::Up | KeyCode::Char('k') => self.selected = self.selected.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.selected = (self.selected + 1).min(last),
            KeyCode::Home => self.selected = 0,
            KeyCode::End => self.selected = last,
            KeyCode::Char(letter @ ('f' | 's' | 't')) => {
                let Some(channel) = self.chosen() else {
                    self.message = Some("there is no channel yet".to_owned());
                    return Act::Nothing;
                };
                let name = channel.name.clone();
                let warning = match (letter, channel.role) {
                    ('f' | 's', RoleStatus::Writer) => {
                        self.message = Some(format!("{name} is written here: nothing arrives in it"));
                        return Act::Nothing;
                    }
                    ('f', _) => return Act::Follow(name),
                    ('s', _) => format!("gives up what is missing in {name}, for ever: type s again"),
                    _ => format!("drops what is kept of {name} here, which cannot be read here any more: type t again"),
                };
                if asked == Some(letter) {
                    return if letter == 's' { Act::Skip(name) } else { Act::Trim(name) };
                }
                (self.asked, self.message) = (Some(letter), Some(warning));
            }
            _ => {}
        }
        Act::Nothing
    }
}
