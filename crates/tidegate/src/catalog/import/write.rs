//! Imported offers as YAML for review.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{Imported, Offer, Override, Prices};

/// Where a list came from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin<'a> {
    /// Name of the list.
    pub(crate) source: &'a str,
    /// Its licence.
    pub(crate) licence: &'a str,
    /// The file that was read.
    pub(crate) file: &'a str,
    /// Day of the import.
    pub(crate) date: &'a str,
}

/// The document: header, models, endpoints, and what was left out.
pub(crate) fn document(imported: &Imported, origin: &Origin<'_>) -> String {
    let mut yaml = String::new();
    let mut line = |text: &str| {
        yaml.push_str(text);
        yaml.push('\n');
    };
    line(&format!("# Models and endpoints imported from {}.", origin.source));
    line(&format!("# File: {}. Imported: {}. Licence of the list: {}.", origin.file, origin.date, origin.licence));
    line(
        "# Prices are USD per million tokens, converted exactly. Review before use: lists are late, wrong or incomplete at times, and none",
    );
    line("# of them says what a provider does with prompts (`data_policy`).");
    line(&format!("# {} endpoints, {} entries left out (listed at the end).", imported.offers.len(), imported.skipped.len()));
    line("");
    models(&imported.offers, &mut yaml);
    yaml.push_str("\nendpoints:");
    yaml.push_str(if imported.offers.is_empty() { " []\n" } else { "\n" });
    for offer in &imported.offers {
        endpoint(offer, &mut yaml);
    }
    if !imported.skipped.is_empty() {
        yaml.push_str("\n# Left out:\n");
        for skipped in &imported.skipped {
            // Writing to a String cannot fail, here and below.
            let _ = writeln!(yaml, "#   {}: {}", one_line(&skipped.id), one_line(&skipped.reason));
        }
    }
    yaml
}

fn models(offers: &[Offer], yaml: &mut String) {
    let mut models: BTreeMap<&str, (Option<&str>, Option<&str>)> = BTreeMap::new();
    for offer in offers {
        let facts = models.entry(&offer.model).or_default();
        facts.0 = facts.0.or(offer.model_name.as_deref());
        facts.1 = facts.1.or(offer.created.as_deref());
    }
    yaml.push_str("models:");
    yaml.push_str(if models.is_empty() { " {}\n" } else { "\n" });
    for (slug, (name, created)) in models {
        let facts: Vec<String> = [("name", name), ("created", created)]
            .into_iter()
            .filter_map(|(key, value)| Some(format!("{key}: {}", scalar(value?))))
            .collect();
        let _ = writeln!(yaml, "  {}: {{{}}}", scalar(slug), facts.join(", "));
    }
}

fn endpoint(offer: &Offer, yaml: &mut String) {
    let mut first = true;
    let mut field = |key: &str, value: &str| {
        let _ = writeln!(yaml, "  {} {key}: {value}", if first { "-" } else { " " });
        first = false;
    };
    field("provider", &scalar(&offer.provider));
    field("model", &scalar(&offer.model));
    if offer.tag != offer.provider {
        field("tag", &scalar(&offer.tag));
    }
    if offer.model.split_once('/').map(|(_, name)| name) != Some(offer.upstream_model.as_str()) {
        field("upstream_model", &scalar(&offer.upstream_model));
    }
    field("context_length", &offer.context_length.to_string());
    if let Some(max_output) = offer.max_output {
        field("max_output", &max_output.to_string());
    }
    if let Some(quantization) = &offer.quantization {
        field("quantization", &scalar(quantization));
    }
    if !offer.inputs.is_empty() {
        field("inputs", &format!("[text, {}]", offer.inputs.join(", ")));
    }
    if let Some(parameters) = &offer.parameters {
        field("parameters", &format!("[{}]", parameters.join(", ")));
    }
    if offer.overrides.is_empty() && offer.discount.is_none() {
        field("prices", &format!("{{{}}}", prices(&offer.prices)));
    } else {
        field("prices", "");
        for (name, rate) in &offer.prices.0 {
            let _ = writeln!(yaml, "      {name}: \"{}\"", price(name, *rate));
        }
        if let Some(discount) = &offer.discount {
            let _ = writeln!(yaml, "      discount: {}", scalar(discount));
        }
        if !offer.overrides.is_empty() {
            yaml.push_str("      overrides:\n");
            for entry in &offer.overrides {
                let _ = writeln!(yaml, "        - {{{}}}", conditions(entry));
            }
        }
    }
    for remark in &offer.remarks {
        let _ = writeln!(yaml, "    # {}", one_line(remark));
    }
}

fn conditions(entry: &Override) -> String {
    let mut parts = Vec::new();
    if let Some(tokens) = entry.min_prompt_tokens {
        parts.push(format!("min_prompt_tokens: {tokens}"));
    }
    if let Some((start, end)) = entry.hours {
        parts.push(format!("utc_start: {start}, utc_end: {end}"));
    }
    parts.push(prices(&entry.prices));
    parts.join(", ")
}

fn prices(prices: &Prices) -> String {
    let parts: Vec<String> = prices.0.iter().map(|(name, rate)| format!("{name}: \"{}\"", price(name, *rate))).collect();
    parts.join(", ")
}

fn price(name: &str, rate: tidegate_ledger::Rate) -> String {
    if matches!(name, "request" | "image") { rate.usd_per_unit() } else { rate.usd_per_million() }
}

/// A YAML scalar that reads back as this text.
fn scalar(text: &str) -> String {
    let plain = !text.is_empty()
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/'))
        && !matches!(text.to_lowercase().as_str(), "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n");
    // A JSON string is a YAML string.
    if plain { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
