//! Requests that a configuration on trial turned away.
//!
//! A configuration that loses a model answers 404, which no share of 5xx shows. But a caller can ask for what never was, so that only what
//! cannot be a caller's doing counts: a model without any endpoint, and a model that the configuration before had.

use std::collections::BTreeSet;

use arc_swap::ArcSwap;

use crate::config::MeshConfig;
use crate::error::EdgeError;

/// Names that were served before. Asked on the road of errors only.
#[derive(Default)]
pub(crate) struct Missed {
    models: ArcSwap<BTreeSet<String>>,
}

impl Missed {
    /// A configuration takes the place of another and has yet to prove itself.
    pub(super) fn begin(&self, before: &MeshConfig, now: &MeshConfig) {
        let has: BTreeSet<&str> = names(now).collect();
        let missed: BTreeSet<String> = names(before).filter(|name| !has.contains(name)).map(str::to_owned).collect();
        self.models.store(missed.into());
    }

    /// It has proven itself: what it leaves out is meant.
    pub(super) fn end(&self) {
        if !self.models.load().is_empty() {
            self.models.store(BTreeSet::new().into());
        }
    }

    /// Whether a refusal is the configuration's fault rather than the caller's.
    pub(crate) fn is_ours(&self, error: &EdgeError) -> bool {
        match error {
            EdgeError::NoRoute { why, .. } => why.excluded_by.is_empty(),
            EdgeError::UnknownModel { model, .. } => self.models.load().contains(model),
            _ => false,
        }
    }
}

fn names(mesh: &MeshConfig) -> impl Iterator<Item = &str> {
    mesh.models.iter().flat_map(|model| std::iter::once(&model.slug).chain(&model.aliases)).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::mesh;

    #[test]
    fn a_model_that_was_there_before_is_missed_until_the_trial_ends() {
        let missed = Missed::default();
        let unknown = |model: &str| EdgeError::UnknownModel { model: model.to_owned(), similar: Vec::new() };
        missed.begin(&mesh(1, "old"), &mesh(1, "new"));
        assert!(missed.is_ours(&unknown("old")));
        assert!(!missed.is_ours(&unknown("never-was")) && !missed.is_ours(&unknown("new")));
        missed.end();
        assert!(!missed.is_ours(&unknown("old")));
    }
}
