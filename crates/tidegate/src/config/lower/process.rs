//! What stays as it is until the process ends.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use tidegate_edge::config as domain;
use tidegate_edge::config::{AccessLogConfig, CertificateFiles, EdgeConfig, ListenerConfig, ListenerTls, RuntimeModel, WorkerConfig};
use tidegate_runtime::logging::{LogConfig, LogFormat};
use tidegate_runtime::telemetry::TelemetryConfig;

use super::{ControlFiles, Lowering, Place};
use crate::config::file::{AccessLog, File, Limits, Listener, Log, LogFormatName, RuntimeModelName};

/// What the process needs besides the edge.
#[derive(Debug, Clone)]
pub(crate) struct ProcessConfig {
    pub(crate) log: LogConfig,
    /// `None` sends no traces.
    pub(crate) telemetry: Option<TelemetryConfig>,
    /// `None` for an edge that is configured by its file alone.
    pub(crate) control: Option<ControlFiles>,
}

/// Where an edge listens when the file does not say.
const DEFAULT_LISTENER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);
const DEFAULT_REGION: &str = "local";
const CERTIFICATE_POLL: Duration = Duration::from_secs(30);

impl<'a> Lowering<'a> {
    pub(super) fn process(&mut self, file: &File, root: Place<'a>) -> (ProcessConfig, EdgeConfig) {
        let region = file.region.clone().unwrap_or_else(|| DEFAULT_REGION.to_owned());
        if region.is_empty() || region.len() > 64 || region.chars().any(|c| c.is_control() || c.is_whitespace()) {
            self.error(root.get("region"), "not a name for a region", "use a short word such as `eu-west-1`");
        }
        let listeners = self.listeners(&file.listeners, root.get("listeners"));
        let operations = file.operations.enabled.then_some(file.operations.address.0);
        if let Some(address) = operations
            && listeners.iter().any(|listener| same_port(listener.address, address))
        {
            self.error(root.get("operations"), format!("{address} is a listener's address too"), "give one of them another port");
        }
        let (control, control_files) = self.control(file, root);
        let telemetry = self.telemetry(file, &region, root.get("telemetry"));
        let process = ProcessConfig { log: log(&file.log), telemetry, control: control_files };
        let edge = EdgeConfig {
            listeners,
            operations,
            workers: WorkerConfig {
                threads: file.runtime.workers,
                model: match file.runtime.model {
                    RuntimeModelName::PerCore => RuntimeModel::PerCore,
                    RuntimeModelName::Shared => RuntimeModel::Shared,
                },
            },
            limits: self.limits(&file.limits, root.get("limits")),
            access_log: match &file.access_log {
                AccessLog::Off => AccessLogConfig::Off,
                AccessLog::Stdout => AccessLogConfig::Stdout,
                AccessLog::File(path) => AccessLogConfig::File(path.clone()),
            },
            region,
            generations_kept: file.generations.kept,
            generations_ttl: file.generations.ttl.0,
            control,
            ledger: self.ledger(&file.ledger, root.get("ledger")),
            quota: self.quota(&file.quota, root.get("quota")),
        };
        (process, edge)
    }

    fn listeners(&mut self, raw: &[Listener], place: Place<'a>) -> Vec<ListenerConfig> {
        if raw.is_empty() {
            return vec![ListenerConfig { name: "http".to_owned(), address: DEFAULT_LISTENER, tls: None }];
        }
        let mut names: HashSet<String> = raw.iter().filter_map(|listener| listener.name.clone()).collect();
        let mut configs: Vec<ListenerConfig> = Vec::with_capacity(raw.len());
        for (index, listener) in raw.iter().enumerate() {
            let place = place.item(index);
            let name = match &listener.name {
                Some(name) => {
                    if configs.iter().any(|other| other.name == *name) {
                        self.error(place.get("name"), format!("a second listener named `{name}`"), "names are labels of metrics");
                    }
                    name.clone()
                }
                None => free_name(if listener.tls.is_some() { "https" } else { "http" }, &mut names),
            };
            let address = listener.address.0;
            if configs.iter().any(|other| same_port(other.address, address)) {
                self.error(place.get("address"), format!("{address} is taken by another listener"), "give one of them another port");
            }
            configs.push(ListenerConfig { name, address, tls: self.listener_tls(listener, place.get("tls")) });
        }
        configs
    }

    fn listener_tls(&mut self, listener: &Listener, place: Place<'a>) -> Option<ListenerTls> {
        let raw = listener.tls.as_ref()?;
        if raw.certificates.is_empty() {
            self.error(place.get("certificates"), "TLS without a certificate", "add `{cert: chain.pem, key: key.pem}`");
        }
        for (index, certificate) in raw.certificates.iter().enumerate() {
            let place = place.get("certificates").item(index);
            self.file_exists(&certificate.cert, place.get("cert"));
            self.file_exists(&certificate.key, place.get("key"));
        }
        if let Some(path) = &raw.client_ca {
            self.file_exists(path, place.get("client_ca"));
        }
        let reload_every = raw.reload_every.map_or(CERTIFICATE_POLL, |span| span.0);
        if reload_every.is_zero() {
            self.error(place.get("reload_every"), "looking at files without a pause", "use `30s`");
        }
        let files = |certificate: &crate::config::file::Certificate| CertificateFiles {
            cert: certificate.cert.clone(),
            key: certificate.key.clone(),
        };
        Some(ListenerTls {
            certificates: raw.certificates.iter().map(files).collect(),
            client_ca: raw.client_ca.clone(),
            tls12: raw.tls12,
            reload_every,
        })
    }

    fn telemetry(&mut self, file: &File, region: &str, place: Place<'a>) -> Option<TelemetryConfig> {
        let raw = &file.telemetry;
        if !(0.0..=1.0).contains(&raw.sample_ratio) {
            self.error(
                place.get("sample_ratio"),
                format!("{} is not a share", raw.sample_ratio),
                "use 0 to 1: `0.01` records one in a hundred",
            );
        }
        let endpoint = raw.otlp_endpoint.as_ref()?;
        if !(endpoint.starts_with("http://") || endpoint.starts_with("https://")) || endpoint.parse::<http::Uri>().is_err() {
            self.error(place.get("otlp_endpoint"), format!("`{endpoint}` is not an address"), "write `http://127.0.0.1:4317`");
        }
        if let Some(path) = &raw.ca {
            self.file_exists(path, place.get("ca"));
        }
        Some(TelemetryConfig {
            ca: raw.ca.clone(),
            sample_ratio: raw.sample_ratio,
            always_on_error: raw.always_on_error,
            region: region.to_owned(),
            ..TelemetryConfig::new(endpoint)
        })
    }

    fn limits(&mut self, raw: &Limits, place: Place<'a>) -> domain::Limits {
        let limits = domain::Limits::from(raw);
        for (name, nothing) in [
            ("tls_handshake", limits.tls_handshake.is_zero()),
            ("header_read", limits.header_read.is_zero()),
            ("idle", limits.idle.is_zero()),
            ("body_bytes", limits.body_bytes == 0),
            ("headers", limits.headers == 0),
            ("header_bytes", limits.header_bytes == 0),
            ("json_depth", limits.json_depth == 0),
            ("connections", limits.connections == 0),
            ("requests_in_flight", limits.requests_in_flight == 0),
            ("http2_streams", limits.http2_streams == 0),
            ("write_stall", limits.write_stall.is_zero()),
            ("answer_bytes", limits.answer_bytes == 0),
            ("keep_alive_comment", limits.keep_alive_comment.is_zero()),
        ] {
            if nothing {
                self.error(place.get(name), format!("with `{name}` at 0 no request could be served"), "leave it out for the default");
            }
        }
        if !(0.0..=1.0).contains(&limits.memory_share) {
            self.error(place.get("memory_share"), format!("{} is not a share", limits.memory_share), "use 0 to 1: `0.85` leaves a reserve");
        }
        if limits.json_depth > DEEPEST_JSON {
            self.error(place.get("json_depth"), format!("{} levels of nesting", limits.json_depth), format!("use at most {DEEPEST_JSON}"));
        }
        limits
    }
}

/// What the request reader can take: it keeps one bit per level in one word.
const DEEPEST_JSON: usize = 64;

pub(super) fn log(raw: &Log) -> LogConfig {
    let format = match raw.format {
        LogFormatName::Auto => LogFormat::Auto,
        LogFormatName::Json => LogFormat::Json,
        LogFormatName::Human => LogFormat::Human,
    };
    let default = LogConfig::default();
    LogConfig { format, filter: raw.level.clone().unwrap_or(default.filter) }
}

/// Both want the same port of the same address, or of all addresses. Port 0 is a different one each time.
pub(super) fn same_port(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() != 0
        && a.port() == b.port()
        && (a.ip() == b.ip() || a.is_ipv4() == b.is_ipv4() && (a.ip().is_unspecified() || b.ip().is_unspecified()))
}

fn free_name(base: &str, taken: &mut HashSet<String>) -> String {
    let mut name = base.to_owned();
    let mut number = 2;
    while !taken.insert(name.clone()) {
        name = format!("{base}-{number}");
        number += 1;
    }
    name
}
