//! API keys on the command line; their form is [`tidegate_runtime::api_key`]'s.

use tidegate_runtime::api_key::{ApiKey, KeyEnv, RANDOM_BYTES};

/// [`KeyEnv`] as an argument.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum KeyEnvName {
    /// For production.
    #[default]
    Live,
    /// For trying things out.
    Test,
}

impl From<KeyEnvName> for KeyEnv {
    fn from(name: KeyEnvName) -> Self {
        match name {
            KeyEnvName::Live => KeyEnv::Live,
            KeyEnvName::Test => KeyEnv::Test,
        }
    }
}

/// A new key from the operating system's randomness.
pub(crate) fn generate(env: KeyEnv) -> Result<ApiKey, getrandom::Error> {
    let mut random = [0; RANDOM_BYTES];
    getrandom::fill(&mut random)?;
    Ok(ApiKey::from_random(env, &random))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_keys_are_the_same() {
        let (one, other) = (generate(KeyEnv::Test).unwrap(), generate(KeyEnv::Test).unwrap());
        assert_ne!(one.expose(), other.expose());
        assert_ne!(one.public_id(), other.public_id());
    }
}
