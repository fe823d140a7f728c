//! `tidegate schema`: the JSON Schema of configuration files.

#[cfg(test)]
mod reference;

use std::process::ExitCode;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;

use crate::cli::SchemaOf;
use crate::config::file::File;
use crate::config::file::control_node::ControlFile;
use crate::output::Output;

pub(super) fn run(of: SchemaOf, output: &mut Output) -> anyhow::Result<ExitCode> {
    let text = match of {
        SchemaOf::Config => text()?,
        SchemaOf::Control => control_text()?,
    };
    output.text(text);
    Ok(ExitCode::SUCCESS)
}

/// The schema as it is published in `docs/tidegate.schema.json`.
pub(crate) fn text() -> serde_json::Result<String> {
    let mut text = serde_json::to_string_pretty(&schema())?;
    text.push('\n');
    Ok(text)
}

/// The schema of control nodes' files, as it is published in `docs/control.schema.json`.
fn control_text() -> serde_json::Result<String> {
    let mut text = serde_json::to_string_pretty(&schema_of::<ControlFile>())?;
    text.push('\n');
    Ok(text)
}

/// The schema.
pub(crate) fn schema() -> Value {
    schema_of::<File>()
}

fn schema_of<T: JsonSchema>() -> Value {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>().to_value();
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        for property in properties.values_mut().filter_map(Value::as_object_mut) {
            // The defaults of a section stand at its keys; repeating them here would only be long.
            property.remove("default");
        }
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the published copies live.
    const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs");

    /// `TIDEGATE_UPDATE_GOLDEN=1 cargo test -p tidegate` writes the copy anew.
    fn agrees(path: &str, text: &str) {
        let path = format!("{DOCS}/{path}");
        if std::env::var_os("TIDEGATE_UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, text).unwrap();
        }
        let published = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(published == text, "{path} is out of date: run `TIDEGATE_UPDATE_GOLDEN=1 cargo test -p tidegate`");
    }

    #[test]
    fn the_published_schema_is_the_one_of_the_code() {
        agrees("tidegate.schema.json", &text().unwrap());
        agrees("control.schema.json", &control_text().unwrap());
    }

    #[test]
    fn the_published_reference_is_the_one_of_the_schema() {
        agrees("configuration.md", &reference::document(&schema()));
    }

    #[test]
    fn every_key_is_described() {
        let schema = schema();
        let mut undescribed = Vec::new();
        let definitions = schema["$defs"].as_object().unwrap();
        let objects = definitions.iter().map(|(name, definition)| (name.as_str(), definition)).chain([("", &schema)]);
        for (name, definition) in objects {
            for (key, property) in definition["properties"].as_object().into_iter().flatten() {
                if property["description"].as_str().is_none_or(str::is_empty) {
                    undescribed.push(format!("{name}.{key}"));
                }
            }
        }
        assert!(undescribed.is_empty(), "{undescribed:?}");
    }
}
