//! A JSON value that fits a JSON Schema: tool arguments and structured output.
//!
//! Covers what model APIs accept: types, `enum`, `const`, objects with required properties, arrays, bounds, common string formats,
//! `anyOf`/`oneOf`/`allOf` and local `$ref`. Patterns and exotic keywords are not looked at. Gemini writes its types in capitals.

use serde_json::{Map, Number, Value, json};

use crate::text;

/// A value for the schema; equal random numbers give equal values.
pub(crate) fn instance(schema: &Value, random: &mut fastrand::Rng) -> Value {
    Generator { root: schema, random }.value(schema, 0)
}

struct Generator<'a> {
    root: &'a Value,
    random: &'a mut fastrand::Rng,
}

impl Generator<'_> {
    fn value(&mut self, schema: &Value, depth: usize) -> Value {
        if let Some(fixed) = schema.get("const") {
            return fixed.clone();
        }
        if let Some(choices) = schema.get("enum").and_then(Value::as_array) {
            return self.choose(choices).cloned().unwrap_or(Value::Null);
        }
        if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
            // A reference that leads nowhere, or around in circles, is the author's mistake; anything is as good as anything.
            let found = target.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer)).cloned();
            return match found {
                Some(found) if depth < DEEPEST * 4 => self.value(&found, depth + 1),
                _ => Value::Null,
            };
        }
        for keyword in ["anyOf", "oneOf"] {
            if let Some(choices) = schema.get(keyword).and_then(Value::as_array) {
                // The last one when deep: recursive schemas put the way out there (`null`) as often as not.
                let choice = if depth > DEEPEST { cheapest(choices) } else { choices.first() };
                return choice.map_or(Value::Null, |choice| self.value(choice, depth + 1));
            }
        }
        if let Some(parts) = schema.get("allOf").and_then(Value::as_array) {
            return self.all_of(schema, parts, depth);
        }
        match type_of(schema).as_str() {
            "object" => Value::Object(self.object(schema, depth)),
            "array" => self.array(schema, depth),
            "integer" => self.integer(schema),
            "number" => self.number(schema),
            "boolean" => Value::Bool(self.random.bool()),
            "null" => Value::Null,
            _ => Value::String(self.string(schema)),
        }
    }

    fn object(&mut self, schema: &Value, depth: usize) -> Map<String, Value> {
        let required: Vec<&str> = strings(schema.get("required"));
        let mut made = Map::new();
        if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
            for (name, property) in properties {
                let wanted = required.contains(&name.as_str()) || (depth < DEEPEST && self.random.bool());
                if wanted {
                    made.insert(name.clone(), self.value(property, depth + 1));
                }
            }
        }
        for name in required {
            if !made.contains_key(name) {
                made.insert(name.to_owned(), Value::String(text::noun(self.random).to_owned()));
            }
        }
        made
    }

    fn all_of(&mut self, schema: &Value, parts: &[Value], depth: usize) -> Value {
        let mut made = self.object(schema, depth);
        let mut other = None;
        for part in parts {
            match self.value(part, depth + 1) {
                Value::Object(fields) => made.extend(fields),
                value => other = Some(value),
            }
        }
        if made.is_empty() { other.unwrap_or(Value::Object(made)) } else { Value::Object(made) }
    }

    fn array(&mut self, schema: &Value, depth: usize) -> Value {
        let mut items: Vec<Value> = Vec::new();
        for item in schema.get("prefixItems").and_then(Value::as_array).into_iter().flatten() {
            items.push(self.value(item, depth + 1));
        }
        let least = count(schema, "minItems").unwrap_or(0);
        let most = count(schema, "maxItems").unwrap_or(usize::MAX);
        let usual = if depth < DEEPEST { 2 } else { 0 };
        let wanted = usual.max(least).min(most).min(MOST_ITEMS);
        let any = json!({"type": "string"});
        let item = schema.get("items").filter(|items| items.is_object()).unwrap_or(&any);
        let unique = schema.get("uniqueItems").and_then(Value::as_bool).unwrap_or(false);
        let mut tries = 0;
        while items.len() < wanted && tries < wanted * 20 {
            tries += 1;
            let made = self.value(item, depth + 1);
            if !unique || !items.contains(&made) {
                items.push(made);
            }
        }
        Value::Array(items)
    }

    fn integer(&mut self, schema: &Value) -> Value {
        let step = schema.get("multipleOf").and_then(Value::as_i64).filter(|step| *step > 0).unwrap_or(1);
        let bound = |name: &str, open: &str, inward: i64| {
            let closed = schema.get(name).and_then(Value::as_f64);
            let open = schema.get(open).and_then(Value::as_f64).map(|bound| bound + inward as f64);
            closed.or(open)
        };
        let low = bound("minimum", "exclusiveMinimum", 1).map_or(i64::MIN, |low| low.ceil() as i64);
        let high = bound("maximum", "exclusiveMaximum", -1).map_or(i64::MAX, |high| high.floor() as i64);
        let low = if low == i64::MIN { high.min(100) - 99 } else { low };
        let high = high.min(low.saturating_add(99 * step)).max(low);
        let first = low.div_euclid(step) * step;
        let first = if first < low { first + step } else { first };
        let steps = ((high - first) / step).max(0);
        Value::from(first + self.random.i64(0..=steps) * step)
    }

    fn number(&mut self, schema: &Value) -> Value {
        if schema.get("multipleOf").is_some() {
            return self.integer(schema);
        }
        let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
        let low = bound("minimum").or(bound("exclusiveMinimum"));
        let high = bound("maximum").or(bound("exclusiveMaximum"));
        let (low, high) = match (low, high) {
            (Some(low), Some(high)) => (low, high),
            (Some(low), None) => (low, low + 100.0),
            (None, Some(high)) => (high - 100.0, high),
            (None, None) => (0.0, 100.0),
        };
        // In the open middle, so that exclusive bounds hold as well.
        let share = 0.25 + 0.5 * self.random.f64();
        Number::from_f64(low + (high - low) * share).map_or(Value::Null, Value::Number)
    }

    fn string(&mut self, schema: &Value) -> String {
        let format = schema.get("format").and_then(Value::as_str).unwrap_or_default();
        let fixed = match format {
            "date-time" => "2026-03-14T15:09:26Z",
            "date" => "2026-03-14",
            "time" => "15:09:26Z",
            "duration" => "PT90S",
            "email" => "pilot@example.org",
            "hostname" => "harbour.example.org",
            "ipv4" => "192.0.2.7",
            "ipv6" => "2001:db8::7",
            "uri" => "https://example.org/tides",
            "uuid" => "6f1d0f0e-5b1c-4a7e-9d53-0c6a4a7f2e11",
            _ => "",
        };
        if !fixed.is_empty() {
            return fixed.to_owned();
        }
        let mut made = text::noun(self.random).to_owned();
        while made.chars().count() < count(schema, "minLength").unwrap_or(0).min(LONGEST_STRING) {
            made.push('-');
            made.push_str(text::noun(self.random));
        }
        made.chars().take(count(schema, "maxLength").unwrap_or(LONGEST_STRING)).collect()
    }

    fn choose<'v>(&mut self, choices: &'v [Value]) -> Option<&'v Value> {
        choices.get(self.random.usize(..choices.len().max(1)))
    }
}

/// The type in lower case; of several the first that is not null; objects and arrays are also known by their parts.
fn type_of(schema: &Value) -> String {
    let named = match schema.get("type") {
        Some(Value::String(name)) => Some(name.as_str()),
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).find(|name| *name != "null").or(Some("null")),
        _ => None,
    };
    let implied = || {
        if schema.get("properties").is_some() || schema.get("required").is_some() {
            "object"
        } else if schema.get("items").is_some() || schema.get("prefixItems").is_some() {
            "array"
        } else {
            "string"
        }
    };
    named.unwrap_or_else(implied).to_ascii_lowercase()
}

/// The choice that surely does not lead deeper, if there is one.
fn cheapest(choices: &[Value]) -> Option<&Value> {
    let flat = |choice: &&Value| !matches!(type_of(choice).as_str(), "object" | "array") && choice.get("$ref").is_none();
    choices.iter().find(flat).or(choices.first())
}

fn strings(value: Option<&Value>) -> Vec<&str> {
    value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

fn count(schema: &Value, keyword: &str) -> Option<usize> {
    // Gemini writes numbers as texts at times.
    let value = schema.get(keyword)?;
    let number = value.as_u64().or_else(|| value.as_str()?.parse().ok())?;
    usize::try_from(number).ok()
}

/// Below this, optional parts are left out, so that recursive schemas end.
const DEEPEST: usize = 6;
const MOST_ITEMS: usize = 64;
const LONGEST_STRING: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    fn conforms(schema: &Value) {
        let validator = jsonschema::validator_for(schema).unwrap();
        for seed in 0..50 {
            let made = instance(schema, &mut fastrand::Rng::with_seed(seed));
            let problems: Vec<String> = validator.iter_errors(&made).map(|problem| problem.to_string()).collect();
            assert!(problems.is_empty(), "seed {seed}: {made} does not fit: {problems:?}");
        }
    }

    #[test]
    fn values_fit_their_schemas() {
        conforms(&json!({"type": "object", "required": ["city", "unit", "days"], "additionalProperties": false, "properties": {
            "city": {"type": "string", "minLength": 12, "maxLength": 20},
            "unit": {"enum": ["celsius", "kelvin"]},
            "days": {"type": "integer", "minimum": 3, "maximum": 9, "multipleOf": 3},
            "wind": {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 1},
            "alarm": {"type": "boolean"}, "nothing": {"type": "null"}, "kind": {"const": 7}}}));
        conforms(&json!({"type": "array", "minItems": 3, "maxItems": 4, "uniqueItems": true,
            "items": {"type": "array", "prefixItems": [{"type": "integer", "exclusiveMaximum": -5}, {"type": "number"}], "maxItems": 2}}));
        conforms(&json!({"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]}));
        conforms(&json!({"allOf": [{"type": "object", "required": ["a"], "properties": {"a": {"type": "string"}}},
            {"type": "object", "required": ["b"], "properties": {"b": {"type": "integer"}}}]}));
    }

    #[test]
    fn references_and_recursion_end() {
        conforms(&json!({"$ref": "#/$defs/node", "$defs": {"node": {"type": "object", "required": ["name", "next"],
            "properties": {"name": {"type": "string"}, "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
            "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}}}}}));
    }

    #[test]
    fn hopeless_schemas_still_end() {
        for schema in [json!({"$ref": "#"}), json!({"$ref": "#/nowhere"}), json!(true), json!({"enum": []}), json!({"anyOf": []})] {
            instance(&schema, &mut fastrand::Rng::with_seed(1));
        }
    }

    #[test]
    fn geminis_capitals_are_types_too() {
        let schema = json!({"type": "OBJECT", "required": ["n"], "properties": {"n": {"type": "INTEGER"}}});
        let made = instance(&schema, &mut fastrand::Rng::with_seed(1));
        assert!(made["n"].is_i64());
    }
}
