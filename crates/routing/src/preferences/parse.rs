//! JSON to [`Preferences`], by hand rather than derived, so that every message names the field and what it should have been.

use serde_json::{Map, Value};
use thiserror::Error;

use super::{Cutoffs, DataCollection, Partition, Preferences, Sort, SortBy};
use crate::price::MaxPrice;
use crate::quantization::{Quantization, QuantizationSet};

/// What is wrong with a `provider` object.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}{problem}", if path.is_empty() { String::new() } else { format!("`{path}` ") })]
pub struct PreferencesError {
    path: String,
    problem: String,
}

impl PreferencesError {
    /// Path of the field inside the object, such as `max_price.prompt` or `order[1]`; empty for the object itself.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What is wrong, without the path.
    pub fn problem(&self) -> &str {
        &self.problem
    }
}

pub(super) fn parse(json: &str) -> Result<Preferences, PreferencesError> {
    let value: Value = serde_json::from_str(json)
        .map_err(|error| PreferencesError { path: String::new(), problem: format!("is not valid JSON: {error}") })?;
    from_value(&value)
}

pub(super) fn from_value(value: &Value) -> Result<Preferences, PreferencesError> {
    let object = match value {
        Value::Null => return Ok(Preferences::default()),
        Value::Object(object) => object,
        other => return Err(wrong("", "an object", other)),
    };
    let fields = Fields(object);
    Ok(Preferences {
        order: fields.get("order", slugs)?.unwrap_or_default(),
        allow_fallbacks: fields.get("allow_fallbacks", boolean)?,
        require_parameters: fields.get("require_parameters", boolean)?,
        data_collection: fields.get("data_collection", data_collection)?,
        zdr: fields.get("zdr", boolean)?.unwrap_or_default(),
        enforce_distillable_text: fields.get("enforce_distillable_text", boolean)?.unwrap_or_default(),
        // An empty list in a request is the SDKs' way of saying nothing; only a policy can admit nobody.
        only: fields.get("only", slugs)?.filter(|list| !list.is_empty()).into_iter().collect(),
        ignore: fields.get("ignore", slugs)?.unwrap_or_default(),
        quantizations: fields.get("quantizations", quantizations)?.flatten(),
        sort: fields.get("sort", sort)?,
        preferred_min_throughput: fields.get("preferred_min_throughput", cutoffs)?,
        preferred_max_latency: fields.get("preferred_max_latency", cutoffs)?,
        max_price: fields.get("max_price", max_price)?,
        data_region: None,
    })
}

struct Fields<'a>(&'a Map<String, Value>);

impl Fields<'_> {
    fn get<T>(&self, name: &str, read: impl Fn(&str, &Value) -> Result<T, PreferencesError>) -> Result<Option<T>, PreferencesError> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => read(name, value).map(Some),
        }
    }
}

fn boolean(path: &str, value: &Value) -> Result<bool, PreferencesError> {
    value.as_bool().ok_or_else(|| wrong(path, "true or false", value))
}

fn text<'a>(path: &str, value: &'a Value) -> Result<&'a str, PreferencesError> {
    value.as_str().ok_or_else(|| wrong(path, "a string", value))
}

fn list<T>(
    path: &str,
    value: &Value,
    of: &str,
    read: impl Fn(&str, &Value) -> Result<T, PreferencesError>,
) -> Result<Vec<T>, PreferencesError> {
    let items = value.as_array().ok_or_else(|| wrong(path, of, value))?;
    if items.len() > LONGEST_LIST {
        return Err(problem(path, format!("must not have more than {LONGEST_LIST} entries")));
    }
    items.iter().enumerate().map(|(at, item)| read(&format!("{path}[{at}]"), item)).collect()
}

fn slugs(path: &str, value: &Value) -> Result<Vec<String>, PreferencesError> {
    list(path, value, "a list of provider slugs", |path, item| {
        let slug = text(path, item)?.trim();
        if slug.is_empty() { Err(problem(path, "must not be empty".to_owned())) } else { Ok(slug.to_owned()) }
    })
}

fn data_collection(path: &str, value: &Value) -> Result<DataCollection, PreferencesError> {
    match value.as_str() {
        Some("allow") => Ok(DataCollection::Allow),
        Some("deny") => Ok(DataCollection::Deny),
        _ => Err(wrong(path, "`allow` or `deny`", value)),
    }
}

fn quantizations(path: &str, value: &Value) -> Result<Option<QuantizationSet>, PreferencesError> {
    let asked = list(path, value, "a list of quantizations", |path, item| {
        Quantization::from_name(text(path, item)?).ok_or_else(|| {
            let known: Vec<_> = crate::quantization::ALL.iter().map(|one| one.as_str()).collect();
            wrong(path, &format!("one of {}", known.join(", ")), item)
        })
    })?;
    Ok(if asked.is_empty() { None } else { Some(asked.into_iter().collect()) })
}

fn sort(path: &str, value: &Value) -> Result<Sort, PreferencesError> {
    match value {
        Value::String(_) => Ok(Sort { by: Some(sort_by(path, value)?), partition: Partition::Model }),
        Value::Object(object) => {
            let by = match object.get("by") {
                None | Some(Value::Null) => None,
                Some(by) => Some(sort_by(&format!("{path}.by"), by)?),
            };
            let partition = match object.get("partition") {
                None | Some(Value::Null) => Partition::Model,
                Some(Value::String(name)) if name == "model" => Partition::Model,
                Some(Value::String(name)) if name == "none" => Partition::None,
                Some(other) => {
                    return Err(wrong(&format!("{path}.partition"), "`model` or `none`", other));
                }
            };
            Ok(Sort { by, partition })
        }
        other => Err(wrong(path, "a string or an object with `by` and `partition`", other)),
    }
}

fn sort_by(path: &str, value: &Value) -> Result<SortBy, PreferencesError> {
    value.as_str().and_then(SortBy::from_name).ok_or_else(|| wrong(path, "`price`, `throughput`, `latency` or `exacto`", value))
}

fn cutoffs(path: &str, value: &Value) -> Result<Cutoffs, PreferencesError> {
    match value {
        Value::Number(_) => Ok(Cutoffs { p50: Some(amount(path, value)?), ..Cutoffs::default() }),
        Value::Object(object) => {
            let part = |name: &str| match object.get(name) {
                None | Some(Value::Null) => Ok(None),
                Some(value) => amount(&format!("{path}.{name}"), value).map(Some),
            };
            Ok(Cutoffs { p50: part("p50")?, p75: part("p75")?, p90: part("p90")?, p99: part("p99")? })
        }
        other => Err(wrong(path, "a number or an object with percentiles", other)),
    }
}

fn max_price(path: &str, value: &Value) -> Result<MaxPrice, PreferencesError> {
    let object = value.as_object().ok_or_else(|| wrong(path, "an object", value))?;
    let part = |name: &str, picodollars: f64| match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let path = format!("{path}.{name}");
            let price = match value {
                Value::String(decimal) => decimal
                    .trim()
                    .parse::<f64>()
                    .ok()
                    .filter(|price| price.is_finite() && *price >= 0.0)
                    .ok_or_else(|| wrong(&path, "a price that is not negative", value))?,
                _ => amount(&path, value)?,
            };
            // Saturates far above any real price.
            Ok(Some((price * picodollars).round() as u64))
        }
    };
    Ok(MaxPrice {
        prompt: part("prompt", PICODOLLARS_PER_MILLION_TOKENS)?,
        completion: part("completion", PICODOLLARS_PER_MILLION_TOKENS)?,
        request: part("request", PICODOLLARS)?,
        image: part("image", PICODOLLARS)?,
        audio: part("audio", PICODOLLARS)?,
    })
}

fn amount(path: &str, value: &Value) -> Result<f64, PreferencesError> {
    value.as_f64().filter(|amount| amount.is_finite() && *amount >= 0.0).ok_or_else(|| wrong(path, "a number that is not negative", value))
}

fn wrong(path: &str, expected: &str, found: &Value) -> PreferencesError {
    let found = match found {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) if text.len() <= LONGEST_QUOTE => format!("`{text}`"),
        Value::String(_) => "a string".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    };
    problem(path, format!("must be {expected}, not {found}"))
}

fn problem(path: &str, problem: String) -> PreferencesError {
    PreferencesError { path: path.to_owned(), problem }
}

/// More slugs than there are providers in the world help nobody and cost on every request.
const LONGEST_LIST: usize = 256;
/// Enough to recognise one's own typing error in a message.
const LONGEST_QUOTE: usize = 40;
/// The wire gives `prompt` and `completion` bounds in USD per million tokens.
const PICODOLLARS_PER_MILLION_TOKENS: f64 = 1e6;
/// The wire gives the other bounds in USD per unit.
const PICODOLLARS: f64 = 1e12;
