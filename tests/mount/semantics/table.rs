//! The tables of the document. A line `<!-- checked -->`, or `<!-- checked with OPTIONS -->`, stands before each.
//!
//! A table whose first column is `call` has a column for each state of a file; one whose first column is `file` has a row
//! for each call.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;

/// What a cell is about.
#[derive(Clone, Debug)]
pub(crate) enum File {
    /// A file in the root, in this state.
    State(String),
    /// This path; `NAME` in it is a file in the state `of`.
    Named { path: Vec<OsString>, of: Option<String> },
}

/// One cell.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    line: usize,
    told: String,
    pub(crate) file: File,
    pub(crate) call: String,
    pub(crate) expected: String,
}

impl fmt::Display for Case {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "line {}: {} on {} is said to give {}", self.line, self.call, self.told, self.expected)
    }
}

/// All cells, by the options of the mount that they are about.
pub(crate) fn read(document: &str) -> BTreeMap<String, Vec<Case>> {
    let mut tables: BTreeMap<String, Vec<Case>> = BTreeMap::new();
    let mut lines = document.lines().enumerate().map(|(at, line)| (at + 1, line)).peekable();
    while let Some((_, line)) = lines.next() {
        let Some(mark) = line.strip_prefix("<!-- checked").and_then(|rest| rest.strip_suffix("-->")) else { continue };
        let options = mark.trim().strip_prefix("with ").unwrap_or_default().to_owned();
        lines.next_if(|(_, line)| line.is_empty());
        let (at, head) = lines.next().expect("a table follows its mark");
        let head = cells(head);
        assert!(head.len() > 1, "line {at}: a table follows its mark");
        lines.next();
        let cases = tables.entry(options).or_default();
        while let Some((line, row)) = lines.next_if(|(_, line)| line.starts_with('|')) {
            let row = cells(row);
            assert_eq!(row.len(), head.len(), "line {line}");
            match head[0].as_str() {
                "call" => cases.extend(head.iter().zip(&row).skip(1).map(|(state, expected)| Case {
                    line,
                    told: state.clone(),
                    file: File::State(state.clone()),
                    call: code(&row[0]).unwrap_or_else(|| panic!("line {line}: no call")),
                    expected: expected.clone(),
                })),
                "file" => cases.push(Case {
                    line,
                    told: row[0].clone(),
                    file: file(&row[0]),
                    call: code(&row[1]).unwrap_or_else(|| panic!("line {line}: no call")),
                    expected: row[2].clone(),
                }),
                other => panic!("line {at}: a table of {other}"),
            }
        }
    }
    tables
}

fn cells(line: &str) -> Vec<String> {
    let line = line.trim().trim_start_matches('|').trim_end_matches('|');
    line.split('|').map(|cell| cell.trim().to_owned()).collect()
}

fn code(cell: &str) -> Option<String> {
    Some(cell.strip_prefix('`')?.strip_suffix('`')?.to_owned())
}

fn file(cell: &str) -> File {
    if let Some(bytes) = cell.strip_prefix("a name of ").and_then(|rest| rest.strip_suffix(" bytes")) {
        let name = "x".repeat(bytes.parse().expect("a number"));
        return File::Named { path: vec![name.into()], of: None };
    }
    let Some(rest) = cell.strip_prefix('`') else { return File::State(cell.to_owned()) };
    let (path, of) = rest.split_once('`').expect("it is closed");
    let of = of.trim().strip_prefix("of ").map(str::to_owned);
    File::Named { path: path.split('/').map(unescape).collect(), of }
}

/// `\t` and `\xNN`, as a shell's `$'…'` has them.
fn unescape(text: &str) -> OsString {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match rest.next() {
            Some(b't') => bytes.push(b'\t'),
            Some(b'x') => {
                let digits: String = rest.by_ref().take(2).map(char::from).collect();
                bytes.push(u8::from_str_radix(&digits, 16).expect("two digits"));
            }
            other => panic!("an escape of {other:?} in {text:?}"),
        }
    }
    OsString::from_vec(bytes)
}
