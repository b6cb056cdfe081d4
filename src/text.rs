//! How text from elsewhere is shown: names, paths, reasons and error texts that another person or program chose.
//!
//! Whatever shows such text to a person (a terminal, the log, a file of the control directory) passes it through
//! [`shown`]. What comes out has one line, and each of its characters can be seen.

use std::borrow::Cow;
use std::path::Path;

/// The text with every character escaped that moves the cursor, ends the line, turns the direction of text, or cannot be
/// seen, as `\n` or `\u{202e}`.
pub(crate) fn shown(text: &str) -> Cow<'_, str> {
    let Some(first) = text.find(is_unseen) else { return Cow::Borrowed(text) };
    let mut out = String::with_capacity(text.len() + 16);
    out.push_str(&text[..first]);
    for c in text[first..].chars() {
        if is_unseen(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// The same of a line of the log, whose end and colours are its own.
pub(crate) fn shown_line(line: &str) -> String {
    let body = line.strip_suffix('\n').unwrap_or(line);
    let mut out = String::with_capacity(line.len());
    for c in body.chars() {
        if is_unseen(c) && c != '\x1b' { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out.push_str(&line[body.len()..]);
    out
}

/// The same of JSON, which stays the same JSON: what cannot be seen stands inside of its strings only.
pub(crate) fn shown_json(json: &str) -> Cow<'_, str> {
    let is_hidden = |c: char| is_unseen(c) && c != '\n';
    if !json.contains(is_hidden) {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if is_hidden(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// The same of a path. Bytes that are no UTF-8 are shown as U+FFFD.
pub(crate) fn shown_path(path: &Path) -> String {
    shown(&path.to_string_lossy()).into_owned()
}

/// Control characters, ends of lines, marks that turn the direction of text, and what leaves no mark on a screen.
pub(crate) fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_stays_the_same_json_and_a_line_of_the_log_stays_one() {
        let value = serde_json::json!({ "name": "a\u{202e}b\u{e0041}\u{7f}\n\u{9b}" });
        let text = value.to_string();
        let seen = shown_json(&text);
        assert!(!seen.contains(is_unseen), "{seen}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&seen).expect("JSON"), value);
        assert_eq!(
            shown_line("\x1b[1mINFO\x1b[0m a\nERROR forged\u{2066}\n"),
            "\x1b[1mINFO\x1b[0m a\\nERROR forged\\u{2066}\n"
        );
    }

    #[test]
    fn what_can_be_seen_stays_and_all_else_is_escaped() {
        for text in ["", "a b", "ü ß 日本", "it's \"quoted\" \\ and 100 %", "📁"] {
            assert!(matches!(shown(text), Cow::Borrowed(same) if same == text), "{text:?}");
        }
        for (text, seen) in [
            ("two\nlines\r\t", r"two\nlines\r\t"),
            ("\x1b[2J\x07\x7f\u{9b}", r"\u{1b}[2J\u{7}\u{7f}\u{9b}"),
            ("gpj.\u{202e}exe", r"gpj.\u{202e}exe"),
            ("a\u{200b}b\u{2066}c\u{feff}", r"a\u{200b}b\u{2066}c\u{feff}"),
            ("line\u{2028}para\u{2029}", r"line\u{2028}para\u{2029}"),
            ("tag\u{e0041}", r"tag\u{e0041}"),
        ] {
            assert_eq!(shown(text), seen);
            assert!(!shown(text).contains(is_unseen));
        }
    }
}
