//! Provider preferences of keys and defaults, through the same parser that requests go through.

use serde_json::Value;
use tidegate_routing::Preferences;

use super::{Lowering, Place};
use crate::config::file;

impl<'a> Lowering<'a> {
    pub(super) fn preferences(&mut self, raw: &file::Preferences, place: Place<'a>) -> Preferences {
        let mut json = serde_json::to_value(raw).unwrap_or_default();
        let empty_only = raw.only.as_ref().is_some_and(Vec::is_empty);
        // Bounds are decimals in the file; the request parser takes numbers.
        if let Some(Value::Object(bounds)) = json.get_mut("max_price") {
            for (name, bound) in bounds.iter_mut() {
                let text = bound.as_str().unwrap_or_default();
                match serde_json::from_str::<serde_json::Number>(text) {
                    Ok(number) => *bound = Value::Number(number),
                    Err(_) => self.error(place.get("max_price").get(name), "not a decimal number", "write USD, such as `2.50`"),
                }
            }
        }
        match serde_json::from_value::<Preferences>(json) {
            Ok(mut preferences) => {
                if empty_only {
                    self.error(place.get("only"), "an empty list admits no provider", "name some, or leave the key out");
                }
                preferences.data_region.clone_from(&raw.data_region);
                preferences
            }
            Err(error) => {
                self.error(place, error.to_string(), "see the `provider` object of the API for what each field takes");
                Preferences::default()
            }
        }
    }
}
