//! What a mock answers, encoded in the name of the model.
//!
//! Gateways forward the model name and little else, so one mock serves every scenario: the last segment of the name says what to
//! answer. `bench/json` is one JSON object; `bench/sse-100-5` is a stream of 100 content chunks, one every 5 ms.

use std::fmt;
use std::time::Duration;

/// Upper bound of chunks in one stream, so that a mistyped name cannot keep a mock busy for ever.
const MOST_CHUNKS: u32 = 100_000;

/// One kind of answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Scenario {
    /// A constant JSON object of about 0.6 KB.
    Json,
    /// A server-sent-event stream.
    Sse(Stream),
}

/// Shape of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Stream {
    /// Chunks with content.
    pub(crate) chunks: u32,
    /// Milliseconds between two chunks; 0 sends the whole stream in one write.
    pub(crate) pace_ms: u32,
}

impl Scenario {
    /// Reads the last segment of a model name; an unknown name means [`Scenario::Json`].
    pub(crate) fn of_model(model: &str) -> Self {
        let name = model.rsplit('/').next().unwrap_or(model);
        let Some(shape) = name.strip_prefix("sse-") else {
            return Self::Json;
        };
        let mut numbers = shape.splitn(2, '-').map(|number| number.parse::<u32>().ok());
        match (numbers.next().flatten(), numbers.next().flatten()) {
            (Some(chunks), Some(pace_ms)) => Self::Sse(Stream { chunks: chunks.clamp(1, MOST_CHUNKS), pace_ms }),
            _ => Self::Json,
        }
    }

    /// A stream of `chunks` chunks, one every `pace_ms` milliseconds.
    pub(crate) const fn sse(chunks: u32, pace_ms: u32) -> Self {
        Self::Sse(Stream { chunks, pace_ms })
    }

    /// The stream's shape, when it is one.
    pub(crate) const fn stream(self) -> Option<Stream> {
        match self {
            Self::Json => None,
            Self::Sse(stream) => Some(stream),
        }
    }
}

impl Stream {
    /// Time between two chunks.
    pub(crate) fn pace(self) -> Duration {
        Duration::from_millis(u64::from(self.pace_ms))
    }
}

/// The last segment of the model name.
impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json => f.write_str("json"),
            Self::Sse(Stream { chunks, pace_ms }) => write!(f, "sse-{chunks}-{pace_ms}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_a_round_trip() {
        for scenario in [Scenario::Json, Scenario::sse(100, 0), Scenario::sse(7, 50)] {
            assert_eq!(Scenario::of_model(&format!("bench/{scenario}")), scenario);
        }
    }

    #[test]
    fn anything_unknown_is_a_json_answer() {
        for model in ["", "gpt-4o", "bench/sse-", "sse-5", "sse-x-5", "sse-5-"] {
            assert_eq!(Scenario::of_model(model), Scenario::Json, "{model}");
        }
    }

    #[test]
    fn chunk_count_is_bounded() {
        assert_eq!(Scenario::of_model("sse-4000000000-1"), Scenario::sse(MOST_CHUNKS, 1));
        assert_eq!(Scenario::of_model("sse-0-1"), Scenario::sse(1, 1));
    }
}
