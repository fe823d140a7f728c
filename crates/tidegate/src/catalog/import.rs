//! Public lists of models and prices, turned into configuration for review.
//!
//! The lists disagree on names and units, are full of entries that cannot be routed, and change without notice. So the result is a
//! text to read and edit, not a live source: every entry that was left out is listed with the reason, and the header says where the
//! facts come from. Prices keep their digits: they are taken from the text of the JSON number, never from a float.

pub(crate) mod litellm;
pub(crate) mod models_dev;
pub(crate) mod names;
pub(crate) mod openrouter;
#[cfg(test)]
mod tests;
pub(crate) mod write;

use serde::Deserialize;
use serde_json::value::RawValue;
use tidegate_ledger::{MoneyError, Rate};

use super::glob;

/// Everything that a list yields.
#[derive(Debug, Default)]
pub(crate) struct Imported {
    pub(crate) offers: Vec<Offer>,
    pub(crate) skipped: Vec<Skipped>,
}

/// One provider's offer of one model.
#[derive(Debug, Clone, Default)]
pub(crate) struct Offer {
    /// Our slug of the provider.
    pub(crate) provider: String,
    /// `provider` or `provider/variant`.
    pub(crate) tag: String,
    /// Our slug of the model.
    pub(crate) model: String,
    /// Display name of the model.
    pub(crate) model_name: Option<String>,
    /// Release date, `2026-11-23`.
    pub(crate) created: Option<String>,
    /// What the provider calls the model.
    pub(crate) upstream_model: String,
    pub(crate) prices: Prices,
    pub(crate) overrides: Vec<Override>,
    pub(crate) discount: Option<String>,
    pub(crate) context_length: u32,
    pub(crate) max_output: Option<u32>,
    pub(crate) quantization: Option<String>,
    /// Names of request parameters, if the list says.
    pub(crate) parameters: Option<Vec<&'static str>>,
    /// Inputs besides text.
    pub(crate) inputs: Vec<&'static str>,
    /// Remarks for the reviewer.
    pub(crate) remarks: Vec<String>,
}

/// Rates by the names of our configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Prices(pub(crate) Vec<(&'static str, Rate)>);

/// Rates that hold under conditions.
#[derive(Debug, Clone, Default)]
pub(crate) struct Override {
    pub(crate) min_prompt_tokens: Option<u64>,
    pub(crate) hours: Option<(u16, u16)>,
    pub(crate) prices: Prices,
}

/// An entry that was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Skipped {
    /// As the list names it.
    pub(crate) id: String,
    pub(crate) reason: String,
}

/// What to take from a list.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selection {
    /// Providers by our slug or the list's; empty means all.
    pub(crate) providers: Vec<String>,
    /// Pattern over our model slugs.
    pub(crate) models: Option<String>,
}

/// The file is not such a list.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImportError {
    /// Not the expected JSON.
    #[error("not the JSON of {source_name}")]
    Json {
        /// Which list.
        source_name: &'static str,
        /// Where it departs.
        #[source]
        source: serde_json::Error,
    },
}

impl Selection {
    /// The provider is wanted, by either of its names.
    pub(crate) fn wants_provider(&self, ours: &str, theirs: &str) -> bool {
        self.providers.is_empty() || self.providers.iter().any(|wanted| wanted == ours || wanted == theirs)
    }

    /// The model is wanted.
    pub(crate) fn wants_model(&self, slug: &str) -> bool {
        self.models.as_deref().is_none_or(|pattern| glob::matches(pattern, slug))
    }
}

impl Imported {
    /// Sorts for reading and drops offers of one endpoint beyond the first.
    pub(crate) fn tidy(&mut self) {
        self.offers
            .sort_by(|a, b| (&a.provider, &a.model, &a.tag, &a.upstream_model).cmp(&(&b.provider, &b.model, &b.tag, &b.upstream_model)));
        let mut kept: Vec<Offer> = Vec::with_capacity(self.offers.len());
        for offer in self.offers.drain(..) {
            match kept.last() {
                Some(last) if last.model == offer.model && last.tag == offer.tag => self.skipped.push(Skipped {
                    id: format!("{}: {}", offer.provider, offer.upstream_model),
                    reason: format!("the same endpoint as `{}`; give one of them a tag of its own", last.upstream_model),
                }),
                _ => kept.push(offer),
            }
        }
        self.offers = kept;
        self.skipped.sort_by(|a, b| a.id.cmp(&b.id));
    }
}

/// Unit of a price in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    MillionTokens,
    One,
}

impl Prices {
    /// Adds a price if the list has it. The error names the price.
    pub(crate) fn add(&mut self, name: &'static str, value: Option<&Number>, unit: Unit) -> Result<(), String> {
        let Some(Number(text)) = value else { return Ok(()) };
        let rate = match unit {
            Unit::MillionTokens => Rate::per_million_usd(text),
            Unit::One => Rate::per_unit_usd(text),
        };
        match rate {
            Ok(rate) => self.0.push((name, rate)),
            Err(error) => return Err(format!("price `{name}` {text}: {}", short(error))),
        }
        Ok(())
    }

    /// The rate by this name.
    pub(crate) fn get(&self, name: &str) -> Option<Rate> {
        self.0.iter().find(|(own, _)| *own == name).map(|(_, rate)| *rate)
    }

    /// Drops a rate that says the same as its fallback.
    pub(crate) fn drop_if_equal(&mut self, name: &str, fallback: &str) {
        if self.get(name) == self.get(fallback) {
            self.0.retain(|(own, _)| *own != name);
        }
    }
}

/// The digits of a JSON number, or of a number in a JSON string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Number(pub(crate) String);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Number, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Ok(Number(raw.get().trim_matches('"').to_owned()))
    }
}

impl Number {
    /// The whole number it spells, if it does: `131072`, `131072.0`, `1e6`.
    pub(crate) fn whole(&self) -> Option<u32> {
        // Read as pico-dollars per unit: exact, and refuses fractions below.
        let rate = Rate::per_unit_usd(&self.0).ok()?.picodollars();
        let unit = 1_000_000_000_000;
        (rate % unit == 0).then(|| u32::try_from(rate / unit).ok()).flatten()
    }
}

fn short(error: MoneyError) -> &'static str {
    match error {
        MoneyError::NotANumber | MoneyError::TooLong => "not a decimal number",
        MoneyError::Negative => "negative, so it depends on something else",
        MoneyError::TooPrecise => "finer than a pico-dollar per unit; it would have to be rounded",
        MoneyError::OutOfRange => "out of range",
    }
}
