//! The arrows between the modules: imports point downwards only.

use std::fs;
use std::path::{Path, PathBuf};

/// The modules from the ground up, each with those below it that it may import.
const BELOW: [(&str, &[&str]); 15] = [
    ("bacap", &[]),
    ("text", &[]),
    ("units", &[]),
    ("model", &["bacap"]),
    ("thin", &["bacap"]),
    ("drop", &["bacap", "text"]),
    ("channel", &["bacap", "model"]),
    ("localnet", &["bacap", "thin"]),
    ("store", &["bacap", "channel", "drop", "model", "text"]),
    ("engine", &["bacap", "channel", "drop", "model", "store", "text", "thin", "units"]),
    ("state", &["bacap", "drop", "engine", "model", "store", "text", "thin"]),
    ("fs", &["bacap", "channel", "drop", "engine", "model", "store", "text", "units"]),
    ("mount", &["fs", "model", "store", "text"]),
    (
        "cli",
        &[
            "bacap", "channel", "drop", "engine", "fs", "localnet", "model", "mount", "state", "store", "text", "thin",
            "units",
        ],
    ),
    ("main", &["cli"]),
];

/// The Rust files of a module, without its tests: those may import what they like.
fn files(path: &Path, into: &mut Vec<PathBuf>) {
    if path.is_file() {
        into.push(path.to_owned());
        return;
    }
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() && !matches!(name, "tests" | "simulation") {
            files(&path, into);
        } else if path.extension().is_some_and(|end| end == "rs") && name != "tests" {
            into.push(path);
        }
    }
}

/// The modules that a source names by `crate::`, outside of comments and of the unit tests at its end.
fn imported(source: &str) -> Vec<String> {
    let code = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or(source);
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let visible = |line: &str| line.replace("pub(in crate::", "");
    let mut found = Vec::new();
    for line in lines.map(visible) {
        for part in line.split("crate::").skip(1) {
            found.push(part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    found
}

#[test]
fn imports_point_downwards_only() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut upward = Vec::new();
    for (module, below) in BELOW {
        let mut sources = Vec::new();
        files(&src.join(module), &mut sources);
        files(&src.join(format!("{module}.rs")), &mut sources);
        assert!(!sources.is_empty(), "there is no module `{module}`");
        for path in sources.iter().filter(|path| path.exists()) {
            let source = fs::read_to_string(path).expect("a source");
            for other in imported(&source) {
                let known = BELOW.iter().any(|(name, _)| *name == other);
                if known && other != module && !below.contains(&other.as_str()) {
                    upward.push(format!("{}: {module} imports {other}", path.display()));
                }
            }
        }
    }
    assert!(upward.is_empty(), "these imports point upwards:\n{}", upward.join("\n"));
}

#[test]
fn every_module_has_its_place_among_the_arrows() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for entry in fs::read_dir(src).expect("the sources").flatten() {
        let path = entry.path();
        let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let is_module = path.is_dir() || path.extension().is_some_and(|end| end == "rs");
        if is_module && !matches!(name.as_str(), "lib" | "layout") {
            assert!(
                BELOW.iter().any(|(module, _)| *module == name),
                "`{name}` is not among the modules of src/layout.rs"
            );
        }
    }
}

/// The targets of a document's links, without those to places of its own and to other hosts.
fn links(document: &str) -> impl Iterator<Item = &str> {
    let targets = document.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.starts_with('#') && !target.contains("://"))
}

#[test]
fn the_links_of_the_architecture_live() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let document = fs::read_to_string(src.join("ARCHITECTURE.md")).expect("the document");
    let dead: Vec<_> = links(&document).filter(|target| !src.join(target).exists()).collect();
    assert!(dead.is_empty(), "src/ARCHITECTURE.md points at files that are not there: {dead:?}");
    assert!(links(&document).count() > 20, "the links were not found");
}
