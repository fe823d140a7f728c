//! One more use of the same servers: commands of whoever keeps something beside the counters, with the same time-outs and reconnects.

use redis::{Cmd, Value};

use super::lines::Lines;
use super::options::RedisOptions;
use crate::store::StoreError;

/// Connections of their own, so that a large answer never holds up a decision.
pub struct RedisLink {
    lines: Lines,
    call_timeout: std::time::Duration,
}

impl RedisLink {
    /// Connects lazily. `call_timeout` takes the place of the options' own: nobody waits for these calls with a request in hand.
    ///
    /// # Errors
    /// When an address or a certificate cannot be understood.
    pub fn new(mut options: RedisOptions, call_timeout: std::time::Duration) -> Result<Self, StoreError> {
        options.connections = 1;
        options.call_timeout = call_timeout;
        Ok(Self { lines: Lines::new(options)?, call_timeout })
    }

    /// Runs a command on a primary. In a cluster all its keys must be in one slot.
    ///
    /// # Errors
    /// When the server does not answer in time, or refuses.
    pub async fn run(&self, operation: &'static str, command: &Cmd) -> Result<Value, StoreError> {
        match tokio::time::timeout(self.call_timeout, self.lines.run(command)).await {
            Ok(answer) => answer.map_err(|error| StoreError::Unavailable { operation, detail: error.to_string() }),
            Err(_) => Err(StoreError::Timeout { operation, millis: u64::try_from(self.call_timeout.as_millis()).unwrap_or(u64::MAX) }),
        }
    }
}
