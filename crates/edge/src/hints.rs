//! What a request's headers say besides who is calling, read in one pass.
//!
//! Looking a dozen optional names up, one by one, costs more than walking over the handful of headers that a request has.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};

/// Everything optional that headers can ask for or tell.
#[derive(Debug, Default)]
pub(crate) struct Hints {
    /// Session, by the most trusted header that names one: OpenRouter and opencode, Codex, Claude Code.
    pub(crate) session: Option<String>,
    session_rank: usize,
    /// Field name of router metadata: ours by our header, OpenRouter's by theirs.
    pub(crate) metadata_field: Option<&'static str>,
    /// Headers about limits are wanted on success too.
    pub(crate) limit_headers: bool,
    timeout: Option<f64>,
    pub(crate) anthropic_beta: Option<HeaderValue>,
    pub(crate) origin: Option<String>,
    pub(crate) referer: Option<String>,
    pub(crate) title: Option<String>,
    pub(crate) user_agent: Option<String>,
}

impl Hints {
    /// Reads them all.
    pub(crate) fn read(headers: &HeaderMap) -> Self {
        let mut hints = Self::default();
        for (name, value) in headers {
            hints.take(name.as_str(), value);
        }
        hints
    }

    /// The time a caller grants, within the configured deadline.
    pub(crate) fn patience(&self, most: Duration) -> Duration {
        let asked = self.timeout.filter(|seconds| seconds.is_finite() && *seconds > 0.0);
        asked.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).map_or(most, |asked| asked.min(most))
    }

    fn take(&mut self, name: &str, value: &HeaderValue) {
        match name {
            "user-agent" => self.user_agent = bounded(value),
            "x-tidegate-metadata" if enabled(value) => self.metadata_field = Some("tidegate_metadata"),
            "x-openrouter-metadata" | "x-openrouter-experimental-metadata" if enabled(value) => {
                self.metadata_field = self.metadata_field.or(Some("openrouter_metadata"));
            }
            "x-tidegate-ratelimit" if enabled(value) => self.limit_headers = true,
            "x-request-timeout" => self.timeout = value.to_str().ok().and_then(|text| text.trim().parse().ok()),
            "anthropic-beta" => self.anthropic_beta = self.anthropic_beta.take().or_else(|| Some(value.clone())),
            "x-anthropic-beta" => self.anthropic_beta = Some(value.clone()),
            "origin" => self.origin = bounded(value),
            "http-referer" => self.referer = bounded(value),
            "referer" => self.referer = self.referer.take().or_else(|| bounded(value)),
            "x-openrouter-title" => self.title = bounded(value),
            "x-title" => self.title = self.title.take().or_else(|| bounded(value)),
            _ => {
                if let Some(rank) = SESSIONS.iter().position(|session| *session == name) {
                    self.take_session(SESSIONS.len() - rank, value);
                }
            }
        }
    }

    fn take_session(&mut self, rank: usize, value: &HeaderValue) {
        let text = value.to_str().ok().filter(|text| !text.is_empty() && text.len() <= SESSION_MAX);
        if let Some(text) = text.filter(|_| rank > self.session_rank) {
            self.session_rank = rank;
            self.session = Some(text.to_owned());
        }
    }
}

fn enabled(value: &HeaderValue) -> bool {
    value.as_bytes().eq_ignore_ascii_case(b"enabled")
}

fn bounded(value: &HeaderValue) -> Option<String> {
    // Header values that are text are ASCII, so that bytes are characters.
    let text = value.to_str().ok()?;
    (!text.is_empty()).then(|| text[..text.len().min(TEXT_MAX)].to_owned())
}

/// In order of trust.
const SESSIONS: [&str; 5] = ["x-session-id", "x-session-affinity", "session-id", "thread-id", "x-claude-code-session-id"];
/// The reference's bound for session ids.
const SESSION_MAX: usize = 256;
/// Characters kept of an attribution header: callers choose them, records are kept.
const TEXT_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(headers: &[(&'static str, &str)]) -> Hints {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().expect("a header value of this test"));
        }
        Hints::read(&map)
    }

    #[test]
    fn the_most_trusted_session_wins_whatever_the_order() {
        for headers in [[("thread-id", "t"), ("x-session-id", "x")], [("x-session-id", "x"), ("thread-id", "t")]] {
            assert_eq!(read(&headers).session.as_deref(), Some("x"));
        }
        assert_eq!(read(&[("x-session-id", &"x".repeat(257)), ("thread-id", "t")]).session.as_deref(), Some("t"));
    }

    #[test]
    fn metadata_is_named_after_the_header_that_asked() {
        assert_eq!(read(&[("x-openrouter-metadata", "Enabled")]).metadata_field, Some("openrouter_metadata"));
        let both = [("x-openrouter-metadata", "enabled"), ("x-tidegate-metadata", "enabled")];
        assert_eq!(read(&both).metadata_field, Some("tidegate_metadata"));
        assert_eq!(read(&[("x-tidegate-metadata", "yes")]).metadata_field, None);
    }

    #[test]
    fn a_caller_can_shorten_the_deadline_but_not_stretch_it() {
        let most = Duration::from_secs(600);
        assert_eq!(read(&[("x-request-timeout", "2.5")]).patience(most), Duration::from_millis(2500));
        for ignored in ["9999", "-1", "soon", "inf", "1e300"] {
            assert_eq!(read(&[("x-request-timeout", ignored)]).patience(most), most, "{ignored}");
        }
    }

    #[test]
    fn attribution_is_bounded_and_the_newer_names_win() {
        let hints = read(&[("referer", "r"), ("http-referer", "h"), ("x-title", "old"), ("x-openrouter-title", &"n".repeat(300))]);
        assert_eq!(hints.referer.as_deref(), Some("h"));
        assert_eq!(hints.title.map(|title| title.len()), Some(TEXT_MAX));
    }
}
