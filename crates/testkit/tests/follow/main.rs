//! Edges that follow control nodes, in virtual time: the real gRPC code, the real link and the real sync service over a network in memory.
//!
//! Every run of a seed is the same. A seed that fails prints the command that runs it alone; `TIDEGATE_FOLLOW_SEEDS=N` runs more of them,
//! `TIDEGATE_FOLLOW_SEED=N` one.

mod hour;
mod poison;
mod revocation;
mod seeds;
mod trouble;
mod world;
