//! How the view is drawn: without colours, and without letters that the terminal may not have.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Text};
use ratatui::widgets::{Paragraph, Row, Table, TableState};

use super::super::history::{Spans, marks};
use super::super::status::{access, daemons, standing};
use super::view::View;
use crate::engine::status::{ChannelStatus, RoleStatus};
use crate::text::shown;
use crate::units::{show_size, show_span};

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const CHOSEN: Style = Style::new().add_modifier(Modifier::REVERSED);
/// Rows of events, with their head.
const EVENTS: u16 = 6;
const KEYS: &str = "up/down choose   f follow   s skip   t trim   q quit";

pub(super) fn draw(frame: &mut Frame<'_>, view: &View, utf8: bool) {
    let heading = heading(view);
    let rows = u16::try_from(heading.len()).unwrap_or(u16::MAX);
    let [head, rates, channels, events, foot] = Layout::vertical([
        Constraint::Length(rows.saturating_add(1)),
        Constraint::Length(4),
        Constraint::Min(3),
        Constraint::Length(EVENTS),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(heading), head);
    frame.render_widget(lately(view, usize::from(rates.width), utf8), rates);
    table(frame, view, channels);
    frame.render_widget(newest(view, usize::from(events.height)), events);
    let foot_text = view.message.as_deref().map_or_else(|| KEYS.into(), shown);
    frame.render_widget(Line::styled(foot_text.into_owned(), BOLD), foot);
}

fn heading(view: &View) -> Vec<Line<'static>> {
    let status = &view.status;
    let links = view.trouble.as_ref().map_or_else(|| daemons(status), |trouble| vec![shown(trouble).into_owned()]);
    let spool = format!("{} of {}", show_size(status.spool_bytes), show_size(status.spool_limit));
    let cache = format!("{} of {}", show_size(status.cache_bytes), show_size(status.cache_limit));
    let mut lines = vec![Line::from(format!("state   {}", shown(&view.state)))];
    lines.extend(links.into_iter().map(|link| Line::from(format!("daemon  {link}"))));
    lines.push(Line::from(format!("spool   {spool} accepted and not yet stored; {cache} of the cache are used")));
    lines
}

/// The last hour, a mark a minute.
fn lately(view: &View, width: usize, utf8: bool) -> Paragraph<'static> {
    let Some(history) = &view.history else { return Paragraph::new("") };
    let minutes = width.saturating_sub(34).clamp(10, 60);
    let spans = Spans::of(history, history.minutes);
    let line = |name: &str, values: &[u64]| {
        let shown = &values[values.len().saturating_sub(minutes)..];
        let now = values.last().copied().unwrap_or_default();
        Line::from(format!("{name:<8}|{}| {} a minute now", marks(shown, utf8), show_size(now)))
    };
    Paragraph::new(vec![
        Line::styled(format!("The last {minutes} minutes"), BOLD),
        line("stored", &spans.stored),
        line("arrived", &spans.arrived),
    ])
}

fn table(frame: &mut Frame<'_>, view: &View, area: Rect) {
    if view.status.channels.is_empty() {
        let text = "There is no channel yet: `pigeonfs new NAME` or `pigeonfs add NAME` makes one.";
        frame.render_widget(Paragraph::new(text), area);
        return;
    }
    let head = Row::new(["NAME", "ACCESS", "SIZE", "RATE", "NEXT", "STATE"]).style(BOLD);
    let rows = view.status.channels.iter().map(|channel| {
        let slash = if channel.files.is_some() { "/" } else { "" };
        Row::new([
            format!("{}{slash}", shown(&channel.name)),
            access(channel).to_owned(),
            show_size(channel.size),
            rate(channel),
            next(channel),
            standing(channel),
        ])
    });
    let widths = [
        Constraint::Max(24),
        Constraint::Length(6),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(18),
        Constraint::Min(10),
    ];
    let mut chosen = TableState::default().with_selected(view.selected);
    let table = Table::new(rows, widths).header(head).row_highlight_style(CHOSEN);
    frame.render_stateful_widget(table, area, &mut chosen);
}

fn rate(channel: &ChannelStatus) -> String {
    if channel.boxes_per_minute > 0.0 { format!("{:.1}/min", channel.boxes_per_minute) } else { String::new() }
}

/// What comes next for a channel, and when.
fn next(channel: &ChannelStatus) -> String {
    match channel.role {
        RoleStatus::Writer => channel.eta_ms.map_or_else(String::new, |left| format!("done in {}", show_span(left))),
        RoleStatus::Reader => {
            channel.next_probe_ms.map_or_else(String::new, |left| format!("asks in {}", show_span(left)))
        }
    }
}

fn newest(view: &View, height: usize) -> Paragraph<'static> {
    let room = height.saturating_sub(1);
    let events = view.events.iter().skip(view.events.len().saturating_sub(room));
    let mut lines = vec![Line::styled("Events", BOLD)];
    lines.extend(events.map(|event| Line::from(shown(event).into_owned())));
    Paragraph::new(Text::from(lines))
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

    use super::super::view::Act;
    use super::*;
    use crate::engine::status::{DaemonStatus, HistoryStatus, LinkStatus, Status};
    use crate::store::HistoryPoint;

    fn channel(name: &str, role: RoleStatus, size: u64, stored_bytes: u64) -> ChannelStatus {
        ChannelStatus { size, stored_bytes, ..super::super::super::status::tests::named(name, role) }
    }

    fn looks(channels: Vec<ChannelStatus>, link: LinkStatus) -> (Status, HistoryStatus) {
        let mut status = Status { channels, spool_limit: 1 << 30, cache_limit: 1 << 30, ..Status::default() };
        status.daemon.link = link;
        let point = |minute, stored_bytes| HistoryPoint { minute, stored_bytes, ..HistoryPoint::default() };
        let points = vec![point(950, 1000), point(999, 500), point(1000, 2048)];
        (status, HistoryStatus { version: 1, now: 1000, minutes: 60, points })
    }

    fn drawn(view: &View, width: u16, height: u16, utf8: bool) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a screen");
        terminal.draw(|frame| draw(frame, view, utf8)).expect("drawn");
        let buffer = terminal.backend().buffer();
        let row = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
        (0..height).map(row).collect::<Vec<_>>().join("\n")
    }

    fn view() -> View {
        let mut view = View::new("/state".to_owned());
        let (status, history) = looks(
            vec![channel("log", RoleStatus::Writer, 5000, 2000), channel("news", RoleStatus::Reader, 0, 0)],
            LinkStatus::NoDaemon,
        );
        view.see(status, history);
        view
    }

    #[test]
    fn the_screen_tells_how_all_stands_in_letters_that_every_terminal_has() {
        let mut view = view();
        let (status, history) = looks(
            vec![channel("log", RoleStatus::Writer, 5000, 5000), channel("news", RoleStatus::Reader, 300, 300)],
            LinkStatus::Connected,
        );
        view.see(status, history);
        let text = drawn(&view, 90, 24, false);
        assert!(text.is_ascii(), "{text}");
        for told in [
            "daemon  connected",
            "stored  |",
            "@| 2.0 KiB a minute now",
            "log",
            "write",
            "news",
            "the network can be used",
            "log: all of it is stored",
            "news: 300 B arrived",
            "q quit",
        ] {
            assert!(text.contains(told), "{told:?} is not in:\n{text}");
        }
        assert!(drawn(&view, 90, 24, true).contains("█|"));
        // A small one is drawn too.
        for (width, height) in [(20, 5), (1, 1), (200, 60)] {
            drawn(&view, width, height, true);
        }
    }

    #[test]
    fn each_of_several_daemons_has_its_line_and_its_events() {
        let mut view = view();
        let seen = |links: [LinkStatus; 2]| {
            let (mut status, history) = looks(Vec::new(), links[0].max(links[1]));
            let named =
                |(link, name)| DaemonStatus { link, address: Some(format!("@{name}")), ..DaemonStatus::default() };
            status.daemons = links.into_iter().zip(["one", "two"]).map(named).collect();
            (status, history)
        };
        let (status, history) = seen([LinkStatus::Connected, LinkStatus::Connected]);
        view.see(status, history);
        let (status, history) = seen([LinkStatus::Connected, LinkStatus::NoDaemon]);
        view.see(status, history);
        let text = drawn(&view, 90, 24, false);
        for told in
            ["daemon  connected @one", "daemon  none @two", "spool   0", "the network cannot be used by @two any more"]
        {
            assert!(text.contains(told), "{told:?} is not in:\n{text}");
        }
    }

    #[test]
    fn what_gives_something_up_is_typed_twice() {
        let mut view = view();
        let mut key = |code| view.key(KeyEvent::new(code, KeyModifiers::NONE));
        assert_eq!(key(KeyCode::Char('f')), Act::Nothing, "nothing arrives in what is written here");
        assert_eq!(key(KeyCode::Char('t')), Act::Nothing);
        assert_eq!(key(KeyCode::Char('t')), Act::Trim("log".to_owned()));
        assert_eq!(key(KeyCode::Down), Act::Nothing);
        assert_eq!(key(KeyCode::Char('f')), Act::Follow("news".to_owned()));
        assert_eq!(key(KeyCode::Char('s')), Act::Nothing);
        assert_eq!(key(KeyCode::Down), Act::Nothing, "another key in between");
        assert_eq!(key(KeyCode::Char('s')), Act::Nothing);
        assert_eq!(key(KeyCode::Char('s')), Act::Skip("news".to_owned()));
        assert_eq!(key(KeyCode::Char('q')), Act::Quit);
        assert_eq!(view.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Act::Quit);
    }

    #[test]
    fn the_choice_stays_with_its_channel() {
        let mut view = view();
        view.key(KeyEvent::new(KeyCode::Down, KeyModifiers::NONE));
        let (status, history) = looks(
            vec![
                channel("a", RoleStatus::Writer, 0, 0),
                channel("log", RoleStatus::Writer, 0, 0),
                channel("news", RoleStatus::Reader, 0, 0),
            ],
            LinkStatus::NoDaemon,
        );
        view.see(status, history);
        assert_eq!(view.chosen().expect("one").name, "news");
        let (status, history) = looks(Vec::new(), LinkStatus::NoDaemon);
        view.see(status, history);
        assert!(view.chosen().is_none());
        assert_eq!(view.key(KeyEvent::new(KeyCode::Char('t'), KeyModifiers::NONE)), Act::Nothing);
    }
}
