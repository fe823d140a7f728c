//! How commands talk to the admin API of a control node.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueHint};
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use prometheus::Registry;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tidegate_runtime::Clock;
use tidegate_runtime::mesh::{Dial, Expect, Identity, IdentityFiles, MeshMetrics, MtlsDialer, MtlsOptions, PlainDialer, Role};

/// Where the control node is, and who calls.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Control plane")]
pub(crate) struct ControlPlane {
    /// Admin address of any control node; `https` needs `--identity`.
    #[arg(long = "control", value_name = "URL", default_value = "http://127.0.0.1:7203", env = "TIDEGATE_CONTROL", value_hint = ValueHint::Url)]
    pub(crate) url: String,
    /// Folder with `tls.crt`, `tls.key` and `ca.crt` of role admin.
    #[arg(long, value_name = "DIR", env = "TIDEGATE_IDENTITY", value_hint = ValueHint::DirPath)]
    pub(crate) identity: Option<PathBuf>,
    /// Bearer token; better in the variable than on the command line.
    #[arg(long, value_name = "TOKEN", env = "TIDEGATE_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<SecretString>,
    /// Print the answer as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Why something is changed; lands in the audit log.
#[derive(Debug, Clone, Args)]
pub(crate) struct Reason {
    /// Why; lands in the audit log. Without it: the command itself.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
}

impl Reason {
    /// The words given, or the command.
    pub(crate) fn or(&self, command: impl Into<String>) -> String {
        self.reason.clone().unwrap_or_else(|| command.into())
    }
}

/// The whole of one exchange: a joining node may have to catch up first.
const TIMEOUT: Duration = Duration::from_secs(90);
/// A backup of a million keys.
const MAX_ANSWER_BYTES: usize = 1 << 30;
/// What the admin API is below.
const PREFIX: &str = "/admin/v1";

/// Calls one control node.
pub(crate) struct AdminClient {
    runtime: tokio::runtime::Runtime,
    dial: Arc<dyn Dial>,
    address: String,
    url: String,
    token: Option<SecretString>,
}

impl AdminClient {
    pub(crate) fn new(plane: &ControlPlane) -> anyhow::Result<AdminClient> {
        let (scheme, rest) =
            plane.url.split_once("://").with_context(|| format!("`{}` is no address: write `http://HOST:PORT`", plane.url))?;
        let address = rest.trim_end_matches('/').to_owned();
        if address.is_empty() || address.contains('/') || address.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
            bail!("`{}` is not the admin address of a control node: write `http://127.0.0.1:7203`", plane.url);
        }
        let dial: Arc<dyn Dial> = match (scheme, &plane.identity) {
            ("https", Some(folder)) => {
                let identity = Identity::load(IdentityFiles::in_dir(folder), Identity::DEFAULT_OVERLAP, Clock::start().unix_seconds())
                    .with_context(|| format!("load the identity in {}", folder.display()))?;
                let metrics = MeshMetrics::register(&Registry::new()).context("count connections")?;
                Arc::new(MtlsDialer::new(identity, metrics, MtlsOptions::default()))
            }
            ("https", None) => bail!("`https` needs `--identity DIR`: a certificate of role admin (`tidegate certs dev` makes one)"),
            ("http", _) => Arc::new(PlainDialer::default()),
            (other, _) => bail!("`{other}` is no scheme of the admin API: use `http` or `https`"),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start")?;
        Ok(AdminClient { runtime, dial, address, url: plane.url.clone(), token: plane.token.clone() })
    }

    /// Reads.
    pub(crate) fn get(&self, path: &str) -> anyhow::Result<Value> {
        parse(&self.send(Method::GET, path, Bytes::new())?)
    }

    /// Reads a file.
    pub(crate) fn download(&self, path: &str) -> anyhow::Result<Bytes> {
        self.send(Method::GET, path, Bytes::new())
    }

    /// Sends JSON.
    pub(crate) fn send_json(&self, method: Method, path: &str, body: &Value) -> anyhow::Result<Value> {
        parse(&self.send(method, path, body.to_string().into())?)
    }

    /// Sends a body of any kind.
    pub(crate) fn send(&self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Bytes> {
        let exchange = async {
            let exchanged = tokio::time::timeout(TIMEOUT, self.exchange(method, path, body)).await;
            exchanged.with_context(|| format!("{} did not answer within {} s", self.url, TIMEOUT.as_secs()))?
        };
        self.runtime.block_on(exchange)
    }

    async fn exchange(&self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Bytes> {
        let io = self.dial.dial(&self.address, Expect::role(Role::Control)).await;
        let io = io.with_context(|| format!("reach the control node at {}: does it run, and is this its admin address?", self.url))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io)).await.context("speak HTTP")?;
        let mut request = Request::builder().method(method).uri(format!("{PREFIX}{path}")).header(header::HOST, &self.address);
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.expose_secret()));
        }
        let request = request.body(Full::new(body)).context("put the request together")?;
        let exchange = async {
            let response = sender.send_request(request).await.context("ask the control node")?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
            let body = body.map_err(|error| anyhow::anyhow!("read the answer: {error}"))?.to_bytes();
            Ok::<_, anyhow::Error>((status, body))
        };
        tokio::pin!(exchange);
        // The connection only moves bytes for the exchange. When it ends first, the exchange learns of it and ends too.
        let (status, body) = tokio::select! {
            result = &mut exchange => result?,
            _ = connection => exchange.await?,
        };
        if status.is_success() {
            return Ok(body);
        }
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        let error = &answer["error"];
        let mut message = error["message"].as_str().map_or_else(|| format!("the control node answered {status}"), str::to_owned);
        let problems = error["problems"].as_array().map(Vec::as_slice).unwrap_or_default();
        if problems.len() > 1 {
            for problem in problems {
                message.push_str(&format!("\n  {}", problem_line(problem)));
            }
        }
        bail!("{message}")
    }
}

fn problem_line(problem: &Value) -> String {
    let text = |key: &str| problem[key].as_str().unwrap_or_default();
    let mut line = format!("{} `{}`", text("kind"), text("name"));
    if !text("path").is_empty() {
        line.push_str(&format!(": {}", text("path")));
    }
    line.push_str(&format!(": {}", text("message")));
    for help in problem["help"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        line.push_str(&format!("; {help}"));
    }
    line
}

/// Percent-encodes a value for a query or a path.
pub(crate) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

fn parse(body: &[u8]) -> anyhow::Result<Value> {
    serde_json::from_slice(body).context("the answer is not JSON: is this the admin address of a control node?")
}
