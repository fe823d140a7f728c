//! Writes how tokens are drawn and where the answer stops, as far as the model's generation lets callers decide that.

use super::request::{Encoder, fixed_version};
use crate::{canonical::Json, error::RequestError};

/// From this version on the API answers sampling parameters with 400. Versions are dates, so they compare as text.
const VERSION_WITHOUT_SAMPLING: &str = "2026-10-21";

/// While thinking, a smaller nucleus is refused.
const LEAST_TOP_P_WHEN_THINKING: f64 = 0.95;

impl Encoder<'_, '_> {
    /// Writes temperature, nucleus, `top_k` and the stop sequences.
    pub(super) fn write_sampling(&mut self, json: &mut Json<'_>) -> Result<(), RequestError> {
        let request = self.request;
        let refused =
            self.generation.refuses_sampling() || fixed_version(self.target).is_some_and(|version| version >= VERSION_WITHOUT_SAMPLING);
        // With thinking, the API takes neither of these.
        let fixed = refused || self.plan.thinks();
        let temperature = self.parameters.take_unless(fixed, "temperature", request.temperature);
        let top_k = self.parameters.take_unless(fixed, "top_k", request.top_k);
        let crowded = temperature.is_some() && self.generation.wants_one_sampler();
        let narrow = self.plan.thinks() && request.top_p.is_some_and(|top_p| top_p < LEAST_TOP_P_WHEN_THINKING);
        let top_p = self.parameters.take_unless(refused || crowded || narrow, "top_p", request.top_p);
        if let Some(temperature) = temperature {
            json.key("temperature");
            json.float(temperature.clamp(0.0, 1.0));
        }
        if let Some(top_p) = top_p {
            json.key("top_p");
            json.float(top_p);
        }
        if let Some(top_k) = top_k {
            json.key("top_k");
            json.integer(top_k);
        }

        let mut stop = request.stop()?;
        if stop.iter().any(|sequence| sequence.is_blank()) {
            // The API refuses sequences of white space only.
            self.parameters.drop("stop");
            stop.retain(|sequence| !sequence.is_blank());
        }
        if let Some(stop) = self.parameters.take("stop", (!stop.is_empty()).then_some(stop)) {
            json.array_at("stop_sequences");
            stop.into_iter().for_each(|sequence| json.literal(sequence));
            json.close_array();
        }
        Ok(())
    }
}
