//! The upstream: constant answers in three dialects, as cheap as they can be made.
//!
//! It parses the head, finds the model name in the body and writes bytes that were prepared before. It must never be the
//! bottleneck, so it checks nothing and allocates little. Not a fake provider for tests of behaviour; that is `provider-sim`.

mod answers;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::{Buf, Bytes, BytesMut};
use memchr::{memchr, memmem};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::http1::{BodyReader, Framing, Head};
use crate::scenario::{Scenario, Stream as Shape};
use crate::sse::wall_micros;

use answers::{Chunk, Dialect, Stream};

/// Largest request body, bytes; the largest figure uses 1 MB.
const LARGEST_BODY: usize = 64 * 1024 * 1024;

/// Arguments of `mock`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Address to listen on; port 0 picks a free one, which is printed.
    #[arg(long, default_value = "127.0.0.1:9100", value_parser = crate::loopback::address)]
    pub(crate) listen: SocketAddr,
    /// Threads; one is enough for two cores.
    #[arg(long, default_value_t = 1)]
    pub(crate) threads: usize,
}

/// Serves until the process ends.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    crate::serve::per_core(arguments.listen, arguments.threads.max(1), Prepared::default, |stream, prepared| async move {
        // The caller may leave in the middle of anything; that is not news.
        let _ = serve(stream, &prepared).await;
    })
}

/// Answers that were built once, per thread.
struct Prepared {
    json: [Bytes; Dialect::ALL.len()],
    streams: [Stream; Dialect::ALL.len()],
}

impl Default for Prepared {
    fn default() -> Self {
        Self { json: Dialect::ALL.map(answers::json), streams: Dialect::ALL.map(Stream::new) }
    }
}

impl Prepared {
    fn json(&self, dialect: Dialect) -> &Bytes {
        &self.json[dialect as usize]
    }

    fn stream(&self, dialect: Dialect) -> &Stream {
        &self.streams[dialect as usize]
    }
}

async fn serve(mut stream: TcpStream, prepared: &Prepared) -> Result<()> {
    let mut input = BytesMut::with_capacity(16 * 1024);
    let mut body = Vec::new();
    loop {
        let Some((head, dialect, scenario_in_path)) = read_head(&mut stream, &mut input).await? else {
            return Ok(());
        };
        let scenario = match scenario_in_path {
            Some(scenario) => {
                skip_body(&mut stream, &mut input, head, |_| {}).await?;
                scenario
            }
            None => read_scenario(&mut stream, &mut input, head, &mut body).await?,
        };
        match scenario.stream() {
            None => stream.write_all(prepared.json(dialect)).await?,
            Some(shape) => write_stream(&mut stream, prepared.stream(dialect), shape).await?,
        }
        if !head.keep_alive {
            return Ok(());
        }
    }
}

/// The next head, what dialect its path means, and the scenario when the path names the model. `None` at the end.
async fn read_head(stream: &mut TcpStream, input: &mut BytesMut) -> Result<Option<(Head, Dialect, Option<Scenario>)>> {
    loop {
        if let Some((head, path)) = Head::request(input)? {
            let route = Dialect::of_path(path);
            input.advance(head.length);
            return Ok(Some((head, route.0, route.1)));
        }
        if stream.read_buf(input).await? == 0 {
            return Ok(None);
        }
    }
}

/// Reads the body and finds the model's name in it.
async fn read_scenario(stream: &mut TcpStream, input: &mut BytesMut, head: Head, body: &mut Vec<u8>) -> Result<Scenario> {
    // The common case: a known length, already here; looked at in place.
    if let Framing::Length(length) = head.framing
        && let Ok(length) = usize::try_from(length)
        && length <= input.len()
    {
        let scenario = scenario_of(&input[..length]);
        input.advance(length);
        return Ok(scenario);
    }
    body.clear();
    skip_body(stream, input, head, |data| body.extend_from_slice(data)).await?;
    Ok(scenario_of(body))
}

async fn skip_body(stream: &mut TcpStream, input: &mut BytesMut, head: Head, mut data: impl FnMut(&[u8])) -> Result<()> {
    let mut reader = BodyReader::new(head.framing);
    let mut size = 0;
    loop {
        let used = reader.feed(input, |part| {
            size += part.len();
            data(part);
        })?;
        input.advance(used);
        if reader.done() {
            return Ok(());
        }
        if size > LARGEST_BODY {
            bail!("request body is larger than {LARGEST_BODY} bytes");
        }
        if stream.read_buf(input).await? == 0 {
            bail!("connection ended inside a request body");
        }
    }
}

/// The scenario that the value of the first `"model"` names.
fn scenario_of(body: &[u8]) -> Scenario {
    let name = memmem::find(body, b"\"model\"").and_then(|at| {
        let rest = body[at + b"\"model\"".len()..].trim_ascii_start().strip_prefix(b":")?;
        let value = rest.trim_ascii_start().strip_prefix(b"\"")?;
        std::str::from_utf8(&value[..memchr(b'"', value)?]).ok()
    });
    Scenario::of_model(name.unwrap_or_default())
}

/// One write per chunk, as providers flush every event; the first leaves together with the head. Paced chunks carry the moment
/// of sending.
async fn write_stream(stream: &mut TcpStream, prepared: &Stream, shape: Shape) -> Result<()> {
    let paced = shape.pace_ms > 0;
    let pace = shape.pace().max(Duration::from_millis(1));
    let mut ticks = interval_at(Instant::now() + pace, pace);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut chunk = prepared.chunk.clone();
    let stamp = |chunk: &mut Chunk| {
        if paced {
            chunk.stamp(wall_micros());
        }
    };
    stamp(&mut chunk);
    let first = [&prepared.opening, chunk.bytes()].concat();
    stream.write_all(&first).await.context("write the first chunk")?;
    for _ in 1..shape.chunks {
        if paced {
            ticks.tick().await;
        }
        stamp(&mut chunk);
        stream.write_all(chunk.bytes()).await?;
    }
    if paced {
        ticks.tick().await;
    }
    stream.write_all(&prepared.closing).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_is_found_with_and_without_spaces() {
        assert_eq!(scenario_of(br#"{"model":"bench/sse-3-5","messages":[]}"#), Scenario::sse(3, 5));
        assert_eq!(scenario_of(br#"{"messages": [], "model" : "sse-3-5"}"#), Scenario::sse(3, 5));
        assert_eq!(scenario_of(b"{}"), Scenario::Json);
        assert_eq!(scenario_of(br#"{"model":"#), Scenario::Json);
    }
}
