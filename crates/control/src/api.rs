//! What other processes can ask of a control node.

pub mod sync;
