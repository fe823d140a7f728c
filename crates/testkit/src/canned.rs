//! A provider that gives one answer to everything: error bodies and oddities that no simulation makes up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::raw::RawUpstream;
use crate::topology::ProviderDraft;

/// A running one. Ends with the test's runtime.
pub struct Canned {
    url: String,
    answer: Arc<Mutex<Said>>,
    hits: Arc<AtomicU64>,
}

#[derive(Clone)]
struct Said {
    /// Status line without the version, such as `429 Too Many Requests`.
    status: String,
    /// Header lines, each with its line end.
    headers: String,
    body: String,
}

impl Canned {
    /// Starts one that answers with this status, such as `404 Not Found`, and this body.
    pub async fn start(status: &str, body: &str) -> Self {
        let upstream = RawUpstream::bind().await;
        let url = upstream.url();
        let said = Said { status: status.to_owned(), headers: String::new(), body: body.to_owned() };
        let answer = Arc::new(Mutex::new(said));
        let hits = Arc::new(AtomicU64::new(0));
        spawn(serve(upstream, Arc::clone(&answer), Arc::clone(&hits)));
        Self { url, answer, hits }
    }

    /// Answers with this from now on. `headers` are whole lines, such as `retry-after: 5\r\n`.
    pub fn set(&self, status: &str, headers: &str, body: &str) {
        *self.answer.lock() = Said { status: status.to_owned(), headers: headers.to_owned(), body: body.to_owned() };
    }

    /// Requests answered so far.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::SeqCst)
    }
}

impl ProviderDraft {
    /// Puts a canned provider in the place of the simulation.
    pub fn served_by(&mut self, canned: &Canned) {
        let url = canned.url.clone();
        self.provider = Box::new(move |provider| provider.info.base_url = url.as_str().into());
    }
}

/// One connection after the other: an answer each, then the connection is closed.
async fn serve(upstream: RawUpstream, answer: Arc<Mutex<Said>>, hits: Arc<AtomicU64>) {
    loop {
        let mut exchange = upstream.accept().await;
        hits.fetch_add(1, Ordering::SeqCst);
        let said = answer.lock().clone();
        let headers = format!("content-type: application/json\r\nconnection: close\r\n{}", said.headers);
        exchange.answer(&said.status, &headers, &said.body).await;
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's provider has no task set; it ends with the test's runtime at the latest")]
fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}
