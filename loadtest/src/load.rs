//! The load generator: closed and open loops over kept-alive HTTP/1.1 connections, JSON and streams.
//!
//! Its own client, because on two cores a comfortable one would take the CPU away from what is measured. In the open loop a
//! latency runs from the moment a request *should* have been sent, whether or not a connection was free then (no coordinated
//! omission). Everything is bounded: a warm-up, a window, a drain.

mod connection;
mod generator;
mod handshake;
mod pacer;
mod tally;
mod transport;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use rustls::ClientConfig;
use serde::Serialize;

use crate::body;
use crate::histogram::Summary;
use crate::interrupt;
use crate::loopback::Target;
use crate::process::Usage;
use crate::scenario::Scenario;

pub(crate) use tally::{Failures, Tally};
pub(crate) use transport::tls_client;

/// After the window, requests already sent get this long to be answered.
pub(crate) const DRAIN: Duration = Duration::from_secs(5);
/// A stream without a chunk for this long is stalled; so is a request without an answer at the end of the drain.
pub(crate) const STALL: Duration = Duration::from_secs(5);

/// How requests are started.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Shape {
    /// Each connection sends the next request when the last one is answered.
    Closed,
    /// A request every `1 / rate` seconds, whatever happened to the others.
    Open {
        /// Requests per second.
        rate: f64,
    },
    /// Each connection makes a full TLS handshake, closes, and begins again; no request is sent.
    Handshakes,
}

/// One measurement to make.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Where to.
    pub(crate) target: Target,
    /// TLS settings when the target speaks it.
    pub(crate) tls: Option<Arc<ClientConfig>>,
    /// Whole requests, head and body; sent in turn.
    pub(crate) requests: Arc<[Bytes]>,
    /// What the mock answers; tells how many chunks must arrive.
    pub(crate) scenario: Scenario,
    /// How requests are started.
    pub(crate) shape: Shape,
    /// Connections; in the open loop the most that may be used.
    pub(crate) connections: usize,
    /// Time before anything counts; connections are opened over its first half.
    pub(crate) warm_up: Duration,
    /// Time that counts.
    pub(crate) window: Duration,
    /// Stop after so many counted requests, even when the window has not ended.
    pub(crate) most_requests: Option<u64>,
    /// Generator threads.
    pub(crate) threads: usize,
    /// The process to account CPU and memory for, descendants included.
    pub(crate) process: Option<u32>,
}

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Measurement {
    /// Length of the window, seconds.
    pub(crate) seconds: f64,
    /// Requests (or handshakes) answered in full within the window.
    pub(crate) completed: u64,
    /// `completed` per second.
    pub(crate) rate: f64,
    /// What went wrong, by kind.
    pub(crate) failures: Failures,
    /// First error, in words.
    pub(crate) first_error: Option<String>,
    /// Whole request: intended send to last byte.
    pub(crate) latency: Option<Summary>,
    /// Stream: intended send to first content chunk.
    pub(crate) first_chunk: Option<Summary>,
    /// Stream: mock's send to our receipt, of every timed chunk.
    pub(crate) chunk_delay: Option<Summary>,
    /// Open loop: how late requests were really sent, waiting for a free connection included.
    pub(crate) send_lag: Option<Summary>,
    /// Requests slower than 10 ms (stalls of the kind Nagle and delayed ACK make are 40 ms).
    pub(crate) slower_than_10ms: u64,
    /// Content chunks received within the window.
    pub(crate) chunks: u64,
    /// Streams open when the window ended.
    pub(crate) open_streams: u64,
    /// CPU of the process under test within the window, seconds.
    pub(crate) cpu_seconds: Option<f64>,
    /// Its resident memory when the window ended, bytes.
    pub(crate) rss_bytes: Option<u64>,
    /// CPU of this generator within the window, seconds.
    pub(crate) generator_cpu_seconds: f64,
}

impl Plan {
    /// A closed loop with usual settings; change the fields that differ.
    pub(crate) fn new(target: Target, scenario: Scenario, requests: Arc<[Bytes]>) -> Self {
        Self {
            target,
            tls: None,
            requests,
            scenario,
            shape: Shape::Closed,
            connections: 64,
            warm_up: Duration::from_millis(500),
            window: Duration::from_secs(4),
            most_requests: None,
            threads: 1,
            process: None,
        }
    }

    /// Runs the measurement; returns after the drain.
    pub(crate) fn run(&self) -> Result<Measurement> {
        let begin = Instant::now() + Duration::from_millis(20);
        let window = (begin + self.warm_up, begin + self.warm_up + self.window);
        let budget = self.most_requests.map(|count| Arc::new(generator::Budget::new(count)));
        let mut threads = Vec::new();
        for index in 0..self.threads.max(1) {
            let share = generator::Share { index, of: self.threads.max(1), begin, window, budget: budget.clone() };
            let plan = self.clone();
            let body = move || generator::run(&plan, &share);
            threads.push(thread::Builder::new().name(format!("load-{index}")).spawn(body).context("start a generator thread")?);
        }
        let outcome = self.watch(window, budget.as_deref());
        // Threads end by themselves after the drain, also when the watch was interrupted; nothing is left running.
        let mut total = Tally::default();
        for thread in threads {
            let tally = thread.join().map_err(|_| anyhow::anyhow!("a generator thread panicked"))?;
            total.merge(&tally?);
        }
        let (before, after) = outcome?;
        Ok(total.measurement(before, after))
    }

    /// Samples the process under test at both ends of the window.
    fn watch(&self, window: (Instant, Instant), budget: Option<&generator::Budget>) -> Result<(Sample, Sample)> {
        interrupt::sleep_until(window.0)?;
        let before = Sample::take(self.process);
        let end = loop {
            if budget.is_some_and(generator::Budget::spent) {
                break Instant::now();
            }
            let slice = if budget.is_some() { Instant::now() + Duration::from_millis(5) } else { window.1 };
            interrupt::sleep_until(slice.min(window.1))?;
            if Instant::now() >= window.1 {
                break window.1;
            }
        };
        let mut after = Sample::take(self.process);
        after.at = after.at.min(end.max(before.at));
        Ok((before, after))
    }
}

/// Accounting at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    at: Instant,
    process: Option<Usage>,
    own: Usage,
}

impl Sample {
    fn take(process: Option<u32>) -> Self {
        Self { at: Instant::now(), process: process.map(Usage::of_tree), own: Usage::of_self() }
    }
}

/// How requests to one target look.
#[derive(Debug, Clone, Default)]
pub(crate) struct RequestStyle {
    /// Headers besides the usual ones, such as authentication.
    pub(crate) headers: Vec<(String, String)>,
    /// Approximate size of the body, bytes.
    pub(crate) body_bytes: usize,
    /// Number of different conversations.
    pub(crate) variants: usize,
}

/// Whole requests to `target`; `vary` names the model, and may add headers, for each variant.
pub(crate) fn requests(
    target: &Target,
    scenario: Scenario,
    style: &RequestStyle,
    vary: impl Fn(usize) -> (String, Vec<(String, String)>),
) -> Arc<[Bytes]> {
    let stream = scenario.stream().is_some();
    let build = |variant: usize| {
        let (model, headers) = vary(variant);
        let body = body::chat_request(&model, stream, style.body_bytes, variant as u64 + 1);
        let mut request = format!(
            "POST {}/chat/completions HTTP/1.1\r\nhost: {}:{}\r\nuser-agent: tidegate-loadtest\r\naccept: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n",
            target.path,
            target.host,
            target.address.port(),
            if stream { "text/event-stream" } else { "application/json" },
            body.len(),
        );
        for (name, value) in style.headers.iter().chain(&headers) {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        Bytes::from([request.into_bytes(), body].concat())
    };
    (0..style.variants.max(1)).map(build).collect()
}
