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

    /// Whether an entry says nothing but what this version knows. What it does not know is lost in reading, and missed when written again.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn understands(payload: &[u8]) -> Result<(), String> {
        match Command::decode(payload) {
            Ok(command) if command.encoded_len() < payload.len() => {
                Err(format!("{} of the {} bytes of a command are not known here", payload.len() - command.encoded_len(), payload.len()))
            }
            // What is no command at all is answered as such, by every version alike.
            Ok(_) | Err(_) => Ok(()),
        }
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

#[cfg(test)]
mod tests {
    use tidegate_proto::v1::{EditKey, command};

    use super::*;

    #[test]
    fn a_command_of_a_newer_version_is_seen_wherever_it_is_newer() {
        let edit = EditKey { public_id: "k".into(), disabled: Some(false), expected_revision: Some(0), ..EditKey::default() };
        let known = Command { actor: "ann".into(), leader_time_ms: 7, body: Some(command::Body::EditKey(edit)), ..Command::default() };
        let mut bytes = known.encode_to_vec();
        assert_eq!(Machine::understands(&bytes), Ok(()));
        assert_eq!(Machine::understands(b"no command"), Ok(()), "no version reads that");
        // Field 1000, a number: a body or a field that is yet to come.
        bytes.extend_from_slice(&[0xc0, 0x3e, 7]);
        let unknown = Machine::understands(&bytes).unwrap_err();
        assert!(unknown.contains("3 of the"), "{unknown}");
    }
}
