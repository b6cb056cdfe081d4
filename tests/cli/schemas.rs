//! What the verbs print with --json is what `packaging/schema` says, a file a verb: a JSON Schema with a version. Where a
//! field is added, `PIGEONFS_UPDATE_SCHEMA=1 cargo test --test cli schemas` adds it to its file; read the difference, and
//! raise the version where a field changed its meaning or went.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use crate::common::{Run, Work};

fn path(verb: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("packaging/schema").join(format!("{verb}.json"))
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// What does not fit, as a path and a reason. Knows what the files use of JSON Schema: type, properties, required,
/// additionalProperties and items.
fn misfits(value: &Value, schema: &Value, at: &str, found: &mut Vec<String>) {
    let allowed: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => return,
    };
    let is = type_of(value);
    let fits = allowed.contains(&is) || (is == "integer" && allowed.contains(&"number"));
    if !fits {
        found.push(format!("{at} is {is}, and should be {allowed:?}"));
        return;
    }
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match schema["properties"].get(name) {
                    Some(schema) => misfits(value, schema, &format!("{at}.{name}"), found),
                    None => found.push(format!("{at}.{name} is not in the schema")),
                }
            }
            for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                if !fields.contains_key(name) {
                    found.push(format!("{at}.{name} is missing"));
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                misfits(item, &schema["items"], &format!("{at}[{index}]"), found);
            }
        }
        _ => {}
    }
}

/// A schema that this value fits, and all that fitted the one before.
fn widened(schema: Option<&Value>, value: &Value) -> Value {
    let mut types: BTreeSet<String> = match schema.map(|schema| &schema["type"]) {
        Some(Value::String(one)) => [one.clone()].into(),
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => BTreeSet::new(),
    };
    types.insert(type_of(value).to_owned());
    if types.contains("number") {
        types.remove("integer");
    }
    let mut result = schema.and_then(Value::as_object).cloned().unwrap_or_default();
    let types: Vec<String> = types.into_iter().collect();
    result.insert("type".into(), if types.len() == 1 { json!(types[0]) } else { json!(types) });
    if let Value::Object(fields) = value {
        let known = schema.and_then(|schema| schema["properties"].as_object()).cloned();
        let before: Option<BTreeSet<String>> = schema.and_then(|schema| {
            let list = schema["required"].as_array()?;
            Some(list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        });
        let now: BTreeSet<String> = fields.keys().cloned().collect();
        let required: Vec<String> = match before {
            Some(before) => before.intersection(&now).cloned().collect(),
            None => now.into_iter().collect(),
        };
        let mut properties = known.unwrap_or_default();
        for (name, value) in fields {
            let widened = widened(properties.get(name), value);
            properties.insert(name.clone(), widened);
        }
        result.insert("properties".into(), Value::Object(properties));
        result.insert("required".into(), json!(required));
        result.insert("additionalProperties".into(), json!(false));
    }
    if let Value::Array(items) = value {
        for item in items {
            let items = widened(result.get("items"), item);
            result.insert("items".into(), items);
        }
    }
    Value::Object(result)
}

fn check(verb: &str, text: &str, wrong: &mut Vec<String>) {
    let update = std::env::var_os("PIGEONFS_UPDATE_SCHEMA").is_some();
    assert!(!text.trim().is_empty(), "{verb} printed nothing");
    for line in text.lines() {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{verb}: {error}: {line}"));
        let schema = std::fs::read_to_string(path(verb)).ok().map(|text| serde_json::from_str(&text).expect("JSON"));
        if update {
            let head = json!({ "$schema": "https://json-schema.org/draft/2020-12/schema",
                "$id": format!("urn:pigeonfs:schema:{verb}:1"),
                "title": format!("A line of the output of `pigeonfs {verb} --json`, version 1") });
            let mut all: Map<String, Value> = head.as_object().expect("an object").clone();
            all.extend(widened(schema.as_ref(), &value).as_object().expect("an object").clone());
            let text = serde_json::to_string_pretty(&all).expect("JSON");
            std::fs::write(path(verb), text + "\n").expect("written");
            continue;
        }
        let Some(schema) = schema else {
            wrong.push(format!("there is no {}", path(verb).display()));
            continue;
        };
        let mut found = Vec::new();
        misfits(&value, &schema, verb, &mut found);
        wrong.extend(found);
    }
}

#[test]
fn what_the_verbs_print_is_what_the_schemas_say() {
    let work = Work::new();
    let network = work.localnet("net");
    let mut wrong = Vec::new();
    let config = network.config();
    let print = |state: &str, words: &[&str], stdin: &[u8]| -> Run {
        work.verb_with(state, &[words, &["--json"]].concat(), stdin)
    };
    let mut checked = |verb: &str, run: Run| check(verb, &run.ok().text(), &mut wrong);
    checked("new", print("a", &["new", "log"], b""));
    checked("new", print("a", &["new", "--drop", "out"], b""));
    checked("append", print("a", &["append", "log", "--config", config], &[7; 5000]));
    checked("wait", print("a", &["wait", "log", "--config", config], b""));
    std::fs::write(work.path("file"), [9; 4000]).expect("written");
    let file = work.path("file");
    let file = file.to_str().expect("text");
    checked("send", print("a", &["send", file, "--to", "out", "--config", config], b""));
    for (name, content) in [("log", None), ("out", Some("--drop"))] {
        let shared = print("a", &["share", name], b"");
        let text = shared.ok().text();
        checked("share", Run { code: Some(0), stdout: text.clone().into_bytes(), stderr: String::new() });
        let capability: Value = serde_json::from_str(&text).expect("JSON");
        let mut words = vec!["add", name];
        words.extend(content);
        checked("add", print("b", &words, capability["capability"].as_str().expect("text").as_bytes()));
    }
    let directory = work.path("in");
    std::fs::create_dir(&directory).expect("made");
    let directory = directory.to_str().expect("text");
    checked("receive", print("b", &["receive", "out", "-o", directory, "--config", config], b""));
    checked("wait", print("b", &["wait", "log", "--bytes", "5000", "--config", config], b""));
    for state in ["a", "b"] {
        checked("list", print(state, &["list"], b""));
        checked("status", print(state, &["status"], b""));
        checked("status-history", print(state, &["status", "--history"], b""));
    }
    for (state, name) in [("a", "log"), ("a", "out"), ("b", "log"), ("b", "out")] {
        checked("status-channel", print(state, &["status", name], b""));
    }
    checked("trim", print("a", &["trim", "log"], b""));
    checked("rename", print("a", &["rename", "log", "old"], b""));
    checked("forget", print("a", &["forget", "--force", "old"], b""));
    checked("localnet-ctl-stats", print("net", &["localnet", "ctl", "stats"], b""));
    checked("config", print("a", &["config"], b""));
    checked("help-glossary", print("a", &["help", "glossary"], b""));
    for words in [&["nonsense"][..], &["list", "--bogus"], &["status", "nobody"], &["wait", "out", "--timeout", "soon"]]
    {
        let run = print("a", words, b"");
        assert_ne!(run.code, Some(0), "{words:?}");
        check("error", &run.stderr, &mut wrong);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
