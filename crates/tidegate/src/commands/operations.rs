//! Asking the operations port of a running process.

use std::time::Duration;

use anyhow::Context;
use http::StatusCode;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Waits for what asks an operations port.
pub(super) fn wait<T>(asking: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("start")?.block_on(asking)
}

/// What is at `path` of the operations port at `url`.
pub(super) async fn get(url: &str, path: &str) -> anyhow::Result<(StatusCode, String)> {
    let asked = tokio::time::timeout(TIMEOUT, ask(url, path)).await;
    asked.with_context(|| format!("{url} did not answer within {} s", TIMEOUT.as_secs()))?
}

async fn ask(url: &str, path: &str) -> anyhow::Result<(StatusCode, String)> {
    let authority = url
        .strip_prefix("http://")
        .map(|rest| rest.trim_end_matches('/'))
        .filter(|rest| !rest.is_empty() && !rest.contains('/'))
        .with_context(|| format!("`{url}` is not the address of an operations port, such as http://127.0.0.1:9090"))?;
    let address = if authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
        authority.to_owned()
    } else {
        format!("{authority}:80")
    };
    let stream = TcpStream::connect(&address)
        .await
        .with_context(|| format!("connect to {address}: is the edge running, and is this its operations port?"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.context("speak HTTP")?;
    let request = http::Request::get(path).header(http::header::HOST, authority).body(Empty::<Bytes>::new())?;
    let exchange = async {
        let response = sender.send_request(request).await.context("ask the operations port")?;
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
    Ok((status, String::from_utf8(body.to_vec()).context("the answer is not text")?))
}

/// A local edge answers in milliseconds; a forwarded port may take a while.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Decisions over thousands of endpoints, and sums of a year by every facet, stay below this.
const MAX_ANSWER_BYTES: usize = 256 * 1024 * 1024;
