//! One kept-alive connection: sends a prepared request, reads the answer to its end, times what happens.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::{Buf, BytesMut};
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::transport::Transport;
use crate::http1::{BodyReader, Head};
use crate::loopback::Target;
use crate::scenario::Scenario;
use crate::sse::{Event, EventScanner, wall_micros};

/// Room for the usual answer in one read.
const BUFFER: usize = 16 * 1024;

/// A connection and its buffers.
pub(super) struct Connection {
    transport: Transport,
    input: BytesMut,
    events: EventScanner,
}

/// How an exchange that was answered in full went.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Chunks with content.
    pub(super) chunks: u32,
    /// The connection can be used again.
    pub(super) keep_alive: bool,
}

/// Told about every piece of content as it arrives.
pub(super) trait Observer {
    /// A content chunk was read at `now`; `delay` since the mock sent it, when it was timed.
    fn chunk(&mut self, number: u32, now: Instant, delay: Option<Duration>);
    /// Bytes were read.
    fn progress(&mut self, now: Instant);
}

impl Connection {
    pub(super) async fn open(target: &Target, tls: Option<&Arc<ClientConfig>>) -> Result<Self> {
        let transport = Transport::connect(target, tls).await?;
        Ok(Self { transport, input: BytesMut::with_capacity(BUFFER), events: EventScanner::default() })
    }

    /// Sends `request` in one write and reads the answer.
    pub(super) async fn exchange(&mut self, request: &[u8], scenario: Scenario, observer: &mut impl Observer) -> Result<Answer> {
        self.transport.write_all(request).await.context("send the request")?;
        self.transport.flush().await.context("send the request")?;
        let head = loop {
            match Head::response(&self.input).context("read the response head")? {
                Some(head) if head.status >= 200 => break head,
                Some(interim) => self.input.advance(interim.length),
                None => {
                    self.read().await?;
                }
            }
        };
        self.input.advance(head.length);
        self.events.clear();
        let mut body = BodyReader::new(head.framing);
        let mut chunks = 0;
        loop {
            let now = Instant::now();
            observer.progress(now);
            let used = if scenario.stream().is_some() {
                let wall = wall_micros();
                body.feed(&self.input, |data| {
                    self.events.feed(data, |event| {
                        if let Event::Chunk(sent) = event {
                            chunks += 1;
                            let delay = (sent > 0).then(|| Duration::from_micros(wall.saturating_sub(sent)));
                            observer.chunk(chunks, now, delay);
                        }
                    });
                })?
            } else {
                body.feed(&self.input, |_| {})?
            };
            self.input.advance(used);
            if body.done() {
                return Ok(Answer { status: head.status, chunks, keep_alive: head.keep_alive });
            }
            if self.read_some().await? == 0 {
                if matches!(body, BodyReader::UntilClose) {
                    return Ok(Answer { status: head.status, chunks, keep_alive: false });
                }
                bail!("connection ended inside the answer");
            }
        }
    }

    async fn read(&mut self) -> Result<()> {
        if self.read_some().await? == 0 {
            bail!("connection ended before the answer");
        }
        Ok(())
    }

    async fn read_some(&mut self) -> Result<usize> {
        self.input.reserve(BUFFER);
        self.transport.read_buf(&mut self.input).await.context("read the answer")
    }
}
