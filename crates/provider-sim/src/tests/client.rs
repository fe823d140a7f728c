//! A client for the tests: one connection per request, the body read to its end or as far as it comes.

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tidegate_runtime::Tasks;
use tokio::net::TcpStream;

use crate::{Sim, SimHandle, SimSpec};

pub(super) struct Answered {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
    /// Whether the body came to its regular end.
    pub(super) complete: bool,
}

impl Answered {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    /// The data of all events, parsed; `[DONE]` is left out.
    pub(super) fn events(&self) -> Vec<Value> {
        let data = self.text.lines().filter_map(|line| line.strip_prefix("data: "));
        data.filter(|data| *data != "[DONE]").map(|data| serde_json::from_str(data).unwrap()).collect()
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

pub(super) fn start(spec: SimSpec) -> SimHandle {
    Sim::start(spec).unwrap()
}

pub(super) fn regular() -> SimHandle {
    start(SimSpec::default())
}

pub(super) fn request(path: &str, headers: &[(&str, &str)], body: &Value) -> Request<Full<Bytes>> {
    let mut builder = Request::post(path).header("host", "sim");
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(Full::new(Bytes::from(body.to_string()))).unwrap()
}

/// A request whose head came back; the connection ends with the tasks.
pub(super) async fn send(sim: &SimHandle, request: Request<Full<Bytes>>) -> hyper::Result<(Response<Incoming>, Tasks)> {
    let stream = TcpStream::connect(sim.addr()).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let tasks = Tasks::new();
    let shutdown = tasks.shutdown().clone();
    tasks.spawn("client", async move {
        tokio::select! {
            () = shutdown.requested() => {}
            _ = connection => {}
        }
    });
    Ok((sender.send_request(request).await?, tasks))
}

pub(super) async fn finish(response: Response<Incoming>) -> Answered {
    let (head, mut body) = response.into_parts();
    let mut text = Vec::new();
    let mut complete = true;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => text.extend_from_slice(&frame.into_data().unwrap_or_default()),
            Err(_) => {
                complete = false;
                break;
            }
        }
    }
    Answered { status: head.status.as_u16(), headers: head.headers, text: String::from_utf8(text).unwrap(), complete }
}

pub(super) async fn post_with(sim: &SimHandle, path: &str, headers: &[(&str, &str)], body: &Value) -> Answered {
    let (response, _tasks) = send(sim, request(path, headers, body)).await.unwrap();
    finish(response).await
}

pub(super) async fn chat(sim: &SimHandle, body: &Value) -> Answered {
    post_with(sim, "/v1/chat/completions", &[], body).await
}

pub(super) async fn messages(sim: &SimHandle, body: &Value) -> Answered {
    post_with(sim, "/v1/messages", &[("anthropic-version", "2023-06-01")], body).await
}

pub(super) async fn gemini(sim: &SimHandle, action: &str, body: &Value) -> Answered {
    post_with(sim, &format!("/v1beta/models/gem-1:{action}"), &[], body).await
}
