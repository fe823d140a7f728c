//! What stays as it is until the process ends: listeners, ports, threads, logs, traces.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};

use crate::config::scalar::Span;

/// One address that callers connect to.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Listener {
    /// Label of the listener in metrics and logs. Without it: `https` with `tls`, else `http`; a number is added when taken.
    pub(crate) name: Option<String>,
    /// Address and port, such as `0.0.0.0:8443` or `[::]:8443`. Port 0 picks a free one.
    pub(crate) address: Address,
    /// Serve TLS. Without it: plain HTTP.
    pub(crate) tls: Option<ListenerTls>,
}

/// TLS of a listener. HTTP/2 and HTTP/1.1 are both offered.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListenerTls {
    /// Certificates, chosen by the name the caller asks for; the first is the default.
    pub(crate) certificates: Vec<Certificate>,
    /// PEM file of authorities. When given, callers must present a certificate of one of them (mutual TLS).
    pub(crate) client_ca: Option<PathBuf>,
    /// Offer TLS 1.2 besides 1.3.
    #[serde(default)]
    pub(crate) tls12: bool,
    /// How often the files are looked at for a change; new files are used without a restart. Without it: `30s`.
    pub(crate) reload_every: Option<Span>,
}

/// A certificate chain and its private key.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Certificate {
    /// PEM file of the chain, leaf first.
    pub(crate) cert: PathBuf,
    /// PEM file of the leaf's private key.
    pub(crate) key: PathBuf,
}

/// The operations port: `/metrics`, `/livez`, `/readyz`, `/explain`.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Operations {
    /// Serve the port at all.
    pub(crate) enabled: bool,
    /// Address and port. Do not show it to callers: it has no authentication.
    pub(crate) address: Address,
}

impl Default for Operations {
    fn default() -> Self {
        Self { enabled: true, address: Address(SocketAddr::from(([127, 0, 0, 1], 9090))) }
    }
}

/// Threads that serve requests.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Runtime {
    /// Number of worker threads; 0 means one per core this process may use.
    pub(crate) workers: usize,
    /// How the workers share connections.
    pub(crate) model: RuntimeModelName,
}

/// How worker threads share the work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RuntimeModelName {
    /// A connection and its upstreams stay on one thread: the best latency under load.
    #[default]
    PerCore,
    /// Threads take work from each other: better for a few very busy connections.
    Shared,
}

/// Where access-log lines go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum AccessLog {
    #[default]
    Off,
    Stdout,
    File(PathBuf),
}

/// What the process says about itself. Options of the command line win.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Log {
    /// Form of the lines.
    pub(crate) format: LogFormatName,
    /// Level, or levels by target such as `info,tidegate_edge=debug`. Without it: `info`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) level: Option<String>,
}

/// Form of log lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogFormatName {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// One JSON object per line.
    Json,
    /// Readable text.
    Human,
}

/// Traces to an OpenTelemetry collector (OTLP over gRPC).
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Telemetry {
    /// The collector, such as `http://127.0.0.1:4317`. Without it no traces are sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) otlp_endpoint: Option<String>,
    /// PEM file of authorities to trust for an `https` collector, besides the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca: Option<PathBuf>,
    /// Share of traces that are recorded, 0 to 1. A caller's own sampling decision wins.
    pub(crate) sample_ratio: f64,
    /// Record failed requests whatever the ratio.
    pub(crate) always_on_error: bool,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self { otlp_endpoint: None, ca: None, sample_ratio: 0.01, always_on_error: true }
    }
}

/// Finished generations that can still be looked up, kept in memory.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Generations {
    /// How many.
    pub(crate) kept: u64,
    /// For how long.
    pub(crate) ttl: Span,
}

impl Default for Generations {
    fn default() -> Self {
        Self { kept: 10_000, ttl: Span(std::time::Duration::from_secs(3_600)) }
    }
}

/// An IP address and port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address(pub(crate) SocketAddr);

impl Serialize for Address {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Address;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address such as `127.0.0.1:8080`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Address, E> {
                text.parse()
                    .map(Address)
                    .map_err(|_| E::custom("not an address with a port\nwrite an IP address and a port: `127.0.0.1:8080` or `[::]:8443`"))
            }
        }

        deserializer.deserialize_str(Text)
    }
}

impl JsonSchema for Address {
    fn schema_name() -> Cow<'static, str> {
        "Address".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "An IP address and a port.",
            "pattern": ":[0-9]{1,5}$",
            "examples": ["127.0.0.1:8080", "[::]:8443"],
        })
    }
}

impl<'de> Deserialize<'de> for AccessLog {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = AccessLog;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`off`, `stdout` or `file:PATH`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<AccessLog, E> {
                match text {
                    "off" => Ok(AccessLog::Off),
                    "stdout" => Ok(AccessLog::Stdout),
                    _ => match text.strip_prefix("file:") {
                        Some(path) if !path.is_empty() => Ok(AccessLog::File(path.into())),
                        _ => {
                            Err(E::custom("not a place for the access log\nallowed: `off`, `stdout`, `file:/var/log/tidegate/access.log`"))
                        }
                    },
                }
            }
        }

        deserializer.deserialize_str(Text)
    }
}

impl JsonSchema for AccessLog {
    fn schema_name() -> Cow<'static, str> {
        "AccessLog".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "`off`, `stdout` or `file:PATH`.",
            "pattern": "^(off|stdout|file:.+)$",
        })
    }
}
