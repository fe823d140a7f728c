//! A fake provider: a server on a loopback port that answers like the real ones, at the pace and with the faults one asks for.
//!
//! It is the upstream of `tidegate dev`, of the system tests and of the load test. It reads and writes the dialects by itself and
//! shares no code with the gateway: a mistake in the gateway's reading of a dialect would otherwise be made on both sides and found
//! by no test. Answers depend only on the seed and the question, so two runs say the same.
//!
//! It is not a model, and it is no reference for what a provider accepts: it refuses only what every provider refuses.

#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod answer;
mod ask;
mod body;
mod deliver;
mod dialect;
mod exchange;
mod fault;
mod prompt_cache;
mod rate_limit;
mod recorded;
mod schema;
mod script;
mod server;
mod sim;
mod socket;
mod spec;
mod state;
mod text;

pub use dialect::Dialect;
pub use fault::{Fault, FaultRule, Schedule};
pub use recorded::RecordedRequest;
pub use script::{Script, ScriptError};
pub use sim::{Sim, SimHandle};
pub use spec::{Answering, FixedAnswer, PromptCacheSpec, RateLimitSpec, SimSpec, Timing};
pub use state::{Disconnect, Stats};

#[cfg(test)]
mod tests;
