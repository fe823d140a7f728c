//! The state as what consensus applies entries to: bytes in, bytes out, and each result published.

use bytes::Bytes;
use prost::Message;
use tidegate_proto::v1::{Command, RefusalCode, Refused, Reply, reply};

use crate::published::Published;
use crate::state::{SectionError, State};

/// The state of this node.
pub struct Machine {
    state: State,
    published: Published,
}

impl Machine {
    /// An empty state, published at once.
    pub fn new() -> Machine {
        let state = State::default();
        Machine { published: Published::new(state.clone()), state }
    }

    /// Where the state is published.
    pub fn published(&self) -> &Published {
        &self.published
    }

    /// Applies one entry: an encoded [`Command`] in, an encoded [`Reply`] out.
    pub fn apply(&mut self, index: u64, term: u64, payload: Bytes) -> Bytes {
        let reply = match Command::decode(payload) {
            Ok(command) => self.state.apply(index, term, &command),
            Err(error) => {
                self.state.skip(index, term);
                malformed(&error)
            }
        };
        self.published.publish(&self.state);
        reply.encode_to_vec().into()
    }

    /// A copy for a snapshot; costs nothing.
    pub fn freeze(&self) -> State {
        self.state.clone()
    }

    /// Replaces the state by that of a snapshot.
    ///
    /// # Errors
    /// As [`State::from_sections`]; the state is then the one before.
    pub fn restore(&mut self, sections: Vec<(String, Bytes)>) -> Result<(), SectionError> {
        self.state = State::from_sections(sections)?;
        self.published.publish(&self.state);
        Ok(())
    }
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}

fn malformed(error: &prost::DecodeError) -> Reply {
    let message = format!("the entry is not a command: {error}");
    Reply { outcome: Some(reply::Outcome::Refused(Refused { code: RefusalCode::Malformed.into(), message, revision: 0 })) }
}
