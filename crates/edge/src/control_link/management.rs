//! Calls of management keys, passed on to the control node that the edge follows.

use std::time::Duration;

use arc_swap::ArcSwapOption;
use thiserror::Error;
use tidegate_proto::v1::sync_client::SyncClient;
use tidegate_proto::v1::{ManageReply, ManageRequest};
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::Code;
use tonic::transport::Channel;

/// The way to the control node. Requests take it from their own tasks; the link keeps it up to date.
pub(crate) struct Management {
    /// Whether there is a control plane at all.
    follows: bool,
    /// Empty while no control node is connected.
    channel: ArcSwapOption<Channel>,
    /// Newest index that this edge holds.
    taken: watch::Sender<u64>,
}

/// Why a call has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum ManageError {
    /// The edge is configured by a file.
    #[error("This gateway has no control plane: its keys stand in its configuration file.")]
    NoControlPlane,
    /// The control node is older than this edge.
    #[error("The control node that this edge follows is too old to manage keys for callers. Upgrade it.")]
    TooOld,
    /// Nothing was done.
    #[error("No control node can be reached at the moment, so keys cannot be managed. Try again shortly.")]
    Away,
    /// It may have been done.
    #[error("The control node did not answer in time; whether it was done is not known. Look before asking again.")]
    Unknown,
}

impl Management {
    /// `follows`: whether there is a control plane.
    pub(crate) fn new(follows: bool) -> Self {
        Self { follows, channel: ArcSwapOption::empty(), taken: watch::Sender::new(0) }
    }

    pub(super) fn connected(&self, channel: Channel) {
        self.channel.store(Some(channel.into()));
    }

    pub(super) fn disconnected(&self) {
        self.channel.store(None);
    }

    pub(super) fn taken(&self, index: u64) {
        self.taken.send_if_modified(|known| std::mem::replace(known, index) != index);
    }

    /// Whether there is a control plane to ask.
    ///
    /// # Errors
    /// [`ManageError::NoControlPlane`].
    pub(crate) fn follows(&self) -> Result<(), ManageError> {
        if self.follows { Ok(()) } else { Err(ManageError::NoControlPlane) }
    }

    /// Asks the control node. When it has changed something, returns once this edge has taken that in, or after two seconds.
    ///
    /// # Errors
    /// When no control node answers.
    pub(crate) async fn ask(&self, request: ManageRequest) -> Result<ManageReply, ManageError> {
        self.follows()?;
        let channel = self.channel.load_full().ok_or(ManageError::Away)?;
        let mut client = SyncClient::new(Channel::clone(&channel));
        let reply = match timeout(PATIENCE, client.manage(request)).await {
            Ok(Ok(reply)) => reply.into_inner(),
            Ok(Err(status)) => {
                tracing::warn!(code = ?status.code(), message = status.message(), "a call of a management key failed");
                return Err(match status.code() {
                    Code::Unimplemented => ManageError::TooOld,
                    Code::PermissionDenied | Code::ResourceExhausted => ManageError::Away,
                    _ => ManageError::Unknown,
                });
            }
            Err(_elapsed) => return Err(ManageError::Unknown),
        };
        let mut taken = self.taken.subscribe();
        // Late is no error: the edge takes it in a moment after the answer.
        let _ = timeout(TAKE_IN, taken.wait_for(|taken| *taken >= reply.revision)).await;
        Ok(reply)
    }
}

/// Longer than a control node looks for a leader.
const PATIENCE: Duration = Duration::from_secs(15);
/// A change reaches a connected edge within milliseconds.
const TAKE_IN: Duration = Duration::from_secs(2);
