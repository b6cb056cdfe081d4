//! How a line of the log looks: a sentence for people, an object or a level of the journal for machines.

use std::fmt::{self, Debug};
use std::os::unix::fs::MetadataExt as _;

use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::log::{self, SealedLine};
use crate::text::{shown, shown_json};

/// What the verbs say has names in its fields alone, and the embedded network knows none.
const NAMELESS: [&str; 2] =
    [concat!(env!("CARGO_CRATE_NAME"), "::cli"), concat!(env!("CARGO_CRATE_NAME"), "::localnet")];
const STORE_TARGET: &str = concat!(env!("CARGO_CRATE_NAME"), "::store");

/// What `--log-format` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum LogFormat {
    /// `journald` where stderr is the journal, else `text`
    Auto,
    /// Sentences
    Text,
    /// An object a line
    Json,
    /// Sentences behind the journal's levels, `<4>` for a warning
    Journald,
}

impl LogFormat {
    /// The one that is meant where nobody said.
    fn known(self) -> Self {
        match self {
            Self::Auto if stderr_is_the_journal() => Self::Journald,
            Self::Auto => Self::Text,
            said => said,
        }
    }
}

/// systemd names the device and the inode of the journal's socket (systemd.exec(5)). A stderr that was redirected since is
/// another.
fn stderr_is_the_journal() -> bool {
    let Ok(named) = std::env::var("JOURNAL_STREAM") else { return false };
    let stderr = std::fs::metadata("/proc/self/fd/2");
    stderr.is_ok_and(|stderr| named == format!("{}:{}", stderr.dev(), stderr.ino()))
}

/// Makes the lines.
pub(super) struct Lines {
    format: LogFormat,
    colours: bool,
    times: bool,
}

impl Lines {
    /// `colours`: a terminal shows them. `times`: whoever reads it was not there.
    pub(super) fn new(format: LogFormat, colours: bool, times: bool) -> Self {
        let format = format.known();
        Self { format, colours: colours && format == LogFormat::Text, times: times && format == LogFormat::Text }
    }

    fn text(&self, writer: &mut Writer<'_>, level: Level, told: &Told) -> fmt::Result {
        if self.times {
            let mut time = String::new();
            SystemTime.format_time(&mut Writer::new(&mut time))?;
            let (second, _) = time.split_once('.').unwrap_or((&time, ""));
            write!(writer, "{second}Z ")?;
        }
        let (word, colour) = match level {
            Level::ERROR => ("error: ", "31"),
            Level::WARN => ("warning: ", "33"),
            Level::INFO => ("", "0"),
            Level::DEBUG => ("debug: ", "34"),
            Level::TRACE => ("trace: ", "35"),
        };
        match (self.colours, word) {
            (true, "error: " | "warning: " | "debug: " | "trace: ") => write!(writer, "\x1b[{colour}m{word}\x1b[0m")?,
            _ => writer.write_str(word)?,
        }
        if level > Level::INFO {
            write!(writer, "{}: ", told.target)?;
        }
        // A colour comes from here alone: names of strangers are within.
        writer.write_str(&shown(&told.message))?;
        let (why, more): (Vec<_>, Vec<_>) = told.fields.iter().partition(|(name, _)| WHY.contains(&name.as_str()));
        for (_, why) in why {
            write!(writer, ": {}", shown(&bare(why)))?;
        }
        let more: Vec<_> =
            more.iter().map(|(name, value)| format!("{} {}", name.replace('_', " "), shown(&bare(value)))).collect();
        if !more.is_empty() {
            write!(writer, " ({})", more.join(", "))?;
        }
        writeln!(writer)
    }

    /// Of a sealed state: which part says something, and numbers. The whole line goes where nobody reads it who has not
    /// the key.
    fn sealed(&self, line: u32, level: Level, told: &Told) -> Result<SealedLine, fmt::Error> {
        let mut whole = String::new();
        let lines = Self { format: LogFormat::Text, colours: false, times: true };
        lines.text(&mut Writer::new(&mut whole), level, told)?;
        let says = if NAMELESS.iter().any(|target| told.target.starts_with(target)) {
            shown(&told.message).into_owned()
        } else {
            let more = if log::is_kept() { ", see `pigeonfs log`" } else { "" };
            format!("{} line {line}{more}", told.target)
        };
        let numbers: Vec<_> = told
            .fields
            .iter()
            .filter(|(_, value)| value.is_number() || value.is_boolean())
            .map(|(name, value)| format!(", {} {value}", name.replace('_', " ")))
            .collect();
        let priority = match (self.format, level) {
            (LogFormat::Journald, Level::ERROR) => "<3>",
            (LogFormat::Journald, Level::WARN) => "<4>",
            (LogFormat::Journald, Level::INFO) => "<6>",
            (LogFormat::Journald, _) => "<7>",
            _ => "",
        };
        let word = level.as_str().to_lowercase();
        let shown = match self.format {
            LogFormat::Json => {
                json!({ "level": word, "target": told.target, "message": says + &numbers.concat() }).to_string()
            }
            _ => format!("{priority}{word}: {says}{}", numbers.concat()),
        };
        let channel = told.fields.get("channel").or_else(|| told.fields.get("drop")).map(bare);
        // What the store says while it keeps a line must not become one more.
        let kept =
            (level <= Level::INFO && !told.target.starts_with(STORE_TARGET)).then(|| whole.trim_end().to_owned());
        Ok(SealedLine { shown, channel, kept })
    }

    fn json(writer: &mut Writer<'_>, level: Level, told: Told) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut object = told.fields;
        object.insert("time".to_owned(), time.into());
        object.insert("level".to_owned(), level.as_str().to_lowercase().into());
        object.insert("target".to_owned(), told.target.into());
        object.insert("message".to_owned(), told.message.into());
        writeln!(writer, "{}", shown_json(&Value::Object(object).to_string()))
    }
}

/// Fields that tell why, and end the sentence.
const WHY: &[&str] = &["error", "reason", "trouble"];

fn bare(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let level = *event.metadata().level();
        let mut told = Told { target: event.metadata().target().to_owned(), ..Told::default() };
        event.record(&mut told);
        if log::is_sealed() {
            let line = event.metadata().line().unwrap_or_default();
            log::push_sealed(self.sealed(line, level, &told)?);
            return Ok(());
        }
        match self.format {
            LogFormat::Json => Self::json(&mut writer, level, told),
            LogFormat::Journald => {
                let priority = match level {
                    Level::ERROR => 3,
                    Level::WARN => 4,
                    Level::INFO => 6,
                    _ => 7,
                };
                write!(writer, "<{priority}>")?;
                self.text(&mut writer, level, &told)
            }
            LogFormat::Auto | LogFormat::Text => self.text(&mut writer, level, &told),
        }
    }
}

/// What one event tells.
#[derive(Default)]
struct Told {
    target: String,
    message: String,
    fields: Map<String, Value>,
}

impl Told {
    fn take(&mut self, field: &Field, value: Value) {
        match field.name() {
            "message" => self.message = bare(&value),
            // What comes through the crate `log` has its own names for where it is from.
            "log.target" => self.target = bare(&value),
            name if name.starts_with("log.") => {}
            name => drop(self.fields.insert(name.to_owned(), value)),
        }
    }
}

impl Visit for Told {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.take(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.take(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.take(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.take(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.take(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("nothing panics").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(lines: Lines, log: impl FnOnce()) -> String {
        let kept = Kept::default();
        let writer = kept.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(Level::TRACE)
            .event_format(lines)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, log);
        String::from_utf8(kept.0.lock().expect("nothing panics").clone()).expect("text")
    }

    fn three() {
        tracing::info!("mounted at /m");
        tracing::warn!(error = %"no such file", "nothing answers");
        tracing::error!(boxes = 3_u64, last_seen = ?Some(1), "lost");
    }

    #[test]
    fn people_get_sentences() {
        let text = logged(Lines::new(LogFormat::Text, false, false), three);
        assert_eq!(
            text,
            "mounted at /m\nwarning: nothing answers: no such file\nerror: lost (boxes 3, last seen Some(1))\n"
        );
        let text = logged(Lines::new(LogFormat::Text, true, false), || tracing::warn!("red or yellow"));
        assert_eq!(text, "\x1b[33mwarning: \x1b[0mred or yellow\n");
        let text = logged(Lines::new(LogFormat::Text, false, true), || tracing::info!("later"));
        let (time, rest) = text.split_once(' ').expect("a time");
        assert!(time.ends_with('Z') && time.len() == 20 && rest == "later\n", "{text}");
        let text = logged(Lines::new(LogFormat::Text, false, false), || tracing::debug!("in detail"));
        assert_eq!(text, format!("debug: {}: in detail\n", module_path!()));
    }

    #[test]
    fn of_a_sealed_state_places_and_numbers_are_told_and_the_rest_is_kept() {
        let lines = Lines::new(LogFormat::Text, true, false);
        let told = |target: &str| {
            let mut told =
                Told { target: target.to_owned(), message: "\"secret\" is late".to_owned(), ..Told::default() };
            told.fields.insert("channel".to_owned(), "secret".into());
            told.fields.insert("boxes".to_owned(), 3.into());
            told.fields.insert("error".to_owned(), "secret too".into());
            told
        };
        let line = lines.sealed(7, Level::WARN, &told("pigeonfs::engine::drops")).expect("written");
        assert_eq!(line.shown, "warn: pigeonfs::engine::drops line 7, boxes 3");
        assert_eq!(line.channel.as_deref(), Some("secret"));
        let kept = line.kept.expect("kept");
        assert!(kept.ends_with("warning: \"secret\" is late: secret too (boxes 3, channel secret)"), "{kept}");
        for (level, target) in [(Level::DEBUG, "pigeonfs::engine"), (Level::ERROR, "pigeonfs::store::writer")] {
            assert_eq!(lines.sealed(7, level, &told(target)).expect("written").kept, None);
        }
    }

    #[test]
    fn what_a_stranger_named_colours_nothing() {
        let text = logged(Lines::new(LogFormat::Text, true, false), || {
            tracing::info!(name = "\x1b[2J\n", error = %"\x1b]0;", "of \x1b[31m");
        });
        assert_eq!(text, "of \\u{1b}[31m: \\u{1b}]0; (name \\u{1b}[2J\\n)\n");
    }

    #[test]
    fn the_journal_gets_its_levels() {
        let text = logged(Lines::new(LogFormat::Journald, true, true), three);
        assert_eq!(
            text,
            "<6>mounted at /m\n<4>warning: nothing answers: no such file\n<3>error: lost (boxes 3, last seen Some(1))\n"
        );
    }

    #[test]
    fn machines_get_an_object_a_line_whatever_is_in_it() {
        let text = logged(Lines::new(LogFormat::Json, true, true), || {
            tracing::warn!(name = "a\n\u{202e}\"b", boxes = 3_u64, open = true, "odd\x1b[31m");
        });
        assert_eq!(text.lines().count(), 1);
        assert!(!text.contains('\x1b') && !text.contains('\u{202e}'), "{text:?}");
        let object: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!((&object["level"], &object["boxes"], &object["open"]), (&"warn".into(), &3.into(), &true.into()));
        assert_eq!((&object["name"], &object["message"]), (&"a\n\u{202e}\"b".into(), &"odd\x1b[31m".into()));
        assert!(object["time"].as_str().is_some_and(|time| time.ends_with('Z')));
    }
}
