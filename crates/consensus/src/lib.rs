//! Consensus: owns every openraft type, so that nothing else in the tree knows which Raft library there is.
//!
//! It agrees on an order of opaque entries and feeds them to an application; what the entries mean is the application's business.

#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used))]
