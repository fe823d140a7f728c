//! A little traffic, so that there is something to see.

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tidegate_runtime::Tasks;
use tokio::net::TcpStream;

/// Demo requests through the front door, at a steady pace.
pub(super) struct Traffic(Tasks);

impl Traffic {
    pub(super) fn start(edge: SocketAddr, key: &str, per_second: f64) -> Self {
        let tasks = Tasks::new();
        let (key, requests, shutdown) = (key.to_owned(), tasks.clone(), tasks.shutdown().clone());
        // Ends when it is stopped.
        tasks.spawn("demo-traffic", async move {
            let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / per_second));
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
            for number in 0u64.. {
                // Losing a branch is safe: a lost tick comes again, and the stop is a level.
                tokio::select! {
                    () = shutdown.requested() => return,
                    _ = ticks.tick() => {}
                }
                if requests.len() > MOST_AT_ONCE {
                    continue;
                }
                let key = key.clone();
                // Ends with its answer.
                requests.spawn("demo-request", async move {
                    if let Err(error) = one(edge, &key, number).await {
                        tracing::debug!(%error, "a demo request failed");
                    }
                });
            }
        });
        Self(tasks)
    }

    pub(super) async fn stop(self) {
        if let Err(unfinished) = self.0.close(Duration::from_secs(1)).await {
            tracing::debug!(%unfinished, "demo requests were cut off");
        }
    }
}

async fn one(edge: SocketAddr, key: &str, number: u64) -> anyhow::Result<()> {
    let stream = TcpStream::connect(edge).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let body = serde_json::json!({
        "model": super::DEFAULT_MODEL,
        "stream": number.is_multiple_of(2),
        "max_tokens": 60,
        "messages": [{ "role": "user", "content": format!("How high is the tide? ({number})") }],
    });
    let request = hyper::Request::post("/v1/chat/completions")
        .header("host", edge.to_string())
        .header("authorization", format!("Bearer {key}"))
        .header("x-title", "demo traffic")
        .body(Full::new(Bytes::from(body.to_string())))?;
    let exchange = async move {
        let response = sender.send_request(request).await?;
        response.into_body().collect().await?;
        Ok::<_, hyper::Error>(())
    };
    // The connection ends with the exchange, because its sender is gone then.
    let (exchanged, _) = tokio::join!(exchange, connection);
    Ok(exchanged?)
}

/// Slow answers must not pile up.
const MOST_AT_ONCE: usize = 32;
