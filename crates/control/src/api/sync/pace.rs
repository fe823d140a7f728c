//! How much of what was said to an edge may lie in this node's memory.

use prost::Message;
use tidegate_proto::v1::ControlMessage;
use tidegate_runtime::mesh::Carried;

/// Keeps what the edge's connection has not taken yet at 64 KiB: half of that, and the part that comes next. One resource that is larger than
/// a part goes alone.
#[derive(Debug)]
pub(super) struct Pace {
    carried: Carried,
    /// Where the count of the connection will be, at least, when everything is taken.
    handed: u64,
}

impl Pace {
    pub(super) fn new(carried: Carried) -> Self {
        Self { carried, handed: 0 }
    }

    /// Completes when the next message may be handed over. Dropping it loses nothing.
    pub(super) async fn has_room(&self) {
        self.carried.reached(self.handed.saturating_sub(MOST_LEFT)).await;
    }

    /// A message is handed over; how many bytes then wait to be taken.
    pub(super) fn hand(&mut self, message: &ControlMessage) -> u64 {
        let carried = self.carried.bytes();
        // What HTTP/2 itself says is counted by the connection and not here. Beginning anew whenever nothing waits keeps that from adding up.
        self.handed = self.handed.max(carried) + message.encoded_len() as u64 + FRAME;
        self.handed - carried
    }
}

/// The prefix of a gRPC message.
const FRAME: u64 = 5;
/// As much as a part has (`publisher::transfer`), so that the connection does not run dry while the next one is made.
const MOST_LEFT: u64 = 32 * 1024;
