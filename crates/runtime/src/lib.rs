//! What every Tidegate process needs, whatever its role: owned tasks and an orderly stop, a clock, the operations port, logs,
//! traces, TLS material and back-off.
//!
//! This is not a framework: nothing here knows about requests, models or providers, and no global state is kept beside the log
//! subscriber and the panic hook. It is the only crate that starts tasks and the only one that asks the machine for the time.

#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod api_key;
pub mod backoff;
pub mod clock;
pub mod dev_ca;
pub mod listen;
pub mod logging;
pub mod mesh;
pub mod memory;
pub mod ops;
pub mod sealing;
pub mod signals;
pub mod tasks;
pub mod telemetry;
pub mod tls;

pub use clock::Clock;
pub use tasks::{Shutdown, Tasks};
