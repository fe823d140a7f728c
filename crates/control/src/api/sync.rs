//! The sync service: one stream per edge.
//!
//! A stream is one task. It takes what the edge says at any time; it looks for something to say only once the edge's connection has taken
//! nearly all that was said before, so that an edge that reads slowly costs no more than `pace` says, and an edge that reads nothing for a
//! minute is let go.

mod admission;
mod pace;

use std::sync::Arc;
use std::time::Duration;

use tidegate_proto::Kind;
use tidegate_proto::v1::sync_server::Sync;
use tidegate_proto::v1::{
    ControlMessage, EdgeMessage, EdgesReply, EdgesRequest, GoAway, HealthReport, Hello, KeyInfo, ManageReply, ManageRequest, ShareReports,
    Welcome, control_message, edge_message,
};
use tidegate_runtime::mesh::{Peer, Role};
use tidegate_runtime::{Clock, Tasks};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

pub use admission::SyncLimits;
use admission::{Admission, Seat};
use pace::Pace;

use crate::admin::Admin;
use crate::published::Published;
use crate::publisher::{BOOKMARK_EVERY_MS, Cursor, Followers, Introduction, Step};

/// What this node says of itself to edges.
#[derive(Debug, Clone)]
pub struct Presence {
    /// The cluster; an edge of another one is refused.
    pub cluster_id: String,
    /// Name of this node.
    pub node: String,
    /// Its region.
    pub region: String,
    /// Version of this build.
    pub build: String,
}

/// Takes in what edges report of health.
pub type TakeReport = Arc<dyn Fn(&Introduction, HealthReport) + Send + std::marker::Sync>;

/// Passes on what edges report of limits that span regions.
pub type TakeShares = Arc<dyn Fn(&Introduction, ShareReports) + Send + std::marker::Sync>;

/// How old what this node serves may be, milliseconds: the time since it last knew that it is up to date.
pub type Staleness = Arc<dyn Fn() -> u64 + Send + std::marker::Sync>;

/// What the service works with.
pub struct SyncParts {
    /// Who this node is; asked anew for each stream, as the cluster may be initialised after the listener is up.
    pub presence: Arc<dyn Fn() -> Option<Presence> + Send + std::marker::Sync>,
    /// The agreed state.
    pub published: Published,
    /// Where edges are entered.
    pub followers: Followers,
    /// Where reports go.
    pub take_report: TakeReport,
    /// Where reports about shared limits go.
    pub take_shares: TakeShares,
    /// See [`Staleness`].
    pub staleness: Staleness,
    /// Answers what management keys ask through edges.
    pub admin: Admin,
    /// Bounds.
    pub limits: SyncLimits,
    /// Time.
    pub clock: Clock,
    /// Owns the streams' tasks.
    pub tasks: Tasks,
}

/// The service; mount it with `SyncServer::new`.
pub struct SyncService {
    parts: Arc<SyncParts>,
    admission: Admission,
    snapshots: Arc<Semaphore>,
    clock: Clock,
}

impl SyncService {
    /// A service over these parts.
    pub fn new(parts: SyncParts) -> Self {
        let clock = parts.clock;
        Self {
            admission: Admission::new(parts.limits, clock),
            snapshots: Arc::new(Semaphore::new(parts.limits.snapshots)),
            clock,
            parts: Arc::new(parts),
        }
    }
}

#[tonic::async_trait]
impl Sync for SyncService {
    type FollowStream = ReceiverStream<Result<ControlMessage, Status>>;

    async fn follow(&self, request: Request<Streaming<EdgeMessage>>) -> Result<Response<Self::FollowStream>, Status> {
        let Some(presence) = (self.parts.presence)() else {
            return Err(Status::unavailable("this control node belongs to no cluster yet"));
        };
        let seat = self.admission.admit().map_err(|why| Status::resource_exhausted(why.to_string()))?;
        let peer = request.extensions().get::<Peer>().cloned();
        let mut incoming = request.into_inner();
        let hello = match timeout(HELLO_TIMEOUT, incoming.message()).await {
            Ok(Ok(Some(EdgeMessage { body: Some(edge_message::Body::Hello(hello)) }))) => hello,
            Ok(Ok(_)) => return Err(Status::invalid_argument("a stream begins with `Hello`")),
            Ok(Err(status)) => return Err(status),
            Err(_elapsed) => return Err(Status::deadline_exceeded("no `Hello` came in time")),
        };
        let introduction = introduced(&hello, peer.as_ref(), &presence)?;
        let cursor = Cursor::resume(&introduction.edge, hello.resume.as_ref(), &self.parts.published.load());
        tracing::info!(
            edge = %introduction.edge,
            region = %introduction.region,
            address = %introduction.address,
            resumes = cursor.sent(),
            "an edge follows"
        );
        // One message in flight besides what HTTP/2 holds: the next one is made when this one was taken.
        let (outgoing, stream) = mpsc::channel(1);
        let conversation = Conversation {
            parts: Arc::clone(&self.parts),
            snapshots: Arc::clone(&self.snapshots),
            clock: self.clock,
            presence,
            introduction,
            cursor,
            incoming,
            outgoing,
            pace: Pace::new(peer.map(|peer| peer.carried).unwrap_or_default()),
            permit: None,
            _seat: seat,
        };
        self.parts.tasks.spawn("sync-stream", conversation.run());
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn edges(&self, request: Request<EdgesRequest>) -> Result<Response<EdgesReply>, Status> {
        if let Some(Peer { name: Some(name), .. }) = request.extensions().get::<Peer>()
            && name.role() == Role::Edge
        {
            return Err(Status::permission_denied("edges do not ask for edges"));
        }
        let asked = request.into_inner();
        if asked.revoked > 0 {
            let patience = Duration::from_millis(u64::from(asked.wait_ms)).min(LONGEST_WAIT);
            self.parts.followers.revoked(asked.revoked, patience).await;
        }
        let now_ms = self.clock.unix_millis();
        Ok(Response::new(EdgesReply { edges: self.parts.followers.statuses(now_ms), gone: self.parts.followers.gone(now_ms) }))
    }

    async fn manage(&self, request: Request<ManageRequest>) -> Result<Response<ManageReply>, Status> {
        let through = match request.extensions().get::<Peer>().and_then(|peer| peer.name.as_ref()) {
            Some(name) if name.role() != Role::Edge => return Err(Status::permission_denied(format!("{name} is not an edge"))),
            Some(name) => name.name().to_owned(),
            None => "an edge without a certificate".to_owned(),
        };
        Ok(Response::new(self.parts.admin.manage(&through, request.into_inner()).await))
    }
}

/// Who the edge is: what its certificate says wins over what it says.
fn introduced(hello: &Hello, peer: Option<&Peer>, presence: &Presence) -> Result<Introduction, Status> {
    if !hello.cluster_id.is_empty() && hello.cluster_id != presence.cluster_id {
        return Err(Status::failed_precondition(format!(
            "this control node belongs to cluster `{}`, the edge follows `{}`; to let it follow this one, remove its state directory",
            presence.cluster_id, hello.cluster_id
        )));
    }
    if hello.schema_max < SCHEMA {
        return Err(Status::failed_precondition(format!(
            "the edge speaks version {} of the sync protocol, this node needs {SCHEMA}; upgrade the edge",
            hello.schema_max
        )));
    }
    let (mut edge, mut region) = (hello.edge_id.clone(), hello.region.clone());
    if let Some(name) = peer.and_then(|peer| peer.name.as_ref()) {
        if name.role() != Role::Edge {
            return Err(Status::permission_denied(format!("{name} is not an edge")));
        }
        (edge, region) = (name.name().to_owned(), name.region().to_owned());
    }
    if edge.is_empty() || edge.len() > NAME_BYTES || region.len() > NAME_BYTES || hello.build.len() > NAME_BYTES {
        return Err(Status::invalid_argument("an edge has a name, and name, region and build have at most 256 bytes"));
    }
    let address = peer.map(|peer| peer.address.to_string()).unwrap_or_default();
    Ok(Introduction { edge, region, build: hello.build.clone(), address, instance: hello.instance })
}

/// One stream. Ends when the edge leaves or stops reading, when it is sent away, and when the node shuts down.
struct Conversation {
    parts: Arc<SyncParts>,
    snapshots: Arc<Semaphore>,
    clock: Clock,
    presence: Presence,
    introduction: Introduction,
    cursor: Cursor,
    incoming: Streaming<EdgeMessage>,
    outgoing: mpsc::Sender<Result<ControlMessage, Status>>,
    pace: Pace,
    /// Held from the beginning of a snapshot to its end.
    permit: Option<OwnedSemaphorePermit>,
    _seat: Seat,
}

impl Conversation {
    async fn run(mut self) {
        let followers = self.parts.followers.clone();
        let follower = followers.join(self.introduction.clone(), self.clock.unix_millis());
        follower.answer(control_message::Body::Welcome(self.welcome()));
        let mut states = self.parts.published.watch();
        let shutdown = self.parts.tasks.shutdown().clone();
        let outgoing = self.outgoing.clone();
        let (mut slot, mut room) = (None, false);
        let mut stalled = Instant::now() + STALL;
        let expires = Instant::now() + self.parts.limits.age(fastrand::f64());
        let mut wake = Instant::now();
        let mut asked_away = false;
        loop {
            // Losing a branch is safe: tonic's reader and the channel's reservation keep what they have, the watch channel and the mail
            // are levels, and the rest are clocks.
            tokio::select! {
                biased;
                () = shutdown.requested(), if !asked_away => {
                    asked_away = true;
                    follower.go_away(GoAway { reason: "this control node shuts down".to_owned(), ..GoAway::default() });
                }
                () = sleep_until(expires), if !asked_away => {
                    asked_away = true;
                    follower.go_away(GoAway { reason: "streams are renewed now and then".to_owned(), ..GoAway::default() });
                }
                said = self.incoming.message() => match said {
                    Ok(Some(message)) => self.hear(&follower, message),
                    Ok(None) | Err(_) => break,
                },
                () = self.pace.has_room(), if slot.is_none() && !room => room = true,
                reserved = outgoing.reserve(), if slot.is_none() && room => match reserved {
                    Ok(free) => slot = Some(free),
                    Err(_closed) => break,
                },
                () = sleep_until(stalled), if slot.is_none() => {
                    tracing::warn!(edge = %self.introduction.edge, "an edge has taken nothing for a minute; its stream ends");
                    break;
                }
                () = follower.mail.notified(), if slot.is_some() => {}
                changed = states.changed(), if slot.is_some() => if changed.is_err() { break },
                () = sleep_until(wake), if slot.is_some() => {}
            }
            let Some(free) = slot.take() else { continue };
            if let Some((message, ends)) = follower.take_mail() {
                room = false;
                follower.waiting(self.pace.hand(&message));
                free.send(Ok(message));
                stalled = Instant::now() + STALL;
                if ends == crate::publisher::Ends::Stream {
                    break;
                }
                continue;
            }
            let now_ms = self.clock.unix_millis();
            let state = states.borrow_and_update().clone();
            match self.cursor.next(&state, now_ms) {
                Step::Send(mut message) => {
                    if let Some(control_message::Body::Bookmark(bookmark)) = &mut message.body {
                        bookmark.stale_ms = (self.parts.staleness)();
                    }
                    room = false;
                    follower.waiting(self.pace.hand(&message));
                    free.send(Ok(*message));
                    stalled = Instant::now() + STALL;
                    follower.sent(self.cursor.sent());
                    if !self.cursor.in_snapshot() {
                        self.permit = None;
                    }
                }
                Step::NeedsSnapshot => {
                    slot = Some(free);
                    match Arc::clone(&self.snapshots).try_acquire_owned() {
                        Ok(permit) => {
                            self.permit = Some(permit);
                            self.cursor.begin_snapshot(&state);
                            wake = Instant::now();
                        }
                        // Others are being served; theirs take a second or so.
                        Err(_none_free) => wake = Instant::now() + SNAPSHOT_POLL,
                    }
                }
                Step::Idle { until_ms } => {
                    slot = Some(free);
                    wake = Instant::now() + Duration::from_millis(until_ms.saturating_sub(now_ms).min(BOOKMARK_EVERY_MS));
                }
            }
        }
        followers.leave(&follower, self.clock.unix_millis());
        tracing::info!(edge = %self.introduction.edge, "an edge left");
    }

    fn hear(&self, follower: &Arc<crate::publisher::Follower>, message: EdgeMessage) {
        let now_ms = self.clock.unix_millis();
        let followers = &self.parts.followers;
        match message.body {
            Some(edge_message::Body::Ack(ack)) => followers.acknowledged(follower, ack, now_ms),
            Some(edge_message::Body::Nack(nack)) => {
                let resource = nack.resource.as_ref().map(|id| format!("{} `{}`", id.kind, id.name)).unwrap_or_default();
                tracing::warn!(
                    edge = %self.introduction.edge,
                    index = nack.index,
                    stage = %nack.stage,
                    %resource,
                    reason = %nack.reason,
                    "an edge refuses what was agreed"
                );
                followers.refused(follower, nack, now_ms);
            }
            Some(edge_message::Body::HealthReport(report)) => {
                follower.heard(now_ms);
                (self.parts.take_report)(&self.introduction, report);
            }
            Some(edge_message::Body::ShareReports(reports)) => {
                follower.heard(now_ms);
                (self.parts.take_shares)(&self.introduction, reports);
            }
            // The edge closes the stream then.
            Some(edge_message::Body::Goodbye(_)) => follower.goodbye(),
            Some(edge_message::Body::Answers(answers)) => follower.answered(answers, now_ms),
            Some(edge_message::Body::KeyMiss(miss)) => {
                follower.heard(now_ms);
                let state = self.parts.published.load();
                let key = state.get(Kind::Key, &miss.public_id).map(|resource| resource.as_ref().clone());
                follower.answer(control_message::Body::KeyInfo(KeyInfo { public_id: miss.public_id, key, index: state.applied() }));
            }
            // A second introduction changes nothing; usage is acknowledged by whoever stores it.
            Some(edge_message::Body::Hello(_) | edge_message::Body::UsageAck(_)) | None => follower.heard(now_ms),
        }
    }

    fn welcome(&self) -> Welcome {
        Welcome {
            cluster_id: self.presence.cluster_id.clone(),
            node: self.presence.node.clone(),
            region: self.presence.region.clone(),
            build: self.presence.build.clone(),
            schema: SCHEMA,
            report_every_ms: REPORT_EVERY_MS,
            bookmark_every_ms: u32::try_from(BOOKMARK_EVERY_MS).unwrap_or(u32::MAX),
            takes_shares: true,
        }
    }
}

/// Version of the protocol.
const SCHEMA: u32 = 1;
/// How often edges report health (`control-plane.md`, 2.2).
const REPORT_EVERY_MS: u32 = 250;
/// An edge says who it is as soon as it is connected.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// An edge that takes nothing for so long holds an old state for nothing.
const STALL: Duration = Duration::from_secs(60);
/// How often a stream looks whether it is its turn for a snapshot.
const SNAPSHOT_POLL: Duration = Duration::from_millis(100);
/// Longest wait of one `Edges` call.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Longest name, bytes.
const NAME_BYTES: usize = 256;
