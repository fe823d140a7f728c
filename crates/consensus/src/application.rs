//! What consensus asks of the application whose commands it orders.

use bytes::Bytes;

/// A deterministic state machine. Every node feeds it the same entries in the same order.
pub trait Application: Send + Sync + 'static {
    /// Applies one committed command and returns what its proposer gets. Must depend on nothing but the state and the arguments: no
    /// clock, no randomness, no I/O, no failure. A command that makes no sense is answered, not refused by a panic.
    fn apply(&mut self, index: u64, term: u64, payload: Bytes) -> Bytes;

    /// Whether this version knows all that a command says. One that it does not know was written by a newer version: the node stops before it
    /// would make something else of it than the others do, and goes on from there once it is upgraded.
    ///
    /// # Errors
    /// What is not known.
    fn understands(&self, payload: &[u8]) -> Result<(), String> {
        let _ = payload;
        Ok(())
    }

    /// The state as it is now, to be written out later. Must be cheap: commits wait for it.
    fn freeze(&self) -> Box<dyn Frozen>;

    /// Replaces the state by what [`Frozen::sections`] once gave.
    ///
    /// # Errors
    /// When the sections do not make a state. The node then stops rather than serving a part of one.
    fn restore(&mut self, sections: Vec<(String, Bytes)>) -> Result<(), RestoreError>;
}

/// A state held still, while the application goes on.
pub trait Frozen: Send + Sync + 'static {
    /// The state as named sections, in an order that depends only on the state. Called on a thread that may block.
    fn sections(&self) -> Vec<(String, Bytes)>;
}

/// The application cannot make a state of a snapshot's sections.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("restore section `{section}`: {reason}")]
pub struct RestoreError {
    /// Name of the section.
    pub section: String,
    /// What is wrong with it.
    pub reason: String,
}
