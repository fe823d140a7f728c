//! Models, endpoints and list prices that ship with this version, and readers of public lists.
//!
//! The shipped catalogue is a file of the ordinary configuration form, checked by the ordinary rules, so that an entry can be copied
//! into a configuration and changed. Nothing is fetched at run time.

pub(crate) mod glob;
pub(crate) mod import;

use std::sync::LazyLock;

use tidegate_edge::config::{EndpointConfig, ModelConfig};

use crate::config::lower;

/// The file as it ships.
pub(crate) const SHIPPED: &str = include_str!("catalog/catalog.yaml");

/// Models and the endpoints that serve them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Catalogue {
    pub(crate) models: Vec<ModelConfig>,
    pub(crate) endpoints: Vec<EndpointConfig>,
}

/// The catalogue that ships with this version. Providers are in `tidegate_wire::ProviderCatalog::shipped()`.
pub(crate) fn shipped() -> &'static Catalogue {
    static CATALOGUE: LazyLock<Catalogue> =
        LazyLock::new(|| lower::catalogue("catalog.yaml", SHIPPED).expect("the file is part of the build and a test reads it"));
    &CATALOGUE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_file_obeys_the_rules() {
        let report = match lower::catalogue("catalog.yaml", SHIPPED) {
            Ok(_) => return,
            Err(report) => report,
        };
        panic!("{}", report.render(false));
    }

    #[test]
    fn covers_the_well_known_providers() {
        let catalogue = shipped();
        assert!(catalogue.endpoints.len() >= 40, "{} endpoints", catalogue.endpoints.len());
        for provider in
            ["openai", "anthropic", "google-ai-studio", "groq", "mistral", "deepseek", "together", "fireworks", "xai", "cerebras"]
        {
            assert!(catalogue.endpoints.iter().any(|endpoint| endpoint.provider == provider), "{provider} has no endpoint");
        }
        for model in &catalogue.models {
            assert!(catalogue.endpoints.iter().any(|endpoint| endpoint.model == model.slug), "{} is not served", model.slug);
        }
    }
}
