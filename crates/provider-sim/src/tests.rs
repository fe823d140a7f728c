//! The simulation as its callers see it: over real sockets.

mod answers;
mod client;
mod faults;
mod modes;
