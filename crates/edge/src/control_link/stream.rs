//! One stream to one control node.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tidegate_proto::v1::sync_client::SyncClient;
use tidegate_proto::v1::{ControlMessage, EdgeMessage, Goodbye, Hello, edge_message};
use tidegate_runtime::mesh::{ChannelOptions, Dial, Expect, Role, channel, dial_error};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::config::ControlEndpoint;

/// An open stream.
pub(super) struct Stream {
    pub(super) endpoint: ControlEndpoint,
    /// The connection, for other calls.
    pub(super) channel: Channel,
    incoming: Streaming<ControlMessage>,
    outgoing: mpsc::Sender<EdgeMessage>,
}

/// Why there is none.
#[derive(Debug, Error)]
pub(super) enum OpenError {
    #[error("control node {address}: {reason}")]
    Unreachable { address: String, reason: String },
    /// It can be reached and does not want us.
    #[error("control node {address} refuses this edge: {reason}")]
    Refused { address: String, reason: String },
}

/// Connects and introduces the edge.
pub(super) async fn open(dial: Arc<dyn Dial>, endpoint: ControlEndpoint, hello: Hello) -> Result<Stream, OpenError> {
    let address = endpoint.address.clone();
    let expect = Expect { role: Role::Control, region: endpoint.region.clone() };
    let options = ChannelOptions { stream_window: STREAM_WINDOW, connection_window: CONNECTION_WINDOW, ..ChannelOptions::default() };
    let channel = channel(dial, address.clone(), expect, options);
    let mut client = SyncClient::new(channel.clone()).max_decoding_message_size(LARGEST_MESSAGE);
    let (outgoing, queue) = mpsc::channel(OUTGOING);
    // The queue is new and has room.
    let _ = outgoing.try_send(EdgeMessage { body: Some(edge_message::Body::Hello(hello)) });
    match timeout(OPEN_TIMEOUT, client.follow(ReceiverStream::new(queue))).await {
        Ok(Ok(response)) => Ok(Stream { endpoint, channel, incoming: response.into_inner(), outgoing }),
        Ok(Err(status)) => Err(of_status(address, &status)),
        Err(_elapsed) => Err(OpenError::Unreachable { address, reason: format!("no answer within {} s", OPEN_TIMEOUT.as_secs()) }),
    }
}

impl Stream {
    /// The next message; `Ok(None)` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<ControlMessage>, Status> {
        self.incoming.message().await
    }

    /// Says that this edge stops, and waits until the node has heard it or for a moment.
    pub(super) async fn leave(self) {
        let Stream { mut incoming, outgoing, .. } = self;
        let leaving = async {
            if outgoing.send(EdgeMessage { body: Some(edge_message::Body::Goodbye(Goodbye {})) }).await.is_ok() {
                // What was queued is sent, then the stream ends.
                drop(outgoing);
                while let Ok(Some(_)) = incoming.message().await {}
            }
        };
        // Cutting it short is safe: the node then takes this edge for one that may serve on.
        let _ = timeout(LEAVE_TIMEOUT, leaving).await;
    }

    /// Says something; whether it will be sent. What does not fit is not: everything that an edge says is said again in another form.
    pub(super) fn say(&self, body: edge_message::Body) -> bool {
        self.outgoing.try_send(EdgeMessage { body: Some(body) }).is_ok()
    }
}

impl Stream {
    /// Whether all reports that may be on their way at once would be sent. They are numbered: one that was left out could not follow later.
    pub(super) fn has_room(&self) -> bool {
        self.outgoing.capacity() > OUTGOING / 2
    }
}

fn of_status(address: String, status: &Status) -> OpenError {
    if let Some(error) = dial_error(status) {
        return OpenError::Unreachable { address, reason: error.to_string() };
    }
    let reason = status.message().to_owned();
    match status.code() {
        Code::FailedPrecondition | Code::PermissionDenied | Code::InvalidArgument | Code::Unauthenticated => {
            OpenError::Refused { address, reason }
        }
        code => OpenError::Unreachable { address, reason: format!("{code:?}: {reason}") },
    }
}

/// Time to connect and to be let in.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Longer than the longest round trip between regions.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);
/// Messages that wait to be sent: reports, confirmations and refusals, a few per second.
const OUTGOING: usize = 64;
/// A part has about 32 KiB, one resource at most a megabyte.
const LARGEST_MESSAGE: usize = 4 << 20;
/// What a control node may send ahead: enough for a snapshot over a long way, and what an edge that hangs costs the node's kernel.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 512 << 10;
