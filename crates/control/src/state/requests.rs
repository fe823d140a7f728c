//! Admin requests that were answered, so that one sent again is answered again and not done again.

use std::sync::Arc;

use bytes::Bytes;
use imbl::{OrdMap, Vector};
use tidegate_proto::v1::{AnsweredRequest, Reply};

/// Answers that are kept.
pub const REQUESTS_KEPT: usize = 10_000;

/// Answers by request id, and their age.
#[derive(Debug, Clone, Default)]
pub(super) struct Requests {
    answers: OrdMap<Arc<str>, Arc<AnsweredRequest>>,
    order: Vector<Arc<str>>,
}

/// What is known of a request id.
pub(super) enum Seen {
    Never,
    /// The same request.
    Same(Reply),
    /// Another request.
    Other,
}

impl Requests {
    pub(super) fn look(&self, request_id: &str, digest: &Bytes) -> Seen {
        match self.answers.get(request_id) {
            None => Seen::Never,
            Some(answered) if answered.request_digest != *digest => Seen::Other,
            Some(answered) => Seen::Same(answered.reply.clone().unwrap_or_default()),
        }
    }

    pub(super) fn push(&mut self, answered: AnsweredRequest) {
        let id: Arc<str> = answered.request_id.as_str().into();
        if self.answers.insert(id.clone(), Arc::new(answered)).is_none() {
            self.order.push_back(id);
        }
        while self.order.len() > REQUESTS_KEPT {
            let Some(oldest) = self.order.pop_front() else { break };
            self.answers.remove(&oldest);
        }
    }

    /// Oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<AnsweredRequest>> {
        self.order.iter().filter_map(|id| self.answers.get(id))
    }
}
