//! The configuration reference as Markdown, made from the schema.

use std::collections::{BTreeSet, VecDeque};
use std::fmt::Write as _;

use serde_json::{Map, Value};

/// `docs/configuration.md`.
pub(super) fn document(schema: &Value) -> String {
    let mut out = String::from(INTRODUCTION);
    let mut queue = VecDeque::from([("The file".to_owned(), schema.clone())]);
    let mut seen = BTreeSet::new();
    while let Some((title, definition)) = queue.pop_front() {
        section(&title, &definition, schema, &mut out, &mut |name| {
            if seen.insert(name.to_owned()) {
                queue.push_back((name.to_owned(), schema["$defs"][name].clone()));
            }
        });
    }
    out
}

const INTRODUCTION: &str = "\
# Configuration

One YAML file says what an edge is. `tidegate check FILE` names every problem in it, with line, reason and remedy; `tidegate edge
--config FILE` runs it and takes changes over while serving. A complete example is [examples/tidegate.yaml](examples/tidegate.yaml).

* Unknown keys are errors. A key that is given twice is an error.
* Secrets never stand in the file. They are referred to: `env:NAME`, or `file:/path` (surrounding white space is dropped).
* Times need a unit: `500ms`, `30s`, `5m`, `1h`, `7d`. Sizes may have one: `64KiB`, `32MiB`.
* Prices are decimal USD, per million tokens, and are read exactly, as a number or in quotes.
* An environment variable overrides a key: `TIDEGATE__OPERATIONS__ADDRESS=0.0.0.0:9090` sets `operations.address`. Keys are joined
  by two underscores, list items are numbered from 0, values are YAML.
* What a reload takes over: `catalog`, `providers`, `models`, `endpoints`, `organisations`, `workspaces`, `keys`, `keys_pepper`, `presets`, `defaults`, `routing`,
  `log.level`. Everything else needs a restart, and the log says so when it changed.

Editors complete and check the file with [tidegate.schema.json](tidegate.schema.json); its first line is then
`# yaml-language-server: $schema=tidegate.schema.json`.

This page is made from the schema; the tests compare them.
";

fn section(title: &str, definition: &Value, schema: &Value, out: &mut String, refer: &mut dyn FnMut(&str)) {
    // Writing to a String cannot fail, here and below.
    let _ = writeln!(out, "\n## {title}\n");
    let description = text(definition, "description");
    if !description.is_empty() {
        let _ = writeln!(out, "{description}\n");
    }
    if let Some(values) = variants(definition) {
        out.push_str("| value | meaning |\n|---|---|\n");
        for (value, meaning) in values {
            let _ = writeln!(out, "| `{value}` | {meaning} |");
        }
        return;
    }
    if let Some(options) = definition["anyOf"].as_array() {
        let options: Vec<String> = options.iter().map(|option| kind(option, schema, refer)).collect();
        let _ = writeln!(out, "Either {}.", options.join(" or "));
        return;
    }
    let Some(properties) = definition["properties"].as_object() else {
        if let Some(pattern) = definition["pattern"].as_str() {
            let _ = writeln!(out, "Pattern: `{}`", pattern.replace('|', "\\|"));
        }
        return;
    };
    out.push_str("| key | type | default | meaning |\n|---|---|---|---|\n");
    let required: Vec<&str> = definition["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, property) in properties {
        let kind = kind(property, schema, refer);
        let default = if required.contains(&name.as_str()) { "**required**".to_owned() } else { default(property) };
        let meaning = text(property, "description").replace('\n', " ").replace('|', "\\|");
        let _ = writeln!(out, "| `{name}` | {kind} | {default} | {meaning} |");
    }
}

/// The words of an enumeration with their meanings.
fn variants(definition: &Value) -> Option<Vec<(String, String)>> {
    if let Some(words) = definition["enum"].as_array() {
        return Some(words.iter().filter_map(Value::as_str).map(|word| (word.to_owned(), String::new())).collect());
    }
    let mut values = Vec::new();
    for option in definition["oneOf"].as_array()? {
        let meaning = text(option, "description").replace('\n', " ");
        match (&option["const"], &option["enum"]) {
            (Value::String(word), _) => values.push((word.clone(), meaning)),
            (_, Value::Array(words)) => {
                values.extend(words.iter().filter_map(Value::as_str).map(|word| (word.to_owned(), meaning.clone())))
            }
            _ => return None,
        }
    }
    Some(values)
}

fn kind(property: &Value, schema: &Value, refer: &mut dyn FnMut(&str)) -> String {
    if let Some(name) = property["$ref"].as_str().and_then(|path| path.strip_prefix("#/$defs/")) {
        let definition = &schema["$defs"][name];
        // Patterns are explained once, at the top of the page; what has parts or values gets a section.
        if definition["properties"].is_object() || variants(definition).is_some() || definition["anyOf"].is_array() {
            refer(name);
            return format!("[{name}](#{})", name.to_lowercase());
        }
        return match name {
            "Duration" => "time".to_owned(),
            "Size" => "size".to_owned(),
            "Decimal" => "decimal".to_owned(),
            "Address" => "address".to_owned(),
            "SecretRef" => "reference".to_owned(),
            "JsonObject" => "mapping".to_owned(),
            _ => "text".to_owned(),
        };
    }
    if let Some(options) = property["anyOf"].as_array() {
        let options: Vec<String> =
            options.iter().filter(|option| option["type"] != "null").map(|option| kind(option, schema, refer)).collect();
        return options.join(" or ");
    }
    let name = match &property["type"] {
        Value::String(name) => name.as_str(),
        Value::Array(names) => names.iter().filter_map(Value::as_str).find(|name| *name != "null").unwrap_or_default(),
        _ => "",
    };
    match name {
        "array" => format!("list of {}", kind(&property["items"], schema, refer)),
        "object" => match &property["additionalProperties"] {
            Value::Object(_) => format!("mapping from names to {}", kind(&property["additionalProperties"], schema, refer)),
            _ => "mapping".to_owned(),
        },
        "string" => "text".to_owned(),
        "integer" => "whole number".to_owned(),
        "number" => "number".to_owned(),
        "boolean" => "`true` or `false`".to_owned(),
        _ => "any".to_owned(),
    }
}

fn default(property: &Value) -> String {
    let empty = Map::new();
    match property.as_object().unwrap_or(&empty).get("default") {
        None | Some(Value::Null) => String::new(),
        Some(Value::Array(items)) if items.is_empty() => String::new(),
        Some(Value::Object(_)) => String::new(),
        Some(Value::String(word)) if word.is_empty() => String::new(),
        Some(Value::String(word)) => format!("`{word}`"),
        Some(other) => format!("`{other}`"),
    }
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}
