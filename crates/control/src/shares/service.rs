//! The shell around [`ShareTable`]: the lock, the log, and the calls between control nodes.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::Registry;
use tidegate_consensus::{Role as RaftRole, Status as RaftStatus};
use tidegate_proto::v1::shares_client::SharesClient;
use tidegate_proto::v1::shares_server::{Shares, SharesServer};
use tidegate_proto::v1::{Assign, Command, GrantBatch, ShareAnswers, ShareReports, command};
use tidegate_runtime::mesh::{Peer, Role};
use tidegate_runtime::{Clock, Tasks};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use super::metrics::{Passed, ShareMetrics};
use super::table::{ReadLimits, Reporter, ShareTable};
use crate::leader::leads;
use crate::proposer::{Proposer, SubmitError};
use crate::published::Published;
use crate::publisher::{Followers, Introduction};
use crate::relay::Peers;

/// What the service works with.
pub struct ShareParts {
    /// How grants get agreed on, and who leads.
    pub proposer: Proposer,
    /// The agreed state.
    pub published: Published,
    /// Connections to other control nodes.
    pub peers: Arc<Peers>,
    /// Edges that follow this node.
    pub followers: Followers,
    /// Reads what is declared.
    pub read: ReadLimits,
    /// Longest age of a quorum's acknowledgement with which a leader may act: the longest election timeout.
    pub lease: Duration,
    /// This node's clock.
    pub clock: Clock,
    /// Owns what is on its way.
    pub tasks: Tasks,
}

/// One node's part in shared limits. Cheap to clone.
#[derive(Clone)]
pub struct ShareService {
    inner: Arc<Inner>,
}

struct Inner {
    parts: ShareParts,
    /// The books of the term that this node leads in.
    books: Mutex<Option<(u64, ShareTable)>>,
    on_their_way: Arc<Semaphore>,
    metrics: ShareMetrics,
}

impl ShareService {
    /// A service without its task; see [`ShareService::start`].
    ///
    /// # Errors
    /// A metric of these names exists in the registry.
    pub fn new(parts: ShareParts, registry: &Registry) -> prometheus::Result<Self> {
        let metrics = ShareMetrics::register(registry)?;
        let on_their_way = Arc::new(Semaphore::new(ON_THEIR_WAY));
        Ok(Self { inner: Arc::new(Inner { parts, books: Mutex::new(None), on_their_way, metrics }) })
    }

    /// Starts leading the books while this node leads, and agreeing on grants. Ends with the stop of the tasks.
    pub fn start(&self) {
        let inner = Arc::clone(&self.inner);
        let shutdown = inner.parts.tasks.shutdown().clone();
        self.inner.parts.tasks.spawn("shares", async move {
            loop {
                // Dropping the sleep is safe: there is nothing in it.
                tokio::select! {
                    () = shutdown.requested() => return,
                    () = tokio::time::sleep(TICK) => {}
                }
                inner.lead().await;
            }
        });
    }

    /// Passes on what an edge that follows this node reports, and the answer back. What does not fit or gets no answer is lost: the edge
    /// reports again.
    pub fn take(&self, introduction: &Introduction, reports: ShareReports) {
        let inner = Arc::clone(&self.inner);
        let Ok(permit) = Arc::clone(&inner.on_their_way).try_acquire_owned() else {
            return inner.metrics.passed(Passed::Dropped);
        };
        let edge = introduction.edge.clone();
        let reports = ShareReports { region: introduction.region.clone(), edge: edge.clone(), instance: introduction.instance, ..reports };
        let tasks = inner.parts.tasks.clone();
        tasks.spawn("share-reports", async move {
            match inner.ask_home(reports).await {
                Some(assign) => {
                    inner.parts.followers.offer_shares(&edge, &assign);
                    inner.metrics.passed(Passed::Answered);
                }
                None => inner.metrics.passed(Passed::Unanswered),
            }
            drop(permit);
        });
    }

    /// What other control nodes call.
    pub fn grpc(&self) -> SharesServer<ShareService> {
        SharesServer::new(self.clone())
    }

    /// Name, whole, cell and part of every share and grant, while this node leads.
    pub fn shown(&self) -> Vec<(String, u64, String, u64)> {
        let now = self.inner.parts.clock.micros();
        self.inner.books.lock().as_ref().map_or_else(Vec::new, |(_, table)| table.shown(now))
    }
}

impl Inner {
    /// The leader's answer, from here or from where it is.
    async fn ask_home(&self, reports: ShareReports) -> Option<Assign> {
        let status = self.parts.proposer.agreement().status();
        if status.role == RaftRole::Leader {
            return self.answer(&reports);
        }
        let address = status.leader_member()?.instance.address;
        let call = async { SharesClient::new(self.parts.peers.channel(&address)).report(reports).await };
        match tokio::time::timeout(PATIENCE, call).await {
            Ok(Ok(answer)) => Some(answer.into_inner()).filter(|answer| answer.leads).and_then(|answer| answer.assign),
            Ok(Err(status)) => {
                tracing::debug!(%address, %status, "pass reports about shared limits on to the leader");
                None
            }
            Err(_elapsed) => None,
        }
    }

    /// The answer of this node, if it leads, its books are open, and a quorum has said so lately. The status is that of this moment, after
    /// the report came: an assignment's lease runs from when the report was sent, so it cannot outlive what this looks at.
    fn answer(&self, reports: &ShareReports) -> Option<Assign> {
        let status = self.parts.proposer.agreement().status();
        if !leads(&status, self.parts.lease) {
            return None;
        }
        let mut books = self.books.lock();
        let (term, table) = books.as_mut()?;
        if *term != status.term {
            return None;
        }
        let (now, unix_us) = (self.parts.clock.micros(), self.parts.clock.unix_micros());
        Some(table.report(&self.parts.published.load(), &Reporter::of(reports), &reports.reports, now, unix_us))
    }

    /// Opens the books of a new term, closes them when this node does not lead, and gets grants agreed on.
    async fn lead(&self) {
        let status = self.parts.proposer.agreement().status();
        if status.role != RaftRole::Leader {
            if self.books.lock().take().is_some() {
                self.metrics.in_use(0, 0);
            }
            return;
        }
        if !leads(&status, self.parts.lease) {
            return;
        }
        let is_open = self.books.lock().as_ref().is_some_and(|(term, _)| *term == status.term);
        if !is_open {
            return self.open(&status).await;
        }
        let now = self.parts.clock.micros();
        let batch = self.books.lock().as_mut().and_then(|(_, table)| {
            let (rates, budgets) = table.len();
            self.metrics.in_use(rates, budgets);
            table.pending(now)
        });
        if let Some(batch) = batch {
            self.agree(status.term, batch).await;
        }
    }

    /// A new leader begins with everything that was agreed before it.
    async fn open(&self, status: &RaftStatus) {
        // The books begin now; grants of the leader before are all applied when the barrier has passed.
        let now = self.parts.clock.micros();
        if let Err(error) = self.parts.proposer.agreement().read_barrier().await {
            return tracing::debug!(%error, "the books of shared limits wait for the state");
        }
        let overlap = u64::try_from(self.parts.lease.as_micros()).unwrap_or(u64::MAX);
        // The barrier also says that no other node led meanwhile: a term is led once.
        let table = ShareTable::new(Arc::clone(&self.parts.read), status.term, overlap, now);
        *self.books.lock() = Some((status.term, table));
    }

    async fn agree(&self, term: u64, batch: GrantBatch) {
        let command =
            Command { actor: "system/shares".to_owned(), term, body: Some(command::Body::GrantBatch(batch.clone())), ..Command::default() };
        // Straight to this node's log: what a leader that lost its place would lend is not for another.
        match self.parts.proposer.here_only(command).await {
            Ok(()) => {
                self.metrics.entries.inc();
                self.metrics.grants.inc_by(batch.grants.len() as u64);
                let state = self.parts.published.load();
                if let Some((_, table)) = self.books.lock().as_mut().filter(|(open, _)| *open == term) {
                    table.agreed(&batch, &state);
                }
            }
            // The same is proposed again with the next tick, unless another node leads then; what it would lend counts meanwhile.
            Err(error @ (SubmitError::Refused(_) | SubmitError::Stopped(_))) => tracing::warn!(%error, "grants could not be agreed on"),
            Err(error) => tracing::debug!(%error, "grants were not agreed on yet"),
        }
    }
}

#[tonic::async_trait]
impl Shares for ShareService {
    async fn report(&self, request: Request<ShareReports>) -> Result<Response<ShareAnswers>, Status> {
        if let Some(Peer { name: Some(name), .. }) = request.extensions().get::<Peer>()
            && name.role() != Role::Control
        {
            return Err(Status::permission_denied(format!("{name} is not a control node")));
        }
        let assign = self.inner.answer(request.get_ref());
        Ok(Response::new(ShareAnswers { leads: assign.is_some(), assign }))
    }
}

/// At most four entries a second, and none while nothing is lent.
const TICK: Duration = Duration::from_millis(250);
/// Longer than the longest round trip between regions; the edge has reported again by then.
const PATIENCE: Duration = Duration::from_secs(1);
/// Messages of edges on their way to the leader: of a thousand edges, each a few a second.
const ON_THEIR_WAY: usize = 1_024;
