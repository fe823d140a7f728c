//! The configuration Tidegate is measured with: everything on.
//!
//! Key check, limits of the key and of its workspace, three endpoints behind three providers for every model, health, a journal of
//! every generation, metrics on the operations port, an access log in a file. [`config`] is the only place that knows the file's format.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use super::certificate::Certificate;
use crate::scenario::Scenario;

/// Author of the models whose upstream speaks the caller's dialect.
pub(crate) const SAME_DIALECT: &str = "bench";
/// Author of the models whose upstream speaks Anthropic Messages.
pub(crate) const ANTHROPIC: &str = "bench-anthropic";
/// Author of the models whose upstream speaks Gemini.
pub(crate) const GEMINI: &str = "bench-gemini";

/// Endpoints of each model.
pub(crate) const ENDPOINTS_PER_MODEL: usize = 3;

/// Environment variable that holds the upstream's key; the mock accepts any.
pub(crate) const UPSTREAM_KEY_VARIABLE: &str = "TIDEGATE_LOADTEST_UPSTREAM_KEY";

/// A part of Tidegate that can be left out, to see what it costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// Limits of the key and of its workspace.
    Limits,
    /// The journal of generations; sums in memory stay.
    Journal,
}

/// What the configuration depends on.
#[derive(Debug, Clone)]
pub(crate) struct Setup<'a> {
    pub(crate) listen: SocketAddr,
    /// Address and certificate of the TLS listener.
    pub(crate) secure: Option<(SocketAddr, &'a Certificate)>,
    pub(crate) operations: SocketAddr,
    pub(crate) upstream: SocketAddr,
    pub(crate) access_log: &'a Path,
    /// Folder of the journal.
    pub(crate) ledger: &'a Path,
    /// Models of the same dialect that callers can name.
    pub(crate) scenarios: &'a [Scenario],
    /// Also serve the models of the other dialects.
    pub(crate) translated: bool,
    /// Further models for the scale figure, three endpoints each: `bench/extra-<n>` answers JSON.
    pub(crate) extra_models: usize,
    pub(crate) keys: usize,
    /// `per-core` or `shared`.
    pub(crate) runtime: &'static str,
    /// Left out.
    pub(crate) without: &'a [Part],
}

/// The n-th caller's key.
pub(crate) fn key(number: usize) -> String {
    format!("sk-tg-loadtest-{number:0>40}")
}

/// A model of the scale figure.
pub(crate) fn extra_model(number: usize) -> String {
    format!("{SAME_DIALECT}/extra-{number}")
}

/// The configuration file.
pub(crate) fn config(setup: &Setup<'_>) -> String {
    let mut text = String::from("# Written by tidegate-loadtest.\nregion: loadtest\n");
    let mut line = |indent: usize, line: &str| {
        let _ = writeln!(text, "{:indent$}{line}", "");
    };

    line(0, "listeners:");
    line(2, &format!("- {{ name: http, address: \"{}\" }}", setup.listen));
    if let Some((address, certificate)) = setup.secure {
        line(2, &format!("- name: https\n    address: \"{address}\"\n    tls:\n      certificates:"));
        line(8, &format!("- {{ cert: {}, key: {} }}", quoted(&certificate.cert), quoted(&certificate.key)));
    }
    line(0, &format!("runtime: {{ model: {} }}", setup.runtime));
    line(0, &format!("operations: {{ address: \"{}\" }}", setup.operations));
    line(0, &format!("access_log: {}", serde_json::json!(format!("file:{}", setup.access_log.display()))));

    let has = |part: Part| !setup.without.contains(&part);
    if has(Part::Journal) {
        line(0, &format!("ledger: {{ directory: {} }}", quoted(setup.ledger)));
    }

    // Thousands of streams over three endpoints: protecting an upstream that cannot be overloaded is not what is measured.
    line(0, "routing: { limit_initial: 4096 }");

    line(0, "providers:");
    let dialects: &[_] = &[(SAME_DIALECT, "openai-chat", "/v1"), (ANTHROPIC, "anthropic-messages", ""), (GEMINI, "gemini", "/v1beta")];
    let dialects = if setup.translated { dialects } else { &dialects[..1] };
    for (author, dialect, path) in dialects {
        for number in 1..=ENDPOINTS_PER_MODEL {
            line(2, &format!("{author}-{number}:"));
            line(4, &format!("dialect: {dialect}"));
            line(4, &format!("base_url: \"http://{}{path}\"", setup.upstream));
            line(4, &format!("credentials: [\"env:{UPSTREAM_KEY_VARIABLE}\"]"));
            line(4, "idle_connections: 4096");
        }
    }

    // Model, its author, and what the mock is told.
    let named = dialects.iter().flat_map(|(author, ..)| {
        setup.scenarios.iter().map(move |scenario| (format!("{author}/{scenario}"), *author, scenario.to_string()))
    });
    let extra = (0..setup.extra_models).map(|number| (extra_model(number), SAME_DIALECT, Scenario::Json.to_string()));
    let models: Vec<_> = named.chain(extra).collect();
    line(0, "models:");
    for (slug, ..) in &models {
        line(2, &format!("{slug}: {{}}"));
    }
    line(0, "endpoints:");
    for (slug, author, upstream_model) in &models {
        for number in 1..=ENDPOINTS_PER_MODEL {
            line(
                2,
                &format!(
                    "- {{ provider: {author}-{number}, model: {slug}, upstream_model: {upstream_model}, context_length: 1000000, max_output: 65536, prices: {{ prompt: \"0.5\", completion: \"1.5\" }} }}"
                ),
            );
        }
    }
    // Limits that are counted for every request and never reached.
    line(0, "organisations:\n  acme: {}");
    let limits = |limits: &'static str| if has(Part::Limits) { limits } else { "" };
    let shared = limits(", limits: [{ tokens_per_minute: 1000000000000 }, { spend_per_day: 100000000 }]");
    line(0, &format!("workspaces:\n  load: {{ organisation: acme{shared} }}"));
    let own = limits(", limits: [{ requests_per_minute: 1000000000 }]");
    line(0, "keys:");
    for number in 0..setup.keys.max(1) {
        let digest = blake3::hash(key(number).as_bytes()).to_hex();
        line(2, &format!("caller-{number}: {{ digest: \"blake3:{digest}\", workspace: load{own} }}"));
    }
    text
}

fn quoted(path: &Path) -> String {
    serde_json::json!(path.display().to_string()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup(keys: usize, extra_models: usize) -> String {
        setup_without(keys, extra_models, &[])
    }

    fn setup_without(keys: usize, extra_models: usize, without: &[Part]) -> String {
        config(&Setup {
            listen: "127.0.0.1:1".parse().unwrap(),
            secure: None,
            operations: "127.0.0.1:2".parse().unwrap(),
            upstream: "127.0.0.1:3".parse().unwrap(),
            access_log: Path::new("/tmp/access.log"),
            ledger: Path::new("/tmp/ledger"),
            scenarios: &[Scenario::Json, Scenario::sse(100, 0)],
            translated: true,
            extra_models,
            keys,
            runtime: "per-core",
            without,
        })
    }

    #[test]
    fn parts_can_be_left_out() {
        let (all, less) = (setup(2, 0), setup_without(2, 0, &[Part::Limits, Part::Journal]));
        assert!(all.contains("ledger: {") && all.matches("limits: [").count() == 3, "{all}");
        assert!(!less.contains("ledger:") && !less.contains("limits:"), "{less}");
        assert!(less.contains("workspace: load }"), "{less}");
    }

    #[test]
    fn each_model_has_three_endpoints_at_three_providers() {
        let text = setup(10, 0);
        assert_eq!(text.matches("base_url:").count(), 9);
        assert_eq!(text.matches("- { provider:").count(), 2 * 3 * ENDPOINTS_PER_MODEL);
        assert_eq!(text.matches("digest:").count(), 10);
        assert!(text.contains("  bench-gemini/sse-100-0: {}\n"), "{text}");
    }

    #[test]
    fn keys_stand_in_the_file_as_digests_only() {
        let text = setup(3, 0);
        assert!(!text.contains(&key(1)));
        assert!(text.contains(blake3::hash(key(1).as_bytes()).to_hex().as_str()));
    }

    #[test]
    fn the_scale_configuration_grows_as_asked() {
        let text = setup(100, 7);
        assert_eq!(text.matches("/extra-").count(), 7 * (1 + ENDPOINTS_PER_MODEL));
        assert_eq!(text.matches("digest:").count(), 100);
    }
}
