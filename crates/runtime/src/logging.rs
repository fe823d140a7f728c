//! Logs: one subscriber per process, to standard error, as JSON or for humans.
//!
//! What may be logged is decided where it is logged (no keys, prompts or bodies); what happens here is only form. The panic hook is
//! the exception: a panic message may quote data, so the hook writes thread and place and never the message.

use std::io::{self, IsTerminal};
use std::panic::PanicHookInfo;

use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{fmt, reload};

/// A layer beside the log, such as the one of [`crate::telemetry::Telemetry::layer`].
pub type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// How to log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// Form of the lines.
    pub format: LogFormat,
    /// Levels by target, such as `info,tidegate_edge=debug` (the directives of `tracing_subscriber::EnvFilter`).
    pub filter: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Auto, filter: DEFAULT_FILTER.to_owned() }
    }
}

/// Form of the log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For humans when standard error is a terminal, else JSON.
    #[default]
    Auto,
    /// One JSON object per line.
    Json,
    /// Readable text; coloured on a terminal unless `NO_COLOR` is set.
    Human,
}

/// Why logging could not start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter does not parse.
    #[error("log filter `{filter}` is not valid; an example is `info,tidegate_edge=debug`")]
    Filter {
        /// The filter as given.
        filter: String,
        /// What is wrong with it.
        #[source]
        source: ParseError,
    },
    /// A subscriber was there before.
    #[error("logging was started twice")]
    Started(#[from] TryInitError),
    /// The subscriber is gone.
    #[error("change the log filter")]
    Reload(#[from] reload::Error),
}

/// Changes the running log.
#[derive(Debug, Clone)]
pub struct LogGuard {
    filter: reload::Handle<EnvFilter, Registry>,
}

impl LogGuard {
    /// Replaces the levels, for a reload of the configuration.
    pub fn set_filter(&self, filter: &str) -> Result<(), LogError> {
        self.filter.reload(parse_filter(filter)?)?;
        Ok(())
    }
}

/// Starts the log of this process and installs the panic hook. To be called once, by the binary.
pub fn init(config: &LogConfig) -> Result<LogGuard, LogError> {
    init_with(config, None)
}

/// As [`init`], with one more layer that is not subject to the log's filter.
pub fn init_with(config: &LogConfig, extra: Option<BoxedLayer>) -> Result<LogGuard, LogError> {
    let (filter, handle) = reload::Layer::new(parse_filter(&config.filter)?);
    let lines: BoxedLayer = match config.format.on(io::stderr().is_terminal()) {
        Form::Json => Box::new(json_lines(io::stderr).with_filter(filter)),
        Form::Coloured => Box::new(fmt::layer().with_writer(io::stderr).with_filter(filter)),
        Form::Plain => Box::new(fmt::layer().with_ansi(false).with_writer(io::stderr).with_filter(filter)),
    };
    let layers: Vec<BoxedLayer> = std::iter::once(lines).chain(extra).collect();
    tracing_subscriber::registry().with(layers).try_init()?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(LogGuard { filter: handle })
}

#[derive(Debug, PartialEq, Eq)]
enum Form {
    Json,
    /// The subscriber itself leaves the colours out when `NO_COLOR` is set.
    Coloured,
    Plain,
}

impl LogFormat {
    fn on(self, terminal: bool) -> Form {
        match (self, terminal) {
            (Self::Json, _) | (Self::Auto, false) => Form::Json,
            (Self::Human | Self::Auto, true) => Form::Coloured,
            (Self::Human, false) => Form::Plain,
        }
    }
}

fn json_lines<W>(writer: W) -> impl Layer<Registry> + Send + Sync
where
    W: for<'w> fmt::MakeWriter<'w> + Send + Sync + 'static,
{
    fmt::layer().json().flatten_event(true).with_span_list(false).with_writer(writer)
}

fn parse_filter(filter: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::builder().parse(filter).map_err(|source| LogError::Filter { filter: filter.to_owned(), source })
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map_or_else(|| "unknown".to_owned(), ToString::to_string);
    let current = std::thread::current();
    tracing::error!(thread = current.name().unwrap_or("unnamed"), place, "panic");
}

const DEFAULT_FILTER: &str = "info";

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_form_follows_the_terminal() {
        assert_eq!(LogFormat::Auto.on(true), Form::Coloured);
        assert_eq!(LogFormat::Auto.on(false), Form::Json);
        assert_eq!(LogFormat::Human.on(false), Form::Plain);
        assert_eq!(LogFormat::Json.on(true), Form::Json);
    }

    #[test]
    fn a_bad_filter_is_named() {
        let error = parse_filter("tidegate=loud").unwrap_err();
        assert!(error.to_string().contains("`tidegate=loud`"));
    }

    #[test]
    fn json_lines_carry_fields_at_the_top() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::registry().with(json_lines(move || writer.clone()));
        tracing::subscriber::with_default(subscriber, || tracing::info!(endpoint = "a/b", "ejected"));
        let text = String::from_utf8(lines.0.lock().clone()).unwrap();
        assert!(text.contains(r#""endpoint":"a/b""#) && text.contains(r#""message":"ejected""#));
        assert!(text.ends_with("}\n"));
    }

    #[test]
    fn a_panic_is_logged_without_its_message() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::registry().with(json_lines(move || writer.clone()));
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(log_panic));
        tracing::subscriber::with_default(subscriber, || {
            let _ = std::panic::catch_unwind(|| panic!("secret text"));
        });
        std::panic::set_hook(previous);
        let text = String::from_utf8(lines.0.lock().clone()).unwrap();
        assert!(text.contains("logging.rs:"), "{text}");
        assert!(!text.contains("secret text"));
    }
}
