//! `tidegate explain`: why a request went where it went.

mod replay;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::cli::ExplainArgs;
use crate::output::Output;

pub(super) fn run(args: &ExplainArgs, output: &mut Output) -> anyhow::Result<ExitCode> {
    if let Some(path) = &args.replay {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        return replay::run(&text, output).with_context(|| format!("replay {}", path.display()));
    }
    let text = match (&args.file, &args.id) {
        (Some(path), _) => std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?,
        (None, Some(id)) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start")?;
            runtime.block_on(async {
                let asked = tokio::time::timeout(TIMEOUT, ask(&args.url, id)).await;
                asked.with_context(|| format!("{} did not answer within {} s", args.url, TIMEOUT.as_secs()))?
            })?
        }
        (None, None) => bail!("give the id of a generation, or `--file`"),
    };
    let explanation: Value = serde_json::from_str(&text).context("the answer is not JSON")?;
    if args.json {
        output.line(serde_json::to_string_pretty(&explanation)?);
        return Ok(ExitCode::SUCCESS);
    }
    let Some(decision) = explanation["text"].as_str() else {
        bail!("this is not an explanation of a generation: it has no `text`");
    };
    output.text(summary(&explanation["generation"]));
    output.line(decision.trim_end());
    match explanation["reproducible"].as_bool() {
        Some(true) => output.line("decided anew from the same snapshot, health and seed: the same choices"),
        Some(false) => output.line("decided anew from the same snapshot, health and seed: DIFFERENT choices; please report this"),
        None => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// A local edge answers in milliseconds; a forwarded port may take a while.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A decision over thousands of endpoints stays far below this.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// Who served, how it ended, what it cost.
fn summary(generation: &Value) -> String {
    let text = |key: &str| generation[key].as_str().unwrap_or("-").to_owned();
    let millis = |key: &str| generation[key].as_u64().map_or("-".to_owned(), |value| format!("{value} ms"));
    format!(
        "{}\n  model {}, served by {}\n  finish {}, first token {}, generation {}\n  tokens {} in, {} out, cost {} USD\n\n",
        text("id"),
        text("model"),
        text("provider_name"),
        text("finish_reason"),
        millis("latency"),
        millis("generation_time"),
        generation["tokens_prompt"],
        generation["tokens_completion"],
        generation["total_cost"],
    )
}

async fn ask(url: &str, id: &str) -> anyhow::Result<String> {
    let authority = url
        .strip_prefix("http://")
        .map(|rest| rest.trim_end_matches('/'))
        .filter(|rest| !rest.is_empty() && !rest.contains('/'))
        .with_context(|| format!("`{url}` is not the address of an operations port, such as http://127.0.0.1:9090"))?;
    if !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
        bail!("`{id}` is not the id of a generation, such as gen-01JD8Z5V9Q");
    }
    let address = if authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
        authority.to_owned()
    } else {
        format!("{authority}:80")
    };
    let stream = TcpStream::connect(&address)
        .await
        .with_context(|| format!("connect to {address}: is the edge running, and is this its operations port?"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.context("speak HTTP")?;
    let request = http::Request::get(format!("/explain/{id}")).header(http::header::HOST, authority).body(Empty::<Bytes>::new())?;
    let exchange = async {
        let response = sender.send_request(request).await.context("ask for the explanation")?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("read the explanation: {error}"))?.to_bytes();
        Ok::<_, anyhow::Error>((status, body))
    };
    tokio::pin!(exchange);
    // The connection only moves bytes for the exchange. When it ends first, the exchange learns of it and ends too.
    let (status, body) = tokio::select! {
        result = &mut exchange => result?,
        _ = connection => exchange.await?,
    };
    match status {
        http::StatusCode::OK => String::from_utf8(body.to_vec()).context("the answer is not text"),
        http::StatusCode::NOT_FOUND => bail!(
            "the edge at {url} does not know generation {id}: another edge served it, or it was forgotten (`generations` in the \
             configuration)"
        ),
        other => bail!("the edge at {url} answered {other}"),
    }
}

#[cfg(test)]
mod tests;
